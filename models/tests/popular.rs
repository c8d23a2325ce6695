//! A popular object: 20,000 copies in one AS, of which 15 % can be connected with few or nobody, and 12,000 queries by
//! those who have it. Each is offered as many as suit it, up to 40, from the first to the last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;
use swarmedge_core::Rng as _;
use swarmedge_core::ids::{Guid, PublicKey, SecondaryGuid, SessionId, VersionId};
use swarmedge_core::nat::{Candidate, CandidateKind, Endpoint, NatBehaviour, NatDescriptor, compatible};
use swarmedge_core::selection::directory::Choice;
use swarmedge_core::selection::{Directory, Locality, PeerKey};
use swarmedge_core::wire::List;
use swarmedge_core::wire::control::Shared;
use swarmedge_core::wire::directory::PeerEntry;
use swarmedge_models::rng::Seeded;

const COPIES: u32 = 20_000;
const QUERIES: u32 = 12_000;
const WANT: usize = 40;

/// Returns peer `n` of a mixed population: 5 % have no UDP, 10 % are behind a symmetric NAT.
fn peer(n: u32, rng: &mut Seeded) -> PeerEntry {
    use NatBehaviour::{AddressAndPortDependent as Apd, EndpointIndependent as Ei, Unknown};
    let (udp, mapping, filtering) = match rng.below(100) {
        0..5 => (false, Unknown, Unknown),
        5..15 => (true, Apd, Apd),
        15..30 => (true, Ei, Ei),
        _ => (true, Ei, Apd),
    };
    let ip = IpAddr::V4(Ipv4Addr::from_bits((20 << 24) + rng.below(65_000)));
    let candidate = Candidate { kind: CandidateKind::ServerReflexive, addr: SocketAddr::new(ip, 5_000) };
    PeerEntry {
        session: SessionId(u64::from(n)),
        guid: Guid::numbered(n),
        secondary: SecondaryGuid::numbered(n),
        incarnation: 1,
        observed: SocketAddr::new(ip, 5_000),
        upload_key: PublicKey::numbered(n),
        uploads: true,
        nat: NatDescriptor {
            epoch: 1,
            udp,
            mapping,
            filtering,
            v4: true,
            candidates: List::truncated([candidate]),
            ..NatDescriptor::default()
        },
        locality: Locality { asn: Some(64_000), country: Some(*b"DE"), region: Some(1) },
    }
}

/// How many a naive scan counts for a querier: of each /24 up to ten that are compatible.
fn suit(all: &[PeerEntry], me: &PeerEntry) -> usize {
    let endpoint = |p: &PeerEntry| p.observed.ip();
    let meets = |p: &&PeerEntry| {
        let (a, b) =
            (Endpoint { observed: endpoint(me), nat: &me.nat }, Endpoint { observed: endpoint(p), nat: &p.nat });
        p.guid != me.guid && compatible(a, b)
    };
    let mut nets: BTreeMap<Option<[u8; 3]>, usize> = BTreeMap::new();
    for p in all.iter().filter(meets) {
        let IpAddr::V4(ip) = endpoint(p) else { panic!("this world has IPv4 only") };
        let [a, b, c, _] = ip.octets();
        *nets.entry((endpoint(p) != endpoint(me)).then_some([a, b, c])).or_default() += 1;
    }
    nets.into_iter().map(|(net, n)| if net.is_some() { n.min(10) } else { n }).sum()
}

#[test]
fn twelve_thousand_queries_for_one_object_are_offered_all_that_suits() {
    let rng = &mut Seeded::new(1);
    let (version, none) = (VersionId::numbered(1), BTreeSet::new());
    let mut directory = Directory::default();
    let all: Vec<PeerEntry> = (0..COPIES).map(|n| peer(n, rng)).collect();
    for p in &all {
        directory.register(1, p.clone());
        let key = PeerKey { link: 1, session: p.session };
        directory.share(key, false, &[Shared { version, complete: true }], &[]);
    }
    // what suits depends on the querier's NAT only, but for its few neighbours
    let mut offered: BTreeMap<usize, u32> = BTreeMap::new();
    let began = Instant::now();
    let mut counting = std::time::Duration::ZERO;
    for q in 0..QUERIES {
        let me = &all[rng.below(COPIES) as usize];
        let querier = PeerKey { link: 1, session: me.session };
        let got = directory.select(querier, version, (WANT, &none), Choice::default(), rng).expect("registered").len();
        *offered.entry(got).or_default() += 1;
        let counts = Instant::now();
        if got < WANT || q % 200 == 0 {
            assert_eq!(got, suit(&all, me).min(WANT), "query {q}, {me:?}");
        }
        counting += counts.elapsed();
    }
    let each = (began.elapsed() - counting).as_micros() / u128::from(QUERIES);
    println!("{COPIES} copies in one AS, {QUERIES} queries, {each} us each; peers offered, and how often: {offered:?}");
    assert!(offered.get(&WANT).is_some_and(|n| *n > QUERIES / 10 * 9));
}
