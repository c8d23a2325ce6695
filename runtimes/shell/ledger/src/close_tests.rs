//! Closed days are immutable and provable from the exported file alone, in SQLite and PostgreSQL.

use super::close::Signer;
use super::tests::{Fixture, edge, gave, got, granted_on, offered};
use super::*;
use futures_lite::future::block_on;
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::audit::settled::{Doubt, Proven, Settled};
use swarmedge_core::accounting::audit::{DownloadStatement, Leaf, ProviderDay, Totals, check_days};
use swarmedge_core::accounting::evidence::digest_of;
use swarmedge_core::accounting::logs::unsigned;
use swarmedge_core::ids::{Guid, IntroId, ProviderId};
use swarmedge_core::wire::records::{CertBody, LedgerRecord, ServerRole, Side, UsageRecord};
use swarmedge_core::wire::{List, Text};
use swarmedge_ground::keys::{Key, certify, verify};

const DAY_MS: u64 = 24 * 3600 * 1000;
const FIRST: Day = Day(20_000);

fn root() -> Key {
    Key::from_seed([1; 32])
}

fn trust() -> Trust {
    Trust { root: root().public(), verify }
}

fn signer() -> Signer {
    signer_until(u64::MAX)
}

fn signer_until(not_after_ms: u64) -> Signer {
    let key = Key::from_seed([2; 32]);
    let body = CertBody {
        role: ServerRole::Ledger,
        name: Text::new("ledger-1").expect("short"),
        key: key.public(),
        not_before_ms: 0,
        not_after_ms,
    };
    Signer::new(key, certify(&root(), body))
}

/// Audits the exported evidence of provider 7's closed days.
pub(super) fn proven(ledger: &Fixture, days: std::ops::RangeInclusive<u32>) -> Result<Proven, String> {
    let mut all = Proven::default();
    for (settled, statement, closed_ms) in evidence(ledger, days)? {
        let proven = settled.check(verify, &statement, closed_ms);
        let proven = proven.map_err(|doubt| format!("{}: {doubt:?}", statement.download))?;
        all.receipts += proven.receipts;
        all.peer_bytes += proven.peer_bytes;
    }
    Ok(all)
}

type Shown = (Settled, DownloadStatement, u64);

fn evidence(ledger: &Fixture, days: std::ops::RangeInclusive<u32>) -> Result<Vec<Shown>, String> {
    block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let mut all = Vec::new();
        for day in days.map(Day) {
            let closed = reader.provider_day(ProviderId(7), day).await.expect("closed");
            let mut lines = Vec::new();
            let write = |line: &str| {
                lines.push(line.to_owned());
                Ok(())
            };
            reader.evidence(&closed, write).await.map_err(|e| e.to_string())?;
            let downloads: Vec<_> = closed.leaves.iter().filter_map(Leaf::download).collect();
            assert_eq!(lines.len(), downloads.len());
            for (line, statement) in lines.iter().zip(downloads) {
                let settled = super::evidence::from_line(line).expect("a line");
                all.push((settled, statement.clone(), closed.head.head.closed_ms));
            }
        }
        Ok(all)
    })
}

/// Makes the records of `n` completed downloads of provider 7 on a day, of one of provider 8, and of plain HTTP
/// traffic.
pub(super) fn traffic(day: Day, n: u32) -> Vec<LedgerRecord> {
    let mut records =
        vec![granted_on(day, day.0 * 100 + 99, 8), edge(day.0 * 1_000 + 999, None, day.0, u64::from(day.0))];
    for d in (0..n).map(|i| day.0 * 100 + i) {
        let peers = [(d, 40)];
        records.extend([
            granted_on(day, d, 7),
            offered(d, &[d]),
            got(d * 8, d, 1, 2, &peers),
            gave(d * 8 + 1, d, 2, 1, &peers),
            edge(d * 8 + 2, Some(d), 1, 60),
        ]);
    }
    records
}

pub(super) fn store_on(ledger: &Fixture, day: Day, records: &[LedgerRecord]) {
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.store(records, day.end_ms() - 5).await.expect("stored");
        store.close().await;
    });
}

pub(super) fn close_up_to(ledger: &Fixture, last: Day) -> usize {
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        let closed = close::close_days(&mut store, last, &signer(), last.end_ms() + 2 * DAY_MS).await.expect("closed");
        store.close().await;
        closed.len()
    })
}

