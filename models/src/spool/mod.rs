//! World of an edge's records: the production machines of an edge and of the ledger, the edge's spool, the ledger's
//! database, and the connection between them. One download is granted and served in two parts; the second part needs
//! a further reservation. Either node may crash at any step, the connection may break, either disk may refuse a
//! write, an acknowledgement may arrive twice. A client whose bytes are withheld continues with a download without
//! peers.

pub mod model;
mod rules;

pub use rules::RULES;

use super::scenario::{Name, Role};
use super::sim::keys;
use super::sim::machines::drive;
use super::sim::store::Spool;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;
use swarmedge_core::content::{Access, Policy};
use swarmedge_core::ids::{ConnId, Guid, ProviderId, PublicKey, RecordId, ReqId, VersionId};
use swarmedge_core::machine::{Machine as _, Rng, Time};
use swarmedge_core::role::edge::io::{Batch, GrantAsked, ObjectFacts, Renewal, ServedGrant};
use swarmedge_core::role::edge::{self, Edge};
use swarmedge_core::role::ledger::{self, Ledger};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::{Grant, GrantRecord, LedgerRecord, ServerRole, SignedGrant, SigningContext};
use swarmedge_core::wire::{Text, Wire as _};

const EDGE: NodeIx = 0;
const LEDGER: NodeIx = 1;
/// Size of a part in bytes, equal to the first reservation of a download.
const PART: u64 = swarmedge_core::limits::RESERVE_FIRST;
const PARTS: u8 = 2;
const SIZE: u64 = PART * PARTS as u64;

/// Faults and seeded defect of the spool world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cfg {
    /// Budget of faults that the model explores.
    pub budget: Budget,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

/// Seeded defects of the spool world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: the spool reports a grant's record as written but loses it.
    SpoolLosesGrants,
    /// Seeded defect: the ledger reports a batch as durable but loses it.
    LedgerLosesBatches,
    /// Seeded defect: the ledger reports a batch as durable before it is.
    AcksAhead,
    /// Seeded defect: a record gets another id each time it is sent.
    FreshIds,
    /// Seeded defect: acknowledgements of the edge's records are lost.
    AcksAreLost,
    /// Seeded defect: a starting edge does not read the records in its spool.
    RecordsNotReplayed,
    /// Seeded defect: a starting edge does not read the counts in its spool.
    CountsNotReplayed,
    /// Seeded defect: the spool reports a reservation of bytes as durable without storing it.
    NoReserve,
    /// Seeded defect: bytes that the edge refuses to send (since it cannot count them) are sent all the same.
    SendsWithheld,
    /// Seeded defect: a client that continues without peers keeps its download id.
    KeepsDownload,
    /// Seeded defect: the edge is not told of the bytes that were sent.
    CountsAreLost,
}

/// A node: one production state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Machine of the edge.
    Edge(Box<Edge>),
    /// Machine of the ledger.
    Ledger(Box<Ledger>),
}

/// An input of a node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// Input of the edge.
    Edge(edge::Input),
    /// Input of the ledger.
    Ledger(ledger::Input),
}

/// An output of a node's machine.
#[derive(Clone, Debug)]
pub enum Out {
    /// Output of the edge.
    Edge(edge::Output),
    /// Output of the ledger.
    Ledger(ledger::Output),
}

/// A pending event of the spool world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An input arrives at the edge's or the ledger's machine.
    Told(In),
    /// The edge's attempt to connect to the ledger succeeds or fails.
    Dial(ConnId),
    /// A write to the edge's spool completes.
    Spool(ReqId, Batch),
    /// A write to the ledger's database completes.
    Store(ReqId, Vec<LedgerRecord>),
    /// A write to the ledger's database completes after the ledger was told that it had (a seeded defect).
    StoreLate(Vec<LedgerRecord>),
    /// A part is sent to the client, counted or not.
    Part(u8, bool),
}

/// An external event in the spool world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The client requests a grant.
    Ask,
    /// The client requests a part.
    Fetch(u8),
    /// The client, which was refused a part, requests a download without peers.
    LeavePeers,
    /// A node crashes without warning.
    Crash(NodeIx),
    /// A node starts, on its disk.
    Start(NodeIx),
    /// The connection between edge and ledger breaks, and both notice.
    Break,
}

