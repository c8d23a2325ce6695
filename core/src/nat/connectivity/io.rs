//! What the connectivity machine is told and what it asks for.

use super::birthday::Birthday;
use crate::ids::{IntroId, LineId};
use crate::limits;
use crate::nat::{NatDescriptor, Transport};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

crate::wire! {
    /// What two introduced peers need to find each other, besides each other's NAT. For them and their CNs only.
    pub struct Ticket {
        /// Keys their checks; drawn for this introduction alone.
        pub key: [u8; 16],
        /// Where the CN sees the other one come from.
        pub observed: SocketAddr,
    }

    /// How an attempt to connect to an introduced peer ended.
    pub struct Attempt {
        /// `None`: connected.
        pub failure: Option<Failure>,
        /// By what sort of address.
        pub rung: Rung,
        /// Datagrams sent for it.
        pub probes: u16,
        /// From the CN's "go" (or from the start, if it never came) to the end, in milliseconds.
        pub took_ms: u32,
    }
}

crate::wire! {
    /// By what sort of address a peer is tried: in the order of preference.
    pub enum Rung {
        /// None.
        None = 0,
        /// On the network that both share.
        Lan = 1,
        /// IPv6, with or without firewalls.
        Ipv6 = 2,
        /// A port that the peer's router forwards.
        Mapped = 3,
        /// Where STUN servers or the CN see the peer.
        Reflexive = 4,
        /// Where the peer's NAT will probably put its next mapping.
        Predicted = 5,
        /// Where the peer's own checks came from, not told by anybody.
        PeerReflexive = 6,
        /// As the introduction said, without checks.
        Direct = 7,
        /// One of many ports that were tried.
        Birthday = 8,
        /// A TCP port of the uploader's, on which it was reached before.
        Tcp = 9,
        /// A TCP port of the downloader's, where the uploader came.
        Called = 10,
        /// A TCP connection that both opened at once.
        Crossed = 11,
    }
}
impl Copy for Rung {}

crate::wire! {
    /// Why there is no connection to an introduced peer.
    pub enum Failure {
        /// The introduction names no address that may be tried.
        NoCandidates = 1,
        /// As many attempts as allowed were under way already.
        Busy = 2,
        /// The CN never said "go".
        NoGo = 3,
        /// Nothing was heard of the peer.
        Silence = 4,
        /// The peer was heard, and did not hear us.
        OneWay = 5,
        /// There was a path, and no connection came to be on it.
        NoHandshake = 6,
        /// It was no longer wanted.
        Dropped = 7,
    }
}
impl Copy for Failure {}

/// Who nominates. The downloader does, as its introduction says: there is nothing to negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nominates a path and dials along it.
    Downloader,
    /// Answers.
    Uploader,
}

/// An introduction, as either peer gets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Its name.
    pub intro: IntroId,
    /// Which of the two this host is.
    pub role: Role,
    /// What only the two know.
    pub ticket: Ticket,
    /// The other one's NAT.
    pub nat: NatDescriptor,
}

/// A STUN datagram came on a socket of [`Scatter::Send`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scattered {
    /// For which introduction it was opened.
    pub intro: IntroId,
    /// Its number.
    pub socket: u16,
    /// From where.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is to be done with the many sockets of an introduction, which are beside the QUIC socket (birthday probing).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scatter {
    /// Send a datagram from one of them, opened when it is first named.
    Send {
        /// For this introduction.
        intro: IntroId,
        /// Its number.
        socket: u16,
        /// To where.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// From now on what goes to `to` leaves from that socket, and what comes to it counts as come to the QUIC socket.
    Adopt {
        /// For this introduction.
        intro: IntroId,
        /// The socket.
        socket: u16,
        /// The peer's endpoint.
        to: SocketAddr,
    },
    /// Close them, but for the adopted one.
    Gather(IntroId),
}

/// A line is a bare TCP connection with a peer, on which neither has shown a key yet. What is to be done with one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// Open one; answered by one [`LineEvent::Open`] or [`LineEvent::Failed`].
    Call {
        /// Its number.
        line: LineId,
        /// To where.
        to: SocketAddr,
        /// From this listening port, or any.
        from: Option<u16>,
    },
    /// Show this, and then take whom it leads to for a downloader that comes by itself.
    Serve {
        /// On this line.
        line: LineId,
        /// A check.
        shows: Vec<u8>,
    },
    /// Close it, or open it no more.
    HangUp(LineId),
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LineEvent {
    /// One that was asked for is open; answered by [`Line::Serve`] or [`Line::HangUp`].
    Open(LineId),
    /// It could not be opened.
    Failed(LineId),
    /// Somebody has connected to a listening port and shows a check; answered by a path along this line or by
    /// [`Line::HangUp`].
    Shown {
        /// The line's number.
        line: LineId,
        /// Who has connected.
        from: SocketAddr,
        /// The check.
        bytes: Vec<u8>,
    },
}

