mod clauses;
mod lots;
mod room;
mod worlds;

use super::super::locality::Locality;
use super::*;
use crate::ids::SecondaryGuid;
use crate::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use crate::seeded::Seeded;
use crate::wire::List;
use alloc::format;
use alloc::vec;
use proptest::prelude::*;

const V: VersionId = VersionId([1; 32]);
const LINK: u64 = 1;
const PLAIN: Choice = Choice { diversity: 0, per_prefix: 100 };

fn key(n: u32) -> PeerKey {
    PeerKey { link: LINK, session: SessionId(u64::from(n)) }
}

/// Returns the registration of peer `n` at `addr`, with uploads on and a NAT that lets everybody in.
fn entry(n: u32, addr: &str) -> PeerEntry {
    let candidate = Candidate { kind: CandidateKind::Host, addr: format!("{addr}:5000").parse().expect("an address") };
    PeerEntry {
        session: SessionId(u64::from(n)),
        guid: Guid::numbered(n),
        secondary: SecondaryGuid::numbered(n),
        incarnation: 1,
        observed: format!("{addr}:4000").parse().expect("an address"),
        upload_key: PublicKey::numbered(n),
        uploads: true,
        nat: NatDescriptor {
            epoch: 1,
            udp: true,
            mapping: NatBehaviour::EndpointIndependent,
            filtering: NatBehaviour::EndpointIndependent,
            candidates: List::truncated([candidate]),
            ..NatDescriptor::default()
        },
        locality: Locality::UNKNOWN,
    }
}

fn shared(version: VersionId) -> Vec<Shared> {
    vec![Shared { version, complete: true }]
}

fn add(d: &mut Directory, n: u32, addr: &str) {
    d.register(LINK, entry(n, addr));
    d.share(key(n), true, &shared(V), &[]);
}

/// Returns a directory in which peers at these addresses, numbered from 1, share a version; peer 0 at 192.0.2.1, for
/// queries, shares nothing.
fn directory(addrs: &[&str]) -> Directory {
    let mut d = Directory::default();
    d.register(LINK, entry(0, "192.0.2.1"));
    (1..).zip(addrs).for_each(|(n, a)| add(&mut d, n, a));
    d
}

fn choose_with(d: &mut Directory, want: usize, exclude: &[u32], choice: Choice) -> Vec<u64> {
    let exclude = exclude.iter().map(|n| PublicKey::numbered(*n)).collect();
    let chosen = d.select(key(0), V, (want, &exclude), choice, &mut Seeded::new(1)).expect("a registered querier");
    chosen.into_iter().map(|k| k.session.0).collect()
}

fn choose(d: &mut Directory, want: usize) -> Vec<u64> {
    choose_with(d, want, &[], PLAIN)
}

#[test]
fn the_nearest_are_chosen_first_and_farther_ones_make_up_the_number() {
    let mut d = directory(&["198.51.100.1", "192.0.2.9", "192.0.2.1", "198.51.100.2"]);
    assert_eq!(choose(&mut d, 3), [3, 2, 1]);
    assert_eq!(choose(&mut d, 10), [3, 2, 4, 1]);
}

#[test]
fn a_chosen_peer_goes_to_the_end_of_its_list() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
    assert_eq!(choose(&mut d, 2), [1, 2]);
    assert_eq!(choose(&mut d, 2), [3, 1]);
    assert_eq!(choose(&mut d, 2), [2, 3]);
}

#[test]
fn nobody_is_offered_itself_twice_or_against_its_wish() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
    d.share(key(0), true, &shared(V), &[]);
    d.register(LINK, PeerEntry { upload_key: PublicKey::numbered(2), ..entry(4, "198.51.100.4") });
    d.share(key(4), true, &shared(V), &[]);
    d.register(LINK, PeerEntry { uploads: false, ..entry(3, "198.51.100.3") });
    assert_eq!(choose(&mut d, 10), [1, 2]);
    assert_eq!(choose_with(&mut d, 10, &[1], PLAIN), [4], "the first of those with one key in turn");
}

