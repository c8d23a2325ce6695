//! Free disk space for a download: checked before anything is fetched, and before a download that a full disk has
//! stopped is resumed. A download needs space in the client's directory for its pieces, and at the output for a copy of
//! the file if the output is on another file system.

use super::Shared;
use super::version::lock;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use swarmedge_core::ids::Handle;
use swarmedge_core::role::client::io::{DownloadRecord, DownloadState, Granted};
use swarmedge_ground::disk::Room;
use swarmedge_ground::terminal::units::bytes;

/// Bytes required beyond the download's own: for the journal, and for what other programs write meanwhile.
const RESERVE: u64 = 1 << 20;

/// Bytes that a download still has to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needs {
    /// Bytes of pieces that are not stored yet.
    pieces: u64,
    /// Bytes of the output file if it is written as a copy; 0 without an output.
    copy: u64,
    /// Whether the finished file shares its bytes with the pieces where the file system can do that.
    links: bool,
}

/// File system without enough space for a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacking {
    /// The file system of the client's directory, where this many bytes are needed.
    State(u64),
    /// The file system of the output, where this many bytes are needed.
    Output(u64),
}

fn lacking(needs: Needs, state: Room, output: Option<Room>) -> Option<Lacking> {
    let elsewhere = output.filter(|output| output.device != state.device);
    let here = if output.is_some() && elsewhere.is_none() && !needs.links { needs.copy } else { 0 };
    let pieces = needs.pieces.saturating_add(here);
    if pieces > state.free {
        return Some(Lacking::State(pieces));
    }
    elsewhere.filter(|output| needs.copy > output.free).map(|_| Lacking::Output(needs.copy))
}

/// Returns in words which disk has too little space for a download that begins or is resumed; `None` if both have
/// enough, or if their free space is unknown.
pub(super) fn no_room(shared: &Shared, record: &DownloadRecord) -> Option<String> {
    let granted = record.granted.as_ref().filter(|_| record.state == DownloadState::Starting)?;
    shortage(shared, record, granted)
}

/// Fails with [`io::ErrorKind::StorageFull`] if a disk has too little space for a download that a full disk has
/// stopped, since the download would stop again at once.
pub(super) fn check(shared: &Shared, handle: Handle) -> io::Result<()> {
    let record = lock(&shared.kept).downloads.get(&handle).cloned();
    let full = match record.as_ref().and_then(|record| Some((record, record.granted.as_ref()?))) {
        Some((record, granted)) => shortage(shared, record, granted).is_some(),
        None => return need(shared, &shared.pieces_dir, RESERVE),
    };
    if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// Fails with [`io::ErrorKind::StorageFull`] if a directory's disk has less free space than `bytes`.
pub(super) fn need(shared: &Shared, dir: &Path, bytes: u64) -> io::Result<()> {
    // if the free space is unknown, the write itself fails on a full disk
    let full = shared.disk.room(dir).is_ok_and(|room| room.free < bytes);
    if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// Returns in words which disk has too little space for the rest of a granted download.
fn shortage(shared: &Shared, record: &DownloadRecord, granted: &Granted) -> Option<String> {
    let state = shared.disk.room(&shared.pieces_dir).ok()?;
    let dir = Some(Path::new(&record.output)).filter(|output| !output.as_os_str().is_empty()).and_then(Path::parent);
    let output = dir.and_then(|dir| shared.disk.room(dir).ok());
    let needs = Needs {
        pieces: missing(shared, granted).saturating_add(RESERVE),
        copy: if dir.is_some() { granted.size.saturating_add(RESERVE) } else { 0 },
        links: shared.links.load(Ordering::Relaxed),
    };
    let (what, place, needed, free) = match lacking(needs, state, output)? {
        Lacking::State(needed) => ("the client's directory", &*shared.pieces_dir, needed, state.free),
        Lacking::Output(needed) => ("the output", dir?, needed, output?.free),
    };
    let (free, needed, place) = (bytes(free), bytes(needed), place.display());
    Some(format!("the disk of {what}, at {place}, has {free} free where {needed} are needed"))
}

/// Returns the bytes of a granted version that are not stored yet.
fn missing(shared: &Shared, granted: &Granted) -> u64 {
    let version = lock(&shared.versions).get(&granted.version).cloned();
    let stored = version.map_or(0, |version| {
        let (layout, have) = (version.manifest.layout(), version.have().clone());
        let stored = layout.iter().filter(|piece| have.contains(*piece));
        stored.map(|piece| u64::from(layout.piece_size(piece))).sum()
    });
    granted.size.saturating_sub(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_that_lacks_room_is_found() {
        let room = |device, free| Room { device, free };
        let needs = Needs { pieces: 60, copy: 100, links: true };
        let on = |state, output| lacking(needs, state, output);
        assert_eq!(on(room(1, 60), Some(room(1, 60))), None, "the file shares the bytes of the pieces");
        assert_eq!(on(room(1, 59), Some(room(1, 59))), Some(Lacking::State(60)));
        assert_eq!(on(room(1, 60), Some(room(2, 100))), None);
        assert_eq!(on(room(1, 60), Some(room(2, 99))), Some(Lacking::Output(100)));
        assert_eq!(on(room(1, 10), Some(room(2, 10))), Some(Lacking::State(60)), "the first of two");
        assert_eq!(on(room(1, 60), None), None, "only the cache is to hold it");
        let copies = Needs { links: false, ..needs };
        assert_eq!(lacking(copies, room(1, 159), Some(room(1, 159))), Some(Lacking::State(160)));
        assert_eq!(lacking(copies, room(1, 160), Some(room(1, 160))), None);
    }
}
