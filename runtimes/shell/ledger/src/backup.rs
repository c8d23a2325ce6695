//! Backups of a SQLite ledger, made while it is written.

use super::columns::brief;
use super::connection::Connection;
use super::database::Database;
use super::restored::COPY;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor as _};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use swarmedge_ground::error::Error;
use swarmedge_ground::files::mark::beside;

/// Contents of a finished backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// Number of records copied.
    pub records: i64,
    /// Number of closed days.
    pub days: i64,
    /// Size of the file, bytes.
    pub bytes: u64,
}

/// Copies a consistent snapshot of the ledger to a new file and checks the copy, while the ledger server goes on
/// writing. An existing file is never overwritten; a crash leaves an empty file at `to`.
pub async fn backup(database: &Database, to: &Path) -> Result<BackupSummary, Error> {
    let Database::Sqlite(_) = database else {
        return Err(Error::usage(format!("the ledger is in PostgreSQL ({database}), which makes its own backups"))
            .next("use pg_dump, as in `pg_dump --format=custom --file=FILE` with the URL of [ledger] database"));
    };
    let mut reader = database.open_reader().await?;
    let reserved = ReservedName::new(to)?;
    let before = size_of(&mut reader).await.map_err(|e| database.unusable(&e))?;
    let part = reserved.part.to_str().ok_or_else(|| Error::usage(format!("{} is no plain name", to.display())))?;
    // VACUUM INTO accepts an empty file as a new one
    sqlx::query("VACUUM INTO $1").bind(part).execute(&mut reader.any).await.map_err(|e| unmade(to, &e))?;
    let after = size_of(&mut reader).await.map_err(|e| database.unusable(&e))?;
    let copy = Database::Sqlite(reserved.part.clone());
    let mut opened = copy.connect("rw").await?;
    let called = format!("PRAGMA application_id = {COPY}");
    opened.any.execute(sqlx::raw_sql(AssertSqlSafe(called))).await.map_err(|e| unmade(to, &e))?;
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut opened.any).await.map_err(|e| unmade(to, &e))?;
    let (records, days) = size_of(&mut opened).await.map_err(|e| unmade(to, &e))?;
    opened.close().await.map_err(|e| unmade(to, &e))?;
    // old records may be deleted meanwhile
    let range = |n: i64, a: i64, b: i64| (a.min(b)..=a.max(b)).contains(&n);
    if found != "ok" || !range(records, before.0, after.0) || !range(days, before.1, after.1) {
        let what = format!("{} was not copied right: {found}, {records} records", to.display());
        return Err(Error::failed(what).next("look at the disk's health, then try again"));
    }
    let bytes = reserved.keep()?;
    Ok(BackupSummary { records, days, bytes })
}

fn unmade(to: &Path, e: &sqlx::Error) -> Error {
    Error::failed(format!("cannot make {}: {}", to.display(), brief(e)))
}

/// Counts records and closed days.
async fn size_of(db: &mut Connection) -> Result<(i64, i64), sqlx::Error> {
    let records = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(&mut db.any).await?;
    let days = sqlx::query_scalar("SELECT count(*) FROM day").fetch_one(&mut db.any).await?;
    Ok((records, days))
}

/// A reserved name for a file, and the temporary file beside it that is renamed to it when complete.
struct ReservedName {
    to: PathBuf,
    part: PathBuf,
    is_kept: bool,
}

impl ReservedName {
    fn new(to: &Path) -> Result<Self, Error> {
        let writing = |e: &io::Error| Error::io(format_args!("write {}", to.display()), e);
        let new = |path: &Path| {
            let mut options = File::options();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(path)
        };
        // SQLite reads some relative names as URIs
        let to = std::path::absolute(to).map_err(|e| writing(&e))?;
        match new(&to) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::usage(format!("{} is there already", to.display()))
                    .next("choose another name: a backup is never written over"));
            }
            Err(e) => return Err(writing(&e)),
        }
        let reserved = Self { part: beside(&to, &format!(".{}.part", std::process::id())), to, is_kept: false };
        new(&reserved.part).map_err(|e| writing(&e))?;
        Ok(reserved)
    }

    /// Renames the temporary file durably to its final name; returns its length in bytes.
    fn keep(mut self) -> Result<u64, Error> {
        let keep = || {
            let file = File::open(&self.part)?;
            file.sync_all()?;
            fs::rename(&self.part, &self.to)?;
            if let Some(dir) = self.to.parent() {
                File::open(dir)?.sync_all()?;
            }
            Ok::<_, io::Error>(file.metadata()?.len())
        };
        let bytes = keep().map_err(|e| Error::io(format_args!("write {}", self.to.display()), &e))?;
        self.is_kept = true;
        Ok(bytes)
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if !self.is_kept {
            // ignore errors of the clean-up: the error that led here is reported
            let _ = fs::remove_file(&self.part);
            let _ = fs::remove_file(&self.to);
        }
    }
}
