//! Transfers of blocks between nodes: their speed, faults and ends. Only byte counts are simulated, not the bytes.

use super::connection::Link;
use super::machines::In;
use super::posting::at_once;
use super::{Cfg, Event, Mutant, Net, keys, store};
use crate::world::{Lane, NodeIx, Way, World};
use std::ops::Range;
use std::time::Duration;
use swarmedge_core::content::Layout;
use swarmedge_core::ids::{ConnId, PieceIndex, ReqId, VersionId, XferId};
use swarmedge_core::machine::Time;
use swarmedge_core::role::client::io::{FetchEnd, Input};
use swarmedge_core::role::edge;
use swarmedge_core::swarm::outcome::EdgeError;
use swarmedge_core::wire::peer::{PieceRequest, RefuseCode};
use swarmedge_core::wire::records::{Grant, SealedGrant};

/// Time for which an edge still serves content for a grant that has expired, in milliseconds.
const GRACE_MS: u64 = 10 * 60 * 1000;

/// Transfer of blocks, from the client's request until its end is reported to sender and receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pull {
    /// Receiving node, and its number for the transfer.
    pub to: (NodeIx, XferId),
    /// Sending node. A sending client's number for the transfer is the number of this value with the top bit set.
    pub from: NodeIx,
    /// Connection to the sender; `None` if it is an edge.
    pub link: Option<u64>,
    /// Version that the blocks belong to.
    pub version: VersionId,
    /// Piece that the blocks belong to.
    pub piece: PieceIndex,
    /// Block numbers within the piece.
    pub blocks: Range<u32>,
    /// Whether the sender has begun to send.
    pub serving: bool,
    /// Whether the first half of the bytes has arrived.
    pub half: bool,
    /// Grant that the client showed to the edge; `None` if the sender is a peer.
    pub grant: Option<Box<Grant>>,
    /// Whether the edge counts the bytes.
    pub counted: bool,
    /// Time that the transfer takes of its sender, its receiver and its rate limit.
    pub takes: Vec<((NodeIx, u8), Duration)>,
}

fn sender_xfer(id: u64) -> XferId {
    XferId(1 << 63 | id)
}

fn done_lane(node: NodeIx, id: u64) -> Lane {
    Lane { to: node, what: "transfer", id }
}

fn layout(w: &World<Net>, version: VersionId) -> Option<Layout> {
    w.env.objects.values().find(|o| o.version == version).map(|o| o.layout)
}

fn bytes(w: &World<Net>, p: &Pull) -> u64 {
    layout(w, p.version).map_or(0, |l| {
        let r = l.block_range(p.piece, p.blocks.clone());
        r.end - r.start
    })
}

/// Parameters of a client's output that fetches blocks.
pub(super) struct Fetch {
    pub(super) xfer: XferId,
    pub(super) version: VersionId,
    pub(super) source: Source,
    pub(super) piece: PieceIndex,
    pub(super) blocks: Range<u32>,
}

/// Source from which a client fetches blocks.
pub(super) enum Source {
    /// Edge by its index, with the grant to show it.
    Edge(u32, SealedGrant),
    /// Peer by its connection.
    Peer(ConnId),
}

/// Returns the grant with which a client asks an edge for content; `None` if it has expired, or was sealed by a key
/// that is no longer in use.
fn opens(w: &World<Net>, sealed: &SealedGrant) -> Option<Box<Grant>> {
    let now_ms = keys::WALL_MS + w.now.0 / 1000;
    let grant = keys::open(sealed, w.env.epochs)?.grant;
    (now_ms <= grant.expires_ms.saturating_add(GRACE_MS)).then(|| Box::new(grant))
}

