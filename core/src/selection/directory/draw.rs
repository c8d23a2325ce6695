//! Selection of peers. A draw walks the querier's sets from its own outwards, each in rank order, over only those
//! copies whose class of NAT can connect with the querier's. A narrower set that cannot yield anybody (a prefix at its
//! cap, a network that was learned to fail, all that was walked before) is skipped in one step.
//!
//! So a querier is offered as many as suit, up to the number that it wants: those of other GUIDs and keys that are
//! compatible, not excluded, not learned to fail, and within the cap of a prefix. There is no cap of an AS, since
//! neighbours are wanted. The cost of a draw depends on how many it wants, excludes and skips at once, not on how many
//! copies there are.

use super::lists::{Bucket, Listing};
use super::{Choice, Directory, Peer, PeerKey};
use crate::ids::{PublicKey, VersionId};
use crate::limits::{EXCLUDED_MAX, PEERS_PER_ANSWER_MAX};
use crate::nat::{self, Class, is_private};
use crate::selection::learned::{Learned, Side};
use crate::selection::locality::{Set, prefix};
use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

/// Maximum number of copies behind one address that a draw examines. Only there can a crowd obstruct a draw, by using
/// others' keys or by being unable to connect with its neighbours; then it hides only those.
pub(super) const LOOKS_AT_ADDRESS: usize = 512;

const _: () = assert!(LOOKS_AT_ADDRESS > EXCLUDED_MAX + PEERS_PER_ANSWER_MAX);

/// Copy that represents a set at the given depth, at its rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    rank: u64,
    depth: usize,
    key: PeerKey,
    /// Number of copies of this set examined before.
    looks: usize,
}

/// State of one selection under way.
pub(super) struct Draw<'a> {
    directory: &'a Directory,
    learned: &'a mut Learned,
    me: &'a Peer,
    version: VersionId,
    exclude: &'a BTreeSet<PublicKey>,
    choice: Choice,
    /// Peers chosen so far, in order.
    pub(super) chosen: Vec<PeerKey>,
    /// Rank at which the next draw begins behind the querier's own address.
    pub(super) next_behind: u64,
    keys: BTreeSet<PublicKey>,
    prefixes: BTreeMap<IpAddr, u32>,
    /// Classes examined so far, and whether their peers may be chosen.
    classes: BTreeMap<Class, bool>,
    /// Whether this draw already tries a pair that was learned to fail.
    has_tried: bool,
}

impl<'a> Draw<'a> {
    pub(super) fn new(
        (directory, learned): (&'a Directory, &'a mut Learned),
        me: &'a Peer,
        version: VersionId,
        exclude: &'a BTreeSet<PublicKey>,
        choice: Choice,
    ) -> Self {
        Self {
            directory,
            learned,
            me,
            version,
            exclude,
            choice,
            chosen: Vec::new(),
            next_behind: 0,
            keys: BTreeSet::new(),
            prefixes: BTreeMap::new(),
            classes: BTreeMap::new(),
            has_tried: false,
        }
    }

    /// Chooses up to `want` peers, nearest first; the last `kept` places go to the lowest ranks in the world.
    pub(super) fn choose(&mut self, want: usize, kept: usize) {
        self.behind(want - kept);
        let mut walked = None;
        for set in self.me.place.sets.iter().rev() {
            // a prefix stands in for the AS where that is not known
            let stands_in = set.prefix().is_some() && self.me.place.network().is_none();
            if set.address().is_none() && (set.prefix().is_none() || stands_in) {
                self.walk(*set, walked, want - kept);
                walked = Some(*set);
            }
        }
        if kept > 0 && self.chosen.len() == want - kept {
            self.walk(Set::WORLD, None, want);
            self.behind(want);
        }
    }

    fn side(&self) -> Side {
        (self.me.place.class, self.me.place.network())
    }

    /// Chooses suitable neighbours behind the querier's own address, in rank order. A crowd of unsuitable ones is
    /// examined in lots: the next draw continues where this one ends.
    fn behind(&mut self, want: usize) {
        let (Some(address), from) = (self.me.place.address(), self.next_behind) else { return };
        let directory = self.directory;
        for (looked, (rank, key)) in directory.lists.behind(self.version, address, from).enumerate() {
            if self.chosen.len() >= want {
                return;
            }
            if looked >= LOOKS_AT_ADDRESS {
                self.next_behind = rank;
                return;
            }
            if let Some(peer) = directory.offered(key, self.version)
                && nat::compatible(self.me.endpoint(), peer.endpoint())
            {
                self.consider(key, peer);
            }
        }
        self.next_behind = 0;
    }

