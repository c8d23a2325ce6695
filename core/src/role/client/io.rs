//! Inputs and outputs of the client machine, and the types that they carry.

mod meeting;
mod save;
mod status;

pub use super::config::Identity;
pub use super::notice::{CommandError, Notice};
pub use meeting::{Meeting, NotTried};
pub use save::{KeptReceipt, Save};
pub use status::DownloadStatus;

pub use crate::swarm::outcome::{CloseReason, EdgeError, FailReason, FetchEnd, SourceName, StoreError};

use crate::accounting::possession::Challenge;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, DownloadId, Handle, PieceIndex, ProviderId, PublicKey, ReqId, Signature, VersionId, XferId};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{Along, Line, LineEvent, Scatter, Scattered};
use crate::nat::cookie::Proven;
use crate::wire::control::{ToClient, ToCn};
use crate::wire::peer::{PeerMsg, PieceRequest, RefuseCode};
use crate::wire::records::{Head, Receipt, SealedGrant, SignedRekey};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

/// Event that the shell reports to the client machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Command of the user, from the command line or the local API.
    Command(Command),
    /// An edge has answered a request, or the request has failed.
    Edge {
        /// Number of the [`Output::EdgeAsk`] that is answered.
        req: ReqId,
        /// Answer of the edge, or why there is none.
        answer: Result<EdgeAnswer, EdgeError>,
    },
    /// The control connection is open (TLS done, certificate checked against the operator's CA).
    ControlOpened {
        /// Control connection that has opened.
        conn: ConnId,
    },
    /// The control connection could not be opened, or has ended.
    ControlClosed {
        /// Control connection that is closed.
        conn: ConnId,
    },
    /// A message of the CN has arrived.
    Control {
        /// Control connection that it arrived on.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: ToClient,
    },
    /// A connection to an introduced peer is open, and the peer has proven the introduced key.
    PeerOpened {
        /// Peer connection that has opened.
        conn: ConnId,
    },
    /// A peer has connected and proven `key`; it must show its introduction next.
    PeerAccepted {
        /// Number that the shell gave the connection.
        conn: ConnId,
        /// Key that the peer proved in the TLS handshake.
        key: PublicKey,
        /// Remote address of the connection.
        from: SocketAddr,
    },
    /// A peer connection could not be opened, or has ended.
    PeerClosed {
        /// Peer connection that is closed.
        conn: ConnId,
    },
    /// Nothing has arrived on an open peer connection although something was due: blocks, an acknowledgement, or the
    /// answer to the shell's probe after [`Output::ProbeNetwork`]. Reported again while the silence lasts, each time
    /// after twice as long.
    PeerQuiet {
        /// Peer connection that is silent.
        conn: ConnId,
        /// Time since anything last arrived.
        quiet: Duration,
        /// Round-trip time as QUIC has measured it.
        round_trip: Duration,
    },
    /// A message on a peer's control stream has arrived.
    Peer {
        /// Peer connection that it arrived on.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: PeerMsg,
    },
    /// A peer requests blocks of a piece.
    PeerRequest {
        /// Peer connection of the request.
        conn: ConnId,
        /// The shell's number for the stream; answered by [`Output::Serve`] or [`Output::Refuse`].
        xfer: XferId,
        /// Requested version, piece and blocks.
        request: PieceRequest,
    },
    /// Progress of an incoming transfer; at most once a MiB or 100 ms.
    Progress {
        /// Transfer that reports progress.
        xfer: XferId,
        /// Bytes verified and written so far.
        verified: u64,
    },
    /// An incoming transfer has ended: exactly one for each [`Output::Fetch`].
    FetchEnded {
        /// Transfer that has ended.
        xfer: XferId,
        /// Result of the transfer.
        end: FetchEnd,
    },
    /// An outgoing transfer has ended: exactly one for each [`Output::Serve`].
    ServeEnded {
        /// Transfer that has ended.
        xfer: XferId,
        /// Bytes of blocks sent.
        bytes: u64,
    },
    /// The shell answers [`Output::SignReceipt`].
    Signed {
        /// Number of the request that is answered.
        req: ReqId,
        /// Signature by the download's key; `None` if there is no such key.
        signature: Option<Signature>,
    },
    /// Answer to [`Output::SignHead`]: the log head is signed.
    HeadSigned {
        /// Number of the request that is answered.
        req: ReqId,
        /// Signature by the client's key.
        signature: Signature,
    },
    /// The shell answers [`Output::MakeKey`].
    KeyMade {
        /// Number of the request that is answered.
        req: ReqId,
        /// The new key, durable beside the old one and signed by both keys; `None` if it could not be stored.
        made: Option<Box<SignedRekey>>,
    },
    /// Answer to [`Output::Save`]: a write is durable or has failed.
    Saved {
        /// Number of the request that is answered.
        req: ReqId,
        /// Success, or the store's error.
        result: Result<(), StoreError>,
    },
    /// The store holds less of a version than it had reported: its file was damaged, or changed by another program.
    VersionLost {
        /// Version that has lost pieces.
        version: VersionId,
        /// Pieces that are still present (zero pieces long if the version is gone).
        left: Bitfield,
        /// Bytes of the remaining pieces by source, for each download that fetched them.
        sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    },
    /// The NAT type or the local addresses have changed, as STUN and the interfaces show.
    Network(NatDescriptor),
    /// Newer STUN cookies that prove this client's reflexive addresses to the CN.
    Proven(Vec<Proven>),
    /// A connectivity check has arrived on the QUIC socket (see [`crate::nat::connectivity::is_check`]).
    Datagram {
        /// Sender of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// An event of the extra sockets of birthday probing.
    Scattered(Scattered),
    /// An event of a TCP connection with a peer that has not done its handshake.
    Line(LineEvent),
}

