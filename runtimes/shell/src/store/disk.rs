//! The few file operations that the store makes, behind a trait: so that tests can fail any of them, and take away at a
//! crash what was not synced.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far back [`DiskFile::age`] sets the time of the last change: file systems count time in steps of up to 2 s.
const AGE: Duration = Duration::from_secs(4);

/// Bytes of one write. The page cache allocates in units as large as what is written, and large ones may come from
/// memory that has lain idle: in a virtual machine, writes of 256 KiB made a download take twice the processor time.
const WRITE_LEN: usize = 64 << 10;

/// What tells whether a file has been changed: no write leaves its stamp as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// File system and inode: which file.
    pub(crate) file: (u64, u64),
    /// Bytes.
    pub(crate) len: u64,
    /// The last change of its bytes; seconds and nanoseconds.
    pub(crate) changed: (i64, i64),
    /// The last change of anything about it, its names too; it cannot be set back.
    pub(crate) touched: (i64, i64),
    /// How many names it has.
    pub(crate) names: u64,
}

impl Stamp {
    /// Whether the bytes are the same unless somebody has set the time back.
    pub(crate) fn is_same_content(&self, other: &Self) -> bool {
        (self.file, self.len, self.changed) == (other.file, other.len, other.changed)
    }

    fn of(m: &fs::Metadata) -> Self {
        Self {
            file: (m.dev(), m.ino()),
            len: m.len(),
            changed: (m.mtime(), m.mtime_nsec()),
            touched: (m.ctime(), m.ctime_nsec()),
            names: m.nlink(),
        }
    }
}

/// A file system.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing, made if it is not there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Deletes a file; it is no error if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Copies a file's bytes into a new file and syncs it.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Of the file that has a name (not what a symbolic link points to).
    fn stamp(&self, path: &Path) -> io::Result<Stamp>;
    /// Makes creations, renames and deletions in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files of a directory, which is made if it is not there.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// An open file. Positions are explicit, so it can be shared.
pub(crate) trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file or lengthens it by a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;
    /// See [`Stamp`].
    fn stamp(&self) -> io::Result<Stamp>;
    /// Sets the time of the last change back, so that the next change gives another.
    fn age(&self) -> io::Result<()>;
    /// Makes what was written durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug)]
pub(crate) struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Arc::new(file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        // copy_file_range where the kernel has it: shares extents on file systems that can, and never leaves the kernel
        fs::copy(from, to)?;
        fs::OpenOptions::new().write(true).open(to)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        fs::symlink_metadata(path).map(|m| Stamp::of(&m))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(dir)?;
        fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect()
    }
}

impl DiskFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        (offset..).step_by(WRITE_LEN).zip(data.chunks(WRITE_LEN)).try_for_each(|(at, part)| self.write_all_at(part, at))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.metadata().map(|m| Stamp::of(&m))
    }

    fn age(&self) -> io::Result<()> {
        self.set_modified(SystemTime::now() - AGE)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
