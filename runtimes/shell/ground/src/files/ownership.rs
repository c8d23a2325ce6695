//! Who owns a new file and who may read it, whoever runs the command and under whatever umask: a server that read what
//! was there before can read what takes its place.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

/// Bits of a directory's mode that say where anybody may make files, as in `/tmp`: others learn nothing from it.
const STICKY: u32 = 0o1000;

/// Owner, group and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Ownership {
    /// Returns the ownership of the file at `path`. Without a file, or if its directory's owner cannot read what root
    /// has left there, it is the directory's, and only the owner may write.
    pub fn like(path: &Path) -> io::Result<Self> {
        let dir = Self::of(&fs::metadata(parent(path))?);
        let new = Self { mode: dir.mode & 0o644 | 0o600, ..dir };
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_file() => {
                let there = Self::of(&there);
                Ok(if there.uid == 0 && !there.lets_read(&dir) { new } else { there })
            }
            Ok(_) => Ok(new),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(new),
            Err(e) => Err(e),
        }
    }

    /// Returns the ownership of the secret file at `path`: as [`Self::like`], but only the owner may read it, and its
    /// group where that was so and others could not.
    pub fn like_secret(path: &Path) -> io::Result<Self> {
        let there = fs::symlink_metadata(path).is_ok_and(|there| there.is_file() && there.mode() & 0o044 == 0o040);
        let like = Self::like(path)?;
        Ok(Self { mode: 0o600 | if there { like.mode & 0o040 } else { 0 }, ..like })
    }

    fn of(meta: &Metadata) -> Self {
        Self { uid: meta.uid(), gid: meta.gid(), mode: meta.mode() & 0o7777 }
    }

    /// Gives the ownership to a new file, as far as this user may. Nobody but its owner loses anything if it fails.
    pub fn give_to(&self, file: &File) {
        let own = (self.uid, self.gid);
        // only root may give a file away; others may still give it to a group of theirs
        if file.metadata().is_ok_and(|m| (m.uid(), m.gid()) != own) && fchown(file, Some(own.0), Some(own.1)).is_err() {
            let _ = fchown(file, None, Some(own.1));
        }
        // some file systems have no modes
        let _ = file.set_permissions(Permissions::from_mode(self.mode));
    }

    /// Gives the ownership to a new file; fails if the owner that it is to have could not read it.
    pub fn give_readable(&self, file: &File) -> io::Result<()> {
        self.give_to(file);
        if Self::of(&file.metadata()?).lets_read(self) {
            return Ok(());
        }
        let why = format!("user {}, whose place this is, could not read the new file", self.uid);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Returns whether this owner could read a file with the mode of `self`.
    fn lets_read(&self, other: &Self) -> bool {
        let bit = match (other.uid == self.uid, other.gid == self.gid) {
            (true, _) => 0o400,
            (false, true) => 0o040,
            (false, false) => 0o004,
        };
        other.uid == 0 || self.mode & bit != 0
    }
}

/// Creates a directory and those above it where they are missing, each with the owner and the mode of the one that it
/// lies in.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    create_dirs(above)?;
    match DirBuilder::new().mode(0o777).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(()),
        made => made?,
    }
    let like = Ownership::of(&fs::metadata(above)?);
    if like.mode & STICKY == 0 {
        Ownership { mode: like.mode | 0o700, ..like }.give_to(&File::open(dir)?);
    }
    Ok(())
}

