//! One NAT, firewall or plain masquerade: the mapping of outgoing datagrams and the filter for incoming ones.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use swarmedge_core::machine::Time;
use swarmedge_core::nat::NatBehaviour;

/// Choice of outer ports for new mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// The inner port if it is free.
    Preserve,
    /// A random port other than the inner one.
    Random,
    /// Outer ports in ascending order.
    Sequential,
    /// A random port of a block of this size.
    Block(u16),
}

/// Rules by which a router treats UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Whether the router translates addresses; otherwise it only filters.
    pub translates: bool,
    /// Whether the router forwards UDP at all.
    pub udp: bool,
    /// Mapping behaviour, RFC 4787 §4.1.
    pub mapping: NatBehaviour,
    /// Filtering behaviour, RFC 4787 §5.
    pub filtering: NatBehaviour,
    /// Choice of outer ports for new mappings.
    pub ports: Ports,
    /// Whether the router accepts uninvited datagrams itself and keeps an entry for each: a later flow of an inner
    /// host to that remote endpoint then gets another outer port (a Linux masquerade without input filter).
    pub keeps_uninvited: bool,
    /// Whether hosts behind the router reach each other through its outer address.
    pub hairpin: bool,
    /// Time after which the state of an unused flow is removed.
    pub lifetime: Duration,
}

/// A router of the simulated Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Router {
    /// Behaviour of the router.
    pub rules: Rules,
    /// Address on the router's outer side.
    pub outer: IpAddr,
    flows: BTreeMap<(SocketAddr, SocketAddr), Flow>,
    /// Uninvited datagrams that were accepted: outer port, remote endpoint and time.
    uninvited: BTreeMap<(u16, SocketAddr), Time>,
    /// Outer ports that a gateway daemon has made the router forward, each with the inner endpoint and the time when
    /// that ends.
    forwarded: BTreeMap<u16, (SocketAddr, Time)>,
    drawn: u32,
    seed: u64,
}

/// State of the flow from one inner endpoint to one remote endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flow {
    outer: SocketAddr,
    last: Time,
}

/// Time for which Linux keeps the connection-tracking entry of an unanswered datagram.
const UNINVITED_KEPT: Duration = Duration::from_secs(30);

impl Router {
    /// Returns a router without flows; `seed` determines its random ports.
    #[must_use]
    pub const fn new(rules: Rules, outer: IpAddr, seed: u64) -> Self {
        Self {
            rules,
            outer,
            flows: BTreeMap::new(),
            uninvited: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            drawn: 0,
            seed,
        }
    }

    /// Removes all flows and forwarded ports, as a reboot does; `outer` is the router's new address, if that changes.
    pub fn reset(&mut self, outer: Option<IpAddr>) {
        self.flows.clear();
        self.uninvited.clear();
        self.forwarded.clear();
        self.outer = outer.unwrap_or(self.outer);
    }

    /// Forwards datagrams of any sender from an outer port to an inner endpoint, until the given time; `None` ends
    /// the forwarding.
    pub fn forward(&mut self, port: u16, inner: Option<(SocketAddr, Time)>) {
        match inner {
            Some(inner) => drop(self.forwarded.insert(port, inner)),
            None => drop(self.forwarded.remove(&port)),
        }
    }

    /// Ends the forwarding of all ports to an inner endpoint.
    pub fn forward_none(&mut self, inner: SocketAddr) {
        self.forwarded.retain(|_, (to, _)| *to != inner);
    }

    /// Returns the inner endpoint to which an outer port is forwarded at present.
    #[must_use]
    pub fn forwards(&self, now: Time, port: u16) -> Option<SocketAddr> {
        self.forwarded.get(&port).filter(|(_, until)| now < *until).map(|(inner, _)| *inner)
    }

    /// Returns whether any outer port is forwarded to an inner endpoint at present.
    #[must_use]
    pub fn forwards_to(&self, now: Time, inner: SocketAddr) -> bool {
        self.forwarded.values().any(|(to, until)| *to == inner && now < *until)
    }

