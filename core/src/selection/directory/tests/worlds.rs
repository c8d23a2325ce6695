//! Tests that compare the selection of peers with a simple scan of all copies, in random directories with thousands
//! of unsuitable peers.

use super::*;
use crate::nat::Class;
use crate::nat::connectivity::{Failure, Rung};
use crate::nat::{compatible, is_private};
use crate::selection::directory::draw::LOOKS_AT_ADDRESS;
use crate::selection::directory::lists::steps;
use crate::selection::locality::prefix;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

const WANT: usize = 40;
const CHOICE: Choice = Choice { diversity: 0, per_prefix: 10 };

/// Parameters of a random directory of peers.
#[derive(Clone, Copy, Debug)]
struct Kind {
    copies: u32,
    /// Percentage of copies without UDP.
    blocked: u32,
    /// Percentage of copies whose NAT assigns unpredictable ports.
    hidden: u32,
    ases: u32,
    /// Number of address prefixes in an AS.
    prefixes: u32,
    /// Number of addresses in a prefix.
    addresses: u32,
    located: bool,
}

const PLAIN_AS: Kind =
    Kind { copies: 20_000, blocked: 5, hidden: 10, ases: 1, prefixes: 254, addresses: 255, located: true };

fn below(rng: &mut Seeded, n: u32) -> u32 {
    crate::machine::Rng::below(rng, n.max(1))
}

/// Returns the registration of peer `n` with a random address and a random NAT.
fn peer(n: u32, kind: Kind, rng: &mut Seeded) -> PeerEntry {
    use NatBehaviour::{AddressAndPortDependent as Apd, EndpointIndependent as Ei, Unknown};
    let of_100 = below(rng, 100);
    let (udp, mapping, filtering) = match of_100 {
        c if c < kind.blocked => (false, Unknown, Unknown),
        c if c < kind.blocked + kind.hidden => (true, Apd, Apd),
        c if c % 7 == 0 => (true, Ei, Ei),
        _ => (true, Ei, Apd),
    };
    let asn = below(rng, kind.ases);
    let net = (20 << 24) + (asn << 16) + (below(rng, kind.prefixes) << 8);
    let ip = Ipv4Addr::from_bits(net + 1 + below(rng, kind.addresses));
    let candidate = Candidate { kind: CandidateKind::Host, addr: SocketAddr::new([192, 168, 0, 2].into(), 5000) };
    let nat = NatDescriptor {
        udp,
        mapping,
        filtering,
        tcp443: of_100.is_multiple_of(3),
        birthday: of_100.is_multiple_of(11),
        candidates: List::truncated([candidate]),
        ..entry(n, "192.0.2.1").nat
    };
    let country = if asn.is_multiple_of(2) { *b"DE" } else { *b"FR" };
    let known = Locality { asn: Some(64_000 + asn), country: Some(country), region: Some(1) };
    let locality = if kind.located { known } else { Locality::UNKNOWN };
    PeerEntry { observed: SocketAddr::new(ip.into(), 4000), nat, locality, ..entry(n, "192.0.2.1") }
}

fn world(kind: Kind, rng: &mut Seeded) -> Directory {
    let mut d = Directory::default();
    for n in 0..kind.copies {
        let link = u64::from(n % 3);
        let e = peer(n, kind, rng);
        let key = PeerKey { link, session: e.session };
        d.register(link, e);
        d.share(key, true, &shared(V), &[]);
    }
    d
}

/// Returns ranks and keys of all copies that suit a querier, without the limit for each prefix, in order of rank.
fn suitable(d: &Directory, querier: PeerKey, exclude: &BTreeSet<PublicKey>) -> Vec<(u64, PeerKey)> {
    let me = d.peers.get(&querier).expect("registered");
    let side = |p: &Peer| (Class::of(p.endpoint()), p.entry.locality.asn);
    let mut all: Vec<_> = d.peers.iter().filter_map(|(k, p)| Some((p.shares.get(&V)?.rank, *k, p))).collect();
    all.sort_unstable_by_key(|(rank, ..)| *rank);
    let suits = |p: &Peer| {
        let (a, b) = (&me.entry, &p.entry);
        let apart = a.observed.ip() != b.observed.ip();
        b.uploads
            && a.guid != b.guid
            && a.upload_key != b.upload_key
            && !exclude.contains(&b.upload_key)
            && compatible(me.endpoint(), p.endpoint())
            && (!apart
                || d.learned.offers((side(me).0, None), (side(p).0, None)) && d.learned.offers(side(me), side(p)))
    };
    all.into_iter().filter(|(_, k, p)| !d.dead.contains(&k.link) && suits(p)).map(|(t, k, _)| (t, k)).collect()
}

