//! Rate limits: [`Pacer`] computes how long bytes must wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time whose unsent bytes may be sent later at once; short, so that a limit also holds over short spans.
const BURST: Duration = Duration::from_millis(50);

/// A rate limiter. Bytes are sent in the order in which they were reserved.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Limit in bytes a second, which may change; 0: no limit.
    rate: Arc<AtomicU64>,
    free_at: Option<Instant>,
}

impl Pacer {
    /// Makes a limiter of `rate` bytes a second; 0: no limit.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self::following(Arc::new(AtomicU64::new(rate)))
    }

    /// Makes a limiter whose limit is what `rate` holds.
    #[must_use]
    pub const fn following(rate: Arc<AtomicU64>) -> Self {
        Self { rate, free_at: None }
    }

    /// Changes the limit in bytes a second; 0: no limit.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Returns whether there is a limit at all.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate() > 0
    }

    /// Reserves `bytes`; returns the time at which they may be sent.
    pub fn reserve(&mut self, now: Instant, bytes: u64) -> Instant {
        let rate = self.rate();
        if rate == 0 {
            return now;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = self.free_at.map_or(earliest, |free| free.max(earliest));
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        let takes = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.free_at = Some(at.checked_add(takes).unwrap_or(at));
        at.max(now)
    }

    /// Returns the bytes to send per step: about 20 steps a second, of 16 KiB to `max` bytes each.
    #[must_use]
    pub fn step(&self, max: usize) -> usize {
        match self.rate() {
            0 => max,
            rate => usize::try_from(rate / 20).unwrap_or(max).clamp(16 * 1024, max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_limit_holds_from_the_next_bytes_on() {
        let (start, rate) = (Instant::now(), Arc::new(AtomicU64::new(1000)));
        let mut pacer = Pacer::following(rate.clone());
        pacer.reserve(start, 1000);
        rate.store(500, Ordering::Relaxed);
        let before = pacer.reserve(start, 1000);
        assert_eq!(pacer.reserve(start, 1), before + Duration::from_secs(2));
        rate.store(0, Ordering::Relaxed);
        assert_eq!((pacer.reserve(start, 1000), pacer.is_limited()), (start, false));
    }

    #[test]
    fn bytes_go_at_the_rate_and_short_pauses_are_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(1000);
        let at = |pacer: &mut Pacer, now: u64, bytes| {
            let now = start + Duration::from_millis(now);
            (pacer.reserve(now, bytes) - start).as_millis()
        };
        assert_eq!(at(&mut pacer, 0, 100), 0);
        assert_eq!(at(&mut pacer, 0, 100), 50, "the burst is 50 ms worth");
        assert_eq!(at(&mut pacer, 0, 100), 150);
        assert_eq!(at(&mut pacer, 10_000, 100), 10_000, "a long pause is not made up for");
        assert_eq!(at(&mut pacer, 10_000, 100), 10_050);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut pacer = Pacer::new(0);
        assert_eq!((pacer.reserve(now, u64::MAX), pacer.reserve(now, u64::MAX)), (now, now));
        assert_eq!(
            (pacer.step(7), Pacer::new(1).step(1 << 20), Pacer::new(1 << 40).step(1 << 20)),
            (7, 1 << 14, 1 << 20)
        );
    }
}
