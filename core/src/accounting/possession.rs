//! Possession challenges: an edge asks a client that completed a download for a hash over parts that the edge did not
//! send itself. Colluding clients that reported transfers without having the bytes cannot answer. Where the content
//! is public the evidence is weak, since anybody can fetch the parts; so no bill depends on it.
//!
//! A client that lacks a fraction f of the parts passes with probability (1 − f)⁸.

use super::Spans;
use crate::ids::{Digest, DownloadId, RecordId};
use crate::limits::{PART_LEN, PARTS_MAX};
use crate::machine::Rng;
use alloc::vec::Vec;
use core::ops::Range;
use sha2::{Digest as _, Sha256};

/// Prefix of the hash input of an answer to a possession challenge.
const PROOF_TEXT: &[u8] = b"swarmedge/1 possession\0";
/// Prefix of the hash input of the id under which the ledger stores a challenge's outcome.
const RECORD_TEXT: &[u8] = b"swarmedge/1 possession record\0";
/// Number of random attempts per part to find parts that the edge did not send.
const DRAWS: usize = 8;
/// A download is conspicuous only if edges sent less than its size divided by this number.
const LOW_EDGE: u64 = 16;
/// Rate in bytes a second above which a download is conspicuous. The fastest honest clients reach it too.
const HIGH_RATE: u64 = 32 << 20;

/// Number of wrong answers to possession challenges from which a client is conspicuous.
const FAILED_MIN: u64 = 2;
/// Number of unanswered possession challenges from which a client is conspicuous, if they are also more than half of
/// all.
const UNANSWERED_MIN: u64 = 8;

/// A possession challenge: the parts of a version that a client must hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// Random value that is used once only.
    pub nonce: [u8; 16],
    /// Indices of the version's parts, ascending, at most [`PARTS_MAX`]. Each part has [`PART_LEN`] bytes, the last
    /// fewer.
    pub parts: Vec<u64>,
}

/// Returns the byte range of a part in a version of `size` bytes; empty if the part lies past the version's end.
#[must_use]
pub fn part_range(size: u64, part: u64) -> Range<u64> {
    let start = part.saturating_mul(PART_LEN).min(size);
    start..start.saturating_add(PART_LEN).min(size)
}

impl Challenge {
    /// Draws random parts of a version of `size` bytes that are not within `sent`, the bytes that the edge sent.
    /// `None` if no such part was found.
    pub fn draw(rng: &mut dyn Rng, size: u64, sent: &Spans) -> Option<Self> {
        let all = u32::try_from(size.div_ceil(PART_LEN)).unwrap_or(u32::MAX);
        let mut parts: Vec<u64> = Vec::new();
        for _ in 0..PARTS_MAX * DRAWS {
            if all == 0 || parts.len() == PARTS_MAX.min(all as usize) {
                break;
            }
            let part = u64::from(rng.below(all));
            if !parts.contains(&part) && !sent.covers(&part_range(size, part)) {
                parts.push(part);
            }
        }
        parts.sort_unstable();
        let challenge = (!parts.is_empty()).then(|| Self { nonce: rng.nonce(), parts });
        debug_assert!(challenge.as_ref().is_none_or(|c| c.fits(size)), "a challenge is within the limits");
        challenge
    }

    /// Returns whether the parts are valid for a version of `size` bytes: ascending, within the version, at most
    /// [`PARTS_MAX`].
    #[must_use]
    pub fn fits(&self, size: u64) -> bool {
        let rising = self.parts.is_sorted_by(|a, b| a < b);
        let there = self.parts.last().is_some_and(|last| !part_range(size, *last).is_empty());
        rising && there && self.parts.len() <= PARTS_MAX
    }
}

/// Hasher for the answer to a possession challenge: hashes the nonce and then the bytes of the parts, in order.
#[derive(Clone, Debug)]
pub struct Prover(Sha256);

impl Prover {
    /// Creates the hasher for this challenge.
    #[must_use]
    pub fn new(challenge: &Challenge) -> Self {
        Self(Sha256::new_with_prefix(PROOF_TEXT).chain_update(challenge.nonce))
    }

    /// Adds bytes of the next part, all or some of them.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash that answers the challenge.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Returns the record id of the outcome of a download's possession challenge. It depends on the download alone, so
/// the ledger stores one outcome even if several edges report it.
#[must_use]
pub fn record_id(download: DownloadId) -> RecordId {
    let hash = Sha256::new_with_prefix(RECORD_TEXT).chain_update(download.0).finalize();
    let mut id = [0; RecordId::LEN];
    id.copy_from_slice(&hash[..RecordId::LEN]);
    RecordId(id)
}

/// Counts of the results of a client's possession challenges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of challenges that the client passed.
    pub passed: u64,
    /// Number of challenges that the client answered wrongly.
    pub failed: u64,
    /// Number of challenges without an answer, or whose download was never reported complete to an edge.
    pub unanswered: u64,
}

