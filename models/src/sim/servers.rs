//! Performs the outputs of server machines, and applies the seeded defects of messages to and from servers.

use super::links::{self, Dial, Kind, Msg};
use super::machines::{In, Node, RoleCfg};
use super::posting::at_once;
use super::{Cfg, Mutant, Net, bulk, clients, keys, possession, store};
use crate::scenario::Role;
use crate::world::{NodeIx, World};
use swarmedge_core::ids::{ConnId, Guid, PublicKey, RecordId};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::wire::control::{ToClient, ToCn};
use swarmedge_core::wire::directory::{FromDn, Selected, ToDn};
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::LedgerRecord;

/// Starts a server with what is in its spool or database; the rest of its state begins empty.
pub(super) fn start(w: &mut World<Net>, cfg: &Cfg, ix: NodeIx) -> Option<(NodeIx, In)> {
    let unix_ms = keys::WALL_MS + w.now.0 / 1000;
    let (node, first) = match cfg.role(ix) {
        Role::Edge => (Node::Edge(Box::default()), In::Edge(edge::Input::WallClock { unix_ms })),
        Role::Cn => (Node::Cn(Box::default()), In::Cn(cn::Input::WallClock { unix_ms })),
        Role::Dn => (Node::Dn(Box::default()), In::Dn(dn::Input::WallClock { unix_ms })),
        Role::Ledger => (Node::Ledger(Box::default()), In::Ledger(ledger::Input::WallClock { unix_ms })),
        Role::Client => return None,
    };
    w.set_node(ix, Some(node));
    if cfg.role(ix) == Role::Cn {
        let notices = w.env.notices.values().cloned().collect();
        at_once(w, ix, In::Cn(cn::Input::Notices(notices)));
        let records = w.env.spools.entry(ix).or_default().records.values().cloned().collect();
        if cfg.mutant != Some(Mutant::OffersNotReplayed) {
            at_once(w, ix, In::Cn(cn::Input::Restored { records }));
        }
    }
    if cfg.role(ix) == Role::Ledger {
        let guids = w.env.quarantined.iter().copied().collect();
        at_once(w, ix, In::Ledger(ledger::Input::Quarantined { guids }));
    }
    if cfg.role(ix) == Role::Edge {
        let spool = w.env.spools.entry(ix).or_default();
        let (records, counts) = (spool.records.values().cloned().collect(), spool.counts.clone());
        let restored = In::Edge(edge::Input::Restored { records, counts });
        at_once(w, ix, restored);
    }
    Some((ix, first))
}

fn dial_ledger(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, conn: ConnId) {
    let key = keys::key(cfg.names[usize::from(node)]);
    let (from, target) = ((node, conn), cfg.numbered(Role::Ledger, 0));
    links::dial(w, cfg, Dial { kind: Kind::Ledger, from, target, key });
}

/// Performs an output of a CN.
pub(super) fn perform_cn(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: cn::Output) {
    match output {
        cn::Output::ClientSend { conn, msg } => {
            if let (ToClient::Introductions(i), Some((_, link))) = (&msg, w.env.link_of(node, conn)) {
                let suspect = w.env.seen.suspects_asked.contains(&(link.from.0, i.query));
                w.env.seen.suspect_introduced |= suspect && !i.peers.is_empty();
            }
            if let (ToClient::Introductions(i), RoleCfg::Cn(own)) = (&msg, &cfg.roles[usize::from(node)])
                && own.logs
                && own.ledger
            {
                w.env.seen.introductions.extend(i.peers.iter().map(|p| p.intro.intro.id));
            }
            if let (ToClient::Welcome(_), Some((id, _))) = (&msg, w.env.link_of(node, conn))
                && let Some(link) = w.env.links.get_mut(&id)
            {
                link.welcomed = true;
            }
            links::send(w, cfg, node, conn, Msg::ToClient(msg));
        }
        cn::Output::ClientClose { .. } if cfg.mutant == Some(Mutant::ClosesAreLost) => {}
        cn::Output::DirectorySend { conn, msg } => links::send(w, cfg, node, conn, Msg::ToDn(msg)),
        cn::Output::LedgerSend { conn, msg } => links::send(w, cfg, node, conn, Msg::ToLedger(msg)),
        cn::Output::ClientClose { conn } | cn::Output::DirectoryClose { conn } | cn::Output::LedgerClose { conn } => {
            links::close(w, cfg, node, conn)
        }
        cn::Output::DirectoryDial { conn, dn } => {
            let key = keys::key(cfg.names[usize::from(node)]);
            let (from, target) = ((node, conn), cfg.numbered(Role::Dn, dn));
            links::dial(w, cfg, Dial { kind: Kind::Directory, from, target, key });
        }
        cn::Output::LedgerDial { conn } => dial_ledger(w, cfg, node, conn),
        cn::Output::Save { req, records, acked } => {
            store::spool(w, cfg, node, req, edge::io::Batch { records, acked, ..edge::io::Batch::default() });
        }
        cn::Output::Locate { conn, addr } => {
            at_once(w, node, In::Cn(cn::Input::Located { conn, location: keys::location(addr) }));
        }
        cn::Output::OpenGrant { req, sealed } => {
            let grant = keys::open(&sealed, w.env.epochs).map(Box::new);
            at_once(w, node, In::Cn(cn::Input::GrantOpened { req, grant }));
        }
        cn::Output::Sign { req, context, message } => {
            let RoleCfg::Cn(own) = &cfg.roles[usize::from(node)] else { return };
            let signature = keys::sign(&own.cert.body.key, context, &message);
            at_once(w, node, In::Cn(cn::Input::Signed { req, signature }));
        }
        cn::Output::Count(_) | cn::Output::Stopped => {}
    }
}

