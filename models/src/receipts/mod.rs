//! World of receipts: the production machines of a downloader ([`Receipts`]) and of its uploaders ([`Uploads`]),
//! their disks, the downloader's log, an edge that sends a piece too, and the ledger's rules, which bill by the
//! records on the disks. Any node may crash and connections break; in every state the ledger also gets each possible
//! lie of one side.
//!
//! The state space is small because events are delayed only where a delay can matter: a write while a node may still
//! crash, a message while a connection may still break. Afterwards both arrive within the step that sends them.

mod books;
pub mod model;
mod names;
mod rules;

use names::{bytes, conn, download_key, has, intro_id, intro_of, introduction, layout, shown, uploader};
pub use rules::RULES;

use super::sim::keys;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use swarmedge_core::accounting::Trust;
use swarmedge_core::accounting::logs::Log;
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::content::Policy;
use swarmedge_core::ids::{ConnId, IntroId, PieceIndex, SecondaryGuid, VersionId, XferId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::session::Wall;
use swarmedge_core::swarm::outcome::CloseReason;
use swarmedge_core::swarm::{Receipts, Uploads, receipting, upload};
use swarmedge_core::wire::peer::{PeerHello, PeerMsg, PieceRequest};
use swarmedge_core::wire::records::{Head, Introduction, Receipt, ReceiptProof, SigningContext};
use swarmedge_core::wire::{PROTOCOL, Wire as _};

const DOWNLOADER: NodeIx = 0;
/// Size of the object in bytes: one piece of 64 KiB and one of a single 16 KiB block.
const SIZE: u64 = 80 * 1024;
const PIECES: u32 = 2;
const PIECE: u64 = 64 * 1024;

/// Limits and seeded defect of the receipts world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Rule that limits the bytes an uploader sends before it has a receipt for them.
    pub credit: CreditRule,
    /// Number of uploaders in the world.
    pub uploaders: NodeIx,
    /// Maximum numbers of faults; `duplicates` counts pieces sent by an edge, `changes` new introductions.
    pub budget: Budget,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
    /// Function that answers a question about bills: computes the answer, or returns the one that it has cached.
    pub answer: Answer,
}

/// Function of a rule's name, the seeded defect, the facts and a closure that computes the answer.
pub type Answer = fn(rule: &'static str, mutant: Option<Mutant>, facts: &Facts, ask: &dyn Fn() -> bool) -> bool;

impl Cfg {
    /// Returns the configuration with two uploaders whose connections break, and an edge that sends a piece as well.
    /// The large piece needs its receipt before the next piece is sent, the small one does not.
    #[must_use]
    pub fn repeating(mutant: Option<Mutant>) -> Self {
        let budget = Budget { drops: 1, fires: 1, duplicates: 1, ..Budget::default() };
        Self { credit: credit(PIECE), uploaders: 2, budget, mutant, answer: |_, _, _, ask| ask() }
    }

    /// Returns the configuration with two uploaders and a downloader, one of which crashes. Every piece needs its
    /// receipt before the next piece is sent.
    #[must_use]
    pub fn crashing(mutant: Option<Mutant>) -> Self {
        let budget = Budget { crashes: 1, changes: 1, ..Budget::default() };
        Self { credit: credit(SIZE - PIECE), budget, ..Self::repeating(mutant) }
    }
}

const fn credit(first: u64) -> CreditRule {
    CreditRule { first, most: 4 * PIECE, ..CreditRule::PROTOCOL }
}

/// Seeded defects of the receipts world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// Seeded defect: an uploader is told that its receipt is durable although it is not: a crash makes bytes unbilled.
    ReceiptsAreLost,
    /// Seeded defect: credit grows before the receipt is durable: a crash leaves more bytes unbilled than the credit.
    CreditBeforeDisk,
    /// Seeded defect: a piece received a second time is receipted again: the same bytes are billed twice.
    DuplicatesCount,
    /// Seeded defect: a piece is receipted when requested, not when verified: bytes that never came are billed.
    UnverifiedCounts,
    /// Seeded defect: connections end before the downloader has signed its last receipt: the last bytes stay unbilled.
    PartsAtOnce,
    /// Seeded defect: bytes received from one uploader are receipted to the other, and billed for the wrong one.
    WrongUploader,
    /// Seeded defect: a downloader reconnects after a crash with its old introduction, and repeats receipt numbers.
    OldIntroduction,
    /// Seeded defect: after a crash a downloader continues its previous start's log, which forks like a liar's.
    OldLog,
    /// Seeded defect: the ledger does not check receipts' signatures, so bytes of forged receipts are billed.
    LedgerTrusts,
    /// Seeded defect: a receipt's signature does not cover its introduction and uploader: another uploader can bill it.
    CoversNoUploader,
    /// Seeded defect: a receipt's signature does not cover the version: the receipt is billed for another one, too.
    CoversNoVersion,
    /// Seeded defect: a receipt's signature does not cover the download: the receipt is billed for another one, too.
    CoversNoDownload,
    /// Seeded defect: the ledger bills bytes over introductions that no CN has recorded: two clients can invent them.
    LedgerIsLenient,
    /// Seeded defect: all receipts of an introduction are added up. Too much is billed: receipts are running totals, so
    /// the highest one contains the others.
    SumsReceipts,
    /// Seeded defect: the larger of claim and receipt is billed: a downloader's claim needs no uploader's receipt.
    LargerClaim,
    /// Seeded defect: billed peer bytes are not limited to the version's size less the edges' bytes. Too much is
    /// billed: bytes that an edge and a peer have both sent are paid twice.
    NoClamp,
    /// Seeded defect: records that arrive after the download is closed still count, so a final bill changes.
    NeverCloses,
    /// Seeded defect: a client's record that arrives last counts, not its newest: the bill depends on the order.
    LastCounts,
    /// Seeded defect: a downloader without a record counts as having received nothing, even after the close. Too little
    /// is billed: the receipts that it has signed prove delivered bytes.
    SilenceDenies,
    /// Seeded defect: the ledger ignores quarantines, so records of a client in quarantine are still billed.
    QuarantineIsIgnored,
    /// Seeded defect: quarantine also voids the records that the client sent before it: a bill already due shrinks.
    QuarantineTakesBack,
    /// Seeded defect: edge bytes sent to a client in quarantine are not counted: the bill shows too few edge bytes.
    QuarantineHidesEdges,
}

