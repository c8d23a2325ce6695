//! The two sources of randomness of tests: enumerated draws and a seeded generator.

use crate::machine::Rng;
use alloc::vec::Vec;

/// Replays a prefix of draws; the first draw beyond it is answered with 0 and noted, so that an explorer can branch on
/// it. Nonces count up: distinct, and equal in equal states.
#[derive(Debug)]
pub struct Draws<'a> {
    given: core::slice::Iter<'a, u32>,
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
        if n <= 4 { (0..n).collect() } else { alloc::vec![0, n - 1] }
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

/// A seeded generator (SplitMix64): small, fast, the same everywhere. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seeded(u64);

impl Seeded {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something happens that has a chance of `permille` in 1,000.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1000) < permille
    }
}

impl Rng for Seeded {
    fn below(&mut self, n: u32) -> u32 {
        // the high half of a 32 × 32 bit product is below n
        let wide = (self.next() >> 32) * u64::from(n.max(1));
        u32::try_from(wide >> 32).expect("a number below n fits in 32 bits")
    }

    fn nonce(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
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
