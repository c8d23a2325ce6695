//! Inputs, outputs and configuration of the client's session with the control plane.

use crate::accounting::conduct::End;
use crate::ids::{ConnId, DownloadId, Guid, IntroId, PieceIndex, PublicKey, RecordId, SecondaryGuid, VersionId};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::Attempt;
use crate::nat::cookie::Proven;
use crate::wire::Text;
use crate::wire::control::{Introduce, IntroducedPeer, QueryError, ToClient, ToCn};
use crate::wire::notice::{Known, SignedNotice};
use crate::wire::records::{
    Logged, SealedGrant, SignedCheckpoint, SignedHolderTicket, SignedIntroduction, SignedRekey, Verify,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// Event reported to the client's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The bootstrap document, from which the client learns its servers, named this many CNs, nearest first. The
    /// session starts when CNs are known.
    Servers {
        /// Number of CNs; 0: none is known.
        cns: u32,
        /// Edge's clock in Unix milliseconds, used until a CN reports a better one.
        now_ms: u64,
    },
    /// The connection to a CN is open.
    Opened {
        /// Identifier of the connection.
        conn: ConnId,
    },
    /// The connection could not be opened, or has ended.
    Closed {
        /// Identifier of the connection.
        conn: ConnId,
    },
    /// A message came from the CN.
    Message {
        /// Connection that the message came on.
        conn: ConnId,
        /// Message of the CN.
        msg: ToClient,
    },
    /// The user allowed (`true`) or forbade uploads.
    Uploads(bool),
    /// The client's NAT descriptor has changed.
    Network(NatDescriptor),
    /// STUN servers issued newer cookies for the client's addresses, to be sent in the next `Hello` or `Update`.
    Proven(Vec<Proven>),
    /// The network path to the CN is in doubt: the CN is pinged at once.
    ProbePath,
    /// A version can be shared now, in part or whole. Idempotent; may come before any connection.
    Share {
        /// Identifier of the version.
        version: VersionId,
        /// Whether the client has every piece.
        complete: bool,
        /// Ticket by which an edge has granted the version to this client.
        ticket: Box<SignedHolderTicket>,
    },
    /// A version is no longer shared.
    Unshare {
        /// Identifier of the version.
        version: VersionId,
    },
    /// A download wants peers; replaces its earlier [`Want`]. Queries are sent, within their rate limit, until it
    /// wants none.
    Want(Want),
    /// A download is over or paused: it wants no peers, and its introductions are no longer accepted.
    Unwant {
        /// Identifier of the download.
        download: DownloadId,
    },
    /// An attempt to connect to an introduced peer ended.
    Outcome {
        /// Identifier of the introduction.
        intro: IntroId,
        /// Result of the attempt to connect.
        attempt: Attempt,
    },
    /// The client's own NAT now lets packets of an introduced peer in.
    NatOpened(IntroId),
    /// An introduction ended with bytes that no receipt covers. Reported to the CN if the session is open, else
    /// dropped.
    Unreceipted {
        /// Introduction as its downloader presented it.
        intro: Box<SignedIntroduction>,
        /// Number of bytes without receipt, and with one.
        end: End,
    },
    /// An introduced peer has sent a wrong block. Reported to the CN if the session is open, else dropped.
    Blame {
        /// Introduction of the peer.
        intro: IntroId,
        /// Piece of the wrong block.
        piece: PieceIndex,
        /// Index of the wrong block within its piece.
        block: u32,
    },
    /// A usage record was stored durably and added to the client's log. It is sent until the ledger has acknowledged
    /// it, or a newer record of the same download and side replaces it.
    Usage(Logged),
    /// The client stored this signed checkpoint of its log; the next login contains it.
    Checkpoint(Box<SignedCheckpoint>),
    /// Notices that the client has on its disk now; the session reports them to the CN, if it is open.
    NoticesHeld(Vec<Known>),
    /// The client stored a change to a new key; it is sent until [`Output::Retired`].
    Rekey(Box<SignedRekey>),
    /// The client stops: log out of the CN.
    Shutdown,
}

