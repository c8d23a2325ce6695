//! Tests that records which [`Evidence`] drops change no bill, and that the number of reporters limits the number of
//! records that it keeps.

mod clauses;

use super::*;
use crate::accounting::certs::tests::{fake_sign, fake_verify};
use crate::accounting::logs::unsigned;
use crate::accounting::settlement::LATE_MS;
use crate::ids::{DownloadId, IntroId, ProviderId, VersionId};
use crate::wire::records::{
    EdgeRecord, GrantRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt, ReceiptProof,
    SigningContext, UsageRecord,
};
use crate::wire::{List, Text};
use alloc::string::String;
use proptest::prelude::*;

const D: DownloadId = DownloadId([1; 16]);
const V: VersionId = VersionId([2; 32]);
const K_D: PublicKey = PublicKey([3; 32]);
const INTRO: IntroId = IntroId([4; 16]);

fn granted() -> LedgerRecord {
    granted_to(1, 5)
}

fn granted_to(guid: u32, issued_ms: u64) -> LedgerRecord {
    LedgerRecord::Granted(GrantRecord {
        id: RecordId::numbered(1),
        download: D,
        guid: Guid::numbered(guid),
        download_key: K_D,
        version: V,
        size: 1_000,
        provider: ProviderId(1),
        path: Text::default(),
        issued_ms,
        max_peer_bytes: 1_000,
        challenged: false,
        proof: None,
    })
}

fn offered() -> LedgerRecord {
    let peers = List::truncated([OfferedPeer { intro: INTRO, upload_key: PublicKey::numbered(1) }]);
    let event = LogEvent::Offered(Offered { download: D, version: V, peers });
    LedgerRecord::Log(LogRecord { id: RecordId::numbered(2), at_ms: 1, guid: Guid::numbered(1), event })
}

fn usage(reporter: u32, side: Side, seq: u32, state: UsageState, bytes: u64) -> LedgerRecord {
    let uploader_key = PublicKey::numbered(1);
    let receipt = Receipt { intro: INTRO, download: D, version: V, uploader_key, seq: 1, bytes };
    let signature = fake_sign(&K_D, SigningContext::Receipt, &receipt.to_bytes());
    let receipt = (side == Side::Uploader).then_some(ReceiptProof { uploader_key, seq: 1, bytes, signature });
    LedgerRecord::Usage(unsigned(UsageRecord {
        id: RecordId::numbered(reporter << 16 | seq),
        reporter: Guid::numbered(reporter),
        side,
        download: D,
        version: V,
        seq,
        state,
        edge_bytes: 0,
        peers: List::truncated([PeerBytes { intro: INTRO, key: uploader_key, bytes, receipt }]),
        elapsed_ms: 0,
        cause: None,
    }))
}

fn edge(seq: u32, unique_bytes: u64) -> LedgerRecord {
    LedgerRecord::Edge(EdgeRecord {
        id: RecordId::numbered(3 << 20 | seq),
        edge: PublicKey::numbered(9),
        download: Some(D),
        guid: Some(Guid::numbered(1)),
        version: V,
        provider: ProviderId(1),
        seq,
        unique_bytes,
        total_bytes: unique_bytes,
    })
}

const HOUR_MS: u64 = 3_600_000;

/// Returns random records, a few hours apart, of two clients that claim to be the downloader, two uploaders and an
/// edge.
fn records() -> impl Strategy<Value = Vec<(u64, LedgerRecord)>> {
    let state =
        prop_oneof![3 => Just(UsageState::Running), 1 => Just(UsageState::Completed), 1 => Just(UsageState::Failed)];
    let one = (0_u32..5, 1_u32..12, state, 0_u64..900, 0_u64..20);
    proptest::collection::vec(one, 0..40).prop_map(|all| {
        let mut at_ms = 2;
        let mut records = vec![(1, granted()), (2, offered())];
        for (who, seq, state, bytes, hours) in all {
            at_ms += hours * HOUR_MS / 4 + 1;
            records.push((
                at_ms,
                match who {
                    0 => usage(1, Side::Downloader, seq, state, bytes),
                    1 => usage(2, Side::Downloader, seq, state, bytes),
                    2 | 3 => usage(who, Side::Uploader, seq, UsageState::Running, bytes),
                    _ => edge(seq, bytes),
                },
            ));
        }
        records
    })
}

/// Returns quarantines of 20 hours each, given by client and first hour.
fn quarantined(begins: &[(u32, u64)]) -> Quarantines {
    let mut quarantines = Quarantines::default();
    for (who, hours) in begins {
        quarantines.add(Guid::numbered(*who), hours * HOUR_MS, (hours + 20) * HOUR_MS);
    }
    quarantines
}

fn evidence(quarantines: &Quarantines, records: impl IntoIterator<Item = (u64, LedgerRecord)>) -> Evidence {
    let mut evidence = Evidence::new(quarantines.clone());
    for (came_ms, record) in records {
        evidence.add(came_ms, record);
        evidence.check();
    }
    evidence
}

