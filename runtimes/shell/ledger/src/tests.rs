//! The database: records are stored exactly once and durably, and reports follow the core's settlement.

use super::postgres::Postgres;
use super::*;
use data_encoding::HEXLOWER;
use futures_lite::future::block_on;
use std::collections::BTreeSet;
use swarmedge_core::accounting::evidence::key;
use swarmedge_core::accounting::logs::{Log, unsigned};
use swarmedge_core::ids::{DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, SecondaryGuid, VersionId};
use swarmedge_core::wire::records::{
    EdgeRecord, GrantRecord, LedgerRecord, LogEvent, LogRecord, Logged, Offered, OfferedPeer, PeerBytes, Receipt,
    ReceiptProof, Side, SignedHead, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Text, Wire as _};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::Key;
use swarmedge_ground::tls::CertAuthority;

pub(super) fn granted_on(day: Day, download: u32, provider: u32) -> LedgerRecord {
    grant(download, provider, "games/a.iso", day.end_ms() - 1_000)
}

pub(super) fn granted(download: u32, provider: u32, path: &str) -> LedgerRecord {
    grant(download, provider, path, u64::from(download))
}

fn grant(download: u32, provider: u32, path: &str, issued_ms: u64) -> LedgerRecord {
    LedgerRecord::Granted(GrantRecord {
        id: RecordId::numbered(1_000_000_000 + download),
        download: DownloadId::numbered(download),
        guid: Guid::numbered(1),
        download_key: download_key().public(),
        version: VersionId::numbered(9),
        size: 100,
        provider: ProviderId(provider),
        path: Text::new(path).expect("short"),
        issued_ms,
        max_peer_bytes: 100,
        challenged: false,
        proof: None,
    })
}

/// Makes a CN's log record of the introductions of a download.
pub(super) fn offered(download: u32, intros: &[u32]) -> LedgerRecord {
    let peer = |&n: &u32| OfferedPeer { intro: IntroId::numbered(n), upload_key: PublicKey::numbered(n) };
    let peers = List::truncated(intros.iter().map(peer));
    let id = RecordId::numbered(2_000_000_000 + download);
    let (download, version) = (DownloadId::numbered(download), VersionId::numbered(9));
    let event = LogEvent::Offered(Offered { download, version, peers });
    LedgerRecord::Log(LogRecord { id, at_ms: 1, guid: Guid::numbered(1), event })
}

/// Returns K_d, the same download key for every download in these tests.
fn download_key() -> Key {
    Key::from_seed([7; 32])
}

/// Makes a receipt for `bytes`, signed by the downloader.
fn proof(download: u32, intro: u32, bytes: u64) -> ReceiptProof {
    let uploader_key = PublicKey::numbered(intro);
    let receipt = Receipt {
        intro: IntroId::numbered(intro),
        download: DownloadId::numbered(download),
        version: VersionId::numbered(9),
        uploader_key,
        seq: 1,
        bytes,
    };
    let signature = download_key().sign(SigningContext::Receipt, &receipt.to_bytes());
    ReceiptProof { uploader_key, seq: 1, bytes, signature }
}

/// Returns a client's usage record of bytes by introduction.
fn usage(id: u32, download: u32, reporter: u32, seq: u32, peers: Vec<PeerBytes>) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(id),
        reporter: Guid::numbered(reporter),
        side: Side::Downloader,
        download: DownloadId::numbered(download),
        version: VersionId::numbered(9),
        seq,
        state: if seq > 1 { UsageState::Completed } else { UsageState::Running },
        edge_bytes: 30,
        peers: List::truncated(peers),
        elapsed_ms: 5,
        cause: None,
    }
}

fn peer(intro: u32, bytes: u64, receipt: Option<ReceiptProof>) -> PeerBytes {
    PeerBytes { intro: IntroId::numbered(intro), key: PublicKey::numbered(intro), bytes, receipt }
}

