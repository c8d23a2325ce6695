//! Connections between nodes: they are dialled, accepted, closed, broken, and cut by crashes. Messages on a
//! connection arrive in order or not at all, as over TLS or QUIC.

pub use super::connection::{Kind, Link, Msg, lane};
use super::machines::In;
use super::{Cfg, Event, Mutant, Net};
use crate::scenario::Role;
use crate::world::{NodeIx, World};
use swarmedge_core::ids::{ConnId, PublicKey};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::wire::control::{ToClient, ToCn};

/// Node index of a dialler that has lost its power.
const NOBODY: NodeIx = NodeIx::MAX;

/// A connection attempt: the dialling node with its number for the connection, the target, and the key that it
/// proves.
pub(super) struct Dial {
    pub(super) kind: Kind,
    pub(super) from: (NodeIx, ConnId),
    pub(super) target: Option<NodeIx>,
    pub(super) key: PublicKey,
}

/// Starts a connection attempt, which fails if the target is `None` or down.
pub(super) fn dial(w: &mut World<Net>, cfg: &Cfg, Dial { kind, from: node, target, key }: Dial) {
    let id = w.env.number();
    let up = target.filter(|&t| w.node(t).is_some());
    let Some(target) = up else {
        let after = cfg.latency * 4;
        return w.send(lane(kind, id, node.0), after, Event::Input(closed(cfg, kind, node)));
    };
    let link = Link {
        kind,
        from: node,
        to: (target, ConnId(1 << 63 | id)),
        key,
        open: false,
        half: false,
        silent: false,
        welcomed: false,
    };
    w.env.links.insert(id, link);
    w.send(lane(kind, id, target), cfg.latency, Event::Dial(id));
}

/// Accepts a connection that was dialled, and notifies both ends.
pub(super) fn accept(w: &mut World<Net>, cfg: &Cfg, id: u64) -> Option<In> {
    let link = w.env.links.get_mut(&id).filter(|l| !l.silent)?;
    link.open = true;
    let link = link.clone();
    let (dialler, conn) = link.from;
    let opened = match link.kind {
        Kind::Control => In::Client(client::Input::ControlOpened { conn }),
        Kind::Directory => In::Cn(cn::Input::DirectoryOpened { conn }),
        Kind::Ledger if cfg.role(dialler) == Role::Edge => In::Edge(edge::Input::LedgerOpened { conn }),
        Kind::Ledger => In::Cn(cn::Input::LedgerOpened { conn }),
        Kind::Peer => In::Client(client::Input::PeerOpened { conn }),
    };
    w.send(lane(link.kind, id, dialler), cfg.latency, Event::Input(opened));
    let (conn, key, from) = (link.to.1, link.key, w.env.addr(dialler));
    Some(match link.kind {
        Kind::Control => In::Cn(cn::Input::ClientAccepted { conn, key, from }),
        Kind::Directory => In::Dn(dn::Input::CnAccepted { conn, key }),
        Kind::Ledger => In::Ledger(ledger::Input::Accepted { conn, key }),
        Kind::Peer => In::Client(client::Input::PeerAccepted { conn, key, from }),
    })
}

/// Sends a message of `node` on its connection `conn`; on a closed connection the message is lost.
pub(super) fn send(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, conn: ConnId, msg: Msg) {
    let Some((id, link)) = w.env.link_of(node, conn) else { return };
    let (to, to_conn) = link.other(node);
    if link.silent || link.half && to == link.from.0 {
        if cfg.mutant == Some(Mutant::GhostsAnswer) && msg == Msg::ToClient(ToClient::Ping) {
            let pong = message(cfg, node, conn, Msg::ToCn(ToCn::Pong));
            w.send(lane(link.kind, id, node), cfg.latency, Event::Input(pong));
        }
        return;
    }
    let lane = lane(link.kind, id, to);
    if cfg.check_wire {
        check_wire(&msg);
    }
    w.send(lane, cfg.latency, Event::Input(message(cfg, to, to_conn, msg)));
}

/// Closes a connection of `node`, which gets no further messages on it; the other end is notified after earlier
/// messages.
pub(super) fn close(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, conn: ConnId) {
    let Some((id, link)) = w.env.link_of(node, conn) else { return };
    let link = link.clone();
    let other = link.other(node);
    if link.silent {
        // the other end is not told, and gives up by itself
        super::bulk::link_gone(w, cfg, id, &link);
        return w.clear_lanes(|l| *l == lane(link.kind, id, node));
    }
    forget(w, cfg, id, &link);
    w.clear_lanes(|l| *l == lane(link.kind, id, node));
    if link.half && other == link.from {
        return;
    }
    if link.open || other.0 == link.from.0 {
        w.send(lane(link.kind, id, other.0), cfg.latency, Event::Input(closed(cfg, link.kind, other)));
    } else {
        w.clear_lanes(|l| *l == lane(link.kind, id, other.0));
    }
}

