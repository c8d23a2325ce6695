//! The world of receipts: the production machines of a downloader ([`Receipts`]) and of its uploaders ([`Uploads`]),
//! their disks, and the ledger's rules ([`Book`]), which bill what the disks hold. Downloader and uploader may crash,
//! and in every state each lie of one side is told to the ledger too.

use super::rule::Rule;
use super::scenario::{Name, Role};
use super::sim::keys;
use super::world::{Budget, Lane, NodeIx, System, Way, World};
use crate::accounting::receipts::CreditRule;
use crate::accounting::settlement::Book;
use crate::accounting::{Trust, introductions};
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{ConnId, DownloadId, Guid, IntroId, PieceIndex, ProviderId, PublicKey, RecordId, VersionId, XferId};
use crate::limits::BLOCK_LEN;
use crate::machine::{Cx, Machine, Rng, Time};
use crate::session::Wall;
use crate::swarm::outcome::CloseReason;
use crate::swarm::{Receipts, Uploads, receipting, upload};
use crate::wire::peer::{PeerHello, PeerMsg, PieceRequest};
use crate::wire::records::{
    Context, GrantRecord, Introduction, LedgerRecord, PeerBytes, Receipt, ReceiptProof, ServerRole, Side,
    SignedIntroduction, UsageRecord, UsageState, Verify,
};
use crate::wire::{List, PROTOCOL, Text, Wire as _};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

const DOWNLOADER: NodeIx = 0;
/// A piece of 64 KiB and one of a block.
const SIZE: u64 = 80 * 1024;
const PIECES: u32 = 2;
const PIECE: u64 = 64 * 1024;

/// The limits and the seeded defect.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// What is given on credit.
    pub credit: CreditRule,
    /// How the ledger checks receipts.
    pub ledger: Verify,
    /// How often each uploader is connected to.
    pub visits: Vec<u8>,
    /// The seeded defect.
    pub mutant: Option<Mutant>,
}

/// Defects of the world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An uploader is told that its receipt is durable, and it is not.
    ReceiptsAreLost,
    /// Credit grows when a receipt comes, not when it is durable.
    CreditBeforeDisk,
    /// A piece that has come already is receipted again.
    DuplicatesCount,
    /// Connections end without the last receipt.
    PartsAtOnce,
    /// What comes over one connection is receipted over the other.
    WrongUploader,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The downloader's.
    Down(Box<Receipts>),
    /// An uploader's.
    Up(Box<Uploads>),
}

/// What a machine is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// See [`Node`].
    Down(receipting::Input),
    /// See [`Node`].
    Up(upload::Input),
}

/// What a machine asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// See [`Node`].
    Down(receipting::Output),
    /// See [`Node`].
    Up(upload::Output),
}

/// Something under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Just told.
    Told(In),
    /// Blocks of a piece.
    Blocks(XferId, PieceIndex),
    /// The downloader writes a piece that came over this introduction.
    Journal(PieceIndex, IntroId),
    /// An uploader writes a receipt.
    Keep(IntroId, ReceiptProof),
}

/// What comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The downloader connects to an uploader.
    Connect(NodeIx),
    /// It asks an uploader for a piece.
    Ask(NodeIx, PieceIndex),
    /// It has all it wants of an uploader.
    Leave(NodeIx),
    /// A connection breaks.
    Break(NodeIx),
    /// A node crashes and starts again.
    Crash(NodeIx),
}

/// The environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Swarm {
    /// The introduction over which each uploader is connected.
    connected: BTreeMap<NodeIx, IntroId>,
    visits: Vec<u8>,
    asked: BTreeMap<XferId, (NodeIx, PieceIndex)>,
    /// Pieces that the downloader has verified in this life, or finds on its disk.
    verified: BTreeSet<PieceIndex>,
    /// The downloader's disk: over which introduction each piece came.
    journal: BTreeMap<PieceIndex, IntroId>,
    /// The uploaders' disks: the highest receipt of each introduction.
    kept: BTreeMap<IntroId, ReceiptProof>,
    /// Bytes that came first over each introduction.
    delivered: BTreeMap<IntroId, u64>,
    /// Bytes sent over each introduction.
    sent: BTreeMap<IntroId, u64>,
}

fn layout() -> Layout {
    Layout::new(SIZE, 64 * 1024).expect("a layout")
}