/// Returns a downloader's usage record.
pub(super) fn got(id: u32, download: u32, reporter: u32, seq: u32, peers: &[(u32, u64)]) -> LedgerRecord {
    let peers = peers.iter().map(|&(intro, bytes)| peer(intro, bytes, None)).collect();
    LedgerRecord::Usage(unsigned(usage(id, download, reporter, seq, peers)))
}

/// Returns an uploader's usage record, with receipts for all bytes.
pub(super) fn gave(id: u32, download: u32, reporter: u32, seq: u32, peers: &[(u32, u64)]) -> LedgerRecord {
    let peer = |&(intro, bytes)| peer(intro, bytes, Some(proof(download, intro, bytes)));
    let record = usage(id, download, reporter, seq, peers.iter().map(peer).collect());
    LedgerRecord::Usage(unsigned(UsageRecord { side: Side::Uploader, ..record }))
}

pub(super) fn edge(id: u32, download: Option<u32>, seq: u32, unique_bytes: u64) -> LedgerRecord {
    LedgerRecord::Edge(EdgeRecord {
        id: RecordId::numbered(id),
        edge: PublicKey::numbered(1),
        download: download.map(DownloadId::numbered),
        guid: download.map(|_| Guid::numbered(1)),
        version: VersionId::numbered(9),
        provider: ProviderId(7),
        seq,
        unique_bytes,
        total_bytes: unique_bytes + 1,
    })
}

pub(super) struct Fixture {
    _dir: Option<tempfile::TempDir>,
    pub(super) path: Database,
}

pub(super) fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    Fixture { path: dir.path().join("ledger.sqlite").into(), _dir: Some(dir) }
}

impl Fixture {
    fn store(&self, batches: &[&[LedgerRecord]]) {
        block_on(async {
            let mut store = Store::open(&self.path).await.expect("opens");
            for batch in batches {
                store.store(batch, 77).await.expect("stored");
            }
            store.close().await;
        });
    }

    pub(super) fn show(&self, filter: &Filter) -> Vec<DownloadUsage> {
        block_on(async { Reader::open(&self.path).await.expect("opens").downloads(filter).await.expect("read") })
    }
}

fn story() -> Vec<LedgerRecord> {
    vec![
        granted(1, 7, "a/b"),
        offered(1, &[1, 2]),
        got(1, 1, 1, 1, &[(1, 10)]),
        got(2, 1, 1, 2, &[(1, 40), (2, 30)]),
        gave(3, 1, 2, 1, &[(1, 45)]),
        gave(4, 1, 3, 1, &[(2, 30)]),
        edge(5, Some(1), 1, 10),
        edge(6, Some(1), 2, 30),
    ]
}

fn a_download_is_settled_from_the_newest_record_of_each_side(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&story()]);
    let all = ledger.show(&Filter::default());
    let [d] = &all[..] else { panic!("one download") };
    assert_eq!((d.provider, &d.path[..], d.size, d.state), (7, "a/b", 100, "completed"));
    assert_eq!((d.edge_unique, d.edge_total, d.peers_billed, d.flagged), (30, 31, 70, 5));
    let parts: Vec<_> = d.uploaders.iter().map(|u| (u.sent, u.received, u.agreed)).collect();
    assert_eq!(parts, [(45, 40, 40), (30, 30, 30)]);
}

fn repetition_and_order_over_restarts_make_no_difference(fixture: &mut dyn FnMut() -> Fixture) {
    let (once, again) = (fixture(), fixture());
    once.store(&[&story()]);
    let mut reversed = story();
    reversed.reverse();
    again.store(&[&reversed[..3], &story()]);
    again.store(&[&story(), &reversed]);
    assert_eq!(once.show(&Filter::default()), again.show(&Filter::default()));
}

