//! Signed or sealed values that messages contain: certificates, grants, introductions, usage records.

mod grant;
mod log;
mod possession;
mod ticket;

pub use grant::GrantRecord;
pub use log::{Blamed, LogEvent, LogRecord, Login, Offered, OfferedPeer, Registered};
pub use possession::{PossessionOutcome, PossessionRecord};
pub use ticket::{HolderTicket, SignedHolderTicket};

use super::{Blob, List, Text};
use crate::content::Policy;
use crate::ids::{
    Digest, DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, SecondaryGuid, Signature, VersionId,
};
use crate::limits;

crate::wire! {
    /// Server roles that the operator's root certifies.
    pub enum ServerRole {
        /// Edge: signs grants and reports the bytes it served.
        Edge = 1,
        /// CN: signs introductions and checkpoints.
        Cn = 2,
        /// DN: signs nothing; the certificate names it.
        Dn = 3,
        /// Ledger: signs the Merkle tree of closed days.
        Ledger = 4,
    }
}
impl Copy for ServerRole {}

crate::wire! {
    /// Statement of the operator's root about a server's key. Signed under [`SigningContext::Cert`].
    pub struct CertBody {
        /// Role that the server may act in.
        pub role: ServerRole,
        /// Server's name, for logs and reports.
        pub name: Text<{ limits::NAME_LEN_MAX }>,
        /// Server's Ed25519 signing key.
        pub key: PublicKey,
        /// Start of validity, Unix milliseconds.
        pub not_before_ms: u64,
        /// End of validity (exclusive), Unix milliseconds.
        pub not_after_ms: u64,
    }

    /// Server's certificate, signed by the operator's root.
    pub struct ServerCert {
        /// Certified statement about the server's key.
        pub body: CertBody,
        /// Signature of the operator's root key over the encoding of `body`.
        pub signature: Signature,
    }

    /// Edge's permission for one client to download one version, which each query for peers must contain. Clients
    /// receive it sealed ([`SealedGrant`]).
    pub struct Grant {
        /// Download's id, drawn for its first grant.
        pub download: DownloadId,
        /// Client that may download.
        pub guid: Guid,
        /// Public key of this download, with which the client signs receipts and authenticates itself to uploaders.
        pub download_key: PublicKey,
        /// Version that may be downloaded.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// Provider that pays for the delivery.
        pub provider: ProviderId,
        /// Object's path within the provider.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// Provider's delivery policy for the object.
        pub policy: Policy,
        /// Maximum of bytes from peers that may be billed; 0: only edges deliver.
        pub max_peer_bytes: u64,
        /// Seed of the order in which the client requests pieces.
        pub order_seed: u64,
        /// Time at which the download's first grant was issued, Unix milliseconds.
        pub began_ms: u64,
        /// Start of validity, Unix milliseconds.
        pub issued_ms: u64,
        /// End of validity, Unix milliseconds.
        pub expires_ms: u64,
        /// Whether the client is challenged at the end to prove that it holds the bytes that peers delivered. The
        /// seal hides this flag from the client.
        pub challenged: bool,
    }

    /// Grant with its edge's signature, the content of a [`SealedGrant`]. Signed under [`SigningContext::Grant`].
    pub struct SignedGrant {
        /// Grant that the edge issued.
        pub grant: Grant,
        /// Edge's signature over the encoding of `grant`.
        pub signature: Signature,
        /// Certificate of the signing edge.
        pub cert: ServerCert,
    }

    /// Grant as clients hold it: encrypted and authenticated with a sealing key that only edges and CNs have.
    pub struct SealedGrant {
        /// Epoch (key number) of the sealing key.
        pub epoch: u32,
        /// Nonce of the XChaCha20-Poly1305 seal.
        pub nonce: [u8; 24],
        /// The encoding of a [`SignedGrant`], sealed; `epoch` is the associated data.
        pub sealed: Blob<{ limits::GRANT_LEN_MAX }>,
    }

    /// CN's permission for two peers to connect for one download. Without it an uploader sends nothing, and no peer's
    /// bytes are billed.
    pub struct Introduction {
        /// Introduction's unique id.
        pub id: IntroId,
        /// Download that the introduction is for.
        pub download: DownloadId,
        /// Version that the uploader shall send.
        pub version: VersionId,
        /// The download's key, with which the connecting client must authenticate itself.
        pub downloader_key: PublicKey,
        /// The uploader's key, with which the answering client must authenticate itself.
        pub uploader_key: PublicKey,
        /// Latest time to connect, Unix milliseconds.
        pub connect_before_ms: u64,
        /// Latest time to serve, Unix milliseconds.
        pub serve_until_ms: u64,
        /// Maximum of bytes that the uploader may send over the introduction.
        pub cap_bytes: u64,
    }

    /// Introduction with its CN's signature. A CN signs the Merkle root over all introductions of an answer
    /// ([`SigningContext::Introductions`]); each introduction contains its Merkle path.
    pub struct SignedIntroduction {
        /// Introduction that the CN signed.
        pub intro: Introduction,
        /// Leaf index of the introduction within its answer.
        pub index: u8,
        /// Sibling hashes from the leaf to the root.
        pub path: List<Digest, { limits::INTRO_PATH_MAX }>,
        /// CN's signature over the Merkle root.
        pub signature: Signature,
        /// Certificate of the signing CN.
        pub cert: ServerCert,
    }

    /// Bytes that a client received or sent over one introduction.
    pub struct PeerBytes {
        /// Introduction that permitted the transfer.
        pub intro: IntroId,
        /// Key by which the introduction names the other client.
        pub key: PublicKey,
        /// Bytes of blocks. A downloader counts those that are verified and durable, each once; an uploader counts
        /// all that it sent.
        pub bytes: u64,
        /// Receipt for the most bytes that the uploader has; `None` without a receipt, and in a downloader's record.
        pub receipt: Option<ReceiptProof>,
    }

    /// Downloader's statement of the block bytes it verified from one uploader over one introduction. Cumulative; a
    /// block counts once, for the uploader that delivered it first. Signed with the download's key under
    /// [`SigningContext::Receipt`].
    pub struct Receipt {
        /// Introduction that the bytes came over.
        pub intro: IntroId,
        /// Download that received the bytes.
        pub download: DownloadId,
        /// Version that the blocks belong to.
        pub version: VersionId,
        /// Upload key of the client that sent the blocks.
        pub uploader_key: PublicKey,
        /// Receipt number within the introduction, from 1 without gaps.
        pub seq: u32,
        /// Block bytes in total, including all earlier receipts.
        pub bytes: u64,
    }

    /// Receipt with the downloader's signature.
    pub struct SignedReceipt {
        /// Receipt that the downloader signed.
        pub receipt: Receipt,
        /// Signature with the download's key over the encoding of `receipt`.
        pub signature: Signature,
    }

    /// Signed receipt inside a usage record, which already names the introduction, download and version.
    pub struct ReceiptProof {
        /// Uploader's key, as in [`Receipt::uploader_key`].
        pub uploader_key: PublicKey,
        /// Receipt number, as in [`Receipt::seq`].
        pub seq: u32,
        /// Block bytes in total, as in [`Receipt::bytes`].
        pub bytes: u64,
        /// Downloader's signature, as in [`SignedReceipt::signature`].
        pub signature: Signature,
    }

    /// Client's report about one download. Cumulative: of one reporter's records of a download, the one with the
    /// highest `seq` counts. The client stores it durably before sending it, and deletes it when the ledger has
    /// acknowledged it.
    pub struct UsageRecord {
        /// Record's unique id; the ledger stores each id once.
        pub id: RecordId,
        /// Client that reports.
        pub reporter: Guid,
        /// Reporter's side of the transfers.
        pub side: Side,
        /// Download that the record is about.
        pub download: DownloadId,
        /// Version that is downloaded.
        pub version: VersionId,
        /// Record number, rising within this reporter's records of the download.
        pub seq: u32,
        /// State of the download; for an uploader always `Running`.
        pub state: UsageState,
        /// Verified bytes from edges, counted once each; 0 for an uploader.
        pub edge_bytes: u64,
        /// Bytes from or to peers, by introduction.
        pub peers: List<PeerBytes, { limits::USAGE_SOURCES_MAX }>,
        /// Time spent downloading, or for an uploader since it began to serve, in milliseconds.
        pub elapsed_ms: u64,
        /// Cause of the failure, if the download failed.
        pub cause: Option<FailCause>,
    }

    /// Edge's report of the bytes sent for one download, or, if `download` is `None`, to HTTP clients without a
    /// grant. Cumulative like [`UsageRecord`].
    pub struct EdgeRecord {
        /// Record's unique id.
        pub id: RecordId,
        /// Signing key of the reporting edge.
        pub edge: PublicKey,
        /// Download whose grant the requests contained; `None` for requests without a grant.
        pub download: Option<DownloadId>,
        /// Client that the grant names; `None` for requests without a grant.
        pub guid: Option<Guid>,
        /// Version that was sent.
        pub version: VersionId,
        /// Provider that pays for the delivery.
        pub provider: ProviderId,
        /// Record number, rising within this edge's records of the download.
        pub seq: u32,
        /// Bytes of the version sent, each byte counted once; 0 for requests without a grant.
        pub unique_bytes: u64,
        /// Bytes of the version sent, repetitions included.
        pub total_bytes: u64,
    }
}

