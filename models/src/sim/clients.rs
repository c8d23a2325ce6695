//! Performs the outputs of client machines: the simulated disk, network and edges as a client sees them.

use super::links::{self, Dial, Kind, Msg};
use super::machines::{In, Node, RoleCfg};
use super::possession::Told;
use super::posting::{answer, at_once};
use super::rig::LIVES;
use super::store::{Disk, Sources, left};
use super::{Ask, Cfg, Event, Mutant, Net, access, bulk, keys, moving, possession, store};
use crate::scenario::Role;
use crate::world::{Lane, NodeIx, World};
use std::net::SocketAddr;
use std::time::Duration;
use swarmedge_core::content::{Access, Bitfield, Layout};
use swarmedge_core::ids::{ConnId, Guid, PublicKey, ReqId, VersionId};
use swarmedge_core::role::client::io::{
    ControlOutput, EdgeAnswer, EdgeAsk, EdgeError, EdgeOutput, Granted, Input, KeyOutput, Notice, Output, PeerOutput,
};
use swarmedge_core::role::client::{self, Client, KeptServers, Restore};
use swarmedge_core::role::edge::io as edge;
use swarmedge_core::session::client as session;
use swarmedge_core::wire::Text;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::control::ToCn;
use swarmedge_core::wire::records::{Grant, HolderTicket, Rekey, SignedGrant, SignedHead, SignedRekey, SigningContext};

/// Starts a client with the contents of its disk.
pub(super) fn start(w: &mut World<Net>, cfg: &Cfg, ix: NodeIx) -> Option<(NodeIx, In)> {
    let RoleCfg::Client(lives) = &cfg.roles[usize::from(ix)] else { return None };
    let more = u8::from(cfg.mutant != Some(Mutant::StartsRepeat));
    let life = w.env.lives.entry(ix).and_modify(|l| *l += more).or_default();
    let generation = w.env.disks.get(&ix).map_or(0, |disk| disk.generation);
    let life = (generation * LIVES + *life % LIVES) % u8::try_from(lives.len()).unwrap_or(u8::MAX);
    let client = &lives[usize::from(life)];
    let uploads = w.env.options.get(&ix).is_none_or(|o| o.uploads);
    let disk = w.env.disks.entry(ix).or_default().clone();
    let made = disk.new_key.then(|| Box::new(rekey(client, ix, disk.generation + 1)));
    let machine = Client::restore(client, Restore { new_key: made, ..restore(w, &disk) }, uploads);
    w.set_node(ix, Some(Node::Client(Box::new(machine), life)));
    let nat = moving::nat(w, ix);
    Some((ix, In::Client(Input::Network(nat))))
}

/// Returns a client's configuration for its current start.
pub(super) fn own<'a>(w: &World<Net>, cfg: &'a Cfg, node: NodeIx) -> &'a client::Config {
    let life = match w.node(node) {
        Some(Node::Client(_, life) | Node::Session(_, life)) => usize::from(*life),
        Some(Node::Edge(_) | Node::Cn(_) | Node::Dn(_) | Node::Ledger(_)) | None => 0,
    };
    let RoleCfg::Client(lives) = &cfg.roles[usize::from(node)] else { panic!("node {node} is no client") };
    &lives[life % lives.len()]
}

/// Returns a client's record that replaces its key number `generation` by the next one, signed by both keys.
fn rekey(own: &client::Config, node: NodeIx, generation: u8) -> SignedRekey {
    let (old, new) = (own.identity.key, keys::client_key(own.identity.key, node, generation));
    let rekey = Rekey { old, new, start: own.identity.secondary[0] };
    let by = |key| keys::sign(key, SigningContext::Rekey, &rekey.to_bytes());
    SignedRekey { by_old: by(&old), by_new: by(&new), rekey }
}

/// Makes a client's next key and stores it beside the current one.
fn make_key(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, req: ReqId) {
    let own = own(w, cfg, node);
    let disk = w.env.disks.entry(node).or_default();
    disk.new_key = true;
    let made = Some(Box::new(rekey(own, node, disk.generation + 1)));
    at_once(w, node, In::Client(Input::KeyMade { req, made }));
}

