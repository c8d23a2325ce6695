//! Closed days: immutable, provable from the exported file alone, on either engine.

use super::close::Signer;
use super::tests::{Fixture, edge, granted_on, offered, usage};
use super::*;
use crate::keys::{Key, certify, verify};
use futures_lite::future::block_on;
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::audit::{Leaf, ProviderDay, Totals, check_days};
use swarmedge_core::ids::ProviderId;
use swarmedge_core::wire::Text;
use swarmedge_core::wire::records::{CertBody, LedgerRecord, ServerRole, Side};

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

/// `n` completed downloads of provider 7 on a day, one of provider 8, and plain traffic.
fn traffic(day: Day, n: u32) -> Vec<LedgerRecord> {
    let mut records =
        vec![granted_on(day, day.0 * 100 + 99, 8), edge(day.0 * 1_000 + 999, None, day.0, u64::from(day.0))];
    for d in (0..n).map(|i| day.0 * 100 + i) {
        let peers = [(d, 40)];
        records.extend([
            granted_on(day, d, 7),
            offered(d, &[d]),
            usage(d * 8, d, 1, Side::Downloader, 2, &peers),
            usage(d * 8 + 1, d, 2, Side::Uploader, 1, &peers),
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
        let closed = store.close_days(last, &signer(), last.end_ms() + 2 * DAY_MS).await.expect("closed");
        store.close().await;
        closed.len()
    })
}

/// Provider 7's days as they are read back from the file.
fn exported(ledger: &Fixture, days: std::ops::RangeInclusive<u32>) -> String {
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

/// Three days, the second without traffic.
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

    // late evidence for a closed day changes nothing there, and a late download counts when it has ended or expired
    let late = [
        usage(1, FIRST.0 * 100, 1, Side::Downloader, 9, &[(FIRST.0 * 100, 1)]),
        edge(2, Some(FIRST.0 * 100), 7, 99),
        granted_on(FIRST, FIRST.0 * 100 + 50, 7),
    ];
    store_on(&ledger, third.next(), &late);
    assert_eq!(exported(&ledger, FIRST.0..=third.0), text);
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

/// A ledger with what `write` writes, whose days are closed.
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
            let closed = store.close_days(last, signer, now_ms).await;
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
        // what is left without its first day is whole by itself
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
fn an_object_may_be_called_like_a_member_of_a_days_line() {
    let (_ledger, text) = honest();
    let days = export::from_lines(&text).expect("honest");
    for name in ["format", "\"format\"", "{\"format\":\"swarmedge-day/1\"}"] {
        let mut day = days[0].clone();
        let Some(Leaf::Capped(first)) = day.leaves.first_mut() else { panic!("a download") };
        first.of.path = Text::new(name).expect("short");
        let text = export::to_lines(&day).expect("text");
        assert_eq!(export::from_lines(&text), Ok(vec![day]), "{name}");
    }
}

#[test]
fn a_dropped_record_is_looked_for_at_its_days_line() {
    let (_ledger, text) = honest();
    let mut lines: Vec<&str> = text.lines().collect();
    let second = lines.iter().rposition(|line| line.contains("\"format\"")).expect("two days");
    lines.remove(second + 1);
    let wrong = export::from_lines(&lines.join("\n")).expect_err("one is missing");
    assert!(wrong.bent && wrong.why.contains("a record was dropped"), "{wrong:?}");
    assert_eq!(wrong.line, second + 1, "counted from 1");
}

pub(super) fn trimmed_records_leave_what_was_settled(fixture: &mut dyn FnMut() -> Fixture) {
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
            store.trim(Day(FIRST.0 + 100), keep).await.expect("trimmed");
            let mut counts = Vec::new();
            for table in ["record", "record_id", "evidence", "download"] {
                counts.push(store.count_for_test(table).await);
            }
            store.close().await;
            counts
        })
    };
    let of_a_day = i64::try_from(traffic(FIRST, 2).len()).expect("few");
    assert_eq!(counts(u32::MAX), [3 * of_a_day, 3 * of_a_day, 9, 9]);
    assert_eq!(counts(99), [2 * of_a_day, 2 * of_a_day, 6, 9], "of the first day nothing but what was settled");
    assert_eq!(counts(0), [of_a_day, of_a_day, 3, 9], "what an open day may need stays");
    assert_eq!(said(), before);
}
