//! World of one download: the production [`Download`] machine, an edge that never fails, peers that join and leave
//! (one of which may send wrong blocks), and a disk that survives the client's crashes.

pub mod model;

use super::rule::{Rule, settles};
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use swarmedge_core::content::{Bitfield, Layout};
use swarmedge_core::ids::{ConnId, Handle, IntroId, PieceIndex, PublicKey, XferId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::role::client::io::{FetchEnd, SourceName};
use swarmedge_core::swarm::download::{self, Download, Input, Output, Phase, Source, Spec};

/// Configuration of the download world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Configuration of the download machine.
    pub download: download::Config,
    /// Division of the version into pieces.
    pub layout: Layout,
    /// Peers that may join the download.
    pub peers: Vec<Peer>,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

/// A peer that uploads to the client.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Pieces that the peer has.
    pub has: Bitfield,
    /// Whether the peer may send wrong blocks, as often as the budget of corruptions allows.
    pub corrupts: bool,
    /// Maximum number of times that the peer joins.
    pub visits: u8,
}

/// Seeded defects of the download world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: a block with wrong bytes passes verification.
    BadBlockCounts,
    /// Seeded defect: a block with wrong bytes is reported as a broken transfer, so its sender is not blamed.
    BlameIsLost,
    /// Seeded defect: a piece that is durable already is committed again.
    CommitsTwice,
    /// Seeded defect: the machine requests twice as many bytes at a time as the rules allow.
    WindowTwiceAsWide,
    /// Seeded defect: after a crash the journal lacks a piece whose bytes are still counted.
    JournalLosesPiece,
    /// Seeded defect: the machine is never told that a piece has become durable.
    SavedIsLost,
}

/// A pending event of the download world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A transfer ends: source, piece, blocks.
    Transfer(Source, PieceIndex, Range<u32>),
    /// A transfer that the client has cancelled ends.
    Cancelled(Source, PieceIndex, Range<u32>),
    /// An input arrives at the client's download machine.
    Told(Input),
    /// A piece becomes durable on the client's disk; with the bytes that each source delivered of it.
    Save(PieceIndex, Vec<(SourceName, u32)>),
}

/// An external event in the download world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// A peer joins the download.
    Join(u8),
    /// A peer's connection ends.
    Leave(u8),
    /// The client crashes and starts again.
    Crash,
}

/// Environment of the download machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swarm {
    connected: BTreeMap<ConnId, u8>,
    visits: Vec<u8>,
    journal: BTreeMap<PieceIndex, Vec<(SourceName, u32)>>,
    lost: BTreeMap<SourceName, u64>,
    /// Blocks that were received with the right bytes, by piece.
    right: BTreeMap<PieceIndex, BTreeSet<u32>>,
    commits: BTreeMap<PieceIndex, u8>,
    caught: BTreeSet<u8>,
    asked_after_caught: bool,
    committed_wrong: bool,
}

/// Returns the number of the peer that a transfer comes from; `None` for an edge.
fn peer_of(world: &World<Swarm>, source: Source) -> Option<u8> {
    match source {
        Source::Edge(_) => None,
        Source::Peer(conn) => world.env.connected.get(&conn).copied(),
    }
}

/// Returns the name under which the bytes of a peer are counted.
fn name(peer: u8, conn: ConnId) -> SourceName {
    SourceName::Peer(IntroId::numbered(u32::try_from(conn.0).unwrap_or(0)), PublicKey::numbered(u32::from(peer)))
}

fn lane(xfer: XferId) -> Lane {
    Lane { to: 0, what: "transfer", id: xfer.0 }
}

/// Returns the client's download machine, restored from the disk: empty at the first start, with durable pieces after
/// a crash.
fn download(cfg: &Cfg, env: &Swarm) -> Download {
    let mut have = Bitfield::empty(cfg.layout.pieces());
    let mut counted = env.lost.clone();
    for (&piece, from) in &env.journal {
        have.insert(piece);
        from.iter().for_each(|&(n, b)| *counted.entry(n).or_default() += u64::from(b));
    }
    let counted = counted.into_iter().collect();
    let spec = Spec { handle: Handle(1), layout: cfg.layout, have, counted, order_seed: 1, rate_min: 0 };
    Download::new(spec, &cfg.download)
}