/// Adds records one by one. After each it checks that the records kept yield the same bill as all records, now and
/// when the download is closed. Also checks that the result is the same if, before the records at `stops`, only the
/// kept records are added again, as a ledger does between batches.
fn is_enough(
    quarantines: &Quarantines,
    records: &[(u64, LedgerRecord)],
    stops: &[usize],
) -> Result<Evidence, TestCaseError> {
    let mut all = Book::strict().with_quarantines(quarantines.clone());
    let (mut at_once, mut bit_by_bit) = (Evidence::new(quarantines.clone()), Evidence::new(quarantines.clone()));
    let again = |held: &Evidence| evidence(quarantines, held.records().map(|(at, r)| (at, r.clone())));
    for (n, (at, r)) in records.iter().enumerate() {
        if stops.contains(&n) {
            bit_by_bit = again(&bit_by_bit);
        }
        all.add(r.clone(), *at);
        at_once.add(*at, r.clone());
        bit_by_bit.add(*at, r.clone());
        let held = at_once.book();
        prop_assert_eq!((all.closes_ms(), held.late()), (held.closes_ms(), 0), "after record {}", n);
        for later in [0, 2 * LATE_MS, 40 * LATE_MS] {
            prop_assert_eq!(
                all.bill(fake_verify, at + later),
                held.bill(fake_verify, at + later),
                "after record {}",
                n
            );
        }
        prop_assert_eq!(bit_by_bit.digest(), at_once.digest(), "after record {}", n);
    }
    prop_assert_eq!(again(&at_once).digest(), at_once.digest());
    Ok(at_once)
}

/// Returns the maximum number of records that may be kept of these five reporters: four of each and two others, and
/// three for each quarantine.
const fn most(quarantines: usize) -> usize {
    2 + 5 * 4 + 3 * quarantines
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn held_records_make_the_same_bill_however_often_they_are_read(
        records in records(),
        begins in proptest::collection::vec((1_u32..4, 0_u64..200), 0..4),
        stops in proptest::collection::vec(0_usize..40, 0..6),
    ) {
        let held = is_enough(&quarantined(&begins), &records, &stops)?.records().count();
        prop_assert!(held <= most(begins.len()), "{} of {}", held, records.len());
    }

    #[test]
    fn held_records_suffice_for_any_history(
        records in any_history(),
        begins in proptest::collection::vec((1_u32..4, 0_u64..60), 0..8),
        stops in proptest::collection::vec(0_usize..60, 0..12),
    ) {
        is_enough(&quarantined(&begins), &records, &stops)?;
    }
}

/// Returns random records of a few reporters with few numbers, in any order: several grants to two downloaders,
/// several records in one millisecond, and gaps after which a download is closed or a quarantine begins.
fn any_history() -> impl Strategy<Value = Vec<(u64, LedgerRecord)>> {
    let state = prop_oneof![1 => Just(UsageState::Running), 1 => Just(UsageState::Completed)];
    let hours = prop_oneof![4 => Just(0), 4 => 1_u64..12, 1 => Just(24), 1 => 25_u64..40];
    let one = (0_u32..12, 1_u32..8, state, 0_u64..900, hours);
    proptest::collection::vec(one, 0..60).prop_map(|all| {
        let mut at_ms = 0;
        let record = |(who, seq, state, bytes, hours): (u32, u32, UsageState, u64, u64)| {
            at_ms += hours * HOUR_MS;
            let record = match who {
                0 => granted_to(1 + seq % 2, bytes),
                1 => offered(),
                2..=5 => usage(1, Side::Downloader, seq, state, bytes),
                6 | 7 => usage(2, Side::Downloader, seq, state, bytes),
                8 | 9 => usage(2, Side::Uploader, seq, state, bytes),
                10 => usage(3, Side::Uploader, seq, state, bytes),
                _ => edge(seq, bytes),
            };
            (at_ms, record)
        };
        all.into_iter().map(record).collect()
    })
}

/// Returns records of client 1's download, one hour apart, for the letters of a text: `E` is a final report, `r` a
/// report that the download goes on, `u` an uploader's report; a digit adds so many hours.
fn story(text: &str) -> Vec<(u64, LedgerRecord)> {
    let (mut at_ms, mut records) = (2, vec![(1, granted()), (2, offered())]);
    for (seq, letter) in (1..).zip(text.chars()) {
        let of_downloader = |state| usage(1, Side::Downloader, seq, state, seq.into());
        let record = match letter {
            'E' => of_downloader(UsageState::Completed),
            'r' => of_downloader(UsageState::Running),
            'u' => usage(2, Side::Uploader, seq, UsageState::Running, seq.into()),
            gap => {
                at_ms += HOUR_MS * u64::from(gap.to_digit(10).expect("a digit"));
                continue;
            }
        };
        at_ms += HOUR_MS;
        records.push((at_ms, record));
    }
    records
}