/// Environment of the edge and the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// Number of the edge's connection to the ledger, and whether the ledger has accepted it.
    link: Option<(ConnId, bool)>,
    spool: Spool,
    database: BTreeMap<RecordId, LedgerRecord>,
    /// Whether a client's request for a grant is pending.
    asking: bool,
    /// Grants that the client got; it uses the last one.
    granted: Vec<Grant>,
    /// Parts that the client requested, each with the index of its grant.
    fetched: BTreeMap<u8, usize>,
    /// Whether the edge refused to send a part under the client's current grant.
    withheld: bool,
    /// Parts that were sent, each with the index of its grant and whether the edge counts it.
    sent: BTreeMap<u8, (usize, bool)>,
    /// Records that were ever durable in the spool.
    spooled: BTreeSet<RecordId>,
    /// Whether bytes were counted under a grant that neither spool nor ledger has a record of.
    unrecorded: bool,
    /// Whether bytes were sent uncounted under a grant that allows peers.
    gave_beside_peers: bool,
    starts: u8,
    edge_crashed: bool,
    renamed: u32,
}

fn version() -> VersionId {
    VersionId::numbered(1)
}

fn client() -> PublicKey {
    PublicKey::numbered(0x50)
}

/// Returns the client's request for its first grant, or for a grant without peers that replaces it.
fn asked(w: &World<Delivery>) -> GrantAsked {
    let object = ObjectFacts {
        provider: ProviderId(1),
        path: Text::default(),
        version: version(),
        size: SIZE,
        access: Access::Public,
        policy: Policy::default(),
    };
    let (key, download_key) = (client(), PublicKey::numbered(0xd0));
    GrantAsked {
        req: ReqId(1),
        guid: Guid::of(&key),
        key,
        download_key,
        object,
        token: None,
        version: None,
        renew: w.env.granted.last().map(|grant| {
            let cert = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
            let signature = keys::sign(&cert.body.key, SigningContext::Grant, &grant.to_bytes());
            let grant = Some(SignedGrant { grant: grant.clone(), signature, cert });
            Renewal { grant, proven: true, edge_only: true }
        }),
        from: IpAddr::V4(Ipv4Addr::LOCALHOST),
        time_ms: keys::WALL_MS,
        nonce: u128::from(w.env.granted.len() as u64).to_be_bytes(),
    }
}

fn edge_config() -> edge::Config {
    let cert = keys::cert(Name(Role::Edge, 0), ServerRole::Edge);
    let zero = (Duration::ZERO, Duration::ZERO);
    edge::Config { challenge_permille: 0, backoff: zero, ..edge::Config::new(keys::root(), keys::verify, cert) }
}

/// Returns the ledger's configuration, in which at most two records may wait to be stored.
fn ledger_config() -> ledger::Config {
    ledger::Config { pending_max: 2, batch_max: 2, ..ledger::Config::new(keys::root(), keys::verify) }
}

const fn accepted(conn: ConnId) -> ConnId {
    ConnId(1 << 63 | conn.0)
}

const fn lane(to: NodeIx, what: &'static str) -> Lane {
    Lane { to, what, id: 0 }
}

fn tell(w: &mut World<Delivery>, what: &'static str, input: In) {
    let to = if matches!(input, In::Edge(_)) { EDGE } else { LEDGER };
    w.send(lane(to, what), Duration::ZERO, Event::Told(input));
}

/// Breaks the connection, drops the messages on it, and notifies the nodes that run.
fn cut(w: &mut World<Delivery>) {
    let Some((conn, open)) = w.env.link.take() else { return };
    w.clear_lanes(|l| l.what == "link");
    if w.node(EDGE).is_some() {
        tell(w, "link", In::Edge(edge::Input::LedgerClosed { conn }));
    }
    if open && w.node(LEDGER).is_some() {
        tell(w, "link", In::Ledger(ledger::Input::Closed { conn: accepted(conn) }));
    }
}

/// Starts a node with what is in its spool or database.
fn start(w: &mut World<Delivery>, cfg: &Cfg, ix: NodeIx) {
    w.env.starts += 1;
    let unix_ms = keys::WALL_MS + 1000 * u64::from(w.env.starts);
    if ix == LEDGER {
        w.set_node(ix, Some(Node::Ledger(Box::default())));
        return tell(w, "at once", In::Ledger(ledger::Input::WallClock { unix_ms }));
    }
    w.set_node(ix, Some(Node::Edge(Box::default())));
    let (mut records, mut counts): (Vec<_>, _) =
        (w.env.spool.records.values().cloned().collect(), w.env.spool.counts.clone());
    match cfg.mutant {
        Some(Mutant::RecordsNotReplayed) => records.clear(),
        Some(Mutant::CountsNotReplayed) => counts.clear(),
        _ => {}
    }
    tell(w, "at once", In::Edge(edge::Input::WallClock { unix_ms }));
    tell(w, "at once", In::Edge(edge::Input::Restored { records, counts }));
}

