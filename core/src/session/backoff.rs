//! Delays between attempts after failures: exponential, with random jitter, up to a maximum.

use crate::machine::Rng;
use core::time::Duration;

/// Largest number of failures that is counted; further failures do not make delays longer.
const FAILURES_MAX: u8 = 17;

/// Counter of consecutive failures, from which the delay before the next attempt is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    failures: u8,
}

impl Backoff {
    /// Counts a failure and returns the delay: half of `first · 2ⁿ` (at most `longest`) plus as much again at random,
    /// so that many clients of one failed server do not return at the same moment.
    pub fn failed(&mut self, (first, longest): (Duration, Duration), rng: &mut dyn Rng) -> Duration {
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1).min(FAILURES_MAX);
        jittered(wait, rng)
    }

    /// Creates a counter with this number of failures, for tests.
    #[cfg(test)]
    pub(crate) const fn counting(failures: u8) -> Self {
        Self { failures }
    }

    /// Asserts that the counter is within its limit.
    pub(crate) fn check(self) {
        assert!(self.failures <= FAILURES_MAX, "failures are counted to a limit");
    }

    /// Resets the counter after a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Returns a random delay between half of `wait` and all of it, in 16 steps.
#[must_use]
pub fn jittered(wait: Duration, rng: &mut dyn Rng) -> Duration {
    if wait.is_zero() {
        return wait;
    }
    let half = wait / 2;
    let delay = half + half / 16 * (rng.below(16) + 1);
    debug_assert!(half <= delay && delay <= wait, "a delay lies between half of the wait and all of it");
    delay
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random numbers for tests: always the largest possible one.
    struct Highest;
    impl Rng for Highest {
        fn below(&mut self, n: u32) -> u32 {
            n - 1
        }
        fn nonce(&mut self) -> [u8; 16] {
            [0; 16]
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_after_a_success() {
        let limits = (Duration::from_millis(160), Duration::from_secs(1));
        let mut b = Backoff::default();
        let waits: [u128; 5] = core::array::from_fn(|_| b.failed(limits, &mut Highest).as_millis());
        assert_eq!(waits, [160, 320, 640, 1000, 1000]);
        b.succeeded();
        assert_eq!(b.failed(limits, &mut Highest).as_millis(), 160);
        for _ in 0..1000 {
            assert!(b.failed(limits, &mut Highest) <= limits.1);
        }
    }
}
