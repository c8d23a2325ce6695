//! What the discovery machine is told, what it asks for, and how it is configured.

use crate::nat::cookie::{Proven, Tag};
use crate::nat::{NatBehaviour, NatDescriptor};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// Which of the host's UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Socket {
    /// The one that carries QUIC: what is found is true of it.
    Main,
    /// One that is left silent to see how long its mapping lives.
    Silent,
    /// One that asks on behalf of another.
    Asker,
    /// One that the gateway is spoken to from; discovery has no use of it.
    Gateway,
    /// The same, about a listening TCP port.
    TcpGateway,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The network as it is now: at the start, and whenever it may have changed. Begins anew.
    Network(Network),
    /// The mapping may be another one: it is looked at now rather than when that is due.
    Look,
    /// A datagram came.
    Datagram {
        /// To which socket.
        socket: Socket,
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// These TCP ports listen for peers.
    Listens(Vec<u16>),
    /// A gateway says to forward a port to a listening one, or none any more: somebody must come by it.
    Forwards {
        /// The listening port.
        local: u16,
        /// The gateway's.
        outer: Option<u16>,
    },
    /// An answer to a request of [`Effect::Knock`].
    Knocked {
        /// Who was asked.
        server: SocketAddr,
        /// From this port.
        local: u16,
        /// The answer.
        answer: Vec<u8>,
    },
    /// Somebody has connected to a listening TCP port and shown a STUN message.
    DialledBack {
        /// Who.
        from: SocketAddr,
        /// To which port.
        local: u16,
        /// What.
        bytes: Vec<u8>,
    },
    /// [`Effect::AskTcp`] has ended.
    Tcp {
        /// Who was asked.
        server: SocketAddr,
        /// The answer, if any came.
        answer: Option<Vec<u8>>,
    },
}

/// A network as its host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Network {
    /// This host's own addresses with the main socket's port.
    pub hosts: Vec<SocketAddr>,
    /// STUN servers, best first.
    pub servers: Vec<SocketAddr>,
    /// The router that the way out begins with (IPv4); discovery has no use of it.
    pub gateway: Option<Ipv4Addr>,
}

/// Something to be done or told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// To be done.
    Effect(Effect),
    /// The descriptor that others may be told has changed.
    Changed(NatDescriptor),
    /// Newer cookies for the addresses of the descriptor, which stays as it is.
    Proven(Vec<Proven>),
    /// All that is known, told at the end of each round and of the lifetime's measurement.
    Report(Report),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send a datagram; lost like any, should it fail.
    Send {
        /// From which socket.
        socket: Socket,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Ask over TCP within [`Config::within`]; answered by one [`Input::Tcp`].
    AskTcp {
        /// Whom.
        server: SocketAddr,
        /// The request.
        bytes: Vec<u8>,
    },
    /// Ask over TCP from a listening port, one request after the other on one connection, which stays open until the
    /// server ends it; each answer is one [`Input::Knocked`].
    Knock {
        /// Whom.
        server: SocketAddr,
        /// From this port.
        local: u16,
        /// The requests.
        requests: Vec<Vec<u8>>,
    },
}

/// All that is known of the way to the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// What others are told.
    pub nat: NatDescriptor,
    /// The STUN server that answered, if any.
    pub server: Option<SocketAddr>,
    /// The server has two addresses: only then filtering can be observed.
    pub two_addresses: bool,
    /// A NAT translates addresses (IPv4).
    pub translated: bool,
    /// The NAT kept the port. `None`: no NAT, or not observed.
    pub keeps_port: Option<bool>,
    /// TCP works, on whichever port.
    pub tcp: bool,
    /// Where servers over TCP see this host.
    pub seen: Option<SocketAddr>,
    /// Listening TCP ports, and where each was reached from outside, if it was.
    pub doors: Vec<(u16, Option<SocketAddr>)>,
    /// A mapping was alive after this long without a packet. Zero: not measured yet, or not even the first time.
    pub lives: Duration,
    /// A mapping was dead after this long without a packet.
    pub dies: Option<Duration>,
    /// How often the mapping is refreshed.
    pub keep_alive: Duration,
}

/// What STUN shows of the main socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// Where the server sees it.
    pub mapped: SocketAddrV4,
    /// A NAT translates addresses.
    pub translated: bool,
    /// The server.
    pub server: SocketAddr,
    /// Every port that it was seen at.
    pub ports: Vec<u16>,
    /// From where the server can write to a port uninvited, if from anywhere.
    pub witness: Option<Witness>,
}

/// An endpoint of the STUN server's that the main socket has not written to: what comes from there was let in by
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    /// The endpoint.
    pub from: SocketAddr,
    /// Not even its address was written to. Else it shows something only at a port that the socket was never seen at.
    pub other_address: bool,
}

/// Times and bounds of discovery.
#[derive(Clone, Debug)]
pub struct Config {
    /// A round has ended after this long, whatever is known.
    pub within: Duration,
    /// Before the first retransmission.
    pub rto: Duration,
    /// Requests of one transaction: where 30 % of all datagrams are lost each way, one in 200 stays unanswered.
    pub requests_max: u32,
    /// How long answers from elsewhere are waited for before they count as filtered.
    pub filter_wait: Duration,
    /// How long a hairpinned request is waited for.
    pub hairpin_wait: Duration,
    /// A new round, though nothing has changed.
    pub again: Duration,
    /// A new round, when nobody has answered, or not the second address that shows how a NAT maps.
    pub again_silent: Duration,
    /// Refreshes of a mapping whose lifetime is not known.
    pub keep_alive: Duration,
    /// Looks at whether the address has changed, where there is nothing to keep alive: before cookies expire.
    pub look: Duration,
    /// How often the mapping of a listening TCP port is used, where there is one: NATs forget closed connections after
    /// four minutes (RFC 5382 §5) or, as Linux does, two.
    pub door_keep_alive: Duration,
    /// Silences after which a mapping is looked at, rising; none: the lifetime is not measured.
    pub silences: Vec<Duration>,
    /// Asks STUN servers for cookies in this name; none: asks for none.
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
    /// One round and no more: no keep-alive, no lifetime.
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

/// How open a behaviour is: what is claimed must not be above what is.
#[must_use]
pub const fn openness(behaviour: NatBehaviour) -> u8 {
    match behaviour {
        NatBehaviour::Unknown => 0,
        NatBehaviour::AddressAndPortDependent => 1,
        NatBehaviour::AddressDependent => 2,
        NatBehaviour::EndpointIndependent => 3,
    }
}
