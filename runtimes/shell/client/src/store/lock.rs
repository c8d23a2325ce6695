//! A lock file that lets only one client process use a state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;
use swarmedge_ground::files;

/// Maximum time to wait for a lock that another process holds.
const PATIENCE: Duration = Duration::from_millis(50);

/// A file lock held while the store is open; the operating system releases it when the process ends or dies.
#[derive(Debug)]
pub(crate) struct DirLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] File);

/// The reason why a directory could not be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds the lock; carries the process id if it could be read.
    Held(Option<u32>),
    /// The lock file could not be used.
    Io(io::Error),
}

impl DirLock {
    /// Locks `path`, and writes this process's id into it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(LockError::Io)?;
        if !files::lock(&file, PATIENCE).map_err(LockError::Io)? {
            let mut text = String::new();
            let read = Read::by_ref(&mut file).take(16).read_to_string(&mut text);
            return Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())));
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(LockError::Io)?;
        Ok(Self(file))
    }
}
