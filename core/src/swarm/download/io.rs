//! What a download is told and what it asks for.

use crate::ids::{ConnId, PieceIndex, XferId};
use crate::swarm::outcome::{CloseReason, FailReason, FetchEnd, SourceName, StoreError};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Fetch, from now on. Harmless while it does.
    Start,
    /// Stop fetching: what is under way is cancelled, every peer let go. What is verified stays.
    Stop,
    /// There are this many edges, 0, 1, …
    Edges(u32),
    /// A new grant is at hand, after [`Output::RenewGrant`] or [`Output::LeavePeers`].
    Renewed,
    /// The network has changed: what edges are sending will not arrive.
    Moved,
    /// No more than this may be under way: received and not yet durable, bytes.
    Budget(u64),
    /// A peer serves this download.
    PeerJoined {
        /// Its connection.
        conn: ConnId,
        /// Its name in the books.
        name: SourceName,
        /// How many requests it takes at a time.
        requests_max: u16,
    },
    /// A peer has these pieces (too): bit `i`, most significant first, is piece `first + i`.
    PeerMap {
        /// Which.
        conn: ConnId,
        /// The piece of the first bit.
        first: PieceIndex,
        /// The bits.
        bits: Vec<u8>,
    },
    /// A peer has these pieces too.
    PeerHas {
        /// Which.
        conn: ConnId,
        /// The pieces.
        pieces: Vec<PieceIndex>,
    },
    /// The connection has ended; its transfers end by themselves.
    PeerLeft {
        /// Which.
        conn: ConnId,
    },
    /// How far a transfer is.
    Progress {
        /// Which.
        xfer: XferId,
        /// Bytes verified so far.
        verified: u64,
    },
    /// A transfer is over: exactly one a [`Output::Fetch`].
    Ended {
        /// Which.
        xfer: XferId,
        /// How.
        end: FetchEnd,
    },
    /// The answer to [`Output::SavePiece`].
    PieceSaved {
        /// Which.
        piece: PieceIndex,
        /// Whether it is durable.
        result: Result<(), StoreError>,
    },
    /// The answer to [`Output::Finish`].
    Finished(Result<(), StoreError>),
}

/// Who is asked for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An edge, by its number.
    Edge(u32),
    /// A connected peer.
    Peer(ConnId),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Get blocks, verify them, write them.
    Fetch {
        /// Its number; the upper half is the download's handle.
        xfer: XferId,
        /// From whom.
        source: Source,
        /// Which piece.
        piece: PieceIndex,
        /// Which of its blocks.
        blocks: Range<u32>,
    },
    /// Stop a transfer; its `Ended` still comes.
    CancelFetch {
        /// Which.
        xfer: XferId,
    },
    /// A peer's blocks are verified, and it was the first to deliver them: it has a receipt coming.
    Verified {
        /// Its connection.
        conn: ConnId,
        /// Bytes of blocks.
        bytes: u64,
    },
    /// A piece is complete: make it durable.
    SavePiece {
        /// Which.
        piece: PieceIndex,
        /// Who delivered how many of its bytes.
        from: Vec<(SourceName, u32)>,
    },
    /// Every piece is durable: put the file in place.
    Finish,
    /// Let a peer go. It is not asked again if the reason speaks against it.
    DropPeer {
        /// Its connection.
        conn: ConnId,
        /// Its name.
        name: SourceName,
        /// Why.
        why: CloseReason,
    },
    /// An edge sent wrong bytes: it is not asked again.
    DropEdge {
        /// Which.
        edge: u32,
    },
    /// An edge wants a newer grant.
    RenewGrant,
    /// No edge can count this download: they want one without peers in its place.
    LeavePeers,
    /// Given up; what is durable stays.
    Failed(FailReason),
}

/// How much may be under way with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bytes, before its rate is known and at least.
    pub least: u64,
    /// Bytes at most.
    pub most: u64,
    /// Transfers at most.
    pub fetches: u32,
    /// The window holds what the source delivers in this time.
    pub time: Duration,
}

/// Limits and intervals of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of one fetch; smaller pieces are fetched whole.
    pub fetch_len: u32,
    /// For each peer.
    pub peer_window: Window,
    /// For the edge.
    pub edge_window: Window,
    /// Bytes under way, over all sources; see [`Input::Budget`].
    pub budget: u64,
    /// Rates are measured and the edge's budget is set so often. Zero: never (models), then the edge runs in parallel.
    pub tick: Duration,
    /// The least time for which peers alone are tried against the edge's rate.
    pub probe: Duration,
    /// The wait after a failed trial, first and longest.
    pub probe_wait: (Duration, Duration),
    /// A source that verifies nothing for so long is let go (a peer) or left for the next (an edge).
    pub stall_after: Duration,
    /// Added to [`Config::stall_after`] for the edge, for each 64 KiB of a piece, since its pieces are verified whole.
    pub edge_stall_per_64k: Duration,
    /// In the endgame a transfer is doubled if that promises to end so much sooner.
    pub endgame_gain: Duration,
    /// The wait before an edge is asked again once each has failed: first and longest.
    pub edge_backoff: (Duration, Duration),
    /// With nothing verified for so long the download is given up.
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
    /// For models: one transfer a source, no measuring, no waits that branch.
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