/// Replaces a client's key by its next one and restarts the client.
fn adopt_key(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let disk = w.env.disks.entry(node).or_default();
    disk.new_key = false;
    disk.generation += 1;
    let status: Vec<_> = w.env.status.iter().filter(|((n, _), _)| *n == node).map(|(k, s)| (*k, s.clone())).collect();
    super::crash(w, cfg, node);
    // the figures that the user sees are kept
    w.env.status.extend(status);
    if let Some((ix, first)) = start(w, cfg, node) {
        at_once(w, ix, first);
    }
}

/// Returns what a client's disk holds, in the form in which the store passes it to a starting client.
fn restore(w: &World<Net>, disk: &Disk) -> Restore {
    let layout = |v: VersionId| w.env.objects.values().find(|o| o.version == v).map(|o| o.layout);
    let mut restore = Restore {
        uploads: disk.uploads,
        terms: disk.terms.clone(),
        notices: disk.notices.values().cloned().collect(),
        servers: disk.servers,
        ..Restore::default()
    };
    for record in disk.downloads.values() {
        let version = record.granted.as_ref().map(|g| g.version);
        let known = version.map_or_else(|| (Bitfield::empty(0), Sources::new()), |v| left(w, disk, v));
        restore.downloads.push((record.clone(), known.0));
        restore.sources.extend(known.1);
    }
    restore.usage = disk.usage.values().cloned().collect();
    restore.owner = disk.owner;
    restore.checkpoint.clone_from(&disk.checkpoint);
    restore.receipts = disk.receipts.values().cloned().collect();
    restore.cached = disk.finished.iter().filter_map(|&v| Some((v, layout(v)?, left(w, disk, v).0))).collect();
    restore
}

/// Performs an output of a client's session machine, in models that run it without the rest of the client.
pub(super) fn perform_session(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: session::Output) {
    match output {
        session::Output::Dial { conn, cn } => dial_cn(w, cfg, (node, conn), cn),
        session::Output::Send { conn, msg } => links::send(w, cfg, node, conn, Msg::ToCn(msg)),
        session::Output::Close { conn } => links::close(w, cfg, node, conn),
        session::Output::Introduced { peers, .. } => w.env.seen.introduced |= !peers.is_empty(),
        session::Output::Checkpoint(new) => {
            w.env.disks.entry(node).or_default().checkpoint = Some(new.clone());
            at_once(w, node, In::Session(session::Input::Checkpoint(new)));
        }
        session::Output::UsageDone { ids } => {
            let disk = w.env.disks.entry(node).or_default();
            ids.iter().for_each(|id| {
                disk.usage.remove(id);
            });
        }
        session::Output::RekeyOrdered => w.env.seen.rekey_ordered.extend([node]),
        session::Output::Connected
        | session::Output::Retired
        | session::Output::Disconnected
        | session::Output::NoServers
        | session::Output::Outdated
        | session::Output::PeerComing(_)
        | session::Output::Go(_)
        | session::Output::NoticesChanged(_)
        | session::Output::Notice(_)
        | session::Output::CheckCopy(_)
        | session::Output::TicketsRefused(_)
        | session::Output::Regrant { .. }
        | session::Output::NoPeers { .. }
        | session::Output::PeersForbidden { .. } => {}
    }
}

fn dial_cn(w: &mut World<Net>, cfg: &Cfg, from: (NodeIx, ConnId), cn: u32) {
    let key = own(w, cfg, from.0).identity.key;
    links::dial(w, cfg, Dial { kind: Kind::Control, from, target: cfg.numbered(Role::Cn, cn), key });
}

/// Performs a client's output.
pub(super) fn perform(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: Output) {
    match output {
        Output::Peer(output) => perform_peer(w, cfg, node, output),
        Output::Edge(EdgeOutput::Ask { req, edge, ask }) => ask_edge(w, cfg, node, (req, edge), ask),
        Output::Edge(EdgeOutput::Fetch { xfer, edge, grant, version, piece, blocks }) => {
            let source = bulk::Source::Edge(edge, grant);
            bulk::fetch(w, cfg, node, bulk::Fetch { xfer, version, source, piece, blocks });
        }
        Output::Edge(EdgeOutput::CancelFetch { xfer }) => bulk::cancel(w, cfg, node, xfer),
        Output::Edge(EdgeOutput::DropConnections) => {}
        Output::Control(ControlOutput::Dial { conn, cn }) => dial_cn(w, cfg, (node, conn), cn),
        Output::Control(ControlOutput::Send { conn, msg }) => {
            telling(w, cfg, node, &msg);
            links::send(w, cfg, node, conn, Msg::ToCn(msg));
        }
        Output::Control(ControlOutput::Close { conn }) => links::close(w, cfg, node, conn),
        Output::Key(output) => perform_key(w, cfg, node, output),
        Output::ProbeNetwork => moving::look(w, cfg, node),
        Output::CheckCopy { version } => {
            let is_right = store::check_copy(w, cfg, node, version);
            at_once(w, node, In::Client(Input::CopyChecked { version, is_right }));
        }
        Output::Save { req, what } => store::save(w, cfg, node, req, what),
        Output::Notice(notice) => note(w, node, notice),
    }
}

