//! What the edge machine is told and what it asks for.

pub use super::admission::{Limits, Rate, TIME_WINDOW_MS};
pub use crate::accounting::grants::{Denial, GrantAsked, Nonce, ObjectFacts, Renewal};

use crate::accounting::possession::Challenge;
use crate::ids::{ConnId, Digest, DownloadId, Guid, ProviderId, PublicKey, RecordId, ReqId, VersionId};
use crate::wire::ledger::LedgerMsg;
use crate::wire::records::{Grant, LedgerRecord, ServerCert, Verify};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the wall clock shows now; first of all inputs, and again whenever it may have been set.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// What the spool holds; once, before anything is served.
    Restored {
        /// Records that the ledger has not acknowledged.
        records: Vec<LedgerRecord>,
        /// What was counted for each download.
        counts: Vec<Count>,
    },
    /// A client asks for a grant.
    GrantAsked(Box<GrantAsked>),
    /// Bytes of a version have left: at the end of each answer, or every few MiB of a long one.
    Served {
        /// The download, if the request carried its grant.
        grant: Option<ServedGrant>,
        /// Of this version.
        version: VersionId,
        /// Who pays.
        provider: ProviderId,
        /// The bytes within the version.
        range: Range<u64>,
    },
    /// So many bytes of a download are about to be sent; answered by [`Output::Serve`], until which they are not, or
    /// [`Output::Withhold`].
    Serving {
        /// Echoed.
        req: ReqId,
        /// The grant that was shown for them, opened and checked.
        grant: Box<Grant>,
        /// How many.
        bytes: u64,
    },
    /// Bytes that [`Output::Serve`] let go uncounted have left.
    GivenAway {
        /// How many.
        bytes: u64,
    },
    /// Bytes that [`Output::Serve`] allowed, counted, and that will not be sent.
    Unsent {
        /// The download.
        grant: ServedGrant,
        /// How many.
        bytes: u64,
    },
    /// A client has completed a download; answered by [`Output::Pose`].
    Completed(Box<Completed>),
    /// A client answers a challenge; answered by [`Output::ProofTaken`].
    Proof {
        /// Echoed.
        req: ReqId,
        /// The download.
        grant: ServedGrant,
        /// The client's proof.
        proof: Digest,
    },
    /// The answer to [`Output::Prove`].
    Proven {
        /// Echoed.
        req: ReqId,
        /// The proof; `None` if the content cannot be read.
        own: Option<Digest>,
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
    /// The answer to [`Output::Save`]: exactly one.
    Saved {
        /// Echoed.
        req: ReqId,
        /// Whether all of it is durable; otherwise none of it is.
        ok: bool,
    },
    /// Stop: write down what was counted, then say [`Output::Stopped`].
    Shutdown,
}

/// Whose download a served range belongs to, as its opened grant says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServedGrant {
    /// The download.
    pub download: DownloadId,
    /// Who downloads.
    pub guid: Guid,
}

impl ServedGrant {
    /// Of a grant.
    #[must_use]
    pub const fn of(grant: &Grant) -> Self {
        Self { download: grant.download, guid: grant.guid }
    }
}

/// A completed download, as its opened and checked grant has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Completed {
    /// Echoed.
    pub req: ReqId,
    /// The download.
    pub grant: ServedGrant,
    /// Of this version.
    pub version: VersionId,
    /// Its bytes.
    pub size: u64,
    /// See [`Grant::challenged`].
    pub challenged: bool,
}

