//! The names of peers in a usage record can be read from no file once the record was acknowledged, whatever fails
//! meanwhile.

use super::crash_tests::{fetch, open, record, saved};
use super::tests::{content, manifest_of};
use super::*;
use crate::mem_disk::{Fault, Medium, MemDisk, coin};
use swarmedge_core::ids::{IntroId, PublicKey, RecordId};
use swarmedge_core::role::client::io::SourceName;
use swarmedge_core::wire::List;
use swarmedge_core::wire::records::{PeerBytes, Side, UsageState};

const INTRO: IntroId = IntroId([0xA1; 16]);
const PEER: PublicKey = PublicKey([0xB2; 32]);
/// Size of the version, two pieces, of which one comes from a peer.
const SIZE: u32 = 2 * 65_536;

fn peer() -> PeerBytes {
    PeerBytes { intro: INTRO, key: PEER, bytes: 65_536, receipt: None }
}

fn usage(version: VersionId) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(9),
        reporter: Guid::numbered(1),
        side: Side::Downloader,
        download: DownloadId::numbered(1),
        version,
        seq: 1,
        state: UsageState::Completed,
        edge_bytes: 65_536,
        peers: List::new(vec![peer()]).expect("short"),
        elapsed_ms: 6,
        cause: None,
    }
}

fn receipt(version: VersionId) -> KeptReceipt {
    KeptReceipt { download: DownloadId::numbered(2), version, peer: PeerBytes { intro: IntroId([0xA2; 16]), ..peer() } }
}

/// How far the download came before the first failure; no step is tried twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Nowhere,
    Kept,
    Acknowledged,
}

/// Runs a download of two pieces, one of them from a peer, until its usage record is acknowledged. A receipt of
/// another download stays.
fn until_acknowledged(store: &Store, manifest: &Manifest, bytes: &[u8]) -> Came {
    let version = manifest.version();
    store.put_manifest(manifest.clone());
    let mut done = record(1, version, u64::from(SIZE));
    let keep = |save| saved(store, save).is_ok();
    let mut kept = keep(Save::Download(done.clone()));
    for (piece, source) in [(PieceIndex(0), SourceName::Edge), (PieceIndex(1), SourceName::Peer(INTRO, PEER))] {
        kept = kept && fetch(store, manifest, bytes, piece).is_ok();
        kept = kept && keep(Save::Piece { handle: Handle(1), version, piece, from: vec![(source, 65_536)] });
    }
    done.state = DownloadState::Completed;
    kept = kept && keep(Save::Finish { handle: Handle(1), version }) && keep(Save::Download(done));
    if !(kept && keep(Save::Receipt(receipt(version))) && keep(Save::Usage(usage(version)))) {
        return Came::Nowhere;
    }
    if keep(Save::UsageDone(vec![usage(version).id])) { Came::Acknowledged } else { Came::Kept }
}

fn key_of(medium: &Medium) -> Vec<u8> {
    medium.only(|name| name.starts_with("veil."))
}

#[test]
fn what_was_acknowledged_opens_with_no_key_that_is_left() {
    let bytes = content(SIZE as usize);
    let manifest = manifest_of(&bytes, 65_536);
    let (disk, opened) = open(Medium::default());
    let (store, _) = opened.expect("an empty disk");
    let first = key_of(&lock(&disk.0));
    assert_eq!(until_acknowledged(&store, &manifest, &bytes), Came::Acknowledged);
    drop(store);
    let medium = lock(&disk.0).after_crash(|| true);
    for name in [INTRO.0.as_slice(), &PEER.0] {
        assert!(!medium.holds(name), "a name in clear text");
    }
    assert!(medium.holds(&manifest.version().0), "names would be found");
    assert!(!medium.holds(&first), "the key that sealed what is deleted");
    assert!(medium.holds(&key_of(&medium)), "keys would be found");
    let (_, opened) = open(medium);
    let (_, restored) = opened.expect("opens again");
    assert_eq!(restored.usage, []);
    assert_eq!(restored.receipts, [receipt(manifest.version())], "what is not acknowledged stays");
    let sources = &restored.sources[&Handle(1)];
    assert_eq!(sources.values().sum::<u64>(), u64::from(SIZE));
    assert!(!sources.contains_key(&SourceName::Peer(INTRO, PEER)), "whose bytes they were is forgotten");
}

/// Checks after a failure that no kept record is lost, and that no acknowledged one can be read.
fn check(medium: Medium, came: Came, manifest: &Manifest, what: &str) {
    let (disk, opened) = open(medium);
    let (store, restored) = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
    match came {
        Came::Nowhere => {}
        // it was asked for, so it may have happened
        Came::Kept => assert!(restored.usage.is_empty() || restored.usage == [usage(manifest.version())], "{what}"),
        Came::Acknowledged => assert_eq!(restored.usage, [], "{what}"),
    }
    if came > Came::Nowhere {
        assert_eq!(restored.receipts, [receipt(manifest.version())], "{what}");
        assert_eq!(restored.sources[&Handle(1)].values().sum::<u64>(), u64::from(SIZE), "{what}");
    }
    drop(store);
    // one key is left, or none can tell which one opens
    key_of(&lock(&disk.0));
}

#[test]
fn a_fault_at_any_disk_operation_loses_no_record_and_leaves_one_key() {
    let bytes = content(SIZE as usize);
    let manifest = manifest_of(&bytes, 65_536);
    let run = |fault| {
        let (disk, opened) = open(Medium::with(fault));
        let came = opened.map_or(Came::Nowhere, |(store, _)| until_acknowledged(&store, &manifest, &bytes));
        (disk, came)
    };
    let (disk, _) = run(None);
    let operations = lock(&disk.0).operations;
    let mut acknowledged = 0;
    for at in 1..=operations {
        let (disk, came) = run(Some((at, Fault::Crash)));
        for seed in [1, 2, 3] {
            let image = lock(&disk.0).after_crash(coin(seed));
            check(image, came, &manifest, &format!("crash at {at}, seed {seed}"));
        }
        acknowledged += u32::from(came == Came::Acknowledged);
        let (disk, came) = run(Some((at, Fault::Error(io::ErrorKind::StorageFull))));
        let MemDisk(medium) = &disk;
        check(lock(medium).after_crash(|| true), came, &manifest, &format!("no space at {at}"));
    }
    assert!(acknowledged > 5, "only {acknowledged} crashes came while the key was changed");
}