/// Opens a file for appending. A new one has the ownership that its directory suggests, also for writing.
pub fn open_shared(path: &Path) -> io::Result<File> {
    match File::options().append(true).create_new(true).open(path) {
        Ok(file) => {
            let dir = Ownership::of(&fs::metadata(parent(path))?);
            Ownership { mode: dir.mode & 0o666 | 0o600, ..dir }.give_to(&file);
            Ok(file)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => File::options().append(true).open(path),
        Err(e) => Err(e),
    }
}

/// Returns the permission bits that this process's umask gives to a new file; `None` where the system does not tell.
#[must_use]
pub fn mode_of_new_files() -> Option<u32> {
    // asking the usual way means setting it, which other threads would notice
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    Some(0o666 & !u32::from_str_radix(umask.trim(), 8).ok()?)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// User and group of nobody, for tests that root runs.
    const NOBODY: u32 = 65_534;

    fn made(path: &Path, mode: u32) -> File {
        let file = File::create(path).expect("made");
        file.set_permissions(Permissions::from_mode(mode)).expect("set");
        file
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o7777
    }

    #[test]
    fn a_new_file_has_the_mode_of_what_was_there_or_of_its_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for (dir_mode, old_mode, like_new) in [(0o755, 0o640, 0o644), (0o700, 0o644, 0o600), (0o777, 0o600, 0o644)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(dir_mode)).expect("set");
            made(&old, old_mode);
            let files = [(Ownership::like(&old), old_mode), (Ownership::like(&new), like_new)];
            for (ownership, expected) in files {
                let path = dir.path().join("x");
                let file = made(&path, 0o600);
                ownership.expect("there").give_readable(&file).expect("readable");
                assert_eq!(mode(&path), expected);
            }
        }
        let secret = |path| Ownership::like_secret(path).expect("there").mode;
        for (old_mode, expected) in [(0o640, 0o640), (0o664, 0o600), (0o600, 0o600)] {
            made(&old, old_mode);
            assert_eq!((secret(&old), secret(&new)), (expected, 0o600), "{old_mode:o}");
        }
        assert!(Ownership::like(&dir.path().join("none/x")).is_err());
    }

    #[test]
    fn the_umask_is_told_as_the_mode_of_a_new_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x");
        File::create(&path).expect("made");
        if let Some(told) = mode_of_new_files() {
            assert_eq!(told, mode(&path));
        }
    }

    #[test]
    fn a_new_directory_is_like_the_one_that_it_lies_in() {
        let dir = tempfile::tempdir().expect("a directory");
        for wanted in [0o750, 0o2775] {
            let above = dir.path().join(format!("{wanted:o}"));
            fs::create_dir(&above).expect("made");
            fs::set_permissions(&above, Permissions::from_mode(wanted)).expect("set");
            create_dirs(&above.join("a/b")).expect("made");
            create_dirs(&above.join("a/b")).expect("there");
            assert_eq!((mode(&above.join("a")), mode(&above.join("a/b"))), (wanted, wanted));
            open_shared(&above.join("lock")).expect("made");
            open_shared(&above.join("lock")).expect("there");
            assert_eq!(mode(&above.join("lock")), wanted & 0o666);
        }
    }

    /// A file that root writes belongs to the owner of its directory, also if it replaces a file of root's that this
    /// owner could not read.
    #[test]
    fn files_of_roots_commands_belong_to_the_places_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        if std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).is_err() {
            assert!(std::env::var_os("SWARMEDGE_REQUIRE_ALL").is_none(), "only root may give files away");
            // not `eprintln!`, which the harness shows for failing tests only
            let line = b"SKIPPED: only root may give files away\n";
            return drop(std::io::Write::write_all(&mut std::io::stderr(), line));
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("set");
        let place = dir.path().join("catalogue");
        for left_by_root in [false, true] {
            if left_by_root {
                made(&place, 0o600);
            }
            let (path, ownership) = (dir.path().join("x"), Ownership::like(&place).expect("there"));
            ownership.give_readable(&made(&path, 0o600)).expect("readable");
            let meta = fs::metadata(&path).expect("there");
            assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (NOBODY, NOBODY, 0o600), "{left_by_root}");
        }
        let theirs = Ownership { uid: 1, gid: 1, mode: 0o600 };
        let file = made(&dir.path().join("y"), 0o600);
        theirs.give_readable(&file).expect("root may give it away");
        assert!(!Ownership::of(&file.metadata().expect("there")).lets_read(&Ownership { uid: 2, ..theirs }));
        create_dirs(&dir.path().join("a/b")).expect("made");
        assert_eq!(fs::metadata(dir.path().join("a/b")).expect("there").uid(), NOBODY);
    }
}
