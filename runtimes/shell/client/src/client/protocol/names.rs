//! Names of objects, versions and downloads on the command line.

use super::{CachedLine, DownloadLine, Failure};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use swarmedge_core::ids::{ParseIdError, ProviderId, VersionId};
use swarmedge_core::limits::PATH_LEN_MAX;
use swarmedge_core::role::client::io::ObjectRef;
use swarmedge_ground::edge_api::Token;
use swarmedge_ground::error::Code;
use swarmedge_ground::http::{Origin, normal_path};

/// Characters of a path that a URL has to escape.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#').add(b'"').add(b'<').add(b'>');
/// Fewest hexadecimal digits that count as the beginning of an id.
const PREFIX_LEN_MIN: usize = 4;
/// Most candidates that the error about an ambiguous name lists.
const CANDIDATES_MAX: usize = 8;

/// Returns the URL of an object in the form that `get` accepts.
#[must_use]
pub fn url(object: &ObjectRef) -> String {
    format!("swarmedge://{}/{}", object.provider, utf8_percent_encode(&object.path, ESCAPED))
}

/// Returns the object that `https://EDGE[:PORT]/PROVIDER/PATH`, `swarmedge://PROVIDER/PATH` or `PROVIDER/PATH` names.
/// In a URL the path is read as the edge reads it. In `PROVIDER/PATH` each character stands for itself, also `%`, `?`
/// and `#`; only a query with a token is cut off.
pub fn parse_url(url: &str) -> Result<ObjectRef, Failure> {
    // the query after the path may hold a provider's token, which no message may repeat
    let is_url = url.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
    let url =
        if is_url || token_in_url(url).is_some() { url.split(['?', '#']).next().unwrap_or_default() } else { url };
    let bad = |why: &str| {
        let next = "use https://EDGE/PROVIDER/PATH, swarmedge://PROVIDER/PATH or PROVIDER/PATH";
        Failure::new(Code::Usage, format!("{why} in the URL {url:?}"), next)
    };
    let rest = if let Some(rest) = url.strip_prefix("swarmedge://") {
        // the provider is the URL's authority, which dot segments in the path cannot change
        let (provider, path) = rest.split_once('/').ok_or_else(|| bad("no path"))?;
        format!("{provider}{}", normal_path(&format!("/{path}")))
    } else if let Some(rest) = url.strip_prefix("https://") {
        normal_path(&format!("/{}", rest.split_once('/').ok_or_else(|| bad("no provider"))?.1))
    } else if is_url {
        return Err(bad("unknown scheme"));
    } else {
        normal_path(&format!("/{}", utf8_percent_encode(url, ESCAPED)))
    };
    let (provider, path) = rest.trim_start_matches('/').split_once('/').ok_or_else(|| bad("no path"))?;
    let number = provider.parse().map_err(|_| {
        let is_host = !is_url && provider.contains(['.', ':']);
        if is_host { bad("no https:// before the host") } else { bad("the provider is not a number") }
    })?;
    let path = percent_decode_str(path).decode_utf8().map_err(|_| bad("not UTF-8"))?;
    if path.is_empty() || path.len() > PATH_LEN_MAX {
        return Err(bad("empty or overlong path"));
    }
    Ok(ObjectRef { provider: ProviderId(number), path: path.into_owned() })
}

/// Returns the edge that an `https` URL names, as `host:port`, after checking its syntax; `None` for other URLs.
pub fn edge_in_url(url: &str) -> Result<Option<String>, Failure> {
    let Some(rest) = url.strip_prefix("https://") else { return Ok(None) };
    // the path need not be escaped here
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let bad = || {
        let next = "use https://EDGE/PROVIDER/PATH";
        Failure::new(Code::Usage, format!("{host:?} in the URL is neither a host nor host:port"), next)
    };
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|_| !host.ends_with(']'));
    let origin = Origin::parse(&format!("https://{host}/")).filter(|_| port.is_none_or(|p| p.parse::<u16>().is_ok()));
    let origin = origin.ok_or_else(bad)?;
    Ok(Some(origin.authority()))
}

/// Returns the provider's token in a URL: the query parameter, whatever its name, whose value contains `~hmac=`.
#[must_use]
pub fn token_in_url(url: &str) -> Option<Token> {
    let query = url.split('#').next()?.split_once('?')?.1;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|t| t.into_owned());
    let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
    // a value with a literal `~hmac=` is taken without decoding: its escapes are part of the signed text
    values
        .filter_map(|v| if v.contains("~hmac=") { Some(v.to_owned()) } else { decoded(v) })
        .find_map(|v| if v.contains("~hmac=") { Some(Token(v)) } else { None })
}

/// Parses the version id (64 hexadecimal digits) in a request.
pub fn parse_version(text: &str) -> Result<VersionId, Failure> {
    text.parse().map_err(|e: ParseIdError| {
        let next = "a version has 64 hexadecimal digits; `cache list` shows them";
        Failure::new(Code::Usage, format!("{text:?}: {e}"), next)
    })
}

