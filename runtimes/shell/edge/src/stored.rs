//! A version's stored content: the open file, the identity of the file's state, and the check of its pieces.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use swarmedge_core::content::verdicts::FileIdentity;
use swarmedge_core::content::{Manifest, merkle};
use swarmedge_core::ids::{PieceIndex, VersionId};
use swarmedge_core::limits::BLOCK_LEN;

use super::catalogue::ObjectKey;

/// Bytes that are read and hashed at a time: whole blocks.
const READ_LEN: usize = 16 * BLOCK_LEN as usize;
/// Age of a file's last change, in seconds, above which every later change gets another time stamp.
const SETTLED_AFTER_S: i64 = 1;

/// The content file of a version, and its manifest. Clones share the open file.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Id of the version.
    pub id: VersionId,
    /// The open content file.
    pub file: Arc<File>,
    /// The version's manifest.
    pub manifest: Arc<Manifest>,
}

/// Where the bytes of a piece are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// From the page cache or the disk: the bytes are about to be sent.
    Read,
    /// From the disk itself where the system can do that, to find bytes that have decayed there.
    Scrub,
}

impl By {
    /// Returns the label for metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Scrub => "scrub",
        }
    }
}

impl Stored {
    /// Returns the object of this version.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        (self.manifest.provider, self.manifest.path.to_string())
    }

    /// Returns the piece that contains the byte at `offset`.
    #[must_use]
    pub fn piece_of(&self, offset: u64) -> PieceIndex {
        let piece = offset / u64::from(self.manifest.layout().piece_len());
        PieceIndex(u32::try_from(piece).unwrap_or(u32::MAX))
    }

    /// Returns the identity of the open file's state; every write changes it.
    pub fn identity(&self) -> io::Result<FileIdentity> {
        identity(&self.file).map(|(identity, _)| identity)
    }

    /// Hashes a piece; returns whether the hash is right. Blocks the thread.
    pub fn check_piece(&self, piece: PieceIndex, by: By) -> io::Result<bool> {
        let layout = self.manifest.layout();
        let range = layout.piece_range(piece);
        if by == By::Scrub {
            forget_cached(&self.file, range.start, range.end - range.start);
        }
        let mut leaves = Vec::new();
        let mut buffer = vec![0; READ_LEN];
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap_or(READ_LEN).min(READ_LEN);
            self.file.read_exact_at(&mut buffer[..len], at)?;
            leaves.extend(merkle::leaves(&buffer[..len]));
            at += len as u64;
        }
        Ok(self.manifest.root(piece) == Some(merkle::piece_root(&layout, piece, &leaves)))
    }
}

/// Drops a byte range of a file from the page cache, except pages that were modified there.
fn forget_cached(file: &File, start: u64, len: u64) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{Advice, fadvise};
        // on failure the bytes come from the page cache, where decay of the disk does not show
        let _ = fadvise(file, start, std::num::NonZeroU64::new(len), Advice::DontNeed);
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (file, start, len);
}

/// Returns the identity of an open file's state, and whether every later change gives another identity: time stamps of
/// file systems have a coarse resolution.
pub(super) fn identity(file: &File) -> io::Result<(FileIdentity, bool)> {
    let m = file.metadata()?;
    let now_s = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs().cast_signed());
    let settled = now_s.saturating_sub(m.ctime()) > SETTLED_AFTER_S;
    let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()].map(i64::cast_unsigned);
    let [modified, modified_ns, changed, changed_ns] = times;
    Ok((FileIdentity([m.dev(), m.ino(), m.len(), modified, modified_ns, changed, changed_ns]), settled))
}