/// Scenario: of three batches of records the second arrives, by the ledger's clock, shortly before the first.
fn a_clock_that_is_set_back_loses_no_record(fixture: &mut dyn FnMut() -> Fixture) {
    let (ledger, story, day) = (fixture(), story(), Day(20_000));
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        let (later, earlier) = (day.end_ms() + 1_000, day.end_ms() - 1_000);
        for (records, at_ms) in [(&story[..2], later), (&story[2..4], earlier), (&story[4..], later)] {
            store.store(records, at_ms).await.expect("stored");
        }
        store.close().await;
    });
    assert_eq!(ledger.show(&Filter::default())[0].peers_billed, 70);
}

/// Scenario: a downloader reports its end; later one batch says that it runs again and has ended again. The record
/// keys in the batch have either order.
fn a_final_report_dates_from_its_own_batch(fixture: &mut dyn FnMut() -> Fixture) {
    let said = |id, seq, state| {
        let LedgerRecord::Usage(r) = got(id, 1, 1, seq, &[(1, 40)]) else { panic!("usage") };
        LedgerRecord::Usage(unsigned(UsageRecord { state, ..r.record }))
    };
    let (day, hour_ms) = (Day(20_000), 3_600_000);
    for ids in [[11, 12], [12, 11]] {
        let ledger = fixture();
        let end = [granted_on(day, 1, 7), offered(1, &[1]), said(10, 1, UsageState::Failed)];
        let again = [said(ids[0], 2, UsageState::Running), said(ids[1], 3, UsageState::Completed)];
        let late = [gave(20, 1, 2, 1, &[(1, 40)])];
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            for (batch, hours) in [(&end[..], 0), (&again, 20), (&late, 30)] {
                store.store(batch, day.end_ms() + hours * hour_ms).await.expect("stored");
            }
            store.close().await;
        });
        assert_eq!(ledger.show(&Filter::default())[0].peers_billed, 40, "{ids:?}");
    }
}

fn reports_are_by_provider_object_and_download(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&[granted(1, 7, "a"), granted(2, 7, "b"), granted(3, 8, "a")]]);
    let found = |filter: Filter| ledger.show(&filter).iter().map(|d| d.issued_ms).collect::<Vec<_>>();
    assert_eq!(found(Filter::default()), [1, 2, 3]);
    assert_eq!(found(Filter { provider: Some(ProviderId(7)), ..Filter::default() }), [1, 2]);
    assert_eq!(found(Filter { path: Some("a".into()), ..Filter::default() }), [1, 3]);
    assert_eq!(found(Filter { download: Some(DownloadId::numbered(2)), ..Filter::default() }), [2]);
    assert_eq!(found(Filter { download: Some(DownloadId::numbered(9)), ..Filter::default() }), [0; 0]);
}

fn plain_traffic_is_reported_beside_downloads(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&[edge(1, None, 2, 50), edge(2, None, 1, 20), edge(3, Some(1), 1, 5)]]);
    let plain = block_on(async { Reader::open(&ledger.path).await.expect("opens").plain(None).await.expect("read") });
    let [p] = &plain[..] else { panic!("one version from one edge") };
    assert_eq!((p.provider, p.bytes), (7, 51));
}

/// Returns a usage record as the first of the log that start number `start` of client 1 began.
fn logged(id: u32, start: u32) -> LedgerRecord {
    let key = Key::from_seed([1; 32]);
    let record = UsageRecord { reporter: Guid::of(&key.public()), ..usage(id, 1, 1, 1, Vec::new()) };
    let head = Log::default().append(SecondaryGuid::numbered(start), &record);
    let signature = key.sign(SigningContext::LogHead, &head.to_bytes());
    LedgerRecord::Usage(Logged { record, head: SignedHead { head, key: key.public(), signature } })
}