fn perform_edge(w: &mut World<Delivery>, cfg: &Cfg, output: edge::Output) {
    match output {
        edge::Output::IssueGrant { grant, .. } => {
            let env = &mut w.env;
            let kept = env.granted.last().filter(|_| cfg.mutant == Some(Mutant::KeepsDownload)).map(|g| g.download);
            env.granted.push(Grant { download: kept.unwrap_or(grant.download), ..*grant });
            (env.asking, env.withheld) = (false, false);
        }
        edge::Output::DenyGrant { .. } => w.env.asking = false,
        edge::Output::Serve { req, counted } => {
            let (part, env) = (u8::try_from(req.0).unwrap_or(0), &mut w.env);
            let grant = env.fetched.get(&part).and_then(|n| env.granted.get(*n));
            let recorded = grant
                .map(|grant| GrantRecord::id_of(grant.download))
                .is_some_and(|id| env.spool.records.contains_key(&id) || env.database.contains_key(&id));
            env.unrecorded |= counted && !recorded;
            leave(w, part, counted);
        }
        edge::Output::Withhold { req } => {
            let part = u8::try_from(req.0).unwrap_or(0);
            if cfg.mutant == Some(Mutant::SendsWithheld) {
                return leave(w, part, false);
            }
            let with = w.env.fetched.remove(&part);
            w.env.withheld |= with.is_some_and(|n| n + 1 == w.env.granted.len());
        }
        edge::Output::Save { req, batch } => {
            w.send(lane(EDGE, "disk"), Duration::ZERO, Event::Spool(req, batch));
        }
        edge::Output::LedgerDial { conn } if w.node(LEDGER).is_some() => {
            w.env.link = Some((conn, false));
            w.send(lane(LEDGER, "link"), Duration::ZERO, Event::Dial(conn));
        }
        edge::Output::LedgerDial { conn } => tell(w, "link", In::Edge(edge::Input::LedgerClosed { conn })),
        edge::Output::LedgerSend { conn, msg } => send_ledger(w, cfg, conn, msg),
        edge::Output::LedgerClose { conn } => {
            if w.env.link.is_some_and(|(c, _)| c == conn) {
                cut(w);
                w.clear_lanes(|l| *l == lane(EDGE, "link"));
            }
        }
        edge::Output::AnswerCompleted { .. }
        | edge::Output::AnswerProof { .. }
        | edge::Output::Prove { .. }
        | edge::Output::Counting(_)
        | edge::Output::Count(_)
        | edge::Output::GaveAway { .. }
        | edge::Output::Stopped => {}
    }
}

/// Sends a part to the client, counted or not.
fn leave(w: &mut World<Delivery>, part: u8, counted: bool) {
    let (id, env) = (u64::from(part), &mut w.env);
    let grant = env.fetched.get(&part).and_then(|n| env.granted.get(*n));
    env.gave_beside_peers |= !counted && grant.is_some_and(|grant| !grant.is_edge_only());
    w.send(Lane { to: EDGE, what: "part", id }, Duration::ZERO, Event::Part(part, counted));
}

fn send_ledger(w: &mut World<Delivery>, cfg: &Cfg, conn: ConnId, mut msg: ToLedger) {
    if w.env.link != Some((conn, true)) {
        return;
    }
    if let (Some(Mutant::FreshIds), ToLedger::Submit(LedgerRecord::Served(r))) = (cfg.mutant, &mut msg) {
        w.env.renamed += 1;
        r.id = RecordId::numbered(w.env.renamed);
    }
    tell(w, "link", In::Ledger(ledger::Input::Server { conn: accepted(conn), msg }));
}

