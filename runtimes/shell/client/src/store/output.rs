//! Puts a finished file at the user's path: as a hard link to the data file where the file system can, else as a
//! copy. After hard-linking the user may change the data file. So its pieces are hashed again before they are served,
//! once as long as the file's stamp (inode, length, times) shows no change, and the store never writes to the file.
//!
//! An existing file at the user's path is replaced only if the user asked for it, or if it has the bytes of an
//! earlier download of the object. Devices, FIFOs, sockets and directories are never replaced. If the user asked for
//! it, a symbolic link is followed and its target replaced, as curl and wget do.

use super::change::Change;
use super::check::{Failure, check, holds, version_at};
use super::threads::on_own_thread;
use super::version::{Version, lock};
use super::writer::{Done, Job, What};
use super::{Shared, room, store_error};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use swarmedge_core::ids::{Handle, VersionId};
use swarmedge_core::role::client::io::{DownloadRecord, StoreError};
use swarmedge_ground::disk::Kind;

/// Puts a finished file at the user's path on a thread of its own; `done` is called at the end.
pub(super) fn put_output(shared: &Arc<Shared>, handle: Handle, id: VersionId, done: Done) {
    let slot = Arc::new(Mutex::new(Some(done)));
    let answer = Arc::clone(&slot);
    let work = move |on: &Arc<Shared>| {
        let Some(done) = lock(&answer).take() else { return };
        let known = lock(&on.kept).downloads.get(&handle).cloned().zip(lock(&on.versions).get(&id).cloned());
        let Some((download, version)) = known else { return done(Err(StoreError::Io)) };
        match put(on, &download, &version) {
            Ok(()) => on.queue.push(Job { what: What::Placed(id), done }),
            Err(Failure::Damaged(damage)) => on.queue.lose(version, damage, || done(Err(StoreError::Io))),
            Err(Failure::Taken) => {
                on.not_placed.tell((handle, download.output));
                done(Err(StoreError::Taken));
            }
            Err(Failure::Io(e)) => {
                tracing::warn!(output = download.output, error = %e, "a finished file cannot be put in its place");
                let why = format!("cannot put {} in place: {}", download.output, swarmedge_ground::error::reason(&e));
                on.not_placed.tell((handle, why));
                done(Err(store_error(&e)));
            }
        }
    };
    if let Err(e) = on_own_thread(shared, "store-place", work)
        && let Some(done) = lock(&slot).take()
    {
        done(Err(store_error(&e)));
    }
}

/// Returns an unpredictable name in the directory of `file`, for a partial file. The name is valid wherever the name
/// of `file` is: it has the same characters and, unless `file` has a short name, is not longer.
pub fn temporary_name(file: &Path) -> io::Result<PathBuf> {
    /// Names up to this length in bytes are extended; longer ones are cut to make space.
    const SHORT: usize = 32;
    let name = file.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
    let mut nonce = [0; 6];
    getrandom::fill(&mut nonce)?;
    let extra = format!(".{}", data_encoding::HEXLOWER.encode(&nonce));
    let mut kept = if name.len() <= SHORT { name.len() } else { name.len() - extra.len() - 1 };
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    Ok(file.with_file_name(format!(".{}{extra}", &name[..kept])))
}

fn dir_of(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The kind of file at the output's path.
enum OutputState {
    Nothing,
    /// The finished file itself, placed earlier.
    Itself,
    /// Another file that may be replaced.
    Older,
}

fn put(shared: &Shared, download: &DownloadRecord, version: &Version) -> Result<(), Failure> {
    if !version.have().is_full() {
        return Err(Failure::Io(io::Error::other("not every piece is journalled")));
    }
    check(shared, version)?;
    // an empty version has had no piece that would have made its file
    version.look()?;
    if download.output.is_empty() {
        return Ok(());
    }
    let output = Path::new(&download.output);
    let output = if download.replace { shared.disk.follow(output).map_err(Failure::Io)? } else { output.to_owned() };
    let replace = match output_state(shared, download, version, &output)? {
        // perhaps not durably
        OutputState::Itself => return shared.disk.sync_dir(dir_of(&output)).map_err(Failure::Io),
        OutputState::Nothing => false,
        OutputState::Older => true,
    };
    let part = temporary_name(&output).map_err(Failure::Io)?;
    let mode = shared.modes.of(Path::new(&download.output));
    let made = make(shared, version, &part, mode).and_then(|()| {
        let renamed = if replace { shared.disk.rename(&part, &output) } else { shared.disk.rename_new(&part, &output) };
        match renamed {
            // made meanwhile; perhaps the same file, by a copy of this client
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let itself =
                    output_state(shared, download, version, &output).map(|s| matches!(s, OutputState::Itself))?;
                drop(shared.disk.remove(&part));
                if itself { Ok(()) } else { Err(Failure::Taken) }
            }
            Err(e) if e.kind() == io::ErrorKind::IsADirectory => Err(Failure::Taken),
            Err(e) => Err(Failure::Io(e)),
            Ok(()) => shared.disk.sync_dir(dir_of(&output)).map_err(Failure::Io),
        }
    });
    if made.is_err() {
        drop(shared.disk.remove(&part));
    }
    shared.journal.later(Change::Part { path: bytes_of(&part), there: false });
    made
}

