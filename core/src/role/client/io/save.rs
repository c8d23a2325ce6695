//! Durable writes of the client machine.

use super::{DownloadRecord, SourceName};
use crate::content::Policy;
use crate::ids::{DownloadId, Guid, Handle, PieceIndex, RecordId, VersionId};
use crate::wire::notice::Notice;
use crate::wire::records::{PeerBytes, SignedCheckpoint, SignedHolderTicket, UsageRecord};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Change to the store. Actions that depend on its durability follow while its [`super::Input::Saved`] is handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Save {
    /// Store a new or changed download; kept until `Forget`, and returned by [`crate::role::client::Restore`]. The
    /// policy and the holder's ticket of its grant become those of the version's [`CopyTerms`].
    Download(DownloadRecord),
    /// Sync the bytes of a complete, verified piece to disk, then enter the piece and its sources in the journal. The
    /// shell may gather several pieces into one sync.
    Piece {
        /// Download that fetched the piece.
        handle: Handle,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the piece.
        piece: PieceIndex,
        /// Bytes of the piece that each source delivered.
        from: Vec<(SourceName, u32)>,
    },
    /// Place the complete file at the user's destination; every piece is in the journal.
    Finish {
        /// Download that is finished.
        handle: Handle,
        /// Version of the file.
        version: VersionId,
    },
    /// Delete a download, and its pieces unless another download or the cache uses them.
    Forget {
        /// Download to be deleted.
        handle: Handle,
    },
    /// Delete a cached version.
    Uncache {
        /// Version to be deleted.
        version: VersionId,
    },
    /// Store the newest receipt that a downloader gave under an introduction, until a stored usage record holds it.
    Receipt(KeptReceipt),
    /// Store a usage record until the ledger has acknowledged it, and delete the separate copies of the receipts in
    /// it.
    Usage(UsageRecord),
    /// Delete usage records that the ledger has acknowledged.
    UsageDone(Vec<RecordId>),
    /// Replace the stored checkpoint of this client's logs by a newer one.
    Checkpoint(Box<SignedCheckpoint>),
    /// Store everything from now on under this GUID; delete usage records and receipts of any other GUID.
    Owner(Guid),
    /// Store the newest notice about a version, in place of the one before, as long as the version is kept.
    Notice(Notice),
    /// Store the user's choice whether to upload.
    Uploads(bool),
    /// Store the terms of sharing of a version, when its count of sent bytes has changed. Kept as long as the version's
    /// manifest.
    Copy {
        /// Version that the terms are of.
        version: VersionId,
        /// The newest terms.
        terms: CopyTerms,
    },
    /// Check that the disks of the state directory and of the download's output have room for what the download lacks.
    /// Changes nothing; fails with `NoSpace` if a disk is too full.
    Room {
        /// Download that a full disk has stopped.
        handle: Handle,
    },
}

/// Terms of sharing of a copy (pieces of a version), known without any download.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CopyTerms {
    /// The provider's policy, as in the newest grant for the version.
    pub policy: Policy,
    /// Bytes of the version sent to peers, which the policy limits.
    pub spent: u64,
    /// Newest ticket by which an edge has granted the version to this client, shown to CNs; `None` if no edge gave one.
    pub ticket: Option<Box<SignedHolderTicket>>,
}

/// A receipt that no usage record holds yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeptReceipt {
    /// Download that the receipt is for.
    pub download: DownloadId,
    /// Version that was served.
    pub version: VersionId,
    /// Introduction, key K_d and receipt.
    pub peer: PeerBytes,
}

impl KeptReceipt {
    /// Returns whether a usage record holds this receipt or a newer one of the introduction.
    #[must_use]
    pub fn is_in(&self, record: &UsageRecord) -> bool {
        let seq = |p: &PeerBytes| p.receipt.as_ref().map_or(0, |r| r.seq);
        record.download == self.download
            && record.peers.iter().any(|p| p.intro == self.peer.intro && seq(p) >= seq(&self.peer))
    }
}