fn perform_ledger(w: &mut World<Delivery>, cfg: &Cfg, output: ledger::Output) {
    match output {
        ledger::Output::Send { conn, msg } => {
            let lost = cfg.mutant == Some(Mutant::AcksAreLost) && matches!(msg, FromLedger::Ack(_));
            let link = w.env.link.filter(|(c, open)| accepted(*c) == conn && *open && !lost);
            if let Some((conn, _)) = link {
                tell(w, "link", In::Edge(edge::Input::Ledger { conn, msg }));
            }
        }
        ledger::Output::Close { conn } => {
            if w.env.link.is_some_and(|(c, _)| accepted(c) == conn) {
                cut(w);
                w.clear_lanes(|l| *l == lane(LEDGER, "link"));
            }
        }
        ledger::Output::Store { req, records } if cfg.mutant == Some(Mutant::AcksAhead) => {
            w.send(lane(LEDGER, "slow disk"), Duration::ZERO, Event::StoreLate(records));
            tell(w, "disk", In::Ledger(ledger::Input::Stored { req, ok: true }));
        }
        ledger::Output::Store { req, records } => {
            w.send(lane(LEDGER, "disk"), Duration::ZERO, Event::Store(req, records));
        }
        ledger::Output::Count(_) | ledger::Output::Stopped => {}
    }
}

fn store(env: &mut Delivery, records: Vec<LedgerRecord>) {
    for record in records {
        env.database.entry(record.id()).or_insert(record);
    }
}

/// Completes a write to the edge's spool, with the seeded defect if any.
fn spooled(env: &mut Delivery, cfg: &Cfg, mut batch: Batch) {
    let is_grant = |r: &LedgerRecord| matches!(r, LedgerRecord::Granted(_));
    match cfg.mutant {
        Some(Mutant::SpoolLosesGrants) => batch.records.retain(|r| !is_grant(r)),
        Some(Mutant::NoReserve) => {
            let total = |c: &edge::io::Count| c.total_bytes;
            batch.counts.iter_mut().for_each(|c| c.reserved = total(c));
        }
        _ => {}
    }
    env.spooled.extend(batch.records.iter().map(LedgerRecord::id));
    env.spool.apply(batch);
}

fn range(part: u8) -> Range<u64> {
    let start = u64::from(part) * PART;
    start..start + PART
}

impl System for Delivery {
    type Cfg = Cfg;
    type Node = Node;
    type Event = Event;
    type Input = In;
    type Output = Out;
    type Move = Move;

    fn run(_: &Cfg, _: NodeIx, node: &mut Node, Turn { now, rng }: Turn<'_>, input: Option<In>) -> Vec<Out> {
        match (node, input) {
            (Node::Edge(m), Some(In::Edge(input))) => {
                drive(&mut **m, &edge_config(), (now, rng), Some(input), Out::Edge)
            }
            (Node::Edge(m), None) => drive(&mut **m, &edge_config(), (now, rng), None, Out::Edge),
            (Node::Ledger(m), Some(In::Ledger(input))) => {
                drive(&mut **m, &ledger_config(), (now, rng), Some(input), Out::Ledger)
            }
            (Node::Ledger(m), None) => drive(&mut **m, &ledger_config(), (now, rng), None, Out::Ledger),
            (node, input) => panic!("{node:?} was told {input:?}"),
        }
    }

    fn deadline(node: &Node) -> Option<Time> {
        match node {
            Node::Edge(m) => m.poll_timeout(),
            Node::Ledger(m) => m.poll_timeout(),
        }
    }

    fn rebase(node: &mut Node, by: Duration) {
        match node {
            Node::Edge(m) => m.rebase(by),
            Node::Ledger(m) => m.rebase(by),
        }
    }

    fn check(node: &Node) {
        match node {
            Node::Edge(m) => m.check(),
            Node::Ledger(m) => m.check(),
        }
    }

    fn rebase_env(&mut self, _: Duration) {}

    fn perform(w: &mut World<Self>, cfg: &Cfg, _: NodeIx, output: Out) {
        match output {
            Out::Edge(output) => perform_edge(w, cfg, output),
            Out::Ledger(output) => perform_ledger(w, cfg, output),
        }
    }

    fn delivers_immediately(_: &World<Self>, _: &Cfg, lane: Lane) -> bool {
        lane.what == "at once"
    }

    fn faults(w: &World<Self>, _: &Cfg, _: Lane, event: &Event, ways: &mut Vec<Way>) {
        let refused = matches!(event, Event::Spool(..) | Event::Store(..));
        ways.extend((refused && w.budget.drops > 0).then_some(Way::Fault("refuse")));
        let ack = matches!(event, Event::Told(In::Edge(edge::Input::Ledger { msg: FromLedger::Ack(_), .. })));
        ways.extend((ack && w.budget.duplicates > 0).then_some(Way::Twice));
    }

