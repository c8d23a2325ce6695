//! NAT traversal: STUN messages, the description of a client's NAT and network path, hole punching, and which pairs
//! of clients can connect.

pub mod broker;
mod class;
pub mod connectivity;
pub mod cookie;
pub mod discovery;
pub mod gatherer;
pub mod mapping;
pub mod stun;

pub use class::Class;

use crate::codec::List;
use crate::limits;
use class::Udp;
use cookie::Proven;
use core::net::{IpAddr, SocketAddr};

crate::wire! {
    /// Behaviour of a NAT in assigning external ports (mapping) or in letting packets in (filtering) (RFC 4787 §4.1,
    /// §5).
    pub enum NatBehaviour {
        /// Unknown behaviour; treated as the strictest.
        Unknown = 0,
        /// Same mapping or filter for every remote endpoint.
        EndpointIndependent = 1,
        /// Separate mapping or filter for each remote address.
        AddressDependent = 2,
        /// Separate mapping or filter for each remote address and port.
        AddressAndPortDependent = 3,
    }
}
impl Copy for NatBehaviour {}

/// Transport protocol of a connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// UDP, which carries QUIC connections.
    Udp,
    /// TCP, which carries TLS with this project's streams ([`crate::mux`]).
    Tcp,
}

crate::wire! {
    /// Client's description of its NAT and network path, as observed with STUN servers, for other clients and the DN.
    pub struct NatDescriptor {
        /// Number that rises with each change; an older descriptor never replaces a newer one.
        pub epoch: u32,
        /// Whether UDP works: a STUN server's answer has arrived.
        pub udp: bool,
        /// Mapping behaviour (IPv4); without a NAT it is endpoint-independent.
        pub mapping: NatBehaviour,
        /// Filtering behaviour (IPv4), of NATs and firewalls alike.
        pub filtering: NatBehaviour,
        /// Distance between the ports of successive mappings, 1 to 16, if the mapping is not endpoint-independent; 0 if
        /// unpredictable.
        pub step: u16,
        /// Whether UDP over IPv4 works.
        pub v4: bool,
        /// Reachability of the client over IPv6.
        pub v6: Ipv6Reach,
        /// Whether two hosts behind the same NAT reach each other by their mapped addresses.
        pub hairpin: bool,
        /// Whether outgoing TCP connections to port 443 succeed.
        pub tcp443: bool,
        /// Whether outgoing TCP connections to a port other than 443 succeed.
        pub tcp_out: bool,
        /// Whether the user permits birthday probing: many ports of a peer, or many own sockets.
        pub birthday: bool,
        /// Addresses at which peers can try the QUIC socket, best first.
        pub candidates: List<Candidate, { limits::CANDIDATES_MAX }>,
        /// Addresses at which STUN servers saw the QUIC socket, with their cookies.
        pub proven: List<Proven, { limits::PROVEN_MAX }>,
        /// External addresses and ports of listening TCP ports to which a server, not contacted before, could
        /// connect.
        pub doors: List<SocketAddr, { limits::DOORS_MAX }>,
        /// External address and port of the first listening TCP port, if servers at two addresses see the same, so
        /// that a simultaneous TCP open with it succeeds.
        pub crossing: Option<SocketAddr>,
    }

    /// One address of a peer's QUIC socket.
    pub struct Candidate {
        /// Source from which the address was learned.
        pub kind: CandidateKind,
        /// Address and port of the socket.
        pub addr: SocketAddr,
    }
}

crate::wire! {
    /// Reachability of a host over IPv6.
    pub enum Ipv6Reach {
        /// Unreachable over IPv6, or nothing was observed.
        None = 0,
        /// Reachable only by hosts to which it has sent packets.
        Firewalled = 1,
        /// Reachable over IPv6 by anyone.
        Open = 2,
    }
}
impl Copy for Ipv6Reach {}

crate::wire! {
    /// Source from which a candidate was learned (RFC 8445 §5.1.1).
    pub enum CandidateKind {
        /// An address of the host itself.
        Host = 1,
        /// Address seen by a STUN server.
        ServerReflexive = 2,
        /// External port opened by PCP, NAT-PMP or UPnP.
        Mapped = 3,
    }
}
impl Copy for CandidateKind {}

