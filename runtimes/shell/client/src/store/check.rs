//! Hashes journalled pieces again if another program may have changed them (see `version/trust.rs`), and other files
//! to find whether they hold an object. Hashing takes at most about a second per GB; pieces that an earlier start of
//! the client has journalled are hashed once per start.

use super::version::{Version, is_gone, lock};
use super::{JOB_LEN, Shared, threads};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use swarmedge_core::content::{Manifest, merkle};
use swarmedge_core::ids::{Digest, PieceIndex, VersionId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::role::client::io::ObjectRef;
use swarmedge_ground::disk::{DiskFile, Kind};

/// Number of blocks that are read and hashed at a time.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const STEP: u32 = (JOB_LEN / BLOCK_LEN as usize) as u32;

/// The damage found in a data file.
#[derive(Debug)]
pub(super) enum Damage {
    /// The data file was replaced, or has another length.
    Gone,
    /// The listed pieces differ from the journalled ones.
    Pieces(Vec<PieceIndex>),
}

impl Damage {
    /// Returns the part of a reported damage that still exists: several threads may have reported it, and damaged
    /// pieces may have been fetched again meanwhile.
    pub(super) fn still(self, version: &Version) -> Option<Self> {
        let Self::Pieces(mut pieces) = self else { return Some(self) };
        let doubted = |piece| version.doubts(piece).map_or(true, |epoch| epoch.is_some());
        pieces.retain(|piece| version.have().contains(*piece) && doubted(*piece));
        Some(Self::Pieces(pieces)).filter(|damage| !matches!(damage, Self::Pieces(none) if none.is_empty()))
    }
}

/// The reason why an operation on a version failed.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Damaged(Damage),
    /// A file that the store may not replace has the output's path.
    Taken,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if is_gone(&e) { Self::Damaged(Damage::Gone) } else { Self::Io(e) }
    }
}

/// Reads blocks of a journalled piece. Wrong bytes are never returned, even if another program changes the file
/// meanwhile.
pub(super) fn read(
    shared: &Shared,
    version: &Version,
    piece: PieceIndex,
    blocks: Range<u32>,
) -> Result<Vec<u8>, Failure> {
    verify(shared, version, piece)?;
    let first = blocks.start;
    let data = version.read(piece, blocks, shared.buffers.take())?;
    // looked at afterwards: a change sets the stamp before it sets the bytes
    if version.doubts(piece)?.is_some() {
        let leaves = leaves(shared, version, piece)?;
        if !leaves.get(first as usize..).is_some_and(|rest| rest.starts_with(&merkle::leaves(&data))) {
            return Err(Failure::Damaged(Damage::Pieces(vec![piece])));
        }
    }
    Ok(data)
}

fn leaves(shared: &Shared, version: &Version, piece: PieceIndex) -> Result<Vec<Digest>, Failure> {
    let leaves = shared.journal.leaves(version.manifest.version(), piece).map_err(Failure::Io)?;
    leaves.ok_or_else(|| Failure::Io(io::ErrorKind::NotFound.into()))
}

/// Hashes a journalled piece again, unless that was done since another program could last write to it.
fn verify(shared: &Shared, version: &Version, piece: PieceIndex) -> Result<(), Failure> {
    let Some(epoch) = version.doubts(piece)? else { return Ok(()) };
    let leaves = leaves(shared, version, piece)?;
    let mut buffer = shared.buffers.take();
    for (first, expected) in (0_u32..).step_by(STEP as usize).zip(leaves.chunks(STEP as usize)) {
        let blocks = first..version.manifest.layout().blocks(piece).min(first.saturating_add(STEP));
        buffer = version.read(piece, blocks, buffer)?;
        if merkle::leaves(&buffer) != expected {
            return Err(Failure::Damaged(Damage::Pieces(vec![piece])));
        }
    }
    shared.buffers.give(buffer);
    Ok(version.is_right(piece, epoch)?)
}

