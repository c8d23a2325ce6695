//! The UDP socket shared by QUIC and STUN: passes received STUN datagrams (RFC 8489) to a queue and the others to
//! quinn.

use super::routes::{Routes, canonical};
use crate::mailbox::Sender;
use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// The magic cookie at offset 4 of every STUN message (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
/// Bytes of a STUN header (RFC 8489 §5).
const STUN_HEADER_LEN: usize = 20;
/// Maximum number of datagrams in one system call; more would exceed the longest IP packet, so that the call fails.
const SEGMENTS_MAX: usize = 65_507 / super::DATAGRAM_LEN_MAX as usize;

/// A received datagram that is not QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's address; IPv4 is never in IPv6-mapped form.
    pub from: SocketAddr,
    /// The bytes of the datagram.
    pub bytes: Bytes,
}

/// Returns whether a datagram is STUN. QUIC packets differ: they have bit 0x40 of the first byte set.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER_LEN && datagram[0] <= 3 && datagram[4..8] == MAGIC_COOKIE
}

/// The UDP socket shared by quinn and STUN.
pub(super) struct SharedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    datagrams: Sender<Datagram>,
    routes: Arc<Routes>,
    /// Whether the table of other sockets is polled before the main socket; alternates with each poll.
    turn: AtomicBool,
}

impl SharedSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, datagrams: Sender<Datagram>, routes: Arc<Routes>) -> Self {
        Self { inner, datagrams, routes, turn: AtomicBool::new(false) }
    }

    /// Removes STUN datagrams from a receive buffer and queues them. The buffer has datagrams of one sender, one
    /// every `meta.stride` bytes.
    fn divert(&self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let stride = meta.stride.max(1);
        let len = meta.len.min(buffer.len());
        if !buffer[..len].chunks(stride).any(is_stun) {
            return;
        }
        let mut kept = 0;
        for start in (0..len).step_by(stride) {
            let end = (start + stride).min(len);
            if is_stun(&buffer[start..end]) {
                let bytes = Bytes::copy_from_slice(&buffer[start..end]);
                // with nobody reading it is lost, as UDP does
                drop(self.datagrams.try_send(Datagram { from: canonical(meta.addr), bytes }));
            } else {
                buffer.copy_within(start..end, kept);
                kept += end - start;
            }
        }
        meta.len = kept;
    }
}

