//! Inputs and outputs of the client machine, and the types that they carry.

mod meeting;
mod notice;
mod output;
mod save;
mod status;

pub use super::config::Identity;
pub use meeting::{Meeting, NoPeers, NotTried};
pub use notice::{CommandError, Notice};
pub use output::{ControlOutput, EdgeAsk, EdgeOutput, KeyOutput, Output, PeerOutput};
pub use save::{CopyTerms, KeptReceipt, Save};
pub use status::DownloadStatus;

pub use crate::swarm::outcome::{CloseReason, EdgeError, FailReason, FetchEnd, SourceName, StoreError};

use crate::accounting::possession::Challenge;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, DownloadId, Handle, ProviderId, PublicKey, ReqId, Signature, VersionId, XferId};
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{RawTcpEvent, Scattered};
use crate::nat::cookie::Proven;
use crate::wire::control::ToClient;
use crate::wire::notice::SignedNotice;
use crate::wire::peer::{PeerMsg, PieceRequest};
use crate::wire::records::{SealedGrant, SignedHolderTicket, SignedRekey};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// Event that the shell reports to the client machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Command of the user, from the command line or the local API.
    Command(Command),
    /// An edge has answered a request, or the request has failed.
    Edge {
        /// Number of the request ([`EdgeOutput::Ask`]) that is answered.
        req: ReqId,
        /// Answer of the edge, or the reason why there is none.
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
    /// answer to the shell's probe after [`PeerOutput::ProbePaths`]. Reported again while the silence lasts, each
    /// time after twice the duration.
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
        /// The shell's number for the stream; answered by [`PeerOutput::Serve`] or [`PeerOutput::Refuse`].
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
    /// An incoming transfer has ended: exactly one for each [`EdgeOutput::Fetch`] and [`PeerOutput::Fetch`].
    FetchEnded {
        /// Transfer that has ended.
        xfer: XferId,
        /// Result of the transfer.
        end: FetchEnd,
    },
    /// An outgoing transfer has ended: exactly one for each [`PeerOutput::Serve`].
    ServeEnded {
        /// Transfer that has ended.
        xfer: XferId,
        /// Bytes of blocks sent.
        bytes: u64,
    },
    /// The shell answers [`KeyOutput::SignReceipt`].
    Signed {
        /// Number of the request that is answered.
        req: ReqId,
        /// Signature by the download's key; `None` if there is no such key.
        signature: Option<Signature>,
    },
    /// Answer to [`KeyOutput::SignHead`]: the log head is signed.
    HeadSigned {
        /// Number of the request that is answered.
        req: ReqId,
        /// Signature by the client's key.
        signature: Signature,
    },
    /// The shell answers [`KeyOutput::Make`].
    KeyMade {
        /// Number of the request that is answered.
        req: ReqId,
        /// The new key, stored beside the old one and signed by both keys; `None` if it could not be stored.
        made: Option<Box<SignedRekey>>,
    },
    /// Answer to [`Output::Save`]: a write is durable or has failed.
    Saved {
        /// Number of the request that is answered.
        req: ReqId,
        /// Success, or the store's error.
        result: Result<(), StoreError>,
    },
    /// The store holds fewer pieces of a version than it had reported: its file was damaged, or changed by another
    /// program.
    VersionLost {
        /// Version that has lost pieces.
        version: VersionId,
        /// Pieces that are still present (a bitfield of zero pieces if the version is gone).
        left: Bitfield,
        /// Bytes of the remaining pieces by source, for each download that fetched them.
        sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    },
    /// Answer to [`Output::CheckCopy`]: exactly one. Damaged pieces were reported before, as [`Input::VersionLost`].
    CopyChecked {
        /// Version whose copy was hashed again.
        version: VersionId,
        /// Whether every stored piece has the right bytes; false if they could not be read too.
        is_right: bool,
    },
    /// The NAT type or the local addresses have changed, as STUN and the interfaces show.
    Network(NatDescriptor),
    /// An edge has sent a notice, whose signature is not checked yet.
    Notice(Box<SignedNotice>),
    /// Newer STUN cookies that prove this client's reflexive addresses to the CN.
    Proven(Vec<Proven>),
    /// A connectivity check has arrived on the QUIC socket (see [`crate::nat::connectivity::is_check`]).
    Datagram {
        /// Sender of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// An event of the extra UDP sockets that are open for birthday probing.
    Scattered(Scattered),
    /// An event of a raw TCP connection: one with a peer that has not done its TLS handshake.
    RawTcp(RawTcpEvent),
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
    /// Download an object; [`Notice::Done`] carries the download's handle. Repeated for the same object, it resumes
    /// the download.
    Get {
        /// Object to be downloaded.
        object: ObjectRef,
        /// The shell's token for the destination of the user's file.
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
    /// Stop the client: say goodbye to the CN and the peers.
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
    /// Answer to [`EdgeAsk::Bootstrap`]: the numbers of CNs and edges (the shell keeps their addresses, nearest
    /// first).
    Bootstrap {
        /// Number of CNs; [`ControlOutput::Dial`] dials them as `cn` 0, 1, …
        cns: u32,
        /// Number of edges, the one that answered included; requests name them as `edge` 0, 1, …
        edges: u32,
        /// Time of the edge's clock, in Unix milliseconds.
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

/// Grant of a download: the encrypted form, and the fields that the client may read beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// Id of the download; renewals keep it.
    pub download: DownloadId,
    /// Public download key K_d, as in the grant; the shell keeps the private key.
    pub download_key: PublicKey,
    /// Version that the object had when the grant was made.
    pub version: VersionId,
    /// Size of the version in bytes.
    pub size: u64,
    /// The provider's rules for this object: peers, uploads, rates.
    pub policy: Policy,
    /// Seed of the order in which pieces are fetched.
    pub order_seed: u64,
    /// Time when the grant expires, in Unix milliseconds. 0 marks a grant of this installation's former GUID, which
    /// is void.
    pub expires_ms: u64,
    /// Encrypted grant that CNs and edges are shown.
    pub sealed: SealedGrant,
    /// Holder's ticket that the edge gave with the grant; `None` if it gave none.
    pub ticket: Option<Box<SignedHolderTicket>>,
}

/// A download as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadRecord {
    /// Handle that the user's commands name it by.
    pub handle: Handle,
    /// Object that is downloaded.
    pub object: ObjectRef,
    /// The shell's token for the destination of the user's file.
    pub output: String,
    /// Whether an existing file at `output` may be replaced.
    pub replace: bool,
    /// Current grant, which fixes the version; `None` until an edge has granted the download.
    pub granted: Option<Granted>,
    /// Stage that the download has reached.
    pub state: DownloadState,
    /// Sequence number (`seq`) of the download's last usage record.
    pub usage_seq: u32,
    /// Milliseconds that the download has spent fetching under its current download id, up to its last usage record.
    pub active_ms: u64,
}

/// Stage of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownloadState {
    /// The edge is being asked for a grant and manifest.
    Starting,
    /// Pieces are being fetched.
    Running,
    /// The user has paused the download.
    Paused,
    /// Every piece is verified and durable, and the file is at the user's destination.
    Completed,
    /// The download has failed; the reason tells the user what to do.
    Failed(FailReason),
}