/// Returns the letters of a text, as in [`story`], whose records are kept.
fn held_of(begins: &[(u32, u64)], records: &[(u64, LedgerRecord)]) -> String {
    let held = is_enough(&quarantined(begins), records, &(0..records.len()).collect::<Vec<_>>()).expect("it is enough");
    let letter = |(_, record): (u64, &LedgerRecord)| match record {
        LedgerRecord::Usage(r) if r.record.side == Side::Uploader => Some('u'),
        LedgerRecord::Usage(_) if is_final_report(record) => Some('E'),
        LedgerRecord::Usage(_) => Some('r'),
        _ => None,
    };
    held.records().filter_map(letter).collect()
}

#[test]
fn a_report_revoking_an_end_before_a_quarantine_is_held() {
    // the final report comes in hour 1, before the quarantine; without the `r` the download would close in hour 26
    assert_eq!(held_of(&[(1, 2)], &story("Er999r")), "Err");
    assert_eq!(held_of(&[(1, 2)], &story("Er999u9r")), "Erur", "for what others say of it too");
    assert_eq!(held_of(&[], &story("Er999r")), "r", "where no end is held, nothing has to be taken back");
    // regression: a first record after the quarantine's start, and numbers that come again
    let (end, on) = (UsageState::Completed, UsageState::Running);
    let said = |came_ms, seq, state| (came_ms, usage(1, Side::Downloader, seq, state, 0));
    let found = [said(3, 1, end), said(15_300_004, 1, on), said(31_500_005, 2, on), said(42_300_006, 1, on)];
    let last = [(54_000_008, usage(2, Side::Downloader, 1, on, 0)), said(86_400_011, 3, on)];
    assert_eq!(held_of(&[(1, 1)], &[&[(1, granted()), (2, offered())], &found[..], &last].concat()), "Errr");
}

#[test]
fn a_report_revoking_the_first_record_is_held() {
    let first = [(0, usage(1, Side::Downloader, 1, UsageState::Failed, 0))];
    let rest = story("9rr999r").split_off(1);
    assert_eq!(held_of(&[], &[&first[..], &[(1, granted())], &rest].concat()), "Err");
}

#[test]
fn a_replaced_grant_to_another_client_is_held() {
    let end = (2, usage(1, Side::Downloader, 1, UsageState::Completed, 0));
    let grants = [(1, granted_to(1, 9)), (2, granted_to(2, 8)), (3, granted_to(2, 7)), (LATE_MS + 9, granted_to(2, 6))];
    let held = is_enough(&Quarantines::default(), &[&grants[..2], &[end], &grants[2..]].concat(), &[3, 4, 5]);
    let held = held.expect("it is enough");
    let issued: Vec<_> = held.records().filter_map(|(_, r)| issued(r)).map(|(ms, _)| ms).collect();
    assert_eq!(issued, [9, 8, 6], "else client 1's end closes a download of client 2's");
}

#[test]
fn an_end_before_a_quarantine_is_held_with_its_revocation() {
    // three quarantines begin after a final report each, the fourth after a report that the download goes on
    assert_eq!(held_of(&[(1, 2), (1, 4), (1, 6), (1, 8)], &story("ErErErrErE")), "ErErErrE");
    assert_eq!(held_of(&[(1, 3)], &story("EEErEE")), "ErEE", "of the ends that stand the first and the newest");
    assert_eq!(held_of(&[(2, 3)], &story("EEErEEE")), "EE", "another's quarantine");
}

#[test]
fn records_of_one_millisecond_count_in_their_sources_order() {
    let said = |seq| usage(1, Side::Downloader, seq, UsageState::Running, 0);
    let sent = |seq| usage(2, Side::Uploader, seq, UsageState::Running, 0);
    let came = [said(3), offered(), sent(2), said(1), edge(1, 5), sent(1), said(2)];
    let turned = [said(1), offered(), sent(1), said(2), edge(1, 5), sent(2), said(3)];
    assert_eq!(in_turn(came.to_vec()), turned);
    assert_eq!(in_turn(turned.to_vec()), turned, "what is in turn stays so");
}

#[test]
fn repeated_reports_of_one_source_are_held_once() {
    let mut evidence = evidence(&Quarantines::default(), [(1, granted()), (2, offered())]);
    for seq in 1..1_000 {
        evidence.add(2 + u64::from(seq), usage(2, Side::Uploader, seq, UsageState::Running, seq.into()));
        evidence.add(2 + u64::from(seq), usage(1, Side::Downloader, seq, UsageState::Running, seq.into()));
    }
    assert_eq!(evidence.records().count(), 4);
    assert_eq!(evidence.book().bill(fake_verify, 2_000).peers_billed, 999);
}

#[test]
fn a_usage_records_key_depends_on_its_reporter() {
    let of = |reporter, side| {
        let LedgerRecord::Usage(r) = usage(reporter, side, 1, UsageState::Running, 0) else { panic!("usage") };
        LedgerRecord::Usage(unsigned(UsageRecord { id: granted().id(), ..r.record }))
    };
    let keys = [granted(), of(1, Side::Downloader), of(1, Side::Uploader), of(2, Side::Uploader)].map(|r| key(&r));
    assert_eq!(keys[0], granted().id());
    assert!((0..4).all(|a| (0..a).all(|b| keys[a] != keys[b])), "{keys:?}");
}
