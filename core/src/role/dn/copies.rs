//! Detection of copied installations by their sessions on several CNs.
//!
//! Each GUID has a home DN, which learns of all its sessions. When it finds sessions of different starts on different
//! CNs, it challenges all sessions of the GUID through their CNs. Only if clients of two starts answer after that,
//! there are two copies of one installation. The state is soft: it ends with sessions and connections.

use super::{Dn, Metric, Output};
use crate::ids::{Guid, SecondaryGuid, SessionId};
use crate::machine::Cx;
use crate::selection::PeerKey;
use crate::wire::directory::{FromDn, OfSession, Seen};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Maximum number of sessions of one GUID that are remembered.
const COPIES_MAX: usize = 16;
/// Number of sessions of closed connections that are deleted in one step.
const SESSIONS_PER_STEP: usize = 256;

/// Sessions of the GUIDs whose home is this DN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Copies {
    by_guid: BTreeMap<Guid, BTreeMap<PeerKey, Copy>>,
    guids: BTreeMap<PeerKey, Guid>,
    /// Link numbers of closed connections of which sessions are still to be deleted.
    closed_links: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Copy {
    start: SecondaryGuid,
    /// Whether the client has answered the last challenge.
    alive: bool,
}

impl Copies {
    /// Adds a session. Returns the sessions to be challenged: all of the GUID if another CN has a session of another
    /// start, else none.
    fn add(&mut self, key: PeerKey, seen: &Seen) -> Vec<PeerKey> {
        self.remove(key);
        let sessions = self.by_guid.entry(seen.guid).or_default();
        let (guids, closed_links) = (&mut self.guids, &self.closed_links);
        sessions.retain(|k, _| !closed_links.contains(&k.link) || guids.remove(k).is_none());
        if sessions.len() >= COPIES_MAX {
            return Vec::new();
        }
        sessions.insert(key, Copy { start: seen.secondary, alive: false });
        let before = self.guids.insert(key, seen.guid);
        debug_assert!(before.is_none(), "a session has one GUID");
        // two sessions on one CN are that CN's own business
        let elsewhere = |(k, c): (&PeerKey, &Copy)| k.link != key.link && c.start != seen.secondary;
        if !sessions.iter().any(elsewhere) {
            return Vec::new();
        }
        sessions.values_mut().for_each(|c| c.alive = false);
        sessions.keys().copied().collect()
    }

    /// Notes that a session's client has answered its challenge. Returns all sessions whose clients have, if they
    /// belong to at least two starts; else none.
    fn set_alive(&mut self, key: PeerKey) -> Vec<PeerKey> {
        let Some(sessions) = self.guids.get(&key).and_then(|guid| self.by_guid.get_mut(guid)) else {
            return Vec::new();
        };
        if let Some(copy) = sessions.get_mut(&key) {
            copy.alive = true;
        }
        let alive = || sessions.iter().filter(|(k, c)| c.alive && !self.closed_links.contains(&k.link));
        let starts: BTreeSet<_> = alive().map(|(_, c)| c.start).collect();
        if starts.len() > 1 { alive().map(|(k, _)| *k).collect() } else { Vec::new() }
    }

    pub(super) fn remove(&mut self, key: PeerKey) {
        let Some(guid) = self.guids.remove(&key) else { return };
        if let Some(sessions) = self.by_guid.get_mut(&guid) {
            let copy = sessions.remove(&key);
            debug_assert!(copy.is_some(), "each session is found by its GUID");
            if sessions.is_empty() {
                self.by_guid.remove(&guid);
            }
        }
    }

    /// Voids the sessions of a closed connection; they are deleted in steps.
    pub(super) fn remove_link(&mut self, link: u64) {
        self.closed_links.insert(link);
    }

    /// Asserts that sessions and GUIDs refer to each other, and that each session's link is open or closed but not
    /// yet deleted.
    pub(super) fn check(&self, is_open: impl Fn(u64) -> bool) {
        for (key, guid) in &self.guids {
            let listed = self.by_guid.get(guid).is_some_and(|sessions| sessions.contains_key(key));
            assert!(listed, "each session is found by its GUID");
            assert!(
                is_open(key.link) || self.closed_links.contains(&key.link),
                "each session is of a link that is open or swept"
            );
        }
        let sessions = self.by_guid.values().map(BTreeMap::len).sum::<usize>();
        assert!(sessions == self.guids.len(), "each session of a GUID is found by its key");
        let is_bounded = |sessions: &BTreeMap<_, _>| (1..=COPIES_MAX).contains(&sessions.len());
        assert!(self.by_guid.values().all(is_bounded), "each GUID has a session, and not too many");
        assert!(!self.closed_links.iter().any(|link| is_open(*link)), "no open link is swept");
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.closed_links.is_empty()
    }

    /// Deletes the next sessions of closed connections.
    pub(super) fn sweep(&mut self) {
        for _ in 0..SESSIONS_PER_STEP {
            let Some(&link) = self.closed_links.first() else { return };
            let of_link = PeerKey { link, session: SessionId(0) }..=PeerKey { link, session: SessionId(u64::MAX) };
            match self.guids.range(of_link).next().map(|(key, _)| *key) {
                Some(key) => self.remove(key),
                None => drop(self.closed_links.remove(&link)),
            }
        }
    }
}

impl Dn {
    fn send_each(&self, cx: &mut Cx<'_, Self>, of: &[PeerKey], msg: fn(OfSession) -> FromDn) {
        for key in of {
            if let Some(&conn) = self.by_link.get(&key.link) {
                cx.push(Output::CnSend { conn, msg: msg(OfSession { session: key.session }) });
            }
        }
    }

    pub(super) fn on_seen(&mut self, cx: &mut Cx<'_, Self>, link: u64, seen: &Seen) {
        let challenged = self.copies.add(PeerKey { link, session: seen.session }, seen);
        self.send_each(cx, &challenged, FromDn::Challenge);
    }

    pub(super) fn on_alive(&mut self, cx: &mut Cx<'_, Self>, key: PeerKey) {
        let copies = self.copies.set_alive(key);
        if !copies.is_empty() {
            cx.push(Output::Count(Metric::Cloned));
        }
        self.send_each(cx, &copies, FromDn::Cloned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const KEY: PeerKey = PeerKey { link: 1, session: SessionId(1) };

    #[test]
    fn each_clause_about_the_sessions_of_a_guid_fires() {
        let mut healthy = Copies::default();
        let seen = Seen { session: SessionId(1), guid: Guid::numbered(1), secondary: SecondaryGuid::numbered(1) };
        healthy.add(KEY, &seen);
        assert_each_clause_fires(
            &healthy,
            |copies| copies.check(|link| link == 1),
            &[
                ("each session is found by its GUID", |c| c.by_guid.clear()),
                ("each session of a GUID is found by its key", |c| c.guids.clear()),
                ("each GUID has a session, and not too many", |c| {
                    c.by_guid.insert(Guid::numbered(2), BTreeMap::new());
                }),
                ("no open link is swept", |c| c.remove_link(1)),
                ("each session is of a link that is open or swept", |c| {
                    let key = PeerKey { link: 2, ..KEY };
                    let seen =
                        Seen { session: SessionId(1), guid: Guid::numbered(2), secondary: SecondaryGuid::numbered(1) };
                    c.add(key, &seen);
                }),
            ],
        );
    }
}
