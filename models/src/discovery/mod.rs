//! World of NAT behaviour discovery and port mapping: the production machine behind simulated NATs, the production STUN
//! server with two addresses, and a gateway daemon. Requests and answers are lost, duplicated and late, an attacker
//! forges an answer, and the gateway restarts.

pub mod model;

use super::nat::{Gateway, HostIx, Internet, Kind, Offers, Rules, Truth};
use super::rng::Repeating;
use super::rule::{Rule, settles};
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::nat::cookie::{CookieKeys, Proven};
use swarmedge_core::nat::discovery::io::{Config, Effect, Input as Told, Network, Report, Socket, openness};
use swarmedge_core::nat::gatherer::{self, Gatherer, Input, Output};
use swarmedge_core::nat::mapping;
use swarmedge_core::nat::mapping::io::{Effect as Ask, IgdAsk, IgdEnd, IgdError, Status};
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};
use swarmedge_core::nat::{NatBehaviour, NatDescriptor};
use swarmedge_core::role::stun::{self, Addresses, Stun};

/// One-way latency between the host and the STUN server.
const DELAY: Duration = Duration::from_millis(15);
const TTL: u8 = 64;
/// One-way latency on the host's own network.
const GATEWAY_DELAY: Duration = Duration::from_millis(1);
/// Wall-clock time when the world begins, in Unix milliseconds.
pub const WALL_MS: u64 = 1_700_000_000_000;
/// Local port of the client's main UDP socket.
const PORT: u16 = 5000;
/// Listening TCP port; its number differs from `PORT`, since the simulated routers do not tell TCP and UDP apart.
const DOOR: u16 = 6000;

/// A defect seeded into a discovery model, which must break one of the model's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: every STUN transaction has the same id, so that a forged answer is accepted.
    RepeatsIds,
    /// Seeded defect: another program on the same socket writes to the server's other addresses before filtering is
    /// tested.
    WritesAhead,
    /// Seeded defect: the time limit of a round of discovery is ten times too long.
    HasNoEnd,
    /// Seeded defect: another program on the listening port writes to the server's other address before it dials
    /// back.
    KnocksAhead,
    /// Seeded defect: over TCP, the server's second address reports the client address that its first one sees.
    EchoesFirst,
    /// Seeded defect: the discovery machine ignores its time-outs.
    ForgetsTimers,
    /// Seeded defect: the discovery machine retransmits requests almost at once, without end.
    NeverTires,
}

/// Configuration of the discovery world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Configuration of the discovery machine.
    pub discovery: Config,
    /// Configuration of port mapping, which needs a gateway.
    pub mapping: mapping::io::Config,
    /// Port-mapping behaviour of the innermost router, if it offers any.
    pub gateway: Option<Offers>,
    /// Rules of the routers between the host and the Internet, the one next to the host first.
    pub rules: Vec<Rules>,
    /// Mapping and filtering behaviour of all routers together, which discovery must find.
    pub truth: (NatBehaviour, NatBehaviour),
    /// Whether the server has two addresses.
    pub two_addresses: bool,
    /// Whether the client listens on TCP.
    pub listens: bool,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

impl Cfg {
    /// Returns a configuration with a host behind this kind of NAT.
    #[must_use]
    pub fn of(kind: Kind, mutant: Option<Mutant>) -> Self {
        let mut discovery = Config::once();
        discovery.requests_max = 4;
        if mutant == Some(Mutant::HasNoEnd) {
            discovery.within *= 10;
        }
        if mutant == Some(Mutant::NeverTires) {
            discovery.rto /= 10;
            discovery.requests_max = u32::MAX;
        }
        let mapping = mapping::io::Config { enabled: false, ..mapping::io::Config::default() };
        let (rules, truth) = (kind.routers(), kind.behaviour());
        Self { discovery, mapping, gateway: None, rules, truth, two_addresses: true, listens: false, mutant }
    }

    /// Returns a configuration with a host behind this kind of NAT, whose gateway offers port mapping.
    #[must_use]
    pub fn offering(kind: Kind, offers: Offers, mutant: Option<Mutant>) -> Self {
        let mapping = mapping::io::Config::default();
        Self { mapping, gateway: Some(offers), ..Self::of(kind, mutant) }
    }