/// Returns provider 7's closed days as exported JSON lines.
pub(super) fn exported(ledger: &Fixture, days: std::ops::RangeInclusive<u32>) -> String {
    block_on(async {
        let mut reader = Reader::open(&ledger.path).await.expect("opens");
        let mut text = String::new();
        for day in days.map(Day) {
            text += &export::to_lines(&reader.provider_day(ProviderId(7), day).await.expect("closed")).expect("text");
        }
        text
    })
}

fn audit(text: &str) -> Result<Totals, String> {
    let days: Vec<ProviderDay> = export::from_lines(text).map_err(|e| format!("{}: {}", e.line, e.why))?;
    check_days(&trust(), &days).map_err(|(at, finding)| format!("day {at}: {finding:?}"))
}

/// Scenario: three days are closed, of which the second has no traffic.
pub(super) fn closed_days_are_provable_and_never_change(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    store_on(&ledger, FIRST, &traffic(FIRST, 3));
    let third = FIRST.next().next();
    store_on(&ledger, third, &traffic(third, 2));
    assert_eq!(close_up_to(&ledger, third), 3);
    assert_eq!(close_up_to(&ledger, third), 0, "once");
    let text = exported(&ledger, FIRST.0..=third.0);
    let expected = Totals { downloads: 5, completed: 5, edge_bytes: 300, peer_bytes: 200, plain_bytes: 20_003 };
    assert_eq!(audit(&text), Ok(expected));
    let receipts = || proven(&ledger, FIRST.0..=third.0).map(|p| (p.receipts, p.peer_bytes));
    assert_eq!(receipts(), Ok((5, 200)));

    // late records change nothing on a closed day; a late download counts on the day it ends or expires
    let late = [
        got(1, FIRST.0 * 100, 1, 9, &[(FIRST.0 * 100, 1)]),
        edge(2, Some(FIRST.0 * 100), 7, 99),
        granted_on(FIRST, FIRST.0 * 100 + 50, 7),
    ];
    store_on(&ledger, third.next(), &late);
    assert_eq!(exported(&ledger, FIRST.0..=third.0), text);
    assert_eq!(receipts(), Ok((5, 200)));
    let show = ledger.show(&Filter {
        download: Some(swarmedge_core::ids::DownloadId::numbered(FIRST.0 * 100)),
        ..Filter::default()
    });
    assert_eq!((show[0].edge_unique, show[0].peers_billed), (60, 40));
    assert_eq!(close_up_to(&ledger, third.next()), 1);
    let all = audit(&exported(&ledger, FIRST.0..=third.next().0)).expect("honest");
    assert_eq!((all.downloads, all.peer_bytes), (5, 200), "one that may still end is carried over");
    assert_eq!(close_up_to(&ledger, Day(FIRST.0 + 35)), 32);
    let all = audit(&exported(&ledger, FIRST.0..=FIRST.0 + 35)).expect("honest");
    assert_eq!((all.downloads, all.peer_bytes), (6, 200), "until it expires");
}

/// Makes a ledger of the records that `write` stores, with all days up to `last` closed.
pub(super) fn honest_with(write: impl FnOnce(&Fixture), last: Day) -> Fixture {
    let ledger = super::tests::fixture();
    write(&ledger);
    close_up_to(&ledger, last);
    ledger
}

fn honest() -> (Fixture, String) {
    let ledger = super::tests::fixture();
    for day in [FIRST, FIRST.next()] {
        store_on(&ledger, day, &traffic(day, 2));
    }
    close_up_to(&ledger, FIRST.next());
    let text = exported(&ledger, FIRST.0..=FIRST.0 + 1);
    assert!(audit(&text).is_ok());
    (ledger, text)
}

#[test]
fn a_day_is_not_closed_under_a_certificate_that_has_expired() {
    let ledger = super::tests::fixture();
    store_on(&ledger, FIRST, &traffic(FIRST, 1));
    let now_ms = FIRST.end_ms() + 2 * DAY_MS;
    let close = |last: Day, signer: &Signer| {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            let closed = close::close_days(&mut store, last, signer, now_ms).await;
            store.close().await;
            closed
        })
    };
    let error = close(FIRST, &signer_until(now_ms)).expect_err("no audit would believe it").to_string();
    assert!(error.contains("expired") && error.contains("certificates renew"), "{error}");
    assert_eq!(close(FIRST, &signer_until(now_ms + 1)).expect("still valid").len(), 1, "nothing was closed before");
    assert!(audit(&exported(&ledger, FIRST.0..=FIRST.0)).is_ok());
    assert_eq!(close(FIRST, &signer_until(now_ms)), Ok(Vec::new()), "there is nothing to sign");
}

