//! Pair affinity: who takes from whom more often than the DNs' offers explain. A DN draws the peers it offers, so an
//! honest client takes from those that happen to be reachable and fast; a colluder takes from its friends. What counts
//! against a pair is not that they meet often (few hold a rare object, and who is near is offered first), but that of
//! those offered it is always they who are used.

use super::odds::{ONE, Rate, surprise};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// How near two clients are to each other; the nearer, the likelier they connect, and the likelier they are fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Near {
    /// Behind one public address.
    Address = 0,
    /// In one network: an AS, or a prefix where the AS is not known.
    Network = 1,
    /// In one country.
    Country = 2,
    /// None of these, or not known.
    World = 3,
}

/// An offer of a peer for a download, and what became of it. The caller numbers clients from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Who downloads.
    pub downloader: u32,
    /// Who was offered.
    pub uploader: u32,
    /// How near they are.
    pub near: Near,
    /// Bytes that settlement agreed on between them; 0: not used.
    pub bytes: u64,
}

/// Two clients of whom one takes from the other, or each from the other, more often than chance has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// The clients, the smaller number first.
    pub clients: (u32, u32),
    /// How often one was offered to the other.
    pub offered: u64,
    /// How often it was used.
    pub used: u64,
    /// Bytes.
    pub bytes: u64,
    /// How unlikely that is, in bits.
    pub bits: u64,
}

/// What a client did with all that it was offered, and others with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    downloads: Rate,
    uploads: Rate,
}

/// A pair that met often enough to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Meetings {
    /// As (smaller number downloads, larger number downloads).
    rates: [Rate; 2],
    bytes: u64,
    near: Option<Near>,
}

/// Fewer uses say nothing of a pair.
const USED_MIN: u64 = 4;
/// A pair counts from so many bits on: alone it is no evidence, several among a few clients are.
const PAIR_BITS_MIN: u64 = 6;
/// How many offers' worth of trust the rate of all others has against a client's own.
const PRIOR: u64 = 16;

/// What all offers come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// Conspicuous pairs, ordered by their clients.
    pub pairs: Vec<Pair>,
    /// Bytes that each client took from others, by its number.
    pub received: Vec<u64>,
}

impl Affinity {
    /// Looks at all offers of a span of time, twice.
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
                // what others do is the measure: pairs that are looked at do not set it themselves
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

/// Pairs that occur [`USED_MIN`] times or more.
fn frequent(mut used: Vec<(u32, u32)>) -> BTreeMap<(u32, u32), Meetings> {
    used.sort_unstable();
    let same = used.chunk_by(|a, b| a == b).filter(|same| same.len() as u64 >= USED_MIN);
    same.filter_map(|same| Some((*same.first()?, Meetings::default()))).collect()
}

/// A pair is measured by the most favourable of three rates: that of all who are as near to one another, and that of
/// either client with others. So neither a good uploader nor a fast downloader, nor who shares a LAN, stands out.
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