/// Scenario: after a new start a client puts a record that the ledger has already into its new log.
fn each_log_head_is_stored_once_and_a_fork_is_proven(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let found = || {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            let forks = Reader::open(&ledger.path).await.expect("opens").forks().await.expect("read");
            (store.count_for_test("record").await, forks.len())
        })
    };
    let [first, anew] = [logged(1, 1), logged(1, 2)];
    for _ in 0..2 {
        ledger.store(&[std::slice::from_ref(&first)]);
        assert_eq!(found(), (1, 0), "a record with its head");
    }
    for _ in 0..2 {
        ledger.store(&[&[anew.clone(), first.clone()]]);
        assert_eq!(found(), (2, 0), "another head alone");
    }
    ledger.store(&[&[logged(2, 2)]]);
    assert_eq!(found(), (3, 1), "two records at one place of one log");
    let together = fixture();
    together.store(&[&[first, anew, logged(2, 2)]]);
    let forks = block_on(async { Reader::open(&together.path).await.expect("opens").forks().await.expect("read") });
    assert_eq!(forks.len(), 1, "in one batch");
}

fn a_batch_is_stored_whole_or_not_at_all(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&[granted(1, 7, "a")]]);
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        let mut other = Store::open(&ledger.path).await.expect("opens");
        // a table of the same name makes the second statement fail
        other.execute_for_test("DROP TABLE download").await;
        assert!(store.store(&[edge(9, Some(1), 1, 5), granted(2, 7, "b")], 0).await.is_err());
        assert_eq!(other.count_for_test("record").await, 1, "the first statement was undone");
    });
}

/// Rule: a record that the database refuses does not prevent the batch's other records from being stored.
fn a_refused_record_is_set_aside_and_holds_up_no_other(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&[]]);
    let refused = [gave(901, 1, 8, 1, &[]), gave(902, 2, 9, 1, &[])];
    let ids = refused.each_ref().map(|r| HEXLOWER.encode(&key(r).0));
    let refuse = match &ledger.path {
        Database::Sqlite(_) => format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON record WHEN hex(NEW.id) IN (upper('{}'), upper('{}'))
             BEGIN SELECT RAISE(ABORT, 'no'); END",
            ids[0], ids[1]
        ),
        Database::Postgres(_) => format!(
            "ALTER TABLE record ADD CONSTRAINT refuse CHECK (encode(id, 'hex') NOT IN ('{}', '{}'))",
            ids[0], ids[1]
        ),
    };
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.execute_for_test(&refuse).await;
        store.close().await;
    });
    let mut batch = story();
    batch.insert(3, refused[0].clone());
    batch.push(refused[1].clone());
    for _ in 0..2 {
        ledger.store(&[&batch]);
        assert_eq!(ledger.show(&Filter::default())[0].peers_billed, 70);
        let aside = block_on(async { Reader::open(&ledger.path).await.expect("opens").set_aside().await });
        let ids: Vec<_> = aside.expect("read").into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [RecordId::numbered(901), RecordId::numbered(902)]);
    }
}

#[test]
fn an_absent_or_foreign_database_is_one_clear_error() {
    let ledger = fixture();
    let absent = block_on(Reader::open(&ledger.path)).expect_err("absent").to_string();
    assert!(absent.contains("ledger.sqlite"), "{absent}");
    let Database::Sqlite(path) = &ledger.path else { panic!("a file") };
    std::fs::write(path, "this is no database, only text that is long enough to be read").expect("written");
    assert!(block_on(Store::open(&ledger.path)).is_err());
}

fn another_schema_version_is_refused_with_advice(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    ledger.store(&[&story()]);
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        let set = match &ledger.path {
            Database::Sqlite(_) => "PRAGMA user_version = 9",
            Database::Postgres(_) => "UPDATE ledger_version SET version = 9",
        };
        store.execute_for_test(set).await;
        store.close().await;
        let refusals = [Store::open(&ledger.path).await.map(|_| ()), Reader::open(&ledger.path).await.map(|_| ())];
        for error in refusals.map(|opened| opened.expect_err("another version").to_string()) {
            assert!(error.contains("schema version 9") && error.contains("use the program that wrote it"), "{error}");
        }
    });
}

