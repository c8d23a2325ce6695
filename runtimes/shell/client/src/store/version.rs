//! One version's data file, and the state of those pieces that are being received.

mod trust;

use super::store_error;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use swarmedge_core::content::{Bitfield, Manifest, merkle};
use swarmedge_core::ids::{Digest, PieceIndex};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::role::client::io::FetchEnd;
use swarmedge_ground::disk::{Disk, DiskFile};
pub(super) use trust::is_gone;
use trust::{Trust, gone};

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A version's data file and the state of its pieces.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) manifest: Arc<Manifest>,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    file: OnceLock<Arc<dyn DiskFile>>,
    opening: Mutex<()>,
    /// Whether the file was created and its directory entry is not synced yet.
    unnamed: AtomicBool,
    /// Whether a sync of the file has failed: data written before may be lost although later syncs succeed, since the
    /// kernel marks such pages clean. From then on a piece is written again before it is synced.
    tainted: AtomicBool,
    /// Record of which bytes are known to be right. Locked during writes: a file system allows one write at a time to
    /// a file, and threads that wait for it in the kernel spin.
    trust: Mutex<Trust>,
    /// The pieces recorded in the journal.
    have: Mutex<Bitfield>,
    /// Pieces received in part, or whole and not yet journalled.
    open: Mutex<BTreeMap<PieceIndex, Arc<Piece>>>,
    /// Whether the user has, or may have, a hard link to the data file.
    hard_linked: AtomicBool,
    /// Lock held while the whole version is checked, so that only one thread checks it at a time.
    pub(super) checking: Mutex<()>,
}

/// A piece that is being received.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) index: PieceIndex,
    blocks: u32,
    state: Mutex<PieceState>,
}

#[derive(Debug)]
struct PieceState {
    /// The piece's leaf hashes, once known and checked against the piece's root.
    expected: Option<Vec<Digest>>,
    /// The hash of each block that is in the file. Once `expected` is known, only hashes that match it.
    got: Vec<Option<Digest>>,
    /// The value of [`Trust`]'s counter of foreign changes when the first block was written.
    since: Option<u64>,
    /// Whether the piece is complete and being journalled, so that no more bytes of it are written. It stays sealed
    /// if the journal's write fails, and may be saved again.
    sealed: bool,
}

/// The reason why a piece cannot be journalled.
#[derive(Debug)]
pub(crate) enum NotWhole {
    /// A block is missing or was never checked.
    Unverified,
    /// The checked bytes are not in the file any more: somebody else has written to it.
    Damaged,
    /// The file was replaced by another one, or has another length.
    Gone,
    /// The disk reported an error.
    Io(io::Error),
}

