//! Sessions of one GUID on several CNs. Each GUID has a home DN, which hears of all its sessions. Those of different
//! starts are challenged through their CNs: only if two answer, both after both were there, there are two copies of one
//! installation. Soft state, which ends with sessions and connections.

use super::{Dn, Metric, Output};
use crate::ids::{Guid, SecondaryGuid, SessionId};
use crate::machine::Cx;
use crate::selection::PeerKey;
use crate::wire::directory::{DirectoryMsg, OfSession, Seen};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Sessions of one GUID that are remembered.
const COPIES_MAX: usize = 16;
/// Sessions of dead connections that are forgotten in one lot.
const SESSIONS_PER_LOT: usize = 256;

/// The sessions that this DN is the home of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Copies {
    by_guid: BTreeMap<Guid, BTreeMap<PeerKey, Copy>>,
    guids: BTreeMap<PeerKey, Guid>,
    /// Connections that have ended, and whose sessions are not all forgotten.
    dead: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Copy {
    start: SecondaryGuid,
    /// Its client has answered since the last challenge.
    alive: bool,
}

impl Copies {
    /// Takes in a session; those to be challenged, if it is not alone.
    fn seen(&mut self, key: PeerKey, seen: &Seen) -> Vec<PeerKey> {
        self.gone(key);
        let sessions = self.by_guid.entry(seen.guid).or_default();
        let (guids, dead) = (&mut self.guids, &self.dead);
        sessions.retain(|k, _| !dead.contains(&k.link) || guids.remove(k).is_none());
        if sessions.len() >= COPIES_MAX {
            return Vec::new();
        }
        sessions.insert(key, Copy { start: seen.secondary, alive: false });
        self.guids.insert(key, seen.guid);
        // of two on one CN that CN knows itself
        let elsewhere = |(k, c): (&PeerKey, &Copy)| k.link != key.link && c.start != seen.secondary;
        if !sessions.iter().any(elsewhere) {
            return Vec::new();
        }
        sessions.values_mut().for_each(|c| c.alive = false);
        sessions.keys().copied().collect()
    }

    /// A session's client has answered; those that are copies of each other, if they are.
    fn alive(&mut self, key: PeerKey) -> Vec<PeerKey> {
        let Some(sessions) = self.guids.get(&key).and_then(|guid| self.by_guid.get_mut(guid)) else {
            return Vec::new();
        };
        if let Some(copy) = sessions.get_mut(&key) {
            copy.alive = true;
        }
        let alive = || sessions.iter().filter(|(k, c)| c.alive && !self.dead.contains(&k.link));
        let starts: BTreeSet<_> = alive().map(|(_, c)| c.start).collect();
        if starts.len() > 1 { alive().map(|(k, _)| *k).collect() } else { Vec::new() }
    }

    pub(super) fn gone(&mut self, key: PeerKey) {
        let Some(guid) = self.guids.remove(&key) else { return };
        if let Some(sessions) = self.by_guid.get_mut(&guid) {
            sessions.remove(&key);
            if sessions.is_empty() {
                self.by_guid.remove(&guid);
            }
        }
    }

    /// A connection has ended: none of its sessions counts any more. They are forgotten lot by lot.
    pub(super) fn link_gone(&mut self, link: u64) {
        self.dead.insert(link);
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Forgets a lot.
    pub(super) fn sweep(&mut self) {
        for _ in 0..SESSIONS_PER_LOT {
            let Some(&link) = self.dead.first() else { return };
            let of_link = PeerKey { link, session: SessionId(0) }..=PeerKey { link, session: SessionId(u64::MAX) };
            match self.guids.range(of_link).next().map(|(key, _)| *key) {
                Some(key) => self.gone(key),
                None => drop(self.dead.remove(&link)),
            }
        }
    }
}

impl Dn {
    fn tell(&self, cx: &mut Cx<'_, Self>, of: &[PeerKey], msg: fn(OfSession) -> DirectoryMsg) {
        for key in of {
            if let Some(&conn) = self.by_link.get(&key.link) {
                cx.push(Output::CnSend { conn, msg: msg(OfSession { session: key.session }) });
            }
        }
    }

    pub(super) fn seen(&mut self, cx: &mut Cx<'_, Self>, link: u64, seen: &Seen) {
        let doubted = self.copies.seen(PeerKey { link, session: seen.session }, seen);
        self.tell(cx, &doubted, DirectoryMsg::Challenge);
    }

    pub(super) fn alive(&mut self, cx: &mut Cx<'_, Self>, key: PeerKey) {
        let copies = self.copies.alive(key);
        if !copies.is_empty() {
            cx.push(Output::Count(Metric::Cloned));
        }
        self.tell(cx, &copies, DirectoryMsg::Cloned);
    }
}
