//! Invariants of the directory: the registrations, the copies that they share, and the lists of copies agree with one
//! another.

use super::lists::ListedCopy;
use super::{COPY_BYTES, Directory, Listing, Peer, PeerKey, Share, Standing};
use crate::ids::VersionId;
use crate::limits::SHARES_PER_PEER_MAX;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Directory {
    /// Asserts the invariants of all registrations, copies and lists.
    pub fn check(&self) {
        let (mut copies, mut ranks) = (Vec::new(), BTreeSet::new());
        for (key, peer) in &self.peers {
            self.check_peer(*key, peer);
            self.check_shares(*key, peer);
            for (version, share) in &peer.shares {
                let own = share.rank < self.next_rank && ranks.insert(share.rank);
                assert!(own, "each copy has a rank of its own");
                if share.on {
                    copies.push(ListedCopy { version: *version, listing: peer.listing(), rank: share.rank, key: *key });
                }
            }
        }
        self.lists.check(&copies);
        self.places.check();
        let counted = |key: &PeerKey| self.places.get(*key).map_or(0, |place| place.bytes);
        let is_counted = |(key, p): (&PeerKey, &Peer)| counted(key) == p.shares.len() as u64 * COPY_BYTES;
        assert!(self.peers.iter().all(is_counted), "a peer's copies are counted");
        let total: u64 = self.peers.keys().map(counted).sum();
        assert!(total == self.copies_bytes(), "only copies of peers are counted");
        self.learned.check();
        assert!(self.standings.values().all(|s| *s != Standing::default()), "only a blamed copy has a standing");
        for (guid, keys) in &self.by_guid {
            let is_one = |key: &PeerKey| self.peers.get(key).is_some_and(|p| p.entry.guid == *guid && !p.gone);
            assert!(!keys.is_empty() && keys.iter().all(is_one), "a GUID lists its registrations");
        }
        let (listed, alive) =
            (self.by_guid.values().flatten().count(), self.peers.values().filter(|p| !p.gone).count());
        assert!(listed == alive, "a GUID lists each registration once");
        assert!(self.unsettled.iter().all(|key| self.peers.contains_key(key)), "who waits for a sweep is registered");
    }

    /// Asserts the invariants of a registration, except those of its copies.
    fn check_peer(&self, key: PeerKey, peer: &Peer) {
        let all = self.by_guid.get(&peer.entry.guid).map(Vec::as_slice).unwrap_or_default();
        assert!(all.contains(&key) != peer.gone, "a registration is listed under its GUID until it ends");
        let (place, waits) = (Listing::of(&peer.entry), self.unsettled.contains(&key));
        assert!(peer.place == place, "a peer is to be listed where it said last");
        assert!(peer.left.is_none() && !peer.gone || waits, "what is outdated waits for a sweep");
        let newest = all.iter().rev().find(|k| !self.dead.contains(&k.link)) == Some(&key);
        let may_be = newest && peer.entry.uploads && place.class.meets_anybody();
        let dead = self.dead.contains(&key.link);
        // a newer one over a dead connection stands before it until it is swept
        let hidden = !peer.listed && all.iter().any(|k| self.dead.contains(&k.link));
        assert!(peer.listed == may_be || dead || peer.gone || hidden, "a GUID's newest registration is offered");
    }

    /// Asserts the invariants of the copies that a registered client shares.
    fn check_shares(&self, key: PeerKey, peer: &Peer) {
        let settled = |(version, s): (&VersionId, &Share)| {
            s.on == (peer.is_offered() && !self.is_barred(peer, *version)) && !s.doubtful
        };
        let settled = peer.shares.iter().all(settled);
        let waits = self.dead.contains(&key.link) || self.unsettled.contains(&key);
        assert!(settled || waits, "the copies of a peer are on the lists while it is offered");
        // those of a session that has ended are taken off by a sweep, and are never offered
        let barred = peer.shares.iter().any(|(version, s)| s.on && !peer.gone && self.is_barred(peer, *version));
        assert!(!barred, "a barred copy is on no list");
        let sure = peer.shares.values().filter(|s| !s.doubtful).count();
        assert!(sure <= SHARES_PER_PEER_MAX, "the copies of a peer are bounded");
    }

    /// Asserts in debug builds the invariants of a registration that an event has changed.
    pub(super) fn check_touched(&self, key: PeerKey) {
        if cfg!(debug_assertions)
            && let Some(peer) = self.peers.get(&key)
        {
            self.check_peer(key, peer);
        }
    }
}
