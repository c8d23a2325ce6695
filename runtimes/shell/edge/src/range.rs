//! Byte ranges of RFC 9110 §14: parsing and arithmetic.

use std::ops::Range;

/// Most ranges in one request; a request for more is answered with the whole representation.
pub const RANGES_MAX: usize = 64;

/// The bytes of a representation that a `Range` field selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The field is ignored: another unit, malformed, or too many ranges.
    Whole,
    /// Non-empty ranges within the representation.
    Parts(Vec<Range<u64>>),
    /// Well-formed, but no range overlaps the representation (416).
    Unsatisfiable,
}

/// One range of the field's list.
enum Spec {
    FromTo(u64, u64),
    From(u64),
    Last(u64),
}

/// Returns the bytes that a field value selects of `size` bytes. If ranges overlap or touch, they are merged and sorted
/// (§14.2 allows both).
#[must_use]
pub fn select(field: &str, size: u64) -> Selection {
    let Some(specs) = parse(field) else { return Selection::Whole };
    if specs.len() > RANGES_MAX {
        return Selection::Whole;
    }
    let parts: Vec<_> = specs.iter().filter_map(|spec| resolve(spec, size)).collect();
    if parts.is_empty() {
        return Selection::Unsatisfiable;
    }
    Selection::Parts(coalesce(parts))
}

fn parse(field: &str) -> Option<Vec<Spec>> {
    let (unit, list) = field.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // empty list members are allowed (§5.6.1.2), an empty list is not
    let specs: Option<Vec<_>> = list.split(',').map(str::trim).filter(|m| !m.is_empty()).map(spec).collect();
    specs.filter(|s| !s.is_empty())
}

fn spec(member: &str) -> Option<Spec> {
    let (first, last) = member.split_once('-')?;
    match (first, last) {
        ("", last) => Some(Spec::Last(number(last)?)),
        (first, "") => Some(Spec::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::FromTo(first, last))
        }
    }
}

/// Parses digits; a number too large for 64 bits becomes `u64::MAX`, past the end of any representation.
fn number(digits: &str) -> Option<u64> {
    let ok = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    ok.then(|| digits.parse().unwrap_or(u64::MAX))
}

/// Returns the bytes that one range of a `Range` header asks for; `None` if none of them exists.
fn resolve(spec: &Spec, size: u64) -> Option<Range<u64>> {
    let range = match *spec {
        Spec::FromTo(first, last) => first..last.saturating_add(1).min(size),
        Spec::From(first) => first..size,
        Spec::Last(n) => size.saturating_sub(n)..size,
    };
    (range.start < range.end).then_some(range)
}

/// Merges ranges if any two of them overlap or touch; otherwise leaves them in the order of the request.
fn coalesce(parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|r| (r.start, r.end));
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    if merged.len() == parts.len() { parts } else { merged }
}

/// Returns the `Content-Range` value of a part.
#[must_use]
pub fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::Selection::{Parts, Unsatisfiable, Whole};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_select_what_rfc_9110_says() {
        let one = |r: Range<u64>| Parts(vec![r]);
        for (field, size, expected) in [
            ("bytes=0-499", 10_000, one(0..500)),
            ("bytes=500-999", 10_000, one(500..1000)),
            ("bytes=-500", 10_000, one(9_500..10_000)),
            ("bytes=9500-", 10_000, one(9_500..10_000)),
            ("bytes=0-0,-1", 10_000, Parts(vec![0..1, 9_999..10_000])),
            ("BYTES = 1-2", 10_000, one(1..3)),
            ("bytes= 0-0 , , 5-5 ,", 10_000, Parts(vec![0..1, 5..6])),
            // longer than the representation
            ("bytes=0-99999", 100, one(0..100)),
            ("bytes=-99999", 100, one(0..100)),
            ("bytes=0-99999999999999999999999", 100, one(0..100)),
            ("bytes=-99999999999999999999999", 100, one(0..100)),
            // no byte within the representation
            ("bytes=100-", 100, Unsatisfiable),
            ("bytes=100-200", 100, Unsatisfiable),
            ("bytes=-0", 100, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=99999999999999999999999-", 100, Unsatisfiable),
            // one of two ranges within the representation
            ("bytes=100-200,3-4", 100, one(3..5)),
            // malformed: the field is ignored
            ("bytes=5-4", 100, Whole),
            ("bytes=", 100, Whole),
            ("bytes=,", 100, Whole),
            ("bytes=-", 100, Whole),
            ("bytes=a-b", 100, Whole),
            ("bytes=1", 100, Whole),
            ("bytes=+1-2", 100, Whole),
            ("bytes=1-2;3-4", 100, Whole),
            ("bytes=1-2,x", 100, Whole),
            ("bytes", 100, Whole),
            ("items=0-5", 100, Whole),
            ("", 100, Whole),
        ] {
            assert_eq!(select(field, size), expected, "{field:?} of {size}");
        }
    }

    #[test]
    fn overlapping_ranges_are_answered_as_one() {
        let one = |r: Range<u64>| Parts(vec![r]);
        assert_eq!(select("bytes=5-9,0-6", 100), one(0..10));
        assert_eq!(select("bytes=50-59,5-9,0-4", 100), Parts(vec![0..10, 50..60]));
        assert_eq!(select("bytes=0-,0-,0-,0-", 100), one(0..100));
        assert_eq!(select("bytes=50-59,5-9", 100), Parts(vec![50..60, 5..10]), "the order of the request");
    }

    #[test]
    fn too_many_ranges_are_ignored() {
        let field = |n: usize| {
            format!("bytes={}", (0..n).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(","))
        };
        assert!(matches!(select(&field(RANGES_MAX), 1000), Parts(p) if p.len() == RANGES_MAX));
        assert_eq!(select(&field(RANGES_MAX + 1), 1000), Whole);
    }

    #[test]
    fn content_range_names_the_last_byte_inclusively() {
        assert_eq!(content_range(&(0..1), 1), "bytes 0-0/1");
        assert_eq!(content_range(&(500..1000), 1234), "bytes 500-999/1234");
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn parts_lie_within_and_never_overlap(field in "bytes=[0-9,-]{0,40}", size in 0u64..2000) {
            if let Parts(parts) = select(&field, size) {
                let total: u64 = parts.iter().map(|p| p.end - p.start).sum();
                prop_assert!(total <= size && !parts.is_empty());
                prop_assert!(parts.iter().all(|p| p.start < p.end && p.end <= size));
            }
        }

        #[test]
        fn any_text_is_answered(field in "\\PC*", size: u64) {
            let _ = select(&field, size);
        }
    }
}
