//! The published objects on disk: a catalogue file, and content files and manifests named by version.
//!
//! A change replaces the whole catalogue file (written beside, synced, renamed) after all files named in it are
//! durable, so readers see the state before or after a change and never a missing file. A lock file serialises writers.

use super::Error;
use super::policy::{AccessText, PolicyKeys, PolicyText};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use swarmedge_core::content::{Access, Manifest, Policy};
use swarmedge_core::ids::{Digest, ProviderId, VersionId};
use swarmedge_core::limits::WITHDRAWN_MAX;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::{Notice, Terms};
use swarmedge_ground::files::ownership::{Ownership, create_dirs, open_shared};
use swarmedge_ground::files::replace_durably;

/// Number of old versions of an object that are served besides the current one.
pub const OLD_VERSIONS_KEPT: usize = 3;
/// Time for which an unpublished version is listed as withdrawn, milliseconds. A client that was away for longer shares
/// the version with nobody all the same, since no edge grants it.
const WITHDRAWN_FOR_MS: u64 = 90 * 24 * 60 * 60 * 1000;
/// Format number of the catalogue file.
const FORMAT: u32 = 1;

/// Name of an object: its provider and path.
pub type ObjectKey = (ProviderId, String);

/// All published objects and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Objects by provider and path.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// Versions that are served, current and old.
    pub versions: BTreeMap<VersionId, Version>,
    /// Recently unpublished versions, each with the serial number of its notice.
    pub withdrawn: BTreeMap<VersionId, u64>,
    /// Keys of the policy that a provider has set for all of its objects.
    pub defaults: BTreeMap<ProviderId, PolicyKeys>,
    /// Serial number of the newest notice: the time of its change in Unix milliseconds, or one more than the serial
    /// number before, if that is higher.
    pub serial: u64,
}

/// A published object and its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Id of the current version.
    pub current: VersionId,
    /// Older versions that are still served, newest first.
    pub older: Vec<VersionId>,
    /// Whether downloading the object needs a token.
    pub access: Access,
    /// Keys of the policy that the provider has set for this object.
    pub own: PolicyKeys,
    /// The policy in force: the object's keys, then the provider's, then the built-in ones.
    pub policy: Policy,
    /// Serial number of the notice about the policy; 0: the policy was never changed, so only grants contain it.
    pub serial: u64,
}