/// A node: one production state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Receipt machine of the downloader.
    Down(Box<Receipts>),
    /// Upload machine of an uploader.
    Up(Box<Uploads>),
}

/// An input of a node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// Input of the downloader.
    Down(receipting::Input),
    /// Input of an uploader.
    Up(upload::Input),
}

/// An output of a node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// Output of the downloader.
    Down(receipting::Output),
    /// Output of an uploader.
    Up(upload::Output),
}

/// A pending event of the receipts world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An input arrives at the downloader's or an uploader's machine.
    Told(In),
    /// Blocks of a piece arrive at the downloader.
    Blocks(XferId, PieceIndex),
    /// The downloader writes a piece to disk; the introduction is `None` if an edge sent it.
    Journal(PieceIndex, Option<IntroId>),
    /// An uploader writes a receipt to disk.
    Keep(IntroId, ReceiptProof),
}

/// An external event in the receipts world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The downloader reconnects to an uploader with a new introduction.
    Connect(NodeIx),
    /// The downloader requests a piece from this uploader.
    Ask(NodeIx, PieceIndex),
    /// An edge sends a piece.
    Edge(PieceIndex),
    /// The downloader wants to close its connection to an uploader.
    Leave(NodeIx),
    /// A connection to an uploader breaks.
    Break(NodeIx),
    /// A node crashes and starts again.
    Crash(NodeIx),
}

/// Events of the run so far, as far as bills depend on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Number of introductions that the CN has made for each uploader.
    visits: Vec<u8>,
    /// Pieces on the downloader's disk, each with its introduction; `None` if an edge sent it.
    journal: BTreeMap<PieceIndex, Option<IntroId>>,
    /// Pieces that edges have sent.
    edge: BTreeSet<PieceIndex>,
    /// Highest receipt of each introduction that its uploader has received.
    got: BTreeMap<IntroId, ReceiptProof>,
    /// Bytes of pieces that the downloader got first over each introduction.
    delivered: BTreeMap<IntroId, u64>,
    /// Receipts that the downloader has signed: introduction, sequence number and bytes.
    signed: BTreeSet<(IntroId, u32, u64)>,
}

