//! Plan of a lab: names and addresses, computed before anything is built.

use crate::Kind;
use crate::run::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Maximum number of sites in a lab.
pub const SITES_MAX: usize = 100;
/// Maximum number of peers on one LAN.
pub const PEERS_MAX: u8 = 50;

/// Description of a lab to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the lab, which then stays when this process ends. `None`: a unique temporary name; dropping the lab
    /// removes it.
    pub name: Option<String>,
    /// Servers on the core, with the number of addresses of each.
    pub servers: Vec<(String, u8)>,
    /// Routers with peers behind them.
    pub sites: Vec<Site>,
}

/// A router (none for [`Kind::Public`]) and the peers on its LAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Name of the site's peer; of several peers, the prefix of `NAME-1`, `NAME-2`, …. The home router is called
    /// `NAME-nat`, a carrier's router `NAME-isp`.
    pub name: String,
    /// Kind of NAT between the peers and the Internet.
    pub kind: Kind,
    /// Number of peers on the LAN.
    pub peers: u8,
    /// Whether peers reach each other through the outside address (RFC 4787 REQ-9).
    pub hairpin: bool,
    /// IPv6 at the site, in addition to IPv4.
    pub ipv6: Ipv6,
    /// Rate of the uplink in Mbit/s, both ways; `None`: as fast as the machine.
    pub rate_mbit: Option<u32>,
}

/// IPv6 at a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// No IPv6 addresses at all.
    #[default]
    None,
    /// Global IPv6 addresses without a filter.
    Open,
    /// Global IPv6 addresses behind a stateful filter.
    Firewall,
}

impl Site {
    /// Creates a site with one peer behind a router of this kind.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, peers: 1, hairpin: false, ipv6: Ipv6::None, rate_mbit: None }
    }

    /// Returns the names of the site's peers.
    #[must_use]
    pub fn peer_names(&self) -> Vec<String> {
        if self.peers == 1 {
            return vec![self.name.clone()];
        }
        (1..=self.peers).map(|n| format!("{}-{n}", self.name)).collect()
    }

    /// Returns the names of the site's routers, the one next to the peers first.
    #[must_use]
    pub fn router_names(&self) -> Vec<String> {
        match self.kind {
            Kind::Public => Vec::new(),
            Kind::Cgnat | Kind::CgnatSymmetric => vec![format!("{}-nat", self.name), format!("{}-isp", self.name)],
            Kind::FullCone
            | Kind::Restricted
            | Kind::PortRestricted
            | Kind::PortRestrictedRandom
            | Kind::Symmetric
            | Kind::SymmetricSequential
            | Kind::Firewall
            | Kind::UdpBlocked
            | Kind::MasqueradeOpen => vec![format!("{}-nat", self.name)],
        }
    }
}

impl Default for Plan {
    /// Returns a plan without sites, with the servers `edge`, `cn`, `dn`, and `stun` (which has two addresses).
    fn default() -> Self {
        let servers = [("edge", 1), ("cn", 1), ("dn", 1), ("stun", 2)];
        let servers = servers.map(|(name, addresses)| (name.to_owned(), addresses)).to_vec();
        Self { name: None, servers, sites: Vec::new() }
    }
}

impl Plan {
    /// Adds a peer behind a router of its own.
    #[must_use]
    pub fn site(self, name: &str, kind: Kind) -> Self {
        self.with(Site::new(name, kind))
    }

    /// Adds a site to the plan.
    #[must_use]
    pub fn with(mut self, site: Site) -> Self {
        self.sites.push(site);
        self
    }

