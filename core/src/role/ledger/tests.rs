mod clauses;

use super::*;
use crate::accounting::certs::tests::{ROOT, cert, fake_sign, fake_verify};
use crate::accounting::logs::unsigned;
use crate::bench::Bench;
use crate::ids::{DownloadId, Guid, ProviderId, VersionId};
use crate::wire::Wire as _;
use crate::wire::records::{
    EdgeRecord, Grant, PossessionOutcome, PossessionRecord, Side, SignedGrant, SigningContext, UsageRecord, UsageState,
};
use alloc::vec;

const CN: ConnId = ConnId(1);
const EDGE: ConnId = ConnId(2);
const CN_KEY: PublicKey = PublicKey([1; 32]);
const EDGE_KEY: PublicKey = PublicKey([2; 32]);

/// Returns a ledger with a connected CN and edge.
fn bench() -> Bench<Ledger> {
    let mut b = Bench::new(Ledger::default(), Config::new(ROOT, fake_verify));
    b.input(Input::WallClock { unix_ms: 1_000_000 });
    for (conn, key, role) in [(CN, CN_KEY, ServerRole::Cn), (EDGE, EDGE_KEY, ServerRole::Edge)] {
        b.input(Input::Accepted { conn, key });
        assert!(b.input(Input::Server { conn, msg: ToLedger::Hello(cert(role, key)) }).is_empty());
    }
    b
}

fn usage(n: u32) -> LedgerRecord {
    LedgerRecord::Usage(unsigned(UsageRecord {
        id: RecordId::numbered(n),
        reporter: Guid::numbered(1),
        side: Side::Downloader,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        seq: n,
        state: UsageState::Running,
        edge_bytes: 0,
        peers: List::default(),
        elapsed_ms: 0,
        cause: None,
    }))
}

fn served(edge: PublicKey) -> LedgerRecord {
    LedgerRecord::Edge(EdgeRecord {
        id: RecordId::numbered(500),
        edge,
        download: None,
        guid: None,
        version: VersionId::numbered(1),
        provider: ProviderId(1),
        seq: 1,
        unique_bytes: 0,
        total_bytes: 1,
    })
}

fn submit(b: &mut Bench<Ledger>, conn: ConnId, record: LedgerRecord) -> Vec<Output> {
    b.input(Input::Server { conn, msg: ToLedger::Submit(record) })
}

/// Returns the request number and the number of records of the batch that is to be stored, if any.
fn batch(out: &[Output]) -> Option<(ReqId, usize)> {
    out.iter().find_map(|o| match o {
        Output::Store { req, records } => Some((*req, records.len())),
        Output::Send { .. } | Output::Close { .. } | Output::Count(_) | Output::Stopped => None,
    })
}

fn acked(out: &[Output]) -> Vec<(ConnId, Vec<RecordId>)> {
    out.iter()
        .filter_map(|o| match o {
            Output::Send { conn, msg: FromLedger::Ack(a) } => Some((*conn, a.ids.to_vec())),
            Output::Send { .. } | Output::Store { .. } | Output::Close { .. } | Output::Count(_) | Output::Stopped => {
                None
            }
        })
        .collect()
}

#[test]
fn records_are_batched_stored_and_acknowledged_to_their_senders() {
    let mut b = bench();
    assert_eq!(batch(&submit(&mut b, CN, usage(1))), None);
    submit(&mut b, EDGE, served(EDGE_KEY));
    let (req, n) = batch(&b.wait(Duration::from_millis(20))).expect("a batch");
    assert_eq!(n, 2);
    submit(&mut b, CN, usage(2));
    assert_eq!(batch(&b.wait(Duration::from_secs(1))), None, "one batch at a time");
    let out = b.input(Input::Stored { req, ok: true });
    assert_eq!(acked(&out), [(CN, vec![RecordId::numbered(1)]), (EDGE, vec![RecordId::numbered(500)])]);
    assert!(batch(&b.wait(Duration::from_millis(20))).is_some());
}

#[test]
fn a_full_batch_does_not_wait() {
    let mut b = bench();
    b.cfg.batch_max = 3;
    let out: Vec<_> = (0..3).flat_map(|n| submit(&mut b, CN, usage(n))).collect();
    assert_eq!(batch(&out).map(|(_, n)| n), Some(3));
}

