//! Crashes and failures at every single disk operation, on a disk in memory that forgets at a crash what was not
//! synced.

use super::tests::{Inline, content, manifest_of, run};
use super::*;
use crate::mem_disk::{Fault, Medium, MemDisk, coin};
use bytes::Bytes;
use swarmedge_core::ids::{ProviderId, PublicKey, Signature};
use swarmedge_core::role::client::io::{FetchEnd, Granted, ObjectRef, SourceName};
use swarmedge_core::wire::records::{CertBody, HolderTicket, SealedGrant, ServerCert, ServerRole, SignedHolderTicket};
use swarmedge_core::wire::{Blob, Text};
use swarmedge_ground::disk::Disk;

/// Returns a holder's ticket for a version, with signatures that nobody checks.
pub(super) fn ticket(version: VersionId) -> SignedHolderTicket {
    let name = Text::new("edge").expect("short");
    let key = PublicKey::numbered(1);
    let body = CertBody { role: ServerRole::Edge, name, key, not_before_ms: 1, not_after_ms: 2 };
    let guid = Guid::numbered(2);
    SignedHolderTicket {
        ticket: HolderTicket { guid, version, provider: ProviderId(1), policy_serial: 3, issued_ms: 4, until_ms: 5 },
        signature: Signature::numbered(6),
        cert: ServerCert { body, signature: Signature::numbered(7) },
    }
}

pub(super) fn record(handle: u32, version: VersionId, size: u64) -> DownloadRecord {
    let granted = Granted {
        download: DownloadId::numbered(handle),
        download_key: PublicKey::numbered(handle),
        version,
        size,
        policy: swarmedge_core::content::Policy::default(),
        order_seed: 0,
        expires_ms: 0,
        sealed: SealedGrant { epoch: 0, nonce: [0; 24], sealed: Blob::default() },
        ticket: None,
    };
    DownloadRecord {
        handle: Handle(handle),
        object: ObjectRef { provider: ProviderId(1), path: "o".into() },
        output: "/out/file".into(),
        replace: false,
        granted: Some(granted),
        state: DownloadState::Running,
        usage_seq: 0,
        active_ms: 0,
    }
}

pub(super) const AT_ONCE: Delays = Delays { gather: Duration::ZERO, shred: Duration::ZERO };

/// The records that the store has reported as durable, which a crash must not lose.
#[derive(Debug, Default)]
pub(super) struct Promised {
    download: bool,
    pieces: Vec<PieceIndex>,
    pub(super) placed: bool,
}

pub(super) fn saved(store: &Store, save: Save) -> Result<(), StoreError> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.save(save, move |result| tx.send(result).expect("the test waits"));
    rx.recv().expect("every save is answered")
}

pub(super) fn fetch(store: &Store, manifest: &Manifest, bytes: &[u8], piece: PieceIndex) -> Result<(), StoreError> {
    let layout = manifest.layout();
    let range = layout.piece_range(piece);
    let range = usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
    let data = Bytes::copy_from_slice(&bytes[range]);
    let blocks = layout.blocks(piece);
    let sink = Sink::new(Inline, store, manifest.version(), (piece, 0..blocks), None);
    let end = match sink {
        Ok(mut sink) => match run(sink.push(data)) {
            Ok(()) => run(sink.finish()),
            Err(end) => end,
        },
        Err(end) => end,
    };
    match end {
        FetchEnd::Fetched => Ok(()),
        FetchEnd::Store(e) => Err(e),
        other => panic!("right bytes ended as {other:?}"),
    }
}

pub(super) fn save_piece(store: &Store, manifest: &Manifest, piece: PieceIndex) -> Result<(), StoreError> {
    let from = vec![(SourceName::Edge, manifest.layout().piece_size(piece))];
    saved(store, Save::Piece { handle: Handle(1), version: manifest.version(), piece, from })
}

pub(super) fn fetch_and_save(
    store: &Store,
    manifest: &Manifest,
    bytes: &[u8],
    piece: PieceIndex,
) -> Result<(), StoreError> {
    fetch(store, manifest, bytes, piece)?;
    save_piece(store, manifest, piece)
}

/// Runs a whole download; each failed step is tried `tries` times. Returns what was reported durable before a step
/// failed for good.
pub(super) fn download(store: &Store, manifest: &Manifest, bytes: &[u8], tries: u32) -> Promised {
    let mut promised = Promised::default();
    let version = manifest.version();
    let again = |step: &mut dyn FnMut() -> Result<(), StoreError>| (0..tries).any(|_| step().is_ok());
    store.put_manifest(manifest.clone());
    promised.download = again(&mut || saved(store, Save::Download(record(1, version, bytes.len() as u64))));
    for piece in manifest.layout().iter() {
        if again(&mut || fetch_and_save(store, manifest, bytes, piece)) {
            promised.pieces.push(piece);
        }
    }
    promised.placed = again(&mut || saved(store, Save::Finish { handle: Handle(1), version }));
    promised
}