/// A version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The object of this version.
    pub key: ObjectKey,
    /// Size of the content, bytes.
    pub size: u64,
    /// SHA-256 of the whole content.
    pub sha256: Digest,
    /// Time at which the version became the current one, Unix milliseconds.
    pub published_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    objects: Vec<ObjectText>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    withdrawn: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    defaults: BTreeMap<u32, PolicyKeys>,
    #[serde(default)]
    serial: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ObjectText {
    provider: u32,
    path: String,
    #[serde(default)]
    access: AccessText,
    policy: PolicyText,
    /// Keys of the policy that are the object's own; absent in older files, in which all keys are the object's own.
    #[serde(default)]
    own: Option<PolicyKeys>,
    #[serde(default)]
    serial: u64,
    /// The object's versions: the current one first, then older ones, newest first.
    versions: Vec<VersionText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionText {
    version: String,
    size: u64,
    sha256: String,
    published_ms: u64,
}

/// Paths below the objects directory.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the paths below the objects directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Returns the path of a version's content.
    #[must_use]
    pub fn content(&self, version: VersionId) -> PathBuf {
        self.dir.join("content").join(version.to_string())
    }

    /// Returns the path of a version's manifest.
    #[must_use]
    pub fn manifest(&self, version: VersionId) -> PathBuf {
        self.dir.join("manifests").join(version.to_string())
    }

    /// Returns the directory of copies that are not published yet.
    pub(crate) fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    pub(crate) fn catalogue(&self) -> PathBuf {
        self.dir.join("catalogue.json")
    }

    /// Returns the path of the providers' token keys.
    pub(crate) fn provider_keys(&self) -> PathBuf {
        self.dir.join("provider-keys.json")
    }

    /// Creates the directories if they are missing. They belong to the owner of the directory that they lie in, so that
    /// a server of another user can use them.
    pub fn create(&self) -> Result<(), Error> {
        for dir in ["content", "manifests", "staging"] {
            let dir = self.dir.join(dir);
            create_dirs(&dir).map_err(Error::at(&dir))?;
        }
        Ok(())
    }

    /// Returns owner and mode of the catalogue file, which newly published files get too.
    pub(crate) fn ownership(&self) -> Result<Ownership, Error> {
        let path = self.catalogue();
        Ownership::like(&path).map_err(Error::at(&path))
    }

    /// Locks the catalogue against other writers until the result is dropped; waits for the lock.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join("lock");
        let file = open_shared(&path).map_err(Error::at(&path))?;
        file.lock().map_err(Error::at(&path))?;
        Ok(file)
    }

    /// Reads the catalogue; a missing file is an empty catalogue.
    pub fn load(&self) -> Result<Catalogue, Error> {
        let path = self.catalogue();
        match fs::read(&path) {
            Ok(json) => Catalogue::from_json(&json).map_err(|why| Error::Damaged(path, why)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Catalogue::default()),
            Err(e) => Err(Error::at(&path)(e)),
        }
    }

    /// Replaces the catalogue file durably.
    pub(crate) fn save(&self, catalogue: &Catalogue) -> Result<(), Error> {
        let path = self.catalogue();
        replace_durably(&path, &catalogue.to_json(), &self.ownership()?).map_err(Error::at(&path))
    }

    /// Reads the manifest of a published version.
    pub fn load_manifest(&self, version: VersionId) -> Result<Manifest, Error> {
        let path = self.manifest(version);
        let bytes = fs::read(&path).map_err(Error::at(&path))?;
        let manifest = Manifest::from_bytes(&bytes).map_err(|e| Error::Damaged(path.clone(), e.to_string()))?;
        if manifest.version() == version { Ok(manifest) } else { Err(Error::Damaged(path, "not its name's".into())) }
    }

    /// Deletes the files of versions that left the catalogue. Running transfers keep the open file.
    pub(crate) fn delete(&self, versions: &[VersionId]) {
        for version in versions {
            for path in [self.content(*version), self.manifest(*version)] {
                if let Err(error) = fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(file = %path.display(), %error, "cannot delete an old version");
                }
            }
        }
    }
}

impl Catalogue {
    /// Makes `version` the current one of its object; returns the versions that are no longer served. `None` keeps the
    /// object's access or policy, so that no object becomes public by accident.
    pub(crate) fn publish(
        &mut self,
        id: VersionId,
        version: Version,
        access: Option<Access>,
        policy: Option<PolicyKeys>,
    ) -> Vec<VersionId> {
        let key = version.key.clone();
        let was_withdrawn = self.withdrawn.remove(&id).is_some();
        let before = self.objects.get(&key);
        let own = policy.or_else(|| Some(before?.own)).unwrap_or_default();
        let policy = own.over(self.default_of(key.0));
        let is_changed = before.is_some_and(|before| before.policy != policy);
        let serial = (was_withdrawn || is_changed).then(|| self.next_serial(version.published_ms));
        let object = self.objects.entry(key).or_insert_with(|| Object {
            current: id,
            older: Vec::new(),
            access: Access::default(),
            own,
            policy: policy.clone(),
            serial: 0,
        });
        object.serial = serial.unwrap_or(object.serial);
        object.access = access.unwrap_or(object.access);
        (object.own, object.policy) = (own, policy);
        if object.current == id && self.versions.contains_key(&id) {
            return Vec::new();
        }
        object.older.retain(|old| *old != id);
        if object.current != id {
            object.older.insert(0, std::mem::replace(&mut object.current, id));
        }
        let gone = object.older.split_off(object.older.len().min(OLD_VERSIONS_KEPT));
        gone.iter().for_each(|old| {
            self.versions.remove(old);
        });
        self.versions.insert(id, version);
        gone
    }