/// Request of one download for peers, to be fulfilled by queries to the CN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// Identifier of the download.
    pub download: DownloadId,
    /// Download's public key; introductions that name another downloader key are refused.
    pub download_key: PublicKey,
    /// Version that is being downloaded.
    pub version: VersionId,
    /// Edge's grant that permits queries, as last renewed.
    pub grant: SealedGrant,
    /// Number of additional peers wanted now; 0: no queries at present.
    pub more: u8,
    /// Upload keys of the peers that are connected or have been tried.
    pub exclude: Vec<PublicKey>,
    /// Whether to query at once, because the network path to a peer was lost and the peer may be introduced again.
    pub soon: bool,
}

/// Command or notification of the client's session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Open a connection to a CN; answered by [`Input::Opened`] or [`Input::Closed`].
    Dial {
        /// Identifier of the new connection.
        conn: ConnId,
        /// Index of the CN in the bootstrap's list.
        cn: u32,
    },
    /// Send a message to the CN.
    Send {
        /// Connection to send on.
        conn: ConnId,
        /// Message for the CN.
        msg: ToCn,
    },
    /// Close the connection to the CN; no [`Input::Closed`] follows.
    Close {
        /// Identifier of the connection.
        conn: ConnId,
    },
    /// The session is open: a CN has answered `Welcome`, and with it the Unix time is known.
    Connected,
    /// The session is lost; another CN is being tried.
    Disconnected,
    /// The CNs refuse this version of the client: there are no peers until it is updated.
    Outdated,
    /// All known CNs have failed, one after another: fetch the bootstrap document again, which may name other CNs.
    NoServers,
    /// Deliver introduced peers to a download, best first; each introduction was checked (signature, certificate,
    /// times, download, version).
    Introduced {
        /// Download that wants the peers.
        download: DownloadId,
        /// Introduced peers, best first.
        peers: Vec<IntroducedPeer>,
    },
    /// Renew this download's grant, which the CN rejected. Queries resume when a [`Want`] contains another grant.
    Regrant {
        /// Identifier of the download.
        download: DownloadId,
    },
    /// The CN has answered a query of this download without peers.
    NoPeers {
        /// Identifier of the download.
        download: DownloadId,
        /// Reason that the CN gives.
        why: QueryError,
    },
    /// Continue this download without peers: the provider's policy forbids them, or the grant is another client's.
    PeersForbidden {
        /// Identifier of the download.
        download: DownloadId,
    },
    /// Expect a downloader to connect. Its introduction was checked and names this client's upload key.
    PeerComing(Introduce),
    /// Start connecting to the peer of this introduction: the CN has signalled that both have opened their NATs, or
    /// had time to.
    Go(IntroId),
    /// The CN has newer notices about some subjects, each named with the newest notice's serial number.
    NoticesChanged(Vec<Known>),
    /// The CN has sent a notice, whose signature is not checked yet.
    Notice(Box<SignedNotice>),
    /// The CN does not offer these versions to others, since it refuses their holder's tickets; told once a session.
    TicketsRefused(Vec<VersionId>),
    /// Hash the copy of this version again: downloaders have blamed this client for wrong blocks.
    CheckCopy(VersionId),
    /// Store this checkpoint: the CN signed a newer position of this client's log. Its signature was checked.
    Checkpoint(Box<SignedCheckpoint>),
    /// Generate a new key: the control plane has found that copies of this installation run.
    RekeyOrdered,
    /// The ledger has stored the change of key: the old key can be deleted.
    Retired,
    /// Delete these usage records: the ledger has acknowledged them, or newer records of the same download and side
    /// replace them.
    UsageDone {
        /// Identifiers of the usage records.
        ids: Vec<RecordId>,
    },
}

