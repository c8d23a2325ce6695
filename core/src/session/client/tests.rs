mod checkpoints;
mod invariants;
mod queries;
mod tickets;

use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_verify};
use crate::accounting::introductions::tests::{CN_KEY, answer, intro};
use crate::accounting::logs::Log;
use crate::accounting::tickets::tests::ticket_of;
use crate::bench::Bench;
use crate::ids::{Guid, IntroId, PublicKey, RecordId, SecondaryGuid, Signature, VersionId};
use crate::wire::control::{
    Introduce, IntroducedPeer, Introductions, QueryError, QueryFailed, ReaddRequest, RetryAfter, UsageAck,
};
use crate::wire::records::{Logged, SealedGrant, Side, SignedHead, UsageRecord, UsageState};
use crate::wire::{Blob, Wire as _};
use alloc::vec;
use alloc::vec::Vec;

const NOW_MS: u64 = 5_000;
const D1: DownloadId = DownloadId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const UPLOAD_KEY: PublicKey = PublicKey([9; 32]);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bench() -> Bench<ClientSession> {
    let guid = Guid::numbered(1);
    let cfg = Config::new(ROOT, fake_verify, guid, vec![SecondaryGuid::numbered(1)], UPLOAD_KEY);
    Bench::new(ClientSession::new(true), cfg)
}

fn dialled(out: &[Output]) -> Vec<(ConnId, u32)> {
    out.iter().filter_map(|o| if let Output::Dial { conn, cn } = o { Some((*conn, *cn)) } else { None }).collect()
}

fn sent(out: &[Output]) -> Vec<&ToCn> {
    out.iter().filter_map(|o| if let Output::Send { msg, .. } = o { Some(msg) } else { None }).collect()
}

fn pages(out: &[Output]) -> Vec<&crate::wire::control::Inventory> {
    sent(out).into_iter().filter_map(|m| if let ToCn::Inventory(i) = m { Some(i) } else { None }).collect()
}

fn queries(out: &[Output]) -> Vec<&crate::wire::control::Query> {
    sent(out).into_iter().filter_map(|m| if let ToCn::Query(q) = m { Some(q) } else { None }).collect()
}

fn usages(out: &[Output]) -> Vec<RecordId> {
    sent(out).into_iter().filter_map(|m| if let ToCn::Usage(u) = m { Some(u.record.id) } else { None }).collect()
}

fn welcome() -> ToClient {
    ToClient::Welcome(Welcome {
        protocol: crate::wire::PROTOCOL,
        now_ms: NOW_MS,
        observed: "192.0.2.1:1".parse().expect("an address"),
        cert: cert(ServerRole::Cn, CN_KEY),
        ping_ms: 20_000,
        want_inventory: true,
    })
}

/// Dials the next CN and opens a session with it.
fn connect(b: &mut Bench<ClientSession>) -> (ConnId, Vec<Output>) {
    let mut out = b.input(Input::Servers { cns: 2, now_ms: NOW_MS });
    out.extend(b.wait(secs(1)));
    let (conn, _) = *dialled(&out).last().expect("a dial");
    b.input(Input::Opened { conn });
    (conn, b.input(Input::Message { conn, msg: welcome() }))
}

fn grant(n: u8) -> SealedGrant {
    SealedGrant { epoch: 1, nonce: [n; 24], sealed: Blob::default() }
}

fn want(more: u8) -> Want {
    Want {
        download: D1,
        download_key: PublicKey::numbered(1),
        version: VersionId::numbered(1),
        grant: grant(1),
        more,
        exclude: vec![],
        soon: false,
    }
}

fn usage(n: u32, seq: u32, side: Side) -> Logged {
    let record = UsageRecord {
        id: RecordId::numbered(n),
        reporter: Guid::numbered(1),
        side,
        download: D1,
        version: VersionId::numbered(1),
        seq,
        state: UsageState::Running,
        edge_bytes: 0,
        peers: List::default(),
        elapsed_ms: 0,
        cause: None,
    };
    logged(record)
}

fn logged(record: UsageRecord) -> Logged {
    let head = Log::default().append(SecondaryGuid::numbered(1), &record);
    let signature = Signature::numbered(1);
    Logged { record, head: SignedHead { head, key: PublicKey::numbered(1), signature } }
}

/// Returns the input by which a version is shared, with a valid ticket.
fn share(n: u32, complete: bool) -> Input {
    let version = VersionId::numbered(n);
    Input::Share { version, complete, ticket: Box::new(ticket_of(Guid::numbered(1), version, NOW_MS)) }
}

