//! Room on disks: whether a download that a full disk has stopped can go on.

use super::Shared;
use super::version::lock;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use swarmedge_core::ids::{Handle, PieceIndex};

/// Room beside the download's own bytes: for the journal, and for what other programs write meanwhile.
const RESERVE: u64 = 1 << 20;
/// Most of the missing bytes for which there must be room before a download goes on.
const AHEAD: u64 = 64 << 20;

/// Fails with [`io::ErrorKind::StorageFull`] if the state directory's disk has no room for what the download lacks
/// next, or the output's disk none for the finished file.
pub(super) fn check(shared: &Shared, handle: Handle) -> io::Result<()> {
    let download = lock(&shared.kept).downloads.get(&handle).cloned();
    let granted = download.as_ref().and_then(|d| d.granted.as_ref()).map(|g| g.version);
    let version = granted.and_then(|id| lock(&shared.versions).get(&id).cloned());
    let Some((download, version)) = download.zip(version) else { return need(shared, &shared.pieces_dir, RESERVE) };
    let (layout, have) = (version.manifest.layout(), version.have().clone());
    let missing = (0..layout.pieces()).map(PieceIndex).filter(|piece| !have.contains(*piece));
    let missing: u64 = missing.map(|piece| u64::from(layout.piece_size(piece))).sum();
    need(shared, &shared.pieces_dir, missing.min(AHEAD).saturating_add(RESERVE))?;
    let output = Path::new(&download.output);
    let Some(dir) = output.parent().filter(|_| !download.output.is_empty()) else { return Ok(()) };
    // a hard link needs no room, and a copy all of it
    let device = |path: &Path| shared.disk.stamp(path).map(|stamp| stamp.file.0);
    let links = shared.links.load(Ordering::Relaxed) && device(dir).ok() == device(&shared.pieces_dir).ok();
    let whole = if links || missing > 0 { 0 } else { layout.size() };
    need(shared, dir, whole.saturating_add(RESERVE))
}

/// Fails with [`io::ErrorKind::StorageFull`] if a directory's disk has no room for so many bytes.
pub(super) fn need(shared: &Shared, dir: &Path, bytes: u64) -> io::Result<()> {
    // where it cannot be told, the write itself finds out
    let full = shared.disk.free(dir).is_ok_and(|free| free < bytes);
    if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