impl Tally {
    /// Returns whether a person should investigate the client: it gave several wrong answers, or left many challenges
    /// unanswered.
    #[must_use]
    pub const fn is_conspicuous(&self) -> bool {
        let all = self.passed.saturating_add(self.failed).saturating_add(self.unanswered);
        self.failed >= FAILED_MIN || self.unanswered >= UNANSWERED_MIN && self.unanswered.saturating_mul(2) > all
    }
}

/// Returns whether a download was fast with next to nothing from edges. The result only selects clients for
/// possession challenges; it proves no guilt.
#[must_use]
pub fn is_conspicuous(size: u64, edge_bytes: u64, elapsed_ms: u64) -> bool {
    let from_peers = size.saturating_sub(edge_bytes);
    let fast = u128::from(from_peers) * 1000 > u128::from(HIGH_RATE) * u128::from(elapsed_ms);
    fast && edge_bytes.saturating_mul(LOW_EDGE) < size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    #[test]
    fn a_challenge_asks_for_distinct_parts_that_were_not_sent() {
        let (size, mut rng) = (100 * PART_LEN + 7, Seeded::new(3));
        let sent = Spans::of(core::iter::once(0..50 * PART_LEN + 1));
        for _ in 0..200 {
            let c = Challenge::draw(&mut rng, size, &sent).expect("half is left");
            assert!(c.fits(size) && c.parts.len() == PARTS_MAX, "{c:?}");
            assert!(c.parts.iter().all(|&part| (50..=100).contains(&part)), "{c:?}");
        }
        assert_eq!(Challenge::draw(&mut rng, size, &Spans::of(core::iter::once(0..size))), None);
        assert_eq!(Challenge::draw(&mut rng, 0, &Spans::default()), None);
        let small = Challenge::draw(&mut rng, 3 * PART_LEN, &Spans::default()).expect("three parts");
        assert_eq!(small.parts, [0, 1, 2]);
        let last = Challenge::draw(&mut rng, 7, &Spans::default()).expect("one part");
        assert_eq!((&last.parts[..], part_range(7, 0)), (&[0][..], 0..7));
    }

    #[test]
    fn an_excessive_challenge_does_not_fit() {
        let of = |parts: &[u64]| Challenge { nonce: [0; 16], parts: parts.to_vec() };
        let size = 20 * PART_LEN;
        assert!(of(&[0, 19]).fits(size));
        for bad in [&[][..], &[20], &[3, 3], &[4, 3], &[0, 1, 2, 3, 4, 5, 6, 7, 8], &[u64::MAX]] {
            assert!(!of(bad).fits(size), "{bad:?}");
        }
    }

    #[test]
    fn a_proof_depends_on_the_nonce_and_every_byte() {
        let proof = |nonce, bytes: &[u8]| {
            let mut prover = Prover::new(&Challenge { nonce: [nonce; 16], parts: alloc::vec![0] });
            prover.add(bytes);
            prover.finish()
        };
        assert_eq!(proof(1, b"ab"), proof(1, b"ab"));
        assert!(proof(1, b"ab") != proof(2, b"ab") && proof(1, b"ab") != proof(1, b"ac"));
        assert_ne!(record_id(DownloadId::numbered(1)), record_id(DownloadId::numbered(2)));
    }

    #[test]
    fn two_wrong_answers_or_habitual_silence_are_conspicuous() {
        let of = |passed, failed, unanswered| Tally { passed, failed, unanswered }.is_conspicuous();
        assert!(of(100, 2, 0) && of(0, 0, 8) && of(7, 0, 8));
        assert!(!of(100, 1, 0) && !of(0, 0, 7) && !of(8, 0, 8));
    }

    #[test]
    fn a_fast_download_with_little_from_edges_is_conspicuous() {
        let size = 320 << 20;
        assert!(is_conspicuous(size, 0, 9_000));
        assert!(!is_conspicuous(size, 0, 11_000), "slower");
        assert!(!is_conspicuous(size, size / 8, 1), "with more from edges");
        let enough = size / LOW_EDGE;
        assert!(!is_conspicuous(size, enough, 1) && is_conspicuous(size, enough - 1, 1), "the boundary itself");
    }
}