fn introductions_for(query: u32, n: u32) -> ToClient {
    let peers = answer((0..n).map(intro).collect()).into_iter().map(|intro| IntroducedPeer {
        intro,
        nat: NatDescriptor::default(),
        ticket: None,
    });
    ToClient::Introductions(Introductions { query, peers: List::truncated(peers) })
}

#[test]
fn a_welcome_opens_the_session_and_sets_the_clock() {
    let mut b = bench();
    b.input(share(1, true));
    let (_, out) = connect(&mut b);
    assert!(out.contains(&Output::Connected));
    assert_eq!(b.machine.wall().at(b.now), NOW_MS);
    let pages = pages(&out);
    assert_eq!(pages.len(), 1);
    assert!(pages[0].reset && pages[0].last && pages[0].seq == 1);
    assert_eq!(pages[0].add.len(), 1);
}

#[test]
fn a_newer_cookie_is_no_news_and_stands_in_the_next_hello() {
    use crate::nat::cookie::{Cookie, Proven};
    let proven = |issued_s| Proven {
        addr: "[2001:db8::5]:4000".parse().expect("an address"),
        cookie: Some(Cookie { epoch: 1, issued_s, mac: [0; 16] }),
    };
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let nat = NatDescriptor { epoch: 1, proven: List::truncated([proven(5)]), ..NatDescriptor::default() };
    assert!(matches!(sent(&b.input(Input::Network(nat.clone())))[..], [ToCn::Update(_)]));
    assert!(b.input(Input::Proven(vec![proven(7)])).is_empty());
    b.input(Input::Proven(vec![proven(6)]));
    // somebody who kept an old copy has other news
    let out = b.input(Input::Network(NatDescriptor { epoch: 2, ..nat }));
    assert!(matches!(sent(&out)[..], [ToCn::Update(u)] if u.nat.proven[..] == [proven(7)]));
    b.input(Input::Closed { conn });
    let (conn, _) = *dialled(&b.wait(secs(1))).last().expect("a dial");
    let out = b.input(Input::Opened { conn });
    assert!(matches!(sent(&out)[..], [ToCn::Hello(h)] if h.nat.proven[..] == [proven(7)]));
}

#[test]
fn an_empty_inventory_is_told_too() {
    let (_, out) = connect(&mut bench());
    assert!(pages(&out).iter().any(|p| p.reset && p.last && p.add.is_empty()));
}

#[test]
fn every_cn_is_tried_at_once_before_anybody_waits() {
    let mut b = bench();
    b.input(Input::Servers { cns: 3, now_ms: NOW_MS });
    let mut tried = vec![];
    for _ in 0..3 {
        let out = b.wait(Duration::ZERO);
        let (conn, cn) = dialled(&out)[0];
        tried.push(cn);
        let out = b.input(Input::Closed { conn });
        assert_eq!(out.contains(&Output::NoServers), tried.len() == 3);
    }
    assert_eq!(tried, [0, 1, 2]);
    assert!(dialled(&b.wait(Duration::from_millis(200))).is_empty(), "after a whole round it waits");
    assert_eq!(dialled(&b.wait(secs(1))).len(), 1);
}

#[test]
fn a_bootstrap_that_comes_while_the_client_waits_does_not_end_the_wait() {
    let mut b = bench();
    let servers = || Input::Servers { cns: 1, now_ms: NOW_MS };
    b.input(servers());
    let (conn, _) = dialled(&b.wait(Duration::ZERO))[0];
    b.input(Input::Closed { conn });
    b.input(servers());
    assert!(dialled(&b.wait(Duration::from_millis(200))).is_empty());
    assert_eq!(dialled(&b.wait(secs(1))).len(), 1);
}

#[test]
fn a_lost_session_continues_at_the_next_cn_with_all_its_state() {
    let mut b = bench();
    b.input(share(1, false));
    let (conn, _) = connect(&mut b);
    assert_eq!(usages(&b.input(Input::Usage(usage(7, 1, Side::Downloader)))), [RecordId::numbered(7)]);
    let out = b.input(Input::Closed { conn });
    assert!(out.contains(&Output::Disconnected));
    let out = b.wait(secs(1));
    assert_eq!(dialled(&out)[0].1, 1, "the next CN");
    let (conn, _) = dialled(&out)[0];
    b.input(Input::Opened { conn });
    let out = b.input(Input::Message { conn, msg: welcome() });
    assert_eq!(pages(&out)[0].add.len(), 1);
    assert_eq!(usages(&out), [RecordId::numbered(7)]);
}

