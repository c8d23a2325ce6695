//! World of offers (the introductions that answer one query): a client that looks for a peer, one that has the
//! version, a CN with its spool, a DN and the ledger, all production machines. CN or ledger crashes at any step, and
//! the disk of either may refuse a write.

pub mod model;

use super::control::{version, want};
use super::rng::Seeded;
use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::{In, Node, RoleCfg};
use super::sim::posting::at_once;
use super::sim::rig::identity;
use super::sim::{Cfg, Move, Mutant, Net, keys};
use super::world::{Act, Budget, NodeIx, World};
use swarmedge_core::role::{client, cn, dn, ledger};
use swarmedge_core::session::ClientSession;
use swarmedge_core::session::client::Input;
use swarmedge_core::wire::records::ServerRole;

const CN: NodeIx = 0;
const DN: NodeIx = 1;
const LEDGER: NodeIx = 2;
const SEEDER: NodeIx = 3;
const SEEKER: NodeIx = 4;

/// Returns the deployment's configuration, with the limits for models; messages between clients, CN and DN arrive at
/// once.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let names = std::vec![
        Name(Role::Cn, 0),
        Name(Role::Dn, 0),
        Name(Role::Ledger, 0),
        Name(Role::Client, 0),
        Name(Role::Client, 1)
    ];
    let (root, verify) = (keys::root(), keys::verify);
    let role = |(ix, &name): (NodeIx, &Name)| match name.0 {
        Role::Cn => {
            let tiny = cn::Config::tiny(root, verify, keys::cert(name, ServerRole::Cn));
            RoleCfg::Cn(cn::Config { logs: true, ..tiny })
        }
        Role::Dn => RoleCfg::Dn(dn::Config::tiny(root, verify, keys::cert(name, ServerRole::Dn))),
        Role::Ledger => RoleCfg::Ledger(ledger::Config::new(root, verify)),
        Role::Client | Role::Edge => RoleCfg::Client(std::vec![client::Config::tiny(identity(ix, name, 0), verify)]),
    };
    let roles = (0..).zip(&names).map(role).collect();
    Cfg { prompt: &["control", "directory"], ..Cfg::for_models(names, roles, mutant, moves) }
}

/// Appends the events from outside that may come next: crashes and starts.
fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    for ix in [CN, LEDGER] {
        match w.node(ix) {
            Some(_) if w.budget.crashes > 0 => moves.push(Move::Crash(ix)),
            Some(_) => {}
            None => moves.push(Move::Start(ix)),
        }
    }
}

/// Returns the world in which all nodes are connected, one client is listed as sharing the version, and the other is
/// about to look for peers.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    // a seed other than that of [`settles`], which would draw the same record ids again
    let mut rng = Seeded::new(2);
    for ix in [LEDGER, DN, CN] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    let tell = |w: &mut World<Net>, ix, input| at_once(w, ix, In::Session(input));
    for ix in [SEEDER, SEEKER] {
        w.set_node(ix, Some(Node::Session(Box::new(ClientSession::new(true)), 0)));
        tell(&mut w, ix, Input::Network(keys::nat(ix)));
        tell(&mut w, ix, Input::Servers { cns: 1, now_ms: keys::WALL_MS });
    }
    let ticket = keys::ticket(&keys::key(cfg.names[usize::from(SEEDER)]), version());
    tell(&mut w, SEEDER, Input::Share { version: version(), complete: true, ticket });
    let ready = w.settle(cfg, 500, &mut rng, |w| w.is_quiet() && is_ready(w));
    assert!(ready, "an undisturbed control plane comes up");
    w.rebase();
    tell(&mut w, SEEKER, Input::Want(want(SEEKER, cfg.names[usize::from(SEEKER)])));
    w
}

fn is_ready(w: &World<Net>) -> bool {
    let listed = matches!(w.node(DN), Some(Node::Dn(dn)) if dn.directory().listed(version()).count() == 1);
    listed && w.env.links.values().filter(|l| l.open).count() == 4
}

fn spool_is_empty(w: &World<Net>) -> bool {
    w.env.spools.get(&CN).is_none_or(|spool| spool.records.is_empty())
}

/// Rules of the model of introduction records, checked in its reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always("a client is told of peers only if the spool or the ledger has them on record", |_, w| {
        w.env.unrecorded(true).is_none()
    }),
    Rule::always("left alone, the ledger has on record whom a client was told of, and the spool is empty", |cfg, w| {
        let all_up = w.node(CN).is_some() && w.node(LEDGER).is_some();
        !all_up || settles(cfg, w, 600, |w| w.env.unrecorded(false).is_none() && spool_is_empty(w))
    }),
    Rule::sometimes("who was introduced is on record after a crash", |_, w| {
        w.budget.crashes == 0 && !w.env.seen.introductions.is_empty() && w.env.unrecorded(false).is_none()
    }),
    Rule::sometimes("a disk that refuses a write costs peers, and nobody is introduced", |_, w| {
        w.budget.drops == 0 && w.env.seen.introductions.is_empty() && spool_is_empty(w)
    }),
];
