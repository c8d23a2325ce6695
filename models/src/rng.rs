//! The two sources of randomness of tests: enumerated draws and a seeded generator.

pub use crate::seeded::Seeded;

use swarmedge_core::machine::Rng;

/// Replays a prefix of draws; the first draw beyond it is answered with 0 and noted, so that an explorer can branch on
/// it. Nonces count up: distinct, and equal in equal states.
#[derive(Debug)]
pub struct Draws<'a> {
    given: std::slice::Iter<'a, u32>,
    /// The range of the first draw that had no answer.
    pub missing: Option<u32>,
    /// How many nonces were drawn.
    pub nonces: u64,
}

impl<'a> Draws<'a> {
    /// Answers with `given` in order; nonces go on from `nonces`.
    #[must_use]
    pub fn new(given: &'a [u32], nonces: u64) -> Self {
        Self { given: given.iter(), missing: None, nonces }
    }

    /// The answers worth exploring for a draw below `n`: all of a few, the ends of many.
    #[must_use]
    pub fn answers(n: u32) -> Vec<u32> {
        if n <= 4 { (0..n).collect() } else { std::vec![0, n - 1] }
    }
}

impl Rng for Draws<'_> {
    fn below(&mut self, n: u32) -> u32 {
        if n <= 1 {
            return 0;
        }
        self.given.next().copied().unwrap_or_else(|| {
            self.missing.get_or_insert(n);
            0
        })
    }

    fn nonce(&mut self) -> [u8; 16] {
        self.nonces += 1;
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.nonces.to_be_bytes());
        bytes
    }
}

/// A seeded defect: a constant where identifiers should be.
pub struct Repeating<'a>(pub &'a mut dyn Rng);

impl Rng for Repeating<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.0.below(n)
    }
    fn nonce(&mut self) -> [u8; 16] {
        [0; 16]
    }
}
