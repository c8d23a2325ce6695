//! Whether the bytes of a data file are still those that were hashed. A piece counts as verified only if its bytes were
//! hashed after the last moment at which somebody else could write them. Such moments are the store's opening, a second
//! name for the user, and whatever leaves another stamp than the store's own last write.

use super::Version;
use std::io;
use swarmedge_core::content::Bitfield;
use swarmedge_core::ids::PieceIndex;
use swarmedge_ground::disk::Stamp;

/// The record of which bytes of a data file are verified.
#[derive(Debug)]
pub(super) struct Trust {
    /// The file's stamp at the last look, if any.
    seen: Option<Stamp>,
    /// Counter of the changes that were not the store's own.
    epoch: u64,
    /// Journalled pieces whose bytes were hashed in this epoch.
    hashed: Bitfield,
}

impl Trust {
    pub(in crate::store) fn new(pieces: u32) -> Self {
        Self { seen: None, epoch: 0, hashed: Bitfield::empty(pieces) }
    }

    /// Records that a piece's bytes were right in an epoch.
    pub(in crate::store) fn was_hashed(&mut self, piece: PieceIndex, epoch: u64) {
        if epoch == self.epoch {
            self.hashed.insert(piece);
        }
    }
}

/// The error that says: the data file is not the one that the store has written, or has another length.
pub(in crate::store) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the data file was replaced, cut or lengthened")
}

/// Whether an error says so.
pub(in crate::store) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

impl Version {
    /// Looks whether somebody else has changed the file; the epoch.
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

    /// By its name, which somebody may have given to another file.
    fn stamp_now(&self) -> io::Result<Stamp> {
        let own = self.file()?.stamp()?;
        let named = self.disk().stamp(self.path());
        let named = named.map_err(|e| if e.kind() == io::ErrorKind::NotFound { gone() } else { e })?;
        if named.file == own.file && named.len == self.size() { Ok(named) } else { Err(gone()) }
    }

    /// Writes; the epoch. What somebody else writes at the very same moment is not seen by it.
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

    /// The epoch in which a piece must still be hashed; `None`: it was.
    pub(in crate::store) fn doubts(&self, piece: PieceIndex) -> io::Result<Option<u64>> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        Ok(Some(trust.epoch).filter(|_| !trust.hashed.contains(piece)))
    }

    /// A piece was hashed and is right, unless somebody has changed the file since that epoch.
    pub(in crate::store) fn is_right(&self, piece: PieceIndex, epoch: u64) -> io::Result<()> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        // else the next change may leave the same time
        if trust.seen.is_some_and(|s| s.is_settled()) {
            trust.was_hashed(piece, epoch);
        }
        Ok(())
    }

    /// Whether every piece was hashed since somebody else could write to the file.
    pub(in crate::store) fn is_sure(&self) -> io::Result<bool> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        Ok(trust.hashed.is_full())
    }

    /// Sets the file's time back, so that whatever is written from now on gives another.
    pub(in crate::store) fn age(&self) -> io::Result<()> {
        let mut trust = self.trust();
        self.look_at(&mut trust)?;
        self.file()?.backdate()?;
        trust.seen = Some(self.stamp_now()?);
        Ok(())
    }
}
