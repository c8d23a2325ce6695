//! Disks: a client's store, the spools of edges and CNs, the ledger's database. A write is durable when its completion
//! arrives; a crash before that loses it. A disk may lose a client's pieces while the client is down: the store detects
//! the loss before it serves or places them.

use super::machines::In;
use super::posting::at_once;
use super::{Cfg, Event, Mutant, Net};
use crate::scenario::Role;
use crate::world::{Lane, NodeIx, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::logs::head_alone;
use swarmedge_core::content::Bitfield;
use swarmedge_core::ids::{Guid, Handle, IntroId, PieceIndex, RecordId, ReqId, VersionId};
use swarmedge_core::role::client::KeptServers;
use swarmedge_core::role::client::io::{
    CopyTerms, DownloadRecord, DownloadState, Input, KeptReceipt, Save, SourceName, StoreError,
};
use swarmedge_core::role::edge::io as edge;
use swarmedge_core::role::{cn, ledger};
use swarmedge_core::wire::notice::{Notice, Subject};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent, LogRecord, SignedCheckpoint, UsageRecord};

/// Contents of a client's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Download records by handle.
    pub downloads: BTreeMap<Handle, DownloadRecord>,
    /// Journalled pieces, each with its sources and the bytes from each.
    pub pieces: BTreeMap<VersionId, BTreeMap<PieceIndex, Vec<(SourceName, u32)>>>,
    /// Download that each journalled piece was fetched for.
    pub fetched_for: BTreeMap<(VersionId, PieceIndex), Handle>,
    /// Journalled pieces whose bytes the disk has lost.
    pub forgotten: BTreeSet<(VersionId, PieceIndex)>,
    /// Versions whose bytes have rotted, unnoticed until they are hashed again.
    pub rotten: BTreeSet<VersionId>,
    /// Usage records that the ledger has not acknowledged.
    pub usage: BTreeMap<RecordId, UsageRecord>,
    /// Receipts not yet contained in a usage record.
    pub receipts: BTreeMap<IntroId, KeptReceipt>,
    /// Versions placed at the user's destination.
    pub finished: BTreeSet<VersionId>,
    /// Terms of sharing of each version.
    pub terms: BTreeMap<VersionId, CopyTerms>,
    /// Numbers of servers in the last bootstrap.
    pub servers: Option<KeptServers>,
    /// Newest notice about each subject.
    pub notices: BTreeMap<Subject, Notice>,
    /// Newest checkpoint of the client's logs.
    pub checkpoint: Option<Box<SignedCheckpoint>>,
    /// GUID that the stored usage records belong to; `None` if never set.
    pub owner: Option<Guid>,
    /// Whether the client's next key is stored beside the current one.
    pub new_key: bool,
    /// Number of times that the client's key was replaced.
    pub generation: u8,
    /// The user's choice whether to upload; `None` if never made.
    pub uploads: Option<bool>,
}

impl Disk {
    /// Returns whether a piece is journalled.
    #[must_use]
    pub fn has(&self, version: VersionId, piece: PieceIndex) -> bool {
        self.pieces.get(&version).is_some_and(|p| p.contains_key(&piece))
    }

    /// Returns whether a download that is not complete needs a version.
    fn wants(&self, version: VersionId) -> bool {
        let unfinished = |d: &&DownloadRecord| d.state != DownloadState::Completed;
        self.downloads.values().filter(unfinished).any(|d| d.granted.as_ref().is_some_and(|g| g.version == version))
    }

    /// Removes a version's pieces that the disk has lost, or the whole version if no download needs it.
    fn lose(&mut self, version: VersionId) {
        self.finished.remove(&version);
        let forgotten = core::mem::take(&mut self.forgotten);
        let (of_it, others) = forgotten.into_iter().partition(|(v, _)| *v == version);
        self.forgotten = others;
        let of_it: BTreeSet<_> = of_it;
        if let Some(pieces) = self.pieces.get_mut(&version) {
            pieces.retain(|piece, _| !of_it.contains(&(version, *piece)));
        }
        if !self.wants(version) {
            self.pieces.remove(&version);
        }
    }