/// Ends all transfers over a connection that has ended.
fn cut(world: &mut World<Swarm>, conn: ConnId) {
    let gone: Vec<Lane> = world
        .under_way()
        .filter(|(_, e)| matches!(e, Event::Transfer(Source::Peer(c), ..) | Event::Cancelled(Source::Peer(c), ..) if *c == conn))
        .map(|(lane, _)| lane)
        .collect();
    for lane in gone {
        world.clear_lanes(|l| *l == lane);
        let ended = Input::Ended { xfer: XferId(lane.id), end: FetchEnd::Broken };
        world.send(lane, Duration::ZERO, Event::Told(ended));
    }
    world.env.connected.remove(&conn);
}

impl System for Swarm {
    type Cfg = Cfg;
    type Node = Download;
    type Event = Event;
    type Input = Input;
    type Output = Output;
    type Move = Move;

    fn run(
        cfg: &Cfg,
        _: NodeIx,
        node: &mut Download,
        Turn { now, rng }: Turn<'_>,
        input: Option<Input>,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        let mut limits = cfg.download;
        if cfg.mutant == Some(Mutant::WindowTwiceAsWide) {
            limits.peer_window.fetches *= 2;
            limits.peer_window.least *= 2 * u64::from(cfg.layout.piece_len());
            limits.peer_window.most *= 2 * u64::from(cfg.layout.piece_len());
        }
        let mut cx = Cx { now, cfg: &limits, rng, out: &mut out };
        match input {
            Some(input) => node.handle_input(&mut cx, input),
            None => node.handle_timeout(&mut cx),
        }
        out
    }

    fn deadline(node: &Download) -> Option<Time> {
        node.poll_timeout()
    }

    fn rebase(node: &mut Download, by: Duration) {
        node.rebase(by);
    }

    fn check(node: &Download) {
        node.check();
    }

    fn rebase_env(&mut self, _: Duration) {}

    fn perform(world: &mut World<Self>, cfg: &Cfg, _: NodeIx, output: Output) {
        match output {
            Output::Fetch { xfer, source, piece, blocks } => {
                let caught = peer_of(world, source).is_some_and(|p| world.env.caught.contains(&p));
                world.env.asked_after_caught |= caught;
                world.send(lane(xfer), Duration::ZERO, Event::Transfer(source, piece, blocks));
            }
            Output::CancelFetch { xfer } => {
                let event = world.under_way().find(|(l, _)| *l == lane(xfer)).map(|(_, e)| e.clone());
                if let Some(Event::Transfer(source, piece, blocks)) = event {
                    world.clear_lanes(|l| *l == lane(xfer));
                    world.send(lane(xfer), Duration::ZERO, Event::Cancelled(source, piece, blocks));
                }
            }
            Output::SavePiece { piece, from } => {
                let times = if cfg.mutant == Some(Mutant::CommitsTwice) { 2 } else { 1 };
                for _ in 0..times {
                    let lane = Lane { to: 0, what: "commit", id: u64::from(piece.0) };
                    world.send(lane, Duration::ZERO, Event::Save(piece, from.clone()));
                }
            }
            Output::Finish => {
                let lane = Lane { to: 0, what: "finish", id: 0 };
                world.send(lane, Duration::ZERO, Event::Told(Input::Finished(Ok(()))));
            }
            Output::DropPeer { conn, .. } => cut(world, conn),
            Output::RenewGrant | Output::LeavePeers => {
                let lane = Lane { to: 0, what: "grant", id: 0 };
                world.send(lane, Duration::ZERO, Event::Told(Input::Renewed));
            }
            Output::Verified { .. } | Output::Blame { .. } | Output::DropEdge { .. } | Output::Failed(_) => {}
        }
    }

