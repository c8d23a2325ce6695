//! Random numbers from a seed: the same draws in every run.

use swarmedge_core::machine::Rng;

/// Seeded random generator (SplitMix64): small, fast, the same on every platform. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seeded(u64);

impl Seeded {
    /// Creates a generator from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 random bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns true with a chance of `permille` in 1,000.
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
