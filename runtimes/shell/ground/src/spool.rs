//! The spool of an edge or CN: a durable queue of the records that the ledger has not acknowledged, and an edge's byte
//! count of each download.
//!
//! [`Spool`] is the database; [`write`](fn@write) runs its writing task, which a machine reaches through [`Saver`].

#[cfg(test)]
mod fault_tests;
mod writing;

pub use writing::{Saver, write};

use crate::database::{self, Reopening, io_error};
use crate::disk::{Disk, OsDisk};
use crate::error::Error;
use crate::files::{self, mark::Mark};
use redb::{Database, ReadableDatabase as _, ReadableTable, TableDefinition};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::{DownloadId, Guid};
use swarmedge_core::role::edge::io::{Batch, Count, ServedGrant};
use swarmedge_core::wire::records::LedgerRecord;
use swarmedge_core::wire::{DecodeError, Reader, Wire};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const COUNTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("counts");
/// First byte of an encoded count of plain traffic (requests without a grant).
const PLAIN: u8 = 4;
/// First byte of an encoded count of a download.
const DOWNLOAD: u8 = 5;
/// Table that is empty except during a trial write, which shows that the disk has enough space for a batch.
const TRIAL: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("trial");
/// Length of a trial write in bytes; longer than any batch.
const TRIAL_LEN: usize = 64 << 10;

/// Maximum time to wait for a spool that another server has locked: time for one that ends.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The ledger records and the byte counts that a spool had when it was opened.
pub type SpoolContents = (Vec<LedgerRecord>, Vec<Count>);

/// The spool's database. A batch is written in one transaction: all of it becomes durable, or nothing.
#[derive(Debug)]
pub struct Spool {
    db: Reopening<Database>,
    path: PathBuf,
    /// File lock that keeps other processes out, also while the database is reopened.
    _lock: Option<File>,
}

impl Spool {
    /// Opens or creates the file and locks it; returns its contents too.
    pub fn open(path: &Path) -> Result<(Self, SpoolContents), Error> {
        database::make(&OsDisk, path, fill).map_err(|e| unopened(path, e))?;
        let file = File::options().read(true).write(true).open(path).map_err(|e| used(path, &e))?;
        if !files::lock(&file, LOCK_PATIENCE).map_err(|e| used(path, &e))? {
            return Err(in_use(path));
        }
        let (mut spool, held) = Self::open_on(Arc::new(OsDisk), path)?;
        spool._lock = Some(file);
        Ok((spool, held))
    }

    /// Opens a server's spool; fails if the spool existed before and is lost, instead of creating it anew. `whose` is
    /// its name in the `accept-loss` command.
    pub fn open_remembered(path: &Path, whose: &str) -> Result<(Self, SpoolContents), Error> {
        let mark = Mark::of(path);
        mark.refuse_loss(whose)?;
        let opened = Self::open(path)?;
        mark.write(0);
        Ok(opened)
    }

    /// Opens a spool on any disk, without the file lock.
    fn open_on(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, SpoolContents), Error> {
        let opened = || {
            database::make(&*disk, path, fill)?;
            let db = Reopening::open(Arc::clone(&disk), path, |_| Ok(()))?;
            let rows = db.with(rows)?;
            Ok((db, rows))
        };
        let (db, (records, counts)) = opened().map_err(|e| unopened(path, e))?;
        let bad = |e: DecodeError| damaged(path, &e);
        let records = records.iter().map(|b| LedgerRecord::from_bytes(b)).collect::<Result<_, _>>().map_err(bad)?;
        let counts = counts.iter().map(|b| decode_count(b)).collect::<Result<_, _>>().map_err(bad)?;
        Ok((Self { db, path: path.to_owned(), _lock: None }, (records, counts)))
    }

    /// Writes batches durably and in order, all in one transaction. Blocks the thread.
    ///
    /// After an error they may be on disk all the same: data whose sync failed may have been written.
    fn write(&self, batches: &[Batch]) -> io::Result<()> {
        self.db.with(|db| put(db, batches).map_err(io_error))
    }

