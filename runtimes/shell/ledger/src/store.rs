//! The ledger's writer. Each batch of records is one transaction, which stores every record once and recomputes the row
//! of each download whose records changed, before the records are acknowledged.

use super::database::{Connection, Database};
use super::day::Day;
use super::gather::{FreshRecords, Selection, gather};
use super::line::{COLUMNS, clients, download_row};
use super::places::{self, Places};
use super::rows::{Value, among, insert};
use super::successors;
use super::usage::bytes_at;
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use swarmedge_core::accounting::evidence::{Evidence, key};
use swarmedge_core::accounting::logs::{head_alone, head_id};
use swarmedge_core::ids::{Guid, RecordId};
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{EdgeRecord, LedgerRecord, LogEvent, Side};
use swarmedge_ground::error::Error;

/// Days before the first open day from which a download's records are read: a download without an end stays open for 30
/// days.
pub(super) const EVIDENCE_DAYS: i64 = 33;
/// Kind number of downloaders' usage records.
pub(super) const DOWNLOADER: i64 = 1;
/// Kind number of uploaders' usage records.
pub(super) const UPLOADER: i64 = 2;
/// First kind number of the CNs' log records, see [`log_kind`].
pub(super) const LOGS_FROM: i64 = 5;
/// Below this number, downloads are settled on one thread.
const ONE_THREAD_MAX: usize = 32;
/// Kind number of possession outcomes; numbers from [`LOGS_FROM`] up to it are the CNs' log records.
pub(super) const POSSESSION: i64 = 16;
/// Attempts to empty SQLite's log at shutdown; each one waits some seconds for readers.
const CHECKPOINTS_MAX: u32 = 3;

/// The only writer of a ledger's database.
pub struct Store {
    /// The connection; `None` after a failure until it is reopened.
    db: Option<Connection>,
    database: Database,
    /// Days whose partitions this process knows to exist.
    partitions: BTreeSet<i64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.database)
    }
}

impl Store {
    /// Opens the database; creates it if it is missing.
    pub async fn open(database: &Database) -> Result<Self, Error> {
        let db = database.open_writer().await?;
        Ok(Self { db: Some(db), database: database.clone(), partitions: BTreeSet::new() })
    }

    /// Stores `records` durably; after an error some of them may be stored. A record with a known id is skipped, so a
    /// batch may be repeated. A record that the database refuses is set aside and does not hold up the others. After an
    /// error the next call reopens the database.
    pub async fn store(&mut self, records: &[LedgerRecord], now_ms: u64) -> Result<(), Error> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => self.database.open_writer().await?,
        };
        let mut stored = self.store_apart(&mut db, records, now_ms).await;
        if stored.is_ok() {
            stored = self.database.remember(&mut db).await;
        }
        match stored {
            Ok(()) => self.db = Some(db),
            Err(e) => {
                self.partitions.clear();
                return Err(self.database.unusable(&e));
            }
        }
        self.partitions.insert(Day::of_ms(now_ms).to_sql());
        Ok(())
    }

    /// Stores all records in one transaction; if the database refuses it, halves the batch down to the refused records.
    async fn store_apart(&self, db: &mut Connection, records: &[LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
        let today = Day::of_ms(now_ms);
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            match (self.store_in(db, part, now_ms, today).await, part) {
                (Err(e), [record]) if is_refusal(&e) => set_aside(db, record, &brief(&e), now_ms).await?,
                (Err(e), [_, _, ..]) if is_refusal(&e) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                (done, _) => done?,
            }
        }
        Ok(())
    }

    async fn store_in(
        &self,
        db: &mut Connection,
        records: &[LedgerRecord],
        now_ms: u64,
        today: Day,
    ) -> Result<(), sqlx::Error> {
        let mut change = db.begin().await?;
        if !self.partitions.contains(&today.to_sql()) {
            Connection::partition(&mut change, today.to_sql()).await?;
        }
        let heads = heads_alone(records, now_ms);
        let new = insert_new_keys(&mut change, heads.iter().chain(records), today).await?;
        places::add(&mut change, &new, today).await?;
        successors::add(&mut change, &new, now_ms).await?;
        let first_open = first_open(&mut change).await?;
        for record in &new {
            if let LedgerRecord::Edge(r) = record
                && r.download.is_none()
            {
                add_plain(&mut change, r, today.max(first_open)).await?;
            }
        }
        let settled = store_records(&mut change, &new, first_open, now_ms, today).await?;
        settle(&mut change, settled, first_open, now_ms).await?;
        change.commit().await
    }

    pub(super) const fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the open connection; fails if the last write failed.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, Error> {
        let lost = || Error::failed(format!("ledger {} is not open", self.database));
        self.db.as_mut().ok_or_else(lost)
    }

    /// Checkpoints SQLite's log into the file, as far as readers permit.
    pub(super) async fn checkpoint(&mut self) {
        if let Some(db) = &mut self.db
            && let Err(error) = db.checkpoint(false).await
        {
            tracing::warn!(database = %self.database, %error, "the ledger's log cannot be checkpointed");
        }
    }

    /// Closes the database with an empty log, so that a copy of the file alone is the whole ledger.
    pub(super) async fn close_with_empty_log(mut self) {
        if let Some(db) = &mut self.db {
            let mut whole = Ok(false);
            for _ in 0..CHECKPOINTS_MAX {
                whole = db.checkpoint(true).await;
                if !matches!(whole, Ok(false)) {
                    break;
                }
            }
            let error = whole.as_ref().err().map(brief);
            if !matches!(whole, Ok(true)) {
                tracing::warn!(database = %self.database, error, "part of the ledger is still in its -wal file");
            }
        }
        self.close().await;
    }

    /// Updates the mark and closes the database.
    pub async fn close(mut self) {
        let Some(mut db) = self.db.take() else { return };
        let closed = match self.database.remember(&mut db).await {
            Ok(()) => db.close().await,
            Err(e) => Err(e),
        };
        if let Err(error) = closed {
            tracing::warn!(database = %self.database, %error, "the ledger's database did not close cleanly");
        }
    }
}

