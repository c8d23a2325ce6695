//! Usage records are kept until they are acknowledged, and the newest checkpoint is kept.

use super::{Delays, Store};
use crate::mem_disk::{Fault, Medium, MemDisk, coin};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::accounting::logs::Log;
use swarmedge_core::ids::{DownloadId, Guid, RecordId, SecondaryGuid, Signature, VersionId};
use swarmedge_core::role::client::io::{Save, StoreError};
use swarmedge_core::wire::records::{
    CertBody, Checkpoint, ServerCert, ServerRole, Side, SignedCheckpoint, SignedHead, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Text};
use swarmedge_ground::keys::Key;

fn saved(store: &Store, what: Save) -> Result<(), StoreError> {
    let (tx, rx) = std::sync::mpsc::channel();
    store.save(what, move |result| tx.send(result).expect("the test waits"));
    rx.recv().expect("answered")
}

fn usage(n: u32, key: &Key) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(n),
        reporter: Guid::of(&key.public()),
        side: Side::Downloader,
        download: DownloadId::numbered(n),
        version: VersionId::numbered(1),
        seq: 1,
        state: UsageState::Completed,
        edge_bytes: 5,
        peers: List::default(),
        elapsed_ms: 6,
        cause: None,
    }
}

fn checkpoint(n: u32, key: &Key) -> Box<SignedCheckpoint> {
    let head = Log::default().append(SecondaryGuid::numbered(1), &usage(n, key));
    let head = SignedHead { head, key: key.public(), signature: Signature::numbered(2) };
    let body = CertBody {
        role: ServerRole::Cn,
        name: Text::new("cn").expect("short"),
        key: key.public(),
        not_before_ms: 1,
        not_after_ms: 2,
    };
    let cert = ServerCert { body, signature: Signature::numbered(3) };
    let checkpoint = Checkpoint { head, at_ms: u64::from(n) };
    Box::new(SignedCheckpoint { checkpoint, signature: Signature::numbered(4), cert })
}

#[test]
fn records_stay_until_acknowledged_and_the_newest_checkpoint_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Key::generate();
    let (store, _) = Store::open(dir.path()).expect("opens");
    for n in 1..=3 {
        saved(&store, Save::Usage(usage(n, &key))).expect("saved");
        saved(&store, Save::Checkpoint(checkpoint(n, &key))).expect("saved");
    }
    saved(&store, Save::UsageDone(vec![RecordId::numbered(1), RecordId::numbered(3)])).expect("saved");
    drop(store);
    let (_, restored) = Store::open(dir.path()).expect("opens again");
    assert_eq!(restored.usage, [usage(2, &key)]);
    assert_eq!(restored.checkpoint, Some(checkpoint(3, &key)));
}

/// Scenario: the disk fails from some operation of the journal on, then works again. Records reported durable stay;
/// others can be saved again without a restart of the client; all of them survive a crash.
#[test]
fn a_journal_goes_on_after_a_fault_that_lasted_and_loses_no_record() {
    let key = Key::generate();
    let open = |disk: &MemDisk| {
        let delays = Delays { gather: Duration::ZERO, shred: Duration::ZERO };
        Store::open_on(Arc::new(disk.clone()), Path::new("/state"), delays, None).expect("opens")
    };
    let operations = |disk: &MemDisk| disk.0.lock().expect("whole").operations;
    let save = |store: &Store, n: u32| saved(store, Save::Usage(usage(n, &key)));
    let whole = MemDisk::new(Medium::default());
    let (store, _) = open(&whole);
    let opened = operations(&whole);
    (1..=4).for_each(|n| save(&store, n).expect("no fault"));
    let written = operations(&whole);
    assert!(written >= opened + 4);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for at in opened + 1..=written {
            let disk = MemDisk::new(Medium::with(Some((at, Fault::Lasting(kind)))));
            let (store, _) = open(&disk);
            let failed = (1..=4).filter(|n| save(&store, *n).is_err()).collect::<Vec<_>>();
            assert!(!failed.is_empty(), "{kind} at {at}: it never happened");
            disk.0.lock().expect("whole").fault = None;
            (5..=6).chain(failed).for_each(|n| save(&store, n).unwrap_or_else(|e| panic!("{kind} at {at}: {e:?}")));
            for seed in 0..4 {
                let image = disk.0.lock().expect("whole").after_crash(coin(seed));
                let (_, restored) = open(&MemDisk::new(image));
                let mut ids: Vec<_> = restored.usage.iter().map(|u| u.id).collect();
                ids.sort_unstable();
                assert_eq!(ids, (1..=6).map(RecordId::numbered).collect::<Vec<_>>(), "{kind} at {at}, seed {seed}");
            }
        }
    }
}
