//! The directory: which client holds which version, in lists by nested set, and the choice of peers from them.
//!
//! A peer is listed while its user allows uploads, it shares something, and it is its GUID's newest registration. A
//! list is ordered by ticket; a chosen peer draws a new ticket and so goes to the end of all its lists of that
//! version.

use super::learned::{Class, Learned, Side};
use super::locality::{Set, prefix, sets};
use crate::ids::{Guid, PublicKey, SessionId, VersionId};
use crate::limits::SHARES_PER_PEER_MAX;
use crate::machine::Rng;
use crate::nat::connectivity::Attempt;
use crate::nat::{self, Endpoint, is_private};
use crate::wire::control::Shared;
use crate::wire::directory::PeerEntry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

/// A registration: the DN's number for the CN's connection, and the session on that CN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// See [`crate::wire::directory::Route`].
    pub link: u64,
    /// The session.
    pub session: SessionId,
}

/// How to choose.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// One selection in so many keeps an eighth of its places for less specific sets; 0: none.
    pub diversity: u32,
    /// At most so many peers of one public /24 (IPv6: /48) other than the querier's own address.
    pub per_prefix: u32,
    /// At most so many peers are looked at for each that is wanted.
    pub looks_per_peer: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { diversity: 4, per_prefix: 10, looks_per_peer: 16 }
    }
}

/// The directory. Soft state: all of it comes from clients and goes with their CN's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Directory {
    peers: BTreeMap<PeerKey, Peer>,
    /// The registrations of a GUID, oldest first: the last one counts.
    by_guid: BTreeMap<Guid, Vec<PeerKey>>,
    lists: BTreeMap<(VersionId, Set, u64), PeerKey>,
    tickets: u64,
    learned: Learned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    entry: PeerEntry,
    sets: Vec<Set>,
    listed: bool,
    shares: BTreeMap<VersionId, Share>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Share {
    complete: bool,
    ticket: u64,
}

impl Peer {
    /// Its class of NAT and its network, of which is learned.
    fn side(&self) -> Side {
        let network = self.sets.iter().find_map(|s| if let Set::As(n) = s { Some(*n) } else { None });
        (Class::from(&self.entry.nat), network)
    }

    fn endpoint(&self) -> Endpoint<'_> {
        Endpoint { observed: self.entry.observed.ip(), nat: &self.entry.nat }
    }
}

impl Directory {
    /// How many registrations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// A registration.
    #[must_use]
    pub fn get(&self, key: PeerKey) -> Option<&PeerEntry> {
        self.peers.get(&key).map(|p| &p.entry)
    }