/// Returns what lies at the path of the finished file: nothing, this content, or something else.
fn output_state(
    shared: &Shared,
    download: &DownloadRecord,
    version: &Version,
    output: &Path,
) -> Result<OutputState, Failure> {
    let there = match shared.disk.stamp(output) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(OutputState::Nothing),
        Err(e) => return Err(Failure::Io(e)),
    };
    if there.file == version.file()?.stamp()?.file {
        return Ok(OutputState::Itself);
    }
    match there.kind {
        Kind::File if download.replace => Ok(OutputState::Older),
        Kind::File | Kind::Link => match version_at(shared, &download.object, output).map_err(Failure::Io)? {
            Some(id) if id == version.manifest.version() => Ok(OutputState::Itself),
            Some(_) if there.kind == Kind::File && shared.disk.stamp(output).is_ok_and(|now| now == there) => {
                Ok(OutputState::Older)
            }
            _ => Err(Failure::Taken),
        },
        Kind::Directory | Kind::Special => Err(Failure::Taken),
    }
}

/// Makes a file with these permission bits beside the user's place. The journal names it first: what a crash leaves of
/// it goes at the next start.
fn make(shared: &Shared, version: &Version, part: &Path, mode: Option<u32>) -> Result<(), Failure> {
    // a file with two names of the user's would let a change of one of them change the other
    let links = shared.links.load(Ordering::Relaxed) && version.file()?.stamp()?.names == 1;
    // the bits are the data file's too, which the client must be able to open
    let links = links && mode.is_none_or(|mode| mode & 0o600 == 0o600);
    if !(links && link(shared, version, part)?) {
        shared.journal.commit(&[announced(part)]).map_err(Failure::Io)?;
        room::need(shared, dir_of(part), version.manifest.layout().size()).map_err(Failure::Io)?;
        shared.disk.copy(version.path(), part).map_err(Failure::Io)?;
        if !version.is_sure()? && !holds(shared, part, &version.manifest).map_err(Failure::Io)? {
            return Err(changed());
        }
    }
    if let Some(mode) = mode
        && let Err(error) = shared.disk.set_mode(part, mode)
    {
        // some file systems have no modes
        tracing::debug!(%error, "the mode of a finished file cannot be set");
    }
    Ok(())
}

/// Returns the error for a data file that another program changes; the next attempt finds the damage.
fn changed() -> Failure {
    Failure::Io(io::Error::other("somebody else writes to the data file"))
}

/// Makes `part` a hard link to the data file; `false`, with nothing changed, if the file system cannot.
fn link(shared: &Shared, version: &Version, part: &Path) -> Result<bool, Failure> {
    let (id, file) = (version.manifest.version(), version.file()?);
    if let Err(error) = version.age() {
        tracing::debug!(%error, "the time of a file cannot be set: it is copied");
        return Ok(false);
    }
    let before = file.stamp()?;
    if !version.is_sure()? {
        return Err(changed());
    }
    // first the journal: after a crash the file counts as hard-linked even if the user has it and nothing else is
    // written
    shared.journal.commit(&[announced(part), Change::HardLinked(id)]).map_err(Failure::Io)?;
    version.set_hard_linked(true);
    if let Err(error) = shared.disk.link(version.path(), part) {
        tracing::debug!(%error, "no second name for a finished file: it is copied");
        shared.journal.commit(&[Change::NotHardLinked(id)]).map_err(Failure::Io)?;
        version.set_hard_linked(false);
        return Ok(false);
    }
    let now = shared.disk.stamp(part).map_err(Failure::Io)?;
    if now.is_same_content(&before) { Ok(true) } else { Err(changed()) }
}

/// Returns the journal's change that records a partial file in a user's directory, which a crash may leave behind.
fn announced(part: &Path) -> Change {
    Change::Part { path: bytes_of(part), there: true }
}

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Returns the path that the journal stores as these bytes.
pub(super) fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
