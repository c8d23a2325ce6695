//! Table of who holds what of a resource that strangers share: connections of a server, sessions of a CN, copies in a
//! DN's directory.
//!
//! A holding belongs to the network that it comes from (a /24, IPv6: a /48) and to a key. There are bounds for a key,
//! for a network and for the whole table, each in items and in bytes. At a bound a newcomer is not refused as long as
//! another holding can go:
//!
//! - at a key's or a network's bound, the first holding in turn of that key or network goes;
//! - at the bound of the table, the first holding in turn of the network with most bytes that can go, if that has more
//!   than the newcomer's own network; otherwise the first of its own network.
//!
//! So whoever fills the table pushes out its own holdings, and a network with few keeps them. Turns are the owner's:
//! the time of the last use where the idlest goes first, or a rank. A holding that is kept, because its owner is being
//! served, never goes. [`Holdings`] decides only; what a holding is worth, and how it ends, is up to its user. Each
//! operation takes time in the logarithm of the table's size.

pub mod taking;

use crate::machine::Time;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use core::net::IpAddr;
use core::time::Duration;

/// Number of holdings, with the memory that they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    /// Number of holdings.
    pub items: u64,
    /// Memory, bytes.
    pub bytes: u64,
}

impl Amount {
    /// An amount that limits nothing.
    pub const UNLIMITED: Self = Self { items: u64::MAX, bytes: u64::MAX };

    /// Returns the amount of one holding.
    #[must_use]
    pub const fn one(bytes: u64) -> Self {
        Self { items: 1, bytes }
    }

    /// Returns the amount of so many holdings of one size.
    #[must_use]
    pub const fn of(items: u64, bytes_each: u64) -> Self {
        Self { items, bytes: items.saturating_mul(bytes_each) }
    }

    const fn plus(self, more: Self) -> Self {
        Self { items: self.items.saturating_add(more.items), bytes: self.bytes.saturating_add(more.bytes) }
    }

    const fn minus(self, less: Self) -> Self {
        Self { items: self.items.saturating_sub(less.items), bytes: self.bytes.saturating_sub(less.bytes) }
    }

    const fn exceeds(self, most: Self) -> bool {
        self.items > most.items || self.bytes > most.bytes
    }
}

/// Bounds of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Bound of all holdings together.
    pub total: Amount,
    /// Bound of the holdings of one /24 (IPv6: /48).
    pub prefix: Amount,
    /// Bound of the holdings of one key.
    pub key: Amount,
}

/// Bound that a newcomer would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// [`Limits::total`].
    Total,
    /// [`Limits::prefix`].
    Prefix,
    /// [`Limits::key`].
    Key,
}

/// Answer to a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room<Id> {
    /// There is room.
    Free,
    /// There is room once this holding has gone or shrunk; then the table is to be asked again.
    InPlaceOf(Id),
    /// There is no room: at this bound nothing can go for the newcomer.
    Full(Bound),
}

/// Turn of a holding: a class, and within a class usually the time of the last use.
pub type Turn = (u8, Time);

/// One holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holding<K> {
    /// Network of the owner, as [`crate::selection::locality::prefix`] gives it.
    pub prefix: IpAddr,
    /// Key of the owner.
    pub key: K,
    /// Memory that the holding costs, bytes; at least 1.
    pub bytes: u64,
    /// Turn: of two holdings the one with the lower turn is removed first.
    pub turn: Turn,
    /// Whether the owner is being served; such a holding is never removed to make room for another.
    pub kept: bool,
}

/// Holdings of one key or one network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group<Id: Ord> {
    all: Amount,
    /// Bytes of the holdings that can go.
    loose: u64,
    /// Holdings that can go, by turn.
    turns: BTreeSet<(Turn, Id)>,
}

impl<Id: Ord + Copy> Group<Id> {
    const fn new() -> Self {
        Self { all: Amount { items: 0, bytes: 0 }, loose: 0, turns: BTreeSet::new() }
    }

    fn add<K>(&mut self, id: Id, holding: &Holding<K>) {
        self.all = self.all.plus(Amount::one(holding.bytes));
        if !holding.kept {
            self.loose = self.loose.saturating_add(holding.bytes);
            self.turns.insert((holding.turn, id));
        }
    }

    fn remove<K>(&mut self, id: Id, holding: &Holding<K>) {
        self.all = self.all.minus(Amount::one(holding.bytes));
        if !holding.kept {
            self.loose = self.loose.saturating_sub(holding.bytes);
            self.turns.remove(&(holding.turn, id));
        }
    }

    fn first(&self) -> Option<Id> {
        self.turns.first().map(|(_, id)| *id)
    }
}

/// Rank of a network among those with holdings that can go: the last one has most, and of several the idlest holding.
type Rank = (u64, Reverse<Turn>, IpAddr);

/// Table of holdings, see the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holdings<Id: Ord, K: Ord> {
    holdings: BTreeMap<Id, Holding<K>>,
    prefixes: BTreeMap<IpAddr, Group<Id>>,
    keys: BTreeMap<K, Group<Id>>,
    ranks: BTreeSet<Rank>,
    all: Amount,
}

impl<Id: Ord, K: Ord> Default for Holdings<Id, K> {
    fn default() -> Self {
        let (holdings, prefixes, keys) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { holdings, prefixes, keys, ranks: BTreeSet::new(), all: Amount::default() }
    }
}

impl<Id: Ord + Copy, K: Ord + Copy> Holdings<Id, K> {
    /// Returns the sum of all holdings.
    #[must_use]
    pub const fn all(&self) -> Amount {
        self.all
    }

