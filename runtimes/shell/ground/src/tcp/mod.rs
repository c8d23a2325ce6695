//! Peer connections over TLS on TCP, for those that UDP does not reach: what `quic` is over UDP. The core's
//! [`Mux`] makes streams of the connection; here its bytes go to the socket and back, and who waits for it is woken.

mod stream;
#[cfg(test)]
mod tests;

pub use stream::{ReadError, RecvStream, SendStream};

use crate::http::Signal;
use crate::rt::{AsyncRead, AsyncWrite, Rt};
use futures_lite::future::{or, poll_fn};
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::pki_types::{CertificateDer, ServerName};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use swarmedge_core::mux::{Mux, Side, StreamId};

/// Frames are gathered up to this many bytes for one write; so many are read at a time.
const BATCH_LEN: usize = 64 * 1024;
/// A connection on which nothing is heard for this long is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Keeps the way through NATs open, and shows that somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Time-out for the last frame of a closing connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// The server name of the handshake. Peers are told apart by their keys; the name says nothing (RFC 2606).
const SERVER_NAME: &str = "peer.invalid";
/// The code of a connection that was closed because its peer broke the rules: none that peers know.
const VIOLATION: u8 = u8::MAX;

/// The event for which a task waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Read(StreamId),
    Write(StreamId),
    Open,
    Accept,
    /// Something to write to the socket.
    Frame,
}

/// A connection. Clones are the same one; it ends when it is closed, whatever is dropped.
#[derive(Clone)]
pub struct Connection(Rc<Inner>);

struct Inner {
    mux: RefCell<Mux>,
    waiting: RefCell<BTreeMap<Wait, Vec<Waker>>>,
    remote: SocketAddr,
    /// Times that something was heard.
    heard: Cell<u64>,
    /// The connection is closed.
    ended: Signal,
    /// The socket is done with.
    over: Signal,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.remote)
    }
}

/// Shakes hands over `tcp` with the peer whose key `config` expects.
pub async fn connect<R: Rt>(
    rt: &R,
    config: Arc<rustls::ClientConfig>,
    tcp: impl AsyncRead + AsyncWrite + Unpin + 'static,
    remote: SocketAddr,
) -> io::Result<Connection> {
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    Ok(Connection::start(rt, Side::Dials, tls, remote))
}

/// Shakes hands with who has dialled; its certificates, if it has shown any.
pub async fn accept<R: Rt>(
    rt: &R,
    config: Arc<rustls::ServerConfig>,
    tcp: impl AsyncRead + AsyncWrite + Unpin + 'static,
    remote: SocketAddr,
) -> io::Result<(Connection, Vec<CertificateDer<'static>>)> {
    let tls = TlsAcceptor::from(config).accept(tcp).await?;
    let certs =
        tls.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    Ok((Connection::start(rt, Side::Accepts, tls, remote), certs))
}

impl Connection {
    fn start<R: Rt>(
        rt: &R,
        side: Side,
        tls: impl AsyncRead + AsyncWrite + Unpin + 'static,
        remote: SocketAddr,
    ) -> Self {
        let connection = Self(Rc::new(Inner {
            mux: RefCell::new(Mux::new(side)),
            waiting: RefCell::default(),
            remote,
            heard: Cell::new(0),
            ended: Signal::default(),
            over: Signal::default(),
        }));
        rt.spawn(connection.clone().run(rt.clone(), tls));
        connection
    }