/// Returns the downloads that a number, a URL, `PROVIDER/PATH` or the beginning of a version's or download's id names.
pub fn downloads_named<'a>(name: &str, all: &'a [DownloadLine]) -> Result<Vec<&'a DownloadLine>, Failure> {
    let unknown =
        || Failure::new(Code::NotFound, format!("no download is {name:?}"), "`swarmedge status` lists the downloads");
    let of = |is: &dyn Fn(&DownloadLine) -> bool| -> Vec<&'a DownloadLine> { all.iter().filter(|d| is(d)).collect() };
    let numbered = name.parse::<u32>().map(|n| of(&|d| d.download == n)).unwrap_or_default();
    if !numbered.is_empty() {
        return Ok(numbered);
    }
    let found = match prefix(name) {
        Some(prefix) => {
            let begins = |id: &Option<String>| id.as_ref().is_some_and(|id| id.starts_with(&prefix));
            of(&|d| begins(&d.version) || begins(&d.download_id))
        }
        None if name.bytes().all(|b| b.is_ascii_digit()) => Vec::new(),
        None => {
            let named = url(&parse_url(name)?);
            of(&|d| d.url == named)
        }
    };
    if found.is_empty() { Err(unknown()) } else { Ok(found) }
}

/// Returns the number of the one download that a name means, as for [`downloads_named`]. Fails, and lists the
/// candidates, if there are several.
pub fn download_named(name: &str, all: &[DownloadLine]) -> Result<u32, Failure> {
    match downloads_named(name, all)?[..] {
        [one] => Ok(one.download),
        ref several => {
            let lines = several.iter().map(|d| format!("{} ({}, {})", d.download, d.url, d.state.name()));
            Err(ambiguous(name, "downloads", lines, "name it by its number"))
        }
    }
}

/// Returns the id of the one cached version that a URL, `PROVIDER/PATH` or the beginning of its id names. Fails, and
/// lists the candidates, if there are several.
pub fn version_named(name: &str, all: &[CachedLine]) -> Result<String, Failure> {
    let found: Vec<&CachedLine> = match prefix(name) {
        Some(prefix) => all.iter().filter(|v| v.version.starts_with(&prefix)).collect(),
        None => {
            let named = url(&parse_url(name)?);
            all.iter().filter(|v| v.url.as_ref() == Some(&named)).collect()
        }
    };
    match found[..] {
        [] => {
            let next = "`swarmedge cache list` lists the versions";
            Err(Failure::new(Code::NotFound, format!("no version in the cache is {name:?}"), next))
        }
        [one] => Ok(one.version.clone()),
        ref several => {
            let lines = several.iter().map(|v| {
                format!(
                    "{} ({}, {})",
                    v.version.get(..16).unwrap_or(&v.version),
                    v.url.as_deref().unwrap_or("-"),
                    v.size_bytes
                )
            });
            Err(ambiguous(name, "versions", lines, "give more digits of the version's id"))
        }
    }
}

/// Returns the beginning of an id, in lower case, if the name can be one.
fn prefix(name: &str) -> Option<String> {
    let is_one =
        (PREFIX_LEN_MIN..=2 * VersionId::LEN).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| name.to_ascii_lowercase())
}

