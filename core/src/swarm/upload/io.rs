//! What the uploading side is told and what it asks for.

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

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The user allows or forbids uploads.
    Allow(bool),
    /// Unix time, as a server told it. Without it no introduction can be checked, so none is accepted.
    Wall(Wall),
    /// This version is shared, as far as it is there.
    Share {
        /// Which.
        version: VersionId,
        /// How it is cut.
        layout: Layout,
        /// What of it is durable.
        have: Bitfield,
        /// What its provider allows.
        policy: Policy,
    },
    /// A piece of a shared version has become durable.
    Have {
        /// Of this version.
        version: VersionId,
        /// Which.
        piece: PieceIndex,
    },
    /// This version is shared no more.
    Unshare {
        /// Which.
        version: VersionId,
    },
    /// A peer has connected and proven its key.
    Accepted {
        /// Its connection.
        conn: ConnId,
        /// The key.
        key: PublicKey,
    },
    /// The connection has ended.
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// A message on its control stream.
    Message {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: PeerMsg,
    },
    /// It asks for blocks.
    Request {
        /// On this connection.
        conn: ConnId,
        /// The request's number.
        xfer: XferId,
        /// What it asks for.
        request: PieceRequest,
    },
    /// A receipt ([`Output::Receipted`]) is durable: credit may grow.
    ReceiptKept {
        /// Of this introduction.
        intro: IntroId,
        /// Its bytes.
        bytes: u64,
    },
    /// A [`Output::Serve`] is over.
    Served {
        /// Which.
        xfer: XferId,
        /// Bytes of blocks sent.
        bytes: u64,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send on a control stream.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: PeerMsg,
    },
    /// Close a connection; no `Closed` follows, but every `Served` still does.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        why: CloseReason,
    },
    /// Send blocks; answered by one `Served`.
    Serve {
        /// The request's number.
        xfer: XferId,
        /// Of this version.
        version: VersionId,
        /// Which piece.
        piece: PieceIndex,
        /// Which of its blocks.
        blocks: Range<u32>,
        /// The leaf hashes first.
        leaves: bool,
        /// No faster than this over all transfers of the version, bytes a second; 0: no limit.
        rate_max: u64,
    },
    /// Refuse a request, or stop serving it.
    Refuse {
        /// The request's number.
        xfer: XferId,
        /// Why.
        why: RefuseCode,
    },
    /// The downloader has receipted what it got: to be made durable, then [`Input::ReceiptKept`].
    Receipted {
        /// The download.
        download: DownloadId,
        /// Its version.
        version: VersionId,
        /// The introduction.
        intro: IntroId,
        /// K_d.
        key: PublicKey,
        /// The receipt.
        proof: ReceiptProof,
    },
    /// Bytes were sent over an introduction: for the books.
    Sent {
        /// The download they were for.
        download: DownloadId,
        /// Its version.
        version: VersionId,
        /// The introduction.
        intro: IntroId,
        /// K_d.
        key: PublicKey,
        /// How many.
        bytes: u64,
        /// Nothing more will come over this introduction's connection.
        last: bool,
    },
    /// An introduction has ended with bytes that no receipt covers, or after all without: for the CN.
    Ended {
        /// Which.
        intro: Box<SignedIntroduction>,
        /// How.
        end: End,
    },
}

/// Identity and limits of the uploading side.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whom to believe.
    pub trust: Trust,
    /// K_u: introductions for another uploader's key are refused.
    pub upload_key: PublicKey,
    /// Connections at a time, those that have not shown an introduction included.
    pub connections_max: usize,
    /// Requests of one connection at a time.
    pub requests_max: u16,
    /// A new connection shows its introduction within this.
    pub hello_within: Duration,
    /// The most bytes a second for one version; 0: no limit beside the policy's.
    pub rate_max: u64,
    /// What is sent without receipt.
    pub credit: CreditRule,
    /// Requests that wait for a receipt wait for so long after the last one.
    pub receipt_within: Duration,
}

impl Config {
    /// Production limits for this identity.
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

    /// For models: two connections of two requests.
    #[must_use]
    pub const fn tiny(trust: Trust, upload_key: PublicKey) -> Self {
        Self { connections_max: 2, requests_max: 2, ..Self::new(trust, upload_key) }
    }
}