/// Scenario: two days and two objects, with a download from peers, a failed one, one of another provider, and plain
/// HTTP traffic.
fn a_report_adds_up_by_day_and_object(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let day = Day(20_000);
    let records = [
        granted_on(day, 1, 7),
        offered(1, &[1]),
        got(1, 1, 1, 2, &[(1, 40)]),
        gave(2, 1, 2, 1, &[(1, 40)]),
        edge(3, Some(1), 1, 60),
        granted_on(day.next(), 2, 7),
        granted_on(day, 3, 8),
        edge(4, None, 1, 10),
    ];
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.store(&records, day.next().end_ms() - 1).await.expect("stored");
        store.close().await;
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        assert_eq!(reader.days_of(ProviderId(7)).await, Ok(Some((day, day.next()))));
        let report = reader.report(ProviderId(7), day, day.next().next()).await.expect("read");
        let t = &report.totals;
        assert_eq!((t.downloads, t.completed, t.unreported), (2, 1, 1));
        assert_eq!((t.edge_bytes, t.peer_bytes, t.plain_bytes), (60, 40, Some(11)));
        assert_eq!((t.peer_efficiency_permille, t.speed.downloads), (Some(400), 1));
        let days: Vec<_> = report.days.iter().map(|d| (d.figures.downloads, d.figures.peer_bytes)).collect();
        assert_eq!(days, [(1, 40), (1, 0), (0, 0)], "the last day had no traffic");
        let [object] = &report.objects[..] else { panic!("one object: {:?}", report.objects) };
        assert_eq!((&object.name[..], object.figures.downloads), ("games/a.iso", 2));
        assert_eq!(object.figures.plain_bytes, Some(11), "its version says whose it is");
        assert_eq!(report.countries[0].figures.plain_bytes, None, "nobody knows where browsers were");
        assert_eq!((report.speed_with_peers.downloads, report.speed_edge_only.downloads), (1, 0));
        assert_eq!(report.final_up_to, None);
    });
}

/// Scenario: an uploader's bytes are reported in part before its quarantine, in part during it, and again after it.
fn usage_reported_in_quarantine_is_not_billed(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let day = Day(20_000);
    let at = |s: u64| day.end_ms() - 100_000 + s * 1_000;
    let said = |id, seq, bytes| [got(id, 1, 1, seq, &[(1, bytes)]), gave(id + 1, 1, 2, seq, &[(1, bytes)])];
    let (suspect, stranger) = (BTreeSet::from([Guid::numbered(2)]), BTreeSet::from([Guid::numbered(77)]));
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.store(&[granted_on(day, 1, 7), offered(1, &[1])], at(0)).await.expect("stored");
        store.store(&said(10, 1, 20), at(1)).await.expect("stored");
        assert_eq!(quarantine::enter(&mut store, &suspect, "why not", at(2)).await.expect("put in").added, 1);
        let again = quarantine::enter(&mut store, &suspect, "again", at(3)).await.expect("put in");
        assert_eq!((again.added, again.already), (0, 1), "it is in it already");
        store.store(&said(20, 2, 40), at(4)).await.expect("stored");
        assert!(quarantine::release(&mut store, &stranger, at(5)).await.is_err());
        quarantine::release(&mut store, &suspect, at(5)).await.expect("let out");
        store.store(&said(30, 3, 50), at(6)).await.expect("stored");
        store.close().await;
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let [was] = &reader.quarantined().await.expect("read")[..] else { panic!("one") };
        assert_eq!((was.from_ms, was.until_ms, &was.reason[..]), (at(2), Some(at(5)), "why not"));
        assert_eq!(reader.in_quarantine().await, Ok(vec![]));
        // the downloader's grant is older than the quarantine
        let report = reader.report(ProviderId(7), day, day).await.expect("read");
        let t = &report.totals;
        assert_eq!((report.quarantine.downloads, t.peer_bytes, t.flagged_bytes), (0, 20, 30));
    });
    let lines = ledger.show(&Filter::default());
    assert_eq!((lines[0].peers_billed, lines[0].flagged), (20, 30));
}

