//! The ledger's database: SQLite, one writer, every acknowledged record durable.

use crate::cli::Error;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqliteConnection};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::{GrantRecord, LedgerRecord, Side};

/// Each step makes the schema of the next version; `user_version` says how many were taken.
const STEPS: [&str; 1] = [include_str!("schema.sql")];

/// How long a reader waits for the writer, and the writer for a reader that holds a lock.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The one writer of a ledger's database.
pub struct Store {
    db: SqliteConnection,
    path: PathBuf,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

impl Store {
    /// Opens the database, makes it if there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WAIT)
            .disable_statement_logging();
        let unusable = |e: sqlx::Error| Error::failed(format!("cannot open ledger {}: {}", path.display(), brief(&e)));
        let mut db = options.connect().await.map_err(unusable)?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut db).await.map_err(unusable)?;
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        if done > STEPS.len() {
            return Err(Error::failed(format!("ledger {} was written by a newer version", path.display())));
        }
        for (n, step) in STEPS.iter().enumerate().skip(done) {
            migrate(&mut db, n + 1, step).await.map_err(unusable)?;
        }
        Ok(Self { db, path: path.to_owned() })
    }

    /// Stores all of `records` durably, or none. A record whose id is there already is left as it is.
    pub async fn store(&mut self, records: &[LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
        let mut batch = self.db.begin_with("BEGIN IMMEDIATE").await?;
        for record in records {
            insert(&mut batch, record, now_ms).await?;
        }
        batch.commit().await
    }

    /// Ends the writer, its log folded into the database.
    pub async fn close(self) {
        if let Err(error) = self.db.close().await {
            tracing::warn!(path = %self.path.display(), %error, "the ledger's database did not close cleanly");
        }
    }
}

async fn migrate(db: &mut SqliteConnection, version: usize, step: &'static str) -> Result<(), sqlx::Error> {
    let mut change = db.begin_with("BEGIN EXCLUSIVE").await?;
    change.execute(sqlx::raw_sql(step)).await?;
    let done = format!("PRAGMA user_version = {version}");
    change.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(done))).await?;
    change.commit().await
}

async fn insert(db: &mut SqliteConnection, record: &LedgerRecord, now_ms: u64) -> Result<(), sqlx::Error> {
    let id = record.id();
    let (kind, download, reporter, version, seq): (i64, _, &[u8], _, _) = match record {
        LedgerRecord::Usage(r) => {
            let kind = match r.side {
                Side::Downloader => 1,
                Side::Uploader => 2,
            };
            (kind, Some(&r.download), &r.reporter.0, &r.version, r.seq)
        }
        LedgerRecord::Edge(r) => (3, r.download.as_ref(), &r.edge.0, &r.version, r.seq),
        LedgerRecord::Granted(r) => (4, Some(&r.download), &r.guid.0, &r.version, 0),
    };
    let new = sqlx::query(
        "INSERT INTO record (id, kind, download, reporter, version, seq, received_ms, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&id.0[..])
    .bind(kind)
    .bind(download.map(|d| &d.0[..]))
    .bind(reporter)
    .bind(&version.0[..])
    .bind(seq)
    .bind(to_sql(now_ms))
    .bind(record.to_bytes())
    .execute(&mut *db)
    .await?;
    match record {
        LedgerRecord::Granted(grant) if new.rows_affected() == 1 => insert_download(db, grant).await,
        LedgerRecord::Granted(_) | LedgerRecord::Usage(_) | LedgerRecord::Edge(_) => Ok(()),
    }
}

async fn insert_download(db: &mut SqliteConnection, grant: &GrantRecord) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO download (download, provider, path, issued_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (download) DO NOTHING",
    )
    .bind(&grant.download.0[..])
    .bind(i64::from(grant.provider.0))
    .bind(&grant.path[..])
    .bind(to_sql(grant.issued_ms))
    .execute(db)
    .await?;
    Ok(())
}

/// SQLite's integers are signed.
fn to_sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A database error without its layers.
pub(super) fn brief(e: &sqlx::Error) -> String {
    e.as_database_error().map_or_else(|| e.to_string(), |db| db.message().to_owned())
}

#[cfg(test)]
impl Store {
    pub(super) async fn execute_for_test(&mut self, sql: &'static str) {
        self.db.execute(sqlx::raw_sql(sql)).await.expect("valid");
    }

    pub(super) async fn count_for_test(&mut self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(&mut self.db).await.expect("there")
    }
}