    /// The registrations that may be offered as holders of `version`, in the order of their turns, for checks and
    /// reports.
    pub fn listed(&self, version: VersionId) -> impl Iterator<Item = PeerKey> + '_ {
        self.lists.range((version, Set::World, 0)..=(version, Set::World, u64::MAX)).map(|(_, key)| *key)
    }

    /// A client is there, or has changed. An older NAT descriptor never replaces a newer one.
    pub fn register(&mut self, link: u64, mut entry: PeerEntry) {
        let key = PeerKey { link, session: entry.session };
        let sets = sets(entry.observed.ip(), &entry.locality);
        if let Some(old) = self.peers.get(&key) {
            if old.entry.nat.epoch > entry.nat.epoch {
                entry.nat = old.entry.nat.clone();
            }
            if old.entry.guid != entry.guid {
                self.remove(key);
            }
        }
        self.unlist(key);
        let guid = entry.guid;
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.sets = sets;
            peer.entry = entry;
        } else {
            self.add_to_guid(key, &entry);
            self.peers.insert(key, Peer { entry, sets, listed: false, shares: BTreeMap::new() });
        }
        self.relist(guid);
    }

    /// Puts a new registration after those that it replaces: of one start of a client the highest incarnation is the
    /// newest, whatever the order of arrival; of several starts the last to arrive.
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

    /// What a client shares has changed. Past [`SHARES_PER_PEER_MAX`] versions the rest is not listed.
    pub fn share(&mut self, key: PeerKey, reset: bool, add: &[Shared], remove: &[VersionId]) {
        let Some(peer) = self.peers.get(&key) else { return };
        let gone: Vec<VersionId> = if reset { peer.shares.keys().copied().collect() } else { remove.to_vec() };
        for version in gone {
            if let Some(share) = self.peers.get_mut(&key).and_then(|p| p.shares.remove(&version)) {
                self.take_off(key, version, share.ticket);
            }
        }
        for shared in add {
            let ticket = self.tickets;
            let Some(peer) = self.peers.get_mut(&key) else { return };
            if let Some(share) = peer.shares.get_mut(&shared.version) {
                share.complete = shared.complete;
            } else if peer.shares.len() < SHARES_PER_PEER_MAX {
                self.tickets += 1;
                peer.shares.insert(shared.version, Share { complete: shared.complete, ticket });
                if peer.listed {
                    self.put_on(key, shared.version, ticket);
                }
            }
        }
    }

    /// An attempt to connect these two has ended. Behind one public address it says nothing of their NATs.
    pub fn learn(&mut self, a: PeerKey, b: PeerKey, attempt: &Attempt) {
        let (Some(a), Some(b)) = (self.peers.get(&a), self.peers.get(&b)) else { return };
        if a.entry.observed.ip().to_canonical() != b.entry.observed.ip().to_canonical() {
            self.learned.learn(a.side(), b.side(), attempt);
        }
    }

    /// A client has gone.
    pub fn remove(&mut self, key: PeerKey) {
        self.unlist(key);
        let Some(peer) = self.peers.remove(&key) else { return };
        let guid = peer.entry.guid;
        if let Some(all) = self.by_guid.get_mut(&guid) {
            all.retain(|k| *k != key);
            if all.is_empty() {
                self.by_guid.remove(&guid);
            }
        }
        self.relist(guid);
    }

    /// A CN's connection has ended: all its registrations go.
    pub fn remove_link(&mut self, link: u64) {
        let of_link = PeerKey { link, session: SessionId(0) }..=PeerKey { link, session: SessionId(u64::MAX) };
        let keys: Vec<_> = self.peers.range(of_link).map(|(k, _)| *k).collect();
        keys.into_iter().for_each(|k| self.remove(k));
    }

    /// Chooses up to `want` holders of `version` for the querier, nearest first: from its most specific set outwards,
    /// each set in turn order. `None` if the querier is not registered.
    pub fn select(
        &mut self,
        querier: PeerKey,
        version: VersionId,
        (want, exclude): (usize, &BTreeSet<PublicKey>),
        choice: Choice,
        rng: &mut dyn Rng,
    ) -> Option<Vec<PeerKey>> {
        // taken out for the draw: a refusal is counted there
        let mut learned = core::mem::take(&mut self.learned);
        let chosen = self.draw(querier, version, (want, exclude), choice, (&mut learned, rng));
        self.learned = learned;
        let chosen = chosen?;
        for key in &chosen {
            self.send_back(*key, version);
        }
        Some(chosen)
    }

    fn draw(
        &self,
        querier: PeerKey,
        version: VersionId,
        (want, exclude): (usize, &BTreeSet<PublicKey>),
        choice: Choice,
        (learned, rng): (&mut Learned, &mut dyn Rng),
    ) -> Option<Vec<PeerKey>> {
        let me = self.peers.get(&querier)?;
        let far = choice.diversity > 0 && want >= 8 && rng.below(choice.diversity) == 0;
        let kept = if far { want / 8 } else { 0 };
        let mut draw = Draw::new((self, learned), me, version, exclude, choice, want);
        for set in &me.sets {
            draw.from(*set, want - kept);
        }
        for set in me.sets.iter().rev() {
            draw.from(*set, want);
        }
        Some(draw.chosen)
    }

    fn send_back(&mut self, key: PeerKey, version: VersionId) {
        let ticket = self.tickets;
        let Some(share) = self.peers.get_mut(&key).and_then(|p| p.shares.get_mut(&version)) else { return };
        let old = core::mem::replace(&mut share.ticket, ticket);
        self.tickets += 1;
        self.take_off(key, version, old);
        self.put_on(key, version, ticket);
    }

    fn put_on(&mut self, key: PeerKey, version: VersionId, ticket: u64) {
        if let Some(peer) = self.peers.get(&key) {
            for set in &peer.sets {
                self.lists.insert((version, *set, ticket), key);
            }
        }
    }

    fn take_off(&mut self, key: PeerKey, version: VersionId, ticket: u64) {
        if let Some(peer) = self.peers.get(&key) {
            for set in &peer.sets {
                self.lists.remove(&(version, *set, ticket));
            }
        }
    }

    fn unlist(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if core::mem::take(&mut peer.listed) {
            let shares: Vec<_> = peer.shares.iter().map(|(v, s)| (*v, s.ticket)).collect();
            shares.into_iter().for_each(|(v, t)| self.take_off(key, v, t));
        }
    }

    /// Lists the newest registration of a GUID, if it allows uploads, and no other.
    fn relist(&mut self, guid: Guid) {
        let all = self.by_guid.get(&guid).cloned().unwrap_or_default();
        for (i, key) in all.iter().enumerate() {
            let newest = i + 1 == all.len();
            let Some(peer) = self.peers.get_mut(key) else { continue };
            if !(newest && peer.entry.uploads) {
                self.unlist(*key);
            } else if !core::mem::replace(&mut peer.listed, true) {
                let shares: Vec<_> = peer.shares.iter().map(|(v, s)| (*v, s.ticket)).collect();
                shares.into_iter().for_each(|(v, t)| self.put_on(*key, v, t));
            }
        }
    }

    /// Counts tickets anew from 0 in the same order, so that models see equal states as equal.
    pub fn renumber(&mut self) {
        let mut old: Vec<u64> = self.peers.values().flat_map(|p| p.shares.values().map(|s| s.ticket)).collect();
        old.sort_unstable();
        let new_of: BTreeMap<u64, u64> = old.into_iter().zip(0..).collect();
        for share in self.peers.values_mut().flat_map(|p| p.shares.values_mut()) {
            share.ticket = new_of.get(&share.ticket).copied().unwrap_or(share.ticket);
        }
        let lists = core::mem::take(&mut self.lists);
        self.lists =
            lists.into_iter().map(|((v, s, t), key)| ((v, s, new_of.get(&t).copied().unwrap_or(t)), key)).collect();
        self.tickets = new_of.len() as u64;
    }
}