/// Performs an output of a DN.
pub(super) fn perform_dn(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: dn::Output) {
    match output {
        dn::Output::CnSend { conn, msg } => {
            if let FromDn::Selected(selected) = &msg {
                chosen(w, node, selected);
            }
            links::send(w, cfg, node, conn, Msg::FromDn(msg));
        }
        dn::Output::CnClose { conn } => {
            forget_told(w, node, conn);
            links::close(w, cfg, node, conn);
        }
        dn::Output::Count(_) => {}
    }
}

/// Performs an output of an edge.
pub(super) fn perform_edge(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: edge::Output) {
    match output {
        edge::Output::IssueGrant { req, grant } => clients::granted(w, cfg, node, req, *grant),
        edge::Output::DenyGrant { req, why } => clients::denied(w, cfg, node, req, why),
        edge::Output::Save { req, batch } => store::spool(w, cfg, node, req, batch),
        edge::Output::LedgerDial { conn } => dial_ledger(w, cfg, node, conn),
        edge::Output::LedgerSend { conn, msg } => links::send(w, cfg, node, conn, Msg::ToLedger(msg)),
        edge::Output::LedgerClose { conn } => links::close(w, cfg, node, conn),
        edge::Output::AnswerCompleted { req, challenge } => possession::posed(w, cfg, node, req, challenge),
        edge::Output::AnswerProof { req, .. } => possession::taken(w, cfg, node, req),
        edge::Output::Prove { req, version, challenge } => possession::prove(w, node, req, version, &challenge),
        edge::Output::Serve { req, counted } => bulk::edge_says(w, cfg, req, Some(counted)),
        edge::Output::Withhold { req } => bulk::edge_says(w, cfg, req, None),
        edge::Output::Counting(_) | edge::Output::Count(_) | edge::Output::GaveAway { .. } | edge::Output::Stopped => {}
    }
}

/// Performs an output of a ledger.
pub(super) fn perform_ledger(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, output: ledger::Output) {
    match output {
        ledger::Output::Send { conn, msg } => links::send(w, cfg, node, conn, Msg::FromLedger(msg)),
        ledger::Output::Close { conn } => links::close(w, cfg, node, conn),
        ledger::Output::Store { req, records } => store::store(w, cfg, node, req, records),
        ledger::Output::Count(_) | ledger::Output::Stopped => {}
    }
}