impl Version {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        manifest: Arc<Manifest>,
        have: Bitfield,
        hard_linked: bool,
    ) -> Self {
        Self {
            path: dir.join(manifest.version().to_string()),
            manifest,
            disk,
            file: OnceLock::new(),
            opening: Mutex::new(()),
            unnamed: AtomicBool::new(false),
            tainted: AtomicBool::new(false),
            trust: Mutex::new(Trust::new(have.len())),
            have: Mutex::new(have),
            open: Mutex::new(BTreeMap::new()),
            hard_linked: AtomicBool::new(hard_linked),
            checking: Mutex::new(()),
        }
    }

    pub(crate) fn is_hard_linked(&self) -> bool {
        self.hard_linked.load(Ordering::Relaxed)
    }

    pub(crate) fn set_hard_linked(&self, hard_linked: bool) {
        self.hard_linked.store(hard_linked, Ordering::Relaxed);
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        lock(&self.trust)
    }

    pub(super) fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::Relaxed)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn size(&self) -> u64 {
        self.manifest.layout().size()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn have(&self) -> MutexGuard<'_, Bitfield> {
        lock(&self.have)
    }

    /// Returns the data file, opened at first use. It is created sparse and at full size if it is missing; a file
    /// with journalled pieces is never lengthened.
    pub(crate) fn file(&self) -> io::Result<&Arc<dyn DiskFile>> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let _one = lock(&self.opening);
        if self.file.get().is_none() {
            // a user who may only read takes that away from us too
            let is_theirs = |e: &io::Error| self.is_hard_linked() && e.kind() == io::ErrorKind::PermissionDenied;
            let file = self.disk.open(&self.path).map_err(|e| if is_theirs(&e) { gone() } else { e })?;
            if file.len()? != self.size() {
                if self.is_hard_linked() || !self.have().is_empty() {
                    return Err(gone());
                }
                file.set_len(self.size())?;
                self.unnamed.store(true, Ordering::Relaxed);
            }
            // nobody else sets it: `opening` is held
            drop(self.file.set(file));
        }
        self.file.get().ok_or_else(|| io::Error::other("the data file was not opened"))
    }

    /// Reads blocks of a journalled piece from the file, without checking them.
    pub(crate) fn read(&self, piece: PieceIndex, blocks: Range<u32>, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        if !self.have().contains(piece) {
            return Err(io::ErrorKind::NotFound.into());
        }
        #[cfg(feature = "lies")]
        if let Some(data) = self.beside("rotten", piece, blocks.clone()) {
            return Ok(data);
        }
        let range = self.manifest.layout().block_range(piece, blocks);
        let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        buffer.resize(len, 0);
        self.file()?.read_at(&mut buffer, range.start)?;
        Ok(buffer)
    }

    /// For tests of lying peers and rotten disks: reads bytes that a test has put in the version's place. Those in
    /// `instead` are served although the store's own are right; those in `rotten` are all that the disk still has.
    #[cfg(feature = "lies")]
    pub(super) fn beside(&self, folder: &str, piece: PieceIndex, blocks: Range<u32>) -> Option<Vec<u8>> {
        let file = self.path().parent()?.with_file_name(folder).join(self.path().file_name()?);
        let range = self.manifest.layout().block_range(piece, blocks);
        let mut data = vec![0; usize::try_from(range.end - range.start).ok()?];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::open(file).ok()?, &mut data, range.start).ok()?;
        Some(data)
    }

    /// Returns the state of a piece that is being received; `None` if the piece is journalled.
    pub(crate) fn piece(&self, index: PieceIndex) -> Option<Arc<Piece>> {
        let mut open = lock(&self.open);
        if self.have().contains(index) {
            return None;
        }
        let piece = open.entry(index).or_insert_with(|| {
            let blocks = self.manifest.layout().blocks(index);
            let state = PieceState { expected: None, got: vec![None; blocks as usize], since: None, sealed: false };
            Arc::new(Piece { index, blocks, state: Mutex::new(state) })
        });
        Some(Arc::clone(piece))
    }

    /// Hashes the blocks in `data`, compares them with the leaf hashes if these are known, and writes them to the
    /// file from block `first` on. Blocks before a bad one are written.
    pub(crate) fn write(&self, piece: &Piece, first: u32, data: &[u8]) -> Result<(), FetchEnd> {
        let hashes = merkle::leaves(data);
        let mut state = lock(&piece.state);
        let at = first as usize;
        let good = match state.expected.as_deref().and_then(|e| e.get(at..at + hashes.len())) {
            Some(expected) => hashes.iter().zip(expected).take_while(|(h, e)| h == e).count(),
            None => hashes.len(),
        };
        if !state.sealed && good > 0 {
            let bytes = data.len().min(good * BLOCK_LEN as usize);
            let range = self.manifest.layout().block_range(piece.index, first..piece.blocks);
            let epoch = self.write_at(&data[..bytes], range.start);
            state.since.get_or_insert(epoch.map_err(|e| write_failed(&e))?);
            let blocks = first..piece.blocks;
            for (slot, hash) in state.got[blocks.start as usize..].iter_mut().zip(&hashes[..good]) {
                *slot = Some(*hash);
            }
        }
        match u32::try_from(good) {
            Ok(n) if good < hashes.len() => Err(FetchEnd::BadBlock { block: first + n }),
            _ => Ok(()),
        }
    }

    /// Syncs the data file, and its directory entry if it is new.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let result = self.file().and_then(|f| f.sync()).and_then(|()| {
            if self.unnamed.load(Ordering::Relaxed) {
                self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(".")))?;
                self.unnamed.store(false, Ordering::Relaxed);
            }
            Ok(())
        });
        if result.is_err() {
            self.tainted.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Ends writing to a piece that is to be journalled; returns its leaf hashes. Fails unless every block was
    /// verified. If another program may have changed the file since, the piece is hashed again.
    pub(crate) fn seal(&self, index: PieceIndex) -> Result<Vec<Digest>, NotWhole> {
        let piece = lock(&self.open).get(&index).cloned().ok_or(NotWhole::Unverified)?;
        let mut state = lock(&piece.state);
        let expected = state.expected.clone().ok_or(NotWhole::Unverified)?;
        if state.got.iter().zip(&expected).any(|(got, e)| got.as_ref() != Some(e)) {
            return Err(NotWhole::Unverified);
        }
        let epoch = self.look()?;
        if self.is_tainted() || state.since != Some(epoch) {
            state.since = Some(self.read_again(index, &expected, epoch)?);
        }
        state.sealed = true;
        Ok(expected)
    }

    /// Hashes a piece again from the file, and writes it again if an earlier sync has failed (see `tainted`). Returns
    /// the counter of foreign changes at that time.
    fn read_again(&self, index: PieceIndex, leaves: &[Digest], epoch: u64) -> Result<u64, NotWhole> {
        let range = self.manifest.layout().piece_range(index);
        let mut buffer = vec![0; self.manifest.layout().piece_size(index) as usize];
        self.file()?.read_at(&mut buffer, range.start)?;
        if merkle::leaves(&buffer) != leaves {
            return Err(NotWhole::Damaged);
        }
        if self.is_tainted() { Ok(self.write_at(&buffer, range.start)?) } else { Ok(epoch) }
    }

    /// Marks a piece as journalled.
    pub(crate) fn done(&self, index: PieceIndex) {
        let mut open = lock(&self.open);
        self.have().insert(index);
        if let Some(since) = open.remove(&index).and_then(|piece| lock(&piece.state).since) {
            self.trust().was_hashed(index, since);
        }
    }

    /// Removes pieces that are no longer journalled.
    pub(crate) fn forget(&self, pieces: &[PieceIndex]) {
        for piece in pieces {
            self.have().remove(*piece);
            self.lost(*piece);
        }
    }

    /// Drops the state of a piece that could not be made durable and must be fetched again.
    pub(crate) fn lost(&self, index: PieceIndex) {
        lock(&self.open).remove(&index);
    }
}