/// What an edge has counted for one download, or for the plain traffic of one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Count {
    /// The download; `None` for plain traffic.
    pub grant: Option<ServedGrant>,
    /// The version.
    pub version: VersionId,
    /// Who pays.
    pub provider: ProviderId,
    /// See [`ServedRecord::life`](crate::wire::records::ServedRecord::life).
    pub life: u64,
    /// The last record's `seq`.
    pub seq: u32,
    /// Bytes sent, repetitions included.
    pub total_bytes: u64,
    /// No more than these are sent, repetitions included, before a greater number is durable. So after a crash it is
    /// known how many may have been sent beside those that were counted.
    pub reserved: u64,
    /// How many those were, over all crashes.
    pub unsure: u64,
    /// When the download is over if nothing more is asked for, Unix milliseconds.
    pub over_ms: u64,
    /// Which bytes were sent: ascending, apart from one another. Empty for plain traffic.
    pub sent: Vec<Range<u64>>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Sign, seal and hand out a grant.
    IssueGrant {
        /// The request's number.
        req: ReqId,
        /// The grant.
        grant: Box<Grant>,
    },
    /// Refuse a grant.
    DenyGrant {
        /// The request's number.
        req: ReqId,
        /// Why.
        why: Denial,
    },
    /// The answer to [`Input::Serving`]: the bytes may leave.
    Serve {
        /// Echoed.
        req: ReqId,
        /// A crash will not lose sight of them. Otherwise they are given away: nobody is told of them as
        /// [`Input::Served`], and no peer's byte of their download is ever billed.
        counted: bool,
    },
    /// The other answer to [`Input::Serving`]: they cannot be counted, and peers could be paid for them. They are not
    /// sent: their client is to go on with a download without peers ([`Renewal::edge_only`]).
    Withhold {
        /// Echoed.
        req: ReqId,
    },
    /// Whether a new download's bytes can be counted, when that changes: while they cannot, edges alone deliver new
    /// downloads, and their bytes are given away.
    Counting(Result<(), Uncountable>),
    /// The answer to [`Input::Completed`].
    Pose {
        /// Echoed.
        req: ReqId,
        /// What the client is asked for, if anything.
        challenge: Option<Challenge>,
    },
    /// The answer to [`Input::Proof`]. What it was worth the client is not told.
    ProofTaken {
        /// Echoed.
        req: ReqId,
        /// It was asked for, and for the first time.
        asked: bool,
    },
    /// Make the proof from this edge's own content; answered by [`Input::Proven`].
    Prove {
        /// Echoed.
        req: ReqId,
        /// Of this version.
        version: VersionId,
        /// What is to be proven.
        challenge: Challenge,
    },
    /// Write to the spool, all or nothing, durably; answered by [`Input::Saved`].
    Save {
        /// Echoed.
        req: ReqId,
        /// What.
        batch: Batch,
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
    /// Add one to a counter.
    Count(Metric),
    /// Add so many to [`Metric::GivenAway`].
    GaveAway {
        /// Bytes.
        bytes: u64,
    },
    /// The answer to [`Input::Shutdown`]: all that was counted is durable, the process may end.
    Stopped,
}

/// Why an edge cannot count the bytes of a new download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uncountable {
    /// The spool has refused the last write.
    Refused,
    /// As many downloads as may be are under way, or have records that the ledger has not taken.
    Full,
}

/// A change of the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Keep these until they are named in `acked`.
    pub records: Vec<LedgerRecord>,
    /// Keep these, each in place of the older one of the same download (or plain version).
    pub counts: Vec<Count>,
    /// Delete these records: the ledger has them.
    pub acked: Vec<RecordId>,
    /// Delete the counts of these downloads: they are over.
    pub ended: Vec<DownloadId>,
}

/// What an edge counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A download was granted.
    Granted,
    /// A grant was renewed.
    Renewed,
    /// A grant was refused.
    Denied,
    /// A record was made.
    RecordMade,
    /// A record is durable in the ledger.
    RecordStored,
    /// The spool refused a write.
    SpoolFailed,
    /// A served range was counted in the total only: too many downloads or gaps at a time.
    CountOverflow,
    /// A download was granted without peers, since its bytes could not be counted.
    GrantedEdgeOnly,
    /// A request for a grant was refused because its key, its network or its download had asked too often.
    Limited,
    /// Bytes were sent that nobody is billed for, since they could not be counted.
    GivenAway,
    /// A client was challenged to prove that it holds what it has completed.
    Challenged,
    /// It did.
    ChallengePassed,
    /// It answered wrongly.
    ChallengeFailed,
    /// It did not answer in time.
    ChallengeUnanswered,
    /// It was not asked, or its answer not checked: too much to do.
    ChallengeWaived,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
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
    /// Checks signatures.
    pub verify: Verify,
    /// This edge's certificate.
    pub cert: ServerCert,
    /// A ledger is configured. Without one nothing is recorded.
    pub ledger: bool,
    /// A grant is valid for so long.
    pub grant_for: Duration,
    /// A grant can be renewed until so long after its end.
    pub renew_within: Duration,
    /// Who may ask for grants how often.
    pub limits: Limits,
    /// Counts become records this often; a spool that refuses is tried again as often.
    pub flush_every: Duration,
    /// A download that got nothing for so long is over.
    pub idle_after: Duration,
    /// Downloads counted at a time.
    pub counts_max: u32,
    /// Separate ranges remembered a download.
    pub ranges_max: u32,
    /// So many of a thousand downloads with peers are challenged at their end, drawn with the first grant; besides them
    /// those that look as if they should be.
    pub challenge_permille: u32,
    /// A challenge is answered within this.
    pub answer_within: Duration,
    /// A client is challenged again no sooner than this after its last challenge has ended.
    pub challenge_every: Duration,
    /// Clients challenged at a time.
    pub challenges_max: u32,
    /// Answers checked at a time, each from half a MiB of content.
    pub checks_max: u32,
    /// The wait before a lost ledger is dialled again: first and longest.
    pub backoff: (Duration, Duration),
    /// At shutdown, records in flight to the ledger get this long; what is left stays in the spool.
    pub drain: Duration,
}

impl Config {
    /// Production limits for an edge that has this identity.
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
