//! The identity of this installation: its key, the upload key that other clients see (a new one each day), and the
//! secondary GUIDs of its last starts. A start is one launch of the client process, with a random secondary GUID.

use sha2::Digest as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use swarmedge_core::accounting::clones;
use swarmedge_core::ids::{Digest, Guid, SecondaryGuid};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::{Rekey, SignedRekey, SigningContext};
use swarmedge_ground::error::Error;
use swarmedge_ground::keys::Key;

/// File of the installation's key, which determines its GUID.
const KEY: &str = "client.key";
/// File of the next key: the installation's key once the old GUID is retired.
const NEW_KEY: &str = "client.next.key";
/// File that identifies the machine by a hash, so that it does not reveal the machine's name.
const MACHINE: &str = "machine";
/// Prefix of the files of upload keys: `upload-<days since 1970>.key`.
const UPLOAD_KEY: &str = "upload-";
/// File of the secondary GUIDs of the client's last starts, newest first, one a line.
const STARTS: &str = "starts";

/// The identity of the client from one start to the next.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The installation's key, which proves the GUID to CNs and edges.
    pub key: Key,
    /// The upload key K_u, by which other clients know this one. It changes daily, so that they cannot follow a
    /// client.
    pub upload_key: Key,
    /// Day of the upload key, in days since 1970.
    day: u64,
    /// Secondary GUIDs of the client's last starts, the present start first.
    pub secondary: Vec<SecondaryGuid>,
}

impl Identity {
    /// Loads the identity from `dir` and makes what is missing; `day` is the number of days since 1970. An
    /// installation that was last started on another `machine` was copied, and takes a new key. The caller holds the
    /// directory's lock.
    pub fn begin(dir: &Path, day: u64, machine: Option<&str>) -> Result<Self, Error> {
        if let Some(machine) = machine {
            settle(dir, &digest(machine))?;
        }
        let key = load_or_make(&dir.join(KEY))?;
        let name = format!("{UPLOAD_KEY}{day}.key");
        let upload_key = load_or_make(&dir.join(&name))?;
        remove_other_days(dir, &name)?;
        Ok(Self { key, upload_key, day, secondary: begin_start(&dir.join(STARTS))? })
    }

    /// Returns whether the upload key is to be replaced: on a later day, once no transfer would be cut off by it, or on
    /// the day after that in any case. A clock that was set back changes nothing.
    #[must_use]
    pub const fn is_over(&self, today: u64, idle: bool) -> bool {
        today > self.day.saturating_add(if idle { 0 } else { 1 })
    }

    /// Returns the signed change to the next key, if `dir` has one.
    pub fn pending(&self, dir: &Path) -> Result<Option<SignedRekey>, Error> {
        let path = dir.join(NEW_KEY);
        if path.exists() { Key::load(&path).map(|new| Some(self.rekey(&new))) } else { Ok(None) }
    }

    /// Makes the next key unless `dir` has one, and returns the signed change to it. The key is durable when this
    /// returns.
    pub fn make_key(&self, dir: &Path) -> Result<SignedRekey, Error> {
        let new = load_or_make(&dir.join(NEW_KEY))?;
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| Error::io(format!("sync {}", dir.display()), &e))?;
        Ok(self.rekey(&new))
    }

    fn rekey(&self, new: &Key) -> SignedRekey {
        let start = self.secondary.first().copied().unwrap_or(SecondaryGuid([0; 20]));
        let rekey = Rekey { old: self.key.public(), new: new.public(), start };
        let message = rekey.to_bytes();
        let by = |key: &Key| key.sign(SigningContext::Rekey, &message);
        SignedRekey { by_old: by(&self.key), by_new: by(new), rekey }
    }

    /// Returns the GUID of the installation.
    #[must_use]
    pub fn guid(&self) -> Guid {
        Guid::of(&self.key.public())
    }
}

/// Returns the GUID of the installation in `dir`; `None` if it has no key that can be read.
#[must_use]
pub fn guid_of(dir: &Path) -> Option<Guid> {
    Key::load(&dir.join(KEY)).ok().map(|key| Guid::of(&key.public()))
}

/// Replaces the installation's key by the next one. First removes what copies of the installation share: the secondary
/// GUIDs of its starts, and the upload key.
pub fn adopt_key(dir: &Path) -> Result<(), Error> {
    remove(&dir.join(STARTS))?;
    remove_other_days(dir, "")?;
    let (new, key) = (dir.join(NEW_KEY), dir.join(KEY));
    fs::rename(&new, &key).map_err(|e| Error::io(format!("write {}", key.display()), &e))
}

