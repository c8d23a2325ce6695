//! Connections to a ledger's database: a SQLite file, or a server that speaks PostgreSQL's protocol. Both run the same
//! queries; schema, the writer's lock and partitions differ.

use super::backup;
use super::store::brief;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{
    Any, AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _, Transaction,
};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::files::mark::{self, Mark};

/// Tables and indexes of a new SQLite file.
const SQLITE: &str = include_str!("schema/sqlite.sql");
/// Tables and indexes of a new PostgreSQL database.
const POSTGRES: &str = include_str!("schema/postgres.sql");
/// Version of both schemas, which an open database must have. Smaller numbers were used before release 0.1.0.
const VERSION: i64 = 10;

/// The ledger's name in the `accept-loss` command.
const WHOSE: &str = "ledger";

/// Key of the advisory lock that serialises PostgreSQL writers ("swmledge").
const WRITER_LOCK: i64 = 0x7377_6d6c_6564_6765;

/// The value of `[ledger] database`: a file's path or `postgres://…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Database {
    /// Path of a SQLite file.
    Sqlite(PathBuf),
    /// URL of a PostgreSQL server; may contain a password.
    Postgres(String),
}

impl Database {
    /// Resolves a relative path against `base`.
    pub fn resolve(&mut self, base: &Path) {
        if let Self::Sqlite(path) = self {
            *path = base.join(&*path);
        }
    }

    /// Returns whether password and records may cross the network unencrypted.
    fn is_in_the_clear(&self) -> bool {
        let Self::Postgres(url) = self else { return false };
        let Ok(options) = url.parse::<PgConnectOptions>() else { return false };
        let host = options.get_host();
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let near = options.get_socket().is_some() || host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        let asks = matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        !near && !asks
    }

    /// Opens the database for writing; creates it if it never existed.
    pub(super) async fn open_writer(&self) -> Result<Connection, Error> {
        if self.is_in_the_clear() {
            tracing::warn!(
                database = %self,
                "TLS is not asked for: password and records may travel in the clear; add \
                 ?sslmode=verify-full&sslrootcert=/path/of/ca.pem to the URL"
            );
        }
        let mut db = self.connect_whole("rwc").await?;
        if let Self::Sqlite(_) = self
            && backup::is_copy(&mut db).await.map_err(|e| self.unusable(&e))?
        {
            tracing::warn!(database = %self, "this is a restored backup: later records are not in it");
            // update the mark first: once the backup's id is gone, a mark ahead of it would count as loss
            self.remember(&mut db).await.map_err(|e| self.unusable(&e))?;
            backup::take_over(&mut db).await.map_err(|e| self.unusable(&e))?;
        }
        let settings = match self {
            Self::Sqlite(_) => ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA cache_size = -65536"],
            // statistics of ever-growing tables lag behind: make the planner use the index for lookups of many ids
            Self::Postgres(_) => {
                ["SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "SET jit = off"]
            }
        };
        for setting in settings {
            db.any.execute(sqlx::raw_sql(setting)).await.map_err(|e| self.unusable(&e))?;
        }
        db.create_tables().await.map_err(|e| self.unusable(&e))?;
        self.check_version(&mut db).await?;
        self.remember(&mut db).await.map_err(|e| self.unusable(&e))?;
        Ok(db)
    }

    /// Opens a connection after checking the file against its mark. Nothing is written before the check, so that a
    /// `-wal` file that was left behind can still be put back.
    async fn connect_whole(&self, mode: &str) -> Result<Connection, Error> {
        let Self::Sqlite(path) = self else { return self.connect(mode).await };
        Mark::of(path).refuse_loss(WHOSE)?;
        backup::refuse_orphaned_log(path)?;
        let (db, lack) = self.connect_and_look(path, mode).await?;
        lack.map_or(Ok(db), |what| Err(mark::lost(WHOSE, what, "go on with what is there")))
    }

    /// Opens a connection; also returns a text about changes that the file lacks, if any.
    async fn connect_and_look(&self, path: &Path, mode: &str) -> Result<(Connection, Option<String>), Error> {
        // read the mark first: a concurrent writer raises the file's counter before its mark
        let expected = Mark::of(path).written().unwrap_or(0);
        let mut db = self.connect(mode).await?;
        let written = db.written().await.map_err(|e| self.unusable(&e))?;
        let is_copy = backup::is_copy(&mut db).await.map_err(|e| self.unusable(&e))?;
        let lack = expected.checked_sub(written).filter(|n| *n > 0 && !is_copy);
        let lack = lack.map(|n| {
            format!("{self} lacks {n} of the {expected} changes made to it, as where {self}-wal was left behind")
        });
        Ok((db, lack))
    }

    /// Describes what is lost of the database; `None` if it is whole or was never created.
    pub async fn loss(&self) -> Result<Option<String>, Error> {
        let Self::Sqlite(path) = self else { return Ok(None) };
        let mark = Mark::of(path);
        match mark.loss() {
            None if mark.written().is_some() => {
                backup::refuse_orphaned_log(path)?;
                Ok(self.connect_and_look(path, "ro").await?.1)
            }
            loss => Ok(loss),
        }
    }

    /// Stores the number of changes in the mark beside the file.
    pub(super) async fn remember(&self, db: &mut Connection) -> Result<(), sqlx::Error> {
        if let Self::Sqlite(path) = self {
            Mark::of(path).remember(db.written().await?);
        }
        Ok(())
    }

    /// Refuses a backup with a foreign log beside it. Call before this process has opened the file.
    pub fn check_unopened(&self) -> Result<(), Error> {
        let Self::Sqlite(path) = self else { return Ok(()) };
        backup::refuse_foreign_log(path)
    }

    /// Refuses a missing file: only the ledger server creates it, so for other commands the path is wrong.
    pub fn check_there(&self) -> Result<(), Error> {
        if let Self::Sqlite(path) = self {
            Mark::of(path).refuse_loss(WHOSE)?;
        }
        match self {
            Self::Sqlite(path) if !path.exists() => {
                Err(Error::new(Code::NotFound, format!("there is no ledger at {}", path.display()))
                    .next("start the ledger server first: it makes its database"))
            }
            Self::Sqlite(_) | Self::Postgres(_) => Ok(()),
        }
    }

    /// Opens the database for reading beside its writer.
    pub(super) async fn open_reader(&self) -> Result<Connection, Error> {
        self.check_there()?;
        let mut db = self.connect_whole("ro").await?;
        self.check_version(&mut db).await?;
        Ok(db)
    }

    pub(super) async fn connect(&self, mode: &str) -> Result<Connection, Error> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let url = match self {
            Self::Sqlite(path) => {
                let path = path.to_string_lossy();
                let path = percent_encoding::utf8_percent_encode(&path, percent_encoding::NON_ALPHANUMERIC);
                format!("sqlite://{path}?mode={mode}")
            }
            Self::Postgres(url) => url.clone(),
        };
        let options: AnyConnectOptions = url.parse().map_err(|e: sqlx::Error| self.unusable(&e))?;
        let any = options.disable_statement_logging().connect().await.map_err(|e| self.unusable(&e))?;
        Ok(Connection { any, postgres: matches!(self, Self::Postgres(_)) })
    }

