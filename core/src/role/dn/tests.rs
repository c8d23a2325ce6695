mod blames;
mod copies;
mod invariants;

use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_verify};
use crate::accounting::introductions::tests::{answer, intro};
use crate::bench::Bench;
use crate::ids::{Guid, IntroId, SecondaryGuid, SessionId, VersionId};
use crate::nat::{Candidate, CandidateKind, NatDescriptor};
use crate::selection::directory::{COPIES_PER_LOT, steps};
use crate::wire::control::{Introduce, Shared};
use crate::wire::directory::{OfSession, PeerEntry, PeerGone, PeerShares, Seen};
use crate::wire::geo_location::Locality;
use alloc::vec;
use alloc::vec::Vec;

const V: VersionId = VersionId([1; 32]);

fn bench() -> Bench<Dn> {
    let mut b = Bench::new(Dn::default(), Config::new(ROOT, fake_verify, cert(ServerRole::Dn, PublicKey::numbered(1))));
    b.input(Input::WallClock { unix_ms: 1_000_000 });
    b
}

fn say(b: &mut Bench<Dn>, conn: u64, msg: ToDn) -> Vec<Output> {
    b.input(Input::Cn { conn: ConnId(conn), msg })
}

fn hello(role: ServerRole, key: u32) -> ToDn {
    let cert = cert(role, PublicKey::numbered(key));
    ToDn::Hello(DirectoryHello { protocol: crate::wire::PROTOCOL, cert })
}

/// Connects the CN with key `n` on connection `n`.
fn cn(b: &mut Bench<Dn>, n: u32) {
    cn_on(b, u64::from(n), n);
}

fn cn_on(b: &mut Bench<Dn>, conn: u64, key: u32) {
    b.input(Input::CnAccepted { conn: ConnId(conn), key: PublicKey::numbered(key) });
    let out = say(b, conn, hello(ServerRole::Cn, key));
    assert!(matches!(sent(&out, conn)[..], [FromDn::Welcome(_)]), "{out:?}");
}

fn sent(out: &[Output], conn: u64) -> Vec<&FromDn> {
    out.iter()
        .filter_map(|o| match o {
            Output::CnSend { conn: c, msg } if c.0 == conn => Some(msg),
            Output::CnSend { .. } | Output::CnClose { .. } | Output::Count(_) => None,
        })
        .collect()
}

/// Returns the entry of client `n`, with the address `host` in its own network.
fn entry_at(n: u32, host: &str) -> PeerEntry {
    let session = SessionId(u64::from(n));
    let candidate = Candidate { kind: CandidateKind::Host, addr: host.parse().expect("an address") };
    PeerEntry {
        session,
        guid: Guid::numbered(n),
        secondary: SecondaryGuid::numbered(n),
        incarnation: 1,
        observed: "127.0.0.1:1".parse().expect("an address"),
        upload_key: PublicKey::numbered(100 + n),
        uploads: true,
        nat: NatDescriptor { udp: true, candidates: List::truncated([candidate]), ..NatDescriptor::default() },
        locality: Locality::default(),
    }
}

/// Returns the entry of client `n`.
fn entry(n: u32) -> PeerEntry {
    entry_at(n, "127.0.0.1:5000")
}

/// Registers client `n` of a CN as a holder of version `V`.
fn register(b: &mut Bench<Dn>, conn: u64, n: u32) {
    register_at(b, conn, n, "127.0.0.1:5000");
}

/// Registers a client like [`register`], with the address `host` in its own network.
fn register_at(b: &mut Bench<Dn>, conn: u64, n: u32, host: &str) {
    say(b, conn, ToDn::Peer(entry_at(n, host)));
    share(b, conn, n);
}

fn share(b: &mut Bench<Dn>, conn: u64, n: u32) {
    let session = SessionId(u64::from(n));
    let add = List::truncated([Shared { version: V, complete: true }]);
    say(b, conn, ToDn::Shares(PeerShares { session, reset: true, add, remove: List::default() }));
}

/// Selects peers for client `n` and returns them.
fn select(b: &mut Bench<Dn>, conn: u64, n: u32) -> Vec<SelectedPeer> {
    let session = SessionId(u64::from(n));
    let select =
        Select { req: 9, session, download: DownloadId::numbered(9), version: V, want: 40, exclude: List::default() };
    let out = say(b, conn, ToDn::Select(select));
    match sent(&out, conn)[..] {
        [FromDn::Selected(s)] if s.req == 9 => s.peers.to_vec(),
        [FromDn::Nobody(n)] if n.req == 9 => Vec::new(),
        _ => panic!("{out:?}"),
    }
}