    /// Unpublishes an object; returns its versions, which are listed as withdrawn from now on.
    pub(crate) fn unpublish(&mut self, key: &ObjectKey, now_ms: u64) -> Option<Vec<VersionId>> {
        let object = self.objects.remove(key)?;
        let mut gone = object.older;
        gone.insert(0, object.current);
        self.withdrawn.retain(|_, at| now_ms < at.saturating_add(WITHDRAWN_FOR_MS));
        let serial = self.next_serial(now_ms);
        for old in &gone {
            self.versions.remove(old);
            self.withdrawn.insert(*old, serial);
        }
        while self.withdrawn.len() > WITHDRAWN_MAX {
            let oldest = self.withdrawn.iter().min_by_key(|(_, at)| **at).map(|(version, _)| *version);
            oldest.map(|version| self.withdrawn.remove(&version));
        }
        Some(gone)
    }

    /// Returns the policy of a provider's objects that set no keys of their own.
    fn default_of(&self, provider: ProviderId) -> Policy {
        self.defaults.get(&provider).copied().unwrap_or_default().over(Policy::default())
    }

    /// Sets the keys of the policy for all objects of a provider; an object's own keys override them. Returns the
    /// number of objects whose policy changes.
    pub(crate) fn set_default(&mut self, provider: ProviderId, keys: PolicyKeys, now_ms: u64) -> usize {
        self.defaults.insert(provider, keys);
        let (default, serial) = (self.default_of(provider), self.next_serial(now_ms));
        let objects = self.objects.iter_mut().filter(|((of, _), _)| *of == provider).map(|(_, object)| object);
        let mut changed = 0;
        for object in objects {
            let policy = object.own.over(default.clone());
            if object.policy != policy {
                (object.policy, object.serial) = (policy, serial);
                changed += 1;
            }
        }
        changed
    }

    /// Returns the serial number for a new notice, higher than all earlier ones.
    fn next_serial(&mut self, now_ms: u64) -> u64 {
        self.serial = self.serial.saturating_add(1).max(now_ms);
        self.serial
    }

    /// Returns the notice about a version; `None` if its policy was never changed and it is not withdrawn.
    #[must_use]
    pub fn notice(&self, version: VersionId) -> Option<Notice> {
        if let Some(serial) = self.withdrawn.get(&version) {
            return Some(Notice::about_version(version, *serial, &Terms::Withdrawn));
        }
        let (object, _) = self.version(version)?;
        let terms = Terms::Policy(object.policy.clone());
        (object.serial > 0).then(|| Notice::about_version(version, object.serial, &terms))
    }

    /// Returns the notices with serial numbers above `after`, in the order of these numbers.
    #[must_use]
    pub fn notices_after(&self, after: u64) -> Vec<Notice> {
        let changed = self.objects.values().filter(|object| object.serial > after);
        let changed = changed.flat_map(|object| object.older.iter().chain([&object.current]));
        let withdrawn = self.withdrawn.iter().filter(|(_, serial)| **serial > after).map(|(version, _)| version);
        let mut notices: Vec<Notice> = changed.chain(withdrawn).filter_map(|version| self.notice(*version)).collect();
        notices.sort_by_key(|n| n.serial);
        notices
    }

    /// Returns an object and its current version.
    #[must_use]
    pub fn current(&self, key: &ObjectKey) -> Option<(&Object, VersionId, &Version)> {
        let object = self.objects.get(key)?;
        Some((object, object.current, self.versions.get(&object.current)?))
    }

    /// Returns a served version and its object.
    #[must_use]
    pub fn version(&self, id: VersionId) -> Option<(&Object, &Version)> {
        let version = self.versions.get(&id)?;
        Some((self.objects.get(&version.key)?, version))
    }

    fn to_json(&self) -> Vec<u8> {
        let version = |id: &VersionId| {
            let v = self.versions.get(id)?;
            Some(VersionText {
                version: id.to_string(),
                size: v.size,
                sha256: v.sha256.to_string(),
                published_ms: v.published_ms,
            })
        };
        let object = |(key, object): (&ObjectKey, &Object)| ObjectText {
            provider: key.0.0,
            path: key.1.clone(),
            access: object.access.into(),
            policy: object.policy.clone().into(),
            own: Some(object.own),
            serial: object.serial,
            versions: std::iter::once(&object.current).chain(&object.older).filter_map(version).collect(),
        };
        let withdrawn = self.withdrawn.iter().map(|(version, at)| (version.to_string(), *at)).collect();
        let objects = self.objects.iter().map(object).collect();
        let defaults = self.defaults.iter().map(|(provider, keys)| (provider.0, *keys)).collect();
        let text = Text { format: FORMAT, objects, withdrawn, defaults, serial: self.serial };
        serde_json::to_vec_pretty(&text).unwrap_or_default()
    }

