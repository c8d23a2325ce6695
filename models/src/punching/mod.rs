//! World of hole punching: two hosts behind NATs, the CN's broker (which tells both when to connect), and a simulated
//! Internet. The connectivity machines and the broker are production code. Models explore it with losses and
//! duplicates; with production's time limits it computes which pairs of NATs can connect.

pub mod model;
mod rules;
mod start;
mod tcp;

pub use rules::RULES;
pub use start::world;

use super::nat::{HostIx, Internet, Kind};
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::ids::{IntroId, RawTcpId};
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::nat::broker::{self, Broker};
use swarmedge_core::nat::connectivity::{self, Along, Attempt, Connectivity, Input, Offer, Output, Role, Ticket};
use swarmedge_core::nat::connectivity::{Scatter, Scattered};
use swarmedge_core::nat::cookie::{Cookie, Proven};
use swarmedge_core::nat::{Candidate, CandidateKind, NatDescriptor};
use swarmedge_core::wire::List;

/// Node index of the CN's broker; the hosts are 0 (downloader) and 1 (uploader).
const CN: NodeIx = 2;
/// Address of a host that belongs to no peer and must get no datagram.
const BYSTANDER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// First local port of a host's extra sockets for birthday probing.
const MANY: u16 = 20_000;
/// Default IP time-to-live of datagrams.
const TTL: u8 = 64;

/// Seeded defects of the punching world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: the CN reports a bystander's address as the uploader's.
    AimsAtBystander,
    /// Seeded defect: an attacker who knows the checks' key answers them in the uploader's place.
    KeyLeaks,
    /// Seeded defect: the CN treats one host's "opened" message as that of both hosts.
    GoesTooSoon,
    /// Seeded defect: the CN introduces the same two hosts twice.
    IntroducesTwice,
    /// Seeded defect: connectivity checks do not reach the uploader.
    ChecksAreLost,
    /// Seeded defect: the CN tells the peer addresses whose cookies are forged.
    BelievesAnything,
    /// Seeded defect: hosts go on sending connectivity checks beyond their limits.
    NeverTires,
    /// Seeded defect: TCP connections to listening ports fail.
    DoorIsShut,
}

/// Configuration of the punching world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Configuration of both hosts' connectivity machines.
    pub connectivity: connectivity::Config,
    /// Configuration of the CN's broker.
    pub broker: broker::Config,
    /// Kind of NAT in front of each host.
    pub kinds: [Kind; 2],
    /// Whether the router that both hosts share forwards between them by its outer address (hairpinning); `None`:
    /// each host has a router of its own kind.
    pub shared: Option<bool>,
    /// Whether each host listens on TCP at a port that was found reachable.
    pub doors: [bool; 2],
    /// Result of TCP simultaneous open: `true` if it succeeds, `false` if the NATs refuse it; `None` if it is not
    /// tried.
    pub crossing: Option<bool>,
    /// One-way latency of every message.
    pub latency: Duration,
    /// Extra delay of control messages to and from the uploader.
    pub skew: Duration,
    /// Whether timers may fire while messages are in flight; then a pair that could connect may fail.
    pub hurried: bool,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

impl Cfg {
    /// Returns a configuration with production's limits, for hosts behind these kinds of NAT.
    #[must_use]
    pub fn timed(kinds: [Kind; 2]) -> Self {
        Self {
            connectivity: connectivity::Config::default(),
            broker: broker::Config::default(),
            kinds,
            shared: None,
            doors: [false; 2],
            crossing: None,
            latency: Duration::from_millis(30),
            skew: Duration::ZERO,
            hurried: false,
            mutant: None,
        }
    }

    /// Returns a small configuration for the model checker.
    #[must_use]
    pub fn tiny(kinds: [Kind; 2], mutant: Option<Mutant>) -> Self {
        Self { connectivity: connectivity::Config::tiny(), latency: Duration::ZERO, mutant, ..Self::timed(kinds) }
    }

