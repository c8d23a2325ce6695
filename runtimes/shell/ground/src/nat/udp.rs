//! A UDP socket of one shard: sends at once or not at all, and hands over what arrives.

use crate::http::Signal;
use crate::quic::bind_udp;
use crate::rt::Rt;
use futures_lite::future::{or, poll_fn};
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the receive buffer: one GRO batch.
const RECEIVE_LEN: usize = 64 * 1024;
/// The wait after a socket call that failed for want of a resource.
const PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket of either or both address families. Clones share it.
#[derive(Clone)]
pub struct Udp {
    socket: Arc<dyn AsyncUdpSocket>,
    /// The system's handle of the socket, used for sending: a runtime would hold back datagrams before it has first
    /// seen the socket writable.
    plain: Arc<UdpSocket>,
    v6: bool,
    closed: Signal,
}

impl Udp {
    /// Opens a socket on a port of its own, of both families where the system has both.
    pub(crate) fn open<R: Rt>(rt: &R) -> io::Result<Self> {
        let both = bind_udp((Ipv6Addr::UNSPECIFIED, 0).into());
        let socket = both.or_else(|_| bind_udp((Ipv4Addr::UNSPECIFIED, 0).into()))?;
        Self::wrap(rt, socket)
    }

    /// Takes over a bound, non-blocking socket.
    pub fn wrap<R: Rt>(rt: &R, socket: UdpSocket) -> io::Result<Self> {
        let (v6, plain) = (socket.local_addr()?.is_ipv6(), Arc::new(socket.try_clone()?));
        Ok(Self { socket: rt.quic().wrap_udp_socket(socket)?, plain, v6, closed: Signal::default() })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns the socket itself, for another user.
    pub fn both(&self) -> (Arc<dyn AsyncUdpSocket>, Arc<UdpSocket>) {
        (Arc::clone(&self.socket), Arc::clone(&self.plain))
    }

    /// Makes [`Udp::receive`] return on all clones.
    pub fn close(&self) {
        self.closed.set();
    }

    /// Sends a datagram, without blocking.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.send_from(None, bytes, to)
    }

    /// Sends from one of the addresses that the socket is bound to.
    pub fn send_from(&self, src_ip: Option<IpAddr>, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let destination = match to.ip() {
            IpAddr::V4(ip) if self.v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            IpAddr::V6(_) if !self.v6 => return Err(io::ErrorKind::AddrNotAvailable.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        };
        if src_ip.is_none() {
            return self.plain.send_to(bytes, destination).map(drop);
        }
        self.socket.try_send(&Transmit { destination, ecn: None, contents: bytes, segment_size: None, src_ip })
    }

    /// Passes each datagram to `each`: remote address, local address if known, and bytes.
    pub async fn receive<R: Rt>(self, rt: R, mut each: impl FnMut(SocketAddr, Option<IpAddr>, &[u8])) {
        let mut buffer = vec![0; RECEIVE_LEN];
        let receiving = async {
            loop {
                let mut meta = [RecvMeta::default()];
                let mut buffers = [IoSliceMut::new(&mut buffer)];
                let received = poll_fn(|cx| self.socket.poll_recv(cx, &mut buffers, &mut meta)).await;
                if let Err(error) = received {
                    tracing::warn!(%error, "cannot receive datagrams");
                    rt.sleep_until(rt.now() + PAUSE).await;
                    continue;
                }
                let [RecvMeta { addr: from, len, stride, dst_ip, .. }] = meta;
                for datagram in buffer[..len.min(RECEIVE_LEN)].chunks(stride.max(1)) {
                    each(from, dst_ip, datagram);
                }
            }
        };
        or(self.closed.wait(), receiving).await;
    }
}
