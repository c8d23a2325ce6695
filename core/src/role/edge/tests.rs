mod clauses;
mod possession;
mod ranges;
mod uncounted;

use super::io::{Nonce, ObjectFacts, Renewal, ServedGrant};
use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_sign, fake_verify};
use crate::bench::Bench;
use crate::content::{Access, Policy};
use crate::ids::{ConnId, Guid, ProviderId, PublicKey, VersionId};
use crate::wire::ledger::{FromLedger, LedgerAck, ToLedger};
use crate::wire::records::{EdgeRecord, Grant, ServedRecord, ServerRole, SignedGrant, SigningContext};
use crate::wire::{List, Text, Wire as _};
use alloc::vec;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::Range;

const EDGE_KEY: PublicKey = PublicKey([3; 32]);
const V: VersionId = VersionId([1; 32]);
const P: ProviderId = ProviderId(1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bench() -> Bench<Edge> {
    let mut b = Bench::new(Edge::default(), Config::new(ROOT, fake_verify, cert(ServerRole::Edge, EDGE_KEY)));
    b.input(Input::WallClock { unix_ms: 1_000_000 });
    b
}

fn with_ledger() -> (Bench<Edge>, ConnId) {
    let mut b = bench();
    let out = b.wait(Duration::ZERO);
    let conn = out.iter().find_map(|o| if let Output::LedgerDial { conn } = o { Some(*conn) } else { None });
    let conn = conn.expect("a dial");
    b.input(Input::LedgerOpened { conn });
    (b, conn)
}

/// Returns a request for a grant with a nonce of its own.
fn asked() -> GrantAsked {
    asked_by(1, next_nonce())
}

fn next_nonce() -> Nonce {
    use core::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
}

fn asked_by(n: u32, nonce: Nonce) -> GrantAsked {
    let key = PublicKey::numbered(n);
    GrantAsked {
        req: ReqId(70),
        guid: Guid::of(&key),
        key,
        download_key: PublicKey::numbered(2),
        object: ObjectFacts {
            provider: P,
            path: Text::new("a/b").expect("short"),
            version: V,
            size: 1_000,
            access: Access::Public,
            policy: Policy::default(),
        },
        token: None,
        version: None,
        renew: None,
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        time_ms: 1_000_000,
        nonce,
    }
}

fn ask(b: &mut Bench<Edge>, asked: GrantAsked) -> Vec<Output> {
    b.input(Input::GrantAsked(Box::new(asked)))
}

fn saves(out: &[Output]) -> Vec<(ReqId, &Batch)> {
    out.iter().filter_map(|o| if let Output::Save { req, batch } = o { Some((*req, batch)) } else { None }).collect()
}

fn issued(out: &[Output]) -> Option<Grant> {
    out.iter().find_map(|o| if let Output::IssueGrant { grant, .. } = o { Some((**grant).clone()) } else { None })
}

fn denied(out: &[Output]) -> Option<Denial> {
    out.iter().find_map(|o| if let Output::DenyGrant { why, .. } = o { Some(*why) } else { None })
}

fn submitted(out: &[Output]) -> Vec<LedgerRecord> {
    out.iter()
        .filter_map(
            |o| if let Output::LedgerSend { msg: ToLedger::Submit(r), .. } = o { Some(r.clone()) } else { None },
        )
        .collect()
}

fn served_grant(n: u32) -> ServedGrant {
    ServedGrant { download: DownloadId::numbered(n), guid: Guid::numbered(n) }
}

fn serve(b: &mut Bench<Edge>, grant: Option<ServedGrant>, range: Range<u64>) {
    let out = b.input(Input::BytesSent { grant, version: V, provider: P, range });
    assert!(out.is_empty(), "{out:?}");
}

/// Returns a download's record as an edge record, with the ranges summed up.
fn as_counted(r: &ServedRecord) -> EdgeRecord {
    let ServedRecord { id, edge, version, provider, seq, total_bytes, .. } = *r;
    let (download, guid) = (Some(r.download), Some(r.guid));
    let unique_bytes = Spans::from_blob(&r.sent, u64::MAX).bytes();
    EdgeRecord { id, edge, download, guid, version, provider, seq, unique_bytes, total_bytes }
}

/// Requests to send `bytes` bytes of download `n`.
fn serving(b: &mut Bench<Edge>, req: u64, n: u32, bytes: u64) -> Vec<Output> {
    b.input(Input::SendRequested { req: ReqId(req), grant: Box::new(grant(n)), bytes })
}

/// Returns the grant of a download with peers.
pub(in crate::role) fn grant(n: u32) -> Grant {
    let ServedGrant { download, guid } = served_grant(n);
    Grant {
        download,
        guid,
        download_key: PublicKey::numbered(2),
        version: V,
        size: 1 << 30,
        provider: P,
        path: Text::new("a/b").expect("short"),
        policy: Policy::default(),
        max_peer_bytes: 1 << 30,
        order_seed: 0,
        began_ms: 1_000_000,
        issued_ms: 1_000_000,
        expires_ms: 2_000_000,
        challenged: false,
    }
}

pub(super) fn signed(grant: Grant) -> SignedGrant {
    let signature = fake_sign(&EDGE_KEY, SigningContext::Grant, &grant.to_bytes());
    SignedGrant { grant, signature, cert: cert(ServerRole::Edge, EDGE_KEY) }
}

const fn counted(req: u64) -> Output {
    Output::Serve { req: ReqId(req), counted: true }
}

/// Requests a renewal of a grant a minute later, or a download without peers in its place.
fn renewal(b: &mut Bench<Edge>, grant: &Grant, edge_only: bool) -> Vec<Output> {
    let renew = Some(Renewal { grant: Some(signed(grant.clone())), proven: true, edge_only });
    b.now = b.now.after(secs(60));
    let time_ms = 1_000_000 + b.now.0 / 1000;
    ask(b, GrantAsked { renew, time_ms, ..asked() })
}

/// Runs the next flush and lets its write succeed. Returns the records made, and the outputs that followed.
fn flush(b: &mut Bench<Edge>) -> (Vec<EdgeRecord>, Vec<Output>) {
    let out = b.wait(secs(2));
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let edge_record = |r: &LedgerRecord| match r {
        LedgerRecord::Edge(e) => Some(e.clone()),
        LedgerRecord::Served(r) => Some(as_counted(r)),
        LedgerRecord::Usage(_) | LedgerRecord::Granted(_) | LedgerRecord::Possession(_) | LedgerRecord::Log(_) => None,
    };
    let records = batch.records.iter().filter_map(edge_record).collect();
    (records, b.input(Input::Saved { req, ok: true }))
}

fn ack(b: &mut Bench<Edge>, conn: ConnId, id: RecordId) {
    let msg = FromLedger::Ack(LedgerAck { ids: List::truncated([id]) });
    b.input(Input::Ledger { conn, msg });
}

#[test]
fn a_grant_costs_nothing_until_its_first_byte_is_asked_for() {
    let (mut b, _) = with_ledger();
    let grants: Vec<_> = (0..500).map(|_| issued(&ask(&mut b, asked())).expect("a grant")).collect();
    assert_eq!((b.machine.counting(), b.machine.records_waiting()), (0, 0));
    assert!(saves(&b.wait(secs(10))).is_empty());
    let grant = grants[7].clone();
    let out = b.input(Input::SendRequested { req: ReqId(1), grant: Box::new(grant.clone()), bytes: 1_000 });
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let record = LedgerRecord::Granted(GrantRecord::of(&grant));
    assert_eq!((&batch.records[..], batch.counts.len()), (&[record.clone()][..], 1));
    assert!(!out.contains(&counted(1)), "not durable yet");
    let out = b.input(Input::Saved { req, ok: true });
    assert_eq!((submitted(&out), out.contains(&counted(1))), (vec![record], true));
}

#[test]
fn an_edge_and_a_cn_write_the_same_grant_record() {
    let first = grant(1);
    let renewed = Grant { issued_ms: 5_000_000, expires_ms: 6_000_000, ..first.clone() };
    assert_eq!(GrantRecord::of(&first), GrantRecord::of(&renewed));
    assert_eq!(GrantRecord::of(&first).issued_ms, first.began_ms);
    assert_ne!(GrantRecord::of(&first).id, GrantRecord::of(&grant(2)).id);
}

#[test]
fn a_renewal_needs_no_record() {
    let mut b = bench();
    let grant = issued(&ask(&mut b, asked())).expect("a grant");
    let out = renewal(&mut b, &grant, false);
    let renewed = issued(&out).expect("a grant");
    assert_eq!(renewed.download, grant.download);
    assert_eq!(renewed.expires_ms, grant.expires_ms + 60_000);
    assert!(saves(&out).is_empty());
}

#[test]
fn nothing_is_granted_before_the_clock_is_known() {
    let mut b = Bench::new(Edge::default(), Config::new(ROOT, fake_verify, cert(ServerRole::Edge, EDGE_KEY)));
    assert_eq!(denied(&ask(&mut b, asked())), Some(Denial::Unavailable));
}

#[test]
fn repeated_bytes_of_a_download_count_in_the_total_only() {
    let (mut b, _) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    serve(&mut b, Some(served_grant(1)), 50..150);
    serve(&mut b, None, 0..10);
    serve(&mut b, None, 0..10);
    let (records, out) = flush(&mut b);
    let figures = |r: &EdgeRecord| (r.download, r.seq, r.unique_bytes, r.total_bytes);
    assert_eq!(
        records.iter().map(figures).collect::<Vec<_>>(),
        [(Some(DownloadId::numbered(1)), 1, 150, 200), (None, 1, 0, 20)]
    );
    assert_eq!(submitted(&out).len(), 2, "sent once it is written");
}

#[test]
fn a_download_has_one_record_on_its_way_at_a_time() {
    let (mut b, conn) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let (first, _) = flush(&mut b);
    serve(&mut b, Some(served_grant(1)), 100..300);
    let (none, _) = flush(&mut b);
    assert!(none.is_empty(), "the count is written, its record waits");
    assert!(saves(&b.wait(secs(5))).is_empty(), "and nothing is written twice");
    ack(&mut b, conn, first[0].id);
    let out = b.wait(secs(2));
    let [(_, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    assert_eq!(batch.acked, [first[0].id], "what the ledger has leaves the spool");
    assert!(matches!(&batch.records[..], [LedgerRecord::Served(r)] if r.seq == 2 && as_counted(r).unique_bytes == 300));
}

#[test]
fn a_failed_write_loses_nothing() {
    let (mut b, _) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let out = b.wait(secs(2));
    let req = saves(&out)[0].0;
    assert!(submitted(&b.input(Input::Saved { req, ok: false })).is_empty());
    let (records, out) = flush(&mut b);
    assert_eq!(records[0].unique_bytes, 100);
    assert_eq!(submitted(&out).len(), 1);
}

#[test]
fn counts_continue_after_a_restart_and_restored_records_are_sent() {
    let (mut b, _) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let out = b.wait(secs(2));
    let (_, batch) = saves(&out)[0];
    let (records, counts) = (batch.records.clone(), batch.counts.clone());
    assert_eq!((counts[0].reserved, counts[0].unsure), (100, 0), "nothing was under way");
    assert_eq!(counts[0].over_ms, 1_000_000 + 3_600_000);
    assert_eq!(counts[0].sent.iter().map(|r| (r.start, r.end)).collect::<Vec<_>>(), [(0, 100)]);
    let (mut b, _) = with_ledger();
    let out = b.input(Input::Restored { records: records.clone(), counts });
    assert_eq!(submitted(&out), records);
    serve(&mut b, Some(served_grant(1)), 50..200);
    let (records, _) = flush(&mut b);
    assert_eq!((records[0].seq, records[0].unique_bytes, records[0].total_bytes), (2, 200, 250));
}

#[test]
fn a_download_that_is_over_leaves_the_spool() {
    let (mut b, conn) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let (records, _) = flush(&mut b);
    ack(&mut b, conn, records[0].id);
    let (none, _) = flush(&mut b);
    assert!(none.is_empty());
    let mut ended = Vec::new();
    for _ in 0..400 {
        let out = b.wait(secs(10));
        for (_, batch) in saves(&out) {
            ended.extend(batch.ended.clone());
        }
        b.input(Input::Ledger { conn, msg: FromLedger::Pong });
    }
    assert_eq!(ended, [DownloadId::numbered(1)]);
    assert_eq!(b.machine.counting(), 0);
}

#[test]
fn beyond_the_limits_bytes_count_as_plain_or_in_the_total_only() {
    let (mut b, _) = with_ledger();
    b.cfg.counts_max = 2;
    b.cfg.ranges_max = 1;
    serve(&mut b, None, 0..1);
    serve(&mut b, Some(served_grant(1)), 0..10);
    b.input(Input::BytesSent { grant: Some(served_grant(2)), version: V, provider: P, range: 0..10 });
    let out = b.input(Input::BytesSent { grant: Some(served_grant(1)), version: V, provider: P, range: 20..30 });
    assert_eq!(out, [Output::Count(Metric::CountOverflow)]);
    let (records, _) = flush(&mut b);
    let figures: Vec<_> = records.iter().map(|r| (r.download.is_some(), r.unique_bytes, r.total_bytes)).collect();
    assert_eq!(figures, [(true, 10, 20), (false, 0, 11)]);
}

#[test]
fn a_stopping_edge_writes_its_counts_and_waits_for_the_ledger() {
    let (mut b, conn) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let out = b.input(Input::Shutdown);
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let id = batch.records[0].id();
    assert!(!b.input(Input::Saved { req, ok: true }).contains(&Output::Stopped));
    let msg = FromLedger::Ack(LedgerAck { ids: List::truncated([id]) });
    let out = b.input(Input::Ledger { conn, msg });
    assert!(out.contains(&Output::Stopped));
    let mut b = bench();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let out = b.input(Input::Shutdown);
    let req = saves(&out)[0].0;
    assert!(!b.input(Input::Saved { req, ok: true }).contains(&Output::Stopped));
    assert!(b.wait(secs(2)).contains(&Output::Stopped), "without a ledger it stops when its time is up");
}

#[test]
fn an_edge_without_a_ledger_records_nothing() {
    let mut cfg = Config::new(ROOT, fake_verify, cert(ServerRole::Edge, EDGE_KEY));
    cfg.ledger = false;
    let mut b = Bench::new(Edge::default(), cfg);
    b.input(Input::WallClock { unix_ms: 1_000_000 });
    assert!(issued(&ask(&mut b, asked())).is_some());
    serve(&mut b, Some(served_grant(1)), 0..100);
    assert!(b.wait(secs(100)).is_empty());
    assert!(b.input(Input::Shutdown).contains(&Output::Stopped));
}

#[test]
fn bytes_are_sent_only_after_their_reservation_is_durable() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1 << 20);
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    assert!(!out.contains(&counted(1)), "not reserved yet");
    assert_eq!((batch.counts[0].total_bytes, batch.counts[0].reserved), (0, 2 << 20));
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(1)));
    let out = serving(&mut b, 2, 1, 1 << 20);
    assert!(out.contains(&counted(2)), "what is reserved is sent at once, more is reserved ahead");
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    assert_eq!(batch.counts[0].reserved, 4 << 20);
    assert!(!serving(&mut b, 3, 1, 1 << 20).contains(&counted(3)), "that is not durable yet");
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(3)));
}