/// Returns the first day that is not closed.
pub(super) async fn first_open(db: &mut AnyConnection) -> Result<Day, sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(day) FROM day").fetch_one(db).await?;
    Ok(last.map_or_else(Day::default, |day| Day::from_sql(day).next()))
}

/// Returns the log heads of usage records, as records of their own: each head is stored, also if its usage record is
/// known with another head, so that a forked log can be proven.
fn heads_alone(records: &[LedgerRecord], now_ms: u64) -> Vec<LedgerRecord> {
    let head = |r: &LedgerRecord| match r {
        LedgerRecord::Usage(logged) => Some(LedgerRecord::Log(head_alone(logged, now_ms))),
        LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_)
        | LedgerRecord::Log(_) => None,
    };
    records.iter().filter_map(head).collect()
}

/// Returns the key of the log head that a usage record carries; `None` for other records.
fn carried_head(record: &LedgerRecord) -> Option<RecordId> {
    if let LedgerRecord::Usage(logged) = record { Some(head_id(&logged.head.head)) } else { None }
}

/// Inserts the keys of records and log heads; returns the records whose keys were new, without heads that a usage
/// record among them carries.
async fn insert_new_keys<'a>(
    change: &mut AnyConnection,
    records: impl Iterator<Item = &'a LedgerRecord>,
    today: Day,
) -> Result<Vec<&'a LedgerRecord>, sqlx::Error> {
    let mut by_id: BTreeMap<Vec<u8>, &LedgerRecord> = records.map(|r| (key(r).0.to_vec(), r)).collect();
    let ids = by_id.keys().map(|id| vec![id[..].into(), today.to_sql().into()]).collect();
    let inserted =
        insert(change, "INSERT INTO record_id (id, day)", ids, "ON CONFLICT (id) DO NOTHING RETURNING id").await?;
    let mut new = Vec::with_capacity(inserted.len());
    for row in &inserted {
        new.extend(by_id.remove(&row.try_get::<Vec<u8>, _>(0)?));
    }
    let carried: BTreeSet<RecordId> = new.iter().filter_map(|r| carried_head(r)).collect();
    new.retain(|r| !carried.contains(&key(r)));
    Ok(new)
}