fn bytes(piece: PieceIndex) -> u64 {
    if piece.0 + 1 == PIECES { SIZE - PIECE } else { PIECE }
}

fn download_key() -> PublicKey {
    PublicKey::numbered(0xd)
}

/// An introduction's name says for whom and which visit it is; so does the connection's.
fn intro_id(up: NodeIx, visit: u8) -> IntroId {
    IntroId::numbered(u32::from(up) << 8 | u32::from(visit))
}

fn conn(intro: IntroId) -> ConnId {
    ConnId(u64::from(u32::from_be_bytes([intro.0[12], intro.0[13], intro.0[14], intro.0[15]])))
}

fn uploader(conn: ConnId) -> NodeIx {
    NodeIx::try_from(conn.0 >> 8).unwrap_or(0)
}

fn intro_of(conn: ConnId) -> IntroId {
    IntroId::numbered(u32::try_from(conn.0).unwrap_or(0))
}

fn introduction(id: IntroId) -> Introduction {
    Introduction {
        id,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        downloader_key: download_key(),
        uploader_key: keys::upload_key(uploader(conn(id))),
        connect_before_ms: u64::MAX,
        serve_until_ms: u64::MAX,
        cap_bytes: SIZE,
    }
}

fn shown(id: IntroId) -> SignedIntroduction {
    let intros = alloc::vec![introduction(id)];
    let cert = keys::cert(Name(Role::Cn, 0), ServerRole::Cn);
    let signature = keys::sign(&cert.body.key, Context::Introductions, &introductions::root(&intros).0);
    introductions::sign(intros, signature, &cert).remove(0)
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

/// An uploader that shares everything, fresh from its start.
fn fresh_uploader(cfg: &Cfg, ix: NodeIx) -> Node {
    let mut up = Uploads::new(true);
    let have = Bitfield::full(PIECES);
    let share =
        upload::Input::Share { version: VersionId::numbered(1), layout: layout(), have, policy: Policy::default() };
    let mut rng = super::rng::Seeded::new(1);
    for input in [upload::Input::Wall(Wall::showing(keys::WALL_MS, Time::ZERO)), share] {
        drive(&mut up, &upload_cfg(cfg, ix), (Time::ZERO, &mut rng), Some(input));
    }
    Node::Up(Box::new(up))
}

const fn lane(to: NodeIx, what: &'static str, id: u64) -> Lane {
    Lane { to, what, id }
}

fn tell_down(w: &mut World<Swarm>, what: &'static str, id: u64, input: receipting::Input) {
    w.send(lane(DOWNLOADER, what, id), Duration::ZERO, Event::Told(In::Down(input)));
}

fn tell_up(w: &mut World<Swarm>, up: NodeIx, what: &'static str, id: u64, input: upload::Input) {
    w.send(lane(up, what, id), Duration::ZERO, Event::Told(In::Up(input)));
}

/// A connection is no more: what is under way over it is lost, and both ends hear of it.
fn cut(w: &mut World<Swarm>, up: NodeIx) {
    let Some(intro) = w.env.connected.remove(&up) else { return };
    let conn = conn(intro);
    w.clear_lanes(|l| matches!(l.what, "peer" | "blocks") && l.id >> 16 == conn.0);
    let cut: Vec<XferId> = w.env.asked.keys().copied().filter(|x| x.0 >> 16 == conn.0).collect();
    for xfer in cut {
        w.env.asked.remove(&xfer);
    }
    tell_down(w, "told", 0, receipting::Input::Gone(conn));
    tell_up(w, up, "told", 0, upload::Input::Closed { conn });
}

impl Swarm {
    fn says(w: &mut World<Self>, output: receipting::Output) {
        match output {
            receipting::Output::Sign(req, receipt) => {
                let signature = Some(keys::sign(&download_key(), Context::Receipt, &receipt.to_bytes()));
                tell_down(w, "sign", req.0, receipting::Input::Signed(req, signature));
            }
            receipting::Output::Send(conn, msg) => {
                let up = uploader(conn);
                if w.env.connected.get(&up) == Some(&intro_of(conn)) {
                    tell_up(w, up, "peer", conn.0 << 16, upload::Input::Message { conn, msg });
                }
            }
            receipting::Output::Close(conn, _) => {
                if w.env.connected.get(&uploader(conn)) == Some(&intro_of(conn)) {
                    cut(w, uploader(conn));
                }
            }
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
                if cfg.mutant == Some(Mutant::CreditBeforeDisk) {
                    tell_up(w, up, "told", 0, upload::Input::ReceiptKept { intro, bytes: proof.bytes });
                }
                w.send(lane(up, "disk", 0), Duration::ZERO, Event::Keep(intro, proof));
            }
            upload::Output::Close { conn, .. } => {
                if w.env.connected.get(&up) == Some(&intro_of(conn)) {
                    cut(w, up);
                }
            }
            upload::Output::Refuse { xfer, .. } => {
                if w.env.asked.remove(&xfer).is_some() {
                    w.clear_lanes(|l| l.what == "blocks" && l.id == xfer.0);
                    tell_down(w, "told", 0, receipting::Input::Over(xfer));
                }
                tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: 0 });
            }
            upload::Output::Send { .. } | upload::Output::Sent { .. } | upload::Output::Ended { .. } => {}
        }
    }

    /// Blocks have come: verified, receipted if nobody was first, journalled later.
    fn blocks_came(w: &mut World<Self>, cfg: &Cfg, xfer: XferId, piece: PieceIndex) -> Option<In> {
        let (up, _) = w.env.asked.remove(&xfer)?;
        let came = ConnId(xfer.0 >> 16);
        let intro = intro_of(came);
        tell_up(w, up, "told", 0, upload::Input::Served { xfer, bytes: bytes(piece) });
        tell_down(w, "told", 0, receipting::Input::Over(xfer));
        let first = w.env.verified.insert(piece);
        if first {
            *w.env.delivered.entry(intro).or_default() += bytes(piece);
            w.send(lane(DOWNLOADER, "disk", 0), Duration::ZERO, Event::Journal(piece, intro));
        }
        let other = w.env.connected.values().map(|i| conn(*i)).find(|c| *c != came);
        let receipted = match (cfg.mutant, other) {
            (Some(Mutant::WrongUploader), Some(other)) => other,
            _ => came,
        };
        let counts = first || cfg.mutant == Some(Mutant::DuplicatesCount);
        counts.then(|| In::Down(receipting::Input::Verified(receipted, bytes(piece))))
    }

    fn connect(w: &mut World<Self>, up: NodeIx) -> (NodeIx, In) {
        let visit = &mut w.env.visits[usize::from(up) - 1];
        *visit += 1;
        let intro = intro_id(up, *visit);
        let conn = conn(intro);
        w.env.connected.insert(up, intro);
        let hello = PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro: shown(intro) });
        tell_up(w, up, "told", 0, upload::Input::Accepted { conn, key: download_key() });
        tell_up(w, up, "told", 0, upload::Input::Message { conn, msg: hello });
        let i = introduction(intro);
        let (download, version, uploader_key) = (i.download, i.version, i.uploader_key);
        let receipt = Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 };
        (DOWNLOADER, In::Down(receipting::Input::Owe(conn, receipt)))
    }

    fn crash(w: &mut World<Self>, cfg: &Cfg, ix: NodeIx) {
        let lost: Vec<NodeIx> = w.env.connected.keys().copied().filter(|up| ix == DOWNLOADER || *up == ix).collect();
        lost.into_iter().for_each(|up| cut(w, up));
        let fresh = if ix == DOWNLOADER { Node::Down(Box::default()) } else { fresh_uploader(cfg, ix) };
        w.set_node(ix, Some(fresh));
        if ix == DOWNLOADER {
            w.env.verified = w.env.journal.keys().copied().collect();
            w.env.asked.clear();
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

    fn run(cfg: &Cfg, ix: NodeIx, node: &mut Node, now: Time, rng: &mut dyn Rng, input: Option<In>) -> Vec<Out> {
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

    fn rebase_env(&mut self, _: Duration) {}

    fn perform(w: &mut World<Self>, cfg: &Cfg, node: NodeIx, output: Out) {
        match output {
            Out::Down(output) => Self::says(w, output),
            Out::Up(output) => Self::serves(w, cfg, node, output),
        }
    }

    fn prompt(_: &Cfg, lane: Lane) -> bool {
        // the second uploader is quick: what matters of it is that there is another
        matches!(lane.what, "told" | "sign" | "ask") || lane.to == 2
    }

    fn faults(_: &World<Self>, _: &Cfg, _: Lane, _: &Event, _: &mut Vec<Way>) {}

    fn arrive(w: &mut World<Self>, cfg: &Cfg, _: Lane, event: Event, _: Way) -> Option<In> {
        match event {
            Event::Told(input) => Some(input),
            Event::Blocks(xfer, piece) => Self::blocks_came(w, cfg, xfer, piece),
            Event::Journal(piece, intro) => {
                w.env.journal.insert(piece, intro);
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

    fn moves(w: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        for (up, visits) in (1..).zip(&cfg.visits) {
            match w.env.connected.get(&up) {
                None if w.env.visits[usize::from(up) - 1] < *visits => moves.push(Move::Connect(up)),
                None => {}
                Some(_) => {
                    let asked = |p| w.env.asked.values().any(|a| *a == (up, p));
                    let wanted = (0..PIECES).map(PieceIndex).filter(|p| !w.env.verified.contains(p) && !asked(*p));
                    moves.extend(wanted.map(|p| Move::Ask(up, p)));
                    moves.push(Move::Leave(up));
                    moves.extend((w.budget.drops > 0).then_some(Move::Break(up)));
                }
            }
        }
        if w.budget.crashes > 0 {
            moves.extend([Move::Crash(DOWNLOADER), Move::Crash(1)]);
        }
    }

    fn act(w: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, In)> {
        match *mv {
            Move::Connect(up) => return Some(Self::connect(w, up)),
            Move::Ask(up, piece) => {
                let conn = conn(*w.env.connected.get(&up)?);
                let xfer = XferId(conn.0 << 16 | u64::from(piece.0));
                w.env.asked.insert(xfer, (up, piece));
                let blocks = u16::try_from(bytes(piece) / u64::from(BLOCK_LEN)).unwrap_or(1);
                let request = PieceRequest { piece, first_block: 0, blocks, want_leaves: false };
                tell_up(w, up, "ask", xfer.0, upload::Input::Request { conn, xfer, request });
                return Some((DOWNLOADER, In::Down(receipting::Input::Fetching(xfer, conn))));
            }
            Move::Leave(up) => {
                let conn = conn(*w.env.connected.get(&up)?);
                if cfg.mutant == Some(Mutant::PartsAtOnce) {
                    cut(w, up);
                    return None;
                }
                return Some((DOWNLOADER, In::Down(receipting::Input::Close(conn, CloseReason::Done))));
            }
            Move::Break(up) => {
                w.budget.drops -= 1;
                cut(w, up);
            }
            Move::Crash(ix) => {
                w.budget.crashes -= 1;
                Self::crash(w, cfg, ix);
            }
        }
        None
    }
}

/// The world with everybody up and nobody connected.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Swarm> {
    let env = Swarm { visits: alloc::vec![0; cfg.visits.len()], ..Swarm::default() };
    let mut nodes = alloc::vec![Node::Down(Box::default())];
    nodes.extend((1..).zip(&cfg.visits).map(|(ix, _)| fresh_uploader(cfg, ix)));
    World::new(env, nodes, budget)
}

/// What a reporter says.
fn usage(id: u32, side: Side, peers: Vec<PeerBytes>) -> LedgerRecord {
    LedgerRecord::Usage(UsageRecord {
        id: RecordId::numbered(id),
        reporter: Guid::numbered(id),
        side,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        seq: 1,
        state: UsageState::Completed,
        edge_bytes: 0,
        peers: List::truncated(peers),
        elapsed_ms: 0,
        cause: None,
    })
}

/// Everybody's records, as their disks stand: the downloader's, then each uploader's.
fn records(w: &World<Swarm>) -> (Vec<PeerBytes>, Vec<PeerBytes>) {
    let mut claimed: BTreeMap<IntroId, u64> = BTreeMap::new();
    for (piece, intro) in &w.env.journal {
        *claimed.entry(*intro).or_default() += bytes(*piece);
    }
    let key = |intro: IntroId| introduction(intro).uploader_key;
    let down = claimed.into_iter().map(|(intro, bytes)| PeerBytes { intro, key: key(intro), bytes, receipt: None });
    let up = w.env.kept.iter().map(|(intro, proof)| PeerBytes {
        intro: *intro,
        key: download_key(),
        bytes: proof.bytes,
        receipt: Some(proof.clone()),
    });
    (down.collect(), up.collect())
}

fn book(down: &[PeerBytes], up: &[PeerBytes]) -> Book {
    let granted = LedgerRecord::Granted(GrantRecord {
        id: RecordId::numbered(9),
        download: DownloadId::numbered(1),
        guid: Guid::numbered(1),
        download_key: download_key(),
        version: VersionId::numbered(1),
        size: SIZE,
        provider: ProviderId(1),
        path: Text::default(),
        issued_ms: 0,
    });
    let mut all = alloc::vec![granted, usage(1, Side::Downloader, down.to_vec())];
    all.extend((2..).zip(up).map(|(id, p)| usage(id, Side::Uploader, alloc::vec![p.clone()])));
    // sent twice, and in another order
    let again: Vec<_> = all.iter().rev().cloned().collect();
    all.into_iter().chain(again).collect()
}

/// The lies that one side can tell of its own records.
fn lies(w: &World<Swarm>) -> Vec<Book> {
    let (down, up) = records(w);
    let each = |peers: &[PeerBytes], lie: fn(&mut PeerBytes)| {
        let mut peers = peers.to_vec();
        peers.iter_mut().for_each(lie);
        peers
    };
    let more = each(&up, |p| p.bytes += SIZE);
    let forged = each(&up, |p| p.receipt.iter_mut().for_each(|r| r.bytes += PIECE));
    let mut moved = up.clone();
    for p in &up {
        let to = introduction(intro_id(3 - uploader(conn(p.intro)), 1));
        moved.push(PeerBytes { intro: to.id, ..p.clone() });
    }
    let greedy = each(&down, |p| p.bytes += PIECE);
    alloc::vec![book(&down, &up), book(&down, &more), book(&greedy, &forged), book(&down, &moved), book(&greedy, &up)]
}

fn billed(cfg: &Cfg, book: &Book) -> u64 {
    book.bill(cfg.ledger, 0).peers_billed
}

/// Everything was delivered, by peers, and is in the bill.
fn all_billed(cfg: &Cfg, w: &World<Swarm>) -> bool {
    let (down, up) = records(w);
    billed(cfg, &book(&down, &up)) == SIZE
}

/// What must hold of it.
pub const RULES: &[Rule<Swarm>] = &[
    Rule::always(
        "whatever one side files, no introduction is billed for more than came first over it",
        |cfg: &Cfg, w| {
            if w.env.kept.is_empty() {
                return true;
            }
            let delivered = |intro| w.env.delivered.get(&intro).copied().unwrap_or(0);
            let fair = |b: &Book| b.claims(cfg.ledger, 0).iter().all(|(intro, c)| c.agreed <= delivered(*intro));
            lies(w).iter().all(|b| fair(b) && billed(cfg, b) <= SIZE)
        },
    ),
    Rule::always("what is sent without a durable receipt stays within the credit and one request", |cfg: &Cfg, w| {
        w.env.sent.iter().all(|(intro, sent)| {
            let kept = w.env.kept.get(intro).map_or(0, |p| p.bytes);
            sent.saturating_sub(kept + kept / 8) < cfg.credit.credit(kept) + PIECE
        })
    }),
    Rule::always("left alone, a connection that ends leaves nothing unbilled that came over it", |cfg, w| {
        let undisturbed = w.budget.drops == BUDGET.drops && w.budget.crashes == BUDGET.crashes;
        let all_left = w.env.connected.is_empty() && w.is_quiet();
        let delivered: u64 = w.env.delivered.values().sum();
        let (down, up) = records(w);
        !undisturbed
            || !all_left
            || w.env.asked.values().next().is_some()
            || billed(cfg, &book(&down, &up)) == delivered
    }),
    Rule::sometimes("all is billed", all_billed),
    Rule::sometimes("all is billed after an uploader or the downloader has crashed", |cfg, w| {
        w.budget.crashes == 0 && all_billed(cfg, w)
    }),
    Rule::sometimes("two uploaders share the bill", |cfg: &Cfg, w| {
        let (down, up) = records(w);
        let claims = book(&down, &up).claims(cfg.ledger, 0);
        claims.values().filter(|c| c.agreed > 0).count() > 1
    }),
];

/// The faults that are explored.
pub const BUDGET: Budget =
    Budget { drops: 0, crashes: 1, fires: 1, early: 0, duplicates: 0, corruptions: 0, changes: 0 };
