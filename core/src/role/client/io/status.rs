//! Status of a download as reported to the user.

use super::{DownloadState, FailReason, ObjectRef};
use crate::ids::{DownloadId, Handle, VersionId};
use crate::wire::records::FailCause;

/// Status and figures of one download.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadStatus {
    /// Handle of the download.
    pub handle: Handle,
    /// Object that is downloaded.
    pub object: ObjectRef,
    /// Id of the download; `None` before an edge has granted it.
    pub download: Option<DownloadId>,
    /// Version that is downloaded; `None` before an edge has granted the download.
    pub version: Option<VersionId>,
    /// Stage that the download has reached.
    pub state: DownloadState,
    /// Size of the version in bytes; 0 until known.
    pub size: u64,
    /// Bytes of journalled pieces.
    pub durable: u64,
    /// Verified bytes from edges, each counted once.
    pub edge_bytes: u64,
    /// Verified bytes from peers, each counted once.
    pub peer_bytes: u64,
    /// Bytes that were received and thrown away.
    pub wasted_bytes: u64,
    /// Number of peers connected for this download.
    pub peers: u32,
}

impl DownloadState {
    /// Returns the cause of the failure in the form of the usage record; `None` unless the download has failed.
    #[must_use]
    pub const fn cause(self) -> Option<FailCause> {
        let Self::Failed(why) = self else { return None };
        Some(match why {
            FailReason::NotFound => FailCause::NotFound,
            FailReason::Forbidden | FailReason::TokenExpired | FailReason::Blocked => FailCause::Forbidden,
            FailReason::EdgeUnreachable => FailCause::EdgeUnreachable,
            FailReason::VersionGone | FailReason::Expired => FailCause::VersionGone,
            FailReason::NoSpace => FailCause::NoSpace,
            FailReason::Io | FailReason::OutputTaken => FailCause::Io,
            FailReason::EdgeCorrupt => FailCause::EdgeCorrupt,
        })
    }
}