fn ambiguous(name: &str, what: &str, lines: impl ExactSizeIterator<Item = String>, next: &str) -> Failure {
    let (n, mut shown) = (lines.len(), lines.take(CANDIDATES_MAX).collect::<Vec<_>>().join("; "));
    if n > CANDIDATES_MAX {
        shown.push_str("; …");
    }
    Failure::new(Code::Usage, format!("{name:?} names {n} {what}: {shown}"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_url_name_the_same_object() {
        let object = ObjectRef { provider: ProviderId(7), path: "a b/c.iso".into() };
        assert_eq!(parse_url("https://edge.example:8443/7/a%20b/c.iso?x=1"), Ok(object.clone()));
        assert_eq!(parse_url("swarmedge://7/a b/c.iso"), Ok(object.clone()));
        for dotted in ["https://e/7/./x/../a b/c.iso", "https://e/1/%2e%2E/7/a b/c.iso", "7/a b/./c.iso"] {
            assert_eq!(parse_url(dotted), Ok(object.clone()), "{dotted}");
        }
        assert_eq!(parse_url("swarmedge://7/../../a b/c.iso"), Ok(object.clone()), "the provider stays");
        assert_eq!(parse_url("7/a b/c.iso"), Ok(object));
        let odd = ObjectRef { provider: ProviderId(7), path: "50%?/ü#1".into() };
        assert_eq!(parse_url(&url(&odd)), Ok(odd));
    }

    #[test]
    fn the_edge_of_a_url_has_its_port() {
        let edge = |url| edge_in_url(url).expect("well formed");
        assert_eq!(edge("https://edge.example/7/a").as_deref(), Some("edge.example:443"));
        assert_eq!(edge("https://127.0.0.1:8443/7/a b?x").as_deref(), Some("127.0.0.1:8443"));
        assert_eq!((edge("7/a"), edge("swarmedge://7/a")), (None, None));
        assert_eq!(edge_in_url("https://e:port/7/a").expect_err("no number").code, Code::Usage);
    }

    #[test]
    fn a_token_in_a_url_is_found_by_its_form_and_never_repeated() {
        let token = |url: &str| token_in_url(url).map(|t| t.0);
        let text = "exp=1~acl=/7/*~data=a%2fb~hmac=00ff";
        assert_eq!(token(&format!("https://e/7/a?x=1&hdnts={text}&y=2#z")).as_deref(), Some(text));
        assert_eq!(token("7/a?__token__=exp%3D1~acl%3D%2F7%2F*~hmac%3D00").as_deref(), Some("exp=1~acl=/7/*~hmac=00"));
        assert_eq!(token("https://e/7/a?x=1"), None);
        assert_eq!(token("https://e/7/a"), None);
        let failure = parse_url(&format!("https://e/x/y?t={text}")).expect_err("no provider");
        assert!(!format!("{failure:?}").contains("hmac"));
    }

    #[test]
    fn a_senseless_url_is_a_usage_error_that_shows_the_right_form() {
        for bad in
            ["", "7", "x/7", "ftp://e/7/x", "https://edge", "https://edge/x/y", "swarmedge://7/", "swarmedge://7"]
        {
            let failure = parse_url(bad).expect_err(bad);
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.next_step.contains("swarmedge://PROVIDER/PATH"));
        }
    }

    #[test]
    fn a_typed_path_means_each_of_its_characters() {
        let path = |url: &str| parse_url(url).expect(url).path;
        for literal in ["a%41b", "100%.bin", "a%2Fb", "q?x=1", "h#1", "%2e%2e", "a b", "x?y=~x"] {
            assert_eq!(path(&format!("7/n/{literal}")), format!("n/{literal}"));
            let object = ObjectRef { provider: ProviderId(7), path: format!("n/{literal}") };
            assert_eq!(parse_url(&url(&object)), Ok(object), "its URL escapes it");
        }
        assert_eq!(path("7/n?t=exp=1~acl=/*~hmac=00"), "n", "a token is no part of the path");
        assert_eq!((path("swarmedge://7/a%41b"), path("https://e/7/a%41b?x#y")), ("aAb".into(), "aAb".into()));
        let failure = parse_url("127.0.0.1:8443/1/a").expect_err("a host");
        assert!(failure.reason.contains("https://"), "{}", failure.reason);
    }

    fn line(download: u32, path: &str, version: &str) -> DownloadLine {
        let object = ObjectRef { provider: ProviderId(1), path: path.into() };
        let handle = swarmedge_core::ids::Handle(download);
        let status = swarmedge_core::role::client::io::DownloadStatus {
            handle,
            object,
            download: None,
            version: None,
            state: swarmedge_core::role::client::io::DownloadState::Paused,
            size: 1,
            durable: 0,
            edge_bytes: 0,
            peer_bytes: 0,
            wasted_bytes: 0,
            peers: 0,
        };
        DownloadLine { version: Some(version.into()), ..DownloadLine::new(&status, "/o", 0) }
    }

    #[test]
    fn a_download_has_many_names_and_an_ambiguous_one_lists_the_candidates() {
        let all = [line(1, "a/x", "abcd11"), line(2, "a/y%", "abcd22"), line(12, "a/z", "1234ff")];
        for (name, number) in [
            ("2", 2),
            ("12", 12),
            ("1234", 12),
            ("abcd2", 2),
            ("ABCD1", 1),
            ("1/a/x", 1),
            ("1/a/y%", 2),
            ("swarmedge://1/a/y%25", 2),
            ("https://edge:8443/1/a/./x", 1),
        ] {
            assert_eq!(download_named(name, &all), Ok(number), "{name}");
        }
        let failure = download_named("abcd", &all).expect_err("two begin so");
        assert!(
            failure.code == Code::Usage
                && failure.reason.contains("names 2 downloads: 1 (swarmedge://1/a/x, paused); 2")
        );
        for (name, code) in
            [("3", Code::NotFound), ("ab", Code::Usage), ("beef", Code::NotFound), ("1/none", Code::NotFound)]
        {
            assert_eq!(download_named(name, &all).expect_err(name).code, code, "{name}");
        }
    }

    #[test]
    fn a_cached_version_has_short_names_too() {
        let cached = |version: &str, url: &str| CachedLine {
            version: version.into(),
            url: Some(url.into()),
            size_bytes: 1,
            pieces: 1,
            pieces_total: 1,
            expired: false,
        };
        let all = [
            cached("abcd11", "swarmedge://1/a"),
            cached("abcd22", "swarmedge://1/a"),
            cached("12345678", "swarmedge://1/b"),
        ];
        assert_eq!(version_named("abcd1", &all).as_deref(), Ok("abcd11"));
        assert_eq!(version_named("1234", &all).as_deref(), Ok("12345678"), "digits are the beginning of an id here");
        assert_eq!(version_named("1/b", &all).as_deref(), Ok("12345678"));
        for name in ["abcd", "1/a"] {
            let failure = version_named(name, &all).expect_err("two");
            assert!(failure.reason.contains("abcd11") && failure.reason.contains("abcd22"), "{}", failure.reason);
        }
        assert_eq!(version_named("ffff", &all).expect_err("none").code, Code::NotFound);
    }
}
