//! A set of blocks of one piece.

use crate::limits;
use alloc::vec::Vec;
use core::ops::Range;

/// Blocks of a piece: a bit each, in as few words as the highest one needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blocks(Vec<u64>);

impl Blocks {
    /// Adds `range` and returns the number of blocks that were new. Blocks beyond a piece's maximum are ignored.
    pub fn insert(&mut self, range: Range<u32>) -> u32 {
        let range = range.start..range.end.min(limits::BLOCKS_PER_PIECE_MAX);
        let words = range.end.div_ceil(64) as usize;
        if !range.is_empty() && self.0.len() < words {
            self.0.resize(words, 0);
        }
        let mut added = 0;
        for block in range {
            let word = &mut self.0[(block / 64) as usize];
            added += u32::from(*word & bit(block) == 0);
            *word |= bit(block);
        }
        added
    }

    /// Returns whether the set has a block.
    #[must_use]
    pub fn contains(&self, block: u32) -> bool {
        self.0.get((block / 64) as usize).is_some_and(|word| word & bit(block) != 0)
    }

    /// Returns the number of blocks in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Returns whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns the number of the highest block plus one; 0 for an empty set.
    #[must_use]
    pub fn end(&self) -> u32 {
        let words = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.last().map_or(0, |last| words * 64 - last.leading_zeros())
    }

    /// Asserts that the set takes as few words as its highest block needs.
    pub fn check(&self) {
        assert!(self.0.len() <= (limits::BLOCKS_PER_PIECE_MAX / 64) as usize, "no block is beyond a piece's maximum");
        assert!(self.0.last().is_none_or(|last| *last != 0), "the last word of a set of blocks has a block");
    }

    /// Returns the first run of at most `longest` missing blocks below `end`.
    #[must_use]
    pub fn gap(&self, end: u32, longest: u32) -> Option<Range<u32>> {
        let first = (0..end).find(|&b| !self.contains(b))?;
        let stop = end.min(first.saturating_add(longest));
        let last = (first..stop).find(|&b| self.contains(b)).unwrap_or(stop);
        Some(first..last)
    }
}

const fn bit(block: u32) -> u64 {
    1 << (block % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn a_block_set_behaves_like_a_set(
            ranges in proptest::collection::vec((0_u32..200, 0_u32..80), 0..8),
            n in 1_u32..70,
        ) {
            let mut blocks = Blocks::default();
            let mut model = BTreeSet::new();
            for (start, len) in ranges {
                let before = model.len();
                model.extend(start..start + len);
                prop_assert_eq!(blocks.insert(start..start + len) as usize, model.len() - before);
            }
            blocks.check();
            prop_assert_eq!(blocks.count() as usize, model.len());
            prop_assert_eq!(blocks.end(), model.last().map_or(0, |b| b + 1));
            prop_assert!((0..300).all(|b| blocks.contains(b) == model.contains(&b)));
            let gap = blocks.gap(250, n);
            let first = (0..250).find(|b| !model.contains(b));
            prop_assert_eq!(gap.as_ref().map(|g| g.start), first);
            if let Some(gap) = gap {
                prop_assert!(!gap.is_empty() && gap.end - gap.start <= n && gap.end <= 250);
                prop_assert!(gap.clone().all(|b| !model.contains(&b)));
                let whole = gap.end - gap.start == n || gap.end == 250 || model.contains(&gap.end);
                prop_assert!(whole);
            }
        }
    }

    #[test]
    fn blocks_beyond_a_pieces_maximum_take_no_memory() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.insert(u32::MAX - 1..u32::MAX), 0);
        assert!(blocks.is_empty());
    }

    #[test]
    fn each_clause_about_blocks_fires() {
        let mut healthy = Blocks::default();
        healthy.insert(3..70);
        assert_each_clause_fires(
            &healthy,
            Blocks::check,
            &[
                ("no block is beyond a piece's maximum", |b| b.0.resize(17, 1)),
                ("the last word of a set of blocks has a block", |b| b.0.push(0)),
            ],
        );
    }
}