    fn delivers_immediately(_: &World<Self>, _: &Cfg, lane: Lane) -> bool {
        matches!(lane.what, "finish" | "grant")
    }

    fn faults(world: &World<Self>, cfg: &Cfg, _: Lane, event: &Event, ways: &mut Vec<Way>) {
        match event {
            Event::Transfer(source, ..) => {
                let corrupts = peer_of(world, *source).is_some_and(|p| cfg.peers[usize::from(p)].corrupts);
                ways.extend((corrupts && world.budget.corruptions > 0).then_some(Way::Fault("corrupt")));
                if world.budget.drops > 0 {
                    ways.push(Way::Fault("break"));
                    ways.push(Way::Fault("break half way"));
                }
            }
            Event::Cancelled(..) => ways.push(Way::Fault("too late to cancel")),
            Event::Told(_) | Event::Save(..) => {}
        }
    }

    fn arrive(world: &mut World<Self>, cfg: &Cfg, lane: Lane, event: Event, way: Way) -> Option<Input> {
        let xfer = XferId(lane.id);
        let ended = |end| Some(Input::Ended { xfer, end });
        match (event, way) {
            (Event::Told(input), _) => Some(input),
            (Event::Transfer(source, ..), Way::Fault("corrupt")) => {
                world.budget.corruptions -= 1;
                let peer = peer_of(world, source)?;
                match cfg.mutant {
                    Some(Mutant::BadBlockCounts) => return ended(FetchEnd::Fetched),
                    Some(Mutant::BlameIsLost) => {
                        world.env.caught.insert(peer);
                        return ended(FetchEnd::Broken);
                    }
                    _ => {}
                }
                world.env.caught.insert(peer);
                ended(FetchEnd::BadBlock { block: 0 })
            }
            (Event::Transfer(..), Way::Fault("break")) => {
                world.budget.drops -= 1;
                ended(FetchEnd::Broken)
            }
            (Event::Transfer(_, piece, blocks), Way::Fault("break half way")) => {
                world.budget.drops -= 1;
                let half = blocks.start..blocks.start + (blocks.end - blocks.start) / 2;
                let verified = u64::from(half.end - half.start) * u64::from(BLOCK_LEN);
                world.env.right.entry(piece).or_default().extend(half);
                world.send(lane, Duration::ZERO, Event::Told(Input::Ended { xfer, end: FetchEnd::Broken }));
                Some(Input::Progress { xfer, verified })
            }
            (Event::Cancelled(..), Way::Whole) => ended(FetchEnd::Cancelled),
            (Event::Transfer(_, piece, blocks) | Event::Cancelled(_, piece, blocks), _) => {
                world.env.right.entry(piece).or_default().extend(blocks);
                ended(FetchEnd::Fetched)
            }
            (Event::Save(piece, from), _) => {
                let right = world.env.right.get(&piece).map_or(0, BTreeSet::len);
                world.env.committed_wrong |= right != cfg.layout.blocks(piece) as usize;
                *world.env.commits.entry(piece).or_default() += 1;
                world.env.journal.insert(piece, from);
                (cfg.mutant != Some(Mutant::SavedIsLost)).then_some(Input::PieceSaved { piece, result: Ok(()) })
            }
        }
    }

    fn external_events(world: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        if world.node(0).is_none_or(|d| matches!(d.phase(), Phase::Finishing | Phase::Done)) {
            return;
        }
        for p in 0..u8::try_from(cfg.peers.len()).unwrap_or(u8::MAX) {
            let connected = world.env.connected.values().any(|&c| c == p);
            if connected && world.budget.drops > 0 {
                moves.push(Move::Leave(p));
            } else if !connected && world.env.visits[usize::from(p)] < cfg.peers[usize::from(p)].visits {
                moves.push(Move::Join(p));
            }
        }
        moves.extend((world.budget.crashes > 0).then_some(Move::Crash));
    }

