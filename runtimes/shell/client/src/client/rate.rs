//! The rate of a download, averaged over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Span of time over which a rate is averaged.
const WINDOW: Duration = Duration::from_secs(5);
/// Maximum number of samples kept; the machine sends a few notices a second.
const SAMPLES_MAX: usize = 64;

/// Samples (time, total bytes) from which bytes per second are computed.
#[derive(Clone, Debug, Default)]
pub(super) struct RateMeter(VecDeque<(Instant, u64)>);

impl RateMeter {
    /// Adds a sample: `total` bytes were received by `now`.
    pub(super) fn add(&mut self, now: Instant, total: u64) {
        // a total that falls begins a new transfer
        if self.0.back().is_some_and(|&(_, last)| last > total) {
            self.0.clear();
        }
        while self.0.len() >= SAMPLES_MAX || self.0.get(1).is_some_and(|&(at, _)| at + WINDOW < now) {
            self.0.pop_front();
        }
        self.0.push_back((now, total));
    }

    /// Returns the average bytes per second up to `now`; it falls while no sample is added.
    pub(super) fn bytes_per_s(&self, now: Instant) -> u64 {
        let (Some(&(first_at, first)), Some(&(_, last))) = (self.0.front(), self.0.back()) else { return 0 };
        let ms = now.saturating_duration_since(first_at).as_millis().max(1);
        u64::try_from(u128::from(last - first) * 1000 / ms).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_last_seconds_and_falls_in_silence() {
        let mut meter = RateMeter::default();
        let start = Instant::now();
        assert_eq!(meter.bytes_per_s(start), 0);
        for s in 0..=20 {
            // 1,000 a second for ten seconds, then 3,000
            let total = if s <= 10 { s * 1_000 } else { 10_000 + (s - 10) * 3_000 };
            meter.add(start + Duration::from_secs(s), total);
        }
        let end = start + Duration::from_secs(20);
        assert_eq!(meter.bytes_per_s(end), 3_000);
        assert!(meter.bytes_per_s(end + Duration::from_secs(60)) < 300);
    }
}
