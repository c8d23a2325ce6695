//! Port-mapping world: the production machine, the gateways of two networks that its host joins one after the other,
//! and a STUN server whose datagrams pass forwarded ports alone. A gateway is honest, gives another port, lies,
//! refuses, or opens ports for too short a time; it restarts; its answers are lost, duplicated and late; and a stranger
//! forges an answer of the STUN server. Discovery is not modelled: its result is an event.

pub mod model;
mod rules;

pub use rules::RULES;

use super::nat::{Gateway, Kind, Offers, Router, Truth};
use super::rng::Repeating;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::discovery::io::{Sight, Socket, Witness};
use swarmedge_core::nat::mapping::io::{
    Config, Effect, IgdAsk, IgdEnd, IgdError, Input, Output, Protocol, Site, Status,
};
use swarmedge_core::nat::mapping::{Mapping, PORT, natpmp, pcp};
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};

const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 3478));
/// Source address of the STUN server's datagrams to a claimed port: the host never writes there, so a NAT lets them
/// in only through a forwarded port.
const WITNESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 2), 3479));
/// One-way latency on the host's own network; `FAR` is that to the STUN server.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(15);
/// Maximum age of a datagram in flight; older ones are dropped.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Uptime of the gateways when the model begins.
const UP: Duration = Duration::from_secs(5_000);
/// Length of the sliding window in which requests to gateways are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// A defect seeded into a mapping model, which must break one of the model's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: every STUN request has the same id, so that a forged answer is accepted.
    RepeatsIds,
    /// Seeded defect: the machine reads each mapping's lifetime as four times as long.
    ReadsLifetimesLong,
    /// Seeded defect: an open port is never checked again.
    NeverRechecks,
    /// Seeded defect: a gateway's announcement of its restart does not reach the machine.
    HearsNoAnnouncement,
    /// Seeded defect: requests to renew an open port are lost.
    RenewalsAreLost,
    /// Seeded defect: requests to close a port are lost.
    ClosesNothing,
    /// Seeded defect: a failed attempt to open a port is repeated at once, without end.
    NeverTires,
    /// Seeded defect: the machine is not told that its host joined another network.
    KeepsGateway,
    /// Seeded defect: the time limits for trying PCP, NAT-PMP and UPnP are ten times too long.
    HasNoEnd,
    /// Seeded defect: the port-mapping machine ignores its time-outs.
    ForgetsTimers,
}

/// Configuration of the port-mapping world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Configuration of the mapping machine.
    pub mapping: Config,
    /// Possible behaviours of the first network's gateway; the second network's gateway has the first of them.
    pub offers: Vec<Offers>,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

impl Cfg {
    /// Returns a small configuration: gateways of all behaviours that speak one protocol.
    #[must_use]
    pub fn tiny(protocol: Protocol, mutant: Option<Mutant>) -> Self {
        let of = |truth, lifetime_s| Offers { protocol, truth, lifetime_s };
        let offers = std::vec![
            of(Truth::Honest, 360),
            of(Truth::GivesAnother, 360),
            of(Truth::Lies, 360),
            of(Truth::Refuses(2), 360),
            of(Truth::Honest, 30),
        ];
        Self { mapping: Config::tiny(), offers, mutant }
    }

    /// Returns the machine's configuration, changed by the seeded defect.
    fn machine(&self) -> Config {
        let mut cfg = self.mapping.clone();
        if self.mutant == Some(Mutant::NeverRechecks) {
            cfg.recheck *= 1_000;
        }
        if self.mutant == Some(Mutant::NeverTires) {
            cfg.again = Duration::ZERO;
        }
        if self.mutant == Some(Mutant::HasNoEnd) {
            cfg.within *= 10;
        }
        cfg
    }
}

/// A pending event of the mapping world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// NAT discovery reports what it found on the host's network.
    Seen(Sight),
    /// A request datagram arrives at the gateway.
    Ask(Vec<u8>),
    /// A STUN request arrives at the server, which answers to the port that the request names.
    Look(Vec<u8>),
    /// A datagram arrives at the host.
    Datagram {
        /// Socket that receives the datagram.
        socket: Socket,
        /// Source address of the datagram.
        from: SocketAddr,
        /// Payload of the datagram.
        bytes: Vec<u8>,
        /// Time when the datagram was sent.
        sent: Duration,
    },
    /// A UPnP request arrives at the gateway, with its id.
    Igd(u32, IgdAsk),
    /// A UPnP request has ended.
    IgdEnd(IgdEnd),
}