    fn from_json(json: &[u8]) -> Result<Self, String> {
        let text: Text = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        if text.format != FORMAT {
            return Err(format!("format {} is not known to this version", text.format));
        }
        let defaults = text.defaults.into_iter().map(|(provider, keys)| (ProviderId(provider), keys)).collect();
        let mut catalogue = Self { serial: text.serial, defaults, ..Self::default() };
        for (version, at_ms) in text.withdrawn {
            catalogue.withdrawn.insert(version.parse::<VersionId>().map_err(|e| e.to_string())?, at_ms);
        }
        for object in text.objects {
            let key = (ProviderId(object.provider), object.path);
            let mut ids = Vec::new();
            for v in object.versions {
                let id = v.version.parse::<VersionId>().map_err(|e| e.to_string())?;
                let sha256 = v.sha256.parse::<Digest>().map_err(|e| e.to_string())?;
                let version = Version { key: key.clone(), size: v.size, sha256, published_ms: v.published_ms };
                catalogue.versions.insert(id, version);
                ids.push(id);
            }
            if ids.is_empty() {
                return Err(format!("object {:?} has no version", key.1));
            }
            let current = ids.remove(0);
            catalogue.objects.insert(
                key,
                Object {
                    current,
                    older: ids,
                    access: object.access.into(),
                    own: object.own.unwrap_or_else(|| Policy::from(object.policy).into()),
                    policy: object.policy.into(),
                    serial: object.serial,
                },
            );
        }
        Ok(catalogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ground::terminal::units::Rate;

    fn version(path: &str) -> Version {
        let key = (ProviderId(1), path.into());
        Version { key, size: 7, sha256: Digest::numbered(3), published_ms: 5 }
    }

    #[test]
    fn a_catalogue_reads_back_as_it_was_written() {
        let mut c = Catalogue::default();
        c.publish(VersionId::numbered(1), version("a"), None, None);
        c.publish(
            VersionId::numbered(2),
            version("a"),
            Some(Access::Token),
            Some(Policy { rate_min: 9, ..Policy::default() }.into()),
        );
        c.publish(VersionId::numbered(3), version("b/c"), None, None);
        assert_eq!(Catalogue::from_json(&c.to_json()), Ok(c));
        assert!(Catalogue::from_json(b"{}").is_err());
        assert!(Catalogue::from_json(br#"{"format":9,"objects":[]}"#).is_err());
    }

    #[test]
    fn old_versions_are_served_until_there_are_too_many() {
        let mut c = Catalogue::default();
        let publish = |c: &mut Catalogue, n| c.publish(VersionId::numbered(n), version("a"), None, None);
        for n in 0..4 {
            assert_eq!(publish(&mut c, n), []);
        }
        assert_eq!(publish(&mut c, 4), [VersionId::numbered(0)]);
        assert_eq!(c.versions.len(), 1 + OLD_VERSIONS_KEPT);
        // republishing an old version makes it current and removes it from the older ones
        assert_eq!(publish(&mut c, 2), []);
        let object = &c.objects[&(ProviderId(1), "a".into())];
        assert_eq!(object.current, VersionId::numbered(2));
        assert_eq!(object.older, [4, 3, 1].map(VersionId::numbered));
        assert_eq!(c.unpublish(&(ProviderId(1), "a".into()), 1_000).map(|v| v.len()), Some(4));
        assert!(c.objects.is_empty() && c.versions.is_empty());
        assert_eq!(Catalogue::from_json(&c.to_json()).as_ref(), Ok(&c));
        let withdrawn = |c: &Catalogue| {
            c.notices_after(0).iter().filter_map(Notice::terms).filter(|(_, terms)| *terms == Terms::Withdrawn).count()
        };
        assert_eq!((withdrawn(&c), c.notices_after(1_000).len()), (4, 0));
        assert_eq!(publish(&mut c, 2), []);
        assert_eq!(withdrawn(&c), 3, "published again it is not withdrawn");
        let notice = c.notice(VersionId::numbered(2)).expect("a notice that takes the withdrawal back");
        assert_eq!((notice.serial, c.notices_after(1_000)), (1_001, vec![notice]));
    }

    #[test]
    fn republishing_the_same_version_only_changes_the_policy() {
        let mut c = Catalogue::default();
        c.publish(VersionId::numbered(1), version("a"), Some(Access::Token), None);
        let again = Version { published_ms: 99, ..version("a") };
        c.publish(VersionId::numbered(1), again, None, Some(Policy { peer_upload: false, ..Policy::default() }.into()));
        assert_eq!(c.versions[&VersionId::numbered(1)].published_ms, 5);
        let object = &c.objects[&(ProviderId(1), "a".into())];
        assert!(!object.policy.peer_upload);
        assert_eq!(object.access, Access::Token, "nothing becomes public by the way");
    }

    #[test]
    fn each_change_of_a_policy_is_a_notice_with_a_higher_serial_number() {
        let mut c = Catalogue::default();
        let mut publish = |n, rate_min, at_ms| {
            let version = Version { published_ms: at_ms, ..version("a") };
            c.publish(VersionId::numbered(n), version, None, Some(Policy { rate_min, ..Policy::default() }.into()));
            c.notices_after(0).iter().map(|n| (n.serial, n.terms().map(|(v, _)| v))).collect::<Vec<_>>()
        };
        let of = |n| Some(VersionId::numbered(n));
        assert_eq!(publish(1, 7, 50), [], "a grant says the first policy");
        assert_eq!(publish(1, 7, 60), [], "nothing has changed");
        assert_eq!(publish(1, 8, 70), [(70, of(1))]);
        assert_eq!(publish(2, 9, 70), [(71, of(1)), (71, of(2))], "two changes at one time");
        assert_eq!(publish(2, 10, 5), [(72, of(1)), (72, of(2))], "the clock was set back");
        let mut read = Catalogue::from_json(&c.to_json()).expect("valid");
        assert_eq!(read, c);
        assert_eq!(read.next_serial(0), 73);
    }

    #[test]
    fn a_providers_policy_counts_below_that_of_an_object() {
        let mut c = Catalogue::default();
        let rate = |c: &Catalogue, path: &str| c.objects[&(ProviderId(1), path.to_owned())].policy.upload_rate_max;
        let keys = |n| PolicyKeys { upload_rate_max: Some(Rate(n)), ..PolicyKeys::default() };
        c.publish(VersionId::numbered(1), version("plain"), None, None);
        c.publish(VersionId::numbered(2), version("own"), None, Some(keys(7)));
        assert_eq!(c.set_default(ProviderId(1), keys(9), 100), 1);
        assert_eq!((rate(&c, "plain"), rate(&c, "own")), (9, 7));
        let changed: Vec<_> = c.notices_after(0).iter().filter_map(Notice::terms).map(|(v, _)| v).collect();
        assert_eq!(changed, [VersionId::numbered(1)]);
        c.publish(VersionId::numbered(3), version("later"), None, None);
        assert_eq!(rate(&c, "later"), 9);
        assert_eq!(c.set_default(ProviderId(2), keys(1), 100), 0, "another provider's");
        assert_eq!(Catalogue::from_json(&c.to_json()).as_ref(), Ok(&c));
        let older =
            br#"{"format":1,"objects":[{"provider":1,"path":"a","policy":{"rate_min":5},"versions":[VERSION]}]}"#;
        let version = serde_json::json!({
            "version": VersionId::numbered(4).to_string(), "size": 1, "sha256": Digest::numbered(1).to_string(),
            "published_ms": 1,
        });
        let older = String::from_utf8_lossy(older).replace("VERSION", &version.to_string());
        let mut c = Catalogue::from_json(older.as_bytes()).expect("a file of an older version of the program");
        assert_eq!(c.set_default(ProviderId(1), keys(9), 100), 0, "every key is the object's own");
    }
}