/// Identity, limits and intervals of a client's session.
#[derive(Clone, Debug)]
pub struct Config {
    /// Public root key of the operator.
    pub root: PublicKey,
    /// Function that verifies signatures.
    pub verify: Verify,
    /// GUID of the client, derived from its key.
    pub guid: Guid,
    /// Secondary GUIDs of the last starts, newest (this start's) first.
    pub secondary: Vec<SecondaryGuid>,
    /// Public upload key of the client, named in introductions where the client is the uploader.
    pub upload_key: PublicKey,
    /// Client version: `major << 16 | minor << 8 | patch`.
    pub client_version: u32,
    /// Name of the operating system and architecture.
    pub platform: Text<32>,
    /// Time-out for opening a connection, and for the answer to `Hello`.
    pub welcome_within: Duration,
    /// Time-out for the answer to a ping, after which the CN counts as lost.
    pub pong_within: Duration,
    /// Time-out for the answer to a ping when the network path is in doubt.
    pub probe_within: Duration,
    /// Delay before the next attempt once every CN has failed: initial and maximum.
    pub backoff: (Duration, Duration),
    /// Maximum queries per minute, over all downloads that already know peers.
    pub queries_per_minute: u32,
    /// Additional queries per minute for downloads that know no peers, so that frequent queries of one download cannot
    /// delay another's first peers.
    pub queries_first: u32,
    /// Additional queries per minute for downloads that lost the network path to a peer. The three numbers together
    /// must not exceed the CN's limit.
    pub queries_spare: u32,
    /// Delay before a download with few peers queries again, and maximum delay after answers without peers.
    pub requery: (Duration, Duration),
    /// Number of peers connected or tried from which on a download queries only every [`Config::requery_known`].
    pub few_peers: u32,
    /// Interval of queries once [`Config::few_peers`] peers are known.
    pub requery_known: Duration,
    /// Time for which changes to the list of shared versions are collected before they are sent.
    pub inventory_wait: Duration,
    /// Maximum number of unacknowledged usage records in flight.
    pub usage_window: u32,
    /// Time-out after which an unacknowledged usage record is sent again.
    pub usage_retry: Duration,
}

impl Config {
    /// Returns the production configuration for a client of this identity.
    #[must_use]
    pub fn new(root: PublicKey, verify: Verify, guid: Guid, secondary: Vec<SecondaryGuid>, upload: PublicKey) -> Self {
        Self {
            root,
            verify,
            guid,
            secondary,
            upload_key: upload,
            client_version: 1 << 8,
            platform: Text::default(),
            welcome_within: Duration::from_secs(10),
            pong_within: Duration::from_secs(10),
            probe_within: Duration::from_millis(1_500),
            backoff: (Duration::from_millis(500), Duration::from_secs(60)),
            queries_per_minute: 6,
            queries_first: 2,
            queries_spare: 2,
            requery: (Duration::from_secs(1), Duration::from_secs(60)),
            few_peers: 6,
            requery_known: Duration::from_secs(5),
            inventory_wait: Duration::from_millis(200),
            usage_window: 32,
            usage_retry: Duration::from_secs(30),
        }
    }

    /// Returns the maximum queries per minute for a download: `knows_peers` if it has connected to or tried any,
    /// `way_lost` if it lost the network path to one.
    pub(super) const fn query_rate(&self, knows_peers: bool, way_lost: bool) -> u32 {
        let first = self.queries_per_minute.saturating_add(self.queries_first);
        match (knows_peers, way_lost) {
            (_, true) => first.saturating_add(self.queries_spare),
            (false, false) => first,
            (true, false) => self.queries_per_minute,
        }
    }

    /// Returns a configuration for the model checker: changes are sent at once, and delays are not random.
    #[must_use]
    pub fn tiny(root: PublicKey, verify: Verify, guid: Guid, secondary: Vec<SecondaryGuid>, upload: PublicKey) -> Self {
        Self {
            backoff: (Duration::from_secs(1), Duration::from_secs(1)),
            queries_per_minute: 4,
            queries_first: 0,
            requery: (Duration::from_secs(5), Duration::from_secs(60)),
            few_peers: 0,
            inventory_wait: Duration::ZERO,
            usage_window: 2,
            ..Self::new(root, verify, guid, secondary, upload)
        }
    }
}
