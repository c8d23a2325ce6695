use super::*;
use std::collections::BTreeSet;
use swarmedge_core::nat::NatBehaviour::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};

const TTL: u8 = 64;
const NOW: Time = Time(0);

/// Simulated Internet with two servers of two ports each, as RFC 5780 requires, and one host behind a NAT.
struct Lab {
    net: Internet,
    servers: [HostIx; 2],
    host: HostIx,
    local: SocketAddr,
}

fn lab(kind: Kind) -> Lab {
    let mut net = Internet::default();
    let servers = [1, 2].map(|n| net.add_host(std::vec![Ipv4Addr::new(198, 51, 100, n).into()], None));
    let host = net.add_site(kind, 10);
    let local = SocketAddr::new(net.addr(host), 5000);
    Lab { net, servers, host, local }
}

impl Lab {
    fn server(&self, n: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.net.addr(self.servers[n]), port)
    }

    /// Sends a datagram to a server; returns the source address that the server sees.
    fn ask(&mut self, n: usize, port: u16) -> Option<SocketAddr> {
        let to = self.server(n, port);
        self.net.send(NOW, self.host, self.local, to, TTL).map(|a| a.from)
    }

    /// Returns whether a datagram from port `port` of server `n` to `to` reaches the host.
    fn answer(&mut self, n: usize, port: u16, to: SocketAddr) -> bool {
        let from = self.server(n, port);
        self.net.send(NOW, self.servers[n], from, to, TTL).is_some_and(|a| (a.host, a.to) == (self.host, self.local))
    }

    /// Returns the mapping and filtering behaviour as RFC 5780 §4.3 and §4.4 determine them; `None` without UDP.
    fn classify(&mut self) -> Option<(NatBehaviour, NatBehaviour)> {
        let first = self.ask(0, 3478)?;
        assert!(self.answer(0, 3478, first), "an answer from where it was asked always comes");
        let filtering = match (self.answer(1, 3479, first), self.answer(0, 3479, first)) {
            (true, _) => EndpointIndependent,
            (false, true) => AddressDependent,
            (false, false) => AddressAndPortDependent,
        };
        let mapping = if self.ask(1, 3478)? == first {
            EndpointIndependent
        } else if self.ask(0, 3479)? == first {
            AddressDependent
        } else {
            AddressAndPortDependent
        };
        Some((mapping, filtering))
    }
}

#[test]
fn every_kind_maps_and_filters_as_the_lab_found_it() {
    for kind in Kind::ALL {
        let unknown = (NatBehaviour::Unknown, NatBehaviour::Unknown);
        assert_eq!(lab(kind).classify().unwrap_or(unknown), kind.behaviour(), "{}", kind.name());
    }
}

#[test]
fn ports_are_kept_counted_or_drawn_as_the_kind_says() {
    let ports = |kind: Kind| -> Vec<u16> {
        let mut lab = lab(kind);
        (0..4).map(|i| lab.ask(i % 2, 3478 + u16::try_from(i).expect("small")).expect("UDP works").port()).collect()
    };
    for kind in [Kind::Public, Kind::FullCone, Kind::Restricted, Kind::PortRestricted, Kind::Firewall] {
        assert_eq!(ports(kind), [5000; 4], "{}", kind.name());
    }
    let fixed = ports(Kind::PortRestrictedRandom);
    assert!(fixed.iter().all(|p| *p == fixed[0] && *p != 5000), "{fixed:?}");
    let steps = ports(Kind::SymmetricSequential);
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "{steps:?}");
    let wild: BTreeSet<u16> = ports(Kind::Symmetric).into_iter().collect();
    assert!(wild.len() == 4 && wild.iter().next_back() > wild.iter().next().map(|p| p + 64).as_ref(), "{wild:?}");
}

#[test]
fn an_entry_that_is_not_used_is_forgotten() {
    let mut lab = lab(Kind::PortRestricted);
    let seen = lab.ask(0, 3478).expect("UDP works");
    let from = lab.server(0, 3478);
    let (server, late) = (lab.servers[0], NOW.after(Duration::from_secs(120)));
    assert!(lab.net.send(late, server, from, seen, TTL).is_none());
}

#[test]
fn an_early_datagram_poisons_an_open_masquerade_and_no_other() {
    for (kind, poisoned) in [(Kind::MasqueradeOpen, true), (Kind::PortRestricted, false), (Kind::FullCone, false)] {
        let mut lab = lab(kind);
        let before = lab.ask(0, 3478).expect("UDP works");
        assert_eq!(before.port(), 5000);
        let early = lab.server(1, 3478);
        lab.net.send(NOW, lab.servers[1], early, before, TTL);
        assert_eq!(lab.ask(1, 3478) != Some(before), poisoned, "{}", kind.name());
    }
}

#[test]
fn a_low_ttl_opens_the_own_nat_and_never_arrives() {
    let mut lab = lab(Kind::MasqueradeOpen);
    let (to, outer) = (lab.server(1, 3478), SocketAddr::new(Ipv4Addr::new(203, 0, 113, 10).into(), 5000));
    assert!(lab.net.send(NOW, lab.host, lab.local, to, 2).is_none());
    assert!(lab.answer(1, 3478, outer), "the way is open");
    assert_eq!(lab.ask(1, 3478), Some(outer), "and not poisoned");
}

#[test]
fn inner_hosts_meet_by_the_outer_address_only_with_hairpinning() {
    for hairpin in [false, true] {
        let mut net = Internet::default();
        let rules = Rules { hairpin, ..Kind::FullCone.routers()[0] };
        let outer = Ipv4Addr::new(203, 0, 113, 9);
        let router = net.add_router(rules, outer.into(), None);
        let hosts = [2, 3].map(|n| net.add_host(std::vec![Ipv4Addr::new(192, 168, 0, n).into()], Some(router)));
        let [a, b] = hosts.map(|h| SocketAddr::new(net.addr(h), 5000 + u16::try_from(h).expect("small")));
        assert_eq!(net.send(NOW, hosts[0], a, b, 1).map(|x| (x.host, x.from)), Some((hosts[1], a)));
        let server = SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), 1);
        net.send(NOW, hosts[1], b, server, TTL);
        let there = SocketAddr::new(outer.into(), b.port());
        let came = net.send(NOW, hosts[0], a, there, TTL);
        assert_eq!(came.map(|x| (x.host, x.from.ip())), hairpin.then_some((hosts[1], outer.into())));
    }
}

#[test]
fn a_reset_router_has_another_address_and_lets_nothing_in() {
    let mut lab = lab(Kind::FullCone);
    let before = lab.ask(0, 3478).expect("UDP works");
    let router = lab.net.router_of(lab.host).expect("behind one");
    lab.net.router_mut(router).reset(Some(Ipv4Addr::new(203, 0, 113, 77).into()));
    assert!(!lab.answer(0, 3478, before));
    assert_eq!(lab.ask(0, 3478).map(|a| a.ip()), Some(Ipv4Addr::new(203, 0, 113, 77).into()));
}