/// An external event in the mapping world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The client starts behind the gateway with this behaviour, by its index in [`Cfg::offers`].
    Start(usize),
    /// The gateway restarts: it loses its mappings, and announces it if its protocol can.
    Reboot,
    /// The host leaves its network and joins the other one.
    Wander,
    /// The client shuts down.
    Stop,
    /// The client starts again after a shutdown.
    Restart,
    /// An off-path attacker forges an answer of the STUN server.
    Forge,
}

/// Environment of the mapping machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappingWorld {
    networks: [(Gateway, Router); 2],
    /// Index of the network that the host is in: 0 or 1.
    at: usize,
    started: bool,
    stopped: bool,
    /// Time between the model's beginning and the world's current time zero, which moves forward (see
    /// [`World::rebase`]).
    passed: Duration,
    /// External address at which a datagram of the STUN server last reached the host; `None` before that.
    shown: Option<SocketAddrV4>,
    /// Time when the gateway lost its mappings; `None` once the STUN server reaches the host again or the gateway
    /// forwards the port again.
    vanished: Option<Duration>,
    /// Time when a gateway last restarted; `None` if none did.
    rebooted: Option<Duration>,
    /// Whether an answer that a gateway sent before its restart arrived after it.
    misled: bool,
    /// Whether the gateway announced a restart since the STUN server last reached the host.
    doubted: bool,
    /// Whether the machine may stop claiming its external port, because the host or its gateway changed.
    excused: bool,
    /// Whether the machine stopped claiming its external port although neither host nor gateway had changed.
    lapsed: bool,
    /// Whether the machine claimed an external port for too long after its gateway had lost the mapping.
    overdue: bool,
    busy: Option<Duration>,
    /// Whether an attempt of the machine to open a port took longer than the limit.
    dawdled: bool,
    /// Whether a request went to another address than the gateway's, or closed a port that was not opened at that
    /// gateway.
    strayed: bool,
    /// Whether a request to close a port, or the result of a UPnP request, was lost.
    untold: bool,
    /// Times of the requests to gateways within the last [`PERIOD`].
    asked: Vec<Duration>,
    /// Ports that gateways opened over UPnP, each with the index of its network.
    opened: BTreeSet<(usize, u16)>,
}

/// Returns the addresses of the gateway and the host in network `at` (0 or 1).
fn site(at: usize) -> Site {
    let [gateway, host] = [1, 2].map(|n| if at == 0 { [192, 168, 1, n] } else { [192, 168, 7, n] }.into());
    Site { gateway, local: SocketAddrV4::new(host, 5000), over: Transport::Udp }
}

fn gateway_at(at: usize) -> SocketAddr {
    SocketAddr::new(site(at).gateway.into(), PORT)
}

fn lane(what: &'static str) -> Lane {
    Lane { to: 0, what, id: 0 }
}

fn passed(w: &World<MappingWorld>) -> Duration {
    w.env.passed + w.now.since(Time::ZERO)
}

impl MappingWorld {
    /// Returns whether the gateway of the host's network forwards this external port to the host's main socket.
    fn forwards(&self, now: Time, port: u16) -> bool {
        self.networks[self.at].1.forwards(now, port) == Some(site(self.at).local.into())
    }

    /// Returns the behaviour of the gateway in the host's network.
    fn offers(&self) -> Offers {
        self.networks[self.at].0.offers
    }

    fn outer(&self) -> Ipv4Addr {
        [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)][self.at]
    }
}

/// Returns the external address that the machine reports as open; `None` if it reports none.
fn claimed(w: &World<MappingWorld>) -> Option<SocketAddrV4> {
    w.node(0).and_then(Mapping::claimed)
}

/// Sets `overdue` if the machine claimed its external port for too long after the gateway had lost the mapping.
/// Called when the claim is true again or has ended.
fn righted(w: &mut World<MappingWorld>) {
    let now = passed(w);
    w.env.overdue |= w.env.vanished.is_some_and(|at| now.saturating_sub(at) > rules::FOUND_WITHIN);
}

/// Makes discovery report to the machine what it finds in the host's network.
fn look_around(w: &mut World<MappingWorld>) {
    let sight = Sight {
        mapped: SocketAddrV4::new(w.env.outer(), 40_000),
        translated: true,
        server: SERVER,
        ports: std::vec![40_000, 40_001],
        witness: Some(Witness { from: WITNESS, other_address: true }),
    };
    w.send(lane("seen"), Duration::ZERO, Event::Seen(sight));
}

