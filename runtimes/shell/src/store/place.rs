//! Puts a finished file where the user wants it: as a second name of the data file where the file system can, else as
//! a copy. From then on the data file is *lent*: the user may change it, so its bytes are served only while its stamp
//! shows that nobody has, or after they were hashed anew. The store never writes to a lent file.

use super::change::Change;
use super::disk::Stamp;
use super::version::{Lent, Version, lock};
use super::writer::{Done, Job, What};
use super::{Shared, store_error};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use swarmedge_core::content::merkle;
use swarmedge_core::ids::{Handle, VersionId};
use swarmedge_core::role::client::io::StoreError;

/// Why a file is not in its place.
enum Failure {
    Io(io::Error),
    /// The data file is lent and not what it was.
    Changed,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Does it on a thread of its own, since it may take a while.
pub(super) fn place(shared: &Arc<Shared>, handle: Handle, version: VersionId, done: Done) {
    shared.queue.placing(true);
    let on = Arc::clone(shared);
    let slot = Arc::new(Mutex::new(Some(done)));
    let answer = Arc::clone(&slot);
    let work = move || {
        let placed = put(&on, handle, version);
        if let Some(done) = lock(&answer).take() {
            match placed {
                Ok(()) => on.queue.push(Job { what: What::Placed(version), done }),
                Err(Failure::Changed) => {
                    let done = Box::new(|_| done(Err(StoreError::Io)));
                    on.queue.push(Job { what: What::Lost(version), done });
                }
                Err(Failure::Io(e)) => {
                    tracing::warn!(error = %e, "a finished file cannot be put in its place");
                    done(Err(store_error(&e)));
                }
            }
        }
        // when the last placing has ended nothing but the store's owner may keep the directory locked
        let queue = Arc::clone(&on.queue);
        drop(on);
        queue.placing(false);
    };
    if let Err(e) = std::thread::Builder::new().name("store-place".into()).spawn(work) {
        shared.queue.placing(false);
        if let Some(done) = lock(&slot).take() {
            done(Err(store_error(&e)));
        }
    }
}

/// Where a file goes.
struct Target {
    output: PathBuf,
    dir: PathBuf,
    /// In the same directory, so that the rename cannot cross file systems; with the handle, so that no two downloads
    /// share it.
    part: PathBuf,
}

impl Target {
    fn new(output: &str, handle: Handle) -> io::Result<Self> {
        let output = Path::new(output);
        let name = output.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let dir = match output.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let part = dir.join(format!(".{name}.{handle}.part"));
        Ok(Self { output: output.to_owned(), dir: dir.to_owned(), part })
    }
}

fn put(shared: &Shared, handle: Handle, id: VersionId) -> Result<(), Failure> {
    let output = lock(&shared.books).downloads.get(&handle).map(|d| d.output.clone());
    let output = output.ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
    let version = lock(&shared.versions).get(&id).cloned().ok_or(io::ErrorKind::NotFound).map_err(io::Error::from)?;
    if !version.have().is_full() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not every piece is journalled").into());
    }
    if !version.is_pristine() {
        check(shared, id, &version)?;
    }
    // an empty version has had no piece that would have made its file
    let stamp = version.file()?.stamp()?;
    if output.is_empty() {
        return Ok(());
    }
    let target = Target::new(&output, handle)?;
    if shared.disk.stamp(&target.output).is_ok_and(|there| there.file == stamp.file) {
        // put there before, perhaps not durably
        return Ok(shared.disk.sync_dir(&target.dir)?);
    }
    // a file with two names of the user's would let a change of one of them change the other
    if shared.links.load(Ordering::Relaxed) && stamp.names == 1 && link(shared, id, &version, &target)? {
        return Ok(());
    }
    let copied = shared.disk.copy(version.path(), &target.part);
    if let Err(e) = copied.and_then(|()| shared.disk.rename(&target.part, &target.output)) {
        drop(shared.disk.remove(&target.part));
        return Err(e.into());
    }
    Ok(shared.disk.sync_dir(&target.dir)?)
}

/// `false`: the file system cannot, nothing has changed.
fn link(shared: &Shared, id: VersionId, version: &Version, target: &Target) -> io::Result<bool> {
    let file = version.file()?;
    if let Err(error) = file.age() {
        tracing::debug!(%error, "the time of a file cannot be set: it is copied");
        return Ok(false);
    }
    // first the journal: after a crash the file counts as lent even if the user has it and nothing else was written
    let before = file.stamp()?;
    shared.journal.commit(&[Change::Lent { version: id, stamp: None }])?;
    version.set_lent(Lent::Yes(None));
    drop(shared.disk.remove(&target.part));
    if let Err(error) = shared.disk.link(version.path(), &target.part) {
        tracing::debug!(%error, "no second name for a finished file: it is copied");
        shared.journal.commit(&[Change::Unlent(id)])?;
        version.set_lent(Lent::No);
        return Ok(false);
    }
    if let Err(e) = shared.disk.rename(&target.part, &target.output) {
        drop(shared.disk.remove(&target.part));
        return Err(e);
    }
    shared.disk.sync_dir(&target.dir)?;
    trust(version, &before);
    Ok(true)
}

/// The bytes are right if the file has not been changed since `before`.
fn trust(version: &Version, before: &Stamp) {
    let now = version.file().and_then(|f| f.stamp()).ok().filter(|now| now.is_same_content(before));
    version.set_lent(Lent::Yes(now));
}

/// Hashes a lent file anew.
fn check(shared: &Shared, id: VersionId, version: &Version) -> Result<(), Failure> {
    let failed = |e| if is_changed(&e) { Failure::Changed } else { Failure::Io(e) };
    let before = version.file().map_err(failed)?.stamp()?;
    let mut buffer = Vec::new();
    for piece in version.manifest.layout().iter() {
        let blocks = version.manifest.layout().blocks(piece);
        let (data, _) = version.read(piece, 0..blocks, buffer).map_err(failed)?;
        if !is_right(shared, id, piece, 0, &data)? {
            return Err(Failure::Changed);
        }
        buffer = data;
    }
    trust(version, &before);
    Ok(())
}

/// Whether an error says that a lent file was cut short, lengthened, or is not to be opened any more.
pub(super) fn is_changed(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, PermissionDenied, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | InvalidData | PermissionDenied)
}

/// Whether blocks of a journalled piece are what they were when it was journalled.
pub(super) fn is_right(
    shared: &Shared,
    version: VersionId,
    piece: swarmedge_core::ids::PieceIndex,
    first_block: u32,
    data: &[u8],
) -> io::Result<bool> {
    let Some(leaves) = shared.journal.leaves(version, piece)? else { return Ok(false) };
    Ok(leaves.get(first_block as usize..).is_some_and(|rest| rest.starts_with(&merkle::leaves(data))))
}
