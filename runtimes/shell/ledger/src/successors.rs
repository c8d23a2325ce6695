//! Who has become whom: copies of one installation take keys of their own, and so other GUIDs. Quarantine follows to
//! these, so that nobody leaves it by being copied; the ledger has the link before a CN lets the client go on.

use super::quarantine::{guid_at, open_spans, put_in};
use super::rows::{among, insert};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::rekeys;
use swarmedge_core::ids::Guid;
use swarmedge_core::limits::{FOLLOWED_MAX, HEIRS_MAX};
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};
use swarmedge_ground::keys::verify;

/// Who has become whom, each with when.
type Links = BTreeMap<(Guid, Guid), u64>;

/// Keeps who has become whom by these records, and puts who has so left quarantine into it. Once for each link: who was
/// let out by name stays out.
pub(super) async fn add(change: &mut AnyConnection, records: &[&LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
    let links: Links = records.iter().filter_map(|record| link(record)).collect();
    if links.is_empty() {
        return Ok(());
    }
    let links = with_room(change, links).await?;
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
            tracing::error!(%guid, %next, "too many clients in quarantine take new keys: this one leaves it by one");
            new.truncate(room);
        }
        put_in(change, &mut open, new, &reason, now_ms).await?;
    }
    Ok(())
}

/// Those of the links for which there is room: a GUID is followed to no more than [`HEIRS_MAX`].
async fn with_room(change: &mut AnyConnection, links: Links) -> Result<Links, sqlx::Error> {
    let mut kept = Links::new();
    let guids: BTreeSet<Guid> = links.keys().map(|(guid, _)| *guid).collect();
    for guid in guids {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM successor WHERE guid = $1").bind(guid.0.to_vec());
        let known: i64 = count.fetch_one(&mut *change).await?;
        let room = HEIRS_MAX.saturating_sub(usize::try_from(known).unwrap_or(usize::MAX));
        let of_it = links.iter().filter(|((of, _), _)| *of == guid);
        if of_it.clone().count() > room {
            tracing::warn!(%guid, "a GUID has become more than {HEIRS_MAX} others: those beyond are not kept");
        }
        kept.extend(of_it.take(room).map(|(link, at_ms)| (*link, *at_ms)));
    }
    Ok(kept)
}

/// How many are in quarantine that this one, or one that became it and is in quarantine too, has become.
async fn family(change: &mut AnyConnection, open: &BTreeMap<Guid, String>, guid: Guid) -> Result<usize, sqlx::Error> {
    let (mut all, mut last) = (BTreeSet::from([guid]), BTreeSet::from([guid]));
    while !last.is_empty() && all.len() <= HEIRS_MAX {
        last = before(change, &last).await?.into_iter().filter(|g| open.contains_key(g) && all.insert(*g)).collect();
    }
    // all but the first one are heirs too
    Ok(all.len() - 1 + heirs_among(change, &all, |heir| open.contains_key(heir)).await?.len())
}

/// Who has become whom by this record, and when, if both keys have signed it.
fn link(record: &LedgerRecord) -> Option<((Guid, Guid), u64)> {
    let LedgerRecord::Log(log) = record else { return None };
    let LogEvent::Rekeyed(signed) = &log.event else { return None };
    let (old, new) = (Guid::of(&signed.rekey.old), Guid::of(&signed.rekey.new));
    (log.guid == old && rekeys::check(verify, signed)).then_some(((old, new), log.at_ms))
}

/// Whom these have become, and those again: the nearest first, and no more than [`HEIRS_MAX`].
pub(super) async fn heirs(change: &mut AnyConnection, guids: &BTreeSet<Guid>) -> Result<Vec<Guid>, sqlx::Error> {
    heirs_among(change, guids, |_| true).await
}

/// The same, but for those that `counts` says no to, and whom only these have become.
async fn heirs_among(
    change: &mut AnyConnection,
    guids: &BTreeSet<Guid>,
    counts: impl Fn(&Guid) -> bool,
) -> Result<Vec<Guid>, sqlx::Error> {
    let (mut known, mut found, mut last) = (guids.clone(), Vec::new(), guids.clone());
    while !last.is_empty() && found.len() < HEIRS_MAX {
        let ids: Vec<Vec<u8>> = last.iter().map(|guid| guid.0.to_vec()).collect();
        last.clear();
        // whatever its day
        let text = "SELECT next FROM (SELECT guid, next, 0 AS day FROM successor) AS s WHERE guid";
        for row in &among(change, text, &ids, 0).await? {
            let next = guid_at(&row.try_get::<Vec<u8>, _>(0)?)?;
            if counts(&next) && known.insert(next) {
                last.insert(next);
            }
        }
        found.extend(last.iter().take(HEIRS_MAX - found.len()));
    }
    Ok(found)
}

/// Who has become one of these.
pub(super) async fn before(change: &mut AnyConnection, guids: &BTreeSet<Guid>) -> Result<BTreeSet<Guid>, sqlx::Error> {
    let ids: Vec<Vec<u8>> = guids.iter().map(|guid| guid.0.to_vec()).collect();
    let text = "SELECT guid FROM (SELECT guid, next, 0 AS day FROM successor) AS s WHERE next";
    let rows = among(change, text, &ids, 0).await?;
    rows.iter().map(|row| guid_at(&row.try_get::<Vec<u8>, _>(0)?)).collect()
}
