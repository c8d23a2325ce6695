mod blames;
mod cookies;
mod copies;
mod invariants;
mod places;
mod prices;
mod quarantine;
mod recording;
mod tickets;
mod trust;
mod usage;

use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_sign, fake_verify, trust};
use crate::accounting::introductions;
use crate::accounting::introductions::tests::CN_KEY;
use crate::accounting::logs::{self, Log};
use crate::accounting::tickets::tests::{EDGE_KEY as TICKET_KEY, ticket_of};
use crate::bench::Bench;
use crate::content::Policy;
use crate::ids::{DownloadId, Guid, ProviderId, PublicKey, RecordId, SecondaryGuid, SessionId, VersionId};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{Attempt, Rung};
use crate::wire::control::{
    Held, Hello, Inventory, Opened, Outcome, Query, QueryError, Refusal, ToClient, ToCn, Update,
};
use crate::wire::directory::{
    Deliver, DirectoryWelcome, FromDn, Nobody, Route, Selected, SelectedPeer, Signalled, Step, ToDn, WhyNobody,
};
use crate::wire::ledger::{FromLedger, LedgerAck, ToLedger};
use crate::wire::records::{
    Grant, LedgerRecord, LogEvent, Logged, SealedGrant, ServerRole, Side, SignedGrant, SignedHead, SigningContext,
    UsageRecord, UsageState,
};
use crate::wire::{Blob, List, Text, Wire as _};
use alloc::boxed::Box;
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

const NOW_MS: u64 = 1_000_000;
const EDGE_KEY: PublicKey = PublicKey([0xe; 32]);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Returns a CN that knows the time; it is dialling its DN and ledger, and neither is up.
fn bench() -> Bench<Cn> {
    let cfg = Config { logs: false, ..Config::new(ROOT, fake_verify, cert(ServerRole::Cn, CN_KEY)) };
    let mut b = Bench::new(Cn::default(), cfg);
    b.input(Input::WallClock { unix_ms: NOW_MS });
    b
}

fn dn_conn(out: &[Output]) -> Option<ConnId> {
    out.iter().find_map(|o| if let Output::DirectoryDial { conn, .. } = o { Some(*conn) } else { None })
}

fn ledger_conn(out: &[Output]) -> Option<ConnId> {
    out.iter().find_map(|o| if let Output::LedgerDial { conn } = o { Some(*conn) } else { None })
}

/// Returns a CN with a connected DN and ledger, and their connections.
fn whole() -> (Bench<Cn>, ConnId, ConnId) {
    let mut b = bench();
    let out = b.wait(Duration::ZERO);
    let (dn, ledger) = (dn_conn(&out).expect("a dial"), ledger_conn(&out).expect("a dial"));
    dn_up(&mut b, dn);
    b.input(Input::LedgerOpened { conn: ledger });
    (b, dn, ledger)
}

fn dn_up(b: &mut Bench<Cn>, conn: ConnId) -> Vec<Output> {
    let welcome = DirectoryWelcome { protocol: crate::wire::PROTOCOL, name: Text::default() };
    b.inputs([Input::DirectoryOpened { conn }, Input::Directory { conn, msg: FromDn::Welcome(welcome) }])
}

fn key(n: u32) -> PublicKey {
    PublicKey::numbered(n)
}

fn hello(n: u32) -> Hello {
    Hello {
        protocol: crate::wire::PROTOCOL,
        guid: Guid::of(&key(n)),
        secondary: List::truncated([SecondaryGuid::numbered(n)]),
        incarnation: 1,
        upload_key: PublicKey::numbered(1_000 + n),
        uploads: true,
        nat: NatDescriptor::default(),
        client_version: 1,
        platform: Text::default(),
        checkpoint: None,
    }
}

fn accept(b: &mut Bench<Cn>, conn: u64, n: u32) -> Vec<Output> {
    let from = "192.0.2.1:4000".parse().expect("an address");
    b.input(Input::ClientAccepted { conn: ConnId(conn), key: key(n), from })
}

fn say(b: &mut Bench<Cn>, conn: u64, msg: ToCn) -> Vec<Output> {
    b.input(Input::Client { conn: ConnId(conn), msg })
}