impl Default for NatDescriptor {
    fn default() -> Self {
        Self {
            epoch: 0,
            udp: false,
            mapping: NatBehaviour::Unknown,
            filtering: NatBehaviour::Unknown,
            step: 0,
            v4: false,
            v6: Ipv6Reach::None,
            hairpin: false,
            tcp443: false,
            tcp_out: false,
            birthday: false,
            candidates: List::default(),
            proven: List::default(),
            doors: List::default(),
            crossing: None,
        }
    }
}

impl NatDescriptor {
    /// Returns the IPv4 address and port at which STUN servers see the QUIC socket, the newest if they differ.
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        let reflexive = |c: &&Candidate| c.kind == CandidateKind::ServerReflexive && c.addr.is_ipv4();
        self.candidates.iter().find(reflexive).map(|c| c.addr)
    }

    /// Returns the external address and port that the router forwards to the QUIC socket, if the address is the one
    /// that STUN servers see.
    #[must_use]
    pub fn forwarded(&self) -> Option<SocketAddr> {
        let seen = self.mapped()?.ip();
        self.candidates.iter().find(|c| c.kind == CandidateKind::Mapped && c.addr.ip() == seen).map(|c| c.addr)
    }

    /// Returns the effective mapping behaviour; a forwarded port counts as endpoint-independent.
    #[must_use]
    pub fn maps(&self) -> NatBehaviour {
        if self.forwarded().is_some() { NatBehaviour::EndpointIndependent } else { self.mapping }
    }

    /// Returns the effective filtering behaviour: a forwarded port lets in packets of every sender.
    #[must_use]
    pub fn filters(&self) -> NatBehaviour {
        if self.forwarded().is_some() { NatBehaviour::EndpointIndependent } else { self.filtering }
    }

    /// Returns the distance between the ports that the NAT assigns successively; 0 if unpredictable, or if a port is
    /// forwarded.
    #[must_use]
    pub fn steps(&self) -> u16 {
        if self.forwarded().is_some() { 0 } else { self.step }
    }

    /// Returns whether `ip` is an address of this client: the one at which its CN sees it (`observed`), or one that a
    /// STUN server confirmed.
    #[must_use]
    pub fn is_at(&self, ip: IpAddr, observed: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip == observed.to_canonical() || self.proven.iter().any(|p| p.addr.ip().to_canonical() == ip)
    }

    /// Returns whether the client's outgoing TCP connections to this port are known to succeed.
    fn gets_out(&self, port: u16) -> bool {
        self.tcp_out || port == HTTPS && self.tcp443
    }

    /// Replaces STUN servers' cookies by newer ones for the same addresses.
    pub fn renew(&mut self, proven: &[Proven]) {
        let issued = |p: &Proven| p.cookie.as_ref().map(|c| c.issued_s);
        let mut own = core::mem::take(&mut self.proven).into_vec();
        for p in &mut own {
            if let Some(newer) = proven.iter().find(|n| n.addr == p.addr && issued(n) > issued(p)) {
                p.cookie.clone_from(&newer.cookie);
            }
        }
        self.proven = List::truncated(own);
    }
}

/// Returns whether the NAT is known to assign each flow an unpredictable port.
#[must_use]
pub fn draws_ports(nat: &NatDescriptor) -> bool {
    let depends = matches!(nat.maps(), NatBehaviour::AddressDependent | NatBehaviour::AddressAndPortDependent);
    depends && nat.steps() == 0
}

/// Returns whether the NAT lets in only addresses and ports to which its client has sent, or its filtering is
/// unknown.
#[must_use]
pub fn filters_by_port(nat: &NatDescriptor) -> bool {
    !matches!(nat.filters(), NatBehaviour::EndpointIndependent | NatBehaviour::AddressDependent)
}

/// Returns whether two clients behind different public addresses can connect over UDP and IPv4, by their descriptors.
#[must_use]
pub fn can_connect(a: &NatDescriptor, b: &NatDescriptor) -> bool {
    Udp::of(a, a.maps()).meets(Udp::of(b, b.maps()))
}

