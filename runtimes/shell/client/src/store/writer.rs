//! The store's own thread. It takes all saves that were queued while it was busy, makes them durable with one sync
//! per data file and one commit, then answers all of them.

use super::change::Change;
use super::check::Damage;
use super::journal::Sources;
use super::output::put_output;
use super::version::{NotWhole, Version, lock};
use super::{Loss, Shared, records, room, store_error};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use swarmedge_core::content::Bitfield;
use swarmedge_core::ids::{Digest, PieceIndex, VersionId};
use swarmedge_core::role::client::io::{Save, StoreError};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::Notice;

/// Maximum number of queued jobs. The client machine has far fewer open; with more the disk does not respond.
const QUEUE_MAX: usize = 8192;

pub(super) type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A change to write, and the callback for its result.
pub(super) struct Job {
    pub(super) what: What,
    pub(super) done: Done,
}

impl Job {
    fn is_piece(&self) -> bool {
        matches!(&self.what, What::Save(save) if matches!(**save, Save::Piece { .. }))
    }
}

pub(super) enum What {
    Save(Box<Save>),
    /// A finished file is at the user's path: keep the version for sharing.
    Placed(VersionId),
    /// A data file is damaged. If the user has a hard link to the file, the store deletes its own link.
    Lost(Arc<Version>, Damage),
}

/// The queue of jobs for the store's thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    more: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    closed: bool,
    /// Number of the store's other threads that still run and may add jobs.
    threads: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    pub(super) fn push(&self, job: Job) {
        let mut state = lock(&self.state);
        if state.closed && state.threads == 0 || state.jobs.len() >= QUEUE_MAX {
            drop(state);
            (job.done)(Err(StoreError::Io));
            return;
        }
        state.jobs.push_back(job);
        self.more.notify_one();
    }

    /// Queues the removal of damaged pieces from the journal, which the store's thread does.
    pub(super) fn lose(&self, version: Arc<Version>, damage: Damage, done: impl FnOnce() + Send + 'static) {
        self.push(Job { what: What::Lost(version, damage), done: Box::new(|_| done()) });
    }

    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.more.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Counts a thread that begins (`more`) or ends; the store's thread waits for all of them before it ends.
    pub(super) fn count_thread(&self, more: bool) {
        let mut state = lock(&self.state);
        state.threads = if more { state.threads + 1 } else { state.threads - 1 };
        self.more.notify_one();
    }

    /// Takes all queued jobs without waiting.
    fn take_more(&self) -> Vec<Job> {
        lock(&self.state).jobs.drain(..).collect()
    }

    /// Waits for jobs and takes all of them. Returns an empty list at the time `until`, and `None` once the queue is
    /// closed and empty.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Job>> {
        let mut state = lock(&self.state);
        loop {
            if !state.jobs.is_empty() {
                return Some(state.jobs.drain(..).collect());
            }
            if state.closed && state.threads == 0 {
                return None;
            }
            state = match until.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Some(Vec::new()),
                Some(left) => self.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Runs the store's writer thread until the queue closes.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut synced_at = None;
    let mut shred_at = None;
    loop {
        if shared.journal.is_stale() {
            shred_at.get_or_insert_with(|| Instant::now() + shared.delays.shred);
        }
        let Some(jobs) = shared.queue.take(shred_at) else { break };
        if shred_at.is_some_and(|at| at <= Instant::now()) {
            shred(shared);
            shred_at = None;
        }
        if !jobs.is_empty() {
            write(shared, jobs, &mut synced_at);
        }
    }
    if shred_at.is_some() {
        shred(shared);
    }
}

/// Makes deleted journal records that named peers unreadable. After a failure the next call tries again.
fn shred(shared: &Shared) {
    if let Err(e) = shared.journal.shred() {
        tracing::warn!(error = %e, "what was deleted from the client's journal may still be readable in its file");
    }
}

