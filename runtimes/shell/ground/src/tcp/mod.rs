//! Peer connections over TLS on TCP, for peers that UDP does not reach; the counterpart of `quic`. The core's [`Mux`]
//! divides a connection into streams; this module moves its bytes to and from the socket and wakes waiting tasks.

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

/// Length in bytes up to which frames are gathered for one write; also the length of a read.
const BATCH_LEN: usize = 64 * 1024;
/// Time without received bytes after which a connection is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of pings to a silent peer, which keep NAT mappings open and show whether the peer still answers.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Time-out for sending the last frames of a closed connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Server name in TLS handshakes with peers. It has no meaning, since peers are identified by their keys (RFC 2606).
const SERVER_NAME: &str = "peer.invalid";
/// Close code for a peer that violates the protocol of streams; no peer gives it a meaning.
const VIOLATION: u8 = u8::MAX;

/// The event for which a task waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wait {
    Read(StreamId),
    Write(StreamId),
    Open,
    Accept,
    /// A frame to write to the socket.
    Frame,
}

/// A peer connection over TCP. Clones share it; it ends only when it is closed, not when clones are dropped.
#[derive(Clone)]
pub struct Connection(Rc<Inner>);

struct Inner {
    mux: RefCell<Mux>,
    waiting: RefCell<BTreeMap<Wait, Vec<Waker>>>,
    remote: SocketAddr,
    /// Number of reads that received bytes.
    heard: Cell<u64>,
    /// Set when the connection is closed.
    ended: Signal,
    /// Set when the socket is not used any more.
    over: Signal,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.remote)
    }
}

/// Performs the TLS handshake over `tcp` as client; the peer must prove the key in `config`.
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

/// Performs the TLS handshake over `tcp` as server; also returns the raw key or certificates that the peer has shown.
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

    /// Returns the number of reads that have received bytes from the peer.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.heard.get()
    }

    /// Sends a ping, which the peer must answer.
    pub fn ping(&self) {
        self.with(|mux| mux.ping());
        self.wake(Wait::Frame);
    }

    /// Opens a stream, once the peer permits one more; `None` if the connection is closed.
    pub async fn open_bi(&self) -> Option<(SendStream, RecvStream)> {
        self.stream(Wait::Open, Mux::open).await
    }

    /// Waits for the next stream that the peer opens; `None` once the connection is closed.
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

    /// Closes the connection and sends the peer the reason `code`.
    pub fn close(&self, code: u8) {
        self.with(|mux| mux.close(code));
        self.changed();
    }

    /// Completes once either side has closed the connection.
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

    /// Wakes the tasks that a change of the streams concerns.
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

    /// Moves bytes between socket and streams until the connection has ended.
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

    /// Waits for the next bytes to write; `None` once the connection is closed and all is written.
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

    /// Pings a silent peer; completes if it stays silent for [`IDLE_TIMEOUT`], and returns the reason as a sentence.
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

    /// Completes once the socket is closed, after the close code was sent or could not be.
    pub async fn over(&self) {
        self.0.over.wait().await;
    }
}