    /// Returns the sum of the holdings of one network.
    #[must_use]
    pub fn of_prefix(&self, prefix: IpAddr) -> Amount {
        self.prefixes.get(&prefix).map_or(Amount::default(), |group| group.all)
    }

    /// Returns a holding.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Holding<K>> {
        self.holdings.get(&id)
    }

    /// Returns whether the owner may hold this much more, and what must go for it.
    #[must_use]
    pub fn ask(&self, limits: &Limits, (prefix, key): (IpAddr, K), more: Amount) -> Room<Id> {
        let instead = |first: Option<Id>, bound| first.map_or(Room::Full(bound), Room::InPlaceOf);
        let held = |group: Option<&Group<Id>>| group.map_or(more, |g| g.all.plus(more));
        let (of_key, of_prefix) = (self.keys.get(&key), self.prefixes.get(&prefix));
        if held(of_key).exceeds(limits.key) {
            return instead(of_key.and_then(Group::first), Bound::Key);
        }
        if held(of_prefix).exceeds(limits.prefix) {
            return instead(of_prefix.and_then(Group::first), Bound::Prefix);
        }
        if self.all.plus(more).exceeds(limits.total) {
            let own = of_prefix.map_or(0, |g| g.loose);
            let richest = self.ranks.last().filter(|(loose, ..)| *loose > own);
            let loser = richest.map_or(of_prefix, |(.., prefix)| self.prefixes.get(prefix));
            return instead(loser.and_then(Group::first), Bound::Total);
        }
        Room::Free
    }

    /// Adds a holding; one with the same id is replaced. Bounds are not checked: [`Self::ask`] does that.
    pub fn put(&mut self, id: Id, holding: Holding<K>) {
        self.take(id);
        let holding = Holding { bytes: holding.bytes.max(1), ..holding };
        self.all = self.all.plus(Amount::one(holding.bytes));
        self.unrank(holding.prefix);
        self.prefixes.entry(holding.prefix).or_insert_with(Group::new).add(id, &holding);
        self.rank(holding.prefix);
        self.keys.entry(holding.key).or_insert_with(Group::new).add(id, &holding);
        self.holdings.insert(id, holding);
    }

    /// Removes a holding, and returns it.
    pub fn take(&mut self, id: Id) -> Option<Holding<K>> {
        let holding = self.holdings.remove(&id)?;
        self.all = self.all.minus(Amount::one(holding.bytes));
        self.unrank(holding.prefix);
        if let Some(group) = self.prefixes.get_mut(&holding.prefix) {
            group.remove(id, &holding);
            if group.all.items == 0 {
                self.prefixes.remove(&holding.prefix);
            }
        }
        self.rank(holding.prefix);
        if let Some(group) = self.keys.get_mut(&holding.key) {
            group.remove(id, &holding);
            if group.all.items == 0 {
                self.keys.remove(&holding.key);
            }
        }
        Some(holding)
    }

    /// Changes a holding, if there is one.
    pub fn change(&mut self, id: Id, change: impl FnOnce(&mut Holding<K>)) {
        if let Some(mut holding) = self.take(id) {
            change(&mut holding);
            self.put(id, holding);
        }
    }

    /// Shifts the times of all turns, as [`crate::machine::Machine::rebase`] does.
    pub fn rebase(&mut self, by: Duration) {
        for (id, mut holding) in core::mem::take(self).holdings {
            holding.turn.1 = holding.turn.1.rebased(by);
            self.put(id, holding);
        }
    }

    fn rank_of(&self, prefix: IpAddr) -> Option<Rank> {
        let group = self.prefixes.get(&prefix)?;
        let (turn, _) = group.turns.first()?;
        Some((group.loose, Reverse(*turn), prefix))
    }

    fn unrank(&mut self, prefix: IpAddr) {
        if let Some(rank) = self.rank_of(prefix) {
            let was = self.ranks.remove(&rank);
            debug_assert!(was, "a network with holdings that can go has a rank");
        }
    }

    fn rank(&mut self, prefix: IpAddr) {
        if let Some(rank) = self.rank_of(prefix) {
            self.ranks.insert(rank);
        }
    }

    /// Asserts that sums, turns and ranks are those of the holdings, by a walk.
    pub fn check(&self) {
        let all = self.holdings.values().fold(Amount::default(), |sum, h| sum.plus(Amount::one(h.bytes)));
        assert!(self.all == all, "the sum is that of the holdings");
        assert!(self.holdings.values().all(|h| h.bytes > 0), "each holding costs something");
        let (mut prefixes, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for (id, holding) in &self.holdings {
            prefixes.entry(holding.prefix).or_insert_with(Group::new).add(*id, holding);
            keys.entry(holding.key).or_insert_with(Group::new).add(*id, holding);
        }
        let same = |a: &Group<Id>, b: &Group<Id>| (a.all, a.loose) == (b.all, b.loose) && a.turns == b.turns;
        let is_sum = |(net, g): (&IpAddr, &Group<Id>)| self.prefixes.get(net).is_some_and(|own| same(own, g));
        assert!(prefixes.iter().all(is_sum), "a network has the sum and the turns of its holdings");
        assert!(prefixes.len() == self.prefixes.len(), "only networks with holdings are listed");
        let is_sum = |(key, g): (&K, &Group<Id>)| self.keys.get(key).is_some_and(|own| same(own, g));
        assert!(keys.iter().all(is_sum), "a key has the sum and the turns of its holdings");
        assert!(keys.len() == self.keys.len(), "only keys with holdings are listed");
        let ranks: BTreeSet<Rank> = self.prefixes.keys().filter_map(|net| self.rank_of(*net)).collect();
        assert!(self.ranks == ranks, "networks are ranked by what can go");
    }
}

#[cfg(test)]
mod tests;