    /// Writes more bytes than a batch needs and removes them again, to find out whether batches will fit on the disk.
    fn try_out(&self) -> io::Result<()> {
        let run = |db: &Database, trial: Option<&[u8]>| {
            let write = db.begin_write()?;
            let mut table = write.open_table(TRIAL)?;
            match trial {
                Some(bytes) => table.insert(0, bytes).map(drop),
                None => table.remove(0).map(drop),
            }?;
            drop(table);
            Ok::<_, redb::Error>(write.commit()?)
        };
        self.db.with(|db| run(db, Some(&[0; TRIAL_LEN])).and_then(|()| run(db, None)).map_err(io_error))
    }
}

fn put(db: &Database, batches: &[Batch]) -> Result<(), redb::Error> {
    let write = db.begin_write()?;
    {
        let mut records = write.open_table(RECORDS)?;
        let mut counts = write.open_table(COUNTS)?;
        for batch in batches {
            for record in &batch.records {
                records.insert(record.id().0.as_slice(), record.to_bytes().as_slice())?;
            }
            for count in &batch.counts {
                counts.insert(count_key(count).as_slice(), encode_count(count).as_slice())?;
            }
            for id in &batch.acked {
                records.remove(id.0.as_slice())?;
            }
            for download in &batch.ended {
                counts.remove(download.0.as_slice())?;
            }
        }
    }
    Ok(write.commit()?)
}

/// Makes the tables of a new spool.
fn fill(db: &Database) -> io::Result<()> {
    put(db, &[]).map_err(io_error)
}

fn rows(db: &Database) -> io::Result<(Rows, Rows)> {
    let read = db.begin_read().map_err(io_error)?;
    let rows = |table| match read.open_table(table) {
        Ok(table) => values(&table),
        // a spool without a first batch has no tables
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(Rows::new()),
        Err(e) => Err(e.into()),
    };
    Ok((rows(RECORDS).map_err(io_error)?, rows(COUNTS).map_err(io_error)?))
}

/// Encoded values of a table, ordered by key.
type Rows = Vec<Vec<u8>>;

fn values(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Rows, redb::Error> {
    Ok(table.iter()?.map(|row| row.map(|(_, value)| value.value().to_vec())).collect::<Result<_, _>>()?)
}

/// Key of a count: the download's id, or the version's for plain traffic; they differ in length.
fn count_key(count: &Count) -> Vec<u8> {
    count.grant.map_or_else(|| count.version.0.to_vec(), |grant| grant.download.0.to_vec())
}

fn encode_count(count: &Count) -> Vec<u8> {
    let mut out = Vec::new();
    out.push(if count.grant.is_some() { DOWNLOAD } else { PLAIN });
    if let Some(grant) = &count.grant {
        grant.download.encode(&mut out);
        grant.guid.encode(&mut out);
    }
    count.version.encode(&mut out);
    count.provider.encode(&mut out);
    for n in [count.life, count.seq.into(), count.total_bytes, count.reserved, count.unsure, count.over_ms] {
        n.encode(&mut out);
    }
    for range in &count.sent {
        range.start.encode(&mut out);
        range.end.encode(&mut out);
    }
    out
}

fn decode_count(bytes: &[u8]) -> Result<Count, DecodeError> {
    let mut r = Reader::new(bytes);
    let grant = match u8::decode(&mut r)? {
        PLAIN => None,
        DOWNLOAD => Some(ServedGrant { download: DownloadId::decode(&mut r)?, guid: Guid::decode(&mut r)? }),
        other => return Err(DecodeError::UnknownType(other)),
    };
    let (version, provider) = (Wire::decode(&mut r)?, Wire::decode(&mut r)?);
    let (life, seq) = (u64::decode(&mut r)?, u32::try_from(u64::decode(&mut r)?).unwrap_or(u32::MAX));
    let (total_bytes, reserved) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
    let (unsure, over_ms) = (u64::decode(&mut r)?, u64::decode(&mut r)?);
    let mut sent = Vec::new();
    while !r.rest().is_empty() {
        sent.push(u64::decode(&mut r)?..u64::decode(&mut r)?);
    }
    Ok(Count { grant, version, provider, life, seq, total_bytes, reserved, unsure, over_ms, sent })
}

/// Converts a failure to open a spool to an error: damaged contents, or an I/O error.
fn unopened(path: &Path, e: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, Other, UnexpectedEof};
    // errors of redb itself have these kinds; others come from the operating system
    if matches!(e.kind(), InvalidData | Other | UnexpectedEof) {
        return damaged(path, &e);
    }
    used(path, &e)
}

