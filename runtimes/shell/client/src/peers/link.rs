//! A connection to a peer and its streams over QUIC or TCP: users of this file need not know which.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use swarmedge_ground::quic::canonical;
use swarmedge_ground::tcp;

/// A connection to a peer, over QUIC or TCP.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Quic(quinn::Connection),
    Tcp(tcp::Connection),
}

/// The sending half of a stream.
#[derive(Debug)]
pub(super) enum SendStream {
    Quic(quinn::SendStream),
    Tcp(tcp::SendStream),
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(super) enum RecvStream {
    Quic(quinn::RecvStream),
    Tcp(tcp::RecvStream),
}

/// The error that a stream cannot send any more: the peer has stopped it, or its connection has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotSent;

/// The reason why a stream cannot be read any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotRead {
    /// The peer reset the stream with this code.
    Reset(u64),
    /// The stream or its connection has ended.
    Broken,
}

impl From<quinn::ReadError> for NotRead {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(code.into_inner()),
            quinn::ReadError::ConnectionLost(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Broken,
        }
    }
}

impl From<tcp::ReadError> for NotRead {
    fn from(error: tcp::ReadError) -> Self {
        match error {
            tcp::ReadError::Reset(code) => Self::Reset(code.into()),
            tcp::ReadError::Broken => Self::Broken,
        }
    }
}

impl Link {
    /// Opens a stream; `None` once the connection has ended.
    pub(super) async fn open_bi(&self) -> Option<(SendStream, RecvStream)> {
        match self {
            Self::Quic(quic) => quic.open_bi().await.ok().map(|(s, r)| (SendStream::Quic(s), RecvStream::Quic(r))),
            Self::Tcp(tcp) => tcp.open_bi().await.map(|(s, r)| (SendStream::Tcp(s), RecvStream::Tcp(r))),
        }
    }

    /// Waits for the next stream that the peer opens; `None` once the connection has ended.
    pub(super) async fn accept_bi(&self) -> Option<(SendStream, RecvStream)> {
        match self {
            Self::Quic(quic) => quic.accept_bi().await.ok().map(|(s, r)| (SendStream::Quic(s), RecvStream::Quic(r))),
            Self::Tcp(tcp) => tcp.accept_bi().await.map(|(s, r)| (SendStream::Tcp(s), RecvStream::Tcp(r))),
        }
    }

    /// Closes the connection and sends the peer the reason `code`.
    pub(super) fn close(&self, code: u8) {
        match self {
            Self::Quic(quic) => quic.close(code.into(), b""),
            Self::Tcp(tcp) => tcp.close(code),
        }
    }

    /// Completes once the connection has ended.
    pub(super) async fn closed(&self) {
        match self {
            Self::Quic(quic) => drop(quic.closed().await),
            Self::Tcp(tcp) => tcp.closed().await,
        }
    }

    /// Returns the reason for closing, for logs.
    pub(super) fn close_reason(&self) -> String {
        match self {
            Self::Quic(quic) => quic.close_reason().map_or_else(|| "open".into(), |e| e.to_string()),
            Self::Tcp(tcp) => format!("closed with code {:?}", tcp.close_code()),
        }
    }

    /// Returns the peer's address.
    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(quic) => canonical(quic.remote_address()),
            Self::Tcp(tcp) => canonical(tcp.remote_address()),
        }
    }

    /// Sets the flow control windows of a QUIC connection, in bytes: how much the peer may make this client hold, and
    /// how much is held for the peer. Over TCP both are fixed and smaller.
    pub(super) fn set_windows(&self, window: u32) {
        if let Self::Quic(quic) = self {
            quic.set_receive_window(window.into());
            quic.set_send_window(window.into());
        }
    }

    /// Returns the numbers of packets received and sent. Over TCP the second is 0, since acknowledgements are not
    /// visible to programs.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Quic(quic) => {
                let stats = quic.stats();
                (stats.udp_rx.datagrams, stats.udp_tx.datagrams)
            }
            Self::Tcp(tcp) => (tcp.heard(), 0),
        }
    }

    /// Over TCP: sends a ping, which the peer must answer. QUIC probes a connection's path by itself.
    pub(super) fn knock(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.ping();
        }
    }

    /// Returns the connection's round-trip time; zero over TCP, where it is not measured.
    pub(super) fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(quic) => quic.rtt(),
            Self::Tcp(_) => Duration::ZERO,
        }
    }

    /// Completes once the end of a TCP connection was sent to the peer or could not be. Over QUIC the endpoint does
    /// this.
    pub(super) async fn over(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.over().await;
        }
    }
}