/// TCP port of HTTPS, to which almost every network allows connections.
pub const HTTPS: u16 = 443;

/// Returns whether others may open TCP connections to `addr` as an address of this client: its IP address is the
/// client's own, and its port is 443 or not below 1024.
fn is_door(addr: SocketAddr, nat: &NatDescriptor, observed: IpAddr) -> bool {
    let ip = addr.ip().to_canonical();
    (addr.port() >= 1024 || addr.port() == HTTPS)
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && nat.is_at(ip, observed)
}

/// Returns the addresses and ports at which `from` can open a TCP connection to the client `to`, which its CN sees at
/// `observed`: those that a server has reached and to whose ports `from` can connect.
pub fn doors_for<'a>(
    from: &'a NatDescriptor,
    to: &'a NatDescriptor,
    observed: IpAddr,
) -> impl Iterator<Item = SocketAddr> + 'a {
    to.doors.iter().copied().filter(move |d| from.gets_out(d.port()) && is_door(*d, to, observed))
}

/// Returns the address and port of `to` for a simultaneous TCP open by `from` and `to`; `None` if it is impossible or
/// both can use UDP. `observed` is the address at which the CN sees `to`.
#[must_use]
pub fn crossing_for(from: &NatDescriptor, to: &NatDescriptor, observed: IpAddr) -> Option<SocketAddr> {
    let of_use = !(from.udp && to.udp) && from.crossing.is_some();
    to.crossing.filter(|d| of_use && from.gets_out(d.port()) && is_door(*d, to, observed))
}

/// A client's public address, as its CN sees it, and its NAT descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// Address of the client, as the CN sees it.
    pub observed: IpAddr,
    /// NAT descriptor that the client sent.
    pub nat: &'a NatDescriptor,
}

impl Endpoint<'_> {
    /// Returns whether the CN sees the client at one of its own addresses, so that there is no NAT between them.
    fn is_public(&self) -> bool {
        let observed = self.observed.to_canonical();
        self.hosts().any(|a| a == observed)
    }

    /// Returns the client's own IP addresses. What a STUN server or a router reports is none of them, even if it is
    /// private: between a NAT and the servers may be a private network.
    fn hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let own = |c: &&Candidate| c.kind == CandidateKind::Host;
        self.nat.candidates.iter().filter(own).map(|c| c.addr.ip().to_canonical())
    }

    /// Returns whether the client has an own address that routers of a site may know (RFC 1918).
    fn is_on_lan(&self) -> bool {
        self.hosts().any(|ip| if let IpAddr::V4(v4) = ip { v4.is_private() } else { false })
    }

    fn has_ipv6(&self) -> bool {
        self.hosts().any(|a| a.is_ipv6() && !is_private(a))
    }
}

/// Returns whether two clients can connect, in either role: by their NAT classes if they have different public
/// addresses, else by other rules for clients behind one address.
#[must_use]
pub fn compatible(a: Endpoint<'_>, b: Endpoint<'_>) -> bool {
    let same = a.observed.to_canonical() == b.observed.to_canonical();
    if same { home(a, b) != Home::Apart } else { Class::of(a).meets(Class::of(b)) }
}

/// Relation of two clients behind one public address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The clients probably can connect.
    Near,
    /// The clients are in different private subnets. Only a connectivity check shows whether a router connects these,
    /// as in an office, or the clients merely share a carrier's NAT.
    Routed,
    /// The clients cannot connect.
    Apart,
}

/// Returns the relation of two clients behind one public address.
#[must_use]
pub fn home(a: Endpoint<'_>, b: Endpoint<'_>) -> Home {
    let udp = a.nat.udp && b.nat.udp;
    if meet_at_home(a, b) {
        Home::Near
    } else if udp && a.is_on_lan() && b.is_on_lan() {
        Home::Routed
    } else {
        Home::Apart
    }
}

