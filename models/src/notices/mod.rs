//! World of notices (an edge's signed statements about a version): the production machines of a CN and of two clients.
//! An edge publishes new policies, which reach the CN in any order. A client loses its connection or crashes, a disk
//! refuses a write, an edge that lags behind sends a client an older notice, and a stranger forges one.

pub mod model;

use super::rule::{Rule, settles};
use super::sim::keys;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use crate::scenario::{Name, Role};
use std::collections::BTreeMap;
use std::time::Duration;
use swarmedge_core::accounting::Trust;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{ConnId, VersionId};
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::notice::{Holder, Received, Server, server, sign};
use swarmedge_core::wire::control::ToClient;
use swarmedge_core::wire::notice::{Known, Notice, SignedNotice, Subject, Terms};
use swarmedge_core::wire::records::{ServerRole, SigningContext};

const CN: NodeIx = 0;
/// Client that stays connected.
const STEADY: NodeIx = 1;
/// Client that loses its connection and crashes.
const SHAKY: NodeIx = 2;
/// Serial number of the newest notice that is published.
const NEWEST: u64 = 2;
/// Number of times that a notice is sent in one session: one more than a disk refuses it.
const TRIES: u8 = 2;
/// Serial number of the forged notice.
const FORGED: u64 = 9;

/// Seeded defects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A client accepts older notices, too.
    TakesOlder,
    /// Neither CN nor clients check signatures.
    SignaturesUnchecked,
    /// The CN does not tell connected clients that a newer notice exists.
    NotAnnounced,
    /// A client does not report after a login which notices it has.
    NotReported,
    /// A client acknowledges a notice before the notice is durable.
    AcknowledgedEarly,
    /// The CN sends each notice only once, also if no acknowledgement comes.
    SentOnce,
}

/// Configuration of the world.
#[derive(Clone, Debug, Default)]
pub struct Cfg {
    /// Seeded defect, if any.
    pub defect: Option<Defect>,
}

/// A machine of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The CN's side of notices.
    Cn(Server),
    /// A client's side of notices.
    Client(Holder),
}

/// Input of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Input of the CN.
    Cn(server::Input),
    /// A client's session has opened.
    LoggedIn,
    /// A message of the CN, or of an edge, has come to a client.
    Said(ToClient),
    /// A client's write has ended.
    Saved(Known, bool),
}

/// Output of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Output of the CN.
    Cn(server::Output),
    /// A client tells the CN the subjects and serial numbers of its notices.
    Report(Vec<Known>),
    /// A client obeys a notice from now on.
    Obey(Notice),
    /// A client writes a notice to its disk.
    Save(Notice),
}

/// Pending event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The session of a client opens.
    Welcome,
    /// Message to a client.
    ToClient(ToClient),
    /// Report of a client: subjects and serial numbers of its notices.
    Held(Vec<Known>),
    /// Write of a client.
    Save(Notice),
}

/// External event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The CN learns the notice with this serial number from an edge.
    Publish(u64),
    /// An edge tells a client the notice with this serial number in its answer to a grant request.
    EdgeTells(NodeIx, u64),
    /// A stranger tells the CN and a client a forged notice.
    Forge,
    /// A client's connection breaks.
    Break(NodeIx),
    /// A client crashes, and starts anew from its disk.
    Crash(NodeIx),
    /// A client logs in.
    Login(NodeIx),
}

/// State of a client outside its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Outside {
    connected: bool,
    logins: u8,
    /// Serial number of the notice on disk; 0: none.
    disk: u64,
    /// Serial number of the notice obeyed in this run of the client.
    obeyed: u64,
    /// Highest serial number acknowledged.
    acknowledged: u64,
}

/// Environment: connections, disks, and what has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notices {
    clients: BTreeMap<NodeIx, Outside>,
    published: u64,
    forged: bool,
    went_back: bool,
    obeyed_forgery: bool,
}

fn subject() -> Subject {
    Subject::version(VersionId::numbered(1))
}