    fn machine(&self) -> gatherer::Config {
        gatherer::Config { discovery: self.discovery.clone(), mapping: self.mapping.clone() }
    }

    fn stun(&self) -> stun::Config {
        let [primary, .., alternate] = servers();
        let addresses = self.two_addresses.then_some(Addresses { primary, alternate });
        stun::Config { addresses, ..stun::Config::default() }
    }
}

/// Returns the STUN server's four endpoints: two addresses with two ports each.
fn servers() -> [SocketAddr; 4] {
    let at = |n, port| SocketAddr::new(Ipv4Addr::new(198, 51, 100, n).into(), port);
    Addresses { primary: at(1, 3478), alternate: at(2, 3479) }.all()
}

/// A pending event of the discovery world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A request arrives at a server's endpoint: source as the server sees it, destination, bytes.
    Request(SocketAddr, SocketAddr, Vec<u8>),
    /// A datagram arrives at a socket of the host, from this address.
    Answer(Socket, SocketAddr, Vec<u8>),
    /// A STUN request arrives at the server over TCP.
    Tcp(SocketAddr, Vec<u8>),
    /// The server's answer to a request over TCP from the host's listening port arrives.
    Knocked(SocketAddr, Vec<u8>),
    /// A TCP connection that the server dials to the client's listening port arrives.
    DialledBack(SocketAddr, Vec<u8>),
    /// A request of the host arrives at the gateway.
    Ask(Socket, Vec<u8>),
    /// A UPnP request arrives at the gateway, with its id.
    Igd(u32, IgdAsk),
}

/// An external event in the discovery world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The client starts for the first time.
    Start,
    /// The client begins to listen on TCP.
    Listen,
    /// An attacker who sees no traffic forges an answer of the server's other address.
    Forge,
    /// The gateway restarts: it loses its mappings and announces it.
    Reboot,
    /// The client leaves and shuts down.
    Leave,
}

/// Environment of the discovery machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NatWorld {
    net: Internet,
    hosts: [HostIx; 2],
    client: HostIx,
    stun: Stun,
    /// Port-mapping daemon on the innermost router.
    pub gateway: Option<Gateway>,
    started: bool,
    listens: bool,
    /// NAT descriptor that the machine reported last.
    pub told: NatDescriptor,
    /// Reflexive addresses of the client, each with the newest STUN cookie that proves it.
    pub proven: Vec<Proven>,
    /// Report of the last completed round of discovery; `None` before the first round has ended.
    pub report: Option<Report>,
    /// Status of port mapping that the machine reported last.
    pub mapping: Status,
    /// Time since the gateway last lost its mappings; `None` if it never did.
    pub forgotten: Option<Duration>,
    /// Time since the current round of discovery began.
    pub age: Duration,
    over: bool,
    /// Number of datagrams that the machine has sent to the server.
    pub sent: u32,
}

impl NatWorld {
    /// Returns the local address of a socket.
    fn local(&self, socket: Socket) -> SocketAddr {
        let port = match socket {
            Socket::Main => PORT,
            Socket::Silent => PORT + 1,
            Socket::Asker => PORT + 2,
            Socket::Gateway => PORT + 3,
            Socket::TcpGateway => PORT + 4,
        };
        SocketAddr::new(self.net.addr(self.client), port)
    }

    /// Returns the local address of the client's main UDP socket.
    #[must_use]
    pub fn main(&self) -> SocketAddr {
        self.local(Socket::Main)
    }

    /// Returns the local address of the TCP port on which the client listens.
    #[must_use]
    pub fn door(&self) -> SocketAddr {
        SocketAddr::new(self.net.addr(self.client), DOOR)
    }

    /// Returns the router next to the client; `None` if the client has a public address.
    #[must_use]
    pub fn router(&self) -> Option<&super::nat::Router> {
        self.net.router_of(self.client).map(|ix| self.net.router(ix))
    }

    /// Removes the gateway's port-mapping daemon, and the forwarding to the main socket that it set up.
    pub fn end_gateway(&mut self) {
        let main = self.main();
        self.with_gateway(|_, router| router.forward_none(main));
        self.gateway = None;
    }

