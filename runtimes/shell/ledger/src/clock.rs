//! The time of a change to the ledger, and which days are open then.

use super::day::Day;
use sqlx::AnyConnection;

/// Days before the first open day from which a download's records are read: a download without an end stays open for 30
/// days.
pub(super) const EVIDENCE_DAYS: i64 = 33;

/// The time of a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Time of the change, Unix ms.
    pub(super) now_ms: u64,
    /// Day of the change.
    pub(super) today: Day,
    /// The first day that is not closed.
    pub(super) first_open: Day,
}

impl Clock {
    /// Makes the clock of a change at `now_ms`.
    pub(super) fn new(first_open: Day, now_ms: u64) -> Self {
        Self { now_ms, today: Day::of_ms(now_ms), first_open }
    }

    /// Makes the clock of a change at `now_ms`, within its transaction.
    pub(super) async fn read(change: &mut AnyConnection, now_ms: u64) -> Result<Self, sqlx::Error> {
        Ok(Self::new(first_open(change).await?, now_ms))
    }

    /// Returns the first day from which records are read, see [`EVIDENCE_DAYS`].
    pub(super) fn evidence_since(&self) -> i64 {
        evidence_since(self.first_open)
    }
}

/// Returns the first day that is not closed.
pub(super) async fn first_open(db: &mut AnyConnection) -> Result<Day, sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar("SELECT MAX(day) FROM day").fetch_one(db).await?;
    Ok(last.map_or_else(Day::default, |day| Day::from_sql(day).next()))
}

/// Returns the first day from which the records of downloads of this day or later are read.
pub(super) fn evidence_since(day: Day) -> i64 {
    day.to_sql().saturating_sub(EVIDENCE_DAYS)
}