/// Makes a record's row. With `is_read` false the row names no download, so that settlement does not read it again.
fn row_of(record: &LedgerRecord, is_read: bool, now_ms: u64, today: Day) -> Vec<Value> {
    vec![
        key(record).0[..].into(),
        today.to_sql().into(),
        kind(record).into(),
        record.download().filter(|_| is_read).map(|d| d.0.to_vec()).as_deref().into(),
        now_ms.into(),
        Value::Bytes(record.to_bytes()),
    ]
}

/// Returns the kind number of a record in the database.
const fn kind(record: &LedgerRecord) -> i64 {
    match record {
        LedgerRecord::Usage(r) => match r.record.side {
            Side::Downloader => DOWNLOADER,
            Side::Uploader => UPLOADER,
        },
        LedgerRecord::Edge(_) | LedgerRecord::Served(_) => 3,
        LedgerRecord::Granted(_) => 4,
        LedgerRecord::Log(r) => log_kind(&r.event),
        LedgerRecord::Possession(_) => POSSESSION,
    }
}

/// Returns the kind number of a CN's log record, [`LOGS_FROM`] or above.
pub(super) const fn log_kind(event: &LogEvent) -> i64 {
    match event {
        LogEvent::Login(_) => LOGS_FROM,
        LogEvent::Registered(_) => LOGS_FROM + 1,
        LogEvent::Offered(_) => LOGS_FROM + 2,
        LogEvent::Head(_) => log_kind_of_heads(),
        LogEvent::Located(_) => LOCATED,
        LogEvent::Rekeyed(_) => log_kind_of_rekeys(),
    }
}

/// Kind number of [`LogEvent::Located`].
pub(super) const LOCATED: i64 = LOGS_FROM + 8;

/// Kind number of [`LogEvent::Head`].
pub(super) const fn log_kind_of_heads() -> i64 {
    LOGS_FROM + 3
}

/// Kind number of [`LogEvent::Rekeyed`].
pub(super) const fn log_kind_of_rekeys() -> i64 {
    LOGS_FROM + 4
}

/// Whether records of a download still count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// No grant record is known yet: nothing can be settled.
    Ungranted,
    /// Records of clients and edges count.
    Open,
    /// Clients' records no longer count; edges' records may.
    Ended,
    /// The download's day is closed: no record counts.
    Final,
}

/// Reads the standings of downloads; those without a row are missing in the result.
async fn standings(
    change: &mut AnyConnection,
    ids: &[Vec<u8>],
    first_open: Day,
    now_ms: u64,
) -> Result<BTreeMap<Vec<u8>, Standing>, sqlx::Error> {
    let mut all = BTreeMap::new();
    for row in &among(change, "SELECT download, day, closes_ms FROM download WHERE download", ids, 0).await? {
        let standing = if Day::from_sql(row.try_get(1)?) < first_open {
            Standing::Final
        } else if bytes_at(row, 2)? <= now_ms {
            Standing::Ended
        } else {
            Standing::Open
        };
        all.insert(row.try_get::<Vec<u8>, _>(0)?, standing);
    }
    Ok(all)
}