fn damaged(path: &Path, why: &impl fmt::Display) -> Error {
    Error::failed(format_args!("{} is damaged: {why}", path.display()))
}

fn in_use(path: &Path) -> Error {
    let path = path.display();
    Error::failed(format_args!("{path} is in use: another server of this deployment runs on it; stop that first"))
}

/// Makes the error for a spool file that cannot be read or written.
fn used(path: &Path, error: &io::Error) -> Error {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io(format_args!("use {}", path.display()), error);
    if denied { error.next("run this as the user whose file it is") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::{ProviderId, PublicKey, RecordId, VersionId};
    use swarmedge_core::wire::Text;
    use swarmedge_core::wire::records::GrantRecord;

    pub(super) fn record(n: u32) -> LedgerRecord {
        LedgerRecord::Granted(GrantRecord {
            id: RecordId::numbered(n),
            download: DownloadId::numbered(n),
            guid: Guid::numbered(1),
            download_key: PublicKey::numbered(2),
            version: VersionId::numbered(1),
            size: 9,
            provider: ProviderId(7),
            path: Text::new("a").expect("short"),
            issued_ms: 5,
            max_peer_bytes: 9,
            challenged: false,
            proof: None,
        })
    }

    pub(super) fn count(download: Option<u32>, seq: u32) -> Count {
        let grant = download.map(|n| ServedGrant { download: DownloadId::numbered(n), guid: Guid::numbered(1) });
        let sent = if grant.is_some() { vec![0..5, 7..9] } else { vec![] };
        let (version, provider) = (VersionId::numbered(1), ProviderId(7));
        Count { grant, version, provider, life: 3, seq, total_bytes: 7, reserved: 9, unsure: 2, over_ms: 4, sent }
    }

    #[test]
    fn a_permission_error_is_not_reported_as_damage() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Spool::open(dir.path()).expect_err("a directory is no file");
        assert!(error.to_string().contains("cannot use"), "{error}");
        let path = dir.path().join("spool");
        std::fs::write(&path, "no database").expect("writes");
        let error = Spool::open(&path).expect_err("no database");
        assert!(error.to_string().contains("is damaged"), "{error}");
        let denied = used(&path, &io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.code(), crate::error::Code::Forbidden);
        assert!(denied.to_string().contains("user"), "{denied}");
    }

    #[test]
    fn unacknowledged_records_and_open_counts_survive_a_reopen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("spool/edge.redb");
        let (spool, (records, counts)) = Spool::open(&path).expect("opened");
        assert_eq!((records, counts), (vec![], vec![]));
        let first = Batch {
            records: vec![record(1), record(2)],
            counts: vec![count(Some(1), 1), count(Some(2), 1), count(None, 1)],
            ..Batch::default()
        };
        let second = Batch {
            counts: vec![count(Some(1), 2)],
            acked: vec![RecordId::numbered(1)],
            ended: vec![DownloadId::numbered(2)],
            ..Batch::default()
        };
        spool.write(&[first, second]).expect("written");
        drop(spool);
        let (_, (records, counts)) = Spool::open(&path).expect("opened");
        assert_eq!(records, [record(2)]);
        assert_eq!(counts, [count(None, 1), count(Some(1), 2)], "in the order of their keys");
    }

    #[test]
    fn the_error_names_a_file_that_is_no_spool() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("edge.redb");
        std::fs::write(&path, vec![7; 8192]).expect("written");
        assert!(Spool::open(&path).expect_err("damaged").to_string().contains("edge.redb"));
    }
}