/// Starts a fetch for which a client's machine has asked.
pub(super) fn fetch(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, f: Fetch) {
    let id = w.env.number();
    let pull = |from, link| Pull {
        to: (node, f.xfer),
        from,
        link,
        version: f.version,
        piece: f.piece,
        blocks: f.blocks.clone(),
        serving: false,
        half: false,
        grant: None,
        counted: true,
        takes: Vec::new(),
    };
    match &f.source {
        Source::Edge(edge, grant) => {
            let starves = cfg.mutant == Some(Mutant::EdgesStarveSuspects) && !w.env.seen.suspects.is_empty();
            let Some(edge) = cfg.edge(*edge).filter(|&e| w.node(e).is_some() && !starves) else {
                return end(w, (node, f.xfer), id, FetchEnd::Broken, cfg.latency * 4);
            };
            let Some(grant) = opens(w, grant) else {
                let expired = FetchEnd::EdgeRefused(EdgeError::GrantExpired);
                return end(w, (node, f.xfer), id, expired, cfg.latency * 2);
            };
            let pull = Pull { grant: Some(grant.clone()), ..pull(edge, None) };
            let bytes = bytes(w, &pull);
            w.env.pulls.insert(id, pull);
            at_once(w, edge, In::Edge(edge::Input::SendRequested { req: ReqId(id), grant, bytes }));
        }
        Source::Peer(conn) => {
            let Some((link, uploader)) = w.env.link_of(node, *conn).map(|(id, l)| (id, l.other(node))) else {
                return end(w, (node, f.xfer), id, FetchEnd::Broken, Duration::ZERO);
            };
            w.env.pulls.insert(id, pull(uploader.0, Some(link)));
            let request = PieceRequest {
                piece: f.piece,
                first_block: u16::try_from(f.blocks.start).expect("a piece has at most 1,024 blocks"),
                blocks: u16::try_from(f.blocks.end - f.blocks.start).expect("a piece has at most 1,024 blocks"),
                want_leaves: true,
            };
            let ask = Input::PeerRequest { conn: uploader.1, xfer: sender_xfer(id), request };
            if is_silent(w, Some(link)) {
                return;
            }
            // the request has a stream of its own: it may overtake other requests, but not the connection's opening
            w.send(done_lane(uploader.0, id), cfg.latency, Event::Input(In::Client(ask)));
        }
    }
}

/// Carries out an edge's decision on a request for bytes: `Some` sends them, counted or not; `None` withholds them.
pub(super) fn edge_says(w: &mut World<Net>, cfg: &Cfg, req: ReqId, counted: Option<bool>) {
    let id = req.0;
    let Some(p) = w.env.pulls.get_mut(&id) else { return };
    if let Some(counted) = counted {
        p.counted = counted;
        return begin(w, cfg, id, 0);
    }
    if let Some(p) = w.env.pulls.remove(&id) {
        end(w, p.to, id, FetchEnd::EdgeRefused(EdgeError::Uncounted), cfg.latency);
    }
}

fn end(w: &mut World<Net>, (node, xfer): (NodeIx, XferId), id: u64, end: FetchEnd, after: Duration) {
    w.send(done_lane(node, id), after, Event::Input(In::Client(Input::FetchEnded { xfer, end })));
}

/// Starts sending a transfer's bytes, behind those that the sender is still sending and the receiver still receiving.
fn begin(w: &mut World<Net>, cfg: &Cfg, id: u64, rate_max: u64) {
    let Some(p) = w.env.pulls.get_mut(&id) else { return };
    p.serving = true;
    let p = p.clone();
    if is_silent(w, p.link) {
        return;
    }
    let n = bytes(w, &p);
    let mut at = w.now;
    if cfg.timed {
        let rate = |r: u64| Duration::from_micros(n.saturating_mul(1_000_000).checked_div(r).unwrap_or(0));
        let (up, down) = (rate(cfg.up_rate(p.from)), rate(cfg.down_rate(p.to.0)));
        // rate limit of the content: the edge's for each download, a client's for each version
        let cap = if p.link.is_some() { rate_max } else { w.env.edge_rate(p.version) };
        let who = if p.link.is_some() { 0 } else { 1 + p.to.0 };
        for (key, takes) in [((p.from, 2), up), ((p.to.0, 3), down), ((p.from, 4 + who), rate(cap))] {
            let free = w.env.busy.entry(key).or_default();
            *free = (*free).max(w.now).after(takes);
            at = at.max(*free);
            if let Some(p) = w.env.pulls.get_mut(&id) {
                p.takes.push((key, takes));
            }
        }
    }
    let after = at.since(w.now) + cfg.latency;
    if cfg.timed && n > 16 * 1024 {
        w.send(done_lane(p.to.0, id), after / 2, Event::Progress(id));
    }
    w.send(done_lane(p.to.0, id), after, Event::Blocks(id));
}

