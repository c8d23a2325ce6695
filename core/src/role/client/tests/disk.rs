//! The client's store in these tests; it survives crashes of the client.

use super::super::io::{CopyTerms, DownloadRecord, KeptReceipt, Save, SourceName};
use crate::content::Layout;
use crate::ids::{Guid, Handle, PieceIndex, VersionId};
use crate::wire::notice::{Notice, Subject};
use crate::wire::records::{SignedCheckpoint, SignedRekey, UsageRecord};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Contents of the client's store, which survive a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) downloads: BTreeMap<Handle, DownloadRecord>,
    pub(super) pieces: BTreeMap<VersionId, BTreeSet<PieceIndex>>,
    pub(super) sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    pub(super) usage: Vec<UsageRecord>,
    pub(super) receipts: Vec<KeptReceipt>,
    pub(super) cached: BTreeSet<VersionId>,
    pub(super) terms: BTreeMap<VersionId, CopyTerms>,
    pub(super) notices: BTreeMap<Subject, Notice>,
    pub(super) checkpoint: Option<Box<SignedCheckpoint>>,
    pub(super) owner: Option<Guid>,
    pub(super) new_key: Option<Box<SignedRekey>>,
    pub(super) uploads: Option<bool>,
}

impl Disk {
    /// Performs a write that the client's machine asks for.
    pub(super) fn keep(&mut self, what: Save, layouts: &BTreeMap<VersionId, Layout>) {
        let disk = self;
        match what {
            Save::Download(record) => {
                if let Some(granted) = &record.granted {
                    let fresh = || CopyTerms { policy: granted.policy.clone(), spent: 0, ticket: None };
                    let terms = disk.terms.entry(granted.version).or_insert_with(fresh);
                    terms.policy = granted.policy.clone();
                    terms.ticket = granted.ticket.clone().or_else(|| terms.ticket.take());
                }
                disk.downloads.insert(record.handle, record);
            }
            Save::Piece { handle, version, piece, from } => {
                assert!(disk.pieces.entry(version).or_default().insert(piece), "journalled twice");
                for (name, bytes) in from {
                    *disk.sources.entry(handle).or_default().entry(name).or_default() += u64::from(bytes);
                }
            }
            Save::Finish { version, .. } => {
                let have = disk.pieces.get(&version).map_or(0, BTreeSet::len);
                assert_eq!(have, layouts[&version].pieces() as usize, "finished with a piece missing");
                disk.cached.insert(version);
            }
            Save::Forget { handle } => {
                disk.sources.remove(&handle);
                let version = disk.downloads.remove(&handle).and_then(|r| r.granted).map(|g| g.version);
                if let Some(version) = version.filter(|v| !disk.cached.contains(v)) {
                    disk.pieces.remove(&version);
                }
            }
            Save::Uncache { version } => {
                disk.cached.remove(&version);
                disk.pieces.remove(&version);
                disk.notices.remove(&Subject::version(version));
            }
            Save::Receipt(kept) => {
                disk.receipts.retain(|k| k.peer.intro != kept.peer.intro);
                disk.receipts.push(kept);
            }
            Save::Usage(record) => {
                disk.receipts.retain(|kept| !kept.is_in(&record));
                disk.usage.push(record);
            }
            Save::UsageDone(ids) => disk.usage.retain(|r| !ids.contains(&r.id)),
            Save::Notice(notice) => _ = disk.notices.insert(notice.subject, notice),
            Save::Checkpoint(newest) => disk.checkpoint = Some(newest),
            Save::Owner(guid) => disk.owner = Some(guid),
            Save::Uploads(on) => disk.uploads = Some(on),
            Save::Copy { version, terms } => drop(disk.terms.insert(version, terms)),
            Save::Room { .. } => {}
        }
    }
}
