//! What the client machine is told and what it asks for.

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
use crate::wire::control::ControlMsg;
use crate::wire::peer::{PeerMsg, PieceRequest, RefuseCode};
use crate::wire::records::{Head, Receipt, SealedGrant, SignedRekey};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The user, through the command line or the local API.
    Command(Command),
    /// An answer of an edge.
    Edge {
        /// Of this request.
        req: ReqId,
        /// What it said.
        answer: Result<EdgeAnswer, EdgeError>,
    },
    /// The control connection is open (TLS done, certificate checked against the operator's CA).
    ControlOpened {
        /// Which.
        conn: ConnId,
    },
    /// The control connection could not be opened, or has ended.
    ControlClosed {
        /// Which.
        conn: ConnId,
    },
    /// A message of the CN.
    Control {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// A QUIC connection to an introduced peer is open and its key is the introduced one.
    PeerOpened {
        /// Which.
        conn: ConnId,
    },
    /// A peer has connected and proven `key`; it must show its introduction next.
    PeerAccepted {
        /// Which.
        conn: ConnId,
        /// The key it proved.
        key: PublicKey,
        /// From where.
        from: SocketAddr,
    },
    /// A peer connection could not be opened, or has ended.
    PeerClosed {
        /// Which.
        conn: ConnId,
    },
    /// Nothing has come on a peer's open connection though something was due: blocks, an acknowledgement, the answer to
    /// the shell's knocking after [`Output::Look`]. Told again as the silence lasts, each time after twice as long.
    PeerQuiet {
        /// Which.
        conn: ConnId,
        /// For how long.
        quiet: Duration,
        /// The way there and back, as QUIC has measured it.
        round_trip: Duration,
    },
    /// A message on a peer's control stream.
    Peer {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: PeerMsg,
    },
    /// A peer asks for blocks.
    PeerRequest {
        /// On this connection.
        conn: ConnId,
        /// The shell's number for the stream; answered by [`Output::Serve`] or [`Output::Refuse`].
        xfer: XferId,
        /// What it asks for.
        request: PieceRequest,
    },
    /// How far an incoming transfer is; at most one a MiB or 100 ms.
    Progress {
        /// Which.
        xfer: XferId,
        /// Bytes verified and written so far.
        verified: u64,
    },
    /// An incoming transfer is over: exactly one a [`Output::Fetch`].
    FetchEnded {
        /// Which.
        xfer: XferId,
        /// How.
        end: FetchEnd,
    },
    /// An outgoing transfer is over: exactly one a [`Output::Serve`].
    ServeEnded {
        /// Which.
        xfer: XferId,
        /// Bytes of blocks sent.
        bytes: u64,
    },
    /// The answer to [`Output::SignReceipt`].
    Signed {
        /// Of this request.
        req: ReqId,
        /// By the download's key; `None` if there is no such key.
        signature: Option<Signature>,
    },
    /// A head of the log is signed.
    HeadSigned {
        /// Of this request.
        req: ReqId,
        /// By the client's key.
        signature: Signature,
    },
    /// The answer to [`Output::MakeKey`].
    KeyMade {
        /// Of this request.
        req: ReqId,
        /// The new key, durable beside the old one, under both keys' signatures; `None` if it could not be kept.
        made: Option<Box<SignedRekey>>,
    },
    /// A durable write is done.
    Saved {
        /// Of this request.
        req: ReqId,
        /// Whether it is durable.
        result: Result<(), StoreError>,
    },
    /// The store has less of a version than it has said: its file was damaged, or changed by somebody else.
    VersionLost {
        /// Which.
        version: VersionId,
        /// The pieces that are still there (no piece of 0 if it is gone).
        left: Bitfield,
        /// Bytes of these by source, for each download that fetched them.
        sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    },
    /// What the network looks like has changed (STUN, interfaces).
    Network(NatDescriptor),
    /// Newer cookies for addresses of it.
    Proven(Vec<Proven>),
    /// A connectivity check came on the QUIC socket (see [`crate::nat::connectivity::is_check`]).
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// One came on a socket beside it.
    Scattered(Scattered),
    /// Something became of a line.
    Line(LineEvent),
}

/// A user's wish. Each is answered by one [`Notice::Done`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Command {
    /// Echoed.
    pub req: ReqId,
    /// What.
    pub kind: CommandKind,
}