/// Environment of the downloader and uploaders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swarm {
    /// Events so far, as far as bills depend on them.
    facts: Facts,
    /// Introduction under which each connected uploader serves the downloader.
    connected: BTreeMap<NodeIx, IntroId>,
    /// Uploaders whose connection the downloader wants to close; it wants that once for each.
    leaving: BTreeSet<NodeIx>,
    asked: BTreeMap<XferId, (NodeIx, PieceIndex)>,
    /// Pieces that the downloader has verified since its start or found on its disk.
    verified: BTreeSet<PieceIndex>,
    /// Receipts on the uploaders' disks.
    kept: BTreeMap<IntroId, ReceiptProof>,
    /// Bytes sent over each introduction.
    sent: BTreeMap<IntroId, u64>,
    /// Introductions whose connection ended by a crash, a break or a time-out, instead of an orderly close.
    cut: BTreeSet<IntroId>,
    /// Log of the downloader since its last start.
    log: Log,
    starts: u32,
    /// Log heads that the downloader has signed.
    heads: Vec<Head>,
}

fn upload_cfg(cfg: &Cfg, ix: NodeIx) -> upload::Config {
    let trust = Trust { root: keys::root(), verify: keys::verify };
    upload::Config { credit: cfg.credit, requests_max: 4, ..upload::Config::new(trust, keys::upload_key(ix)) }
}

fn drive<M: Machine>(m: &mut M, cfg: &M::Config, at: (Time, &mut dyn Rng), input: Option<M::Input>) -> Vec<M::Output> {
    let mut out = Vec::new();
    let mut cx = Cx { now: at.0, cfg, rng: at.1, out: &mut out };
    match input {
        Some(input) => m.handle_input(&mut cx, input),
        None => m.handle_timeout(&mut cx),
    }
    out
}

/// Returns an uploader's machine that has just started and shares its pieces.
fn fresh_uploader(cfg: &Cfg, ix: NodeIx) -> Node {
    let mut up = Uploads::new(true);
    let have = has(ix);
    let (version, policy) = (VersionId::numbered(1), Policy::default());
    let share = upload::Input::Share { version, layout: layout(), have, policy, spent: 0 };
    let mut rng = super::rng::Seeded::new(1);
    for input in [upload::Input::Wall(Wall::showing(keys::WALL_MS, Time::ZERO)), share] {
        drive(&mut up, &upload_cfg(cfg, ix), (Time::ZERO, &mut rng), Some(input));
    }
    Node::Up(Box::new(up))
}

const fn lane(to: NodeIx, what: &'static str, id: u64) -> Lane {
    Lane { to, what, id }
}

fn tell_down(w: &mut World<Swarm>, input: receipting::Input) {
    w.send(lane(DOWNLOADER, "told", 0), Duration::ZERO, Event::Told(In::Down(input)));
}

fn tell_up(w: &mut World<Swarm>, up: NodeIx, what: &'static str, id: u64, input: upload::Input) {
    w.send(lane(up, what, id), Duration::ZERO, Event::Told(In::Up(input)));
}

/// Ends the connection to uploader `up`: its transfers are lost, and both machines get the news. `in_order`: neither
/// end failed.
fn end(w: &mut World<Swarm>, up: NodeIx, in_order: bool) {
    let Some(intro) = w.env.connected.remove(&up) else { return };
    w.env.leaving.remove(&up);
    let conn = conn(intro);
    w.clear_lanes(|l| matches!(l.what, "peer" | "blocks") && l.id >> 16 == conn.0);
    let lost: Vec<_> = w.env.asked.iter().filter(|(x, _)| x.0 >> 16 == conn.0).map(|(x, (_, p))| (*x, *p)).collect();
    tell_down(w, receipting::Input::Gone(conn));
    tell_up(w, up, "told", 0, upload::Input::Closed { conn });
    for (xfer, piece) in lost {
        w.env.asked.remove(&xfer);
        tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: bytes(piece) });
    }
    if !in_order && w.env.facts.delivered.contains_key(&intro) {
        w.env.cut.insert(intro);
    }
}

impl Swarm {
    fn is_connected(&self, conn: ConnId) -> bool {
        self.connected.get(&uploader(conn)) == Some(&intro_of(conn))
    }

