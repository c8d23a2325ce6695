//! Inputs, outputs and configuration of the state machine that connects introduced peers.

use crate::ids::{IntroId, RawTcpId};
use crate::limits;
use crate::nat::{NatDescriptor, Transport};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

crate::wire! {
    /// Data that each of two introduced peers gets from its CN for connectivity checks with the other peer. Only the
    /// two peers and their CNs know the key.
    pub struct Ticket {
        /// Key that authenticates connectivity checks, drawn for this introduction alone.
        pub key: [u8; 16],
        /// Source address of the other peer, as its CN observed it.
        pub observed: SocketAddr,
    }

    /// Result of an attempt to connect to an introduced peer.
    pub struct Attempt {
        /// Reason of the failure; `None`: connected.
        pub failure: Option<Failure>,
        /// Type of the peer's address or path that was chosen; [`Rung::None`] if none was.
        pub rung: Rung,
        /// Number of datagrams that the attempt sent.
        pub probes: u16,
        /// Duration in milliseconds, from the CN's signal to start checks (or, without it, from the introduction) to
        /// the end.
        pub took_ms: u32,
    }
}

crate::wire! {
    /// Type of a peer's address, or of the path to it. Addresses are tried in ascending order of number.
    pub enum Rung {
        /// No address was chosen.
        None = 0,
        /// Private address on a network that both peers share.
        Lan = 1,
        /// IPv6 address, with or without firewalls.
        Ipv6 = 2,
        /// Address and port of the peer's router that it forwards to the peer (port mapping).
        Mapped = 3,
        /// Address at which STUN servers see the peer.
        Reflexive = 4,
        /// Port that the peer's NAT will probably assign next.
        Predicted = 5,
        /// Source address of the peer's own checks, which was not among its announced addresses.
        PeerReflexive = 6,
        /// Connection opened by the peer before any check succeeded.
        Direct = 7,
        /// Port found by birthday probing ([`Birthday`]).
        Birthday = 8,
        /// TCP port of the uploader, to which the downloader connected.
        Tcp = 9,
        /// TCP port of the downloader, to which the uploader connected.
        Called = 10,
        /// TCP connection opened by both peers simultaneously.
        Crossed = 11,
    }
}
impl Copy for Rung {}

crate::wire! {
    /// Reason why an introduced peer is not connected.
    pub enum Failure {
        /// The introduction names no address that may be tried.
        NoCandidates = 1,
        /// The maximum number of attempts was already running.
        Busy = 2,
        /// The CN's signal to start connectivity checks never came.
        NoGo = 3,
        /// Neither a check of the peer nor an answer to this host's checks arrived.
        Silence = 4,
        /// Checks or answers of the peer arrived, but no path was found that works in both directions.
        OneWay = 5,
        /// A path was chosen, but no connection could be opened on it.
        NoHandshake = 6,
        /// The client no longer wanted the peer.
        Dropped = 7,
    }
}
impl Copy for Failure {}

/// Role of a peer in an introduction; the downloader always nominates the path, without negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Peer that nominates a path and opens the connection.
    Downloader,
    /// Peer that answers the checks.
    Uploader,
}

/// Introduction of a peer, as both peers receive it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Identifier of the introduction.
    pub intro: IntroId,
    /// Role of this host in the introduction.
    pub role: Role,
    /// Key for connectivity checks, and the other peer's address as its CN saw it.
    pub ticket: Ticket,
    /// NAT descriptor of the other peer.
    pub nat: NatDescriptor,
}

/// STUN datagram received on a socket of [`Scatter::Send`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scattered {
    /// Introduction for which the socket was opened.
    pub intro: IntroId,
    /// Number of the socket within the introduction.
    pub socket: u16,
    /// Source address of the datagram.
    pub from: SocketAddr,
    /// Payload of the datagram.
    pub bytes: Vec<u8>,
}

/// Command for the extra sockets of an introduction, used besides the QUIC socket for birthday probing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Send a datagram from one extra socket, which is opened if it is not open yet.
    Send {
        /// Introduction that the socket belongs to.
        intro: IntroId,
        /// Number of the socket within the introduction.
        socket: u16,
        /// Destination address of the datagram.
        to: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// From now on send datagrams for `to` from this socket, and treat datagrams that it receives as if they came to
    /// the QUIC socket.
    Adopt {
        /// Introduction that the socket belongs to.
        intro: IntroId,
        /// Number of the socket within the introduction.
        socket: u16,
        /// Address and port of the peer.
        to: SocketAddr,
    },
    /// Close all extra sockets of this introduction except the adopted one.
    Gather(IntroId),
}

