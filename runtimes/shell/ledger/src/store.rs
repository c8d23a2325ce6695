//! The ledger's writer. Each batch of records is one transaction, which stores every record once and recomputes the row
//! of each download whose records changed, before the records are acknowledged.

use super::clock::Clock;
use super::columns::brief;
use super::connection::Connection;
use super::database::Database;
use super::day::Day;
use super::places;
use super::rows::{Value, insert};
use super::settle::{settle, store_records};
use super::successors;
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use swarmedge_core::accounting::evidence::key;
use swarmedge_core::accounting::logs::{head_alone, head_id};
use swarmedge_core::ids::RecordId;
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{EdgeRecord, LedgerRecord};
use swarmedge_ground::error::Error;

/// Attempts to empty SQLite's log at shutdown; each one waits some seconds for readers.
const CHECKPOINTS_MAX: u32 = 3;

/// The only writer of a ledger's database.
pub struct Store {
    /// The connection; `None` after a failure until it is reopened.
    db: Option<Connection>,
    database: Database,
    /// Days for which this process knows that a PostgreSQL partition exists.
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
            stored = self.database.write_mark(&mut db).await;
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
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            match (self.store_in(db, part, now_ms).await, part) {
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

    async fn store_in(&self, db: &mut Connection, records: &[LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
        let mut change = db.begin().await?;
        let clock = Clock::read(&mut change, now_ms).await?;
        let today = clock.today;
        if !self.partitions.contains(&today.to_sql()) {
            Connection::partition(&mut change, today.to_sql()).await?;
        }
        let heads = heads_alone(records, now_ms);
        let new = insert_new_keys(&mut change, heads.iter().chain(records), today).await?;
        places::add(&mut change, &new, today).await?;
        successors::add(&mut change, &new, now_ms).await?;
        for record in &new {
            if let LedgerRecord::Edge(r) = record
                && r.download.is_none()
            {
                add_plain(&mut change, r, today.max(clock.first_open)).await?;
            }
        }
        let settled = store_records(&mut change, &new, clock).await?;
        settle(&mut change, settled, clock).await?;
        change.commit().await
    }

    /// Returns the open connection, and the database for error messages; fails if the last write failed.
    pub(super) fn parts(&mut self) -> Result<(&mut Connection, &Database), Error> {
        let lost = || Error::failed(format!("ledger {} is not open", self.database));
        Ok((self.db.as_mut().ok_or_else(lost)?, &self.database))
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

    /// Updates the mark, which records how many changes the SQLite file has, and closes the database.
    pub async fn close(mut self) {
        let Some(mut db) = self.db.take() else { return };
        let closed = match self.database.write_mark(&mut db).await {
            Ok(()) => db.close().await,
            Err(e) => Err(e),
        };
        if let Err(error) = closed {
            tracing::warn!(database = %self.database, %error, "the ledger's database did not close cleanly");
        }
    }
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

/// Returns the id of the log head within a usage record; `None` for other records.
fn head_within(record: &LedgerRecord) -> Option<RecordId> {
    if let LedgerRecord::Usage(logged) = record { Some(head_id(&logged.head.head)) } else { None }
}

/// Inserts the keys of records and log heads; returns the records whose keys were new, without heads that are also
/// within a usage record among them.
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
    let within: BTreeSet<RecordId> = new.iter().filter_map(|r| head_within(r)).collect();
    new.retain(|r| !within.contains(&key(r)));
    Ok(new)
}

/// Adds the growth of an edge's counter of plain HTTP bytes to a day.
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