/// Opens a session for client `n` on connection `n`.
fn join(b: &mut Bench<Cn>, n: u32) -> Vec<Output> {
    accept(b, u64::from(n), n);
    say(b, u64::from(n), ToCn::Hello(hello(n)))
}

/// Answers the CN's requests for signatures in `out`; returns the outputs that follow.
fn sign(b: &mut Bench<Cn>, out: &[Output]) -> Vec<Output> {
    let [Output::Sign { req, context, message }] =
        &out.iter().filter(|o| matches!(o, Output::Sign { .. })).collect::<Vec<_>>()[..]
    else {
        panic!("{out:?}")
    };
    b.input(Input::Signed { req: *req, signature: fake_sign(&CN_KEY, *context, message) })
}

fn to_client(out: &[Output], conn: u64) -> Vec<&ToClient> {
    out.iter()
        .filter_map(|o| if let Output::ClientSend { conn: c, msg } = o { Some((c.0, msg)) } else { None })
        .filter_map(|(c, msg)| (c == conn).then_some(msg))
        .collect()
}

/// Returns the messages to the DN, except those that it gets as the home DN of a GUID.
fn to_dn(out: &[Output]) -> Vec<&ToDn> {
    all_to_dn(out).filter(|m| !matches!(m, ToDn::Seen(_))).collect()
}

fn all_to_dn(out: &[Output]) -> impl Iterator<Item = &ToDn> {
    out.iter().filter_map(|o| if let Output::DirectorySend { msg, .. } = o { Some(msg) } else { None })
}

fn refusal(out: &[Output], conn: u64) -> Option<Refusal> {
    let closed = out.contains(&Output::ClientClose { conn: ConnId(conn) });
    let why = |m: &ToClient| if let ToClient::Refused(r) = m { Some(r.why) } else { None };
    to_client(out, conn).into_iter().find_map(why).filter(|_| closed)
}

fn failed(out: &[Output], conn: u64) -> Option<QueryError> {
    to_client(out, conn).into_iter().find_map(|m| if let ToClient::QueryFailed(f) = m { Some(f.why) } else { None })
}

/// Returns a version that client `n` shares, with a valid ticket.
fn held(n: u32, version: VersionId) -> Held {
    Held::new(true, &ticket_of(Guid::of(&key(n)), version, NOW_MS), 0)
}

/// Returns a page of an inventory whose tickets were signed by the edge of these tests.
fn inventory(seq: u64, reset: bool, add: &[Held]) -> ToCn {
    let certs = List::truncated([cert(ServerRole::Edge, TICKET_KEY)]);
    let add = List::truncated(add.iter().cloned());
    ToCn::Inventory(Inventory { seq, reset, last: true, certs, add, remove: List::default() })
}

fn query() -> ToCn {
    let grant = SealedGrant { epoch: 1, nonce: [0; 24], sealed: Blob::default() };
    ToCn::Query(Query { query: 77, grant, want: 200, exclude: List::default() })
}

fn grant_of(n: u32) -> Grant {
    Grant {
        download: DownloadId::numbered(5),
        guid: Guid::of(&key(n)),
        download_key: PublicKey::numbered(50),
        version: VersionId::numbered(6),
        size: 100,
        provider: ProviderId(1),
        path: Text::default(),
        policy: Policy::default(),
        max_peer_bytes: 100,
        order_seed: 1,
        began_ms: NOW_MS,
        issued_ms: NOW_MS,
        expires_ms: NOW_MS + 900_000,
        challenged: false,
    }
}

fn signed_grant(grant: Grant) -> Box<SignedGrant> {
    let signature = fake_sign(&EDGE_KEY, SigningContext::Grant, &grant.to_bytes());
    Box::new(SignedGrant { grant, signature, cert: cert(ServerRole::Edge, EDGE_KEY) })
}

fn open_req(out: &[Output]) -> ReqId {
    out.iter().find_map(|o| if let Output::OpenGrant { req, .. } = o { Some(*req) } else { None }).expect("a grant")
}

fn select_req(out: &[Output]) -> u64 {
    to_dn(out).into_iter().find_map(|m| if let ToDn::Select(s) = m { Some(s.req) } else { None }).expect("a select")
}