    /// Returns the address of the other side.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.0.remote
    }

    /// How often something was heard of the other side.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.heard.get()
    }

    /// Has the other side say that it is there.
    pub fn ping(&self) {
        self.with(|mux| mux.ping());
        self.wake(Wait::Frame);
    }

    /// Opens a stream as soon as one more may be open; `None` once closed.
    pub async fn open_bi(&self) -> Option<(SendStream, RecvStream)> {
        self.stream(Wait::Open, Mux::open).await
    }

    /// The next stream that the other side opens; `None` once closed.
    pub async fn accept_bi(&self) -> Option<(SendStream, RecvStream)> {
        self.stream(Wait::Accept, Mux::accept).await
    }

    async fn stream(&self, wait: Wait, next: fn(&mut Mux) -> Option<StreamId>) -> Option<(SendStream, RecvStream)> {
        let id = poll_fn(|cx| match self.with(next) {
            Some(id) => Poll::Ready(Some(id)),
            None if self.is_closed() => Poll::Ready(None),
            None => self.park(wait, cx),
        });
        let id = id.await?;
        self.wake(Wait::Frame);
        Some((SendStream::new(self.clone(), id), RecvStream::new(self.clone(), id)))
    }

    /// Ends the connection and tells the other side why.
    pub fn close(&self, code: u8) {
        self.with(|mux| mux.close(code));
        self.changed();
    }

    /// Completes once the connection is closed, by whomever.
    pub async fn closed(&self) {
        self.0.ended.wait().await;
    }

    /// Returns the code with which the connection was closed, if closed.
    #[must_use]
    pub fn close_code(&self) -> Option<u8> {
        self.0.mux.borrow().closed()
    }

    fn is_closed(&self) -> bool {
        self.close_code().is_some()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Mux) -> T) -> T {
        f(&mut self.0.mux.borrow_mut())
    }

    fn park<T>(&self, wait: Wait, cx: &Context<'_>) -> Poll<T> {
        let mut waiting = self.0.waiting.borrow_mut();
        let wakers = waiting.entry(wait).or_default();
        if !wakers.iter().any(|w| w.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self, wait: Wait) {
        let wakers = self.0.waiting.borrow_mut().remove(&wait);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Something has happened to the streams: whom it concerns is woken.
    fn changed(&self) {
        let touched = self.with(Mux::touched);
        for id in touched {
            self.wake(Wait::Read(id));
            self.wake(Wait::Write(id));
        }
        [Wait::Open, Wait::Accept, Wait::Frame].into_iter().for_each(|wait| self.wake(wait));
        if self.is_closed() {
            let all = std::mem::take(&mut *self.0.waiting.borrow_mut());
            all.into_values().flatten().for_each(Waker::wake);
            self.0.ended.set();
        }
    }

    /// Carries bytes to and fro until the connection is over.
    async fn run<R: Rt>(self, rt: R, tls: impl AsyncRead + AsyncWrite + Unpin) {
        let (reader, writer) = split(tls);
        let why = or(or(self.read(reader), self.write(&rt, writer)), self.watch(&rt)).await;
        tracing::debug!(remote = %self.0.remote, code = ?self.close_code(), "a TCP connection is over: {why}");
        self.with(|mux| mux.close(0));
        self.changed();
        self.0.over.set();
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> String {
        let mut buffer = vec![0; BATCH_LEN];
        loop {
            let n = match reader.read(&mut buffer).await {
                Ok(0) => break "the other side has gone".into(),
                Ok(n) => n,
                Err(e) => break e.to_string(),
            };
            self.0.heard.set(self.0.heard.get() + 1);
            let received = self.with(|mux| mux.received(&buffer[..n]));
            if let Err(why) = received {
                tracing::debug!(remote = %self.0.remote, ?why, "a peer breaks the rules of streams");
                self.with(|mux| mux.close(VIOLATION));
            }
            self.changed();
            if self.is_closed() {
                // what is still to be said leaves by the writer
                std::future::pending::<()>().await;
            }
        }
    }

    async fn write<R: Rt>(&self, rt: &R, mut writer: impl AsyncWrite + Unpin) -> String {
        let all = async {
            while let Some(batch) = self.batch().await {
                writer.write_all(&batch).await?;
                writer.flush().await?;
            }
            writer.close().await
        };
        let late = async {
            self.closed().await;
            rt.sleep_until(rt.now() + CLOSE_WITHIN).await;
            Ok(())
        };
        or(all, late).await.map_or_else(|e| e.to_string(), |()| "closed".into())
    }

    /// The next bytes to write; none at the end.
    async fn batch(&self) -> Option<Vec<u8>> {
        let batch = poll_fn(|cx| {
            let mut batch = Vec::new();
            while batch.len() < BATCH_LEN {
                match self.with(Mux::next_frame) {
                    Some(frame) if batch.is_empty() => batch = frame,
                    Some(frame) => batch.extend_from_slice(&frame),
                    None => break,
                }
            }
            match batch.is_empty() {
                true if self.is_closed() => Poll::Ready(None),
                true => self.park(Wait::Frame, cx),
                false => Poll::Ready(Some(batch)),
            }
        })
        .await?;
        // there is room for more
        let touched = self.with(Mux::touched);
        touched.into_iter().for_each(|id| self.wake(Wait::Write(id)));
        self.wake(Wait::Open);
        Some(batch)
    }

    /// Asks after the other side while it is silent; ends when it stays so.
    async fn watch<R: Rt>(&self, rt: &R) -> String {
        let mut heard = (self.heard(), rt.now());
        loop {
            rt.sleep_until(rt.now() + KEEP_ALIVE / 2).await;
            let now = rt.now();
            if self.heard() != heard.0 {
                heard = (self.heard(), now);
            }
            let quiet = now.saturating_duration_since(heard.1);
            if quiet >= IDLE_TIMEOUT {
                return "nothing is heard of the other side".into();
            }
            if quiet >= KEEP_ALIVE / 2 {
                self.ping();
            }
        }
    }

    /// Completes once the socket is done with too: the other side was told, as far as it could be.
    pub async fn over(&self) {
        self.0.over.wait().await;
    }
}