    /// Returns the address at which the gateway listens.
    fn gateway_at() -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(192, 168, 9, 1).into(), mapping::PORT)
    }

    fn with_gateway<T>(&mut self, f: impl FnOnce(&mut Gateway, &mut super::nat::Router) -> T) -> Option<T> {
        let (gateway, ix) = (self.gateway.as_mut()?, self.net.router_of(self.client)?);
        Some(f(gateway, self.net.router_mut(ix)))
    }

    fn socket(&self, local: SocketAddr) -> Option<Socket> {
        [Socket::Main, Socket::Silent, Socket::Asker].into_iter().find(|s| self.local(*s) == local)
    }
}

fn lane(what: &'static str, about: SocketAddr, socket: Option<Socket>) -> Lane {
    let at = servers().iter().position(|s| *s == about).unwrap_or(9) as u64;
    Lane { to: 0, what, id: at * 8 + socket.map_or(7, |s| s as u64) }
}

impl System for NatWorld {
    type Cfg = Cfg;
    type Node = Gatherer;
    type Event = Event;
    type Input = Input;
    type Output = Output;
    type Move = Move;

    fn run(
        cfg: &Cfg,
        _: NodeIx,
        node: &mut Gatherer,
        Turn { now, rng }: Turn<'_>,
        input: Option<Input>,
    ) -> Vec<Output> {
        let (mut out, mut repeating) = (Vec::new(), Repeating(rng));
        let rng: &mut dyn Rng = if cfg.mutant == Some(Mutant::RepeatsIds) { &mut repeating } else { &mut *repeating.0 };
        let mut cx = Cx { now, cfg: &cfg.machine(), rng, out: &mut out };
        match input {
            Some(input) => node.handle_input(&mut cx, input),
            None if cfg.mutant == Some(Mutant::ForgetsTimers) => {}
            None => node.handle_timeout(&mut cx),
        }
        out
    }

    fn deadline(node: &Gatherer) -> Option<Time> {
        // time-outs an hour or more ahead belong to another round
        node.poll_timeout().filter(|at| at.since(Time::ZERO) < Duration::from_secs(3_600))
    }

    fn rebase(node: &mut Gatherer, by: Duration) {
        node.rebase(by);
    }

    fn check(node: &Gatherer) {
        node.check();
    }

    fn rebase_env(&mut self, by: Duration) {
        self.net.rebase(by);
        self.stun.rebase(by);
        self.gateway.iter_mut().for_each(|g| g.rebase(by));
        self.forgotten.iter_mut().for_each(|age| *age += by);
        if self.started && !self.over {
            self.age += by;
        }
        self.over = self.report.is_some();
    }

    fn perform(world: &mut World<Self>, cfg: &Cfg, _: NodeIx, output: Output) {
        match output {
            Output::Mapping(Ask::Send { socket: socket @ (Socket::Gateway | Socket::TcpGateway), to, bytes }) => {
                if to == Self::gateway_at() {
                    world.send(lane("ask", to, Some(socket)), GATEWAY_DELAY, Event::Ask(socket, bytes));
                }
            }
            Output::Mapping(Ask::Igd { id, ask }) => {
                world.send(lane("igd", Self::gateway_at(), None), DELAY, Event::Igd(id, ask));
            }
            Output::Discovery(Effect::Send { socket, to, bytes })
            | Output::Mapping(Ask::Send { socket, to, bytes }) => {
                world.env.sent += 1;
                let (now, from) = (world.now, world.env.local(socket));
                let (client, [first, _]) = (world.env.client, world.env.hosts);
                if cfg.mutant == Some(Mutant::WritesAhead) {
                    world.env.net.send(now, client, from, servers()[3], TTL);
                }
                let Some(arrival) = world.env.net.send(now, client, from, to, TTL) else { return };
                if arrival.host == client {
                    let Some(socket) = world.env.socket(arrival.to) else { return };
                    world.send(lane("hairpin", to, Some(socket)), DELAY, Event::Answer(socket, arrival.from, bytes));
                } else if arrival.host == first || world.env.hosts[1] == arrival.host {
                    world.send(lane("request", to, Some(socket)), DELAY, Event::Request(arrival.from, to, bytes));
                }
            }
            Output::Discovery(Effect::AskTcp { server, bytes }) => {
                world.send(lane("tcp", server, None), DELAY, Event::Tcp(server, bytes));
            }
            Output::Discovery(Effect::Knock { server, local, requests }) => {
                knock(world, cfg, (server, local), &requests);
            }
            Output::Changed(nat) => world.env.told = nat,
            Output::Proven(proven) => world.env.proven = proven,
            Output::Report(gatherer::Report { way, mapping }) => {
                (world.env.report, world.env.mapping) = (Some(way), mapping);
            }
            Output::Over => {}
        }
    }

