//! Opening of a store that an earlier start has left.

use super::buffers::Buffers;
use super::change::Change;
use super::journal::{Journal, Loaded, PieceRow, add_sources};
use super::lock::DirLock;
use super::output::path_of;
use super::version::Version;
use super::{Callback, DELAYS, Error, KeepIndex, Restored, Shared};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use swarmedge_core::content::{Bitfield, Manifest};
use swarmedge_core::ids::VersionId;
use swarmedge_core::role::client::io::DownloadState;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::Notice;
use swarmedge_ground::disk::{Disk, Kind};

/// The store while it is being opened.
struct Restoring {
    disk: Arc<dyn Disk>,
    pieces_dir: PathBuf,
    kept: KeepIndex,
    versions: BTreeMap<VersionId, Arc<Version>>,
    restored: Restored,
    /// Journal changes that delete rows which nothing needs any more.
    drops: Vec<Change>,
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::Io { path: path.to_owned(), error }
}

/// Contents of the store's directory: journal, names of data files, and the lock.
pub(super) struct Found {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) pieces_dir: PathBuf,
    pub(super) journal: Journal,
    pub(super) loaded: Loaded,
    /// Paths of the files in `pieces_dir`.
    pub(super) names: Vec<PathBuf>,
    pub(super) lock: Option<DirLock>,
}

/// Builds the store from the journal; deletes records and data files that no download and no cached version needs.
pub(super) fn restore(found: Found) -> Result<(Shared, Restored), Error> {
    let Found { disk, pieces_dir, journal, loaded, names, lock } = found;
    let Loaded {
        downloads,
        mut pieces,
        manifests,
        usage,
        receipts,
        cached,
        hard_linked,
        parts,
        mut terms,
        notices,
        checkpoint,
        owner,
        uploads,
        why,
    } = loaded;
    let kept = KeepIndex {
        downloads: downloads.into_iter().map(|d| (d.handle, d)).collect(),
        cached: cached.into_keys().collect(),
    };
    terms.retain(|version, _| kept.keeps(*version));
    let restored = Restored { usage, receipts, terms, checkpoint, owner, uploads, why, ..Restored::default() };
    let mut r = Restoring { disk, pieces_dir, kept, versions: BTreeMap::new(), restored, drops: Vec::new() };
    for (id, manifest) in manifests {
        r.version(manifest, &pieces.remove(&id).unwrap_or_default(), hard_linked.contains(&id))?;
    }
    // pieces of a version without a manifest are of no use
    r.drops.extend(pieces.keys().map(|id| Change::DropVersion(*id)));
    parts.into_iter().for_each(|part| r.part(part));
    notices.into_iter().for_each(|notice| r.notice(notice));
    if !r.drops.is_empty() {
        journal.commit(&r.drops).map_err(|e| failed(&r.pieces_dir, e))?;
    }
    for name in &names {
        if !r.versions.values().any(|v| v.path() == name) {
            r.disk.remove(name).map_err(|e| failed(name, e))?;
        }
    }
    r.tell();
    let Restoring { disk, pieces_dir, kept, versions, restored, drops: _ } = r;
    let shared = Shared {
        disk,
        pieces_dir,
        journal,
        versions: Mutex::new(versions),
        kept: Mutex::new(kept),
        queue: Arc::default(),
        links: AtomicBool::new(true),
        modes: super::Modes::default(),
        lost: Callback::default(),
        not_placed: Callback::default(),
        no_room: Callback::default(),
        buffers: Buffers::default(),
        delays: DELAYS,
        _lock: lock,
    };
    Ok((shared, restored))
}

impl Restoring {
    /// Restores a version with its journalled pieces; if its data file is missing or has another length, without any
    /// piece.
    fn version(&mut self, manifest: Arc<Manifest>, rows: &[PieceRow], hard_linked: bool) -> Result<(), Error> {
        let id = manifest.version();
        let path = self.pieces_dir.join(id.to_string());
        let is_whole = self.disk.stamp(&path).is_ok_and(|s| s.kind == Kind::File && s.len == manifest.layout().size());
        let gone = !is_whole && !rows.is_empty();
        if gone {
            tracing::warn!(file = %path.display(), "a data file is gone or not whole; its pieces are fetched again");
            // deleted first: new bytes must never be written to a file that the user may have as a hard link
            self.disk.remove(&path).map_err(|e| failed(&path, e))?;
            self.forget_finished(id);
        }
        let keeps = self.kept.keeps(id);
        if gone || !keeps {
            self.drops.push(Change::DropVersion(id));
        }
        if !keeps {
            return Ok(());
        }
        let mut have = Bitfield::empty(manifest.layout().pieces());
        if gone {
            self.drops.push(Change::Manifest { version: id, bytes: manifest.to_bytes() });
        } else {
            for row in rows {
                have.insert(row.0);
                add_sources(&mut self.restored.sources, row);
            }
        }
        let version = Version::new(Arc::clone(&self.disk), &self.pieces_dir, manifest, have, hard_linked && !gone);
        self.versions.insert(id, Arc::new(version));
        Ok(())
    }

    /// Deletes the completed downloads of a version and its entry in the cache. Finished files stay with the user.
    fn forget_finished(&mut self, version: VersionId) {
        if self.kept.cached.remove(&version) {
            self.drops.push(Change::Uncached(version));
        }
        let drops = &mut self.drops;
        self.kept.downloads.retain(|handle, d| {
            let granted = d.granted.as_ref().filter(|g| g.version == version && d.state == DownloadState::Completed);
            let Some(granted) = granted else { return true };
            drops.extend([Change::DropDownload(*handle), Change::DropKey(granted.download)]);
            false
        });
    }

    /// Restores the newest notice about a version that is kept.
    fn notice(&mut self, notice: Notice) {
        let Some(version) = notice.subject.as_version() else { return };
        if self.kept.keeps(version) {
            self.restored.notices.push(notice);
        } else {
            self.drops.push(Change::DropNotice(version));
        }
    }

    /// Deletes a partial file that a crash left in a user's directory.
    fn part(&mut self, path: Vec<u8>) {
        if let Err(error) = self.disk.remove(path_of(&path)) {
            tracing::warn!(file = %path_of(&path).display(), %error, "what a crash has left cannot be deleted");
        }
        self.drops.push(Change::Part { path, there: false });
    }

    fn tell(&mut self) {
        let have = |id| self.versions.get(&id).map(|v| v.have().clone());
        for d in self.kept.downloads.values() {
            let known = d.granted.as_ref().and_then(|g| have(g.version));
            self.restored.downloads.push((d.clone(), known.unwrap_or_else(|| Bitfield::empty(0))));
        }
        for id in &self.kept.cached {
            if let Some(v) = self.versions.get(id) {
                self.restored.cached.push((*id, v.manifest.layout(), v.have().clone()));
            }
        }
    }
}