    /// Returns whether the two hosts must connect: over TCP, or over UDP by the pair matrix of NAT kinds.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let birthday = self.connectivity.birthday.is_some();
        let [a, b] = self.kinds.map(|kind| NatDescriptor { birthday, ..descriptor(kind, Vec::new()) });
        self.doors != [false; 2] || self.crossing == Some(true) || swarmedge_core::nat::can_connect(&a, &b)
    }
}

/// A node of the world: one of the two hosts, or the CN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Connectivity machine of a host.
    Host(Connectivity),
    /// Broker of the CN, which waits until both hosts have reported an open NAT and then tells both to go.
    Cn(Broker<NodeIx>),
}

/// A pending event of the punching world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An input arrives at a host's machine.
    Tell(Input),
    /// The CN learns that a host has opened its NAT.
    Opened(IntroId, NodeIx),
    /// A datagram of the QUIC handshake arrives: the first flight, or its answer.
    Handshake {
        /// Source address as the receiver sees it.
        from: SocketAddr,
        /// Introduction that the handshake belongs to.
        intro: IntroId,
        /// Whether the datagram is the answer.
        answer: bool,
    },
}

/// An input of a node in the punching world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// Input of a host's machine.
    Host(Input),
    /// Message to the CN that a host has opened its NAT.
    Opened(IntroId, NodeIx),
}

/// An output of a node in the punching world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// Output of a host's machine.
    Host(Output),
    /// The CN tells both hosts to start connecting.
    Go(IntroId),
}

/// Environment of the two hosts and the CN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Punch {
    net: Internet,
    hosts: [HostIx; 2],
    sockets: [SocketAddr; 2],
    /// Address of each host as the CN sees it.
    public: [IpAddr; 2],
    /// Whether both hosts are behind one shared router.
    shared: bool,
    /// Outcome of each host's connection attempt; `None` while it runs.
    pub ended: [Option<Attempt>; 2],
    /// Remote addresses of the UDP paths that each host chose.
    pub paths: [Vec<SocketAddr>; 2],
    /// Destination addresses of the TCP connections that each host dialled.
    pub dials: [Vec<SocketAddr>; 2],
    /// Raw TCP connections between the hosts: those that are open, and those that the downloader chose as its path.
    pub raw_tcp: [Vec<RawTcpId>; 2],
    /// Raw TCP connection by which each host takes part in a TCP simultaneous open, until the other host takes part
    /// too.
    pub crossing: [Option<RawTcpId>; 2],
    /// Whether a datagram of each host has reached the other.
    delivered: [bool; 2],
    opened: [bool; 2],
    went: bool,
    /// Whether the CN said "go" before both hosts had reported an open NAT or their time to do so was over.
    too_soon: bool,
    /// Whether a datagram went to an address that the introduced peer cannot have.
    pub strayed: bool,
    /// Whether each host has reported that its NAT's port counter has moved on.
    pub moved: [bool; 2],
    /// Number of datagrams sent by each host.
    pub sent: [u16; 2],
    /// Time when the CN last said "go".
    pub went_at: Time,
    /// Time at which each host's attempt connected.
    pub connected_at: [Option<Time>; 2],
    /// Per host: endpoint of the peer, and the extra socket that the host uses towards it instead of its main one.
    adopted: [Option<(SocketAddr, SocketAddr)>; 2],
}

fn intro(n: u32) -> IntroId {
    IntroId::numbered(n)
}

/// Returns the address of a host that the CN reports to the other host.
fn seen_at(cfg: &Cfg, host: usize, public: IpAddr) -> IpAddr {
    let aims = cfg.mutant == Some(Mutant::AimsAtBystander) && host == 1;
    if aims { BYSTANDER.into() } else { public }
}

/// Returns a forged cookie for a bystander's address, which the CN must not believe.
fn forged() -> List<Proven, { swarmedge_core::limits::PROVEN_MAX }> {
    let cookie = Some(Cookie { epoch: 1, issued_s: 0, mac: [0; 16] });
    List::truncated([Proven { addr: SocketAddr::new(BYSTANDER.into(), 4000), cookie }])
}

