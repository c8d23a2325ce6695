//! Inputs, outputs, counters and configuration of the edge machine.

pub use super::admission::{Limits, Rate, TIME_WINDOW_MS};
pub use crate::accounting::grants::{Denial, GrantAsked, Nonce, ObjectFacts, Renewal};

use crate::accounting::possession::Challenge;
use crate::ids::{ConnId, Digest, DownloadId, Guid, ProviderId, PublicKey, RecordId, ReqId, VersionId};
use crate::wire::ledger::{FromLedger, ToLedger};
use crate::wire::records::{Grant, LedgerRecord, ServerCert, Verify};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// Event that the shell reports to the edge machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Current time of the wall clock; the first of all inputs, repeated whenever the clock may have been set.
    WallClock {
        /// Time as Unix milliseconds.
        unix_ms: u64,
    },
    /// Content of the spool; once, before anything is served.
    Restored {
        /// Records that the ledger has not acknowledged.
        records: Vec<LedgerRecord>,
        /// Count of each download, and of each version's plain traffic.
        counts: Vec<Count>,
    },
    /// A client requests a grant; answered by [`Output::IssueGrant`] or [`Output::DenyGrant`].
    GrantAsked(Box<GrantAsked>),
    /// Bytes of a version were sent: reported at the end of each answer, and every few MiB of a long one.
    BytesSent {
        /// Download, if the request carried its grant.
        grant: Option<ServedGrant>,
        /// Version that the bytes belong to.
        version: VersionId,
        /// Provider that pays for the bytes.
        provider: ProviderId,
        /// Range of bytes within the version.
        range: Range<u64>,
    },
    /// Bytes of a download are to be sent; they wait for the answer, [`Output::Serve`] or [`Output::Withhold`].
    SendRequested {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Grant of the request, opened and checked.
        grant: Box<Grant>,
        /// Number of these bytes.
        bytes: u64,
    },
    /// Bytes were sent uncounted, as [`Output::Serve`] without `counted` allows.
    GivenAway {
        /// Number of these bytes.
        bytes: u64,
    },
    /// Bytes that [`Output::Serve`] with `counted` allowed will not be sent.
    BytesNotSent {
        /// Download that they belong to.
        grant: ServedGrant,
        /// Number of these bytes.
        bytes: u64,
    },
    /// A client has completed a download; answered by [`Output::AnswerCompleted`].
    Completed(Box<Completed>),
    /// A client answers a challenge; answered by [`Output::AnswerProof`].
    Proof {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Download that the challenge was for.
        grant: ServedGrant,
        /// Proof that the client has sent.
        proof: Digest,
    },
    /// The shell answers [`Output::Prove`].
    Proven {
        /// Number of the request that is answered.
        req: ReqId,
        /// The edge's own proof; `None` if the content cannot be read.
        own: Option<Digest>,
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
    /// Answer to [`Output::Save`]: exactly one.
    Saved {
        /// Number of the request that is answered.
        req: ReqId,
        /// Whether all of the batch is durable; otherwise none of it is.
        ok: bool,
    },
    /// Stop: write the counts to the spool, then report [`Output::Stopped`].
    Shutdown,
}

/// Download and client of a sent range, from its opened grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServedGrant {
    /// Id of the download.
    pub download: DownloadId,
    /// GUID of the downloading client.
    pub guid: Guid,
}

impl ServedGrant {
    /// Returns the download and client of a grant.
    #[must_use]
    pub const fn of(grant: &Grant) -> Self {
        Self { download: grant.download, guid: grant.guid }
    }
}

/// A completed download, with fields of its opened and checked grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completed {
    /// Number of the request, repeated in the answer.
    pub req: ReqId,
    /// Download and its client.
    pub grant: ServedGrant,
    /// Version that was downloaded.
    pub version: VersionId,
    /// Size of the version in bytes.
    pub size: u64,
    /// Whether the download was drawn for a challenge, see [`Grant::challenged`].
    pub challenged: bool,
    /// Whether the client asks for a challenge, because peers have blamed its copy.
    pub recheck: bool,
}

