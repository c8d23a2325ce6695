//! Inputs, outputs and configuration of a download.

use crate::ids::{ConnId, IntroId, PieceIndex, XferId};
use crate::swarm::outcome::{CloseReason, FailReason, FetchEnd, SourceName, StoreError};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// An event for the download.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The user starts or resumes the download. Ignored while it is running.
    Start,
    /// The user pauses the download: running transfers are cancelled, peers disconnected. Verified pieces are kept.
    Stop,
    /// The number of edges is known; they are numbered from 0.
    Edges(u32),
    /// A new grant for this download has arrived: answers [`Output::RenewGrant`] or [`Output::LeavePeers`].
    Renewed,
    /// An edge has answered a request of the client: a wait because all edges have failed ends now.
    EdgeAnswered,
    /// The client's network has changed: answers to requests that edges have not yet answered will not arrive.
    Moved,
    /// The client sets the maximum number of bytes of this download that are requested or received and not yet
    /// durable.
    Budget(u64),
    /// The provider has changed the minimum rate of the download, in bytes a second.
    RateMin(u64),
    /// A peer is connected and serves this download.
    PeerJoined {
        /// Connection of the new peer.
        conn: ConnId,
        /// The peer's name in usage records.
        name: SourceName,
        /// Maximum of simultaneous requests that the peer accepts.
        requests_max: u16,
    },
    /// A page of a peer's have-map arrived, the list of pieces that it has: bit `i`, most significant first, stands
    /// for piece `first + i`.
    PeerMap {
        /// Connection of the peer that sent the page.
        conn: ConnId,
        /// Piece index of the first bit.
        first: PieceIndex,
        /// One bit for each piece, set if the peer has it.
        bits: Vec<u8>,
    },
    /// A peer has obtained these further pieces.
    PeerHas {
        /// Connection of the peer with new pieces.
        conn: ConnId,
        /// Indexes of the new pieces.
        pieces: Vec<PieceIndex>,
    },
    /// A peer's connection has ended; its transfers end separately.
    PeerLeft {
        /// Connection that has ended.
        conn: ConnId,
    },
    /// A transfer has verified more bytes.
    Progress {
        /// Number of the transfer, as in [`Output::Fetch`].
        xfer: XferId,
        /// Total bytes that the transfer has verified so far.
        verified: u64,
    },
    /// A transfer has ended; sent exactly once for each [`Output::Fetch`].
    Ended {
        /// Number of the transfer, as in [`Output::Fetch`].
        xfer: XferId,
        /// Result of the transfer.
        end: FetchEnd,
    },
    /// The store has saved a piece, or failed to: answers [`Output::SavePiece`].
    PieceSaved {
        /// Index of the piece.
        piece: PieceIndex,
        /// `Ok` if the piece is durable.
        result: Result<(), StoreError>,
    },
    /// The file is at its output path, or could not be put there: answers [`Output::Finish`].
    Finished(Result<(), StoreError>),
}

/// A source from which blocks are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An edge, by its number.
    Edge(u32),
    /// A connected peer, by its connection.
    Peer(ConnId),
}

/// A command of the download to the client's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Fetch blocks, verify and write them; answered by exactly one [`Input::Ended`].
    Fetch {
        /// Number of the transfer; the upper 32 bits are the number (handle) of the download.
        xfer: XferId,
        /// The edge or peer to ask.
        source: Source,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of blocks within the piece.
        blocks: Range<u32>,
    },
    /// Stop a transfer; its [`Input::Ended`] still follows.
    CancelFetch {
        /// Number of the transfer, as in [`Output::Fetch`].
        xfer: XferId,
    },
    /// Report that blocks of a peer are verified, which it was the first to deliver, so that it gets a receipt for
    /// them.
    Verified {
        /// Connection of the peer to credit.
        conn: ConnId,
        /// Number of bytes of the verified blocks.
        bytes: u64,
    },
    /// Make a complete piece durable; answered by [`Input::PieceSaved`].
    SavePiece {
        /// Index of the piece.
        piece: PieceIndex,
        /// Bytes of the piece by source.
        from: Vec<(SourceName, u32)>,
    },
    /// Put the file at its output path: every piece is durable.
    Finish,
    /// Disconnect a peer. A peer that sent wrong bytes or broke the protocol is not asked again.
    DropPeer {
        /// Connection of the peer to disconnect.
        conn: ConnId,
        /// The peer's name in usage records.
        name: SourceName,
        /// Reason for disconnecting the peer.
        why: CloseReason,
    },
    /// Report a peer that sent a wrong block, beside [`Output::DropPeer`].
    Blame {
        /// Introduction under which the block was sent.
        intro: IntroId,
        /// Piece of the block.
        piece: PieceIndex,
        /// Index of the block within the piece.
        block: u32,
    },
    /// Report an edge that sent wrong bytes; it is not asked again.
    DropEdge {
        /// Number of the edge.
        edge: u32,
    },
    /// Request a newer grant from the edge; answered by [`Input::Renewed`].
    RenewGrant,
    /// Exchange the grant for one without peers, because no edge can count this download; answered by
    /// [`Input::Renewed`].
    LeavePeers,
    /// Report that the download has failed; durable pieces are kept.
    Failed(FailReason),
}

