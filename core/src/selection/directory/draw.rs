//! Selection of peers for one query. The draw goes through the sets that contain the querier (its address, prefix,
//! AS, country, continent, the world), narrowest first. In each it takes the copies in order of rank, and only those
//! whose class of NAT can connect with the querier's. A subset that cannot yield anybody (a prefix at its cap, a
//! network with which connections fail, a set searched before) is skipped in one step.
//!
//! So a querier is offered all suitable peers, up to the number that it wants: those of other GUIDs and keys that are
//! compatible, not excluded, of a kind with which connections succeed, not hidden from its network by blames, and
//! within the cap of their prefix. There is no cap for an AS, since near peers are wanted. The cost of a draw depends
//! on the numbers of peers that it wants, excludes and skips, not on the number of copies.

use super::lists::{Bucket, Listing};
use super::{Choice, Directory, Peer, PeerKey};
use crate::ids::{PublicKey, VersionId};
use crate::limits::{EXCLUDED_MAX, PEERS_PER_ANSWER_MAX};
use crate::nat::{self, Class, Home, is_private};
use crate::selection::learned::{Learned, Side};
use crate::selection::locality::{Set, prefix};
use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

/// Maximum number of copies behind one public address that one selection examines, so that many unsuitable clients
/// behind an address cannot make selections slow.
pub(super) const LOOKS_AT_ADDRESS: usize = 512;

/// Divisor of the wanted number: the quotient is the number of places that peers of other private subnets behind the
/// querier's own address have before farther peers. Behind a carrier's NAT these peers cannot be reached.
const ROUTED_PART: usize = 4;

const _: () = assert!(LOOKS_AT_ADDRESS > EXCLUDED_MAX + PEERS_PER_ANSWER_MAX);

/// Copy with the lowest rank of a set of peers, at which the search of that set continues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    rank: u64,
    depth: usize,
    key: PeerKey,
    /// Number of copies of this set that the selection has examined before.
    looks: usize,
}

/// State of one selection of peers for a querier.
pub(super) struct Draw<'a> {
    directory: &'a Directory,
    learned: &'a mut Learned,
    me: &'a Peer,
    version: VersionId,
    exclude: &'a BTreeSet<PublicKey>,
    choice: Choice,
    /// Peers chosen so far, in order.
    pub(super) chosen: Vec<PeerKey>,
    /// Rank of the copy at which the next selection begins among the peers behind the querier's own address.
    pub(super) next_behind: u64,
    keys: BTreeSet<PublicKey>,
    prefixes: BTreeMap<IpAddr, u32>,
    /// NAT classes examined so far, and whether peers of each may be chosen.
    classes: BTreeMap<Class, bool>,
    /// Suitable peers of other private subnets behind the querier's own address, in order of rank.
    routed: Vec<(PeerKey, &'a Peer)>,
    /// Whether this selection has already chosen a peer of a kind with which connections usually fail, as a trial.
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
            routed: Vec::new(),
            has_tried: false,
        }
    }

    /// Chooses up to `want` peers, nearest first; the last `kept` places are for peers from anywhere, those that were
    /// offered longest ago. Peers of other private subnets behind the querier's own address fill what is left.
    pub(super) fn choose(&mut self, want: usize, kept: usize) {
        self.behind(want - kept);
        self.take_routed((self.chosen.len() + want / ROUTED_PART).min(want - kept));
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
        self.take_routed(want);
    }

    /// Chooses peers of other private subnets behind the querier's own address, until `want` peers are chosen in all.
    fn take_routed(&mut self, want: usize) {
        for (key, peer) in core::mem::take(&mut self.routed) {
            if self.chosen.len() < want {
                self.consider(key, peer);
            } else {
                self.routed.push((key, peer));
            }
        }
    }

    fn side(&self) -> Side {
        (self.me.place.class, self.me.place.network())
    }

    /// Chooses suitable peers behind the querier's own public address, in order of rank, and notes those of other
    /// private subnets. If there are too many to examine, the next selection continues where this one ends.
    fn behind(&mut self, want: usize) {
        let (Some(address), from) = (self.me.place.address(), self.next_behind) else { return };
        let directory = self.directory;
        self.routed.clear();
        for (looked, (rank, key)) in directory.lists.behind(self.version, address, from).enumerate() {
            if self.chosen.len() >= want {
                return;
            }
            if looked >= LOOKS_AT_ADDRESS {
                self.next_behind = rank;
                return;
            }
            let Some(peer) = directory.offered(key, self.version) else { continue };
            match nat::home(self.me.endpoint(), peer.endpoint()) {
                Home::Near => _ = self.consider(key, peer),
                Home::Routed => self.routed.push((key, peer)),
                Home::Apart => {}
            }
        }
        self.next_behind = 0;
    }

    /// Chooses suitable peers of a set in order of rank, until `want` are chosen, except those of the subset
    /// `walked`, which was searched before.
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

    /// Returns the first copy of each bucket (CN's connection and NAT class) of a set, of those buckets with which
    /// the querier may connect.
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

    /// Returns whether peers of a NAT class can connect with the querier's class, by the table and by the learned
    /// success rates. If only the learned rates forbid it, `key`, a peer of that class, may be chosen as a rare
    /// trial.
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

    /// Counts that peers of a kind were skipped because connections with them fail, and rarely chooses one, `key`, as
    /// a trial.
    fn pass_over(&mut self, theirs: Side, key: PeerKey, want: usize) {
        let may_try = !self.has_tried && self.chosen.len() < want;
        if self.learned.passes_over(self.side(), theirs, may_try) {
            self.has_tried = true;
            self.look_at(key);
        }
    }

    /// Returns whether a subset, of which `key` is the first copy, can yield a suitable peer.
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

    /// Chooses a peer behind another address than the querier's if it is suitable and within the cap of its prefix.
    fn look_at(&mut self, key: PeerKey) {
        let Some(peer) = self.directory.offered(key, self.version) else { return };
        let address = peer.entry.observed.ip().to_canonical();
        let net = prefix(address);
        let apart = Some(address) != self.me.place.address();
        if apart && !self.is_full(net) && self.consider(key, peer) && !is_private(address) {
            *self.prefixes.entry(net).or_default() += 1;
        }
    }

    /// Chooses a peer with which the querier can connect, unless it is the querier itself, excluded, or chosen
    /// already. Returns whether it was chosen.
    fn consider(&mut self, key: PeerKey, peer: &Peer) -> bool {
        let (mine, theirs) = (&self.me.entry, &peer.entry);
        let itself = mine.guid == theirs.guid || mine.upload_key == theirs.upload_key;
        let hidden = self.directory.is_hidden(peer, self.version, self.me);
        let chosen =
            !itself && !hidden && !self.exclude.contains(&theirs.upload_key) && self.keys.insert(theirs.upload_key);
        if chosen {
            self.chosen.push(key);
        }
        chosen
    }
}