    /// Chooses suitable peers of a set in rank order, except those of a narrower set that was walked before.
    fn walk(&mut self, set: Set, walked: Option<Set>, want: usize) {
        let directory = self.directory;
        let mut turns = self.first_turns(set, want);
        while self.chosen.len() < want
            && let Some(Reverse(turn)) = turns.pop()
        {
            let Some(listing) = directory.listing(turn.key) else { continue };
            let Some(set) = listing.sets.get(turn.depth) else { continue };
            if listing.prefix().is_some_and(|(p, depth)| depth <= turn.depth && self.is_full(p)) {
                continue;
            }
            let bucket = Bucket { link: turn.key.link, class: listing.class };
            let narrower = listing.sets.get(turn.depth + 1);
            let looks = turn.looks + usize::from(narrower.is_none());
            if let Some((rank, key)) = directory.lists.after((self.version, *set, bucket, turn.rank))
                && looks < LOOKS_AT_ADDRESS
            {
                turns.push(Reverse(Turn { rank, key, looks, ..turn }));
            }
            match narrower {
                None => self.look_at(turn.key),
                Some(set) if Some(*set) != walked && self.may_enter(set, listing, turn.key) => {
                    turns.push(Reverse(Turn { depth: turn.depth + 1, looks: 0, ..turn }));
                }
                Some(_) => {}
            }
        }
    }

    /// Returns the first copy of each usable bucket of a set.
    fn first_turns(&mut self, set: Set, want: usize) -> BinaryHeap<Reverse<Turn>> {
        let directory = self.directory;
        let mut turns = BinaryHeap::new();
        let mut last = None;
        while let Some((bucket, rank, key)) = directory.lists.bucket_after(self.version, set, last) {
            last = Some(bucket);
            if directory.dead.contains(&bucket.link) {
                last = Some(Bucket { link: bucket.link, class: Class::LAST });
            } else if self.is_of_use(bucket.class, key, want) {
                let depth = self.me.place.sets.iter().position(|s| *s == set).unwrap_or(0);
                turns.push(Reverse(Turn { rank, depth, key, looks: 0 }));
            }
        }
        turns
    }

    /// Returns whether a class can connect with the querier's and has not been learned to fail. If it was, `key`, which
    /// is of that class, may be a rare trial.
    fn is_of_use(&mut self, class: Class, key: PeerKey, want: usize) -> bool {
        if let Some(known) = self.classes.get(&class) {
            return *known;
        }
        let meets = self.me.place.class.meets(class);
        let of_use = meets && self.learned.offers(self.side(), (class, None));
        self.classes.insert(class, of_use);
        if meets && !of_use {
            self.pass_over((class, None), key, want);
        }
        of_use
    }

    /// Skips a kind of pair that was learned to fail, but rarely tries one.
    fn pass_over(&mut self, theirs: Side, key: PeerKey, want: usize) {
        let may_try = !self.has_tried && self.chosen.len() < want;
        if self.learned.passes_over(self.side(), theirs, may_try) {
            self.has_tried = true;
            self.look_at(key);
        }
    }

    /// Returns whether the narrower set that `key` represents can yield anybody.
    fn may_enter(&mut self, set: &Set, listing: &Listing, key: PeerKey) -> bool {
        if let Some(network) = set.network() {
            let theirs = (listing.class, Some(network));
            let offers = self.learned.offers(self.side(), theirs);
            if !offers {
                self.pass_over(theirs, key, usize::MAX);
            }
            return offers;
        }
        // neighbours were looked at before
        set.address().is_none_or(|a| Some(a) != self.me.place.address())
            && set.prefix().is_none_or(|p| !self.is_full(p))
    }

    fn is_full(&self, prefix: IpAddr) -> bool {
        self.prefixes.get(&prefix).is_some_and(|count| *count >= self.choice.per_prefix)
    }

    /// Examines a copy behind another address, of a class that can connect with the querier's.
    fn look_at(&mut self, key: PeerKey) {
        let Some(peer) = self.directory.offered(key, self.version) else { return };
        let address = peer.entry.observed.ip().to_canonical();
        let net = prefix(address);
        let apart = Some(address) != self.me.place.address();
        if apart && !self.is_full(net) && self.consider(key, peer) && !is_private(address) {
            *self.prefixes.entry(net).or_default() += 1;
        }
    }

    /// Chooses a compatible peer, unless it is the querier, excluded, or chosen already. Returns whether it was chosen.
    fn consider(&mut self, key: PeerKey, peer: &Peer) -> bool {
        let (mine, theirs) = (&self.me.entry, &peer.entry);
        let itself = mine.guid == theirs.guid || mine.upload_key == theirs.upload_key;
        let chosen = !itself && !self.exclude.contains(&theirs.upload_key) && self.keys.insert(theirs.upload_key);
        if chosen {
            self.chosen.push(key);
        }
        chosen
    }
}
