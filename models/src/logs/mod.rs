//! World of clients' record logs: a whole client whose disk holds a usage record and a receipt of an earlier start, a
//! CN and the ledger, all production machines. The client, the CN and the ledger may crash at any step; or the
//! client's machine is set back to a saved image, so that its log forks.

pub mod model;

use super::rule::{Rule, settles};
use super::scenario::{Name, Role};
use super::sim::machines::RoleCfg;
use super::sim::rig::identity;
use super::sim::{Cfg, Move, Mutant, Net, keys};
use super::world::{Act, Budget, NodeIx, World};
use crate::rng::Seeded;
use std::collections::BTreeSet;
use std::time::Duration;
use swarmedge_core::accounting::logs;
use swarmedge_core::ids::{DownloadId, Guid, IntroId, PublicKey, RecordId, Signature, VersionId};
use swarmedge_core::role::client::io::KeptReceipt;
use swarmedge_core::role::{client, cn, edge, ledger};
use swarmedge_core::wire::List;
use swarmedge_core::wire::records::{
    LedgerRecord, LogEvent, LogRecord, PeerBytes, ReceiptProof, ServerRole, Side, SignedHead, UsageRecord, UsageState,
};

const CN: NodeIx = 0;
const LEDGER: NodeIx = 1;
/// Node index of the edge, which only tells the client where CNs are.
const EDGE: NodeIx = 2;
const CLIENT: NodeIx = 3;
/// Number of the client's starts that have secondary GUIDs of their own.
const LIVES: u8 = 8;

/// Returns the deployment's configuration, with small limits: the CN defers a third usage record that arrives at once
/// (it is sent again), and the ledger every record beyond two.
#[must_use]
pub fn cfg(mutant: Option<Mutant>) -> Cfg {
    let names = std::vec![Name(Role::Cn, 0), Name(Role::Ledger, 0), Name(Role::Edge, 0), Name(Role::Client, 0)];
    let (root, verify) = (keys::root(), keys::verify);
    let cn = cn::Config::tiny(root, verify, keys::cert(names[0], ServerRole::Cn));
    let edge = edge::Config::new(root, verify, keys::cert(names[2], ServerRole::Edge));
    let client = |life| {
        let tiny = client::Config::tiny(identity(CLIENT, names[3], life), verify);
        client::Config { served_keep: Duration::ZERO, ..tiny }
    };
    let roles = std::vec![
        RoleCfg::Cn(cn::Config { dns: 0, logs: true, usage_max: 2, ..cn }),
        RoleCfg::Ledger(ledger::Config { pending_max: 2, batch_max: 2, ..ledger::Config::new(root, verify) }),
        RoleCfg::Edge(edge::Config { ledger: false, ..edge }),
        RoleCfg::Client((0..LIVES).map(client).collect()),
    ];
    Cfg { prompt: &["https", "stun"], heads: true, ..Cfg::for_models(names, roles, mutant, moves) }
}

fn reporter() -> Guid {
    Guid::of(&keys::key(Name(Role::Client, 0)))
}

/// Returns the usage record of an earlier start that the ledger has not acknowledged when the model begins.
fn left_record() -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(1 << 8),
        reporter: reporter(),
        side: Side::Downloader,
        download: DownloadId::numbered(1),
        version: VersionId::numbered(1),
        seq: 1,
        state: UsageState::Completed,
        edge_bytes: 1000,
        peers: List::default(),
        elapsed_ms: 1,
        cause: None,
    }
}

/// Returns the receipt for bytes that the client uploaded in an earlier start, which no usage record contains yet.
fn left_receipt() -> KeptReceipt {
    let uploader_key = keys::upload_key(CLIENT);
    let proof = ReceiptProof { uploader_key, seq: 1, bytes: 2000, signature: Signature([0; 64]) };
    let peer =
        PeerBytes { intro: IntroId::numbered(1), key: PublicKey::numbered(7), bytes: 2000, receipt: Some(proof) };
    KeptReceipt { download: DownloadId::numbered(2), version: VersionId::numbered(1), peer }
}

/// Appends the events from outside that may come next: crashes, starts, broken connections.
fn moves(w: &World<Net>, _: &Cfg, moves: &mut Vec<Move>) {
    for ix in [CN, LEDGER, CLIENT] {
        match w.node(ix) {
            Some(_) if w.budget.crashes > 0 => moves.push(Move::Crash(ix)),
            Some(_) => {}
            None => moves.push(Move::Start(ix)),
        }
    }
    if w.budget.drops > 0 {
        moves.extend(w.env.links.iter().filter(|(_, l)| l.open).map(|(&id, _)| Move::Break(id)));
    }
    if w.budget.changes > 0 && w.node(CLIENT).is_some() && w.is_quiet() {
        moves.push(Move::Image(CLIENT));
    }
    if w.env.has_image() {
        moves.push(Move::SetBack);
    }
}

/// Returns the world in which all servers run and the client is about to start.
#[must_use]
pub fn world(cfg: &Cfg, budget: Budget) -> World<Net> {
    let mut w = cfg.world(1, budget);
    let mut rng = Seeded::new(1);
    for ix in [LEDGER, EDGE, CN] {
        w.step(cfg, &Act::Move(Move::Start(ix)), &mut rng);
    }
    let ready = w.settle(cfg, 300, &mut rng, |w| w.is_quiet() && w.env.links.values().any(|l| l.open));
    assert!(ready, "undisturbed servers come up");
    w.rebase();
    let disk = w.env.disks.entry(CLIENT).or_default();
    disk.owner = Some(reporter());
    disk.usage.insert(left_record().id, left_record());
    disk.receipts.insert(left_receipt().peer.intro, left_receipt());
    w
}