crate::wire! {
    /// Edge's report of the byte ranges it sent for one download. Cumulative: of the records with the same `edge` and
    /// `life`, the one with the highest `seq` counts. The ledger unites the ranges of all edges, so a byte sent twice
    /// counts once.
    pub struct ServedRecord {
        /// Record's unique id.
        pub id: RecordId,
        /// Signing key of the reporting edge.
        pub edge: PublicKey,
        /// Download that received the bytes.
        pub download: DownloadId,
        /// Downloading client, named by the grant.
        pub guid: Guid,
        /// Version that was sent.
        pub version: VersionId,
        /// Provider that pays for the delivery.
        pub provider: ProviderId,
        /// Time at which the edge began this count of the download, Unix milliseconds. An edge forgets a download
        /// that is idle for long; a later request begins another count, with another `life`.
        pub life: u64,
        /// Record number, rising within the records of the same `life`.
        pub seq: u32,
        /// Byte ranges sent, encoded by [`Spans`](crate::accounting::Spans).
        pub sent: Blob<{ limits::SPANS_LEN_MAX }>,
        /// Bytes sent, repetitions included.
        pub total_bytes: u64,
        /// Bytes that were reserved but not counted when the edge crashed; how many of them were sent is taken from
        /// the downloader's report.
        pub unsure_bytes: u64,
    }
}

