//! Room for copies: the memory that they may take for one CN's connection, for one network and in all.
//!
//! Where there is no room, a new copy takes the place of another peer's: of the peer with most copies, in the network
//! with most (at the bound of a network or of a CN's connection: of that). A peer that has most itself gets no more. Of
//! that peer's copies goes one that was offered or added long ago, of a few looked at. An introduction that is under
//! way does not need the copy any more, so it is not disturbed.

use super::{Directory, PeerKey};
use crate::holdings::{Amount, Holding, Limits, Room};
use crate::ids::VersionId;
use crate::machine::Time;
use crate::selection::locality::prefix;
use crate::wire::control::Shared;

/// Memory of one copy with its places in the lists, bytes: rounded up from a measurement.
pub const COPY_BYTES: u64 = 512;
/// Number of a peer's copies of which the one that was offered or added first goes.
const LOOKS: usize = 16;

/// Returns the bounds of a directory of so many copies: half of them for one CN's connection, and a quarter for one /24
/// (IPv6: /48). A quarter of four million are 250 versions of each of 4,000 clients behind one address.
#[must_use]
pub fn limits(copies_max: u64) -> Limits {
    let of = |copies: u64| Amount { items: u64::MAX, bytes: COPY_BYTES.saturating_mul(copies) };
    Limits { total: of(copies_max), prefix: of(copies_max / 4), key: of(copies_max / 2) }
}

const fn copies(n: u64) -> Amount {
    Amount { items: 0, bytes: COPY_BYTES.saturating_mul(n) }
}

impl Directory {
    /// Returns the memory that all copies are counted with, bytes.
    #[must_use]
    pub const fn copies_bytes(&self) -> u64 {
        self.places.all().bytes
    }

    /// Updates the versions that a client shares, in a directory without bounds, as in models.
    pub fn share(&mut self, key: PeerKey, reset: bool, add: &[Shared], remove: &[VersionId]) {
        let free = Limits { total: Amount::UNLIMITED, prefix: Amount::UNLIMITED, key: Amount::UNLIMITED };
        self.share_within(&free, key, reset, add, remove);
    }

    /// Counts again how many versions a peer shares, and how much room these take.
    pub(super) fn recount(&mut self, key: PeerKey) {
        let peer = self.peers.get(&key).filter(|peer| !peer.shares.is_empty());
        let Some(peer) = peer else {
            self.places.take(key);
            return;
        };
        let n = peer.shares.len() as u64;
        let bytes = copies(n).bytes;
        if self.places.get(key).is_none_or(|place| place.bytes != bytes) {
            // who has most goes first
            let turn = (0, Time(u64::MAX - n));
            let prefix = prefix(peer.entry.observed.ip());
            self.places.put(key, Holding { prefix, key: key.link, bytes, turn, kept: false });
        }
    }

    fn ask(&self, limits: &Limits, key: PeerKey, more: usize) -> Room<PeerKey> {
        let Some(peer) = self.peers.get(&key) else { return Room::Free };
        self.places.ask(limits, (prefix(peer.entry.observed.ip()), key.link), copies(more as u64))
    }

    /// Returns whether there is room for so many more copies of a peer.
    pub(super) fn has_room_for(&self, limits: &Limits, key: PeerKey, more: usize) -> bool {
        self.ask(limits, key, more) == Room::Free
    }

    /// Makes room for one more copy of a peer, in place of another peer's.
    pub(super) fn make_room(&mut self, limits: &Limits, key: PeerKey) -> bool {
        loop {
            let richest = match self.ask(limits, key, 1) {
                Room::Free => return true,
                Room::Full(_) => return false,
                Room::InPlaceOf(richest) => richest,
            };
            if richest == key {
                return false;
            }
            self.drop_copy(richest);
        }
    }

    fn drop_copy(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let oldest = peer.shares.iter().rev().take(LOOKS).min_by_key(|(_, share)| share.rank);
        let Some(version) = oldest.map(|(version, _)| *version) else { return };
        if let Some(share) = peer.shares.remove(&version).filter(|share| share.on) {
            self.lists.take(version, peer.listing(), share.rank, key);
        }
        self.recount(key);
    }
}
