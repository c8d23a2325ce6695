//! Copies of a ledger in a file, made while it is written, and how one that was put back is known.

use super::database::{Connection, Database};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor as _};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use swarmedge_ground::error::Error;
use swarmedge_ground::files::mark::beside;

/// The application id of a copy ("swmb"): a ledger that bears it was put back.
const COPY: u32 = 0x7377_6d62;
/// Where SQLite keeps it in the first bytes of a file.
const APPLICATION_ID: std::ops::Range<usize> = 68..72;

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Records.
    pub records: i64,
    /// Closed days.
    pub days: i64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Copies the ledger to a new file, complete as of one moment, and reads the copy back. Its writer goes on meanwhile. A
/// file that is there is never written over; what a failure leaves under the name is empty.
pub async fn backup(database: &Database, to: &Path) -> Result<Copied, Error> {
    let Database::Sqlite(_) = database else {
        return Err(Error::usage(format!("the ledger is in PostgreSQL ({database}), which makes its own backups"))
            .next("use pg_dump, as in `pg_dump --format=custom --file=FILE` with the URL of [ledger] database"));
    };
    let mut reader = database.open_reader().await?;
    let claim = Claim::new(to)?;
    let before = size_of(&mut reader).await.map_err(|e| database.unusable(&e))?;
    let part = claim.part.to_str().ok_or_else(|| Error::usage(format!("{} is no plain name", to.display())))?;
    // SQLite takes an empty file for none
    sqlx::query("VACUUM INTO $1").bind(part).execute(&mut reader.any).await.map_err(|e| unmade(to, &e))?;
    let after = size_of(&mut reader).await.map_err(|e| database.unusable(&e))?;
    let copy = Database::Sqlite(claim.part.clone());
    let mut opened = copy.connect("rw").await?;
    let called = format!("PRAGMA application_id = {COPY}");
    opened.any.execute(sqlx::raw_sql(AssertSqlSafe(called))).await.map_err(|e| unmade(to, &e))?;
    let found: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut opened.any).await.map_err(|e| unmade(to, &e))?;
    let (records, days) = size_of(&mut opened).await.map_err(|e| unmade(to, &e))?;
    opened.close().await.map_err(|e| unmade(to, &e))?;
    // records may be forgotten meanwhile
    let range = |n: i64, a: i64, b: i64| (a.min(b)..=a.max(b)).contains(&n);
    if found != "ok" || !range(records, before.0, after.0) || !range(days, before.1, after.1) {
        let what = format!("{} was not copied right: {found}, {records} records", to.display());
        return Err(Error::failed(what).next("look at the disk's health, then try again"));
    }
    let bytes = claim.keep()?;
    Ok(Copied { records, days, bytes })
}

fn unmade(to: &Path, e: &sqlx::Error) -> Error {
    Error::failed(format!("cannot make {}: {}", to.display(), super::store::brief(e)))
}

/// Records and closed days.
async fn size_of(db: &mut Connection) -> Result<(i64, i64), sqlx::Error> {
    let records = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(&mut db.any).await?;
    let days = sqlx::query_scalar("SELECT count(*) FROM day").fetch_one(&mut db.any).await?;
    Ok((records, days))
}

/// A new file's name, taken; and a file beside it that gets the name when it is whole.
struct Claim {
    to: PathBuf,
    part: PathBuf,
    is_kept: bool,
}

impl Claim {
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
        let claim = Self { part: beside(&to, &format!(".{}.part", std::process::id())), to, is_kept: false };
        new(&claim.part).map_err(|e| writing(&e))?;
        Ok(claim)
    }

    /// Gives the file its name, durably. Its bytes.
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

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_kept {
            // what was begun is worth nothing; the error that led here is the one to tell
            let _ = fs::remove_file(&self.part);
            let _ = fs::remove_file(&self.to);
        }
    }
}

/// Whether an open database is a copy that [`backup`] made and no ledger has run on yet.
pub(super) async fn is_copy(db: &mut Connection) -> Result<bool, sqlx::Error> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut db.any).await?;
    Ok(id == i64::from(COPY))
}

/// The same of a file that this process has not opened: POSIX takes all locks of a process on a file away as soon as it
/// closes the file once, SQLite's with them.
fn is_unopened_copy(path: &Path) -> bool {
    let mut head = [0; APPLICATION_ID.end];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[APPLICATION_ID] == COPY.to_be_bytes()
}

/// Takes a copy that was put back for the ledger itself.
pub(super) async fn take_over(db: &mut Connection) -> Result<(), sqlx::Error> {
    // before the log is begun: the file's first bytes are right at once
    db.any.execute(sqlx::raw_sql("PRAGMA application_id = 0")).await.map(|_| ())
}

/// Refuses a log without its database: SQLite would begin both anew.
pub(super) fn refuse_orphaned_log(path: &Path) -> Result<(), Error> {
    let len = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        // whoever opens it tells what is wrong
        Err(_) => return Ok(()),
    };
    match log_of(path) {
        Some(log) if len == 0 => {
            let what = format!("{} is gone, and what was written to it last is in {}", path.display(), log.display());
            Err(Error::failed(what).next("put the file back beside its log; or move the log away if both are lost"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses the log of another ledger beside a copy that was put back: SQLite would play it back. To be asked before
/// this process has opened the file: see [`is_unopened_copy`].
pub(super) fn refuse_foreign_log(path: &Path) -> Result<(), Error> {
    match log_of(path) {
        Some(log) if is_unopened_copy(path) => {
            let what = format!(
                "{} is a backup that was put back, and {} is of the ledger before it",
                path.display(),
                log.display()
            );
            Err(Error::failed(what).next("move the log away, and the file of that name with -shm"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The log beside a database, if anything is in it.
fn log_of(path: &Path) -> Option<PathBuf> {
    let log = beside(path, "-wal");
    fs::metadata(&log).is_ok_and(|meta| meta.len() > 0).then_some(log)
}