/// Starts to serve a request at a client.
pub(super) fn serve(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, xfer: XferId, rate_max: u64) {
    let id = xfer.0 & !(1 << 63);
    if let Some(p) = w.env.pulls.get(&id).filter(|p| !p.serving).cloned() {
        let durable = w.env.disks.get(&node).is_some_and(|d| d.has(p.version, p.piece));
        w.env.seen.served_unverified |= !durable;
        if store::looks(w, cfg, node, p.version, Some(p.piece)) {
            begin(w, cfg, id, rate_max);
        } else {
            refuse(w, cfg, node, xfer, RefuseCode::Failed);
            served(w, node, id, 0, Duration::ZERO);
        }
    } else {
        served(w, node, id, 0, Duration::ZERO);
    }
}

/// Refuses a request at a client, or stops serving it.
pub(super) fn refuse(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, xfer: XferId, why: RefuseCode) {
    let id = xfer.0 & !(1 << 63);
    let Some(p) = take(w, id) else { return };
    give_back(w, &p);
    w.clear_lanes(|l| *l == done_lane(p.to.0, id));
    end(w, p.to, id, FetchEnd::Refused(why), cfg.latency);
    if p.serving {
        let sent = if p.half { half(bytes(w, &p)) } else { 0 };
        peer_sent(w, cfg, &p, sent);
        served(w, node, id, sent, Duration::ZERO);
    }
}

fn served(w: &mut World<Net>, node: NodeIx, id: u64, bytes: u64, after: Duration) {
    let told = In::Client(Input::ServeEnded { xfer: sender_xfer(id), bytes });
    w.send(done_lane(node, id), after, Event::Input(told));
}

/// Cancels a fetch of a client.
pub(super) fn cancel(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, xfer: XferId) {
    let found = w.env.pulls.iter().find(|(_, p)| p.to == (node, xfer)).map(|(&id, _)| id);
    if let Some(id) = found {
        stop(w, cfg, id, FetchEnd::Cancelled);
    }
}

/// Removes a transfer that ends.
fn take(w: &mut World<Net>, id: u64) -> Option<Pull> {
    w.env.spoiled.remove(&id);
    w.env.pulls.remove(&id)
}

/// Gives back the time that a transfer which ends early does not take, to those behind it.
fn give_back(w: &mut World<Net>, p: &Pull) {
    for (key, takes) in &p.takes {
        let left = if p.half { *takes / 2 } else { *takes };
        let free = w.env.busy.entry(*key).or_default();
        *free = Time(free.0.saturating_sub(u64::try_from(left.as_micros()).unwrap_or(u64::MAX))).max(w.now);
    }
}

/// Adds bytes to those that clients have sent to peers.
fn peer_sent(w: &mut World<Net>, cfg: &Cfg, p: &Pull, bytes: u64) {
    if cfg.timed {
        *w.env.seen.sent_by_peers.entry(p.version).or_default() += bytes;
    }
}

/// Ends a transfer early. Bytes that have arrived count for the sender.
pub(super) fn stop(w: &mut World<Net>, cfg: &Cfg, id: u64, how: FetchEnd) {
    let Some(p) = take(w, id) else { return };
    give_back(w, &p);
    w.clear_lanes(|l| *l == done_lane(p.to.0, id) || (!p.serving && *l == done_lane(p.from, id)));
    end(w, p.to, id, how, Duration::ZERO);
    let sent = if p.half { half(bytes(w, &p)) } else { 0 };
    if p.serving && p.link.is_some() {
        peer_sent(w, cfg, &p, sent);
        served(w, p.from, id, sent, cfg.latency);
    } else if p.link.is_none() {
        edge_served(w, cfg, &p, sent);
    }
}

/// Returns half of `bytes`, rounded down to whole blocks of 16 KiB.
const fn half(bytes: u64) -> u64 {
    bytes / 2 / (16 * 1024) * (16 * 1024)
}

/// Handles the arrival of a transfer's first half.
pub(super) fn progress(w: &mut World<Net>, id: u64) -> Option<In> {
    let p = w.env.pulls.get_mut(&id)?;
    p.half = true;
    let p = p.clone();
    Some(In::Client(Input::Progress { xfer: p.to.1, verified: half(bytes(w, &p)) }))
}

/// Ends all transfers over a connection that is closed.
pub(super) fn link_gone(w: &mut World<Net>, cfg: &Cfg, link: u64, _: &Link) {
    stop_all(w, cfg, |p| p.link == Some(link));
}