    /// Checks that the plan can be built; the error says in words why not.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |text: String| Err(Error::new(text));
        if self.sites.len() > SITES_MAX {
            return fail(format!("{} sites are too many: {SITES_MAX} at most", self.sites.len()));
        }
        let mut names: BTreeSet<String> = BTreeSet::from(["core".into()]);
        let servers = self.servers.iter().map(|(name, _)| name.clone());
        let sites = self.sites.iter().flat_map(|s| [s.peer_names(), s.router_names()].concat());
        for name in servers.chain(sites) {
            let proper = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 40 || !name.chars().all(proper) {
                return fail(format!("{name:?} is no name: up to 40 lower-case letters, digits and hyphens"));
            }
            if !names.insert(name.clone()) {
                return fail(format!("two nodes would be called {name:?}"));
            }
        }
        for s in &self.sites {
            let shared = !matches!(s.kind, Kind::Public | Kind::Firewall);
            if s.peers == 0 || s.peers > PEERS_MAX || (s.kind == Kind::Public && s.peers > 1) {
                return fail(format!("{}: a {} site cannot have {} peers", s.name, s.kind, s.peers));
            }
            if s.hairpin && (!shared || s.kind.mapping() != crate::Behaviour::EndpointIndependent) {
                return fail(format!("{}: a {} router cannot hairpin", s.name, s.kind));
            }
        }
        Ok(())
    }
}

/// Addresses of all nodes of a lab. `n` is the site's number, from 1.
pub(crate) mod address {
    use super::{Ipv4Addr, Ipv6Addr};

    /// IPv4 address of the core's end of every link.
    pub(crate) const CORE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// IPv6 address of the core's end of every link, and of each router on its LAN.
    pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    /// IPv4 network of the servers.
    pub(crate) const SERVERS: &str = "198.51.100.0/24";
    pub(crate) const SERVERS6: &str = "2001:db8:fffe::/64";

    pub(crate) const fn server(i: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 10 + i)
    }

    pub(crate) const fn server6(i: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xfffe, 0, 0, 0, 0, 0x10 + i as u16)
    }

    /// Returns a site's public IPv4 address after it has changed `moved` times.
    pub(crate) const fn outside(n: u8, moved: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, if moved.is_multiple_of(2) { n } else { 100 + n })
    }

    /// Returns a site's public IPv4 address while a gateway daemon runs there. Such daemons refuse to work on
    /// documentation addresses, so it is an arbitrary public one; no packet leaves the lab.
    pub(crate) const fn routable(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(11, 0, 113, n)
    }

    pub(crate) const fn outside6(n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, n as u16)
    }

    /// Returns an address on a home's LAN; host 1 is the router. Behind a firewall without translation (`routed`) the
    /// LAN has a public prefix.
    pub(crate) const fn lan(n: u8, host: u8, routed: bool) -> Ipv4Addr {
        if routed { Ipv4Addr::new(198, 18, n, host) } else { Ipv4Addr::new(192, 168, n, host) }
    }

    pub(crate) const fn lan6(n: u8, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, n as u16, 0, 0, 0, 0, host as u16)
    }

    /// Returns an address on a carrier's LAN (RFC 6598); host 1 is the carrier's NAT, host 2 the home router.
    pub(crate) const fn carrier(n: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(100, 64, n, host)
    }

    /// Returns an address on a carrier's IPv6 link to the home.
    pub(crate) const fn carrier6(n: u8, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x1000 + n as u16, 0, 0, 0, 0, host as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_plan_is_refused_with_a_reason() {
        let wrong = |plan: Plan| plan.check().expect_err("refused").to_string();
        assert!(wrong(Plan::default().site("edge", Kind::Public)).contains("two nodes"));
        assert!(wrong(Plan::default().site("A b", Kind::Public)).contains("is no name"));
        let two = Site { peers: 2, ..Site::new("x", Kind::Public) };
        assert!(wrong(Plan::default().with(two)).contains("2 peers"));
        let hairpin = Site { hairpin: true, ..Site::new("x", Kind::Symmetric) };
        assert!(wrong(Plan::default().with(hairpin)).contains("cannot hairpin"));
        let all = Kind::ALL.iter().fold(Plan::default(), |p, k| p.site(k.name(), *k));
        assert_eq!(all.check(), Ok(()));
    }
}