/// Returns the peers that a simple scan of all copies chooses: set by set, from the querier's own address to the
/// world, in order of rank; and the number of suitable ones.
fn naive(d: &Directory, querier: PeerKey, exclude: &BTreeSet<PublicKey>) -> (Vec<PeerKey>, usize) {
    let suitable = suitable(d, querier, exclude);
    let me = d.peers.get(&querier).expect("registered");
    let (mut chosen, mut prefixes) = (Vec::new(), BTreeMap::<IpAddr, u32>::new());
    for set in me.place.sets.iter().rev().filter(|s| s.prefix().is_none() || me.entry.locality.asn.is_none()) {
        for (_, key) in &suitable {
            let p = d.peers.get(key).expect("registered");
            let ip = p.entry.observed.ip();
            let apart = ip != me.entry.observed.ip() && !is_private(ip);
            let count = prefixes.entry(prefix(ip)).or_default();
            let fits = !apart || *count < CHOICE.per_prefix;
            if p.place.sets.contains(set) && fits && !chosen.contains(key) && chosen.len() < WANT {
                *count += u32::from(apart);
                chosen.push(*key);
            }
        }
    }
    // the most that the caps allow
    let mut most: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
    for (_, key) in &suitable {
        let ip = d.peers.get(key).expect("registered").entry.observed.ip();
        let apart = ip != me.entry.observed.ip() && !is_private(ip);
        *most.entry(apart.then(|| prefix(ip))).or_default() += 1;
    }
    let capped = |(net, n): (&Option<IpAddr>, &usize)| if net.is_some() { (*n).min(10) } else { *n };
    let k = most.iter().map(capped).sum();
    (chosen, k)
}

fn fails(d: &mut Directory, a: PeerKey, b: PeerKey, times: u32) {
    let attempt = Attempt { failure: Some(Failure::Silence), rung: Rung::Reflexive, probes: 1, took_ms: 1 };
    (0..times).for_each(|_| d.learn(a, b, &attempt));
}