/// Command of the user; each is answered by one [`Notice::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// Number of the command, repeated in its [`Notice::Done`].
    pub req: ReqId,
    /// Action that the user wants.
    pub kind: CommandKind,
}

/// Action that a [`Command`] asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// Download an object; `Done` carries its handle. Repeated for the same object it resumes the download.
    Get {
        /// Object to be downloaded.
        object: ObjectRef,
        /// The shell's token for the place of the user's file.
        output: String,
        /// Whether an existing file at `output` may be replaced.
        replace: bool,
    },
    /// Pause a download and keep its pieces.
    Pause(Handle),
    /// Resume a paused or failed download.
    Resume(Handle),
    /// Cancel a download and delete its pieces.
    Cancel(Handle),
    /// Allow or forbid uploads, with immediate effect.
    Uploads(bool),
    /// Stop sharing a version and delete the cached copy.
    RemoveCached(VersionId),
    /// Stop the client: take leave of the CN and the peers.
    Shutdown,
}

/// Object as its URL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Provider that has published the object.
    pub provider: ProviderId,
    /// Path at the provider, without a leading slash.
    pub path: String,
}

/// Successful answer of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EdgeAnswer {
    /// Answer to [`EdgeAsk::Bootstrap`]: how many CNs there are (the shell keeps their addresses, nearest first).
    Bootstrap {
        /// Number of CNs; [`Output::ControlDial`] dials them as `cn` 0, 1, …
        cns: u32,
        /// Number of edges, the one that answered included; requests name them as `edge` 0, 1, …
        edges: u32,
        /// The edge's clock, Unix milliseconds.
        now_ms: u64,
    },
    /// Answer to [`EdgeAsk::Grant`]: the download is permitted.
    Granted(Granted),
    /// Answer to [`EdgeAsk::Manifest`]: the manifest is fetched, checked against the version id, and stored.
    Manifest {
        /// Piece and block boundaries of the version.
        layout: Layout,
    },
    /// Answer to [`EdgeAsk::Completed`]: the challenge to be answered; `None` if the edge needs no proof.
    Challenged(Option<Challenge>),
    /// Answer to [`EdgeAsk::Prove`]: the edge has received the proof.
    ProofTaken,
}

