//! Findings of one round of NAT discovery about one address family (IPv4 or IPv6).

use super::{Attribute, Cookie, Ipv6Reach, NatBehaviour, Socket, Time};
use crate::nat::cookie::Tag;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Maximum distance between successively assigned ports at which ports are predicted.
const STEP_MAX: u16 = 16;

/// Purpose of a STUN request: what its answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Probe {
    /// Tests whether this server answers, and at which address it sees this host.
    Reach(SocketAddr),
    /// Tests whether the NAT lets in an answer from the server's other address and port.
    Both,
    /// Tests whether the NAT lets in an answer from the server's other port.
    Port,
    /// Asks a server at a second address for the external address and port at which it sees this host.
    Second,
    /// Asks the server at the second address, at its other port, for the external address and port of this host.
    Third,
    /// Asks the server for the external address and port of a second socket, to which no server has sent before.
    FreshFirst,
    /// Asks the server's other address for the external address and port of that second socket.
    FreshSecond,
    /// Tests whether this host reaches itself by its external address (hairpinning).
    Hairpin,
    /// Refreshes the NAT's mapping of the QUIC socket, and tests whether it has changed.
    Refresh,
}

impl Probe {
    /// Returns the STUN attributes of the request (RFC 5780).
    pub(super) fn attributes(self, tag: Option<Tag>) -> Vec<Attribute> {
        match self {
            Self::Reach(_) | Self::Refresh => tag.map(|tag| Attribute::Cookie(tag.request())).into_iter().collect(),
            Self::Both => alloc::vec![Attribute::ChangeRequest { address: true, port: true }],
            Self::Port => alloc::vec![Attribute::ChangeRequest { address: false, port: true }],
            Self::Second | Self::Third | Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Vec::new(),
        }
    }

    /// Returns the socket from which the request is sent.
    pub(super) const fn socket(self) -> Socket {
        match self {
            Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Socket::Asker,
            Self::Reach(_) | Self::Both | Self::Port | Self::Second | Self::Third | Self::Refresh => Socket::Main,
        }
    }
}

/// Stage of the tests of one address family within a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Idle,
    Reach,
    Filter,
    Map,
    Confirm,
    Hairpin,
    Done,
}

/// Findings of one round of NAT discovery for one address family, and the stage of its tests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// Whether the address family is IPv6; else IPv4.
    pub(super) v6: bool,
    pub(super) stage: Stage,
    /// Deadline of the present stage.
    pub(super) due: Option<Time>,
    /// Number of servers asked so far.
    pub(super) asked: usize,
    /// STUN server that answered.
    pub(super) server: Option<SocketAddr>,
    /// Address and port at which the server sees this host.
    pub(super) mapped: Option<SocketAddr>,
    /// Other address and port from which the server can send.
    pub(super) other: Option<SocketAddr>,
    /// Newest cookie of the server for `mapped`.
    pub(super) cookie: Option<Cookie>,
    /// Whether filtering can be tested: nothing was sent to the addresses from which the answers would come.
    pub(super) testable: bool,
    /// Whether the server refuses to answer from another address.
    pub(super) refused: bool,
    pub(super) filtering: NatBehaviour,
    port_let_in: bool,
    pub(super) second_server: Option<SocketAddr>,
    pub(super) second: Option<SocketAddr>,
    pub(super) third_server: Option<SocketAddr>,
    pub(super) third: Option<SocketAddr>,
    /// External addresses of the second socket, as the server sees them at its two addresses.
    pub(super) fresh: [Option<SocketAddr>; 2],
}

impl Way {
    pub(super) const fn new(v6: bool) -> Self {
        Self {
            v6,
            stage: Stage::Idle,
            due: None,
            asked: 0,
            server: None,
            mapped: None,
            other: None,
            cookie: None,
            testable: false,
            refused: false,
            filtering: NatBehaviour::Unknown,
            port_let_in: false,
            second_server: None,
            second: None,
            third_server: None,
            third: None,
            fresh: [None; 2],
        }
    }

