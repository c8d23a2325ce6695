//! An open connection to a ledger's database. SQLite and PostgreSQL run the same queries; schema, the writer's lock and
//! partitions differ.

use super::rows::is_postgres;
use sqlx::any::AnyConnectOptions;
use sqlx::{
    Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _, Transaction,
};
use std::sync::Once;

/// Tables and indexes of a new SQLite file.
const SQLITE: &str = include_str!("schema/sqlite.sql");
/// Tables and indexes of a new PostgreSQL database.
const POSTGRES: &str = include_str!("schema/postgres.sql");
/// Version of the SQLite and PostgreSQL schemas, which an open database must have. Smaller numbers were used before
/// release 0.1.0.
pub(super) const VERSION: i64 = 10;

/// Key of the advisory lock that serialises PostgreSQL writers ("swmledge").
const WRITER_LOCK: i64 = 0x7377_6d6c_6564_6765;

/// An open connection to the database.
pub(super) struct Connection {
    pub(super) any: AnyConnection,
}

impl Connection {
    /// Opens the database at a URL of sqlx.
    pub(super) async fn open(url: &str) -> Result<Self, sqlx::Error> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let options: AnyConnectOptions = url.parse()?;
        Ok(Self { any: options.disable_statement_logging().connect().await? })
    }

    fn is_postgres(&self) -> bool {
        is_postgres(&self.any)
    }

    /// Begins a write transaction, which other writing processes wait for; counts it as a change.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Any>, sqlx::Error> {
        let is_counted = !self.is_postgres();
        let mut change = self.begin_uncounted().await?;
        if is_counted {
            change.execute(sqlx::raw_sql("UPDATE written SET n = n + 1")).await?;
        }
        Ok(change)
    }

    /// Returns the number of write transactions so far; 0 in PostgreSQL, which does not count them.
    pub(super) async fn written(&mut self) -> Result<u64, sqlx::Error> {
        if self.is_postgres() {
            return Ok(0);
        }
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = 'written'")
            .fetch_one(&mut self.any)
            .await?;
        if there == 0 {
            return Ok(0);
        }
        let n: i64 = sqlx::query_scalar("SELECT n FROM written").fetch_one(&mut self.any).await?;
        Ok(u64::try_from(n).unwrap_or(0))
    }

    /// Checkpoints SQLite's write-ahead log into the file. With `all` it waits for readers and empties the log; returns
    /// whether everything was moved.
    pub(super) async fn checkpoint(&mut self, all: bool) -> Result<bool, sqlx::Error> {
        if self.is_postgres() {
            return Ok(true);
        }
        let how = if all { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "PRAGMA wal_checkpoint(PASSIVE)" };
        let row = sqlx::query(how).fetch_one(&mut self.any).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    }

    /// Closes the connection to the database.
    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.any.close().await
    }

    async fn begin_uncounted(&mut self) -> Result<Transaction<'_, Any>, sqlx::Error> {
        if !self.is_postgres() {
            return self.any.begin_with("BEGIN IMMEDIATE").await;
        }
        let mut change = self.any.begin().await?;
        sqlx::query("SELECT 1 FROM (SELECT pg_advisory_xact_lock($1)) AS turn")
            .bind(WRITER_LOCK)
            .execute(&mut *change)
            .await?;
        Ok(change)
    }

    /// Begins a read transaction that sees one state of the database, whatever is written meanwhile.
    pub(super) async fn snapshot(&mut self) -> Result<Transaction<'_, Any>, sqlx::Error> {
        let begin = if self.is_postgres() { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        self.any.begin_with(begin).await
    }

    /// Creates PostgreSQL's partition for a day's records unless it exists.
    pub(super) async fn partition(change: &mut AnyConnection, day: i64) -> Result<(), sqlx::Error> {
        if is_postgres(change) {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS record_{day} PARTITION OF record FOR VALUES FROM ({day}) TO ({})",
                day + 1
            );
            change.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        }
        Ok(())
    }

    /// Deletes the records that arrived before a day, with their ids.
    pub(super) async fn trim(&mut self, before: i64) -> Result<(), sqlx::Error> {
        if self.is_postgres() {
            let text = "SELECT CAST(c.relname AS TEXT) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                        WHERE i.inhparent = CAST('record' AS regclass)";
            let names: Vec<String> = sqlx::query_scalar(text).fetch_all(&mut self.any).await?;
            for name in names {
                let day = name.strip_prefix("record_").and_then(|day| day.parse::<i64>().ok());
                if day.is_some_and(|day| day < before) {
                    let sql = format!("DROP TABLE IF EXISTS {name}");
                    self.any.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
                }
            }
        } else {
            sqlx::query("DELETE FROM record WHERE day < $1").bind(before).execute(&mut self.any).await?;
        }
        for text in [
            "DELETE FROM record_id WHERE day < $1",
            "DELETE FROM place WHERE day < $1",
            "DELETE FROM set_aside WHERE day < $1",
            "DELETE FROM evidence WHERE day < $1
             AND NOT EXISTS (SELECT 1 FROM record WHERE record.download = evidence.download)",
        ] {
            sqlx::query(text).bind(before).execute(&mut self.any).await?;
        }
        Ok(())
    }

    /// Creates the tables of a new database, and stores the schema's version.
    pub(super) async fn create_tables(&mut self) -> Result<(), sqlx::Error> {
        let postgres = self.is_postgres();
        let mut change = self.begin_uncounted().await?;
        if version(&mut change).await? > 0 {
            return change.rollback().await;
        }
        change.execute(sqlx::raw_sql(if postgres { POSTGRES } else { SQLITE })).await?;
        let done = if postgres {
            format!("INSERT INTO ledger_version VALUES ({VERSION})")
        } else {
            format!("PRAGMA user_version = {VERSION}")
        };
        change.execute(sqlx::raw_sql(AssertSqlSafe(done))).await?;
        change.commit().await
    }
}

#[cfg(test)]
impl Connection {
    /// Returns whether the server reports this connection as encrypted.
    pub(super) async fn is_encrypted_for_test(&mut self) -> bool {
        let text = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        sqlx::query_scalar(text).fetch_one(&mut self.any).await.expect("there")
    }
}

/// Returns the version of the schema; 0 without tables.
pub(super) async fn version(db: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    if is_postgres(db) {
        let there: bool =
            sqlx::query_scalar("SELECT to_regclass('ledger_version') IS NOT NULL").fetch_one(&mut *db).await?;
        if !there {
            return Ok(0);
        }
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM ledger_version").fetch_one(db).await
    } else {
        sqlx::query_scalar("PRAGMA user_version").fetch_one(db).await
    }
}
