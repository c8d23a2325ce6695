//! How transfers, writes, downloads and connections end, and who sent the bytes: the words that a download and those
//! around it share.

use crate::ids::{IntroId, PublicKey};
use crate::wire::peer::RefuseCode;

/// Why an edge did not answer as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EdgeError {
    /// Could not be reached, or the connection broke.
    Unreachable,
    /// It is overloaded or failed (5xx): try again, perhaps elsewhere.
    Unavailable,
    /// Too many ask for grants (429): it answers again after a while.
    Busy {
        /// After this.
        retry_after_ms: u32,
    },
    /// It cannot count the download, and sends none of its bytes: go on without peers (409).
    Uncounted,
    /// It does not know the object or version (404, 410).
    NotFound,
    /// It refuses (401, 403).
    Forbidden,
    /// The object has another version now (412).
    Changed,
    /// It refuses the download's old grant: ask for a new one (the download id changes).
    GrantExpired,
    /// What it sent is wrong: not the manifest of that version, not the asked range, a broken signature.
    Invalid,
}

/// How an incoming transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchEnd {
    /// All its blocks are verified and written (not yet durable).
    Fetched,
    /// The source sent a block whose hash is wrong, or leaf hashes that do not make the piece's root.
    BadBlock {
        /// The block within the piece (0 if the leaf hashes were wrong).
        block: u32,
    },
    /// The source refused.
    Refused(RefuseCode),
    /// The edge answered that the version is gone or refuses the grant.
    EdgeRefused(EdgeError),
    /// The connection broke or stalled.
    Broken,
    /// The disk refused.
    Store(StoreError),
    /// As ordered.
    Cancelled,
}

/// Why the store refused. Nothing that was verified and durable is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreError {
    /// The disk is full: the download pauses with a clear error.
    NoSpace,
    /// Any other failure.
    Io,
    /// Something that may not be replaced stands where a file is to go.
    Taken,
}

/// Who delivered bytes, for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceName {
    /// Any edge.
    Edge,
    /// A peer, by its introduction and key.
    Peer(IntroId, PublicKey),
}

/// Why a download failed. Verified pieces are kept: `resume` or the same `get` goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The edge does not know the object.
    NotFound,
    /// The edge refuses.
    Forbidden,
    /// No edge has answered within the configured time.
    EdgeUnreachable,
    /// The object was withdrawn or replaced while it was downloaded; the same `get` starts the new version.
    VersionGone,
    /// The disk is full.
    NoSpace,
    /// The disk fails.
    Io,
    /// The edge sends wrong bytes.
    EdgeCorrupt,
    /// Something that may not be replaced stands where the file is to go.
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

/// Why a peer connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CloseReason {
    /// The download is complete or stopped.
    Done = 0,
    /// It sent a wrong block.
    BadBlock = 1,
    /// It broke the protocol.
    Violation = 2,
    /// Its introduction is not valid.
    NotIntroduced = 3,
    /// No room for more peers.
    Full = 4,
    /// Uploads are off.
    UploadsOff = 5,
    /// Silent or too slow for too long.
    Stalled = 6,
    /// The client stops.
    Shutdown = 7,
}