impl System for MappingWorld {
    type Cfg = Cfg;
    type Node = Mapping;
    type Event = Event;
    type Input = Input;
    type Output = Output;
    type Move = Move;

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Mapping, Turn { now, rng }: Turn<'_>, input: Option<Input>) -> Vec<Output> {
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

    fn deadline(node: &Mapping) -> Option<Time> {
        node.poll_timeout()
    }

    fn rebase(node: &mut Mapping, by: Duration) {
        node.rebase(by);
    }

    fn check(node: &Mapping) {
        node.check();
    }

    fn rebase_env(&mut self, by: Duration) {
        self.passed += by;
        for (gateway, router) in &mut self.networks {
            gateway.rebase(by);
            router.rebase(by);
        }
    }

    fn perform(world: &mut World<Self>, cfg: &Cfg, _: NodeIx, output: Output) {
        match output {
            Output::Effect(Effect::Send { socket: Socket::Gateway, to, bytes }) => {
                asked(world);
                world.env.strayed |= to != gateway_at(world.env.at);
                if to == gateway_at(world.env.at) && !is_lost(world, cfg, closes(&bytes)) {
                    world.send(lane("ask"), NEAR, Event::Ask(bytes));
                }
            }
            Output::Effect(Effect::Send { to, bytes, .. }) => {
                world.env.strayed |= to != SERVER;
                world.send(lane("look"), FAR, Event::Look(bytes));
            }
            Output::Effect(Effect::Igd { id, ask }) => {
                asked(world);
                let at = world.env.at;
                let (of, closing) = match ask {
                    IgdAsk::Open { site, .. } => (site, None),
                    IgdAsk::Close { site, port } => (site, Some(port)),
                };
                let foreign = closing.is_some_and(|port| !world.env.opened.contains(&(at, port)));
                world.env.strayed |= of != site(at) || foreign;
                if of == site(at) && !is_lost(world, cfg, closing.is_some()) {
                    world.send(lane("igd"), NEAR, Event::Igd(id, ask));
                } else {
                    let end = IgdEnd { id, answer: Err(IgdError::NoAnswer) };
                    world.send(lane("igd-end"), FAR, Event::IgdEnd(end));
                }
            }
            // this output concerns TCP alone
            Output::Forwards(_) => {}
            Output::Claimed(None) => {
                let honest = matches!(world.env.offers().truth, Truth::Honest | Truth::GivesAnother);
                world.env.lapsed |= honest && !world.env.excused && !world.env.misled;
                righted(world);
            }
            Output::Claimed(Some(_)) => {
                righted(world);
                // an answer from before the restart may still arrive
                world.env.excused = world.env.vanished.is_some();
            }
            Output::Status(Status::Busy) => world.env.busy = Some(passed(world)),
            Output::Status(_) => {
                let now = passed(world);
                let busy = world.env.busy.take();
                world.env.dawdled |= busy.is_some_and(|since| now.saturating_sub(since) > rules::BUSY_MAX);
            }
        }
    }

    fn faults(world: &World<Self>, _: &Cfg, lane: Lane, _: &Event, ways: &mut Vec<Way>) {
        match lane.what {
            "seen" | "igd-end" => {}
            "igd" if world.budget.drops > 0 => ways.extend([Way::Fault(UNANSWERED), Way::Fault(UNDONE)]),
            "igd" => {}
            _ => {
                ways.extend((world.budget.drops > 0).then_some(Way::Lost));
                ways.extend((world.budget.duplicates > 0).then_some(Way::Twice));
            }
        }
    }

    fn arrive(world: &mut World<Self>, cfg: &Cfg, lane: Lane, event: Event, way: Way) -> Option<Input> {
        world.budget.drops -= u8::from(matches!(way, Way::Lost | Way::Fault(_)));
        world.budget.duplicates -= u8::from(way == Way::Twice);
        match event {
            Event::Ask(bytes) if way == Way::Lost => {
                world.env.untold |= closes(&bytes);
                None
            }
            _ if way == Way::Lost => None,
            Event::Seen(sight) => Some(Input::Seen(sight)),
            Event::Ask(bytes) => {
                gateway_is_asked(world, &bytes);
                None
            }
            Event::Look(bytes) => {
                server_is_asked(world, &bytes);
                None
            }
            Event::Datagram { sent, .. } if passed(world).saturating_sub(sent) > LATE_MAX => None,
            Event::Datagram { socket, from, bytes, sent } => {
                if lane.what == "announcement" {
                    world.env.doubted = world.env.vanished.is_some();
                    if cfg.mutant == Some(Mutant::HearsNoAnnouncement) {
                        return None;
                    }
                }
                world.env.misled |= lane.what == "answer" && world.env.rebooted.is_some_and(|at| sent < at);
                let bytes = if cfg.mutant == Some(Mutant::ReadsLifetimesLong) { lengthened(bytes) } else { bytes };
                Some(Input::Datagram { socket, from, bytes })
            }
            Event::Igd(id, ask) => {
                upnp_is_asked(world, id, ask, way);
                None
            }
            Event::IgdEnd(end) => Some(Input::Igd(end)),
        }
    }