/// Returns the notice with a serial number, signed by an edge; notice [`FORGED`] is signed with a client's key.
fn signed(serial: u64) -> SignedNotice {
    let edge = Name(Role::Edge, 0);
    let signer = if serial == FORGED { Name(Role::Client, 7) } else { edge };
    let policy = Policy { upload_rate_max: serial, ..Policy::default() };
    let notice = Notice::about_version(VersionId::numbered(1), serial, &Terms::Policy(policy));
    sign(&notice, keys::cert(edge, ServerRole::Edge), |bytes| {
        keys::sign(&keys::key(signer), SigningContext::Notice, bytes)
    })
}

fn trust(cfg: &Cfg) -> Trust {
    let unchecked = cfg.defect == Some(Defect::SignaturesUnchecked);
    Trust { root: keys::root(), verify: if unchecked { |_, _, _, _| true } else { keys::verify } }
}

/// Handles a client's input as the client machine does, and returns the outputs.
fn run_client(cfg: &Cfg, holder: &mut Holder, input: Input) -> Vec<Output> {
    match input {
        Input::Cn(_) => Vec::new(),
        Input::LoggedIn if cfg.defect == Some(Defect::NotReported) => Vec::new(),
        Input::LoggedIn => vec![Output::Report(holder.durable())],
        Input::Said(ToClient::NoticesChanged(list)) => vec![Output::Report(holder.outdated(&list.notices))],
        Input::Said(ToClient::Notice(signed)) => {
            if cfg.defect == Some(Defect::TakesOlder) {
                holder.release(subject());
                holder.hold(Known { subject: subject(), serial: 0 });
            }
            let early =
                |n: &Notice| (cfg.defect == Some(Defect::AcknowledgedEarly)).then(|| Output::Report(vec![n.known()]));
            match holder.receive(&trust(cfg), keys::WALL_MS, &signed) {
                Received::Newer(n) => early(&n).into_iter().chain([Output::Obey(n.clone()), Output::Save(n)]).collect(),
                Received::NotDurable(n) => vec![Output::Save(n)],
                Received::Durable(known) => vec![Output::Report(vec![known])],
                Received::Refused(_) => Vec::new(),
            }
        }
        Input::Said(_) | Input::Saved(_, false) => Vec::new(),
        Input::Saved(known, true) => holder.saved(known).map(|known| Output::Report(vec![known])).into_iter().collect(),
    }
}

impl Notices {
    fn client(&mut self, ix: NodeIx) -> &mut Outside {
        self.clients.entry(ix).or_default()
    }

    fn is_connected(&self, ix: NodeIx) -> bool {
        self.clients.get(&ix).is_some_and(|c| c.connected)
    }
}

fn conn(client: NodeIx) -> ConnId {
    ConnId(client.into())
}

fn to_cn(client: NodeIx) -> Lane {
    Lane { to: CN, what: "control", id: client.into() }
}

fn to_client(client: NodeIx) -> Lane {
    Lane { to: client, what: "control", id: 0 }
}

