//! The few file operations that the store makes, behind a trait: so that tests can fail any of them, and take away at a
//! crash what was not synced.

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far back [`DiskFile::age`] sets the time of the last change: file systems count time in steps of up to 2 s.
const AGE: Duration = Duration::from_secs(4);

/// Bytes of one write. The page cache allocates in units as large as what is written, and large ones may come from
/// memory that has lain idle: in a virtual machine, writes of 256 KiB made a download take twice the processor time.
const WRITE_LEN: usize = 64 << 10;

/// What can stand under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Special,
}

impl Kind {
    /// What stands under a name; not what a symbolic link points to.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|m| Self::of(&m))
    }

    fn of(m: &fs::Metadata) -> Self {
        match m.file_type() {
            t if t.is_file() => Self::File,
            t if t.is_dir() => Self::Directory,
            t if t.is_symlink() => Self::Link,
            _ => Self::Special,
        }
    }
}

/// What tells whether a file has been changed: no write leaves its stamp as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
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

    /// Whether a change from now on has another time, on file systems with large steps too.
    pub(crate) fn is_settled(&self) -> bool {
        let now = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs().cast_signed());
        now.abs_diff(self.changed.0) >= AGE.as_secs()
    }

    fn of(m: &fs::Metadata) -> Self {
        Self {
            kind: Kind::of(m),
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
    /// Opens a file for reading; no symbolic link, and without waiting for a FIFO's other end.
    fn read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a name that nothing has.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Where a name leads at last, symbolic links followed; nothing need stand there.
    fn follow(&self, path: &Path) -> io::Result<PathBuf>;
    /// Copies a file's bytes into a new file and syncs it. Nobody else can read it before.
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

/// Symbolic links on the way to a file, at most.
const LINKS_MAX: usize = 40;

/// See [`Disk::follow`].
pub(crate) fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&at) {
            Ok(to) => at = at.parent().unwrap_or(Path::new("/")).join(to),
            // no link, or nothing at all
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => return Ok(at),
            Err(e) => return Err(e),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// A new file that only its owner may open.
pub(crate) fn make_private(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
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

    fn read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        Ok(Arc::new(fs::OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // a file system that cannot: a second name is never given in place of another
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
                fs::hard_link(from, to)?;
                fs::remove_file(from)
            }
            other => Ok(other?),
        }
    }

    fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        follow(path)
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut from, mut new) = (fs::File::open(from)?, make_private(to)?);
        // copy_file_range where the kernel has it: shares extents on file systems that can, and never leaves the kernel
        io::copy(&mut from, &mut new)?;
        new.set_permissions(from.metadata()?.permissions())?;
        new.sync_all()
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
