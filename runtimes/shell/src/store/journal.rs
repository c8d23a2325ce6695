//! The store's database: one redb file. Each value is small and each write transaction is one commit.

use super::disk::{Disk, DiskFile, Stamp};
use super::records;
use super::version::lock;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use swarmedge_core::content::Manifest;
use swarmedge_core::ids::{Digest, DownloadId, Guid, Handle, PieceIndex, RecordId, VersionId};
use swarmedge_core::role::client::io::{DownloadRecord, KeptReceipt, SourceName};
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{SignedCheckpoint, UsageRecord};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const DOWNLOADS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("downloads");
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pieces");
const LEAVES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("leaves");
const MANIFESTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("manifests");
const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
const USAGE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("usage");
const RECEIPTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("receipts");
const CACHE: TableDefinition<'_, &[u8], u64> = TableDefinition::new("cache");

/// Versions whose data file is lent: the stamp, or nothing.
const LENT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lent");

/// In the table `meta`: the newest checkpoint, and the GUID under which all is kept.
const CHECKPOINT: &str = "checkpoint";
const OWNER: &str = "owner";
/// Under `schema` in the table `meta`.
const SCHEMA: u32 = 2;
/// Pages that redb keeps in memory.
const CACHE_BYTES: usize = 8 << 20;

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    Download(DownloadRecord),
    DropDownload(Handle),
    Piece { version: VersionId, piece: PieceIndex, value: Vec<u8>, leaves: Vec<u8> },
    Cached { version: VersionId, at_ms: u64 },
    Uncached(VersionId),
    Lent { version: VersionId, stamp: Option<Stamp> },
    Unlent(VersionId),
    DropVersion(VersionId),
    Manifest { version: VersionId, bytes: Vec<u8> },
    Key { download: DownloadId, bytes: Vec<u8> },
    DropKey(DownloadId),
    Receipt(KeptReceipt),
    Usage(UsageRecord),
    DropUsage(Vec<RecordId>),
    Checkpoint(Box<SignedCheckpoint>),
    Owner(Guid),
    Uploads(bool),
}

/// A journalled piece and who delivered it.
pub(crate) type PieceRow = (PieceIndex, Handle, Vec<(SourceName, u32)>);

/// All that a journal holds but keys and leaves.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) downloads: Vec<DownloadRecord>,
    pub(crate) pieces: BTreeMap<VersionId, Vec<PieceRow>>,
    pub(crate) manifests: BTreeMap<VersionId, Arc<Manifest>>,
    pub(crate) usage: Vec<UsageRecord>,
    pub(crate) receipts: Vec<KeptReceipt>,
    pub(crate) cached: BTreeMap<VersionId, u64>,
    pub(crate) lent: BTreeMap<VersionId, Option<Stamp>>,
    pub(crate) checkpoint: Option<Box<SignedCheckpoint>>,
    pub(crate) owner: Option<Guid>,
    pub(crate) uploads: Option<bool>,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    path: std::path::PathBuf,
    /// `None` after a failed operation, until it can be opened again. Whoever uses the database, to write too, has this
    /// lock shared; redb lets one writer in at a time and readers beside it.
    db: RwLock<Option<Database>>,
    /// Changes that the next commit takes along.
    waiting: Mutex<Vec<Change>>,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// redb's errors as I/O errors: all that matters further on is whether the disk is full.
fn io_error(e: impl Into<redb::Error>) -> io::Error {
    let e = e.into();
    if let redb::Error::Io(e) = e { e } else { io::Error::other(e.to_string()) }
}

fn piece_key(version: VersionId, piece: PieceIndex) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&version.0);
    key[32..].copy_from_slice(&piece.0.to_be_bytes());
    key
}

