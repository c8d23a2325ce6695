//! QUIC between peers: one UDP socket for all connections, shared with STUN and connectivity checks.

mod routes;
mod socket;

pub use routes::canonical;
pub use socket::{Datagram, RawSender};

use crate::mailbox::{self, Receiver};
use crate::rt::Rt;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use routes::{Both, Routes};
use socket::SharedSocket;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::limits;

/// Maximum number of received STUN datagrams in the queue; more are dropped, as UDP permits.
const DATAGRAMS_MAX: usize = 256;
/// Bytes of the socket buffer requested from the kernel, each way; it may give less.
const SOCKET_BUFFER: usize = 4 << 20;
/// Flow control window of one stream in bytes; several streams are open on a busy connection.
const STREAM_WINDOW: u32 = 4 << 20;
/// Largest flow control window of a connection in bytes: 1 Gbit/s at a round-trip time of 100 ms.
pub const WINDOW_MAX: u32 = 12_500_000;
/// Smallest flow control window of a connection in bytes, with the maximum number of peers.
pub const WINDOW_MIN: u32 = 1 << 20;
/// Time without a received packet after which a connection is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of keep-alive packets, which keep NAT mappings open and avoid the idle time-out.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Assumed round-trip time of a path before the first measurement.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Largest datagram in bytes that path MTU discovery tries (RFC 8899): a jumbo frame of 9,000 bytes minus the headers
/// of IPv6 and UDP. A datagram costs about the same whatever its size, and many local networks pass such large ones.
const DATAGRAM_LEN_MAX: u16 = 8_952;
/// Server name in TLS handshakes with peers. It has no meaning, since peers are identified by their keys (RFC 2606).
const SERVER_NAME: &str = "peer.invalid";

/// The QUIC socket and its connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    socket: Arc<SharedSocket>,
    routes: Arc<Routes>,
    raw: RawSender,
    transport: Arc<quinn::TransportConfig>,
}

impl Endpoint {
    /// Binds a socket to `addr` and serves QUIC with the key in `server`. The receiver gets the STUN datagrams that
    /// arrive.
    pub fn bind<R: Rt>(
        rt: &R,
        addr: SocketAddr,
        server: Arc<rustls::ServerConfig>,
    ) -> io::Result<(Self, Receiver<Datagram>)> {
        let socket = bind_udp(addr)?;
        let options = socket.try_clone()?;
        let runtime = rt.quic();
        let (datagrams, receiver) = mailbox::mailbox(DATAGRAMS_MAX);
        let routes = Arc::new(Routes::default());
        let socket = runtime.wrap_udp_socket(socket)?;
        let socket = Arc::new(SharedSocket::new(socket, datagrams, Arc::clone(&routes)));
        let raw = RawSender::new(options, Arc::clone(&routes))?;
        let crypto = QuicServerConfig::try_from(server).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let streams = u32::try_from(limits::QUEUED_REQUESTS_MAX).unwrap_or(u32::MAX);
        // and one for control
        server.transport_config(Arc::new(transport(streams.saturating_add(1))));
        server.migration(true);
        let mut config = quinn::EndpointConfig::default();
        // a greased packet could look like STUN (RFC 9287)
        config.grease_quic_bit(false);
        config.max_udp_payload_size(DATAGRAM_LEN_MAX).map_err(io::Error::other)?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket.clone(), runtime)?;
        Ok((Self { quinn, socket, routes, raw, transport: Arc::new(transport(0)) }, receiver))
    }

    /// Returns the endpoint's local address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Sends and receives datagrams to and from the address `to` through another socket from now on.
    pub fn adopt(&self, to: SocketAddr, socket: Both) {
        self.routes.adopt(to, socket);
    }

    /// Begins to connect to `addr`; `config` names the key that the peer must prove.
    pub fn connect(&self, addr: SocketAddr, config: Arc<rustls::ClientConfig>) -> io::Result<quinn::Connecting> {
        let crypto = QuicClientConfig::try_from(config).map_err(io::Error::other)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::clone(&self.transport));
        self.quinn.connect_with(config, addr, SERVER_NAME).map_err(io::Error::other)
    }

    /// Waits for the next incoming connection; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<quinn::Incoming> {
        self.quinn.accept().await
    }

    /// Sends a packet on every connection, as after a change of network: where this end is the client and the server
    /// permits it, the connection migrates to the new path (RFC 9000 §9.2).
    pub fn knock(&self) {
        if let Err(error) = self.quinn.rebind_abstract(self.socket.clone()) {
            tracing::debug!(%error, "the ways cannot be tried");
        }
    }

    /// Returns a sender of datagrams other than QUIC from the same socket.
    #[must_use]
    pub fn raw(&self) -> RawSender {
        self.raw.clone()
    }

    /// Closes every connection, with a code and reason for the peers.
    pub async fn close(&self, code: u8, reason: &str) {
        self.quinn.close(code.into(), reason.as_bytes());
        self.quinn.wait_idle().await;
    }
}

/// Opens a non-blocking UDP socket; with an IPv6 address it serves IPv4 too.
pub fn bind_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        // one socket for both families: STUN and every candidate share its mapping
        socket.set_only_v6(false)?;
    }
    // as much as the system lets us
    drop(socket.set_recv_buffer_size(SOCKET_BUFFER));
    drop(socket.set_send_buffer_size(SOCKET_BUFFER));
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Returns the transport parameters; `streams` is the number of streams that the peer may have open at a time.
fn transport(streams: u32) -> quinn::TransportConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_LEN_MAX);
    let mut t = quinn::TransportConfig::default();
    t.mtu_discovery_config(Some(discovery));
    // a path is dialled once checks have been answered on it within a fraction of a second; with the usual guess of a
    // third of a second, a lost first datagram would be sent again after a whole one
    t.initial_rtt(INITIAL_RTT);
    t.max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW_MAX.into())
        .send_window(WINDOW_MAX.into())
        // requests are answered one after the other rather than all a little: the first to be complete is of use first
        .send_fairness(false)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("a short time")));
    t
}