/// Returns the machine's identifier (`/etc/machine-id`); `None` if the system has none.
#[must_use]
pub fn machine_id() -> Option<String> {
    let text = fs::read_to_string("/etc/machine-id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

fn digest(machine: &str) -> String {
    let hash = sha2::Sha256::new_with_prefix("swarmedge machine\0").chain_update(machine).finalize();
    Digest(hash.into()).to_string()
}

/// Takes a new key if the client was last started on another machine. Writes the machine's hash last, so that after a
/// crash the next start of the client does all of this again.
fn settle(dir: &Path, machine: &str) -> Result<(), Error> {
    let note = dir.join(MACHINE);
    let before = fs::read_to_string(&note).ok();
    if before.as_deref().map(str::trim) == Some(machine) {
        return Ok(());
    }
    if before.is_some() {
        tracing::warn!("this installation was copied from another machine: it takes a key of its own");
        // one that was made before the copy may have been copied with it
        remove(&dir.join(NEW_KEY))?;
        load_or_make(&dir.join(NEW_KEY))?;
        adopt_key(dir)?;
    }
    replace(&note, |new| fs::write(new, machine).map_err(|e| Error::io(format!("write {}", new.display()), &e)))
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("remove {}", path.display()), &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Loads a key, or makes one if the file is missing. The file appears only when complete.
fn load_or_make(path: &Path) -> Result<Key, Error> {
    if path.exists() {
        return Key::load(path);
    }
    let key = Key::generate();
    replace(path, |new| key.save(new))?;
    Ok(key)
}

/// Replaces the file `path` atomically: `write` makes a file beside it, which is then renamed.
fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let new = path.with_extension("new");
    remove(&new)?;
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

/// Adds a new secondary GUID to the file of the client's last starts and drops the oldest. Lines that do not parse are
/// dropped too.
fn begin_start(path: &Path) -> Result<Vec<SecondaryGuid>, Error> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(format!("read {}", path.display()), &e)),
    };
    let mut new = [0; SecondaryGuid::LEN];
    getrandom::fill(&mut new).map_err(|e| Error::failed(format!("no random bytes: {e}")))?;
    let starts = clones::begun(SecondaryGuid(new), old.lines().filter_map(|line| line.parse().ok()));
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
    fn the_guid_stays_and_five_starts_are_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Identity::begin(dir.path(), 100, None).expect("makes one");
        let mut starts = first.secondary.clone();
        for _ in 0..6 {
            let next = Identity::begin(dir.path(), 100, None).expect("loads it");
            assert_eq!((next.guid(), next.upload_key.public()), (first.guid(), first.upload_key.public()));
            starts.insert(0, next.secondary[0]);
            starts.truncate(5);
            assert_eq!(next.secondary, starts);
        }
        let tomorrow = Identity::begin(dir.path(), 101, None).expect("loads it");
        assert_eq!(tomorrow.guid(), first.guid());
        assert_ne!(tomorrow.upload_key.public(), first.upload_key.public());
        let keys = fs::read_dir(dir.path()).expect("lists").count();
        assert_eq!(keys, 3, "yesterday's key is gone");
        let over = [100, 101, 102, 103].map(|today| [true, false].map(|idle| tomorrow.is_over(today, idle)));
        assert_eq!(over, [[false, false], [false, false], [true, false], [true, true]]);
    }

    #[test]
    fn a_copy_on_another_machine_takes_its_own_key_and_history() {
        let dir = tempfile::tempdir().expect("a directory");
        let begin = |machine| Identity::begin(dir.path(), 100, machine).expect("begins");
        let first = begin(None);
        // the machine is noted when it is first known
        assert_eq!(begin(Some("a")).guid(), first.guid());
        let again = begin(Some("a"));
        assert_eq!((again.guid(), again.secondary.len()), (first.guid(), 3));
        let copy = begin(Some("b"));
        assert_ne!(copy.guid(), first.guid());
        assert_ne!(copy.upload_key.public(), first.upload_key.public());
        assert_eq!(copy.secondary.len(), 1);
        assert_eq!(begin(Some("b")).guid(), copy.guid());
        assert_eq!(begin(None).guid(), copy.guid(), "a system that does not say changes nothing");
        let noted = fs::read_to_string(dir.path().join(MACHINE)).expect("noted");
        assert!(!noted.contains('b') || noted.len() == 64, "not by its own name");
    }

    #[test]
    fn a_new_key_is_kept_beside_the_old_one_until_it_is_adopted() {
        let dir = tempfile::tempdir().expect("a directory");
        let begin = || Identity::begin(dir.path(), 100, None).expect("begins");
        let old = begin();
        assert_eq!(old.pending(dir.path()).expect("looks"), None);
        let made = old.make_key(dir.path()).expect("made");
        assert!(swarmedge_core::accounting::rekeys::check(swarmedge_ground::keys::verify, &made));
        assert_eq!(old.make_key(dir.path()).expect("kept"), made, "a second order makes no second key");
        // the client crashes and is started again under the old key
        let again = begin();
        assert_eq!(again.guid(), old.guid());
        let pending = again.pending(dir.path()).expect("looks").expect("kept");
        assert_eq!(pending.rekey.new, made.rekey.new);
        adopt_key(dir.path()).expect("adopted");
        let new = begin();
        assert_eq!(new.key.public(), made.rekey.new);
        assert_ne!(new.upload_key.public(), old.upload_key.public());
        assert_eq!((new.secondary.len(), new.pending(dir.path()).expect("looks")), (1, None));
    }
}