fn perform_peer(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: PeerOutput) {
    match output {
        PeerOutput::Dial { conn, download, key, addrs, along } => {
            let own = w.env.download_keys.get(&(node, download)).copied().unwrap_or(PublicKey::numbered(0));
            let now = w.now;
            let mut found = addrs.iter().filter_map(|&addr| w.env.connects(now, node, addr, along));
            // the node at one of the introduced addresses that holds the introduced key
            let target = found.find(|&n| keys::upload_key(n) == key);
            links::dial(w, cfg, Dial { kind: Kind::Peer, from: (node, conn), target, key: own });
        }
        // simulated clients do not scatter over many ports
        PeerOutput::Expect { .. } | PeerOutput::ProbePaths | PeerOutput::Scatter(_) => {}
        PeerOutput::RawTcp(what) => access::raw_tcp(w, cfg, node, what),
        PeerOutput::Probe { to, bytes, ttl } => {
            let now = w.now;
            let arrival = w.env.datagram(now, node, to, ttl);
            probe(w, cfg, arrival, bytes);
        }
        PeerOutput::Send { conn, msg } => links::send(w, cfg, node, conn, Msg::Peer(msg)),
        PeerOutput::Close { conn, .. } => links::close(w, cfg, node, conn),
        PeerOutput::Fetch { xfer, conn, version, piece, blocks } => {
            let source = bulk::Source::Peer(conn);
            bulk::fetch(w, cfg, node, bulk::Fetch { xfer, version, source, piece, blocks });
        }
        PeerOutput::CancelFetch { xfer } => bulk::cancel(w, cfg, node, xfer),
        PeerOutput::Serve { xfer, rate_max, .. } => bulk::serve(w, cfg, node, xfer, rate_max),
        PeerOutput::Refuse { xfer, why } => bulk::refuse(w, cfg, node, xfer, why),
    }
}

fn perform_key(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: KeyOutput) {
    match output {
        KeyOutput::SignReceipt { req, receipt } => {
            let key = w.env.download_keys.get(&(node, receipt.download));
            let signature = key.map(|key| keys::sign(key, SigningContext::Receipt, &receipt.to_bytes()));
            let lane = Lane { to: node, what: "sign", id: 0 };
            w.send(lane, Duration::ZERO, Event::Input(In::Client(Input::Signed { req, signature })));
        }
        KeyOutput::SignHead { req, head } => {
            let key = own(w, cfg, node).identity.key;
            let signature = keys::sign(&key, SigningContext::LogHead, &head.to_bytes());
            if cfg.heads {
                let name = (head.start, head.place, head.digest);
                w.env.seen.signed.insert(name, SignedHead { head, key, signature });
            }
            let lane = Lane { to: node, what: "sign", id: 1 };
            w.send(lane, Duration::ZERO, Event::Input(In::Client(Input::HeadSigned { req, signature })));
        }
        KeyOutput::Make { req } => {
            w.env.seen.rekey_ordered.extend([node]);
            make_key(w, cfg, node, req);
        }
        KeyOutput::Adopt => adopt_key(w, cfg, node),
    }
}

/// Sets `told_undurable` if a client sends a usage record that is not on its disk.
fn telling(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, msg: &ToCn) {
    if let (true, ToCn::Usage(logged)) = (cfg.heads, msg) {
        let kept = w.env.disks.get(&node).is_some_and(|d| d.usage.contains_key(&logged.record.id));
        w.env.seen.told_undurable |= !kept;
    }
}

