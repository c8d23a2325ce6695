//! Blames: reports of downloaders that the holder of a copy has sent wrong blocks, and their consequences.
//!
//! A blame is a vote, never proof, since blocks are not signed. It counts once for each accuser and each /24 (IPv6:
//! /48), and expires. What votes do to a copy, in the order of their number:
//!
//! - with the first vote, and now and then with later ones, the holder is told to hash its copy again;
//! - votes from several /24 of one AS hide the copy from downloaders of that AS;
//! - votes from several AS suspend the copy for a short time, which the holder ends by a proof of possession; a copy is
//!   suspended again only when still another AS has voted;
//! - votes from many AS delist the copy until enough of them have expired. No proof changes that: whoever sends wrong
//!   blocks on purpose has the right ones.
//!
//! So accusers from few networks, however many they are, cost an honest holder one suspension at most, and hide it from
//! their own networks only. Where the AS of an address is not known, its /16 (IPv6: /32) stands in for it.

use crate::holdings::{Amount, Holding, Holdings, Limits, Room};
use crate::ids::{Guid, VersionId};
use crate::machine::{Deadlines, Time};
use crate::selection::locality::{Locality, prefix};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// Memory of one vote with its places in the tables, bytes: rounded up.
const VOTE_BYTES: u64 = 512;
/// Usual number of votes for which a DN has room: 64 MiB of memory.
const VOTES_MAX: u64 = 128 << 10;
/// Maximum number of one accuser's votes at a time.
const ACCUSER_VOTES_MAX: u64 = 256;
/// Maximum number of votes about one copy: more than any rule needs.
const COPY_VOTES_MAX: usize = 64;

/// Copy of a version: the GUID of its holder, and the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyId {
    /// GUID of the holder.
    pub holder: Guid,
    /// Version that it holds.
    pub version: VersionId,
}

/// Autonomous system of an address, or its stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// Number of the autonomous system, as geolocation knows it.
    As(u32),
    /// First address of the /16 (IPv6: /32), where geolocation does not know the autonomous system.
    Around(IpAddr),
}

impl Network {
    /// Returns the network of a public address.
    #[must_use]
    pub fn of(address: IpAddr, locality: &Locality) -> Self {
        let around = || match address.to_canonical() {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << 16))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << 96))),
        };
        locality.asn.map_or_else(|| Self::Around(around()), Self::As)
    }
}

/// Client that blames a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Accuser {
    /// GUID of the client.
    pub guid: Guid,
    /// First address of its /24 (IPv6: /48).
    pub prefix: IpAddr,
    /// Autonomous system that contains its address.
    pub network: Network,
}

impl Accuser {
    /// Returns the client with this public address as accuser.
    #[must_use]
    pub fn new(guid: Guid, address: IpAddr, locality: &Locality) -> Self {
        Self { guid, prefix: prefix(address), network: Network::of(address, locality) }
    }
}

/// Numbers of votes from which consequences follow, and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Number of /24 (IPv6: /48) of one AS whose votes hide a copy from that AS.
    pub hide_at: usize,
    /// Number of AS whose votes suspend a copy; each further one suspends it again.
    pub suspend_at: usize,
    /// Longest duration of a suspension.
    pub suspend_for: Duration,
    /// Number of AS whose votes delist a copy.
    pub delist_at: usize,
    /// Time for which a vote counts.
    pub vote_life: Duration,
    /// Least time between two requests to a holder to check one copy.
    pub check_every: Duration,
    /// Bounds of the votes: in all, of one /24 (IPv6: /48), and of one accuser.
    pub limits: Limits,
}

impl Rules {
    /// Rules in production: a suspension is as long as a holder may need to hash a large copy and to prove that it has
    /// it; votes live as long as a wave of downloads.
    pub const USUAL: Self = Self {
        hide_at: 3,
        suspend_at: 3,
        suspend_for: Duration::from_secs(10 * 60),
        delist_at: 8,
        vote_life: Duration::from_secs(6 * 3600),
        check_every: Duration::from_secs(10 * 60),
        limits: Limits {
            total: Amount::of(VOTES_MAX, VOTE_BYTES),
            prefix: Amount::of(VOTES_MAX / 16, VOTE_BYTES),
            key: Amount::of(ACCUSER_VOTES_MAX, VOTE_BYTES),
        },
    };
}

