//! Connections that peers open, and the streams on them.

use super::Peers;
use super::conn::{Conn, read_control, read_frame};
use super::link::{Link, RecvStream, SendStream};
use super::serve::Request;
use super::util::within;
use futures_lite::future;
use futures_lite::io::AsyncReadExt as _;
use rustls::pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use swarmedge_core::ids::{ConnId, PublicKey, XferId};
use swarmedge_core::limits::PEER_CONNECTIONS_MAX;
use swarmedge_core::nat::connectivity::is_check;
use swarmedge_core::role::client::io::{CloseReason, Input};
use swarmedge_core::wire::Framed;
use swarmedge_core::wire::peer::{CONTROL_STREAM, PieceRequest, REQUEST_STREAM, RefuseCode};
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::nat::{Called, read_message};
use swarmedge_ground::rt::{AsyncRead, AsyncWrite, Rt};
use swarmedge_ground::tcp;
use swarmedge_ground::tls;

/// Maximum number of simultaneous handshakes. From half of it on, a peer must first prove its address (QUIC Retry).
pub(super) const GREETINGS_MAX: usize = 64;
/// Pause after an accept failed, as when file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time-out for a handshake, and for the first message of a connection or stream.
pub(super) const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
/// Lower first bytes of a connection mean a STUN message, others TLS (RFC 7983 §7).
pub(super) const STUN_BELOW: u8 = 4;
/// Maximum length of a piece request's frame in bytes; larger than needed, for later extensions.
const REQUEST_LEN_MAX: usize = 1024;

/// Accepts QUIC connections of peers until the endpoint is closed.
pub(super) async fn run<R: Rt>(peers: Peers<R>) {
    let endpoint = peers.0.endpoint.clone();
    while let Some(incoming) = endpoint.accept().await {
        let (greeting, open) = {
            let state = peers.0.state.borrow();
            (state.greeting, state.conns.len())
        };
        // the machine says who is too many; twice as many are more than it could ever want to look at
        if greeting >= GREETINGS_MAX || open >= 2 * PEER_CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        if greeting >= GREETINGS_MAX / 2 && !incoming.remote_address_validated() {
            // it can only fail for one that is validated
            drop(incoming.retry());
            continue;
        }
        peers.0.state.borrow_mut().greeting += 1;
        let task = peers.clone();
        peers.0.rt.spawn(async move {
            let greeted = within(&task.0.rt, FIRST_TIMEOUT, greet(incoming)).await.flatten();
            task.0.state.borrow_mut().greeting -= 1;
            if let Some((quic, key)) = greeted {
                serve_connection(task, Link::Quic(quic), key).await;
            }
        });
    }
}

/// A listening TCP port for peers and STUN servers.
#[derive(Clone, Debug)]
pub struct TcpAcceptor {
    /// The port number of the listener.
    pub port: u16,
    /// Sender for STUN messages that arrive on the port.
    pub calls: Sender<Called>,
}

/// A TCP connection of which the first byte was read; reads return this byte again.
struct Again<T> {
    first: Option<u8>,
    tcp: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Again<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match (self.first, buf.first_mut()) {
            (Some(byte), Some(place)) => {
                *place = byte;
                self.first = None;
                Poll::Ready(Ok(1))
            }
            _ => Pin::new(&mut self.tcp).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Again<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_close(cx)
    }
}