    fn apply_external(world: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Input)> {
        match *mv {
            Move::Join(p) => {
                let visits = &mut world.env.visits[usize::from(p)];
                *visits += 1;
                let conn = ConnId(u64::from(p) << 8 | u64::from(*visits));
                world.env.connected.insert(conn, p);
                let map = Input::PeerMap {
                    conn,
                    first: PieceIndex(0),
                    bits: cfg.peers[usize::from(p)].has.as_bytes().to_vec(),
                };
                world.send(Lane { to: 0, what: "map", id: conn.0 }, Duration::ZERO, Event::Told(map));
                Some((0, Input::PeerJoined { conn, name: name(p, conn), requests_max: 4 }))
            }
            Move::Leave(p) => {
                world.budget.drops -= 1;
                let conn = *world.env.connected.iter().find(|(_, c)| **c == p)?.0;
                cut(world, conn);
                Some((0, Input::PeerLeft { conn }))
            }
            Move::Crash => {
                world.budget.crashes -= 1;
                world.env.connected.clear();
                // the list of corrupting peers is not on disk
                world.env.caught.clear();
                world.env.right.retain(|p, _| world.env.journal.contains_key(p));
                if cfg.mutant == Some(Mutant::JournalLosesPiece)
                    && let Some((_, from)) = world.env.journal.pop_first()
                {
                    from.iter().for_each(|&(n, b)| *world.env.lost.entry(n).or_default() += u64::from(b));
                }
                let fresh = download(cfg, &world.env);
                world.set_node(0, Some(fresh));
                Some((0, Input::Start))
            }
        }
    }
}

/// Returns the world in which the client has begun to fetch and no peer has joined yet.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Swarm> {
    let env = Swarm { visits: std::vec![0; cfg.peers.len()], ..Swarm::default() };
    let node = download(cfg, &env);
    let mut world = World::new(env, std::vec![node], budget);
    world.send(Lane { to: 0, what: "start", id: 0 }, Duration::ZERO, Event::Told(Input::Start));
    world
}

fn done(w: &World<Swarm>) -> bool {
    w.node(0).is_some_and(|d| d.phase() == Phase::Done)
}

/// Rules of the model of a download, checked in its reachable states.
pub const RULES: &[Rule<Swarm>] = &[
    Rule::always("a piece is committed only if each of its blocks was verified", |_, w| !w.env.committed_wrong),
    Rule::always("a piece is committed at most once", |_, w| w.env.commits.values().all(|&n| n <= 1)),
    Rule::always("a peer that sent a wrong block is not asked again", |_, w| !w.env.asked_after_caught),
    Rule::always("no more is under way than the windows allow", |cfg: &Cfg, w| {
        let Some(d) = w.node(0) else { return true };
        let mut by_source: BTreeMap<Source, u32> = BTreeMap::new();
        d.under_way().for_each(|(_, source, _)| *by_source.entry(source).or_default() += 1);
        let within = |(s, n): (&Source, &u32)| match s {
            Source::Edge(_) => *n <= cfg.download.edge_window.fetches,
            Source::Peer(_) => *n <= cfg.download.peer_window.fetches,
        };
        by_source.iter().all(within) && d.in_flight() <= cfg.download.budget
    }),
    Rule::always("every durable byte is counted once, for one source", |_, w| {
        w.node(0).is_none_or(|d| d.counted().map(|(_, b)| b).sum::<u64>() == d.durable_bytes())
    }),
    Rule::always("the download completes while the edge lives", |cfg, w| settles(cfg, w, 400, done)),
    Rule::sometimes("peers deliver a piece of a complete download", |_, w| {
        done(w) && w.node(0).is_some_and(|d| d.peer_bytes() > 0)
    }),
    Rule::sometimes("a piece is put together from two sources", |_, w| {
        w.env.journal.values().any(|from| from.len() > 1)
    }),
    Rule::sometimes("a peer is caught", |_, w| !w.env.caught.is_empty() && done(w)),
];
