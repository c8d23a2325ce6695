//! What the client machine tells its user.

use super::io::{CloseReason, DownloadStatus, Meeting, SourceName, StoreError};
use crate::ids::{Handle, IntroId, ReqId};

/// Something the user may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A command was carried out or refused.
    Done {
        /// Which.
        req: ReqId,
        /// The handle it speaks of, or why not.
        result: Result<Option<Handle>, CommandError>,
    },
    /// A download's state or figures have changed; at most a few a second.
    Download(DownloadStatus),
    /// A source was dropped.
    SourceDropped {
        /// Of this download.
        handle: Handle,
        /// Which.
        source: SourceName,
        /// Why.
        why: CloseReason,
    },
    /// What became of an introduction.
    Meeting(IntroId, Meeting),
    /// The control session is open, or lost.
    Session {
        /// Open.
        connected: bool,
    },
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandError {
    /// No such download.
    UnknownHandle,
    /// No such cached version.
    UnknownVersion,
    /// A running download uses it.
    InUse,
    /// A running download takes the object to another output.
    OnItsWay,
    /// The store refused.
    Store(StoreError),
}
