//! World of a copied installation: two whole clients that begin with one key, a CN and the ledger, all production
//! machines. The copy starts at any time; the original may crash, or leave an old session open at the CN.

pub mod model;

use super::rng::Seeded;
use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::{Node, RoleCfg};
use super::sim::rig::{GENERATIONS, LIVES, identity_of};
use super::sim::{Cfg, Move, Mutant, Net, keys};
use super::world::{Act, Budget, NodeIx, World};
use swarmedge_core::accounting::rekeys;
use swarmedge_core::ids::{Guid, PublicKey};
use swarmedge_core::role::{client, cn, edge, ledger};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord, ServerRole, SignedRekey};

const CN: NodeIx = 0;
const LEDGER: NodeIx = 1;
/// Node index of the edge, which only tells clients where CNs are.
const EDGE: NodeIx = 2;
const FIRST: NodeIx = 3;
const COPY: NodeIx = 4;

/// Returns the deployment's configuration, with the limits for models.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let names = std::vec![
        Name(Role::Cn, 0),
        Name(Role::Ledger, 0),
        Name(Role::Edge, 0),
        Name(Role::Client, 0),
        Name(Role::Client, 1)
    ];
    let (root, verify) = (keys::root(), keys::verify);
    let cn = cn::Config::tiny(root, verify, keys::cert(names[0], ServerRole::Cn));
    let edge = edge::Config::new(root, verify, keys::cert(names[2], ServerRole::Edge));
    let lives = |ix| {
        let life = |life| client::Config::tiny(identity_of(ix, first_key(), life), verify);
        RoleCfg::Client((0..LIVES * GENERATIONS).map(life).collect())
    };
    let roles = std::vec![
        RoleCfg::Cn(cn::Config { dns: 0, ..cn }),
        RoleCfg::Ledger(ledger::Config::new(root, verify)),
        RoleCfg::Edge(edge::Config { ledger: false, ..edge }),
        lives(FIRST),
        lives(COPY),
    ];
    Cfg { prompt: &["https", "stun", "sign", "disk", "ledger"], ..Cfg::for_models(names, roles, mutant, moves) }
}

/// Returns the key that the installation and its copy begin with.
fn first_key() -> PublicKey {
    keys::key(Name(Role::Client, 0))
}

/// Returns the current key of a client.
fn key(w: &World<Net>, ix: NodeIx) -> PublicKey {
    keys::client_key(first_key(), ix, w.env.disks.get(&ix).map_or(0, |d| d.generation))
}

/// Appends the events from outside that may come next: crashes, power losses, starts.
fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    for ix in [CN, LEDGER, FIRST] {
        match w.node(ix) {
            Some(_) if w.budget.crashes > 0 => moves.push(Move::Crash(ix)),
            Some(_) => {}
            None => moves.push(Move::Start(ix)),
        }
    }
    if w.budget.crashes > 0 && w.node(FIRST).is_some() {
        moves.push(Move::PowerLoss(FIRST));
    }
    if w.budget.changes > 0 && w.node(COPY).is_none() {
        moves.push(Move::Start(COPY));
    }
    if w.budget.drops > 0 {
        let control = |l: &super::sim::links::Link| l.open && !l.half && l.to.0 == CN;
        let links = w.env.links.iter().filter(|(_, l)| control(l));
        moves.extend(links.flat_map(|(&id, _)| [Move::Break(id), Move::BreakHalf(id)]));
    }
}

fn is_open(w: &World<Net>, ix: NodeIx) -> bool {
    matches!(w.node(ix), Some(Node::Client(c, _)) if c.session().is_open())
}

/// Returns the world in which the original client is connected and its copy can start.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    for ix in [FIRST, COPY] {
        w.env.disks.entry(ix).or_default().owner = Some(Guid::of(&first_key()));
    }
    let mut rng = Seeded::new(1);
    for ix in [LEDGER, EDGE, CN, FIRST] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    let ready = w.settle(cfg, 500, &mut rng, |w| w.is_quiet() && is_open(w, FIRST));
    assert!(ready, "an undisturbed client finds a CN");
    w.rebase();
    w
}

type W = World<Net>;

/// Returns the changes of keys that the ledger has stored.
fn rekeys(w: &W) -> impl Iterator<Item = &SignedRekey> {
    w.env.database.values().filter_map(|r| match r {
        LedgerRecord::Log(LogRecord { event: LogEvent::Rekeyed(signed), .. }) => Some(signed),
        LedgerRecord::Log(_)
        | LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_) => None,
    })
}

/// Returns whether each former key of a client is retired in the ledger, signed by that key and the next one.
fn old_keys_are_retired(w: &W) -> bool {
    [FIRST, COPY].into_iter().all(|ix| {
        let generation = w.env.disks.get(&ix).map_or(0, |d| d.generation);
        (0..generation).all(|n| {
            let [old, new] = [n, n + 1].map(|n| keys::client_key(first_key(), ix, n));
            rekeys(w).any(|s| s.rekey.old == old && s.rekey.new == new && rekeys::check(keys::verify, s))
        })
    })
}

/// Returns whether both clients are connected under different keys, and neither has another key prepared.
fn are_apart(w: &W) -> bool {
    let is_settled = |ix| is_open(w, ix) && w.env.disks.get(&ix).is_some_and(|d| !d.new_key);
    is_settled(FIRST) && is_settled(COPY) && key(w, FIRST) != key(w, COPY)
}

/// Rules of the models of a copied installation, checked in their reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always("an installation that is alone is not told to take another key", |_, w| {
        w.node(COPY).is_some() || w.env.seen.rekey_ordered.is_empty()
    }),
    Rule::always("who has taken another key has its old one retired in the ledger", |_, w| old_keys_are_retired(w)),
    Rule::always("left alone, copies come to have keys of their own, and go on", |cfg, w| {
        let all_up = [CN, LEDGER, FIRST, COPY].into_iter().all(|ix| w.node(ix).is_some());
        !all_up || settles(cfg, w, 600, are_apart)
    }),
    Rule::always("left alone, an installation without copies keeps its key and is connected", |cfg, w| {
        let all_up = [CN, LEDGER, FIRST].into_iter().all(|ix| w.node(ix).is_some());
        let alone = all_up && w.node(COPY).is_none();
        !alone || settles(cfg, w, 600, |w| is_open(w, FIRST) && key(w, FIRST) == first_key())
    }),
    Rule::sometimes("copies are apart after a crash", |_, w| w.budget.crashes == 0 && are_apart(w)),
];

/// Rules of the model in which the installation has no copy.
pub const ALONE_RULES: &[Rule<Net>] = &[
    RULES[0],
    RULES[3],
    Rule::sometimes("there are two sessions, of which one is left behind", |_, w| {
        is_open(w, FIRST) && w.env.links.values().any(|l| l.half && l.welcomed)
    }),
];