#[test]
fn a_client_is_offered_no_session_with_its_own_guid_or_key() {
    let mut d = directory(&["198.51.100.1"]);
    let newer = PeerEntry { guid: Guid::numbered(0), incarnation: 2, ..entry(5, "198.51.100.5") };
    let same_key = PeerEntry { upload_key: PublicKey::numbered(0), ..entry(6, "198.51.100.6") };
    for (n, entry) in [(5, newer), (6, same_key)] {
        d.register(LINK, entry);
        d.share(key(n), true, &shared(V), &[]);
    }
    assert_eq!(d.listed(V).count(), 3, "others may be offered all of them");
    assert_eq!(choose(&mut d, 10), [1]);
}

#[test]
fn a_session_id_that_another_guid_takes_over_shares_nothing_of_the_first() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2"]);
    d.register(LINK, PeerEntry { guid: Guid::numbered(9), ..entry(1, "198.51.100.1") });
    d.check();
    assert_eq!(choose(&mut d, 10), [2]);
}

#[test]
fn who_turns_uploads_on_again_is_listed_again_with_what_it_shares() {
    let mut d = directory(&["198.51.100.1"]);
    d.register(LINK, PeerEntry { uploads: false, ..entry(1, "198.51.100.1") });
    assert!(choose(&mut d, 1).is_empty());
    d.register(LINK, entry(1, "198.51.100.1"));
    assert_eq!(choose(&mut d, 1), [1]);
}

#[test]
fn only_holders_of_the_version_are_chosen() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2"]);
    d.share(key(1), false, &[], &[V]);
    d.share(key(2), false, &shared(VersionId::numbered(9)), &[]);
    assert_eq!(choose(&mut d, 9), [2]);
    d.share(key(2), true, &shared(VersionId::numbered(9)), &[]);
    assert!(choose(&mut d, 9).is_empty(), "a reset forgets what came before");
}

#[test]
fn only_pairs_that_can_connect_are_offered() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
    let symmetric = |n: u32, addr: &str, epoch| {
        let mut e = entry(n, addr);
        e.nat.epoch = epoch;
        e.nat.mapping = NatBehaviour::AddressAndPortDependent;
        e.nat.filtering = NatBehaviour::AddressAndPortDependent;
        e.nat.candidates = List::default();
        e
    };
    d.register(LINK, symmetric(0, "192.0.2.1", 2));
    d.register(LINK, symmetric(1, "198.51.100.1", 2));
    assert_eq!(choose(&mut d, 9), [2, 3]);
    d.register(LINK, symmetric(2, "198.51.100.2", 0));
    assert_eq!(choose(&mut d, 9), [2, 3], "an older descriptor never replaces a newer one");
}