/// Command for a raw TCP connection, that is one with a peer before the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RawTcp {
    /// Open a TCP connection; answered by one [`RawTcpEvent::Open`] or [`RawTcpEvent::Failed`].
    Call {
        /// Number of the new raw TCP connection.
        id: RawTcpId,
        /// Remote address to connect to.
        to: SocketAddr,
        /// Local listening port to connect from; `None`: any port.
        from: Option<u16>,
    },
    /// Send this connectivity check, then wait for the downloader to begin the TLS handshake, as on an accepted
    /// connection.
    Serve {
        /// Number of the raw TCP connection.
        id: RawTcpId,
        /// Connectivity check to send.
        first: Vec<u8>,
    },
    /// Close this raw TCP connection, or stop opening it.
    HangUp(RawTcpId),
}

/// Event on a raw TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RawTcpEvent {
    /// A requested raw TCP connection is open; answered by [`RawTcp::Serve`], [`RawTcp::HangUp`] or [`Output::Path`]
    /// with this connection.
    Open(RawTcpId),
    /// A requested raw TCP connection could not be opened.
    Failed(RawTcpId),
    /// A host connected to a listening port and sent a connectivity check; answered by [`Output::Path`] with this raw
    /// TCP connection, or by [`RawTcp::HangUp`].
    Shown {
        /// Number of the raw TCP connection.
        id: RawTcpId,
        /// Remote address of the connection.
        from: SocketAddr,
        /// Connectivity check that was received.
        bytes: Vec<u8>,
    },
}

/// Path on which a connection to a peer is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Along {
    /// UDP path, checked in both directions.
    Udp,
    /// New TCP connection to a port on which the peer listens.
    Tcp,
    /// Existing raw TCP connection, opened by the peer or by both.
    RawTcp(RawTcpId),
}

impl Along {
    /// Returns the transport of this path.
    #[must_use]
    pub const fn over(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp | Self::RawTcp(_) => Transport::Tcp,
        }
    }
}

/// Event reported to the state machine that connects introduced peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The description of this host's own NAT has changed.
    Network(NatDescriptor),
    /// The CN reported this host's source address.
    Observed(SocketAddr),
    /// A peer was introduced. Each introduction is used once; a repeated one is ignored.
    Offer(Offer),
    /// The CN's signal to start connectivity checks came: both peers have opened their NATs, or had time to.
    Go(IntroId),
    /// A STUN datagram came on the QUIC socket.
    Datagram {
        /// Source address of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
    },
    /// A STUN datagram came on a socket of [`Scatter::Send`].
    Scattered(Scattered),
    /// A raw TCP connection opened, failed, or was accepted.
    RawTcp(RawTcpEvent),
    /// The connection on the nominated path is open, and the peer's key proven.
    Connected(IntroId),
    /// The connection on the nominated path could not be opened.
    Refused(IntroId),
    /// The peer is no longer wanted.
    Drop(IntroId),
}

/// Command or notification of the state machine that connects introduced peers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram from the QUIC socket.
    Send {
        /// Destination address of the datagram.
        to: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
        /// IP time to live; `None`: the system's default.
        ttl: Option<u8>,
    },
    /// Execute a command for an introduction's extra sockets.
    Scatter(Scatter),
    /// Execute a command for a raw TCP connection.
    RawTcp(RawTcp),
    /// Report to the CN that this host has opened its NAT for the introduced peer.
    Opened(IntroId),
    /// A path was chosen: the downloader opens the connection on it, the uploader waits.
    Path {
        /// Introduction that the path belongs to.
        intro: IntroId,
        /// Peer's address and port: over UDP one checked in both directions, over TCP its listening port or the
        /// remote address of the existing connection.
        addr: SocketAddr,
        /// Kind of path on which the connection is opened.
        along: Along,
    },
    /// Replace this host's NAT descriptor: its NAT assigns ports in sequence and has advanced to later ports.
    Moved(NatDescriptor),
    /// An attempt has ended; sent exactly once for each [`Input::Offer`] that was not ignored.
    Ended {
        /// Introduction of the ended attempt.
        intro: IntroId,
        /// Result of the attempt.
        attempt: Attempt,
    },
}

