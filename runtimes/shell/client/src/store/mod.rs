//! The client's store: data files with pieces, and the journal of those pieces that are verified and durable.
//!
//! The rule: **a journal bit implies durable, verified data**. A piece is journalled only after every block of it has
//! matched its leaf hash, the leaf hashes have matched the piece root in the manifest, and the data file was synced.
//! A piece for which any of this fails is not journalled. So a crash at any write loses only pieces that were not
//! journalled.
//!
//! A finished file becomes the user's as a *hard link*: a second name of the data file. See [`output`].
//!
//! The state directory contains `client.lock`, `state.redb` (the journal), `veil.<number>.key` (see `journal_key.rs`)
//! and `pieces/<version>` (data files, sparse, of full size).
//!
//! A journalled piece was verified once. It is hashed again before it is served or placed if another program could
//! have written to its file since: see `version/trust.rs`.

mod buffers;
mod change;
mod check;
mod journal;
mod journal_key;
mod lock;
mod modes;
mod output;
mod records;
mod restore;
mod room;
mod sink;
mod threads;
mod version;
mod writer;

pub use buffers::JOB_LEN;
pub use modes::Modes;
pub use output::temporary_name;
pub use sink::{SINK_BYTES_MAX, Sink};
pub use swarmedge_ground::disk::Kind;
pub use swarmedge_ground::disk::{follow, make_private};

#[cfg(test)]
mod books_tests;
#[cfg(test)]
pub(crate) mod crash_tests;
#[cfg(test)]
mod forget_tests;
#[cfg(test)]
mod journal_key_tests;
#[cfg(test)]
mod output_tests;
#[cfg(test)]
mod tests;

