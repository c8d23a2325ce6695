//! Classes of NATs: the properties that decide whether two clients behind different public addresses can connect. All
//! clients of one class can connect with the same other classes, so a directory need not examine each client.

use super::{Endpoint, NatBehaviour, NatDescriptor, draws_ports, filters_by_port, is_door};
use super::{HTTPS, NatBehaviour::EndpointIndependent};
use core::net::SocketAddr;

/// Class of a client's NAT and firewall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    udp: Udp,
    /// Whether UDP over public IPv6 works too.
    ipv6: bool,
    /// Listening TCP ports of the client to which a server could connect from outside.
    doors: Ports,
    /// Remote TCP ports to which outgoing connections succeed.
    out: Ports,
    /// External TCP ports of the client at which a simultaneous open (RFC 5382 §4.2) succeeds.
    crossing: Ports,
}

/// Behaviour of UDP over IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Udp {
    /// UDP over IPv4 does not work.
    #[default]
    Blocked,
    /// The NAT's mapping is endpoint-independent (RFC 4787 §4.1), so the external port is known.
    Independent {
        /// Whether the NAT does not filter by port.
        open: bool,
        /// Whether the client tries many ports of a peer (birthday probing).
        tries: bool,
    },
    /// The NAT's mapping depends on the remote endpoint, but it assigns predictable ports.
    Foretold,
    /// The NAT assigns random ports, and the client opens many sockets (birthday probing).
    Drawn,
    /// The NAT assigns unpredictable ports, or its mapping behaviour is unknown.
    Hidden,
}

/// Set of TCP ports, as far as it matters: port 443 (HTTPS), and any other.
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
    /// Returns the UDP class of a descriptor whose mapping behaviour is `maps`.
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

    /// Returns whether two UDP classes can connect: both can use UDP, and either the ports of both are known
    /// (endpoint-independent or predictable), or one has unknown ports and the other, endpoint-independent, does not
    /// filter by port or both do birthday probing.
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
    /// The last class in the order of classes.
    pub const LAST: Self =
        Self { udp: Udp::Hidden, ipv6: true, doors: Ports::ALL, out: Ports::ALL, crossing: Ports::ALL };

    /// Returns the class of a client, from its NAT descriptor and the address at which its CN sees it.
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

    /// Returns whether clients of these classes can connect, in either role: over UDP, by a TCP connection to a
    /// reachable port of either, or, if one has no UDP, by a simultaneous TCP open.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        let udp = self.udp != Udp::Blocked && other.udp != Udp::Blocked;
        udp && self.ipv6 && other.ipv6
            || self.udp.meets(other.udp)
            || self.out.meet(other.doors)
            || other.out.meet(self.doors)
            || !udp && self.out.meet(other.crossing) && other.out.meet(self.crossing)
    }

    /// Returns whether clients of at least one class can connect with a client of this class.
    #[must_use]
    pub fn meets_anybody(self) -> bool {
        self.udp != Udp::Blocked || self.out != Ports::NONE || self.doors != Ports::NONE
    }
}

#[cfg(test)]
mod tests;
