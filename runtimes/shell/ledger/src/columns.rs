//! Values in the columns of rows that are read, and the database's error messages.

use super::day::Day;
use sqlx::Row as _;
use sqlx::any::AnyRow;
use swarmedge_core::ids::ProviderId;
use swarmedge_core::wire::Wire;
use swarmedge_core::wire::records::LedgerRecord;

/// Decodes a column written in the canonical encoding, as ids and records are.
pub(super) fn wire_at<T: Wire>(row: &AnyRow, column: usize) -> Result<T, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    T::from_bytes(&bytes).map_err(|e| sqlx::Error::Decode(format!("broken bytes in column {column}: {e}").into()))
}

/// Decodes the record in a column.
pub(super) fn record_at(row: &AnyRow, column: usize) -> Result<LedgerRecord, sqlx::Error> {
    wire_at(row, column)
}

/// Reads a non-negative integer column; negative values become 0.
pub(super) fn number_at(row: &AnyRow, column: usize) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}

/// Reads a provider's number.
pub(super) fn provider_at(row: &AnyRow, column: usize) -> Result<ProviderId, sqlx::Error> {
    Ok(ProviderId(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX)))
}

/// Reads a day.
pub(super) fn day_at(row: &AnyRow, column: usize) -> Result<Day, sqlx::Error> {
    row.try_get(column).map(Day::from_sql)
}

/// Reads the first and last day of the row `SELECT MIN(day), MAX(day) …`; `None` without any.
pub(super) fn span_at(row: &AnyRow) -> Result<Option<(Day, Day)>, sqlx::Error> {
    let (first, last): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(first.zip(last).map(|(first, last)| (Day::from_sql(first), Day::from_sql(last))))
}

/// Returns the database's own error message, without sqlx's layers.
pub(super) fn brief(e: &sqlx::Error) -> String {
    e.as_database_error().map_or_else(|| e.to_string(), |db| db.message().to_owned())
}
