//! Candidates: the addresses of an introduced peer that are tried, best first. A peer cannot make this host send to a
//! third party: an address is tried only if the CN saw the peer there, a STUN server confirmed it (checked by the
//! CN), or it is a private address and both clients have the same public one.

use super::io::{Config, Rung, Ticket};
use crate::nat::{CandidateKind, NatBehaviour, NatDescriptor, is_private};
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Returns whether a peer that the CN sees at `observed` may be tried at `addr` by a host that the CN sees at `own`.
fn is_allowed(addr: SocketAddr, nat: &NatDescriptor, observed: SocketAddr, own: Option<SocketAddr>) -> bool {
    let [ip, there] = [addr.ip(), observed.ip()].map(|ip| ip.to_canonical());
    let shared = own.is_some_and(|own| own.ip().to_canonical() == there);
    let local = shared && is_private(ip) && (!ip.is_loopback() || there.is_loopback());
    let its = ip == there || !is_private(ip) && nat.is_at(ip, there);
    addr.port() >= 1024 && !ip.is_unspecified() && !ip.is_multicast() && (its || local)
}

/// Returns the rung of the ladder on which an address of the peer is tried.
fn rung(kind: CandidateKind, addr: SocketAddr) -> Rung {
    match kind {
        _ if is_private(addr.ip()) => Rung::Lan,
        _ if addr.is_ipv6() => Rung::Ipv6,
        CandidateKind::Mapped => Rung::Mapped,
        CandidateKind::Host | CandidateKind::ServerReflexive => Rung::Reflexive,
    }
}

/// Returns whether a NAT assigns ports in sequence: each flow gets the next port.
pub(super) fn counts(nat: &NatDescriptor) -> bool {
    nat.mapping != NatBehaviour::EndpointIndependent && nat.step > 0
}

/// Returns the peer's addresses to be tried, each once, best first. If the peer's NAT assigns ports in sequence, its
/// last observed port is useless; the ports after it are tried instead, each `every`-th of them.
///
/// If both NATs assign ports in sequence, each try makes a new mapping, so the two peers must meet in one pair of
/// ports. The k-th flow of one peer leaves from port a + k and goes to port b + k, and the other's the reverse; they
/// never meet if other traffic has advanced one NAT by d ports. With `every` = 2 on one side, its k-th flow goes to
/// port b + 2k − 1, and they meet at its flow d + 1.
pub(super) fn candidates(
    cfg: &Config,
    ticket: &Ticket,
    nat: &NatDescriptor,
    own: Option<SocketAddr>,
    every: u16,
) -> Vec<(SocketAddr, Rung)> {
    let counts = counts(nat) && cfg.predicted_max > 0;
    let mut all: Vec<(SocketAddr, Rung)> = Vec::new();
    for candidate in nat.candidates.iter().filter(|c| is_allowed(c.addr, nat, ticket.observed, own)) {
        let addr = SocketAddr::new(candidate.addr.ip().to_canonical(), candidate.addr.port());
        if counts && candidate.kind == CandidateKind::ServerReflexive && addr.is_ipv4() {
            all.extend(predicted(addr, nat.step, cfg.predicted_max, every).map(|a| (a, Rung::Predicted)));
        } else {
            all.push((addr, rung(candidate.kind, addr)));
        }
    }
    all.sort_by_key(|(_, rung)| rung.number());
    let mut seen = Vec::new();
    all.retain(|(addr, _)| {
        let new = !seen.contains(addr);
        seen.push(*addr);
        new
    });
    all
}

fn predicted(last: SocketAddr, step: u16, max: u16, every: u16) -> impl Iterator<Item = SocketAddr> {
    let port = move |i: u16| last.port().checked_add(step.checked_mul(i.checked_mul(every)?.checked_add(1)?)?);
    (0..max).map_while(port).map(move |port| SocketAddr::new(last.ip(), port))
}

