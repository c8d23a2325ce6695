//! A UDP socket of one thread: sending never waits, and a callback gets received datagrams.

use crate::http::Signal;
use crate::quic::{bind_udp, canonical};
use crate::rt::Rt;
use futures_lite::future::{or, poll_fn};
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Length of the receive buffer in bytes: one batch of generic receive offload (GRO).
const RECEIVE_LEN: usize = 64 * 1024;
/// Pause after a socket call failed for lack of a resource.
const PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket of either or both address families. Clones share it.
#[derive(Clone)]
pub struct Udp {
    socket: Arc<dyn AsyncUdpSocket>,
    /// The operating system's handle of the socket, used for sending: an async runtime would not send before it has
    /// seen the socket become writable.
    plain: Arc<UdpSocket>,
    v6: bool,
    closed: Signal,
}

impl Udp {
    /// Opens a socket on a free port, for IPv6 and IPv4 if the system has both.
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

    /// Returns the socket, as quinn uses it and as the system knows it, for use by others.
    pub fn both(&self) -> (Arc<dyn AsyncUdpSocket>, Arc<UdpSocket>) {
        (Arc::clone(&self.socket), Arc::clone(&self.plain))
    }

    /// Makes [`Udp::receive`] return on all clones.
    pub fn close(&self) {
        self.closed.set();
    }

    /// Sends a datagram without blocking; fails if the socket's buffer is full.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.send_from(None, bytes, to)
    }

    /// Sends a datagram with one of the socket's addresses as its source; `None` leaves the choice to the system.
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

    /// Passes each datagram to `each`: remote address, local address if known, and bytes. IPv4 addresses are never in
    /// IPv6-mapped form.
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
                    each(canonical(from), dst_ip.map(|ip| ip.to_canonical()), datagram);
                }
            }
        };
        or(self.closed.wait(), receiving).await;
    }
}