crate::wire! {
    /// Head of a client's log, a hash chain of its usage records: the last record's position and the chain's digest
    /// ([`crate::accounting::logs`]).
    pub struct Head {
        /// Secondary GUID of the client's start with which the log began; it names the log.
        pub start: SecondaryGuid,
        /// Position of the record, from 1 without gaps.
        pub place: u64,
        /// Digest at the previous position; zeros for the first record.
        pub before: Digest,
        /// Digest of all records up to this one.
        pub digest: Digest,
    }

    /// Log head with its client's signature.
    pub struct SignedHead {
        /// Log head that the client signed.
        pub head: Head,
        /// Client's key, from which its GUID is derived.
        pub key: PublicKey,
        /// Client's signature over the encoding of `head`, under [`SigningContext::LogHead`].
        pub signature: Signature,
    }

    /// CN's statement that the log head and its record are durable in the ledger. Signed under
    /// [`SigningContext::Checkpoint`].
    pub struct Checkpoint {
        /// Log head signed by the client, so that the checkpoint's holder can prove a later contradiction.
        pub head: SignedHead,
        /// Time of the statement, Unix milliseconds.
        pub at_ms: u64,
    }

    /// Checkpoint with its CN's signature.
    pub struct SignedCheckpoint {
        /// Checkpoint that the CN signed.
        pub checkpoint: Checkpoint,
        /// CN's signature over the encoding of `checkpoint`.
        pub signature: Signature,
        /// Certificate of the signing CN.
        pub cert: ServerCert,
    }

    /// Change of an installation's key, after which the GUID of `old` is no longer used. It gives two copies of one
    /// installation different keys. Signed under [`SigningContext::Rekey`] by both keys.
    pub struct Rekey {
        /// Old key of the installation.
        pub old: PublicKey,
        /// New key of the installation.
        pub new: PublicKey,
        /// Secondary GUID of the client's start in which it changed the key.
        pub start: SecondaryGuid,
    }

    /// Change of key with the signatures of both keys.
    pub struct SignedRekey {
        /// Change of key that is signed.
        pub rekey: Rekey,
        /// Old key's signature over the encoding of `rekey`.
        pub by_old: Signature,
        /// New key's signature over the encoding of `rekey`.
        pub by_new: Signature,
    }

    /// Usage record with its signed log head.
    pub struct Logged {
        /// Usage record in the reporter's log.
        pub record: UsageRecord,
        /// Signed log head at this record.
        pub head: SignedHead,
    }
}

