//! The commands on published objects: [`publish`], [`objects`] (list) and [`unpublish`].

use super::Error;
use super::catalogue::{Files, Object, ObjectKey, Version, rename_durably, write_durably};
use serde::Serialize;
use sha2::Digest as _;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use swarmedge_core::content::{Access, Layout, Manifest, Policy, merkle};
use swarmedge_core::ids::{Digest, PieceIndex, ProviderId, VersionId};
use swarmedge_core::limits;
use swarmedge_core::wire::{Text, Wire as _};
use swarmedge_ground::host::unix_ms;

/// Bytes read and hashed at a time.
const READ_LEN: usize = 256 * 1024;
/// Age at which a staged copy, left by a crash, is deleted.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Arguments of the [`publish`] command.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The file to publish.
    pub file: PathBuf,
    /// The provider that publishes.
    pub provider: ProviderId,
    /// Path of the object, without a leading slash.
    pub path: String,
    /// Access to the object; `None` keeps it, and is public for a new object.
    pub access: Option<Access>,
    /// Policy of the object; `None` keeps it, and is the default for a new object.
    pub policy: Option<Policy>,
}

/// A published object, as `publish` and `objects` print it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Number of the provider.
    pub provider: u32,
    /// Path of the object.
    pub path: String,
    /// Id of the current version.
    #[serde(serialize_with = "as_text")]
    pub version: VersionId,
    /// Size of the version, bytes.
    pub size: u64,
    /// Length of a piece, bytes.
    pub piece_len: u32,
    /// Number of pieces of the version.
    pub pieces: u32,
    /// SHA-256 of the whole content.
    #[serde(serialize_with = "as_text")]
    pub sha256: Digest,
    /// When this version became the current one, Unix milliseconds.
    pub published_ms: u64,
    /// Number of older versions that are still served.
    pub older: usize,
    /// Whether downloading the object needs a token.
    pub access: super::policy::AccessText,
    /// The policy in force.
    pub policy: super::policy::PolicyText,
    /// The change that `publish` made; [`Change::None`] for a listed object.
    pub change: Change,
}

/// The change that a publication made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The object is new.
    New,
    /// An existing object got a new version.
    Version,
    /// The content is the same as before; the policy may have changed.
    None,
}

/// Result of the [`unpublish`] command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unpublished {
    /// Number of the provider.
    pub provider: u32,
    /// Path of the object.
    pub path: String,
    /// Number of versions that are no longer served.
    pub versions: usize,
}

fn as_text<T: ToString, S: serde::Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&value.to_string())
}

/// Checks an object's path: URLs must carry it without being rewritten.
pub fn check_path(path: &str) -> Result<Text<{ limits::PATH_LEN_MAX }>, Error> {
    let bad = |why| Error::BadPath(path.to_owned(), why);
    if path.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err(bad("must not begin or end with a slash nor have empty, \".\" or \"..\" segments"));
    }
    Text::new(path).map_err(|_| bad("must have at most 1024 bytes and no control characters"))
}

/// Publishes a file: copies it, computes its piece roots, and makes it the object's current version durably.
pub fn publish(objects: &Path, what: &Publish) -> Result<Published, Error> {
    let path = check_path(&what.path)?;
    let files = Files::new(objects);
    files.create()?;
    remove_stale(&files.staging());
    let staged = Staged::copy(&files, &what.file)?;
    let too_large = || Error::Unfit(what.file.clone(), "is too large");
    let layout = Layout::for_size(staged.len).ok_or_else(too_large)?;
    let (roots, sha256) = hash(&staged.path, layout).map_err(Error::at(&staged.path))?;
    let manifest = Manifest::new(what.provider, path, layout, roots).ok_or_else(too_large)?;
    let id = manifest.version();
    let key: ObjectKey = (what.provider, what.path.clone());

    let _turn = files.lock()?;
    let mut catalogue = files.load()?;
    let change = match catalogue.objects.get(&key) {
        None => Change::New,
        Some(object) if object.current == id => Change::None,
        Some(_) => Change::Version,
    };
    if !catalogue.versions.contains_key(&id) {
        rename_durably(&staged.path, &files.content(id))?;
        write_durably(&files.manifest(id), &manifest.to_bytes())?;
    }
    let version = Version { key: key.clone(), size: layout.size(), sha256, published_ms: unix_ms() };
    let gone = catalogue.publish(id, version, what.access, what.policy.clone());
    files.save(&catalogue)?;
    files.delete(&gone);
    let (object, id, version) = catalogue.current(&key).ok_or_else(|| Error::NotFound(key.0, key.1.clone()))?;
    Ok(Published { change, ..describe(&key, object, id, version) })
}

