//! Measures the speed of a source: bytes a second, in integers.

use core::time::Duration;

/// A smoothed rate of verified bytes. Bytes are added as they arrive, and a sample is taken at each tick. An idle
/// source keeps its last rate, since its speed is not measured while idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Smoothed rate in bytes a second; 0: not known.
    smoothed: u64,
    /// Last sample in bytes a second.
    last: u64,
    /// Bytes received since the last sample.
    pending: u64,
}

/// Divisor of the exponential smoothing: a new sample has the weight 1 / `SMOOTHING`.
const SMOOTHING: u64 = 4;

impl Rate {
    /// Creates a rate that is not known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { smoothed: 0, last: 0, pending: 0 }
    }

    /// Adds received bytes to the next sample.
    pub const fn add(&mut self, bytes: u64) {
        self.pending = self.pending.saturating_add(bytes);
    }

    /// Takes a sample over `over`, the time since the last sample. `busy`: the source had transfers all that time.
    pub fn sample(&mut self, over: Duration, busy: bool) {
        let micros = u64::try_from(over.as_micros()).unwrap_or(u64::MAX).max(1);
        let sample = self.pending.saturating_mul(1_000_000) / micros;
        self.pending = 0;
        if !busy && sample < self.smoothed {
            return;
        }
        self.last = sample;
        self.smoothed = match self.smoothed {
            0 => sample,
            old => (old / SMOOTHING).saturating_mul(SMOOTHING - 1).saturating_add(sample / SMOOTHING),
        };
    }

    /// Returns the smoothed rate in bytes a second; 0: not known.
    #[must_use]
    pub const fn per_second(&self) -> u64 {
        self.smoothed
    }

    /// Returns the mean of the last sample and the smoothed rate, in bytes a second; it follows changes faster than
    /// [`Rate::per_second`].
    #[must_use]
    pub const fn recent(&self) -> u64 {
        self.last / 2 + self.smoothed / 2
    }

    /// Returns the time that `bytes` take at this rate; `None` while the rate is not known.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Option<Duration> {
        (self.smoothed > 0).then(|| Duration::from_micros(bytes.saturating_mul(1_000_000) / self.smoothed))
    }

    /// Returns the bytes that arrive in `time` at this rate.
    #[must_use]
    pub fn bytes_in(&self, time: Duration) -> u64 {
        self.smoothed.saturating_mul(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_steady_source_is_measured_exactly() {
        let mut rate = Rate::default();
        for _ in 0..10 {
            rate.add(100_000);
            rate.sample(TICK, true);
        }
        assert_eq!(rate.per_second(), 1_000_000);
        assert_eq!(rate.time_for(2_000_000), Some(Duration::from_secs(2)));
        assert_eq!(rate.bytes_in(TICK), 100_000);
    }

    #[test]
    fn an_idle_source_keeps_its_rate_and_a_stalled_one_loses_it() {
        let mut rate = Rate::default();
        rate.add(100_000);
        rate.sample(TICK, true);
        rate.sample(TICK, false);
        assert_eq!(rate.per_second(), 1_000_000);
        (0..60).for_each(|_| rate.sample(TICK, true));
        assert!(rate.per_second() < 1000, "{rate:?}");
    }
}