/// Returns the time in milliseconds for which the DN refuses to select peers for download 1; `None` if it does not.
fn edge_only(b: &mut Bench<Dn>, conn: u64) -> Option<u32> {
    let (session, download) = (SessionId(1), DownloadId::numbered(1));
    let out = say(
        b,
        conn,
        ToDn::Select(Select { req: 9, session, download, version: V, want: 40, exclude: List::default() }),
    );
    match sent(&out, conn)[..] {
        [FromDn::Selected(s)] => s.edge_only_ms,
        [FromDn::Nobody(_)] => None,
        _ => panic!("{out:?}"),
    }
}

#[test]
fn three_unreceipted_uploaders_leave_a_download_to_the_edge() {
    let mut b = bench();
    cn(&mut b, 1);
    for n in 0..3 {
        assert_eq!(edge_only(&mut b, 1), None);
        b.now = b.now.after(Duration::from_secs(61));
        let intro = IntroId::numbered(n);
        let report = Unreceipted { download: DownloadId::numbered(1), intro, owed: 1 << 20, receipted: 0 };
        say(&mut b, 1, ToDn::Unreceipted(report));
    }
    assert_eq!(edge_only(&mut b, 1), Some(15 * 60 * 1000));
    // over any CN, and while CNs only ping
    cn(&mut b, 2);
    assert_eq!(edge_only(&mut b, 2), Some(15 * 60 * 1000));
    b.wait(Duration::from_secs(15 * 60));
    cn(&mut b, 1);
    assert_eq!(edge_only(&mut b, 1), None, "forgiven");
    assert!(b.machine.conduct.is_empty());
}

#[test]
fn a_repeated_report_neither_counts_again_nor_prolongs_the_refusal() {
    let mut b = bench();
    cn(&mut b, 1);
    let says = |b: &mut Bench<Dn>| {
        let (download, intro) = (DownloadId::numbered(1), IntroId::numbered(1));
        say(b, 1, ToDn::Unreceipted(Unreceipted { download, intro, owed: 1 << 20, receipted: 0 }));
        assert_eq!(edge_only(b, 1), None);
    };
    for _ in 0..14 {
        says(&mut b);
        b.now = b.now.after(Duration::from_secs(60));
    }
    says(&mut b);
    b.wait(Duration::from_secs(60));
    assert!(b.machine.conduct.is_empty(), "forgiven a quarter of an hour after it was said first");
}

#[test]
fn a_download_is_offered_at_most_256_peers_in_a_quarter_of_an_hour() {
    let mut b = bench();
    cn(&mut b, 1);
    (0..60).for_each(|n| register(&mut b, 1, n));
    // each query comes from a new session, as after a reconnect
    let offered: usize = (0..20).map(|n| select(&mut b, 1, n).len()).sum();
    assert_eq!(offered, 256);
    b.wait(OFFERS_WITHIN);
    cn(&mut b, 1);
    (0..60).for_each(|n| register(&mut b, 1, n));
    assert_eq!(select(&mut b, 1, 1).len(), 40, "the quarter of an hour is over");
}

fn relay(route: Route) -> ToDn {
    let introduce = Introduce { intro: answer(vec![intro(1)]).remove(0), nat: NatDescriptor::default(), ticket: None };
    ToDn::Relay(Relay { route, from: SessionId(1), introduce })
}

#[test]
fn a_connection_without_a_cn_certificate_is_closed() {
    for (role, key) in [(ServerRole::Edge, 5), (ServerRole::Cn, 6)] {
        let mut b = bench();
        b.input(Input::CnAccepted { conn: ConnId(5), key: PublicKey::numbered(5) });
        let out = say(&mut b, 5, hello(role, key));
        assert_eq!(out, [Output::Count(Metric::Violation), Output::CnClose { conn: ConnId(5) }]);
    }
    let mut b = bench();
    b.input(Input::CnAccepted { conn: ConnId(5), key: PublicKey::numbered(5) });
    assert!(say(&mut b, 5, ToDn::Ping).contains(&Output::CnClose { conn: ConnId(5) }), "hello comes first");
}