type W = World<Net>;

fn stored(w: &W) -> impl Iterator<Item = &UsageRecord> {
    w.env.database.values().filter_map(LedgerRecord::usage)
}

/// Returns the log heads in the ledger's database, those with usage records and those without.
fn places(w: &W) -> impl Iterator<Item = &SignedHead> {
    w.env.database.values().filter_map(|r| match r {
        LedgerRecord::Usage(logged) => Some(&logged.head),
        LedgerRecord::Log(LogRecord { event: LogEvent::Head(head), .. }) => Some(head),
        LedgerRecord::Log(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_) => None,
    })
}

/// Returns whether the client's disk holds the usage record of the earlier start.
fn keeps_left_record(w: &W) -> bool {
    let left = left_record();
    w.env.disks.get(&CLIENT).is_some_and(|d| d.usage.contains_key(&left.id))
}

fn keeps_left_receipt(w: &W) -> bool {
    let left = left_receipt();
    w.env
        .disks
        .get(&CLIENT)
        .is_some_and(|d| d.receipts.contains_key(&left.peer.intro) || d.usage.values().any(|r| left.is_in(r)))
}

fn ledger_has_both(w: &W) -> bool {
    let (record, receipt) = (left_record(), left_receipt());
    stored(w).any(|r| r.download == record.download && r.seq >= record.seq) && stored(w).any(|r| receipt.is_in(r))
}

/// Returns whether the ledger's database has, for each usage record, the log head that was signed for it.
fn each_has_its_place(w: &W) -> bool {
    let stands =
        |r: &UsageRecord, h: &SignedHead| logs::digest(h.head.start, h.head.place, &h.head.before, r) == h.head.digest;
    stored(w).all(|r| places(w).any(|h| stands(r, h)))
}

fn all_is_reported(w: &W) -> bool {
    let empty = w.env.disks.get(&CLIENT).is_some_and(|d| d.usage.is_empty() && d.receipts.is_empty());
    empty && w.env.disks.get(&CLIENT).is_some_and(|d| d.checkpoint.is_some()) && ledger_has_both(w)
}

fn all_up(w: &W) -> bool {
    [CN, LEDGER, CLIENT].into_iter().all(|ix| w.node(ix).is_some())
}

fn forks<'a>(heads: impl IntoIterator<Item = &'a SignedHead>) -> bool {
    !logs::forks(keys::verify, heads.into_iter().cloned()).is_empty()
}

/// Returns whether the log heads that CNs have received prove a fork of the client's log.
fn was_told_a_fork(w: &W) -> bool {
    let seen = &w.env.seen;
    forks(seen.signed.iter().filter(|(name, _)| seen.told_heads.contains(name)).map(|(_, head)| head))
}

/// Rules of the models of clients' record logs, checked in their reachable states.
pub const RULES: &[Rule<Net>] = &[
    Rule::always("no crash makes a client sign two heads at one place", |_, w| {
        w.env.seen.set_back || !forks(w.env.seen.signed.values())
    }),
    Rule::always("a record is on the disk before it is told", |_, w| !w.env.seen.told_undurable),
    Rule::always("a client that was not set back is not told to take another key", |_, w| {
        w.env.seen.set_back || w.env.seen.rekey_ordered.is_empty()
    }),
    Rule::always("a client forgets only what the ledger has", |_, w| {
        let (record, receipt) = (left_record(), left_receipt());
        let has_record = || stored(w).any(|r| r.download == record.download);
        let has_receipt = || stored(w).any(|r| receipt.is_in(r));
        (keeps_left_record(w) || has_record()) && (keeps_left_receipt(w) || has_receipt())
    }),
    Rule::always("the ledger has no record twice", |_, w| {
        let mut seen = BTreeSet::new();
        w.env.seen.set_back || stored(w).all(|r| seen.insert((r.reporter, r.download, r.side.number(), r.seq)))
    }),
    Rule::always("left alone, all is in the ledger, each record with its place", |cfg, w| {
        !all_up(w) || settles(cfg, w, 400, |w| all_is_reported(w) && each_has_its_place(w))
    }),
    Rule::always("left alone, the ledger can prove each fork that a CN was told of", |cfg, w| {
        !all_up(w) || !was_told_a_fork(w) || settles(cfg, w, 400, |w| forks(places(w)))
    }),
    Rule::sometimes("all is reported after a crash", |_, w| {
        w.budget.crashes == 0 && !w.env.seen.set_back && all_is_reported(w)
    }),
    Rule::sometimes("a start tells of two records, the second at the place after the first", |_, w| {
        places(w).any(|h| h.head.place == 2)
    }),
];

/// Rules of the model in which a client is set back to a saved image.
pub const FORK_RULES: &[Rule<Net>] =
    &[RULES[1], RULES[2], RULES[3], RULES[5], RULES[6], Rule::sometimes("a fork is proven", |_, w| forks(places(w)))];
