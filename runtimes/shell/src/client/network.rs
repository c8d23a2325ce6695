//! What the client tells of its way to the Internet: observed with STUN on the QUIC socket itself, never more open than
//! observed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use swarmedge_core::limits;
use swarmedge_core::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use swarmedge_core::wire::List;

/// One STUN answer: which server saw the socket where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) server: SocketAddr,
    pub(super) mapped: SocketAddr,
}

/// The descriptor that `seen` supports. `hosts` are this host's own addresses of the QUIC socket.
pub(super) fn describe(epoch: u32, hosts: &[SocketAddr], seen: &[Seen]) -> NatDescriptor {
    let unmapped = |s: &Seen| hosts.contains(&s.mapped);
    let mapping = if !seen.is_empty() && seen.iter().all(unmapped) {
        // no NAT on the way
        NatBehaviour::EndpointIndependent
    } else {
        mapping(seen)
    };
    // nothing filters the way from a host to itself; of others nothing was observed
    let loopback = !seen.is_empty() && seen.iter().all(|s| s.mapped.ip().is_loopback());
    let filtering = if loopback { NatBehaviour::EndpointIndependent } else { NatBehaviour::Unknown };
    let mut candidates: Vec<Candidate> = Vec::new();
    let host = hosts.iter().map(|&addr| Candidate { kind: CandidateKind::Host, addr });
    let reflexive = seen.iter().map(|s| Candidate { kind: CandidateKind::ServerReflexive, addr: s.mapped });
    for candidate in host.chain(reflexive) {
        let known = candidates.iter().any(|c| c.addr == candidate.addr);
        if !known && candidates.len() < limits::CANDIDATES_MAX {
            candidates.push(candidate);
        }
    }
    let candidates = List::new(candidates).unwrap_or_default();
    NatDescriptor {
        epoch,
        udp: !seen.is_empty(),
        mapping,
        filtering,
        v4: seen.iter().any(|s| s.mapped.is_ipv4()),
        candidates,
        ..NatDescriptor::default()
    }
}

/// RFC 4787 §4.1, from what servers saw. Only servers at different addresses can show independence.
fn mapping(seen: &[Seen]) -> NatBehaviour {
    let v4: Vec<_> = seen.iter().filter(|s| s.mapped.is_ipv4()).collect();
    let Some((first, rest)) = v4.split_first() else { return NatBehaviour::Unknown };
    if rest.iter().any(|s| s.mapped != first.mapped) {
        return NatBehaviour::AddressAndPortDependent;
    }
    let elsewhere = rest.iter().any(|s| s.server.ip() != first.server.ip());
    if elsewhere { NatBehaviour::EndpointIndependent } else { NatBehaviour::Unknown }
}

/// This host's own addresses on the ways to `servers`, with the QUIC socket's port. The system says which address a way
/// begins with when a UDP socket is connected; nothing is sent.
pub(super) fn hosts(bound: SocketAddr, servers: &[SocketAddr]) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let mut hosts = Vec::new();
    for ip in servers.iter().filter_map(|&server| way_to(server).ok()) {
        let host = SocketAddr::new(ip, bound.port());
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn way_to(server: SocketAddr) -> io::Result<std::net::IpAddr> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(server)?;
    socket.local_addr().map(|addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn seen(server: &str, mapped: &str) -> Seen {
        Seen { server: addr(server), mapped: addr(mapped) }
    }

    #[test]
    fn silence_claims_nothing() {
        let d = describe(1, &[addr("192.168.1.5:4000")], &[]);
        assert!(!d.udp);
        assert_eq!((d.mapping, d.filtering), (NatBehaviour::Unknown, NatBehaviour::Unknown));
        assert_eq!(d.candidates.len(), 1);
    }

    #[test]
    fn an_address_that_arrives_unchanged_has_no_nat_and_only_loopback_has_no_filter() {
        let here = describe(1, &[addr("127.0.0.1:4000")], &[seen("127.0.0.1:3478", "127.0.0.1:4000")]);
        assert_eq!(
            (here.mapping, here.filtering),
            (NatBehaviour::EndpointIndependent, NatBehaviour::EndpointIndependent)
        );
        assert_eq!(here.candidates.len(), 1, "the same address twice is one candidate");
        let open = describe(1, &[addr("203.0.113.9:4000")], &[seen("198.51.100.1:3478", "203.0.113.9:4000")]);
        assert_eq!((open.mapping, open.filtering), (NatBehaviour::EndpointIndependent, NatBehaviour::Unknown));
    }

    #[test]
    fn a_mapping_is_independent_only_if_servers_at_two_addresses_agree() {
        let host = [addr("192.168.1.5:4000")];
        let of = |all: &[Seen]| describe(1, &host, all).mapping;
        let one = seen("198.51.100.1:3478", "203.0.113.9:7000");
        assert_eq!(of(&[one]), NatBehaviour::Unknown);
        assert_eq!(of(&[one, seen("198.51.100.1:3479", "203.0.113.9:7000")]), NatBehaviour::Unknown);
        assert_eq!(of(&[one, seen("198.51.100.2:3478", "203.0.113.9:7000")]), NatBehaviour::EndpointIndependent);
        let moved = seen("198.51.100.2:3478", "203.0.113.9:7001");
        assert_eq!(of(&[one, moved]), NatBehaviour::AddressAndPortDependent);
    }

    #[test]
    fn a_bound_address_is_the_only_host_address() {
        let servers = [addr("127.0.0.1:3478")];
        assert_eq!(hosts(addr("127.0.0.2:9"), &servers), [addr("127.0.0.2:9")]);
        assert_eq!(hosts(addr("0.0.0.0:9"), &servers), [addr("127.0.0.1:9")]);
    }
}
