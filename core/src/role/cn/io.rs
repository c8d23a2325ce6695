//! What the CN machine is told and what it asks for.

use super::prices::Prices;
use crate::ids::{ConnId, PublicKey, RecordId, ReqId, Signature, VersionId};
use crate::limits;
use crate::nat::broker;
use crate::nat::cookie::CookieKeys;
use crate::wire::control::ControlMsg;
use crate::wire::directory::DirectoryMsg;
use crate::wire::ledger::LedgerMsg;
use crate::wire::place::Place;
use crate::wire::records::{Context, LedgerRecord, SealedGrant, ServerCert, SignedGrant, Verify};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the wall clock shows now; first of all inputs, and again whenever it may have been set.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// The keys that STUN servers make cookies with, at first and whenever they change.
    CookieKeys(CookieKeys),
    /// A client has connected and proven its key in the TLS handshake.
    ClientAccepted {
        /// Which.
        conn: ConnId,
        /// The key it proved.
        key: PublicKey,
        /// From where.
        from: SocketAddr,
    },
    /// The answer to [`Output::Locate`]: at once, before the client's first message.
    Located {
        /// Which client's connection.
        conn: ConnId,
        /// Where it is.
        place: Place,
    },
    /// A client's message.
    Client {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// A client's connection has ended (or overflowed).
    ClientClosed {
        /// Which.
        conn: ConnId,
    },
    /// A DN's connection is open (TLS done, certificate checked).
    DirectoryOpened {
        /// Which.
        conn: ConnId,
    },
    /// A DN's connection could not be opened, or has ended.
    DirectoryClosed {
        /// Which.
        conn: ConnId,
    },
    /// A DN's message.
    Directory {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: DirectoryMsg,
    },
    /// The ledger's connection is open (TLS done, certificate checked).
    LedgerOpened {
        /// Which.
        conn: ConnId,
    },
    /// The ledger's connection could not be opened, or has ended.
    LedgerClosed {
        /// Which.
        conn: ConnId,
    },
    /// The ledger's message.
    Ledger {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// What the spool held at the start.
    Restored {
        /// Records that the ledger may not have.
        records: Vec<LedgerRecord>,
    },
    /// The answer to [`Output::Save`]: exactly one.
    Saved {
        /// Echoed.
        req: ReqId,
        /// Whether all of it is durable; otherwise none of it is.
        ok: bool,
    },
    /// All that the edges have withdrawn of late; again every few seconds.
    Withdrawn {
        /// The versions.
        versions: Vec<VersionId>,
    },
    /// The answer to [`Output::OpenGrant`]: exactly one.
    GrantOpened {
        /// Echoed.
        req: ReqId,
        /// What is in the seal; `None` if this CN lacks the epoch's key or the seal is broken.
        grant: Option<Box<SignedGrant>>,
    },
    /// The answer to [`Output::Sign`]: exactly one.
    Signed {
        /// Echoed.
        req: ReqId,
        /// By this CN's key.
        signature: Signature,
    },
    /// Stop: send the clients elsewhere, then say [`Output::Stopped`].
    Shutdown,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send to a client.
    ClientSend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// Say where an address is; answered by [`Input::Located`].
    Locate {
        /// Which client's connection.
        conn: ConnId,
        /// Where it comes from.
        addr: IpAddr,
    },
    /// Close a client's connection once what was sent before is out; no `ClientClosed` follows.
    ClientClose {
        /// Which.
        conn: ConnId,
    },
    /// Connect to a DN; answered by `DirectoryOpened` or `DirectoryClosed`.
    DirectoryDial {
        /// Its number.
        conn: ConnId,
        /// Which of the configured DNs.
        dn: u32,
    },
    /// Send to a DN.
    DirectorySend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: DirectoryMsg,
    },
    /// Close a DN's connection; no `DirectoryClosed` follows.
    DirectoryClose {
        /// Which.
        conn: ConnId,
    },
    /// Connect to the ledger; answered by `LedgerOpened` or `LedgerClosed`.
    LedgerDial {
        /// Its number.
        conn: ConnId,
    },
    /// Send to the ledger.
    LedgerSend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// Close the ledger's connection; no `LedgerClosed` follows.
    LedgerClose {
        /// Which.
        conn: ConnId,
    },
    /// Write to the spool, all or nothing, durably; answered by [`Input::Saved`].
    Save {
        /// Echoed.
        req: ReqId,
        /// What to put in.
        records: Vec<LedgerRecord>,
        /// What to take out.
        acked: Vec<RecordId>,
    },
    /// Open the seal of a grant; answered by [`Input::GrantOpened`], perhaps at once.
    OpenGrant {
        /// Echoed.
        req: ReqId,
        /// The sealed grant.
        sealed: SealedGrant,
    },
    /// Sign with this CN's key, over `context.text() ‖ message`; answered by [`Input::Signed`], perhaps at once.
    Sign {
        /// Echoed.
        req: ReqId,
        /// What for.
        context: Context,
        /// What.
        message: Vec<u8>,
    },
    /// Add one to a counter.
    Count(Metric),
    /// The answer to [`Input::Shutdown`]: every session is closed, the process may end.
    Stopped,
}

