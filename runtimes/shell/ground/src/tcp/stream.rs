//! The two halves of a stream over TCP, with the interface of QUIC's.

use super::{Connection, Wait};
use bytes::Bytes;
use futures_lite::future::poll_fn;
use std::fmt;
use std::task::Poll;
use swarmedge_core::mux::{Read, Stopped, StreamId};

/// The sending half of a stream. Dropping it finishes the stream.
pub struct SendStream {
    connection: Connection,
    id: StreamId,
}

/// The receiving half of a stream. Dropping it before the stream's end asks the peer to stop sending.
pub struct RecvStream {
    connection: Connection,
    id: StreamId,
    /// Bytes taken from the connection that the user has not read yet.
    rest: Bytes,
    ended: Option<Result<(), ReadError>>,
}

/// The reason why a stream cannot be read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The peer has aborted the stream with this code.
    Reset(u8),
    /// The connection has ended, and the stream with it.
    Broken,
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendStream({})", self.id)
    }
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvStream({})", self.id)
    }
}

impl SendStream {
    pub(super) const fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// Passes all of `bytes` to the connection; waits while its send window is full.
    pub async fn write_chunk(&mut self, mut bytes: Bytes) -> Result<(), Stopped> {
        poll_fn(|cx| {
            let written = self.connection.with(|mux| mux.write(self.id, &mut bytes));
            self.connection.wake(Wait::Frame);
            match written {
                Err(e) => Poll::Ready(Err(e)),
                Ok(()) if bytes.is_empty() => Poll::Ready(Ok(())),
                Ok(()) => self.connection.park(Wait::Write(self.id), cx),
            }
        })
        .await
    }

    /// Ends the stream after the bytes written so far.
    pub fn finish(&mut self) -> Result<(), Stopped> {
        let finished = self.connection.with(|mux| mux.finish(self.id));
        self.connection.wake(Wait::Frame);
        finished
    }

    /// Aborts the stream; bytes that are still queued are not sent.
    pub fn reset(&mut self, code: u8) {
        self.connection.with(|mux| mux.reset(self.id, code));
        self.connection.wake(Wait::Frame);
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // one that is finished or reset stays so
        let _ = self.finish();
    }
}

impl RecvStream {
    pub(super) const fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id, rest: Bytes::new(), ended: None }
    }

    /// Waits for the next bytes, at most `max`; `None` at the end of the stream.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| {
            if !self.rest.is_empty() {
                return Poll::Ready(Ok(Some(self.rest.split_to(max.min(self.rest.len())))));
            }
            if let Some(ended) = self.ended {
                return Poll::Ready(ended.map(|()| None));
            }
            let ended = match self.connection.with(|mux| mux.read(self.id)) {
                Read::Bytes(bytes) => {
                    // the other side may have to be told that there is room
                    self.connection.wake(Wait::Frame);
                    self.rest = bytes;
                    return Poll::Ready(Ok(Some(self.rest.split_to(max.min(self.rest.len())))));
                }
                Read::Nothing => return self.connection.park(Wait::Read(self.id), cx),
                Read::End => Ok(()),
                Read::Reset(code) => Err(ReadError::Reset(code)),
                Read::Gone => Err(ReadError::Broken),
            };
            self.ended = Some(ended);
            self.connection.wake(Wait::Open);
            Poll::Ready(ended.map(|()| None))
        })
        .await
    }

    /// Asks the peer to stop sending on this stream.
    pub fn stop(&mut self, code: u8) {
        self.connection.with(|mux| mux.stop(self.id, code));
        self.connection.wake(Wait::Frame);
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.ended.is_none() {
            self.stop(0);
            self.connection.wake(Wait::Open);
        }
    }
}
