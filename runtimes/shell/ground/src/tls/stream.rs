//! The client's end of a TLS connection, on rustls' unbuffered interface. The buffered one reads 4 KiB at a time from
//! the socket and copies received bytes about twice more. Here the socket fills one large buffer, records are
//! decrypted in place, and their plaintext is copied only to the reader's buffer.

use futures_lite::io::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Length of the receive buffer in bytes. A record (RFC 8446 §5.2: a little over 16 KiB) and a handshake message (in
/// rustls up to 64 KiB) must fit; a buffer larger than the processor's inner caches is slower.
const INCOMING_LEN: usize = 256 << 10;
/// Maximum number of plaintext bytes in one record (RFC 8446 §5.1).
const RECORD_LEN: usize = 16 << 10;

/// A TLS connection after its handshake. It holds at most [`INCOMING_LEN`] received bytes, as many bytes of plaintext
/// that were not read yet, and the records of one write.
pub struct TlsStream<T> {
    io: T,
    session: Session,
    /// Plaintext that did not fit into the reader's buffer; the bytes before `rest_at` were read meanwhile.
    rest: Vec<u8>,
    rest_at: usize,
    /// An error that followed plaintext in the same read; the next read returns it.
    late: Option<io::Error>,
}

impl<T> fmt::Debug for TlsStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsStream")
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> TlsStream<T> {
    /// Performs the handshake with the server `name` over `io`. If TLS fails, the inner error is the reason.
    pub async fn connect(config: Arc<ClientConfig>, name: ServerName<'static>, io: T) -> io::Result<Self> {
        let session = Session::new(UnbufferedClientConnection::new(config, name).map_err(invalid)?);
        let mut stream = Self { io, session, rest: Vec::new(), rest_at: 0, late: None };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Self { session, rest, .. } = self;
            match session.advance(|early| rest.extend_from_slice(early), Write::Nothing) {
                Ok(Step::Plaintext) => {}
                Ok(Step::Handshake) => {
                    ready!(self.poll_send(cx))?;
                    ready!(self.poll_receive(cx))?;
                }
                Ok(Step::Open) => return self.poll_send(cx),
                Ok(Step::Ended) => return Poll::Ready(Err(truncated())),
                Err(e) => return Poll::Ready(Err(self.fail(cx, e))),
            }
        }
    }

    /// Passes at most `room` bytes of plaintext to `put`: all that is available, or else what the next bytes from the
    /// socket contain. Returns the number of bytes; 0 means that the server has ended the connection properly.
    fn poll_plaintext(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut put: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if let Some(e) = self.late.take() {
            return Poll::Ready(Err(e));
        }
        let old = room.min(self.rest.len() - self.rest_at);
        if old > 0 {
            put(&self.rest[self.rest_at..self.rest_at + old]);
            self.rest_at += old;
        }
        if self.rest_at == self.rest.len() {
            self.rest.clear();
            self.rest_at = 0;
        }
        let mut left = room - old;
        while left > 0 {
            let Self { session, rest, .. } = self;
            let share = |plaintext: &[u8]| {
                let (now, later) = plaintext.split_at(plaintext.len().min(left));
                put(now);
                left -= now.len();
                rest.extend_from_slice(later);
            };
            let step = session.advance(share, Write::Nothing);
            match step {
                Ok(Step::Plaintext) => {}
                Ok(Step::Ended) => break,
                Ok(Step::Open | Step::Handshake) if left < room => break,
                Ok(Step::Open | Step::Handshake) => {
                    // what the server asked for, such as new keys, leaves with what is written next at the latest
                    if let Poll::Ready(Err(e)) = self.poll_send(cx) {
                        return Poll::Ready(Err(e));
                    }
                    ready!(self.poll_receive(cx))?;
                }
                Err(e) => {
                    let e = self.fail(cx, e);
                    if left == room {
                        return Poll::Ready(Err(e));
                    }
                    self.late = Some(e);
                    break;
                }
            }
        }
        Poll::Ready(Ok(room - left))
    }

    /// Receives more bytes from the socket. Its end is an error, since the server has not sent `close_notify`.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = self.session.room()?;
        let n = ready!(Pin::new(&mut self.io).poll_read(cx, room))?;
        self.session.end += n;
        Poll::Ready(if n == 0 { Err(truncated()) } else { Ok(()) })
    }

    /// Completes when all encrypted bytes are written to the socket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Session { outgoing, sent, .. } = &mut self.session;
        while *sent < outgoing.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &outgoing[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *sent += n,
            }
        }
        outgoing.clear();
        *sent = 0;
        Poll::Ready(Ok(()))
    }

    fn encrypt(&mut self, cx: &mut Context<'_>, write: Write<'_>) -> io::Result<()> {
        let Self { session, rest, .. } = self;
        let sent = session.send(write, |early| rest.extend_from_slice(early));
        sent.map_err(|e| self.fail(cx, e))
    }

    /// Sends the server an alert about the error if that is possible without waiting; returns the error for the
    /// caller.
    fn fail(&mut self, cx: &mut Context<'_>, error: rustls::Error) -> io::Error {
        self.session.alert();
        let _ = self.poll_send(cx);
        invalid(error)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for TlsStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = cursor.remaining();
        self.poll_plaintext(cx, room, |bytes| cursor.put_slice(bytes)).map_ok(|_| ())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for TlsStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_send(cx))?;
        let part = &buf[..buf.len().min(RECORD_LEN)];
        this.encrypt(cx, Write::Plaintext(part))?;
        match this.poll_send(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.session.closed, true) {
            this.encrypt(cx, Write::CloseNotify)?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_close(cx)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server broke the TLS connection off")
}

