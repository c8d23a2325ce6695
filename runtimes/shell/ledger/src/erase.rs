//! What a ledger forgets about clients: the addresses of old logins, and, when the operator asks, all records of a
//! client. Statements of closed days stay as they were signed; none of them names a client.

use super::clock::first_open;
use super::columns::{record_at, wire_at};
use super::database::Database;
use super::day::Day;
use super::kind::Kind;
use super::store::Store;
use futures_lite::StreamExt as _;
use serde::Serialize;
use sqlx::{AnyConnection, Row as _};
use std::net::{Ipv4Addr, SocketAddr};
use swarmedge_core::ids::{DownloadId, Guid};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};
use swarmedge_ground::error::Error;

/// Address that replaces that of an old login.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// GUID that replaces that of a client whose records are erased.
const NOBODY: Guid = Guid([0; 16]);
/// Maximum number of logins whose addresses are removed in one transaction.
const LOGINS_AT_A_TIME: i64 = 4096;

/// Number of records of a client that were erased, and of those that stay for now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// Events in the CNs' logs (logins, locations, registered versions, log heads, blames), and usage records that were
    /// replaced or came too late.
    pub events: u64,
    /// Downloads of closed days that no longer name the client, and whose records are deleted.
    pub downloads: u64,
    /// Downloads of days that are not closed yet, which stay until then.
    pub open_downloads: u64,
}

impl Erased {
    const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            downloads: self.downloads + other.downloads,
            open_downloads: self.open_downloads + other.open_downloads,
        }
    }
}

/// Opens the ledger and removes the addresses from logins that arrived more than `keep_days` days ago. What else is in
/// them stays, since [`super::suspects`] needs it.
pub async fn forget_addresses(database: &Database, keep_days: u32, now_ms: u64) -> Result<u64, Error> {
    let mut store = Store::open(database).await?;
    let before = Day::of_ms(now_ms).to_sql().saturating_sub(i64::from(keep_days));
    let mut forgotten = 0;
    loop {
        let (db, database) = store.parts()?;
        let failed = |e: sqlx::Error| database.unusable(&e);
        let mut change = db.begin().await.map_err(failed)?;
        let n = forget_some_addresses(&mut change, before).await.map_err(failed)?;
        change.commit().await.map_err(failed)?;
        forgotten += n;
        if n == 0 {
            break;
        }
    }
    store.close().await;
    Ok(forgotten)
}

/// Removes the addresses from some logins that arrived before a day; returns their number, 0 if none is left.
async fn forget_some_addresses(change: &mut AnyConnection, before: i64) -> Result<u64, sqlx::Error> {
    let text = "SELECT day, id, body FROM record WHERE kind = $1 AND day < $2 LIMIT $3";
    let rows = sqlx::query(text)
        .bind(Kind::Login.to_sql())
        .bind(before)
        .bind(LOGINS_AT_A_TIME)
        .fetch_all(&mut *change)
        .await?;
    for row in &rows {
        let mut record = record_at(row, 2)?;
        if let LedgerRecord::Log(log) = &mut record
            && let LogEvent::Login(login) = &mut log.event
        {
            login.observed = NO_ADDRESS;
        }
        sqlx::query("UPDATE record SET kind = $1, body = $2 WHERE day = $3 AND kind = $4 AND id = $5")
            .bind(Kind::OldLogin.to_sql())
            .bind(record.to_bytes())
            .bind(row.try_get::<i64, _>(0)?)
            .bind(Kind::Login.to_sql())
            .bind(row.try_get::<Vec<u8>, _>(1)?)
            .execute(&mut *change)
            .await?;
    }
    Ok(rows.len() as u64)
}