    fn says(w: &mut World<Self>, output: receipting::Output) {
        match output {
            receipting::Output::Sign(req, receipt) => {
                w.env.facts.signed.insert((receipt.intro, receipt.seq, receipt.bytes));
                let signature = Some(keys::sign(&download_key(), SigningContext::Receipt, &receipt.to_bytes()));
                tell_down(w, receipting::Input::Signed(req, signature));
            }
            receipting::Output::Send(conn, msg) if w.env.is_connected(conn) => {
                tell_up(w, uploader(conn), "peer", conn.0 << 16, upload::Input::Message { conn, msg });
            }
            // closing a connection over which no byte came is in order
            receipting::Output::Close(conn, _) if w.env.is_connected(conn) => end(w, uploader(conn), false),
            receipting::Output::Send(..) | receipting::Output::Close(..) => {}
        }
    }

    fn serves(w: &mut World<Self>, cfg: &Cfg, up: NodeIx, output: upload::Output) {
        match output {
            upload::Output::Serve { xfer, piece, .. } => {
                let intro = intro_of(ConnId(xfer.0 >> 16));
                if w.env.asked.contains_key(&xfer) {
                    *w.env.sent.entry(intro).or_default() += bytes(piece);
                    w.send(lane(DOWNLOADER, "blocks", xfer.0), Duration::ZERO, Event::Blocks(xfer, piece));
                } else {
                    tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: 0 });
                }
            }
            upload::Output::Receipted { intro, proof, .. } => {
                w.env.facts.got.insert(intro, proof.clone());
                if cfg.mutant == Some(Mutant::CreditBeforeDisk) {
                    tell_up(w, up, "told", 0, upload::Input::ReceiptKept { intro, bytes: proof.bytes });
                }
                w.send(lane(up, "disk", 0), Duration::ZERO, Event::Keep(intro, proof));
            }
            upload::Output::Close { conn, why } if w.env.is_connected(conn) => end(w, up, why == CloseReason::Done),
            upload::Output::Refuse { xfer, .. } => {
                if w.env.asked.remove(&xfer).is_some() {
                    w.clear_lanes(|l| l.what == "blocks" && l.id == xfer.0);
                    tell_down(w, receipting::Input::Over(xfer));
                }
                tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: 0 });
            }
            upload::Output::Close { .. }
            | upload::Output::Send { .. }
            | upload::Output::Sent { .. }
            | upload::Output::Spent { .. }
            | upload::Output::UsedUp { .. }
            | upload::Output::Ended { .. } => {}
        }
    }

    /// Handles blocks that reached the downloader: they are verified, the first copy of a piece is receipted, and it
    /// is written to disk later.
    fn blocks_came(w: &mut World<Self>, cfg: &Cfg, xfer: XferId, piece: PieceIndex) {
        let Some((up, _)) = w.env.asked.remove(&xfer) else { return };
        let came = ConnId(xfer.0 >> 16);
        let intro = intro_of(came);
        tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: bytes(piece) });
        let first = w.env.verified.insert(piece);
        if first {
            *w.env.facts.delivered.entry(intro).or_default() += bytes(piece);
            w.send(lane(DOWNLOADER, "disk", 0), Duration::ZERO, Event::Journal(piece, Some(intro)));
        }
        let other = w.env.connected.values().map(|i| conn(*i)).find(|c| *c != came);
        let receipted = match (cfg.mutant, other) {
            (Some(Mutant::WrongUploader), Some(other)) => other,
            _ => came,
        };
        let counts = match cfg.mutant {
            Some(Mutant::DuplicatesCount) => true,
            Some(Mutant::UnverifiedCounts) => false,
            _ => first,
        };
        if counts {
            tell_down(w, receipting::Input::Verified(receipted, bytes(piece)));
        }
        tell_down(w, receipting::Input::Over(xfer));
    }

    /// Handles a piece written to the downloader's disk, and appends the new usage record to the log.
    fn journalled(w: &mut World<Self>, piece: PieceIndex, from: Option<IntroId>) {
        w.env.facts.journal.insert(piece, from);
        let start = SecondaryGuid::numbered(w.env.starts);
        let record = books::downloader(&w.env.facts);
        let head = w.env.log.append(start, &record);
        w.env.heads.push(head);
    }

    fn connect(w: &mut World<Self>, up: NodeIx) -> In {
        let visit = &mut w.env.facts.visits[usize::from(up) - 1];
        *visit += 1;
        let intro = intro_id(up, *visit);
        let conn = conn(intro);
        w.env.connected.insert(up, intro);
        let hello = PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro: shown(intro) });
        tell_up(w, up, "told", 0, upload::Input::Accepted { conn, key: download_key() });
        tell_up(w, up, "told", 0, upload::Input::Message { conn, msg: hello });
        let Introduction { download, version, uploader_key, .. } = introduction(intro);
        In::Down(receipting::Input::Owe(conn, Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 }))
    }

    fn crash(w: &mut World<Self>, cfg: &Cfg, ix: NodeIx) {
        let lost: Vec<NodeIx> = w.env.connected.keys().copied().filter(|up| ix == DOWNLOADER || *up == ix).collect();
        lost.into_iter().for_each(|up| end(w, up, false));
        // writes that have not finished are lost
        let unwritten = w.under_way().filter(|(l, _)| l.to == ix).filter_map(|(_, e)| match e {
            Event::Journal(_, intro) => *intro,
            Event::Keep(intro, _) => Some(*intro),
            Event::Told(_) | Event::Blocks(..) => None,
        });
        let unwritten: Vec<_> = unwritten.collect();
        w.env.cut.extend(unwritten);
        let fresh = if ix == DOWNLOADER { Node::Down(Box::default()) } else { fresh_uploader(cfg, ix) };
        w.set_node(ix, Some(fresh));
        if ix == DOWNLOADER {
            w.env.verified = w.env.facts.journal.keys().copied().collect();
            if cfg.mutant != Some(Mutant::OldLog) {
                w.env.starts += 1;
            }
            w.env.log = Log::default();
            if cfg.mutant == Some(Mutant::OldIntroduction) {
                w.env.facts.visits.iter_mut().for_each(|v| *v -= 1);
            }
        } else {
            let kept = w.env.kept.clone();
            w.env.facts.got.retain(|intro, _| uploader(conn(*intro)) != ix);
            w.env.facts.got.extend(kept.into_iter().filter(|(intro, _)| uploader(conn(*intro)) == ix));
        }
    }
}