crate::wire! {
    /// Reporter's side of a transfer.
    pub enum Side {
        /// Client that received the bytes.
        Downloader = 1,
        /// Client that sent the bytes.
        Uploader = 2,
    }
}
impl Copy for Side {}

crate::wire! {
    /// State of a reported download.
    pub enum UsageState {
        /// The download is still in progress.
        Running = 1,
        /// Every byte is verified and durable.
        Completed = 2,
        /// The user cancelled the download.
        Cancelled = 3,
        /// The download has failed because of an error.
        Failed = 4,
    }
}
impl Copy for UsageState {}

crate::wire! {
    /// Causes of a failed download.
    pub enum FailCause {
        /// The edge does not know the object.
        NotFound = 1,
        /// The edge refuses to serve the object.
        Forbidden = 2,
        /// No edge answered for a long time.
        EdgeUnreachable = 3,
        /// The object was withdrawn or replaced during the download.
        VersionGone = 4,
        /// The client's disk is full.
        NoSpace = 5,
        /// The client's disk reports I/O errors.
        Io = 6,
        /// The edge sent wrong bytes.
        EdgeCorrupt = 7,
    }
}
impl Copy for FailCause {}

crate::wire! {
    /// Records that a ledger stores.
    pub enum LedgerRecord {
        /// Client's usage record with its log head, sent through its CN.
        Usage(Logged) = 1,
        /// Edge's report of bytes, for a download or plain traffic.
        Edge(EdgeRecord) = 2,
        /// Report of a download's grant, which names the paying provider, by the first server that acts on it: an edge
        /// that sends bytes, or a CN that introduces peers.
        Granted(GrantRecord) = 3,
        /// CN's log entry about a client.
        Log(LogRecord) = 4,
        /// Edge's report of byte ranges sent for one download.
        Served(ServedRecord) = 8,
        /// Edge's result of a possession challenge after a completed download.
        Possession(PossessionRecord) = 9,
    }
}

impl Grant {
    /// Returns whether only edges deliver under this grant: no CN introduces peers, and no peer's byte is billed.
    #[must_use]
    pub const fn is_edge_only(&self) -> bool {
        self.max_peer_bytes == 0
    }

    /// Returns a copy of this grant that permits no peers.
    #[must_use]
    pub fn edge_only(self) -> Self {
        let policy = Policy { peer_download: false, ..self.policy };
        Self { policy, max_peer_bytes: 0, challenged: false, ..self }
    }
}

impl LedgerRecord {
    /// Returns the record's unique id.
    #[must_use]
    pub const fn id(&self) -> RecordId {
        match self {
            Self::Usage(r) => r.record.id,
            Self::Edge(r) => r.id,
            Self::Granted(r) => r.id,
            Self::Log(r) => r.id,
            Self::Served(r) => r.id,
            Self::Possession(r) => r.id,
        }
    }

    /// Returns the usage record, without its log head; `None` for other kinds.
    #[must_use]
    pub const fn usage(&self) -> Option<&UsageRecord> {
        match self {
            Self::Usage(logged) => Some(&logged.record),
            Self::Edge(_) | Self::Granted(_) | Self::Log(_) | Self::Served(_) | Self::Possession(_) => None,
        }
    }