#[test]
fn every_changed_byte_of_an_exported_file_is_found() {
    let (_ledger, text) = honest();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let changed = String::from_utf8(bytes).expect("still ASCII");
        let line = text[..at].lines().count();
        assert!(audit(&changed).is_err(), "byte {at}, about line {line}: {:?}", &text[at.saturating_sub(20)..=at]);
    }
}

#[test]
fn a_dropped_an_added_and_a_moved_line_and_a_replaced_day_are_found() {
    let (_ledger, text) = honest();
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.join("\n");
    for at in 0..lines.len() - 1 {
        let mut dropped = lines.clone();
        dropped.remove(at);
        // dropping all lines of the first day is not tried: the remaining days are valid by themselves
        assert!(audit(&joined(&dropped)).is_err(), "line {at} dropped");
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert!(audit(&joined(&doubled)).is_err(), "line {at} twice");
        let mut swapped = lines.clone();
        swapped.swap(at, at + 1);
        assert!(audit(&joined(&swapped)).is_err(), "line {at} moved");
    }
    let other = super::tests::fixture();
    store_on(&other, FIRST, &traffic(FIRST, 3));
    store_on(&other, FIRST.next(), &traffic(FIRST.next(), 2));
    close_up_to(&other, FIRST.next());
    let days =
        [exported(&other, FIRST.0..=FIRST.0), text[text.find("\n{\"format\"").expect("two days") + 1..].to_owned()];
    assert!(audit(&days[0]).is_ok() && audit(&days[1]).is_ok(), "each is signed");
    assert_eq!(audit(&days.concat()), Err("day 1: Replaced".into()));
}

#[test]
fn an_object_path_may_equal_a_json_member_name() {
    let (_ledger, text) = honest();
    let days = export::from_lines(&text).expect("honest");
    for name in ["format", "\"format\"", "{\"format\":\"swarmedge-day/1\"}"] {
        let mut day = days[0].clone();
        let Some(Leaf::Download(first)) = day.leaves.first_mut() else { panic!("a download") };
        first.path = Text::new(name).expect("short");
        let text = export::to_lines(&day).expect("text");
        assert_eq!(export::from_lines(&text), Ok(vec![day]), "{name}");
    }
}

#[test]
fn a_dropped_statement_is_reported_at_its_days_line() {
    let (_ledger, text) = honest();
    let mut lines: Vec<&str> = text.lines().collect();
    let second = lines.iter().rposition(|line| line.contains("\"format\"")).expect("two days");
    lines.remove(second + 1);
    let wrong = export::from_lines(&lines.join("\n")).expect_err("one is missing");
    assert!(wrong.count_differs && wrong.why.contains("a record was dropped"), "{wrong:?}");
    assert_eq!(wrong.line, second + 1, "counted from 1");
}

pub(super) fn trimming_records_keeps_settled_figures(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let (last, recent) = (Day(FIRST.0 + 40), Day(FIRST.0 + 60));
    for day in [FIRST, FIRST.next(), recent] {
        store_on(&ledger, day, &traffic(day, 2));
    }
    close_up_to(&ledger, last);
    let said = || {
        let report = block_on(async {
            let mut reader = Reader::open(&ledger.path).await.expect("opens");
            reader.report(ProviderId(7), FIRST, recent).await.expect("read")
        });
        (exported(&ledger, FIRST.0..=last.0), serde_json::to_string(&report).expect("text"))
    };
    let before = said();
    let counts = |keep: u32| {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            close::trim(&mut store, Day(FIRST.0 + 100), keep).await.expect("trimmed");
            let mut counts = Vec::new();
            for table in ["record", "record_id", "evidence", "download"] {
                counts.push(store.count_for_test(table).await);
            }
            store.close().await;
            counts
        })
    };
    let of_a_day = i64::try_from(traffic(FIRST, 2).len()).expect("few");
    // of each usage record the head has an id too
    let (records, ids) = (|days: i64| days * of_a_day, |days: i64| days * (of_a_day + 4));
    assert_eq!(counts(u32::MAX), [records(3), ids(3), 9, 9]);
    assert_eq!(counts(99), [records(2), ids(2), 6, 9], "of the first day nothing but what was settled");
    assert_eq!(counts(0), [records(1), ids(1), 3, 9], "what an open day may need stays");
    assert_eq!(said(), before);
}

