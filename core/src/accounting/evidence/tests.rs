//! What is dropped changes no bill, and what is held is bounded by who speaks.

use super::*;
use crate::accounting::certs::tests::{fake_sign, fake_verify};
use crate::accounting::settlement::LATE_MS;
use crate::ids::{DownloadId, IntroId, ProviderId, VersionId};
use crate::wire::records::{
    Context, EdgeRecord, GrantRecord, LogEvent, LogRecord, Offered, OfferedPeer, PeerBytes, Receipt, ReceiptProof,
    UsageRecord,
};
use crate::wire::{List, Text};
use proptest::prelude::*;

const D: DownloadId = DownloadId([1; 16]);
const V: VersionId = VersionId([2; 32]);
const K_D: PublicKey = PublicKey([3; 32]);
const INTRO: IntroId = IntroId([4; 16]);

fn granted() -> LedgerRecord {
    LedgerRecord::Granted(GrantRecord {
        id: RecordId::numbered(1),
        download: D,
        guid: Guid::numbered(1),
        download_key: K_D,
        version: V,
        size: 1_000,
        provider: ProviderId(1),
        path: Text::default(),
        issued_ms: 5,
        max_peer_bytes: 1_000,
        challenged: false,
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
    let signature = fake_sign(&K_D, Context::Receipt, &receipt.to_bytes());
    let receipt = (side == Side::Uploader).then_some(ReceiptProof { uploader_key, seq: 1, bytes, signature });
    LedgerRecord::Usage(UsageRecord {
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
    })
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

/// Records of two who say that they download, two that upload, and an edge, a few hours apart.
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

fn evidence(quarantines: &Quarantines, records: impl IntoIterator<Item = (u64, LedgerRecord)>) -> Evidence {
    let mut evidence = Evidence::new(quarantines.clone());
    for (came_ms, record) in records {
        evidence.add(came_ms, record);
    }
    evidence
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn what_is_held_bills_what_all_records_do_and_is_the_same_however_often_it_is_sifted(
        records in records(),
        begins in proptest::collection::vec((1_u32..4, 0_u64..200), 0..4),
        stops in proptest::collection::vec(0_usize..40, 0..6),
    ) {
        let mut quarantines = Quarantines::default();
        for (who, hours) in &begins {
            quarantines.add(Guid::numbered(*who), hours * HOUR_MS, (hours + 20) * HOUR_MS);
        }
        let all = book_of(&quarantines, records.iter().map(|(at, r)| (*at, r)));
        let at_once = evidence(&quarantines, records.clone());
        let now_ms = records.last().map_or(0, |(at, _)| *at);
        for later in [0, 2 * LATE_MS, 40 * LATE_MS] {
            let bill = |book: &Book| book.bill(fake_verify, now_ms + later);
            prop_assert_eq!(bill(&all), bill(&at_once.book()));
        }
        prop_assert_eq!(all.closes_ms(), at_once.book().closes_ms());
        // as a ledger does, from batch to batch
        let mut bit_by_bit = Evidence::new(quarantines.clone());
        for (n, (at, r)) in records.iter().enumerate() {
            if stops.contains(&n) {
                let held: Vec<_> = bit_by_bit.records().map(|(at, r)| (at, r.clone())).collect();
                bit_by_bit = evidence(&quarantines, held);
            }
            bit_by_bit.add(*at, r.clone());
        }
        prop_assert_eq!(bit_by_bit.digest(), at_once.digest());
        // five sources, at most four records each for how it began and ended, and one for each quarantine
        let held = at_once.records().count();
        prop_assert!(held <= 2 + 5 * 4 + 2 * begins.len(), "{} of {}", held, records.len());
    }
}

#[test]
fn who_sends_again_and_again_is_held_once() {
    let mut evidence = evidence(&Quarantines::default(), [(1, granted()), (2, offered())]);
    for seq in 1..1_000 {
        evidence.add(2 + u64::from(seq), usage(2, Side::Uploader, seq, UsageState::Running, seq.into()));
        evidence.add(2 + u64::from(seq), usage(1, Side::Downloader, seq, UsageState::Running, seq.into()));
    }
    assert_eq!(evidence.records().count(), 4);
    assert_eq!(evidence.book().bill(fake_verify, 2_000).peers_billed, 999);
}

#[test]
fn a_usage_records_key_is_its_reporters_own() {
    let of = |reporter, side| {
        let LedgerRecord::Usage(r) = usage(reporter, side, 1, UsageState::Running, 0) else { panic!("usage") };
        LedgerRecord::Usage(UsageRecord { id: granted().id(), ..r })
    };
    let keys = [granted(), of(1, Side::Downloader), of(1, Side::Uploader), of(2, Side::Uploader)].map(|r| key(&r));
    assert_eq!(keys[0], granted().id());
    assert!((0..4).all(|a| (0..a).all(|b| keys[a] != keys[b])), "{keys:?}");
}
