//! Outputs of the client machine, grouped by the part of the shell that performs them.

use super::{CloseReason, Notice, ObjectRef, Save};
use crate::accounting::possession::Challenge;
use crate::ids::{ConnId, DownloadId, PieceIndex, PublicKey, ReqId, VersionId, XferId};
use crate::nat::connectivity::{Along, RawTcp, Scatter};
use crate::wire::control::ToCn;
use crate::wire::peer::{PeerMsg, RefuseCode};
use crate::wire::records::{Head, Receipt, SealedGrant};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Do something with peers: connections, datagrams and transfers.
    Peer(PeerOutput),
    /// Do something with edges: requests and transfers.
    Edge(EdgeOutput),
    /// Do something with the control connection.
    Control(ControlOutput),
    /// Do something with a private key.
    Key(KeyOutput),
    /// Write to the store durably; answered by [`super::Input::Saved`].
    Save {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Change to be written.
        what: Save,
    },
    /// Hash all stored pieces of a version again, whatever the store believes of them; answered by
    /// [`super::Input::CopyChecked`].
    CheckCopy {
        /// Version whose copy is in doubt.
        version: VersionId,
    },
    /// The network may have changed: list this host's addresses and query a STUN server. A change comes back as
    /// [`super::Input::Network`].
    ProbeNetwork,
    /// Report something to the user.
    Notice(Notice),
}

/// Command about peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerOutput {
    /// Open a connection for an introduction: the peer's `key` is pinned, and the client proves the download's key.
    /// Answered by `PeerOpened` or `PeerClosed`.
    Dial {
        /// Number of the new connection.
        conn: ConnId,
        /// Download whose key K_d the client proves.
        download: DownloadId,
        /// K_u of the peer: the only key that is accepted in the handshake.
        key: PublicKey,
        /// Addresses to try, best first.
        addrs: Vec<SocketAddr>,
        /// Transport to dial over; a raw TCP connection named here becomes the peer connection.
        along: Along,
    },
    /// Open this host's NAT for a peer that will connect: send one datagram to each of the peer's addresses.
    Expect {
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
    /// Open, accept or close a raw TCP connection with a peer: one on which no TLS handshake is done yet.
    RawTcp(RawTcp),
    /// Send a message on a peer's control stream.
    Send {
        /// Peer connection to send on.
        conn: ConnId,
        /// Message to be sent.
        msg: PeerMsg,
    },
    /// Close a peer connection; no `PeerClosed` follows. Its transfers end with `Broken`.
    Close {
        /// Peer connection to be closed.
        conn: ConnId,
        /// Reason, for the log and the peer.
        why: CloseReason,
    },
    /// Fetch blocks and their piece's leaf hashes from a peer, verify and write them. Answered by any number of
    /// [`super::Input::Progress`], then one [`super::Input::FetchEnded`].
    Fetch {
        /// Number of the transfer.
        xfer: XferId,
        /// Peer connection to fetch over.
        conn: ConnId,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of block indices within the piece.
        blocks: Range<u32>,
    },
    /// Cancel a transfer from a peer; its `FetchEnded` still comes.
    CancelFetch {
        /// Transfer to be cancelled.
        xfer: XferId,
    },
    /// Send the requested blocks to a peer; answered by one [`super::Input::ServeEnded`].
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
    /// Refuse a peer's request, or stop serving it (then `ServeEnded` still comes).
    Refuse {
        /// Number of the peer's request.
        xfer: XferId,
        /// Reason, sent to the peer.
        why: RefuseCode,
    },
    /// Let QUIC probe the path of every peer connection (RFC 9000 §9), since the network may have changed.
    ProbePaths,
}

/// Command about edges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EdgeOutput {
    /// Send a request to an edge; answered by [`super::Input::Edge`]. The shell signs those requests that need the
    /// client's signature.
    Ask {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Index of the edge in the bootstrap's list (0 before any bootstrap: the edge of the install bundle).
        edge: u32,
        /// Request to be sent.
        ask: EdgeAsk,
    },
    /// Fetch blocks from an edge, verify and write them. Answered by any number of [`super::Input::Progress`], then one
    /// [`super::Input::FetchEnded`].
    Fetch {
        /// Number of the transfer.
        xfer: XferId,
        /// Index of the edge in the bootstrap's list.
        edge: u32,
        /// Grant that permits the download.
        grant: SealedGrant,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of block indices within the piece.
        blocks: Range<u32>,
    },
    /// Cancel a transfer from an edge; its `FetchEnded` still comes.
    CancelFetch {
        /// Transfer to be cancelled.
        xfer: XferId,
    },
    /// Drop the idle connections to edges that are kept for reuse, since the network has changed.
    DropConnections,
}

/// Command about the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ControlOutput {
    /// Open a control connection; answered by `ControlOpened` or `ControlClosed`.
    Dial {
        /// Number of the new connection.
        conn: ConnId,
        /// Index of the CN in the bootstrap's list.
        cn: u32,
    },
    /// Send a message to the CN.
    Send {
        /// Control connection to send on.
        conn: ConnId,
        /// Message to be sent.
        msg: ToCn,
    },
    /// Close the control connection; no `ControlClosed` follows.
    Close {
        /// Control connection to be closed.
        conn: ConnId,
    },
}

/// Command about private keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyOutput {
    /// Sign a receipt with the download's key K_d, under [`crate::wire::records::SigningContext::Receipt`]; answered by
    /// [`super::Input::Signed`].
    SignReceipt {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Receipt to be signed; it names the download.
        receipt: Receipt,
    },
    /// Sign a log head with the client's key; answered by [`super::Input::HeadSigned`].
    SignHead {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Log head to be signed.
        head: Head,
    },
    /// Make a new key for this installation and store it beside the current one, or load the new key that is stored
    /// there already; answered by [`super::Input::KeyMade`].
    Make {
        /// Number of the request, repeated in the answer.
        req: ReqId,
    },
    /// Replace the current key by the new one, forget the secondary GUIDs and the upload key (which copies of the
    /// installation share), and restart the client from its store. Nothing answers it.
    Adopt,
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
        /// Whether to replace the grant by one for a new download without peers.
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
        /// Whether the copy is an old one that peers have blamed, and the edge is to pose a challenge in any case.
        recheck: bool,
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
