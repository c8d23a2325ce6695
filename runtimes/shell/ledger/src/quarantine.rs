//! The quarantine list, stored in the ledger's database: settlement reads it, and CNs are told of it.

use super::columns::{number_at, wire_at};
use super::connection::Connection;
use super::day::Day;
use super::reader::Reader;
use super::spans::{nobody_ever, open_spans, put_in};
use super::store::Store;
use super::successors;
use serde::Serialize;
use sqlx::Row as _;
use std::collections::BTreeSet;
use std::time::Duration;
use swarmedge_core::ids::{Guid, ProviderId};
use swarmedge_core::limits::{FOLLOWED_MAX, QUARANTINED_MAX};
use swarmedge_ground::error::{Code, Error};

/// Interval at which a running ledger reads the quarantine list; CNs are told of changes at once.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A client that is, or was, in quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// GUID of the client, hexadecimal.
    pub guid: String,
    /// Start of the quarantine, Unix milliseconds.
    pub from_ms: u64,
    /// End of the quarantine, Unix milliseconds; `None` while it lasts.
    pub until_ms: Option<u64>,
    /// Reason that the operator gave.
    pub reason: String,
}

/// Quarantine figures of a provider's report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InQuarantine {
    /// Clients that began downloads while they were in quarantine.
    pub clients: u64,
    /// Downloads that clients in quarantine began: served by edges alone.
    pub downloads: u64,
}

/// Result of putting clients into quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entered {
    /// Number of clients newly in quarantine.
    pub added: usize,
    /// Number of clients that were in quarantine before.
    pub already: usize,
    /// GUIDs added that the operator did not name: successors (later keys) of named ones.
    pub heirs: Vec<String>,
    /// Number of successors left out because the list is full; named GUIDs come first.
    pub left_out: usize,
}

/// Result of releasing clients from quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Released {
    /// Number of released GUIDs, successors included.
    pub removed: usize,
    /// GUIDs released that the operator did not name: successors (later keys) of named ones.
    pub heirs: Vec<String>,
    /// Predecessors of released GUIDs that are still in quarantine.
    pub left: Vec<String>,
}

/// Puts clients into quarantine, and their successors as far as the list has space. Clients already in it are
/// unchanged.
pub async fn enter(store: &mut Store, guids: &BTreeSet<Guid>, reason: &str, now_ms: u64) -> Result<Entered, Error> {
    let (db, database) = store.parts()?;
    let done = add_to_quarantine(db, guids, reason, now_ms).await.map_err(|e| database.unusable(&e))?;
    done.ok_or_else(|| {
        Error::usage(format!("more than {QUARANTINED_MAX} clients would be in quarantine"))
            .next("let some out first: `quarantine list` says who is in it")
    })
}

/// Releases clients and their successors; releases none if one of the clients is not in quarantine.
pub async fn release(store: &mut Store, guids: &BTreeSet<Guid>, now_ms: u64) -> Result<Released, Error> {
    let (db, database) = store.parts()?;
    let done = remove_from_quarantine(db, guids, now_ms).await.map_err(|e| database.unusable(&e))?;
    done.map_err(|guid| {
        Error::new(Code::NotFound, format!("{guid} is not in quarantine; nothing was changed"))
            .next("`quarantine list` says who is in it")
    })
}

fn names<'a>(guids: impl IntoIterator<Item = &'a Guid>) -> Vec<String> {
    guids.into_iter().map(ToString::to_string).collect()
}

/// Adds clients and their successors to the list; `None`, with nothing changed, if the named clients alone exceed its
/// limit.
async fn add_to_quarantine(
    db: &mut Connection,
    guids: &BTreeSet<Guid>,
    reason: &str,
    now_ms: u64,
) -> Result<Option<Entered>, sqlx::Error> {
    let mut change = db.begin().await?;
    let mut open = open_spans(&mut change).await?;
    let mut all = guids.clone();
    let mut heirs = Vec::new();
    for guid in guids {
        let successors_of = successors::heirs(&mut change, &BTreeSet::from([*guid])).await?;
        heirs.extend(successors_of.into_iter().filter(|heir| all.insert(*heir)));
    }
    let already = all.iter().filter(|guid| open.contains_key(*guid)).count();
    let mut added = put_in(&mut change, &mut open, guids.iter().copied(), reason, now_ms).await?;
    if open.len() > QUARANTINED_MAX {
        change.rollback().await?;
        return Ok(None);
    }
    let mut room = FOLLOWED_MAX.saturating_sub(open.len());
    let asked = heirs.len();
    heirs.retain(|heir| {
        let is_in = open.contains_key(heir);
        let fits = is_in || room > 0;
        room -= usize::from(fits && !is_in);
        fits
    });
    added += put_in(&mut change, &mut open, heirs.iter().copied(), reason, now_ms).await?;
    change.commit().await?;
    Ok(Some(Entered { added, already, heirs: names(&heirs), left_out: asked - heirs.len() }))
}

