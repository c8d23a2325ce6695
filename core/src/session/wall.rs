//! Wall clock as an offset: machines know [`Time`] only, and are occasionally told the Unix time.

use crate::machine::Time;

/// Unix time at the node's start, in milliseconds. Models rebase [`Time`] but leave it unchanged: to them Unix time
/// stands still, so that states with grants and certificates still compare equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wall {
    start_ms: u64,
}

impl Wall {
    /// Creates a clock that shows `unix_ms` at `now`.
    #[must_use]
    pub const fn showing(unix_ms: u64, now: Time) -> Self {
        Self { start_ms: unix_ms.saturating_sub(now.0 / 1000) }
    }

    /// Returns the Unix time at `now` in milliseconds.
    #[must_use]
    pub const fn at(self, now: Time) -> u64 {
        self.start_ms.saturating_add(now.0 / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_goes_on_from_what_it_was_told() {
        let w = Wall::showing(1_000_000, Time(5_000_000));
        assert_eq!(w.at(Time(5_000_000)), 1_000_000);
        assert_eq!(w.at(Time(7_500_000)), 1_002_500);
    }
}
