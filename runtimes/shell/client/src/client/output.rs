//! Checks of a download's output path before a byte is fetched: an unusable path is refused with the reason.

use super::api_state::ApiState;
use super::protocol::Failure;
use crate::store::{Kind, PutThere, follow, make_private, temporary_name};
use std::fs;
use std::io;
use std::path::Path;
use swarmedge_core::role::client::io::{DownloadState, DownloadStatus, ObjectRef};
use swarmedge_ground::error::{Code, Error, reason};

const ELSEWHERE: &str = "name a file elsewhere with -o";

fn refused<T>(reason: String, next: &str) -> Result<T, Failure> {
    Err(Failure::new(Code::Usage, reason, next))
}

/// Checks that a download may write to `output`: an existing file is only replaced with `force`, or if an earlier
/// download of the object put it there. The store checks again before placing the file.
pub(super) fn may_write(
    api_state: &ApiState,
    put_there: &PutThere,
    object: &ObjectRef,
    output: &str,
    force: bool,
) -> Result<(), Failure> {
    if output.is_empty() {
        // only the cache is to hold it
        return Ok(());
    }
    let path = Path::new(output);
    if !path.is_absolute() {
        return refused(format!("{output:?} is not an absolute path"), "name the file by its full path");
    }
    let there = stands(path)?;
    if !path.parent().is_some_and(Path::is_dir) {
        return refused(format!("there is no directory for {output}"), "make the directory first");
    }
    if !path.file_name().is_some_and(|name| output.ends_with(&*name.to_string_lossy())) {
        return refused(format!("{output} names a directory that is not there"), "make the directory, or name a file");
    }
    let known: Vec<_> = api_state.downloads().into_iter().filter(|(status, _)| status.object == *object).collect();
    let running = |status: &DownloadStatus| matches!(status.state, DownloadState::Starting | DownloadState::Running);
    if known.iter().any(|(status, theirs)| running(status) && theirs == output) {
        // it has been looked at
        return Ok(());
    }
    if there && !force {
        // what is here already needs no room for another file
        return may_replace(put_there, object, output, known.iter().any(|(_, theirs)| theirs == output));
    }
    let target = if force { follow(path).map_err(|e| unusable(output, &e))? } else { path.to_owned() };
    may_make_beside(&target)
}

/// Returns whether something replaceable is at `path`. Fails for directories, devices, FIFOs and sockets, which never
/// are.
fn stands(path: &Path) -> Result<bool, Failure> {
    let shown = path.display();
    let target = match follow(path).and_then(|target| Kind::at(&target)) {
        Ok(target) => Some(target),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(e) => return Err(unusable(&shown.to_string(), &e)),
    };
    match target {
        Some(Kind::Directory) => refused(format!("{shown} is a directory"), "name the file with -o"),
        Some(Kind::Special) => {
            refused(format!("{shown} is a device, a FIFO or a socket: only files are written"), ELSEWHERE)
        }
        Some(Kind::File | Kind::Link) => Ok(true),
        // a symbolic link to nothing is something
        None => Ok(Kind::at(path).is_ok()),
    }
}

fn may_replace(put_there: &PutThere, object: &ObjectRef, output: &str, was_put_there: bool) -> Result<(), Failure> {
    let ours = put_there(object, Path::new(output));
    if ours.unwrap_or(false) {
        return Ok(());
    }
    let what = if was_put_there { "is not what was downloaded any more" } else { "is there already" };
    refused(format!("{output} {what}"), "use --force to replace it, or another name with -o")
}

fn unusable(output: &str, e: &io::Error) -> Failure {
    Failure::new(code(e), format!("{output} cannot be used: {}", reason(e)), ELSEWHERE)
}

/// Returns the exit code of an error with the output path: a wrong argument, unless the disk reports the error.
fn code(e: &io::Error) -> Code {
    if Error::io("", e).code() == Code::Disk { Code::Disk } else { Code::Usage }
}

/// Checks that a file can be made in the target's directory, by making one and removing it.
fn may_make_beside(target: &Path) -> Result<(), Failure> {
    let made = temporary_name(target).and_then(|probe| make_private(&probe).and_then(|_| fs::remove_file(&probe)));
    made.map_err(|e| {
        let dir = target.parent().unwrap_or(Path::new("/"));
        Failure::new(code(&e), format!("no file can be made in {}: {}", dir.display(), reason(&e)), ELSEWHERE)
    })
}
