use super::super::{CandidateKind, Ipv6Reach, can_connect, compatible, crossing_for, doors_for};
use super::*;
use crate::nat::Candidate;
use crate::wire::List;
use proptest::prelude::*;

/// Returns whether two clients with these descriptors can connect over UDP, computed without NAT classes, for
/// comparison.
fn naive_table(a: &NatDescriptor, b: &NatDescriptor) -> bool {
    let independent = |d: &NatDescriptor| d.maps() == EndpointIndependent;
    let known = |d: &NatDescriptor| independent(d) || d.steps() > 0;
    let open = |d: &NatDescriptor| !filters_by_port(d);
    let lucky = a.birthday && b.birthday;
    let one_sided = match (independent(a), independent(b)) {
        (true, true) => true,
        (true, false) => open(a) || lucky && draws_ports(b),
        (false, true) => open(b) || lucky && draws_ports(a),
        (false, false) => false,
    };
    a.udp && b.udp && (one_sided || known(a) && known(b))
}

/// Returns whether two clients behind different public addresses can connect, computed from their descriptors without
/// NAT classes, for comparison.
fn naive(a: Endpoint<'_>, b: Endpoint<'_>) -> bool {
    let believed = |e: Endpoint<'_>| {
        let mapping = if e.is_public() { EndpointIndependent } else { e.nat.mapping };
        NatDescriptor { mapping, ..e.nat.clone() }
    };
    let udp = a.nat.udp && b.nat.udp;
    let over_udp = udp && a.has_ipv6() && b.has_ipv6() || naive_table(&believed(a), &believed(b));
    let reaches = |from: Endpoint<'_>, to: Endpoint<'_>| doors_for(from.nat, to.nat, to.observed).next().is_some();
    let crosses = |from: Endpoint<'_>, to: Endpoint<'_>| crossing_for(from.nat, to.nat, to.observed).is_some();
    over_udp || reaches(a, b) || reaches(b, a) || crosses(a, b) && crosses(b, a)
}

fn behaviour() -> impl Strategy<Value = NatBehaviour> {
    use NatBehaviour::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};
    prop::sample::select(alloc::vec![Unknown, EndpointIndependent, AddressDependent, AddressAndPortDependent])
}

/// Returns a random NAT descriptor of a client whose public address is `observed`.
fn nat(observed: &'static str) -> impl Strategy<Value = NatDescriptor> {
    let at = |addr: &str| addr.parse::<SocketAddr>().expect("an endpoint");
    let mapped = at(&alloc::format!("{observed}:6000"));
    let candidates = alloc::vec![
        Candidate { kind: CandidateKind::Host, addr: at("192.168.0.2:5000") },
        Candidate { kind: CandidateKind::Host, addr: at(&alloc::format!("{observed}:5000")) },
        Candidate { kind: CandidateKind::Host, addr: at("[2001:db8::1]:5000") },
        Candidate { kind: CandidateKind::ServerReflexive, addr: mapped },
        Candidate { kind: CandidateKind::Mapped, addr: mapped },
    ];
    let endpoints = alloc::vec![
        at(&alloc::format!("{observed}:443")),
        at(&alloc::format!("{observed}:5001")),
        at(&alloc::format!("{observed}:80")),
        at("203.0.113.9:5001"),
    ];
    let bits = prop::array::uniform5(any::<bool>());
    let doors = prop::sample::subsequence(endpoints.clone(), 0..=2);
    let crossing = prop::option::of(prop::sample::select(endpoints));
    let candidates = prop::sample::subsequence(candidates, 0..=5);
    (bits, behaviour(), behaviour(), 0..2_u16, (candidates, doors, crossing)).prop_map(
        |([udp, tcp443, tcp_out, birthday, hairpin], mapping, filtering, step, (candidates, doors, crossing))| {
            NatDescriptor {
                epoch: 1,
                udp,
                mapping,
                filtering,
                step,
                v4: true,
                v6: Ipv6Reach::None,
                hairpin,
                tcp443,
                tcp_out,
                birthday,
                candidates: List::truncated(candidates),
                proven: List::default(),
                doors: List::truncated(doors),
                crossing,
            }
        },
    )
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(4_096))]

    #[test]
    fn classes_decide_as_the_table_does_for_each_pair(a in nat("192.0.2.1"), b in nat("198.51.100.1")) {
        let [x, y] = [("192.0.2.1", &a), ("198.51.100.1", &b)]
            .map(|(ip, nat)| Endpoint { observed: ip.parse().expect("an address"), nat });
        prop_assert_eq!(can_connect(&a, &b), naive_table(&a, &b));
        prop_assert_eq!(compatible(x, y), naive(x, y));
        prop_assert_eq!(compatible(y, x), naive(x, y));
        prop_assert!(!naive(x, y) || Class::of(x).meets_anybody() && Class::of(y).meets_anybody());
    }
}
