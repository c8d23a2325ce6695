//! Peer ↔ peer, over QUIC. One connection an introduction. The downloader opens one bidirectional control stream (first
//! byte [`CONTROL_STREAM`], then frames of [`PeerMsg`]) and one bidirectional stream a piece request (first byte
//! [`REQUEST_STREAM`], one frame of [`PieceRequest`], FIN). The answer is one frame of [`PieceAnswer`], then exactly
//! the bytes of the asked blocks, FIN. Cancel is STOP_SENDING, refusal RESET_STREAM with a [`RefuseCode`].

use super::records::{SignedIntroduction, SignedReceipt};
use super::{Blob, List};
use crate::ids::{Digest, PieceIndex};
use crate::limits;

/// The first byte of a control stream.
pub const CONTROL_STREAM: u8 = 1;
/// The first byte of a request stream.
pub const REQUEST_STREAM: u8 = 2;
/// The application protocol of the QUIC handshake.
pub const ALPN: &[u8] = b"swarmedge/1";

crate::wire! {
    /// A message on the control stream.
    pub enum PeerMsg {
        /// Downloader: the first message.
        Hello(PeerHello) = 1,
        /// Uploader's answer to `Hello`: it will serve.
        Welcome(PeerWelcome) = 2,
        /// Uploader: a page of its have-map; first after `Welcome`, from `first` 0 on.
        HaveMap(HaveMap) = 3,
        /// Uploader: has these pieces too.
        Have(Have) = 4,
        /// Either: it will close the connection.
        GoingAway = 5,
        /// Downloader: what it has verified of this uploader's blocks by now.
        Receipt(SignedReceipt) = 6,
    }
}

crate::wire! {
    /// The right to be served.
    pub struct PeerHello {
        /// Highest protocol version the downloader speaks: [`super::PROTOCOL`].
        pub protocol: u16,
        /// Introduction that permits the connection.
        pub intro: SignedIntroduction,
    }

    /// Uploader's consent to serve the introduction.
    pub struct PeerWelcome {
        /// The highest protocol both speak.
        pub protocol: u16,
        /// How many requests may be open at a time.
        pub requests_max: u16,
    }

    /// Page of the pieces an uploader has: bit `i` (most significant first) is piece `first + i`. Spare bits are 0.
    pub struct HaveMap {
        /// The first piece, a multiple of 8.
        pub first: PieceIndex,
        /// Bits of the page, eight pieces a byte.
        pub bits: Blob<{ limits::HAVE_PAGE_MAX }>,
        /// Whether no more pages follow.
        pub last: bool,
    }

    /// Pieces that the uploader has verified since its have-map.
    pub struct Have {
        /// Indices of the new pieces.
        pub pieces: List<PieceIndex, 1024>,
    }

    /// Asks for blocks of one piece.
    pub struct PieceRequest {
        /// Index of the requested piece.
        pub piece: PieceIndex,
        /// The first block within it.
        pub first_block: u16,
        /// How many, at least 1.
        pub blocks: u16,
        /// Send the piece's leaf hashes first.
        pub want_leaves: bool,
    }

    /// Stands before the bytes.
    pub struct PieceAnswer {
        /// The leaf hashes of the whole piece, if asked for.
        pub leaves: List<Digest, { limits::BLOCKS_PER_PIECE_MAX as usize }>,
    }
}

/// Why a request was refused: the error code of RESET_STREAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RefuseCode {
    /// Uploader does not have the piece.
    NotHere = 1,
    /// More requests than allowed.
    TooMany = 2,
    /// Uploads are off, or the introduction's time or bytes are used up.
    NotAllowed = 3,
    /// Uploader could not read the piece.
    Failed = 4,
}

impl RefuseCode {
    /// The code for `n`; what a later version may add counts as `Failed`.
    #[must_use]
    pub const fn from_code(n: u64) -> Self {
        match n {
            1 => Self::NotHere,
            2 => Self::TooMany,
            3 => Self::NotAllowed,
            _ => Self::Failed,
        }
    }
}