/// Returns whether two clients behind one public address can connect: over UDP if they share a local network or their
/// NAT supports hairpinning, or over TCP to a reachable port of a client without NAT.
fn meet_at_home(a: Endpoint<'_>, b: Endpoint<'_>) -> bool {
    let hairpin = || a.nat.hairpin && b.nat.hairpin && can_connect(a.nat, b.nat);
    let near = || a.hosts().any(|x| b.hosts().any(|y| same_network(x, y)));
    let reaches = |from: Endpoint<'_>, to: Endpoint<'_>| {
        to.is_public() && doors_for(from.nat, to.nat, to.observed).next().is_some()
    };
    a.nat.udp && b.nat.udp && (hairpin() || near()) || reaches(a, b) || reaches(b, a)
}

/// Returns whether two local addresses can probably reach each other: equal, both loopback, or in one /24 (IPv6: /64).
fn same_network(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(x), IpAddr::V4(y)) => x.is_loopback() && y.is_loopback() || x.to_bits() >> 8 == y.to_bits() >> 8,
        (IpAddr::V6(x), IpAddr::V6(y)) => x.to_bits() >> 64 == y.to_bits() >> 64,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Returns whether an address is valid on its own network only: loopback, private (RFC 1918), shared (RFC 6598),
/// link-local, unique local (RFC 4193).
#[must_use]
pub fn is_private(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(a) => {
            let shared = a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64;
            a.is_loopback() || a.is_private() || a.is_link_local() || shared
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local() || a.is_unique_local(),
    }
}

