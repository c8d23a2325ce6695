//! A connection to a peer and its streams, over QUIC or TCP: nothing above this file knows which.

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

/// The error of a stream that cannot send any more: the peer, or its connection, is of no more use.
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

    /// The next stream that the peer opens; `None` once the connection has ended.
    pub(super) async fn accept_bi(&self) -> Option<(SendStream, RecvStream)> {
        match self {
            Self::Quic(quic) => quic.accept_bi().await.ok().map(|(s, r)| (SendStream::Quic(s), RecvStream::Quic(r))),
            Self::Tcp(tcp) => tcp.accept_bi().await.map(|(s, r)| (SendStream::Tcp(s), RecvStream::Tcp(r))),
        }
    }

    /// Ends the connection and tells the peer why.
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

    pub(super) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(quic) => canonical(quic.remote_address()),
            Self::Tcp(tcp) => canonical(tcp.remote_address()),
        }
    }

    /// Bytes that the peer may make us hold, and that we hold for it. Over TCP that is fixed, and less.
    pub(super) fn set_windows(&self, window: u32) {
        if let Self::Quic(quic) = self {
            quic.set_receive_window(window.into());
            quic.set_send_window(window.into());
        }
    }

    /// How often something has come and was sent. What TCP has sent is not seen to be acknowledged, so there only
    /// what is due counts as unanswered.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Quic(quic) => {
                let stats = quic.stats();
                (stats.udp_rx.datagrams, stats.udp_tx.datagrams)
            }
            Self::Tcp(tcp) => (tcp.heard(), 0),
        }
    }

    /// Has the peer show that it is there. QUIC does so by itself when its ways are tried.
    pub(super) fn knock(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.ping();
        }
    }

    /// Returns the connection's round-trip time, as far as known.
    pub(super) fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(quic) => quic.rtt(),
            Self::Tcp(_) => Duration::ZERO,
        }
    }

    /// Completes once the peer was told of the end, as far as it could be; over QUIC the endpoint sees to that.
    pub(super) async fn over(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.over().await;
        }
    }
}

impl SendStream {
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

    /// Gives the stream up; a peer that has done so already is told nothing.
    pub(super) fn reset(&mut self, code: u8) {
        match self {
            Self::Quic(quic) => drop(quic.reset(code.into())),
            Self::Tcp(tcp) => tcp.reset(code),
        }
    }
}

impl RecvStream {
    /// The next bytes into `chunks`, as many as are at hand: how many chunks; `None` at the end.
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

    /// Fills `bytes`; an end before that is `None`.
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

    /// Whether there is nothing more.
    pub(super) async fn is_at_end(&mut self) -> bool {
        match self {
            Self::Quic(quic) => matches!(quic.read_chunk(1, true).await, Ok(None)),
            Self::Tcp(tcp) => matches!(tcp.read_chunk(1).await, Ok(None)),
        }
    }

    /// Wants no more of it.
    pub(super) fn stop(&mut self, code: u8) {
        match self {
            // it may be over already, which is as good
            Self::Quic(quic) => drop(quic.stop(code.into())),
            Self::Tcp(tcp) => tcp.stop(code),
        }
    }
}