fn split_piece_key(key: &[u8]) -> io::Result<(VersionId, PieceIndex)> {
    let (version, piece) = key.split_first_chunk().ok_or_else(|| bad("a short key"))?;
    let piece = piece.try_into().map_err(|_| bad("a key of the wrong length"))?;
    Ok((VersionId(*version), PieceIndex(u32::from_be_bytes(piece))))
}

fn decoded<T>(r: Result<T, swarmedge_core::wire::DecodeError>) -> io::Result<T> {
    r.map_err(|e| bad(&e.to_string()))
}

impl Journal {
    /// Opens the file, made if it is not there, and reads it.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<(Self, Loaded)> {
        let dir = path.parent().unwrap_or(Path::new("."));
        if !disk.list(dir)?.iter().any(|p| p == path) {
            // under another name first, so that a crash leaves no half-made file under this one
            let new = path.with_extension("new");
            disk.remove(&new)?;
            let db = open_database(&*disk, &new, false)?;
            prepare(&db)?;
            drop(db);
            disk.rename(&new, path)?;
            disk.sync_dir(dir)?;
        }
        let db = open_database(&*disk, path, true)?;
        prepare(&db)?;
        let loaded = load(&db)?;
        let journal = Self { disk, path: path.to_owned(), db: RwLock::new(Some(db)), waiting: Mutex::default() };
        Ok((journal, loaded))
    }

    fn with<T>(&self, run: impl FnOnce(&Database) -> io::Result<T>) -> io::Result<T> {
        loop {
            let shared = self.db.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(db) = &*shared {
                let result = run(db);
                drop(shared);
                if result.is_err() {
                    *self.db.write().unwrap_or_else(PoisonError::into_inner) = None;
                }
                return result;
            }
            drop(shared);
            // after a failed write redb refuses everything until the file is opened again, which rolls the write back
            let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
            if slot.is_none() {
                *slot = Some(open_database(&*self.disk, &self.path, false)?);
            }
        }
    }

    /// Leaves a change for the next commit: what needs it is committed with it or later.
    pub(crate) fn later(&self, change: Change) {
        lock(&self.waiting).push(change);
    }

    /// Makes the changes durable, all or none, after those that wait for a commit.
    pub(crate) fn commit(&self, changes: &[Change]) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        self.with(|db| {
            let tx = db.begin_write().map_err(io_error)?;
            waiting.iter().chain(changes).try_for_each(|change| apply(&tx, change))?;
            tx.commit().map_err(io_error)
        })?;
        waiting.clear();
        Ok(())
    }

    /// The leaf hashes of a journalled piece.
    pub(crate) fn leaves(&self, version: VersionId, piece: PieceIndex) -> io::Result<Option<Vec<Digest>>> {
        self.with(|db| {
            let table = db.begin_read().map_err(io_error)?.open_table(LEAVES).map_err(io_error)?;
            let Some(value) = table.get(piece_key(version, piece).as_slice()).map_err(io_error)? else {
                return Ok(None);
            };
            let (digests, rest) = value.value().as_chunks::<32>();
            let digests = digests.iter().map(|d| Digest(*d)).collect();
            if rest.is_empty() { Ok(Some(digests)) } else { Err(bad("leaf hashes of a wrong length")) }
        })
    }

    /// The stored key of a download.
    pub(crate) fn key(&self, download: DownloadId) -> io::Result<Option<Vec<u8>>> {
        for change in lock(&self.waiting).iter().rev() {
            if let Change::Key { download: of, bytes } = change
                && *of == download
            {
                return Ok(Some(bytes.clone()));
            }
        }
        self.with(|db| {
            let table = db.begin_read().map_err(io_error)?.open_table(KEYS).map_err(io_error)?;
            let value = table.get(download.0.as_slice()).map_err(io_error)?;
            Ok(value.map(|v| v.value().to_vec()))
        })
    }
}

fn open_database(disk: &dyn Disk, path: &Path, check: bool) -> io::Result<Database> {
    let file = disk.open(path)?;
    redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check && file.len()? > 0)
        .create_with_backend(Backend(file))
        .map_err(io_error)
}

