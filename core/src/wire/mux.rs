//! Frames of a connection between two peers over TLS and TCP, used where UDP does not pass. They provide streams like
//! those of QUIC, with the same messages ([`super::peer`]). The side that dials opens streams, numbered from 0; each
//! stream has two directions that end separately, as QUIC's do.

use super::Blob;
use crate::limits;

/// Application protocol of the TLS handshake.
pub const ALPN: &[u8] = b"swarmedge-mux/1";

crate::wire! {
    /// Frames of a connection between two peers over TLS and TCP, sent by either peer.
    pub enum MuxMsg {
        /// Beginning of a stream, sent by the side that dialled, with its number, which is one above the previous
        /// stream's.
        Open(u32) = 1,
        /// Next bytes of a stream.
        Data(StreamData) = 2,
        /// End of a stream's direction: the sender has sent all of it.
        Finish(u32) = 3,
        /// Abrupt end of a stream's direction: the sender sends no more, and the receiver discards bytes that it has
        /// not read.
        Reset(StreamEnd) = 4,
        /// Request to send no more of a stream; the other side answers with `Reset` at its next frame.
        Stop(StreamEnd) = 5,
        /// Number of bytes that the sender of this frame has read or discarded; the other side may send as many more.
        Taken(u32) = 6,
        /// Request of either peer to show that the connection is alive, answered by `Pong`.
        Ping = 7,
        /// Answer of either side to `Ping`.
        Pong = 8,
        /// Last frame of the connection, with the code of the reason for closing it.
        Close(u8) = 9,
    }
}

crate::wire! {
    /// The next bytes of one stream.
    pub struct StreamData {
        /// Number of the stream.
        pub stream: u32,
        /// Bytes of the stream, at least one.
        pub bytes: Blob<{ limits::MUX_DATA_MAX }>,
    }

    /// Abrupt end of one direction of a stream.
    pub struct StreamEnd {
        /// Number of the stream that ends.
        pub stream: u32,
        /// Code of the reason, such as a [`RefuseCode`](super::peer::RefuseCode).
        pub code: u8,
    }
}
