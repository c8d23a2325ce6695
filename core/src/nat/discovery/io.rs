//! Inputs, outputs and configuration of the NAT discovery machine.

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
    /// Silent socket: it measures how long an unused mapping lives.
    Silent,
    /// Asking socket: it sends requests on behalf of another socket.
    Asker,
    /// Socket for port mapping requests about UDP; discovery does not use it.
    Gateway,
    /// Socket for port mapping requests about a listening TCP port.
    TcpGateway,
}

/// Event reported to the discovery machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The network was read: at the start, and whenever it may have changed. Discovery starts anew.
    Network(Network),
    /// The mapping may have changed: it is tested now rather than at the next refresh.
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
    /// A gateway reports a port forwarded to a listening one, or none any more; a server must confirm it by connecting
    /// through it.
    Forwards {
        /// Local port that listens for peers.
        local: u16,
        /// External port of the gateway; `None`: none is forwarded any more.
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

/// Command or notification of the discovery machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Perform this network operation.
    Effect(Effect),
    /// Publish this descriptor: it differs from the last one.
    Changed(NatDescriptor),
    /// Publish newer cookies for the descriptor's addresses, which have not changed.
    Proven(Vec<Proven>),
    /// Report all findings, after each round and after the lifetime measurement.
    Report(Report),
}

/// Network operation requested by the discovery machine.
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
    /// Send a request over TCP within [`Config::within`]; answered by one [`Input::Tcp`].
    AskTcp {
        /// STUN server to ask.
        server: SocketAddr,
        /// STUN request to send.
        bytes: Vec<u8>,
    },
    /// Send requests over TCP from a listening port, one after the other on one connection, which stays open until the
    /// server ends it; each answer is one [`Input::Knocked`].
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
    /// NAT descriptor that peers are told.
    pub nat: NatDescriptor,
    /// STUN server that answered; `None`: no server did.
    pub server: Option<SocketAddr>,
    /// Whether the server has two addresses; only then filtering can be observed.
    pub two_addresses: bool,
    /// Whether a NAT translates addresses (IPv4).
    pub translated: bool,
    /// Whether the NAT kept the port. `None`: no NAT, or not observed.
    pub keeps_port: Option<bool>,
    /// Whether a server was reached over TCP, on whichever port.
    pub tcp: bool,
    /// Address and port at which servers over TCP see this host.
    pub seen: Option<SocketAddr>,
    /// Listening TCP ports, and the endpoint at which each was reached from outside; `None`: not reached.
    pub doors: Vec<(u16, Option<SocketAddr>)>,
    /// Longest silence that a mapping survived. Zero: not measured yet, or lost after the shortest silence.
    pub lives: Duration,
    /// Silence after which a mapping was lost; `None`: not found.
    pub dies: Option<Duration>,
    /// Interval at which the mapping is refreshed.
    pub keep_alive: Duration,
}

/// Address translation of the main socket or a TCP port, as STUN shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Address and port at which the server sees the socket; port 0 for a TCP port.
    pub mapped: SocketAddrV4,
    /// Whether a NAT translates addresses.
    pub translated: bool,
    /// STUN server that answered.
    pub server: SocketAddr,
    /// External ports at which the socket was seen.
    pub ports: Vec<u16>,
    /// Endpoint from which the server can test a port uninvited; `None`: there is none.
    pub witness: Option<Witness>,
}

/// Endpoint of the STUN server that the main socket has not written to, so that packets from there come uninvited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Address and port of the server.
    pub from: SocketAddr,
    /// Whether even its address was never written to. If not, it proves something only at a port at which the socket
    /// was never seen.
    pub other_address: bool,
}

/// Time-outs and limits of discovery.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time-out of a round, whatever is known.
    pub within: Duration,
    /// Time-out before the first retransmission.
    pub rto: Duration,
    /// Maximum requests per transaction: where 30 % of all datagrams are lost each way, one in 200 stays unanswered.
    pub requests_max: u32,
    /// Time-out after which answers from another address count as filtered.
    pub filter_wait: Duration,
    /// Time-out of a hairpinned request.
    pub hairpin_wait: Duration,
    /// Interval between rounds on an unchanged network.
    pub again: Duration,
    /// Delay before a new round if no server answered, or not the second address that shows how a NAT maps.
    pub again_silent: Duration,
    /// Interval of refreshes while the mapping's lifetime is unknown.
    pub keep_alive: Duration,
    /// Interval of address tests where there is no mapping to keep alive: shorter than the lifetime of cookies.
    pub look: Duration,
    /// Interval of refreshes of a listening TCP port's mapping, where there is one: NATs forget closed connections
    /// after four minutes (RFC 5382 §5) or, as Linux does, two.
    pub door_keep_alive: Duration,
    /// Silences after which a mapping is tested, ascending; empty: the lifetime is not measured.
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

/// Returns a rank of how open a behaviour is; a claim must not rank above the observation.
#[must_use]
pub const fn openness(behaviour: NatBehaviour) -> u8 {
    match behaviour {
        NatBehaviour::Unknown => 0,
        NatBehaviour::AddressAndPortDependent => 1,
        NatBehaviour::AddressDependent => 2,
        NatBehaviour::EndpointIndependent => 3,
    }
}
