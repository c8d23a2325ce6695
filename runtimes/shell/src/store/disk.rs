//! The few file operations that the store makes, behind a trait: so that tests can fail any of them, and take away at a
//! crash what was not synced.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        self.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        self.metadata().map(|m| m.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