/// Notes the inputs that rules depend on, and applies the seeded defect to an input; `None` if the defect loses it.
pub(super) fn told(w: &mut World<Net>, cfg: &Cfg, to: NodeIx, mut input: In) -> Option<In> {
    match &mut input {
        In::Dn(dn::Input::Cn { conn, msg }) => return dn_told(w, cfg, (to, *conn), msg).then_some(input),
        In::Dn(dn::Input::CnClosed { conn }) => forget_told(w, to, *conn),
        In::Cn(cn::Input::Directory { msg: FromDn::Deliver(d), .. }) if cfg.mutant == Some(Mutant::Misdelivers) => {
            d.session.0 ^= 1;
        }
        In::Cn(cn::Input::Ledger { msg: FromLedger::Quarantine(page), .. }) => {
            w.env.seen.suspects = page.guids.iter().copied().collect();
            return (cfg.mutant != Some(Mutant::QuarantineIsLost)).then_some(input);
        }
        In::Cn(cn::Input::Client { conn, msg: ToCn::Query(query) }) => {
            let asks = w.env.link_of(to, *conn).map(|(_, link)| (link.from.0, Guid::of(&link.key)));
            if let Some((client, _)) = asks.filter(|(_, guid)| w.env.seen.suspects.contains(guid)) {
                w.env.seen.suspects_asked.insert((client, query.query));
            }
        }
        In::Cn(cn::Input::Client { msg: ToCn::Usage(logged), .. }) if cfg.heads => {
            let head = &logged.head.head;
            w.env.seen.told_heads.insert((head.start, head.place, head.digest));
        }
        In::Client(client::Input::Control { msg: ToClient::Introduce(i), .. }) => {
            w.env.seen.misdelivered |= i.intro.intro.uploader_key != keys::upload_key(to);
        }
        In::Client(client::Input::Control { msg: ToClient::ReaddRequest(_), .. }) => {
            return (cfg.mutant != Some(Mutant::ReaddIsLost)).then_some(input);
        }
        In::Client(client::Input::Control { msg: ToClient::UsageAck(_), .. }) => {
            return (cfg.mutant != Some(Mutant::AcksAreLost)).then_some(input);
        }
        In::Client(client::Input::Control { msg: ToClient::Rekey, .. }) => {
            return (cfg.mutant != Some(Mutant::RekeyOrdersAreLost)).then_some(input);
        }
        In::Client(client::Input::Control { msg: ToClient::Retired(_), .. }) => {
            return (cfg.mutant != Some(Mutant::RetirementsAreLost)).then_some(input);
        }
        In::Ledger(ledger::Input::Server { msg: ToLedger::Submit(LedgerRecord::Usage(r)), .. })
            if cfg.mutant == Some(Mutant::FreshRecordIds) =>
        {
            r.record.id = RecordId::numbered(u32::try_from(w.env.number()).unwrap_or(0));
        }
        In::Client(_) | In::Session(_) | In::Edge(_) | In::Cn(_) | In::Dn(_) | In::Ledger(_) => {}
    }
    Some(input)
}

fn forget_told(w: &mut World<Net>, dn: NodeIx, conn: ConnId) {
    w.env.seen.told.retain(|(node, c, _), _| (*node, *c) != (dn, conn));
}

/// Notes a registration at a DN; returns `false` if the seeded defect loses the message.
fn dn_told(w: &mut World<Net>, cfg: &Cfg, (dn, conn): (NodeIx, ConnId), msg: &mut ToDn) -> bool {
    let seen = &mut w.env.seen.told;
    if let ToDn::Gone(g) = msg {
        seen.remove(&(dn, conn, g.session));
    }
    let ToDn::Peer(entry) = msg else { return true };
    seen.insert((dn, conn, entry.session), (entry.upload_key, entry.uploads));
    if cfg.mutant == Some(Mutant::IncarnationsFall) {
        entry.incarnation = INCARNATIONS_FALL_FROM - entry.incarnation;
    }
    entry.uploads || cfg.mutant != Some(Mutant::UploadsOffIsOverlooked)
}

/// Number from which the seeded defect [`Mutant::IncarnationsFall`] subtracts session numbers, so that later ones are
/// lower.
pub const INCARNATIONS_FALL_FROM: u64 = 1000;

/// Sets `chosen_though_off` if a DN selected a peer all of whose registrations at it forbid uploads.
fn chosen(w: &mut World<Net>, dn: NodeIx, selected: &Selected) {
    for peer in &selected.peers {
        let of_it = |((node, ..), (key, _)): &(&(NodeIx, ConnId, _), &(PublicKey, bool))| {
            *node == dn && *key == peer.upload_key
        };
        let mut all = w.env.seen.told.iter().filter(of_it);
        w.env.seen.chosen_though_off |= !all.any(|(_, (_, uploads))| *uploads);
    }
}
