//! Invariants of the CN, checked on its whole state.

use super::{Cn, Phase, Timer};
use crate::ids::ConnId;

impl Cn {
    pub(super) fn check_state(&self) {
        self.sessions.check();
        if self.common.phase == Phase::Stopped {
            assert!(self.sessions.connections() == 0, "a stopped CN has no clients");
            assert!(self.common.timers.next().is_none(), "a stopped CN waits for nothing");
            return;
        }
        assert!(
            self.common.wall.is_some() || self.sessions.connections() == 0,
            "without the time there are no clients"
        );
        self.notices.check(&self.common);
        self.tickets.check();
        for (conn, _) in self.sessions.clients() {
            self.check_client(conn);
        }
        self.check_queries();
        self.meetings.check(&self.common);
        self.dns.check(&self.common);
        self.recording.check(&self.common);
        self.check_timers();
    }

    /// Asserts the invariants of one client's connection, at constant cost.
    pub(super) fn check_client(&self, conn: ConnId) {
        let waits_for = |timer: fn(ConnId) -> Timer| self.common.timers.get(timer(conn)).is_some();
        let silent = waits_for(Timer::Silent);
        assert!(silent == self.sessions.is_connected(conn), "each connection has a time-out, and no other");
        self.sessions.check_one(conn);
        let Some(session) = self.sessions.get(conn) else {
            let waits = [Timer::Challenge, Timer::Tell, Timer::Readd].into_iter().any(waits_for);
            return assert!(!waits, "without a session nothing is waited for");
        };
        session.challenge.check(waits_for(Timer::Challenge));
        session.dn_view.check(waits_for(Timer::Tell), waits_for(Timer::Readd));
    }

    fn check_queries(&self) {
        self.queries.check(|dn| self.dns.is_up(dn));
        for req in self.queries.reqs() {
            assert!(req < self.common.next_req, "each query has a number that was given");
            assert!(self.common.timers.get(Timer::Query(req)).is_some(), "each query has a time-out");
        }
        for req in self.recording.usage.reqs() {
            assert!(req < self.common.next_req, "each acknowledgement has a number that was given");
            assert!(!self.queries.contains(req), "queries and acknowledgements share no number");
        }
    }

    fn check_timers(&self) {
        assert!(
            (self.common.phase == Phase::Draining) == self.common.timers.get(Timer::Stop).is_some(),
            "exactly a draining CN will stop"
        );
        for timer in self.common.timers.keys() {
            let is_owned = match timer {
                Timer::Silent(conn) | Timer::Challenge(conn) | Timer::Tell(conn) | Timer::Readd(conn) => {
                    self.sessions.is_connected(conn)
                }
                Timer::Query(req) => self.queries.contains(req),
                Timer::Dial(dn) | Timer::Ping(dn) | Timer::Register(dn) => self.dns.contains(dn),
                Timer::IntroducedUploader(intro) => self.meetings.has_uploader(intro),
                Timer::Notices | Timer::Spool | Timer::Stop => true,
            };
            assert!(is_owned, "each time-out is of something that waits");
        }
    }
}