    /// Returns the number of stored flows.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    fn forget_old(&mut self, now: Time) {
        let lifetime = self.rules.lifetime;
        self.flows.retain(|_, f| now.since(f.last) < lifetime);
        self.uninvited.retain(|_, at| now.since(*at) < UNINVITED_KEPT);
    }

    /// Handles an outgoing datagram; returns its source as seen from outside, or `None` if it is dropped.
    pub fn outbound(&mut self, now: Time, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.forget_old(now);
        if !self.rules.udp {
            return None;
        }
        let outer = match self.flows.get(&(from, to)) {
            Some(flow) => flow.outer,
            None => self.map(from, to),
        };
        self.flows.insert((from, to), Flow { outer, last: now });
        Some(outer)
    }

    /// Returns the outer endpoint of a new flow.
    fn map(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        if !self.rules.translates {
            return from;
        }
        let same = |remote: &SocketAddr| match self.rules.mapping {
            NatBehaviour::EndpointIndependent => true,
            NatBehaviour::AddressDependent => remote.ip() == to.ip(),
            NatBehaviour::AddressAndPortDependent | NatBehaviour::Unknown => false,
        };
        let of_inner = self.flows.iter().filter(|((inner, _), _)| *inner == from);
        let shared = of_inner.filter(|((_, remote), _)| same(remote)).map(|(_, f)| f.outer.port()).next();
        let free = |port: u16| !self.uninvited.contains_key(&(port, to));
        let port = shared.filter(|p| free(*p)).unwrap_or_else(|| self.new_port(from, to));
        SocketAddr::new(self.outer, port)
    }

    /// Returns an external port for a new flow.
    fn new_port(&mut self, from: SocketAddr, to: SocketAddr) -> u16 {
        let taken = |router: &Self, port: u16| {
            router.uninvited.contains_key(&(port, to))
                || router.forwarded.get(&port).is_some_and(|(inner, _)| *inner != from)
                || router.flows.iter().any(|((inner, _), f)| *inner != from && f.outer.port() == port)
        };
        if self.rules.ports == Ports::Preserve && !taken(self, from.port()) {
            return from.port();
        }
        loop {
            self.drawn += 1;
            let port = match self.rules.ports {
                Ports::Sequential => 40_000 + u16::try_from(self.drawn % 20_000).unwrap_or(0),
                Ports::Block(size) => 20_480 + self.draw(u64::from(size)),
                Ports::Preserve | Ports::Random => 1024 + self.draw(64_511),
            };
            if port != from.port() && !taken(self, port) {
                return port;
            }
        }
    }

    /// Returns a number below `n` that depends on the seed and on the number of earlier draws (SplitMix64's mixing).
    fn draw(&self, n: u64) -> u16 {
        let mut z = self.seed ^ u64::from(self.drawn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((z ^ (z >> 31)) % n).unwrap_or(u16::MAX)
    }

    /// Handles a datagram from outside; returns the inner endpoint to which it goes, or `None` if it is dropped.
    pub fn inbound(&mut self, now: Time, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        self.forget_old(now);
        let known = |remote: &SocketAddr| match self.rules.filtering {
            NatBehaviour::EndpointIndependent => true,
            NatBehaviour::AddressDependent => remote.ip() == from.ip(),
            NatBehaviour::AddressAndPortDependent | NatBehaviour::Unknown => *remote == from,
        };
        let found = self.flows.iter().find(|((_, remote), f)| f.outer == to && known(remote)).map(|((i, _), _)| *i);
        let found = found.or_else(|| self.forwards(now, to.port()).filter(|_| to.ip() == self.outer));
        let Some(inner) = found else {
            if self.rules.keeps_uninvited {
                self.uninvited.insert((to.port(), from), now);
            }
            return None;
        };
        self.flows.insert((inner, from), Flow { outer: to, last: now });
        Some(inner)
    }

    /// Moves all times in the router back by `by`.
    pub fn rebase(&mut self, by: Duration) {
        self.flows.values_mut().for_each(|f| f.last = f.last.rebased(by));
        self.uninvited.values_mut().for_each(|at| *at = at.rebased(by));
        self.forwarded.values_mut().for_each(|(_, until)| *until = until.rebased(by));
    }
}