/// Stores `new` records and returns the evidence of the downloads to settle again. Older records are read of these
/// downloads only, not of ungranted or closed ones. Late records are stored and counted in a metric.
async fn store_records(
    change: &mut AnyConnection,
    new: &[&LedgerRecord],
    first_open: Day,
    now_ms: u64,
    today: Day,
) -> Result<Vec<Evidence>, sqlx::Error> {
    let mut fresh = FreshRecords::new();
    for record in new {
        if let Some(download) = record.download() {
            fresh.entry(download.0.to_vec()).or_default().insert(key(record), record);
        }
    }
    let ids: Vec<_> = fresh.keys().cloned().collect();
    let mut known = BTreeMap::new();
    for row in &among(change, "SELECT download, day FROM evidence WHERE download", &ids, 0).await? {
        known.insert(row.try_get::<Vec<u8>, _>(0)?, row.try_get::<i64, _>(1)?);
    }
    let standings = standings(change, &ids, first_open, now_ms).await?;
    let mut unread = BTreeSet::new();
    fresh.retain(|id, records| match standings.get(id).copied().unwrap_or(Standing::Ungranted) {
        Standing::Ungranted => records.values().any(|r| matches!(r, LedgerRecord::Granted(_))),
        Standing::Open => true,
        Standing::Ended if records.values().any(|r| is_of_edge(r)) => true,
        Standing::Ended | Standing::Final => {
            metrics::counter!("swarmedge_ledger_late_total").increment(records.len() as u64);
            let said = records.iter().filter(|(_, r)| matches!(r, LedgerRecord::Usage(_)) || is_of_edge(r));
            unread.extend(said.map(|(key, _)| *key));
            false
        }
    });
    let read: Vec<_> = fresh.keys().filter(|id| known.contains_key(*id)).cloned().collect();
    let oldest = read.iter().filter_map(|id| known.get(id)).min().copied().unwrap_or_default();
    let selection = Selection { downloads: &read, since: oldest.max(evidence_since(first_open)), known_ms: u64::MAX };
    let gathered = gather(change, selection, &fresh, now_ms).await?;
    gathered.detach_replaced(change, &fresh).await?;
    unread.extend(gathered.unread(&fresh));
    // the clock may have been set back
    let is_first = |id: &&Vec<u8>| known.get(*id).is_none_or(|since| today.to_sql() < *since);
    let row = |id: &Vec<u8>| vec![id[..].into(), today.to_sql().into()];
    let begun = ids.iter().filter(is_first).map(row).collect();
    let again = "ON CONFLICT (download) DO UPDATE SET day = excluded.day";
    insert(change, "INSERT INTO evidence (download, day)", begun, again).await?;
    let is_read = |record: &LedgerRecord| !unread.contains(&key(record));
    let rows = new.iter().map(|record| row_of(record, is_read(record), now_ms, today)).collect();
    insert(change, "INSERT INTO record (id, day, kind, download, received_ms, body)", rows, "").await?;
    Ok(gathered.evidence.into_values().collect())
}

const fn is_of_edge(record: &LedgerRecord) -> bool {
    matches!(record, LedgerRecord::Edge(_) | LedgerRecord::Served(_))
}

/// Returns the first day from which records are read, see [`EVIDENCE_DAYS`].
pub(super) fn evidence_since(first_open: Day) -> i64 {
    first_open.to_sql().saturating_sub(EVIDENCE_DAYS)
}

/// Settles downloads again from their stored records, as of `now_ms`.
pub(super) async fn settle_again(
    change: &mut AnyConnection,
    downloads: &[Vec<u8>],
    first_open: Day,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let selection = Selection { downloads, since: evidence_since(first_open), known_ms: u64::MAX };
    let gathered = gather(change, selection, &FreshRecords::new(), now_ms).await?;
    gathered.detach_replaced(change, &FreshRecords::new()).await?;
    settle(change, gathered.evidence.into_values().collect(), first_open, now_ms).await
}

/// Settles downloads and writes their rows. Rows of closed days are not changed.
async fn settle(
    change: &mut AnyConnection,
    downloads: Vec<Evidence>,
    first_open: Day,
    now_ms: u64,
) -> Result<(), sqlx::Error> {
    let clients: BTreeSet<Guid> = downloads.iter().flat_map(clients).collect();
    let clients: Vec<_> = clients.into_iter().map(|guid| guid.0.to_vec()).collect();
    let places = Places::of(change, &clients, evidence_since(first_open)).await?;
    let lines = download_rows(downloads, &places, first_open, now_ms);
    insert(change, &format!("INSERT INTO download ({COLUMNS})"), lines, &replacing(first_open)).await?;
    Ok(())
}

