//! Merkle trees as in RFC 9162 §2.1: SHA-256, leaves hashed after a zero byte, nodes after a one, a tree of n leaves
//! split at the largest power of two below n. Leaves are given by their hashes.

use crate::ids::Digest;
use alloc::vec::Vec;
use core::ops::Range;
use sha2::{Digest as _, Sha256};

/// Returns the hash of a leaf's bytes.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Digest {
    Digest(Sha256::new_with_prefix([0]).chain_update(bytes).finalize().into())
}

/// Returns the hash of an inner node.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest(Sha256::new_with_prefix([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// Returns the root of the tree over leaf hashes; for no leaves, the SHA-256 of the empty string.
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest(Sha256::digest([]).into()),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// Returns the largest power of two below `n`, which is at least 2.
const fn split(n: usize) -> usize {
    1 << (n - 1).ilog2()
}

/// Returns the audit path of leaf `index` (RFC 9162 §2.1.3.1): sibling hashes from the leaf to the root. Empty if
/// there is no such leaf.
#[must_use]
pub fn inclusion(leaves: &[Digest], index: usize) -> Vec<Digest> {
    let mut path = Vec::new();
    let (mut leaves, mut index) = (leaves, index);
    while leaves.len() > 1 && index < leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            path.push(root(right));
            leaves = left;
        } else {
            path.push(root(left));
            index -= left.len();
            leaves = right;
        }
    }
    path.reverse();
    path
}