/// Breaks a connection: messages in flight are lost, and both ends are notified.
pub fn break_link(w: &mut World<Net>, cfg: &Cfg, id: u64) {
    let Some(link) = w.env.links.get(&id).cloned() else { return };
    forget(w, cfg, id, &link);
    for end in [link.from, link.to] {
        w.clear_lanes(|l| *l == lane(link.kind, id, end.0));
        if (link.open || end == link.from) && !(link.half && end == link.from) {
            w.send(lane(link.kind, id, end.0), cfg.latency, Event::Input(closed(cfg, link.kind, end)));
        }
    }
}

/// Breaks a connection so that only the dialler notices (a half-open connection).
pub fn break_half(w: &mut World<Net>, cfg: &Cfg, id: u64) {
    let Some(link) = w.env.links.get_mut(&id).filter(|l| l.open) else { return };
    link.half = true;
    let link = link.clone();
    for end in [link.from, link.to] {
        w.clear_lanes(|l| *l == lane(link.kind, id, end.0));
    }
    w.send(lane(link.kind, id, link.from.0), cfg.latency, Event::Input(closed(cfg, link.kind, link.from)));
}

/// Makes the connections that `node` dialled half open, since it has lost its power and the acceptors do not notice.
pub(super) fn leave_behind(w: &mut World<Net>, node: NodeIx) {
    for link in w.env.links.values_mut().filter(|l| l.open && l.from.0 == node) {
        (link.half, link.from.0) = (true, NOBODY);
    }
}

/// Breaks all connections of a crashed node and notifies their other ends.
pub(super) fn cut_all(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let ids: Vec<u64> =
        w.env.links.iter().filter(|(_, l)| l.from.0 == node || l.to.0 == node).map(|(&id, _)| id).collect();
    for id in ids {
        break_link(w, cfg, id);
    }
    w.env.raw_tcp.retain(|(from, _), to| *from != node && *to != node);
    w.clear_lanes(|l| l.to == node);
}

fn forget(w: &mut World<Net>, cfg: &Cfg, id: u64, link: &Link) {
    w.env.links.remove(&id);
    if link.kind == Kind::Peer {
        super::bulk::link_gone(w, cfg, id, link);
    }
}

/// Returns the input that tells a node that a connection has closed.
fn closed(cfg: &Cfg, kind: Kind, (node, conn): (NodeIx, ConnId)) -> In {
    match (kind, cfg.role(node)) {
        (Kind::Control, Role::Client) => In::Client(client::Input::ControlClosed { conn }),
        (Kind::Control, _) => In::Cn(cn::Input::ClientClosed { conn }),
        (Kind::Directory, Role::Cn) => In::Cn(cn::Input::DirectoryClosed { conn }),
        (Kind::Directory, _) => In::Dn(dn::Input::CnClosed { conn }),
        (Kind::Ledger, Role::Cn) => In::Cn(cn::Input::LedgerClosed { conn }),
        (Kind::Ledger, Role::Edge) => In::Edge(edge::Input::LedgerClosed { conn }),
        (Kind::Ledger, _) => In::Ledger(ledger::Input::Closed { conn }),
        (Kind::Peer, _) => In::Client(client::Input::PeerClosed { conn }),
    }
}

/// Returns the input with a message for a node.
fn message(cfg: &Cfg, to: NodeIx, conn: ConnId, msg: Msg) -> In {
    match (msg, cfg.role(to)) {
        (Msg::ToCn(msg), _) => In::Cn(cn::Input::Client { conn, msg }),
        (Msg::ToClient(msg), _) => In::Client(client::Input::Control { conn, msg }),
        (Msg::ToDn(msg), _) => In::Dn(dn::Input::Cn { conn, msg }),
        (Msg::FromDn(msg), _) => In::Cn(cn::Input::Directory { conn, msg }),
        (Msg::ToLedger(msg), _) => In::Ledger(ledger::Input::Server { conn, msg }),
        (Msg::FromLedger(msg), Role::Edge) => In::Edge(edge::Input::Ledger { conn, msg }),
        (Msg::FromLedger(msg), _) => In::Cn(cn::Input::Ledger { conn, msg }),
        (Msg::Peer(msg), _) => In::Client(client::Input::Peer { conn, msg }),
    }
}

/// Checks that a message's encoding decodes to the same message.
fn check_wire(msg: &Msg) {
    use swarmedge_core::wire::Framed;
    fn same<M: swarmedge_core::wire::Wire + Clone + PartialEq + std::fmt::Debug>(msg: &M) {
        let bytes = swarmedge_core::wire::frame(msg);
        let back = Framed::<M>::decode(&bytes[4..]).expect("it was encoded by us").map(|f| f.msg);
        assert_eq!(back.as_ref(), Some(msg), "the wire changed a message");
    }
    match msg {
        Msg::ToCn(m) => same(m),
        Msg::ToClient(m) => same(m),
        Msg::ToDn(m) => same(m),
        Msg::FromDn(m) => same(m),
        Msg::ToLedger(m) => same(m),
        Msg::FromLedger(m) => same(m),
        Msg::Peer(m) => same(m),
    }
}
