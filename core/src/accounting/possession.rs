//! Possession challenges: an edge asks a client that has completed a download for a hash over parts that it has not
//! sent itself. Who made its bytes up together with others, and never had them, cannot answer. Weak evidence where the
//! content is public, since whoever wants to can fetch the parts; so it changes no bill, and only adds to others.
//!
//! A client that lacks a fraction f of the parts passes with (1 − f)⁸.

use super::Spans;
use crate::ids::{Digest, DownloadId, RecordId};
use crate::limits::{PART_LEN, PARTS_MAX};
use crate::machine::Rng;
use alloc::vec::Vec;
use core::ops::Range;
use sha2::{Digest as _, Sha256};

/// Begins what is hashed.
const PROOF_TEXT: &[u8] = b"swarmedge/1 possession\0";
/// Begins what a record is named by.
const RECORD_TEXT: &[u8] = b"swarmedge/1 possession record\0";
/// Draws for each part that is looked for.
const DRAWS: usize = 8;
/// A download is conspicuous if edges gave less than one byte in so many …
const LOW_EDGE: u64 = 16;
/// … and it was faster than so many bytes a second. Both are also what the best honest clients look like.
const HIGH_RATE: u64 = 32 << 20;

/// Wrong answers that are no accident.
const FAILED_MIN: u64 = 2;
/// Silences that are none, where they are more than half of all.
const UNANSWERED_MIN: u64 = 8;

/// What a client is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// Never used before, nor again.
    pub nonce: [u8; 16],
    /// Parts of the version, of [`PART_LEN`] bytes each but the last: ascending, [`PARTS_MAX`] at most.
    pub parts: Vec<u64>,
}

/// The bytes of a part of a version of `size` bytes; empty past its end.
#[must_use]
pub fn part_range(size: u64, part: u64) -> Range<u64> {
    let start = part.saturating_mul(PART_LEN).min(size);
    start..start.saturating_add(PART_LEN).min(size)
}

impl Challenge {
    /// Draws parts of a version of `size` bytes that are not among those `sent`; none if there are none, or too few to
    /// be found.
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
        (!parts.is_empty()).then(|| Self { nonce: rng.nonce(), parts })
    }

    /// Whether it asks for no more than it may of a version of `size` bytes.
    #[must_use]
    pub fn fits(&self, size: u64) -> bool {
        let rising = self.parts.is_sorted_by(|a, b| a < b);
        let there = self.parts.last().is_some_and(|last| !part_range(size, *last).is_empty());
        rising && there && self.parts.len() <= PARTS_MAX
    }
}

/// Makes the proof: hashes the nonce and the bytes of the parts, in order.
#[derive(Clone, Debug)]
pub struct Prover(Sha256);

impl Prover {
    /// For this challenge.
    #[must_use]
    pub fn new(challenge: &Challenge) -> Self {
        Self(Sha256::new_with_prefix(PROOF_TEXT).chain_update(challenge.nonce))
    }

    /// The next part's bytes, or some of them.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The proof.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The name of a download's one outcome: whichever edge tells it, and however often, the ledger keeps one.
#[must_use]
pub fn record_id(download: DownloadId) -> RecordId {
    let hash = Sha256::new_with_prefix(RECORD_TEXT).chain_update(download.0).finalize();
    let mut id = [0; RecordId::LEN];
    id.copy_from_slice(&hash[..RecordId::LEN]);
    RecordId(id)
}

/// What became of a client's challenges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: u64,
    /// Answered wrongly.
    pub failed: u64,
    /// Not answered, or no edge was told that the download was complete.
    pub unanswered: u64,
}

impl Tally {
    /// Whether people should look at it: a disk goes bad once, and a laptop is closed now and then.
    #[must_use]
    pub const fn is_conspicuous(&self) -> bool {
        let all = self.passed.saturating_add(self.failed).saturating_add(self.unanswered);
        self.failed >= FAILED_MIN || self.unanswered >= UNANSWERED_MIN && self.unanswered.saturating_mul(2) > all
    }
}

/// Whether a download is to be looked at more closely: next to nothing from edges, and fast. No guilt: it chooses whom
/// to challenge.
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
    fn a_challenge_asks_for_different_parts_that_were_not_sent() {
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
    fn more_than_may_be_asked_does_not_fit() {
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
    fn two_wrong_answers_or_silence_as_a_habit_are_conspicuous() {
        let of = |passed, failed, unanswered| Tally { passed, failed, unanswered }.is_conspicuous();
        assert!(of(100, 2, 0) && of(0, 0, 8) && of(7, 0, 8));
        assert!(!of(100, 1, 0) && !of(0, 0, 7) && !of(8, 0, 8));
    }

    #[test]
    fn conspicuous_is_who_is_fast_with_next_to_nothing_from_edges() {
        let size = 320 << 20;
        assert!(is_conspicuous(size, 0, 9_000));
        assert!(!is_conspicuous(size, 0, 11_000), "slower");
        assert!(!is_conspicuous(size, size / 8, 1), "with more from edges");
    }
}
