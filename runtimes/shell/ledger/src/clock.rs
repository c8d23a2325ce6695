//! The time of a transaction that changes the ledger, and the first day that is still open: the figures of closed
//! days never change.

use super::day::Day;
use sqlx::AnyConnection;

/// Number of days before the first open day whose records settlement still reads: a download without a final report
/// stays open for 30 days.
pub(super) const EVIDENCE_DAYS: i64 = 33;

/// Time of a transaction that changes the ledger, and the first open day at that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Time of the transaction, Unix ms.
    pub(super) now_ms: u64,
    /// Day (UTC) of the transaction.
    pub(super) today: Day,
    /// The first day that is not closed.
    pub(super) first_open: Day,
}

impl Clock {
    /// Makes the clock of a transaction at `now_ms`; `first_open` is the first day that is not closed.
    pub(super) fn new(first_open: Day, now_ms: u64) -> Self {
        Self { now_ms, today: Day::of_ms(now_ms), first_open }
    }

    /// Makes the clock of the transaction `change` at `now_ms`; reads the first open day from the database.
    pub(super) async fn read(change: &mut AnyConnection, now_ms: u64) -> Result<Self, sqlx::Error> {
        Ok(Self::new(first_open(change).await?, now_ms))
    }

    /// Returns the first day of arrival from which settlement reads records, see [`EVIDENCE_DAYS`].
    pub(super) fn evidence_since(&self) -> i64 {
        evidence_since(self.first_open)
    }
}

/// Returns the first day that is not closed.
pub(super) async fn first_open(db: &mut AnyConnection) -> Result<Day, sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(day) FROM day").fetch_one(db).await?;
    Ok(last.map_or_else(Day::default, |day| Day::from_sql(day).next()))
}

/// Returns the first day of arrival from which settlement reads the records of downloads that belong to `day` or
/// later.
pub(super) fn evidence_since(day: Day) -> i64 {
    day.to_sql().saturating_sub(EVIDENCE_DAYS)
}