#[test]
fn peers_are_selected_across_all_cns() {
    let mut b = bench();
    (1..=2).for_each(|n| cn(&mut b, n));
    register(&mut b, 1, 10);
    register(&mut b, 2, 20);
    let chosen = select(&mut b, 1, 10);
    assert_eq!(chosen.iter().map(|p| p.upload_key).collect::<Vec<_>>(), [PublicKey::numbered(120)]);
    assert_eq!(select(&mut b, 2, 20)[0].upload_key, PublicKey::numbered(110));
    assert!(select(&mut b, 1, 20).is_empty(), "a session belongs to its CN");
}

/// Asks for peers of download `download` for client 10 of CN 1, and returns why there is nobody.
fn nobody(b: &mut Bench<Dn>, download: u32, exclude: &[u32]) -> Option<WhyNobody> {
    let exclude = List::truncated(exclude.iter().map(|n| PublicKey::numbered(100 + n)));
    let (session, download) = (SessionId(10), DownloadId::numbered(download));
    let out = say(b, 1, ToDn::Select(Select { req: 9, session, download, version: V, want: 40, exclude }));
    match sent(&out, 1)[..] {
        [FromDn::Nobody(n)] => Some(n.why),
        [FromDn::Selected(_)] => None,
        _ => panic!("{out:?}"),
    }
}

#[test]
fn who_gets_nobody_is_told_why() {
    let mut b = bench();
    cn(&mut b, 1);
    assert_eq!(nobody(&mut b, 1, &[]), Some(WhyNobody::NotShared), "nobody is registered");
    register(&mut b, 1, 10);
    assert_eq!(nobody(&mut b, 1, &[]), Some(WhyNobody::NotShared), "its own copy is no peer's");
    register(&mut b, 1, 20);
    assert_eq!(nobody(&mut b, 1, &[]), None);
    assert_eq!(nobody(&mut b, 1, &[20]), Some(WhyNobody::AllKnown));
    register_at(&mut b, 1, 30, "10.9.9.9:5000");
    assert_eq!(nobody(&mut b, 1, &[20]), Some(WhyNobody::Unreachable), "behind the same address, in another network");
    say(&mut b, 1, ToDn::Gone(PeerGone { session: SessionId(30) }));
    b.cfg.offers_max = Some(0);
    assert_eq!(nobody(&mut b, 2, &[]), Some(WhyNobody::OffersSpent));
}

#[test]
fn an_introduction_reaches_the_cn_of_the_selected_peer() {
    let mut b = bench();
    (1..=2).for_each(|n| cn(&mut b, n));
    register(&mut b, 1, 10);
    register(&mut b, 2, 20);
    let route = select(&mut b, 1, 10)[0].route;
    let out = say(&mut b, 1, relay(route));
    assert!(matches!(sent(&out, 2)[..], [FromDn::Deliver(d)] if d.session == SessionId(20)));
    register(&mut b, 1, 11);
    let own = select(&mut b, 1, 10).into_iter().find(|p| p.upload_key == PublicKey::numbered(111)).expect("a peer");
    let out = say(&mut b, 1, relay(own.route));
    assert!(matches!(sent(&out, 1)[..], [FromDn::Deliver(_)]), "also when it is the same CN");
    say(&mut b, 2, ToDn::Gone(PeerGone { session: SessionId(20) }));
    assert_eq!(say(&mut b, 1, relay(route)), [Output::Count(Metric::RelayLost)]);
}

#[test]
fn registrations_end_with_their_connection() {
    let mut b = bench();
    (1..=2).for_each(|n| cn(&mut b, n));
    register(&mut b, 1, 10);
    register(&mut b, 2, 20);
    b.input(Input::CnClosed { conn: ConnId(2) });
    assert!(select(&mut b, 1, 10).is_empty());
    assert_eq!((b.machine.cns(), b.machine.directory().len()), (1, 1));
}

#[test]
fn a_new_connection_of_a_cn_replaces_its_half_open_one() {
    let mut b = bench();
    cn(&mut b, 1);
    register(&mut b, 1, 10);
    b.input(Input::CnAccepted { conn: ConnId(3), key: PublicKey::numbered(1) });
    let out = say(&mut b, 3, hello(ServerRole::Cn, 1));
    assert!(out.contains(&Output::CnClose { conn: ConnId(1) }));
    assert!(b.machine.directory().is_empty());
}