impl fmt::Debug for SharedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for SharedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.routes.to(transmit.destination) {
            Some((socket, _)) => match socket.try_send(transmit) {
                // nobody waits for room on that socket: what finds none is lost, as UDP does
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                sent => sent,
            },
            None => self.inner.try_send(transmit),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = if self.turn.fetch_xor(true, Ordering::Relaxed) {
            match self.routes.poll_recv(cx, bufs, meta) {
                Poll::Pending => self.inner.poll_recv(cx, bufs, meta),
                ready => ready,
            }
        } else {
            match self.inner.poll_recv(cx, bufs, meta) {
                Poll::Pending => self.routes.poll_recv(cx, bufs, meta),
                ready => ready,
            }
        };
        if let Poll::Ready(Ok(n)) = received {
            bufs.iter_mut().zip(&mut *meta).take(n).for_each(|(buffer, meta)| self.divert(buffer, meta));
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(SEGMENTS_MAX)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A sender of datagrams other than QUIC from the shared socket.
#[derive(Clone, Debug)]
pub struct RawSender {
    v6: bool,
    /// The operating system's handle of the socket: an async runtime would not send before it has seen the socket
    /// become writable.
    plain: Arc<UdpSocket>,
    routes: Arc<Routes>,
}

impl RawSender {
    pub(super) fn new(plain: UdpSocket, routes: Arc<Routes>) -> io::Result<Self> {
        Ok(Self { v6: plain.local_addr()?.is_ipv6(), plain: Arc::new(plain), routes })
    }

    /// Sends one datagram without waiting; fails if the socket's buffer is full.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let destination = match to.ip() {
            IpAddr::V4(ip) if self.v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            IpAddr::V6(_) if !self.v6 => return Err(io::ErrorKind::AddrNotAvailable.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        let beside = self.routes.to(to).map(|(_, plain)| plain);
        beside.as_ref().unwrap_or(&self.plain).send_to(bytes, destination).map(drop)
    }

    /// Sends one datagram with a different TTL (IPv6: hop limit). No other datagram gets it: all users of this socket
    /// run on one thread, and sending does not wait.
    pub fn send_with_ttl(&self, bytes: &[u8], to: SocketAddr, ttl: u8) -> io::Result<()> {
        let options = socket2::SockRef::from(&*self.plain);
        let ttl = u32::from(ttl);
        if to.ip().to_canonical().is_ipv4() {
            let usual = options.ttl_v4()?;
            options.set_ttl_v4(ttl)?;
            let sent = self.send(bytes, to);
            options.set_ttl_v4(usual)?;
            sent
        } else {
            let usual = options.unicast_hops_v6()?;
            options.set_unicast_hops_v6(ttl)?;
            let sent = self.send(bytes, to);
            options.set_unicast_hops_v6(usual)?;
            sent
        }
    }

    /// Returns the socket's local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.plain.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;

    /// A socket that receives one prepared batch.
    #[derive(Debug)]
    struct Once;

    impl AsyncUdpSocket for Once {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nothing is sent")
        }
        fn try_send(&self, _: &Transmit<'_>) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 1).into())
        }
    }

    fn stun(n: u8) -> Vec<u8> {
        let mut d = vec![0; 28];
        d[0] = 1;
        d[4..8].copy_from_slice(&MAGIC_COOKIE);
        d[27] = n;
        d
    }

    fn quic(n: u8) -> Vec<u8> {
        let mut d = vec![0x40; 28];
        d[27] = n;
        d
    }

    fn divert(datagrams: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (sender, mut receiver) = mailbox(8);
        let socket = SharedSocket::new(Arc::new(Once), sender, Arc::default());
        let mut buffer = datagrams.concat();
        let mut meta = RecvMeta {
            addr: "[::ffff:10.0.0.1]:9".parse().expect("an address"),
            len: buffer.len(),
            stride: 28,
            ecn: None,
            dst_ip: None,
        };
        socket.divert(&mut buffer, &mut meta);
        let kept = buffer[..meta.len].chunks(28).map(|d| *d.last().expect("not empty")).collect();
        let mut taken = Vec::new();
        while let Some(d) = receiver.try_recv() {
            assert_eq!(d.from, ([10, 0, 0, 1], 9).into());
            taken.push(*d.bytes.last().expect("not empty"));
        }
        (kept, taken)
    }

    #[test]
    fn stun_is_taken_out_of_a_batch_and_the_rest_stays_in_order() {
        assert_eq!(divert(&[quic(1), stun(2), quic(3), stun(4), quic(5)]), (vec![1, 3, 5], vec![2, 4]));
        assert_eq!(divert(&[stun(1), stun(2)]), (vec![], vec![1, 2]));
        assert_eq!(divert(&[quic(1)]), (vec![1], vec![]));
        let mut short = quic(7);
        short.truncate(9);
        let (kept, taken) = divert(&[stun(1), short]);
        assert_eq!((kept.len(), taken), (1, vec![1]));
    }

    #[test]
    fn what_is_not_stun_by_cookie_length_and_type_is_left_to_quic() {
        assert!(is_stun(&stun(0)));
        assert!(!is_stun(&stun(0)[..19]));
        let mut d = stun(0);
        d[0] = 4;
        assert!(!is_stun(&d));
        let mut d = stun(0);
        d[7] ^= 1;
        assert!(!is_stun(&d));
        assert!(!is_stun(&[]));
    }
}