/// Configuration of birthday probing: numbers of sockets and ports, and pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Birthday {
    /// Number of sockets of the peer whose NAT assigns random ports; two datagrams are sent from each.
    pub sockets: u16,
    /// Number of ports that the other peer tries.
    pub probes: u16,
    /// Number of datagrams that each peer sends per tick.
    pub batch: u16,
    /// Interval between two ticks.
    pub tick: Duration,
    /// Time-out of the probing, counted from the CN's signal to start checks.
    pub within: Duration,
}

impl Default for Birthday {
    /// Returns the default: 500 probes per second, so two seconds for all.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { sockets: 256, probes: 1_024, batch: 5, tick: ms(10), within: ms(4_000) }
    }
}

/// Limits and intervals of connectivity checks.
#[derive(Clone, Debug)]
pub struct Config {
    /// Maximum number of concurrent attempts to connect to introduced peers.
    pub sessions_max: usize,
    /// Maximum number of connectivity checks sent per second, over all attempts.
    pub rate: u32,
    /// Maximum number of connectivity checks that an attempt sends to one address.
    pub per_address_max: u8,
    /// Maximum number of datagrams that an attempt sends, answers included, birthday probes not included.
    pub per_pair_max: u16,
    /// Maximum number of addresses learned from the peer's own checks.
    pub learned_max: usize,
    /// Maximum number of ports predicted for a NAT that assigns them in sequence.
    pub predicted_max: u16,
    /// IP time to live of openers, datagrams that pass this host's NAT and so open it, but do not reach the peer's
    /// NAT.
    pub opener_ttl: u8,
    /// Maximum number of a peer's addresses to which openers are sent, predicted ports not counted; 0: no openers.
    pub openers_max: usize,
    /// Interval between the first checks to two addresses of a peer.
    pub pace: Duration,
    /// Retransmission time-out of a check: initial, increment per retry, and maximum.
    pub resend: (Duration, Duration, Duration),
    /// Time for which the downloader waits for an answer from a LAN address before it chooses another one.
    pub prefer: Duration,
    /// Time-out for the CN's signal to start connectivity checks.
    pub go_within: Duration,
    /// Time-out of the connectivity checks, counted from the CN's signal to start them.
    pub check_within: Duration,
    /// Delay from the start of the checks to the use of TCP, if no check has found a path. TCP is used at once where
    /// UDP is unusable.
    pub door_after: Duration,
    /// Time-out for opening the connection on the chosen path.
    pub connect_within: Duration,
    /// Local TCP port from which simultaneous opens are made; the NAT descriptor's `crossing` is its external
    /// endpoint. `None`: no simultaneous opens.
    pub crosses_from: Option<u16>,
    /// Maximum number of simultaneous TCP opens of an attempt, and delay after a failed one.
    pub crossings: (u8, Duration),
    /// Time for which the peer's checks are still answered after the connection has opened.
    pub linger: Duration,
    /// Birthday probing, used as a last resort if the peer supports it too; `None`: disabled.
    pub birthday: Option<Birthday>,
}

impl Default for Config {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            sessions_max: 64,
            rate: 400,
            per_address_max: 14,
            per_pair_max: 160,
            learned_max: 4,
            predicted_max: 16,
            opener_ttl: 2,
            openers_max: 4,
            pace: ms(50),
            resend: (ms(100), ms(50), ms(250)),
            prefer: ms(150),
            go_within: ms(3_000),
            check_within: ms(2_500),
            door_after: ms(1_000),
            connect_within: ms(3_000),
            crosses_from: None,
            crossings: (limits::CROSSINGS_MAX, ms(300)),
            linger: ms(3_000),
            birthday: None,
        }
    }
}

impl Config {
    /// Returns the maximum number of datagrams that one attempt sends, birthday probes included.
    #[must_use]
    pub fn datagrams_max(&self) -> u16 {
        let tried = self.birthday.map_or(0, |b| b.probes.max(b.sockets.saturating_mul(2)));
        self.per_pair_max.saturating_add(tried)
    }

    /// Returns a configuration for the model checker: few repetitions and no pacing, so that there are fewer states.
    #[must_use]
    pub fn tiny() -> Self {
        let s = Duration::from_secs;
        Self {
            sessions_max: 2,
            per_address_max: 3,
            per_pair_max: 24,
            learned_max: 1,
            predicted_max: 2,
            openers_max: 1,
            pace: Duration::ZERO,
            resend: (s(1), Duration::ZERO, s(1)),
            prefer: Duration::ZERO,
            go_within: s(3),
            check_within: s(4),
            door_after: s(3),
            connect_within: s(3),
            crosses_from: Some(5000),
            crossings: (2, s(1)),
            linger: s(1),
            ..Self::default()
        }
    }
}
