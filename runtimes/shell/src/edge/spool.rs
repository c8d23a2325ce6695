//! The durable memory of edges and CNs: records that the ledger has not acknowledged, and what an edge has counted for
//! each download.

use super::Error;
use crate::mailbox::{Permit, Sender, mailbox};
use crate::rt::Rt;
use redb::{Database, ReadableDatabase as _, ReadableTable, TableDefinition};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use swarmedge_core::ids::{DownloadId, Guid, ReqId};
use swarmedge_core::role::edge::io::{Batch, Count, ServedGrant};
use swarmedge_core::wire::records::LedgerRecord;
use swarmedge_core::wire::{DecodeError, Reader, Wire};

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const COUNTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("counts");
/// How a count begins: of plain traffic, of a download; and as it was before there were lives and reserves.
const PLAIN: u8 = 2;
const DOWNLOAD: u8 = 3;
const OLD_PLAIN: u8 = 0;
const OLD_DOWNLOAD: u8 = 1;
/// Batches that wait to be written.
const BATCHES_MAX: usize = 1024;
/// Batches of one transaction.
const BATCHES_AT_ONCE: usize = 128;
/// Pages that redb keeps in memory.
const CACHE_BYTES: usize = 8 << 20;

/// What a spool held when it was opened.
pub type Held = (Vec<LedgerRecord>, Vec<Count>);

/// The spool's database. One batch is one transaction: all of it is durable, or none.
#[derive(Debug)]
pub struct Spool {
    db: Database,
    path: PathBuf,
}

impl Spool {
    /// Opens the file, made if it is not there, and gives what it holds.
    pub fn open(path: &Path) -> Result<(Self, Held), Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(Error::at(dir))?;
        }
        let damaged = |e: redb::Error| unopened(path, e);
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| damaged(e.into()))?;
        let spool = Self { db, path: path.to_owned() };
        let (records, counts) = spool.load().map_err(damaged)?;
        let bad = |e: DecodeError| Error::Damaged(path.to_owned(), e.to_string());
        let records = records.iter().map(|b| LedgerRecord::from_stored(b)).collect::<Result<_, _>>().map_err(bad)?;
        let counts = counts.iter().map(|b| decode_count(b)).collect::<Result<_, _>>().map_err(bad)?;
        Ok((spool, (records, counts)))
    }

    fn load(&self) -> Result<(Rows, Rows), redb::Error> {
        // the tables are made on the way, so that an empty file can be read
        let write = self.db.begin_write()?;
        write.open_table(RECORDS)?;
        write.open_table(COUNTS)?;
        write.commit()?;
        let read = self.db.begin_read()?;
        Ok((values(&read.open_table(RECORDS)?)?, values(&read.open_table(COUNTS)?)?))
    }

    /// Writes batches, in order, durably: all or none. Blocks the thread.
    pub fn write(&self, batches: &[Batch]) -> bool {
        let written = self.try_write(batches);
        if let Err(error) = &written {
            tracing::error!(file = %self.path.display(), %error, "the spool cannot be written");
        }
        written.is_ok()
    }

    fn try_write(&self, batches: &[Batch]) -> Result<(), redb::Error> {
        let write = self.db.begin_write()?;
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
        write.commit()?;
        Ok(())
    }
}

/// A batch on its way to the spool, with the room for its answer: an input `I` of the machine that writes.
struct Write<I> {
    req: ReqId,
    batch: Batch,
    done: Permit<I>,
}

/// A machine's way to its spool.
pub struct Saver<I>(Sender<Write<I>>);

impl<I: Send> Saver<I> {
    /// Takes a batch, unless too many wait; its answer goes to `inbox`.
    #[must_use]
    pub fn save(&self, inbox: &Sender<I>, req: ReqId, batch: Batch) -> bool {
        let room = || inbox.reserve().and_then(|done| Ok((done, self.0.reserve()?)));
        let Ok((done, place)) = room() else {
            tracing::warn!("too much waits for the spool");
            return false;
        };
        place.send(Write { req, batch, done });
        true
    }
}

/// Writes, from now on, what the machine gives to the [`Saver`], in order; what waits together becomes one transaction.
/// `saved` says how the machine is told. Ends, the file closed, when the saver is gone and all is written.
pub fn write<R: Rt, I: Send + 'static>(
    rt: R,
    spool: Spool,
    saved: fn(ReqId, bool) -> I,
) -> (Saver<I>, impl Future<Output = ()>) {
    let (saver, mut writes) = mailbox::<Write<I>>(BATCHES_MAX);
    let spool = Arc::new(spool);
    let writing = async move {
        while let Some(first) = writes.recv().await {
            let mut waiting = vec![first];
            while waiting.len() < BATCHES_AT_ONCE
                && let Some(next) = writes.try_recv()
            {
                waiting.push(next);
            }
            let batches: Vec<Batch> = waiting.iter_mut().map(|w| std::mem::take(&mut w.batch)).collect();
            let own = Arc::clone(&spool);
            let ok = rt.blocking(move || own.write(&batches)).await;
            for write in waiting {
                write.done.send(saved(write.req, ok));
            }
        }
    };
    (Saver(saver), writing)
}