#[test]
fn a_failed_batch_is_not_acknowledged_and_is_stored_again() {
    let mut b = bench();
    submit(&mut b, CN, usage(1));
    let (req, _) = batch(&b.wait(Duration::from_secs(1))).expect("a batch");
    assert!(acked(&b.input(Input::Stored { req, ok: false })).is_empty());
    assert_eq!(b.machine.waiting(), 1);
    let (again, n) = batch(&b.wait(Duration::from_secs(1))).expect("the batch again");
    assert_eq!(n, 1);
    assert!(acked(&b.input(Input::Stored { req, ok: true })).is_empty(), "an old answer is none");
    assert_eq!(acked(&b.input(Input::Stored { req: again, ok: true })).len(), 1);
}

#[test]
fn each_server_may_submit_only_its_kinds_of_records() {
    for (conn, record) in [(CN, served(CN_KEY)), (EDGE, usage(1)), (EDGE, served(CN_KEY))] {
        let out = submit(&mut bench(), conn, record);
        assert_eq!(out, [Output::Count(Metric::Violation), Output::Close { conn }]);
    }
}

#[test]
fn a_cns_grant_records_need_the_signed_grant() {
    let shown = |grant: Grant| {
        let signature = fake_sign(&EDGE_KEY, SigningContext::Grant, &grant.to_bytes());
        GrantRecord::shown(&SignedGrant { grant, signature, cert: cert(ServerRole::Edge, EDGE_KEY) })
    };
    let grant = crate::role::edge::tests::grant(1);
    let good = shown(grant.clone());
    let mut b = bench();
    submit(&mut b, CN, LedgerRecord::Granted(good.clone()));
    submit(&mut b, EDGE, LedgerRecord::Granted(GrantRecord::of(&grant)));
    let out = b.wait(Duration::from_secs(1));
    let stored =
        out.iter().find_map(|o| if let Output::Store { records, .. } = o { Some(records.clone()) } else { None });
    let plain = LedgerRecord::Granted(GrantRecord::of(&grant));
    assert_eq!(stored, Some(vec![plain.clone(), plain]), "the same, whoever tells of it");
    let forged = Grant { max_peer_bytes: 1 << 40, ..grant.clone() };
    let wider = GrantRecord { max_peer_bytes: 1 << 40, ..good.clone() };
    let unsigned =
        GrantRecord { proof: good.proof.clone().map(|p| SignedGrant { grant: forged, ..p }), ..wider.clone() };
    for (who, bad) in [(CN, GrantRecord::of(&grant)), (CN, wider), (CN, unsigned), (EDGE, good)] {
        let mut b = bench();
        assert!(submit(&mut b, who, LedgerRecord::Granted(bad)).contains(&Output::Close { conn: who }));
    }
}

#[test]
fn a_connection_without_a_certificate_is_closed() {
    let conn = ConnId(9);
    let key = PublicKey::numbered(9);
    for msg in [
        ToLedger::Submit(usage(1)),
        ToLedger::Hello(cert(ServerRole::Cn, CN_KEY)),
        ToLedger::Hello(cert(ServerRole::Dn, key)),
        ToLedger::Ping,
    ] {
        let mut b = bench();
        b.input(Input::Accepted { conn, key });
        assert!(b.input(Input::Server { conn, msg }).contains(&Output::Close { conn }));
    }
    let mut b = bench();
    b.input(Input::Accepted { conn, key });
    assert_eq!(b.wait(Duration::from_secs(5)), [Output::Close { conn }], "silence is no hello");
}

#[test]
fn records_beyond_the_limit_are_dropped_without_acknowledgement() {
    let mut b = bench();
    b.cfg.pending_max = 1;
    submit(&mut b, CN, usage(1));
    assert!(submit(&mut b, CN, usage(2)).contains(&Output::Count(Metric::Deferred)));
    assert_eq!(b.machine.waiting(), 1);
}

#[test]
fn a_stopping_ledger_stores_queued_records_and_accepts_no_more() {
    let mut b = bench();
    submit(&mut b, CN, usage(1));
    let (req, _) = batch(&b.input(Input::Shutdown)).expect("a batch");
    submit(&mut b, CN, usage(2));
    let out = b.input(Input::Stored { req, ok: true });
    assert_eq!(acked(&out).len(), 1);
    assert_eq!(out.last(), Some(&Output::Stopped));
    assert_eq!(bench().input(Input::Shutdown).last(), Some(&Output::Stopped), "nothing to store");
}