    async fn check_version(&self, db: &mut Connection) -> Result<(), Error> {
        match version(&mut db.any).await.map_err(|e| self.unusable(&e))? {
            VERSION => Ok(()),
            0 => Err(Error::failed(format!("ledger {self} has no tables yet"))
                .next("start the ledger server first: it makes them")),
            other => Err(Error::failed(format!(
                "ledger {self} has schema version {other}, and this program reads version {VERSION} only"
            ))
            .next("use the program that wrote it; or set [ledger] database to a new one, and keep this one")),
        }
    }

    pub(super) fn unusable(&self, e: &sqlx::Error) -> Error {
        Error::failed(format!("cannot use ledger {self}: {}", brief(e)))
    }
}

impl From<String> for Database {
    fn from(text: String) -> Self {
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        if is_url { Self::Postgres(text) } else { Self::Sqlite(text.into()) }
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl From<Database> for String {
    fn from(database: Database) -> Self {
        match database {
            Database::Sqlite(path) => path.to_string_lossy().into_owned(),
            Database::Postgres(url) => url,
        }
    }
}

/// Formats the database for messages, without a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                let host = rest.split('?').next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An open connection to the database.
pub(super) struct Connection {
    pub(super) any: AnyConnection,
    postgres: bool,
}

impl Connection {
    /// Begins a write transaction, which other writing processes wait for; counts it as a change.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_, Any>, sqlx::Error> {
        let is_counted = !self.postgres;
        let mut change = self.begin_uncounted().await?;
        if is_counted {
            change.execute(sqlx::raw_sql("UPDATE written SET n = n + 1")).await?;
        }
        Ok(change)
    }

    /// Returns the number of write transactions so far; 0 in PostgreSQL, which does not count them.
    async fn written(&mut self) -> Result<u64, sqlx::Error> {
        if self.postgres {
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
        if self.postgres {
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
        if !self.postgres {
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
        let begin = if self.postgres { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" } else { "BEGIN" };
        self.any.begin_with(begin).await
    }

    /// Creates PostgreSQL's partition for a day's records unless it exists.
    pub(super) async fn partition(change: &mut AnyConnection, day: i64) -> Result<(), sqlx::Error> {
        if change.backend_name() == "PostgreSQL" {
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
        if self.postgres {
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
    async fn create_tables(&mut self) -> Result<(), sqlx::Error> {
        let postgres = self.postgres;
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
async fn version(db: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    if db.backend_name() == "PostgreSQL" {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_postgres_other_texts_files_and_passwords_are_hidden() {
        let url = Database::from("postgres://me:secret@db.example:5432/books?sslmode=disable".to_owned());
        assert_eq!(url.to_string(), "postgres://db.example:5432/books");
        assert_eq!(format!("{url:?}"), "postgres://db.example:5432/books");
        let mut file = Database::from("ledger/ledger.sqlite".to_owned());
        file.resolve(Path::new("/srv"));
        assert_eq!(file, Database::Sqlite("/srv/ledger/ledger.sqlite".into()));
    }

    #[test]
    fn only_a_remote_database_without_required_tls_is_in_the_clear() {
        let clear = |url: &str| Database::from(url.to_owned()).is_in_the_clear();
        for near in ["localhost", "127.0.0.1", "[::1]"] {
            assert!(!clear(&format!("postgres://me@{near}/books")), "{near}");
        }
        for far in ["db.example", "192.0.2.1", "[2001:db8::1]"] {
            for mode in ["", "?sslmode=disable", "?sslmode=prefer"] {
                assert!(clear(&format!("postgres://me@{far}/books{mode}")), "{far} {mode}");
            }
            for mode in ["require", "verify-ca", "verify-full"] {
                assert!(!clear(&format!("postgres://me@{far}/books?sslmode={mode}")), "{far} {mode}");
            }
        }
        assert!(!clear("ledger.sqlite"));
    }
}
