//! Invariants of the client's session with a CN, except those of its shared versions, queries and usage records.

use super::{ClientSession, Link, Phase, Timer};
use crate::ids::ConnId;

impl ClientSession {
    /// Asserts that the deadlines, flags and numbers fit the session's phase.
    pub(super) fn check_phase(&self) {
        let set = |timer| self.timers.get(timer).is_some();
        if self.phase == Phase::Stopped {
            return assert!(self.timers.next().is_none(), "a stopped session has no deadline");
        }
        let opening = matches!(self.phase, Phase::Dialing(_) | Phase::Greeting(_));
        assert!(opening == set(Timer::Welcome), "a connection has a time-out until its Welcome");
        assert!(self.is_open() == set(Timer::Ping), "only an open session pings");
        assert!(self.is_open() || !set(Timer::Pong), "only an open session awaits an answer to a ping");
        assert!(self.is_open() || !set(Timer::Leave), "only an open session is left");
        assert!(self.phase == Phase::Down || !set(Timer::Dial), "a CN is dialled only without a connection");
        assert!(self.phase != Phase::Down || self.cns == 0 || set(Timer::Dial), "a session that is down dials a CN");
        assert!(!self.path_in_doubt || set(Timer::Pong), "a path in doubt has a time-out");
        assert!(!self.outdated || !self.is_open(), "the CN of an open session is up to date");
        assert!(self.conns < ConnId::CONTROL.0, "the numbers of connections stay in their space");
        let numbered = |link: Link| link.conn >= ConnId::CONTROL;
        assert!(self.link().is_none_or(numbered), "a control connection has a number of its space");
    }
}
