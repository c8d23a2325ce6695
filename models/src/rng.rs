//! The two sources of randomness of tests: enumerated draws and a seeded generator.

pub use crate::seeded::Seeded;

use swarmedge_core::machine::Rng;

/// Random source that replays given draws. The first draw beyond them returns 0 and is noted in `missing`, so that an
/// explorer can branch on it. Nonces count up, so they are distinct within a run and equal in equal states.
#[derive(Debug)]
pub struct Draws<'a> {
    given: std::slice::Iter<'a, u32>,
    /// Range of the first draw beyond the given ones; `None` if there was no such draw.
    pub missing: Option<u32>,
    /// Number of nonces drawn.
    pub nonces: u64,
}

impl<'a> Draws<'a> {
    /// Returns a source that replays `given` in order, and whose next nonce is number `nonces`.
    #[must_use]
    pub fn new(given: &'a [u32], nonces: u64) -> Self {
        Self { given: given.iter(), missing: None, nonces }
    }

    /// Returns the results that an explorer tries for a draw below `n`: all if `n` ≤ 4, else the smallest and the
    /// largest.
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
