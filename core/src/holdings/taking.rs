//! The least rate at which a receiver must take what it has asked for. Bytes are counted where they are written, and
//! only while the writer waits for the receiver: who is served slowly is not blamed.

use crate::machine::Time;
use core::time::Duration;

/// Least rate of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeastRate {
    /// Bytes that must be taken in each period.
    pub bytes: u64,
    /// Length of a period.
    pub every: Duration,
}

impl LeastRate {
    /// Least rate in production: 64 KiB a minute, about what a modem of 56 kbit/s takes in ten seconds.
    pub const USUAL: Self = Self { bytes: 64 * 1024, every: Duration::from_secs(60) };
}

/// Watch over one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taker {
    /// Beginning of the current period, and the bytes taken before it.
    since: Option<(Time, u64)>,
    /// Looks in the current period, and those of them at which the writer waited for the receiver.
    looks: (u32, u32),
}

impl Taker {
    /// Looks at a receiver, many times in a period: `taken` is all that it has ever taken, `waits` whether the writer
    /// waits for it. Returns whether it has taken too little in a period in three quarters of which it was waited for.
    pub fn is_too_slow(&mut self, least: &LeastRate, now: Time, taken: u64, waits: bool) -> bool {
        let (began, before) = *self.since.get_or_insert((now, taken));
        self.looks.0 += 1;
        self.looks.1 += u32::from(waits);
        if now.since(began) < least.every {
            return false;
        }
        let (looks, waited) = self.looks;
        *self = Self { since: Some((now, taken)), looks: (0, 0) };
        waits && u64::from(waited) * 4 >= u64::from(looks) * 3 && taken.saturating_sub(before) < least.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the seconds after which a receiver of this rate is given up, if it is within ten minutes.
    fn given_up(bytes_a_second: u64, waits: impl Fn(u64) -> bool) -> Option<u64> {
        let mut taker = Taker::default();
        let mut look = |s: u64| {
            let now = Time::ZERO.after(Duration::from_secs(s));
            taker.is_too_slow(&LeastRate::USUAL, now, s * bytes_a_second, waits(s))
        };
        (0..600).step_by(2).find(|s| look(*s))
    }

    #[test]
    fn who_takes_too_little_is_given_up_after_a_period() {
        assert_eq!(given_up(128, |_| true), Some(60));
        assert_eq!(given_up(1_000, |_| true), Some(60));
        assert_eq!(given_up(1_200, |_| true), None, "slow, but not too slow");
    }

    #[test]
    fn who_is_not_waited_for_is_never_too_slow() {
        assert_eq!(given_up(0, |_| false), None, "idle, or served slowly");
        assert_eq!(given_up(128, |s| s % 4 == 0), None, "waited for half of the time");
    }

    #[test]
    fn a_burst_at_first_pays_for_one_period_only() {
        let mut taker = Taker::default();
        let mut look = |s: u64| {
            let now = Time::ZERO.after(Duration::from_secs(s));
            taker.is_too_slow(&LeastRate::USUAL, now, if s > 0 { 1 << 20 } else { 0 }, s > 0)
        };
        assert_eq!((0..600).step_by(2).find(|s| look(*s)), Some(120));
    }
}