#[test]
fn each_session_has_a_higher_incarnation() {
    let mut b = bench();
    let mut seen = vec![];
    b.input(Input::Servers { cns: 1, now_ms: NOW_MS });
    for _ in 0..3 {
        let (conn, _) = dialled(&b.wait(secs(5)))[0];
        for msg in sent(&b.input(Input::Opened { conn })) {
            if let ToCn::Hello(h) = msg {
                seen.push(h.incarnation);
            }
        }
        b.input(Input::Closed { conn });
    }
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn a_cn_that_is_busy_is_not_dialled_before_its_time() {
    let mut b = bench();
    b.input(Input::Servers { cns: 1, now_ms: NOW_MS });
    let (conn, _) = dialled(&b.wait(Duration::ZERO))[0];
    b.input(Input::Opened { conn });
    let busy = ToClient::Busy(RetryAfter { retry_after_ms: 30_000 });
    assert!(b.input(Input::Message { conn, msg: busy }).contains(&Output::Close { conn }));
    assert!(dialled(&b.wait(secs(29))).is_empty());
    assert_eq!(dialled(&b.wait(secs(2))).len(), 1);
}

#[test]
fn a_draining_cn_is_left_for_another_when_it_says() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    b.input(Input::Message { conn, msg: ToClient::Drain(RetryAfter { retry_after_ms: 2_000 }) });
    assert!(!b.wait(Duration::from_millis(1_900)).contains(&Output::Close { conn }));
    let out = b.wait(secs(2));
    assert!(out.contains(&Output::Close { conn }) && out.contains(&Output::Disconnected));
    assert_eq!(dialled(&out)[0].1, 1);
}

#[test]
fn a_silent_cn_is_left_after_its_pong_is_due() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let out = b.wait(secs(20));
    assert_eq!(sent(&out), [&ToCn::Ping]);
    b.input(Input::Message { conn, msg: ToClient::Pong });
    assert!(!b.wait(secs(29)).contains(&Output::Close { conn }));
    assert!(b.wait(secs(1)).contains(&Output::Close { conn }));
}

#[test]
fn a_cn_without_a_valid_certificate_is_not_believed() {
    let mut b = bench();
    b.input(Input::Servers { cns: 2, now_ms: NOW_MS });
    let (conn, _) = dialled(&b.wait(Duration::ZERO))[0];
    b.input(Input::Opened { conn });
    let ToClient::Welcome(w) = welcome() else { unreachable!("a welcome") };
    let w = Welcome { cert: cert(ServerRole::Edge, CN_KEY), ..w };
    let out = b.input(Input::Message { conn, msg: ToClient::Welcome(w) });
    assert_eq!(out, [Output::Close { conn }]);
}

#[test]
fn a_message_out_of_place_ends_the_connection() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    assert!(b.input(Input::Message { conn, msg: welcome() }).contains(&Output::Close { conn }));
    let mut b = bench();
    b.input(Input::Servers { cns: 1, now_ms: NOW_MS });
    let (conn, _) = dialled(&b.wait(Duration::ZERO))[0];
    b.input(Input::Opened { conn });
    assert!(b.input(Input::Message { conn, msg: ToClient::Pong }).contains(&Output::Close { conn }));
}