impl System for Notices {
    type Cfg = Cfg;
    type Node = Node;
    type Event = Event;
    type Input = Input;
    type Output = Output;
    type Move = Move;

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Node, Turn { now, rng }: Turn<'_>, input: Option<Input>) -> Vec<Output> {
        match (node, input) {
            (Node::Client(holder), Some(input)) => run_client(cfg, holder, input),
            (Node::Cn(cn), input) => {
                let usual = server::Config::new(trust(cfg));
                let tries = if cfg.defect == Some(Defect::SentOnce) { 1 } else { TRIES };
                let mut out = Vec::new();
                let mut cx = Cx { now, cfg: &server::Config { tries, ..usual }, rng, out: &mut out };
                match input {
                    Some(Input::Cn(input)) => cn.handle_input(&mut cx, input),
                    Some(_) => {}
                    None => cn.handle_timeout(&mut cx),
                }
                out.into_iter().map(Output::Cn).collect()
            }
            (Node::Client(_), None) => Vec::new(),
        }
    }

    fn deadline(node: &Node) -> Option<Time> {
        match node {
            Node::Cn(cn) => cn.poll_timeout(),
            Node::Client(_) => None,
        }
    }

    fn rebase(node: &mut Node, by: Duration) {
        if let Node::Cn(cn) = node {
            cn.rebase(by);
        }
    }

    fn check(node: &Node) {
        match node {
            Node::Cn(cn) => cn.check(),
            Node::Client(holder) => holder.check(),
        }
    }

    // the environment has no times
    fn rebase_env(&mut self, _: Duration) {}

    fn perform(w: &mut World<Self>, cfg: &Cfg, node: NodeIx, output: Output) {
        match output {
            Output::Cn(server::Output::Send { conn, msg }) => {
                let client = NodeIx::try_from(conn.0).expect("a client's number");
                let announces = matches!(msg, ToClient::NoticesChanged(_));
                if w.env.is_connected(client) && !(announces && cfg.defect == Some(Defect::NotAnnounced)) {
                    w.send(to_client(client), Duration::ZERO, Event::ToClient(msg));
                }
            }
            Output::Cn(server::Output::Learned(_) | server::Output::Refused(_)) => {}
            Output::Report(held) => {
                let highest = held.iter().map(|k| k.serial).max().unwrap_or(0);
                let client = w.env.client(node);
                client.acknowledged = client.acknowledged.max(highest);
                if client.connected && !held.is_empty() {
                    w.send(to_cn(node), Duration::ZERO, Event::Held(held));
                }
            }
            Output::Obey(notice) => {
                w.env.obeyed_forgery |= notice.serial == FORGED;
                w.env.went_back |= notice.serial < w.env.client(node).obeyed;
                w.env.client(node).obeyed = notice.serial;
            }
            Output::Save(notice) => {
                w.send(Lane { to: node, what: "disk", id: 0 }, Duration::ZERO, Event::Save(notice));
            }
        }
    }

    fn faults(w: &World<Self>, _: &Cfg, _: Lane, event: &Event, ways: &mut Vec<Way>) {
        let refusable = matches!(event, Event::Save(_)) && w.budget.corruptions > 0;
        ways.extend(refusable.then_some(Way::Fault("refuse")));
    }

    fn arrive(w: &mut World<Self>, _: &Cfg, lane: Lane, event: Event, way: Way) -> Option<Input> {
        Some(match event {
            Event::Welcome => Input::LoggedIn,
            Event::ToClient(msg) => Input::Said(msg),
            Event::Held(held) => Input::Cn(server::Input::Held { conn: ConnId(lane.id), held }),
            Event::Save(notice) if way == Way::Whole => {
                w.env.client(lane.to).disk = notice.serial;
                Input::Saved(notice.known(), true)
            }
            Event::Save(notice) => {
                w.budget.corruptions -= 1;
                Input::Saved(notice.known(), false)
            }
        })
    }

    fn external_events(w: &World<Self>, _: &Cfg, moves: &mut Vec<Move>) {
        let unpublished = (1..=NEWEST).filter(|serial| w.env.published & 1 << serial == 0);
        moves.extend(unpublished.map(Move::Publish));
        if w.budget.changes > 0 {
            moves.extend((1..=NEWEST).map(|serial| Move::EdgeTells(SHAKY, serial)));
        }
        moves.extend((!w.env.forged).then_some(Move::Forge));
        if w.env.is_connected(SHAKY) {
            moves.extend((w.budget.drops > 0).then_some(Move::Break(SHAKY)));
        } else {
            moves.push(Move::Login(SHAKY));
        }
        moves.extend((w.budget.crashes > 0).then_some(Move::Crash(SHAKY)));
    }

    fn apply_external(w: &mut World<Self>, _: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Input)> {
        let published = |serial| server::Input::Published { now_ms: keys::WALL_MS, notices: vec![signed(serial)] };
        Some(match *mv {
            Move::Publish(serial) => {
                w.env.published |= 1 << serial;
                (CN, Input::Cn(published(serial)))
            }
            Move::EdgeTells(client, serial) => {
                w.budget.changes -= 1;
                (client, Input::Said(ToClient::Notice(signed(serial))))
            }
            Move::Forge => {
                w.env.forged = true;
                w.send(to_client(STEADY), Duration::ZERO, Event::ToClient(ToClient::Notice(signed(FORGED))));
                (CN, Input::Cn(published(FORGED)))
            }
            Move::Login(client) => {
                w.env.client(client).connected = true;
                w.env.client(client).logins += 1;
                w.send(to_client(client), Duration::ZERO, Event::Welcome);
                (CN, Input::Cn(server::Input::Opened(conn(client))))
            }
            Move::Break(client) => {
                w.budget.drops -= 1;
                cut(w, client)
            }
            Move::Crash(client) => {
                w.budget.crashes -= 1;
                let serial = w.env.client(client).disk;
                w.env.client(client).obeyed = serial;
                w.set_node(client, Some(client_with(serial)));
                cut(w, client)
            }
        })
    }
}