fn prepare(db: &Database) -> io::Result<()> {
    let tx = db.begin_write().map_err(io_error)?;
    {
        let mut meta = tx.open_table(META).map_err(io_error)?;
        let schema = meta.get("schema").map_err(io_error)?.map(|v| v.value().to_vec());
        match schema {
            None => {
                meta.insert("schema", SCHEMA.to_be_bytes().as_slice()).map_err(io_error)?;
            }
            Some(v) if v == SCHEMA.to_be_bytes() => {}
            Some(_) => return Err(bad("it was written by another version of the program")),
        }
        tx.open_table(DOWNLOADS).map_err(io_error)?;
        tx.open_table(MANIFESTS).map_err(io_error)?;
        tx.open_table(CACHE).map_err(io_error)?;
        for table in [PIECES, LEAVES, KEYS, USAGE, RECEIPTS, LENT] {
            tx.open_table(table).map_err(io_error)?;
        }
    }
    tx.commit().map_err(io_error)
}

fn load(db: &Database) -> io::Result<Loaded> {
    let tx = db.begin_read().map_err(io_error)?;
    let mut loaded = Loaded::default();
    for row in tx.open_table(DOWNLOADS).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.downloads.push(decoded(records::decode_download(row.map_err(io_error)?.1.value()))?);
    }
    for row in tx.open_table(PIECES).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        let (version, piece) = split_piece_key(key.value())?;
        let (handle, from) = decoded(records::decode_piece(value.value()))?;
        loaded.pieces.entry(version).or_default().push((piece, handle, from));
    }
    for row in tx.open_table(MANIFESTS).map_err(io_error)?.iter().map_err(io_error)? {
        let manifest = decoded(Manifest::from_bytes(row.map_err(io_error)?.1.value()))?;
        loaded.manifests.insert(manifest.version(), Arc::new(manifest));
    }
    for row in tx.open_table(USAGE).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.usage.push(decoded(UsageRecord::from_bytes(row.map_err(io_error)?.1.value()))?);
    }
    for row in tx.open_table(RECEIPTS).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.receipts.push(decoded(records::decode_receipt(row.map_err(io_error)?.1.value()))?);
    }
    for row in tx.open_table(CACHE).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, at_ms) = row.map_err(io_error)?;
        loaded.cached.insert(decoded(VersionId::from_bytes(key.value()))?, at_ms.value());
    }
    for row in tx.open_table(LENT).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        // a stamp that cannot be read is none: then the bytes are hashed before they are served
        loaded.lent.insert(decoded(VersionId::from_bytes(key.value()))?, records::decode_stamp(value.value()));
    }
    let meta = tx.open_table(META).map_err(io_error)?;
    let checkpoint = meta.get(CHECKPOINT).map_err(io_error)?;
    loaded.checkpoint = checkpoint.map(|v| decoded(SignedCheckpoint::from_bytes(v.value()))).transpose()?.map(Box::new);
    let owner = meta.get(OWNER).map_err(io_error)?;
    loaded.owner = owner.map(|v| decoded(Guid::from_bytes(v.value()))).transpose()?;
    loaded.uploads = meta.get("uploads").map_err(io_error)?.map(|v| v.value() == [1]);
    Ok(loaded)
}

fn put_meta(tx: &redb::WriteTransaction, name: &str, value: &[u8]) -> io::Result<()> {
    tx.open_table(META).map_err(io_error)?.insert(name, value).map_err(io_error).map(drop)
}