/// Sends a query of client 1 and answers its request to open the grant with `grant`.
fn ask(b: &mut Bench<Cn>, grant: Option<Box<SignedGrant>>) -> Vec<Output> {
    let req = open_req(&say(b, 1, query()));
    b.input(Input::GrantOpened { req, grant })
}

fn usage(n: u32, reporter: u32) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(n),
        reporter: Guid::of(&key(reporter)),
        side: Side::Downloader,
        download: DownloadId::numbered(5),
        version: VersionId::numbered(6),
        seq: 1,
        state: UsageState::Completed,
        edge_bytes: 1,
        peers: List::default(),
        elapsed_ms: 0,
        cause: None,
    }
}

/// Returns a usage record of a client, the first record of its log.
fn logged(n: u32, reporter: u32) -> ToCn {
    let record = usage(n, reporter);
    let head = Log::default().append(SecondaryGuid::numbered(n), &record);
    let signature = fake_sign(&key(reporter), SigningContext::LogHead, &head.to_bytes());
    ToCn::Usage(Logged { record, head: SignedHead { head, key: key(reporter), signature } })
}

/// Returns the ids of the usage records sent to the ledger.
fn submitted(out: &[Output]) -> Vec<RecordId> {
    out.iter()
        .filter_map(|o| match o {
            Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Usage(r)), .. } => Some(r.record.id),
            _ => None,
        })
        .collect()
}

fn ack(conn: ConnId, n: u32) -> Input {
    let ids = List::truncated([RecordId::numbered(n)]);
    Input::Ledger { conn, msg: FromLedger::Ack(LedgerAck { ids }) }
}

#[test]
fn no_client_is_accepted_before_the_clock_is_known() {
    let cfg = Config::new(ROOT, fake_verify, cert(ServerRole::Cn, CN_KEY));
    let mut b = Bench::new(Cn::default(), cfg);
    let out = accept(&mut b, 1, 1);
    assert!(matches!(to_client(&out, 1)[..], [ToClient::Busy(_)]));
    assert!(out.contains(&Output::ClientClose { conn: ConnId(1) }));
}

#[test]
fn a_session_needs_the_guid_of_the_proven_key() {
    let mut b = bench();
    let out = join(&mut b, 1);
    assert!(matches!(to_client(&out, 1)[..], [ToClient::Welcome(w)] if w.now_ms == NOW_MS && w.want_inventory));
    accept(&mut b, 2, 2);
    assert_eq!(refusal(&say(&mut b, 2, ToCn::Hello(hello(1))), 2), Some(Refusal::WrongKey));
    assert_eq!(b.machine.sessions(), 1);
}

#[test]
fn only_a_newer_session_replaces_the_other_one() {
    let mut b = bench();
    join(&mut b, 1);
    accept(&mut b, 10, 1);
    let out = say(&mut b, 10, ToCn::Hello(Hello { incarnation: 3, ..hello(1) }));
    assert_eq!(refusal(&out, 1), Some(Refusal::Replaced));
    accept(&mut b, 11, 1);
    let out = say(&mut b, 11, ToCn::Hello(Hello { incarnation: 2, ..hello(1) }));
    assert_eq!(refusal(&out, 11), Some(Refusal::Replaced));
    assert_eq!(b.machine.sessions(), 1);
    assert!(matches!(to_client(&say(&mut b, 10, ToCn::Ping), 10)[..], [ToClient::Pong]));
}

#[test]
fn a_connection_without_hello_or_long_silent_is_closed() {
    let mut b = bench();
    accept(&mut b, 1, 1);
    join(&mut b, 2);
    assert_eq!(refusal(&b.wait(secs(5)), 1), Some(Refusal::Idle));
    b.wait(secs(40));
    say(&mut b, 2, ToCn::Ping);
    assert_eq!(refusal(&b.wait(secs(64)), 2), None);
    assert_eq!(refusal(&b.wait(secs(1)), 2), Some(Refusal::Idle));
    assert_eq!(b.machine.sessions(), 0);
}