/// Returns the NAT descriptor that a host behind this kind of NAT reports.
pub(super) fn descriptor(kind: Kind, candidates: Vec<Candidate>) -> NatDescriptor {
    let (mapping, filtering) = kind.behaviour();
    NatDescriptor {
        epoch: 1,
        udp: kind != Kind::UdpBlocked,
        mapping,
        filtering,
        step: u16::from(kind == Kind::SymmetricSequential),
        v4: true,
        tcp443: true,
        tcp_out: true,
        candidates: List::truncated(candidates),
        ..NatDescriptor::default()
    }
}

impl System for Punch {
    type Cfg = Cfg;
    type Node = Node;
    type Event = Event;
    type Input = In;
    type Output = Out;
    type Move = ();

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Node, Turn { now, rng }: Turn<'_>, input: Option<In>) -> Vec<Out> {
        match node {
            Node::Host(host) => {
                let mut out = Vec::new();
                let untiring =
                    connectivity::Config { per_address_max: 200, per_pair_max: 1_000, ..cfg.connectivity.clone() };
                let untiring = connectivity::Config { crossings: (200, Duration::ZERO), ..untiring };
                let tires = cfg.mutant != Some(Mutant::NeverTires);
                let mut cx = Cx { now, cfg: if tires { &cfg.connectivity } else { &untiring }, rng, out: &mut out };
                match input {
                    Some(In::Host(input)) => host.handle_input(&mut cx, input),
                    Some(In::Opened(..)) => {}
                    None => host.handle_timeout(&mut cx),
                }
                out.into_iter().map(Out::Host).collect()
            }
            Node::Cn(broker) => broke(cfg, broker, now, input).into_iter().map(Out::Go).collect(),
        }
    }

    fn deadline(node: &Node) -> Option<Time> {
        match node {
            Node::Host(host) => host.poll_timeout(),
            Node::Cn(broker) => broker.poll_timeout(),
        }
    }

    fn rebase(node: &mut Node, by: Duration) {
        match node {
            Node::Host(host) => host.rebase(by),
            Node::Cn(broker) => broker.rebase(by),
        }
    }

    fn check(node: &Node) {
        if let Node::Host(host) = node {
            host.check();
        }
    }

    fn rebase_env(&mut self, by: Duration) {
        self.net.rebase(by);
        self.went_at = self.went_at.rebased(by);
        self.connected_at.iter_mut().flatten().for_each(|at| *at = at.rebased(by));
    }

    fn perform(world: &mut World<Self>, cfg: &Cfg, node: NodeIx, output: Out) {
        match output {
            Out::Go(intro) => go(world, cfg, intro),
            Out::Host(output) => perform(world, cfg, node, output),
        }
    }

    fn faults(world: &World<Self>, _: &Cfg, lane: Lane, _: &Event, ways: &mut Vec<Way>) {
        if lane.what == "udp" {
            ways.extend((world.budget.drops > 0).then_some(Way::Lost));
            ways.extend((world.budget.duplicates > 0).then_some(Way::Twice));
        }
    }

    fn arrive(world: &mut World<Self>, cfg: &Cfg, lane: Lane, event: Event, way: Way) -> Option<In> {
        world.budget.drops -= u8::from(way == Way::Lost);
        world.budget.duplicates -= u8::from(way == Way::Twice);
        if way == Way::Lost {
            return None;
        }
        match event {
            Event::Tell(Input::Datagram { .. }) if lane.to == 1 && cfg.mutant == Some(Mutant::ChecksAreLost) => None,
            Event::Tell(input) => {
                if matches!(input, Input::Datagram { .. } | Input::Scattered(_)) {
                    world.env.delivered[usize::from(1 - lane.to)] = true;
                }
                Some(In::Host(input))
            }
            Event::Opened(intro, host) => {
                world.env.opened[usize::from(host)] = true;
                Some(In::Opened(intro, host))
            }
            Event::Handshake { from, intro, answer } => {
                if !answer {
                    handshake(world, cfg, lane.to, from, (intro, true));
                }
                Some(In::Host(Input::Connected(intro)))
            }
        }
    }

    fn external_events(_: &World<Self>, _: &Cfg, _: &mut Vec<()>) {}

    fn apply_external(_: &mut World<Self>, _: &Cfg, (): &(), _: &mut dyn Rng) -> Option<(NodeIx, In)> {
        None
    }
}

