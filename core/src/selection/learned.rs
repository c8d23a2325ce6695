//! What attempts have taught about pairs: how often two classes of NAT came together, over all networks and between two
//! of them. It corrects the first table ([`crate::nat::can_connect`]) downwards: a kind of pair that never connects is
//! no longer offered, but for a rare trial by which it can recover.

use crate::nat::connectivity::{Attempt, Failure};
use crate::nat::{NatBehaviour, NatDescriptor};
use alloc::collections::BTreeMap;

/// What the first table believes of a pair that it offers, in permille, and how many attempts that belief is worth.
const PRIOR: (u64, u64) = (900, 10);
/// A pair is offered while at least so many of 1,000 attempts are expected to succeed.
const OFFERED_PERMILLE: u64 = 200;
/// Attempts that are remembered of a kind of pair: then all counts of it are halved, so that old ones fade.
const MEMORY: u32 = 512;
/// One of so many pairs that would not be offered is, to see whether it still fails.
const TRIAL: u32 = 32;
/// Kinds of pairs that are remembered.
const KINDS_MAX: usize = 16_384;

/// A class of NAT, as far as it decides who can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    mapping: u8,
    filtering: u8,
    foretold: bool,
    birthday: bool,
    udp: bool,
    /// It listens on TCP and was reached there.
    door: bool,
    /// Servers see where it listens alike.
    crosses: bool,
}

impl From<&NatDescriptor> for Class {
    fn from(nat: &NatDescriptor) -> Self {
        let number = |b: NatBehaviour| b.number();
        Self {
            mapping: number(nat.maps()),
            filtering: number(nat.filters()),
            foretold: nat.steps() > 0,
            birthday: nat.birthday,
            udp: nat.udp,
            door: !nat.doors.is_empty(),
            crosses: nat.crossing.is_some(),
        }
    }
}

/// One side of a pair: its class, and its network if that is known.
pub type Side = (Class, Option<u32>);

/// A kind of pair: downloader and uploader in no order. Networks are both there or both not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pair([(Class, u32); 2]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Counts {
    tried: u32,
    succeeded: u32,
    /// Offers refused since the last trial.
    refused: u32,
}

impl Counts {
    /// Successes expected of 1,000, shrunk towards `prior`.
    fn expected(self, prior: u64) -> u64 {
        (u64::from(self.succeeded) * 1000 + prior * PRIOR.1) / (u64::from(self.tried) + PRIOR.1)
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    counts: BTreeMap<Pair, Counts>,
}

impl Pair {
    fn of(a: (Class, u32), b: (Class, u32)) -> Self {
        Self(if a <= b { [a, b] } else { [b, a] })
    }

    /// All networks together, and these two if both are known.
    fn kinds(a: Side, b: Side) -> (Self, Option<Self>) {
        let networks = a.1.zip(b.1).map(|(x, y)| Self::of((a.0, x), (b.0, y)));
        (Self::of((a.0, 0), (b.0, 0)), networks)
    }
}

impl Learned {
    /// An attempt has ended. One that was given up for other reasons than the way to the peer teaches nothing.
    pub fn learn(&mut self, a: Side, b: Side, attempt: &Attempt) {
        let succeeded = match attempt.failure {
            None => true,
            Some(Failure::Silence | Failure::OneWay | Failure::NoHandshake) => false,
            Some(Failure::NoCandidates | Failure::Busy | Failure::NoGo | Failure::Dropped) => return,
        };
        let (all, networks) = Pair::kinds(a, b);
        for pair in [Some(all), networks].into_iter().flatten() {
            if self.counts.len() >= KINDS_MAX && !self.counts.contains_key(&pair) {
                continue;
            }
            let counts = self.counts.entry(pair).or_default();
            counts.tried += 1;
            counts.succeeded += u32::from(succeeded);
            if counts.tried >= MEMORY {
                counts.tried /= 2;
                counts.succeeded /= 2;
            }
        }
    }

