//! The ledger's database: a SQLite file, or a server that speaks PostgreSQL's protocol.

use super::columns::brief;
use super::connection::{Connection, VERSION, version};
use super::restored;
use serde::{Deserialize, Serialize};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::files::mark::{self, Mark};

/// Name of this database in the messages that point to the command `accept-loss`.
const WHOSE: &str = "ledger";

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

    /// Returns whether password and records cross a network unencrypted.
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
        let has_tables = self.has_tables(&mut db).await?;
        if let Self::Sqlite(_) = self
            && restored::is_copy(&mut db).await.map_err(|e| self.unusable(&e))?
        {
            tracing::warn!(database = %self, "this is a restored backup: later records are not in it");
            // update the mark first: once the backup's id is gone, a mark ahead of it would count as loss
            self.write_mark(&mut db).await.map_err(|e| self.unusable(&e))?;
            restored::take_over(&mut db).await.map_err(|e| self.unusable(&e))?;
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
        if !has_tables {
            db.create_tables().await.map_err(|e| self.unusable(&e))?;
        }
        self.write_mark(&mut db).await.map_err(|e| self.unusable(&e))?;
        Ok(db)
    }

    /// Opens a connection after checking the SQLite file against its mark, a file that records how many changes were
    /// made. Nothing is written before the check, so that a `-wal` file that was left behind can still be put back.
    async fn connect_whole(&self, mode: &str) -> Result<Connection, Error> {
        let Self::Sqlite(path) = self else { return self.connect(mode).await };
        Mark::of(path).refuse_loss(WHOSE)?;
        restored::refuse_orphaned_log(path)?;
        let (db, lack) = self.connect_and_look(path, mode).await?;
        lack.map_or(Ok(db), |what| Err(mark::lost(WHOSE, what, "go on with what is there")))
    }

    /// Opens a connection. Also returns a description of the changes that the file lacks by its mark, if any.
    async fn connect_and_look(&self, path: &Path, mode: &str) -> Result<(Connection, Option<String>), Error> {
        // read the mark first: a concurrent writer raises the file's counter before its mark
        let expected = Mark::of(path).written().unwrap_or(0);
        let mut db = self.connect(mode).await?;
        let written = db.written().await.map_err(|e| self.unusable(&e))?;
        let is_copy = restored::is_copy(&mut db).await.map_err(|e| self.unusable(&e))?;
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
                restored::refuse_orphaned_log(path)?;
                Ok(self.connect_and_look(path, "ro").await?.1)
            }
            loss => Ok(loss),
        }
    }

    /// Stores the number of changes made so far in the mark, a file beside the SQLite file; [`Self::loss`] compares
    /// them.
    pub(super) async fn write_mark(&self, db: &mut Connection) -> Result<(), sqlx::Error> {
        if let Self::Sqlite(path) = self {
            Mark::of(path).write(db.written().await?);
        }
        Ok(())
    }

    /// Refuses a backup that lies beside the `-wal` log of another database. Call before this process has opened the
    /// file.
    pub fn check_unopened(&self) -> Result<(), Error> {
        let Self::Sqlite(path) = self else { return Ok(()) };
        restored::refuse_foreign_log(path)
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

    /// Opens the database for reading, while a ledger server may write it.
    pub(super) async fn open_reader(&self) -> Result<Connection, Error> {
        self.check_there()?;
        let mut db = self.connect_whole("ro").await?;
        if !self.has_tables(&mut db).await? {
            let what = format!("ledger {self} has no tables yet");
            return Err(Error::failed(what).next("start the ledger server first: it makes them"));
        }
        Ok(db)
    }

    pub(super) async fn connect(&self, mode: &str) -> Result<Connection, Error> {
        let url = match self {
            Self::Sqlite(path) => {
                let path = path.to_string_lossy();
                let path = percent_encoding::utf8_percent_encode(&path, percent_encoding::NON_ALPHANUMERIC);
                format!("sqlite://{path}?mode={mode}")
            }
            Self::Postgres(url) => url.clone(),
        };
        Connection::open(&url).await.map_err(|e| self.unusable(&e))
    }

    /// Returns whether the database has its tables; refuses tables of another version.
    async fn has_tables(&self, db: &mut Connection) -> Result<bool, Error> {
        match version(&mut db.any).await.map_err(|e| self.unusable(&e))? {
            VERSION => Ok(true),
            0 => Ok(false),
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
