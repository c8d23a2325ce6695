//! Keeps one connection to one server: dials, and after a failure or the connection's end dials again, with growing
//! delays.

use super::Backoff;
use crate::ids::ConnId;
use crate::machine::Rng;
use core::time::Duration;

/// State of the connection to one server. Attempts are numbered upwards from a given first number, so that several
/// dialers of one state machine use different numbers.
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

    /// Asserts that the present connection has the number before the next one.
    pub(crate) fn check(&self) {
        self.backoff.check();
        assert!(self.conn().is_none_or(|conn| conn.0.wrapping_add(1) == self.next), "the newest connection is in use");
    }

    /// Begins an attempt to connect and returns its number; `None` if a connection or attempt exists.
    pub fn dial(&mut self) -> Option<ConnId> {
        if self.state != State::Down {
            return None;
        }
        let conn = ConnId(self.next);
        self.next = self.next.wrapping_add(1);
        self.state = State::Dialing(conn);
        Some(conn)
    }

    /// Records that the attempt with this number has succeeded. Returns false if it is not the present attempt.
    pub fn opened(&mut self, conn: ConnId) -> bool {
        let ours = self.state == State::Dialing(conn);
        if ours {
            self.state = State::Up(conn);
        }
        ours
    }

    /// Resets the delay between attempts, after the server has answered.
    pub fn proven(&mut self) {
        self.backoff.succeeded();
    }

    /// Records that the attempt or connection with this number has ended. Returns the delay before the next attempt
    /// (`limits`: the first and the longest one); `None` if it is not the present connection.
    pub fn closed(&mut self, conn: ConnId, limits: (Duration, Duration), rng: &mut dyn Rng) -> Option<Duration> {
        if self.conn() != Some(conn) {
            return None;
        }
        self.state = State::Down;
        Some(self.backoff.failed(limits, rng))
    }

    /// Returns the number of the present connection or attempt, if any.
    #[must_use]
    pub const fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Down => None,
            State::Dialing(c) | State::Up(c) => Some(c),
        }
    }

    /// Returns the number of the open connection, if any.
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