/// Consequences of the votes about a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Whether the copy may be offered to nobody: it is suspended or delisted.
    pub is_barred: bool,
    /// Networks to whose downloaders the copy may not be offered.
    pub hidden_from: BTreeSet<Network>,
}

/// Result of a blame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the blame counts as a vote.
    pub counts: bool,
    /// Whether the holder is to be told to hash its copy again.
    pub tell_holder: bool,
    /// Copies whose standing may have changed.
    pub touched: Vec<CopyId>,
}

/// Vote against a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Vote {
    by: Accuser,
    /// Time at which the vote expires.
    until: Time,
}

/// Votes about one copy, and what has followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Case {
    /// Votes by number, each from another /24 (IPv6: /48).
    votes: BTreeMap<u64, Vote>,
    /// Largest number of AS for which the copy was suspended.
    judged: usize,
    /// Whether the suspension lasts.
    is_suspended: bool,
    /// Time at which the holder was told last to check its copy.
    told: Option<Time>,
}

impl Case {
    /// Returns the number of AS that have voted, each with a /24 (IPv6: /48) of its own.
    fn networks(&self) -> usize {
        self.votes.values().map(|vote| vote.by.network).collect::<BTreeSet<_>>().len()
    }

    fn of_network(&self, network: Network) -> usize {
        self.votes.values().filter(|vote| vote.by.network == network).count()
    }

    /// Returns whether a vote adds anything to those that there are.
    fn is_news(&self, rules: &Rules, by: &Accuser) -> bool {
        let repeats = |v: &Vote| v.by.guid == by.guid || v.by.prefix == by.prefix;
        self.votes.len() < COPY_VOTES_MAX
            && !self.votes.values().any(repeats)
            && self.of_network(by.network) < rules.hide_at
    }
}

/// Table of the votes about copies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blames {
    cases: BTreeMap<CopyId, Case>,
    /// Copy that each vote is about; votes are numbered in the order in which they expire.
    votes: BTreeMap<u64, CopyId>,
    next: u64,
    /// Votes by their accuser and its network, which bounds them.
    places: Holdings<u64, Guid>,
    /// Times at which suspensions end.
    suspended: Deadlines<CopyId>,
}

impl Blames {
    /// Counts a client's blame of a copy, if it adds anything. The caller vouches that the holder was introduced to the
    /// client for this version, and that they have connected.
    pub fn accuse(&mut self, rules: &Rules, now: Time, copy: CopyId, by: Accuser) -> Verdict {
        let mut verdict = Verdict::default();
        let is_news = self.cases.get(&copy).is_none_or(|case| case.is_news(rules, &by));
        if by.guid == copy.holder || !is_news || !self.make_room(rules, &by, &mut verdict.touched) {
            return verdict;
        }
        let id = self.next;
        self.next += 1;
        let turn = (0, now);
        self.places.put(id, Holding { prefix: by.prefix, key: by.guid, bytes: VOTE_BYTES, turn, kept: false });
        self.votes.insert(id, copy);
        let case = self.cases.entry(copy).or_default();
        case.votes.insert(id, Vote { by, until: now.after(rules.vote_life) });
        verdict.counts = true;
        verdict.tell_holder = case.told.is_none_or(|at| now.since(at) >= rules.check_every);
        if verdict.tell_holder {
            case.told = Some(now);
        }
        let networks = case.networks();
        if networks >= rules.suspend_at && networks > case.judged {
            case.judged = networks;
            // a suspension is never prolonged
            if !core::mem::replace(&mut case.is_suspended, true) {
                self.suspended.set(copy, Some(now.after(rules.suspend_for)));
            }
        }
        verdict.touched.push(copy);
        verdict
    }

    /// Makes room for a vote, if need be in place of an older one.
    fn make_room(&mut self, rules: &Rules, by: &Accuser, touched: &mut Vec<CopyId>) -> bool {
        loop {
            match self.places.ask(&rules.limits, (by.prefix, by.guid), Amount::one(VOTE_BYTES)) {
                Room::Free => return true,
                Room::Full(_) => return false,
                Room::InPlaceOf(oldest) => touched.extend(self.remove(oldest)),
            }
        }
    }