    fn apply(&mut self, what: Save) {
        self.change(what);
        let pieces = &self.pieces;
        self.forgotten.retain(|(version, piece)| pieces.get(version).is_some_and(|p| p.contains_key(piece)));
    }

    /// Changes the simulated disk as the client's store would.
    fn change(&mut self, what: Save) {
        match what {
            Save::Download(record) => {
                if let Some(granted) = &record.granted {
                    let fresh = || CopyTerms { policy: granted.policy.clone(), spent: 0, ticket: None };
                    let terms = self.terms.entry(granted.version).or_insert_with(fresh);
                    terms.policy = granted.policy.clone();
                    terms.ticket = granted.ticket.clone().or_else(|| terms.ticket.take());
                }
                self.downloads.insert(record.handle, record);
            }
            Save::Piece { handle, version, piece, from } => {
                self.pieces.entry(version).or_default().insert(piece, from);
                self.fetched_for.insert((version, piece), handle);
            }
            Save::Finish { handle: _, version } => {
                self.finished.insert(version);
            }
            Save::Forget { handle } => {
                let gone = self.downloads.remove(&handle).and_then(|d| d.granted).map(|g| g.version);
                let wanted = |v: &VersionId| {
                    self.downloads.values().any(|d| d.granted.as_ref().is_some_and(|g| g.version == *v))
                        || self.finished.contains(v)
                };
                if let Some(version) = gone.filter(|v| !wanted(v)) {
                    self.pieces.remove(&version);
                }
            }
            Save::Uncache { version } => {
                self.pieces.remove(&version);
                self.finished.remove(&version);
            }
            Save::Receipt(kept) => {
                self.receipts.insert(kept.peer.intro, kept);
            }
            Save::Usage(record) => {
                self.receipts.retain(|_, kept| !kept.is_in(&record));
                self.usage.insert(record.id, record);
            }
            Save::UsageDone(ids) => ids.iter().for_each(|id| {
                self.usage.remove(id);
            }),
            Save::Notice(notice) => {
                self.notices.insert(notice.subject, notice);
            }
            Save::Checkpoint(newest) => self.checkpoint = Some(newest),
            Save::Owner(guid) => {
                if self.owner.replace(guid).is_some_and(|before| before != guid) {
                    self.usage.clear();
                    self.receipts.clear();
                    self.checkpoint = None;
                }
            }
            Save::Uploads(on) => self.uploads = Some(on),
            Save::Copy { version, terms } => {
                self.terms.insert(version, terms);
            }
            Save::Room { .. } => {}
        }
    }
}

/// Contents of the disk of an edge or a CN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spool {
    /// Records that the ledger has not acknowledged.
    pub records: BTreeMap<RecordId, LedgerRecord>,
    /// Byte counts of an edge, per download and version.
    pub counts: Vec<edge::Count>,
}

impl Spool {
    /// Applies a batch of records, counts and acknowledgements.
    pub fn apply(&mut self, batch: edge::Batch) {
        for record in batch.records {
            self.records.insert(record.id(), record);
        }
        for count in batch.counts {
            let same = |c: &edge::Count| {
                c.grant.map(|g| g.download) == count.grant.map(|g| g.download) && c.version == count.version
            };
            self.counts.retain(|c| !same(c));
            self.counts.push(count);
        }
        for id in batch.acked {
            self.records.remove(&id);
        }
        self.counts.retain(|c| c.grant.is_none_or(|g| !batch.ended.contains(&g.download)));
    }
}

pub(super) type Sources = BTreeMap<Handle, BTreeMap<SourceName, u64>>;