/// Selects peers for a random querier, and checks that the selection equals that of the simple scan.
fn ask(d: &mut Directory, rng: &mut Seeded, copies: u32, excluded: &BTreeSet<PublicKey>, compare: bool) {
    let n = below(rng, copies);
    let querier = PeerKey { link: u64::from(n % 3), session: SessionId(u64::from(n)) };
    if d.get(querier).is_none() {
        return;
    }
    let address = d.peers.get(&querier).expect("registered").entry.observed.ip();
    // of a crowd of neighbours a draw looks at some only, and begins where the last one ended
    let neighbours = d.peers.values().filter(|p| p.entry.observed.ip() == address).count();
    let expected = (compare && neighbours <= LOOKS_AT_ADDRESS)
        .then(|| (naive(d, querier, excluded), suitable(d, querier, excluded)));
    let chosen = d.select(querier, V, (WANT, excluded), CHOICE, rng).expect("registered");
    if let Some(((naive, k), suitable)) = expected {
        let suits: BTreeSet<PeerKey> = suitable.into_iter().map(|(_, key)| key).collect();
        let tried = chosen.iter().filter(|c| !suits.contains(c)).count();
        assert_eq!(naive.len(), k.min(WANT));
        // one that was learned to fail may be tried in another's place
        assert!(chosen.len() >= naive.len() && tried <= 1, "{querier:?}: {tried} tried, {chosen:?}, not {naive:?}");
        assert!(tried > 0 || chosen == naive, "{querier:?}: {chosen:?}, not {naive:?}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let crowd = (0..60_u32, 0..40_u32);
    let size = prop_oneof![3 => 100..1_000_u32, 2 => 1_000..5_000_u32, 1 => Just(20_000_u32)];
    let places = (1..12_u32, prop_oneof![Just(1), Just(3), Just(200)], prop_oneof![Just(2), Just(250)]);
    (size, crowd, places, any::<bool>()).prop_map(
        |(copies, (blocked, hidden), (ases, prefixes, addresses), located)| Kind {
            copies,
            blocked,
            hidden,
            ases,
            prefixes,
            addresses,
            located,
        },
    )
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(24))]

    #[test]
    fn each_is_offered_as_many_as_a_naive_scan_finds_for_it(kind in kinds(), seed in any::<u64>()) {
        let rng = &mut Seeded::new(seed);
        let mut d = world(kind, rng);
        let keys: Vec<PeerKey> = d.peers.keys().copied().collect();
        let some = |rng: &mut Seeded| keys[below(rng, kind.copies) as usize];
        for _ in 0..below(rng, 12) {
            let (a, b) = (some(rng), some(rng));
            fails(&mut d, a, b, 60);
        }
        let queries = 2_000;
        for q in 0..queries {
            let excluded = (0..below(rng, 3) * 100).map(|_| PublicKey::numbered(below(rng, kind.copies))).collect();
            match below(rng, 40) {
                0 => {
                    let key = some(rng);
                    if let Some(e) = d.get(key).cloned() {
                        let e = PeerEntry { nat: peer(0, kind, rng).nat, uploads: below(rng, 4) > 0, ..e };
                        d.register(key.link, e);
                    }
                }
                1 => d.remove(some(rng)),
                _ => {}
            }
            if q == queries / 2 && kind.copies < 5_000 {
                d.remove_link(2);
                d.sweep();
            }
            ask(&mut d, rng, kind.copies, &excluded, q % (queries / 10) == 0 || q + 3 > queries);
        }
        d.check();
    }
}

#[test]
fn twelve_thousand_queries_for_one_object_of_one_as_get_40_peers_each() {
    let rng = &mut Seeded::new(1);
    let mut d = world(PLAIN_AS, rng);
    let none = BTreeSet::new();
    steps::taken();
    let mut offered = BTreeMap::<usize, u32>::new();
    for q in 0..12_000 {
        let n = below(rng, PLAIN_AS.copies);
        let querier = PeerKey { link: u64::from(n % 3), session: SessionId(u64::from(n)) };
        let k = (q % 100 == 0).then(|| naive(&d, querier, &none).1);
        let got = d.select(querier, V, (WANT, &none), Choice::default(), rng).expect("registered").len();
        *offered.entry(got).or_default() += 1;
        assert!(k.is_none_or(|k| got == k.min(WANT)), "query {q}: {got} of {k:?}");
    }
    let steps = steps::taken() / 12_000;
    // who has no UDP and no door can be connected with nobody; all others find more than 40
    let nobody = offered.remove(&0).unwrap_or(0);
    assert!(nobody < 1_200 && offered.keys().all(|n| *n == WANT), "{nobody}, {offered:?}");
    assert!(steps < 4_000, "{steps}");
}

/// Runs selections that must find `suit` peers, or one more as a trial. Returns the largest number of list searches
/// and changes that one of them made.
fn steps_of(what: &str, d: &mut Directory, exclude: &BTreeSet<PublicKey>, suit: usize) -> u64 {
    let mut worst = 0;
    for _ in 0..50 {
        steps::taken();
        let chosen = d.select(key(0), V, (WANT, exclude), CHOICE, &mut Seeded::new(1)).expect("registered");
        worst = worst.max(steps::taken());
        assert!(chosen.len() == suit || chosen.len() == suit + 1, "{what}: {}, not {suit}", chosen.len());
    }
    worst
}

/// Returns a directory of ten suitable peers, registered after 10,000 others that `crowd` makes unsuitable.
fn behind_a_crowd(crowd: impl Fn(PeerEntry) -> PeerEntry) -> Directory {
    let mut d = directory(&[]);
    for n in 1..=10_010 {
        let e = entry(n, &format!("20.{}.{}.1", n >> 8, n & 255));
        d.register(LINK, if n <= 10_000 { crowd(e) } else { e });
        d.share(key(n), true, &shared(V), &[]);
    }
    d
}

