//! Conditional requests of RFC 9110 §13, evaluated in the order of §13.2.2.

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Validators of the selected representation (RFC 9110 §8.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// Strong entity tag, with its quotes.
    pub etag: String,
    /// `Last-Modified` time, seconds since 1970.
    pub modified_s: u64,
}

/// Result of evaluating the conditions of a GET or HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is answered normally.
    Answer {
        /// Whether the `Range` field is honoured, if there is one.
        range: bool,
    },
    /// Answer 304, not modified.
    NotModified,
    /// Answer 412, precondition failed.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD.
#[must_use]
pub fn evaluate(fields: &HeaderMap, have: &Validators, now_s: u64) -> Verdict {
    if let Some(tags) = list(fields, &IF_MATCH) {
        if !matches_any(&tags, &have.etag, false) {
            return Verdict::Failed;
        }
    } else if date(fields, &IF_UNMODIFIED_SINCE).is_some_and(|since| have.modified_s > since) {
        return Verdict::Failed;
    }
    if let Some(tags) = list(fields, &IF_NONE_MATCH) {
        if matches_any(&tags, &have.etag, true) {
            return Verdict::NotModified;
        }
    } else if date(fields, &IF_MODIFIED_SINCE).is_some_and(|since| have.modified_s <= since) {
        return Verdict::NotModified;
    }
    let if_range = !fields.contains_key(IF_RANGE) || text(fields, &IF_RANGE).is_some_and(|v| unchanged(v, have, now_s));
    Verdict::Answer { range: fields.contains_key(RANGE) && if_range }
}

/// `If-Range`: a strong tag, or a date that is exactly the representation's and strong (§8.8.2.2: a second old at
/// least).
fn unchanged(value: &str, have: &Validators, now_s: u64) -> bool {
    if value.starts_with('"') || value.starts_with("W/") {
        return value == have.etag;
    }
    parse_date(value) == Some(have.modified_s) && have.modified_s < now_s
}

/// Joins all fields of one name to a list value (§5.3); `None` if there is none. Values that are no text are left out.
fn list(fields: &HeaderMap, name: &HeaderName) -> Option<String> {
    fields.contains_key(name).then(|| {
        let values: Vec<_> = fields.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
        values.join(",")
    })
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = fields.get_all(name).iter();
    let only = all.next()?.to_str().ok()?.trim();
    all.next().is_none().then_some(only)
}

/// Parses a field's date; an invalid date counts as absent (§13.1.3, §13.1.4).
fn date(fields: &HeaderMap, name: &HeaderName) -> Option<u64> {
    parse_date(text(fields, name)?)
}

fn parse_date(value: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
}

/// Formats a Unix time in seconds as an HTTP date.
#[must_use]
pub fn http_date(unix_s: u64) -> String {
    // httpdate supports years up to 9999
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.min(253_402_300_799)))
}

/// Whether a list of entity tags (or `*`) names `etag`; by weak comparison, `W/` does not matter (§8.8.3.2).
fn matches_any(tags: &str, etag: &str, weak: bool) -> bool {
    let mut rest = tags.trim();
    if rest == "*" {
        return true;
    }
    // tags are opaque: a comma may stand inside their quotes
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let is_weak = rest.starts_with("W/");
        let opaque = rest.strip_prefix("W/").unwrap_or(rest);
        let Some(end) = opaque.strip_prefix('"').and_then(|r| r.find('"')) else { return false };
        let (tag, tail) = opaque.split_at(end + 2);
        if tag == etag && (weak || !is_weak) {
            return true;
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const NOW: u64 = 1_700_000_000;
    const ANSWER: Verdict = Verdict::Answer { range: false };
    const RANGED: Verdict = Verdict::Answer { range: true };

    fn verdict(fields: &[(&'static str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_str(value).expect("a field value"));
        }
        evaluate(&map, &Validators { etag: "\"v2\"".into(), modified_s: NOW - 100 }, NOW)
    }

    #[test]
    fn if_match_is_strong() {
        assert_eq!(verdict(&[("if-match", "\"v2\"")]), ANSWER);
        assert_eq!(verdict(&[("if-match", "\"v1\", \"v2\"")]), ANSWER);
        assert_eq!(verdict(&[("if-match", "\"v1\""), ("if-match", "\"v2\"")]), ANSWER);
        assert_eq!(verdict(&[("if-match", "*")]), ANSWER);
        assert_eq!(verdict(&[("if-match", "W/\"v2\"")]), Verdict::Failed);
        assert_eq!(verdict(&[("if-match", "\"v1\"")]), Verdict::Failed);
        assert_eq!(verdict(&[("if-match", "v2")]), Verdict::Failed);
        assert_eq!(verdict(&[("if-match", "\"x,\"v2\"\"")]), Verdict::Failed, "a quote inside a tag ends it");
    }

    #[test]
    fn if_none_match_is_weak_and_goes_before_dates() {
        assert_eq!(verdict(&[("if-none-match", "\"v2\"")]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-none-match", "W/\"v2\"")]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-none-match", "*")]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-none-match", "\"a,b\", \"v2\"")]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-none-match", "\"v1\"")]), ANSWER);
        let later = http_date(NOW);
        assert_eq!(verdict(&[("if-none-match", "\"v1\""), ("if-modified-since", &later)]), ANSWER);
    }

    #[test]
    fn dates_decide_where_no_tag_does() {
        let (before, same, after) = (http_date(NOW - 101), http_date(NOW - 100), http_date(NOW - 99));
        assert_eq!(verdict(&[("if-modified-since", &before)]), ANSWER);
        assert_eq!(verdict(&[("if-modified-since", &same)]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-modified-since", &after)]), Verdict::NotModified);
        assert_eq!(verdict(&[("if-unmodified-since", &before)]), Verdict::Failed);
        assert_eq!(verdict(&[("if-unmodified-since", &same)]), ANSWER);
        assert_eq!(verdict(&[("if-match", "\"v2\""), ("if-unmodified-since", &before)]), ANSWER);
        assert_eq!(verdict(&[("if-modified-since", "yesterday")]), ANSWER, "a date that cannot be read");
    }

    #[test]
    fn if_range_needs_the_very_same_representation() {
        let range = ("range", "bytes=0-1");
        assert_eq!(verdict(&[range]), RANGED);
        assert_eq!(verdict(&[range, ("if-range", "\"v2\"")]), RANGED);
        for other in ["\"v1\"", "W/\"v2\"", "v2", &http_date(NOW - 99), &http_date(NOW - 101)] {
            assert_eq!(verdict(&[range, ("if-range", other)]), ANSWER, "{other}");
        }
        assert_eq!(verdict(&[range, ("if-range", &http_date(NOW - 100))]), RANGED);
        assert_eq!(verdict(&[("if-range", "\"v2\"")]), ANSWER);
    }

    #[test]
    fn a_date_of_this_second_is_too_weak_for_if_range() {
        let mut map = HeaderMap::new();
        map.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
        map.insert(IF_RANGE, HeaderValue::from_str(&http_date(NOW)).expect("a field value"));
        let fresh = Validators { etag: "\"v2\"".into(), modified_s: NOW };
        assert_eq!(evaluate(&map, &fresh, NOW), ANSWER);
        assert_eq!(evaluate(&map, &fresh, NOW + 1), RANGED);
    }
}
