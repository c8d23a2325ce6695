//! Byte ranges of a version that edges sent, so that a byte sent repeatedly or by several edges counts once.

use crate::limits;
use crate::wire::Blob;
use alloc::vec::Vec;
use core::ops::Range;

/// Set of byte offsets as ranges in ascending order, none empty, with a gap between any two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spans(Vec<Range<u64>>);

impl Spans {
    /// Returns the union of any ranges.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut spans = Self::default();
        for range in ranges {
            spans.insert(range, usize::MAX);
        }
        spans
    }

    /// Adds a range of bytes. Returns false, and adds nothing, if there would be more than `most` separate ranges.
    pub fn insert(&mut self, range: Range<u64>, most: usize) -> bool {
        if range.is_empty() {
            return true;
        }
        // ranges that overlap or touch the new one are merged with it
        let from = self.0.partition_point(|r| r.end < range.start);
        let to = self.0.partition_point(|r| r.start <= range.end);
        if from == to && self.0.len() >= most {
            return false;
        }
        let start = self.0[from..to].first().map_or(range.start, |r| r.start.min(range.start));
        let end = self.0[from..to].last().map_or(range.end, |r| r.end.max(range.end));
        self.0.splice(from..to, core::iter::once(start..end));
        debug_assert!(from == 0 || self.0[from - 1].end < start, "a range touches none before it");
        debug_assert!(self.0.get(from + 1).is_none_or(|r| end < r.start), "a range touches none after it");
        true
    }

    /// Asserts the order of the ranges.
    pub(crate) fn check(&self) {
        assert!(!self.0.iter().any(Range::is_empty), "no range is empty");
        assert!(self.0.is_sorted_by(|a, b| a.end < b.start), "ranges ascend and do not touch");
    }

    /// Returns the number of bytes in all ranges.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Returns whether the spans contain every byte of a range.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        let at = self.0.partition_point(|r| r.end < range.end);
        range.is_empty() || self.0.get(at).is_some_and(|r| r.start <= range.start)
    }

    /// Adds all ranges of another set.
    pub fn unite(&mut self, other: &Self) {
        for range in &other.0 {
            self.insert(range.clone(), usize::MAX);
        }
    }

    /// Encodes the spans for a record: for each range the distance from the end of the previous range and the length,
    /// as LEB128 numbers. Ranges that do not fit are left out.
    #[must_use]
    pub fn to_blob(&self) -> Blob<{ limits::SPANS_LEN_MAX }> {
        let (mut out, mut end) = (Vec::new(), 0);
        for range in &self.0 {
            let before = out.len();
            put(&mut out, range.start - end);
            put(&mut out, range.end - range.start);
            if out.len() > limits::SPANS_LEN_MAX {
                out.truncate(before);
                break;
            }
            end = range.end;
        }
        Blob::new(out).unwrap_or_default()
    }

    /// Decodes the spans of a record. Stops at the first invalid range, and cuts off what lies at or above `size`.
    #[must_use]
    pub fn from_blob(blob: &Blob<{ limits::SPANS_LEN_MAX }>, size: u64) -> Self {
        let (mut spans, mut rest, mut end) = (Self::default(), &blob[..], 0_u64);
        while let (Some(gap), Some(len)) = (take(&mut rest), take(&mut rest)) {
            let Some(start) = end.checked_add(gap).filter(|start| *start < size) else { break };
            let Some(next) = start.checked_add(len) else { break };
            spans.insert(start..next.min(size), usize::MAX);
            end = next;
        }
        spans
    }

    /// Returns the ranges, in ascending order.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }
}

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7f).unwrap_or(0) | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap_or(0));
}

/// Removes and returns the next number of the encoding of [`Spans::to_blob`]; `None` at the end or for an invalid
/// encoding.
fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, more) = rest.split_first()?;
        *rest = more;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        n |= bits << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn spans_hold_exactly_the_bytes_that_were_inserted(ranges in prop::collection::vec((0_u64..64, 0_u64..16), 0..24)) {
            let mut naive = [false; 80];
            let mut spans = Spans::default();
            for (start, len) in ranges {
                prop_assert!(spans.insert(start..start + len, usize::MAX));
                (start..start + len).for_each(|b| naive[usize::try_from(b).expect("small")] = true);
            }
            prop_assert_eq!(spans.bytes(), naive.iter().filter(|b| **b).count() as u64);
            prop_assert!(spans.ranges().windows(2).all(|w| w[0].end < w[1].start));
            prop_assert!(spans.ranges().iter().all(|r| r.clone().all(|b| naive[usize::try_from(b).expect("small")])));
        }
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn ranges_survive_encoding_in_a_record(ranges in prop::collection::vec((0_u64..1 << 42, 1_u64..1 << 30), 0..40)) {
            let spans = Spans::of(ranges.into_iter().map(|(start, len)| start..start + len));
            prop_assert_eq!(Spans::from_blob(&spans.to_blob(), u64::MAX), spans);
        }

        #[test]
        fn decoded_ranges_never_reach_beyond_the_size(bytes in prop::collection::vec(any::<u8>(), 0..60), size in 0_u64..1 << 40) {
            let blob = Blob::new(bytes).expect("short");
            prop_assert!(Spans::from_blob(&blob, size).bytes() <= size);
        }
    }

    #[test]
    fn each_clause_of_spans_finds_a_corruption() {
        crate::bench::assert_each_clause_fires(
            &Spans::of([0..1, 5..6]),
            Spans::check,
            &[("no range is empty", |s| s.0[0].end = 0), ("ranges ascend and do not touch", |s| s.0[0].end = 5)],
        );
    }

    #[test]
    fn one_range_too_many_is_refused_unless_it_merges() {
        let mut s = Spans::of([0..1, 5..6]);
        assert!(!s.insert(9..10, 2));
        assert!(s.insert(1..5, 2));
        assert_eq!((s.ranges().len(), s.bytes()), (1, 6));
    }
}