/// Returns the destinations of openers, datagrams with a low TTL that only open this host's own NAT. They are the
/// peer's public addresses, with all predicted ports, or with the first one only if this host's NAT `counts`, that is
/// assigns ports in sequence. Empty if the peers may share a LAN, and so a NAT.
pub(super) fn openers(cfg: &Config, all: &[(SocketAddr, Rung)], counts: bool) -> Vec<SocketAddr> {
    if cfg.openers_max == 0 || all.iter().any(|(_, rung)| *rung == Rung::Lan) {
        return Vec::new();
    }
    let predicted = |rung: Rung| rung == Rung::Predicted;
    let outside = all.iter().filter(|(_, rung)| !predicted(*rung)).take(cfg.openers_max);
    let guessed = all.iter().filter(|(_, rung)| predicted(*rung)).take(if counts { 1 } else { usize::MAX });
    outside.chain(guessed).map(|(addr, _)| *addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::List;
    use crate::nat::Candidate;

    fn addr(s: &str) -> SocketAddr {
        s.parse().expect("an address")
    }

    fn nat(all: &[(CandidateKind, &str)]) -> NatDescriptor {
        let candidates = List::truncated(all.iter().map(|(kind, a)| Candidate { kind: *kind, addr: addr(a) }));
        NatDescriptor { udp: true, mapping: NatBehaviour::EndpointIndependent, candidates, ..NatDescriptor::default() }
    }

    fn tried(nat: &NatDescriptor, observed: &str, own: &str) -> Vec<(SocketAddr, Rung)> {
        let ticket = Ticket { key: [0; 16], observed: addr(observed) };
        candidates(&Config::default(), &ticket, nat, Some(addr(own)), 1)
    }

    use CandidateKind::{Host, Mapped, ServerReflexive};

    #[test]
    fn private_addresses_are_tried_only_by_those_behind_the_same_public_one() {
        let nat = nat(&[(ServerReflexive, "203.0.113.5:4000"), (Host, "192.168.1.2:5000"), (Host, "127.0.0.1:5000")]);
        let outside = [(addr("203.0.113.5:4000"), Rung::Reflexive)];
        assert_eq!(tried(&nat, "203.0.113.5:9", "203.0.113.6:9"), outside);
        let inside = [(addr("192.168.1.2:5000"), Rung::Lan), outside[0]];
        assert_eq!(tried(&nat, "203.0.113.5:9", "203.0.113.5:8"), inside, "the LAN first, and never loopback");
        assert_eq!(openers(&Config::default(), &inside, false), [], "nothing crosses the router that both share");
        assert_eq!(openers(&Config::default(), &outside, false), [outside[0].0]);
    }

    #[test]
    fn nobody_can_aim_a_host_at_a_third_party() {
        let nat = nat(&[
            (ServerReflexive, "198.51.100.9:4000"),
            (Mapped, "203.0.113.5:53"),
            (Host, "224.0.0.1:5000"),
            (Host, "0.0.0.0:5000"),
            (Mapped, "203.0.113.5:6000"),
        ]);
        assert_eq!(tried(&nat, "203.0.113.5:9", "203.0.113.6:9"), [(addr("203.0.113.5:6000"), Rung::Mapped)]);
    }

    #[test]
    fn an_address_that_a_stun_server_vouches_for_is_tried_too() {
        let mut nat = nat(&[(Host, "[2001:db8::5]:4000"), (Host, "[2001:db8::6]:4000"), (Host, "10.0.0.1:4000")]);
        let proven = |s| crate::nat::cookie::Proven { addr: addr(s), cookie: None };
        nat.proven = List::truncated([proven("[2001:db8::5]:4000"), proven("10.0.0.1:4000")]);
        assert_eq!(tried(&nat, "203.0.113.5:9", "203.0.113.6:9"), [(addr("[2001:db8::5]:4000"), Rung::Ipv6)]);
    }

    #[test]
    fn of_a_nat_that_counts_the_next_ports_are_tried() {
        let mut nat = nat(&[(ServerReflexive, "203.0.113.5:40000"), (Mapped, "203.0.113.5:6000")]);
        nat.mapping = NatBehaviour::AddressAndPortDependent;
        nat.step = 2;
        let all = tried(&nat, "203.0.113.5:9", "203.0.113.6:9");
        assert_eq!(all[..2], [(addr("203.0.113.5:6000"), Rung::Mapped), (addr("203.0.113.5:40002"), Rung::Predicted)]);
        assert_eq!(all.len(), 17);
        assert_eq!(openers(&Config::default(), &all, true), [addr("203.0.113.5:6000"), addr("203.0.113.5:40002")]);
        assert_eq!(openers(&Config::default(), &all, false).len(), 17, "no mapping of the own NAT is lost");
        let ticket = Ticket { key: [0; 16], observed: addr("203.0.113.5:9") };
        let every_second = candidates(&Config::default(), &ticket, &nat, None, 2);
        let ports: Vec<u16> = every_second.iter().skip(1).take(3).map(|(a, _)| a.port()).collect();
        assert_eq!(ports, [40002, 40006, 40010]);
        nat.candidates = List::truncated([Candidate { kind: ServerReflexive, addr: addr("203.0.113.5:65533") }]);
        assert_eq!(tried(&nat, "203.0.113.5:9", "203.0.113.6:9").len(), 1, "there are no ports past the last");
    }
}
