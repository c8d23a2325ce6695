//! Backups put back in a SQLite ledger's place, which are known by their application id, and `-wal` logs that belong
//! to another database.

use super::connection::Connection;
use sqlx::Executor as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use swarmedge_ground::error::Error;
use swarmedge_ground::files::mark::beside;

/// SQLite application id of a backup ("swmb"); a ledger with this id was restored from one.
pub(super) const COPY: u32 = 0x7377_6d62;
/// Position of the application id in a SQLite file.
const APPLICATION_ID: std::ops::Range<usize> = 68..72;

/// Returns whether an open database is a backup on which no ledger has run yet.
pub(super) async fn is_copy(db: &mut Connection) -> Result<bool, sqlx::Error> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut db.any).await?;
    Ok(id == i64::from(COPY))
}

/// Returns whether a file that this process has not opened is a backup. An open one must not be read this way: closing
/// any descriptor of a file drops all POSIX locks of the process on it, SQLite's too.
fn is_unopened_copy(path: &Path) -> bool {
    let mut head = [0; APPLICATION_ID.end];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[APPLICATION_ID] == COPY.to_be_bytes()
}

/// Turns a restored backup into the ledger by clearing its application id.
pub(super) async fn take_over(db: &mut Connection) -> Result<(), sqlx::Error> {
    // before the log is begun, so that the file itself changes at once
    db.any.execute(sqlx::raw_sql("PRAGMA application_id = 0")).await.map(|_| ())
}

/// Refuses a `-wal` log without its database: SQLite would create both anew.
pub(super) fn refuse_orphaned_log(path: &Path) -> Result<(), Error> {
    let len = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        // opening the file will report this error
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

/// Refuses a restored backup that lies beside the `-wal` log of the ledger it replaces: SQLite would replay that log.
/// Call before this process has opened the file, see [`is_unopened_copy`].
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

/// Returns the `-wal` log beside a database, if it is not empty.
fn log_of(path: &Path) -> Option<PathBuf> {
    let log = beside(path, "-wal");
    fs::metadata(&log).is_ok_and(|meta| meta.len() > 0).then_some(log)
}