/// Fails once the store is closed, to interrupt long work.
fn going_on(shared: &Shared) -> io::Result<()> {
    if shared.queue.is_closed() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

/// Makes sure that every journalled piece is undamaged; the error lists all damaged ones.
pub(super) fn check(shared: &Shared, version: &Version) -> Result<(), Failure> {
    let _one = lock(&version.checking);
    let mut damaged = Vec::new();
    let have = version.have().clone();
    for piece in have.iter() {
        going_on(shared).map_err(Failure::Io)?;
        match verify(shared, version, piece) {
            Err(Failure::Damaged(Damage::Pieces(pieces))) => damaged.extend(pieces),
            other => other?,
        }
    }
    if damaged.is_empty() { Ok(()) } else { Err(Failure::Damaged(Damage::Pieces(damaged))) }
}

/// Checks on a thread of its own the pieces that an earlier start has journalled, so that damaged ones are fetched
/// again while the rest of the version arrives.
pub(super) fn check_soon(shared: &Arc<Shared>, version: &Arc<Version>) {
    if version.have().is_empty() {
        return;
    }
    let of = Arc::clone(version);
    let work = move |shared: &Arc<Shared>| match check(shared, &of) {
        Err(Failure::Damaged(damage)) => shared.queue.lose(of, damage, || ()),
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(Failure::Io(error)) => tracing::warn!(%error, "what is journalled cannot be read"),
        Ok(()) | Err(Failure::Taken) => {}
    };
    if let Err(error) = threads::on_own_thread(shared, "store-check", work) {
        tracing::debug!(%error, "no thread to look at a data file: it is looked at when it is needed");
    }
}

/// Checks every journalled piece on a thread of its own, whatever is known of them, and passes to `done` whether all
/// are right. Damage is reported first.
pub(super) fn check_all(shared: &Arc<Shared>, version: &Arc<Version>, done: impl FnOnce(bool) + Send + 'static) {
    let (of, done) = (Arc::clone(version), Arc::new(Mutex::new(Some(done))));
    let tell = move |is_right| {
        if let Some(done) = lock(&done).take() {
            done(is_right);
        }
    };
    let otherwise = tell.clone();
    version.distrust();
    let work = move |shared: &Arc<Shared>| match check(shared, &of) {
        Ok(()) => tell(true),
        Err(Failure::Damaged(damage)) => shared.queue.lose(of, damage, move || tell(false)),
        Err(Failure::Io(_) | Failure::Taken) => tell(false),
    };
    if let Err(error) = threads::on_own_thread(shared, "store-check", work) {
        tracing::debug!(%error, "no thread to check a copy");
        otherwise(false);
    }
}

/// Hashes the file at `path`; returns the version of the object whose bytes it has, `None` if it has those of none
/// known here.
pub(super) fn version_at(shared: &Shared, object: &ObjectRef, path: &Path) -> io::Result<Option<VersionId>> {
    let path = shared.disk.follow(path)?;
    let there = match shared.disk.stamp(&path) {
        Ok(there) if there.kind == Kind::File => there,
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        // a symbolic link to nothing, or to no file
        Ok(_) | Err(_) => return Ok(None),
    };
    let is_of_it = |v: &Version| {
        let m = &v.manifest;
        m.provider == object.provider && *m.path == *object.path && m.layout().size() == there.len
    };
    let versions: Vec<_> = lock(&shared.versions).values().filter(|v| is_of_it(v)).cloned().collect();
    for version in versions {
        let own = shared.disk.stamp(version.path()).is_ok_and(|own| own.file == there.file);
        let is_right = if own { is_whole(shared, &version)? } else { holds(shared, &path, &version.manifest)? };
        if is_right {
            return Ok(Some(version.manifest.version()));
        }
    }
    Ok(None)
}

/// Returns whether the store's data file has all bytes of its version, after checking the pieces that need it.
fn is_whole(shared: &Shared, version: &Arc<Version>) -> io::Result<bool> {
    match check(shared, version) {
        Ok(()) => Ok(version.have().is_full()),
        Err(Failure::Damaged(damage)) => {
            shared.queue.lose(Arc::clone(version), damage, || ());
            Ok(false)
        }
        Err(Failure::Io(e)) => Err(e),
        Err(Failure::Taken) => Ok(false),
    }
}

/// Hashes a file; returns whether its bytes are exactly those that the manifest describes.
pub(super) fn holds(shared: &Shared, path: &Path, manifest: &Manifest) -> io::Result<bool> {
    let file = shared.disk.read(path)?;
    let (before, layout) = (file.stamp()?, manifest.layout());
    if before.len != layout.size() {
        return Ok(false);
    }
    for piece in layout.iter() {
        going_on(shared)?;
        let leaves = leaves_of(&*file, layout.piece_range(piece))?;
        if Some(merkle::piece_root(&layout, piece, &leaves)) != manifest.root(piece) {
            return Ok(false);
        }
    }
    Ok(file.stamp()? == before)
}

fn leaves_of(file: &dyn DiskFile, range: Range<u64>) -> io::Result<Vec<Digest>> {
    let mut leaves = Vec::new();
    let mut buffer = vec![0; JOB_LEN];
    for at in range.clone().step_by(JOB_LEN) {
        let len = usize::try_from(range.end - at).map_or(JOB_LEN, |left| left.min(JOB_LEN));
        file.read_at(&mut buffer[..len], at)?;
        leaves.extend(merkle::leaves(&buffer[..len]));
    }
    Ok(leaves)
}
