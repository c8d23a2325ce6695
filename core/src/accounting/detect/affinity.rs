//! Pair affinity: pairs of clients that transfer more often than the DNs' offers explain. A DN draws the peers that it
//! offers at random, so an honest client downloads from those that are reachable and fast; a colluder downloads from
//! its friends. Frequent meetings alone are no evidence (few clients hold a rare object, and near clients are offered
//! first); choosing each other from almost every offer is.

use super::odds::{ONE, Rate, surprise};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Distance class of two clients; nearer clients are likelier to connect and to be fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Near {
    /// The clients share one public address.
    Address = 0,
    /// The clients share a network: an AS, or an address prefix where the AS is not known.
    Network = 1,
    /// The clients are in the same country.
    Country = 2,
    /// The clients share none of these, or their places are not known.
    World = 3,
}

/// An offer of a peer for a download, with its result. The caller numbers clients from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Number of the client that downloads.
    pub downloader: u32,
    /// Number of the client that was offered as uploader.
    pub uploader: u32,
    /// Distance class of the two clients.
    pub near: Near,
    /// Bytes that settlement agreed on between the two; 0 if the offer was not used.
    pub bytes: u64,
}

/// Two clients that transfer, in one or both directions, more often than chance explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Numbers of the two clients, the smaller first.
    pub clients: (u32, u32),
    /// Number of offers in which a DN offered one of the two clients to the other.
    pub offered: u64,
    /// Number of these offers that were used.
    pub used: u64,
    /// Bytes transferred between the two, both directions together.
    pub bytes: u64,
    /// Improbability of so many used offers by chance, in bits (-log2 of the probability).
    pub bits: u64,
}

/// A client's rates of used offers, over the pairs with too few used offers to be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    downloads: Rate,
    uploads: Rate,
}

/// Offers between two clients that used enough of them to be judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Meetings {
    /// Rates of used offers by direction: first those in which the client with the smaller number downloads.
    rates: [Rate; 2],
    bytes: u64,
    near: Option<Near>,
}

/// Smallest number of used offers between two clients for the pair to be judged.
const USED_MIN: u64 = 4;
/// Smallest improbability of a pair's used offers, in bits, for the pair to be reported. One such pair is no proof;
/// several among a few clients are.
const PAIR_BITS_MIN: u64 = 6;
/// Number of offers that weigh as much in a client's rate as the rate of all other clients does.
const PRIOR: u64 = 16;

/// Result of evaluating all offers that DNs made in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// Pairs with improbably many used offers, ordered by their clients' numbers.
    pub pairs: Vec<Pair>,
    /// Bytes that each client received from peers, indexed by client number.
    pub received: Vec<u64>,
}

impl Affinity {
    /// Evaluates all offers that DNs made in a span of time, in two passes. `clients` is the number of clients.
    pub fn of<I: Iterator<Item = Offer> + Clone>(clients: u32, offers: I) -> Self {
        let mut received = alloc::vec![0_u64; clients as usize];
        let mut used: Vec<(u32, u32)> = Vec::new();
        for o in offers.clone().filter(|o| o.bytes > 0) {
            used.push(ordered(&o));
            if let Some(sum) = received.get_mut(o.downloader as usize) {
                *sum = sum.saturating_add(o.bytes);
            }
        }
        let mut met = frequent(used);
        let mut all = alloc::vec![Client::default(); clients as usize];
        let mut by_nearness = [Rate::default(); 4];
        for o in offers {
            let used = o.bytes > 0;
            match met.get_mut(&ordered(&o)) {
                Some(pair) => {
                    pair.rates[usize::from(o.downloader > o.uploader)].add(used);
                    pair.bytes = pair.bytes.saturating_add(o.bytes);
                    pair.near = Some(pair.near.map_or(o.near, |near| near.min(o.near)));
                }
                // only pairs that are not judged set the clients' rates, so that no pair is measured against itself
                None => {
                    if let Some(c) = all.get_mut(o.downloader as usize) {
                        c.downloads.add(used);
                    }
                    if let Some(c) = all.get_mut(o.uploader as usize) {
                        c.uploads.add(used);
                    }
                }
            }
            by_nearness[o.near as usize].add(used);
        }
        let judge = |(clients, m): ((u32, u32), Meetings)| judge(clients, &m, &all, &by_nearness);
        let pairs = met.into_iter().filter_map(judge).collect();
        Self { pairs, received }
    }
}

fn ordered(o: &Offer) -> (u32, u32) {
    (o.downloader.min(o.uploader), o.downloader.max(o.uploader))
}

/// Returns, without rates yet, the pairs of clients with [`USED_MIN`] used offers or more. `used` has one entry for
/// each used offer.
fn frequent(mut used: Vec<(u32, u32)>) -> BTreeMap<(u32, u32), Meetings> {
    used.sort_unstable();
    let same = used.chunk_by(|a, b| a == b).filter(|same| same.len() as u64 >= USED_MIN);
    same.filter_map(|same| Some((*same.first()?, Meetings::default()))).collect()
}

/// Judges a pair by the most favourable of three rates: the rate of all pairs of the same distance class, and the
/// rates of either client with others. So a good uploader, a fast downloader or a client on the same LAN is not
/// reported. Returns `None` if the pair is not improbable enough.
fn judge(clients: (u32, u32), m: &Meetings, all: &[Client], by_nearness: &[Rate; 4]) -> Option<Pair> {
    let prior = by_nearness[m.near? as usize].smoothed(ONE / 2, PRIOR);
    let of = |n: u32| all.get(n as usize).copied().unwrap_or_default();
    let (one, other) = (of(clients.0), of(clients.1));
    let chance = |down: Rate, up: Rate| {
        let (down, up) = (down.smoothed(prior, PRIOR), up.smoothed(prior, PRIOR));
        prior.max(down).max(up)
    };
    let bits = surprise(m.rates[0].hits, m.rates[0].of, chance(one.downloads, other.uploads))
        + surprise(m.rates[1].hits, m.rates[1].of, chance(other.downloads, one.uploads));
    let sum = |of: fn(&Rate) -> u64| m.rates.iter().map(of).sum();
    let pair = Pair { clients, offered: sum(|r| r.of), used: sum(|r| r.hits), bytes: m.bytes, bits };
    (bits >= PAIR_BITS_MIN).then_some(pair)
}
