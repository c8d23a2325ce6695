//! Rules of campaigns: those that hold at every moment, and those that hold once the deployment has converged.

use super::step::PATHS;
use crate::scenario::{Progress, Rig as _, Role};
use crate::sim::clients::own;
use crate::sim::rig::SimRig;
use crate::sim::{Net, keys, machines::Node};
use crate::world::NodeIx;
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::settlement::Book;
use swarmedge_core::ids::{DownloadId, PublicKey, VersionId};
use swarmedge_core::limits::PEER_CONNECTIONS_MAX;
use swarmedge_core::machine::Time;
use swarmedge_core::role::client::io::{DownloadState, DownloadStatus};
use swarmedge_core::wire::records::{LedgerRecord, Side, UsageRecord, UsageState};

/// Maximum number of requests that an uploader serves at a time on one connection.
const REQUESTS_MAX: usize = 64;

/// Interval of the checks of all nodes' invariants, in milliseconds.
const CHECKED_EVERY_MS: u128 = 500;

/// Checks the rules that hold at every moment.
pub(super) fn safe(rig: &SimRig) -> Result<(), String> {
    // these are the most expensive ones
    if rig.world.now.since(Time::ZERO).as_millis().is_multiple_of(CHECKED_EVERY_MS) {
        rig.world.nodes().for_each(|(_, node)| node.check());
    }
    let env = &rig.world.env;
    let seen = &env.seen;
    let rules = [
        (!seen.served_unverified, "a client served what it had not made durable"),
        (!seen.believed, "a client served or placed what its disk had forgotten"),
        (!seen.misdelivered, "an introduction came to a client that it does not name"),
        (!seen.chosen_though_off, "a client whose user forbids uploads was chosen"),
        // another CN learns of the quarantine later, and may answer until then
        (!seen.suspect_introduced || rig.cfg.count(Role::Cn) > 1, "a client in quarantine was told of peers"),
        (seen.tainted.iter().all(|p| !seen.commits.contains_key(p)), "a piece with a wrong block was committed"),
        (seen.commits.values().all(|&n| n <= 1), "a piece was committed twice"),
    ];
    if let Some((_, what)) = rules.iter().find(|(holds, _)| !holds) {
        return Err(String::from(*what));
    }
    if let Some(intro) = env.unrecorded(true) {
        return Err(format!("a client was told of {intro:?}, of which there is no durable record"));
    }
    let sound = |s: &DownloadStatus| s.durable <= s.size && s.edge_bytes + s.peer_bytes <= s.size;
    if let Some(((node, _), s)) = env.status.iter().find(|(_, s)| !sound(s)) {
        return Err(format!("node {node} counts more than there is: {s:?}"));
    }
    slots(env)
}

/// Checks that no client serves more connections, or more requests on one, than it may.
fn slots(env: &Net) -> Result<(), String> {
    let mut served: BTreeMap<NodeIx, BTreeMap<u64, usize>> = BTreeMap::new();
    for (pull, link) in env.pulls.values().filter(|p| p.serving).filter_map(|p| Some((p, p.link?))) {
        *served.entry(pull.from).or_default().entry(link).or_default() += 1;
    }
    let fits = |links: &BTreeMap<u64, usize>| {
        links.len() <= PEER_CONNECTIONS_MAX && links.values().all(|requests| *requests <= REQUESTS_MAX)
    };
    match served.iter().find(|(_, links)| !fits(links)) {
        Some((node, links)) => Err(format!("node {node} serves more than it may, by connection: {links:?}")),
        None => Ok(()),
    }
}

/// Returns the first reason why the deployment has not converged, as text; `None` once it has. `exact`: whether each
/// download was granted once, so that all of its bytes are counted under one id.
pub(super) fn unsettled(rig: &mut SimRig, clients: u8, exact: bool) -> Option<String> {
    for client in 0..clients {
        for path in PATHS {
            let s = rig.status(client, path);
            let done = s.is_some_and(|s| s.progress == Progress::Completed && s.right);
            if !done {
                return Some(format!("client{client} has not completed {path}: {s:?}"));
            }
        }
    }
    let env = &rig.world.env;
    let agrees = |node, s: &DownloadStatus| {
        !exact || s.edge_bytes + s.peer_bytes == journalled(env, node, s) && ledger_agrees(env, s)
    };
    let wrong = env.status.iter().find(|((node, _), s)| s.state == DownloadState::Completed && !agrees(*node, s));
    if let Some(((node, _), s)) = wrong {
        let record = s.download.and_then(|d| newest(env, d));
        return Some(format!("node {node} and the ledger differ: {s:?}; {record:?}"));
    }
    if let Some(intro) = env.unrecorded(false) {
        return Some(format!("a client was told of {intro:?}, and the ledger was not"));
    }
    overbilled(env).or_else(|| untrue_directory(rig))
}