#[test]
fn bytes_reserved_and_not_counted_before_a_crash_are_unsure() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1 << 20);
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let counts = batch.counts.clone();
    b.input(Input::Saved { req, ok: true });
    serve(&mut b, Some(served_grant(1)), 0..100);
    // the edge crashes before it writes the count
    let (mut b, _) = with_ledger();
    b.input(Input::Restored { records: Vec::new(), counts });
    let out = b.wait(secs(2));
    let [(_, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let [LedgerRecord::Served(r)] = &batch.records[..] else { panic!("{batch:?}") };
    assert_eq!((as_counted(r).unique_bytes, r.total_bytes, r.unsure_bytes), (0, 0, 2 << 20));
    assert_eq!((batch.counts[0].reserved, batch.counts[0].unsure), (0, 2 << 20), "once");
}

/// Requests to send `bytes` bytes of download 1, and lets the write of its reservation succeed.
fn reserve(b: &mut Bench<Edge>, req: u64, bytes: u64) {
    let out = serving(b, req, 1, bytes);
    let [(save, _)] = saves(&out)[..] else { panic!("{out:?}") };
    assert!(b.input(Input::Saved { req: save, ok: true }).contains(&counted(req)));
}

/// Returns the reservation of the only count in the next flush, whose write succeeds.
fn reserved(b: &mut Bench<Edge>) -> u64 {
    let out = b.wait(secs(2));
    let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let [count] = &batch.counts[..] else { panic!("{batch:?}") };
    b.input(Input::Saved { req, ok: true });
    count.reserved
}

#[test]
fn what_was_reserved_ahead_is_released_once_all_is_sent() {
    let (mut b, _) = with_ledger();
    reserve(&mut b, 1, 8 << 20);
    serve(&mut b, Some(served_grant(1)), 0..7 << 20);
    assert!(reserved(&mut b) > 9 << 20, "a MiB is still to be sent");
    serve(&mut b, Some(served_grant(1)), 7 << 20..8 << 20);
    assert_eq!(reserved(&mut b), 9 << 20, "a little is kept for the next request");
}

#[test]
fn a_reservation_that_a_request_waits_for_is_not_released() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 64 << 20);
    let [(save, _)] = saves(&out)[..] else { panic!("{out:?}") };
    // more was sent than anybody has asked for
    serve(&mut b, Some(served_grant(1)), 0..64 << 20);
    assert!(reserved(&mut b) > 65 << 20);
    assert!(b.input(Input::Saved { req: save, ok: true }).contains(&counted(1)), "it would wait for ever");
}

