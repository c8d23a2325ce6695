//! First state of the world of hole punching.

use super::*;

/// Returns the simulated Internet with its hosts: the STUN server, and the two peers.
fn internet(cfg: &Cfg) -> (Internet, HostIx, [HostIx; 2]) {
    let mut net = Internet::default();
    let stun = net.add_host(std::vec![Ipv4Addr::new(198, 51, 100, 1).into()], None);
    net.add_host(std::vec![BYSTANDER.into()], None);
    let hosts = match cfg.shared {
        None => [net.add_site(cfg.kinds[0], 10), net.add_site(cfg.kinds[1], 20)],
        Some(hairpin) => {
            let rules = crate::nat::Rules { hairpin, ..cfg.kinds[0].routers()[0] };
            let router = net.add_router(rules, Ipv4Addr::new(203, 0, 113, 10).into(), None);
            [2, 3].map(|n| net.add_host(std::vec![Ipv4Addr::new(192, 168, 0, n).into()], Some(router)))
        }
    };
    (net, stun, hosts)
}

/// Returns the NAT descriptor that host `i` reports, the part of it that the CN believes, and the address at which
/// the CN sees the host. `seen`: the host's address according to STUN.
fn description(
    cfg: &Cfg,
    i: usize,
    socket: SocketAddr,
    seen: Option<SocketAddr>,
) -> ((NatDescriptor, NatDescriptor), SocketAddr) {
    let host = Candidate { kind: CandidateKind::Host, addr: socket };
    let mapped = seen.map(|addr| Candidate { kind: CandidateKind::ServerReflexive, addr });
    // an address that a peer may claim and that nobody must believe
    let lie = Candidate { kind: CandidateKind::Mapped, addr: SocketAddr::new(BYSTANDER.into(), 4000) };
    let site = if cfg.shared.is_some() { 10 } else { [10, 20][i] };
    let public = seen.map_or(IpAddr::V4(Ipv4Addr::new(203, 0, 113, site)), |a| a.ip());
    let says = descriptor(cfg.kinds[i], [Some(host), mapped, Some(lie)].into_iter().flatten().collect());
    let lie = SocketAddr::new(BYSTANDER.into(), swarmedge_core::nat::HTTPS);
    let door = SocketAddr::new(public, swarmedge_core::nat::HTTPS);
    let doors = List::truncated([lie, door].into_iter().filter(|_| cfg.doors[i]));
    let birthday = cfg.connectivity.birthday.is_some();
    let crossing = cfg.crossing.map(|_| SocketAddr::new(public, socket.port()));
    let says = NatDescriptor { birthday, proven: forged(), doors, crossing, ..says };
    let believes = cfg.mutant == Some(Mutant::BelievesAnything);
    let nat = swarmedge_core::nat::vetted(&says, seen_at(cfg, i, public), |_| believes);
    ((says, nat), SocketAddr::new(public, 443))
}

/// Returns the world in which discovery is complete and the CN is about to introduce the hosts.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Punch> {
    let (mut net, stun, hosts) = internet(cfg);
    let sockets = [0, 1].map(|i: u16| SocketAddr::new(net.addr(hosts[usize::from(i)]), 5000 + i));
    let server = SocketAddr::new(net.addr(stun), 3478);
    let told = [0, 1].map(|i| {
        let seen = net.send(Time::ZERO, hosts[i], sockets[i], server, TTL).map(|a| a.from);
        description(cfg, i, sockets[i], seen)
    });
    let nobody = || [None, None];
    let env = Punch {
        net,
        hosts,
        sockets,
        public: told.each_ref().map(|(_, observed)| observed.ip()),
        shared: cfg.shared.is_some(),
        ended: nobody(),
        paths: [Vec::new(), Vec::new()],
        dials: [Vec::new(), Vec::new()],
        raw_tcp: [Vec::new(), Vec::new()],
        crossing: [None; 2],
        delivered: [false; 2],
        opened: [false; 2],
        went: false,
        too_soon: false,
        strayed: false,
        moved: [false; 2],
        sent: [0; 2],
        went_at: Time::ZERO,
        connected_at: [None; 2],
        adopted: [None; 2],
    };
    let mut broker = Broker::default();
    let intros = if cfg.mutant == Some(Mutant::IntroducesTwice) { 2 } else { 1 };
    for n in 1..=intros {
        broker.offered(Time::ZERO, &cfg.broker, intro(n), [0, 1]);
    }
    let hosts = std::vec![Connectivity::default(); 2].into_iter().map(Node::Host);
    let mut world = World::new(env, hosts.chain([Node::Cn(broker)]).collect(), budget);
    for host in [0_u8, 1] {
        let me = usize::from(host);
        let ((_, nat), mut observed) = told[1 - me].clone();
        observed.set_ip(seen_at(cfg, 1 - me, observed.ip()));
        tell(&mut world, cfg, host, Input::Network(told[me].0.0.clone()));
        tell(&mut world, cfg, host, Input::Observed(told[me].1));
        for n in 1..=intros {
            let role = if host == 0 { Role::Downloader } else { Role::Uploader };
            let ticket = Ticket { key: KEY, observed };
            tell(&mut world, cfg, host, Input::Offer(Offer { intro: intro(n), role, ticket, nat: nat.clone() }));
        }
    }
    if cfg.doors[0] {
        tcp::pretend(&mut world, cfg);
    }
    world
}