    fn arrive(w: &mut World<Self>, cfg: &Cfg, _: Lane, event: Event, way: Way) -> Option<In> {
        let ok = way != Way::Fault("refuse");
        w.budget.drops -= u8::from(!ok);
        w.budget.duplicates -= u8::from(way == Way::Twice);
        match event {
            Event::Told(input) => Some(input),
            Event::Dial(conn) => {
                w.env.link = Some((conn, true));
                tell(w, "link", In::Edge(edge::Input::LedgerOpened { conn }));
                let key = keys::key(Name(Role::Edge, 0));
                Some(In::Ledger(ledger::Input::Accepted { conn: accepted(conn), key }))
            }
            Event::Spool(req, batch) => {
                if ok {
                    spooled(&mut w.env, cfg, batch);
                }
                Some(In::Edge(edge::Input::Saved { req, ok }))
            }
            Event::Store(req, records) => {
                if ok && cfg.mutant != Some(Mutant::LedgerLosesBatches) {
                    store(&mut w.env, records);
                }
                Some(In::Ledger(ledger::Input::Stored { req, ok }))
            }
            Event::StoreLate(records) => {
                store(&mut w.env, records);
                None
            }
            Event::Part(part, counted) => {
                let with = w.env.fetched.get(&part).copied().unwrap_or(0);
                w.env.sent.insert(part, (with, counted));
                if cfg.mutant == Some(Mutant::CountsAreLost) {
                    return None;
                }
                let (version, provider) = (version(), ProviderId(1));
                let grant = w.env.granted.get(with).map(ServedGrant::of);
                let input = match counted {
                    true => edge::Input::BytesSent { grant, version, provider, range: range(part) },
                    false => edge::Input::GivenAway { bytes: PART },
                };
                tell(w, "count", In::Edge(input));
                None
            }
        }
    }

    fn external_events(w: &World<Self>, _: &Cfg, moves: &mut Vec<Move>) {
        for ix in [EDGE, LEDGER] {
            match w.node(ix) {
                Some(_) if w.budget.crashes > 0 => moves.push(Move::Crash(ix)),
                Some(_) => {}
                None => moves.push(Move::Start(ix)),
            }
        }
        moves.extend((w.budget.drops > 0 && w.env.link.is_some_and(|l| l.1)).then_some(Move::Break));
        if w.node(EDGE).is_some() {
            match w.env.granted.is_empty() {
                _ if w.env.asking => {}
                true => moves.push(Move::Ask),
                false if w.env.withheld => moves.push(Move::LeavePeers),
                // parts are requested in order, as by a reading client
                false => moves.extend((0..PARTS).find(|p| !w.env.fetched.contains_key(p)).map(Move::Fetch)),
            }
        }
    }

    fn apply_external(w: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, In)> {
        match *mv {
            Move::Ask | Move::LeavePeers => {
                w.env.asking = true;
                let asked = asked(w);
                return Some((EDGE, In::Edge(edge::Input::GrantAsked(Box::new(asked)))));
            }
            Move::Fetch(part) => {
                w.env.fetched.insert(part, w.env.granted.len() - 1);
                let grant = Box::new(w.env.granted.last()?.clone());
                let serving = edge::Input::SendRequested { req: ReqId(part.into()), grant, bytes: PART };
                return Some((EDGE, In::Edge(serving)));
            }
            Move::Crash(ix) => {
                w.budget.crashes -= 1;
                w.set_node(ix, None);
                cut(w);
                w.env.asking &= ix != EDGE;
                w.env.edge_crashed |= ix == EDGE;
            }
            Move::Start(ix) => start(w, cfg, ix),
            Move::Break => {
                w.budget.drops -= 1;
                cut(w);
            }
        }
        None
    }
}

/// Returns the world with both nodes started and connected, before any request.
#[must_use]
pub fn world(cfg: &Cfg) -> World<Delivery> {
    let nodes = std::vec![Node::Edge(Box::default()), Node::Ledger(Box::default())];
    let mut w = World::new(Delivery::default(), nodes, cfg.budget);
    for ix in [LEDGER, EDGE] {
        start(&mut w, cfg, ix);
    }
    let mut rng = super::rng::Seeded::new(1);
    let ready = w.settle(cfg, 100, &mut rng, |w| w.is_quiet() && w.env.link.is_some_and(|l| l.1));
    assert!(ready, "an undisturbed edge reaches the ledger");
    w.rebase();
    w
}
