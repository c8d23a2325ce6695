//! A redb database that is reopened after a failure. redb refuses every operation once one has failed, because its
//! memory may differ from the file. [`Reopening`] then closes the file; the next operation opens it again, which rolls
//! back uncommitted changes.

use crate::disk::{Disk, DiskFile};
use redb::{Database, StorageBackend};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of pages that redb keeps in memory.
const CACHE_BYTES: usize = 8 << 20;
/// Bytes per read and write when the whole file is rewritten.
const PIECE_LEN: u64 = 64 << 10;

/// An open database together with state derived from it.
pub trait OpenDatabase: fmt::Debug + Sized {
    /// Builds the state beside a database that was just opened or reopened.
    fn of(disk: &Arc<dyn Disk>, path: &Path, db: Database) -> io::Result<Self>;
}

impl OpenDatabase for Database {
    fn of(_: &Arc<dyn Disk>, _: &Path, db: Database) -> io::Result<Self> {
        Ok(db)
    }
}

/// A database that is reopened after a failed operation.
#[derive(Debug)]
pub struct Reopening<T> {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// The open database; `None` after a failed operation, until it is reopened. Readers and writers hold this lock
    /// shared: redb itself admits one writer at a time beside any readers.
    open: RwLock<Option<T>>,
    sync_failed: SyncFailed,
}

/// Set when a sync has failed since all bytes of the file were last known to be synced.
type SyncFailed = Arc<AtomicBool>;

impl<T: OpenDatabase> Reopening<T> {
    /// Opens the file, checks its integrity unless it is empty, and calls `prepare` on the database.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        prepare: impl FnOnce(&Database) -> io::Result<()>,
    ) -> io::Result<Self> {
        let sync_failed = SyncFailed::default();
        let file = disk.open(path)?;
        let check = file.len()? > 0;
        let db = database(file, &sync_failed, check)?;
        prepare(&db)?;
        let open = RwLock::new(Some(T::of(&disk, path, db)?));
        Ok(Self { disk, path: path.to_owned(), open, sync_failed })
    }

    /// Runs one operation. If it fails, the database is closed, and the next operation reopens it first.
    pub fn with<O>(&self, run: impl FnOnce(&T) -> io::Result<O>) -> io::Result<O> {
        loop {
            let shared = self.open.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = &*shared {
                let result = run(open);
                drop(shared);
                if result.is_err() {
                    self.change(|slot| *slot = None);
                }
                return result;
            }
            drop(shared);
            self.change(|slot| match slot {
                Some(_) => Ok(()),
                None => self.reopen().map(|open| *slot = Some(open)),
            })?;
        }
    }

    /// Runs `run` on the slot of the open database with exclusive access.
    pub fn change<O>(&self, run: impl FnOnce(&mut Option<T>) -> O) -> O {
        run(&mut self.open.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn reopen(&self) -> io::Result<T> {
        // a file that was deleted or emptied is not recreated: nobody would notice the loss of its records
        self.disk.stamp(&self.path)?;
        let file = self.disk.open(&self.path)?;
        if file.len()? == 0 {
            return Err(bad("it is empty"));
        }
        if self.sync_failed.load(Ordering::Relaxed) {
            rewrite(&*file)?;
            self.sync_failed.store(false, Ordering::Relaxed);
        }
        T::of(&self.disk, &self.path, database(file, &self.sync_failed, false)?)
    }
}

/// Creates a database unless the file exists. The rename at the end means that a crash leaves no partial file.
pub fn make(disk: &dyn Disk, path: &Path, fill: impl FnOnce(&Database) -> io::Result<()>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    if disk.list(dir)?.iter().any(|p| p == path) {
        return Ok(());
    }
    let new = path.with_extension("new");
    disk.remove(&new)?;
    let db = database(disk.open(&new)?, &SyncFailed::default(), false)?;
    fill(&db)?;
    drop(db);
    disk.rename(&new, path)?;
    disk.sync_dir(dir)
}

/// Reads the whole file and writes it back, then syncs. After a failed sync the operating system may consider pages
/// clean that never reached the disk, and a later sync does not report them.
fn rewrite(file: &dyn DiskFile) -> io::Result<()> {
    let len = file.len()?;
    let mut piece = Vec::new();
    let mut at = 0;
    while at < len {
        piece.resize(usize::try_from(PIECE_LEN.min(len - at)).unwrap_or(usize::MAX), 0);
        file.read_at(&mut piece, at)?;
        file.write_at(&piece, at)?;
        at += PIECE_LEN;
    }
    file.sync()
}

/// Opens a redb database on a file; errors of syncing are noted in `sync_failed`.
fn database(file: Arc<dyn DiskFile>, sync_failed: &SyncFailed, check: bool) -> io::Result<Database> {
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check)
        .create_with_backend(Backend { file, sync_failed: Arc::clone(sync_failed) })
        .map_err(io_error)
}

/// Makes the error for a file whose content is invalid.
pub fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Converts a redb error to an I/O error; callers need only the operating system's part.
pub fn io_error(e: impl Into<redb::Error>) -> io::Error {
    let e = e.into();
    if let redb::Error::Io(e) = e { e } else { io::Error::other(e.to_string()) }
}

/// Adapter by which redb reads and writes its file. The caller has locked the file.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    sync_failed: SyncFailed,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Relaxed))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}