/// Accepts TCP connections of peers and STUN servers until the client ends.
pub(super) async fn run_tcp<R: Rt>(peers: Peers<R>, listener: R::Listener, acceptor: TcpAcceptor) {
    let rt = peers.0.rt.clone();
    loop {
        let (tcp, from) = match rt.accept(&listener).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of peers");
                rt.sleep_until(rt.now() + ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (greeting, open) = {
            let state = peers.0.state.borrow();
            (state.greeting, state.conns.len())
        };
        // its address is shown by the handshake of TCP itself
        if greeting >= GREETINGS_MAX || open >= 2 * PEER_CONNECTIONS_MAX {
            continue;
        }
        peers.0.state.borrow_mut().greeting += 1;
        let (task, acceptor) = (peers.clone(), acceptor.clone());
        rt.spawn(async move {
            let greeted = within(&task.0.rt, FIRST_TIMEOUT, greet_tcp(&task, &acceptor, tcp, from)).await.flatten();
            task.0.state.borrow_mut().greeting -= 1;
            if let Some((link, key)) = greeted {
                serve_connection(task, link, key).await;
            }
        });
    }
}

/// Receives the first message on an accepted TCP connection, whose kind its first byte determines (RFC 7983 §7). TLS:
/// performs the handshake. A connectivity check of an uploader that dials its downloader: passes it to the machine. A
/// message of a STUN server, which proves that this port is reachable: passes it to the prober.
async fn greet_tcp<R: Rt>(
    peers: &Peers<R>,
    acceptor: &TcpAcceptor,
    mut tcp: R::Tcp,
    from: SocketAddr,
) -> Option<(Link, PublicKey)> {
    let mut first = [0];
    tcp.read_exact(&mut first).await.ok()?;
    let mut again = Again { first: Some(first[0]), tcp };
    if first[0] >= STUN_BELOW {
        return shake_hands(peers, again, from).await;
    }
    let bytes = read_message(&mut again).await.ok()?;
    if is_check(&bytes) {
        peers.shown(again.tcp, from, bytes).await;
    } else {
        // with a full mailbox it is lost; the next round asks again
        let _ = acceptor.calls.try_send(Called { from, local: acceptor.port, bytes });
    }
    None
}

/// Performs the TLS handshake with a downloader that has connected; `None` if it fails or shows no key.
pub(super) async fn shake_hands<R: Rt>(
    peers: &Peers<R>,
    tcp: impl AsyncRead + AsyncWrite + Unpin + 'static,
    from: SocketAddr,
) -> Option<(Link, PublicKey)> {
    let accepted = tcp::accept(&peers.0.rt, Arc::clone(&peers.0.tls), tcp, from).await;
    let (link, certs) = accepted.map_err(|error| tracing::debug!(%from, %error, "a handshake has failed")).ok()?;
    let Some(key) = tls::peer_key(&certs) else {
        link.close(CloseReason::NotIntroduced as u8);
        return None;
    };
    Some((Link::Tcp(link), key))
}

async fn greet(incoming: quinn::Incoming) -> Option<(quinn::Connection, PublicKey)> {
    let quic = incoming.await.map_err(|error| tracing::debug!(%error, "a handshake has failed")).ok()?;
    let certs = quic.peer_identity().and_then(|id| id.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(key) = certs.and_then(|certs| tls::peer_key(&certs)) else {
        quic.close((CloseReason::NotIntroduced as u8).into(), b"");
        return None;
    };
    Some((quic, key))
}

pub(super) async fn serve_connection<R: Rt>(peers: Peers<R>, link: Link, key: PublicKey) {
    let id = ConnId(peers.0.state.borrow_mut().number());
    let from = link.remote_address();
    let Some(conn) = peers.opened(id, link, false) else { return };
    if peers.0.inbox.send(Input::PeerAccepted { conn: id, key, from }).await.is_ok() {
        let rt = peers.0.rt.clone();
        let (watched, timer) = (Rc::downgrade(&conn), rt.sleep_until(rt.now() + FIRST_TIMEOUT));
        rt.spawn(async move {
            timer.await;
            if let Some(conn) = watched.upgrade()
                && !conn.has_control()
            {
                conn.fail(CloseReason::NotIntroduced);
            }
        });
        while let Some((send, recv)) = conn.link.accept_bi().await {
            rt.spawn(stream(peers.clone(), Rc::clone(&conn), send, recv));
        }
    }
    peers.ended(&conn).await;
}

/// Serves one stream that a peer has opened: its first byte is the stream's kind, control or request.
async fn stream<R: Rt>(peers: Peers<R>, conn: Rc<Conn>, mut send: SendStream, mut recv: RecvStream) {
    let mut kind = [0];
    let read = async { recv.read_exact(&mut kind).await.ok().flatten() };
    if within(&peers.0.rt, FIRST_TIMEOUT, read).await.flatten().is_none() {
        refuse(&mut send, &mut recv);
        return;
    }
    match kind {
        [CONTROL_STREAM] => {
            if conn.start_control(&peers.0.rt, send) {
                let closed = conn.link.closed();
                future::or(read_control(&peers, &conn, recv, Some(FIRST_TIMEOUT)), async {
                    closed.await;
                })
                .await;
            } else {
                conn.fail(CloseReason::Violation);
            }
        }
        [REQUEST_STREAM] => match within(&peers.0.rt, FIRST_TIMEOUT, read_request(&mut recv)).await.flatten() {
            Some(request) => ask(&peers, &conn, send, request).await,
            None => refuse(&mut send, &mut recv),
        },
        _ => refuse(&mut send, &mut recv),
    }
}

fn refuse(send: &mut SendStream, recv: &mut RecvStream) {
    send.reset(RefuseCode::Failed as u8);
    recv.stop(RefuseCode::Failed as u8);
}

/// Reads a piece request: one frame, after which the stream must end.
async fn read_request(recv: &mut RecvStream) -> Option<PieceRequest> {
    let content = read_frame(recv, REQUEST_LEN_MAX).await.ok()?;
    let at_end = recv.is_at_end().await;
    let request = Framed::<PieceRequest>::decode(&content).ok().flatten()?;
    at_end.then_some(request.msg)
}

/// Passes a piece request to the machine, which answers with the output `Serve` or `Refuse`.
async fn ask<R: Rt>(peers: &Peers<R>, conn: &Rc<Conn>, send: SendStream, request: PieceRequest) {
    let Ok(permit) = peers.0.inbox.room().await else { return };
    let xfer = {
        let mut state = peers.0.state.borrow_mut();
        if !state.conns.contains_key(&conn.id) {
            return;
        }
        let xfer = XferId(state.number());
        state.requests.insert(xfer, Request { conn: conn.id, slots: Rc::clone(conn), send });
        xfer
    };
    permit.send(Input::PeerRequest { conn: conn.id, xfer, request });
}
