//! Durable writes of the client machine.

use super::{DownloadRecord, SourceName};
use crate::ids::{DownloadId, Guid, Handle, PieceIndex, RecordId, VersionId};
use crate::wire::records::{PeerBytes, SignedCheckpoint, UsageRecord};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Change to the store. Whatever depends on it happens while its [`super::Input::Saved`] is handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Save {
    /// Store a new or changed download: kept until `Forget`, returned by [`crate::role::client::Restore`].
    Download(DownloadRecord),
    /// Sync the bytes of a complete, verified piece, then journal the piece with its sources. The shell may gather
    /// several into one sync.
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
    /// Put the file in the user's place: every piece is journalled.
    Finish {
        /// Download that is finished.
        handle: Handle,
        /// Version of the file.
        version: VersionId,
    },
    /// Delete a download, and its pieces too unless another download or the cache uses them.
    Forget {
        /// Download to be deleted.
        handle: Handle,
    },
    /// Delete a cached version.
    Uncache {
        /// Version to be deleted.
        version: VersionId,
    },
    /// Keep the newest receipt that a downloader gave under an introduction, until a stored usage record holds it.
    Receipt(KeptReceipt),
    /// Keep a usage record until it is acknowledged, and delete the separate copies of the receipts that it holds.
    Usage(UsageRecord),
    /// Delete usage records that the ledger has acknowledged.
    UsageDone(Vec<RecordId>),
    /// Replace the stored checkpoint of this client's logs by a newer one.
    Checkpoint(Box<SignedCheckpoint>),
    /// Store everything from now on under this GUID; delete usage records and receipts of any other GUID.
    Owner(Guid),
    /// Store the user's choice whether to upload.
    Uploads(bool),
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
