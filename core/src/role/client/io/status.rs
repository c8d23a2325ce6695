//! What a user is told of a download.

use super::{DownloadState, FailReason, ObjectRef};
use crate::ids::{DownloadId, Handle, VersionId};
use crate::wire::records::FailCause;

/// A download's figures.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadStatus {
    /// Which.
    pub handle: Handle,
    /// The object.
    pub object: ObjectRef,
    /// The download's id, once granted.
    pub download: Option<DownloadId>,
    /// The version, once known.
    pub version: Option<VersionId>,
    /// How far.
    pub state: DownloadState,
    /// Bytes of the version, once known.
    pub size: u64,
    /// Bytes of journalled pieces.
    pub durable: u64,
    /// Verified bytes from edges, each counted once.
    pub edge_bytes: u64,
    /// Verified bytes from peers, each counted once.
    pub peer_bytes: u64,
    /// Bytes that were received and thrown away.
    pub wasted_bytes: u64,
    /// Peers connected for it.
    pub peers: u32,
}

impl DownloadState {
    /// Why it failed, as its usage record says it.
    #[must_use]
    pub const fn cause(self) -> Option<FailCause> {
        let Self::Failed(why) = self else { return None };
        Some(match why {
            FailReason::NotFound => FailCause::NotFound,
            FailReason::Forbidden => FailCause::Forbidden,
            FailReason::EdgeUnreachable => FailCause::EdgeUnreachable,
            FailReason::VersionGone => FailCause::VersionGone,
            FailReason::NoSpace => FailCause::NoSpace,
            FailReason::Io | FailReason::OutputTaken => FailCause::Io,
            FailReason::EdgeCorrupt => FailCause::EdgeCorrupt,
        })
    }
}