/// The next need of a TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: plaintext was passed on, and there may be more.
    Plaintext,
    /// The next message of the handshake from the server.
    Handshake,
    /// Nothing: the connection is open for both directions.
    Open,
    /// Nothing more: the server has sent `close_notify`.
    Ended,
}

/// The data to encrypt once the connection is open.
#[derive(Clone, Copy)]
enum Write<'a> {
    Nothing,
    Plaintext(&'a [u8]),
    CloseNotify,
}

/// The state of the TLS connection, without its socket.
struct Session {
    tls: UnbufferedClientConnection,
    /// Receive buffer; the bytes from `start` to `end` are not processed yet.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// Encrypted bytes to send; those before `sent` are written to the socket.
    outgoing: Vec<u8>,
    sent: usize,
    /// Whether the server has sent `close_notify`.
    ended: bool,
    /// Whether this side has sent `close_notify`.
    closed: bool,
}

impl Session {
    fn new(tls: UnbufferedClientConnection) -> Self {
        let incoming = vec![0; INCOMING_LEN].into_boxed_slice();
        Self { tls, incoming, start: 0, end: 0, outgoing: Vec::new(), sent: 0, ended: false, closed: false }
    }

    /// Returns the free part of the receive buffer; the caller adds the number of bytes read to `end`.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.start > 0 {
            // the beginning of a record, if anything
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match &mut self.incoming[self.end..] {
            [] => Err(io::Error::new(io::ErrorKind::InvalidData, "the server's TLS messages are too long")),
            room => Ok(room),
        }
    }

    /// Processes received bytes until plaintext was passed to `put` or all are processed; in the latter case encrypts
    /// `write`. Messages that TLS itself must send are encoded on the way.
    fn advance(&mut self, mut put: impl FnMut(&[u8]), write: Write<'_>) -> Result<Step, rustls::Error> {
        loop {
            let pending = &mut self.incoming[self.start..self.end];
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(pending);
            let mut step = None;
            let mut result = Ok(());
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        put(record.payload);
                    }
                    step = Some(Step::Plaintext);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    result = append(&mut self.outgoing, |room| data.encode(room).map_err(Into::into));
                }
                // `outgoing` leaves in order, so rustls need not wait for it
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => step = Some(Step::Handshake),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    result = match write {
                        Write::Nothing => Ok(()),
                        Write::Plaintext(plaintext) => {
                            append(&mut self.outgoing, |room| traffic.encrypt(plaintext, room).map_err(Into::into))
                        }
                        Write::CloseNotify => {
                            append(&mut self.outgoing, |room| traffic.queue_close_notify(room).map_err(Into::into))
                        }
                    };
                    step = Some(if self.ended { Step::Ended } else { Step::Open });
                }
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => step = Some(Step::Ended),
                Ok(other @ (ConnectionState::ReadEarlyData(_) | _)) => {
                    result = Err(rustls::Error::General(format!("{other:?} in a TLS client")));
                }
                Err(e) => result = Err(e),
            }
            self.start += discard;
            result?;
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Encrypts `write`; plaintext found in received bytes meanwhile goes to `put`.
    fn send(&mut self, write: Write<'_>, mut put: impl FnMut(&[u8])) -> Result<(), rustls::Error> {
        loop {
            match self.advance(&mut put, write)? {
                Step::Plaintext => {}
                Step::Handshake => return Err(rustls::Error::HandshakeNotComplete),
                Step::Open | Step::Ended => return Ok(()),
            }
        }
    }

    /// Encodes the alert about an error that `tls` has just returned, if there is one.
    fn alert(&mut self) {
        let pending = &mut self.incoming[self.start..self.end];
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(pending).state {
            let _ = append(&mut self.outgoing, |room| data.encode(room).map_err(Into::into));
        }
    }
}

/// The reason why no bytes were encoded.
enum NotEncoded {
    /// The output buffer must have at least this length.
    Room(usize),
    Never(rustls::Error),
}

impl From<EncodeError> for NotEncoded {
    fn from(e: EncodeError) -> Self {
        match e {
            EncodeError::InsufficientSize(e) => Self::Room(e.required_size),
            EncodeError::AlreadyEncoded => Self::Never(rustls::Error::General(e.to_string())),
        }
    }
}

impl From<EncryptError> for NotEncoded {
    fn from(e: EncryptError) -> Self {
        match e {
            EncryptError::InsufficientSize(e) => Self::Room(e.required_size),
            EncryptError::EncryptExhausted => Self::Never(rustls::Error::EncryptError),
        }
    }
}

/// Appends the output of `write`, which is called again with a larger buffer if it says how large one must be.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, NotEncoded>,
) -> Result<(), rustls::Error> {
    let at = out.len();
    let (len, result) = loop {
        let room = out.len() - at;
        match write(&mut out[at..]) {
            Ok(n) => break (n, Ok(())),
            Err(NotEncoded::Room(n)) if n > room => out.resize(at + n, 0),
            Err(NotEncoded::Room(_)) => break (0, Err(rustls::Error::EncryptError)),
            Err(NotEncoded::Never(e)) => break (0, Err(e)),
        }
    };
    out.truncate(at + len);
    result
}

#[cfg(test)]
mod tests;