fn write(shared: &Arc<Shared>, mut jobs: Vec<Job>, synced_at: &mut Option<Instant>) {
    if jobs.iter().all(Job::is_piece) {
        if let Some(early) = synced_at.and_then(|at: Instant| shared.delays.gather.checked_sub(at.elapsed())) {
            std::thread::sleep(early);
            jobs.extend(shared.queue.take_more());
        }
        *synced_at = Some(Instant::now());
    }
    let mut batch = Batch::default();
    let mut answers: Vec<(Done, Result<(), StoreError>)> = Vec::with_capacity(jobs.len());
    let (synced, damaged) = sync_pieces(shared, &jobs);
    for job in jobs {
        if let What::Save(save) = &job.what
            && let Save::Finish { handle, version } = **save
        {
            put_output(shared, handle, version, job.done);
            continue;
        }
        let taken = match job.what {
            What::Save(save) => batch.add(shared, *save, &synced),
            What::Placed(version) => {
                batch.add_placed(shared, version);
                Ok(())
            }
            What::Lost(version, damage) => {
                damage.still(&version).map_or(Ok(()), |damage| batch.add_lost(shared, &version, damage))
            }
        };
        answers.push((job.done, taken.map_err(|e| store_error(&e))));
    }
    for (version, damage) in damaged {
        if let Err(e) = batch.add_lost(shared, &version, damage) {
            tracing::warn!(file = %version.path().display(), error = %e, "a damaged data file cannot be deleted");
        }
    }
    let committed = batch.commit(shared);
    if let Err(e) = &committed {
        tracing::warn!(error = %e, "the client's journal cannot be written");
    }
    for (done, taken) in answers {
        done(taken.and(committed.as_ref().map(|_| ()).map_err(store_error)));
    }
}

type Sealed = BTreeMap<(VersionId, PieceIndex), Result<Vec<Digest>, io::ErrorKind>>;

/// Ends writing to every piece that is to be journalled, and syncs each of their data files once. A piece whose sync
/// fails is dropped. Also returns the data files that were found damaged.
fn sync_pieces(shared: &Shared, jobs: &[Job]) -> (Sealed, Vec<(Arc<Version>, Damage)>) {
    let (mut sealed, mut damaged) = (Sealed::new(), Vec::new());
    let mut files: BTreeMap<VersionId, (Arc<Version>, Vec<PieceIndex>)> = BTreeMap::new();
    for job in jobs {
        let What::Save(save) = &job.what else { continue };
        let Save::Piece { version: id, piece, .. } = &**save else { continue };
        let Some(version) = lock(&shared.versions).get(id).cloned() else { continue };
        match version.seal(*piece) {
            Ok(leaves) => {
                sealed.insert((*id, *piece), Ok(leaves));
                files.entry(*id).or_insert_with(|| (version, Vec::new())).1.push(*piece);
            }
            Err(NotWhole::Unverified) => {}
            Err(why @ (NotWhole::Damaged | NotWhole::Gone)) => {
                version.lost(*piece);
                sealed.insert((*id, *piece), Err(io::ErrorKind::InvalidData));
                let gone = matches!(why, NotWhole::Gone);
                damaged.push((version, if gone { Damage::Gone } else { Damage::Pieces(vec![*piece]) }));
            }
            Err(NotWhole::Io(e)) => {
                version.lost(*piece);
                sealed.insert((*id, *piece), Err(e.kind()));
            }
        }
    }
    for (id, (version, pieces)) in files {
        let Err(e) = version.sync() else { continue };
        tracing::warn!(file = %version.path().display(), error = %e, "a data file cannot be synced");
        for piece in pieces {
            version.lost(piece);
            sealed.insert((id, piece), Err(e.kind()));
        }
    }
    (sealed, damaged)
}

/// The journal changes of one commit, and what must be done after it.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    journalled: Vec<(VersionId, PieceIndex)>,
    dropped: Vec<VersionId>,
    /// The lost pieces of each version; an empty list means all pieces.
    lost: Vec<(Arc<Version>, Vec<PieceIndex>)>,
    /// The index before this batch, to restore it if the commit fails; `None` if the batch does not change it.
    undo: Option<super::KeepIndex>,
}