/// See [`Command`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommandKind {
    /// Download an object; `Done` says under which handle. The same object again resumes it.
    Get {
        /// Which object.
        object: ObjectRef,
        /// The shell's token for where the file is to go.
        output: String,
        /// What stands there may be replaced.
        replace: bool,
    },
    /// Stop fetching, keep what is there.
    Pause(Handle),
    /// Go on.
    Resume(Handle),
    /// Give up and forget what is there.
    Cancel(Handle),
    /// Allow or forbid uploads, at once.
    Uploads(bool),
    /// Stop sharing a version and delete the cached copy.
    RemoveCached(VersionId),
    /// End: say good-bye to the CN and peers.
    Shutdown,
}

/// An object as its URL names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The provider.
    pub provider: ProviderId,
    /// The path, without a leading slash.
    pub path: String,
}

/// What an edge answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EdgeAnswer {
    /// To [`EdgeAsk::Bootstrap`]: how many CNs there are (the shell keeps their addresses, nearest first).
    Bootstrap {
        /// CNs that can be dialled as [`Output::ControlDial`] `cn` 0, 1, …
        cns: u32,
        /// Edges, the one that answered included, as `edge` 0, 1, …
        edges: u32,
        /// The edge's clock, Unix milliseconds.
        now_ms: u64,
    },
    /// To [`EdgeAsk::Grant`].
    Granted(Granted),
    /// To [`EdgeAsk::Manifest`]: fetched, checked against the version id, saved in the store.
    Manifest {
        /// How the version is cut.
        layout: Layout,
    },
    /// To [`EdgeAsk::Completed`]: what is to be proven, if anything.
    Challenged(Option<Challenge>),
    /// To [`EdgeAsk::Prove`].
    ProofTaken,
}

/// A grant, as far as its holder can see into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// The download; renewals keep it.
    pub download: DownloadId,
    /// K_d: the download's public key, as in the grant; the shell keeps its private half.
    pub download_key: PublicKey,
    /// The version that the object has now.
    pub version: VersionId,
    /// Bytes of the version.
    pub size: u64,
    /// What the provider allows.
    pub policy: Policy,
    /// Seeds the order of pieces.
    pub order_seed: u64,
    /// Renew before, Unix milliseconds.
    pub expires_ms: u64,
    /// To be shown to CNs and edges.
    pub sealed: SealedGrant,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Ask an edge; answered by [`Input::Edge`]. The shell signs what must be signed with the client's key.
    EdgeAsk {
        /// Echoed.
        req: ReqId,
        /// Which edge, as the bootstrap numbers them (0 before any bootstrap: the bundle's).
        edge: u32,
        /// What.
        ask: EdgeAsk,
    },
    /// Open a control connection; answered by `ControlOpened` or `ControlClosed`.
    ControlDial {
        /// Its number.
        conn: ConnId,
        /// Which CN, as the bootstrap numbers them.
        cn: u32,
    },
    /// Send to the CN.
    ControlSend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: ControlMsg,
    },
    /// Close the control connection; no `ControlClosed` follows.
    ControlClose {
        /// Which.
        conn: ConnId,
    },
    /// Open a connection for an introduction: `key` pinned, own key that of the download. Answered by `PeerOpened` or
    /// `PeerClosed`.
    PeerDial {
        /// Its number.
        conn: ConnId,
        /// The download whose key to use.
        download: DownloadId,
        /// The only key that may answer.
        key: PublicKey,
        /// Where to try, best first.
        addrs: Vec<SocketAddr>,
        /// Along what; a line is used up by it.
        along: Along,
    },
    /// A peer will come from one of these addresses: open the way (one datagram to each).
    PeerExpect {
        /// Where it will come from.
        addrs: Vec<SocketAddr>,
    },
    /// Send a datagram from the QUIC socket.
    Probe {
        /// To where.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
        /// With this TTL (IPv6: hop limit), or the usual one.
        ttl: Option<u8>,
    },
    /// Sockets beside the QUIC socket.
    Scatter(Scatter),
    /// TCP connections with peers on which nobody has shown a key yet.
    Line(Line),
    /// Send on a peer's control stream.
    PeerSend {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: PeerMsg,
    },
    /// Close a peer connection; no `PeerClosed` follows. Transfers on it end with `Broken`.
    PeerClose {
        /// Which.
        conn: ConnId,
        /// Why, for the log and the peer.
        why: CloseReason,
    },
    /// Get blocks, verify them, write them. Progress by [`Input::Progress`], then one [`Input::FetchEnded`].
    Fetch {
        /// Its number.
        xfer: XferId,
        /// For this download of this version.
        handle: Handle,
        /// See `handle`.
        version: VersionId,
        /// From whom.
        source: FetchSource,
        /// Which piece.
        piece: PieceIndex,
        /// Which of its blocks.
        blocks: Range<u32>,
        /// Ask the peer for the piece's leaf hashes (never for the edge).
        want_leaves: bool,
    },
    /// Stop a transfer; its `FetchEnded` still comes.
    CancelFetch {
        /// Which.
        xfer: XferId,
    },
    /// Send blocks to the peer that asked; then one [`Input::ServeEnded`].
    Serve {
        /// The request's number.
        xfer: XferId,
        /// Of this version.
        version: VersionId,
        /// Which piece.
        piece: PieceIndex,
        /// Which of its blocks.
        blocks: Range<u32>,
        /// Send the piece's leaf hashes first.
        leaves: bool,
        /// No faster than this over all transfers of the version, bytes a second; 0: no limit.
        rate_max: u64,
    },
    /// Refuse a request, or stop serving it (then `ServeEnded` still comes).
    Refuse {
        /// The request's number.
        xfer: XferId,
        /// Why.
        why: RefuseCode,
    },
    /// Sign with the download's key K_d, under [`crate::wire::records::Context::Receipt`]; answered by
    /// [`Input::Signed`].
    SignReceipt {
        /// Echoed.
        req: ReqId,
        /// What; it names the download.
        receipt: Receipt,
    },
    /// Sign a head of the log with the client's key; answered by [`Input::HeadSigned`].
    SignHead {
        /// Echoed.
        req: ReqId,
        /// What.
        head: Head,
    },
    /// Make a new key for this installation and keep it beside the one it has, or take the one that is kept there;
    /// answered by [`Input::KeyMade`].
    MakeKey {
        /// Echoed.
        req: ReqId,
    },
    /// Put the new key in the old one's place, forget the starts and the upload key that copies share, and start the
    /// client anew from its store. Nothing follows.
    AdoptKey,
    /// Write durably; answered by [`Input::Saved`].
    Save {
        /// Echoed.
        req: ReqId,
        /// What.
        what: Save,
    },
    /// The network may have changed: look at this host's addresses, ask a STUN server, let QUIC try every connection's
    /// way (RFC 9000 §9). What has changed comes as [`Input::Network`].
    Look,
    /// The network has changed: no kept connection to an edge can be used any more, and QUIC tries every way anew.
    Moved,
    /// Tell the user.
    Notice(Notice),
}

