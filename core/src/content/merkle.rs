//! SHA-256 Merkle trees of pieces, as in BEP 52: leaves are the hashes of 16 KiB blocks, missing leaves are zero.

use super::Layout;
use crate::ids::{Digest, PieceIndex};
use crate::limits::BLOCK_LEN;
use alloc::vec::Vec;
use sha2::Digest as _;

/// The digest in place of a missing leaf.
const ZERO: Digest = Digest([0; 32]);

/// Returns the hash of a block of at most 16 KiB.
#[must_use]
pub fn block_hash(block: &[u8]) -> Digest {
    debug_assert!(block.len() <= BLOCK_LEN as usize, "a block is at most 16 KiB");
    Digest(sha2::Sha256::digest(block).into())
}

/// Returns the leaf hashes of a piece's bytes.
#[must_use]
pub fn leaves(piece: &[u8]) -> Vec<Digest> {
    piece.chunks(BLOCK_LEN as usize).map(block_hash).collect()
}

/// Returns the root of a piece from the hashes of its blocks. The tree of a version's only piece is as wide as its
/// blocks need; the tree of any other piece, also of the last, is as wide as a whole piece. Leaves that are not given
/// are zero, and too many leaves give the zero root, so a wrong number of leaves makes a wrong root.
#[must_use]
pub fn piece_root(layout: &Layout, piece: PieceIndex, leaves: &[Digest]) -> Digest {
    let blocks = layout.blocks(piece);
    let width = if layout.pieces() <= 1 { blocks.max(1).next_power_of_two() } else { layout.piece_len() / BLOCK_LEN };
    let given = &leaves[..leaves.len().min(blocks as usize)];
    if leaves.len() > given.len() {
        return ZERO;
    }
    root(given, ZERO, width.trailing_zeros())
}

/// Returns BEP 52's `pieces root` of a version from the roots of its pieces: the root of the tree over the piece layer,
/// padded with the root of a piece without leaves. `None` for an empty version.
#[must_use]
pub fn file_root(layout: &Layout, roots: &[Digest]) -> Option<Digest> {
    if roots.is_empty() || roots.len() != layout.pieces() as usize {
        return None;
    }
    if let [only] = roots {
        return Some(*only);
    }
    let pad = root(&[], ZERO, (layout.piece_len() / BLOCK_LEN).trailing_zeros());
    Some(root(roots, pad, levels(roots.len())))
}

/// Returns the number of levels between `n` leaves and their root.
fn levels(n: usize) -> u32 {
    n.max(1).next_power_of_two().trailing_zeros()
}

/// Returns the root of a tree of `levels` levels whose missing leaves are `pad`. Costs about one hash a leaf, plus one
/// a level for the padding.
fn root(leaves: &[Digest], mut pad: Digest, levels: u32) -> Digest {
    let mut row = leaves.to_vec();
    for _ in 0..levels {
        row = next_row(&row, pad);
        pad = node(&pad, &pad);
    }
    row.first().copied().unwrap_or(pad)
}

fn next_row(row: &[Digest], pad: Digest) -> Vec<Digest> {
    row.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&pad))).collect()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hash = sha2::Sha256::new_with_prefix(left.0);
    hash.update(right.0);
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| u8::try_from(i % 251).expect("below 251")).collect()
    }

    fn roots_of(data: &[u8], piece_len: u32) -> (Layout, Vec<Digest>) {
        let layout = Layout::new(data.len() as u64, piece_len).expect("a layout");
        let of = |p: PieceIndex| {
            let r = layout.piece_range(p);
            let range = usize::try_from(r.start).expect("small")..usize::try_from(r.end).expect("small");
            piece_root(&layout, p, &leaves(&data[range]))
        };
        let roots = layout.iter().map(of).collect();
        (layout, roots)
    }

    /// `pieces root` of `bytes(size)` by a separate implementation of BEP 52 in another language.
    const KNOWN: &[(usize, &str)] = &[
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (16383, "e08c7d58e58b9318263144a618d6f2b6f6825974decd9e6f9371567354b6f566"),
        (16384, "4348e3b98e8a327b34ced39c1da9e67cdb4cd5e48e4d7960607a3ae403d35f0c"),
        (16385, "9d7887c65d577a0237fb3c0998b87b3a62762d03796889a2caea01db914ccbb8"),
        (49152, "c23d35ec942288a7d9b58d1d0446a76104660b7c72e5cf39f38bddb028ff8ca0"),
        (65535, "1849c2c789ddb1b827f6f6871511cf2e4d34348dd89ad13719dc4454245f4214"),
        (65536, "2d6b546231225a7132a38ab354f03e9132e4b9141da89f1784b71ab2fb34fae3"),
        (65537, "27e4ccf8e3d554bfce504235da1292c2c8beb24ba5b3e1cd62f41bd692517fbe"),
        (131072, "09fcc645f49bdda7719fde41331e0a48e3c6cef3c7e8d812e16dd60c39c7cc99"),
        (131073, "5446ca1bc649f253d098e69b174d80f4de50bfd1eeb7f28f9cf42f21449ac070"),
        (300000, "1c5fb49bf57e0e945d9428a1798ddc8acc5dc57e19aa0c9bb1ed90e9b7885ee1"),
        (1048576, "cedf940612ac628d0e1eb980ad20f8cc17ea41c89b5f50e0afec0e1cc5c2d997"),
    ];

    #[test]
    fn pieces_roots_equal_those_of_another_bep_52_implementation() {
        for &(size, known) in KNOWN {
            let (layout, roots) = roots_of(&bytes(size), 65_536);
            assert_eq!(file_root(&layout, &roots).map(|d| d.to_string()).as_deref(), Some(known), "{size} bytes");
        }
    }

    #[test]
    fn an_empty_version_has_no_root() {
        let (layout, roots) = roots_of(&[], 65_536);
        assert_eq!(roots, []);
        assert_eq!(file_root(&layout, &roots), None);
    }

    #[test]
    fn the_pieces_root_does_not_depend_on_the_piece_length() {
        for size in [65_536, 65_537, 300_000] {
            let data = bytes(size);
            let of = |len| {
                let (layout, roots) = roots_of(&data, len);
                file_root(&layout, &roots)
            };
            assert_eq!(of(65_536), of(131_072));
            assert_eq!(of(65_536), of(1 << 20));
        }
    }

    #[test]
    fn too_many_or_too_few_leaves_make_another_root() {
        let data = bytes(100_000);
        let (layout, roots) = roots_of(&data, 65_536);
        let mut l = leaves(&data[65_536..]);
        assert_eq!(piece_root(&layout, PieceIndex(1), &l), roots[1]);
        l.push(ZERO);
        assert_ne!(piece_root(&layout, PieceIndex(1), &l), roots[1]);
        l.truncate(2);
        assert_ne!(piece_root(&layout, PieceIndex(1), &l), roots[1]);
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn a_changed_byte_changes_the_root(size in 1_usize..200_000, at in 0_usize..200_000) {
            let mut data = bytes(size);
            let (layout, roots) = roots_of(&data, 65_536);
            data[at % size] ^= 1;
            let (_, changed) = roots_of(&data, 65_536);
            let differ = roots.iter().zip(&changed).filter(|(a, b)| a != b).count();
            prop_assert_eq!(differ, 1);
            prop_assert_ne!(file_root(&layout, &roots), file_root(&layout, &changed));
        }
    }
}
