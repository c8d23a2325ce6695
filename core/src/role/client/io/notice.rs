//! Notices of the client machine to the user.

use super::{CloseReason, DownloadStatus, Meeting, NoPeers, SourceName, StoreError};
use crate::ids::{Handle, IntroId, ReqId, VersionId};
use alloc::vec::Vec;

/// Report to the user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A command was carried out or refused.
    Done {
        /// Number of the command.
        req: ReqId,
        /// Handle of the download that the command concerned, if any, or the reason why it was refused.
        result: Result<Option<Handle>, CommandError>,
    },
    /// A download's state or figures have changed; at most a few reports a second.
    Download(DownloadStatus),
    /// A download has stopped using a source.
    SourceDropped {
        /// Download that used the source.
        handle: Handle,
        /// Edge or peer that was dropped.
        source: SourceName,
        /// Reason for dropping the source.
        why: CloseReason,
    },
    /// An introduction has made progress, or its connection attempt has ended.
    Meeting(IntroId, Meeting),
    /// A download is without peers, or without more of them, for this reason; it replaces an earlier reason.
    NoPeers {
        /// Download that is without peers.
        handle: Handle,
        /// Reason, as the edge, the CN or the DN has given it.
        why: NoPeers,
    },
    /// The control session has opened or closed.
    Session {
        /// Whether the session is open now.
        connected: bool,
    },
    /// The CN does not offer these copies to others, since it refuses their holder's tickets; told once a session.
    TicketsRefused(Vec<VersionId>),
    /// The CNs refuse this version of the client: downloads come from the edges alone, and nothing is uploaded.
    Outdated,
}

/// Reason for refusing a command of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandError {
    /// There is no download with this handle.
    UnknownHandle,
    /// The cache does not hold this version.
    UnknownVersion,
    /// A running download uses the version.
    InUse,
    /// A running download already writes the object to another output.
    AlreadyRunning,
    /// The store could not write the change.
    Store(StoreError),
}
