//! Disks that lose data, or files that another program writes to, at every moment of a download; on the disk of the
//! crash tests.

use super::crash_tests::{
    AT_ONCE, CANNOT_LINK, SIZE, download, fetch, fetch_and_save, open, operations_of_a_download, record, save_piece,
    saved,
};
use super::tests::{content, manifest_of, told_lost};
use super::*;
use crate::mem_disk::{Fault, Medium, MemDisk};
use swarmedge_core::content::Policy;
use swarmedge_core::role::client::io::DownloadRecord;
use swarmedge_core::wire::notice::Terms;

/// How a disk loses a file's contents.
#[derive(Clone, Copy, Debug)]
enum Forgets {
    Zeroes,
    All,
    Bit,
    Length,
    End,
    Growth,
}

const FORGETS: [Forgets; 6] =
    [Forgets::Zeroes, Forgets::All, Forgets::Bit, Forgets::Length, Forgets::End, Forgets::Growth];

/// Makes the disk lose a file's contents; `false` if there is no such file.
fn forget(disk: &MemDisk, path: &Path, how: Forgets) -> bool {
    lock(&disk.0).change(path, |bytes| match how {
        Forgets::Zeroes => bytes.iter_mut().skip(65_536).take(65_536).for_each(|b| *b = 0),
        Forgets::All => bytes.fill(0),
        Forgets::Bit => bytes.iter_mut().take(1).for_each(|b| *b ^= 1),
        Forgets::Length => bytes.clear(),
        Forgets::End => bytes.truncate(bytes.len() / 2),
        Forgets::Growth => bytes.push(7),
    })
}

/// Acts as the client after a loss: fetches missing pieces until the download completes, and checks that no wrong
/// byte is served or placed meanwhile.
fn get_again(disk: &MemDisk, store: &Store, manifest: &Manifest, bytes: &[u8], what: &str) {
    let version = manifest.version();
    // a version that its user has damaged cannot take the place of the user's file unasked
    let record = DownloadRecord { replace: true, ..record(1, version, bytes.len() as u64) };
    for _ in 0..4 {
        serves_nothing_wrong(store, manifest, bytes, what);
        store.put_manifest(manifest.clone());
        saved(store, Save::Download(record.clone())).expect("saved");
        let missing: Vec<_> = store.have(version).expect("known").missing().collect();
        missing.into_iter().for_each(|piece| fetch_and_save(store, manifest, bytes, piece).expect("fetched anew"));
        if saved(store, Save::Finish { handle: Handle(1), version }).is_ok() {
            assert_eq!(lock(&disk.0).bytes(Path::new("/out/file")).as_deref(), Some(bytes), "{what}");
            return serves_nothing_wrong(store, manifest, bytes, what);
        }
    }
    panic!("{what}: it does not come to an end");
}

fn serves_nothing_wrong(store: &Store, manifest: &Manifest, bytes: &[u8], what: &str) {
    for piece in manifest.layout().iter() {
        let served = store.read_blocks(manifest.version(), piece, 0..manifest.layout().blocks(piece));
        let start = usize::try_from(manifest.layout().piece_range(piece).start).expect("small");
        assert!(served.is_err() || served.is_ok_and(|d| d == bytes[start..start + d.len()]), "{what}: {piece}");
    }
}

#[test]
fn what_the_disk_forgot_is_neither_served_nor_placed_but_fetched_again() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let data = Path::new("/state/pieces").join(manifest.version().to_string());
    let mut seen = 0;
    for (cannot_link, how) in CANNOT_LINK.into_iter().flat_map(|c| FORGETS.map(|how| (c, how))) {
        for at in 1..=operations_of_a_download(&manifest, &bytes, cannot_link) + 1 {
            let (disk, opened) = open(Medium::with(Some((at, Fault::Crash))).linking(cannot_link));
            drop(opened.map(|(store, _)| download(&store, &manifest, &bytes, 1)));
            let image = lock(&disk.0).after_crash(|| true).linking(cannot_link);
            let (disk, opened) = open(image);
            // before and after the store is opened
            let (store, _) = opened.expect("opens again");
            drop(store);
            seen += usize::from(forget(&disk, &data, how));
            let (store, _) = reopen(&disk);
            let what = format!("{how:?}, cannot link: {cannot_link}, crash at {at}");
            get_again(&disk, &store, &manifest, &bytes, &what);
            forget(&disk, &data, how);
            get_again(&disk, &store, &manifest, &bytes, &format!("{what}, while it runs"));
        }
    }
    assert!(seen > 100, "only {seen} data files were there");
}

