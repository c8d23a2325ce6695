//! Pair affinity: pairs of clients that take from one another more often than the DNs' offers explain. A DN draws the
//! peers it offers at random, so an honest client takes from those that happen to be reachable and fast; a colluder
//! takes from its accomplices. Meeting often does not count against a pair (few clients hold a rare object, and near
//! ones are offered first); using each other nearly always when offered does.

use super::odds::{ONE, Rate, surprise};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Nearness of two clients: the nearer, the likelier they connect, and the likelier they are fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Near {
    /// Both clients are behind one public address.
    Address = 0,
    /// Both clients are in one network: an AS, or a prefix if the AS is not known.
    Network = 1,
    /// Both clients are in one country.
    Country = 2,
    /// None of these holds, or is known.
    World = 3,
}

/// An offer of a peer for a download and its result. The caller numbers clients from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Number of the client that downloads.
    pub downloader: u32,
    /// Number of the client that was offered.
    pub uploader: u32,
    /// Nearness of the two clients.
    pub near: Near,
    /// Bytes between the two clients that settlement agreed on; 0: the offer was not used.
    pub bytes: u64,
}

/// Two clients that take from one another, in one direction or both, more often than chance explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The clients, the smaller number first.
    pub clients: (u32, u32),
    /// Number of offers of one client to the other.
    pub offered: u64,
    /// Number of offers that were used.
    pub used: u64,
    /// Bytes transferred between the two clients.
    pub bytes: u64,
    /// Improbability of so many uses, in bits.
    pub bits: u64,
}

/// A client's rates of used offers, outside the pairs under examination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    downloads: Rate,
    uploads: Rate,
}

/// The offers within a pair that met often enough to be examined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Meetings {
    /// Rates of used offers: first with the smaller number as downloader, then with the larger.
    rates: [Rate; 2],
    bytes: u64,
    near: Option<Near>,
}

/// Number of uses below which a pair is not examined.
const USED_MIN: u64 = 4;
/// Bits from which a pair is reported: alone it is no evidence, several among a few clients are.
const PAIR_BITS_MIN: u64 = 6;
/// Weight of all clients' rate against a client's own, in offers.
const PRIOR: u64 = 16;

/// The result of examining all offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// Conspicuous pairs, ordered by their clients.
    pub pairs: Vec<Pair>,
    /// Bytes that each client received from peers, by its number.
    pub received: Vec<u64>,
}

impl Affinity {
    /// Examines all offers of a span of time, in two passes.
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
                // pairs under examination are left out of the rates that they are measured by
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

/// Returns the pairs that occur [`USED_MIN`] times or more.
fn frequent(mut used: Vec<(u32, u32)>) -> BTreeMap<(u32, u32), Meetings> {
    used.sort_unstable();
    let same = used.chunk_by(|a, b| a == b).filter(|same| same.len() as u64 >= USED_MIN);
    same.filter_map(|same| Some((*same.first()?, Meetings::default()))).collect()
}

/// Measures a pair by the most favourable of three rates: that of all clients as near to one another, and that of
/// either client with others. So neither a good uploader, nor a fast downloader, nor clients on one LAN stand out.
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
