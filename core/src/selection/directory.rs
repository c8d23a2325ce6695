//! Directory of the DN: the versions that each client holds, listed by the client's address, network, country and
//! continent, and the selection of peers from these lists.
//!
//! A peer is listed while its user allows uploads, some class of NAT can connect with its own, and it is its GUID's
//! newest registration. Each copy has a number, its rank, by which lists are ordered; a chosen peer's copy gets a new
//! highest rank and so goes to the end of all its lists of that version. The cost of an event does not grow with the
//! number of versions that a peer shares: the lists of a peer with many are updated in lots (batches, see [`sweep`]),
//! and until then it is not offered.

mod check;
mod draw;
mod lists;
mod nobody;
mod room;
mod standing;
mod sweep;

use super::blames::{CopyId, Network, Standing};
use super::learned::Learned;
use crate::holdings::{Holdings, Limits};
use crate::ids::{Guid, PublicKey, SessionId, VersionId};
use crate::limits::SHARES_PER_PEER_MAX;
use crate::machine::Rng;
use crate::nat::Endpoint;
use crate::nat::connectivity::Attempt;
use crate::wire::control::Shared;
use crate::wire::directory::PeerEntry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use draw::Draw;
#[cfg(test)]
pub(crate) use lists::steps;
use lists::{Listing, Lists};
pub use room::{COPY_BYTES, limits};
pub use sweep::COPIES_PER_LOT;

/// Key of a client's registration at the DN: the DN's number for the CN's connection, and the client's session on
/// that CN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// Number of the CN's connection ([`crate::wire::directory::Route`]).
    pub link: u64,
    /// Session of the client on that CN.
    pub session: SessionId,
}

/// Parameters of the selection of peers.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// One selection in this many reserves an eighth of its places for peers from anywhere, however near others are;
    /// 0: none does.
    pub diversity: u32,
    /// Maximum number of selected peers of one public /24 (IPv6: /48) address prefix; peers that share the
    /// downloader's own address do not count.
    pub per_prefix: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { diversity: 4, per_prefix: 10 }
    }
}

/// Directory of a DN: registered clients and the versions they share. Soft state: all of it comes from clients
/// through their CNs, and is dropped when the CN's connection ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Directory {
    peers: BTreeMap<PeerKey, Peer>,
    /// Registrations of each GUID, oldest first. Only the last one whose CN is still connected may be offered.
    by_guid: BTreeMap<Guid, Vec<PeerKey>>,
    lists: Lists,
    next_rank: u64,
    learned: Learned,
    /// Number of copies of each registration with any, by the CN's connection and by network.
    places: Holdings<PeerKey, u64>,
    /// Ended connections of CNs whose registrations are not all deleted yet.
    dead: BTreeSet<u64>,
    /// Peers whose copies are not yet added to or removed from the lists as they should be.
    unsettled: BTreeSet<PeerKey>,
    /// Last peer of `unsettled` whose lists a call of [`Directory::sweep`] updated.
    settling: Option<PeerKey>,
    /// Blamed copies that may not be offered to everybody.
    standings: BTreeMap<CopyId, Standing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    entry: PeerEntry,
    /// NAT class, and sets of addresses, under which the peer is to be listed.
    place: Listing,
    /// Whether the peer is to be listed, so that it can be offered.
    listed: bool,
    /// Former NAT class and sets under which the peer's copies are still listed; `None` if its lists are not
    /// outdated.
    left: Option<Listing>,
    /// Whether the peer's session has ended.
    gone: bool,
    shares: BTreeMap<VersionId, Share>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Share {
    complete: bool,
    rank: u64,
    /// Whether this copy is on the lists.
    on: bool,
    /// Whether the peer has begun to resend its complete list of versions, and has not named this version yet.
    doubtful: bool,
}

impl Peer {
    fn endpoint(&self) -> Endpoint<'_> {
        Endpoint { observed: self.entry.observed.ip(), nat: &self.entry.nat }
    }

    /// Returns the peer's copy of a version, as blames name it.
    const fn copy(&self, version: VersionId) -> CopyId {
        CopyId { holder: self.entry.guid, version }
    }

    /// Returns the NAT class and sets under which the peer's copies are listed now.
    fn listing(&self) -> &Listing {
        self.left.as_ref().unwrap_or(&self.place)
    }

    /// Returns whether the peer may be offered: it is to be listed, its session lasts, and its lists are not
    /// outdated.
    const fn is_offered(&self) -> bool {
        self.listed && !self.gone && self.left.is_none()
    }
}

