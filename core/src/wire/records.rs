//! Values that are signed or sealed and travel inside messages: certificates, grants, introductions, usage records.

mod log;
mod possession;

pub use log::{LogEvent, LogRecord, Login, Offered, OfferedPeer, Registered};
pub use possession::{PossessionOutcome, PossessionRecord};

use super::{Blob, List, Text};
use crate::content::Policy;
use crate::ids::{
    Digest, DownloadId, Guid, IntroId, ProviderId, PublicKey, RecordId, SecondaryGuid, Signature, VersionId,
};
use crate::limits;
use sha2::{Digest as _, Sha256};

crate::wire! {
    /// What a certified server may sign for.
    pub enum ServerRole {
        /// Grants and what it served.
        Edge = 1,
        /// Introductions.
        Cn = 2,
        /// Nothing; names the server.
        Dn = 3,
        /// Heads of the closed days.
        Ledger = 4,
    }
}
impl Copy for ServerRole {}

crate::wire! {
    /// What the operator's root says of a server's key. Signed under [`Context::Cert`].
    pub struct CertBody {
        /// The server's role.
        pub role: ServerRole,
        /// Its name.
        pub name: Text<{ limits::NAME_LEN_MAX }>,
        /// Its signing key.
        pub key: PublicKey,
        /// Valid from, Unix milliseconds.
        pub not_before_ms: u64,
        /// Valid before, Unix milliseconds.
        pub not_after_ms: u64,
    }

    /// A server's certificate: root → server.
    pub struct ServerCert {
        /// What is certified.
        pub body: CertBody,
        /// By the operator's root key, over the encoding of `body`.
        pub signature: Signature,
    }

    /// The right of one client to one download of one version. A query must show it. Sealed for the control plane.
    pub struct Grant {
        /// The download, fixed by its first grant.
        pub download: DownloadId,
        /// Whose it is.
        pub guid: Guid,
        /// K_d: the key of this download; signs receipts and authenticates to uploaders.
        pub download_key: PublicKey,
        /// What may be downloaded.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// Who pays.
        pub provider: ProviderId,
        /// The object's path.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// What the provider allows.
        pub policy: Policy,
        /// The most bytes that peers may deliver and that may be billed; 0: edges alone deliver.
        pub max_peer_bytes: u64,
        /// Seeds the order in which pieces are asked for.
        pub order_seed: u64,
        /// When the download's first grant was issued, Unix milliseconds.
        pub began_ms: u64,
        /// Not used before, Unix milliseconds.
        pub issued_ms: u64,
        /// Not used after, Unix milliseconds.
        pub expires_ms: u64,
        /// Its client is asked to prove at the end that it holds what peers delivered. The seal hides this from it.
        pub challenged: bool,
    }

    /// A grant and its signature, as it is inside the seal. Signed under [`Context::Grant`].
    pub struct SignedGrant {
        /// The grant.
        pub grant: Grant,
        /// By the edge, over the encoding of `grant`.
        pub signature: Signature,
        /// Who the edge is.
        pub cert: ServerCert,
    }

    /// A sealed grant as clients and networks see it: AEAD under a key that the servers of an epoch share.
    pub struct SealedGrant {
        /// Which sealing key.
        pub epoch: u32,
        /// XChaCha20-Poly1305 nonce.
        pub nonce: [u8; 24],
        /// The encoding of a [`SignedGrant`], sealed; `epoch` is the associated data.
        pub sealed: Blob<{ limits::GRANT_LEN_MAX }>,
    }

    /// Two peers may connect for one download. Without it: no bytes, no credit.
    pub struct Introduction {
        /// Its name.
        pub id: IntroId,
        /// The download it is for.
        pub download: DownloadId,
        /// The version.
        pub version: VersionId,
        /// K_d: the only key that may connect.
        pub downloader_key: PublicKey,
        /// K_u: the only key that may answer.
        pub uploader_key: PublicKey,
        /// Connect before, Unix milliseconds.
        pub connect_before_ms: u64,
        /// Serve until, Unix milliseconds.
        pub serve_until_ms: u64,
        /// The most bytes it covers.
        pub cap_bytes: u64,
    }

    /// An introduction under its CN's signature. A CN signs an answer once, over the Merkle root of its introductions
    /// ([`Context::Introductions`]); each carries its path.
    pub struct SignedIntroduction {
        /// The introduction.
        pub intro: Introduction,
        /// Its leaf among the answer's introductions.
        pub index: u8,
        /// Sibling hashes from leaf to root.
        pub path: List<Digest, { limits::INTRO_PATH_MAX }>,
        /// By the CN, over the root.
        pub signature: Signature,
        /// Who the CN is.
        pub cert: ServerCert,
    }

    /// Bytes that came over one introduction, or from the edge side of a download.
    pub struct PeerBytes {
        /// The introduction.
        pub intro: IntroId,
        /// The other client's key in that introduction.
        pub key: PublicKey,
        /// Bytes of blocks: a downloader's, verified, durable and counted once each; an uploader's as sent.
        pub bytes: u64,
        /// An uploader's proof: the highest receipt it has.
        pub receipt: Option<ReceiptProof>,
    }

    /// What a downloader has verified of one uploader's blocks, over one introduction: cumulative, each block counted
    /// once and only for who delivered it first. Signed with K_d under [`Context::Receipt`].
    pub struct Receipt {
        /// The introduction.
        pub intro: IntroId,
        /// The download.
        pub download: DownloadId,
        /// The version.
        pub version: VersionId,
        /// K_u: whose blocks they were.
        pub uploader_key: PublicKey,
        /// 1 for the first receipt of the introduction, and one more for each that follows.
        pub seq: u32,
        /// Bytes of blocks, all receipts before this one included.
        pub bytes: u64,
    }

    /// A receipt under K_d's signature.
    pub struct SignedReceipt {
        /// What is receipted.
        pub receipt: Receipt,
        /// By the downloader with K_d, over the encoding of `receipt`.
        pub signature: Signature,
    }

    /// A signed receipt within a usage record, which names its introduction, download and version.
    pub struct ReceiptProof {
        /// See [`Receipt::uploader_key`].
        pub uploader_key: PublicKey,
        /// See [`Receipt::seq`].
        pub seq: u32,
        /// See [`Receipt::bytes`].
        pub bytes: u64,
        /// See [`SignedReceipt::signature`].
        pub signature: Signature,
    }

    /// What one client says of one download. Cumulative: of the records of one reporter about one download the one with
    /// the highest `seq` counts. Made durable before it is sent, kept until acknowledged.
    pub struct UsageRecord {
        /// Its name; the ledger stores each id once.
        pub id: RecordId,
        /// Who reports.
        pub reporter: Guid,
        /// As what.
        pub side: Side,
        /// The download.
        pub download: DownloadId,
        /// The version.
        pub version: VersionId,
        /// Rises with each record of this reporter about this download.
        pub seq: u32,
        /// How far the download is; for an uploader always `Running`.
        pub state: UsageState,
        /// Bytes from edges, verified, counted once each (0 for an uploader).
        pub edge_bytes: u64,
        /// Bytes by introduction.
        pub peers: List<PeerBytes, { limits::USAGE_SOURCES_MAX }>,
        /// How long it has been fetching, or serving, up to this record, in milliseconds.
        pub elapsed_ms: u64,
        /// Why it was given up, of a failed one.
        pub cause: Option<FailCause>,
    }

    /// What an edge says of one download (or of plain HTTP traffic, `download` empty). Cumulative like [`UsageRecord`].
    pub struct EdgeRecord {
        /// Its name.
        pub id: RecordId,
        /// The edge's signing key.
        pub edge: PublicKey,
        /// The download, if the requests carried its grant.
        pub download: Option<DownloadId>,
        /// Who downloads, by its grant.
        pub guid: Option<Guid>,
        /// The version.
        pub version: VersionId,
        /// Who pays.
        pub provider: ProviderId,
        /// Rises with each record of this edge about this download.
        pub seq: u32,
        /// Bytes of the version sent, each counted once; 0 for plain traffic.
        pub unique_bytes: u64,
        /// Bytes of the version sent, repetitions included.
        pub total_bytes: u64,
    }
}