#[test]
fn a_large_inventory_goes_in_pages_without_gaps() {
    let mut b = bench();
    for n in 0..1_600 {
        b.input(share(n, true));
    }
    let (_, out) = connect(&mut b);
    let pages = pages(&out);
    assert_eq!(pages.iter().map(|p| p.add.len()).collect::<Vec<_>>(), [384, 384, 384, 384, 64]);
    assert_eq!(pages.iter().map(|p| p.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let ends = pages.iter().map(|p| (p.reset, p.last)).collect::<Vec<_>>();
    assert_eq!(ends, [(true, false), (false, false), (false, false), (false, false), (false, true)]);
    let longest = pages.iter().map(|p| ToCn::Inventory((*p).clone()).to_bytes().len()).max();
    assert!(longest.is_some_and(|bytes| bytes < crate::limits::FRAME_LEN_MAX));
}

#[test]
fn many_versions_that_are_gone_go_in_pages_that_lose_none() {
    let mut b = bench();
    (0..1_000).for_each(|n| drop(b.input(share(n, true))));
    connect(&mut b);
    (0..1_000).map(VersionId::numbered).for_each(|version| drop(b.input(Input::Unshare { version })));
    let out = b.wait(secs(1));
    let pages = pages(&out);
    assert_eq!(pages.iter().map(|p| p.remove.len()).sum::<usize>(), 1_000);
    assert!(pages.len() == 3 && pages.last().is_some_and(|p| p.last));
}

#[test]
fn changes_are_gathered_and_only_they_are_told() {
    let mut b = bench();
    b.input(share(1, true));
    let _ = connect(&mut b);
    b.input(share(1, true));
    assert!(pages(&b.wait(secs(1))).is_empty(), "nothing has changed");
    b.input(share(2, false));
    b.input(Input::Unshare { version: VersionId::numbered(1) });
    let out = b.wait(secs(1));
    let pages = pages(&out);
    assert_eq!(pages.len(), 1);
    assert_eq!((pages[0].seq, pages[0].reset), (2, false));
    assert_eq!(pages[0].add[0].version, VersionId::numbered(2));
    assert_eq!(pages[0].remove.to_vec(), [VersionId::numbered(1)]);
}

#[test]
fn a_readd_request_is_answered_within_its_spread_with_everything() {
    let mut b = bench();
    b.input(share(1, true));
    let (conn, _) = connect(&mut b);
    b.input(Input::Message { conn, msg: ToClient::ReaddRequest(ReaddRequest { spread_ms: 2_000 }) });
    let out = b.wait(secs(2));
    assert!(pages(&out).iter().any(|p| p.reset && p.add.len() == 1));
}

#[test]
fn introductions_of_another_download_or_unsigned_are_dropped() {
    let changes: [fn(&mut crate::wire::records::Introduction); 5] = [
        |i| i.download = DownloadId::numbered(2),
        |i| i.version = VersionId::numbered(2),
        |i| i.downloader_key = PublicKey::numbered(2),
        |i| i.uploader_key = UPLOAD_KEY,
        |i| i.connect_before_ms = NOW_MS,
    ];
    for change in changes {
        let mut b = bench();
        let (conn, _) = connect(&mut b);
        let query = queries(&b.input(Input::Want(want(4))))[0].query;
        let mut bad = intro(1);
        change(&mut bad);
        let peers = answer(vec![intro(0), bad]).into_iter().map(|intro| IntroducedPeer {
            intro,
            nat: NatDescriptor::default(),
            ticket: None,
        });
        let msg = ToClient::Introductions(Introductions { query, peers: List::truncated(peers) });
        let out = b.input(Input::Message { conn, msg });
        assert!(
            matches!(&out[..], [Output::Introduced { peers, .. }] if peers.len() == 1 && peers[0].intro.intro == intro(0))
        );
    }
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let query = queries(&b.input(Input::Want(want(4))))[0].query;
    let ToClient::Introductions(i) = introductions_for(query, 1) else { unreachable!("introductions") };
    let mut peers = i.peers.into_vec();
    peers[0].intro.intro.cap_bytes += 1;
    let msg = ToClient::Introductions(Introductions { query, peers: List::truncated(peers) });
    assert!(b.input(Input::Message { conn, msg }).is_empty());
}

#[test]
fn after_regrant_only_another_grant_is_shown() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let query = queries(&b.input(Input::Want(want(4))))[0].query;
    let failed = QueryFailed { query, why: QueryError::Regrant, retry_after_ms: 0 };
    let out = b.input(Input::Message { conn, msg: ToClient::QueryFailed(failed) });
    assert_eq!(out, [Output::Regrant { download: D1 }]);
    assert!(queries(&b.input(Input::Want(want(4)))).is_empty());
    let out = b.input(Input::Want(Want { grant: grant(2), ..want(4) }));
    assert_eq!(queries(&out)[0].grant, grant(2));
}

#[test]
fn only_an_introduction_of_our_key_is_announced_while_uploads_are_on() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let introduce = |key: PublicKey| {
        let i = crate::wire::records::Introduction { uploader_key: key, id: IntroId::numbered(5), ..intro(0) };
        Introduce { intro: answer(vec![i]).remove(0), nat: NatDescriptor::default(), ticket: None }
    };
    let msg = |key| Input::Message { conn, msg: ToClient::Introduce(introduce(key)) };
    assert_eq!(b.input(msg(UPLOAD_KEY)), [Output::PeerComing(introduce(UPLOAD_KEY))]);
    assert!(b.input(msg(PublicKey::numbered(3))).is_empty());
    b.input(Input::Uploads(false));
    assert!(b.input(msg(UPLOAD_KEY)).is_empty());
}