#[test]
fn protocol_violations_end_the_session() {
    let page = |seq| inventory(seq, false, &[]);
    let bad = [page(2), ToCn::Hello(hello(1)), logged(1, 2)];
    for msg in bad {
        let mut b = bench();
        join(&mut b, 1);
        assert_eq!(refusal(&say(&mut b, 1, msg), 1), Some(Refusal::Violation));
    }
    let mut b = bench();
    join(&mut b, 1);
    assert_eq!(refusal(&say(&mut b, 1, page(1)), 1), None);
}

#[test]
fn a_full_cn_sends_clients_away_and_keeps_those_it_has() {
    let mut b = bench();
    b.cfg.sessions_max = 1;
    join(&mut b, 1);
    say(&mut b, 1, query());
    let out = accept(&mut b, 2, 2);
    assert!(matches!(to_client(&out, 2)[..], [ToClient::Busy(_)]));
    assert_eq!(b.machine.sessions(), 1);
}

#[test]
fn a_query_yields_signed_introductions_for_both_sides() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    let out = ask(&mut b, Some(signed_grant(grant_of(1))));
    let req = select_req(&out);
    assert!(matches!(to_dn(&out)[..], [ToDn::Select(s)] if s.want == 40 && s.version == VersionId::numbered(6)));
    let route = |n| Route { link: 3, session: SessionId(n) };
    let peers = List::truncated((0..3).map(|n| SelectedPeer {
        route: route(n),
        upload_key: PublicKey::numbered(200 + u32::try_from(n).expect("small")),
        observed: "192.0.2.9:4000".parse().expect("an address"),
        nat: NatDescriptor::default(),
        guid: Guid::numbered(200),
    }));
    let out =
        b.input(Input::Directory { conn: dn, msg: FromDn::Selected(Selected { req, peers, edge_only_ms: None }) });
    let [Output::Sign { req, context: SigningContext::Introductions, message }] = &out[..] else { panic!("{out:?}") };
    let signature = fake_sign(&CN_KEY, SigningContext::Introductions, message);
    let out = b.input(Input::Signed { req: *req, signature });
    let [ToClient::Introductions(answer)] = to_client(&out, 1)[..] else { panic!("{out:?}") };
    assert_eq!((answer.query, answer.peers.len()), (77, 3));
    for (n, p) in (0..).zip(&answer.peers) {
        assert_eq!(introductions::check(&trust(), &p.intro, NOW_MS), Ok(()));
        let i = &p.intro.intro;
        assert_eq!((i.download, i.downloader_key), (DownloadId::numbered(5), PublicKey::numbered(50)));
        assert_eq!(i.uploader_key, PublicKey::numbered(200 + n));
    }
    let relayed: Vec<Route> =
        to_dn(&out).into_iter().map(|m| if let ToDn::Relay(r) = m { r.route } else { panic!("{m:?}") }).collect();
    assert_eq!(relayed, [route(0), route(1), route(2)]);
}

#[test]
fn a_query_without_matching_peers_is_answered_with_the_reason() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    for (why, told) in [
        (WhyNobody::NotShared, QueryError::NotShared),
        (WhyNobody::Unreachable, QueryError::Unreachable),
        (WhyNobody::AllKnown, QueryError::AllKnown),
        (WhyNobody::OffersSpent, QueryError::OffersSpent),
    ] {
        let req = select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
        let msg = FromDn::Nobody(Nobody { req, why });
        let out = b.input(Input::Directory { conn: dn, msg: msg.clone() });
        assert_eq!(failed(&out, 1), Some(told));
        assert!(b.input(Input::Directory { conn: dn, msg }).is_empty(), "answered once");
    }
}

#[test]
fn a_query_needs_a_valid_grant_of_its_client_that_allows_peers() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    let mut forged = signed_grant(grant_of(1));
    forged.grant.size += 1;
    let forbidden = Policy { peer_download: false, ..Policy::default() };
    let cases = [
        (None, QueryError::Regrant),
        (Some(forged), QueryError::Regrant),
        (Some(signed_grant(Grant { expires_ms: NOW_MS, ..grant_of(1) })), QueryError::Regrant),
        (Some(signed_grant(grant_of(2))), QueryError::NotYours),
        (Some(signed_grant(Grant { policy: forbidden, ..grant_of(1) })), QueryError::PeersForbidden),
        (Some(signed_grant(Grant { max_peer_bytes: 0, ..grant_of(1) })), QueryError::PeersForbidden),
    ];
    for (grant, why) in cases {
        let out = ask(&mut b, grant);
        assert_eq!(failed(&out, 1), Some(why));
        assert!(to_dn(&out).is_empty());
    }
}