#[test]
fn a_stopping_ledger_stops_even_if_its_store_fails() {
    let mut b = bench();
    submit(&mut b, CN, usage(1));
    let (req, _) = batch(&b.input(Input::Shutdown)).expect("a batch");
    let out = b.input(Input::Stored { req, ok: false });
    assert!(acked(&out).is_empty() && out.contains(&Output::Stopped));
}

/// Returns the number of pages, and the GUIDs, of the quarantine list that is sent to a server; `None` if none is
/// sent.
fn quarantine_sent(out: &[Output], to: ConnId) -> Option<(usize, Vec<Guid>)> {
    let page = |o: &Output| match o {
        Output::Send { conn, msg: FromLedger::Quarantine(page) } if *conn == to => Some(page.clone()),
        _ => None,
    };
    let pages: Vec<QuarantinePage> = out.iter().filter_map(page).collect();
    let last = pages.last()?.last;
    assert!(last && pages.iter().filter(|p| p.last).count() == 1, "the last page says so");
    Some((pages.len(), pages.iter().flat_map(|p| p.guids.iter().copied()).collect()))
}

#[test]
fn cns_get_the_quarantine_list_on_change_and_on_connect() {
    let mut b = bench();
    let guids: Vec<Guid> = (0..1_500).map(Guid::numbered).collect();
    let out = b.input(Input::Quarantined { guids: guids.clone() });
    assert_eq!(quarantine_sent(&out, CN), Some((2, guids.clone())));
    assert_eq!(quarantine_sent(&out, EDGE), None, "edges serve everybody");
    assert!(b.input(Input::Quarantined { guids: guids.clone() }).is_empty(), "only changes are sent");
    let later = ConnId(3);
    b.input(Input::Accepted { conn: later, key: CN_KEY });
    let hello = ToLedger::Hello(cert(ServerRole::Cn, CN_KEY));
    assert_eq!(quarantine_sent(&b.input(Input::Server { conn: later, msg: hello }), later), Some((2, guids)));
    let out = b.input(Input::Quarantined { guids: vec![] });
    assert_eq!(
        (quarantine_sent(&out, CN), quarantine_sent(&out, later)),
        (Some((1, vec![])), Some((1, vec![]))),
        "an empty list, too"
    );
}

#[test]
fn the_quarantine_list_is_bounded() {
    let mut b = bench();
    let most = u32::try_from(QUARANTINED_MAX).expect("small");
    let out = b.input(Input::Quarantined { guids: (0..=most).map(Guid::numbered).collect() });
    assert_eq!(quarantine_sent(&out, CN).map(|(pages, all)| (pages, all.len())), Some((64, QUARANTINED_MAX)));
}

#[test]
fn cns_are_told_of_a_blamed_clients_proof_once_it_is_durable() {
    let proof = |outcome| {
        let (id, download) = (RecordId::numbered(1), DownloadId::numbered(1));
        let (guid, version) = (Guid::numbered(2), VersionId::numbered(3));
        let edge = EDGE_KEY;
        LedgerRecord::Possession(PossessionRecord { id, edge, download, guid, version, outcome, at_ms: 1 })
    };
    let told = |outcome, ok| {
        let mut b = bench();
        submit(&mut b, EDGE, proof(outcome));
        let (req, _) = batch(&b.wait(Duration::from_secs(1))).expect("a batch");
        let out = b.input(Input::Stored { req, ok });
        let tells = |o: &&Output| matches!(o, Output::Send { conn: CN, msg: FromLedger::Proven(_) });
        let edges = |o: &&Output| matches!(o, Output::Send { conn: EDGE, msg: FromLedger::Proven(_) });
        assert_eq!(out.iter().filter(edges).count(), 0);
        out.iter().filter(tells).count()
    };
    assert_eq!(told(PossessionOutcome::Rechecked, true), 1);
    assert_eq!(told(PossessionOutcome::Rechecked, false), 0, "not durable");
    assert_eq!(told(PossessionOutcome::Passed, true), 0, "nobody has blamed it");
}