fn reopen(disk: &MemDisk) -> (Store, Restored) {
    Store::open_on(Arc::new(disk.clone()), Path::new("/state"), AT_ONCE, None).expect("opens again")
}

/// Scenario: bytes that were received and not journalled yet are lost; they must be fetched again like journalled
/// ones.
#[test]
fn what_the_disk_forgot_before_it_was_journalled_comes_in_again() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let data = Path::new("/state/pieces").join(manifest.version().to_string());
    for how in FORGETS {
        let (disk, opened) = open(Medium::with(None));
        let (store, _) = opened.expect("an empty disk");
        let lost = told_lost(&store);
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(1, manifest.version(), bytes.len() as u64))).expect("room");
        let pieces = [0, 1, 2].map(PieceIndex);
        pieces.iter().for_each(|piece| fetch(&store, &manifest, &bytes, *piece).expect("written"));
        assert!(forget(&disk, &data, how));
        let failed = pieces.iter().filter(|piece| save_piece(&store, &manifest, **piece).is_err()).count();
        assert!(failed > 0, "{how:?}");
        assert_eq!(lost.try_recv(), Ok(manifest.version()), "{how:?}: told before the save is answered");
        get_again(&disk, &store, &manifest, &bytes, &format!("{how:?}"));
    }
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    let bytes = content(65_536);
    let manifest = manifest_of(&bytes, 65_536);
    for (kind, expected) in
        [(io::ErrorKind::StorageFull, StoreError::NoSpace), (io::ErrorKind::PermissionDenied, StoreError::Io)]
    {
        let (disk, opened) = open(Medium::default());
        let (store, _) = opened.expect("an empty disk");
        store.put_manifest(manifest.clone());
        saved(&store, Save::Download(record(1, manifest.version(), 65_536))).expect("room");
        let next = lock(&disk.0).operations + 1;
        // opening the data file, its size, its time, the write, the time again, the sync, the directory's: each in turn
        for at in next..next + 7 {
            lock(&disk.0).fault = Some((at, Fault::Error(kind)));
            if let Err(e) = fetch_and_save(&store, &manifest, &bytes, PieceIndex(0)) {
                assert_eq!(e, expected, "at {at}");
                lock(&disk.0).operations = at;
            }
        }
    }
}

#[test]
fn the_terms_of_a_copy_outlive_its_download_and_go_with_the_copy() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let version = manifest.version();
    let (disk, opened) = open(Medium::default());
    let (store, _) = opened.expect("an empty disk");
    assert!(download(&store, &manifest, &bytes, 1).placed);
    let ticket = Some(Box::new(super::crash_tests::ticket(version)));
    let terms = |upload_rate_max, spent| {
        let policy = Policy { upload_rate_max, ..Policy::default() };
        CopyTerms { policy, spent, ticket: ticket.clone() }
    };
    saved(&store, Save::Copy { version, terms: terms(1, 77) }).expect("room");
    let mut newer = record(1, version, bytes.len() as u64);
    newer.state = DownloadState::Completed;
    newer.granted.as_mut().expect("granted").policy.upload_rate_max = 2;
    saved(&store, Save::Download(newer)).expect("room");
    saved(&store, Save::Forget { handle: Handle(1) }).expect("room");
    drop(store);
    let (store, restored) = reopen(&disk);
    let kept = "the newest policy, and the count and the ticket as they were";
    assert_eq!(restored.terms, [(version, terms(2, 77))].into(), "{kept}");
    saved(&store, Save::Uncache { version }).expect("room");
    saved(&store, Save::Copy { version, terms: terms(3, 78) }).expect("of a copy that is gone nothing is written");
    drop(store);
    assert!(reopen(&disk).1.terms.is_empty());
}

