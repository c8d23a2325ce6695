//! World of quarantine: a client that downloads a version which another client has already, an edge, a CN, a DN and
//! the ledger, all production machines. The downloading client is put into quarantine and released at any time.

pub mod model;

use super::rng::Seeded;
use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::{In, Node, RoleCfg};
use super::sim::posting::at_once;
use super::sim::rig::identity;
use super::sim::{Cfg, Event, Move, Mutant, Net, Published, keys};
use super::world::{Act, Budget, Lane, NodeIx, World};
use std::time::Duration;
use swarmedge_core::content::{Layout, Policy};
use swarmedge_core::ids::{Guid, ProviderId, ReqId, VersionId};
use swarmedge_core::role::client::io::{Command, CommandKind, DownloadState, DownloadStatus, ObjectRef};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::wire::records::ServerRole;

const CN: NodeIx = 0;
const DN: NodeIx = 1;
const LEDGER: NodeIx = 2;
const EDGE: NodeIx = 3;
const SEEDER: NodeIx = 4;
const LEECHER: NodeIx = 5;
const PATH: &str = "film";
const PIECES: u32 = 2;
const SIZE: u64 = PIECES as u64 * 64 * 1024;

fn version() -> VersionId {
    VersionId::numbered(1)
}

/// Returns the deployment's configuration, with the limits for models.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let of = |role, n| Name(role, n);
    let names = std::vec![
        of(Role::Cn, 0),
        of(Role::Dn, 0),
        of(Role::Ledger, 0),
        of(Role::Edge, 0),
        of(Role::Client, 0),
        of(Role::Client, 1)
    ];
    let (root, verify) = (keys::root(), keys::verify);
    let role = |(ix, &name): (NodeIx, &Name)| match name.0 {
        Role::Cn => RoleCfg::Cn(cn::Config::tiny(root, verify, keys::cert(name, ServerRole::Cn))),
        Role::Dn => RoleCfg::Dn(dn::Config::tiny(root, verify, keys::cert(name, ServerRole::Dn))),
        Role::Ledger => RoleCfg::Ledger(ledger::Config::new(root, verify)),
        Role::Edge => {
            let usual = edge::Config::new(root, verify, keys::cert(name, ServerRole::Edge));
            let zero = (Duration::ZERO, Duration::ZERO);
            RoleCfg::Edge(edge::Config { ledger: false, challenge_permille: 0, backoff: zero, ..usual })
        }
        Role::Client => RoleCfg::Client(std::vec![client::Config::tiny(identity(ix, name, 0), verify)]),
    };
    let roles = (0..).zip(&names).map(role).collect();
    Cfg {
        // on the other lanes quarantine may come between query, answer, introduction and transfer
        prompt: &["https", "stun", "sign", "disk", "served", "probe", "directory", "peer"],
        ..Cfg::for_models(names, roles, mutant, moves)
    }
}

/// Returns the GUID of the downloading client, which is put into quarantine.
fn suspect() -> Guid {
    Guid::of(&keys::key(Name(Role::Client, 1)))
}

/// Adds to `moves` the event that puts the downloading client into quarantine, or releases it.
fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    if w.budget.changes > 0 {
        let is_in = w.env.seen.suspects.contains(&suspect());
        let guids = if is_in { Vec::new() } else { std::vec![suspect()] };
        moves.push(Move::Tell(LEDGER, Box::new(In::Ledger(ledger::Input::Quarantined { guids }))));
    }
}

fn get(req: u64) -> In {
    let object = ObjectRef { provider: ProviderId(1), path: PATH.to_string() };
    let kind = CommandKind::Get { object, output: String::new(), replace: false };
    In::Client(client::Input::Command(Command { req: ReqId(1 << 40 | req), kind }))
}

/// Returns the world in which one client shares the version and the other is commanded to download it.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    let layout = Layout::new(SIZE, 64 * 1024).expect("a usual layout");
    let published = Published { provider: ProviderId(1), version: version(), layout, policy: Policy::default() };
    w.env.objects.insert(PATH.to_string(), published);
    let mut rng = Seeded::new(1);
    for ix in [LEDGER, EDGE, DN, CN, SEEDER] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    at_once(&mut w, SEEDER, get(1));
    let shares = |w: &World<Net>| match w.node(DN) {
        Some(Node::Dn(dn)) => w.is_quiet() && dn.directory().listed(version()).count() == 1,
        _ => false,
    };
    let ready = w.settle(cfg, 2_000, &mut rng, |w| is_done(w, SEEDER) && shares(w));
    assert!(ready, "an undisturbed download completes and is shared");
    w.step(cfg, &Act::Move(Move::Start(LEECHER)), &mut rng);
    let open = |w: &World<Net>| matches!(w.node(LEECHER), Some(Node::Client(c, _)) if c.session().is_open());
    let ready = w.settle(cfg, 500, &mut rng, |w| open(w) && w.is_quiet());
    assert!(ready, "an undisturbed client finds a CN");
    w.rebase();
    w.send(Lane { to: LEECHER, what: "user", id: 0 }, Duration::ZERO, Event::Input(get(2)));
    w
}

fn status(w: &World<Net>, ix: NodeIx) -> Option<&DownloadStatus> {
    w.env.status.iter().find(|((node, _), _)| *node == ix).map(|(_, s)| s)
}

fn is_done(w: &World<Net>, ix: NodeIx) -> bool {
    status(w, ix).is_some_and(|s| s.state == DownloadState::Completed)
}

/// Rules of the model of quarantine, checked in its reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always("a download completes, whoever is put into quarantine or let out, and when", |cfg, w| {
        settles(cfg, w, 400, |w| is_done(w, LEECHER))
    }),
    Rule::always("who asks in quarantine is told of nobody", |_, w| !w.env.seen.suspect_introduced),
    Rule::sometimes("a download in quarantine comes from the edge alone", |_, w| {
        let suspect = w.env.seen.suspects.contains(&suspect());
        suspect && is_done(w, LEECHER) && status(w, LEECHER).is_some_and(|s| s.edge_bytes == SIZE)
    }),
    Rule::sometimes("a download gets a piece of a peer before its quarantine", |_, w| {
        let suspect = w.env.seen.suspects.contains(&suspect());
        suspect && is_done(w, LEECHER) && status(w, LEECHER).is_some_and(|s| s.peer_bytes > 0)
    }),
];