/// What a CN counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A session has begun.
    SessionOpened,
    /// A session has ended, for whatever reason.
    SessionClosed,
    /// A connection was closed because its client broke the protocol.
    Violation,
    /// A connection was turned away with `Busy`.
    Busy,
    /// A query was asked.
    Query,
    /// A query was answered with peers, or with none.
    QueryAnswered,
    /// A query was refused.
    QueryRefused,
    /// A peer was introduced to another.
    Introduced,
    /// An introduced pair has connected.
    Connected,
    /// An introduced pair could not connect.
    NotConnected,
    /// A usage record came from a client.
    UsageReceived,
    /// A message was not paid for, and put off or dropped.
    Limited,
    /// A usage record is durable in the ledger.
    UsageStored,
    /// A usage record was set aside because too many wait, or came; its client will send it again.
    UsageDeferred,
    /// Something was not logged, or nobody introduced: too much waits for the ledger.
    LogDropped,
    /// The spool refused a write: if it was an offer, nobody was introduced.
    SpoolFailed,
    /// A client's log contradicts what it has shown before.
    LogForked,
    /// A client was told to take another key: there are copies of it.
    RekeyOrdered,
    /// A GUID was retired, durably.
    Rekeyed,
    /// A DN's connection was lost.
    DirectoryLost,
    /// A version was withdrawn.
    Withdrawn,
    /// A client was put into quarantine, or let out.
    QuarantineChanged,
    /// A client in quarantine asked for peers, and was told of none.
    EdgeOnly,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionOpened => "swarmedge_cn_sessions_opened_total",
            Self::SessionClosed => "swarmedge_cn_sessions_closed_total",
            Self::Violation => "swarmedge_cn_violations_total",
            Self::Busy => "swarmedge_cn_busy_total",
            Self::Query => "swarmedge_cn_queries_total",
            Self::QueryAnswered => "swarmedge_cn_queries_answered_total",
            Self::QueryRefused => "swarmedge_cn_queries_refused_total",
            Self::Introduced => "swarmedge_cn_introductions_total",
            Self::Connected => "swarmedge_cn_introductions_connected_total",
            Self::NotConnected => "swarmedge_cn_introductions_failed_total",
            Self::UsageReceived => "swarmedge_cn_usage_received_total",
            Self::Limited => "swarmedge_cn_limited_total",
            Self::UsageStored => "swarmedge_cn_usage_stored_total",
            Self::UsageDeferred => "swarmedge_cn_usage_deferred_total",
            Self::LogDropped => "swarmedge_cn_log_dropped_total",
            Self::SpoolFailed => "swarmedge_cn_spool_failures_total",
            Self::LogForked => "swarmedge_cn_log_forked_total",
            Self::RekeyOrdered => "swarmedge_cn_rekeys_ordered_total",
            Self::Rekeyed => "swarmedge_cn_rekeys_total",
            Self::DirectoryLost => "swarmedge_cn_directory_lost_total",
            Self::Withdrawn => "swarmedge_cn_withdrawn_total",
            Self::QuarantineChanged => "swarmedge_cn_quarantine_changes_total",
            Self::EdgeOnly => "swarmedge_cn_queries_edge_only_total",
        }
    }
}

