//! Classes of NATs: all that decides whether two clients behind different public addresses can be connected, in a few
//! bits. Clients of one class are met by the same others, so that a directory need not look at each of them.

use super::{Endpoint, NatBehaviour, NatDescriptor, draws_ports, filters_by_port, is_door};
use super::{HTTPS, NatBehaviour::EndpointIndependent};
use core::net::SocketAddr;

/// A class of NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    udp: Udp,
    /// Public IPv6 besides, over UDP.
    ipv6: bool,
    /// Where it listens on TCP and was reached.
    doors: Ports,
    /// Where its TCP connections get out to.
    out: Ports,
    /// Where it meets a TCP connection that both open at once.
    crossing: Ports,
}

/// What comes of UDP over IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Udp {
    /// Nothing.
    #[default]
    Blocked,
    /// It maps endpoint-independently.
    Independent {
        /// It does not filter by port.
        open: bool,
        /// It tries many ports of a peer.
        tries: bool,
    },
    /// It does not, but its ports can be foretold.
    Foretold,
    /// Its ports are drawn, and it opens many.
    Drawn,
    /// Nobody knows where to aim.
    Hidden,
}

/// TCP ports: that of HTTPS, and others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ports {
    https: bool,
    others: bool,
}

impl Ports {
    const NONE: Self = Self { https: false, others: false };
    const ALL: Self = Self { https: true, others: true };

    fn of(endpoints: impl Iterator<Item = SocketAddr>) -> Self {
        endpoints.fold(Self::NONE, |all, e| {
            let https = e.port() == HTTPS;
            Self { https: all.https || https, others: all.others || !https }
        })
    }

    const fn meet(self, other: Self) -> bool {
        self.https && other.https || self.others && other.others
    }
}

impl Udp {
    /// As it says itself, or is seen to map.
    pub(super) fn of(nat: &NatDescriptor, maps: NatBehaviour) -> Self {
        match maps {
            _ if !nat.udp => Self::Blocked,
            EndpointIndependent => Self::Independent { open: !filters_by_port(nat), tries: nat.birthday },
            _ if nat.steps() > 0 => Self::Foretold,
            _ if nat.birthday && draws_ports(nat) => Self::Drawn,
            NatBehaviour::Unknown | NatBehaviour::AddressDependent | NatBehaviour::AddressAndPortDependent => {
                Self::Hidden
            }
        }
    }

    /// The DN's first table. Both can use UDP, and either the ports of both are known (they map endpoint-independently,
    /// or count), or exactly one does not map so and the other does not filter by port, or both try many ports.
    pub(super) const fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Blocked, _) | (_, Self::Blocked) => false,
            (Self::Independent { .. } | Self::Foretold, Self::Independent { .. } | Self::Foretold) => true,
            (Self::Independent { open, tries }, Self::Drawn) | (Self::Drawn, Self::Independent { open, tries }) => {
                open || tries
            }
            (Self::Independent { open, .. }, Self::Hidden) | (Self::Hidden, Self::Independent { open, .. }) => open,
            (Self::Foretold | Self::Drawn | Self::Hidden, Self::Drawn | Self::Hidden)
            | (Self::Drawn | Self::Hidden, Self::Foretold) => false,
        }
    }
}

impl Class {
    /// The last of all, in their order.
    pub const LAST: Self =
        Self { udp: Udp::Hidden, ipv6: true, doors: Ports::ALL, out: Ports::ALL, crossing: Ports::ALL };

    /// The class of a client: what it says, and what its CN's own observation proves beyond it.
    #[must_use]
    pub fn of(client: Endpoint<'_>) -> Self {
        let nat = client.nat;
        let maps = if client.is_public() { EndpointIndependent } else { nat.maps() };
        let reached = |d: &SocketAddr| is_door(*d, nat, client.observed);
        Self {
            udp: Udp::of(nat, maps),
            ipv6: nat.udp && client.has_ipv6(),
            doors: Ports::of(nat.doors.iter().copied().filter(reached)),
            out: Ports { https: nat.tcp_out || nat.tcp443, others: nat.tcp_out },
            crossing: Ports::of(nat.crossing.filter(reached).into_iter()),
        }
    }

    /// Whether two clients of these classes can be connected, whoever of them is which: over UDP, by a TCP connection
    /// that one opens to a door of the other's, or, where one has no UDP, by one that both open at once.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        let udp = self.udp != Udp::Blocked && other.udp != Udp::Blocked;
        udp && self.ipv6 && other.ipv6
            || self.udp.meets(other.udp)
            || self.out.meet(other.doors)
            || other.out.meet(self.doors)
            || !udp && self.out.meet(other.crossing) && other.out.meet(self.crossing)
    }

    /// Whether there is any class whose clients it can be connected with.
    #[must_use]
    pub fn meets_anybody(self) -> bool {
        self.udp != Udp::Blocked || self.out != Ports::NONE || self.doors != Ports::NONE
    }
}

#[cfg(test)]
mod tests;