/// Count of one download, or of the plain traffic (requests without a grant) of one version, as the spool keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Count {
    /// Download and client; `None` for plain traffic.
    pub grant: Option<ServedGrant>,
    /// Version that was sent.
    pub version: VersionId,
    /// Provider that pays for it.
    pub provider: ProviderId,
    /// Life of the count, a number that is new whenever a count begins; see
    /// [`ServedRecord::life`](crate::wire::records::ServedRecord::life).
    pub life: u64,
    /// Sequence number (`seq`) of the count's last record.
    pub seq: u32,
    /// Bytes sent, repetitions included.
    pub total_bytes: u64,
    /// Bytes reserved, repetitions included: no more are sent before a greater reservation is durable. So after a
    /// crash it is known how many bytes may have been sent beyond those counted.
    pub reserved: u64,
    /// Bytes that may have been sent uncounted, summed over all crashes.
    pub unsure: u64,
    /// Time at which the download ends if nothing more is requested, Unix milliseconds.
    pub over_ms: u64,
    /// Ranges of bytes sent, ascending and not adjacent. Empty for plain traffic.
    pub sent: Vec<Range<u64>>,
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Sign and seal a grant, and send it to the client.
    IssueGrant {
        /// Number of the client's request.
        req: ReqId,
        /// Grant to be signed.
        grant: Box<Grant>,
    },
    /// Refuse a client's request.
    DenyGrant {
        /// Number of the client's request.
        req: ReqId,
        /// Reason, sent to the client.
        why: Denial,
    },
    /// Answer to [`Input::SendRequested`]: the shell may send the bytes.
    Serve {
        /// Number of the request that is answered.
        req: ReqId,
        /// Whether the bytes are reserved, and must be reported as [`Input::BytesSent`]. Otherwise they are sent
        /// uncounted, must be reported as [`Input::GivenAway`], and no peer's byte of their download is ever billed.
        counted: bool,
    },
    /// Other answer to [`Input::SendRequested`]: do not send the bytes, since they cannot be counted and peers could be
    /// paid for them. The client must continue with a download without peers ([`Renewal::edge_only`]).
    Withhold {
        /// Number of the request that is answered.
        req: ReqId,
    },
    /// Whether the bytes of new downloads can be counted has changed. While they cannot, new downloads are granted
    /// without peers, and their bytes are sent uncounted.
    Counting(Result<(), Uncountable>),
    /// Answer the client's [`Input::Completed`].
    AnswerCompleted {
        /// Number of the request that is answered.
        req: ReqId,
        /// Challenge to be sent to the client, if any.
        challenge: Option<Challenge>,
    },
    /// Answer to [`Input::Proof`]. The client does not learn whether the proof was right.
    AnswerProof {
        /// Number of the request that is answered.
        req: ReqId,
        /// Whether this proof was awaited, and is the first one.
        asked: bool,
    },
    /// Compute the proof from this edge's own content; answered by [`Input::Proven`].
    Prove {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Version that the challenge is about.
        version: VersionId,
        /// Challenge that the client got.
        challenge: Challenge,
    },
    /// Change the spool durably, all or nothing; answered by [`Input::Saved`].
    Save {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Changes to be written.
        batch: Batch,
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
    /// Add one to a counter of the metrics.
    Count(Metric),
    /// Add bytes to [`Metric::GivenAway`].
    GaveAway {
        /// Number of these bytes.
        bytes: u64,
    },
    /// Answer to [`Input::Shutdown`]: everything counted is durable, the process may end.
    Stopped,
}

/// Reason for which an edge cannot count the bytes of a new download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uncountable {
    /// The last write to the spool has failed.
    Refused,
    /// The table of counts is full: all its downloads are active, or have bytes in no durable record yet.
    Full,
}

/// Change of the spool, applied as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Records to be added, and kept until they are named in `acked`.
    pub records: Vec<LedgerRecord>,
    /// Counts to be added. Each replaces the older count of the same download, or of the same version's traffic without
    /// a grant.
    pub counts: Vec<Count>,
    /// Records to be deleted, because the ledger has acknowledged them.
    pub acked: Vec<RecordId>,
    /// Downloads that are over, whose counts are to be deleted.
    pub ended: Vec<DownloadId>,
}

/// Counter in the metrics of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// First grants of downloads.
    Granted,
    /// Grants that were renewed.
    Renewed,
    /// Requests for grants refused.
    Denied,
    /// Records made for the ledger.
    RecordMade,
    /// Records durable in the ledger.
    RecordStored,
    /// Writes that the spool refused.
    SpoolFailed,
    /// Times that sent bytes could not be counted exactly: too many counts, a failed reservation, or too many
    /// separate ranges.
    CountOverflow,
    /// Downloads granted without peers because their bytes could not be counted.
    GrantedEdgeOnly,
    /// Requests for grants refused because their key, network or download had asked too often.
    Limited,
    /// Bytes sent that nobody is billed for, because they could not be counted.
    GivenAway,
    /// Clients challenged to prove that they hold what they have completed.
    Challenged,
    /// Challenges answered with the right proof.
    ChallengePassed,
    /// Challenges of blamed clients answered with the right proof.
    ChallengeRechecked,
    /// Challenges answered with a wrong proof.
    ChallengeFailed,
    /// Challenges not answered in time.
    ChallengeUnanswered,
    /// Challenges dropped because the edge was too busy to pose or check them, or could not read its content.
    ChallengeWaived,
}

