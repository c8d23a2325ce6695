//! The store's database (the journal): one redb file. Each value is small, and each write transaction is one commit.
//! Records that name peers are encrypted (see `journal_key.rs`), and re-encrypted under a new key after one of them
//! was deleted.

use super::change::{Change, apply, put_meta, seal_anew, unseal_piece};
use super::journal_key::JournalKey;
use super::records;
use super::version::lock;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle as _};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use swarmedge_core::content::Manifest;
use swarmedge_core::ids::{Digest, DownloadId, Guid, Handle, PieceIndex, VersionId};
use swarmedge_core::role::client::io::{CopyTerms, DownloadRecord, KeptReceipt, SourceName};
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::notice::Notice;
use swarmedge_core::wire::records::{SignedCheckpoint, UsageRecord};
use swarmedge_ground::database::{self, OpenDatabase, Reopening, bad, io_error};
use swarmedge_ground::disk::Disk;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const DOWNLOADS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("downloads");
pub(super) const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pieces");
pub(super) const LEAVES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("leaves");
pub(super) const MANIFESTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("manifests");
pub(super) const KEYS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("keys");
pub(super) const USAGE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("usage");
pub(super) const RECEIPTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("receipts");
pub(super) const CACHE: TableDefinition<'_, &[u8], u64> = TableDefinition::new("cache");
/// Table of the explanations of why each download has peers or none; they name no peer.
pub(super) const WHY: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("why");

/// Table of the terms of sharing for each version: the policy, and the number of bytes sent to peers.
pub(super) const TERMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("terms");
/// Table of the versions whose data file is also the user's finished file (a hard link).
pub(super) const HARD_LINKED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lent");
/// Table of the paths of partial output files in users' directories.
pub(super) const PARTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("parts");

/// Table of the newest notice about each version.
pub(super) const NOTICES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("notices");

/// Keys in the table `meta`: the newest checkpoint, and the GUID of the installation that owns the records.
pub(super) const CHECKPOINT: &str = "checkpoint";
pub(super) const OWNER: &str = "owner";
/// Keys in the table `meta`: the number of the current encryption key, and whether rows were deleted that it can
/// still decrypt.
const JOURNAL_KEY: &str = "veil";
pub(super) const STALE: &str = "stale";
/// Version of the tables' format, stored under `schema` in the table `meta`.
const SCHEMA: u32 = 3;

/// For each download, the number of bytes that each source (edge or peer) has delivered.
pub(crate) type Sources = BTreeMap<Handle, BTreeMap<SourceName, u64>>;

/// A journalled piece, the download that fetched it, and the number of its bytes from each source.
pub(crate) type PieceRow = (PieceIndex, Handle, Vec<(SourceName, u32)>);

/// Contents of a journal at its opening, except keys of downloads and leaf hashes.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) downloads: Vec<DownloadRecord>,
    pub(crate) pieces: BTreeMap<VersionId, Vec<PieceRow>>,
    pub(crate) manifests: BTreeMap<VersionId, Arc<Manifest>>,
    pub(crate) usage: Vec<UsageRecord>,
    pub(crate) receipts: Vec<KeptReceipt>,
    pub(crate) cached: BTreeMap<VersionId, u64>,
    pub(crate) hard_linked: BTreeSet<VersionId>,
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) terms: BTreeMap<VersionId, CopyTerms>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) checkpoint: Option<Box<SignedCheckpoint>>,
    pub(crate) owner: Option<Guid>,
    pub(crate) uploads: Option<bool>,
    pub(crate) why: Vec<(Handle, Vec<u8>)>,
}

/// The journal, with its open database.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    /// The directory of the journal's file and keys.
    dir: PathBuf,
    db: Reopening<Open>,
    /// Changes that the next commit includes. The lock is held while a commit is written.
    waiting: Mutex<Vec<Change>>,
    /// Value that [`Journal::is_stale`] returns.
    stale: AtomicBool,
}

#[derive(Debug)]
struct Open {
    db: Database,
    secret: JournalKey,
}

impl OpenDatabase for Open {
    fn of(disk: &Arc<dyn Disk>, path: &Path, db: Database) -> io::Result<Self> {
        Ok(Self { secret: journal_key_of(disk, path, &db)?, db })
    }
}