/// Grant, with the fields that the client may read beside the sealed form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// Id of the download; renewals keep it.
    pub download: DownloadId,
    /// K_d: the download's public key, as in the grant; the shell keeps its private half.
    pub download_key: PublicKey,
    /// Version that the object had when the grant was made.
    pub version: VersionId,
    /// Size of the version in bytes.
    pub size: u64,
    /// The provider's rules for this object: peers, uploads, rates.
    pub policy: Policy,
    /// Seed of the order in which pieces are fetched.
    pub order_seed: u64,
    /// Expiry time, Unix milliseconds; 0 marks a grant of this installation's former GUID, which is void.
    pub expires_ms: u64,
    /// Encrypted grant that CNs and edges are shown.
    pub sealed: SealedGrant,
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a request to an edge; answered by [`Input::Edge`]. The shell signs it with the client's key where it must
    /// be.
    EdgeAsk {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Index of the edge in the bootstrap's list (0 before any bootstrap: the edge of the install bundle).
        edge: u32,
        /// Request to be sent.
        ask: EdgeAsk,
    },
    /// Open a control connection; answered by `ControlOpened` or `ControlClosed`.
    ControlDial {
        /// Number of the new connection.
        conn: ConnId,
        /// Index of the CN in the bootstrap's list.
        cn: u32,
    },
    /// Send a message to the CN.
    ControlSend {
        /// Control connection to send on.
        conn: ConnId,
        /// Message to be sent.
        msg: ToCn,
    },
    /// Close the control connection; no `ControlClosed` follows.
    ControlClose {
        /// Control connection to be closed.
        conn: ConnId,
    },
    /// Open a connection for an introduction: the peer's `key` is pinned, and the client proves the download's key.
    /// Answered by `PeerOpened` or `PeerClosed`.
    PeerDial {
        /// Number of the new connection.
        conn: ConnId,
        /// Download whose key K_d the client proves.
        download: DownloadId,
        /// K_u of the peer: the only key that is accepted in the handshake.
        key: PublicKey,
        /// Addresses to try, best first.
        addrs: Vec<SocketAddr>,
        /// Transport to dial over; a TCP connection named here is used up by it.
        along: Along,
    },
    /// Open the NAT for a peer that will connect: send one datagram to each of its addresses.
    PeerExpect {
        /// Addresses that the peer may connect from.
        addrs: Vec<SocketAddr>,
    },
    /// Send a datagram from the QUIC socket.
    Probe {
        /// Destination of the datagram.
        to: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
        /// TTL (IPv6: hop limit) of this datagram; `None` for the system's default.
        ttl: Option<u8>,
    },
    /// Open, use or close extra UDP sockets for birthday probing.
    Scatter(Scatter),
    /// Open, accept or close a TCP connection with a peer, before its handshake.
    Line(Line),
    /// Send a message on a peer's control stream.
    PeerSend {
        /// Peer connection to send on.
        conn: ConnId,
        /// Message to be sent.
        msg: PeerMsg,
    },
    /// Close a peer connection; no `PeerClosed` follows. Its transfers end with `Broken`.
    PeerClose {
        /// Peer connection to be closed.
        conn: ConnId,
        /// Reason, for the log and the peer.
        why: CloseReason,
    },
    /// Fetch blocks, verify and write them. Answered by any number of [`Input::Progress`], then one
    /// [`Input::FetchEnded`].
    Fetch {
        /// Number of the transfer.
        xfer: XferId,
        /// Download that the blocks are for.
        handle: Handle,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Edge or peer to fetch from.
        source: FetchSource,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of block indices within the piece.
        blocks: Range<u32>,
        /// Whether to request the piece's leaf hashes too; only from peers, never from the edge.
        want_leaves: bool,
    },
    /// Cancel a transfer; its `FetchEnded` still comes.
    CancelFetch {
        /// Transfer to be cancelled.
        xfer: XferId,
    },
    /// Send the requested blocks to a peer; answered by one [`Input::ServeEnded`].
    Serve {
        /// Number of the peer's request.
        xfer: XferId,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of block indices within the piece.
        blocks: Range<u32>,
        /// Whether to send the piece's leaf hashes first.
        leaves: bool,
        /// Highest rate over all transfers of the version, bytes a second; 0 for no limit.
        rate_max: u64,
    },
    /// Refuse a request, or stop serving it (then `ServeEnded` still comes).
    Refuse {
        /// Number of the peer's request.
        xfer: XferId,
        /// Reason, sent to the peer.
        why: RefuseCode,
    },
    /// Sign a receipt with the download's key K_d, under [`crate::wire::records::SigningContext::Receipt`]; answered by
    /// [`Input::Signed`].
    SignReceipt {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Receipt to be signed; it names the download.
        receipt: Receipt,
    },
    /// Sign a log head with the client's key; answered by [`Input::HeadSigned`].
    SignHead {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Log head to be signed.
        head: Head,
    },
    /// Make a new key for this installation and store it beside the current one, or load the new key that is stored
    /// there already; answered by [`Input::KeyMade`].
    MakeKey {
        /// Number of the request, repeated in the answer.
        req: ReqId,
    },
    /// Replace the current key by the new one, forget the secondary GUIDs and the upload key that copies share, and
    /// restart the client from its store. Nothing answers it.
    AdoptKey,
    /// Write to the store durably; answered by [`Input::Saved`].
    Save {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Change to be written.
        what: Save,
    },
    /// The network may have changed: list this host's addresses, query a STUN server, and let QUIC probe every
    /// connection's path (RFC 9000 §9). A change comes back as [`Input::Network`].
    ProbeNetwork,
    /// The network has changed: drop every kept connection to an edge, and let QUIC probe all paths again.
    NetworkChanged,
    /// Report something to the user.
    Notice(Notice),
}

