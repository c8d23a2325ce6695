//! Success rates of attempts to connect, by the two clients' NAT classes, over all networks (AS) and for each two
//! networks. They correct the table of compatible classes ([`Class::meets`]): a kind of pair that never connects is
//! no longer offered, except for rare trials. The rate between two networks is never assumed to be above that of
//! their classes over all networks.

use crate::nat::Class;
use crate::nat::connectivity::{Attempt, Failure};
use alloc::collections::BTreeMap;

/// Success rate (permille) assumed for a pair of compatible NAT classes before any attempt, and the number of
/// attempts that weigh as much as this assumption.
const PRIOR: (u64, u64) = (900, 10);
/// Minimum expected success rate, in permille, at which a client is offered to another.
const OFFERED_PERMILLE: u64 = 200;
/// Number of counted attempts of a kind of pair at which the counts are halved, so that new attempts weigh more than
/// old ones.
const MEMORY: u32 = 512;
/// Number of selections that skip a kind of pair after which one such pair is offered, to test whether it still
/// fails.
const TRIAL: u32 = 32;
/// Maximum number of stored kinds of pairs; a kind and its mirror image count as two.
const KINDS_MAX: usize = 32_768;

/// One client of a pair: its NAT class, and the number of its network (AS) if known.
pub type Side = (Class, Option<u32>);

/// Kind of pair: NAT class and network (AS) of one client, then of the other. Both networks are 0 for the counts over
/// all networks.
type Pair = ((Class, u32), (Class, u32));

/// Returns the kind of this pair over all networks, and that of these two networks if both are known.
fn kinds(a: Side, b: Side) -> (Pair, Option<Pair>) {
    let networks = a.1.zip(b.1).map(|(x, y)| ((a.0, x), (b.0, y)));
    (((a.0, 0), (b.0, 0)), networks)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Counts {
    tried: u32,
    succeeded: u32,
    /// Number of selections that skipped this kind of pair since the last trial.
    refused: u32,
}

impl Counts {
    /// Returns the expected success rate in permille: the measured rate, drawn towards `prior` where attempts are
    /// few.
    fn expected(self, prior: u64) -> u64 {
        (u64::from(self.succeeded) * 1000 + prior * PRIOR.1) / (u64::from(self.tried) + PRIOR.1)
    }
}

/// Table of the success rates of attempts to connect, by NAT class and network of both clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learned {
    counts: BTreeMap<Pair, Counts>,
}

impl Learned {
    /// Counts an attempt to connect two clients. An attempt that failed for other reasons than the network path is
    /// ignored.
    pub fn learn(&mut self, a: Side, b: Side, attempt: &Attempt) {
        let succeeded = match attempt.failure {
            None => true,
            Some(Failure::Silence | Failure::OneWay | Failure::NoHandshake) => false,
            Some(Failure::NoCandidates | Failure::Busy | Failure::NoGo | Failure::Dropped) => return,
        };
        let ((all, networks), (back, networks_back)) = (kinds(a, b), kinds(b, a));
        for (pair, back) in [Some((all, back)), networks.zip(networks_back)].into_iter().flatten() {
            self.count(pair, succeeded);
            if back != pair {
                self.count(back, succeeded);
            }
        }
    }

    /// Asserts that the counts are within their limits, and equal for a kind of pair and its mirror image.
    pub(super) fn check(&self) {
        assert!(self.counts.len() <= KINDS_MAX, "remembered kinds of pairs are bounded");
        for ((a, b), counts) in &self.counts {
            assert!(counts.succeeded <= counts.tried, "no more attempts succeed than are made");
            assert!(counts.tried < MEMORY, "old attempts fade");
            let of = |c: &Counts| (c.tried, c.succeeded);
            let back = self.counts.get(&(*b, *a)).map_or(of(counts), of);
            assert!(back == of(counts), "both sides of a pair see the same attempts");
        }
    }

    fn count(&mut self, pair: Pair, succeeded: bool) {
        if self.counts.len() >= KINDS_MAX && !self.counts.contains_key(&pair) {
            return;
        }
        let counts = self.counts.entry(pair).or_default();
        counts.tried += 1;
        counts.succeeded += u32::from(succeeded);
        if counts.tried >= MEMORY {
            counts.tried /= 2;
            counts.succeeded /= 2;
        }
        debug_assert!(counts.succeeded <= counts.tried && counts.tried < MEMORY, "old attempts fade");
    }

