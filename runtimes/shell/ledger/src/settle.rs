//! Settlement within a transaction: decides which new records still count, stores them, and computes the row of each
//! download whose records changed.

use super::clock::Clock;
use super::columns::{day_at, number_at};
use super::day::Day;
use super::gather::{FreshRecords, Selection, gather};
use super::kind::Kind;
use super::line::{COLUMNS, clients, download_row};
use super::places::Places;
use super::rows::{Value, among, insert};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::evidence::{Evidence, key};
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::LedgerRecord;

/// Below this number, downloads are settled on one thread.
const ONE_THREAD_MAX: usize = 32;

/// The state of a download that decides which of its new records count for its bill.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// No grant record is known yet: nothing can be settled.
    Ungranted,
    /// Records of clients and edges count.
    Open,
    /// Clients' records no longer count; edges' records may.
    Ended,
    /// The download's day is closed: no record counts.
    Final,
}

/// Reads the [`Standing`] of each download; downloads without a row are missing in the result.
async fn standings(
    change: &mut AnyConnection,
    ids: &[Vec<u8>],
    clock: Clock,
) -> Result<BTreeMap<Vec<u8>, Standing>, sqlx::Error> {
    let mut all = BTreeMap::new();
    for row in &among(change, "SELECT download, day, closes_ms FROM download WHERE download", ids, 0).await? {
        let standing = if day_at(row, 1)? < clock.first_open {
            Standing::Final
        } else if number_at(row, 2)? <= clock.now_ms {
            Standing::Ended
        } else {
            Standing::Open
        };
        all.insert(row.try_get::<Vec<u8>, _>(0)?, standing);
    }
    Ok(all)
}

/// Makes a record's row. With `is_read` false the row names no download, so that settlement does not read it again.
fn row_of(record: &LedgerRecord, is_read: bool, clock: Clock) -> Vec<Value> {
    vec![
        key(record).0[..].into(),
        clock.today.to_sql().into(),
        Kind::of(record).to_sql().into(),
        record.download().filter(|_| is_read).map(|d| d.0.to_vec()).as_deref().into(),
        clock.now_ms.into(),
        Value::Bytes(record.to_bytes()),
    ]
}

/// Stores `new` records and returns the evidence of the downloads to settle again. Stored records are read of these
/// downloads only, not of downloads without a grant or on closed days. Late records are stored and counted in a
/// metric.
pub(super) async fn store_records(
    change: &mut AnyConnection,
    new: &[&LedgerRecord],
    clock: Clock,
) -> Result<Vec<Evidence>, sqlx::Error> {
    let mut fresh = FreshRecords::new();
    for record in new {
        if let Some(download) = record.download() {
            fresh.entry(download.0.to_vec()).or_default().insert(key(record), record);
        }
    }
    let ids: Vec<_> = fresh.keys().cloned().collect();
    let mut known = BTreeMap::new();
    for row in &among(change, "SELECT download, day FROM evidence WHERE download", &ids, 0).await? {
        known.insert(row.try_get::<Vec<u8>, _>(0)?, row.try_get::<i64, _>(1)?);
    }
    let standings = standings(change, &ids, clock).await?;
    let mut unread = BTreeSet::new();
    fresh.retain(|id, records| match standings.get(id).copied().unwrap_or(Standing::Ungranted) {
        Standing::Ungranted => records.values().any(|r| matches!(r, LedgerRecord::Granted(_))),
        Standing::Open => true,
        Standing::Ended if records.values().any(|r| is_of_edge(r)) => true,
        Standing::Ended | Standing::Final => {
            metrics::counter!("swarmedge_ledger_late_total").increment(records.len() as u64);
            let said = records.iter().filter(|(_, r)| matches!(r, LedgerRecord::Usage(_)) || is_of_edge(r));
            unread.extend(said.map(|(key, _)| *key));
            false
        }
    });
    let read: Vec<_> = fresh.keys().filter(|id| known.contains_key(*id)).cloned().collect();
    let oldest = read.iter().filter_map(|id| known.get(id)).min().copied().unwrap_or_default();
    let selection = Selection { downloads: &read, since: oldest.max(clock.evidence_since()), known_ms: u64::MAX };
    let gathered = gather(change, selection, &fresh, clock.now_ms).await?;
    gathered.detach_replaced(change, &fresh).await?;
    unread.extend(gathered.unread(&fresh));
    // the clock may have been set back
    let is_first = |id: &&Vec<u8>| known.get(*id).is_none_or(|since| clock.today.to_sql() < *since);
    let row = |id: &Vec<u8>| vec![id[..].into(), clock.today.to_sql().into()];
    let begun = ids.iter().filter(is_first).map(row).collect();
    let again = "ON CONFLICT (download) DO UPDATE SET day = excluded.day";
    insert(change, "INSERT INTO evidence (download, day)", begun, again).await?;
    let is_read = |record: &LedgerRecord| !unread.contains(&key(record));
    let rows = new.iter().map(|record| row_of(record, is_read(record), clock)).collect();
    insert(change, "INSERT INTO record (id, day, kind, download, received_ms, body)", rows, "").await?;
    Ok(gathered.evidence.into_values().collect())
}

