//! Inputs, outputs and configuration of the state machine of port mapping.

use crate::nat::Transport;
use crate::nat::discovery::io::{Sight, Socket};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// Gateway of this host, and the local address and port to which it shall forward an external port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// IPv4 address of the router on the default route.
    pub gateway: Ipv4Addr,
    /// Local address and port of the QUIC socket, or of a listening TCP port.
    pub local: SocketAddrV4,
    /// Transport: UDP for the QUIC socket, TCP for a listening port.
    pub over: Transport,
}

impl Site {
    /// Returns the local socket for requests to the gateway; UDP and TCP use separate ones, so answers never mix.
    pub(super) const fn socket(self) -> Socket {
        match self.over {
            Transport::Udp => Socket::Gateway,
            Transport::Tcp => Socket::TcpGateway,
        }
    }
}

/// Port mapping protocol, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol, NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

/// Event reported to the state machine of port mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The gateway and local address of this host. A change, or `None`, restarts port mapping.
    Site(Option<Site>),
    /// The address at which STUN servers see the socket has changed.
    Seen(Sight),
    /// A datagram came from the gateway, or from a STUN server to the main socket.
    Datagram {
        /// Local socket that received the datagram.
        socket: Socket,
        /// Source address of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// A UPnP request ended, with success or an error.
    Igd(IgdEnd),
    /// The client stops: close the open mapping, and open no more.
    Shutdown,
}

/// Result of one UPnP request ([`Effect::Igd`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IgdEnd {
    /// Number of the request, copied from [`Effect::Igd`].
    pub id: u32,
    /// Opened port, or the error.
    pub answer: Result<Opened, IgdError>,
}

/// Port that a gateway has opened by UPnP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opened {
    /// External address and port, according to the gateway; not verified yet.
    pub external: SocketAddrV4,
    /// Lifetime in seconds; 0: until the port is closed or the gateway restarts.
    pub lifetime_s: u32,
}

/// Reason why UPnP did not open a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgdError {
    /// The gateway does not answer, or is not a UPnP gateway.
    NoAnswer,
    /// The gateway refused, with this UPnP error code; 0 if it gave none.
    Refused(u16),
}

/// Command or notification of the state machine of port mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Perform this network operation.
    Effect(Effect),
    /// Advertise this external address and port, tested from outside, to peers; `None`: advertise none.
    Claimed(Option<SocketAddrV4>),
    /// Report the external address and port that the gateway says it forwards to a listening TCP port; `None`: none
    /// any more. Discovery tests whether it is reachable ([`crate::nat::discovery`]).
    Forwards(Option<SocketAddrV4>),
    /// Report the new status of port mapping.
    Status(Status),
}

/// Network operation that port mapping requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send this datagram; a failure counts as packet loss.
    Send {
        /// Local socket to send from.
        socket: Socket,
        /// Destination address of the datagram.
        to: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// Open or close a port on this gateway only, by UPnP; answered by one [`Input::Igd`].
    Igd {
        /// Number of the request, returned in [`IgdEnd::id`].
        id: u32,
        /// Operation that the gateway is asked for.
        ask: IgdAsk,
    },
}

/// UPnP operation of an [`Effect::Igd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgdAsk {
    /// Forward an external port to this host.
    Open {
        /// Gateway, and local address and port of the mapping.
        site: Site,
        /// Requested external port; a gateway that has already assigned it may choose another.
        port: u16,
        /// Requested lifetime in seconds.
        lifetime_s: u32,
        /// Time-out of the whole operation.
        within: Duration,
    },
    /// Stop forwarding a port; the result is ignored.
    Close {
        /// Gateway, and local address and port of the mapping.
        site: Site,
        /// External port to close.
        port: u16,
    },
}

/// Status of port mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// Port mapping is disabled by the user.
    Off,
    /// No NAT has been observed, so no port need be forwarded.
    #[default]
    Unneeded,
    /// The operating system reports no router.
    NoGateway,
    /// A request to the gateway, or a test from outside of the port that it opened, is pending.
    Busy,
    /// A port is open, verified from outside.
    Open {
        /// Protocol that opened the port.
        protocol: Protocol,
        /// External address and port.
        external: SocketAddrV4,
        /// Lifetime that the gateway grants per request, in seconds.
        lifetime_s: u32,
    },
    /// No port is open, for this reason. Mapping is retried after [`Config::again`], and on another network.
    Failed(Why),
}

/// Reason why no port is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The gateway answers none of the protocols.
    NoAnswer,
    /// The gateway refused the request.
    Refused {
        /// Protocol of the refused request.
        protocol: Protocol,
        /// Error code of the gateway, specific to the protocol.
        code: u16,
    },
    /// The gateway's external address differs from the one that STUN servers see, so there is a second NAT behind it.
    DoubleNat {
        /// Protocol that opened the port.
        protocol: Protocol,
        /// The gateway's external address.
        external: Ipv4Addr,
    },
    /// The gateway opens ports, but for a uselessly short lifetime.
    TooShort {
        /// Protocol that opened the port.
        protocol: Protocol,
        /// Lifetime granted, in seconds.
        lifetime_s: u32,
    },
    /// The gateway reports an open port, but no packet of the test from outside arrives.
    Deaf {
        /// Protocol that opened the port.
        protocol: Protocol,
        /// External address and port that the gateway reports.
        external: SocketAddrV4,
    },
    /// The gateway reports an open port, but no STUN server can test it from outside.
    NoWitness {
        /// Protocol that opened the port.
        protocol: Protocol,
        /// External address and port that the gateway reports.
        external: SocketAddrV4,
    },
}

/// Time-outs and limits of port mapping.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the user has enabled port mapping.
    pub enabled: bool,
    /// Time-out of one attempt to open a port, over all protocols.
    pub within: Duration,
    /// Initial retransmission time-out of a request; doubles with each retry (RFC 6886 §3.1).
    pub rto: Duration,
    /// Maximum number of requests per protocol when a port is first opened, before the next protocol is tried.
    pub tries: u32,
    /// Maximum number of requests in one attempt to renew a mapping.
    pub renew_tries: u32,
    /// Requested lifetime of a mapping (RFC 6886 §3.3 recommends two hours). It is renewed after half of the granted
    /// lifetime.
    pub lifetime: Duration,
    /// Delay before a failed mapping is retried.
    pub again: Duration,
    /// Interval between tests of an open port from outside.
    pub recheck: Duration,
    /// Time-out of the first request of a test from outside; each further request has a time-out longer by this much.
    pub check_rto: Duration,
    /// Maximum number of requests to the STUN server in one test from outside.
    pub check_tries: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            within: Duration::from_secs(4),
            rto: Duration::from_millis(250),
            tries: 2,
            renew_tries: 5,
            lifetime: Duration::from_secs(7200),
            again: Duration::from_secs(30 * 60),
            recheck: Duration::from_secs(120),
            check_rto: Duration::from_millis(200),
            check_tries: 5,
        }
    }
}

impl Config {
    /// Returns a configuration for the model checker, with fewer retransmissions.
    #[must_use]
    pub fn tiny() -> Self {
        Self { tries: 1, renew_tries: 2, check_tries: 4, ..Self::default() }
    }

    /// Returns a configuration for one diagnosis, whose mapping expires soon by itself.
    #[must_use]
    pub fn once() -> Self {
        Self { lifetime: Duration::from_secs(120), ..Self::default() }
    }
}
