//! Conditional requests of RFC 9110 §13, evaluated in the order of §13.2.2.

use headers::{
    ETag, Header as _, HeaderMapExt as _, IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince, LastModified,
};
use hyper::HeaderMap;
use hyper::header::{IF_RANGE, RANGE};
use std::time::{Duration, SystemTime};

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
    // what is no entity tag matches none
    let Ok(etag) = have.etag.parse::<ETag>() else { return Verdict::Answer { range: false } };
    let modified = time(have.modified_s);
    if let Some(tags) = fields.typed_get::<IfMatch>() {
        if !tags.precondition_passes(&etag) {
            return Verdict::Failed;
        }
    } else if fields.typed_get::<IfUnmodifiedSince>().is_some_and(|since| !since.precondition_passes(modified)) {
        return Verdict::Failed;
    }
    if let Some(tags) = fields.typed_get::<IfNoneMatch>() {
        if !tags.precondition_passes(&etag) {
            return Verdict::NotModified;
        }
    } else if fields.typed_get::<IfModifiedSince>().is_some_and(|since| !since.is_modified(modified)) {
        return Verdict::NotModified;
    }
    let if_range = !fields.contains_key(IF_RANGE) || unchanged(fields, &etag, modified, time(now_s));
    Verdict::Answer { range: fields.contains_key(RANGE) && if_range }
}

/// Returns whether `If-Range` names the representation: by its strong entity tag, or by its exact date if that is a
/// strong validator (RFC 9110 §8.8.2.2: at least a second old).
fn unchanged(fields: &HeaderMap, etag: &ETag, modified: SystemTime, now: SystemTime) -> bool {
    // not by `headers::IfRange`, which is content with a later date
    match ETag::decode(&mut fields.get_all(IF_RANGE).iter()) {
        Ok(tag) => tag == *etag,
        Err(_) => {
            let date = LastModified::decode(&mut fields.get_all(IF_RANGE).iter());
            date.is_ok_and(|date| SystemTime::from(date) == modified) && modified < now
        }
    }
}

/// Returns a Unix time in seconds for a date field, which ends with the year 9999.
#[must_use]
pub fn time(unix_s: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.min(253_402_300_799))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{DATE, HeaderValue};

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

    fn http_date(unix_s: u64) -> String {
        let mut map = HeaderMap::new();
        map.typed_insert(headers::Date::from(time(unix_s)));
        map[DATE].to_str().expect("a text").to_owned()
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
        assert_eq!(verdict(&[("if-match", "")]), Verdict::Failed);
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
    fn of_two_dates_in_one_field_none_counts() {
        let (before, same) = (http_date(NOW - 101), http_date(NOW - 100));
        assert_eq!(verdict(&[("if-unmodified-since", &before), ("if-unmodified-since", &before)]), ANSWER);
        assert_eq!(verdict(&[("range", "bytes=0-1"), ("if-range", &same), ("if-range", &same)]), ANSWER);
    }

    #[test]
    fn dates_are_read_in_all_forms_and_end_with_the_year_9999() {
        for date in ["Tue, 14 Nov 2023 22:11:40 GMT", "Tuesday, 14-Nov-23 22:11:40 GMT", "Tue Nov 14 22:11:40 2023"] {
            assert_eq!(verdict(&[("range", "bytes=0-1"), ("if-range", date)]), RANGED, "{date}");
        }
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    /// Any bytes are tried as condition fields. Debug assertions of the crate `headers` 0.4 are off in our profiles,
    /// since one fails for an entity tag with a space.
    #[test]
    fn any_bytes_in_conditions_are_answered() {
        for value in ["\"a b\"", "\"a\tb\", \"v2\"", "\"", "W/", "W/\"", ",,", "\"\"", "*, \"v1\"", "\"\u{fc}\""] {
            for field in ["if-match", "if-none-match", "if-range", "if-modified-since", "if-unmodified-since"] {
                let _ = verdict(&[("range", "bytes=0-1"), (field, value)]);
            }
        }
        assert_eq!(verdict(&[("if-none-match", "\"a b\", \"v2\"")]), Verdict::NotModified);
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