#[test]
fn a_grants_ticket_stays_with_the_copy_when_its_download_is_forgotten() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let version = manifest.version();
    let (disk, opened) = open(Medium::default());
    let (store, _) = opened.expect("an empty disk");
    assert!(download(&store, &manifest, &bytes, 1).placed);
    let mut granted = record(1, version, bytes.len() as u64);
    granted.state = DownloadState::Completed;
    granted.granted.as_mut().expect("granted").ticket = Some(Box::new(super::crash_tests::ticket(version)));
    saved(&store, Save::Download(granted)).expect("room");
    saved(&store, Save::Forget { handle: Handle(1) }).expect("room");
    drop(store);
    let ticket = reopen(&disk).1.terms.remove(&version).and_then(|terms| terms.ticket);
    assert_eq!(ticket.as_deref(), Some(&super::crash_tests::ticket(version)));
}

#[test]
fn a_notice_replaces_the_policy_of_a_copy_before_any_grant() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let version = manifest.version();
    let (disk, opened) = open(Medium::default());
    let (store, _) = opened.expect("an empty disk");
    assert!(download(&store, &manifest, &bytes, 1).placed);
    let ticket = Some(Box::new(super::crash_tests::ticket(version)));
    let terms = |upload_rate_max| {
        let policy = Policy { upload_rate_max, ..Policy::default() };
        CopyTerms { policy, spent: 77, ticket: ticket.clone() }
    };
    saved(&store, Save::Copy { version, terms: terms(1) }).expect("room");
    let notice = Notice::about_version(version, 7, &Terms::Policy(terms(2).policy));
    saved(&store, Save::Notice(notice.clone())).expect("room");
    let completed = DownloadRecord { state: DownloadState::Completed, ..record(1, version, bytes.len() as u64) };
    saved(&store, Save::Download(completed)).expect("room");
    saved(&store, Save::Forget { handle: Handle(1) }).expect("room");
    drop(store);
    let (store, restored) = reopen(&disk);
    assert_eq!(restored.terms, [(version, terms(2))].into(), "the policy of the notice, and the count as it was");
    assert_eq!(restored.notices, [notice]);
    saved(&store, Save::Uncache { version }).expect("room");
    drop(store);
    let (_, restored) = reopen(&disk);
    assert!(restored.terms.is_empty() && restored.notices.is_empty());
}

#[test]
fn a_download_has_room_once_what_it_lacks_fits_on_the_disk() {
    let bytes = content(SIZE);
    let manifest = manifest_of(&bytes, 65_536);
    let (disk, opened) = open(Medium::default());
    let (store, _) = opened.expect("an empty disk");
    store.put_manifest(manifest.clone());
    saved(&store, Save::Download(record(1, manifest.version(), bytes.len() as u64))).expect("room");
    let room = |free: u64| {
        lock(&disk.0).used = u64::MAX - free;
        [1, 2].map(|handle| saved(&store, Save::Room { handle: Handle(handle) }))
    };
    let (lacks, full) = (SIZE as u64, Err(StoreError::NoSpace));
    assert_eq!(room(lacks + (1 << 20)), [Ok(()), Ok(())]);
    assert_eq!(room(lacks + (1 << 20) - 1), [full, Ok(())], "of an unknown download nothing is known to be lacking");
    assert_eq!(room((1 << 20) - 1), [full, full]);
    let (told, hears) = std::sync::mpsc::channel();
    store.on_no_room(move |what| drop(told.send(what)));
    let begins = |free: u64| {
        lock(&disk.0).used = u64::MAX - free;
        let state = DownloadState::Starting;
        saved(&store, Save::Download(DownloadRecord { state, ..record(1, manifest.version(), bytes.len() as u64) }))
    };
    assert_eq!(begins(lacks + (1 << 20) - 1), full, "what cannot go on cannot begin either");
    assert!(hears.try_recv().is_ok_and(|(handle, why)| handle == Handle(1) && why.contains("/state")));
    assert_eq!(begins(lacks + (1 << 20)), Ok(()));
}
