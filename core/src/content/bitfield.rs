//! Bitfield: the set of pieces of a version that a client has.

use crate::ids::PieceIndex;
use alloc::vec::Vec;

/// A set of pieces of a version with a fixed number of pieces. Piece 0 is the most significant bit of the first byte,
/// as on the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitfield {
    len: u32,
    ones: u32,
    bits: Vec<u8>,
}

impl Bitfield {
    /// Creates a set without pieces, for a version of `len` pieces.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { len, ones: 0, bits: alloc::vec![0; len.div_ceil(8) as usize] }
    }

    /// Creates the set of all `len` pieces.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut b = Self::empty(len);
        (0..len).for_each(|i| {
            b.insert(PieceIndex(i));
        });
        b
    }

    /// Decodes a set of `len` bits from wire bytes; `None` if the number of bytes is wrong or a spare bit is set.
    #[must_use]
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) as usize {
            return None;
        }
        let spare_is_zero = len.is_multiple_of(8) || bytes.last().is_none_or(|b| b.trailing_zeros() >= 8 - len % 8);
        let ones = bytes.iter().map(|b| b.count_ones()).sum();
        spare_is_zero.then(|| Self { len, ones, bits: bytes.to_vec() })
    }

    /// Returns the encoding on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// Number of pieces of the version.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set contains no piece.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Whether the set contains every piece.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Number of pieces in the set.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.ones
    }

    /// Whether the set contains a piece; false past the end.
    #[must_use]
    pub fn contains(&self, piece: PieceIndex) -> bool {
        piece.0 < self.len && self.bits[(piece.0 / 8) as usize] & mask(piece) != 0
    }

    /// Adds a piece; `false` if the set contains it already or it is past the end.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.0 >= self.len || self.contains(piece) {
            return false;
        }
        self.bits[(piece.0 / 8) as usize] |= mask(piece);
        self.ones += 1;
        true
    }

    /// Removes a piece; `false` if the set does not contain it.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.bits[(piece.0 / 8) as usize] &= !mask(piece);
        self.ones -= 1;
        true
    }

    /// Asserts that the number of pieces is that of the bits set, none of which is past the end.
    pub fn check(&self) {
        assert!(self.bits.len() == self.len.div_ceil(8) as usize, "a bitfield has a bit for each piece");
        let spare = (8 - self.len % 8) % 8;
        assert!(self.bits.last().is_none_or(|b| b.trailing_zeros() >= spare), "no spare bit of a bitfield is set");
        let ones = self.bits.iter().map(|b| b.count_ones()).sum();
        assert!(self.ones == ones, "a bitfield counts the bits that are set");
    }

    /// Iterates over the pieces in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.len).map(PieceIndex).filter(|&p| self.contains(p))
    }

    /// Iterates over the pieces not in the set, ascending.
    pub fn missing(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.len).map(PieceIndex).filter(|&p| !self.contains(p))
    }
}

const fn mask(piece: PieceIndex) -> u8 {
    0x80 >> (piece.0 % 8)
}

impl core::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
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
        fn a_bitfield_behaves_like_a_set(
            len in 0_u32..100,
            ops in proptest::collection::vec((0_u32..120, any::<bool>()), 0..60),
        ) {
            let (mut bits, mut model) = (Bitfield::empty(len), BTreeSet::new());
            for (p, add) in ops {
                let piece = PieceIndex(p);
                if add {
                    prop_assert_eq!(bits.insert(piece), p < len && model.insert(piece));
                } else {
                    prop_assert_eq!(bits.remove(piece), model.remove(&piece));
                }
            }
            bits.check();
            prop_assert!(bits.iter().eq(model.iter().copied()));
            prop_assert!(bits.missing().eq((0..len).map(PieceIndex).filter(|p| !model.contains(p))));
            prop_assert_eq!(bits.count() as usize, model.len());
            prop_assert_eq!((bits.is_empty(), bits.is_full()), (model.is_empty(), model.len() == len as usize));
            prop_assert_eq!(Bitfield::from_bytes(len, bits.as_bytes()), Some(bits));
        }

        #[test]
        fn bytes_of_a_wrong_length_or_with_a_spare_bit_are_refused(
            len in 0_u32..100,
            bytes in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            let right_length = bytes.len() == len.div_ceil(8) as usize;
            let bits = u32::try_from(bytes.len() * 8).expect("small");
            let spare = (len..bits).any(|i| bytes[(i / 8) as usize] & mask(PieceIndex(i)) != 0);
            prop_assert_eq!(Bitfield::from_bytes(len, &bytes).is_some(), right_length && !spare);
        }
    }

    #[test]
    fn each_clause_about_a_bitfield_fires() {
        assert_each_clause_fires(
            &Bitfield::full(11),
            Bitfield::check,
            &[
                ("a bitfield has a bit for each piece", |b| b.bits.push(0)),
                ("no spare bit of a bitfield is set", |b| b.bits[1] |= 1),
                ("a bitfield counts the bits that are set", |b| b.ones -= 1),
            ],
        );
    }
}
