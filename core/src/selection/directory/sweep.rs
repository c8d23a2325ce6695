//! Work that is done in lots (batches). A peer may share tens of thousands of versions, and a CN's connection may
//! carry a hundred thousand peers: a change for all of them is recorded at once, and the lists are updated one lot at
//! a time. A peer whose lists are not up to date is not offered.

use super::{Directory, Listing, Peer, PeerKey};
use crate::ids::{Guid, SessionId, VersionId};
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Unbounded};

/// Maximum number of copies that one call of [`Directory::sweep`], or one event, adds to or removes from lists: a few
/// milliseconds' work.
pub const COPIES_PER_LOT: usize = 1_024;
/// Maximum number of peers that one call of [`Directory::sweep`] deletes after their CN's connection has ended.
const PEERS_PER_LOT: usize = 256;

impl Directory {
    /// Removes the registration of a client.
    pub fn remove(&mut self, key: PeerKey) {
        if self.peer(key).is_some() {
            let mut room = COPIES_PER_LOT;
            self.end(key, &mut room);
        }
    }

    pub(super) fn end(&mut self, key: PeerKey, room: &mut usize) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let guid = peer.entry.guid;
        peer.gone = true;
        if let Some(all) = self.by_guid.get_mut(&guid) {
            all.retain(|k| *k != key);
            if all.is_empty() {
                self.by_guid.remove(&guid);
            }
        }
        self.settle(key, room);
        self.relist(guid, room);
    }

    /// Invalidates all registrations of a CN's ended connection at once. [`Directory::sweep`] deletes them.
    pub fn remove_link(&mut self, link: u64) {
        self.dead.insert(link);
    }

    /// Returns whether lists are outdated, so that [`Directory::sweep`] must be called.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.dead.is_empty() || !self.unsettled.is_empty()
    }

    /// Updates outdated lists, with at most [`COPIES_PER_LOT`] changes, and deletes registrations of ended
    /// connections.
    pub fn sweep(&mut self) {
        let mut room = COPIES_PER_LOT;
        let mut last = None;
        while room > 0
            && let Some(key) = self.next_unsettled().filter(|k| last != Some(*k))
        {
            last = Some(key);
            self.settling = last;
            self.settle(key, &mut room);
        }
        if self.unsettled.is_empty() {
            self.settling = None;
        }
        for _ in 0..PEERS_PER_LOT {
            let Some(&link) = self.dead.first().filter(|_| room > 0) else { return };
            match self.next_of(link) {
                Some(key) => self.end(key, &mut room),
                None => drop(self.dead.remove(&link)),
            }
        }
    }

    /// Returns the next peer with outdated lists, in turn, so that a peer whose lists are always outdated does not
    /// delay the others.
    fn next_unsettled(&self) -> Option<PeerKey> {
        let after = self.settling.and_then(|k| self.unsettled.range((Excluded(k), Unbounded)).next());
        after.or_else(|| self.unsettled.first()).copied()
    }

    fn next_of(&self, link: u64) -> Option<PeerKey> {
        let of_link = PeerKey { link, session: SessionId(0) }..=PeerKey { link, session: SessionId(u64::MAX) };
        self.peers.range(of_link).next().map(|(key, _)| *key)
    }

    /// Marks of a GUID's registrations only the newest one whose CN is connected as to be listed, if it may be
    /// offered to anybody.
    pub(super) fn relist(&mut self, guid: Guid, room: &mut usize) {
        let all = self.by_guid.get(&guid).cloned().unwrap_or_default();
        let newest = all.iter().rev().find(|k| !self.dead.contains(&k.link)).copied();
        for key in all {
            self.aim(key, |peer| peer.listed = newest == Some(key) && peer.may_be_offered(), room);
        }
    }

    /// Changes whether, or under which NAT class and sets, a peer is to be listed, and updates its lists by at most
    /// `room` copies.
    pub(super) fn aim(&mut self, key: PeerKey, change: impl FnOnce(&mut Peer), room: &mut usize) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (was_listed, was_at) = (peer.listed, peer.place.clone());
        change(peer);
        if (peer.listed, &peer.place) == (was_listed, &was_at) {
            return;
        }
        let left = peer.left.take().unwrap_or(was_at);
        peer.left = Some(left).filter(|left| !peer.listed || *left != peer.place);
        if self.unsettled.insert(key) {
            self.settle(key, room);
        }
    }

    /// Updates a peer's outdated lists by at most `room` copies, and subtracts their number from `room`.
    pub(super) fn settle(&mut self, key: PeerKey, room: &mut usize) {
        self.settle_lists(key, room);
        self.recount(key);
    }

    fn settle_lists(&mut self, key: PeerKey, room: &mut usize) {
        self.take_off(key, room);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.unsettled.insert(key);
        if *room == 0 {
            return;
        }
        peer.left = None;
        if peer.gone {
            self.peers.remove(&key);
        } else if peer.listed {
            let barred = |version: VersionId| {
                !self.standings.is_empty() && self.standings.get(&peer.copy(version)).is_some_and(|s| s.is_barred)
            };
            let off = peer.shares.iter().filter(|(v, s)| !s.on && !barred(**v)).map(|(v, _)| *v);
            let off: Vec<VersionId> = off.take(*room).collect();
            *room -= off.len();
            for version in off {
                if let Some(share) = peer.shares.get_mut(&version) {
                    share.on = true;
                    self.lists.put(version, &peer.place, share.rank, key);
                }
            }
            if *room == 0 {
                return;
            }
        }
        self.unsettled.remove(&key);
    }

    /// Removes a peer's outdated copies from the lists, at most `room`, and subtracts their number from `room`. All
    /// are removed if `room` is not 0 afterwards.
    fn take_off(&mut self, key: PeerKey, room: &mut usize) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let all = peer.gone || !peer.listed || peer.left.is_some();
        let goes = |s: &super::Share| s.doubtful || all && s.on;
        // from the end: who tells all anew begins at the other
        let off = peer.shares.iter().rev().filter(|(_, s)| goes(s)).map(|(v, _)| *v);
        let off: Vec<VersionId> = off.take(*room).collect();
        *room -= off.len();
        for version in off {
            let Some(share) = peer.shares.get_mut(&version) else { continue };
            let (on, rank) = (core::mem::take(&mut share.on), share.rank);
            if share.doubtful {
                peer.shares.remove(&version);
            }
            if on {
                let listing: &Listing = peer.left.as_ref().unwrap_or(&peer.place);
                self.lists.take(version, listing, rank, key);
            }
        }
    }
}

impl Peer {
    /// Returns whether the peer's user allows uploads and clients of some NAT class can connect with it.
    fn may_be_offered(&self) -> bool {
        self.entry.uploads && self.place.class.meets_anybody()
    }
}
