//! Cliques: groups of clients that download from one another more than the DNs' offers explain.

use super::affinity::{Affinity, Pair};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Smallest size of a group: two clients may be one household that their addresses do not show.
pub const MEMBERS_MIN: usize = 3;
/// Largest size of a group, which also bounds the time that the search takes.
pub const MEMBERS_MAX: usize = 64;
/// Smallest improbability, in bits, for a group to be reported: a chance of 2⁻⁶⁰ stays small among all groups of a
/// million clients.
pub const BITS_MIN: u64 = 60;
/// Smallest part of the members' bytes from peers that came from other members, in thousandths, for a group to be
/// reported.
pub const INSIDE_MIN_PERMILLE: u64 = 500;

/// A group whose members download from one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clique {
    /// Numbers of the members, ascending.
    pub members: Vec<u32>,
    /// Number of offers in which DNs offered one member to another.
    pub offered: u64,
    /// Number of these offers that were used.
    pub used: u64,
    /// Bytes transferred among members.
    pub bytes: u64,
    /// Part of all members' bytes from peers that came from members, in thousandths.
    pub inside_permille: u64,
    /// Improbability of so many used offers by chance, in bits (-log2 of the probability).
    pub bits: u64,
}

type Edges<'a> = BTreeMap<u32, BTreeMap<u32, &'a Pair>>;

/// Returns the groups of clients among the improbable pairs, the most improbable group first. No client is in two
/// groups.
#[must_use]
pub fn find(affinity: &Affinity) -> Vec<Clique> {
    let mut edges: Edges<'_> = BTreeMap::new();
    for pair in &affinity.pairs {
        let (a, b) = pair.clients;
        edges.entry(a).or_default().insert(b, pair);
        edges.entry(b).or_default().insert(a, pair);
    }
    let mut by_bits: Vec<&Pair> = affinity.pairs.iter().collect();
    by_bits.sort_by_key(|p| (core::cmp::Reverse(p.bits), p.clients));
    let mut taken = BTreeSet::new();
    let mut found = Vec::new();
    for pair in by_bits {
        if taken.contains(&pair.clients.0) || taken.contains(&pair.clients.1) {
            continue;
        }
        let members = grow(pair.clients, &edges, &taken);
        let clique = sum(&members, &edges, affinity);
        let is_one =
            members.len() >= MEMBERS_MIN && clique.bits >= BITS_MIN && clique.inside_permille >= INSIDE_MIN_PERMILLE;
        if is_one {
            taken.extend(members);
            found.push(clique);
        }
    }
    found.sort_by_key(|c| core::cmp::Reverse(c.bits));
    found
}

/// Grows a group from a pair: repeatedly adds the client that forms improbable pairs with the most members (at least
/// two thirds); among equals, the one with the most bits.
fn grow((a, b): (u32, u32), edges: &Edges<'_>, taken: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut members = BTreeSet::from([a, b]);
    while members.len() < MEMBERS_MAX {
        let mut joined: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        for (other, pair) in members.iter().filter_map(|m| edges.get(m)).flatten() {
            if !members.contains(other) && !taken.contains(other) {
                let (ties, bits) = joined.entry(*other).or_default();
                *ties += 1;
                *bits += pair.bits;
            }
        }
        // two thirds: a pair without transfers, by mere chance, does not split a group
        let best = joined.into_iter().filter(|(_, (ties, _))| ties * 3 >= members.len() * 2).max_by_key(|(_, j)| *j);
        let Some((next, _)) = best else { break };
        members.insert(next);
    }
    members
}

/// Returns a clique of these members, with the sums of their offers, uses and bytes.
fn sum(members: &BTreeSet<u32>, edges: &Edges<'_>, affinity: &Affinity) -> Clique {
    let mut clique = Clique {
        members: members.iter().copied().collect(),
        offered: 0,
        used: 0,
        bytes: 0,
        inside_permille: 0,
        bits: 0,
    };
    for (a, b) in members.iter().flat_map(|a| members.range(a + 1..).map(move |b| (a, b))) {
        if let Some(pair) = edges.get(a).and_then(|of| of.get(b)) {
            clique.offered += pair.offered;
            clique.used += pair.used;
            clique.bytes = clique.bytes.saturating_add(pair.bytes);
            clique.bits += pair.bits;
        }
    }
    let received = |m: &u32| affinity.received.get(*m as usize).copied().unwrap_or(0);
    let all = members.iter().map(received).fold(0_u64, u64::saturating_add);
    let share = (u128::from(clique.bytes) * 1_000).checked_div(u128::from(all)).unwrap_or(0);
    clique.inside_permille = u64::try_from(share).unwrap_or(1_000);
    clique
}

#[cfg(test)]
mod tests {
    use super::super::affinity::{Near, Offer};
    use super::*;

    /// Returns the cliques found among 40 clients that are offered to one another; `used` decides which offers are
    /// used.
    fn month(near: impl Fn(u32, u32) -> Near, used: impl Fn(u32, u32, u32) -> bool) -> Vec<Clique> {
        let mut offers = Vec::new();
        for round in 0..20 {
            for downloader in 0..40 {
                for step in 0..10 {
                    // the first five meet one another in every round, the others meet any client
                    let friend = downloader < 5 && step < 5;
                    let uploader = if friend { step } else { 5 + (downloader * 7 + step * 3 + round * 11) % 35 };
                    if uploader != downloader {
                        let bytes = if used(downloader, uploader, round * 10 + step) { 1_000 } else { 0 };
                        offers.push(Offer { downloader, uploader, near: near(downloader, uploader), bytes });
                    }
                }
            }
        }
        find(&Affinity::of(40, offers.iter().copied()))
    }

    fn by_chance(d: u32, u: u32, n: u32) -> bool {
        (d.wrapping_mul(2_654_435_761) ^ u.wrapping_mul(40_503) ^ n.wrapping_mul(97_531)).wrapping_mul(0x9e37_79b9)
            >> 30
            == 0
    }

    #[test]
    fn friends_that_use_only_one_another_are_a_clique() {
        let found = month(|_, _| Near::World, |d, u, n| if d < 5 { u < 5 } else { by_chance(d, u, n) });
        let [clique] = &found[..] else { panic!("{found:?}") };
        assert_eq!(clique.members, [0, 1, 2, 3, 4]);
        assert_eq!((clique.offered, clique.used, clique.inside_permille), (400, 400, 1_000));
    }

    #[test]
    fn clients_that_meet_often_and_use_peers_by_chance_are_no_clique() {
        assert_eq!(month(|_, _| Near::World, by_chance), []);
    }

    #[test]
    fn a_lan_is_no_clique_where_lans_are_used_that_often() {
        let lan = |d: u32, u: u32| d / 5 == u / 5;
        let near = |d: u32, u: u32| if lan(d, u) { Near::Address } else { Near::World };
        assert_eq!(month(near, |d, u, n| lan(d, u) || by_chance(d, u, n)), []);
    }

    #[test]
    fn fast_clients_that_use_most_of_their_offers_are_no_clique() {
        assert_eq!(month(|_, _| Near::World, |d, u, n| d < 5 && !by_chance(d, u, n) || by_chance(u, d, n)), []);
    }
}