/// Limits of the bytes and transfers that are requested from one source and not delivered yet (in flight).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Minimum of the window in bytes, also used while the source's rate is unknown.
    pub least: u64,
    /// Maximum of the window in bytes: at most so many are requested from the source and not verified.
    pub most: u64,
    /// Maximum number of the source's running transfers.
    pub fetches: u32,
    /// The window, between minimum and maximum, is the bytes that the source delivers in this time at its measured
    /// rate.
    pub time: Duration,
}

/// Longest wait before an edge is asked again, however long every edge has failed.
pub const EDGE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Limits and intervals of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum bytes of one transfer; smaller pieces are fetched whole.
    pub fetch_len: u32,
    /// Limits of the bytes and transfers in flight with each peer.
    pub peer_window: Window,
    /// Limits of the bytes and transfers in flight with the edge.
    pub edge_window: Window,
    /// Maximum of bytes requested or received and not yet durable, over all sources, until [`Input::Budget`] changes
    /// it.
    pub budget: u64,
    /// Interval at which rates are measured and it is decided how much the edge delivers. Zero: never (for models);
    /// the edge then always runs in parallel with the peers.
    pub tick: Duration,
    /// Minimum duration of a trial without the edge, in which peers must reach the edge's rate.
    pub probe: Duration,
    /// Wait after a failed trial: first and longest.
    pub probe_wait: (Duration, Duration),
    /// Time-out for a source that verifies nothing: a peer is disconnected, an edge replaced by the next.
    pub stall_after: Duration,
    /// Addition to [`Config::stall_after`] for the edge for each 64 KiB of a piece, since an edge's pieces are
    /// verified whole.
    pub edge_stall_per_64k: Duration,
    /// Minimum time that is expected to be saved when blocks are fetched from a second source near the end of a
    /// download.
    pub endgame_gain: Duration,
    /// Wait before an edge is asked again after every edge has failed: first and longest. In a long outage the longest
    /// wait is a quarter of the outage so far, up to [`EDGE_WAIT_MAX`].
    pub edge_backoff: (Duration, Duration),
    /// Time-out without verified bytes after which a download fails whose every edge has sent wrong bytes. A download
    /// whose edges are only away never fails.
    pub give_up_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            fetch_len: 1 << 20,
            peer_window: Window { least: MIB, most: 16 * MIB, fetches: 32, time: Duration::from_millis(500) },
            edge_window: Window { least: 2 * MIB, most: 32 * MIB, fetches: 256, time: Duration::from_millis(300) },
            budget: 256 * MIB,
            tick: Duration::from_millis(100),
            probe: Duration::from_millis(500),
            probe_wait: (Duration::from_secs(2), Duration::from_secs(30)),
            stall_after: Duration::from_secs(10),
            edge_stall_per_64k: Duration::from_secs(1),
            endgame_gain: Duration::from_millis(100),
            edge_backoff: (Duration::from_millis(250), Duration::from_secs(3)),
            give_up_after: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// Returns a configuration for the model checker: one transfer per source, and neither measurements nor waits,
    /// which would add states.
    #[must_use]
    pub fn tiny() -> Self {
        let window = Window { least: 1, most: 1, fetches: 1, time: Duration::ZERO };
        Self {
            peer_window: window,
            edge_window: window,
            tick: Duration::ZERO,
            endgame_gain: Duration::ZERO,
            edge_backoff: (Duration::ZERO, Duration::ZERO),
            edge_stall_per_64k: Duration::ZERO,
            ..Self::default()
        }
    }
}