    /// Returns the source address that the answer to a request sent to `to` must have; `None` if no answer is
    /// expected.
    pub(super) fn expected(&self, probe: Probe, to: SocketAddr) -> Option<SocketAddr> {
        match probe {
            Probe::Both => self.other,
            Probe::Port => self.other.map(|o| SocketAddr::new(to.ip(), o.port())),
            Probe::Hairpin => None,
            Probe::Reach(_)
            | Probe::Second
            | Probe::Third
            | Probe::FreshFirst
            | Probe::FreshSecond
            | Probe::Refresh => Some(to),
        }
    }

    /// Records that an answer from the server's other address or port has arrived.
    pub(super) fn let_in(&mut self, probe: Probe) {
        if self.stage == Stage::Filter {
            self.port_let_in |= probe == Probe::Port;
            if probe == Probe::Both {
                self.filtering = NatBehaviour::EndpointIndependent;
            }
        }
    }

    /// Ends the test of filtering: answers that have not arrived count as filtered by the NAT.
    pub(super) fn filter_over(&mut self) {
        self.filtering = match (self.filtering, self.port_let_in) {
            (NatBehaviour::EndpointIndependent, _) => NatBehaviour::EndpointIndependent,
            (_, true) => NatBehaviour::AddressDependent,
            (_, false) => NatBehaviour::AddressAndPortDependent,
        };
    }

    /// Returns the NAT's mapping behaviour (RFC 5780 §4.3). Without address translation it is endpoint-independent.
    pub(super) fn mapping(&self, translated: bool) -> NatBehaviour {
        match (self.mapped, self.second, self.third) {
            (Some(_), _, _) if !translated => NatBehaviour::EndpointIndependent,
            (Some(first), Some(second), _) if first == second && self.needs_confirmation() => match self.fresh {
                [Some(first), Some(second)] if first == second => NatBehaviour::EndpointIndependent,
                [Some(_), Some(_)] => NatBehaviour::AddressAndPortDependent,
                _ => NatBehaviour::Unknown,
            },
            (Some(first), Some(second), _) if first == second => NatBehaviour::EndpointIndependent,
            (Some(_), Some(second), Some(third)) if second == third => NatBehaviour::AddressDependent,
            (Some(_), Some(_), _) => NatBehaviour::AddressAndPortDependent,
            _ => NatBehaviour::Unknown,
        }
    }

    /// Returns whether the mapping must be confirmed from a second socket: where filtering was tested, the test's
    /// packets may have influenced an outer NAT, so that two equal external addresses do not yet prove
    /// endpoint-independent mapping.
    pub(super) const fn needs_confirmation(&self) -> bool {
        self.testable && self.other.is_some()
    }

    /// Returns the distance between the ports of successive mappings if three observed ports rise by at most
    /// [`STEP_MAX`] each; else 0.
    pub(super) fn step(&self) -> u16 {
        let ports = [self.mapped, self.second, self.third].map(|m| m.map(|m| m.port()));
        let [Some(a), Some(b), Some(c)] = ports else { return 0 };
        let small = |d: u16| (1..=STEP_MAX).contains(&d).then_some(d);
        let steps = small(b.wrapping_sub(a)).zip(small(c.wrapping_sub(b)));
        steps.map_or(0, |(x, y)| x.min(y))
    }

    /// Returns the external address and port that the NAT assigned last.
    pub(super) fn newest(&self) -> Option<SocketAddr> {
        self.third.or(self.second).or(self.mapped)
    }

    /// Returns how far hosts of the IPv6 internet can reach this one.
    pub(super) fn reach(&self) -> Ipv6Reach {
        match (self.mapped, self.filtering) {
            (None, _) => Ipv6Reach::None,
            (Some(_), NatBehaviour::EndpointIndependent) => Ipv6Reach::Open,
            (Some(_), _) => Ipv6Reach::Firewalled,
        }
    }
}