/// Returns the bytes of the pieces on a client's disk that were fetched for this download. Pieces that an earlier
/// download has left in the cache are fetched from nobody.
fn journalled(env: &Net, node: NodeIx, s: &DownloadStatus) -> u64 {
    let Some((disk, version)) = env.disks.get(&node).zip(s.version) else { return 0 };
    let pieces = disk.pieces.get(&version).into_iter().flatten();
    let own = pieces.filter(|(piece, _)| disk.fetched_for.get(&(version, **piece)) == Some(&s.handle));
    own.flat_map(|(_, from)| from).map(|(_, bytes)| u64::from(*bytes)).sum()
}

/// Returns a description of a download or version of which the ledger bills more than was delivered; `None` if there is
/// none.
fn overbilled(env: &Net) -> Option<String> {
    let mut books: BTreeMap<DownloadId, Book> = BTreeMap::new();
    let mut versions: BTreeMap<DownloadId, VersionId> = BTreeMap::new();
    for record in env.database.values() {
        let Some((download, version)) = record.download().zip(record.version()) else { continue };
        books.entry(download).or_default().add(record.clone(), 0);
        versions.insert(download, version);
    }
    let mut billed: BTreeMap<VersionId, u64> = BTreeMap::new();
    for (download, book) in &books {
        let bill = book.bill(keys::verify, 0);
        if bill.peers_billed + bill.edge_unique > bill.size.max(bill.edge_unique) {
            return Some(format!("{download:?} is billed for more than its size: {bill:?}"));
        }
        *billed.entry(versions[download]).or_default() += bill.peers_billed;
    }
    let sent = |version| env.seen.sent_by_peers.get(version).copied().unwrap_or(0);
    let (version, bytes) = billed.iter().find(|(version, bytes)| **bytes > sent(version))?;
    Some(format!("{bytes} bytes from peers are billed for {version:?}, of which they have sent {}", sent(version)))
}

/// Returns whether a client has a holder's ticket for a version in its own name: not so for copies from before it took
/// another key.
fn has_ticket(rig: &SimRig, ix: NodeIx, version: VersionId) -> bool {
    let own = &own(&rig.world, &rig.cfg, ix).identity;
    let Some(disk) = rig.world.env.disks.get(&ix) else { return false };
    let of_copy = disk.terms.get(&version).and_then(|terms| terms.ticket.as_deref());
    let of_grants = disk.downloads.values().filter_map(|d| d.granted.as_ref()?.ticket.as_deref());
    of_copy.into_iter().chain(of_grants).any(|ticket| ticket.is_of(own.guid, version))
}

/// Returns a description of a DN's directory that does not list exactly the clients that share and have a ticket;
/// `None` if all are correct.
fn untrue_directory(rig: &SimRig) -> Option<String> {
    let world = &rig.world;
    for (path, object) in &world.env.objects {
        let shares = |(ix, node): (NodeIx, &Node)| match node {
            Node::Client(c, _) if c.session().uploads() => {
                let holds = world.env.disks.get(&ix).and_then(|d| d.pieces.get(&object.version));
                let listed = holds.is_some_and(|p| !p.is_empty()) && has_ticket(rig, ix, object.version);
                listed.then(|| keys::upload_key(ix))
            }
            Node::Client(..) | Node::Session(..) | Node::Edge(_) | Node::Cn(_) | Node::Dn(_) | Node::Ledger(_) => None,
        };
        let truth: BTreeSet<PublicKey> = world.nodes().filter_map(shares).collect();
        for (ix, node) in world.nodes().filter(|(ix, _)| rig.cfg.role(*ix) == Role::Dn) {
            let Node::Dn(dn) = node else { continue };
            let listed = dn.directory().listed(object.version);
            let listed: BTreeSet<PublicKey> =
                listed.filter_map(|k| dn.directory().get(k)).map(|e| e.upload_key).collect();
            if listed != truth {
                return Some(format!("node {ix} lists {listed:?} for {path}, but {truth:?} share it"));
            }
        }
    }
    None
}

/// Returns the downloader's newest usage record of a download in the ledger's database.
fn newest(env: &Net, download: DownloadId) -> Option<&UsageRecord> {
    let all = env.database.values().filter_map(LedgerRecord::usage);
    let all = all.filter(|r| r.download == download && r.side == Side::Downloader);
    all.max_by_key(|r| r.seq)
}

fn ledger_agrees(env: &Net, s: &DownloadStatus) -> bool {
    let Some(record) = s.download.and_then(|d| newest(env, d)) else { return false };
    let peers: u64 = record.peers.iter().map(|p| p.bytes).sum();
    let book: Book = env.database.values().filter(|r| r.download() == s.download).cloned().collect();
    let bill = book.bill(keys::verify, 0);
    let fair = bill.peers_billed <= bill.peers_agreed && bill.peers_agreed <= s.peer_bytes;
    fair && (record.state, record.edge_bytes, peers) == (UsageState::Completed, s.edge_bytes, s.peer_bytes)
}
