//! Layout: how a version is cut into pieces and blocks.

use crate::ids::PieceIndex;
use crate::limits;
use core::ops::Range;

/// Size and piece length of a version: all that swarming needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    size: u64,
    piece_len: u32,
}

impl Layout {
    /// Creates a layout; `None` if the piece length is not a power of two within the limits, or there would be too many
    /// pieces.
    #[must_use]
    pub fn new(size: u64, piece_len: u32) -> Option<Self> {
        let ok = piece_len.is_power_of_two()
            && (limits::PIECE_LEN_MIN..=limits::PIECE_LEN_MAX).contains(&piece_len)
            && size.div_ceil(u64::from(piece_len)) <= u64::from(limits::PIECES_MAX);
        ok.then_some(Self { size, piece_len })
    }

    /// Returns the usual layout for `size` bytes: about 1,024 pieces, of 64 KiB to 16 MiB. `None` above 32 TiB.
    #[must_use]
    pub fn for_size(size: u64) -> Option<Self> {
        let wanted = (size / 1024).clamp(u64::from(limits::PIECE_LEN_MIN), u64::from(limits::PIECE_LEN_MAX));
        Self::new(size, u32::try_from(wanted.next_power_of_two()).ok()?)
    }

    /// Size of the version in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Length of each piece but the last, in bytes.
    #[must_use]
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Number of pieces; 0 for an empty version.
    #[must_use]
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.piece_len))).unwrap_or(u32::MAX)
    }

    /// Iterates over all pieces, ascending.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.pieces()).map(PieceIndex)
    }

    /// Returns the byte range of a piece within the version; empty past the end.
    #[must_use]
    pub fn piece_range(&self, piece: PieceIndex) -> Range<u64> {
        let start = u64::from(piece.0).saturating_mul(u64::from(self.piece_len)).min(self.size);
        start..start.saturating_add(u64::from(self.piece_len)).min(self.size)
    }

    /// Returns the number of bytes of a piece.
    #[must_use]
    pub fn piece_size(&self, piece: PieceIndex) -> u32 {
        let r = self.piece_range(piece);
        u32::try_from(r.end - r.start).unwrap_or(u32::MAX)
    }

    /// Returns the number of blocks of a piece.
    #[must_use]
    pub fn blocks(&self, piece: PieceIndex) -> u32 {
        self.piece_size(piece).div_ceil(limits::BLOCK_LEN)
    }

    /// Returns the byte range, within the version, of a range of blocks of a piece.
    #[must_use]
    pub fn block_range(&self, piece: PieceIndex, blocks: Range<u32>) -> Range<u64> {
        let p = self.piece_range(piece);
        let at = |b: u32| (p.start + u64::from(b) * u64::from(limits::BLOCK_LEN)).min(p.end);
        at(blocks.start)..at(blocks.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts_cover_every_byte_once() {
        for size in [0, 1, 16_383, 16_384, 65_536, 65_537, 1 << 20, (1 << 30) + 7] {
            let l = Layout::for_size(size).expect("a usual size");
            assert_eq!(l.iter().map(|p| u64::from(l.piece_size(p))).sum::<u64>(), size);
            assert!(l.pieces() <= 4096);
        }
        assert_eq!(Layout::for_size(1 << 30).map(|l| l.piece_len()), Some(1 << 20));
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn blocks_cover_a_piece_and_pieces_a_version(size in 0_u64..40_000_000, log in 16_u32..25) {
            let Some(l) = Layout::new(size, 1 << log) else { return Ok(()) };
            let mut at = 0;
            for piece in l.iter() {
                prop_assert_eq!(l.piece_range(piece).start, at);
                for b in 0..l.blocks(piece) {
                    let r = l.block_range(piece, b..b + 1);
                    prop_assert!(r.start == at && !r.is_empty() && r.end - r.start <= u64::from(limits::BLOCK_LEN));
                    at = r.end;
                }
                prop_assert_eq!(l.piece_range(piece).end, at);
            }
            prop_assert_eq!(at, size);
            prop_assert!(l.piece_range(PieceIndex(l.pieces())).is_empty());
        }
    }

    #[test]
    fn odd_piece_lengths_and_absurd_sizes_are_refused() {
        assert_eq!(Layout::new(1, 65_537), None);
        assert_eq!(Layout::new(1, 32_768), None);
        assert_eq!(Layout::new(u64::MAX, limits::PIECE_LEN_MAX), None);
        assert_eq!(Layout::for_size(u64::MAX), None);
    }
}
