//! Findings of one round about one address family.

use super::{Attribute, Cookie, Ipv6Reach, NatBehaviour, Socket, Time};
use crate::nat::cookie::Tag;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Maximum step between ports that is worth predicting (measured: two samples, the next 16 ports).
const STEP_MAX: u16 = 16;

/// Question that a STUN request answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Probe {
    /// Whether this server answers, and the address at which it sees this host.
    Reach(SocketAddr),
    /// Whether an answer from the server's other address and port is let in.
    Both,
    /// Whether an answer from the server's other port is let in.
    Port,
    /// Address at which a server at another address sees this host.
    Second,
    /// Address at which that server sees this host from its other port.
    Third,
    /// Address seen by the server, for a fresh socket that no server has answered yet.
    FreshFirst,
    /// Address seen by the other server address, for the same fresh socket.
    FreshSecond,
    /// Whether this host reaches itself by its mapped address.
    Hairpin,
    /// Whether the mapping still exists.
    Refresh,
}

impl Probe {
    pub(super) fn attributes(self, tag: Option<Tag>) -> Vec<Attribute> {
        match self {
            Self::Reach(_) | Self::Refresh => tag.map(|tag| Attribute::Cookie(tag.request())).into_iter().collect(),
            Self::Both => alloc::vec![Attribute::ChangeRequest { address: true, port: true }],
            Self::Port => alloc::vec![Attribute::ChangeRequest { address: false, port: true }],
            Self::Second | Self::Third | Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Vec::new(),
        }
    }

    /// Returns the socket that sends the request.
    pub(super) const fn socket(self) -> Socket {
        match self {
            Self::FreshFirst | Self::FreshSecond | Self::Hairpin => Socket::Asker,
            Self::Reach(_) | Self::Both | Self::Port | Self::Second | Self::Third | Self::Refresh => Socket::Main,
        }
    }
}

/// Stage of an address family within the round.
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    pub(super) v6: bool,
    pub(super) stage: Stage,
    /// Deadline of the present stage.
    pub(super) due: Option<Time>,
    /// Number of servers asked so far.
    pub(super) asked: usize,
    /// Server that answered, the address it sees, and its other address.
    pub(super) server: Option<SocketAddr>,
    pub(super) mapped: Option<SocketAddr>,
    pub(super) other: Option<SocketAddr>,
    /// Newest cookie of the server for `mapped`.
    pub(super) cookie: Option<Cookie>,
    /// Whether filtering can be tested: no address was contacted from which the answers would come.
    pub(super) testable: bool,
    /// Whether the server refuses to answer from another address.
    pub(super) refused: bool,
    pub(super) filtering: NatBehaviour,
    port_let_in: bool,
    pub(super) second_server: Option<SocketAddr>,
    pub(super) second: Option<SocketAddr>,
    pub(super) third_server: Option<SocketAddr>,
    pub(super) third: Option<SocketAddr>,
    /// Endpoints at which the server and its other address see the fresh socket.
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

    /// Returns the source from which the answer to a request to `to` must come.
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

    /// Records an answer that came through from another address or port.
    pub(super) fn let_in(&mut self, probe: Probe) {
        if self.stage == Stage::Filter {
            self.port_let_in |= probe == Probe::Port;
            if probe == Probe::Both {
                self.filtering = NatBehaviour::EndpointIndependent;
            }
        }
    }

    /// Ends the filter test: answers that have not come count as filtered.
    pub(super) fn filter_over(&mut self) {
        self.filtering = match (self.filtering, self.port_let_in) {
            (NatBehaviour::EndpointIndependent, _) => NatBehaviour::EndpointIndependent,
            (_, true) => NatBehaviour::AddressDependent,
            (_, false) => NatBehaviour::AddressAndPortDependent,
        };
    }

    /// Returns the mapping behaviour (RFC 5780 §4.3); without translation it is endpoint-independent.
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

    /// Returns whether the mapping must be confirmed from a fresh socket: packets of the server's other address may
    /// have opened a way back through the same mapping of an outer NAT, so that equal endpoints prove nothing yet.
    pub(super) const fn needs_confirmation(&self) -> bool {
        self.testable && self.other.is_some()
    }

    /// Returns the distance of successive mappings, if three of them rise by small steps; else 0.
    pub(super) fn step(&self) -> u16 {
        let ports = [self.mapped, self.second, self.third].map(|m| m.map(|m| m.port()));
        let [Some(a), Some(b), Some(c)] = ports else { return 0 };
        let small = |d: u16| (1..=STEP_MAX).contains(&d).then_some(d);
        let steps = small(b.wrapping_sub(a)).zip(small(c.wrapping_sub(b)));
        steps.map_or(0, |(x, y)| x.min(y))
    }

    /// Returns the newest mapping, after which the next ones are assigned.
    pub(super) fn newest(&self) -> Option<SocketAddr> {
        self.third.or(self.second).or(self.mapped)
    }

    pub(super) fn reach(&self) -> Ipv6Reach {
        match (self.mapped, self.filtering) {
            (None, _) => Ipv6Reach::None,
            (Some(_), NatBehaviour::EndpointIndependent) => Ipv6Reach::Open,
            (Some(_), _) => Ipv6Reach::Firewalled,
        }
    }
}
