//! World of usage records: a client's session, a CN and the ledger, all production machines, and the ledger's database,
//! which may refuse a batch.

pub mod model;

use super::rng::Seeded;
use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::{In, Node, RoleCfg};
use super::sim::posting::at_once;
use super::sim::rig::identity;
use super::sim::{Cfg, Move, Mutant, Net, keys};
use super::world::{Act, Budget, NodeIx, World};
use std::collections::BTreeSet;
use swarmedge_core::accounting::logs::Log;
use swarmedge_core::ids::{DownloadId, Guid, RecordId, SecondaryGuid, VersionId};
use swarmedge_core::role::{client, cn, ledger};
use swarmedge_core::session::ClientSession;
use swarmedge_core::session::client::Input;
use swarmedge_core::wire::records::{
    LedgerRecord, Logged, ServerRole, Side, SignedHead, SigningContext, UsageRecord, UsageState,
};
use swarmedge_core::wire::{List, Wire as _};

const CN: NodeIx = 0;
const LEDGER: NodeIx = 1;
const CLIENT: NodeIx = 2;

/// Returns the deployment's configuration, with the limits for models.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let names = std::vec![Name(Role::Cn, 0), Name(Role::Ledger, 0), Name(Role::Client, 0)];
    let (root, verify) = (keys::root(), keys::verify);
    let cn = cn::Config { dns: 0, ..cn::Config::tiny(root, verify, keys::cert(names[0], ServerRole::Cn)) };
    let client = client::Config::tiny(identity(CLIENT, names[2], 0), verify);
    let roles = std::vec![
        RoleCfg::Cn(cn),
        RoleCfg::Ledger(ledger::Config::new(root, verify)),
        RoleCfg::Client(std::vec![client])
    ];
    Cfg::for_models(names, roles, mutant, moves)
}

/// Returns the usage record of download `n` with sequence number `seq`.
fn record(n: u32, seq: u32) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(n << 8 | seq),
        reporter: Guid::of(&keys::key(Name(Role::Client, 0))),
        side: Side::Downloader,
        download: DownloadId::numbered(n),
        version: VersionId::numbered(1),
        seq,
        state: UsageState::Running,
        edge_bytes: u64::from(seq) * 1000,
        peers: List::default(),
        elapsed_ms: 1,
        cause: None,
    }
}

/// Writes a usage record to the client's disk; returns the input that passes the record to the client's session.
fn report(w: &mut World<Net>, record: UsageRecord) -> In {
    w.env.disks.entry(CLIENT).or_default().usage.insert(record.id, record.clone());
    let key = keys::key(Name(Role::Client, 0));
    // each record is in a log of its own: this model does not concern logs
    let mut start = SecondaryGuid::numbered(1);
    start.0[..RecordId::LEN].copy_from_slice(&record.id.0);
    let head = Log::default().append(start, &record);
    let signature = keys::sign(&key, SigningContext::LogHead, &head.to_bytes());
    In::Session(Input::Usage(Logged { record, head: SignedHead { head, key, signature } }))
}

/// Appends the events from outside that may come next: crashes, starts, broken connections.
fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    for ix in [CN, LEDGER] {
        match w.node(ix) {
            Some(_) if w.budget.crashes > 0 => moves.push(Move::Crash(ix)),
            Some(_) => {}
            None => moves.push(Move::Start(ix)),
        }
    }
    if w.budget.drops > 0 {
        moves.extend(w.env.links.iter().filter(|(_, l)| l.open).map(|(&id, _)| Move::Break(id)));
    }
}

/// Returns the world with all nodes connected, and records of two downloads to send: one of the first, two of the
/// second.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    let mut rng = Seeded::new(1);
    for ix in [LEDGER, CN] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    w.set_node(CLIENT, Some(Node::Session(Box::new(ClientSession::new(true)), 0)));
    at_once(&mut w, CLIENT, In::Session(Input::Servers { cns: 1, now_ms: keys::WALL_MS }));
    let ready = w.settle(cfg, 300, &mut rng, |w| w.is_quiet() && w.env.links.values().filter(|l| l.open).count() == 2);
    assert!(ready, "an undisturbed control plane comes up");
    w.rebase();
    for (n, seq) in [(1, 1), (2, 1), (2, 2)] {
        let input = report(&mut w, record(n, seq));
        at_once(&mut w, CLIENT, input);
    }
    w
}

fn stored(w: &World<Net>) -> impl Iterator<Item = &UsageRecord> {
    w.env.database.values().filter_map(LedgerRecord::usage)
}

/// Returns whether the newest record of each download is in the ledger's database.
fn all_stored(w: &World<Net>) -> bool {
    [(1, 1), (2, 2)].iter().all(|&(n, seq)| {
        let wanted = record(n, seq);
        stored(w).any(|r| (r.download, r.seq, r.edge_bytes) == (wanted.download, seq, wanted.edge_bytes))
    })
}

/// Rules of the model of usage records, checked in its reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always(
        "a client forgets a record only for one as new that the ledger has, or a newer one that it keeps",
        |_, w| {
            let kept = w.env.disks.get(&CLIENT).map(|d| &d.usage);
            [(1, 1), (2, 2)].iter().all(|&(n, seq)| {
                let wanted = record(n, seq);
                kept.is_some_and(|k| k.contains_key(&wanted.id))
                    || stored(w).any(|r| r.download == wanted.download && r.seq == seq)
            })
        },
    ),
    Rule::always("the ledger has no record twice", |_, w| {
        let mut seen = BTreeSet::new();
        stored(w).all(|r| seen.insert((r.reporter, r.download, r.seq)))
    }),
    Rule::always("left alone, every record reaches the ledger and leaves the client", |cfg, w| {
        let all_up = w.node(CN).is_some() && w.node(LEDGER).is_some();
        !all_up
            || settles(cfg, w, 600, |w| all_stored(w) && w.env.disks.get(&CLIENT).is_some_and(|d| d.usage.is_empty()))
    }),
    Rule::sometimes("all is stored after a crash", |_, w| w.budget.crashes == 0 && all_stored(w)),
    Rule::sometimes("all is stored after a loss", |_, w| w.budget.drops == 0 && all_stored(w)),
];
