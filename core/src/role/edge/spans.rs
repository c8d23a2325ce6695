//! Which bytes of a version were sent: how an edge counts each byte once.

use alloc::vec::Vec;
use core::ops::Range;

/// Byte ranges, ascending, apart from one another, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spans(Vec<Range<u64>>);

impl Spans {
    /// Makes the union of any ranges.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut spans = Self::default();
        for range in ranges {
            spans.insert(range, usize::MAX);
        }
        spans
    }

    /// Adds a range; false (and nothing is added) if there would be more than `most` separate ranges.
    pub fn insert(&mut self, range: Range<u64>, most: usize) -> bool {
        if range.is_empty() {
            return true;
        }
        // those that overlap or touch it melt into one
        let from = self.0.partition_point(|r| r.end < range.start);
        let to = self.0.partition_point(|r| r.start <= range.end);
        if from == to && self.0.len() >= most {
            return false;
        }
        let start = self.0[from..to].first().map_or(range.start, |r| r.start.min(range.start));
        let end = self.0[from..to].last().map_or(range.end, |r| r.end.max(range.end));
        self.0.splice(from..to, core::iter::once(start..end));
        true
    }

    /// How many bytes there are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
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

    #[test]
    fn one_range_too_many_is_refused_but_growth_of_an_old_one_is_not() {
        let mut s = Spans::of([0..1, 5..6]);
        assert!(!s.insert(9..10, 2));
        assert!(s.insert(1..5, 2));
        assert_eq!((s.ranges().len(), s.bytes()), (1, 6));
    }
}
