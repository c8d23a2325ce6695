//! Versions of the client's program, as text and as the number that clients tell CNs.

/// Converts a version `major.minor.patch` to `major << 16 | minor << 8 | patch`; `None` if the text is malformed.
#[must_use]
pub fn number(version: &str) -> Option<u32> {
    let mut parts = version.split('.').map(|part| part.parse::<u8>().ok().map(u32::from));
    let [major, minor, patch] = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(major << 16 | minor << 8 | patch)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_version_has_three_parts_of_one_byte_each() {
        assert_eq!(number("1.2.3"), Some(0x0001_0203));
        assert!(number(env!("CARGO_PKG_VERSION")).is_some());
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.256", "1.2.x", "-1.2.3"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