/// Lists every published object.
pub fn objects(objects: &Path) -> Result<Vec<Published>, Error> {
    let catalogue = Files::new(objects).load()?;
    let all = catalogue.objects.iter().filter_map(|(key, object)| {
        let version = catalogue.versions.get(&object.current)?;
        Some(describe(key, object, object.current, version))
    });
    Ok(all.collect())
}

/// Unpublishes an object with all its versions.
pub fn unpublish(objects: &Path, provider: ProviderId, path: &str) -> Result<Unpublished, Error> {
    let files = Files::new(objects);
    files.create()?;
    let _turn = files.lock()?;
    let mut catalogue = files.load()?;
    let not_found = || Error::NotFound(provider, path.to_owned());
    let gone = catalogue.unpublish(&(provider, path.to_owned()), unix_ms()).ok_or_else(not_found)?;
    files.save(&catalogue)?;
    files.delete(&gone);
    Ok(Unpublished { provider: provider.0, path: path.to_owned(), versions: gone.len() })
}

fn describe(key: &ObjectKey, object: &Object, id: VersionId, version: &Version) -> Published {
    let layout = Layout::for_size(version.size);
    Published {
        provider: key.0.0,
        path: key.1.clone(),
        version: id,
        size: version.size,
        piece_len: layout.map_or(0, |l| l.piece_len()),
        pieces: layout.map_or(0, |l| l.pieces()),
        sha256: version.sha256,
        published_ms: version.published_ms,
        older: object.older.len(),
        access: object.access.into(),
        policy: object.policy.clone().into(),
        change: Change::None,
    }
}

/// A durable copy in the staging directory, deleted on drop unless it was renamed away.
struct Staged {
    path: PathBuf,
    len: u64,
}

impl Staged {
    fn copy(files: &Files, from: &Path) -> Result<Self, Error> {
        let mut source = File::open(from).map_err(Error::at(from))?;
        let before = source.metadata().map_err(Error::at(from))?;
        if !before.is_file() {
            return Err(Error::Unfit(from.to_owned(), "is not a regular file"));
        }
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|e| Error::at(from)(e.into()))?;
        let path = files.staging().join(data_encoding::HEXLOWER.encode(&nonce));
        let mut copy = File::create_new(&path).map_err(Error::at(&path))?;
        let mut staged = Self { path, len: 0 };
        staged.len = std::io::copy(&mut source, &mut copy).map_err(Error::at(&staged.path))?;
        copy.sync_all().map_err(Error::at(&staged.path))?;
        let after = std::fs::metadata(from).map_err(Error::at(from))?;
        let same =
            after.len() == staged.len && before.len() == staged.len && before.modified().ok() == after.modified().ok();
        if same { Ok(staged) } else { Err(Error::Unstable(from.to_owned())) }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // a published copy was renamed away already
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_stale(staging: &Path) {
    let Ok(entries) = std::fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Computes the piece roots and the SHA-256 of a file, on all processors.
fn hash(path: &Path, layout: Layout) -> std::io::Result<(Vec<Digest>, Digest)> {
    let roots = Mutex::new(vec![Digest([0; 32]); layout.pieces() as usize]);
    let next = AtomicU32::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let sha256 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| hash_pieces(path, layout, &next, &roots))).collect();
        let whole = hash_whole(path);
        for worker in workers {
            worker.join().unwrap_or_else(|_| Err(std::io::Error::other("a hashing thread failed")))?;
        }
        whole
    })?;
    Ok((roots.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), sha256))
}

fn hash_pieces(path: &Path, layout: Layout, next: &AtomicU32, roots: &Mutex<Vec<Digest>>) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_LEN];
    loop {
        let piece = PieceIndex(next.fetch_add(1, Ordering::Relaxed));
        if piece.0 >= layout.pieces() {
            return Ok(());
        }
        let range = layout.piece_range(piece);
        file.seek(SeekFrom::Start(range.start))?;
        let mut leaves = Vec::with_capacity(layout.blocks(piece) as usize);
        let mut left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        while left > 0 {
            let part = &mut buffer[..left.min(READ_LEN)];
            file.read_exact(part)?;
            leaves.extend(merkle::leaves(part));
            left -= part.len();
        }
        let root = merkle::piece_root(&layout, piece, &leaves);
        roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[piece.0 as usize] = root;
    }
}