/// Delivers a datagram between two clients' QUIC sockets. `arrival` is the receiver and the source address it sees;
/// `None` if the datagram only opens a NAT, having a low TTL.
fn probe(w: &mut World<Net>, cfg: &Cfg, arrival: Option<(NodeIx, SocketAddr)>, bytes: Vec<u8>) {
    if let Some((there, from)) = arrival.filter(|(n, _)| w.node(*n).is_some()) {
        let id = w.env.number();
        let input = Input::Datagram { from, bytes };
        w.send(Lane { to: there, what: "probe", id }, cfg.latency, Event::Input(In::Client(input)));
    }
}

fn note(w: &mut World<Net>, node: NodeIx, notice: Notice) {
    match notice {
        Notice::Download(status) => {
            w.env.status.insert((node, status.handle), status);
        }
        Notice::SourceDropped { .. } | Notice::Done { .. } | Notice::Meeting(..) => {}
        Notice::Session { .. } | Notice::Outdated | Notice::NoPeers { .. } | Notice::TicketsRefused(_) => {}
    }
}

/// Lets a client's request travel to an edge, or answers it from the client's own store.
fn ask_edge(w: &mut World<Net>, cfg: &Cfg, client: NodeIx, (req, edge): (ReqId, u32), ask: EdgeAsk) {
    if let EdgeAsk::Manifest { version, .. } = &ask
        && let Some(layout) = kept_layout(w, client, *version)
    {
        return answer(w, cfg, client, req, Ok(EdgeAnswer::Manifest { layout }));
    }
    let Some(edge) = cfg.edge(edge).filter(|&e| w.node(e).is_some()) else {
        return answer(w, cfg, client, req, Err(EdgeError::Unreachable));
    };
    match ask {
        EdgeAsk::Bootstrap => {
            let now_ms = keys::WALL_MS + w.now.0 / 1000;
            let (cns, edges) = (cfg.count(Role::Cn), cfg.count(Role::Edge));
            w.env.disks.entry(client).or_default().servers = Some(KeptServers { cns, edges, now_ms: keys::WALL_MS });
            answer(w, cfg, client, req, Ok(EdgeAnswer::Bootstrap { cns, edges, now_ms }));
        }
        EdgeAsk::Manifest { version, grant: _ } => {
            let layout = w.env.objects.values().find(|o| o.version == version).map(|o| o.layout);
            let found = layout.map(|layout| EdgeAnswer::Manifest { layout }).ok_or(EdgeError::NotFound);
            answer(w, cfg, client, req, found);
        }
        EdgeAsk::Completed { version, grant, recheck } => {
            possession::completed(w, cfg, Told { client, req, edge, version }, (&grant, recheck));
        }
        EdgeAsk::Prove { version, grant, challenge } => {
            possession::prove_to(w, cfg, Told { client, req, edge, version }, &grant, &challenge);
        }
        EdgeAsk::Grant { object, renew, download: _, edge_only, version } => {
            let ask = Ask { client, req, object, renew, edge_only, version };
            let id = w.env.number();
            w.send(Lane { to: edge, what: "https", id }, cfg.latency, Event::AskGrant(ask));
        }
    }
}

/// Returns the layout of a version whose manifest a client's store has, since it has pieces of it.
fn kept_layout(w: &World<Net>, client: NodeIx, version: VersionId) -> Option<Layout> {
    let kept = w.env.disks.get(&client).is_some_and(|disk| disk.pieces.contains_key(&version));
    w.env.objects.values().find(|o| kept && o.version == version).map(|o| o.layout)
}

/// Fails the grant requests on their way to an edge that crashes.
pub(super) fn asks_are_lost(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let of_node = w.under_way().filter(|(lane, _)| lane.to == node);
    let asks = of_node.filter_map(|(_, event)| if let Event::AskGrant(ask) = event { Some(ask.clone()) } else { None });
    for ask in asks.collect::<Vec<_>>() {
        answer(w, cfg, ask.client, ask.req, Err(EdgeError::Unreachable));
    }
}

/// Fails the pending grant requests to an edge that crashed, and drops those of a client that crashed.
pub(super) fn asks_fail(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let all = std::mem::take(&mut w.env.asks);
    let (lost, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|((edge, _), a)| *edge == node || a.client == node);
    w.env.asks = kept.into_iter().collect();
    for (_, ask) in lost.into_iter().filter(|(_, a)| a.client != node) {
        answer(w, cfg, ask.client, ask.req, Err(EdgeError::Unreachable));
    }
}

