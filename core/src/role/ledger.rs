//! The ledger: takes records from CNs and edges, has them stored, and acknowledges those that are durable. A record may
//! come again until it is acknowledged; the store keeps each id once.

use crate::ids::{ConnId, PublicKey, ReqId};
use crate::wire::ledger::LedgerMsg;
use crate::wire::records::{LedgerRecord, Verify};
use alloc::vec::Vec;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the wall clock shows now; first of all inputs, and again whenever it may have been set.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// A server has connected and proven a key in the TLS handshake (or is this process itself); its first message shows
    /// its certificate.
    Accepted {
        /// Which.
        conn: ConnId,
        /// The key it proved.
        key: PublicKey,
    },
    /// A server's message.
    Server {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// A server's connection has ended (or overflowed).
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// The answer to [`Output::Store`]: exactly one.
    Stored {
        /// Echoed.
        req: ReqId,
        /// Whether all of the batch is durable; otherwise none of it is.
        ok: bool,
    },
    /// Stop: store what has come, then say [`Output::Stopped`].
    Shutdown,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send to a server.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// Close a server's connection; no `Closed` follows.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Store all of these or none, durably, each id once; answered by [`Input::Stored`]. One batch at a time.
    Store {
        /// Echoed.
        req: ReqId,
        /// The records, in the order they came.
        records: Vec<LedgerRecord>,
    },
    /// Add one to a counter.
    Count(Metric),
    /// The answer to [`Input::Shutdown`]: nothing waits to be stored, the process may end.
    Stopped,
}

/// What a ledger counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A record came.
    Received,
    /// A record was acknowledged.
    Acknowledged,
    /// A batch could not be stored.
    StoreFailed,
    /// A record was set aside because too many wait; its sender will send it again.
    Deferred,
    /// A connection was closed because its server broke the protocol, or was none.
    Violation,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "swarmedge_ledger_received_total",
            Self::Acknowledged => "swarmedge_ledger_acknowledged_total",
            Self::StoreFailed => "swarmedge_ledger_store_failures_total",
            Self::Deferred => "swarmedge_ledger_deferred_total",
            Self::Violation => "swarmedge_ledger_violations_total",
        }
    }
}

/// Limits and intervals of a ledger.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Checks signatures.
    pub verify: Verify,
    /// Connections at a time.
    pub servers_max: u32,
    /// A connection's first message comes within this.
    pub hello_within: Duration,
    /// Records that wait to be stored.
    pub pending_max: u32,
    /// Records of one batch; at most 1,024.
    pub batch_max: u32,
    /// A batch waits so long for more records.
    pub batch_wait: Duration,
    /// A failed batch is tried again after this.
    pub retry_after: Duration,
}

impl Config {
    /// Production limits.
    #[must_use]
    pub const fn new(root: PublicKey, verify: Verify) -> Self {
        Self {
            root,
            verify,
            servers_max: 1_024,
            hello_within: Duration::from_secs(5),
            pending_max: 65_536,
            batch_max: 512,
            batch_wait: Duration::from_millis(20),
            retry_after: Duration::from_secs(1),
        }
    }
}