/// Request to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EdgeAsk {
    /// Request the addresses of the CNs, the other edges and the STUN servers.
    Bootstrap,
    /// Request a grant. For a new download the shell makes the key K_d and keeps it under the download's id.
    Grant {
        /// Object to be downloaded.
        object: ObjectRef,
        /// Grant to be renewed, if there is one.
        renew: Option<SealedGrant>,
        /// Download whose key signs the renewal.
        download: Option<DownloadId>,
        /// Whether to replace the grant by one for a new download that may use no peers.
        edge_only: bool,
        /// Version that a resumed download must keep, if any.
        version: Option<VersionId>,
    },
    /// Fetch the manifest of a version (or load it from the store).
    Manifest {
        /// Version whose manifest is needed.
        version: VersionId,
        /// Grant that permits the download.
        grant: SealedGrant,
    },
    /// Report to the edge that the download is complete.
    Completed {
        /// Version that was downloaded.
        version: VersionId,
        /// Grant of the download.
        grant: SealedGrant,
    },
    /// Answer a possession challenge. The shell computes the proof from the store, and sends nothing if it cannot read
    /// the bytes.
    Prove {
        /// Version that the challenge is about.
        version: VersionId,
        /// Grant of the download.
        grant: SealedGrant,
        /// Challenge that the edge has sent.
        challenge: Challenge,
    },
}

/// Source of a transfer's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchSource {
    /// An edge, with the grant to show it.
    Edge {
        /// Index of the edge in the bootstrap's list.
        edge: u32,
        /// Grant that permits the download.
        grant: SealedGrant,
    },
    /// A connected peer, by its connection.
    Peer(ConnId),
}

/// A download as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadRecord {
    /// Handle that the user's commands name it by.
    pub handle: Handle,
    /// Object that is downloaded.
    pub object: ObjectRef,
    /// The shell's token for the place of the user's file.
    pub output: String,
    /// Whether an existing file at `output` may be replaced.
    pub replace: bool,
    /// Current grant, which fixes the version; `None` until the edge has granted the download.
    pub granted: Option<Granted>,
    /// Stage that the download has reached.
    pub state: DownloadState,
    /// The `seq` of its last usage record.
    pub usage_seq: u32,
    /// Milliseconds it was fetching under this download id, up to its last usage record.
    pub active_ms: u64,
}

/// Stage of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownloadState {
    /// The edge is being asked for a grant and manifest.
    Starting,
    /// Pieces are being fetched.
    Running,
    /// The user has paused it.
    Paused,
    /// Every piece is verified and durable, and the file is in the user's place.
    Completed,
    /// The download was given up; the reason tells the user what to do.
    Failed(FailReason),
}