pub(super) fn open(medium: Medium) -> (MemDisk, Result<(Store, Restored), Error>) {
    let disk = MemDisk::new(medium);
    let opened = Store::open_on(Arc::new(disk.clone()), Path::new("/state"), AT_ONCE, None);
    (disk, opened)
}

/// Checks after a crash that all records reported durable are there, and that all journalled pieces have the right
/// bytes.
fn check(disk: &MemDisk, seed: u64, (manifest, bytes): (&Manifest, &[u8]), promised: &Promised, what: &str) {
    let image = lock(&disk.0).after_crash(coin(seed));
    let out = image.bytes(Path::new("/out/file"));
    let (disk, opened) = open(image);
    let (store, restored) = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!promised.download || restored.downloads.len() == 1, "{what}: the download was promised");
    let have = store.have(manifest.version()).unwrap_or_else(|| Bitfield::empty(manifest.layout().pieces()));
    for piece in &promised.pieces {
        assert!(have.contains(*piece), "{what}: {piece} was promised");
    }
    for piece in have.iter() {
        let blocks = manifest.layout().blocks(piece);
        let data = store.read_blocks(manifest.version(), piece, 0..blocks).expect("journalled");
        let start = usize::try_from(manifest.layout().piece_range(piece).start).expect("small");
        assert_eq!(data, bytes[start..start + data.len()], "{what}: {piece} is journalled and wrong");
        let leaves = store.leaves(manifest.version(), piece).expect("journalled");
        assert_eq!(leaves, swarmedge_core::content::merkle::leaves(&data), "{what}");
    }
    if promised.placed {
        assert_eq!(out.as_deref(), Some(bytes), "{what}: the file was promised");
        assert_eq!(restored.cached.len(), 1, "{what}");
    }
    assert!(out.is_none_or(|o| o == bytes), "{what}: a half file under the user's name");
    let left: Vec<_> = lock(&disk.0).names.keys().filter(|p| p.starts_with("/out")).cloned().collect();
    assert!(left.iter().all(|p| p == Path::new("/out/file")), "{what}: {left:?} is left in the user's directory");
}

pub(super) const SIZE: usize = 3 * 65_536 - 20_000;

/// Whether the disk refuses hard links: false and true, so that both ways to place a file are tested.
pub(super) const CANNOT_LINK: [bool; 2] = [false, true];

pub(super) fn operations_of_a_download(manifest: &Manifest, bytes: &[u8], cannot_link: bool) -> usize {
    let (disk, opened) = open(Medium::default().linking(cannot_link));
    let (store, _) = opened.expect("an empty disk");
    let promised = download(&store, manifest, bytes, 1);
    assert!(promised.download && promised.placed && promised.pieces.len() == 3);
    drop(store);
    let n = lock(&disk.0).operations;
    assert!(n > 30, "only {n} operations");
    n
}

#[test]
fn a_crash_at_any_disk_operation_leaves_only_true_journal_bits() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for cannot_link in CANNOT_LINK {
        for at in 1..=operations_of_a_download(&manifest, &bytes, cannot_link) {
            for seed in [1, 2, 3] {
                let (disk, opened) = open(Medium::with(Some((at, Fault::Crash))).linking(cannot_link));
                let promised = opened.map_or_else(|_| Promised::default(), |(s, _)| download(&s, &manifest, &bytes, 1));
                check(&disk, seed, (&manifest, &bytes), &promised, &format!("crash at {at}, seed {seed}"));
            }
        }
    }
}

/// Scenario: a crash happens while the file is put at the user's path, and the user changes it before the client's
/// next start.
#[test]
fn a_file_that_is_changed_between_a_crash_and_the_restart_is_never_served() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let mut seen = 0;
    for at in 1..=operations_of_a_download(&manifest, &bytes, false) {
        let (disk, opened) = open(Medium { fault: Some((at, Fault::Crash)), ..Medium::default() });
        drop(opened.map(|(store, _)| download(&store, &manifest, &bytes, 1)));
        let image = lock(&disk.0).after_crash(|| true);
        let out = Path::new("/out/file");
        if image.bytes(out).is_none() {
            continue;
        }
        seen += 1;
        let disk = MemDisk::new(image);
        let file = disk.open(out).expect("there");
        file.write_at(&[!bytes[5]], 5).expect("changed");
        let opened = Store::open_on(Arc::new(disk.clone()), Path::new("/state"), AT_ONCE, None);
        let (store, _) = opened.expect("opens again");
        let first = store.read_blocks(manifest.version(), PieceIndex(0), 0..4);
        assert!(first.is_err(), "crash at {at}");
        // what comes anew goes into a file of its own
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(2, manifest.version(), bytes.len() as u64))).expect("saved");
        for piece in manifest.layout().iter() {
            fetch_and_save(&store, &manifest, &bytes, piece).expect("fetched anew");
        }
        let mut changed = [0];
        file.read_at(&mut changed, 5).expect("there");
        assert_eq!(changed, [!bytes[5]], "crash at {at}: the user's file was written to");
        assert_eq!(store.read_blocks(manifest.version(), PieceIndex(0), 0..4).as_deref(), Ok(&bytes[..65_536]));
    }
    assert!(seen > 2, "only {seen} crashes left a file");
}

