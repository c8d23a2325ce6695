//! Unix clock as an offset to [`Time`], since state machines have no other clock and only sometimes receive the Unix
//! time in a message.

use crate::machine::Time;

/// Unix clock: the Unix time at [`Time::ZERO`], in milliseconds. The model checker shifts [`Time`]
/// ([`Machine::rebase`](crate::Machine::rebase)) without changing this, so that states with grants and certificates
/// still compare equal.
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