impl Directory {
    /// Returns the number of registrations, including ended ones that [`Directory::sweep`] has not deleted yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Returns the number of copies of all registrations.
    #[must_use]
    pub const fn copies(&self) -> u64 {
        self.copies_bytes() / COPY_BYTES
    }

    /// Returns whether no client is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn peer(&self, key: PeerKey) -> Option<&Peer> {
        self.peers.get(&key).filter(|p| !p.gone && !self.dead.contains(&key.link))
    }

    /// Returns a client's registration; `None` if its session or its CN's connection has ended.
    #[must_use]
    pub fn get(&self, key: PeerKey) -> Option<&PeerEntry> {
        self.peer(key).map(|p| &p.entry)
    }

    fn listing(&self, key: PeerKey) -> Option<&Listing> {
        self.peers.get(&key).map(Peer::listing)
    }

    /// Returns a registration if it may be offered as a holder of `version`.
    fn offered(&self, key: PeerKey, version: VersionId) -> Option<&Peer> {
        let holds = |p: &&Peer| p.is_offered() && p.shares.get(&version).is_some_and(|s| s.on && !s.doubtful);
        self.peer(key).filter(holds)
    }

    /// Returns the registrations that may be offered as holders of `version`, those first that were offered longest
    /// ago.
    pub fn listed(&self, version: VersionId) -> impl Iterator<Item = PeerKey> + '_ {
        self.lists.all(version).into_values().filter(move |key| self.offered(*key, version).is_some())
    }

    /// Adds or updates a client's registration, received over the CN's connection `link`. An older NAT descriptor
    /// never replaces a newer one.
    pub fn register(&mut self, link: u64, mut entry: PeerEntry) {
        let key = PeerKey { link, session: entry.session };
        if self.dead.contains(&link) {
            return;
        }
        if let Some(old) = self.peers.get(&key) {
            if old.entry.nat.epoch > entry.nat.epoch {
                entry.nat = old.entry.nat.clone();
            }
            if old.gone || old.entry.guid != entry.guid {
                // no CN does that
                let mut room = usize::MAX;
                self.end(key, &mut room);
            }
        }
        let (guid, place) = (entry.guid, Listing::of(&entry));
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.entry = entry;
        } else {
            self.add_to_guid(key, &entry);
            let place = place.clone();
            let peer = Peer { entry, place, listed: false, left: None, gone: false, shares: BTreeMap::new() };
            self.peers.insert(key, peer);
        }
        let mut room = COPIES_PER_LOT;
        self.aim(key, |peer| peer.place = place, &mut room);
        self.relist(guid, &mut room);
        self.check_touched(key);
    }

    /// Inserts a new registration into its GUID's list after those that it replaces. Registrations of one start of a
    /// client are in the order of their `incarnation`; those of several starts are in the order of their arrival.
    fn add_to_guid(&mut self, key: PeerKey, entry: &PeerEntry) {
        let peers = &self.peers;
        let all = self.by_guid.entry(entry.guid).or_default();
        let newer = |k: &PeerKey| {
            peers
                .get(k)
                .is_some_and(|p| p.entry.secondary == entry.secondary && p.entry.incarnation > entry.incarnation)
        };
        let at = all.iter().position(newer).unwrap_or(all.len());
        all.insert(at, key);
    }

    /// Updates the versions that a client shares. `reset`: a complete list begins, and versions that it does not name
    /// are removed. Versions beyond [`SHARES_PER_PEER_MAX`] are ignored, and in a full directory all but those that
    /// [`room`] allows.
    pub fn share_within(&mut self, limits: &Limits, key: PeerKey, reset: bool, add: &[Shared], remove: &[VersionId]) {
        if self.peer(key).is_none() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if reset {
            peer.shares.values_mut().for_each(|s| s.doubtful = true);
        }
        for version in remove {
            if let Some(share) = peer.shares.remove(version).filter(|s| s.on) {
                self.lists.take(*version, peer.listing(), share.rank, key);
            }
        }
        let is_full = peer.shares.len() + add.len() > SHARES_PER_PEER_MAX;
        let mut kept = if is_full { peer.shares.values().filter(|s| !s.doubtful).count() } else { 0 };
        self.recount(key);
        let mut free = if self.has_room_for(limits, key, add.len()) { add.len() } else { 0 };
        for shared in add {
            let Some(share) = self.peers.get_mut(&key).and_then(|peer| peer.shares.get_mut(&shared.version)) else {
                let has_room = kept < SHARES_PER_PEER_MAX && (free > 0 || self.make_room(limits, key));
                if has_room {
                    (kept, free) = (kept + 1, free.saturating_sub(1));
                    self.add_copy(key, shared, free > 0);
                }
                continue;
            };
            if share.doubtful && kept >= SHARES_PER_PEER_MAX {
                continue;
            }
            kept += usize::from(share.doubtful);
            (share.complete, share.doubtful) = (shared.complete, false);
        }
        self.recount(key);
        if reset {
            self.unsettled.insert(key);
        }
        if self.unsettled.contains(&key) {
            // at least as much as has come, so that what waits stays bounded
            self.settle(key, &mut (add.len() + remove.len()).max(COPIES_PER_LOT));
        }
    }

    /// Adds a copy; the count of the peer's copies may follow later.
    fn add_copy(&mut self, key: PeerKey, shared: &Shared, count_later: bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let barred = self.standings.get(&peer.copy(shared.version)).is_some_and(|s| s.is_barred);
        let (rank, on) = (self.next_rank, peer.is_offered() && !barred);
        self.next_rank += 1;
        if on {
            self.lists.put(shared.version, &peer.place, rank, key);
        }
        let share = Share { complete: shared.complete, rank, on, doubtful: false };
        peer.shares.insert(shared.version, share);
        if !count_later {
            self.recount(key);
        }
    }

    /// Counts the result of an attempt to connect two peers, by their NAT classes and networks. Attempts between
    /// peers behind one public address are not counted.
    pub fn learn(&mut self, a: PeerKey, b: PeerKey, attempt: &Attempt) {
        let (Some(a), Some(b)) = (self.peer(a), self.peer(b)) else { return };
        if a.place.address() != b.place.address() {
            let side = |p: &Peer| (p.place.class, p.place.network());
            let (a, b) = (side(a), side(b));
            self.learned.learn(a, b, attempt);
        }
    }

    /// Chooses up to `want` holders of `version` that the client `querier` can connect to: first those behind its own
    /// address, then of its network, country, continent, and the world; among equals, those offered longest ago.
    /// Returns `None` if the querier is not registered.
    pub fn select(
        &mut self,
        querier: PeerKey,
        version: VersionId,
        (want, exclude): (usize, &BTreeSet<PublicKey>),
        choice: Choice,
        rng: &mut dyn Rng,
    ) -> Option<Vec<PeerKey>> {
        let home = self.peer(querier)?.place.address().map(|a| (version, a));
        let far = choice.diversity > 0 && want >= 8 && rng.below(choice.diversity) == 0;
        let kept = if far { want / 8 } else { 0 };
        // taken out for the draw: what is passed over is counted there
        let mut learned = core::mem::take(&mut self.learned);
        let me = self.peers.get(&querier)?;
        let mut draw = Draw::new((self, &mut learned), me, version, exclude, choice);
        draw.next_behind = home.map_or(0, |h| self.lists.next_behind(h));
        draw.choose(want, kept);
        let (chosen, next_behind) = (draw.chosen, draw.next_behind);
        self.learned = learned;
        if let Some(home) = home {
            self.lists.set_next_behind(home, next_behind);
        }
        debug_assert!(chosen.len() <= want, "no more are chosen than are wanted");
        for key in &chosen {
            debug_assert!(self.offered(*key, version).is_some(), "who is chosen may be offered");
            self.send_back(*key, version);
        }
        Some(chosen)
    }

    fn send_back(&mut self, key: PeerKey, version: VersionId) {
        let rank = self.next_rank;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(share) = peer.shares.get_mut(&version) else { return };
        let old = core::mem::replace(&mut share.rank, rank);
        self.next_rank += 1;
        let listing = peer.left.as_ref().unwrap_or(&peer.place);
        self.lists.take(version, listing, old, key);
        self.lists.put(version, listing, rank, key);
    }

    /// Renumbers the copies' positions in their lists from 0, in the same order, so that equal states compare equal
    /// in the model checker.
    pub fn renumber(&mut self) {
        let mut old: Vec<u64> = self.peers.values().flat_map(|p| p.shares.values().map(|s| s.rank)).collect();
        old.sort_unstable();
        let new = |rank: u64| old.partition_point(|t| *t < rank) as u64;
        for share in self.peers.values_mut().flat_map(|p| p.shares.values_mut()) {
            share.rank = new(share.rank);
        }
        self.lists.renumber(new);
        self.next_rank = old.len() as u64;
    }
}

#[cfg(test)]
mod tests;