/// Returns how a transfer ends if its bytes cannot be written: as broken if the data file was replaced, since a new
/// one will be made.
fn write_failed(e: &io::Error) -> FetchEnd {
    if is_gone(e) { FetchEnd::Broken } else { FetchEnd::Store(store_error(e)) }
}

impl From<io::Error> for NotWhole {
    fn from(e: io::Error) -> Self {
        if is_gone(&e) { Self::Gone } else { Self::Io(e) }
    }
}

impl Piece {
    /// Stores the leaf hashes after checking them against the piece's root. Blocks received before that do not match
    /// them are dropped.
    pub(crate) fn expect(&self, manifest: &Manifest, leaves: Vec<Digest>) -> Result<(), FetchEnd> {
        let whole = leaves.len() == self.blocks as usize;
        let made = whole.then(|| merkle::piece_root(&manifest.layout(), self.index, &leaves));
        if made.is_none() || made != manifest.root(self.index) {
            return Err(FetchEnd::BadBlock { block: 0 });
        }
        lock(&self.state).expect(leaves);
        Ok(())
    }

    /// Ends a transfer of blocks from `first` on whose leaf hashes were unknown: if the whole piece is received,
    /// checks it against the piece's root.
    pub(crate) fn settle(&self, manifest: &Manifest, first: u32) -> Result<(), FetchEnd> {
        let mut state = lock(&self.state);
        if state.expected.is_some() {
            return Ok(());
        }
        let Some(leaves) = state.got.iter().copied().collect::<Option<Vec<_>>>() else { return Ok(()) };
        if Some(merkle::piece_root(&manifest.layout(), self.index, &leaves)) == manifest.root(self.index) {
            state.expect(leaves);
            return Ok(());
        }
        state.got.fill(None);
        state.since = None;
        Err(FetchEnd::BadBlock { block: first })
    }
}

impl PieceState {
    fn expect(&mut self, leaves: Vec<Digest>) {
        for (got, leaf) in self.got.iter_mut().zip(&leaves) {
            if got.is_some_and(|g| g != *leaf) {
                *got = None;
            }
        }
        self.expected = Some(leaves);
    }
}
