//! What a client keeps.

use super::{DownloadRecord, SourceName};
use crate::ids::{DownloadId, Guid, Handle, PieceIndex, RecordId, VersionId};
use crate::wire::records::{PeerBytes, SignedCheckpoint, UsageRecord};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A durable write. What depends on it happens while its `Saved` is handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Save {
    /// A download begins or changes: kept until `Forget`, given back by [`crate::role::client::Restore`].
    Download(DownloadRecord),
    /// A piece is complete and verified: sync its bytes, then journal it with its sources. The shell may gather several
    /// into one sync.
    Piece {
        /// Of this download.
        handle: Handle,
        /// Of this version.
        version: VersionId,
        /// Which.
        piece: PieceIndex,
        /// Who delivered how many of its bytes.
        from: Vec<(SourceName, u32)>,
    },
    /// Every piece is journalled: put the file where the user wants it.
    Finish {
        /// Which download.
        handle: Handle,
        /// Of this version.
        version: VersionId,
    },
    /// Forget a download; its pieces too, unless another download or the cache holds them.
    Forget {
        /// Which.
        handle: Handle,
    },
    /// Delete a cached version.
    Uncache {
        /// Which.
        version: VersionId,
    },
    /// Keep an uploader's newest receipt of an introduction, until a kept usage record holds it.
    Receipt(KeptReceipt),
    /// Keep a usage record until it is acknowledged. The receipts that it holds need no place of their own any more.
    Usage(UsageRecord),
    /// These usage records are in the ledger: delete them.
    UsageDone(Vec<RecordId>),
    /// Keep the newest checkpoint of this client's logs in place of the one before.
    Checkpoint(Box<SignedCheckpoint>),
    /// From here on all is kept under this GUID. Usage records and receipts of another are forgotten.
    Owner(Guid),
    /// The user's choice.
    Uploads(bool),
}

/// A receipt that no usage record holds yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeptReceipt {
    /// Of this download.
    pub download: DownloadId,
    /// Of this version.
    pub version: VersionId,
    /// The introduction, K_d, and the receipt.
    pub peer: PeerBytes,
}

impl KeptReceipt {
    /// Whether a usage record holds this receipt or a newer one.
    #[must_use]
    pub fn is_in(&self, record: &UsageRecord) -> bool {
        let seq = |p: &PeerBytes| p.receipt.as_ref().map_or(0, |r| r.seq);
        record.download == self.download
            && record.peers.iter().any(|p| p.intro == self.peer.intro && seq(p) >= seq(&self.peer))
    }
}