/// Closes a client's connection and drops the messages in flight on it.
fn cut(w: &mut World<Notices>, client: NodeIx) -> (NodeIx, Input) {
    w.env.client(client).connected = false;
    w.clear_lanes(|lane| *lane == to_cn(client) || *lane == to_client(client));
    (CN, Input::Cn(server::Input::Closed(conn(client))))
}

fn client_with(serial: u64) -> Node {
    let mut holder = Holder::default();
    holder.hold(Known { subject: subject(), serial });
    Node::Client(holder)
}

/// Returns the initial world: one client is connected, the other is not, and nothing was published.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Notices> {
    let nodes = vec![Node::Cn(Server::default()), client_with(0), client_with(0)];
    let mut w = World::new(Notices::default(), nodes, budget);
    let mut rng = super::rng::Seeded::new(1);
    w.step(cfg, &super::world::Act::Move(Move::Login(STEADY)), &mut rng);
    w.settle(cfg, 9, &mut rng, World::is_quiet);
    w
}

/// Returns whether a client has the CN's newest notice or is not connected.
fn is_told(w: &World<Notices>, client: NodeIx) -> bool {
    let (Some(Node::Cn(cn)), Some(Node::Client(holder))) = (w.node(CN), w.node(client)) else { return false };
    !w.env.is_connected(client) || holder.serial(subject()) >= Some(cn.serial(subject()))
}

/// Returns whether the CN's newest notice is on a client's disk, or the client is not connected.
fn is_durable(w: &World<Notices>, client: NodeIx) -> bool {
    let Some(Node::Cn(cn)) = w.node(CN) else { return false };
    let disk = w.env.clients.get(&client).map_or(0, |c| c.disk);
    !w.env.is_connected(client) || disk >= cn.serial(subject())
}

fn logins(w: &World<Notices>, client: NodeIx) -> u8 {
    w.env.clients.get(&client).map_or(0, |c| c.logins)
}

/// Rules of the model of notices, checked in its reachable states.
pub const RULES: &[Rule<Notices>] = &[
    Rule::always("what a client obeys never goes back", |_, w| !w.env.went_back),
    Rule::always("only what an edge has signed is obeyed", |_, w| !w.env.obeyed_forgery),
    Rule::always("a client that stays connected gets each newer notice", |cfg, w| {
        settles(cfg, w, 60, |w| is_told(w, STEADY))
    }),
    Rule::always("a client that logs in gets what it has missed", |cfg, w| settles(cfg, w, 60, |w| is_told(w, SHAKY))),
    Rule::always("what a client has acknowledged is on its disk", |_, w| {
        w.env.clients.values().all(|c| c.acknowledged <= c.disk)
    }),
    Rule::always("a notice is sent until it is durable", |cfg, w| {
        settles(cfg, w, 60, |w| is_durable(w, STEADY) && is_durable(w, SHAKY))
    }),
    Rule::sometimes("a client that crashed has the newest notice", |_, w| {
        w.budget.crashes == 0 && logins(w, SHAKY) > 1 && w.env.clients.get(&SHAKY).is_some_and(|c| c.disk == NEWEST)
    }),
    Rule::sometimes("both have the newest notice after a forged one", |_, w| {
        w.env.forged && w.env.clients.values().filter(|c| c.disk == NEWEST).count() == 2
    }),
];