/// Returns a client's NAT descriptor without addresses that could direct other clients' packets at a third party. An
/// address must be `observed` (where the CN sees the client), confirmed by a STUN server's cookie that `proves`
/// accepts, or private. Candidates with ports below 1024 are removed.
#[must_use]
pub fn vetted(nat: &NatDescriptor, observed: IpAddr, proves: impl Fn(&Proven) -> bool) -> NatDescriptor {
    let observed = observed.to_canonical();
    // what a server on a private network has seen means nothing elsewhere
    let vouched = nat.proven.iter().filter(|p| !is_private(p.addr.ip()) && proves(p));
    let proven = List::truncated(vouched.map(|p| Proven { addr: p.addr, cookie: None }));
    let mut nat = NatDescriptor { proven, ..nat.clone() };
    let harmless = |c: &&Candidate| {
        let ip = c.addr.ip().to_canonical();
        let local = is_private(ip) && (!ip.is_loopback() || observed.is_loopback());
        c.addr.port() >= 1024 && (nat.is_at(ip, observed) || local)
    };
    nat.candidates = List::truncated(nat.candidates.iter().filter(harmless).cloned());
    nat.doors = List::truncated(nat.doors.iter().copied().filter(|d| is_door(*d, &nat, observed)));
    nat.crossing = nat.crossing.filter(|d| is_door(*d, &nat, observed));
    nat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(mapping: NatBehaviour, filtering: NatBehaviour, hosts: &[&str]) -> NatDescriptor {
        let candidate = |h: &&str| Candidate { kind: CandidateKind::Host, addr: h.parse().expect("an address") };
        NatDescriptor {
            epoch: 1,
            udp: true,
            mapping,
            filtering,
            candidates: List::truncated(hosts.iter().map(candidate)),
            ..NatDescriptor::default()
        }
    }

    fn pair(a: (&str, &NatDescriptor), b: (&str, &NatDescriptor)) -> bool {
        let a = Endpoint { observed: a.0.parse().expect("an address"), nat: a.1 };
        let b = Endpoint { observed: b.0.parse().expect("an address"), nat: b.1 };
        assert_eq!(compatible(a, b), compatible(b, a), "compatibility is mutual");
        compatible(a, b)
    }

    fn at_home(a: &NatDescriptor, b: &NatDescriptor) -> Home {
        let [a, b] = [a, b].map(|nat| Endpoint { observed: "192.0.2.1".parse().expect("an address"), nat });
        assert_eq!((home(a, b), compatible(a, b)), (home(b, a), home(a, b) != Home::Apart));
        home(a, b)
    }

    use NatBehaviour::{AddressAndPortDependent as Apd, EndpointIndependent as Ei, Unknown};

    #[test]
    fn one_side_may_map_by_port_only_if_the_other_does_not_filter_by_port() {
        let cone = nat(Ei, Apd, &["192.168.0.2:5000"]);
        let open = nat(Ei, Ei, &["192.168.0.2:5000"]);
        let symmetric = nat(Apd, Apd, &["192.168.0.2:5000"]);
        assert!(pair(("192.0.2.1", &cone), ("192.0.2.2", &cone)));
        assert!(pair(("192.0.2.1", &open), ("192.0.2.2", &symmetric)));
        assert!(!pair(("192.0.2.1", &cone), ("192.0.2.2", &symmetric)));
        assert!(!pair(("192.0.2.1", &symmetric), ("192.0.2.2", &symmetric)));
    }

    #[test]
    fn many_ports_are_tried_only_if_both_sides_want_it() {
        let cone = nat(Ei, Apd, &["192.168.0.2:5000"]);
        let symmetric = nat(Apd, Apd, &["192.168.0.2:5000"]);
        let unknown = nat(Unknown, Apd, &["192.168.0.2:5000"]);
        let lucky = |d: &NatDescriptor| NatDescriptor { birthday: true, ..d.clone() };
        let offered = |a: &NatDescriptor, b: &NatDescriptor| pair(("192.0.2.1", a), ("192.0.2.2", b));
        assert!(offered(&lucky(&cone), &lucky(&symmetric)));
        assert!(!offered(&lucky(&cone), &symmetric) && !offered(&cone, &lucky(&symmetric)));
        assert!(!offered(&lucky(&symmetric), &lucky(&symmetric)), "neither knows where to aim");
        assert!(!offered(&lucky(&cone), &lucky(&unknown)));
    }

    #[test]
    fn without_udp_a_peer_is_offered_only_by_a_door_that_one_gets_out_to() {
        let mut blocked = nat(Ei, Ei, &["192.168.0.2:5000"]);
        (blocked.udp, blocked.tcp443) = (false, true);
        let with_doors = |doors: &[&str]| {
            let doors = List::truncated(doors.iter().map(|d| d.parse().expect("an address")));
            NatDescriptor { doors, ..nat(Ei, Apd, &["192.168.0.3:5000"]) }
        };
        let offered = |a: &NatDescriptor, b: &NatDescriptor| pair(("192.0.2.1", a), ("192.0.2.2", b));
        let (https, high) = (with_doors(&["192.0.2.2:443"]), with_doors(&["192.0.2.2:5000"]));
        assert!(offered(&blocked, &https) && !offered(&blocked, &high));
        blocked.tcp_out = true;
        assert!(offered(&blocked, &high));
        assert!(!offered(&blocked, &with_doors(&[])), "one that listens nowhere");
        assert!(!offered(&blocked, &with_doors(&["192.0.2.9:443"])), "a door elsewhere is none of its own");
        assert!(!offered(&blocked, &with_doors(&["192.0.2.2:22"])), "nor is one that may be somebody else's service");
        let symmetric = NatDescriptor { tcp_out: true, ..nat(Apd, Apd, &["192.168.0.2:5000"]) };
        assert!(offered(&symmetric, &high), "where UDP works and would not meet");
    }

    #[test]
    fn without_udp_only_two_endpoint_independent_clients_are_offered() {
        let at = |crossing: &str, udp| {
            let crossing = Some(crossing.parse().expect("an address"));
            NatDescriptor { udp, tcp_out: true, crossing, ..nat(Ei, Apd, &["192.168.0.2:5000"]) }
        };
        let offered = |a: &NatDescriptor, b: &NatDescriptor| pair(("192.0.2.1", a), ("192.0.2.2", b));
        let (a, b) = (at("192.0.2.1:5000", false), at("192.0.2.2:5000", true));
        assert!(offered(&a, &b) && offered(&a, &at("192.0.2.2:5000", false)));
        assert!(!offered(&a, &NatDescriptor { crossing: None, ..b.clone() }), "one of which nothing is known");
        assert!(!offered(&NatDescriptor { tcp_out: false, ..a.clone() }, &b), "one that does not get out");
        assert!(!offered(&a, &at("192.0.2.9:5000", true)), "an address of a third party");
        assert!(!offered(&a, &at("192.0.2.2:22", true)), "somebody else's service");
        assert!(!pair(("192.0.2.1", &a), ("192.0.2.1", &at("192.0.2.1:5001", false))), "behind one address");
        let told = vetted(&at("192.0.2.9:5000", true), "192.0.2.2".parse().expect("an address"), |_| false);
        assert_eq!(told.crossing, None);
    }

    #[test]
    fn a_forwarded_port_makes_a_symmetric_peer_as_reachable_as_a_public_one() {
        let symmetric = nat(Apd, Apd, &["192.168.0.2:5000"]);
        let mut forwarded = symmetric.clone();
        let parse = |s: &str| s.parse::<SocketAddr>().expect("an address");
        let (addr, seen) = (parse("192.0.2.1:50000"), parse("192.0.2.1:40000"));
        let of = |kind, addr| Candidate { kind, addr };
        let lie = of(CandidateKind::Mapped, parse("198.51.100.1:50000"));
        let all = [lie, of(CandidateKind::Mapped, addr), of(CandidateKind::ServerReflexive, seen)];
        forwarded.candidates = List::truncated(all);
        assert_eq!((forwarded.maps(), forwarded.filters(), forwarded.forwarded()), (Ei, Ei, Some(addr)));
        assert!(pair(("192.0.2.1", &forwarded), ("192.0.2.2", &symmetric)));
        assert!(!pair(("192.0.2.1", &symmetric), ("192.0.2.2", &symmetric)));
        let observed = "192.0.2.9".parse().expect("an address");
        assert_eq!(vetted(&forwarded, observed, |_| false).forwarded(), None, "an address that nobody has seen");
    }

    #[test]
    fn without_udp_nobody_is_offered() {
        let mut blocked = nat(Ei, Ei, &["192.168.0.2:5000"]);
        blocked.udp = false;
        assert!(!pair(("192.0.2.1", &blocked), ("192.0.2.2", &nat(Ei, Ei, &[]))));
    }

    #[test]
    fn behind_one_address_peers_must_share_a_network() {
        let a = nat(Unknown, Unknown, &["192.168.0.2:5000"]);
        let b = nat(Unknown, Unknown, &["192.168.0.3:5000"]);
        let other = nat(Ei, Ei, &["10.0.0.3:5000"]);
        assert_eq!(at_home(&a, &b), Home::Near);
        assert_eq!(at_home(&a, &other), Home::Routed, "whether a router connects the subnets, the checks find out");
        let l = nat(Unknown, Unknown, &["127.0.0.1:5000"]);
        assert!(pair(("127.0.0.1", &l), ("127.0.0.1", &l)));
        let public = nat(Unknown, Unknown, &["198.51.100.7:5000"]);
        let blocked = NatDescriptor { udp: false, ..other };
        let [link, v6] = ["169.254.1.1:5000", "[fd00::1]:5000"].map(|host| nat(Ei, Ei, &[host]));
        for stranger in [&l, &public, &nat(Ei, Ei, &[]), &link, &v6, &blocked] {
            assert_eq!(at_home(&a, stranger), Home::Apart, "{stranger:?}");
        }
    }

    #[test]
    fn only_host_candidates_are_the_hosts_own_addresses() {
        let seen = |kind, addr: &str| Candidate { kind, addr: addr.parse().expect("an address") };
        let behind = |lan: &str, kind| {
            let mut nat = nat(Apd, Apd, &[lan]);
            let candidates = nat.candidates.iter().cloned().chain([seen(kind, "10.9.0.1:40000")]);
            nat.candidates = List::truncated(candidates);
            nat
        };
        // a backbone of private addresses between symmetric NATs
        let symmetric = behind("192.168.0.2:5000", CandidateKind::ServerReflexive);
        let cone = nat(Ei, Apd, &["192.168.7.2:5000"]);
        assert!(!pair(("10.9.0.1", &symmetric), ("10.9.0.2", &cone)), "behind a NAT in spite of its private address");
        assert!(pair(("10.9.0.1", &nat(Apd, Apd, &["10.9.0.1:5000"])), ("10.9.0.2", &cone)), "its own address");
        let mapped = behind("192.168.0.2:5000", CandidateKind::Mapped);
        assert!(!Endpoint { observed: "10.9.0.1".parse().expect("an address"), nat: &mapped }.is_public());
        let other = behind("192.168.7.2:5000", CandidateKind::ServerReflexive);
        assert_eq!(at_home(&symmetric, &other), Home::Routed, "the NAT's address is no network of theirs");
    }

    #[test]
    fn behind_one_address_a_nat_that_hairpins_will_do() {
        let flat = |host| NatDescriptor { hairpin: true, ..nat(Ei, Apd, &[host]) };
        let (a, b) = (flat("192.168.0.2:5000"), flat("10.0.0.3:5000"));
        assert_eq!(at_home(&a, &b), Home::Near);
        let deaf = NatDescriptor { hairpin: false, ..b };
        assert_eq!(at_home(&a, &deaf), Home::Routed);
    }

    #[test]
    fn an_address_that_the_cn_sees_too_is_behind_no_nat() {
        let a = nat(Unknown, Unknown, &["192.0.2.1:5000"]);
        let b = nat(Unknown, Unknown, &["192.0.2.2:5000"]);
        assert!(pair(("192.0.2.1", &a), ("192.0.2.2", &b)));
        assert!(!pair(("192.0.2.9", &a), ("192.0.2.2", &b)));
    }

    #[test]
    fn two_peers_with_global_ipv6_are_offered_whatever_their_ipv4() {
        let a = nat(Apd, Apd, &["[2001:db8::1]:5000"]);
        let b = nat(Apd, Apd, &["[2001:db8:1::1]:5000"]);
        let ula = nat(Apd, Apd, &["[fd00::1]:5000"]);
        assert!(pair(("192.0.2.1", &a), ("192.0.2.2", &b)));
        assert!(!pair(("192.0.2.1", &a), ("192.0.2.2", &ula)));
    }

    #[test]
    fn nobody_can_aim_others_at_a_third_party() {
        let says =
            nat(Ei, Ei, &["192.168.0.2:5000", "198.51.100.9:5000", "192.0.2.1:5000", "127.0.0.1:5000", "192.0.2.1:53"]);
        let told = |observed: &str| -> alloc::vec::Vec<SocketAddr> {
            let observed = observed.parse().expect("an address");
            vetted(&says, observed, |_| false).candidates.iter().map(|c| c.addr).collect()
        };
        let parse = |s: &str| s.parse::<SocketAddr>().expect("an address");
        assert_eq!(told("192.0.2.1"), [parse("192.168.0.2:5000"), parse("192.0.2.1:5000")]);
        assert_eq!(told("127.0.0.1"), [parse("192.168.0.2:5000"), parse("127.0.0.1:5000")]);
    }

    #[test]
    fn an_address_unseen_by_the_cn_needs_a_stun_servers_cookie() {
        let mut says = nat(Ei, Ei, &["[2001:db8::5]:5000", "[2001:db8::6]:5000", "10.0.0.1:5000"]);
        let proven = |s: &str| Proven { addr: s.parse().expect("an address"), cookie: None };
        says.proven = List::truncated([proven("[2001:db8::5]:5000"), proven("[2001:db8::6]:5000")]);
        let observed = "192.0.2.1".parse().expect("an address");
        let told = vetted(&says, observed, |p| p.addr == says.proven[0].addr);
        let addrs: alloc::vec::Vec<_> = told.candidates.iter().map(|c| c.addr).collect();
        assert_eq!(addrs, [says.candidates[0].addr, says.candidates[2].addr]);
        assert_eq!(told.proven.len(), 1);
        says.proven = List::truncated([proven("10.0.0.9:5000")]);
        assert!(vetted(&says, observed, |_| true).proven.is_empty(), "nobody vouches for private addresses");
    }
}
