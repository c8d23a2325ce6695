//! Raw TCP connections: those with peers on which no key was shown yet. The machine decides which of them becomes a
//! peer connection, and whether this client is client or server in its TLS handshake.

use super::Peers;
use super::accept::{FIRST_TIMEOUT, GREETINGS_MAX, STUN_BELOW, serve_connection, shake_hands};
use super::util::{Cancel, DIAL_TIMEOUT, within};
use futures_lite::future;
use futures_lite::io::AsyncWriteExt as _;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use swarmedge_core::ids::RawTcpId;
use swarmedge_core::nat::connectivity::{RawTcp, RawTcpEvent};
use swarmedge_core::nat::stun::{HEADER_LEN, MESSAGE_LEN_MAX};
use swarmedge_core::role::client::io::Input;
use swarmedge_ground::mailbox::Permit;
use swarmedge_ground::quic::canonical;
use swarmedge_ground::rt::{AsyncRead, AsyncWrite, Rt, begin_connect};

impl<R: Rt> Peers<R> {
    /// Performs a command for a TCP connection of hole punching.
    pub(super) fn raw_tcp(&self, what: RawTcp, local: &mut VecDeque<Input>) {
        match what {
            RawTcp::Call { id, to, from } => match self.0.inbox.reserve() {
                Ok(permit) => {
                    let cancel = Cancel::default();
                    self.0.state.borrow_mut().calls.insert(id, cancel.clone());
                    self.0.rt.spawn(call(self.clone(), id, (from, to), cancel, permit));
                }
                Err(_) => local.push_back(Input::RawTcp(RawTcpEvent::Failed(id))),
            },
            RawTcp::Serve { id, first } => {
                if let Some((tcp, from)) = self.take_raw_tcp(id) {
                    self.0.rt.spawn(serve(self.clone(), tcp, from, first));
                }
            }
            RawTcp::HangUp(id) => {
                drop(self.take_raw_tcp(id));
                if let Some(cancel) = self.0.state.borrow().calls.get(&id) {
                    cancel.cancel();
                }
            }
        }
    }

    /// Takes a raw TCP connection out of the table; `None` if it is not there any more.
    pub(super) fn take_raw_tcp(&self, id: RawTcpId) -> Option<(R::Tcp, SocketAddr)> {
        self.0.raw_tcp.borrow_mut().remove(&id)
    }

    /// Keeps an accepted connection on which a peer has sent a connectivity check, and passes the check to the
    /// machine, which decides about it.
    pub(super) async fn shown(&self, tcp: R::Tcp, from: SocketAddr, bytes: Vec<u8>) {
        if self.0.raw_tcp.borrow().len() >= GREETINGS_MAX {
            return;
        }
        let id = RawTcpId(self.0.state.borrow_mut().number());
        self.0.raw_tcp.borrow_mut().insert(id, (tcp, from));
        if self.0.inbox.send(Input::RawTcp(RawTcpEvent::Shown { id, from, bytes })).await.is_err() {
            self.take_raw_tcp(id);
        }
    }
}

/// Opens a TCP connection, and tells the machine how that ended.
async fn call<R: Rt>(
    peers: Peers<R>,
    id: RawTcpId,
    (from, to): (Option<u16>, SocketAddr),
    cancel: Cancel,
    permit: Permit<Input>,
) {
    let rt = &peers.0.rt;
    let connecting = async {
        match from.map(|port| SocketAddr::new(bound(&peers, to), port)) {
            Some(from) => rt.connecting(begin_connect(from, to)?).await,
            None => rt.connect(to).await,
        }
    };
    let opened = future::or(within(rt, DIAL_TIMEOUT, connecting), async {
        cancel.cancelled().await;
        None
    });
    let opened = opened.await;
    peers.0.state.borrow_mut().calls.remove(&id);
    let event = match opened {
        Some(Ok(tcp)) => {
            peers.0.raw_tcp.borrow_mut().insert(id, (tcp, to));
            RawTcpEvent::Open(id)
        }
        refused => {
            tracing::debug!(%to, ?from, error = ?refused.and_then(Result::err), "a peer is not reached");
            RawTcpEvent::Failed(id)
        }
    };
    permit.send(Input::RawTcp(event));
}

