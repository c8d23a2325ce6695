//! Inputs, outputs and configuration of the state machine of NAT behaviour discovery.

use crate::nat::cookie::{Proven, Tag};
use crate::nat::{NatBehaviour, NatDescriptor};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// UDP socket of the host, named by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Socket {
    /// Main socket: it carries QUIC, and its NAT behaviour is what discovery reports.
    Main,
    /// Socket that sends nothing for a while, to measure how long an unused mapping lives.
    Silent,
    /// Socket for requests whose answers the server sends to another socket, and for tests from a fresh mapping.
    Asker,
    /// Socket for port mapping requests about UDP; discovery does not use it.
    Gateway,
    /// Socket for port mapping requests about a listening TCP port.
    TcpGateway,
}

/// Event reported to the state machine of NAT behaviour discovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The host's addresses and STUN servers, at the start and whenever they may have changed. Discovery starts
    /// again.
    Network(Network),
    /// The external address may have changed: it is tested now rather than at the next refresh.
    Look,
    /// A datagram came on a UDP socket.
    Datagram {
        /// Socket that received the datagram.
        socket: Socket,
        /// Source address of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// The set of TCP ports that listen for peers has changed.
    Listens(Vec<u16>),
    /// A router reports that it forwards a port to a listening TCP port, or no longer does. A STUN server must
    /// confirm it by connecting to the forwarded port.
    Forwards {
        /// Local port that listens for peers.
        local: u16,
        /// External port of the router; `None`: no port is forwarded any more.
        outer: Option<u16>,
    },
    /// A server answered a request of [`Effect::Knock`].
    Knocked {
        /// STUN server that answered.
        server: SocketAddr,
        /// Listening port that the request left from.
        local: u16,
        /// STUN message of the server.
        answer: Vec<u8>,
    },
    /// A host connected to a listening TCP port and sent a STUN message.
    DialledBack {
        /// Remote address of the connection.
        from: SocketAddr,
        /// Listening port that was reached.
        local: u16,
        /// STUN message that was received.
        bytes: Vec<u8>,
    },
    /// A request of [`Effect::AskTcp`] has ended.
    Tcp {
        /// STUN server that was asked.
        server: SocketAddr,
        /// STUN message of the server; `None`: no answer came.
        answer: Option<Vec<u8>>,
    },
}

/// Network configuration, as the host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// Addresses of this host's interfaces, with the main socket's port.
    pub hosts: Vec<SocketAddr>,
    /// Addresses of the STUN servers, best first.
    pub servers: Vec<SocketAddr>,
    /// IPv4 address of the router on the default route; discovery does not use it.
    pub gateway: Option<Ipv4Addr>,
}

/// Command or notification of the state machine of NAT behaviour discovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Perform this network operation.
    Effect(Effect),
    /// Publish this NAT descriptor, which differs from the one published before.
    Changed(NatDescriptor),
    /// Publish newer cookies of STUN servers; the descriptor's addresses have not changed.
    Proven(Vec<Proven>),
    /// Report all findings, after each round of requests and after the measurement of the mapping's lifetime.
    Report(Report),
}

/// Network operation that NAT behaviour discovery requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send this datagram; a failure counts as packet loss.
    Send {
        /// Socket to send from.
        socket: Socket,
        /// Destination address of the datagram.
        to: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// Send a STUN request over TCP, with the time-out [`Config::within`]; answered by one [`Input::Tcp`].
    AskTcp {
        /// STUN server to ask.
        server: SocketAddr,
        /// STUN request to send.
        bytes: Vec<u8>,
    },
    /// Send STUN requests over one TCP connection from a listening port. The connection stays open until the server
    /// ends it; each answer is reported by one [`Input::Knocked`].
    Knock {
        /// STUN server to ask.
        server: SocketAddr,
        /// Listening port to connect from.
        local: u16,
        /// STUN requests to send, in this order.
        requests: Vec<Vec<u8>>,
    },
}