    fn faults(world: &World<Self>, _: &Cfg, lane: Lane, _: &Event, ways: &mut Vec<Way>) {
        if !["tcp", "door", "igd"].contains(&lane.what) {
            ways.extend((world.budget.drops > 0).then_some(Way::Lost));
            ways.extend((world.budget.duplicates > 0).then_some(Way::Twice));
        }
    }

    fn arrive(world: &mut World<Self>, cfg: &Cfg, _: Lane, event: Event, way: Way) -> Option<Input> {
        world.budget.drops -= u8::from(way == Way::Lost);
        world.budget.duplicates -= u8::from(way == Way::Twice);
        match event {
            _ if way == Way::Lost => None,
            Event::Answer(socket, from, bytes) => Some(Input::Discovery(Told::Datagram { socket, from, bytes })),
            Event::Knocked(server, answer) => Some(Input::Discovery(Told::Knocked { server, local: DOOR, answer })),
            Event::DialledBack(from, bytes) => Some(Input::Discovery(Told::DialledBack { from, local: DOOR, bytes })),
            Event::Tcp(server, bytes) => {
                let request = Message::decode(&bytes).ok()?;
                let other = servers().contains(&server) && cfg.two_addresses;
                let other = other.then_some(Attribute::OtherAddress(servers()[3])).into_iter().collect();
                let answer = Message::new(Class::Success, request.id, other).encode();
                Some(Input::Discovery(Told::Tcp { server, answer: Some(answer) }))
            }
            Event::Ask(socket, bytes) => {
                let (now, from) = (world.now, world.env.local(socket));
                let answer = world.env.with_gateway(|g, router| g.datagram(now, router, from, &bytes)).flatten()?;
                let at = Self::gateway_at();
                world.send(lane("answer", at, Some(socket)), GATEWAY_DELAY, Event::Answer(socket, at, answer));
                None
            }
            Event::Igd(id, ask) => {
                let now = world.now;
                let answer = world.env.with_gateway(|g, router| g.igd(now, router, ask));
                Some(Input::Igd(IgdEnd { id, answer: answer.unwrap_or(Err(IgdError::NoAnswer)) }))
            }
            Event::Request(from, local, bytes) => {
                for (local, to, bytes) in serve(world, cfg, from, local, bytes) {
                    let [first, second] = world.env.hosts;
                    let host = if local.ip() == servers()[0].ip() { first } else { second };
                    let Some(arrival) = world.env.net.send(world.now, host, local, to, TTL) else { continue };
                    let Some(socket) = world.env.socket(arrival.to).filter(|_| arrival.host == world.env.client) else {
                        continue;
                    };
                    let answer = Event::Answer(socket, arrival.from, bytes);
                    world.send(lane("answer", local, Some(socket)), DELAY, answer);
                }
                None
            }
        }
    }

    fn delivers_immediately(_: &World<Self>, _: &Cfg, lane: Lane) -> bool {
        lane.what == "tcp" || lane.what == "igd"
    }

    fn external_events(world: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        moves.extend((!world.env.started).then_some(Move::Start));
        moves.extend((world.env.started && cfg.listens && !world.env.listens).then_some(Move::Listen));
        moves.extend((world.env.started && world.budget.changes > 0).then_some(Move::Forge));
        let claims = world.node(0).is_some_and(|n| n.mapping().claimed().is_some());
        moves.extend((claims && world.budget.corruptions > 0).then_some(Move::Reboot));
    }