#[test]
fn queries_beyond_the_limit_are_told_when_to_retry() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    for _ in 0..10 {
        let out = say(&mut b, 1, query());
        assert!(failed(&out, 1).is_none() && out.contains(&Output::Count(Metric::Query)), "{out:?}");
    }
    b.now = b.now.after(secs(2));
    let out = say(&mut b, 1, query());
    let [ToClient::QueryFailed(f)] = to_client(&out, 1)[..] else { panic!("{out:?}") };
    assert_eq!((f.why, f.retry_after_ms), (QueryError::TooMany, 4_001));
    b.now = b.now.after(secs(5));
    assert_eq!(failed(&say(&mut b, 1, query()), 1), None);
    assert_eq!(failed(&say(&mut b, 1, query()), 1), Some(QueryError::TooMany));
}

#[test]
fn without_a_dn_or_its_answer_a_query_fails_as_unavailable() {
    let mut b = bench();
    join(&mut b, 1);
    assert_eq!(failed(&ask(&mut b, Some(signed_grant(grant_of(1)))), 1), Some(QueryError::Unavailable));
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    ask(&mut b, Some(signed_grant(grant_of(1))));
    assert_eq!(failed(&b.wait(secs(3)), 1), Some(QueryError::Unavailable));
    ask(&mut b, Some(signed_grant(grant_of(1))));
    assert_eq!(failed(&b.input(Input::DirectoryClosed { conn: dn }), 1), Some(QueryError::Unavailable));
}

#[test]
fn a_reconnected_dn_gets_every_client_and_requests_readd() {
    let (mut b, dn, _) = whole();
    (1..=3).for_each(|n| drop(join(&mut b, n)));
    b.input(Input::DirectoryClosed { conn: dn });
    let conn = dn_conn(&b.wait(secs(1))).expect("a dial");
    assert_ne!(conn, dn);
    let out = dn_up(&mut b, conn);
    assert_eq!(to_dn(&out).iter().filter(|m| matches!(m, ToDn::Peer(_))).count(), 3);
    for n in 1..=3 {
        assert!(matches!(to_client(&out, n)[..], [ToClient::ReaddRequest(_)]));
    }
}

#[test]
fn a_dn_is_greeted_once_a_connection() {
    let mut b = bench();
    let conn = dn_conn(&b.wait(Duration::ZERO)).expect("a dial");
    assert!(matches!(to_dn(&b.input(Input::DirectoryOpened { conn }))[..], [ToDn::Hello(_)]));
    assert_eq!(b.input(Input::DirectoryOpened { conn }), [], "it is open already");
}

#[test]
fn many_clients_are_registered_in_batches() {
    let mut b = bench();
    (1..=600).for_each(|n| drop(join(&mut b, n)));
    let conn = dn_conn(&b.wait(Duration::ZERO)).expect("a dial");
    let registered = |out: &[Output]| to_dn(out).iter().filter(|m| matches!(m, ToDn::Peer(_))).count();
    assert_eq!(registered(&dn_up(&mut b, conn)), 256);
    assert_eq!(registered(&b.wait(secs(1))), 344);
}

#[test]
fn shared_versions_and_session_ends_reach_the_dn() {
    let (mut b, ..) = whole();
    assert!(matches!(to_dn(&join(&mut b, 1))[..], [ToDn::Peer(p)] if p.uploads));
    let out = say(&mut b, 1, inventory(1, true, &[held(1, VersionId::numbered(1))]));
    assert!(matches!(to_dn(&out)[..], [ToDn::Shares(s)] if s.reset && s.add.len() == 1));
    let out = say(&mut b, 1, ToCn::Update(Update { uploads: false, nat: NatDescriptor::default() }));
    assert!(matches!(to_dn(&out)[..], [ToDn::Peer(p)] if !p.uploads));
    let out = b.input(Input::ClientClosed { conn: ConnId(1) });
    assert!(matches!(to_dn(&out)[..], [ToDn::Gone(_)]));
}

