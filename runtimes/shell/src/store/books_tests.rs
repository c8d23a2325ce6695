//! What the store keeps of the client's books: usage records until they are acknowledged, the newest checkpoint.

use super::Store;
use crate::keys::Key;
use swarmedge_core::accounting::logs::Log;
use swarmedge_core::ids::{DownloadId, Guid, RecordId, SecondaryGuid, Signature, VersionId};
use swarmedge_core::role::client::io::{Save, StoreError};
use swarmedge_core::wire::records::{
    CertBody, Checkpoint, ServerCert, ServerRole, Side, SignedCheckpoint, SignedHead, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Text};

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
fn records_are_kept_until_they_are_acknowledged_and_of_checkpoints_the_newest() {
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
