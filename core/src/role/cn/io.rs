//! Inputs, outputs, counters and configuration of the CN machine.

use super::prices::Prices;
use crate::accounting::Trust;
use crate::ids::{ConnId, PublicKey, RecordId, ReqId, Signature};
use crate::limits;
use crate::nat::broker;
use crate::nat::cookie::CookieKeys;
use crate::wire::control::{ToClient, ToCn};
use crate::wire::directory::{FromDn, ToDn};
use crate::wire::geo_location::GeoLocation;
use crate::wire::ledger::{FromLedger, ToLedger};
use crate::wire::notice::SignedNotice;
use crate::wire::records::{LedgerRecord, SealedGrant, ServerCert, SignedGrant, SigningContext, Verify};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// Event that the shell reports to the CN machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Current time of the wall clock; the first of all inputs, repeated whenever the clock may have been set.
    WallClock {
        /// Time as Unix milliseconds.
        unix_ms: u64,
    },
    /// Keys with which STUN servers make cookies; at the start and whenever they change.
    CookieKeys(CookieKeys),
    /// A client has connected and proven its key in the TLS handshake.
    ClientAccepted {
        /// Number that the shell gave the connection.
        conn: ConnId,
        /// Public key that the client proved.
        key: PublicKey,
        /// Remote address of the connection.
        from: SocketAddr,
    },
    /// Answer to [`Output::Locate`], which comes at once, before the client's first message.
    Located {
        /// Connection of the client.
        conn: ConnId,
        /// Country and network of its address.
        location: GeoLocation,
    },
    /// A client's message has arrived.
    Client {
        /// Connection of the client.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: ToCn,
    },
    /// A client's connection has ended (or its send queue overflowed).
    ClientClosed {
        /// Connection that is closed.
        conn: ConnId,
    },
    /// A connection to a DN is open (TLS done, certificate checked).
    DirectoryOpened {
        /// Connection that has opened.
        conn: ConnId,
    },
    /// A connection to a DN could not be opened, or has ended.
    DirectoryClosed {
        /// Connection that is closed.
        conn: ConnId,
    },
    /// A DN's message has arrived.
    Directory {
        /// Connection to the DN.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: FromDn,
    },
    /// The connection to the ledger is open (TLS done, certificate checked).
    LedgerOpened {
        /// Connection that has opened.
        conn: ConnId,
    },
    /// The connection to the ledger could not be opened, or has ended.
    LedgerClosed {
        /// Connection that is closed.
        conn: ConnId,
    },
    /// The ledger's message has arrived.
    Ledger {
        /// Connection to the ledger.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: FromLedger,
    },
    /// Content of the spool at the start.
    Restored {
        /// Records that the ledger may not have.
        records: Vec<LedgerRecord>,
    },
    /// Answer to [`Output::Save`]: exactly one.
    Saved {
        /// Number of the request that is answered.
        req: ReqId,
        /// Whether all of the write is durable; otherwise none of it is.
        ok: bool,
    },
    /// Notices that an edge has published and this CN may not have.
    Notices(Vec<SignedNotice>),
    /// Answer to [`Output::OpenGrant`]: exactly one.
    GrantOpened {
        /// Number of the request that is answered.
        req: ReqId,
        /// The opened grant; `None` if this CN lacks the sealing key of the grant's epoch, or the seal is broken.
        grant: Option<Box<SignedGrant>>,
    },
    /// Answer to [`Output::Sign`]: exactly one.
    Signed {
        /// Number of the request that is answered.
        req: ReqId,
        /// Signature by this CN's key.
        signature: Signature,
    },
    /// Stop: send the clients to other CNs, then report [`Output::Stopped`].
    Shutdown,
}