impl SendStream {
    /// Sends bytes on the stream.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), NotSent> {
        match self {
            Self::Quic(quic) => quic.write_all(bytes).await.map_err(|_| NotSent),
            Self::Tcp(tcp) => tcp.write_chunk(Bytes::copy_from_slice(bytes)).await.map_err(|_| NotSent),
        }
    }

    pub(super) async fn write_chunk(&mut self, bytes: Bytes) -> Result<(), NotSent> {
        match self {
            Self::Quic(quic) => quic.write_chunk(bytes).await.map_err(|_| NotSent),
            Self::Tcp(tcp) => tcp.write_chunk(bytes).await.map_err(|_| NotSent),
        }
    }

    /// Ends the stream after the bytes written so far.
    pub(super) fn finish(&mut self) -> Result<(), NotSent> {
        match self {
            Self::Quic(quic) => quic.finish().map_err(|_| NotSent),
            Self::Tcp(tcp) => tcp.finish().map_err(|_| NotSent),
        }
    }

    /// Aborts the stream with a code for the peer, unless the peer has stopped it already.
    pub(super) fn reset(&mut self, code: u8) {
        match self {
            Self::Quic(quic) => drop(quic.reset(code.into())),
            Self::Tcp(tcp) => tcp.reset(code),
        }
    }
}

impl RecvStream {
    /// Waits for bytes and fills `chunks` with those received so far; returns the number of chunks, `None` at the
    /// end.
    pub(super) async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, NotRead> {
        match self {
            Self::Quic(quic) => Ok(quic.read_chunks(chunks).await?),
            Self::Tcp(tcp) => {
                let chunk = tcp.read_chunk(usize::MAX).await?;
                Ok(chunk.zip(chunks.first_mut()).map(|(chunk, first)| {
                    *first = chunk;
                    1
                }))
            }
        }
    }

    /// Fills `bytes`; `None` if the stream ends before.
    pub(super) async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<Option<()>, NotRead> {
        match self {
            Self::Quic(quic) => match quic.read_exact(bytes).await {
                Ok(()) => Ok(Some(())),
                Err(quinn::ReadExactError::FinishedEarly(_)) => Ok(None),
                Err(quinn::ReadExactError::ReadError(e)) => Err(e.into()),
            },
            Self::Tcp(tcp) => {
                let mut at = 0;
                while at < bytes.len() {
                    let Some(chunk) = tcp.read_chunk(bytes.len() - at).await? else { return Ok(None) };
                    bytes[at..at + chunk.len()].copy_from_slice(&chunk);
                    at += chunk.len();
                }
                Ok(Some(()))
            }
        }
    }

    /// Waits for the end of the stream; returns whether it came before any further byte.
    pub(super) async fn is_at_end(&mut self) -> bool {
        match self {
            Self::Quic(quic) => matches!(quic.read_chunk(1, true).await, Ok(None)),
            Self::Tcp(tcp) => matches!(tcp.read_chunk(1).await, Ok(None)),
        }
    }

    /// Asks the peer to stop sending on this stream, with a code as the reason.
    pub(super) fn stop(&mut self, code: u8) {
        match self {
            // it may be over already, which is as good
            Self::Quic(quic) => drop(quic.stop(code.into())),
            Self::Tcp(tcp) => tcp.stop(code),
        }
    }
}