/// Scenario: some clients entered quarantine a second before their downloads were granted, others never did.
fn a_report_counts_clients_in_quarantine(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let day = Day(20_000);
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        quarantine::enter(&mut store, &BTreeSet::from([Guid::numbered(1)]), "a clique", day.end_ms() - 2_000)
            .await
            .expect("in");
        let records = [granted_on(day, 1, 7), granted_on(day, 2, 7), granted_on(day, 3, 8)];
        store.store(&records, day.end_ms() - 1).await.expect("stored");
        store.close().await;
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        assert_eq!(reader.in_quarantine().await, Ok(vec![Guid::numbered(1)]));
        let report = reader.report(ProviderId(7), day, day).await.expect("read");
        assert_eq!((report.quarantine.clients, report.quarantine.downloads), (1, 2));
    });
}

type Rule = fn(&mut dyn FnMut() -> Fixture);

/// Tests that run on SQLite and PostgreSQL.
const RULES: &[Rule] = &[
    a_download_is_settled_from_the_newest_record_of_each_side,
    repetition_and_order_over_restarts_make_no_difference,
    a_clock_that_is_set_back_loses_no_record,
    a_final_report_dates_from_its_own_batch,
    reports_are_by_provider_object_and_download,
    plain_traffic_is_reported_beside_downloads,
    each_log_head_is_stored_once_and_a_fork_is_proven,
    a_batch_is_stored_whole_or_not_at_all,
    another_schema_version_is_refused_with_advice,
    a_refused_record_is_set_aside_and_holds_up_no_other,
    a_report_adds_up_by_day_and_object,
    usage_reported_in_quarantine_is_not_billed,
    a_report_counts_clients_in_quarantine,
    super::quarantine_tests::quarantine_follows_a_client_to_its_new_key,
    super::quarantine_tests::receipts_of_a_silent_downloader_in_quarantine_are_not_billed,
    super::quarantine_tests::quarantining_an_old_guid_includes_its_successor,
    super::quarantine_tests::a_client_with_too_many_keys_is_quarantined_all_the_same,
    super::quarantine_tests::new_keys_of_one_client_do_not_fill_the_quarantine,
    super::close_tests::closed_days_are_provable_and_never_change,
    super::close_tests::trimming_records_keeps_settled_figures,
    super::close_tests::a_download_ending_before_its_day_closes_still_gets_late_records,
    super::close_tests::replaced_records_are_stored_and_not_read_again,
    super::close_tests::record_ids_cannot_be_stolen_and_nothing_is_billed_twice,
    super::erase_tests::old_logins_lose_their_address_and_nothing_else,
    super::erase_tests::a_client_is_erased_and_closed_days_stay_as_they_are,
    super::suspects_tests::a_clique_and_a_fork_are_found_with_their_evidence,
    super::suspects_tests::blamed_copies_are_shown_with_their_accusers,
    super::suspects_tests::introductions_without_an_offer_are_found,
    super::suspects_tests::guids_without_any_record_are_found,
    super::suspects_tests::clients_that_report_less_than_they_receipted_are_found,
    super::suspects_tests::failed_possession_is_shown_without_accusation,
    super::report_tests::reports_of_closed_and_open_days_are_equal_to_the_byte,
    super::report_tests::synthetic_download_rows_are_reported,
    super::report_tests::countries_and_networks_add_up_to_the_whole,
    super::report_tests::a_client_in_two_places_at_once_is_found,
    super::report_tests::plain_traffic_of_unknown_objects_is_reported,
];

#[test]
fn every_rule_holds_on_sqlite() {
    for rule in RULES {
        rule(&mut fixture);
    }
}

#[test]
fn every_rule_holds_on_postgres_even_with_a_killed_server() {
    let Some(mut postgres) = Postgres::start() else { return };
    let mut made = 0;
    for rule in RULES {
        rule(&mut || {
            made += 1;
            Fixture { path: postgres.create(&format!("rule_{made}")).into(), _dir: None }
        });
    }
    killed_in_mid_batch(&mut postgres);
    tls_is_asked_for_and_checked(&mut postgres);
}