impl Batch {
    fn add_placed(&mut self, shared: &Shared, version: VersionId) {
        self.kept(shared, |kept| kept.cached.insert(version));
        let at_ms = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis());
        let at_ms = u64::try_from(at_ms).unwrap_or(u64::MAX);
        self.changes.push(Change::Cached { version, at_ms });
    }

    /// Removes damaged pieces of a version. All pieces are removed if the file is hard-linked, or if no unfinished
    /// download needs the version; the manifest stays if one does.
    fn add_lost(&mut self, shared: &Shared, version: &Arc<Version>, damage: Damage) -> io::Result<()> {
        let id = version.manifest.version();
        let known = lock(&shared.versions).get(&id).is_some_and(|v| Arc::ptr_eq(v, version));
        if !known || self.lost.iter().any(|(v, pieces)| Arc::ptr_eq(v, version) && pieces.is_empty()) {
            return Ok(());
        }
        self.kept(shared, |kept| kept.cached.remove(&id));
        self.changes.push(Change::Uncached(id));
        let keeps = lock(&shared.kept).keeps(id);
        if let (Damage::Pieces(pieces), true, false) = (damage, keeps, version.is_hard_linked()) {
            tracing::warn!(version = %id, ?pieces, "a data file is damaged: these pieces are fetched again");
            self.journalled.retain(|(v, piece)| *v != id || !pieces.contains(piece));
            self.changes.push(Change::DropPieces { version: id, pieces: pieces.clone() });
            self.lost.push((Arc::clone(version), pieces));
            return Ok(());
        }
        // the store's link is deleted first: bytes received later must never be written to the user's file
        shared.disk.remove(version.path())?;
        tracing::warn!(version = %id, "a data file was changed by somebody else: it is no longer shared");
        self.changes.push(Change::DropVersion(id));
        self.journalled.retain(|(v, _)| *v != id);
        if keeps {
            let bytes = version.manifest.to_bytes();
            self.changes.push(Change::Manifest { version: id, bytes });
        }
        self.lost.push((Arc::clone(version), Vec::new()));
        Ok(())
    }

    /// Adds a save to the batch of changes that is written next.
    fn add(&mut self, shared: &Shared, save: Save, synced: &Sealed) -> io::Result<()> {
        match save {
            Save::Piece { handle, version, piece, from } => {
                if let Some(leaves) = leaves_of(shared, synced, version, piece)? {
                    self.changes.push(Change::Piece { version, piece, handle, from, leaves });
                    self.journalled.push((version, piece));
                }
            }
            Save::Download(record) => {
                if records::encode_download(&record).is_none() {
                    return Err(io::ErrorKind::InvalidFilename.into());
                }
                let old = self.kept(shared, |kept| kept.downloads.insert(record.handle, record.clone()));
                let new = record.granted.as_ref().map(|g| (g.download, g.version));
                let (handle, no_room) = (record.handle, room::no_room(shared, &record));
                self.changes.push(Change::Download(record));
                if let Some(old) = old.and_then(|o| o.granted) {
                    if new.is_none_or(|(download, _)| download != old.download) {
                        self.changes.push(Change::DropKey(old.download));
                    }
                    if new.is_none_or(|(_, version)| version != old.version) {
                        self.release(shared, old.version);
                    }
                }
                if let Some(why) = no_room {
                    shared.no_room.tell((handle, why));
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            Save::Forget { handle } => {
                let old = self.kept(shared, |kept| kept.downloads.remove(&handle));
                self.changes.push(Change::DropDownload(handle));
                if let Some(granted) = old.and_then(|d| d.granted) {
                    self.changes.push(Change::DropKey(granted.download));
                    self.release(shared, granted.version);
                }
            }
            Save::Uncache { version } => {
                self.kept(shared, |kept| kept.cached.remove(&version));
                self.changes.push(Change::Uncached(version));
                self.release(shared, version);
            }
            Save::Receipt(kept) => self.changes.push(Change::Receipt(kept)),
            Save::Usage(record) => self.changes.push(Change::Usage(record)),
            Save::Notice(notice) => self.notice(shared, notice),
            Save::Owner(guid) => self.changes.push(Change::Owner(guid)),
            Save::Checkpoint(newest) => self.changes.push(Change::Checkpoint(newest)),
            Save::UsageDone(ids) => self.changes.push(Change::DropUsage(ids)),
            Save::Uploads(on) => self.changes.push(Change::Uploads(on)),
            Save::Copy { version, terms } => {
                if lock(&shared.kept).keeps(version) {
                    self.changes.push(Change::Terms { version, terms });
                }
            }
            Save::Room { handle } => room::check(shared, handle)?,
            // handled before, in a thread of its own
            Save::Finish { .. } => {}
        }
        Ok(())
    }

    fn kept<T>(&mut self, shared: &Shared, change: impl FnOnce(&mut super::KeepIndex) -> T) -> T {
        let mut kept = lock(&shared.kept);
        self.undo
            .get_or_insert_with(|| super::KeepIndex { downloads: kept.downloads.clone(), cached: kept.cached.clone() });
        change(&mut kept)
    }

    /// Replaces the newest notice about a version, and with it the version's policy, if the version is kept.
    fn notice(&mut self, shared: &Shared, notice: Notice) {
        let version = notice.subject.as_version().filter(|version| lock(&shared.kept).keeps(*version));
        self.changes.extend(version.map(|version| Change::Notice(version, notice)));
    }

    /// Deletes a version that no download and no cache entry needs.
    fn release(&mut self, shared: &Shared, version: VersionId) {
        if !lock(&shared.kept).keeps(version) {
            self.changes.extend([Change::DropVersion(version), Change::DropNotice(version)]);
            self.journalled.retain(|(v, _)| *v != version);
            self.dropped.push(version);
        }
    }

    fn commit(self, shared: &Shared) -> io::Result<()> {
        let version = |id| lock(&shared.versions).get(id).cloned();
        if !self.changes.is_empty()
            && let Err(e) = shared.journal.commit(&self.changes)
        {
            if let Some(kept) = self.undo {
                *lock(&shared.kept) = kept;
            }
            return Err(e);
        }
        for (id, piece) in &self.journalled {
            if let Some(v) = version(id) {
                v.done(*piece);
            }
        }
        for (old, pieces) in &self.lost {
            shared.lost.tell(lose(shared, old, pieces));
        }
        for id in self.dropped.iter().collect::<BTreeSet<_>>() {
            let Some(v) = lock(&shared.versions).remove(id) else { continue };
            // a file that remains is deleted when the store is opened
            if let Err(e) = shared.disk.remove(v.path()) {
                tracing::warn!(file = %v.path().display(), error = %e, "a data file cannot be deleted");
            }
        }
        Ok(())
    }
}

/// Removes lost pieces from memory after the commit, and returns the report of them; an empty list means all pieces.
fn lose(shared: &Shared, old: &Arc<Version>, pieces: &[PieceIndex]) -> Loss {
    let version = old.manifest.version();
    if !pieces.is_empty() {
        old.forget(pieces);
        let left = old.have().clone();
        // if the sources cannot be read, the bytes of the remaining pieces are counted for no source
        let sources = shared.journal.sources(version).unwrap_or_default();
        return Loss { version, left, sources };
    }
    let mut versions = lock(&shared.versions);
    versions.remove(&version);
    if lock(&shared.kept).keeps(version) {
        versions.insert(version, Arc::new(shared.new_version(&old.manifest, None, false)));
    }
    Loss { version, left: Bitfield::empty(0), sources: Sources::new() }
}

/// Returns the leaf hashes of a synced piece; `None` if the piece is journalled already.
fn leaves_of(shared: &Shared, synced: &Sealed, version: VersionId, piece: PieceIndex) -> io::Result<Option<Vec<u8>>> {
    match synced.get(&(version, piece)) {
        Some(Ok(leaves)) => Ok(Some(leaves.iter().flat_map(|d| d.0).collect())),
        Some(Err(kind)) => Err((*kind).into()),
        None => {
            let known = lock(&shared.versions).get(&version).cloned();
            if known.is_some_and(|v| v.have().contains(piece)) {
                return Ok(None);
            }
            tracing::warn!(%version, %piece, "a piece was to be journalled before all of it was verified");
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}