/// One selection under way.
struct Draw<'a> {
    directory: &'a Directory,
    learned: &'a mut Learned,
    me: &'a Peer,
    version: VersionId,
    exclude: &'a BTreeSet<PublicKey>,
    choice: Choice,
    looks: usize,
    chosen: Vec<PeerKey>,
    /// Upload keys and GUIDs that are chosen already.
    keys: BTreeSet<PublicKey>,
    prefixes: BTreeMap<IpAddr, u32>,
}

impl<'a> Draw<'a> {
    fn new(
        (directory, learned): (&'a Directory, &'a mut Learned),
        me: &'a Peer,
        version: VersionId,
        exclude: &'a BTreeSet<PublicKey>,
        choice: Choice,
        want: usize,
    ) -> Self {
        let looks = want.saturating_mul(choice.looks_per_peer as usize);
        let (keys, prefixes) = (BTreeSet::new(), BTreeMap::new());
        Self { directory, learned, me, version, exclude, choice, looks, chosen: Vec::new(), keys, prefixes }
    }

    /// Takes suitable peers of a set, in turn order, until `want` are chosen in all. Each set has its own share of
    /// looks, so that a crowd of unsuitable neighbours cannot hide the world.
    fn from(&mut self, set: Set, want: usize) {
        let directory = self.directory;
        let list = directory.lists.range((self.version, set, 0)..=(self.version, set, u64::MAX));
        for (_, key) in list.take(self.looks) {
            if self.chosen.len() >= want {
                return;
            }
            if let Some(peer) = directory.peers.get(key) {
                self.consider(*key, peer);
            }
        }
    }

    fn consider(&mut self, key: PeerKey, peer: &Peer) {
        let (mine, theirs) = (&self.me.entry, &peer.entry);
        let itself = mine.guid == theirs.guid || mine.upload_key == theirs.upload_key;
        if itself || self.exclude.contains(&theirs.upload_key) || self.keys.contains(&theirs.upload_key) {
            return;
        }
        if !nat::compatible(self.me.endpoint(), peer.endpoint()) {
            return;
        }
        let addr = theirs.observed.ip().to_canonical();
        let apart = addr != mine.observed.ip().to_canonical();
        if apart && !self.learned.offers(self.me.side(), peer.side()) {
            return;
        }
        if apart && !is_private(addr) {
            let count = self.prefixes.entry(prefix(addr)).or_default();
            if *count >= self.choice.per_prefix {
                return;
            }
            *count += 1;
        }
        self.keys.insert(theirs.upload_key);
        self.chosen.push(key);
    }
}

#[cfg(test)]
mod tests;