#[test]
fn an_introduction_is_delivered_only_while_its_client_uploads() {
    let (mut b, dn, _) = whole();
    let out = join(&mut b, 1);
    let [ToDn::Peer(entry)] = to_dn(&out)[..] else { panic!("{out:?}") };
    let session = entry.session;
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let introduce = crate::wire::control::Introduce { intro, nat: NatDescriptor::default(), ticket: None };
    let deliver = |session| {
        let deliver = Deliver { session, from: Route { link: 1, session: SessionId(7) }, introduce: introduce.clone() };
        Input::Directory { conn: dn, msg: FromDn::Deliver(deliver) }
    };
    assert!(matches!(to_client(&b.input(deliver(session)), 1)[..], [ToClient::Introduce(_)]));
    assert!(b.input(deliver(SessionId(99))).is_empty());
    say(&mut b, 1, ToCn::Update(Update { uploads: false, nat: NatDescriptor::default() }));
    assert!(b.input(deliver(session)).is_empty());
}

#[test]
fn a_draining_cn_stops_when_its_clients_and_records_are_gone() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    say(&mut b, 1, logged(1, 1));
    accept(&mut b, 3, 3);
    let out = b.input(Input::Shutdown);
    assert!(matches!(to_client(&out, 1)[..], [ToClient::Drain(r)] if r.retry_after_ms < 1_500));
    let closed = out.contains(&Output::ClientClose { conn: ConnId(3) });
    assert!(closed && to_client(&out, 3).is_empty(), "who has said nothing yet is told nothing: {out:?}");
    assert!(matches!(to_client(&accept(&mut b, 2, 2), 2)[..], [ToClient::Busy(_)]));
    assert!(!b.input(Input::ClientClosed { conn: ConnId(1) }).contains(&Output::Stopped));
    assert!(b.input(ack(ledger, 1)).contains(&Output::Stopped));
}

#[test]
fn a_draining_cn_stops_at_its_deadline_in_any_case() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    b.input(Input::Shutdown);
    let out = b.wait(secs(3));
    assert!(out.contains(&Output::ClientClose { conn: ConnId(1) }) && out.contains(&Output::Stopped));
    assert!(accept(&mut b, 2, 2).is_empty());
}

/// Introduces client 1 to a peer. Returns the introduction's id and the key of its tickets.
fn introduced(b: &mut Bench<Cn>, dn: ConnId) -> (IntroId, [u8; 16]) {
    join(b, 1);
    let req = select_req(&ask(b, Some(signed_grant(grant_of(1)))));
    let peer = SelectedPeer {
        route: Route { link: 3, session: SessionId(8) },
        upload_key: PublicKey::numbered(200),
        observed: "192.0.2.9:4000".parse().expect("an address"),
        nat: NatDescriptor::default(),
        guid: Guid::numbered(200),
    };
    let selected = Selected { req, peers: List::truncated([peer]), edge_only_ms: None };
    let out = b.input(Input::Directory { conn: dn, msg: FromDn::Selected(selected) });
    let [Output::Sign { req, message, .. }] = &out[..] else { panic!("{out:?}") };
    let signature = fake_sign(&CN_KEY, SigningContext::Introductions, message);
    let out = b.input(Input::Signed { req: *req, signature });
    let [ToClient::Introductions(answer)] = to_client(&out, 1)[..] else { panic!("{out:?}") };
    let [ToDn::Relay(relay)] = to_dn(&out)[..] else { panic!("{out:?}") };
    let (downloader_ticket, uploader_ticket) = (answer.peers[0].ticket.clone(), relay.introduce.ticket.clone());
    let (downloader_ticket, uploader_ticket) =
        (downloader_ticket.expect("a ticket"), uploader_ticket.expect("a ticket"));
    assert_eq!(downloader_ticket.key, uploader_ticket.key, "both can check each other");
    assert_eq!(
        (downloader_ticket.observed.to_string(), uploader_ticket.observed.to_string()),
        ("192.0.2.9:4000".into(), "192.0.2.1:4000".into())
    );
    (relay.intro(), downloader_ticket.key)
}

