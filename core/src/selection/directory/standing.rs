//! Blamed copies: those that are barred stand on no list, those that are hidden from a network are passed over in its
//! selections. The registration of their holder and its other copies are not affected.

use super::{CopyId, Directory, Network, Peer, PeerKey, Standing};
use crate::ids::{Guid, VersionId};

impl Directory {
    /// Sets to whom a blamed copy may be offered. Returns whether it is barred now, if that has changed.
    pub fn set_standing(&mut self, copy: CopyId, standing: Standing) -> Option<bool> {
        let is_barred = standing.is_barred;
        let is_usual = standing == Standing::default();
        let before = if is_usual { self.standings.remove(&copy) } else { self.standings.insert(copy, standing) };
        if before.is_some_and(|before| before.is_barred) == is_barred {
            return None;
        }
        for key in self.by_guid.get(&copy.holder).cloned().unwrap_or_default() {
            self.relist_copy(key, copy.version);
        }
        Some(is_barred)
    }

    /// Adds a copy to the lists or removes it from them, since it is no longer barred, or is now. The lists of a peer
    /// that are outdated get it when they are settled.
    fn relist_copy(&mut self, key: PeerKey, version: VersionId) {
        let Some(peer) = self.peers.get(&key) else { return };
        let (barred, settled) = (self.is_barred(peer, version), !self.unsettled.contains(&key));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let offered = peer.is_offered();
        let listing = peer.left.as_ref().unwrap_or(&peer.place).clone();
        let Some(share) = peer.shares.get_mut(&version) else { return };
        if share.on && barred {
            share.on = false;
            self.lists.take(version, &listing, share.rank, key);
        } else if !share.on && !barred && offered && settled {
            share.on = true;
            self.lists.put(version, &listing, share.rank, key);
        }
    }

    /// Returns whether a peer's copy may be offered to nobody.
    pub(super) fn is_barred(&self, peer: &Peer, version: VersionId) -> bool {
        self.standings.get(&peer.copy(version)).is_some_and(|standing| standing.is_barred)
    }

    /// Returns whether a peer's copy may not be offered to a client of another peer's network.
    pub(super) fn is_hidden(&self, peer: &Peer, version: VersionId, from: &Peer) -> bool {
        self.standings.get(&peer.copy(version)).is_some_and(|standing| {
            let network = Network::of(from.entry.observed.ip(), &from.entry.locality);
            standing.hidden_from.contains(&network)
        })
    }

    /// Returns the newest registration of a client whose CN is connected.
    #[must_use]
    pub fn newest(&self, guid: Guid) -> Option<PeerKey> {
        let all = self.by_guid.get(&guid)?;
        all.iter().rev().find(|key| !self.dead.contains(&key.link)).copied()
    }

    /// Returns the copies that may not be offered to everybody, with the reason.
    pub fn standings(&self) -> impl Iterator<Item = (CopyId, &Standing)> {
        self.standings.iter().map(|(copy, standing)| (*copy, standing))
    }
}