    fn delivers_immediately(_: &World<Self>, _: &Cfg, lane: Lane) -> bool {
        lane.what == "seen"
    }

    fn external_events(world: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        if !world.env.started {
            return moves.extend((0..cfg.offers.len()).map(Move::Start));
        }
        let (up, budget) = (!world.env.stopped, world.budget);
        moves.extend((budget.corruptions > 0).then_some(Move::Reboot));
        moves.extend((up && budget.changes > 0).then_some(Move::Wander));
        moves.extend((up && budget.crashes > 0).then_some(Move::Stop));
        moves.extend((!up && world.is_quiet()).then_some(Move::Restart));
        moves.extend(up.then_some(Move::Forge));
    }

    fn apply_external(world: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Input)> {
        match *mv {
            Move::Start(n) => {
                world.env.started = true;
                world.env.networks[0].0.offers = cfg.offers[n];
                look_around(world);
                Some((0, Input::Site(Some(site(0)))))
            }
            Move::Reboot => {
                world.budget.corruptions -= 1;
                (world.env.vanished, world.env.excused) = (Some(passed(world)), true);
                let (now, sent, at) = (world.now, passed(world), world.env.at);
                world.env.rebooted = Some(sent);
                let (gateway, router) = &mut world.env.networks[at];
                gateway.reboot(now, router);
                if let Some(bytes) = gateway.announcement(now, router) {
                    let from = gateway_at(at);
                    let datagram = Event::Datagram { socket: Socket::Gateway, from, bytes, sent };
                    world.send(lane("announcement"), NEAR, datagram);
                }
                None
            }
            Move::Wander => {
                world.budget.changes -= 1;
                world.env.at = 1;
                begin_anew(world);
                world.clear_lanes(|lane| !lane.what.starts_with("igd"));
                look_around(world);
                (cfg.mutant != Some(Mutant::KeepsGateway)).then_some((0, Input::Site(Some(site(1)))))
            }
            Move::Stop => {
                world.budget.crashes -= 1;
                (world.env.stopped, world.env.excused) = (true, true);
                Some((0, Input::Shutdown))
            }
            Move::Restart => {
                world.env.stopped = false;
                begin_anew(world);
                world.set_node(0, Some(Mapping::default()));
                look_around(world);
                Some((0, Input::Site(Some(site(world.env.at)))))
            }
            Move::Forge => {
                let bytes = Message::new(Class::Success, TransactionId([0; 12]), Vec::new()).encode();
                Some((0, Input::Datagram { socket: Socket::Main, from: WITNESS, bytes }))
            }
        }
    }
}

/// Forgets the environment's notes about the claimed port, because the host joined another network or the client
/// restarted.
fn begin_anew(w: &mut World<MappingWorld>) {
    (w.env.shown, w.env.vanished, w.env.doubted, w.env.excused) = (None, None, false, true);
}

/// Fault of UPnP: the gateway fulfils the request, and its answer is lost.
const UNANSWERED: &str = "leave unanswered";
/// Fault of UPnP: the gateway ignores the request.
const UNDONE: &str = "leave undone";

/// Returns whether a request asks to close a port.
fn closes(bytes: &[u8]) -> bool {
    let natpmp = natpmp::Request::decode(bytes).is_ok_and(|r| matches!(r, natpmp::Request::Map { lifetime_s: 0, .. }));
    natpmp || pcp::decode_request(bytes).is_ok_and(|r| r.lifetime_s == 0)
}

/// Returns whether the seeded defect, if any, loses this request; `closes`: it asks to close a port.
fn is_lost(w: &World<MappingWorld>, cfg: &Cfg, closes: bool) -> bool {
    match cfg.mutant {
        Some(Mutant::ClosesNothing) => closes,
        Some(Mutant::RenewalsAreLost) => !closes && w.env.shown.is_some(),
        _ => false,
    }
}

