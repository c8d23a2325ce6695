//! Who has become whom: copies of one installation take keys of their own, and so other GUIDs. Quarantine follows to
//! these, so that nobody leaves it by being copied; the ledger has the link before a CN lets the client go on.

use super::quarantine::{guid_at, open_spans, put_in};
use super::rows::{among, insert};
use crate::keys::verify;
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::rekeys;
use swarmedge_core::ids::Guid;
use swarmedge_core::limits::QUARANTINED_MAX;
use swarmedge_core::wire::records::{LedgerRecord, LogEvent};

/// Keeps who has become whom by these records, and puts who has so left quarantine into it. Once for each link: who was
/// let out by name stays out.
pub(super) async fn add(change: &mut AnyConnection, records: &[&LedgerRecord], now_ms: u64) -> Result<(), sqlx::Error> {
    let links: BTreeMap<(Guid, Guid), u64> = records.iter().filter_map(|record| link(record)).collect();
    if links.is_empty() {
        return Ok(());
    }
    let row =
        |((guid, next), at_ms): (&(Guid, Guid), &u64)| vec![guid.0[..].into(), next.0[..].into(), (*at_ms).into()];
    let rows = links.iter().map(row).collect();
    insert(change, "INSERT INTO successor (guid, next, at_ms)", rows, "ON CONFLICT DO NOTHING").await?;
    let open = open_spans(change).await?;
    for (guid, next) in links.keys() {
        let Some(reason) = open.get(guid) else { continue };
        let mut all = heirs(change, &BTreeSet::from([*next])).await?;
        all.insert(*next);
        if put_in(change, &all, &format!("{reason} (as {guid})"), now_ms).await?.is_none() {
            tracing::error!(%guid, %next, "{QUARANTINED_MAX} clients are in quarantine: this one has left it by a new key");
        }
    }
    Ok(())
}

/// Who has become whom by this record, and when, if both keys have signed it.
fn link(record: &LedgerRecord) -> Option<((Guid, Guid), u64)> {
    let LedgerRecord::Log(log) = record else { return None };
    let LogEvent::Rekeyed(signed) = &log.event else { return None };
    let (old, new) = (Guid::of(&signed.rekey.old), Guid::of(&signed.rekey.new));
    (log.guid == old && rekeys::check(verify, signed)).then_some(((old, new), log.at_ms))
}

/// Whom these have become, and those again.
pub(super) async fn heirs(change: &mut AnyConnection, guids: &BTreeSet<Guid>) -> Result<BTreeSet<Guid>, sqlx::Error> {
    let (mut found, mut last) = (BTreeSet::new(), guids.clone());
    while !last.is_empty() && found.len() <= QUARANTINED_MAX {
        let ids: Vec<Vec<u8>> = last.iter().map(|guid| guid.0.to_vec()).collect();
        last.clear();
        // whatever its day
        let text = "SELECT next FROM (SELECT guid, next, 0 AS day FROM successor) AS s WHERE guid";
        for row in &among(change, text, &ids, 0).await? {
            let next = guid_at(&row.try_get::<Vec<u8>, _>(0)?)?;
            if !guids.contains(&next) && found.insert(next) {
                last.insert(next);
            }
        }
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