/// Encoded values of a table, in the order of their keys.
type Rows = Vec<Vec<u8>>;

fn values(table: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Rows, redb::Error> {
    Ok(table.iter()?.map(|row| row.map(|(_, value)| value.value().to_vec())).collect::<Result<_, _>>()?)
}

/// A download's id, or a plain version's: they differ in length.
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
    for n in [count.life, count.seq.into(), count.total_bytes, count.reserved, count.unsure] {
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
    let form = u8::decode(&mut r)?;
    if ![PLAIN, DOWNLOAD, OLD_PLAIN, OLD_DOWNLOAD].contains(&form) {
        return Err(DecodeError::UnknownType(form));
    }
    let grant = if matches!(form, DOWNLOAD | OLD_DOWNLOAD) {
        Some(ServedGrant { download: DownloadId::decode(&mut r)?, guid: Guid::decode(&mut r)? })
    } else {
        None
    };
    let (version, provider) = (Wire::decode(&mut r)?, Wire::decode(&mut r)?);
    let old = matches!(form, OLD_PLAIN | OLD_DOWNLOAD);
    let life = if old { 0 } else { u64::decode(&mut r)? };
    let seq = if old { u32::decode(&mut r)? } else { u32::try_from(u64::decode(&mut r)?).unwrap_or(u32::MAX) };
    let total_bytes = u64::decode(&mut r)?;
    let (reserved, unsure) = if old { (total_bytes, 0) } else { (u64::decode(&mut r)?, u64::decode(&mut r)?) };
    let mut sent = Vec::new();
    while !r.rest().is_empty() {
        sent.push(u64::decode(&mut r)?..u64::decode(&mut r)?);
    }
    Ok(Count { grant, version, provider, life, seq, total_bytes, reserved, unsure, sent })
}

/// Why a spool cannot be opened.
fn unopened(path: &Path, e: redb::Error) -> Error {
    let no_sense = |e: &io::Error| matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    match e {
        redb::Error::DatabaseAlreadyOpen => Error::InUse(path.to_owned()),
        redb::Error::Io(e) if !no_sense(&e) => Error::at(path)(e),
        e => Error::Damaged(path.to_owned(), e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::ids::{ProviderId, PublicKey, RecordId, VersionId};
    use swarmedge_core::wire::Text;
    use swarmedge_core::wire::records::GrantRecord;

    fn record(n: u32) -> LedgerRecord {
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
        })
    }

    fn count(download: Option<u32>, seq: u32) -> Count {
        let grant = download.map(|n| ServedGrant { download: DownloadId::numbered(n), guid: Guid::numbered(1) });
        let sent = if grant.is_some() { vec![0..5, 7..9] } else { vec![] };
        let (version, provider) = (VersionId::numbered(1), ProviderId(7));
        Count { grant, version, provider, life: 3, seq, total_bytes: 7, reserved: 9, unsure: 2, sent }
    }

    #[test]
    fn a_file_that_may_not_be_opened_is_not_called_damaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = Spool::open(dir.path()).expect_err("a directory is no file");
        assert!(matches!(error, Error::File { .. }), "{error}");
        let path = dir.path().join("spool");
        std::fs::write(&path, "no database").expect("writes");
        let error = Spool::open(&path).expect_err("no database");
        assert!(matches!(error, Error::Damaged(..)), "{error}");
        let denied = Error::at(&path)(io::ErrorKind::PermissionDenied.into());
        let denied = crate::error::Error::from(denied);
        assert_eq!(denied.code(), crate::error::Code::Forbidden);
        assert!(denied.to_string().contains("user"), "{denied}");
    }

    #[test]
    fn what_was_written_and_not_taken_off_is_there_again() {
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
        assert!(spool.write(&[first, second]));
        drop(spool);
        let (_, (records, counts)) = Spool::open(&path).expect("opened");
        assert_eq!(records, [record(2)]);
        assert_eq!(counts, [count(None, 1), count(Some(1), 2)], "in the order of their keys");
    }

    #[test]
    fn a_file_that_is_no_spool_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("edge.redb");
        std::fs::write(&path, vec![7; 8192]).expect("written");
        assert!(Spool::open(&path).expect_err("damaged").to_string().contains("edge.redb"));
    }
}