/// Maximum number of list entries that the DN may touch for one event.
const EVENT: u64 = 40 * COPIES_PER_LOT as u64;

#[test]
fn a_session_of_a_link_that_has_ended_is_no_copy() {
    let mut b = bench();
    (1..=2).for_each(|n| cn(&mut b, n));
    let seen = |session: u64, guid, start| {
        let (guid, secondary) = (Guid::numbered(guid), SecondaryGuid::numbered(start));
        ToDn::Seen(Seen { session: SessionId(session), guid, secondary })
    };
    for n in 0..1_000 {
        say(&mut b, 2, seen(u64::from(n), n, 1));
    }
    assert_eq!(say(&mut b, 1, seen(1, 999, 2)).len(), 2, "both are challenged");
    b.input(Input::CnClosed { conn: ConnId(2) });
    assert!(b.machine.copies.is_behind());
    assert!(say(&mut b, 1, seen(2, 998, 2)).is_empty(), "one of them is gone");
    let alive = |session| ToDn::Alive(OfSession { session: SessionId(session) });
    assert!(say(&mut b, 1, alive(1)).is_empty() && say(&mut b, 1, alive(2)).is_empty());
    b.wait(Duration::from_millis(100));
    assert!(!b.machine.copies.is_behind());
}

#[test]
fn no_message_costs_more_than_a_lot_however_much_its_client_shares() {
    let mut b = bench();
    cn(&mut b, 1);
    register(&mut b, 1, 1);
    register(&mut b, 1, 2);
    let all: Vec<_> = (0..65_000).map(|v| Shared { version: VersionId::numbered(v), complete: true }).collect();
    let key = PeerKey { link: 1, session: SessionId(1) };
    all.chunks(1_500).for_each(|page| b.machine.directory.share(key, false, page, &[]));
    let entry = |b: &Bench<Dn>| b.machine.directory().get(key).cloned().expect("registered");
    let shares = |reset, add, remove| {
        ToDn::Shares(PeerShares { session: SessionId(1), reset, add: List::truncated(add), remove })
    };
    let new = (0..1_500).map(|v| Shared { version: VersionId::numbered(100_000 + v), complete: true }).collect();
    let old = List::truncated((0..400).map(VersionId::numbered));
    let same = entry(&b);
    let off = PeerEntry { uploads: false, ..same.clone() };
    let elsewhere = PeerEntry { observed: "192.0.2.1:1".parse().expect("an endpoint"), ..same.clone() };
    let messages: Vec<(ToDn, u64)> = vec![
        (ToDn::Peer(same.clone()), 0),
        (ToDn::Peer(off), EVENT),
        (ToDn::Peer(elsewhere), 0),
        (ToDn::Peer(same), 0),
        (shares(false, vec![], old), EVENT),
        (shares(false, new, List::default()), 2 * EVENT),
        (shares(true, vec![], List::default()), EVENT),
        (ToDn::Ping, 0),
        (ToDn::Gone(PeerGone { session: SessionId(1) }), EVENT),
    ];
    for (msg, most) in messages {
        let name = msg.name();
        steps::taken();
        say(&mut b, 1, msg);
        let taken = steps::taken();
        assert!(taken <= most, "{name}: {taken} of {most}");
    }
    assert!(select(&mut b, 1, 2).is_empty());
    b.wait(Duration::from_secs(10));
    assert_eq!(b.machine.directory().len(), 1);
}

#[test]
fn a_silent_connection_is_closed_and_a_pinging_one_is_not() {
    let mut b = bench();
    b.input(Input::CnAccepted { conn: ConnId(5), key: PublicKey::numbered(5) });
    cn(&mut b, 1);
    assert_eq!(b.wait(Duration::from_secs(5)), [Output::CnClose { conn: ConnId(5) }]);
    for _ in 0..5 {
        assert!(b.wait(Duration::from_secs(10)).is_empty());
        assert_eq!(sent(&say(&mut b, 1, ToDn::Ping), 1), [&FromDn::Pong]);
    }
    assert_eq!(b.wait(Duration::from_secs(30)), [Output::CnClose { conn: ConnId(1) }]);
}