/// Along what a connection to a peer is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Along {
    /// A path that was checked, over UDP.
    Udp,
    /// A TCP connection to where the peer listens.
    Tcp,
    /// A line that the peer has opened, or both have.
    Line(LineId),
}

impl Along {
    /// Over what.
    #[must_use]
    pub const fn over(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Tcp | Self::Line(_) => Transport::Tcp,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What this host knows of its own NAT.
    Network(NatDescriptor),
    /// Where the CN sees this host come from.
    Observed(SocketAddr),
    /// A peer is to be reached. An introduction is used once: what comes again is ignored.
    Offer(Offer),
    /// The CN says that both have opened their NATs, or had time to.
    Go(IntroId),
    /// A STUN datagram came on the QUIC socket.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A STUN datagram came on a socket of [`Scatter::Send`].
    Scattered(Scattered),
    /// Something became of a line.
    Line(LineEvent),
    /// The connection along the nominated path is open, the other's key proven.
    Connected(IntroId),
    /// It could not be opened.
    Refused(IntroId),
    /// The peer is no longer wanted.
    Drop(IntroId),
}

/// Something to be done, or learned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram from the QUIC socket.
    Send {
        /// To where.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
        /// With this TTL, or the usual one.
        ttl: Option<u8>,
    },
    /// Something is to be done with an introduction's many sockets.
    Scatter(Scatter),
    /// Something is to be done with a line.
    Line(Line),
    /// Tell the CN that this side's NAT is open.
    Opened(IntroId),
    /// There is a path: the downloader dials along it, the uploader waits.
    Path {
        /// For this introduction.
        intro: IntroId,
        /// The other's endpoint: over UDP checked both ways, over TCP where it listens or its line comes from.
        addr: SocketAddr,
        /// Along what the connection is opened.
        along: Along,
    },
    /// What this host knows of its own NAT has changed: one that counts has gone on.
    Moved(NatDescriptor),
    /// An attempt is over. Exactly one an [`Input::Offer`] that was not ignored.
    Ended {
        /// Which.
        intro: IntroId,
        /// How.
        attempt: Attempt,
    },
}

/// Limits and intervals.
#[derive(Clone, Debug)]
pub struct Config {
    /// Attempts under way at a time.
    pub sessions_max: usize,
    /// Checks a second, over all attempts.
    pub rate: u32,
    /// Checks to one address.
    pub per_address_max: u8,
    /// Datagrams an attempt, answers included.
    pub per_pair_max: u16,
    /// Addresses learned from the peer's own checks.
    pub learned_max: usize,
    /// Ports predicted of a NAT that counts.
    pub predicted_max: u16,
    /// Passes the own NAT and not the peer's.
    pub opener_ttl: u8,
    /// Addresses that an opener goes to.
    pub openers_max: usize,
    /// Between first checks to different addresses.
    pub pace: Duration,
    /// Before a check is repeated: first, what is added each time, and at most.
    pub resend: (Duration, Duration, Duration),
    /// So long a better address is given before a worse one is nominated.
    pub prefer: Duration,
    /// "Go" comes within this.
    pub go_within: Duration,
    /// A path is found within this of "go".
    pub check_within: Duration,
    /// TCP is tried if one of the two listens there and checks have found no path by then; at once where UDP is of no
    /// use.
    pub door_after: Duration,
    /// A connection opens on it within this.
    pub connect_within: Duration,
    /// The listening TCP port whose outside the own NAT's descriptor names as crossing, if there is one.
    pub crosses_from: Option<u16>,
    /// A connection that both open is tried so often, and so long after it has failed.
    pub crossings: (u8, Duration),
    /// Checks are still answered for so long once connected.
    pub linger: Duration,
    /// Many ports are tried where nothing else can help, if the peer does so too.
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
    /// Datagrams of one attempt, whatever it tries.
    #[must_use]
    pub fn datagrams_max(&self) -> u16 {
        let tried = self.birthday.map_or(0, |b| b.probes.max(b.sockets.saturating_mul(2)));
        self.per_pair_max.saturating_add(tried)
    }

    /// For models: few repetitions, nothing paced, so that fewer moments differ.
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