#[test]
fn an_answer_slower_than_the_idle_time_keeps_its_reservation() {
    let (mut b, _) = with_ledger();
    reserve(&mut b, 1, 1 << 20);
    b.wait(b.cfg.idle_after * 3);
    assert_eq!(b.machine.counting(), 1, "a MiB may still be sent");
    b.input(Input::BytesNotSent { grant: served_grant(1), bytes: 1 << 20 });
    b.wait(b.cfg.idle_after);
    assert_eq!(b.machine.counting(), 0);
}

#[test]
fn a_download_is_not_over_before_the_ledger_has_its_record() {
    let (mut b, conn) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let (records, _) = flush(&mut b);
    for _ in 0..1_000 {
        b.wait(secs(10));
        b.input(Input::Ledger { conn, msg: FromLedger::Pong });
    }
    assert_eq!((b.machine.counting(), b.machine.records_waiting()), (1, 1));
    ack(&mut b, conn, records[0].id);
    b.wait(b.cfg.idle_after);
    assert_eq!(b.machine.counting(), 0);
}

#[test]
fn a_stopping_edge_releases_its_reservations() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1_000);
    let (req, batch) = saves(&out)[0];
    assert!(batch.counts[0].reserved >= 1 << 20);
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(1)));
    assert!(serving(&mut b, 2, 1, 1_000).contains(&counted(2)), "no wait for what is reserved");
    let served = served_grant(1);
    b.input(Input::BytesSent { grant: Some(served), version: V, provider: P, range: 0..400 });
    b.input(Input::BytesNotSent { grant: served, bytes: 1_600 });
    let out = b.input(Input::Shutdown);
    let last = saves(&out).into_iter().flat_map(|(_, batch)| &batch.counts).next_back().expect("a count");
    assert_eq!((last.total_bytes, last.reserved, last.unsure), (400, 400, 0));
}
