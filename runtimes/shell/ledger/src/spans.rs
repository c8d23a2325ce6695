//! Quarantines in the database: who is in quarantine, and from when until when clients were.

use super::columns::{number_at, wire_at};
use super::rows::{Value, among, insert};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::records::LedgerRecord;

/// Quarantine spans: GUID, start and end in Unix ms.
pub(super) type Spans = Vec<(Guid, u64, u64)>;

/// Returns the clients in quarantine, with the reasons.
pub(super) async fn open_spans(db: &mut AnyConnection) -> Result<BTreeMap<Guid, String>, sqlx::Error> {
    let rows = sqlx::query("SELECT guid, reason FROM quarantine WHERE until_ms IS NULL").fetch_all(db).await?;
    rows.iter().map(|row| Ok((wire_at(row, 0)?, row.try_get(1)?))).collect()
}

/// Puts clients into quarantine that are not in `open`, and adds them to it; returns their number.
pub(super) async fn put_in(
    change: &mut AnyConnection,
    open: &mut BTreeMap<Guid, String>,
    guids: impl IntoIterator<Item = Guid>,
    reason: &str,
    now_ms: u64,
) -> Result<usize, sqlx::Error> {
    let new: BTreeSet<Guid> = guids.into_iter().filter(|guid| !open.contains_key(guid)).collect();
    let row = |guid: &Guid| vec![guid.0[..].into(), now_ms.into(), Value::Text(reason.to_owned())];
    let again = "ON CONFLICT (guid, from_ms) DO UPDATE SET until_ms = NULL";
    insert(change, "INSERT INTO quarantine (guid, from_ms, reason)", new.iter().map(row).collect(), again).await?;
    open.extend(new.iter().map(|guid| (*guid, reason.to_owned())));
    Ok(new.len())
}

/// Returns whether no client was ever in quarantine.
pub(super) async fn nobody_ever(db: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    let some: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM (SELECT 1 FROM quarantine LIMIT 1) AS s").fetch_one(db).await?;
    Ok(some == 0)
}

/// Returns the client whose quarantine matters for a record: the reporter of a usage record, or the downloader of a
/// grant, who may never report.
pub(super) const fn quarantine_subject(record: &LedgerRecord) -> Option<Guid> {
    match record {
        LedgerRecord::Usage(u) => Some(u.record.reporter),
        LedgerRecord::Granted(g) => Some(g.guid),
        LedgerRecord::Edge(_) | LedgerRecord::Served(_) | LedgerRecord::Possession(_) | LedgerRecord::Log(_) => None,
    }
}

/// Returns the quarantine spans of clients that had begun by `known_ms`.
pub(super) async fn spans_of(db: &mut AnyConnection, who: BTreeSet<Guid>, known_ms: u64) -> Result<Spans, sqlx::Error> {
    let mut all = Vec::new();
    let who: Vec<Vec<u8>> = who.into_iter().map(|guid| guid.0.to_vec()).collect();
    // `among` filters by a day column, which this table lacks
    let text = "SELECT guid, from_ms, until_ms FROM (SELECT guid, from_ms, until_ms, 0 AS day FROM quarantine) AS q
                WHERE guid";
    for row in &among(db, text, &who, 0).await? {
        let until = row.try_get::<Option<i64>, _>(2)?.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(0));
        let from = number_at(row, 1)?;
        if from <= known_ms {
            all.push((wire_at(row, 0)?, from, until));
        }
    }
    Ok(all)
}
