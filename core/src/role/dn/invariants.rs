//! Invariants of the DN, checked on its whole state.

use super::{CONDUCT_MAX, Dn, OFFERED_MAX, Timer};
use crate::ids::{ConnId, PublicKey};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Dn {
    pub(super) fn check_state(&self) {
        self.check_conns();
        self.check_downloads();
        self.check_blames();
        self.check_timers();
        self.directory.check();
        self.copies.check(|link| self.by_link.contains_key(&link));
    }

    /// Asserts the invariants of one connection, at constant cost.
    pub(super) fn check_conn(&self, conn: ConnId) {
        let silent = self.timers.get(Timer::Silent(conn)).is_some();
        assert!(silent == self.conns.contains_key(&conn), "each connection has a time-out, and no other");
        let Some(link) = self.conns.get(&conn).and_then(|cn| cn.link) else { return };
        assert!(self.by_link.get(&link) == Some(&conn), "each CN is found by its link");
        assert!(link <= self.links, "each CN has a link that was given");
    }

    fn check_conns(&self) {
        self.conns.keys().for_each(|conn| self.check_conn(*conn));
        let linked: Vec<PublicKey> = self.conns.values().filter(|cn| cn.link.is_some()).map(|cn| cn.key).collect();
        assert!(self.by_link.len() == linked.len(), "each link is of a connection");
        let keys: BTreeSet<PublicKey> = linked.iter().copied().collect();
        assert!(keys.len() == linked.len(), "no CN has two links");
    }

    fn check_downloads(&self) {
        assert!(self.conduct.len() <= CONDUCT_MAX, "the downloads whose conduct is kept are bounded");
        for (download, conduct) in &self.conduct {
            assert!(self.timers.get(Timer::Forgive(*download)).is_some(), "each download is forgiven in time");
            conduct.check();
        }
        assert!(self.offered.len() <= OFFERED_MAX, "the downloads whose offers are counted are bounded");
        for (download, offers) in &self.offered {
            assert!(self.timers.get(Timer::Offer(*download)).is_some(), "each count of offers is forgotten in time");
            assert!(*offers > 0, "only downloads with offers are counted");
        }
    }

    fn check_timers(&self) {
        let behind = self.directory.is_behind() || self.copies.is_behind();
        assert!(!behind || self.timers.get(Timer::Sweep).is_some(), "stale registrations are swept in time");
        for timer in self.timers.keys() {
            let is_owned = match timer {
                Timer::Silent(conn) => self.conns.contains_key(&conn),
                Timer::Forgive(download) => self.conduct.contains_key(&download),
                Timer::Offer(download) => self.offered.contains_key(&download),
                Timer::Blames | Timer::Sweep => true,
            };
            assert!(is_owned, "each time-out is of something that waits");
        }
    }
}
