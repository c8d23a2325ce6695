//! The normal form of a URL's path (RFC 3986 §6.2.2), which servers and clients read alike.

/// Returns the path without escapes of unreserved characters and without dot segments. Other escapes stay, so that
/// `%2F` parts no segments. A `%` without two hexadecimal digits becomes `%25`, so that decoding the result gives it
/// back.
#[must_use]
pub fn normal_path(path: &str) -> String {
    without_dot_segments(&with_plain_unreserved(path))
}

fn with_plain_unreserved(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = String::from(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                out.push(char::from(b));
                out.push_str(&part[2..]);
            }
            Some(_) => {
                out.push('%');
                out.push_str(part);
            }
            None => {
                out.push_str("%25");
                out.push_str(part);
            }
        }
    }
    out
}

/// Removes dot segments (RFC 3986 §5.2.4). A path that does not begin with a slash stays as it is.
fn without_dot_segments(path: &str) -> String {
    let Some(inner) = path.strip_prefix('/') else { return path.to_owned() };
    let mut kept = Vec::new();
    let mut segments = inner.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        }
        let is_last = segments.peek().is_none();
        match segment {
            // what they name is a directory
            "." | ".." if is_last => kept.push(""),
            "." | ".." => {}
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::normal_path;

    #[test]
    fn dot_segments_go_also_where_they_are_escaped() {
        for (path, normal) in [
            ("/", "/"),
            ("/1/a", "/1/a"),
            ("*", "*"),
            ("/1/./a", "/1/a"),
            ("/1/%2e/a", "/1/a"),
            ("/1/x/%2E./a", "/1/a"),
            ("/a/b/c/./../../g", "/a/g"),
            ("/1/../2/x", "/2/x"),
            ("/../../../2/x", "/2/x"),
            ("/a/../..//etc", "//etc"),
            ("/1/a//../b", "/1/a/b"),
            ("/1/a/.", "/1/a/"),
            ("/1/a/..", "/1/"),
            ("/..", "/"),
            ("/1/...", "/1/..."),
            ("/1/.a/..b/c.", "/1/.a/..b/c."),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
            assert_eq!(normal_path(normal), normal, "once is enough: {path}");
        }
    }

    #[test]
    fn only_escapes_of_unreserved_characters_are_decoded_and_only_once() {
        for (path, normal) in [
            ("/%31/%41%7a%2D%5f%7E", "/1/Az-_~"),
            ("/1/..%2f2/x", "/1/..%2f2/x"),
            ("/1/%2e%2e%2F2/x", "/1/..%2F2/x"),
            ("/1/%252e%252e/x", "/1/%252e%252e/x"),
            ("/1/%2%65%2%65/x", "/1/%252e%252e/x"),
            ("/1/50%", "/1/50%25"),
            ("/1/%zz%+1%ü", "/1/%25zz%25+1%25ü"),
            ("/1/%00%C3%BC", "/1/%00%C3%BC"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
            assert_eq!(normal_path(normal), normal, "once is enough: {path}");
        }
    }
}
