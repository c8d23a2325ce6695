//! Dialer that keeps one connection to one server: dial, notice the end, wait, dial again.

use super::Backoff;
use crate::ids::ConnId;
use crate::machine::Rng;
use core::time::Duration;

/// Dialer of one server. Numbers its attempts from `first` on, so that several dialers of a machine never share a
/// number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dialer {
    next: u64,
    state: State,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Down,
    Dialing(ConnId),
    Up(ConnId),
}

impl Dialer {
    /// Creates a dialer whose connections are numbered from `first` on.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { next: first, state: State::Down, backoff: Backoff::default() }
    }

    /// Asserts that the present connection has a number that was given before the next.
    pub(crate) fn check(&self) {
        self.backoff.check();
        assert!(self.conn().is_none_or(|conn| conn.0.wrapping_add(1) == self.next), "the newest connection is in use");
    }

    /// Begins an attempt. Returns `None` if a connection or attempt exists.
    pub fn dial(&mut self) -> Option<ConnId> {
        if self.state != State::Down {
            return None;
        }
        let conn = ConnId(self.next);
        self.next = self.next.wrapping_add(1);
        self.state = State::Dialing(conn);
        Some(conn)
    }

    /// Records that the attempt has succeeded. Returns false if it is not the present one.
    pub fn opened(&mut self, conn: ConnId) -> bool {
        let ours = self.state == State::Dialing(conn);
        if ours {
            self.state = State::Up(conn);
        }
        ours
    }

    /// Resets the back-off, since the server has answered sensibly.
    pub fn proven(&mut self) {
        self.backoff.succeeded();
    }

    /// Records that the attempt or connection has ended. Returns the delay before the next, or `None` if it is not the
    /// present one.
    pub fn closed(&mut self, conn: ConnId, limits: (Duration, Duration), rng: &mut dyn Rng) -> Option<Duration> {
        if self.conn() != Some(conn) {
            return None;
        }
        self.state = State::Down;
        Some(self.backoff.failed(limits, rng))
    }

    /// Returns the present connection or attempt.
    #[must_use]
    pub const fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Down => None,
            State::Dialing(c) | State::Up(c) => Some(c),
        }
    }

    /// Returns the open connection, if any.
    #[must_use]
    pub const fn up(&self) -> Option<ConnId> {
        match self.state {
            State::Up(c) => Some(c),
            State::Down | State::Dialing(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_of_a_dialer_finds_a_corruption() {
        let mut dialer = Dialer::new(7);
        assert_eq!(dialer.dial(), Some(ConnId(7)));
        assert_each_clause_fires(
            &dialer,
            Dialer::check,
            &[
                ("failures are counted to a limit", |d| d.backoff = Backoff::counting(200)),
                ("the newest connection is in use", |d| d.next = 7),
            ],
        );
    }
}