/// Seeded defect: syncs do nothing. The crash tests must find it.
#[test]
#[should_panic(expected = "was promised")]
fn data_that_was_not_synced_is_found_out() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for seed in 0..100 {
        let (disk, opened) = open(Medium { lies: true, cannot_link: true, ..Medium::default() });
        let (store, _) = opened.expect("an empty disk");
        let promised = download(&store, &manifest, &bytes, 1);
        drop(store);
        check(&disk, seed, (&manifest, &bytes), &promised, "a disk that lies");
    }
}

#[test]
fn after_one_failed_disk_operation_the_download_ends_and_survives_a_crash() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for (cannot_link, at) in CANNOT_LINK
            .into_iter()
            .flat_map(|c| (1..=operations_of_a_download(&manifest, &bytes, c)).map(move |at| (c, at)))
        {
            let (disk, opened) = open(Medium::with(Some((at, Fault::Error(kind)))).linking(cannot_link));
            // the first operations are those of opening: the user sees the error and starts again
            let Ok((store, _)) = opened else { continue };
            let promised = download(&store, &manifest, &bytes, 3);
            assert!(promised.download && promised.placed && promised.pieces.len() == 3, "{kind} at {at}: {promised:?}");
            check(&disk, 7, (&manifest, &bytes), &promised, &format!("{kind} at {at}"));
        }
    }
}

#[test]
fn bytes_before_a_failed_sync_are_rewritten_before_the_journal_entry() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    for seed in 0..20 {
        let (disk, opened) = open(Medium::default());
        let (store, _) = opened.expect("an empty disk");
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(1, manifest.version(), bytes.len() as u64))).expect("room");
        fetch(&store, &manifest, &bytes, PieceIndex(0)).expect("written");
        fetch(&store, &manifest, &bytes, PieceIndex(1)).expect("written");
        let sync = lock(&disk.0).operations + 1;
        lock(&disk.0).fault = Some((sync, Fault::Error(io::ErrorKind::Other)));
        assert_eq!(save_piece(&store, &manifest, PieceIndex(0)), Err(StoreError::Io));
        assert_eq!(save_piece(&store, &manifest, PieceIndex(0)), Err(StoreError::Io), "it must come in again");
        save_piece(&store, &manifest, PieceIndex(1)).expect("the disk works again");
        let promised = Promised { download: true, pieces: vec![PieceIndex(1)], placed: false };
        check(&disk, seed, (&manifest, &bytes), &promised, &format!("seed {seed}"));
    }
}

/// Hashes a copy again and returns whether all of it is right, and what the store has reported lost before.
fn checked(store: &Store, version: VersionId, lost: &std::sync::mpsc::Receiver<Loss>) -> (bool, Option<Bitfield>) {
    let (tx, rx) = std::sync::mpsc::channel();
    store.check_copy(version, move |is_right| tx.send(is_right).expect("the test waits"));
    let is_right = rx.recv().expect("every check is answered");
    (is_right, lost.try_recv().ok().map(|loss| loss.left))
}

#[test]
fn a_copy_is_hashed_again_whatever_the_files_stamp_says() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let version = manifest.version();
    let (disk, opened) = open(Medium::default().linking(true));
    let (store, _) = opened.expect("an empty disk");
    let (tx, lost) = std::sync::mpsc::channel();
    store.on_lost(move |loss| tx.send(loss).expect("the test waits"));
    download(&store, &manifest, &bytes, 1);
    assert_eq!(checked(&store, version, &lost), (true, None));
    let file = Path::new("/state").join(PIECES).join(version.to_string());
    lock(&disk.0).rot(&file, 65_536);
    let read = store.read_blocks(version, PieceIndex(1), 0..1).expect("nothing tells the store");
    assert_ne!(read, bytes[65_536..65_536 + read.len()], "the disk has rotted unseen");
    let mut left = Bitfield::full(3);
    left.remove(PieceIndex(1));
    assert_eq!(checked(&store, version, &lost), (false, Some(left)));
    assert!(store.read_blocks(version, PieceIndex(1), 0..1).is_err());
    assert_eq!(checked(&store, version, &lost), (true, None), "what is left is right");
    assert_eq!(checked(&store, VersionId::numbered(9), &lost), (false, None), "an unknown version");
}