crate::wire! {
    /// What an edge says of one download. Cumulative within one `life` like [`UsageRecord`]: of those the one with the
    /// highest `seq` counts. Lives and edges are united, so no byte counts twice, whoever sent it again.
    pub struct ServedRecord {
        /// Its name.
        pub id: RecordId,
        /// The edge's signing key.
        pub edge: PublicKey,
        /// The download.
        pub download: DownloadId,
        /// Who downloads, by its grant.
        pub guid: Guid,
        /// The version.
        pub version: VersionId,
        /// Who pays.
        pub provider: ProviderId,
        /// When this edge began to count, Unix milliseconds. It forgets a download that is long idle, and begins anew.
        pub life: u64,
        /// Rises with each record of this life.
        pub seq: u32,
        /// Which bytes were sent, as [`Spans`](crate::accounting::Spans) writes them.
        pub sent: Blob<{ limits::SPANS_LEN_MAX }>,
        /// Bytes sent, repetitions included.
        pub total_bytes: u64,
        /// Bytes that may have been sent besides, just before a crash of this edge: reserved and not counted any more.
        pub unsure_bytes: u64,
    }
}

crate::wire! {
    /// A place in a client's log: see [`crate::accounting::logs`].
    pub struct Head {
        /// The log's name: which start of the client.
        pub start: SecondaryGuid,
        /// 1 for the log's first record, and one more for each that follows.
        pub place: u64,
        /// The digest at the place before; zeros before the first.
        pub before: Digest,
        /// Of all records up to this one.
        pub digest: Digest,
    }

    /// A head under its client's signature.
    pub struct SignedHead {
        /// The head.
        pub head: Head,
        /// The client's key; its GUID follows from it.
        pub key: PublicKey,
        /// By the client, over the encoding of `head`, under [`Context::LogHead`].
        pub signature: Signature,
    }

    /// What a CN says of a client's log: the record at this place, and the place itself, are durable in the ledger.
    /// Signed under [`Context::Checkpoint`].
    pub struct Checkpoint {
        /// The head, as its client has signed it: who holds the checkpoint can prove what contradicts it.
        pub head: SignedHead,
        /// When, Unix milliseconds.
        pub at_ms: u64,
    }

    /// A checkpoint under its CN's signature.
    pub struct SignedCheckpoint {
        /// What the CN says.
        pub checkpoint: Checkpoint,
        /// By the CN, over the encoding of `checkpoint`.
        pub signature: Signature,
        /// Who the CN is.
        pub cert: ServerCert,
    }

    /// An installation takes another key: the GUID of `old` is retired. A reason to tell two copies of one installation
    /// apart, not a proof of guilt. Signed under [`Context::Rekey`] by both keys.
    pub struct Rekey {
        /// The key that it had.
        pub old: PublicKey,
        /// The key that it takes.
        pub new: PublicKey,
        /// The start of the client that does so.
        pub start: SecondaryGuid,
    }

    /// A change of keys under the signatures of both.
    pub struct SignedRekey {
        /// What changes.
        pub rekey: Rekey,
        /// By the old key, over the encoding of `rekey`.
        pub by_old: Signature,
        /// By the new key, over the same.
        pub by_new: Signature,
    }

    /// A usage record in its place.
    pub struct Logged {
        /// The record.
        pub record: UsageRecord,
        /// Its place in its reporter's log.
        pub head: SignedHead,
    }
}

