//! Inputs, outputs and configuration of the uploading side.

use crate::accounting::Trust;
use crate::accounting::conduct::End;
use crate::accounting::receipts::CreditRule;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, DownloadId, IntroId, PieceIndex, PublicKey, VersionId, XferId};
use crate::session::Wall;
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::{PeerMsg, PieceRequest, RefuseCode};
use crate::wire::records::{ReceiptProof, SignedIntroduction};
use alloc::boxed::Box;
use core::ops::Range;
use core::time::Duration;

/// An event for the uploading side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The user turned uploads on (`true`) or off.
    Allow(bool),
    /// A server's answer contained the Unix time. Until one is known no introduction can be checked, so none is
    /// accepted.
    Wall(Wall),
    /// The client shares this version from now on, as far as its pieces are on disk.
    Share {
        /// The version to share.
        version: VersionId,
        /// Piece and block layout of the version.
        layout: Layout,
        /// Pieces that are on this client's disk durably.
        have: Bitfield,
        /// The provider's policy for the object.
        policy: Policy,
        /// Bytes of the version sent before, also by earlier starts of the client.
        spent: u64,
    },
    /// A piece of a shared version has become durable.
    Have {
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the new piece.
        piece: PieceIndex,
    },
    /// The client no longer shares this version.
    Unshare {
        /// The version to stop sharing.
        version: VersionId,
    },
    /// A peer has connected and proven its key in the TLS handshake.
    Accepted {
        /// Number of the new connection.
        conn: ConnId,
        /// The peer's proven public key.
        key: PublicKey,
    },
    /// A connection has ended.
    Closed {
        /// Connection that has ended.
        conn: ConnId,
    },
    /// A message arrived on a connection's control stream.
    Message {
        /// Connection on which the message arrived.
        conn: ConnId,
        /// The decoded message.
        msg: PeerMsg,
    },
    /// A downloader requests blocks.
    Request {
        /// Connection of the downloader.
        conn: ConnId,
        /// Number of the request, chosen by the shell.
        xfer: XferId,
        /// The requested piece and blocks.
        request: PieceRequest,
    },
    /// A receipt ([`Output::Receipted`]) is durable, so more bytes may be sent without receipt.
    ReceiptKept {
        /// Introduction that the receipt is for.
        intro: IntroId,
        /// Total bytes that the receipt covers.
        bytes: u64,
    },
    /// Serving a request ([`Output::Serve`]) has ended.
    Served {
        /// Number of the request, as in [`Input::Request`].
        xfer: XferId,
        /// Number of bytes of blocks that were sent.
        bytes: u64,
    },
}

/// A command of the uploading side to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message on a connection's control stream.
    Send {
        /// The connection to send on.
        conn: ConnId,
        /// The message to send.
        msg: PeerMsg,
    },
    /// Close a connection. No [`Input::Closed`] follows, but each [`Output::Serve`] is still answered by
    /// [`Input::Served`].
    Close {
        /// The connection to close.
        conn: ConnId,
        /// Reason for closing the connection.
        why: CloseReason,
    },
    /// Send blocks to the downloader; answered by exactly one [`Input::Served`].
    Serve {
        /// Number of the request, as in [`Input::Request`].
        xfer: XferId,
        /// Version that the piece belongs to.
        version: VersionId,
        /// Index of the piece.
        piece: PieceIndex,
        /// Range of blocks within the piece.
        blocks: Range<u32>,
        /// Whether the piece's leaf hashes are sent first.
        leaves: bool,
        /// Limit in bytes a second, over all transfers of the version; 0: no limit.
        rate_max: u64,
    },
    /// Refuse a request, or stop serving it.
    Refuse {
        /// Number of the request, as in [`Input::Request`].
        xfer: XferId,
        /// Refusal code for the downloader.
        why: RefuseCode,
    },
    /// The downloader has sent a valid receipt: make it durable, then answer with [`Input::ReceiptKept`].
    Receipted {
        /// The download that the receipt is for.
        download: DownloadId,
        /// Version that is downloaded.
        version: VersionId,
        /// The introduction between the two clients.
        intro: IntroId,
        /// Public key that the downloader made for this download.
        key: PublicKey,
        /// The receipt's number, bytes and signature.
        proof: ReceiptProof,
    },
    /// Add sent bytes to the usage record of this introduction.
    Sent {
        /// The download that received the bytes.
        download: DownloadId,
        /// Version that is downloaded.
        version: VersionId,
        /// The introduction between the two clients.
        intro: IntroId,
        /// Public key that the downloader made for this download.
        key: PublicKey,
        /// Bytes sent since the last report.
        bytes: u64,
        /// Whether the connection has ended, so that no more bytes follow.
        last: bool,
    },
    /// Remember how many bytes of a version were sent or promised, since its policy limits them.
    Spent {
        /// The version that is served.
        version: VersionId,
        /// Bytes sent or promised, also by earlier starts of the client.
        bytes: u64,
    },
    /// Offer a version to no further downloader: the policy's limit is reached.
    UsedUp {
        /// The version that was served.
        version: VersionId,
    },
    /// Report to the CN for how many bytes sent over an introduction no receipt was given. Sent again, with 0, if a
    /// receipt covers them later.
    Ended {
        /// The introduction, with the CN's signature.
        intro: Box<SignedIntroduction>,
        /// Bytes with and without receipt at the end.
        end: End,
    },
}

/// Identity and limits of the uploading side.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Public keys and signature checks that decide which CNs are trusted.
    pub trust: Trust,
    /// Public upload key of this client: introductions that name another uploader's key are refused.
    pub upload_key: PublicKey,
    /// Maximum of simultaneous connections, including those whose downloader has not shown an introduction yet.
    pub connections_max: usize,
    /// Maximum of simultaneous requests on one connection.
    pub requests_max: u16,
    /// Time-out for a new connection to show its introduction.
    pub hello_within: Duration,
    /// The user's upload limit for one version in bytes a second; 0: only the limit of the provider's policy.
    pub rate_max: u64,
    /// Rule for the number of bytes that are sent before the downloader must give a receipt.
    pub credit: CreditRule,
    /// Time-out for the next receipt while requests wait for it, counted from the last receipt.
    pub receipt_within: Duration,
}

impl Config {
    /// Returns production limits for this identity.
    #[must_use]
    pub const fn new(trust: Trust, upload_key: PublicKey) -> Self {
        Self {
            trust,
            upload_key,
            connections_max: crate::limits::PEER_CONNECTIONS_MAX,
            requests_max: 64,
            hello_within: Duration::from_secs(5),
            rate_max: 0,
            credit: CreditRule::PROTOCOL,
            receipt_within: Duration::from_secs(3 * crate::limits::RECEIPT_EVERY_S),
        }
    }

    /// Returns limits for the model checker: two connections with two requests each.
    #[must_use]
    pub const fn tiny(trust: Trust, upload_key: PublicKey) -> Self {
        Self { connections_max: 2, requests_max: 2, ..Self::new(trust, upload_key) }
    }
}