    /// Returns the expected success rate, in permille, of an attempt between clients of compatible NAT classes:
    /// between their two networks if both are known, else over all networks.
    #[must_use]
    pub fn expected_permille(&self, a: Side, b: Side) -> u64 {
        let (all, networks) = kinds(a, b);
        let of = |pair: &Pair| self.counts.get(pair).copied().unwrap_or_default();
        let class = of(&all).expected(PRIOR.0);
        networks.map_or(class, |pair| of(&pair).expected(class).min(class))
    }

    /// Returns whether a client `b` is offered to `a`, whose NAT classes are compatible, by the success rate learned
    /// so far.
    #[must_use]
    pub fn offers(&self, a: Side, b: Side) -> bool {
        self.expected_permille(a, b) >= OFFERED_PERMILLE
    }

    /// Counts a selection for `a` that skips clients of the kind `b`. Returns true, only if `may_try` and rarely, if
    /// one such client shall be offered as a trial.
    pub fn passes_over(&mut self, a: Side, b: Side, may_try: bool) -> bool {
        let (all, networks) = kinds(a, b);
        let Some(counts) = self.counts.get_mut(&networks.unwrap_or(all)) else { return false };
        counts.refused = counts.refused.saturating_add(1);
        let trial = may_try && counts.refused >= TRIAL;
        if trial {
            counts.refused = 0;
        }
        trial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use crate::nat::connectivity::Rung;
    use crate::nat::{Endpoint, NatBehaviour, NatDescriptor};

    fn side(mapping: NatBehaviour, network: Option<u32>) -> Side {
        let nat = NatDescriptor { udp: true, mapping, ..NatDescriptor::default() };
        let observed = "192.0.2.1".parse().expect("an address");
        (Class::of(Endpoint { observed, nat: &nat }), network)
    }

    /// Returns how many of `choices` selections for `a` offer a client of the kind `b`.
    fn offered(learned: &mut Learned, (a, b): (Side, Side), choices: u32) -> usize {
        (0..choices).filter(|_| learned.offers(a, b) || learned.passes_over(a, b, true)).count()
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
    fn a_class_pair_that_never_connects_is_offered_only_as_a_rare_trial() {
        assert!(after(None, 35).offers(side(Ei, None), side(Apd, None)), "few failures prove little");
        let mut learned = after(None, 60);
        assert_eq!(offered(&mut learned, (side(Apd, None), side(Ei, None)), 64), 2);
        assert!(learned.offers(side(Ei, None), side(Ei, None)), "others are offered as before");
    }

    #[test]
    fn each_clause_of_the_table_finds_a_corruption() {
        fn first(learned: &mut Learned) -> &mut Counts {
            learned.counts.values_mut().next().expect("an attempt was counted")
        }
        assert_each_clause_fires(
            &after(Some(7), 2),
            Learned::check,
            &[
                ("no more attempts succeed than are made", |l| first(l).succeeded = 3),
                ("old attempts fade", |l| first(l).tried = MEMORY),
                ("both sides of a pair see the same attempts", |l| first(l).tried = 3),
                ("remembered kinds of pairs are bounded", |l| {
                    let any = side(Ei, None).0;
                    let most = u32::try_from(KINDS_MAX).expect("few");
                    l.counts.extend((0..=most).map(|n| (((any, n), (any, n)), Counts::default())));
                }),
            ],
        );
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
        assert_eq!(offered(&mut learned, far(7), 64), 2, "but for a trial");
        assert!(learned.offers(far(8).0, far(8).1));
    }

    #[test]
    fn where_two_classes_fail_no_two_networks_are_thought_better() {
        let mut learned = after(None, 600);
        let (a, b) = (side(Ei, Some(7)), side(Apd, Some(7)));
        (0..60).for_each(|_| learned.learn(a, b, &attempt(None)));
        (0..600).for_each(|_| learned.learn(side(Ei, None), side(Apd, None), &attempt(Some(Failure::Silence))));
        assert!(!learned.offers(a, b));
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