/// Limits, intervals and identity of a CN.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Checks signatures.
    pub verify: Verify,
    /// This CN's certificate; its name is the CN's.
    pub cert: ServerCert,
    /// How many DNs are configured: `DirectoryDial` names them 0, 1, …
    pub dns: u32,
    /// A ledger is configured. Without one usage records are never acknowledged, so clients keep them.
    pub ledger: bool,
    /// Sessions, and connections before their `Hello`, at a time.
    pub sessions_max: u32,
    /// A connection's first message comes within this.
    pub hello_within: Duration,
    /// Clients ping after this much silence.
    pub ping_every: Duration,
    /// A session this long silent is over.
    pub idle_after: Duration,
    /// A session that may have been left behind answers a ping within this.
    pub answer_within: Duration,
    /// What a session's messages cost it.
    pub prices: Prices,
    /// Peers an answer names at most.
    pub peers_max: u8,
    /// A query that its DN has not answered by then fails as `Unavailable`.
    pub select_within: Duration,
    /// There is a spool: who is introduced is written down there.
    pub spool: bool,
    /// Without one, an answer waits so long for the ledger to record who is introduced.
    pub record_within: Duration,
    /// Introduced peers connect within this.
    pub connect_within: Duration,
    /// An uploader serves for so long.
    pub serve_for: Duration,
    /// How long peers that are to meet are waited for.
    pub broker: broker::Config,
    /// Clients that are asked to RE-ADD spread their answers over this.
    pub readd_spread: Duration,
    /// Logins, registrations and offers are told to the ledger.
    pub logs: bool,
    /// It is asked where clients' addresses are.
    pub geolocation: bool,
    /// Records that wait for the ledger, over all sessions.
    pub usage_max: u32,
    /// The wait before a lost server is dialled again: first and longest.
    pub backoff: (Duration, Duration),
    /// Told to those turned away: come back after this.
    pub busy_retry: Duration,
    /// At shutdown, clients are spread over this before they go to another CN, and records in flight get this long.
    pub drain: Duration,
}

impl Config {
    /// Production limits for a CN that has this identity.
    #[must_use]
    pub fn new(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            root,
            verify,
            cert,
            dns: 1,
            ledger: true,
            sessions_max: 15_000,
            hello_within: Duration::from_secs(5),
            ping_every: Duration::from_secs(20),
            idle_after: Duration::from_secs(65),
            answer_within: Duration::from_secs(5),
            prices: Prices::USUAL,
            peers_max: u8::try_from(limits::PEERS_PER_ANSWER_MAX).unwrap_or(u8::MAX),
            select_within: Duration::from_secs(3),
            spool: true,
            record_within: Duration::from_millis(500),
            connect_within: Duration::from_secs(30),
            serve_for: Duration::from_secs(30 * 60),
            broker: broker::Config::default(),
            readd_spread: Duration::from_secs(2),
            logs: true,
            geolocation: false,
            usage_max: 65_536,
            backoff: (Duration::from_millis(200), Duration::from_secs(10)),
            busy_retry: Duration::from_secs(5),
            drain: Duration::from_secs(3),
        }
    }

    /// For models: nothing expires by itself, so that the only timers are those under test.
    #[must_use]
    pub fn tiny(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            sessions_max: 4,
            prices: Prices { query: Duration::from_secs(15), ..Prices::NONE },
            peers_max: 2,
            logs: false,
            usage_max: 4,
            readd_spread: Duration::ZERO,
            backoff: (Duration::from_secs(1), Duration::from_secs(1)),
            ..Self::new(root, verify, cert)
        }
    }
}