/// Passes an input to the CN's broker, then its timers; returns the introductions whose hosts may connect now.
fn broke(cfg: &Cfg, broker: &mut Broker<NodeIx>, now: Time, input: Option<In>) -> Vec<IntroId> {
    let mut gone = Vec::new();
    if let Some(In::Opened(intro, host)) = input {
        let roles = [Role::Downloader, Role::Uploader];
        let said = roles.into_iter().enumerate();
        for (n, role) in said {
            if n == usize::from(host) || cfg.mutant == Some(Mutant::GoesTooSoon) {
                gone.extend(broker.opened(now, &cfg.broker, intro, role).map(|_| intro));
            }
        }
    }
    while let Some((intro, peers)) = broker.pop_due(now, &cfg.broker) {
        gone.extend(peers.map(|_| intro));
    }
    gone
}

fn go(world: &mut World<Punch>, cfg: &Cfg, intro: IntroId) {
    let now = world.now;
    let env = &mut world.env;
    let patient = now.since(env.went_at) >= cfg.broker.open_within;
    env.too_soon |= !patient && env.opened != [true; 2];
    env.went = true;
    env.went_at = now;
    for host in [0, 1] {
        tell(world, cfg, host, Input::Go(intro));
    }
}

/// Sends an input from the CN to a host.
fn tell(world: &mut World<Punch>, cfg: &Cfg, host: NodeIx, input: Input) {
    let late = if host == 1 { cfg.skew } else { Duration::ZERO };
    world.send(Lane { to: host, what: "control", id: 0 }, cfg.latency + late, Event::Tell(input));
}

fn perform(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, output: Output) {
    let me = usize::from(node);
    match output {
        Output::Send { to, bytes, ttl } => {
            world.env.sent[me] += 1;
            world.env.strayed |= world.env.strays(me, to);
            if cfg.mutant == Some(Mutant::KeyLeaks) && node == 0 && ttl.is_none() {
                answer_in_its_place(world, cfg, to, &bytes);
            }
            let socket = world.env.socket_to(me, to);
            datagram(world, cfg, node, (socket, to), (bytes, ttl.unwrap_or(TTL)));
        }
        Output::Scatter(Scatter::Send { socket, to, bytes, .. }) => {
            world.env.sent[me] += 1;
            world.env.strayed |= world.env.strays(me, to);
            let socket = SocketAddr::new(world.env.sockets[me].ip(), MANY + socket);
            datagram(world, cfg, node, (socket, to), (bytes, TTL));
        }
        Output::Scatter(Scatter::Adopt { socket, to, .. }) => {
            world.env.adopted[me] = Some((to, SocketAddr::new(world.env.sockets[me].ip(), MANY + socket)));
        }
        Output::Scatter(Scatter::Gather(_)) => {}
        Output::Opened(intro) => {
            let late = if node == 1 { cfg.skew } else { Duration::ZERO };
            world.send(
                Lane { to: CN, what: "control", id: u64::from(node) },
                cfg.latency + late,
                Event::Opened(intro, node),
            );
        }
        Output::Moved(_) => world.env.moved[me] = true,
        Output::RawTcp(command) => tcp::perform(world, cfg, node, command),
        Output::Path { intro, addr, along: Along::Tcp } => tcp::dial(world, cfg, node, (intro, addr)),
        Output::Path { intro, along: Along::RawTcp(id), .. } => tcp::take(world, cfg, node, (intro, id)),
        Output::Path { intro, addr, along: Along::Udp } => {
            world.env.paths[me].push(addr);
            if node == 0 {
                handshake(world, cfg, node, addr, (intro, false));
            }
        }
        Output::Ended { attempt, .. } => {
            if attempt.failure.is_none() {
                world.env.connected_at[me] = Some(world.now);
            }
            world.env.ended[me] = Some(attempt);
        }
    }
}