impl System for Swarm {
    type Cfg = Cfg;
    type Node = Node;
    type Event = Event;
    type Input = In;
    type Output = Out;
    type Move = Move;

    fn run(cfg: &Cfg, ix: NodeIx, node: &mut Node, Turn { now, rng }: Turn<'_>, input: Option<In>) -> Vec<Out> {
        let at = (now, rng);
        match node {
            Node::Down(m) => {
                let cfg = receipting::Config { credit: cfg.credit, part_within: Duration::from_secs(5) };
                let input =
                    input.map(|i| if let In::Down(i) = i { i } else { panic!("the downloader was told {i:?}") });
                drive(&mut **m, &cfg, at, input).into_iter().map(Out::Down).collect()
            }
            Node::Up(m) => {
                let input = input.map(|i| if let In::Up(i) = i { i } else { panic!("an uploader was told {i:?}") });
                drive(&mut **m, &upload_cfg(cfg, ix), at, input).into_iter().map(Out::Up).collect()
            }
        }
    }

    fn deadline(node: &Node) -> Option<Time> {
        match node {
            Node::Down(m) => m.poll_timeout(),
            Node::Up(m) => m.poll_timeout(),
        }
    }

    fn rebase(node: &mut Node, by: Duration) {
        match node {
            Node::Down(m) => m.rebase(by),
            Node::Up(m) => m.rebase(by),
        }
    }

    fn check(node: &Node) {
        match node {
            Node::Down(m) => m.check(),
            Node::Up(m) => m.check(),
        }
    }

    fn rebase_env(&mut self, _: Duration) {}

    fn perform(w: &mut World<Self>, cfg: &Cfg, node: NodeIx, output: Out) {
        match output {
            Out::Down(output) => Self::says(w, output),
            Out::Up(output) => Self::serves(w, cfg, node, output),
        }
    }

    fn delivers_immediately(w: &World<Self>, _: &Cfg, lane: Lane) -> bool {
        match lane.what {
            "told" => true,
            "disk" => w.budget.crashes == 0,
            "peer" => w.budget.drops == 0,
            _ => false,
        }
    }

    fn faults(_: &World<Self>, _: &Cfg, _: Lane, _: &Event, _: &mut Vec<Way>) {}

