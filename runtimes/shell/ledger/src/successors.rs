//! Links from retired GUIDs to their successors: copies of one installation take new keys, hence new GUIDs. Quarantine
//! follows these links, so that no client leaves it by being copied. The ledger stores a link before a CN lets the
//! client continue under its new GUID.

use super::columns::wire_at;
use super::rows::{among, insert};
use super::spans::{open_spans, put_in};
use sqlx::AnyConnection;
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::rekeys;
use swarmedge_core::ids::Guid;
use swarmedge_core::limits::{FOLLOWED_MAX, HEIRS_MAX};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};
use swarmedge_ground::keys::verify;

/// Links from old to new GUID, with the time in Unix ms.
type Links = BTreeMap<(Guid, Guid), u64>;

/// Stores the old→new GUID links of rekey records and extends quarantine to the new GUID, once per link; a GUID that an
/// operator released stays released.
pub(super) async fn add(change: &mut AnyConnection, records: &[&LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
    let links: Links = records.iter().filter_map(|record| link(record)).collect();
    if links.is_empty() {
        return Ok(());
    }
    let links = within_limit(change, links).await?;
    let row =
        |((guid, next), at_ms): (&(Guid, Guid), &u64)| vec![guid.0[..].into(), next.0[..].into(), (*at_ms).into()];
    let rows = links.iter().map(row).collect();
    insert(change, "INSERT INTO successor (guid, next, at_ms)", rows, "ON CONFLICT DO NOTHING").await?;
    let mut open = open_spans(change).await?;
    for (guid, next) in links.keys() {
        let Some(reason) = open.get(guid).map(|reason| format!("{reason} (as {guid})")) else { continue };
        let heirs = heirs(change, &BTreeSet::from([*next])).await?;
        let mut new: Vec<Guid> = std::iter::once(*next).chain(heirs).filter(|g| !open.contains_key(g)).collect();
        let room = HEIRS_MAX.saturating_sub(family(change, &open, *guid).await?);
        let room = room.min(FOLLOWED_MAX.saturating_sub(open.len()));
        if new.len() > room {
            tracing::error!(%guid, %next, "too many clients in quarantine take new keys: a new GUID of this one is not in quarantine");
            new.truncate(room);
        }
        put_in(change, &mut open, new, &reason, now_ms).await?;
    }
    Ok(())
}

/// Keeps those links with which no GUID has more than [`HEIRS_MAX`] successors.
async fn within_limit(change: &mut AnyConnection, links: Links) -> Result<Links, sqlx::Error> {
    let mut kept = Links::new();
    let guids: BTreeSet<Guid> = links.keys().map(|(guid, _)| *guid).collect();
    for guid in guids {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM successor WHERE guid = $1").bind(guid.0.to_vec());
        let known: i64 = count.fetch_one(&mut *change).await?;
        let room = HEIRS_MAX.saturating_sub(usize::try_from(known).unwrap_or(usize::MAX));
        let of_guid = links.iter().filter(|((of, _), _)| *of == guid);
        if of_guid.clone().count() > room {
            tracing::warn!(%guid, "a GUID has more than {HEIRS_MAX} successors: further ones are not stored");
        }
        kept.extend(of_guid.take(room).map(|(link, at_ms)| (*link, *at_ms)));
    }
    Ok(kept)
}

/// Counts the GUIDs in quarantine of one family: predecessors and successors of this GUID, without the oldest one.
async fn family(change: &mut AnyConnection, open: &BTreeMap<Guid, String>, guid: Guid) -> Result<usize, sqlx::Error> {
    let (mut all, mut last) = (BTreeSet::from([guid]), BTreeSet::from([guid]));
    while !last.is_empty() && all.len() <= HEIRS_MAX {
        last =
            predecessors(change, &last).await?.into_iter().filter(|g| open.contains_key(g) && all.insert(*g)).collect();
    }
    // every member but the oldest is a successor
    Ok(all.len() - 1 + heirs_among(change, &all, |heir| open.contains_key(heir)).await?.len())
}

/// Returns the link of a rekey record, if both keys have signed it.
fn link(record: &LedgerRecord) -> Option<((Guid, Guid), u64)> {
    let LedgerRecord::Log(log) = record else { return None };
    let LogEvent::Rekeyed(signed) = &log.event else { return None };
    let (old, new) = (Guid::of(&signed.rekey.old), Guid::of(&signed.rekey.new));
    (log.guid == old && rekeys::check(verify, signed)).then_some(((old, new), log.at_ms))
}

/// Returns the successors of GUIDs, direct and indirect: nearest first, at most [`HEIRS_MAX`].
pub(super) async fn heirs(change: &mut AnyConnection, guids: &BTreeSet<Guid>) -> Result<Vec<Guid>, sqlx::Error> {
    heirs_among(change, guids, |_| true).await
}

/// Returns the successors like [`heirs`], but leaves out each one that `counts` rejects, and does not search beyond
/// it.
async fn heirs_among(
    change: &mut AnyConnection,
    guids: &BTreeSet<Guid>,
    counts: impl Fn(&Guid) -> bool,
) -> Result<Vec<Guid>, sqlx::Error> {
    let (mut known, mut found, mut last) = (guids.clone(), Vec::new(), guids.clone());
    while !last.is_empty() && found.len() < HEIRS_MAX {
        let ids: Vec<Vec<u8>> = last.iter().map(|guid| guid.0.to_vec()).collect();
        last.clear();
        // `among` filters by a day column, which this table lacks
        let text = "SELECT next FROM (SELECT guid, next, 0 AS day FROM successor) AS s WHERE guid";
        for row in &among(change, text, &ids, 0).await? {
            let next = wire_at(row, 0)?;
            if counts(&next) && known.insert(next) {
                last.insert(next);
            }
        }
        found.extend(last.iter().take(HEIRS_MAX - found.len()));
    }
    Ok(found)
}

/// Returns the GUIDs that installations used before these, up to their last change of key.
pub(super) async fn predecessors(
    change: &mut AnyConnection,
    guids: &BTreeSet<Guid>,
) -> Result<BTreeSet<Guid>, sqlx::Error> {
    let ids: Vec<Vec<u8>> = guids.iter().map(|guid| guid.0.to_vec()).collect();
    let text = "SELECT guid FROM (SELECT guid, next, 0 AS day FROM successor) AS s WHERE next";
    let rows = among(change, text, &ids, 0).await?;
    rows.iter().map(|row| wire_at(row, 0)).collect()
}