/// Sends a datagram from one of a host's sockets.
fn datagram(
    world: &mut World<Punch>,
    cfg: &Cfg,
    node: NodeIx,
    (socket, to): (SocketAddr, SocketAddr),
    (bytes, ttl): (Vec<u8>, u8),
) {
    let (host, now, other) = (world.env.hosts[usize::from(node)], world.now, 1 - node);
    let Some(arrival) = world.env.net.send(now, host, socket, to, ttl) else { return };
    let (there, from) = (usize::from(other), arrival.from);
    if arrival.host != world.env.hosts[there] {
        return;
    }
    let main = world.env.sockets[there];
    let adopted = world.env.adopted[there].is_some_and(|(_, socket)| socket == arrival.to);
    let input = if arrival.to == main || adopted {
        Input::Datagram { from, bytes }
    } else if let Some(socket) = arrival.to.port().checked_sub(MANY) {
        Input::Scattered(Scattered { intro: intro(1), socket, from, bytes })
    } else {
        return;
    };
    world.send(Lane { to: other, what: "udp", id: 0 }, cfg.latency, Event::Tell(input));
}

/// Sends a datagram of the QUIC handshake along the chosen path: the first flight, or the answer to it. QUIC repeats
/// lost flights, so losses only delay the handshake.
fn handshake(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, to: SocketAddr, (intro, answer): (IntroId, bool)) {
    let me = usize::from(node);
    let (host, socket, now) = (world.env.hosts[me], world.env.socket_to(me, to), world.now);
    let Some(arrival) = world.env.net.send(now, host, socket, to, TTL) else { return };
    let other = 1 - node;
    if arrival.host == world.env.hosts[usize::from(other)] {
        let event = Event::Handshake { from: arrival.from, intro, answer };
        world.send(Lane { to: other, what: "quic", id: 0 }, cfg.latency, event);
    }
}

/// Answers a connectivity check in the uploader's name, as an attacker who knows the key would, before the check
/// reaches the uploader.
fn answer_in_its_place(world: &mut World<Punch>, cfg: &Cfg, to: SocketAddr, bytes: &[u8]) {
    use swarmedge_core::nat::stun::integrity::Hash;
    use swarmedge_core::nat::stun::{Attribute, Class, Message};
    let Ok(request) = Message::decode(bytes) else { return };
    let answer = Message::new(Class::Success, request.id, std::vec![Attribute::XorMapped(to)]);
    let bytes = answer.encode_signed(&KEY, Hash::Sha256);
    world.send(Lane { to: 0, what: "forged", id: 0 }, cfg.latency, Event::Tell(Input::Datagram { from: to, bytes }));
    // the uploader sent no datagram
    world.env.delivered[1] = false;
}

const KEY: [u8; 16] = [7; 16];

impl Punch {
    /// Returns whether the connection attempts of both hosts have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.iter().all(Option::is_some)
    }

    /// Returns whether both hosts have a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.ended.iter().all(|e| e.as_ref().is_some_and(|a| a.failure.is_none()))
    }

    /// Returns whether the connection attempts of both hosts have failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.ended.iter().all(|e| e.as_ref().is_some_and(|a| a.failure.is_some()))
    }

    /// Returns the address at which a host listens on TCP.
    fn door(&self, host: usize) -> SocketAddr {
        SocketAddr::new(self.public[host], swarmedge_core::nat::HTTPS)
    }

    /// Returns the local socket from which a host sends to an endpoint.
    fn socket_to(&self, host: usize, to: SocketAddr) -> SocketAddr {
        self.adopted[host].filter(|(peer, _)| *peer == to).map_or(self.sockets[host], |(_, socket)| socket)
    }

    /// Returns whether `to` is an address that the other host cannot have: neither its own on a shared LAN nor its
    /// router's.
    fn strays(&self, host: usize, to: SocketAddr) -> bool {
        let other = 1 - host;
        let own = self.shared && to == self.sockets[other];
        !(own || to.ip() == self.public[other])
    }

    /// Returns whether a datagram that the host sends along this path now would reach the other host.
    fn leads(&self, host: usize, path: SocketAddr, now: Time) -> bool {
        let arrival = self.net.clone().send(now, self.hosts[host], self.socket_to(host, path), path, TTL);
        arrival.is_some_and(|a| a.host == self.hosts[1 - host])
    }
}
