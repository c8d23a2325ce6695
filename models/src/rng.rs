//! The two sources of randomness of tests: enumerated draws and a seeded generator.

pub use crate::seeded::Seeded;

use swarmedge_core::machine::Rng;

/// Random source that replays a prefix of draws; the first draw beyond it returns 0 and is noted, so that an explorer
/// can branch on it. Nonces count up: distinct, and equal in equal states.
#[derive(Debug)]
pub struct Draws<'a> {
    given: std::slice::Iter<'a, u32>,
    /// Range of the first draw beyond the prefix; `None` if there was none.
    pub missing: Option<u32>,
    /// Number of nonces drawn.
    pub nonces: u64,
}

impl<'a> Draws<'a> {
    /// Returns a source that replays `given` in order and counts nonces on from `nonces`.
    #[must_use]
    pub fn new(given: &'a [u32], nonces: u64) -> Self {
        Self { given: given.iter(), missing: None, nonces }
    }

    /// Returns the results worth exploring for a draw below `n`: all if `n` ≤ 4, else the smallest and largest.
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

/// Seeded defect: random source that repeats a constant identifier.
pub struct Repeating<'a>(pub &'a mut dyn Rng);

impl Rng for Repeating<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.0.below(n)
    }
    fn nonce(&mut self) -> [u8; 16] {
        [0; 16]
    }
}