crate::wire! {
    /// Which side of a transfer reports.
    pub enum Side {
        /// Received the bytes.
        Downloader = 1,
        /// Sent the bytes.
        Uploader = 2,
    }
}
impl Copy for Side {}

crate::wire! {
    /// How far a reported download is.
    pub enum UsageState {
        /// Goes on.
        Running = 1,
        /// All bytes verified and durable.
        Completed = 2,
        /// Given up by the user.
        Cancelled = 3,
        /// Given up because of an error.
        Failed = 4,
    }
}
impl Copy for UsageState {}

crate::wire! {
    /// Why a download failed.
    pub enum FailCause {
        /// The edge does not know the object.
        NotFound = 1,
        /// The edge refuses.
        Forbidden = 2,
        /// No edge has answered for long.
        EdgeUnreachable = 3,
        /// The object was withdrawn or replaced meanwhile.
        VersionGone = 4,
        /// The client's disk is full.
        NoSpace = 5,
        /// The client's disk fails.
        Io = 6,
        /// The edge sent wrong bytes.
        EdgeCorrupt = 7,
    }
}
impl Copy for FailCause {}

crate::wire! {
    /// What a ledger stores.
    pub enum LedgerRecord {
        /// From a client, through its CN.
        Usage(UsageRecord) = 1,
        /// From an edge.
        Edge(EdgeRecord) = 2,
        /// The bond between a download and who pays for it, from whoever is the first to do something for its grant: an
        /// edge that sends bytes, a CN that introduces peers.
        Granted(GrantRecord) = 3,
        /// What a CN saw.
        Log(LogRecord) = 4,
        /// From an edge, of one download.
        Served(ServedRecord) = 8,
        /// From an edge, of a completed download.
        Possession(PossessionRecord) = 9,
    }
}

crate::wire! {
    /// A download's grant, as the ledger is told of it: by each edge with the first bytes, by a CN with the first
    /// introduction. Its id follows from the download, so the ledger keeps one.
    pub struct GrantRecord {
        /// See [`GrantRecord::id_of`].
        pub id: RecordId,
        /// The download.
        pub download: DownloadId,
        /// Who downloads.
        pub guid: Guid,
        /// K_d: the download's receipts are checked against it.
        pub download_key: PublicKey,
        /// The version.
        pub version: VersionId,
        /// Bytes of the version.
        pub size: u64,
        /// Who pays.
        pub provider: ProviderId,
        /// The object's path.
        pub path: Text<{ limits::PATH_LEN_MAX }>,
        /// When the download's first grant was issued, Unix milliseconds.
        pub issued_ms: u64,
        /// The grant's ceiling: never more is billed from peers.
        pub max_peer_bytes: u64,
        /// See [`Grant::challenged`]: where no [`PossessionRecord`] follows a completion with peers, no edge was told.
        pub challenged: bool,
        /// What a CN shows for its word: the grant under its edge's signature. A ledger checks it, and keeps the record
        /// without.
        pub proof: Option<SignedGrant>,
    }
}