    fn apply_external(world: &mut World<Self>, _: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Input)> {
        match mv {
            Move::Start => {
                world.env.started = true;
                let hosts = std::vec![world.env.local(Socket::Main)];
                let gateway = world.env.gateway.is_some().then_some(Ipv4Addr::new(192, 168, 9, 1));
                Some((0, Input::Discovery(Told::Network(Network { hosts, servers: std::vec![servers()[0]], gateway }))))
            }
            Move::Listen => {
                world.env.listens = true;
                Some((0, Input::Discovery(Told::Listens(std::vec![DOOR]))))
            }
            Move::Forge => {
                world.budget.changes -= 1;
                let mapped = Attribute::XorMapped(world.env.local(Socket::Main));
                let bytes = Message::new(Class::Success, TransactionId([0; 12]), std::vec![mapped]).encode();
                Some((0, Input::Discovery(Told::Datagram { socket: Socket::Main, from: servers()[3], bytes })))
            }
            Move::Leave => Some((0, Input::Shutdown)),
            Move::Reboot => {
                world.budget.corruptions -= 1;
                world.env.forgotten = Some(Duration::ZERO);
                let now = world.now;
                let bytes = world.env.with_gateway(|g, router| {
                    g.reboot(now, router);
                    g.announcement(now, router)
                })??;
                Some((0, Input::Discovery(Told::Datagram { socket: Socket::Gateway, from: Self::gateway_at(), bytes })))
            }
        }
    }
}

/// Sends STUN requests over TCP from the client's listening port to the server, which answers and dials back from its
/// other address.
fn knock(world: &mut World<NatWorld>, cfg: &Cfg, (server, local): (SocketAddr, u16), requests: &[Vec<u8>]) {
    let (now, client, [first, other]) = (world.now, world.env.client, world.env.hosts);
    let from = SocketAddr::new(world.env.net.addr(client), local);
    let there = SocketAddr::new(servers()[3].ip(), 50_000);
    if cfg.mutant == Some(Mutant::KnocksAhead) {
        world.env.net.send(now, client, from, there, TTL);
    }
    for request in requests {
        let asked = if server.ip() == there.ip() { other } else { first };
        let Some(arrival) = world.env.net.send(now, client, from, server, TTL).filter(|a| a.host == asked) else {
            return;
        };
        let echoes = cfg.mutant == Some(Mutant::EchoesFirst);
        let asked_first = SocketAddr::new(servers()[0].ip(), swarmedge_core::nat::HTTPS);
        let seen = world.env.net.clone().send(now, client, from, asked_first, TTL).filter(|_| echoes);
        let arrival = seen.unwrap_or(arrival);
        let (mut out, mut rng) = (Vec::new(), super::rng::Seeded::new(0));
        let dials_from = cfg.two_addresses.then_some([server.ip(), there.ip()]);
        let tcp = stun::Config { verified: true, dials_from, ..cfg.stun() };
        let mut cx = Cx { now, cfg: &tcp, rng: &mut rng, out: &mut out };
        let input = stun::Input::Datagram { from: arrival.from, local: server, bytes: request.clone() };
        Stun::default().handle_input(&mut cx, input);
        for output in out {
            match output {
                stun::Output::Datagram { bytes, .. } => {
                    world.send(lane("door", server, None), DELAY * 2, Event::Knocked(server, bytes));
                }
                stun::Output::DialBack { to, bytes, .. } => {
                    let came = world.env.net.send(now, other, there, to, TTL);
                    if came.is_some_and(|a| a.host == client && a.to == from) {
                        world.send(lane("door", there, None), DELAY * 2, Event::DialledBack(there, bytes));
                    }
                }
                stun::Output::Count(_) => {}
            }
        }
    }
}

/// Returns the STUN server's datagrams in answer to a request: source, destination and payload of each.
fn serve(
    world: &mut World<NatWorld>,
    cfg: &Cfg,
    from: SocketAddr,
    local: SocketAddr,
    bytes: Vec<u8>,
) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let (mut out, now) = (Vec::new(), world.now);
    let mut rng = super::rng::Seeded::new(0);
    let mut cx = Cx { now, cfg: &cfg.stun(), rng: &mut rng, out: &mut out };
    world.env.stun.handle_input(&mut cx, stun::Input::Datagram { from, local, bytes });
    let sent = out.into_iter().filter_map(|o| match o {
        stun::Output::Datagram { local, to, bytes } => Some((local, to, bytes)),
        stun::Output::Count(_) | stun::Output::DialBack { .. } => None,
    });
    sent.collect()
}