impl Input {
    /// Returns the connection of the client that the event is about.
    pub(super) const fn client(&self) -> Option<ConnId> {
        let (Self::ClientAccepted { conn, .. }
        | Self::Located { conn, .. }
        | Self::Client { conn, .. }
        | Self::ClientClosed { conn }) = self
        else {
            return None;
        };
        Some(*conn)
    }
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message to a client.
    ClientSend {
        /// Connection of the client.
        conn: ConnId,
        /// Message to be sent.
        msg: ToClient,
    },
    /// Look up an address in the geolocation files; answered by [`Input::Located`].
    Locate {
        /// Connection of the client.
        conn: ConnId,
        /// Remote address of the client.
        addr: IpAddr,
    },
    /// Close a client's connection after sending what is queued; no `ClientClosed` follows.
    ClientClose {
        /// Connection to be closed.
        conn: ConnId,
    },
    /// Connect to a DN; answered by `DirectoryOpened` or `DirectoryClosed`.
    DirectoryDial {
        /// Number of the new connection.
        conn: ConnId,
        /// Index of the DN in the configuration.
        dn: u32,
    },
    /// Send a message to a DN.
    DirectorySend {
        /// Connection to the DN.
        conn: ConnId,
        /// Message to be sent.
        msg: ToDn,
    },
    /// Close a connection to a DN; no `DirectoryClosed` follows.
    DirectoryClose {
        /// Connection to be closed.
        conn: ConnId,
    },
    /// Connect to the ledger; answered by `LedgerOpened` or `LedgerClosed`.
    LedgerDial {
        /// Number of the new connection.
        conn: ConnId,
    },
    /// Send a message to the ledger.
    LedgerSend {
        /// Connection to the ledger.
        conn: ConnId,
        /// Message to be sent.
        msg: ToLedger,
    },
    /// Close the connection to the ledger; no `LedgerClosed` follows.
    LedgerClose {
        /// Connection to be closed.
        conn: ConnId,
    },
    /// Change the spool durably, all or nothing; answered by [`Input::Saved`].
    Save {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Records to be added.
        records: Vec<LedgerRecord>,
        /// Records to be deleted, because the ledger has acknowledged them.
        acked: Vec<RecordId>,
    },
    /// Open a sealed grant; answered by [`Input::GrantOpened`], perhaps at once.
    OpenGrant {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Grant as the client has sent it.
        sealed: SealedGrant,
    },
    /// Sign `context.text() ‖ message` with this CN's key; answered by [`Input::Signed`], perhaps at once.
    Sign {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Purpose of the signature, which its text names.
        context: SigningContext,
        /// Bytes to be signed, without the context text.
        message: Vec<u8>,
    },
    /// Add one to a counter of the metrics.
    Count(Metric),
    /// Answer to [`Input::Shutdown`]: every session is closed, the process may end.
    Stopped,
}

/// Counter in the metrics of a CN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Sessions opened by a valid `Hello`.
    SessionOpened,
    /// Sessions ended, for whatever reason.
    SessionClosed,
    /// Connections closed because the client broke the protocol.
    Violation,
    /// Connections turned away with `Busy`.
    Busy,
    /// Open connections told `Busy` and closed, to make room for another client.
    Displaced,
    /// Clients refused for the version of their program.
    Outdated,
    /// Queries received from clients.
    Query,
    /// Queries answered, with or without peers.
    QueryAnswered,
    /// Queries refused or failed.
    QueryRefused,
    /// Pairs of clients introduced.
    Introduced,
    /// Introduced pairs that have connected.
    Connected,
    /// Introduced pairs that could not connect.
    NotConnected,
    /// Usage records received from clients.
    UsageReceived,
    /// Messages delayed or dropped because the session's budget was spent.
    Limited,
    /// Records durable in the ledger, usage records and others.
    UsageStored,
    /// Usage records dropped because too many wait or the session's budget was spent; their clients send them again.
    UsageDeferred,
    /// Log records dropped, or queries failed, because too many records wait for the ledger.
    LogDropped,
    /// Writes that the spool refused; if the record was one of introductions, nobody was introduced.
    SpoolFailed,
    /// Log heads that contradict what their client has shown before.
    LogForked,
    /// Clients ordered to rekey, because there are copies of them or their log has forked.
    RekeyOrdered,
    /// GUIDs durably retired by a rekey.
    Rekeyed,
    /// Connections to DNs lost.
    DirectoryLost,
    /// New notices of edges.
    NoticeLearned,
    /// Notices of edges that were refused, because their signature is not valid or they cannot be read.
    NoticeRefused,
    /// GUIDs put into quarantine or released.
    QuarantineChanged,
    /// Queries of clients in quarantine, answered without peers.
    EdgeOnly,
    /// Blames of introduced and connected peers, sent to the DNs.
    Blamed,
    /// Versions that clients share and that are not offered to others, since their holder's tickets are not valid or
    /// have ended.
    HoldingIgnored,
    /// Blames dropped because this CN knows of no such connection, or the client has blamed the peer before.
    BlameIgnored,
}