/// Returns the pieces of a version that a disk holds, and the bytes of each source for each of the version's
/// downloads.
pub(super) fn left(w: &World<Net>, disk: &Disk, version: VersionId) -> (Bitfield, Sources) {
    let layout = w.env.objects.values().find(|o| o.version == version).map(|o| o.layout);
    let pieces = || disk.pieces.get(&version).into_iter().flatten();
    let mut have = Bitfield::empty(layout.map_or(0, |l| l.pieces()));
    let mut sums = Sources::new();
    for (piece, from) in pieces() {
        have.insert(*piece);
        let Some(handle) = disk.fetched_for.get(&(version, *piece)) else { continue };
        let sums = sums.entry(*handle).or_default();
        from.iter().for_each(|(name, bytes)| *sums.entry(*name).or_default() += u64::from(*bytes));
    }
    // a download that has found pieces in the cache was sent none of their bytes
    let of_it = disk.downloads.values().filter(|d| d.granted.as_ref().is_some_and(|g| g.version == version));
    (have, of_it.map(|d| (d.handle, sums.remove(&d.handle).unwrap_or_default())).collect())
}

fn lane(node: NodeIx) -> Lane {
    Lane { to: node, what: "disk", id: 0 }
}

/// Starts a write of a client.
pub(super) fn save(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, req: ReqId, what: Save) {
    w.send(lane(node), cfg.disk, Event::Save(req, what));
}

/// Starts a write of an edge or a CN.
pub(super) fn spool(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, req: ReqId, batch: edge::Batch) {
    w.send(lane(node), cfg.disk, Event::Spool(req, batch));
}

/// Starts a write of the ledger.
pub(super) fn store(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, req: ReqId, records: Vec<LedgerRecord>) {
    w.send(lane(node), cfg.disk, Event::Store(req, records));
}

/// Returns whether the disk still holds a piece (or, if `None`, every journalled piece of the version) before it is
/// served or placed. If not, the lost pieces leave the journal, and the client is told.
pub(super) fn looks(
    w: &mut World<Net>,
    cfg: &Cfg,
    node: NodeIx,
    version: VersionId,
    piece: Option<PieceIndex>,
) -> bool {
    let disk = w.env.disks.entry(node).or_default();
    let asked = |f: &&(VersionId, PieceIndex)| f.0 == version && piece.is_none_or(|piece| piece == f.1);
    if disk.forgotten.iter().find(asked).is_none() {
        return true;
    }
    if cfg.mutant == Some(Mutant::JournalIsBelieved) {
        w.env.seen.believed = true;
        return true;
    }
    disk.lose(version);
    write_early(w, node, version);
    let disk = w.env.disks.entry(node).or_default().clone();
    w.env.seen.commits.retain(|&(n, v, piece), _| n != node || disk.has(v, piece));
    let (left, sources) = left(w, &disk, version);
    at_once(w, node, In::Client(Input::VersionLost { version, left, sources }));
    false
}

/// Completes the writes of a version's pieces that were asked for before: the store makes all that is in its queue
/// durable before it reports lost pieces.
fn write_early(w: &mut World<Net>, node: NodeIx, version: VersionId) {
    let of_node = w.under_way().filter(|(l, _)| *l == lane(node));
    let pieces = of_node.filter_map(|(_, event)| {
        let Event::Save(_, what @ Save::Piece { version: of, piece, .. }) = event else { return None };
        (*of == version).then(|| (*piece, what.clone()))
    });
    for (piece, what) in pieces.collect::<Vec<_>>() {
        if w.env.written_early.insert((node, version, piece)) {
            w.env.seen.committed(node, version, piece);
            w.env.disks.entry(node).or_default().apply(what);
        }
    }
}

impl Net {
    /// Returns whether a node sends wrong blocks of a version: on purpose, or since its copy has rotted.
    pub(super) fn corrupts(&self, node: NodeIx, version: VersionId) -> bool {
        let is_rotten = self.disks.get(&node).is_some_and(|disk| disk.rotten.contains(&version));
        is_rotten || self.options.get(&node).is_some_and(|o| o.corrupts)
    }
}

/// Hashes a version's journalled pieces again; returns whether all are right. If not, the client is told first.
pub(super) fn check_copy(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, version: VersionId) -> bool {
    let disk = w.env.disks.entry(node).or_default();
    if disk.rotten.remove(&version) {
        let pieces = disk.pieces.get(&version).into_iter().flat_map(BTreeMap::keys);
        disk.forgotten.extend(pieces.map(|piece| (version, *piece)));
    }
    looks(w, cfg, node, version, None)
}