    fn arrive(w: &mut World<Self>, cfg: &Cfg, _: Lane, event: Event, _: Way) -> Option<In> {
        match event {
            Event::Told(input) => Some(input),
            Event::Blocks(xfer, piece) => {
                Self::blocks_came(w, cfg, xfer, piece);
                None
            }
            Event::Journal(piece, from) => {
                Self::journalled(w, piece, from);
                None
            }
            Event::Keep(intro, proof) => {
                let bytes = proof.bytes;
                if cfg.mutant != Some(Mutant::ReceiptsAreLost) {
                    w.env.kept.insert(intro, proof);
                }
                Some(In::Up(upload::Input::ReceiptKept { intro, bytes }))
            }
        }
    }

    fn external_events(w: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        for up in 1..=cfg.uploaders {
            if !w.env.connected.contains_key(&up) {
                moves.extend((w.budget.changes > 0).then_some(Move::Connect(up)));
                continue;
            }
            // the downloader requests nothing from an uploader that it is leaving
            if !w.env.leaving.contains(&up) {
                let asked = |p| w.env.asked.values().any(|a| *a == (up, p));
                let there = (0..PIECES).map(PieceIndex).filter(|p| has(up).contains(*p));
                let wanted = there.filter(|p| !w.env.verified.contains(p) && !asked(*p));
                moves.extend(wanted.map(|p| Move::Ask(up, p)));
                moves.push(Move::Leave(up));
            }
            moves.extend((w.budget.drops > 0).then_some(Move::Break(up)));
        }
        if w.budget.duplicates > 0 {
            moves.extend((0..PIECES).map(|p| Move::Edge(PieceIndex(p))));
        }
        if w.budget.crashes > 0 {
            moves.extend(w.nodes().map(|(ix, _)| Move::Crash(ix)));
        }
    }

    fn apply_external(w: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, In)> {
        match *mv {
            Move::Connect(up) => {
                w.budget.changes -= 1;
                return Some((DOWNLOADER, Self::connect(w, up)));
            }
            Move::Ask(up, piece) => {
                let conn = conn(*w.env.connected.get(&up)?);
                let xfer = XferId(conn.0 << 16 | u64::from(piece.0));
                w.env.asked.insert(xfer, (up, piece));
                let blocks = u16::try_from(bytes(piece) / u64::from(BLOCK_LEN)).unwrap_or(1);
                let request = PieceRequest { piece, first_block: 0, blocks, want_leaves: false };
                tell_up(w, up, "told", 0, upload::Input::Request { conn, xfer, request });
                if cfg.mutant == Some(Mutant::UnverifiedCounts) {
                    tell_down(w, receipting::Input::Verified(conn, bytes(piece)));
                }
                return Some((DOWNLOADER, In::Down(receipting::Input::Fetching(xfer, conn))));
            }
            Move::Edge(piece) => {
                w.budget.duplicates -= 1;
                w.env.facts.edge.insert(piece);
                if w.env.verified.insert(piece) {
                    w.send(lane(DOWNLOADER, "disk", 0), Duration::ZERO, Event::Journal(piece, None));
                }
            }
            Move::Leave(up) => {
                w.env.leaving.insert(up);
                let conn = conn(*w.env.connected.get(&up)?);
                if cfg.mutant == Some(Mutant::PartsAtOnce) {
                    end(w, up, true);
                    return None;
                }
                return Some((DOWNLOADER, In::Down(receipting::Input::Close(conn, CloseReason::Done))));
            }
            Move::Break(up) => {
                w.budget.drops -= 1;
                end(w, up, false);
            }
            Move::Crash(ix) => {
                w.budget.crashes -= 1;
                Self::crash(w, cfg, ix);
            }
        }
        None
    }
}

/// Returns the world with all nodes started and connected.
#[must_use]
pub fn world(cfg: &Cfg) -> World<Swarm> {
    let facts = Facts { visits: std::vec![0; usize::from(cfg.uploaders)], ..Facts::default() };
    let env = Swarm { facts, ..Swarm::default() };
    let mut nodes = std::vec![Node::Down(Box::default())];
    nodes.extend((1..=cfg.uploaders).map(|ix| fresh_uploader(cfg, ix)));
    let mut w = World::new(env, nodes, Budget { changes: cfg.uploaders, ..cfg.budget });
    let mut rng = super::rng::Seeded::new(1);
    for up in 1..=cfg.uploaders {
        w.step(cfg, &super::world::Act::Move(Move::Connect(up)), &mut rng);
    }
    w.settle(cfg, 100, &mut rng, World::is_quiet);
    w.budget.changes = cfg.budget.changes;
    w
}