    /// Removes a vote, and returns the copy that it was about.
    fn remove(&mut self, id: u64) -> Option<CopyId> {
        self.places.take(id);
        let copy = self.votes.remove(&id)?;
        if let Some(case) = self.cases.get_mut(&copy) {
            case.votes.remove(&id);
            if case.votes.is_empty() {
                self.cases.remove(&copy);
                self.suspended.clear(copy);
            }
        }
        Some(copy)
    }

    /// Ends the suspension of a copy whose holder has proven that it has the right bytes. Returns whether there was
    /// one.
    pub fn on_proof(&mut self, copy: CopyId) -> bool {
        self.suspended.clear(copy);
        self.cases.get_mut(&copy).is_some_and(|case| core::mem::take(&mut case.is_suspended))
    }

    /// Removes the votes that have expired, and ends the suspensions that are over. Returns the copies whose standing
    /// may have changed.
    pub fn expire(&mut self, now: Time) -> Vec<CopyId> {
        let mut touched = Vec::new();
        while let Some(id) = self.oldest().filter(|(_, until)| *until <= now).map(|(id, _)| id) {
            touched.extend(self.remove(id));
        }
        while let Some(copy) = self.suspended.pop_due(now) {
            self.on_proof(copy);
            touched.push(copy);
        }
        touched
    }

    fn oldest(&self) -> Option<(u64, Time)> {
        let (id, copy) = self.votes.first_key_value()?;
        Some((*id, self.cases.get(copy)?.votes.get(id)?.until))
    }

    /// Returns the time at which [`Self::expire`] must be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.oldest().map(|(_, until)| until).into_iter().chain(self.suspended.next()).min()
    }

    /// Returns the consequences of the votes about a copy.
    #[must_use]
    pub fn standing(&self, rules: &Rules, copy: CopyId) -> Standing {
        let Some(case) = self.cases.get(&copy) else { return Standing::default() };
        let networks: BTreeSet<Network> = case.votes.values().map(|vote| vote.by.network).collect();
        let is_barred = case.is_suspended || networks.len() >= rules.delist_at;
        let hidden_from = networks.into_iter().filter(|n| case.of_network(*n) >= rules.hide_at).collect();
        Standing { is_barred, hidden_from }
    }

    /// Returns the number of votes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.votes.len()
    }

    /// Returns whether nobody is blamed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.votes.is_empty()
    }

    /// Returns the copies that are blamed.
    pub fn copies(&self) -> impl Iterator<Item = CopyId> + '_ {
        self.cases.keys().copied()
    }

    /// Shifts all times, as [`crate::machine::Machine::rebase`] does.
    pub fn rebase(&mut self, by: Duration) {
        self.places.rebase(by);
        self.suspended.rebase(by);
        for case in self.cases.values_mut() {
            case.told = case.told.map(|at| at.rebased(by));
            case.votes.values_mut().for_each(|vote| vote.until = vote.until.rebased(by));
        }
    }

    /// Asserts that votes, cases, bounds and suspensions agree.
    pub fn check(&self) {
        self.places.check();
        self.suspended.check();
        assert!(self.places.all().items == self.votes.len() as u64, "each vote is counted");
        let in_cases: usize = self.cases.values().map(|case| case.votes.len()).sum();
        assert!(in_cases == self.votes.len(), "each vote is about a copy");
        let mut last = Time::ZERO;
        for (id, copy) in &self.votes {
            let vote = self.cases.get(copy).and_then(|case| case.votes.get(id));
            assert!(*id < self.next && vote.is_some(), "a vote is found by its number");
            let until = vote.map_or(Time::ZERO, |vote| vote.until);
            assert!(until >= last, "votes expire in order");
            last = until;
        }
        for (copy, case) in &self.cases {
            let of = |f: fn(&Vote) -> IpAddr| case.votes.values().map(f).collect::<BTreeSet<_>>().len();
            assert!(!case.votes.is_empty() && case.votes.len() <= COPY_VOTES_MAX, "the votes about a copy are bounded");
            assert!(of(|vote| vote.by.prefix) == case.votes.len(), "a network votes once about a copy");
            let ends = self.suspended.get(*copy).is_some();
            assert!(case.is_suspended == ends, "a suspension ends");
        }
        let suspended = self.cases.values().filter(|case| case.is_suspended).count();
        assert!(self.suspended.keys().count() == suspended, "only a suspension has an end");
    }
}

#[cfg(test)]
mod tests;