/// Completes a client's write, which is now durable.
pub(super) fn saved(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, req: ReqId, what: Save) -> Option<In> {
    if let Save::Forget { handle } = &what {
        // the client has forgotten it, whether its disk does or not
        w.env.status.remove(&(node, *handle));
    }
    if w.env.write_fails.remove(&node) {
        return Some(In::Client(Input::Saved { req, result: Err(StoreError::Io) }));
    }
    if let Save::Finish { version, .. } = what
        && !looks(w, cfg, node, version, None)
    {
        at_once(w, node, In::Client(Input::Saved { req, result: Err(StoreError::Io) }));
        return None;
    }
    if let Save::Piece { version, piece, .. } = &what
        && !w.env.written_early.remove(&(node, *version, *piece))
    {
        w.env.seen.committed(node, *version, *piece);
    }
    let lost = cfg.mutant == Some(Mutant::SavesAreLost) && matches!(what, Save::Usage(_));
    if !lost {
        let disk = w.env.disks.entry(node).or_default();
        disk.apply(what);
        // deleted pieces may be committed again
        w.env.seen.commits.retain(|&(n, version, piece), _| n != node || disk.has(version, piece));
    }
    Some(In::Client(Input::Saved { req, result: Ok(()) }))
}

/// Completes a write to the spool of an edge or a CN; the disk of a CN may refuse it.
pub(super) fn spooled(
    w: &mut World<Net>,
    cfg: &Cfg,
    node: NodeIx,
    (req, mut batch): (ReqId, edge::Batch),
    way: Way,
) -> In {
    let refused = w.env.refusing.contains(&node) || w.env.write_fails.remove(&node);
    let (ok, of_cn) = (way == Way::Whole && !refused, cfg.role(node) == Role::Cn);
    if of_cn && cfg.mutant == Some(Mutant::SpoolLosesOffers) {
        batch.records.clear();
    }
    if refused {
        // the disk refuses it by itself: no fault of the budget is used up
    } else if ok {
        w.env.spools.entry(node).or_default().apply(batch);
    } else {
        w.budget.drops = w.budget.drops.saturating_sub(1);
    }
    if of_cn { In::Cn(cn::Input::Saved { req, ok }) } else { In::Edge(edge::Input::Saved { req, ok }) }
}

/// Returns the introductions recorded in a CN's offer; empty for other records.
pub(super) fn offered(record: &LedgerRecord) -> Vec<IntroId> {
    match record {
        LedgerRecord::Log(LogRecord { event: LogEvent::Offered(o), .. }) => o.peers.iter().map(|p| p.intro).collect(),
        LedgerRecord::Log(_)
        | LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_) => Vec::new(),
    }
}

/// Completes a write to the ledger's database, or refuses it. The first record of each id is stored, and the log
/// heads of all.
pub(super) fn stored(
    w: &mut World<Net>,
    cfg: &Cfg,
    node: NodeIx,
    (req, records): (ReqId, Vec<LedgerRecord>),
    way: Way,
) -> In {
    if w.env.write_fails.remove(&node) {
        return In::Ledger(ledger::Input::Stored { req, ok: false });
    }
    let ok = way == Way::Whole;
    if !ok {
        w.budget.drops = w.budget.drops.saturating_sub(1);
    } else if cfg.mutant != Some(Mutant::LedgerLosesBatches) {
        for record in records {
            let known = w.env.database.get(&record.id());
            let record = match (record, known) {
                (LedgerRecord::Usage(new), Some(LedgerRecord::Usage(known))) if known.head != new.head => {
                    LedgerRecord::Log(head_alone(&new, 0))
                }
                (record, _) => record,
            };
            w.env.database.entry(record.id()).or_insert(record);
        }
    }
    In::Ledger(ledger::Input::Stored { req, ok })
}
