//! The reader of a ledger's database. The queries are methods in the files of their subjects.

use super::connection::Connection;
use super::database::Database;
use std::fmt;
use swarmedge_ground::error::Error;

/// A reader of a ledger's database, which works beside the writer, from any process.
pub struct Reader {
    pub(super) db: Connection,
    database: Database,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.database)
    }
}

impl Reader {
    /// Opens the database of a ledger that has run before.
    pub async fn open(database: &Database) -> Result<Self, Error> {
        Ok(Self { db: database.open_reader().await?, database: database.clone() })
    }

    /// Makes the error of a failed query.
    pub(super) fn failed(&self, e: &sqlx::Error) -> Error {
        self.database.unusable(e)
    }
}
