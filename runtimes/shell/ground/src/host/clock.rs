//! The time of day as the machines of servers are told it: regularly, and at once when the clock has jumped.

use crate::mailbox::Sender;
use crate::rt::Rt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Interval at which machines are told the time of day, since clocks drift.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Interval at which the clock is compared with what it should show.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Difference from the expected time that is a jump, milliseconds.
const JUMP_MS: u64 = 500;

/// Returns the current Unix time in milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    in_ms(since)
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The time of day that a machine was told last, and when.
#[derive(Clone, Copy, Debug)]
struct Told {
    unix_ms: u64,
    at: Instant,
}

impl Told {
    /// Returns whether the machine must be told again: the last time was long ago, or the clock has been set since.
    fn is_stale(self, unix_ms: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        let expected = self.unix_ms.saturating_add(in_ms(passed));
        passed >= TELL_EVERY || unix_ms.abs_diff(expected) > JUMP_MS
    }
}

/// Sends a machine the Unix time in milliseconds now, every 30 s, and within a second after the clock was set, until
/// its mailbox is closed.
pub async fn send_clock<R: Rt, I: Send>(rt: R, inbox: Sender<I>, wrap: fn(u64) -> I) {
    let mut told: Option<Told> = None;
    loop {
        let (unix_ms, at) = (unix_ms(), rt.now());
        if told.is_none_or(|told| told.is_stale(unix_ms, at)) {
            if inbox.send(wrap(unix_ms)).await.is_err() {
                return;
            }
            told = Some(Told { unix_ms, at });
        }
        rt.sleep_until(at + LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_at_once_and_one_that_runs_now_and_then() {
        let at = Instant::now();
        let told = Told { unix_ms: 1_000_000_000, at };
        let after = |s: u64, by_ms: i64| {
            let shown = (told.unix_ms + s * 1000).checked_add_signed(by_ms).expect("in range");
            told.is_stale(shown, at + Duration::from_secs(s))
        };
        assert!(!after(0, 0) && !after(1, 0) && !after(29, 0), "it runs");
        assert!(!after(1, 400) && !after(1, -400), "it is adjusted a little");
        assert!(after(1, 501) && after(1, -501), "it was set");
        assert!(after(1, 5 * 3_600_000) && after(1, -5 * 3_600), "by hours or seconds");
        assert!(after(30, 0), "it is told regularly");
    }
}
