//! A redb file that is opened again after a failure. redb refuses everything once an operation has failed, on purpose:
//! what it holds in memory may differ from the file. So the file is closed then, and opened again for whoever needs it
//! next, which rolls back what was not committed.

use crate::disk::{Disk, DiskFile};
use redb::{Database, StorageBackend};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Pages that redb keeps in memory.
const CACHE_BYTES: usize = 8 << 20;
/// A file is written again in pieces of this length.
const PIECE_LEN: u64 = 64 << 10;

/// An open database, with whatever is needed beside it.
pub(crate) trait Opened: fmt::Debug + Sized {
    /// Completes a database that was opened, for the first time or again.
    fn of(disk: &Arc<dyn Disk>, path: &Path, db: Database) -> io::Result<Self>;
}

impl Opened for Database {
    fn of(_: &Arc<dyn Disk>, _: &Path, db: Database) -> io::Result<Self> {
        Ok(db)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reopening<T> {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// `None` after a failed operation, until it can be opened again. Whoever uses the database, to write too, has this
    /// lock shared; redb lets one writer in at a time and readers beside it.
    open: RwLock<Option<T>>,
    unsure: Unsure,
}

/// Whether a sync has failed since all bytes of the file were last synced.
type Unsure = Arc<AtomicBool>;

impl<T: Opened> Reopening<T> {
    /// Opens a file that is there, whole, and has it prepared.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        prepare: impl FnOnce(&Database) -> io::Result<()>,
    ) -> io::Result<Self> {
        let unsure = Unsure::default();
        let file = disk.open(path)?;
        let check = file.len()? > 0;
        let db = database(file, &unsure, check)?;
        prepare(&db)?;
        let open = RwLock::new(Some(T::of(&disk, path, db)?));
        Ok(Self { disk, path: path.to_owned(), open, unsure })
    }

    /// Runs one operation. If it fails the database is closed, and the next operation opens it first.
    pub(crate) fn with<O>(&self, run: impl FnOnce(&T) -> io::Result<O>) -> io::Result<O> {
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

    /// Works on what is open while nobody else uses it.
    pub(crate) fn change<O>(&self, run: impl FnOnce(&mut Option<T>) -> O) -> O {
        run(&mut self.open.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn reopen(&self) -> io::Result<T> {
        // a file that has gone, or was emptied, is not made anew: what it held would be missed by nobody
        self.disk.stamp(&self.path)?;
        let file = self.disk.open(&self.path)?;
        if file.len()? == 0 {
            return Err(bad("it is empty"));
        }
        if self.unsure.load(Ordering::Relaxed) {
            write_again(&*file)?;
            self.unsure.store(false, Ordering::Relaxed);
        }
        T::of(&self.disk, &self.path, database(file, &self.unsure, false)?)
    }
}

/// Makes a database, unless there is one of this name. A crash leaves no half-made file under it.
pub(crate) fn make(disk: &dyn Disk, path: &Path, fill: impl FnOnce(&Database) -> io::Result<()>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    if disk.list(dir)?.iter().any(|p| p == path) {
        return Ok(());
    }
    let new = path.with_extension("new");
    disk.remove(&new)?;
    let db = database(disk.open(&new)?, &Unsure::default(), false)?;
    fill(&db)?;
    drop(db);
    disk.rename(&new, path)?;
    disk.sync_dir(dir)
}

/// Writes all that reads find in a file once more. After a failed sync the operating system may hold pages for written
/// that the disk has never had, and a later sync says nothing of them.
fn write_again(file: &dyn DiskFile) -> io::Result<()> {
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

fn database(file: Arc<dyn DiskFile>, unsure: &Unsure, check: bool) -> io::Result<Database> {
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check)
        .create_with_backend(Backend { file, unsure: Arc::clone(unsure) })
        .map_err(io_error)
}

pub(crate) fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// redb's errors as I/O errors: all that matters further on is what the operating system said.
pub(crate) fn io_error(e: impl Into<redb::Error>) -> io::Error {
    let e = e.into();
    if let redb::Error::Io(e) = e { e } else { io::Error::other(e.to_string()) }
}

/// redb's view of its file, which whoever opens it has locked.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    unsure: Unsure,
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
        self.file.sync().inspect_err(|_| self.unsure.store(true, Ordering::Relaxed))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}
