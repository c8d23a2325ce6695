//! Messages between two peers over QUIC, one connection for each introduction. The downloader opens one bidirectional
//! control stream (first byte [`CONTROL_STREAM`], then frames of [`PeerMsg`]), and one bidirectional stream for each
//! request (first byte [`REQUEST_STREAM`], one frame of [`PieceRequest`], FIN). The answer is one frame of
//! [`PieceAnswer`], then exactly the bytes of the requested blocks, FIN. The downloader cancels a request by
//! STOP_SENDING; the uploader refuses it by RESET_STREAM with a [`RefuseCode`].

use super::records::{SignedIntroduction, SignedReceipt};
use super::{Blob, List};
use crate::ids::{Digest, PieceIndex};
use crate::limits;

/// First byte of a control stream.
pub const CONTROL_STREAM: u8 = 1;
/// First byte of a request stream.
pub const REQUEST_STREAM: u8 = 2;
/// Application protocol of the QUIC handshake.
pub const ALPN: &[u8] = b"swarmedge/1";

crate::wire! {
    /// Messages between two peers on the control stream of their connection.
    pub enum PeerMsg {
        /// Downloader's first message, with its introduction.
        Hello(PeerHello) = 1,
        /// Uploader's answer to `Hello`: it serves the introduction.
        Welcome(PeerWelcome) = 2,
        /// Page of the uploader's have-map, which has a bit for each piece, set if the uploader has it. The pages
        /// follow `Welcome`, in order from piece 0.
        HaveMap(HaveMap) = 3,
        /// Uploader's notice of pieces that it has obtained since its have-map.
        Have(Have) = 4,
        /// Notice of either side that it is about to close the connection.
        GoingAway = 5,
        /// Downloader's receipt for all blocks that it has verified from this uploader so far.
        Receipt(SignedReceipt) = 6,
    }
}

crate::wire! {
    /// Downloader's proof that it may be served.
    pub struct PeerHello {
        /// Highest protocol version the downloader speaks: [`super::PROTOCOL`].
        pub protocol: u16,
        /// Introduction that permits the connection.
        pub intro: SignedIntroduction,
    }

    /// Uploader's consent to serve the introduction.
    pub struct PeerWelcome {
        /// Highest protocol version that both sides speak.
        pub protocol: u16,
        /// Maximum number of requests that the downloader may have open at a time.
        pub requests_max: u16,
    }

    /// Page of the uploader's pieces: bit `i` (the most significant bit of a byte first) stands for piece `first + i`.
    /// Spare bits are 0.
    pub struct HaveMap {
        /// First piece of the page, a multiple of 8.
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

    /// Request for blocks of one piece.
    pub struct PieceRequest {
        /// Index of the requested piece.
        pub piece: PieceIndex,
        /// First requested block within the piece.
        pub first_block: u16,
        /// Number of requested blocks, at least 1.
        pub blocks: u16,
        /// Whether the answer shall contain the piece's leaf hashes.
        pub want_leaves: bool,
    }

    /// Head of an answer, sent before the blocks.
    pub struct PieceAnswer {
        /// Leaf hashes of the whole piece if they were requested, otherwise none.
        pub leaves: List<Digest, { limits::BLOCKS_PER_PIECE_MAX as usize }>,
    }
}

/// Reason for refusing a request, the error code of RESET_STREAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RefuseCode {
    /// Uploader does not have the piece.
    NotHere = 1,
    /// The downloader has more open requests than allowed.
    TooMany = 2,
    /// Uploads are off, or the introduction's time or bytes are used up.
    NotAllowed = 3,
    /// Uploader could not read the piece.
    Failed = 4,
}

impl RefuseCode {
    /// Returns the reason for the error code of a RESET_STREAM; an unknown code counts as `Failed`.
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