impl Metric {
    /// Returns the counter's name for Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "swarmedge_edge_grants_total",
            Self::Renewed => "swarmedge_edge_grants_renewed_total",
            Self::Denied => "swarmedge_edge_grants_denied_total",
            Self::RecordMade => "swarmedge_edge_records_total",
            Self::RecordStored => "swarmedge_edge_records_stored_total",
            Self::SpoolFailed => "swarmedge_edge_spool_failures_total",
            Self::CountOverflow => "swarmedge_edge_count_overflows_total",
            Self::GrantedEdgeOnly => "swarmedge_edge_grants_edge_only_total",
            Self::Limited => "swarmedge_edge_grants_limited_total",
            Self::GivenAway => "swarmedge_edge_given_away_bytes_total",
            Self::Challenged => "swarmedge_edge_challenges_total",
            Self::ChallengePassed => "swarmedge_edge_challenges_passed_total",
            Self::ChallengeRechecked => "swarmedge_edge_challenges_rechecked_total",
            Self::ChallengeFailed => "swarmedge_edge_challenges_failed_total",
            Self::ChallengeUnanswered => "swarmedge_edge_challenges_unanswered_total",
            Self::ChallengeWaived => "swarmedge_edge_challenges_waived_total",
        }
    }
}

/// Limits, intervals and identity of an edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Function that checks signatures; models use a fake.
    pub verify: Verify,
    /// Certificate of this edge, which carries its name.
    pub cert: ServerCert,
    /// Whether a ledger is configured. Without one nothing is recorded.
    pub ledger: bool,
    /// Lifetime of a grant.
    pub grant_for: Duration,
    /// Time after its expiry in which a grant can still be renewed.
    pub renew_within: Duration,
    /// Limits of requests for grants.
    pub limits: Limits,
    /// Interval of writing counts and making records, and of probing a failed spool.
    pub flush_every: Duration,
    /// Idle time after which a download is over.
    pub idle_after: Duration,
    /// Largest number of counts.
    pub counts_max: u32,
    /// Largest number of separate ranges remembered for a download.
    pub ranges_max: u32,
    /// Largest number of separate ranges remembered for all downloads, 16 bytes each.
    pub all_ranges_max: u32,
    /// Downloads with peers that are challenged at their end, per thousand, drawn with the first grant. Conspicuous
    /// ones are challenged besides.
    pub challenge_permille: u32,
    /// Time-out of a client's answer to a challenge.
    pub answer_within: Duration,
    /// Pause between the end of a client's challenge and its next one.
    pub challenge_every: Duration,
    /// Largest number of remembered challenges.
    pub challenges_max: u32,
    /// Largest number of proofs checked at a time, each from half a MiB of content.
    pub checks_max: u32,
    /// Back-off before a lost ledger is dialled again: first and longest wait.
    pub backoff: (Duration, Duration),
    /// Time at shutdown for records in flight to the ledger; the rest stays in the spool.
    pub drain: Duration,
}

impl Config {
    /// Returns the limits for production, for this identity.
    #[must_use]
    pub const fn new(root: PublicKey, verify: Verify, cert: ServerCert) -> Self {
        Self {
            root,
            verify,
            cert,
            ledger: true,
            grant_for: Duration::from_secs(15 * 60),
            renew_within: Duration::from_secs(10 * 60),
            limits: Limits::PRODUCTION,
            flush_every: Duration::from_secs(2),
            idle_after: Duration::from_secs(60 * 60),
            counts_max: 100_000,
            ranges_max: 2_048,
            all_ranges_max: 1 << 20,
            challenge_permille: 20,
            answer_within: Duration::from_secs(60),
            challenge_every: Duration::from_secs(10),
            challenges_max: 4_096,
            checks_max: 8,
            backoff: (Duration::from_millis(200), Duration::from_secs(10)),
            drain: Duration::from_secs(2),
        }
    }
}
