//! SHA-256 Merkle trees: those of pieces (BEP 52: leaves are hashes of 16 KiB blocks, missing leaves are zero) and those
//! of introductions (RFC 9162-style leaf and node prefixes).

use crate::ids::Digest;
use crate::limits::BLOCK_LEN;
use alloc::vec::Vec;
use sha2::Digest as _;

/// The hash of a block of at most 16 KiB.
#[must_use]
pub fn block_hash(block: &[u8]) -> Digest {
    debug_assert!(block.len() <= BLOCK_LEN as usize, "a block is at most 16 KiB");
    Digest(sha2::Sha256::digest(block).into())
}

/// The leaf hashes of a piece's bytes.
#[must_use]
pub fn leaves(piece: &[u8]) -> Vec<Digest> {
    piece.chunks(BLOCK_LEN as usize).map(block_hash).collect()
}