fn apply(tx: &redb::WriteTransaction, change: &Change) -> io::Result<()> {
    let put = |table, key: &[u8], value: &[u8]| -> io::Result<()> {
        tx.open_table::<&[u8], &[u8]>(table).map_err(io_error)?.insert(key, value).map_err(io_error).map(drop)
    };
    let delete = |table, key: &[u8]| -> io::Result<()> {
        tx.open_table::<&[u8], &[u8]>(table).map_err(io_error)?.remove(key).map_err(io_error).map(drop)
    };
    match change {
        Change::Download(d) => {
            let value = records::encode_download(d).ok_or_else(|| bad("the path of the file is too long"))?;
            let mut table = tx.open_table(DOWNLOADS).map_err(io_error)?;
            table.insert(d.handle.0, value.as_slice()).map_err(io_error)?;
            Ok(())
        }
        Change::DropDownload(handle) => {
            tx.open_table(DOWNLOADS).map_err(io_error)?.remove(handle.0).map_err(io_error).map(drop)
        }
        Change::Piece { version, piece, value, leaves } => {
            let key = piece_key(*version, *piece);
            put(LEAVES, &key, leaves)?;
            put(PIECES, &key, value)
        }
        Change::Cached { version, at_ms } => {
            tx.open_table(CACHE).map_err(io_error)?.insert(version.0.as_slice(), at_ms).map_err(io_error).map(drop)
        }
        Change::Uncached(version) => {
            tx.open_table(CACHE).map_err(io_error)?.remove(version.0.as_slice()).map_err(io_error).map(drop)
        }
        Change::Lent { version, stamp } => {
            put(LENT, &version.0, &stamp.as_ref().map(records::encode_stamp).unwrap_or_default())
        }
        Change::Unlent(version) => delete(LENT, &version.0),
        Change::DropVersion(version) => {
            let (first, last) = (piece_key(*version, PieceIndex(0)), piece_key(*version, PieceIndex(u32::MAX)));
            for table in [PIECES, LEAVES] {
                let mut table = tx.open_table(table).map_err(io_error)?;
                table.retain_in(first.as_slice()..=last.as_slice(), |_, _| false).map_err(io_error)?;
            }
            delete(LENT, &version.0)?;
            delete(MANIFESTS, &version.0)
        }
        Change::Manifest { version, bytes } => put(MANIFESTS, &version.0, bytes),
        Change::Key { download, bytes } => put(KEYS, &download.0, bytes),
        Change::DropKey(download) => delete(KEYS, &download.0),
        Change::Receipt(kept) => put(RECEIPTS, &kept.peer.intro.0, &records::encode_receipt(kept)),
        Change::Usage(record) => {
            put(USAGE, &record.id.0, &record.to_bytes())?;
            // receipts that the record holds need no place of their own
            let mut table = tx.open_table(RECEIPTS).map_err(io_error)?;
            for peer in record.peers.iter().filter(|p| p.receipt.is_some()) {
                let key = peer.intro.0.as_slice();
                let held = table.get(key).map_err(io_error)?.map(|v| records::decode_receipt(v.value()));
                if held.map(decoded).transpose()?.is_some_and(|kept| kept.is_in(record)) {
                    table.remove(key).map_err(io_error)?;
                }
            }
            Ok(())
        }
        Change::DropUsage(ids) => ids.iter().try_for_each(|id| delete(USAGE, &id.0)),
        Change::Checkpoint(newest) => put_meta(tx, CHECKPOINT, &newest.to_bytes()),
        Change::Owner(guid) => {
            let before =
                tx.open_table(META).map_err(io_error)?.get(OWNER).map_err(io_error)?.map(|v| v.value().to_vec());
            if before.is_some_and(|before| before != guid.0) {
                for table in [USAGE, RECEIPTS] {
                    tx.delete_table(table).map_err(io_error)?;
                    tx.open_table(table).map_err(io_error)?;
                }
                tx.open_table(META).map_err(io_error)?.remove(CHECKPOINT).map_err(io_error)?;
            }
            put_meta(tx, OWNER, &guid.0)
        }
        Change::Uploads(on) => put_meta(tx, "uploads", &[u8::from(*on)]),
    }
}

/// redb's view of its file. The state directory has a lock of its own.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }
}