const fn is_of_edge(record: &LedgerRecord) -> bool {
    matches!(record, LedgerRecord::Edge(_) | LedgerRecord::Served(_))
}

/// Settles downloads again from their stored records, as of this time.
pub(super) async fn settle_again(
    change: &mut AnyConnection,
    downloads: &[Vec<u8>],
    clock: Clock,
) -> Result<(), sqlx::Error> {
    let selection = Selection { downloads, since: clock.evidence_since(), known_ms: u64::MAX };
    let gathered = gather(change, selection, &FreshRecords::new(), clock.now_ms).await?;
    gathered.detach_replaced(change, &FreshRecords::new()).await?;
    settle(change, gathered.evidence.into_values().collect(), clock).await
}

/// Settles downloads and writes their rows. Rows of closed days are not changed.
pub(super) async fn settle(
    change: &mut AnyConnection,
    downloads: Vec<Evidence>,
    clock: Clock,
) -> Result<(), sqlx::Error> {
    let clients: BTreeSet<Guid> = downloads.iter().flat_map(clients).collect();
    let clients: Vec<_> = clients.into_iter().map(|guid| guid.0.to_vec()).collect();
    let places = Places::of(change, &clients, clock.evidence_since()).await?;
    let lines = download_rows(downloads, &places, clock);
    insert(change, &format!("INSERT INTO download ({COLUMNS})"), lines, &replacing(clock.first_open)).await?;
    Ok(())
}

/// Computes the rows of downloads, half of them on a second thread: checking receipts is the slowest step outside the
/// database.
fn download_rows(mut downloads: Vec<Evidence>, places: &Places, clock: Clock) -> Vec<Vec<Value>> {
    let of = |downloads: Vec<Evidence>| {
        downloads.iter().filter_map(|evidence| download_row(evidence, places, clock)).collect::<Vec<_>>()
    };
    if downloads.len() < ONE_THREAD_MAX {
        return of(downloads);
    }
    let half = downloads.split_off(downloads.len() / 2);
    std::thread::scope(|scope| {
        let half = scope.spawn(|| of(half));
        let mut lines = of(downloads);
        // pass a panic of that thread on
        lines.extend(half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        lines
    })
}

/// Returns the conflict clause that replaces a download's row, unless the row belongs to a closed day.
fn replacing(first_open: Day) -> String {
    let set = |column: &str| format!("{column} = excluded.{column}");
    let set = COLUMNS.split(", ").filter(|column| *column != "download").map(set).collect::<Vec<_>>().join(", ");
    format!("ON CONFLICT (download) DO UPDATE SET {set} WHERE download.day >= {}", first_open.to_sql())
}