#[test]
fn a_crowd_that_does_not_suit_neither_hides_others_nor_costs_each_query() {
    let none = BTreeSet::new();
    let at = |e: PeerEntry, addr: &str| PeerEntry { observed: addr.parse().expect("an endpoint"), ..e };
    let symmetric = |e: PeerEntry| {
        let (mapping, candidates) = (NatBehaviour::AddressAndPortDependent, List::default());
        let nat = NatDescriptor { mapping, candidates, ..e.nat.clone() };
        PeerEntry { nat, ..e }
    };
    let strict = |e: PeerEntry| {
        let filtering = NatBehaviour::AddressAndPortDependent;
        PeerEntry { nat: NatDescriptor { epoch: 2, filtering, ..e.nat.clone() }, ..e }
    };
    // of a class that does not meet the querier's
    let mut d = behind_a_crowd(symmetric);
    d.register(LINK, strict(entry(0, "192.0.2.1")));
    assert!(steps_of("incompatible", &mut d, &none, 10) < 2_000);
    // of one prefix, which has a cap
    let mut d = behind_a_crowd(|e| at(e, "198.51.100.1:4000"));
    assert!(steps_of("one address", &mut d, &none, 20) < 2_000);
    let mut d = behind_a_crowd(|e| {
        let host = e.session.0 & 255;
        at(e, &format!("198.51.100.{host}:4000"))
    });
    assert!(steps_of("one prefix", &mut d, &none, 20) < 2_000);
    // of one key
    let mut d = behind_a_crowd(|e| PeerEntry { upload_key: PublicKey::numbered(77), ..at(e, "198.51.100.1:4000") });
    assert!(steps_of("one key", &mut d, &none, 11) < 4_000);
    assert!(steps_of("one excluded key", &mut d, &BTreeSet::from([PublicKey::numbered(77)]), 10) < 4_000);
    // behind the querier's own address, on other networks than its own
    let mut d = behind_a_crowd(|e| {
        let far = Candidate { kind: CandidateKind::Host, addr: "10.9.9.9:5000".parse().expect("an endpoint") };
        let nat = NatDescriptor { candidates: List::truncated([far]), ..e.nat.clone() };
        PeerEntry { nat, ..at(e, "192.0.2.1:4000") }
    });
    assert!(steps_of("neighbours", &mut d, &none, 10) < 2_000);
    // of a network that was learned to fail, or a class
    let network = |asn| Locality { asn: Some(asn), country: None, region: None };
    let mut d = behind_a_crowd(|e| PeerEntry { locality: network(7), ..symmetric(e) });
    d.register(LINK, PeerEntry { locality: network(8), ..entry(0, "192.0.2.1") });
    d.register(LINK, PeerEntry { locality: network(9), ..symmetric(entry(20_000, "203.0.113.1")) });
    fails(&mut d, key(0), key(1), 30);
    let connects = Attempt { failure: None, rung: Rung::Reflexive, probes: 1, took_ms: 1 };
    (0..400).for_each(|_| d.learn(key(0), key(20_000), &connects));
    fails(&mut d, key(0), key(1), 60);
    assert!(steps_of("a network", &mut d, &none, 10) < 2_000);
    fails(&mut d, key(0), key(1), 2_000);
    assert!(steps_of("a class", &mut d, &none, 10) < 2_000);
    // over a connection that has ended
    let mut d = behind_a_crowd(|e| e);
    for n in 30_000..30_010 {
        d.register(2, entry(n, &format!("203.0.{}.1", n & 255)));
        d.share(PeerKey { link: 2, session: SessionId(u64::from(n)) }, true, &shared(V), &[]);
    }
    d.register(2, entry(0, "192.0.2.1"));
    d.remove_link(LINK);
    let me = PeerKey { link: 2, session: SessionId(0) };
    steps::taken();
    let chosen = d.select(me, V, (WANT, &none), CHOICE, &mut Seeded::new(1)).expect("registered");
    assert!(chosen.len() == 10 && steps::taken() < 2_000, "a dead connection's");
}