fn hash_whole(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_LEN];
    let mut hash = sha2::Sha256::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, bytes: &[u8]) -> Publish {
        let file = dir.join("source");
        std::fs::write(&file, bytes).expect("written");
        Publish { file, provider: ProviderId(7), path: "a/b.bin".into(), access: None, policy: None }
    }

    #[test]
    fn a_published_object_is_durable_listed_and_named_by_its_manifest() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("objects");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| u8::try_from(i % 251).expect("below")).collect();
        let done = publish(&at, &put(dir.path(), &bytes)).expect("published");
        assert_eq!((done.size, done.pieces, done.change), (200_000, 4, Change::New));
        let files = Files::new(&at);
        assert_eq!(std::fs::read(files.content(done.version)).expect("content"), bytes);
        let manifest = files.load_manifest(done.version).expect("manifest");
        let first = merkle::piece_root(&manifest.layout(), PieceIndex(0), &merkle::leaves(&bytes[..65_536]));
        assert_eq!(manifest.root(PieceIndex(0)), Some(first));
        assert_eq!(done.sha256, Digest(sha2::Sha256::digest(&bytes).into()));
        assert_eq!(objects(&at).expect("listed"), [Published { change: Change::None, ..done.clone() }]);
        let again = publish(&at, &put(dir.path(), &bytes)).expect("published");
        assert_eq!((again.version, again.change, again.older), (done.version, Change::None, 0));
        assert_eq!(std::fs::read_dir(files.staging()).expect("a directory").count(), 0);
    }

    #[test]
    fn a_changed_file_is_a_new_version_and_the_old_one_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("objects");
        let old = publish(&at, &put(dir.path(), b"old")).expect("published");
        let new = publish(&at, &put(dir.path(), b"new")).expect("published");
        assert_eq!((new.change, new.older), (Change::Version, 1));
        let files = Files::new(&at);
        assert_eq!(std::fs::read(files.content(old.version)).expect("content"), b"old");
        assert_eq!(unpublish(&at, ProviderId(7), "a/b.bin").expect("taken off").versions, 2);
        assert!(!files.content(old.version).exists() && !files.manifest(new.version).exists());
        assert!(matches!(unpublish(&at, ProviderId(7), "a/b.bin"), Err(Error::NotFound(..))));
        assert_eq!(objects(&at).expect("listed"), []);
    }

    #[test]
    fn a_policy_stays_in_force_until_another_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("objects");
        let edge_only = Policy { peer_download: false, ..Policy::default() };
        let given = Publish { policy: Some(edge_only.clone()), ..put(dir.path(), b"old") };
        assert_eq!(publish(&at, &given).expect("published").policy, edge_only.clone().into());
        for bytes in [&b"new"[..], b"new"] {
            let done = publish(&at, &put(dir.path(), bytes)).expect("published");
            assert_eq!(done.policy, edge_only.clone().into(), "{:?}", done.change);
        }
        let default = Publish { policy: Some(Policy::default()), ..put(dir.path(), b"new") };
        assert_eq!(publish(&at, &default).expect("published").policy, Policy::default().into());
    }

    #[test]
    fn an_empty_file_can_be_published() {
        let dir = tempfile::tempdir().expect("a directory");
        let done = publish(dir.path(), &put(dir.path(), b"")).expect("published");
        assert_eq!((done.size, done.pieces), (0, 0));
    }

    #[test]
    fn the_error_names_what_cannot_be_published() {
        let dir = tempfile::tempdir().expect("a directory");
        let what = put(dir.path(), b"x");
        for path in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb"] {
            let what = Publish { path: path.into(), ..what.clone() };
            assert!(matches!(publish(dir.path(), &what), Err(Error::BadPath(..))), "{path:?}");
        }
        let missing = Publish { file: dir.path().join("none"), ..what.clone() };
        assert!(publish(dir.path(), &missing).expect_err("missing").to_string().contains("none"));
        let folder = Publish { file: dir.path().to_owned(), ..what };
        assert!(matches!(publish(dir.path(), &folder), Err(Error::Unfit(..))));
    }
}
