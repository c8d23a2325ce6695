//! Shared result types: how transfers, disk writes, downloads and connections end, and the name of a source of bytes.

use crate::ids::{IntroId, PublicKey};
use crate::wire::peer::RefuseCode;

/// Reason why an edge did not deliver what a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EdgeError {
    /// No connection could be made, or it broke.
    Unreachable,
    /// The edge is overloaded or failed (HTTP 5xx): try again, perhaps at another edge.
    Unavailable,
    /// The edge issues no more grants at present (HTTP 429); the client asks again later.
    Busy {
        /// Wait before the next request, in milliseconds.
        retry_after_ms: u32,
    },
    /// The edge cannot record how many bytes it sends for this download, and so sends none (HTTP 409): request a grant
    /// that permits no peers instead.
    Uncounted,
    /// The edge does not know the object or version (HTTP 404).
    NotFound,
    /// The object has expired: its provider's policy lets nobody have it any more (HTTP 410).
    Expired,
    /// The operator has blocked this version of the client (HTTP 426).
    Blocked,
    /// The edge refuses access (HTTP 401, 403).
    Forbidden,
    /// The object has another version now (HTTP 412).
    Changed,
    /// The edge refuses the download's old grant: ask for a new one (the download id changes).
    GrantExpired,
    /// The edge's answer is wrong: another manifest, another range, or a broken signature.
    Invalid,
}

/// Result of a transfer of blocks to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchEnd {
    /// All blocks of the transfer are verified and written (not yet durable).
    Fetched,
    /// The source sent a block whose hash is wrong, or leaf hashes that do not make the piece's root.
    BadBlock {
        /// The block within the piece (0 if the leaf hashes were wrong).
        block: u32,
    },
    /// The peer refused the request.
    Refused(RefuseCode),
    /// The edge answered with an error: the version is gone, the grant is refused, or similar.
    EdgeRefused(EdgeError),
    /// The connection broke or stalled.
    Broken,
    /// The local store could not write the blocks.
    Store(StoreError),
    /// The transfer was cancelled with `CancelFetch`.
    Cancelled,
}

/// Reason for which the client's store failed. Pieces that were durable before are not lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// The disk is full: the download pauses with a clear error.
    NoSpace,
    /// The operating system reported another I/O error.
    Io,
    /// A file that may not be replaced exists at the output path.
    Taken,
}

/// The source of delivered bytes, as usage records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceName {
    /// The edges together; usage records do not distinguish them.
    Edge,
    /// A peer, named by its introduction and public key.
    Peer(IntroId, PublicKey),
}

/// Reason for which a download failed. Verified pieces stay on disk; `resume` or the same `get` continues with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The edge does not know the object.
    NotFound,
    /// The edge refuses access to the object.
    Forbidden,
    /// No edge has answered within the configured time.
    EdgeUnreachable,
    /// The object has expired: its provider's policy lets nobody have it any more.
    Expired,
    /// The download's grant is too old to be renewed, and the edge gives no new one without a valid token.
    TokenExpired,
    /// The operator has blocked this version of the client.
    Blocked,
    /// The object was withdrawn or replaced while it was downloaded; the same `get` starts the new version.
    VersionGone,
    /// The disk is full.
    NoSpace,
    /// The disk reports I/O errors.
    Io,
    /// Every edge has sent wrong bytes.
    EdgeCorrupt,
    /// A file that may not be replaced exists at the output path.
    OutputTaken,
}

impl From<StoreError> for FailReason {
    fn from(why: StoreError) -> Self {
        match why {
            StoreError::NoSpace => Self::NoSpace,
            StoreError::Io => Self::Io,
            StoreError::Taken => Self::OutputTaken,
        }
    }
}

/// Reason for closing a connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The download is complete or stopped.
    Done = 0,
    /// The peer sent a block with a wrong hash.
    BadBlock = 1,
    /// The peer broke the protocol.
    Violation = 2,
    /// The peer's introduction is not valid.
    NotIntroduced = 3,
    /// The limit of peer connections is reached.
    Full = 4,
    /// The user has turned uploads off.
    UploadsOff = 5,
    /// The peer was silent or too slow for too long.
    Stalled = 6,
    /// The client process is shutting down.
    Shutdown = 7,
}