/// Returns whether `leaf` is leaf `index` of the tree of `size` leaves under `root` (RFC 9162 §2.1.3.2).
#[must_use]
pub fn is_included(leaf: &Digest, index: u64, size: u64, path: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            // passes the levels at which a lone last node has no sibling
            let up = if at & 1 == 0 { at.trailing_zeros() } else { 0 };
            (at, last) = (at.checked_shr(up).unwrap_or(0), last.checked_shr(up).unwrap_or(0));
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Returns the consistency proof between the tree of the first `old` leaves and the tree of all leaves (RFC 9162
/// §2.1.4.1). Empty if `old` is 0 or not below the number of leaves.
#[must_use]
pub fn consistency(leaves: &[Digest], old: usize) -> Vec<Digest> {
    let mut proof = Vec::new();
    if old == 0 || old >= leaves.len() {
        return proof;
    }
    let (mut leaves, mut old, mut whole) = (leaves, old, true);
    while old != leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            proof.push(root(right));
            leaves = left;
        } else {
            proof.push(root(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(leaves));
    }
    proof.reverse();
    proof
}

/// Returns whether `proof` shows that the tree `new` begins with the leaves of the tree `old` (RFC 9162 §2.1.4.2).
/// Each tree is given by its number of leaves and its root. Every tree begins with the empty tree.
#[must_use]
pub fn is_consistent(old: (u64, &Digest), new: (u64, &Digest), proof: &[Digest]) -> bool {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size == 0 || old_size >= new_size {
        let same = old_size == new_size && old_root == new_root;
        return proof.is_empty() && (same || (old_size == 0 && *old_root == root(&[])));
    }
    let mut proof = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { proof.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    let up = at.trailing_ones();
    (at, last) = (at.checked_shr(up).unwrap_or(0), last.checked_shr(up).unwrap_or(0));
    let (mut older, mut newer) = (*first, *first);
    for hash in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            older = node_hash(hash, &older);
            newer = node_hash(hash, &newer);
            let up = if at & 1 == 0 { at.trailing_zeros() } else { 0 };
            (at, last) = (at.checked_shr(up).unwrap_or(0), last.checked_shr(up).unwrap_or(0));
        } else {
            newer = node_hash(&newer, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && older == *old_root && newer == *new_root
}

/// Returns the proof that a range of leaves is part of the tree: the roots of the largest subtrees outside the range,
/// from left to right. For a range of one leaf these are the leaf's audit path in another order.
#[must_use]
pub fn range(leaves: &[Digest], range: Range<usize>) -> Vec<Digest> {
    fn walk(leaves: &[Digest], from: usize, range: &Range<usize>, out: &mut Vec<Digest>) {
        let to = from + leaves.len();
        if to <= range.start || from >= range.end {
            return out.push(root(leaves));
        }
        if leaves.len() > 1 && !(range.start <= from && to <= range.end) {
            let (left, right) = leaves.split_at(split(leaves.len()));
            walk(left, from, range, out);
            walk(right, from + left.len(), range, out);
        }
    }
    let mut proof = Vec::new();
    if !range.is_empty() && range.end <= leaves.len() {
        walk(leaves, 0, &range, &mut proof);
    }
    proof
}

/// Returns whether `proof` shows that `leaves` are the leaves at index `first` and after, in the tree of `size`
/// leaves with this root.
#[must_use]
pub fn is_range(first: u64, leaves: &[Digest], size: u64, proof: &[Digest], root: &Digest) -> bool {
    /// Returns the root of the subtree of `size` leaves that begins at leaf `from`; `None` if the proof is too short.
    fn rebuild(
        from: u64,
        size: u64,
        first: u64,
        leaves: &[Digest],
        proof: &mut core::slice::Iter<'_, Digest>,
    ) -> Option<Digest> {
        let end = first + leaves.len() as u64;
        if from + size <= first || from >= end {
            return proof.next().copied();
        }
        if size == 1 {
            return leaves.get(usize::try_from(from - first).ok()?).copied();
        }
        let left_size = 1 << (size - 1).ilog2();
        let left = rebuild(from, left_size, first, leaves, proof)?;
        let right = rebuild(from + left_size, size - left_size, first, leaves, proof)?;
        Some(node_hash(&left, &right))
    }
    let end = first.checked_add(leaves.len() as u64);
    if leaves.is_empty() || end.is_none_or(|end| end > size) {
        return false;
    }
    let mut proof = proof.iter();
    rebuild(0, size, first, leaves, &mut proof) == Some(*root) && proof.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    /// Leaves of the Merkle tree test vectors that implementations of Certificate Transparency share.
    const LEAVES: [&[u8]; 8] = [
        b"",
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
    ];
    /// Roots of the trees of the first 1 to 8 of these leaves.
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn known() -> Vec<Digest> {
        LEAVES.iter().map(|leaf| leaf_hash(leaf)).collect()
    }

    fn numbered(n: u32) -> Vec<Digest> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn hex(proof: &[Digest]) -> Vec<alloc::string::String> {
        proof.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn roots_equal_the_shared_test_vectors() {
        assert_eq!(root(&[]).to_string(), EMPTY);
        for (n, expected) in ROOTS.iter().enumerate() {
            assert_eq!(root(&known()[..=n]).to_string(), *expected, "{} leaves", n + 1);
        }
    }

    #[test]
    fn audit_paths_equal_the_shared_test_vectors() {
        let expected = [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ];
        assert_eq!(hex(&inclusion(&known(), 0)), expected);
        let expected = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(hex(&inclusion(&known(), 5)), expected);
        assert_eq!(
            hex(&inclusion(&known()[..3], 2)),
            ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
        );
    }

    #[test]
    fn consistency_proofs_equal_the_shared_test_vectors() {
        let expected = [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ];
        assert_eq!(hex(&consistency(&known(), 1)), expected);
        let expected = [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(hex(&consistency(&known(), 6)), expected);
    }

    #[test]
    fn every_proof_of_every_small_tree_holds_and_no_other() {
        for n in 1..=33_u32 {
            let leaves = numbered(n);
            let top = root(&leaves);
            for i in 0..n as usize {
                let path = inclusion(&leaves, i);
                assert!(is_included(&leaves[i], i as u64, u64::from(n), &path, &top), "leaf {i} of {n}");
                assert!(is_range(i as u64, &leaves[i..=i], u64::from(n), &range(&leaves, i..i + 1), &top));
                assert!(!is_included(&leaf_hash(b"other"), i as u64, u64::from(n), &path, &top));
                assert!(n == 1 || !is_included(&leaves[i], (i as u64 + 1) % u64::from(n), u64::from(n), &path, &top));
            }
            for old in 0..=n as usize {
                let older = root(&leaves[..old]);
                let proof = consistency(&leaves, old);
                assert!(is_consistent((old as u64, &older), (u64::from(n), &top), &proof), "{old} to {n}");
                let other = leaf_hash(b"other");
                assert!(!is_consistent((old as u64, &other), (u64::from(n), &top), &proof), "{old} to {n}");
            }
        }
    }

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn a_range_is_proven_whole_and_in_order(n in 1_u32..200, a in 0_usize..200, b in 0_usize..200, flip in 0_usize..200) {
            let leaves = numbered(n);
            let (top, size) = (root(&leaves), u64::from(n));
            let (lo, hi) = (a.min(b) % leaves.len(), (a.max(b) % leaves.len()) + 1);
            prop_assume!(lo < hi);
            let proof = range(&leaves, lo..hi);
            let holds = |first: usize, leaves: &[Digest], size: u64| is_range(first as u64, leaves, size, &proof, &top);
            prop_assert!(holds(lo, &leaves[lo..hi], size));
            prop_assert!(!holds(lo, &leaves[lo..hi - 1], size), "one dropped");
            prop_assert!(!holds(lo, &leaves[lo + 1..hi], size), "one dropped");
            let mut changed = leaves[lo..hi].to_vec();
            changed.push(leaf_hash(b"added"));
            prop_assert!(!holds(lo, &changed, size), "one added");
            changed.pop();
            let at = flip % changed.len();
            changed[at].0[0] ^= 1;
            prop_assert!(!holds(lo, &changed, size), "one changed");
            prop_assert!(!holds(lo, &leaves[lo..hi], size + 1) || hi - lo < leaves.len());
        }
    }
}
