//! Who this installation is: the key made at install, the key of the day for other clients, and the last starts.

use crate::error::Error;
use crate::keys::Key;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use swarmedge_core::ids::{Guid, SecondaryGuid};
use swarmedge_core::limits;

/// The installation's key: its GUID follows from it.
const KEY: &str = "client.key";
/// The key of a day is `upload-<days since 1970>.key`.
const UPLOAD_KEY: &str = "upload-";
/// The secondary GUIDs of the last starts, newest first, one a line.
const STARTS: &str = "starts";

/// The identity of one start.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Proves the GUID to CNs and edges.
    pub key: Key,
    /// K_u, shown to other clients, so that they cannot follow this one from day to day.
    pub upload_key: Key,
    /// The secondary GUIDs of the last starts, this one first.
    pub secondary: Vec<SecondaryGuid>,
}

impl Identity {
    /// Loads or makes what is missing in `dir`, and begins a new start on the given day since 1970. The caller holds
    /// the directory's lock.
    pub fn begin(dir: &Path, day: u64) -> Result<Self, Error> {
        let key = load_or_make(&dir.join(KEY))?;
        let name = format!("{UPLOAD_KEY}{day}.key");
        let upload_key = load_or_make(&dir.join(&name))?;
        remove_other_days(dir, &name)?;
        Ok(Self { key, upload_key, secondary: begin_start(&dir.join(STARTS))? })
    }

    /// The installation's GUID.
    #[must_use]
    pub fn guid(&self) -> Guid {
        Guid::of(&self.key.public())
    }
}

/// A key file is either whole or not there.
fn load_or_make(path: &Path) -> Result<Key, Error> {
    if path.exists() {
        return Key::load(path);
    }
    let key = Key::generate();
    replace(path, |new| key.save(new))?;
    Ok(key)
}

/// Makes `path` whole: written beside it, then renamed.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io(format!("remove {}", new.display()), &e));
        }
        Ok(()) | Err(_) => {}
    }
    write(&new)?;
    fs::rename(&new, path).map_err(|e| Error::io(format!("write {}", path.display()), &e))
}

fn remove_other_days(dir: &Path, keep: &str) -> Result<(), Error> {
    let failed = |e: io::Error| Error::io(format!("list {}", dir.display()), &e);
    let names = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let old = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with(UPLOAD_KEY) && name != keep
    };
    for path in names.into_iter().map(|entry| entry.path()).filter(old) {
        fs::remove_file(&path).map_err(|e| Error::io(format!("remove {}", path.display()), &e))?;
    }
    Ok(())
}

/// Remembers a new start and forgets the oldest. Lines that are none are forgotten too.
fn begin_start(path: &Path) -> Result<Vec<SecondaryGuid>, Error> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(format!("read {}", path.display()), &e)),
    };
    let mut new = [0; SecondaryGuid::LEN];
    getrandom::fill(&mut new).map_err(|e| Error::failed(format!("no random bytes: {e}")))?;
    let starts = std::iter::once(SecondaryGuid(new)).chain(old.lines().filter_map(|line| line.parse().ok()));
    let starts: Vec<_> = starts.take(limits::SECONDARY_GUIDS_MAX).collect();
    let text: String = starts.iter().map(|s| format!("{s}\n")).collect();
    replace(path, |new| {
        let written = fs::File::create(new).and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|e| Error::io(format!("write {}", new.display()), &e))
    })?;
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guid_stays_the_key_of_the_day_changes_and_five_starts_are_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::begin(dir.path(), 100).expect("makes one");
        let mut starts = first.secondary.clone();
        for _ in 0..6 {
            let next = Identity::begin(dir.path(), 100).expect("loads it");
            assert_eq!((next.guid(), next.upload_key.public()), (first.guid(), first.upload_key.public()));
            starts.insert(0, next.secondary[0]);
            starts.truncate(5);
            assert_eq!(next.secondary, starts);
        }
        let tomorrow = Identity::begin(dir.path(), 101).expect("loads it");
        assert_eq!(tomorrow.guid(), first.guid());
        assert_ne!(tomorrow.upload_key.public(), first.upload_key.public());
        let keys = fs::read_dir(dir.path()).expect("lists").count();
        assert_eq!(keys, 3, "yesterday's key is gone");
    }
}