#[test]
fn neighbours_that_meet_are_found_behind_a_crowd_of_those_that_do_not() {
    let mut d = Directory::default();
    let lan = |n: u32, host: &str| {
        let host = Candidate { kind: CandidateKind::Host, addr: host.parse().expect("an endpoint") };
        let nat = NatDescriptor { candidates: List::truncated([host]), ..entry(n, "192.0.2.1").nat };
        PeerEntry { nat, ..entry(n, "192.0.2.1") }
    };
    for n in 1..=2_000 {
        d.register(LINK, lan(n, if n <= 1_990 { "198.51.100.9:5000" } else { "10.1.1.1:5000" }));
        d.share(key(n), true, &shared(V), &[]);
    }
    d.register(LINK, lan(0, "10.1.1.9:5000"));
    let found: Vec<usize> = (0..8).map(|_| choose(&mut d, WANT).len()).collect();
    assert!(found.contains(&10), "{found:?}: some draw's looks reach them");
    assert!(found.iter().filter(|n| **n == 10).count() >= 2, "{found:?}: again and again");
}

#[test]
fn neighbours_of_other_subnets_are_offered_but_take_few_places_of_others() {
    let lan = |n: u32, host: &str| {
        let host = Candidate { kind: CandidateKind::Host, addr: host.parse().expect("an endpoint") };
        let nat = NatDescriptor { candidates: List::truncated([host]), ..entry(n, "192.0.2.1").nat };
        PeerEntry { nat, ..entry(n, "192.0.2.1") }
    };
    let office = |near: u32, routed: u32, far: u32| {
        let mut d = Directory::default();
        d.register(LINK, lan(0, "10.5.2.2:5000"));
        let all = (1..=routed).map(|n| lan(n, &format!("10.5.1.{n}:5000")));
        let all = all.chain((101..101 + near).map(|n| lan(n, "10.5.2.9:5000")));
        for e in all.chain((201..201 + far).map(|n| entry(n, &format!("198.51.{n}.1")))) {
            let key = PeerKey { link: LINK, session: e.session };
            d.register(LINK, e);
            d.share(key, true, &shared(V), &[]);
        }
        d
    };
    let of = |chosen: &[u64]| [1..101, 101..201, 201..301].map(|r| chosen.iter().filter(|n| r.contains(*n)).count());
    assert_eq!(choose(&mut office(0, 1, 0), 1), [1], "nobody else holds it");
    assert_eq!(choose(&mut office(0, 1, 1), 1), [201], "one place goes to the one that can be reached");
    assert_eq!(of(&choose(&mut office(0, 50, 50), 8)), [2, 0, 6]);
    assert_eq!(of(&choose(&mut office(3, 50, 50), 8)), [2, 3, 3], "beside those of the own subnet");
    assert_eq!(of(&choose(&mut office(3, 50, 2), 8)), [3, 3, 2], "they fill what is left");
    let spread = Choice { diversity: 1, ..CHOICE };
    assert_eq!(of(&choose_with(&mut office(0, 50, 50), 16, &[], spread)), [4, 0, 12]);
    let mut d = office(0, 50, 50);
    let [first, next] = [(); 2].map(|()| choose(&mut d, 8));
    assert!(first.iter().all(|n| !next.contains(n)), "others have their turn next: {first:?}, {next:?}");
}

#[test]
fn who_can_be_connected_with_nobody_is_not_listed() {
    let mut d = directory(&["198.51.100.1"]);
    let blocked = |out| NatDescriptor { epoch: 2, udp: false, tcp443: out, ..entry(1, "198.51.100.1").nat };
    d.register(LINK, PeerEntry { nat: blocked(false), ..entry(1, "198.51.100.1") });
    assert_eq!(d.listed(V).count(), 0);
    d.register(LINK, PeerEntry { nat: blocked(true), ..entry(1, "198.51.100.1") });
    assert_eq!(d.listed(V).count(), 1, "it gets out to others' doors");
    d.check();
}
