//! The database node: a soft-state directory of which client holds what and how it can be reached, and the choice of
//! peers. Registrations belong to a CN's connection and end with it. It signs nothing.

use crate::ids::{ConnId, PublicKey};
use crate::wire::directory::DirectoryMsg;
use crate::wire::records::{ServerCert, Verify};
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the wall clock shows now; first of all inputs, and again whenever it may have been set.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// Somebody has connected and proven a key in the TLS handshake; its first message shows the CN's certificate.
    CnAccepted {
        /// Which.
        conn: ConnId,
        /// The key it proved.
        key: PublicKey,
    },
    /// A CN's message.
    Cn {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: DirectoryMsg,
    },
    /// A CN's connection has ended (or overflowed).
    CnClosed {
        /// Which.
        conn: ConnId,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send to a CN.
    CnSend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: DirectoryMsg,
    },
    /// Close a CN's connection; no `CnClosed` follows.
    CnClose {
        /// Which.
        conn: ConnId,
    },
    /// Add one to a counter.
    Count(Metric),
}

/// What a DN counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Peers were chosen.
    Selection,
    /// A selection found nobody.
    NobodyFound,
    /// An introduction was passed on.
    Relayed,
    /// An introduction could not be passed on: its peer has gone.
    RelayLost,
    /// An introduced pair has connected.
    Connected,
    /// An introduced pair could not connect.
    NotConnected,
    /// A connection was closed because its CN broke the protocol, or was none.
    Violation,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Selection => "swarmedge_dn_selections_total",
            Self::NobodyFound => "swarmedge_dn_selections_empty_total",
            Self::Relayed => "swarmedge_dn_relayed_total",
            Self::RelayLost => "swarmedge_dn_relay_lost_total",
            Self::Connected => "swarmedge_dn_introductions_connected_total",
            Self::NotConnected => "swarmedge_dn_introductions_failed_total",
            Self::Violation => "swarmedge_dn_violations_total",
        }
    }
}

/// Limits, intervals and identity of a DN.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Checks signatures.
    pub verify: Verify,
    /// This DN's certificate; its name is the DN's.
    pub cert: ServerCert,
    /// CN connections at a time.
    pub cns_max: u32,
    /// A connection's first message comes within this.
    pub hello_within: Duration,
    /// A CN this long silent is gone.
    pub idle_after: Duration,
}

impl Config {
    /// Production limits for a DN that has this identity.
    #[must_use]
    pub const fn new(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            root,
            verify,
            cert,
            cns_max: 256,
            hello_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(30),
        }
    }
}