#[test]
fn one_network_cannot_fill_an_answer_unless_it_is_private() {
    let choice = Choice { per_prefix: 2, ..PLAIN };
    let mut d = directory(&["198.51.100.1", "198.51.100.2", "198.51.100.3", "203.0.113.1"]);
    assert_eq!(choose_with(&mut d, 9, &[], choice), [1, 2, 4]);
    let mut d = directory(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(choose_with(&mut d, 9, &[], choice), [1, 2, 3]);
}

#[test]
fn sometimes_farther_peers_are_drawn_before_all_near_ones() {
    let choice = Choice { diversity: 2, ..PLAIN };
    let near: Vec<_> = (1..=30).map(|n| format!("192.0.2.{}", n + 100)).collect();
    let mut addrs: Vec<&str> = near.iter().map(alloc::string::String::as_str).collect();
    addrs.push("198.51.100.1");
    let mut d = directory(&addrs);
    let none = BTreeSet::new();
    let mut rng = Seeded::new(7);
    let mut far = 0;
    for _ in 0..20 {
        let chosen = d.select(key(0), V, (16, &none), choice, &mut rng).expect("a registered querier");
        assert_eq!(chosen.len(), 16);
        far += usize::from(chosen.contains(&key(31)));
    }
    assert!((1..20).contains(&far), "{far}");
}

#[test]
fn the_newest_registration_of_a_guid_is_listed_in_any_order() {
    let mut d = directory(&[]);
    let session = |n: u32, incarnation| PeerEntry {
        session: SessionId(u64::from(n)),
        incarnation,
        ..PeerEntry { guid: Guid::numbered(1), secondary: SecondaryGuid::numbered(1), ..entry(n, "198.51.100.1") }
    };
    for (n, incarnation) in [(10, 2), (11, 3), (12, 1)] {
        d.register(LINK, session(n, incarnation));
        d.share(key(n), true, &shared(V), &[]);
    }
    assert_eq!(choose(&mut d, 9), [11]);
    d.remove(key(11));
    assert_eq!(choose(&mut d, 9), [10], "the newest of those that are left");
    d.remove(key(10));
    d.remove(key(12));
    assert!(choose(&mut d, 9).is_empty());
}

#[test]
fn a_lost_link_takes_its_registrations_and_no_others() {
    let mut d = directory(&["198.51.100.1"]);
    let other = PeerKey { link: 2, session: SessionId(7) };
    d.register(2, entry(7, "198.51.100.7"));
    d.share(other, true, &shared(V), &[]);
    d.remove_link(2);
    assert_eq!(choose(&mut d, 9), [1], "at once");
    assert_eq!(d.get(other), None);
    d.remove_link(LINK);
    assert!(d.select(key(0), V, (1, &BTreeSet::new()), PLAIN, &mut Seeded::new(1)).is_none());
    while d.is_behind() {
        d.sweep();
    }
    assert!(d.is_empty());
    assert_eq!(d, Directory { next_rank: d.next_rank, ..Directory::default() }, "nothing is left behind");
}

#[test]
fn an_unknown_querier_gets_no_answer() {
    let mut d = directory(&["198.51.100.1"]);
    assert_eq!(d.select(key(99), V, (1, &BTreeSet::new()), PLAIN, &mut Seeded::new(1)), None);
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn lists_and_registrations_agree_after_any_history(ops in prop::collection::vec((0..7_u8, 0..3_u32, 0..3_u32), 0..60)) {
        let mut d = Directory::default();
        for (op, a, b) in ops {
            let link = u64::from(a % 2);
            let key = PeerKey { link, session: SessionId(u64::from(b)) };
            let version = VersionId::numbered(a);
            let mut e = entry(b, &format!("192.0.2.{a}"));
            e.guid = Guid::numbered(b % 2);
            match op {
                0 | 1 => d.register(link, PeerEntry { uploads: op == 0, incarnation: u64::from(a), ..e }),
                2 => d.share(key, a == 0, &shared(version), &[VersionId::numbered(b)]),
                3 => d.remove(key),
                4 => {
                    d.remove_link(link);
                    d.check();
                    d.sweep();
                    d.sweep();
                }
                5 => drop(d.select(key, version, (2, &BTreeSet::new()), PLAIN, &mut Seeded::new(1))),
                _ => d.renumber(),
            }
            d.check();
        }
    }
}

#[test]
fn peers_of_the_same_as_come_first_and_those_of_the_same_country_next() {
    let at = |n: u32, asn: u32, country: &[u8; 2]| {
        let locality = Locality { asn: Some(asn), country: Some(*country), region: Some(4) };
        PeerEntry { locality, ..entry(n, &format!("198.51.{n}.1")) }
    };
    let mut d = Directory::default();
    let far = (10..30).map(|n| at(n, 64_500 + n, b"FR"));
    for e in [at(1, 64_500, b"DE"), at(2, 64_500, b"DE"), at(3, 64_501, b"DE")].into_iter().chain(far) {
        let session = e.session.0;
        d.register(LINK, e);
        d.share(PeerKey { link: LINK, session: SessionId(session) }, true, &shared(V), &[]);
    }
    let none = BTreeSet::new();
    let chosen = d.select(key(1), V, (2, &none), PLAIN, &mut Seeded::new(1)).expect("known");
    assert_eq!(chosen, [key(2), key(3)]);
}