/// Returns the local IP address for a connection to `to`: that of the UDP socket if of the same family, else
/// unspecified.
fn bound<R: Rt>(peers: &Peers<R>, to: SocketAddr) -> IpAddr {
    let own = peers.0.endpoint.local_addr().ok().map(|addr| canonical(addr).ip());
    let own = own.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4());
    own.unwrap_or_else(|| if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() })
}

/// Sends the connectivity check that names the introduction, then serves the downloader as if it had connected.
async fn serve<R: Rt>(peers: Peers<R>, mut tcp: R::Tcp, from: SocketAddr, first: Vec<u8>) {
    peers.0.state.borrow_mut().greeting += 1;
    let greeting = async {
        tcp.write_all(&first).await.ok()?;
        tcp.flush().await.ok()?;
        shake_hands(&peers, tcp, from).await
    };
    let greeted = within(&peers.0.rt, FIRST_TIMEOUT, greeting).await.flatten();
    peers.0.state.borrow_mut().greeting -= 1;
    if let Some((link, key)) = greeted {
        serve_connection(peers, link, key).await;
    }
}

/// A TCP connection on which the peer may send a STUN connectivity check before the TLS handshake. Reads skip the
/// check, whose result is already known.
pub(super) struct PastCheck<T> {
    tcp: T,
    /// The bytes received so far, until their kind is known.
    first: Vec<u8>,
    known: bool,
}

impl<T> PastCheck<T> {
    pub(super) const fn new(tcp: T) -> Self {
        Self { tcp, first: Vec::new(), known: false }
    }
}

impl<T: AsyncRead + Unpin> PastCheck<T> {
    /// Reads up to the end of a connectivity check, or the first byte if that is not of a STUN message.
    fn poll_known(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.known {
            let want = match self.first.first() {
                Some(first) if *first >= STUN_BELOW => {
                    self.known = true;
                    break;
                }
                // all of the head, then all that it speaks of
                _ => match self.first.get(2..4).filter(|_| self.first.len() >= HEADER_LEN) {
                    Some(len) => HEADER_LEN + usize::from(u16::from_be_bytes([len[0], len[1]])),
                    None if self.first.is_empty() => 1,
                    None => HEADER_LEN,
                },
            };
            if want > MESSAGE_LEN_MAX {
                return Poll::Ready(Err(io::Error::other("not a STUN message")));
            }
            if self.first.len() == want {
                self.first.clear();
                self.known = true;
                break;
            }
            let mut more = vec![0; want - self.first.len()];
            let n = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut more))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.first.extend_from_slice(&more[..n]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PastCheck<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_known(cx))?;
        let n = self.first.len().min(buf.len());
        if n == 0 {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        buf[..n].copy_from_slice(&self.first[..n]);
        self.first.drain(..n);
        Poll::Ready(Ok(n))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PastCheck<T> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;
    use futures_lite::io::AsyncReadExt as _;

    /// A reader that returns one byte at a time.
    struct Slow(VecDeque<u8>);

    impl AsyncRead for Slow {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let n = self.0.pop_front().zip(buf.first_mut()).map(|(byte, place)| *place = byte);
            Poll::Ready(Ok(usize::from(n.is_some())))
        }
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut tcp, mut all) = (PastCheck::new(Slow(bytes.iter().copied().collect())), Vec::new());
        block_on(tcp.read_to_end(&mut all)).map(|_| all)
    }

    #[test]
    fn a_check_before_the_handshake_is_passed_over_and_nothing_else_is() {
        let check = [&[0, 1, 0, 8][..], &[7; HEADER_LEN - 4], &[9; 8]].concat();
        let hello = [0x16, 3, 3, 0, 2, 1, 2];
        assert_eq!(read(&[&check[..], &hello].concat()).expect("reads"), hello);
        assert_eq!(read(&hello).expect("reads"), hello);
        assert_eq!(read(&[&check[..HEADER_LEN], &[9; 8], &check].concat()).expect("reads"), check, "one only");
        assert!(read(&check[..HEADER_LEN + 3]).is_err() && read(&[]).is_err(), "an end before it");
        assert!(read(&[&[0, 1, 0xff, 0xff][..], &[0; 16]].concat()).is_err(), "longer than any");
    }
}
