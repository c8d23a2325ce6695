//! The commands on published objects: [`publish`], [`objects`] (list) and [`unpublish`].

use super::Error;
use super::catalogue::{Files, Object, ObjectKey, Version};
use super::policy::PolicyKeys;
use super::staging::{Staged, remove_stale, too_large};
use serde::Serialize;
use std::path::{Path, PathBuf};
use swarmedge_core::content::{Access, Layout, Manifest};
use swarmedge_core::ids::{Digest, ProviderId, VersionId};
use swarmedge_core::limits;
use swarmedge_core::wire::{Text, Wire as _};
use swarmedge_ground::files::{rename_durably, replace_durably};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::terminal::visible::is_hidden;

/// Arguments of the [`publish`] command.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The file to publish.
    pub file: PathBuf,
    /// The provider that publishes.
    pub provider: ProviderId,
    /// Path of the object, without a leading slash.
    pub path: String,
    /// Access to the object; `None` keeps the present access, and makes a new object public.
    pub access: Option<Access>,
    /// Keys of the policy to set for this object; `None` keeps the present ones. Keys that are not set have the
    /// provider's value ([`set_policy`]) or the default.
    pub policy: Option<PolicyKeys>,
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
    /// Time at which this version became the current one, Unix milliseconds.
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

/// Checks an object's path: URLs must contain it without changes by HTTP clients.
pub fn check_path(path: &str) -> Result<Text<{ limits::PATH_LEN_MAX }>, Error> {
    let bad = |why| Error::BadPath(path.to_owned(), why);
    if path.split('/').any(|s| matches!(s, "" | "." | "..")) {
        return Err(bad("must not begin or end with a slash nor have empty, \".\" or \"..\" segments"));
    }
    if path.contains(is_hidden) {
        return Err(bad("must have no control characters and no marks of text direction, which nobody sees"));
    }
    Text::new(path).map_err(|_| bad("must have at most 1024 bytes"))
}

/// Publishes a file: copies it, computes its piece roots, and makes it the object's current version durably. The file
/// is read once. Stored files of the same version are replaced, since they may be damaged. New files get the owner of
/// the existing ones, so that servers of another user can read them.
pub fn publish(objects: &Path, what: &Publish) -> Result<Published, Error> {
    let path = check_path(&what.path)?;
    let files = Files::new(objects);
    files.create()?;
    remove_stale(&files.staging());
    let staged = Staged::copy(&files, &what.file)?;
    let (layout, sha256, roots) = (staged.layout, staged.hashes.sha256, staged.hashes.roots.clone());
    let manifest = Manifest::new(what.provider, path, layout, roots).ok_or_else(|| too_large(&what.file))?;
    let id = manifest.version();
    let key: ObjectKey = (what.provider, what.path.clone());

    let _turn = files.lock()?;
    let mut catalogue = files.load()?;
    let change = match catalogue.objects.get(&key) {
        None => Change::New,
        Some(object) if object.current == id => Change::None,
        Some(_) => Change::Version,
    };
    let (content, manifest_file) = (files.content(id), files.manifest(id));
    rename_durably(&staged.path, &content).map_err(Error::at(&content))?;
    replace_durably(&manifest_file, &manifest.to_bytes(), &files.ownership()?).map_err(Error::at(&manifest_file))?;
    let version = Version { key: key.clone(), size: layout.size(), sha256, published_ms: unix_ms() };
    let gone = catalogue.publish(id, version, what.access, what.policy);
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

/// Sets the keys of the policy for all objects of a provider, in place of those set before; returns the number of
/// objects whose policy changes.
pub fn set_policy(objects: &Path, provider: ProviderId, keys: PolicyKeys) -> Result<usize, Error> {
    let files = Files::new(objects);
    files.create()?;
    let _turn = files.lock()?;
    let mut catalogue = files.load()?;
    let changed = catalogue.set_default(provider, keys, unix_ms());
    files.save(&catalogue)?;
    Ok(changed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest as _;
    use swarmedge_core::content::{Policy, merkle};
    use swarmedge_core::ids::PieceIndex;

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
    fn publishing_the_same_file_again_repairs_what_is_stored() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("objects");
        let first = publish(&at, &put(dir.path(), b"some text")).expect("published");
        let files = Files::new(&at);
        let (content, manifest) = (files.content(first.version), files.manifest(first.version));
        let good = std::fs::read(&manifest).expect("there");
        std::fs::write(&content, b"some xxxt").expect("written");
        std::fs::write(&manifest, b"no manifest").expect("written");
        let again = publish(&at, &put(dir.path(), b"some text")).expect("published");
        assert_eq!((again.version, again.change), (first.version, Change::None));
        assert_eq!(std::fs::read(content).expect("there"), b"some text");
        assert_eq!(std::fs::read(manifest).expect("there"), good);
    }

    #[test]
    fn a_policy_stays_in_force_until_another_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("objects");
        let edge_only = Policy { peer_download: false, ..Policy::default() };
        let given = Publish { policy: Some(edge_only.clone().into()), ..put(dir.path(), b"old") };
        assert_eq!(publish(&at, &given).expect("published").policy, edge_only.clone().into());
        for bytes in [&b"new"[..], b"new"] {
            let done = publish(&at, &put(dir.path(), bytes)).expect("published");
            assert_eq!(done.policy, edge_only.clone().into(), "{:?}", done.change);
        }
        let default = Publish { policy: Some(Policy::default().into()), ..put(dir.path(), b"new") };
        assert_eq!(publish(&at, &default).expect("published").policy, Policy::default().into());
    }

    #[test]
    fn paths_of_every_script_can_be_published_and_hidden_characters_are_named() {
        for path in ["שלום/a", "日本語.bin", "u\u{308}", "\u{1f469}\u{200d}\u{1f680}", "a b%?#\"'"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        let error = check_path("a\u{202e}gnp.exe").expect_err("refused").to_string();
        assert!(error.contains("text direction") && error.contains("\\u{202e}") && !error.contains('\u{202e}'));
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
        let hidden =
            ['\n', '\u{1b}', '\u{9b}', '\u{61c}', '\u{200e}', '\u{202e}', '\u{2066}'].map(|c| format!("a{c}b"));
        let hidden = hidden.iter().map(String::as_str);
        for path in ["", "/a", "a/", "a//b", "../a", "a/./b"].into_iter().chain(hidden) {
            let what = Publish { path: path.into(), ..what.clone() };
            assert!(matches!(publish(dir.path(), &what), Err(Error::BadPath(..))), "{path:?}");
        }
        let missing = Publish { file: dir.path().join("none"), ..what.clone() };
        assert!(publish(dir.path(), &missing).expect_err("missing").to_string().contains("none"));
        let folder = Publish { file: dir.path().to_owned(), ..what };
        assert!(matches!(publish(dir.path(), &folder), Err(Error::Unfit(..))));
    }
}
