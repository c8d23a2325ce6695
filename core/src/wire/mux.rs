//! Peer ↔ peer where UDP does not pass: what one connection over TLS and TCP carries in place of QUIC's streams. The
//! side that dials opens streams, numbered from 0; each has two directions that end separately, as QUIC's do. What is
//! said on the streams is the same ([`super::peer`]).

use super::Blob;
use crate::limits;

/// The application protocol of the TLS handshake.
pub const ALPN: &[u8] = b"swarmedge-mux/1";

crate::wire! {
    /// A frame of a connection.
    pub enum MuxMsg {
        /// The side that dialled: a stream begins; its number is one above the last one's.
        Open(u32) = 1,
        /// The next bytes of a stream.
        Data(StreamData) = 2,
        /// The sender has sent all of a stream.
        Finish(u32) = 3,
        /// The sender sends no more of a stream; what has not been read of it is void.
        Reset(StreamEnd) = 4,
        /// The sender wants no more of a stream: the other side answers with `Reset`, at its next frame.
        Stop(StreamEnd) = 5,
        /// So many more bytes of data may come: those of earlier frames have been read, or are not wanted any more.
        Taken(u32) = 6,
        /// Is somebody there? Answered by `Pong`.
        Ping = 7,
        /// Answer of either side to `Ping`.
        Pong = 8,
        /// Nothing follows; the code says why.
        Close(u8) = 9,
    }
}

crate::wire! {
    /// Bytes of one stream, at their place in the stream's order.
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
        /// Why, as the streams' users have it.
        pub code: u8,
    }
}