/// Returns a STUN server that knows the time and the cookie keys.
fn server() -> Stun {
    let (mut stun, mut out) = (Stun::default(), Vec::new());
    let mut rng = super::rng::Seeded::new(0);
    let mut cx = Cx { now: Time::ZERO, cfg: &stun::Config::default(), rng: &mut rng, out: &mut out };
    stun.handle_input(&mut cx, stun::Input::WallClock { unix_ms: WALL_MS });
    stun.handle_input(&mut cx, stun::Input::CookieKeys(cookie_keys()));
    stun
}

/// Returns the control plane's keys for cookies.
#[must_use]
pub fn cookie_keys() -> CookieKeys {
    CookieKeys::derived([(1, &[7; 32])])
}

/// Returns the world with a client behind these routers that has not started yet.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<NatWorld> {
    let mut net = Internet::default();
    let hosts = [1, 2].map(|n| net.add_host(std::vec![Ipv4Addr::new(198, 51, 100, n).into()], None));
    let public = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let depth = cfg.rules.len();
    let mut behind = None;
    for (i, rules) in cfg.rules.iter().enumerate().rev() {
        let outer = if i + 1 == depth { public } else { Ipv4Addr::new(100, 64, 9, 2).into() };
        behind = Some(net.add_router(*rules, outer, behind));
    }
    let translated = cfg.rules.iter().any(|r| r.translates);
    let own = if translated { Ipv4Addr::new(192, 168, 9, 2).into() } else { public };
    let client = net.add_host(std::vec![own], behind);
    let env = NatWorld {
        net,
        hosts,
        client,
        stun: server(),
        gateway: cfg.gateway.map(|offers| Gateway::new(offers, Time::ZERO)),
        mapping: Status::default(),
        forgotten: None,
        started: false,
        listens: false,
        told: NatDescriptor::default(),
        proven: Vec::new(),
        report: None,
        age: Duration::ZERO,
        over: false,
        sent: 0,
    };
    World::new(env, std::vec![Gatherer::default()], budget)
}

/// Maximum number of datagrams that the machine may send in one round of discovery.
pub const ROUND_MAX: u32 = 24;

/// Rules of the models of NAT discovery, checked in their reachable states.
pub const RULES: &[Rule<NatWorld>] = &[
    Rule::always("what is told is never more open than what is", |cfg: &Cfg, w| {
        let told = &w.env.told;
        openness(told.mapping) <= openness(cfg.truth.0) && openness(told.filtering) <= openness(cfg.truth.1)
    }),
    Rule::always("a listening port is told to be reached only where anybody can reach it", |cfg: &Cfg, w| {
        w.env.told.doors.is_empty()
            || cfg.truth == (NatBehaviour::EndpointIndependent, NatBehaviour::EndpointIndependent)
            || cfg.gateway.is_some_and(|g| g.truth == Truth::Honest)
    }),
    Rule::always("a round has ended within its bound, with a class or unknown", |_, w| {
        w.env.age <= Config::default().within
    }),
    Rule::always("left alone, a round comes to its end", |cfg, w| {
        !w.env.started || settles(cfg, w, 200, |w| w.env.report.is_some())
    }),
    Rule::always("a round costs a bounded number of datagrams", |_, w| w.env.sent <= ROUND_MAX),
    Rule::always(
        "a listening port is told to be seen alike only behind NATs that show it so to everybody",
        |cfg: &Cfg, w| w.env.told.crossing.is_none() || cfg.truth.0 == NatBehaviour::EndpointIndependent,
    ),
    Rule::sometimes("mapping and filtering are named exactly", |cfg: &Cfg, w| {
        w.env.report.as_ref().is_some_and(|r| (r.nat.mapping, r.nat.filtering) == cfg.truth)
    }),
];