/// Handles a client's request for a grant at its edge: looks up the object, and takes the request's signature as
/// verified.
pub(super) fn ask_arrives(w: &mut World<Net>, cfg: &Cfg, edge: NodeIx, ask: Ask) -> Option<In> {
    let published = w.env.objects.get(&ask.object.path).filter(|o| !w.env.withdrawn.contains(&o.version));
    let Some(object) = published.cloned() else {
        answer(w, cfg, ask.client, ask.req, Err(EdgeError::NotFound));
        return None;
    };
    let key = own(w, cfg, ask.client).identity.key;
    if cfg.mutant == Some(Mutant::EdgesDenySuspects) && w.env.seen.suspects.contains(&Guid::of(&key)) {
        answer(w, cfg, ask.client, ask.req, Err(EdgeError::Forbidden));
        return None;
    }
    let renew = ask.renew.as_ref().map(|sealed| {
        let grant = keys::open(sealed, w.env.epochs);
        edge::Renewal { grant, proven: true, edge_only: ask.edge_only }
    });
    let kept = renew.as_ref().and_then(|r| r.grant.as_ref()).map(|g| g.grant.download_key);
    let number = w.env.number();
    let fresh = PublicKey::numbered(7 << 24 | u32::try_from(number).unwrap_or(0));
    let asked = edge::GrantAsked {
        req: ReqId(number),
        guid: Guid::of(&key),
        key,
        download_key: kept.unwrap_or(fresh),
        object: edge::ObjectFacts {
            provider: object.provider,
            path: Text::new(ask.object.path.as_str()).ok()?,
            version: object.version,
            size: object.layout.size(),
            access: Access::Public,
            policy: object.policy,
        },
        token: None,
        version: ask.version,
        renew,
        from: keys::addr(ask.client).ip(),
        time_ms: keys::WALL_MS + w.now.0 / 1000,
        nonce: u128::from(number).to_be_bytes(),
    };
    w.env.asks.insert((edge, ReqId(number)), ask);
    Some(In::Edge(edge::Input::GrantAsked(Box::new(asked))))
}

/// Signs, seals and sends a grant of an edge.
pub(super) fn granted(w: &mut World<Net>, cfg: &Cfg, edge: NodeIx, req: ReqId, grant: Grant) {
    let Some(ask) = w.env.asks.remove(&(edge, req)) else { return };
    let RoleCfg::Edge(edge_cfg) = &cfg.roles[usize::from(edge)] else { return };
    let (client, download) = (ask.client, grant.download);
    w.env.download_keys.insert((client, download), grant.download_key);
    let signature = keys::sign(&edge_cfg.cert.body.key, SigningContext::Grant, &grant.to_bytes());
    let signed = SignedGrant { grant: grant.clone(), signature, cert: edge_cfg.cert.clone() };
    let ticket = keys::signed_ticket(HolderTicket::of(&grant, 0), edge_cfg.cert.clone());
    let granted = Granted {
        download,
        download_key: grant.download_key,
        version: grant.version,
        size: grant.size,
        policy: grant.policy,
        order_seed: grant.order_seed,
        expires_ms: grant.expires_ms,
        sealed: keys::seal(&signed, w.env.epochs),
        ticket: Some(Box::new(ticket)),
    };
    answer(w, cfg, client, ask.req, Ok(EdgeAnswer::Granted(granted)));
}

/// Sends an edge's refusal of a grant.
pub(super) fn denied(w: &mut World<Net>, cfg: &Cfg, edge: NodeIx, req: ReqId, why: edge::Denial) {
    let Some(ask) = w.env.asks.remove(&(edge, req)) else { return };
    let why = match why {
        edge::Denial::WrongKey | edge::Denial::Withheld(_) => EdgeError::Forbidden,
        edge::Denial::Gone => EdgeError::Expired,
        edge::Denial::Changed => EdgeError::Changed,
        edge::Denial::GrantExpired => EdgeError::GrantExpired,
        edge::Denial::TooMany { retry_after_ms } => EdgeError::Busy { retry_after_ms },
        edge::Denial::Unavailable => EdgeError::Unavailable,
        edge::Denial::Clock | edge::Denial::Replayed => EdgeError::Invalid,
    };
    answer(w, cfg, ask.client, ask.req, Err(why));
}