    /// Returns the download that the record is about; `None` for HTTP traffic without a grant and for events of a
    /// client.
    #[must_use]
    pub const fn download(&self) -> Option<DownloadId> {
        match self {
            Self::Usage(r) => Some(r.record.download),
            Self::Edge(r) => r.download,
            Self::Granted(r) => Some(r.download),
            Self::Served(r) => Some(r.download),
            Self::Possession(r) => Some(r.download),
            Self::Log(r) => match &r.event {
                LogEvent::Offered(o) => Some(o.download),
                LogEvent::Login(_)
                | LogEvent::Registered(_)
                | LogEvent::Head(_)
                | LogEvent::Located(_)
                | LogEvent::Rekeyed(_)
                | LogEvent::Blamed(_) => None,
            },
        }
    }

    /// Returns client and version if the record says that a blamed client has proven to have the right bytes.
    #[must_use]
    pub fn rechecked(&self) -> Option<(Guid, VersionId)> {
        match self {
            Self::Possession(r) if r.outcome == PossessionOutcome::Rechecked => Some((r.guid, r.version)),
            Self::Possession(_) | Self::Usage(_) | Self::Edge(_) => None,
            Self::Granted(_) | Self::Log(_) | Self::Served(_) => None,
        }
    }

    /// Returns the version that the record is about, if any.
    #[must_use]
    pub const fn version(&self) -> Option<VersionId> {
        match self {
            Self::Usage(r) => Some(r.record.version),
            Self::Edge(r) => Some(r.version),
            Self::Granted(r) => Some(r.version),
            Self::Served(r) => Some(r.version),
            Self::Possession(r) => Some(r.version),
            Self::Log(r) => match &r.event {
                LogEvent::Offered(o) => Some(o.version),
                LogEvent::Blamed(b) => Some(b.version),
                LogEvent::Login(_)
                | LogEvent::Registered(_)
                | LogEvent::Head(_)
                | LogEvent::Located(_)
                | LogEvent::Rekeyed(_) => None,
            },
        }
    }
}

/// Purpose of a signature. The purpose's text is signed together with the message, so that a signature is valid for
/// one purpose only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningContext {
    /// Server certificate ([`CertBody`]), signed by the root.
    Cert,
    /// Download permission ([`Grant`]), signed by an edge.
    Grant,
    /// Merkle root of an answer's introductions, signed by a CN.
    Introductions,
    /// Client's request to an edge, signed with the client's key.
    EdgeRequest,
    /// Receipt for bytes ([`Receipt`]), signed by a downloader with the download's key.
    Receipt,
    /// Log head ([`Head`]), signed by a client.
    LogHead,
    /// Log checkpoint ([`Checkpoint`]), signed by a CN.
    Checkpoint,
    /// Change of key ([`Rekey`]), signed by the client's old and new keys.
    Rekey,
    /// Head of the closed days ([`Head`](crate::accounting::audit::Head)), signed by the ledger.
    LedgerHead,
    /// Notice to the fleet ([`super::notice::Notice`]), signed by an edge.
    Notice,
    /// Holder's ticket ([`HolderTicket`]), signed by an edge.
    HolderTicket,
}

impl SigningContext {
    /// Returns the text that is signed ahead of the message. It ends in a zero byte, so that no text is a prefix of
    /// another.
    #[must_use]
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::Cert => b"swarmedge/1 certificate\0",
            Self::Grant => b"swarmedge/1 grant\0",
            Self::Introductions => b"swarmedge/1 introductions\0",
            Self::EdgeRequest => b"swarmedge/1 edge request\0",
            Self::Receipt => b"swarmedge/1 receipt\0",
            Self::LogHead => b"swarmedge/1 log head\0",
            Self::Checkpoint => b"swarmedge/1 checkpoint\0",
            Self::Rekey => b"swarmedge/1 rekey\0",
            Self::LedgerHead => b"swarmedge/1 ledger head\0",
            Self::Notice => b"swarmedge/1 notice\0",
            Self::HolderTicket => b"swarmedge/1 holder's ticket\0",
        }
    }
}

/// Function that verifies an Ed25519 signature over `context.text() ‖ message`. State machines take it from their
/// configuration; the model checker passes a substitute.
pub type Verify = fn(key: &PublicKey, context: SigningContext, message: &[u8], signature: &Signature) -> bool;