/// Begins what a grant's record is named by.
const GRANT_RECORD_TEXT: &[u8] = b"swarmedge/1 grant record\0";

impl GrantRecord {
    /// The id of the record of a download's grant, whoever writes it.
    #[must_use]
    pub fn id_of(download: DownloadId) -> RecordId {
        let hash = Sha256::new_with_prefix(GRANT_RECORD_TEXT).chain_update(download.0).finalize();
        let mut id = [0; RecordId::LEN];
        id.copy_from_slice(&hash[..RecordId::LEN]);
        RecordId(id)
    }

    /// The record of a grant, first or renewed.
    #[must_use]
    pub fn of(grant: &Grant) -> Self {
        Self {
            id: Self::id_of(grant.download),
            download: grant.download,
            guid: grant.guid,
            download_key: grant.download_key,
            version: grant.version,
            size: grant.size,
            provider: grant.provider,
            path: grant.path.clone(),
            issued_ms: grant.began_ms,
            max_peer_bytes: grant.max_peer_bytes,
            challenged: grant.challenged,
            proof: None,
        }
    }

    /// The record of a grant that a CN was shown.
    #[must_use]
    pub fn shown(signed: &SignedGrant) -> Self {
        Self { proof: Some(signed.clone()), ..Self::of(&signed.grant) }
    }
}

impl Grant {
    /// Whether edges alone deliver: no CN introduces anybody, no byte of a peer is billed.
    #[must_use]
    pub const fn is_edge_only(&self) -> bool {
        self.max_peer_bytes == 0
    }

    /// The same without peers.
    #[must_use]
    pub fn edge_only(self) -> Self {
        let policy = Policy { peer_download: false, ..self.policy };
        Self { policy, max_peer_bytes: 0, challenged: false, ..self }
    }
}

impl LedgerRecord {
    /// The record's id.
    #[must_use]
    pub const fn id(&self) -> RecordId {
        match self {
            Self::Usage(r) => r.id,
            Self::Edge(r) => r.id,
            Self::Granted(r) => r.id,
            Self::Log(r) => r.id,
            Self::Served(r) => r.id,
            Self::Possession(r) => r.id,
        }
    }

    /// The download that it is about; none for plain traffic.
    #[must_use]
    pub const fn download(&self) -> Option<DownloadId> {
        match self {
            Self::Usage(r) => Some(r.download),
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
                | LogEvent::Rekeyed(_) => None,
            },
        }
    }

    /// The version that it is about, if it is one.
    #[must_use]
    pub const fn version(&self) -> Option<VersionId> {
        match self {
            Self::Usage(r) => Some(r.version),
            Self::Edge(r) => Some(r.version),
            Self::Granted(r) => Some(r.version),
            Self::Served(r) => Some(r.version),
            Self::Possession(r) => Some(r.version),
            Self::Log(r) => match &r.event {
                LogEvent::Offered(o) => Some(o.version),
                LogEvent::Login(_)
                | LogEvent::Registered(_)
                | LogEvent::Head(_)
                | LogEvent::Located(_)
                | LogEvent::Rekeyed(_) => None,
            },
        }
    }
}

/// What a signature is for. Its text is signed before the message, so that no signature serves two purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// [`CertBody`] by the root.
    Cert,
    /// [`Grant`] by an edge.
    Grant,
    /// The root over an answer's introductions, by a CN.
    Introductions,
    /// A request to an edge, by a client's key.
    EdgeRequest,
    /// [`Receipt`] by a downloader, with K_d.
    Receipt,
    /// [`Head`] by a client.
    LogHead,
    /// [`Checkpoint`] by a CN.
    Checkpoint,
    /// [`Rekey`] by a client's old key and its new one.
    Rekey,
    /// [`Head`](crate::accounting::audit::Head) of the closed days, by the ledger.
    LedgerHead,
}

impl Context {
    /// The text, ending in a zero byte so that none is a prefix of another.
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
        }
    }
}

/// Verifies an Ed25519 signature over `context.text() ‖ message`, strictly. A pure function, so machines take it from
/// their configuration; models pass a fake.
pub type Verify = fn(key: &PublicKey, context: Context, message: &[u8], signature: &Signature) -> bool;