#[test]
fn a_newer_usage_record_replaces_the_older_until_acknowledged() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    b.input(Input::Usage(usage(1, 1, Side::Downloader)));
    let out = b.input(Input::Usage(usage(2, 2, Side::Downloader)));
    assert!(out.contains(&Output::UsageDone { ids: vec![RecordId::numbered(1)] }));
    assert_eq!(usages(&out), [RecordId::numbered(2)]);
    let out = b.input(Input::Usage(usage(3, 1, Side::Downloader)));
    assert_eq!(out, [Output::UsageDone { ids: vec![RecordId::numbered(3)] }], "an older one is not needed");
    assert_eq!(usages(&b.input(Input::Usage(usage(4, 1, Side::Uploader)))), [RecordId::numbered(4)]);
    let ack = |n| ToClient::UsageAck(UsageAck { ids: List::truncated([RecordId::numbered(n)]), checkpoint: None });
    let out = b.input(Input::Message { conn, msg: ack(2) });
    assert_eq!(out, [Output::UsageDone { ids: vec![RecordId::numbered(2)] }]);
    assert!(b.input(Input::Message { conn, msg: ack(2) }).is_empty());
}

#[test]
fn unacknowledged_usage_records_are_sent_again_a_window_at_a_time() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let mut sent_now = 0;
    for n in 0..40 {
        let record = UsageRecord { download: DownloadId::numbered(n), ..usage(n, 1, Side::Downloader).record };
        sent_now += usages(&b.input(Input::Usage(logged(record)))).len();
    }
    assert_eq!(sent_now, 32);
    b.wait(secs(25));
    b.input(Input::Message { conn, msg: ToClient::Ping });
    let again = usages(&b.wait(secs(5)));
    assert_eq!(again.len(), 32);
    let msg = ToClient::UsageAck(UsageAck { ids: List::truncated(again), checkpoint: None });
    assert_eq!(usages(&b.input(Input::Message { conn, msg })).len(), 8);
}

#[test]
fn a_shut_down_session_is_silent() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    assert_eq!(b.input(Input::Shutdown), [Output::Close { conn }]);
    assert!(b.input(Input::Want(want(3))).is_empty());
    assert_eq!(b.machine.poll_timeout(), None);
}

/// Returns the NAT descriptor of a host that STUN servers see at this address.
fn seen_at(epoch: u32, addr: &str) -> NatDescriptor {
    use crate::nat::{Candidate, CandidateKind};
    let addr = addr.parse().expect("an address");
    let candidates = List::truncated([Candidate { kind: CandidateKind::ServerReflexive, addr }]);
    NatDescriptor { epoch, udp: true, candidates, ..NatDescriptor::default() }
}

#[test]
fn a_session_from_a_lost_address_is_replaced_at_the_same_cn() {
    let mut b = bench();
    b.input(Input::Network(seen_at(1, "192.0.2.1:4000")));
    let (conn, out) = connect(&mut b);
    assert_eq!(dialled(&out), []);
    let out = b.input(Input::Network(seen_at(2, "192.0.2.1:4001")));
    assert!(matches!(sent(&out)[..], [ToCn::Update(_)]), "another port is no other way: {out:?}");
    let nothing = NatDescriptor { epoch: 3, ..NatDescriptor::default() };
    assert_eq!(dialled(&b.input(Input::Network(nothing))), [], "nothing is known of the new network yet");
    let out = b.input(Input::Network(seen_at(4, "192.0.2.7:4001")));
    assert!(out.contains(&Output::Close { conn }) && out.contains(&Output::Disconnected), "{out:?}");
    let again = dialled(&b.wait(Duration::ZERO));
    assert_eq!(again.iter().map(|(_, cn)| *cn).collect::<Vec<_>>(), [0]);
    let out = b.input(Input::Opened { conn: again[0].0 });
    let [ToCn::Hello(hello)] = sent(&out)[..] else { panic!("{out:?}") };
    assert_eq!(hello.nat, seen_at(4, "192.0.2.7:4001"));
}

#[test]
fn a_probed_cn_is_dialled_again_if_silent_and_kept_if_it_answers() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    assert_eq!(b.input(Input::ProbePath), [Output::Send { conn, msg: ToCn::Ping }]);
    b.input(Input::Message { conn, msg: ToClient::Pong });
    assert_eq!(b.wait(secs(5)), []);
    b.input(Input::ProbePath);
    let out = b.wait(b.cfg.probe_within);
    assert!(out.contains(&Output::Close { conn }), "{out:?}");
    let out = b.wait(b.cfg.backoff.0);
    assert_eq!(dialled(&out).iter().map(|(_, cn)| *cn).collect::<Vec<_>>(), [0], "not the CN is to blame");
}