/// Changes each part of a download's exported evidence in turn and expects the audit to find the change.
#[test]
fn any_tampering_with_evidence_is_found() {
    let (ledger, _) = honest();
    let (honest, statement, closed_ms) = evidence(&ledger, FIRST.0..=FIRST.0).expect("there").remove(0);
    let check = |settled: &Settled, of: &DownloadStatement| settled.check(verify, of, closed_ms);
    assert_eq!(check(&honest, &statement).map(|p| (p.receipts, p.worthless, p.peer_bytes)), Ok((1, 0, 40)));
    for at in 0..honest.records.len() {
        let mut dropped = honest.clone();
        let (came_ms, record) = dropped.records.remove(at);
        assert_eq!(check(&dropped, &statement), Err(Doubt::Records));
        dropped.records.extend([(came_ms, record.clone()), (came_ms, record)]);
        assert_eq!(check(&dropped, &statement), Err(Doubt::Records), "one is added");
        let mut later = honest.clone();
        later.records[at].0 += 1;
        assert_eq!(check(&later, &statement), Err(Doubt::Records));
    }
    let uploader = |r: &&mut (u64, LedgerRecord)| r.1.usage().is_some_and(|u| u.side == Side::Uploader);
    let mut bent = honest.clone();
    let Some((_, LedgerRecord::Usage(sent))) = bent.records.iter_mut().find(uploader) else { panic!("it has one") };
    let mut peers = sent.record.peers.iter().cloned().collect::<Vec<_>>();
    if let Some(receipt) = &mut peers[0].receipt {
        receipt.bytes -= 1;
    }
    sent.record.peers = List::truncated(peers);
    assert_eq!(check(&bent, &statement), Err(Doubt::Receipt(IntroId::numbered(FIRST.0 * 100))));
    // a lying ledger can sign any statement, but cannot forge receipts
    let evidence = digest_of(bent.records.iter().map(|(came, r)| (*came, r)));
    let lie = DownloadStatement { evidence, ..statement.clone() };
    assert_eq!(check(&bent, &lie), Err(Doubt::Beyond { billed: 40, proven: 0 }));
    let beyond = DownloadStatement { peer_bytes: 41, ..statement.clone() };
    assert_eq!(check(&honest, &beyond), Err(Doubt::Beyond { billed: 41, proven: 40 }));
    for other in [
        DownloadStatement { edge_bytes: 61, ..statement.clone() },
        DownloadStatement { peer_bytes: 39, ..statement.clone() },
        DownloadStatement { flagged_bytes: 1, ..statement.clone() },
    ] {
        assert_eq!(check(&honest, &other), Err(Doubt::Figures));
    }
    let foreign = DownloadStatement { provider: ProviderId(8), ..statement };
    assert_eq!(check(&honest, &foreign), Err(Doubt::Ungranted));
}

/// Scenario: a download that was granted on the first day ends an hour before that day may be closed; its uploader
/// reports ten hours later.
pub(super) fn a_download_ending_before_its_day_closes_still_gets_late_records(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let (download, hour) = (FIRST.0 * 100, DAY_MS / 24);
    let closing = Day(FIRST.0 + 2).end_ms();
    let peers = [(download, 40)];
    let [received, sent, late] =
        [got(1, download, 1, 2, &peers), gave(2, download, 2, 1, &peers), gave(3, download, 2, 2, &[(download, 41)])];
    store_on(&ledger, FIRST, &[granted_on(FIRST, download, 7), offered(download, &[download])]);
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.store(&[received], closing - hour).await.expect("stored");
        close::close_days(&mut store, FIRST, &signer(), closing).await.expect("closed");
        store.store(&[sent], closing + 10 * hour).await.expect("stored");
        store.store(&[late], closing + 23 * hour).await.expect("stored");
        close::close_days(&mut store, FIRST.next(), &signer(), closing + DAY_MS).await.expect("closed");
        store.close().await;
    });
    let total = |day: u32| audit(&exported(&ledger, day..=day)).map(|t| (t.downloads, t.peer_bytes));
    assert!(total(FIRST.0).is_err(), "the provider has nothing to be billed yet");
    assert_eq!(total(FIRST.0 + 1), Ok((1, 40)));
    assert_eq!(proven(&ledger, FIRST.0 + 1..=FIRST.0 + 1).map(|p| p.receipts), Ok(1));
}