/// Erases what the ledger has of a client: its events in the CNs' logs, its locations, and the records of its downloads
/// of closed days, whose evidence nobody can show afterwards. Its changes of keys and its quarantines stay, and its
/// word in the records of other clients' downloads.
pub async fn erase(store: &mut Store, guid: Guid) -> Result<Erased, Error> {
    let (db, database) = store.parts()?;
    let failed = |e: sqlx::Error| database.unusable(&e);
    let mut change = db.begin().await.map_err(failed)?;
    let events = erase_events(&mut change, guid).await.map_err(failed)?;
    let downloads = erase_downloads(&mut change, guid).await.map_err(failed)?;
    change.commit().await.map_err(failed)?;
    Ok(downloads.plus(Erased { events, ..Erased::default() }))
}

/// Returns the client that an event is about, or that made a usage record.
fn speaker(record: &LedgerRecord) -> Option<Guid> {
    match record {
        LedgerRecord::Log(log) => Some(log.guid),
        LedgerRecord::Usage(logged) => Some(logged.record.reporter),
        LedgerRecord::Edge(_) | LedgerRecord::Granted(_) | LedgerRecord::Served(_) | LedgerRecord::Possession(_) => {
            None
        }
    }
}

/// Erases a client's locations, its events, and its usage records that settlement does not read (replaced ones, and
/// those that came too late); returns the number of events and records.
async fn erase_events(change: &mut AnyConnection, guid: Guid) -> Result<u64, sqlx::Error> {
    sqlx::query("DELETE FROM place WHERE guid = $1").bind(guid.0.to_vec()).execute(&mut *change).await?;
    let mut found: Vec<(i64, i64, Vec<u8>)> = Vec::new();
    {
        // its introductions go with its downloads, whose bills are made from them
        let text = "SELECT day, kind, id, body FROM record WHERE (kind >= $1 AND kind <> $2 AND kind <> $3)
                    OR (download IS NULL AND kind IN ($4, $5))";
        let query = sqlx::query(text)
            .bind(Kind::FIRST_LOG.to_sql())
            .bind(Kind::Offered.to_sql())
            .bind(Kind::Rekeyed.to_sql())
            .bind(Kind::Downloader.to_sql())
            .bind(Kind::Uploader.to_sql());
        let mut rows = query.fetch(&mut *change);
        while let Some(row) = rows.next().await {
            let row = row?;
            if speaker(&record_at(&row, 3)?) == Some(guid) {
                found.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            }
        }
    }
    for (day, kind, id) in &found {
        // each condition has an index
        let text = if *kind >= Kind::FIRST_LOG.to_sql() {
            "DELETE FROM record WHERE kind >= 5 AND day = $1 AND kind = $2 AND id = $3"
        } else {
            "DELETE FROM record WHERE download IS NULL AND day = $1 AND kind = $2 AND id = $3"
        };
        sqlx::query(text).bind(day).bind(kind).bind(id.clone()).execute(&mut *change).await?;
    }
    Ok(found.len() as u64)
}

/// Erases the records of a client's downloads of closed days.
async fn erase_downloads(change: &mut AnyConnection, guid: Guid) -> Result<Erased, sqlx::Error> {
    let open = first_open(&mut *change).await?.to_sql();
    let rows = sqlx::query("SELECT download, day FROM download WHERE guid = $1").bind(guid.0.to_vec());
    let mut erased = Erased::default();
    for row in &rows.fetch_all(&mut *change).await? {
        let download: DownloadId = wire_at(row, 0)?;
        if row.try_get::<i64, _>(1)? >= open {
            erased.open_downloads += 1;
            continue;
        }
        erased.downloads += 1;
        for text in ["DELETE FROM record WHERE download = $1", "DELETE FROM evidence WHERE download = $1"] {
            sqlx::query(text).bind(download.0.to_vec()).execute(&mut *change).await?;
        }
        sqlx::query("UPDATE download SET guid = $1 WHERE download = $2")
            .bind(NOBODY.0.to_vec())
            .bind(download.0.to_vec())
            .execute(&mut *change)
            .await?;
    }
    Ok(erased)
}
