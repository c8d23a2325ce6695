//! Lists of copies (a peer's holding of a version) in order of rank, by version, set of peers, and bucket. The list
//! of a set has only one copy of each of its subsets, the one with the lowest rank; so skipping a subset, however
//! many copies it has, means skipping one entry.

use super::PeerKey;
use crate::ids::VersionId;
use crate::nat::{Class, Endpoint};
use crate::selection::locality::{Set, sets};
use crate::wire::directory::PeerEntry;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Bound::{Excluded, Included, Unbounded};

/// Copies of peers that registered over one CN's connection and have one class of NAT; a selection skips or takes
/// them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Bucket {
    pub(super) link: u64,
    pub(super) class: Class,
}

/// NAT class, and sets of peers, under which a peer's copies are listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Listing {
    pub(super) class: Class,
    /// Sets that contain the peer, widest first; the last two are those of its address prefix and of its address.
    pub(super) sets: Vec<Set>,
}

/// A copy (a peer's holding of a version) that is on the lists.
pub(super) struct ListedCopy<'a> {
    pub(super) version: VersionId,
    pub(super) listing: &'a Listing,
    pub(super) rank: u64,
    pub(super) key: PeerKey,
}

/// Key of a list entry: version, set of peers, bucket, and the copy's rank.
pub(super) type At = (VersionId, Set, Bucket, u64);

/// Lists of all copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Lists {
    turns: BTreeMap<At, PeerKey>,
    /// All copies behind each public address, of any NAT class, since peers behind one address can connect to each
    /// other.
    by_address: BTreeMap<(VersionId, IpAddr, u64), PeerKey>,
    /// Rank of the copy at which the next selection begins behind an address that has more copies than one selection
    /// examines.
    next_behind: BTreeMap<(VersionId, IpAddr), u64>,
}

impl Listing {
    pub(super) fn of(entry: &PeerEntry) -> Self {
        let class = Class::of(Endpoint { observed: entry.observed.ip(), nat: &entry.nat });
        Self { class, sets: sets(entry.observed.ip(), &entry.locality) }
    }

    pub(super) fn network(&self) -> Option<u32> {
        self.sets.iter().find_map(Set::network)
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.sets.last().and_then(Set::address)
    }

    /// Returns the peer's address prefix, and the index of its set in `sets`.
    pub(super) fn prefix(&self) -> Option<(IpAddr, usize)> {
        let depth = self.sets.len().checked_sub(2)?;
        Some((self.sets.get(depth)?.prefix()?, depth))
    }
}

impl Lists {
    /// Returns rank and key of the first copy of a bucket in a set.
    pub(super) fn first(&self, version: VersionId, set: Set, bucket: Bucket) -> Option<(u64, PeerKey)> {
        self.range_from(Included((version, set, bucket, 0)), (version, set, bucket))
    }

    /// Returns rank and key of the next copy after the given list entry, in the same bucket and set.
    pub(super) fn after(&self, (version, set, bucket, rank): At) -> Option<(u64, PeerKey)> {
        self.range_from(Excluded((version, set, bucket, rank)), (version, set, bucket))
    }

    /// Returns the first copy of a list from a bound on.
    fn range_from(
        &self,
        from: core::ops::Bound<At>,
        (version, set, bucket): (VersionId, Set, Bucket),
    ) -> Option<(u64, PeerKey)> {
        steps::count();
        let (at, key) = self.turns.range((from, Included((version, set, bucket, u64::MAX)))).next()?;
        Some((at.3, *key))
    }

    /// Returns the next bucket of a set after `last` (`None`: the first one), with rank and key of its first copy.
    pub(super) fn bucket_after(
        &self,
        version: VersionId,
        set: Set,
        last: Option<Bucket>,
    ) -> Option<(Bucket, u64, PeerKey)> {
        steps::count();
        let from =
            last.map_or(Included((version, set, Bucket::default(), 0)), |b| Excluded((version, set, b, u64::MAX)));
        let (at, key) = self.turns.range((from, Unbounded)).next().filter(|(at, _)| (at.0, at.1) == (version, set))?;
        Some((at.2, at.3, *key))
    }