/// Adds the current time to the times of requests to gateways, and drops those older than [`PERIOD`].
fn asked(w: &mut World<MappingWorld>) {
    let now = passed(w);
    w.env.asked.retain(|at| now.saturating_sub(*at) < PERIOD);
    w.env.asked.push(now);
}

/// Returns a PCP answer with its lifetime multiplied by four; other bytes stay as they are.
fn lengthened(bytes: Vec<u8>) -> Vec<u8> {
    match pcp::Answer::decode(&bytes) {
        Ok(pcp::Answer::Mapped(m)) => pcp::Answer::Mapped(pcp::Mapped { lifetime_s: m.lifetime_s * 4, ..m }).encode(),
        _ => bytes,
    }
}

/// Notes that the claimed port is open again, if the gateway forwards it.
fn forwarded_again(w: &mut World<MappingWorld>) {
    if claimed(w).is_some_and(|c| w.env.forwards(w.now, c.port())) {
        righted(w);
        w.env.vanished = None;
    }
}

fn gateway_is_asked(w: &mut World<MappingWorld>, bytes: &[u8]) {
    let (now, sent, at) = (w.now, passed(w), w.env.at);
    let (gateway, router) = &mut w.env.networks[at];
    let answer = gateway.datagram(now, router, site(at).local.into(), bytes);
    forwarded_again(w);
    if let Some(bytes) = answer {
        let from = gateway_at(at);
        w.send(lane("answer"), NEAR, Event::Datagram { socket: Socket::Gateway, from, bytes, sent });
    }
}

fn upnp_is_asked(w: &mut World<MappingWorld>, id: u32, ask: IgdAsk, way: Way) {
    let (now, at) = (w.now, w.env.at);
    let of = match ask {
        IgdAsk::Open { site, .. } | IgdAsk::Close { site, .. } => site,
    };
    let mut answer = Err(IgdError::NoAnswer);
    // a host that has left the network gets no answer
    if way != Way::Fault(UNDONE) && of == site(at) {
        let (gateway, router) = &mut w.env.networks[at];
        answer = gateway.igd(now, router, ask);
        if let Ok(opened) = answer {
            w.env.opened.insert((at, opened.external.port()));
        }
        forwarded_again(w);
    }
    if way != Way::Whole {
        (w.env.untold, answer) = (true, Err(IgdError::NoAnswer));
    }
    w.send(lane("igd-end"), NEAR, Event::IgdEnd(IgdEnd { id, answer }));
}

/// Answers a STUN request from an address that the host never writes to, so that the answer arrives only through a
/// forwarded port.
fn server_is_asked(w: &mut World<MappingWorld>, bytes: &[u8]) {
    let Ok(request) = Message::decode(bytes) else { return };
    let port = |a: &Attribute| if let Attribute::ResponsePort(port) = a { Some(*port) } else { None };
    let Some(port) = request.attributes.iter().find_map(port) else { return };
    if !w.env.forwards(w.now, port) {
        return;
    }
    righted(w);
    let at = SocketAddrV4::new(w.env.outer(), port);
    (w.env.shown, w.env.vanished, w.env.doubted) = (Some(at), None, false);
    let bytes = Message::new(Class::Success, request.id, std::vec![Attribute::XorMapped(at.into())]).encode();
    let sent = passed(w);
    w.send(lane("shown"), FAR, Event::Datagram { socket: Socket::Main, from: WITNESS, bytes, sent });
}

/// Returns the world with a client that has not started yet.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<MappingWorld> {
    let network = |outer: [u8; 4]| {
        let mut gateway = Gateway::new(cfg.offers[0], Time::ZERO);
        gateway.rebase(UP);
        (gateway, Router::new(Kind::Symmetric.routers()[0], Ipv4Addr::from(outer).into(), 1))
    };
    let env = MappingWorld {
        networks: [network([203, 0, 113, 1]), network([203, 0, 113, 2])],
        at: 0,
        started: false,
        stopped: false,
        passed: Duration::ZERO,
        shown: None,
        vanished: None,
        rebooted: None,
        misled: false,
        doubted: false,
        excused: true,
        lapsed: false,
        overdue: false,
        busy: None,
        dawdled: false,
        strayed: false,
        untold: false,
        asked: Vec::new(),
        opened: BTreeSet::new(),
    };
    World::new(env, std::vec![Mapping::default()], budget)
}