/// Findings about the network path to the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// NAT descriptor that is sent to peers.
    pub nat: NatDescriptor,
    /// STUN server that answered; `None`: no server did.
    pub server: Option<SocketAddr>,
    /// Whether the STUN server has two addresses; only then the NAT's filtering can be observed.
    pub two_addresses: bool,
    /// Whether a NAT translates addresses (IPv4).
    pub translated: bool,
    /// Whether the NAT's external port equals the local port. `None`: there is no NAT, or nothing was observed.
    pub keeps_port: Option<bool>,
    /// Whether a STUN server answered over TCP, on any port.
    pub tcp: bool,
    /// Address and port of this host as a STUN server sees them over TCP; `None`: not known.
    pub seen: Option<SocketAddr>,
    /// Listening TCP ports, each with the address and port at which a server could connect to it; `None`: not
    /// reachable.
    pub doors: Vec<(u16, Option<SocketAddr>)>,
    /// Longest time without traffic after which a mapping still existed. Zero: not measured yet, or lost after the
    /// shortest tested time.
    pub lives: Duration,
    /// Time without traffic after which a mapping was lost; `None`: none was lost.
    pub dies: Option<Duration>,
    /// Interval at which the mapping is refreshed by a request.
    pub keep_alive: Duration,
}

/// Address translation of the QUIC socket or of a listening TCP port, as STUN servers see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Address and port at which the STUN server sees the socket; port 0 for a listening TCP port.
    pub mapped: SocketAddrV4,
    /// Whether a NAT translates addresses.
    pub translated: bool,
    /// STUN server that answered.
    pub server: SocketAddr,
    /// External ports at which STUN servers saw the socket.
    pub ports: Vec<u16>,
    /// Address and port from which the STUN server can test whether a port is open to everybody; `None`: there is
    /// none.
    pub witness: Option<Witness>,
}

/// Address and port of the STUN server to which the QUIC socket has sent nothing, so that no NAT lets packets from
/// there in as answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Address and port of the server.
    pub from: SocketAddr,
    /// Whether nothing was sent to its address at any port either. If not, a test from there proves something only
    /// for an external port at which the socket was never seen.
    pub other_address: bool,
}

/// Time-outs and limits of NAT behaviour discovery.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time-out of a round of requests, after which it ends with the findings so far.
    pub within: Duration,
    /// Time-out before the first retransmission of a request.
    pub rto: Duration,
    /// Maximum number of transmissions of one request: where 30 % of all datagrams are lost in each direction, one
    /// request in 200 stays unanswered.
    pub requests_max: u32,
    /// Time-out after which answers from the server's other addresses count as filtered by the NAT.
    pub filter_wait: Duration,
    /// Time-out of a request that this host sends to its own external address (hairpinning).
    pub hairpin_wait: Duration,
    /// Interval between rounds of requests on an unchanged network.
    pub again: Duration,
    /// Delay before a new round if no server answered, or none at the second address, which is needed to observe the
    /// mapping behaviour.
    pub again_silent: Duration,
    /// Interval between refreshes of the mapping while its lifetime is unknown.
    pub keep_alive: Duration,
    /// Interval between tests of the external address where there is no mapping to refresh; shorter than the lifetime
    /// of cookies.
    pub look: Duration,
    /// Interval between refreshes of a listening TCP port's mapping, where there is one: NATs forget closed
    /// connections after four minutes (RFC 5382 §5) or, as Linux does, two.
    pub door_keep_alive: Duration,
    /// Times without traffic after which it is tested whether a mapping still exists, ascending; empty: the lifetime
    /// is not measured.
    pub silences: Vec<Duration>,
    /// Client's tag in cookie requests to STUN servers; `None`: no cookies are requested.
    pub tag: Option<Tag>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(3),
            rto: Duration::from_millis(200),
            requests_max: 8,
            filter_wait: Duration::from_millis(1_000),
            hairpin_wait: Duration::from_millis(400),
            again: Duration::from_secs(30 * 60),
            again_silent: Duration::from_secs(60),
            keep_alive: Duration::from_secs(20),
            look: Duration::from_secs(200),
            door_keep_alive: Duration::from_secs(60),
            silences: [30, 60, 120, 240].map(Duration::from_secs).to_vec(),
            tag: None,
        }
    }
}

impl Config {
    /// Returns a configuration for a single round, without keep-alive or lifetime measurement.
    #[must_use]
    pub fn once() -> Self {
        let never = Duration::from_secs(24 * 3600);
        Self {
            again: never,
            again_silent: never,
            keep_alive: never,
            look: never,
            door_keep_alive: never,
            silences: Vec::new(),
            ..Self::default()
        }
    }
}

/// Returns how open a NAT behaviour is, from 0 (unknown) to 3 (endpoint-independent), to test that no behaviour is
/// claimed that is more open than the real one.
#[must_use]
pub const fn openness(behaviour: NatBehaviour) -> u8 {
    match behaviour {
        NatBehaviour::Unknown => 0,
        NatBehaviour::AddressAndPortDependent => 1,
        NatBehaviour::AddressDependent => 2,
        NatBehaviour::EndpointIndependent => 3,
    }
}
