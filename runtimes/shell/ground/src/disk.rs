//! The file operations of the client's store and of the databases, behind the traits [`Disk`] and [`DiskFile`]: tests
//! make any operation fail, and drop unsynced data in a simulated crash. [`OsDisk`] is the real file system.

#[cfg(test)]
pub mod mem;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Distance by which [`DiskFile::backdate`] sets a file's mtime back; file systems count time in steps of up to 2 s.
const BACKDATE_BY: Duration = Duration::from_secs(4);

/// Bytes per write call. The page cache allocates units as large as the write, and large ones may come from memory that
/// was idle: in a virtual machine, writes of 256 KiB made a download take twice the processor time.
const WRITE_LEN: usize = 64 << 10;

/// Kind of file-system entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with bytes.
    File,
    /// A directory with any contents.
    Directory,
    /// A symbolic link, whatever its target.
    Link,
    /// A device, FIFO or socket.
    Special,
}

impl Kind {
    /// Reads the kind of the entry at `path`, without following a symbolic link.
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

/// Metadata of a file by which a change is noticed: every write changes the stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The kind of file under the name.
    pub kind: Kind,
    /// File system and inode, which identify the file.
    pub file: (u64, u64),
    /// Length of the file in bytes.
    pub len: u64,
    /// Time of the last change of the bytes (mtime): Unix seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Time of the last change of bytes, names or metadata (ctime): cannot be set back by a program.
    pub touched: (i64, i64),
    /// Number of names (hard links) of the file.
    pub names: u64,
}

impl Stamp {
    /// Returns whether both stamps describe the same bytes, provided that nobody has set the mtime back.
    pub fn is_same_content(&self, other: &Self) -> bool {
        (self.file, self.len, self.changed) == (other.file, other.len, other.changed)
    }

    /// Returns whether any later change gets another mtime, even on file systems that count time in steps of 2 s.
    pub fn is_settled(&self) -> bool {
        let now = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs().cast_signed());
        now.abs_diff(self.changed.0) >= BACKDATE_BY.as_secs()
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

/// Free space of the file system of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Device number of the file system.
    pub device: u64,
    /// Bytes that this user may still write.
    pub free: u64,
}

/// A file system: the real one, or a simulated one in tests.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing; creates it if it is absent.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Deletes a file; succeeds if there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Opens a file for reading; fails on a symbolic link, and does not wait for the writer of a FIFO.
    fn read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; replaces a file that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file; fails if the new name is taken.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns the path that a chain of symbolic links leads to; nothing needs to exist there.
    fn follow(&self, path: &Path) -> io::Result<PathBuf>;
    /// Copies a file into a new one and syncs it. Only the owner can read the new file until the copy is complete.
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Sets a file's permission bits.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Gives a file a second name (a hard link).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Reads the stamp of the entry at `path`, without following a symbolic link.
    fn stamp(&self, path: &Path) -> io::Result<Stamp>;
    /// Reads the free space of the file system of a file or directory.
    fn room(&self, path: &Path) -> io::Result<Room>;
    /// Makes creations, renames and deletions in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Lists the entries of a directory; creates the directory if it is absent.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
}

/// An open file. Each operation names its offset, so that threads can share the file.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills `buffer` with the bytes from `offset`; fails at a shorter file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates the file, or lengthens it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns the length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads the stamp of the open file.
    fn stamp(&self) -> io::Result<Stamp>;
    /// Sets the mtime back, so that the next change certainly gets another one.
    fn backdate(&self) -> io::Result<()>;
    /// Makes all bytes written so far durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// Maximum number of symbolic links followed on the way to a file.
const LINKS_MAX: usize = 40;

/// Follows symbolic links as [`Disk::follow`] does on the real file system.
pub fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&at) {
            Ok(to) => at = at.parent().unwrap_or(Path::new("/")).join(to),
            // not a link, or nothing there
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => return Ok(at),
            Err(e) => return Err(e),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// Creates a new file with mode 0600, for its owner only.
pub fn make_private(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The file system of this computer.
#[derive(Debug)]
pub struct OsDisk;

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
            // NOREPLACE is not supported here; a hard link never replaces an existing name either
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
        // uses copy_file_range where available: it stays in the kernel, and some file systems share the extents
        io::copy(&mut from, &mut new)?;
        new.set_permissions(from.metadata()?.permissions())?;
        new.sync_all()
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn stamp(&self, path: &Path) -> io::Result<Stamp> {
        fs::symlink_metadata(path).map(|m| Stamp::of(&m))
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let system = rustix::fs::statvfs(path)?;
        let device = fs::metadata(path)?.dev();
        Ok(Room { device, free: system.f_bavail.saturating_mul(system.f_frsize) })
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

    fn backdate(&self) -> io::Result<()> {
        self.set_modified(SystemTime::now() - BACKDATE_BY)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
