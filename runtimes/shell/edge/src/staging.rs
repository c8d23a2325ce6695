//! The copy of a file that is to be published, and the hashes of its bytes, from one read of the file.

use super::Error;
use super::catalogue::Files;
use rustix::fs::OFlags;
use sha2::Digest as _;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{ScopedJoinHandle, scope};
use std::time::Duration;
use swarmedge_core::content::{Layout, merkle};
use swarmedge_core::ids::{Digest, PieceIndex};
use swarmedge_core::limits::BLOCK_LEN;

/// Bytes read, written and hashed at a time: whole blocks.
const READ_LEN: usize = 16 * BLOCK_LEN as usize;
/// Reads that may wait for each of the hashing threads.
const READS_MAX: usize = 16;
/// Age at which a staged copy, left by a crash, is deleted.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A durable copy in the staging directory, deleted on drop unless it was renamed away.
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) layout: Layout,
    pub(super) hashes: Hashes,
}

/// Hashes of a file's content.
pub(super) struct Hashes {
    /// Merkle roots of the pieces.
    pub(super) roots: Vec<Digest>,
    /// SHA-256 of all bytes.
    pub(super) sha256: Digest,
}

impl Staged {
    /// Copies a regular file, which must not change meanwhile. The copy has owner and mode of the catalogue.
    pub(super) fn copy(files: &Files, from: &Path) -> Result<Self, Error> {
        let (mut source, before) = open_regular(from)?;
        let layout = Layout::for_size(before.len()).ok_or_else(|| too_large(from))?;
        let ownership = files.ownership()?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|e| Error::at(from)(e.into()))?;
        let path = files.staging().join(data_encoding::HEXLOWER.encode(&nonce));
        let mut copy = File::options().read(true).write(true).create_new(true).open(&path).map_err(Error::at(&path))?;
        let hashes = Hashes { roots: Vec::new(), sha256: Digest([0; 32]) };
        let mut staged = Self { path, layout, hashes };
        let hashed = if shares_bytes(&source, &copy) {
            // only reading is left
            read_and_hash(&mut copy, None, layout)
        } else {
            read_and_hash(&mut source, Some(&mut copy), layout)
        };
        let (len, hashes) = hashed.map_err(|e| e.at(from, &staged.path))?;
        staged.hashes = hashes;
        ownership.give_readable(&copy).and_then(|()| copy.sync_all()).map_err(Error::at(&staged.path))?;
        let after = fs::metadata(from).map_err(Error::at(from))?;
        let same = [len, after.len()] == [before.len(); 2] && before.modified().ok() == after.modified().ok();
        if same { Ok(staged) } else { Err(Error::Unstable(from.to_owned())) }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // a published copy was renamed away already
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn too_large(file: &Path) -> Error {
    Error::Unfit(file.to_owned(), "is too large")
}

/// Deletes copies that crashes have left.
pub(super) fn remove_stale(staging: &Path) {
    let Ok(entries) = fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Opens a regular file, or the one that a symbolic link leads to. Anything else is refused before it is opened, since
/// that may wait or act on a device, and after it, in case it was put there meanwhile.
fn open_regular(path: &Path) -> Result<(File, Metadata), Error> {
    let regular = |meta: Metadata| if meta.is_file() { Ok(meta) } else { Err(unfit(path, &meta)) };
    regular(fs::metadata(path).map_err(Error::at(path))?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(Error::at(path))?;
    let meta = regular(file.metadata().map_err(Error::at(path))?)?;
    Ok((file, meta))
}

fn unfit(path: &Path, meta: &Metadata) -> Error {
    let kind = meta.file_type();
    let why = if kind.is_dir() {
        "is a directory: publish each of its files, or an archive of it"
    } else if kind.is_fifo() {
        "is a FIFO: write what comes out of it to a file, and publish that"
    } else if kind.is_socket() {
        "is a socket: publish a regular file"
    } else {
        "is a device: copy what is on it to a file, and publish that"
    };
    Error::Unfit(path.to_owned(), why)
}

/// Makes the empty file `copy` share all bytes of `source`, if the file system can.
fn shares_bytes(source: &File, copy: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(copy, source).is_ok();
    #[cfg(not(target_os = "linux"))]
    false
}

/// An error of the file that is read, or of the copy.
enum Failed {
    Reading(io::Error),
    Copying(io::Error),
}

impl Failed {
    /// Returns the error with the path of the file that it is about.
    fn at(self, from: &Path, copy: &Path) -> Error {
        match self {
            Self::Reading(e) => Error::at(from)(e),
            Self::Copying(e) => Error::at(copy)(e),
        }
    }
}

/// Reads a file once, at most a byte more than the layout's size, while threads hash the bytes and others are written
/// to `copy`. Returns how many there were, and their hashes.
fn read_and_hash(from: &mut File, mut copy: Option<&mut File>, layout: Layout) -> Result<(u64, Hashes), Failed> {
    let mut from = from.take(layout.size().saturating_add(1));
    scope(|scope| {
        let (whole, to_whole) = sync_channel(READS_MAX);
        let (pieces, to_pieces) = sync_channel(READS_MAX);
        let sha256 = scope.spawn(move || hash_whole(&to_whole));
        let roots = scope.spawn(move || hash_pieces(&to_pieces, layout));
        let mut len = 0;
        loop {
            let mut bytes = Vec::with_capacity(READ_LEN);
            Read::by_ref(&mut from).take(READ_LEN as u64).read_to_end(&mut bytes).map_err(Failed::Reading)?;
            if bytes.is_empty() {
                break;
            }
            len += bytes.len() as u64;
            let bytes = Arc::new(bytes);
            send(&whole, &bytes);
            send(&pieces, &bytes);
            if let Some(copy) = &mut copy {
                copy.write_all(&bytes).map_err(Failed::Copying)?;
            }
        }
        drop((whole, pieces));
        Ok((len, Hashes { sha256: joined(sha256)?, roots: joined(roots)? }))
    })
}

type Bytes = Arc<Vec<u8>>;

fn send(to: &SyncSender<Bytes>, bytes: &Bytes) {
    // a thread that has ended is noticed where its result is taken
    let _ = to.send(Arc::clone(bytes));
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, Failed> {
    thread.join().map_err(|_| Failed::Reading(io::Error::other("a hashing thread failed")))
}

fn hash_whole(reads: &Receiver<Bytes>) -> Digest {
    let mut hash = sha2::Sha256::new();
    reads.iter().for_each(|bytes| hash.update(&*bytes));
    Digest(hash.finalize().into())
}

/// Computes the roots of all pieces; what comes after the last one is ignored.
fn hash_pieces(reads: &Receiver<Bytes>, layout: Layout) -> Vec<Digest> {
    let mut leaves = reads.iter().flat_map(|bytes| merkle::leaves(&bytes));
    let piece = |piece: PieceIndex| {
        let own: Vec<_> = leaves.by_ref().take(layout.blocks(piece) as usize).collect();
        merkle::piece_root(&layout, piece, &own)
    };
    let roots = layout.iter().map(piece).collect();
    // the reader must not wait for ever where the file has grown
    leaves.for_each(drop);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn staged(dir: &Path, bytes: &[u8]) -> Result<Staged, Error> {
        let files = Files::new(dir.join("objects"));
        files.create().expect("made");
        let source = dir.join("source");
        fs::write(&source, bytes).expect("written");
        Staged::copy(&files, &source)
    }

    #[test]
    fn one_read_gives_the_copy_and_the_hashes_of_every_size() {
        let dir = tempfile::tempdir().expect("a directory");
        let edges = [0, 1, 16_384, 65_536, READ_LEN, 3 * READ_LEN, 5_000_000];
        for len in edges.into_iter().flat_map(|len: usize| [len.saturating_sub(1), len, len + 1]) {
            let bytes: Vec<u8> = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
            let copy = staged(dir.path(), &bytes).expect("copied");
            assert!(fs::read(&copy.path).expect("there") == bytes, "{len}");
            assert_eq!(copy.hashes.sha256, Digest(sha2::Sha256::digest(&bytes).into()), "{len}");
            let root = |piece| {
                let range = copy.layout.piece_range(piece);
                let range = usize::try_from(range.start).expect("fits")..usize::try_from(range.end).expect("fits");
                merkle::piece_root(&copy.layout, piece, &merkle::leaves(&bytes[range]))
            };
            assert_eq!(copy.hashes.roots, copy.layout.iter().map(root).collect::<Vec<_>>(), "{len}");
            drop(copy);
            assert_eq!(fs::read_dir(dir.path().join("objects/staging")).expect("there").count(), 0);
        }
    }

    #[test]
    fn a_file_that_is_longer_or_shorter_than_told_is_read_to_its_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("source");
        fs::write(&source, vec![7; 3 * READ_LEN]).expect("written");
        for (told, read) in [(READ_LEN as u64, READ_LEN as u64 + 1), (9 * READ_LEN as u64, 3 * READ_LEN as u64)] {
            let layout = Layout::for_size(told).expect("a size");
            let (len, hashes) =
                read_and_hash(&mut File::open(&source).expect("there"), None, layout).ok().expect("read");
            assert_eq!((len, hashes.roots.len()), (read, layout.pieces() as usize));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened_and_a_links_target_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("bound");
        fs::create_dir(at("folder")).expect("made");
        for (name, to) in [("to-fifo", "fifo"), ("to-device", "/dev/zero"), ("to-file", "file"), ("loop", "loop")] {
            std::os::unix::fs::symlink(to, at(name)).expect("linked");
        }
        fs::write(at("file"), "text").expect("written");
        for (name, why) in [
            ("fifo", "is a FIFO"),
            ("to-fifo", "is a FIFO"),
            ("socket", "is a socket"),
            ("folder", "is a directory"),
            ("to-device", "is a device"),
        ] {
            let error = open_regular(&at(name)).expect_err("refused").to_string();
            assert!(error.contains(why) && error.contains("publish"), "{error}");
        }
        assert!(open_regular(&at("loop")).is_err() && open_regular(&at("none")).is_err());
        assert_eq!(open_regular(&at("to-file")).expect("regular").1.len(), 4);
    }

    #[test]
    fn a_copy_has_the_mode_of_the_catalogue_whatever_the_files_own() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("objects")).expect("made");
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path().join("objects"), mode(0o755)).expect("set");
        let of = |copy: &Staged| fs::metadata(&copy.path).expect("there").mode() & 0o777;
        assert_eq!(of(&staged(dir.path(), b"x").expect("copied")), 0o644);
        let catalogue = dir.path().join("objects/catalogue.json");
        fs::write(&catalogue, "{}").expect("written");
        fs::set_permissions(&catalogue, mode(0o640)).expect("set");
        fs::set_permissions(dir.path().join("source"), mode(0o600)).expect("set");
        assert_eq!(of(&staged(dir.path(), b"x").expect("copied")), 0o640);
    }
}
