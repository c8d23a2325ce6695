//! Files shared with people and other processes: reads with errors that name the file, atomic replacement, and stamps
//! by which a change is noticed.

pub mod mark;
pub mod ownership;

use crate::error::Error;
use ownership::{Ownership, parent};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Period between two attempts to lock a file.
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Reads a whole text file; an error names the file.
pub fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::io(format!("read {}", path.display()), &e))
}

/// Replaces a text file atomically: writes a new file beside it and renames, so that readers see the old text or the
/// new one. Concurrent calls do not disturb each other: each writes to a file with an unguessable name.
pub fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let written = replace_by(path, &mut OpenOptions::new(), |file| file.write_all(text.as_bytes()));
    written.map_err(|e| Error::io(format!("write {}", path.display()), &e))
}

/// Replaces a file as [`replace`] does, and durably, by one that only its owner may read, and the group that could read
/// it before. The owner stays, where this user may give files away.
pub fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let ownership = Ownership::like_secret(path)?;
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    replace_by(path, &mut options, |file| {
        file.write_all(bytes)?;
        ownership.give_to(file);
        file.sync_all()
    })?;
    fs::File::open(parent(path))?.sync_all()
}

/// Replaces a file as [`replace`] does, and durably. Owner and mode stay, whoever does it; fails if the owner could not
/// read the new file.
pub fn replace_durably(path: &Path, bytes: &[u8], ownership: &Ownership) -> io::Result<()> {
    replace_by(path, &mut OpenOptions::new(), |file| {
        file.write_all(bytes)?;
        ownership.give_readable(file)?;
        file.sync_all()
    })?;
    fs::File::open(parent(path))?.sync_all()
}

/// Locks a file exclusively; returns whether it succeeded within `patience`. A lock outlives its holder for some
/// milliseconds if a child process is being started meanwhile: the child has a copy of the file until its `exec`
/// (flock(2)). Blocks the thread.
pub fn lock(file: &fs::File, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(fs::TryLockError::WouldBlock) if Instant::now() >= until => return Ok(false),
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_AGAIN_AFTER),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// Renames a file durably.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    fs::File::open(parent(to))?.sync_all()
}

/// Writes a new file beside `path`, under an unpredictable name, and renames it to `path`.
fn replace_by(
    path: &Path,
    options: &mut OpenOptions,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let random = getrandom::u64().map_err(|_| io::Error::from(io::ErrorKind::Other))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{random:016x}.new"));
    // `create_new` follows no symbolic link of that name
    let mut file = options.write(true).create_new(true).open(&beside)?;
    let written = write(&mut file).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // the partial file is useless; the first error is the one to report
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Reads a range of a file if all of it is in the system's memory, without waiting for the disk. Returns `None` if it
/// is not, or where the system cannot tell.
#[must_use]
pub fn read_cached(file: &fs::File, range: &Range<u64>) -> Option<Vec<u8>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{ReadWriteFlags, preadv2};
        let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut [io::IoSliceMut::new(&mut bytes[filled..])];
            match preadv2(file, rest, range.start + filled as u64, ReadWriteFlags::NOWAIT) {
                Ok(n) if n > 0 => filled += n,
                Ok(_) | Err(_) => return None,
            }
        }
        Some(bytes)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, range);
        None
    }
}

/// Fails if a file that a command is about to create exists already, unless `force` is set.
pub fn refuse_present(path: &Path, force: bool) -> Result<(), Error> {
    if path.is_file() && !force {
        return Err(Error::usage(format!("{} is there already", path.display()))
            .next("choose another name, or add --force to write over it"));
    }
    Ok(())
}

/// State of a file by which a change is noticed: time of modification, length and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Stamp {
    /// Reads the stamp of a file; `None` if the file cannot be found.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { modified: meta.modified().ok(), len: meta.len(), inode: inode(&meta) })
    }
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(meta)
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_its_holder_is_about_to_release_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || fs::File::create(dir.path().join("lock")).expect("created");
        let (holder, other) = (open(), open());
        assert!(lock(&holder, Duration::ZERO).expect("works"));
        assert!(!lock(&other, Duration::ZERO).expect("works"), "held");
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(holder);
        });
        assert!(lock(&other, Duration::from_secs(120)).expect("works"), "released");
        ending.join().expect("no panic");
    }

    #[test]
    fn what_is_in_memory_is_read_at_once_and_never_beyond_the_end() {
        let file = tempfile::tempfile().expect("a file");
        (&file).write_all(b"0123456789").expect("written");
        // a file system that cannot tell says nothing
        let cached = read_cached(&file, &(2..6));
        assert!(cached.is_none() || cached.as_deref() == Some(b"2345"), "{cached:?}");
        assert_eq!(read_cached(&file, &(8..11)), None, "shorter than was said");
    }

    #[test]
    fn an_existing_file_is_overwritten_only_with_force_and_atomically() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a");
        refuse_present(&file, false).expect("nothing is there");
        replace(&file, "1").expect("written");
        let error = refuse_present(&file, false).expect_err("somebody's").to_string();
        assert!(error.contains("--force"), "{error}");
        refuse_present(&file, true).expect("asked for");
        replace(&file, "2").expect("written");
        assert_eq!(read(&file).expect("there"), "2");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1, "nothing is left beside it");
        assert!(replace(&dir.path().join("none/a"), "3").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_secret_is_private_and_follows_no_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().expect("a directory");
        let (secret, victim) = (dir.path().join("key"), dir.path().join("victim"));
        fs::write(&victim, "theirs").expect("written");
        // a link in the secret's place, and one under a name that can be foreseen
        symlink(&victim, &secret).expect("linked");
        symlink(&victim, dir.path().join(format!("key.{}.new", std::process::id()))).expect("linked");
        for bytes in ["first", "second"] {
            replace_secret(&secret, bytes.as_bytes()).expect("written");
            let meta = fs::symlink_metadata(&secret).expect("there");
            assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600, "{meta:?}");
            assert_eq!(read(&secret).expect("there"), bytes);
        }
        assert_eq!(read(&victim).expect("there"), "theirs");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 3, "nothing is left beside it");
    }

    #[test]
    fn a_file_replaced_by_many_threads_is_always_present_and_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("a");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let file = &file;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(file, &n.to_string().repeat(1000)).expect("nobody takes it away");
                    }
                });
            }
        });
        assert_eq!(read(&file).expect("there").len(), 1000);
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1, "nothing is left beside it");
    }
}