    /// Successes expected of 1,000 attempts of a pair that the first table offers.
    #[must_use]
    pub fn expected_permille(&self, a: Side, b: Side) -> u64 {
        let (all, networks) = Pair::kinds(a, b);
        let of = |pair: &Pair| self.counts.get(pair).copied().unwrap_or_default();
        let class = of(&all).expected(PRIOR.0);
        networks.map_or(class, |pair| of(&pair).expected(class))
    }

    /// Whether a pair that the first table offers is offered.
    pub fn offers(&mut self, a: Side, b: Side) -> bool {
        if self.expected_permille(a, b) >= OFFERED_PERMILLE {
            return true;
        }
        let (all, networks) = Pair::kinds(a, b);
        let kind = networks.filter(|pair| self.counts.contains_key(pair)).unwrap_or(all);
        let counts = self.counts.entry(kind).or_default();
        counts.refused += 1;
        let trial = counts.refused >= TRIAL;
        if trial {
            counts.refused = 0;
        }
        trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::connectivity::Rung;

    fn side(mapping: NatBehaviour, network: Option<u32>) -> Side {
        let nat = NatDescriptor { mapping, ..NatDescriptor::default() };
        (Class::from(&nat), network)
    }

    fn attempt(failure: Option<Failure>) -> Attempt {
        Attempt { failure, rung: Rung::Reflexive, probes: 1, took_ms: 1 }
    }

    use NatBehaviour::{AddressAndPortDependent as Apd, EndpointIndependent as Ei};

    fn after(network: Option<u32>, failures: u32) -> Learned {
        let mut learned = Learned::default();
        let (a, b) = (side(Ei, network), side(Apd, network));
        (0..failures).for_each(|_| learned.learn(a, b, &attempt(Some(Failure::Silence))));
        learned
    }

    #[test]
    fn a_kind_of_pair_that_never_connects_is_no_longer_offered_but_for_a_rare_trial() {
        assert!(after(None, 35).offers(side(Ei, None), side(Apd, None)), "few failures prove little");
        let mut learned = after(None, 60);
        let offers = (0..64).filter(|_| learned.offers(side(Apd, None), side(Ei, None))).count();
        assert_eq!(offers, 2);
        assert!(learned.offers(side(Ei, None), side(Ei, None)), "others are offered as before");
    }

    #[test]
    fn it_is_offered_again_once_it_connects() {
        let mut learned = after(None, 60);
        let (a, b) = (side(Ei, None), side(Apd, None));
        (0..20).for_each(|_| learned.learn(a, b, &attempt(None)));
        assert!(learned.expected_permille(a, b) >= OFFERED_PERMILLE && learned.offers(b, a));
    }

    #[test]
    fn two_networks_may_be_worse_than_the_rest_and_start_from_it() {
        let mut learned = after(Some(7), 60);
        let far = |n| (side(Ei, Some(n)), side(Apd, Some(n)));
        let (a, b) = (side(Ei, None), side(Apd, None));
        (0..400).for_each(|_| learned.learn(a, b, &attempt(None)));
        assert!(!learned.offers(far(7).0, far(7).1));
        assert!(learned.offers(far(8).0, far(8).1));
    }

    #[test]
    fn what_is_old_fades_and_what_says_nothing_about_the_way_does_not_count() {
        let mut learned = after(None, 10 * MEMORY);
        let (a, b) = (side(Ei, None), side(Apd, None));
        assert!(learned.counts.values().all(|c| c.tried < MEMORY));
        (0..MEMORY).for_each(|_| learned.learn(a, b, &attempt(None)));
        assert!(learned.expected_permille(a, b) > 500);
        let before = learned.clone();
        for failure in [Failure::Busy, Failure::NoGo, Failure::Dropped] {
            learned.learn(a, b, &attempt(Some(failure)));
        }
        assert_eq!(learned, before);
    }
}