fn signalled(dn: ConnId, session: u64, intro: IntroId, what: Step) -> Input {
    let msg = FromDn::Signalled(Signalled { session: SessionId(session), intro, what });
    Input::Directory { conn: dn, msg }
}

fn go_counts(out: &[Output]) -> (usize, usize) {
    let here = to_client(out, 1).into_iter().filter(|m| matches!(m, ToClient::Go(_))).count();
    let there = to_dn(out).into_iter().filter(|m| matches!(m, ToDn::Signal(s) if s.what == Step::Go)).count();
    (here, there)
}

#[test]
fn both_peers_get_go_once_both_have_opened_their_nats() {
    let (mut b, dn, _) = whole();
    let (intro, _) = introduced(&mut b, dn);
    assert_eq!(go_counts(&say(&mut b, 1, ToCn::Opened(Opened { intro }))), (0, 0));
    join(&mut b, 2);
    assert_eq!(go_counts(&say(&mut b, 2, ToCn::Opened(Opened { intro }))), (0, 0), "a stranger opens nothing");
    assert_eq!(go_counts(&b.input(signalled(dn, 0, intro, Step::Opened))), (1, 1));
    assert_eq!(go_counts(&b.input(signalled(dn, 0, intro, Step::Opened))), (0, 0));
}

#[test]
fn a_peer_that_does_not_open_is_not_waited_for_long() {
    let (mut b, dn, _) = whole();
    let (intro, _) = introduced(&mut b, dn);
    assert_eq!(go_counts(&b.wait(Duration::from_millis(999))), (0, 0));
    assert_eq!(go_counts(&b.wait(Duration::from_millis(1))), (1, 1));
    assert_eq!(go_counts(&say(&mut b, 1, ToCn::Opened(Opened { intro }))), (0, 0));
}

#[test]
fn an_uploaders_signals_are_forwarded_in_both_directions() {
    let (mut b, dn, _) = whole();
    let out = join(&mut b, 1);
    let [ToDn::Peer(entry)] = to_dn(&out)[..] else { panic!("{out:?}") };
    let (session, from) = (entry.session, Route { link: 9, session: SessionId(7) });
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let id = intro.intro.id;
    let introduce = crate::wire::control::Introduce { intro, nat: NatDescriptor::default(), ticket: None };
    let msg = FromDn::Deliver(Deliver { session, from, introduce });
    b.input(Input::Directory { conn: dn, msg });
    let out = say(&mut b, 1, ToCn::Opened(Opened { intro: id }));
    let [ToDn::Signal(s)] = to_dn(&out)[..] else { panic!("{out:?}") };
    assert_eq!((s.route, s.intro, s.what), (from, id, Step::Opened));
    assert_eq!(go_counts(&b.input(signalled(dn, session.0, id, Step::Go))), (1, 0));
    let attempt = Attempt { failure: None, rung: Rung::Reflexive, probes: 1, took_ms: 2 };
    assert!(say(&mut b, 1, ToCn::Outcome(Outcome { intro: id, attempt })).is_empty(), "the downloader's report counts");
    assert!(say(&mut b, 1, ToCn::Opened(Opened { intro: id })).is_empty(), "and it is over");
}

#[test]
fn outcomes_are_counted_and_sent_to_the_dn() {
    let (mut b, dn, _) = whole();
    let (intro, _) = introduced(&mut b, dn);
    let attempt = Attempt { failure: None, rung: Rung::Reflexive, probes: 1, took_ms: 2 };
    let out = say(&mut b, 1, ToCn::Outcome(Outcome { intro, attempt: attempt.clone() }));
    assert!(out.contains(&Output::Count(Metric::Connected)));
    let route = Route { link: 3, session: SessionId(8) };
    assert!(matches!(to_dn(&out)[..], [ToDn::Outcome(o)] if o.route == route && o.attempt == attempt));
    let out = say(&mut b, 1, ToCn::Outcome(Outcome { intro, attempt }));
    assert!(to_dn(&out).is_empty(), "an introduction has one outcome");
}
