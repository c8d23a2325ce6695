//! Keeps track of whether a data file still has the bytes that were hashed. A piece counts as verified only if it was
//! hashed after another program could last have written to the file. That is possible before the store was opened,
//! and whenever the file's stamp (inode, length, times) is not the one that the store's own last write has left.

use super::Version;
use std::io;
use swarmedge_core::content::Bitfield;
use swarmedge_core::ids::PieceIndex;
use swarmedge_ground::disk::Stamp;

/// The record of which pieces of a data file are known to be right.
#[derive(Debug)]
pub(super) struct Trust {
    /// The file's stamp when it was checked last, if ever.
    seen: Option<Stamp>,
    /// The epoch: a counter of those changes of the file that were not the store's own.
    epoch: u64,
    /// Journalled pieces that were hashed in the current epoch, hence are known to be right.
    hashed: Bitfield,
}

impl Trust {
    pub(in crate::store) fn new(pieces: u32) -> Self {
        Self { seen: None, epoch: 0, hashed: Bitfield::empty(pieces) }
    }

    /// Records that a piece was hashed in `epoch` and is right; ignored if the file was changed since.
    pub(in crate::store) fn was_hashed(&mut self, piece: PieceIndex, epoch: u64) {
        if epoch == self.epoch {
            self.hashed.insert(piece);
        }
    }
}

/// Returns the error for a data file that was replaced by another one or has another length.
pub(in crate::store) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the data file was replaced, cut or lengthened")
}

/// Returns whether an error means that the data file was replaced or has another length.
pub(in crate::store) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

impl Version {
    /// Checks whether another program has changed the file; returns the current epoch.
    pub(in crate::store) fn look(&self) -> io::Result<u64> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        Ok(trust.epoch)
    }

    fn look_at(&self, trust: &mut Trust) -> io::Result<()> {
        let mut now = self.stamp_now()?;
        if trust.seen == Some(now) {
            return Ok(());
        }
        trust.epoch += 1;
        trust.hashed = Bitfield::empty(trust.hashed.len());
        if !self.is_hard_linked() {
            // where times cannot be set, the next change is told by the file system's clock
            drop(self.file()?.backdate());
            now = self.stamp_now()?;
        }
        trust.seen = Some(now);
        Ok(())
    }

    /// Returns the stamp of the file at the path. Fails if that is not the open file, or has another length.
    fn stamp_now(&self) -> io::Result<Stamp> {
        let own = self.file()?.stamp()?;
        let named = self.disk().stamp(self.path());
        let named = named.map_err(|e| if e.kind() == io::ErrorKind::NotFound { gone() } else { e })?;
        if named.file == own.file && named.len == self.size() { Ok(named) } else { Err(gone()) }
    }

    /// Writes to the file; returns the epoch in which this was done. A simultaneous write of another program is not
    /// detected.
    pub(in crate::store) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<u64> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        let file = self.file()?;
        if self.is_tainted() {
            // the length too may not be on the disk
            file.set_len(self.size())?;
        }
        let written = file.write_at(data, offset);
        // so that no later change can have the same time
        drop(file.backdate());
        trust.seen = Some(self.stamp_now()?);
        written.map(|()| trust.epoch)
    }

    /// Doubts every piece, so that each is hashed again before it is used.
    pub(in crate::store) fn distrust(&self) {
        let mut trust = self.trust();
        trust.epoch += 1;
        trust.hashed = Bitfield::empty(trust.hashed.len());
    }

    /// Returns the current epoch if the piece must be hashed again in it; `None` if that was done already.
    pub(in crate::store) fn doubts(&self, piece: PieceIndex) -> io::Result<Option<u64>> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        Ok(Some(trust.epoch).filter(|_| !trust.hashed.contains(piece)))
    }

    /// Records that a piece was hashed in `epoch` and is right, unless the file was changed since.
    pub(in crate::store) fn is_right(&self, piece: PieceIndex, epoch: u64) -> io::Result<()> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        // else the next change may leave the same time
        if trust.seen.is_some_and(|s| s.is_settled()) {
            trust.was_hashed(piece, epoch);
        }
        Ok(())
    }

    /// Returns whether every piece was hashed since another program could last write to the file.
    pub(in crate::store) fn is_sure(&self) -> io::Result<bool> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        Ok(trust.hashed.is_full())
    }

    /// Sets the file's mtime back, so that any later write gives the file another mtime.
    pub(in crate::store) fn age(&self) -> io::Result<()> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        self.file()?.backdate()?;
        trust.seen = Some(self.stamp_now()?);
        Ok(())
    }
}