/// What can be asked of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EdgeAsk {
    /// Where are the CNs, the other edges, the STUN servers?
    Bootstrap,
    /// May I download this? The shell makes the download's key for a new one and keeps it under the download's id.
    Grant {
        /// Which object.
        object: ObjectRef,
        /// The grant to renew, if there is one.
        renew: Option<SealedGrant>,
        /// Whose key signs the renewal.
        download: Option<DownloadId>,
        /// A download without peers takes the renewed one's place.
        edge_only: bool,
        /// The version that must not change (resumption), if any.
        version: Option<VersionId>,
    },
    /// Fetch the manifest of a version (or find it in the store).
    Manifest {
        /// Which.
        version: VersionId,
        /// The grant that allows it.
        grant: SealedGrant,
    },
    /// This is complete.
    Completed {
        /// Which version.
        version: VersionId,
        /// The download's grant.
        grant: SealedGrant,
    },
    /// Here is the proof that was asked for. The shell makes it from the store; what it cannot read it does not answer.
    Prove {
        /// Of which version.
        version: VersionId,
        /// The download's grant.
        grant: SealedGrant,
        /// What the edge has asked for.
        challenge: Challenge,
    },
}

/// Where blocks come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchSource {
    /// An edge, with the grant to show.
    Edge {
        /// Which, as the bootstrap numbers them.
        edge: u32,
        /// The grant.
        grant: SealedGrant,
    },
    /// A connected peer.
    Peer(ConnId),
}

/// A download as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadRecord {
    /// The user's handle.
    pub handle: Handle,
    /// The object.
    pub object: ObjectRef,
    /// The shell's token for where the file is to go.
    pub output: String,
    /// What stands there may be replaced.
    pub replace: bool,
    /// Its grant; the version is fixed by it.
    pub granted: Option<Granted>,
    /// How far it is.
    pub state: DownloadState,
    /// The last usage record's `seq`.
    pub usage_seq: u32,
    /// How long it was fetching under this grant's id, up to that record, in milliseconds.
    pub active_ms: u64,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownloadState {
    /// Asking the edge for a grant and manifest.
    Starting,
    /// Fetching.
    Running,
    /// Stopped by the user.
    Paused,
    /// Every piece verified, durable, and the file where the user wants it.
    Completed,
    /// Given up; the reason tells the user what to do.
    Failed(FailReason),
}