pub(super) fn piece_key(version: VersionId, piece: PieceIndex) -> [u8; 36] {
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

pub(super) fn decoded<T>(r: Result<T, swarmedge_core::wire::DecodeError>) -> io::Result<T> {
    r.map_err(|e| bad(&e.to_string()))
}

impl Journal {
    /// Opens the journal's file, created if absent, and reads its contents.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> io::Result<(Self, Loaded)> {
        let dir = path.parent().unwrap_or(Path::new(".")).to_owned();
        database::make(&*disk, path, |db| {
            prepare(db)?;
            let secret = JournalKey::fresh(Arc::clone(&disk), &dir, 1)?;
            let tx = db.begin_write().map_err(io_error)?;
            put_meta(&tx, JOURNAL_KEY, &secret.number().to_be_bytes())?;
            tx.commit().map_err(io_error)
        })?;
        let db = Reopening::open(Arc::clone(&disk), path, prepare)?;
        let (loaded, stale) = db.with(|open| Ok((load(open)?, meta(&open.db, STALE)?.is_some())))?;
        Ok((Self { disk, dir, db, waiting: Mutex::default(), stale: AtomicBool::new(stale) }, loaded))
    }

    /// Adds a change to the next commit, so that no change that depends on it is committed before.
    pub(crate) fn later(&self, change: Change) {
        lock(&self.waiting).push(change);
    }

    /// Makes `changes`, preceded by those that wait for a commit, durable: all of them or none.
    pub(crate) fn commit(&self, changes: &[Change]) -> io::Result<()> {
        let mut waiting = lock(&self.waiting);
        let stale = self.db.with(|Open { db, secret }| {
            let tx = db.begin_write().map_err(io_error)?;
            let stale = apply(&tx, secret, waiting.iter().chain(changes))?;
            tx.commit().map_err(io_error)?;
            Ok(stale)
        })?;
        waiting.clear();
        self.stale.fetch_or(stale, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether rows that named peers were deleted since the last [`Self::shred`].
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    /// Makes deleted rows unreadable wherever the file still has them: re-encrypts the others under a new key and
    /// destroys the old key.
    pub(crate) fn shred(&self) -> io::Result<()> {
        let waiting = lock(&self.waiting);
        let new = self.db.with(|Open { db, secret }| {
            let new = JournalKey::fresh(Arc::clone(&self.disk), &self.dir, secret.number() + 1)?;
            let tx = db.begin_write().map_err(io_error)?;
            seal_anew(&tx, secret, &new)?;
            put_meta(&tx, JOURNAL_KEY, &new.number().to_be_bytes())?;
            tx.open_table(META).map_err(io_error)?.remove(STALE).map_err(io_error)?;
            tx.commit().map_err(io_error)?;
            Ok(new)
        })?;
        // no other thread writes; if a reader failed and reopened the file meanwhile, the new key is in use already
        let old = self.db.change(|slot| {
            let before = slot.as_mut().filter(|open| open.secret.number() < new.number());
            let old = before.map(|open| std::mem::replace(&mut open.secret, new));
            self.stale.store(false, Ordering::Relaxed);
            old
        });
        drop(waiting);
        old.map_or(Ok(()), JournalKey::destroy)
    }

    /// Returns the leaf hashes of a journalled piece; `None` if the piece is not journalled.
    pub(crate) fn leaves(&self, version: VersionId, piece: PieceIndex) -> io::Result<Option<Vec<Digest>>> {
        self.db.with(|Open { db, .. }| {
            let table = db.begin_read().map_err(io_error)?.open_table(LEAVES).map_err(io_error)?;
            let Some(value) = table.get(piece_key(version, piece).as_slice()).map_err(io_error)? else {
                return Ok(None);
            };
            let (digests, rest) = value.value().as_chunks::<32>();
            let digests = digests.iter().map(|d| Digest(*d)).collect();
            if rest.is_empty() { Ok(Some(digests)) } else { Err(bad("leaf hashes of a wrong length")) }
        })
    }

    /// Returns the sources of a version's journalled pieces.
    pub(crate) fn sources(&self, version: VersionId) -> io::Result<Sources> {
        let (first, last) = (piece_key(version, PieceIndex(0)), piece_key(version, PieceIndex(u32::MAX)));
        self.db.with(|Open { db, secret }| {
            let mut sources = Sources::new();
            let table = db.begin_read().map_err(io_error)?.open_table(PIECES).map_err(io_error)?;
            for row in table.range(first.as_slice()..=last.as_slice()).map_err(io_error)? {
                let (key, value) = row.map_err(io_error)?;
                add_sources(&mut sources, &piece_row(secret, key.value(), value.value())?.1);
            }
            Ok(sources)
        })
    }

    /// Returns the stored private key K_d of a download.
    pub(crate) fn key(&self, download: DownloadId) -> io::Result<Option<Vec<u8>>> {
        for change in lock(&self.waiting).iter().rev() {
            if let Change::Key { download: of, bytes } = change
                && *of == download
            {
                return Ok(Some(bytes.clone()));
            }
        }
        self.db.with(|Open { db, .. }| {
            let table = db.begin_read().map_err(io_error)?.open_table(KEYS).map_err(io_error)?;
            let value = table.get(download.0.as_slice()).map_err(io_error)?;
            Ok(value.map(|v| v.value().to_vec()))
        })
    }
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
        tx.open_table(WHY).map_err(io_error)?;
        for table in [PIECES, LEAVES, KEYS, USAGE, RECEIPTS, HARD_LINKED, PARTS, TERMS, NOTICES] {
            tx.open_table(table).map_err(io_error)?;
        }
    }
    tx.commit().map_err(io_error)
}

fn meta(db: &Database, name: &str) -> io::Result<Option<Vec<u8>>> {
    let table = db.begin_read().map_err(io_error)?.open_table(META).map_err(io_error)?;
    Ok(table.get(name).map_err(io_error)?.map(|v| v.value().to_vec()))
}

/// Opens the encryption key whose number the database names.
fn journal_key_of(disk: &Arc<dyn Disk>, path: &Path, db: &Database) -> io::Result<JournalKey> {
    let number = meta(db, JOURNAL_KEY)?.and_then(|v| v.try_into().ok()).ok_or_else(|| bad("it names no key"))?;
    JournalKey::open(Arc::clone(disk), path.parent().unwrap_or(Path::new(".")), u64::from_be_bytes(number))
}

fn piece_row(secret: &JournalKey, key: &[u8], value: &[u8]) -> io::Result<(VersionId, PieceRow)> {
    let (version, piece) = split_piece_key(key)?;
    let (handle, from) = decoded(records::decode_piece(&unseal_piece(secret, key, value)?))?;
    Ok((version, (piece, handle, from)))
}

/// Adds the byte counts of one piece to the sums by download and source.
pub(crate) fn add_sources(sources: &mut Sources, (_, handle, from): &PieceRow) {
    let sums = sources.entry(*handle).or_default();
    for (source, bytes) in from {
        *sums.entry(*source).or_default() += u64::from(*bytes);
    }
}

fn load(Open { db, secret }: &Open) -> io::Result<Loaded> {
    let tx = db.begin_read().map_err(io_error)?;
    let mut loaded = Loaded::default();
    for row in tx.open_table(DOWNLOADS).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.downloads.push(decoded(records::decode_download(row.map_err(io_error)?.1.value()))?);
    }
    for row in tx.open_table(PIECES).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        let (version, row) = piece_row(secret, key.value(), value.value())?;
        loaded.pieces.entry(version).or_default().push(row);
    }
    for row in tx.open_table(MANIFESTS).map_err(io_error)?.iter().map_err(io_error)? {
        let manifest = decoded(Manifest::from_bytes(row.map_err(io_error)?.1.value()))?;
        loaded.manifests.insert(manifest.version(), Arc::new(manifest));
    }
    for row in tx.open_table(USAGE).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        let value = secret.unseal(USAGE.name(), key.value(), value.value())?;
        loaded.usage.push(decoded(UsageRecord::from_bytes(&value))?);
    }
    for row in tx.open_table(RECEIPTS).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        let value = secret.unseal(RECEIPTS.name(), key.value(), value.value())?;
        loaded.receipts.push(decoded(records::decode_receipt(&value))?);
    }
    for row in tx.open_table(CACHE).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, at_ms) = row.map_err(io_error)?;
        loaded.cached.insert(decoded(VersionId::from_bytes(key.value()))?, at_ms.value());
    }
    for row in tx.open_table(HARD_LINKED).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.hard_linked.insert(decoded(VersionId::from_bytes(row.map_err(io_error)?.0.value()))?);
    }
    for row in tx.open_table(PARTS).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.parts.push(row.map_err(io_error)?.0.value().to_vec());
    }
    for row in tx.open_table(TERMS).map_err(io_error)?.iter().map_err(io_error)? {
        let (key, value) = row.map_err(io_error)?;
        let terms = decoded(records::decode_terms(value.value()))?;
        loaded.terms.insert(decoded(VersionId::from_bytes(key.value()))?, terms);
    }
    for row in tx.open_table(WHY).map_err(io_error)?.iter().map_err(io_error)? {
        let (handle, why) = row.map_err(io_error)?;
        loaded.why.push((Handle(handle.value()), why.value().to_vec()));
    }
    for row in tx.open_table(NOTICES).map_err(io_error)?.iter().map_err(io_error)? {
        loaded.notices.push(decoded(Notice::from_bytes(row.map_err(io_error)?.1.value()))?);
    }
    let meta = tx.open_table(META).map_err(io_error)?;
    let checkpoint = meta.get(CHECKPOINT).map_err(io_error)?;
    loaded.checkpoint = checkpoint.map(|v| decoded(SignedCheckpoint::from_bytes(v.value()))).transpose()?.map(Box::new);
    let owner = meta.get(OWNER).map_err(io_error)?;
    loaded.owner = owner.map(|v| decoded(Guid::from_bytes(v.value()))).transpose()?;
    loaded.uploads = meta.get("uploads").map_err(io_error)?.map(|v| v.value() == [1]);
    Ok(loaded)
}
