//! A small Internet of simulated NATs, of the same kinds as the NAT lab's real ones, as one value: hosts behind chains
//! of routers, and the routing of datagrams between them. It has no time of its own and no sockets.

mod gateway;
mod kind;
mod router;

#[cfg(test)]
mod tests;

pub use gateway::{Gateway, Offers, Truth};
pub use kind::{Expect, Kind, expected};
pub use router::{Ports, Router, Rules};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::machine::Time;

/// Index of a host in the network.
pub type HostIx = usize;
/// Index of a router in the network.
pub type RouterIx = usize;

/// Hosts and routers, connected by a core network that costs one hop of a datagram's TTL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Internet {
    hosts: Vec<Host>,
    routers: Vec<(Router, Option<RouterIx>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    addrs: Vec<IpAddr>,
    behind: Option<RouterIx>,
}

/// Datagram that has reached a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// Host that receives the datagram.
    pub host: HostIx,
    /// Source address as the host sees it.
    pub from: SocketAddr,
    /// Endpoint of the host that receives it.
    pub to: SocketAddr,
}

/// Owner of an address on a network segment (the core, or the inside of a router).
#[derive(Clone, Copy)]
enum Owner {
    Host(HostIx),
    Router(RouterIx),
}

impl Internet {
    /// Adds a router behind the router `parent`, or on the core if `None`; returns its index.
    pub fn add_router(&mut self, rules: Rules, outer: IpAddr, parent: Option<RouterIx>) -> RouterIx {
        let seed = 0x5eed + self.routers.len() as u64;
        self.routers.push((Router::new(rules, outer, seed), parent));
        self.routers.len() - 1
    }

    /// Adds a host with these addresses behind a router, or on the core if `None`; returns its index.
    pub fn add_host(&mut self, addrs: Vec<IpAddr>, behind: Option<RouterIx>) -> HostIx {
        self.hosts.push(Host { addrs, behind });
        self.hosts.len() - 1
    }

    /// Adds a site of this kind with one host. Sites differ by `n`: the public address is 203.0.113.`n`, a private one
    /// 192.168.`n`.2, a carrier's 100.64.`n`.2.
    pub fn add_site(&mut self, kind: Kind, n: u8) -> HostIx {
        let public = IpAddr::V4(Ipv4Addr::new(203, 0, 113, n));
        let mut behind = None;
        let rules = kind.routers();
        let depth = rules.len();
        for (i, rules) in rules.into_iter().enumerate().rev() {
            let outer = if i + 1 == depth { public } else { Ipv4Addr::new(100, 64, n, 2).into() };
            behind = Some(self.add_router(rules, outer, behind));
        }
        let own =
            if matches!(kind, Kind::Public | Kind::Firewall) { public } else { Ipv4Addr::new(192, 168, n, 2).into() };
        self.add_host(std::vec![own], behind)
    }

    /// Gives the site of a host another public address; its routers forget all flows.
    pub fn move_site(&mut self, host: HostIx, public: IpAddr) {
        let (mut next, mut outermost) = (self.hosts[host].behind, None);
        while let Some(ix) = next {
            self.routers[ix].0.reset(None);
            (outermost, next) = (Some(ix), self.routers[ix].1);
        }
        match outermost.map(|ix| &mut self.routers[ix].0).filter(|router| router.rules.translates) {
            Some(router) => router.reset(Some(public)),
            None => self.hosts[host].addrs = std::vec![public],
        }
    }

    /// Returns a host's first address.
    #[must_use]
    pub fn addr(&self, host: HostIx) -> IpAddr {
        self.hosts[host].addrs[0]
    }

    /// Returns the router next to a host; `None` for a host on the core.
    #[must_use]
    pub fn router_of(&self, host: HostIx) -> Option<RouterIx> {
        self.hosts[host].behind
    }

    /// Returns the router with this index.
    #[must_use]
    pub fn router(&self, ix: RouterIx) -> &Router {
        &self.routers[ix].0
    }

    /// Returns the router with this index, to be changed.
    pub fn router_mut(&mut self, ix: RouterIx) -> &mut Router {
        &mut self.routers[ix].0
    }

    /// Sends a datagram from a host's endpoint; returns its arrival, or `None` if it is dropped.
    pub fn send(&mut self, now: Time, host: HostIx, from: SocketAddr, to: SocketAddr, ttl: u8) -> Option<Arrival> {
        let (mut from, mut ttl, mut segment) = (from, ttl, self.hosts.get(host)?.behind);
        loop {
            if segment.is_none() {
                ttl = ttl.checked_sub(1).filter(|t| *t > 0)?;
            }
            if let Some(owner) = self.owner(segment, to.ip()) {
                return self.descend(now, owner, (from, to), ttl);
            }
            let ix = segment?;
            ttl = ttl.checked_sub(1).filter(|t| *t > 0)?;
            let (router, parent) = &mut self.routers[ix];
            from = router.outbound(now, from, to)?;
            if router.rules.translates && router.outer == to.ip() {
                let hairpin = router.rules.hairpin;
                return if hairpin { self.descend(now, Owner::Router(ix), (from, to), ttl) } else { None };
            }
            segment = *parent;
        }
    }

    /// Returns the host or router that has the address `ip` on a segment: the inside of a router, or the core if
    /// `None`.
    fn owner(&self, segment: Option<RouterIx>, ip: IpAddr) -> Option<Owner> {
        let host = self.hosts.iter().position(|h| h.behind == segment && h.addrs.contains(&ip));
        let behind = |r: RouterIx| self.hosts.iter().any(|h| h.behind == Some(r) && h.addrs.contains(&ip));
        let routes = |(ix, (router, parent)): (RouterIx, &(Router, Option<RouterIx>))| {
            let its = if router.rules.translates { router.outer == ip } else { behind(ix) };
            (*parent == segment && its).then_some(Owner::Router(ix))
        };
        host.map(Owner::Host).or_else(|| self.routers.iter().enumerate().find_map(routes))
    }

    fn descend(&mut self, now: Time, at: Owner, (from, to): (SocketAddr, SocketAddr), ttl: u8) -> Option<Arrival> {
        match at {
            Owner::Host(host) => Some(Arrival { host, from, to }),
            Owner::Router(ix) => {
                let inner = self.routers[ix].0.inbound(now, from, to)?;
                // only forwarded datagrams cost a hop: a router accepts datagrams for itself with any TTL
                let ttl = ttl.checked_sub(1).filter(|t| *t > 0)?;
                let owner = self.owner(Some(ix), inner.ip())?;
                self.descend(now, owner, (from, inner), ttl)
            }
        }
    }

    /// Moves all times in the routers back by `by`.
    pub fn rebase(&mut self, by: Duration) {
        self.routers.iter_mut().for_each(|(r, _)| r.rebase(by));
    }
}