impl Metric {
    /// Returns the counter's name for Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionOpened => "swarmedge_cn_sessions_opened_total",
            Self::SessionClosed => "swarmedge_cn_sessions_closed_total",
            Self::Violation => "swarmedge_cn_violations_total",
            Self::Busy => "swarmedge_cn_busy_total",
            Self::Displaced => "swarmedge_cn_displaced_total",
            Self::Outdated => "swarmedge_cn_outdated_total",
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
            Self::NoticeLearned => "swarmedge_cn_notices_learned_total",
            Self::NoticeRefused => "swarmedge_cn_notices_refused_total",
            Self::QuarantineChanged => "swarmedge_cn_quarantine_changes_total",
            Self::EdgeOnly => "swarmedge_cn_queries_edge_only_total",
            Self::HoldingIgnored => "swarmedge_cn_holdings_ignored_total",
            Self::Blamed => "swarmedge_cn_blames_total",
            Self::BlameIgnored => "swarmedge_cn_blames_ignored_total",
        }
    }
}

/// Limits, intervals and identity of a CN.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Function that checks signatures; models use a fake.
    pub verify: Verify,
    /// Certificate of this CN, which carries its name.
    pub cert: ServerCert,
    /// Number of configured DNs; `DirectoryDial` names them 0, 1, …
    pub dns: u32,
    /// Whether a ledger is configured. Without one usage records are never acknowledged, so clients keep them.
    pub ledger: bool,
    /// Lowest client version, `major << 16 | minor << 8 | patch`, that gets a session; 0: any.
    pub client_version_min: u32,
    /// Largest number of connections, with or without session.
    pub sessions_max: u32,
    /// Largest number of connections of one /24 (IPv6: /48), which may be thousands of clients behind one address.
    pub prefix_sessions_max: u32,
    /// Time-out of a connection's first message, `Hello`.
    pub hello_within: Duration,
    /// Silence after which clients send a ping.
    pub ping_every: Duration,
    /// Silence after which a session is closed.
    pub idle_after: Duration,
    /// Time-out of the answer to a challenge ping.
    pub answer_within: Duration,
    /// Prices of messages, charged to each session's budgets.
    pub prices: Prices,
    /// Largest number of peers in the answer to a query.
    pub peers_max: u8,
    /// Time-out of a query, which then fails with the error `Unavailable`.
    pub select_within: Duration,
    /// Whether there is a spool that records introductions before clients are told.
    pub spool: bool,
    /// Without a spool: longest wait for the ledger to record introductions, before the client is answered.
    pub record_within: Duration,
    /// Time in which introduced peers must connect.
    pub connect_within: Duration,
    /// Time for which an uploader serves under an introduction.
    pub serve_for: Duration,
    /// Times for which the broker waits when it coordinates an introduced pair.
    pub broker: broker::Config,
    /// Time over which clients spread their answers to RE-ADD.
    pub readd_spread: Duration,
    /// Whether logins, registrations and introductions are recorded in the ledger.
    pub logs: bool,
    /// Whether geolocation files are configured.
    pub geolocation: bool,
    /// Largest number of records that wait for the ledger, over all sessions.
    pub usage_max: u32,
    /// Largest number of holder's tickets that are remembered as verified.
    pub tickets_max: u32,
    /// Back-off before a lost server is dialled again: first and longest wait.
    pub backoff: (Duration, Duration),
    /// Time after which a notice that a client has not acknowledged is sent again.
    pub notice_retry: Duration,
    /// Delay before a client that was turned away tries again.
    pub busy_retry: Duration,
    /// Time of draining: clients leave within half of it, and records in flight get all of it.
    pub drain: Duration,
}

impl Config {
    /// Returns the limits for production, for this identity.
    #[must_use]
    pub fn new(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            root,
            verify,
            cert,
            dns: 1,
            ledger: true,
            client_version_min: 0,
            sessions_max: 15_000,
            prefix_sessions_max: 8_192,
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
            tickets_max: 262_144,
            backoff: (Duration::from_millis(200), Duration::from_secs(10)),
            notice_retry: Duration::from_secs(10),
            busy_retry: Duration::from_secs(5),
            drain: Duration::from_secs(3),
        }
    }

    /// Returns the root of trust for certificates and grants, and the function that checks signatures.
    pub(super) const fn trust(&self) -> Trust {
        Trust { root: self.root, verify: self.verify }
    }

    /// Returns limits for models: nothing expires by itself, so that the only timers are those under test.
    #[must_use]
    pub fn tiny(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            sessions_max: 4,
            prices: Prices { query: Duration::from_secs(15), ..Prices::NONE },
            peers_max: 2,
            logs: false,
            usage_max: 4,
            tickets_max: 0,
            readd_spread: Duration::ZERO,
            backoff: (Duration::from_secs(1), Duration::from_secs(1)),
            ..Self::new(root, verify, cert)
        }
    }
}