/// Rule: settlement never again reads records that later ones replaced, nor records of downloads on closed days.
pub(super) fn replaced_records_are_stored_and_not_read_again(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let download = FIRST.0 * 100;
    let counts = || {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            let read = store.count_for_test("record WHERE download IS NOT NULL").await;
            (store.count_for_test("record").await, read)
        })
    };
    let mut at_ms = FIRST.end_ms() - 100_000;
    let mut writer = block_on(Store::open(&ledger.path)).expect("opens");
    let mut store = |records: &[LedgerRecord], after_ms: u64| {
        at_ms += after_ms;
        block_on(writer.store(records, at_ms)).expect("stored");
    };
    let running = |seq: u32| gave(seq, download, 2, seq, &[(download, 1 + u64::from(seq))]);
    // records before the grant are not settled nor read; the grant's arrival reads them once
    for seq in 1..=20 {
        store(&[running(seq)], 1);
    }
    assert_eq!(counts(), (20, 20));
    store(&[granted_on(FIRST, download, 7), offered(download, &[download])], 1);
    assert_eq!(counts(), (22, 4), "the first, the newest, grant and offer");
    for seq in 21..=39 {
        store(&[running(seq), running(60 - seq)], 1);
    }
    store(&[got(99, download, 1, 2, &[(download, 40)])], 1);
    assert_eq!(counts().1, 5);
    assert_eq!(ledger.show(&Filter::default())[0].peers_billed, 40);

    // broken bodies of such records go unnoticed, so they were not read
    block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.execute_for_test("UPDATE record SET body = substr(body, 1, 1)").await;
        store.close().await;
    });
    let before = counts().0;
    store(&[running(90), running(91)], 2 * DAY_MS);
    close_up_to(&ledger, FIRST);
    store(&[running(92), edge(93, Some(download), 1, 9)], 1);
    assert_eq!(counts(), (before + 4, 5));
    assert_eq!(audit(&exported(&ledger, FIRST.0..=FIRST.0)).map(|t| t.peer_bytes), Ok(40));
}

/// Scenario: a client sends a usage record with the id of a grant's record before the grant's record arrives.
pub(super) fn record_ids_cannot_be_stolen_and_nothing_is_billed_twice(fixture: &mut dyn FnMut() -> Fixture) {
    let ledger = fixture();
    let day = traffic(FIRST, 1);
    let grant = day.iter().find(|r| matches!(r, LedgerRecord::Granted(g) if g.provider == ProviderId(7)));
    let id = grant.expect("there is one").id();
    let LedgerRecord::Usage(r) = gave(1, FIRST.0 * 100, 3, 1, &[]) else { panic!("usage") };
    store_on(&ledger, FIRST, &[LedgerRecord::Usage(unsigned(UsageRecord { id, ..r.record.clone() }))]);
    store_on(
        &ledger,
        FIRST,
        &[LedgerRecord::Usage(unsigned(UsageRecord { id, reporter: Guid::numbered(4), ..r.record }))],
    );
    store_on(&ledger, FIRST, &day);
    let filter = Filter { provider: Some(ProviderId(7)), ..Filter::default() };
    assert_eq!(ledger.show(&filter)[0].peers_billed, 40);
    let store_late = |records: &[LedgerRecord]| {
        block_on(async {
            let mut store = Store::open(&ledger.path).await.expect("opens");
            store.store(records, FIRST.end_ms() - 4).await.expect("stored");
            store.close().await;
        });
    };
    for _ in 0..2 {
        store_late(&day);
        assert_eq!((ledger.show(&filter)[0].peers_billed, ledger.show(&filter)[0].flagged), (40, 0));
    }
    // newer records replace the old ones
    let peers = [(FIRST.0 * 100, 40)];
    let more = [got(7_001, FIRST.0 * 100, 1, 5, &peers), gave(7_002, FIRST.0 * 100, 2, 5, &peers)];
    store_late(&more);
    assert_eq!(ledger.show(&filter)[0].peers_billed, 40);
    let read = block_on(async {
        let mut store = Store::open(&ledger.path).await.expect("opens");
        store.count_for_test("record WHERE download IS NOT NULL AND kind IN (1, 2)").await
    });
    assert_eq!(read, 5, "of each reporter the newest, and the downloader's first last word");
}