use buffers::Buffers;
use bytes::Bytes;
use change::Change;
use check::Failure;
use journal::{Journal, Sources};
use lock::{DirLock, LockError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use swarmedge_core::content::{Bitfield, Layout, Manifest};
use swarmedge_core::ids::{Digest, DownloadId, Guid, Handle, PieceIndex, VersionId};
use swarmedge_core::role::client::io::{
    CopyTerms, DownloadRecord, DownloadState, KeptReceipt, ObjectRef, Save, StoreError,
};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::Notice;
use swarmedge_core::wire::records::{SignedCheckpoint, UsageRecord};
use swarmedge_ground::disk::{Disk, OsDisk};
use swarmedge_ground::keys::Key;
use version::{Version, lock};

/// The delays of the store's writer thread.
#[derive(Clone, Copy, Debug)]
struct Delays {
    /// Minimum time between two syncs of data files. Pieces saved meanwhile share one sync, which costs no more for
    /// many pieces.
    gather: Duration,
    /// Maximum time until deleted records that named peers are made unreadable (see `journal_key.rs`). Closing the
    /// store does so at once.
    shred: Duration,
}

const DELAYS: Delays = Delays { gather: Duration::from_millis(20), shred: Duration::from_mins(1) };

/// The reason why a state directory could not be opened. Its text says what to do.
#[derive(Debug)]
pub enum Error {
    /// Another client uses the state directory.
    InUse {
        /// The path of the state directory.
        dir: PathBuf,
        /// The process id of the other client, if known.
        pid: Option<u32>,
    },
    /// The journal is damaged, or was not written by this program.
    Unreadable {
        /// The path of the journal's file.
        file: PathBuf,
        /// The defect found in the journal.
        why: String,
    },
    /// The file system refused an operation.
    Io {
        /// The path of the file or directory that failed.
        path: PathBuf,
        /// The file system's error.
        error: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { dir, pid: Some(pid) } => {
                write!(f, "state directory {} is in use by the client with process id {pid}", dir.display())
            }
            Self::InUse { dir, pid: None } => write!(f, "state directory {} is in use", dir.display()),
            Self::Unreadable { file, why } => write!(
                f,
                "{} is not a readable client state ({why}): move it away to start afresh; finished files stay, what \
                 unfinished downloads have is fetched again",
                file.display()
            ),
            Self::Io { path, error } => write!(f, "cannot use {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {}

/// Contents of an opened store from earlier starts of the client.
#[derive(Debug, Default)]
pub struct Restored {
    /// Downloads, each with its journalled pieces; a bitfield of length 0 if the manifest is not known yet.
    pub downloads: Vec<(DownloadRecord, Bitfield)>,
    /// Bytes of journalled pieces by source, for each download that fetched them.
    pub sources: Sources,
    /// Usage records that the ledger has not acknowledged.
    pub usage: Vec<UsageRecord>,
    /// Receipts that are not part of any stored usage record.
    pub receipts: Vec<KeptReceipt>,
    /// Versions kept for sharing, with layout and journalled pieces.
    pub cached: Vec<(VersionId, Layout, Bitfield)>,
    /// The conditions on which each stored version may be shared.
    pub terms: BTreeMap<VersionId, CopyTerms>,
    /// The newest notices about versions that are kept.
    pub notices: Vec<Notice>,
    /// The newest checkpoint of the client's usage logs, if any.
    pub checkpoint: Option<Box<SignedCheckpoint>>,
    /// The GUID of the installation that owns the records, if any.
    pub owner: Option<Guid>,
    /// Whether the user allows uploads, if ever chosen.
    pub uploads: Option<bool>,
    /// Stored explanations of downloads' peers, or of their absence.
    pub why: Vec<(Handle, Vec<u8>)>,
}

/// The client's store. Clones share it; dropping the last one completes all saves and unlocks the directory.
#[derive(Clone, Debug)]
pub struct Store(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// The state shared by the store's threads.
#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    pieces_dir: PathBuf,
    journal: Journal,
    versions: Mutex<BTreeMap<VersionId, Arc<Version>>>,
    kept: Mutex<KeepIndex>,
    queue: Arc<writer::Queue>,
    /// Whether a finished file may be a hard link to its data file instead of a copy.
    links: AtomicBool,
    modes: Modes,
    lost: Callback<Loss>,
    not_placed: Callback<(Handle, String)>,
    no_room: Callback<(Handle, String)>,
    buffers: Buffers,
    delays: Delays,
    _lock: Option<DirLock>,
}

impl Shared {
    fn new_version(&self, manifest: &Arc<Manifest>, have: Option<Bitfield>, hard_linked: bool) -> Version {
        let have = have.unwrap_or_else(|| Bitfield::empty(manifest.layout().pieces()));
        Version::new(Arc::clone(&self.disk), &self.pieces_dir, Arc::clone(manifest), have, hard_linked)
    }
}

/// A function that hashes the file at a path and returns whether it is a known version of the object. Blocks the
/// thread.
pub type PutThere = Arc<dyn Fn(&ObjectRef, &Path) -> io::Result<bool> + Send + Sync>;

/// Pieces that were found damaged and are no longer stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The id of the damaged version.
    pub version: VersionId,
    /// The pieces of the version that are still stored; a bitfield of length 0 if the version is gone.
    pub left: Bitfield,
    /// Bytes of the remaining pieces by source, for each download that fetched them.
    pub sources: Sources,
}

/// A callback that is set once and called for each event.
struct Callback<T>(OnceLock<Box<dyn Fn(T) + Send + Sync>>);

impl<T> Callback<T> {
    fn set(&self, tell: impl Fn(T) + Send + Sync + 'static) {
        drop(self.0.set(Box::new(tell)));
    }

    fn tell(&self, what: T) {
        if let Some(tell) = self.0.get() {
            tell(what);
        }
    }
}

impl<T> Default for Callback<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// The downloads and cached versions, by which the store decides which versions to keep. Updated with the journal.
#[derive(Debug, Default)]
struct KeepIndex {
    downloads: BTreeMap<Handle, DownloadRecord>,
    cached: BTreeSet<VersionId>,
}

impl KeepIndex {
    /// Returns whether a download or the cache needs a version.
    fn keeps(&self, version: VersionId) -> bool {
        self.cached.contains(&version)
            || self.downloads.values().any(|d| {
                d.state != DownloadState::Completed && d.granted.as_ref().is_some_and(|g| g.version == version)
            })
    }
}

/// Returns the [`StoreError`] class of an I/O error.
fn store_error(e: &io::Error) -> StoreError {
    if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        StoreError::NoSpace
    } else {
        StoreError::Io
    }
}

/// Name of the journal's file in the state directory.
pub const JOURNAL: &str = "state.redb";
/// Name of the directory of data files in the state directory.
const PIECES: &str = "pieces";

/// Returns the path of a version's data file in a state directory. Its bytes are verified once a download of the
/// version is complete.
#[must_use]
pub fn data_file(state: &Path, version: &str) -> PathBuf {
    state.join(PIECES).join(version)
}

impl Store {
    /// Opens a state directory, created if absent, and locks it.
    pub fn open(dir: &Path) -> Result<(Self, Restored), Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| Error::Io { path, error }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let lock_path = dir.join("client.lock");
        let lock = DirLock::take(&lock_path).map_err(|e| match e {
            LockError::Held(pid) => Error::InUse { dir: dir.to_owned(), pid },
            LockError::Io(error) => Error::Io { path: lock_path, error },
        })?;
        Self::open_on(Arc::new(OsDisk), dir, DELAYS, Some(lock))
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        delays: Delays,
        lock: Option<DirLock>,
    ) -> Result<(Self, Restored), Error> {
        let file = dir.join(JOURNAL);
        let (journal, loaded) = Journal::open(Arc::clone(&disk), &file).map_err(|e| {
            // errors of the operating system have a number; those of redb and this store about the content have none
            match e.raw_os_error() {
                Some(_) => Error::Io { path: file, error: e },
                None => Error::Unreadable { file, why: e.to_string() },
            }
        })?;
        let pieces_dir = dir.join(PIECES);
        let names = disk.list(&pieces_dir).and_then(|names| disk.sync_dir(dir).map(|()| names));
        let names = names.map_err(|error| Error::Io { path: pieces_dir.clone(), error })?;
        let (shared, restored) = restore::restore(restore::Found { disk, pieces_dir, journal, loaded, names, lock })?;
        let shared = Arc::new(Shared { delays, ..shared });
        let thread = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer::run(&thread))
            .map_err(|error| Error::Io { path: dir.to_owned(), error })?;
        Ok((Self(Arc::new(Owner { shared, writer: Some(writer) })), restored))
    }

    /// Queues a save for the store's thread, which makes it durable. `done` is called on that thread exactly once, in
    /// the order of the saves; if the queue is full, it is called at once with [`StoreError::Io`].
    pub fn save(&self, save: Save, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.0.shared.queue.push(writer::Job { what: writer::What::Save(Box::new(save)), done: Box::new(done) });
    }

    /// Adds a manifest. It becomes durable with the next `save`, hence not later than any record that depends on it.
    pub fn put_manifest(&self, manifest: Manifest) -> Arc<Manifest> {
        let shared = &self.0.shared;
        let id = manifest.version();
        if let Some(known) = self.manifest(id) {
            return known;
        }
        shared.journal.later(Change::Manifest { version: id, bytes: manifest.to_bytes() });
        let manifest = Arc::new(manifest);
        let new = || Arc::new(shared.new_version(&manifest, None, false));
        let version = Arc::clone(lock(&shared.versions).entry(id).or_insert_with(new));
        Arc::clone(&version.manifest)
    }

    /// Returns the manifest of a version; `None` if the store does not have it.
    #[must_use]
    pub fn manifest(&self, version: VersionId) -> Option<Arc<Manifest>> {
        self.version(version).map(|v| Arc::clone(&v.manifest))
    }

    /// Returns the journalled pieces of a version; `None` if the store does not know it.
    #[must_use]
    pub fn have(&self, version: VersionId) -> Option<Bitfield> {
        self.version(version).map(|v| v.have().clone())
    }

    /// Returns the versions kept for sharing, each with its journalled pieces.
    #[must_use]
    pub fn cached(&self) -> Vec<(Arc<Manifest>, Bitfield)> {
        let cached = lock(&self.0.shared.kept).cached.clone();
        let versions = cached.into_iter().filter_map(|id| self.version(id));
        versions.map(|v| (Arc::clone(&v.manifest), v.have().clone())).collect()
    }

    /// Adds the text that explains a download's peers, or their absence. The text becomes durable with the next `save`,
    /// is deleted with the download, and must not name a peer.
    pub fn put_why(&self, handle: Handle, text: Vec<u8>) {
        self.0.shared.journal.later(Change::Why { handle, text });
    }

    /// Adds the private key K_d of a download, which becomes durable with the next `save`.
    pub fn put_key(&self, download: DownloadId, key: &Key) {
        self.0.shared.journal.later(Change::Key { download, bytes: key.to_seed().to_vec() });
    }

    /// Returns the private key K_d of a download, if stored.
    pub fn key(&self, download: DownloadId) -> Result<Option<Key>, StoreError> {
        let bytes = self.0.shared.journal.key(download).map_err(|e| store_error(&e))?;
        Ok(bytes.and_then(|b| b.try_into().ok()).map(Key::from_seed))
    }

    /// Reads blocks of a journalled piece. Damaged blocks are never returned, but reported to [`Store::on_lost`].
    /// Blocks the thread: call it on the blocking pool.
    pub fn read_blocks(&self, id: VersionId, piece: PieceIndex, blocks: Range<u32>) -> Result<Bytes, StoreError> {
        let shared = &self.0.shared;
        let version = self.version(id).ok_or(StoreError::Io)?;
        #[cfg(feature = "lies")]
        if let Some(data) = version.beside("instead", piece, blocks.clone()) {
            return Ok(data.into());
        }
        match check::read(shared, &version, piece, blocks) {
            Ok(data) => Ok(shared.buffers.lend(data)),
            Err(Failure::Damaged(damage)) => {
                shared.queue.lose(version, damage, || ());
                Err(StoreError::Io)
            }
            Err(Failure::Io(e)) => Err(store_error(&e)),
            Err(Failure::Taken) => Err(StoreError::Taken),
        }
    }

    /// Starts a check, on a thread of its own, of those pieces of a version that an earlier start has journalled.
    pub fn check_soon(&self, id: VersionId) {
        if let Some(version) = self.version(id) {
            check::check_soon(&self.0.shared, &version);
        }
    }

    /// Hashes every journalled piece of a version again, on a thread of its own, and passes to `done` whether all are
    /// right; false too if the version is unknown or cannot be read. Damage is reported to [`Store::on_lost`] first.
    pub fn check_copy(&self, id: VersionId, done: impl FnOnce(bool) + Send + 'static) {
        match self.version(id) {
            Some(version) => check::check_all(&self.0.shared, &version, done),
            None => done(false),
        }
    }

    /// Returns the function that checks whether a file is a known version of an object. It does not keep the store
    /// open.
    #[must_use]
    pub fn put_there(&self) -> PutThere {
        let shared = Arc::downgrade(&self.0.shared);
        Arc::new(move |object, place| {
            let shared = shared.upgrade().ok_or(io::ErrorKind::Interrupted)?;
            Ok(check::version_at(&shared, object, place)?.is_some())
        })
    }

    /// Sets the callback, once, for pieces lost since another program has changed their file. It runs on the store's
    /// thread, before any save that fails for this reason is answered.
    pub fn on_lost(&self, tell: impl Fn(Loss) + Send + Sync + 'static) {
        self.0.shared.lost.set(tell);
    }

    /// Sets the callback, once, for a finished file that cannot be put at the user's path; it gets the reason, before
    /// the save is answered.
    pub fn on_not_placed(&self, tell: impl Fn((Handle, String)) + Send + Sync + 'static) {
        self.0.shared.not_placed.set(tell);
    }

    /// Sets the callback, once, for a download that is refused because a disk has no room for it; it gets the reason,
    /// before the save is answered.
    pub fn on_no_room(&self, tell: impl Fn((Handle, String)) + Send + Sync + 'static) {
        self.0.shared.no_room.set(tell);
    }

    /// Returns the permission bits for new files.
    #[must_use]
    pub fn modes(&self) -> Modes {
        self.0.shared.modes.clone()
    }

    /// Sets whether finished files share their bytes with the store's where the file system can (the default), or are
    /// copies.
    pub fn set_links(&self, on: bool) {
        self.0.shared.links.store(on, Ordering::Relaxed);
    }

    /// Returns the leaf hashes of a journalled piece. Blocks the thread: call it on the blocking pool.
    pub fn leaves(&self, version: VersionId, piece: PieceIndex) -> Result<Vec<Digest>, StoreError> {
        let leaves = self.0.shared.journal.leaves(version, piece).map_err(|e| store_error(&e))?;
        leaves.ok_or(StoreError::Io)
    }

    fn version(&self, id: VersionId) -> Option<Arc<Version>> {
        lock(&self.0.shared.versions).get(&id).cloned()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
        {
            // a panic of the writer has been reported by its thread
            drop(writer.join());
        }
    }
}