/// Drops all transfers to and from a node that changed its network; no node is notified.
pub(super) fn silence(w: &mut World<Net>, node: NodeIx) {
    let of_it = |p: &Pull| p.to.0 == node || p.link.is_some() && p.from == node;
    let lost: Vec<_> = w.env.pulls.iter().filter(|(_, p)| of_it(p)).map(|(&id, p)| (id, p.clone())).collect();
    for (id, p) in lost {
        w.clear_lanes(|l| *l == done_lane(p.to.0, id) || p.link.is_some() && *l == done_lane(p.from, id));
    }
}

/// Returns whether messages on a transfer's connection are lost without notice.
fn is_silent(w: &World<Net>, link: Option<u64>) -> bool {
    link.and_then(|id| w.env.links.get(&id)).is_some_and(|l| l.silent)
}

/// Ends all transfers to and from a node that crashed.
pub(super) fn node_gone(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    stop_all(w, cfg, |p| p.from == node || p.to.0 == node);
}

fn stop_all(w: &mut World<Net>, cfg: &Cfg, which: impl Fn(&Pull) -> bool) {
    let ids: Vec<u64> = w.env.pulls.iter().filter(|(_, p)| which(p)).map(|(&id, _)| id).collect();
    for id in ids {
        stop(w, cfg, id, FetchEnd::Broken);
    }
}

/// Appends to `ways` the faults with which the blocks of a transfer may arrive.
pub(super) fn faults(w: &World<Net>, id: u64, ways: &mut Vec<Way>) {
    let from_peer = w.env.pulls.get(&id).is_some_and(|p| p.link.is_some());
    ways.extend((from_peer && w.budget.corruptions > 0).then_some(Way::Fault("corrupt")));
    ways.extend((w.budget.drops > 0).then_some(Way::Fault("break")));
}

/// Handles the arrival of a transfer's last blocks.
pub(super) fn arrive(w: &mut World<Net>, cfg: &Cfg, id: u64, way: Way) -> Option<In> {
    let spoiled = w.env.spoiled.contains(&id);
    let p = take(w, id)?;
    let n = bytes(w, &p);
    let end = match if spoiled && way == Way::Whole { Way::Fault("corrupt") } else { way } {
        Way::Fault("corrupt") => {
            w.budget.corruptions = w.budget.corruptions.saturating_sub(1);
            if cfg.mutant == Some(Mutant::BadBlockCounts) {
                w.env.seen.tainted.insert((p.to.0, p.version, p.piece));
                FetchEnd::Fetched
            } else {
                FetchEnd::BadBlock { block: 0 }
            }
        }
        Way::Fault(_) | Way::Lost => {
            w.budget.drops = w.budget.drops.saturating_sub(1);
            FetchEnd::Broken
        }
        Way::Whole | Way::Twice if w.env.corrupts(p.from, p.version) => FetchEnd::BadBlock { block: 0 },
        Way::Whole | Way::Twice => FetchEnd::Fetched,
    };
    if p.link.is_some() {
        peer_sent(w, cfg, &p, n);
        served(w, p.from, id, n, cfg.latency);
    } else {
        edge_served(w, cfg, &p, n);
    }
    Some(In::Client(Input::FetchEnded { xfer: p.to.1, end }))
}

/// Reports to the edge the bytes that it has sent.
fn edge_served(w: &mut World<Net>, cfg: &Cfg, p: &Pull, bytes: u64) {
    if w.node(p.from).is_none() {
        return;
    }
    let grant = p.grant.as_ref().map(|grant| edge::io::ServedGrant::of(grant));
    let unsent = self::bytes(w, p).saturating_sub(bytes);
    let mut tell =
        |input| w.send(Lane { to: p.from, what: "served", id: 0 }, cfg.latency, Event::Input(In::Edge(input)));
    if !p.counted {
        return tell(edge::Input::GivenAway { bytes });
    }
    if let Some(grant) = grant.filter(|_| unsent > 0) {
        tell(edge::Input::BytesNotSent { grant, bytes: unsent });
    }
    if bytes == 0 {
        return;
    }
    let Some((l, o)) = layout(w, p.version).zip(w.env.objects.values().find(|o| o.version == p.version)) else {
        return;
    };
    let (version, provider) = (p.version, o.provider);
    let start = l.block_range(p.piece, p.blocks.clone()).start;
    let range = start..start + bytes;
    let told = In::Edge(edge::Input::BytesSent { grant, version, provider, range });
    w.send(Lane { to: p.from, what: "served", id: 0 }, cfg.latency, Event::Input(told));
}