/// Rule: `sslmode` and `sslrootcert` in the URL are honoured; a server without TLS or with a foreign certificate is
/// refused.
fn tls_is_asked_for_and_checked(postgres: &mut Postgres) {
    let plain = postgres.create("encrypted");
    let open = |options: &str| {
        let database = Database::from(plain.replace("sslmode=disable", options));
        block_on(async { Ok::<_, Error>(database.open_writer().await?.is_encrypted_for_test().await) })
    };
    assert_eq!(open("sslmode=prefer"), Ok(false));
    let refused = open("sslmode=require").expect_err("no TLS").to_string();
    assert!(refused.contains("TLS"), "{refused}");
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, stranger) = (CertAuthority::new().expect("made"), CertAuthority::new().expect("made"));
    let (cert, key) = ca.issue(&["127.0.0.1"]).expect("issued");
    let [ours, other] = [("ca", &ca), ("other", &stranger)].map(|(name, ca)| {
        let path = dir.path().join(name);
        std::fs::write(&path, ca.cert_pem()).expect("written");
        format!("sslrootcert={}", path.display())
    });
    postgres.restart_with_tls(&cert, &key);
    assert_eq!(open("sslmode=disable"), Ok(false));
    assert_eq!(open("sslmode=require"), Ok(true), "whoever it is");
    assert_eq!(open(&format!("sslmode=verify-full&{ours}")), Ok(true));
    for wrong in [format!("sslmode=verify-full&{other}"), "sslmode=verify-full&sslrootcert=/absent".to_owned()] {
        let refused = open(&wrong).expect_err(&wrong).to_string();
        assert!(!refused.contains('\n'), "{refused}");
    }
    let (cert, key) = ca.issue(&["db.example"]).expect("issued");
    postgres.restart_with_tls(&cert, &key);
    assert!(open(&format!("sslmode=verify-full&{ours}")).is_err(), "another host's certificate");
    assert_eq!(open(&format!("sslmode=verify-ca&{ours}")), Ok(true), "but of the same authority");
}

/// Scenario: batches are stored one after another, each retried until it succeeds, while the server is killed and
/// restarted.
fn killed_in_mid_batch(postgres: &mut Postgres) {
    const DOWNLOADS: u32 = 2_000;
    let ledger = Fixture { path: postgres.create("killed").into(), _dir: None };
    let database = ledger.path.clone();
    let (tell, stored) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        block_on(async {
            let mut store = Store::open(&database).await.expect("opens");
            for first in (0..DOWNLOADS).step_by(50) {
                let batch: Vec<_> = (first..first + 50).flat_map(short_story).collect();
                while store.store(&batch, 77).await.is_err() {
                    let _ = tell.send(None);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                let _ = tell.send(Some(first));
            }
        });
    });
    let (mut killed, mut refused) = (0, 0);
    while let Ok(batch) = stored.recv() {
        refused += u32::from(batch.is_none());
        if batch.is_some_and(|first| first % 500 == 0) && killed < 3 {
            postgres.kill();
            postgres.run();
            killed += 1;
        }
    }
    writer.join().expect("stored");
    assert!(killed == 3 && refused > 0, "{killed} kills, {refused} refused batches");
    let all = ledger.show(&Filter::default());
    let sum = |of: fn(&DownloadUsage) -> u64| all.iter().map(of).sum::<u64>();
    assert_eq!(all.len(), DOWNLOADS as usize);
    assert_eq!((sum(|d| d.peers_billed), sum(|d| d.flagged)), (u64::from(DOWNLOADS) * 40, 0));
    let count = block_on(async { Store::open(&ledger.path).await.expect("opens").count_for_test("record").await });
    assert_eq!(count, i64::from(DOWNLOADS) * 4);
}

fn short_story(n: u32) -> [LedgerRecord; 4] {
    let id = 10_000 + n * 2;
    let peers = [(n, 40)];
    [granted(n, 7, "a"), offered(n, &[n]), got(id, n, 1, 2, &peers), gave(id + 1, n, 2, 1, &peers)]
}