/// Computes the rows of downloads, half of them on a second thread: checking receipts is the slowest step outside the
/// database.
fn download_rows(mut downloads: Vec<Evidence>, places: &Places, first_open: Day, now_ms: u64) -> Vec<Vec<Value>> {
    let of = |downloads: Vec<Evidence>| {
        downloads.iter().filter_map(|evidence| download_row(evidence, places, first_open, now_ms)).collect::<Vec<_>>()
    };
    if downloads.len() < ONE_THREAD_MAX {
        return of(downloads);
    }
    let half = downloads.split_off(downloads.len() / 2);
    std::thread::scope(|scope| {
        let half = scope.spawn(|| of(half));
        let mut lines = of(downloads);
        // pass a panic of that thread on
        lines.extend(half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        lines
    })
}

/// Returns the conflict clause that replaces a download's row, unless the row belongs to a closed day.
fn replacing(first_open: Day) -> String {
    let set = |column: &str| format!("{column} = excluded.{column}");
    let set = COLUMNS.split(", ").filter(|column| *column != "download").map(set).collect::<Vec<_>>().join(", ");
    format!("ON CONFLICT (download) DO UPDATE SET {set} WHERE download.day >= {}", first_open.to_sql())
}

/// Adds the growth of an edge's plain traffic counter to a day.
async fn add_plain(change: &mut AnyConnection, r: &EdgeRecord, day: Day) -> Result<(), sqlx::Error> {
    let known: Option<i64> = sqlx::query_scalar("SELECT MAX(total) FROM plain WHERE edge = $1 AND version = $2")
        .bind(r.edge.0.to_vec())
        .bind(r.version.0.to_vec())
        .fetch_one(&mut *change)
        .await?;
    let total = i64::try_from(r.total_bytes).unwrap_or(i64::MAX);
    let grown = total.saturating_sub(known.unwrap_or(0));
    if grown <= 0 {
        return Ok(()); // a newer record of the counter came first
    }
    let row = vec![
        i64::from(r.provider.0).into(),
        day.to_sql().into(),
        r.version.0[..].into(),
        r.edge.0[..].into(),
        grown.into(),
        total.into(),
    ];
    let into = "INSERT INTO plain (provider, day, version, edge, bytes, total)";
    let again = "ON CONFLICT (edge, version, day) DO UPDATE
                 SET bytes = plain.bytes + excluded.bytes, total = excluded.total";
    insert(change, into, vec![row], again).await.map(|_| ())
}

/// Decodes the record in a column.
pub(super) fn decode(row: &sqlx::any::AnyRow, column: usize) -> Result<LedgerRecord, sqlx::Error> {
    let body: Vec<u8> = row.try_get(column)?;
    LedgerRecord::from_bytes(&body).map_err(|e| sqlx::Error::Decode(format!("a broken record: {e}").into()))
}

/// Returns whether the database rejects the values themselves, rather than being unavailable.
fn is_refusal(e: &sqlx::Error) -> bool {
    let code = e.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| match code.parse::<u32>() {
        // SQLite: too big, constraint, mismatch; higher bytes hold the extended code
        Ok(code) if code < 10_000 => matches!(code & 0xff, 18..=20),
        // PostgreSQL: data exception, integrity constraint
        Ok(_) | Err(_) => code.starts_with("22") || code.starts_with("23"),
    })
}

/// Stores a refused record in the `set_aside` table, where it is evidence and is not billed.
async fn set_aside(db: &mut Connection, record: &LedgerRecord, why: &str, now_ms: u64) -> Result<(), sqlx::Error> {
    tracing::error!(id = %record.id(), why, "the database refuses a record: it is set aside and not billed");
    metrics::counter!("swarmedge_ledger_set_aside_total").increment(1);
    let row = vec![
        record.id().0[..].into(),
        Day::of_ms(now_ms).to_sql().into(),
        now_ms.into(),
        Value::Text(why.to_owned()),
        Value::Bytes(record.to_bytes()),
    ];
    let mut change = db.begin().await?;
    insert(&mut change, "INSERT INTO set_aside (id, day, received_ms, why, body)", vec![row], "ON CONFLICT DO NOTHING")
        .await?;
    change.commit().await
}

/// Returns the database's own error message, without sqlx's layers.
pub(super) fn brief(e: &sqlx::Error) -> String {
    e.as_database_error().map_or_else(|| e.to_string(), |db| db.message().to_owned())
}

#[cfg(test)]
impl Store {
    pub(super) async fn execute_for_test(&mut self, sql: &str) {
        use sqlx::Executor as _;
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        self.db.as_mut().expect("open").any.execute(sql).await.expect("valid");
    }

    pub(super) async fn count_for_test(&mut self, table: &str) -> i64 {
        let db = &mut self.db.as_mut().expect("open").any;
        let count = format!("SELECT count(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(db).await.expect("there")
    }
}