    /// Returns ranks and keys of the copies behind an address: first those of rank `from` and above, then those
    /// below.
    pub(super) fn behind(
        &self,
        version: VersionId,
        address: IpAddr,
        from: u64,
    ) -> impl Iterator<Item = (u64, PeerKey)> + '_ {
        let rest = self.by_address.range((version, address, from)..=(version, address, u64::MAX));
        let begin = self.by_address.range((version, address, 0)..(version, address, from));
        rest.chain(begin).map(|(at, key)| (at.2, *key))
    }

    /// Returns the rank of the copy at which the next selection begins behind an address; 0: at the first copy.
    pub(super) fn next_behind(&self, at: (VersionId, IpAddr)) -> u64 {
        self.next_behind.get(&at).copied().unwrap_or(0)
    }

    /// Sets the rank of the copy at which the next selection begins behind an address; 0: at the first copy.
    pub(super) fn set_next_behind(&mut self, at: (VersionId, IpAddr), from: u64) {
        if from == 0 {
            self.next_behind.remove(&at);
        } else {
            self.next_behind.insert(at, from);
        }
    }

    /// Asserts that the lists contain exactly these copies, and the list of each set only the first copy of each
    /// subset.
    pub(super) fn check(&self, copies: &[ListedCopy<'_>]) {
        let bucket = |c: &ListedCopy<'_>| Bucket { link: c.key.link, class: c.listing.class };
        let mut first: BTreeMap<(VersionId, Set, Bucket), u64> = BTreeMap::new();
        for c in copies {
            for set in &c.listing.sets {
                let rank = first.entry((c.version, *set, bucket(c))).or_insert(c.rank);
                *rank = c.rank.min(*rank);
            }
        }
        let mut turns = 0;
        for c in copies {
            let narrower = c.listing.sets.iter().skip(1).map(Some).chain([None]);
            for (set, narrower) in c.listing.sets.iter().zip(narrower) {
                let stands = narrower.is_none_or(|n| first.get(&(c.version, *n, bucket(c))) == Some(&c.rank));
                let turn = self.turns.get(&(c.version, *set, bucket(c), c.rank));
                assert!(turn == Some(&c.key).filter(|_| stands), "a set lists the first copy of each narrower one");
                turns += usize::from(stands);
            }
            let home = c.listing.address().and_then(|a| self.by_address.get(&(c.version, a, c.rank)));
            assert!(home == Some(&c.key), "a copy is listed behind its address");
        }
        assert!(self.turns.len() == turns, "the sets list no other copies");
        assert!(self.by_address.len() == copies.len(), "no other copies are listed behind addresses");
        let is_of_use = |((version, address), _): (&(VersionId, IpAddr), &u64)| self.has_home(*version, *address);
        assert!(self.next_behind.iter().all(is_of_use), "a draw continues where there are copies");
    }

    /// Returns whether copies are listed behind an address.
    fn has_home(&self, version: VersionId, address: IpAddr) -> bool {
        self.by_address.range((version, address, 0)..=(version, address, u64::MAX)).next().is_some()
    }

    /// Returns the keys of all copies of a version, by rank.
    pub(super) fn all(&self, version: VersionId) -> BTreeMap<u64, PeerKey> {
        let of_version = self.by_address.range((version, IpAddr::from([0; 4]), 0)..);
        of_version.take_while(|(at, _)| at.0 == version).map(|(at, key)| (at.2, *key)).collect()
    }

    /// Returns the keys of all copies of a version, in no order of meaning.
    pub(super) fn keys(&self, version: VersionId) -> impl Iterator<Item = PeerKey> + '_ {
        let of_version = self.by_address.range((version, IpAddr::from([0; 4]), 0)..);
        of_version.take_while(move |(at, _)| at.0 == version).map(|(_, key)| *key)
    }

    /// Adds a copy to the lists of the sets that contain its peer.
    pub(super) fn put(&mut self, version: VersionId, listing: &Listing, rank: u64, key: PeerKey) {
        let bucket = Bucket { link: key.link, class: listing.class };
        if let Some(address) = listing.address() {
            let old = self.by_address.insert((version, address, rank), key);
            debug_assert!(old.is_none(), "a copy is listed once");
        }
        // who stood for the narrower set before
        let mut displaced = None;
        for set in listing.sets.iter().rev() {
            let first = self.first(version, *set, bucket).map(|(t, _)| t);
            if let Some(old) = displaced {
                self.turns.remove(&(version, *set, bucket, old));
            }
            steps::count();
            self.turns.insert((version, *set, bucket, rank), key);
            if first.is_some_and(|f| f < rank) {
                return;
            }
            displaced = first;
        }
    }

    /// Removes a copy from the lists of the sets that contain its peer.
    pub(super) fn take(&mut self, version: VersionId, listing: &Listing, rank: u64, key: PeerKey) {
        let bucket = Bucket { link: key.link, class: listing.class };
        if let Some(address) = listing.address() {
            let old = self.by_address.remove(&(version, address, rank));
            debug_assert!(old == Some(key), "a copy that leaves the lists was on them");
            if self.next_behind.contains_key(&(version, address)) && !self.has_home(version, address) {
                self.next_behind.remove(&(version, address));
            }
        }
        // who stands for the narrower set from now on
        let mut heir: Option<(u64, PeerKey)> = None;
        for set in listing.sets.iter().rev() {
            let was_first = self.first(version, *set, bucket).is_some_and(|(t, _)| t == rank);
            steps::count();
            let old = self.turns.remove(&(version, *set, bucket, rank));
            debug_assert!(old == Some(key), "a set lists the first copy of each narrower one");
            if let Some((t, k)) = heir {
                self.turns.insert((version, *set, bucket, t), k);
            }
            if !was_first {
                return;
            }
            heir = self.first(version, *set, bucket);
        }
    }

    /// Replaces every rank by the result of `new`, which must keep their order.
    pub(super) fn renumber(&mut self, new: impl Fn(u64) -> u64) {
        let turns = core::mem::take(&mut self.turns);
        self.turns = turns.into_iter().map(|((v, s, b, t), key)| ((v, s, b, new(t)), key)).collect();
        let by_address = core::mem::take(&mut self.by_address);
        self.by_address = by_address.into_iter().map(|((v, a, t), key)| ((v, a, new(t)), key)).collect();
        self.next_behind.values_mut().for_each(|t| *t = new(*t));
    }
}

/// Counter of the searches and changes of lists on this thread, for tests of their cost.
#[cfg(test)]
pub(crate) mod steps {
    extern crate std;
    use core::cell::Cell;

    std::thread_local!(static STEPS: Cell<u64> = const { Cell::new(0) });

    pub(crate) fn count() {
        STEPS.set(STEPS.get() + 1);
    }

    /// Returns the number of searches and changes since the last call.
    pub(crate) fn taken() -> u64 {
        STEPS.take()
    }
}

#[cfg(not(test))]
mod steps {
    pub(super) const fn count() {}
}
