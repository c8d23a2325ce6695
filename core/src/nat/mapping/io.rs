//! What the port mapping machine is told, what it asks for, and how it is configured.

use crate::nat::Transport;
use crate::nat::discovery::io::{Sight, Socket};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// Where this host is, and what is to be reached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// The router that its way out begins with.
    pub gateway: Ipv4Addr,
    /// The main socket or a listening TCP port, with this host's address on that way.
    pub local: SocketAddrV4,
    /// Which of the two.
    pub over: Transport,
}

impl Site {
    /// From where the gateway is spoken to: what it says of one port is not taken for the other's.
    pub(super) const fn socket(self) -> Socket {
        match self.over {
            Transport::Udp => Socket::Gateway,
            Transport::Tcp => Socket::TcpGateway,
        }
    }
}

/// By what a port was opened, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Where this host is now. Another place, or none, begins anew.
    Site(Option<Site>),
    /// What STUN shows, whenever that has changed.
    Seen(Sight),
    /// A datagram of the gateway's, or of a STUN server's on the main socket.
    Datagram {
        /// To which socket.
        socket: Socket,
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// UPnP has done what it was asked for, or not.
    Igd(IgdEnd),
    /// This host leaves: what was opened is closed, and nothing is opened any more.
    Shutdown,
}

/// The end of [`Effect::Igd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IgdEnd {
    /// Of this one.
    pub id: u32,
    /// How it ended.
    pub answer: Result<Opened, IgdError>,
}

/// A port that UPnP has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opened {
    /// What the world sees, as the gateway says.
    pub external: SocketAddrV4,
    /// For how long; 0: until it is closed or the gateway restarts.
    pub lifetime_s: u32,
}

/// Why UPnP has not opened a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgdError {
    /// The gateway does not answer, or not as a UPnP gateway.
    NoAnswer,
    /// It does not want to; UPnP's code, 0 if it gave none.
    Refused(u16),
}

/// Something to be done or told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// To be done.
    Effect(Effect),
    /// The endpoint that others may be told of has changed.
    Claimed(Option<SocketAddrV4>),
    /// What the gateway says to forward to a listening TCP port has changed: whether anybody gets through there is seen
    /// where those ports are looked at ([`crate::nat::discovery`]).
    Forwards(Option<SocketAddrV4>),
    /// How it stands has changed.
    Status(Status),
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
    /// Open or close a port by UPnP, of this gateway and no other; answered by one [`Input::Igd`].
    Igd {
        /// Echoed.
        id: u32,
        /// What.
        ask: IgdAsk,
    },
}

/// See [`Effect::Igd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgdAsk {
    /// Forward a port.
    Open {
        /// Where.
        site: Site,
        /// The wished port; a gateway that has given it away may choose another.
        port: u16,
        /// For how long.
        lifetime_s: u32,
        /// Answered within this.
        within: Duration,
    },
    /// Forward it no more; how it ends is of no interest.
    Close {
        /// Where.
        site: Site,
        /// Which.
        port: u16,
    },
}

/// How port mapping stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// The user does not want it.
    Off,
    /// No NAT is known to be on the way.
    #[default]
    Unneeded,
    /// The system names no router.
    NoGateway,
    /// The gateway is being asked, or its answer is looked into.
    Busy,
    /// A port is open, as the world has shown.
    Open {
        /// By what.
        protocol: Protocol,
        /// Where.
        external: SocketAddrV4,
        /// The gateway keeps it for so long at a time.
        lifetime_s: u32,
    },
    /// Nothing is open, and why. It is tried again after a while, and on another network.
    Failed(Why),
}

/// Why there is no open port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The gateway answers to none of the protocols.
    NoAnswer,
    /// It refuses.
    Refused {
        /// Which protocol's request.
        protocol: Protocol,
        /// Its code.
        code: u16,
    },
    /// It opens ports, but of an address that is not the one the world sees: another NAT is behind it.
    DoubleNat {
        /// By which protocol.
        protocol: Protocol,
        /// The gateway's external address.
        external: Ipv4Addr,
    },
    /// It opens ports, but for a shorter time than is of use.
    TooShort {
        /// By which protocol.
        protocol: Protocol,
        /// For how long.
        lifetime_s: u32,
    },
    /// It says that it is open; nothing comes through.
    Deaf {
        /// By which protocol.
        protocol: Protocol,
        /// What it says to have opened.
        external: SocketAddrV4,
    },
    /// It says that it is open; no STUN server is there that could show it.
    NoWitness {
        /// By which protocol.
        protocol: Protocol,
        /// What it says to have opened.
        external: SocketAddrV4,
    },
}

/// Times and bounds of port mapping.
#[derive(Clone, Debug)]
pub struct Config {
    /// The user wants it.
    pub enabled: bool,
    /// All protocols have had their turn after this long.
    pub within: Duration,
    /// Before the first retransmission; it doubles each time (RFC 6886 §3.1).
    pub rto: Duration,
    /// Requests of a protocol at first, when others wait for their turn.
    pub tries: u32,
    /// Requests of a renewal.
    pub renew_tries: u32,
    /// What a gateway is asked for (RFC 6886 §3.3 recommends two hours); renewed at half of what it gives.
    pub lifetime: Duration,
    /// What failed is tried again after this long.
    pub again: Duration,
    /// An open port is looked at so often.
    pub recheck: Duration,
    /// Before a look from outside is asked for again; it grows by as much each time.
    pub check_rto: Duration,
    /// How often it is asked for.
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
    /// For models: fewer retransmissions.
    #[must_use]
    pub fn tiny() -> Self {
        Self { tries: 1, renew_tries: 2, check_tries: 4, ..Self::default() }
    }

    /// For a look only: what is left behind is forgotten soon.
    #[must_use]
    pub fn once() -> Self {
        Self { lifetime: Duration::from_secs(120), ..Self::default() }
    }
}