/// Releases clients and their successors. `Err`, with nothing changed, names the first GUID such that neither it nor
/// any successor of it is in quarantine.
async fn remove_from_quarantine(
    db: &mut Connection,
    guids: &BTreeSet<Guid>,
    now_ms: u64,
) -> Result<Result<Released, Guid>, sqlx::Error> {
    let mut change = db.begin().await?;
    let open = open_spans(&mut change).await?;
    let mut heirs = BTreeSet::new();
    for guid in guids {
        let successors_of = successors::heirs(&mut change, &BTreeSet::from([*guid])).await?;
        if ![*guid].iter().chain(&successors_of).any(|guid| open.contains_key(guid)) {
            change.rollback().await?;
            return Ok(Err(*guid));
        }
        heirs.extend(successors_of.into_iter().filter(|heir| !guids.contains(heir) && open.contains_key(heir)));
    }
    let out: BTreeSet<Guid> = guids.union(&heirs).filter(|guid| open.contains_key(*guid)).copied().collect();
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    for guid in &out {
        sqlx::query("UPDATE quarantine SET until_ms = $1 WHERE guid = $2 AND until_ms IS NULL")
            .bind(now)
            .bind(guid.0.to_vec())
            .execute(&mut *change)
            .await?;
    }
    let before = successors::predecessors(&mut change, &out).await?;
    change.commit().await?;
    let left = names(before.iter().filter(|guid| open.contains_key(*guid) && !out.contains(*guid)));
    Ok(Ok(Released { removed: out.len(), heirs: names(&heirs), left }))
}

impl Reader {
    /// Returns present and past quarantines, oldest first.
    pub async fn quarantined(&mut self) -> Result<Vec<Quarantined>, Error> {
        self.read_quarantined().await.map_err(|e| self.failed(&e))
    }

    async fn read_quarantined(&mut self) -> Result<Vec<Quarantined>, sqlx::Error> {
        let text = "SELECT guid, from_ms, until_ms, reason FROM quarantine ORDER BY from_ms, guid";
        let rows = sqlx::query(text).fetch_all(&mut self.db.any).await?;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(Quarantined {
                guid: wire_at::<Guid>(row, 0)?.to_string(),
                from_ms: number_at(row, 1)?,
                until_ms: row.try_get::<Option<i64>, _>(2)?.and_then(|ms| u64::try_from(ms).ok()),
                reason: row.try_get(3)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Returns the GUIDs in quarantine, ascending.
    pub(super) async fn in_quarantine(&mut self) -> Result<Vec<Guid>, Error> {
        let open = open_spans(&mut self.db.any).await.map_err(|e| self.failed(&e))?;
        Ok(open.into_keys().collect())
    }

    /// Counts a provider's downloads over a span of days that began in quarantine, and their clients.
    pub(super) async fn report_quarantine(
        &mut self,
        provider: ProviderId,
        from: Day,
        to: Day,
    ) -> Result<InQuarantine, sqlx::Error> {
        if nobody_ever(&mut self.db.any).await? {
            return Ok(InQuarantine::default());
        }
        let text = "SELECT COUNT(DISTINCT d.guid), COUNT(DISTINCT d.download) FROM quarantine AS q
                    JOIN download AS d ON d.guid = q.guid AND d.issued_ms >= q.from_ms
                         AND (q.until_ms IS NULL OR d.issued_ms < q.until_ms)
                    WHERE d.provider = $1 AND d.day BETWEEN $2 AND $3";
        let query = sqlx::query(text).bind(i64::from(provider.0)).bind(from.to_sql()).bind(to.to_sql());
        let row = query.fetch_one(&mut self.db.any).await?;
        Ok(InQuarantine { clients: number_at(&row, 0)?, downloads: number_at(&row, 1)? })
    }
}
