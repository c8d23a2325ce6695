//! Rows of the `download` table: one row a download, computed from its records by settlement.

use super::clock::Clock;
use super::day::Day;
use super::places::{Places, Spot};
use super::proven::verify_cached;
use super::rollup::to_json;
use super::rows::Value;
use std::collections::BTreeMap;
use swarmedge_core::accounting::evidence::Evidence;
use swarmedge_core::accounting::settlement::Bill;
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::records::{GrantRecord, LedgerRecord, Side, UsageState};

/// Columns of the `download` table that [`download_row`] fills, in its order.
pub(super) const COLUMNS: &str = "download, provider, day, path, version, guid, size, issued_ms, state, elapsed_ms, \
     edge_unique, edge_total, edge_claimed, peers_received, peers_sent, peers_billed, flagged, speed, evidence, cause, \
     max_peer_bytes, spot, sources, closes_ms";

/// Number of speed classes (histogram buckets) per doubling of the speed.
const CLASSES: u64 = 16;

/// Returns the number of a state in the `state` column.
pub(super) const fn state_number(state: Option<UsageState>) -> i64 {
    match state {
        None => 0,
        Some(UsageState::Running) => 1,
        Some(UsageState::Completed) => 2,
        Some(UsageState::Cancelled) => 3,
        Some(UsageState::Failed) => 4,
    }
}

/// Returns the histogram bucket of a download's speed: 16 buckets per doubling, so that a bucket is exact to 6 %.
pub(super) fn speed_class(bytes: u64, ms: u64) -> i64 {
    let per_second = u64::try_from(u128::from(bytes) * 1000 / u128::from(ms.max(1))).unwrap_or(u64::MAX).max(CLASSES);
    let doubling = per_second.ilog2();
    let within = (per_second >> (doubling - CLASSES.ilog2())) - CLASSES;
    i64::from(doubling) * 16 + i64::try_from(within).unwrap_or(0)
}

/// Returns the middle of a speed class, bytes a second; the inverse of [`speed_class`].
pub(super) fn speed_of(class: i64) -> u64 {
    let class = u64::try_from(class).unwrap_or(0).clamp(CLASSES * 4, CLASSES * 63);
    let width = 1_u64 << (class / CLASSES - 4);
    (CLASSES + class % CLASSES) * width + width / 2
}

/// Most days between a grant's issue time, by the edge's clock, and its arrival at the ledger; older times are clamped.
const GRANT_DAYS: u32 = 7;

/// Computes a download's row from its records, as of the time of `clock`; `None` without a grant record. The download
/// belongs to the day of its first grant, or to the first open day if that day is closed.
pub(super) fn download_row(evidence: &Evidence, places: &Places, clock: Clock) -> Option<Vec<Value>> {
    let first = |r: &(Day, &GrantRecord)| (r.1.issued_ms, r.1.id);
    let grants = evidence.records().filter_map(|(came, r)| Some((Day::of_ms(came), grant(r)?)));
    let (came, granted) = grants.min_by_key(first)?;
    let day = Day::of_ms(granted.issued_ms).clamp(Day(came.0.saturating_sub(GRANT_DAYS)), came).max(clock.first_open);
    let book = evidence.book();
    let bill = book.bill(verify_cached, clock.now_ms);
    let done = bill.state == Some(UsageState::Completed);
    let spot = places.at(granted.guid, granted.issued_ms);
    let sources = sources(&bill, places, spot, granted.issued_ms);
    // a download that found pieces on disk moved fewer bytes than the size; one that moved nothing has no speed
    let moved = bill.edge_claimed.max(bill.edge_unique).saturating_add(bill.peers_received).min(bill.size);
    let speed = if done && moved > 0 { speed_class(moved, bill.elapsed_ms) } else { -1 };
    Some(vec![
        granted.download.0[..].into(),
        i64::from(granted.provider.0).into(),
        day.to_sql().into(),
        Value::Text(granted.path.to_string()),
        granted.version.0[..].into(),
        granted.guid.0[..].into(),
        bill.size.into(),
        granted.issued_ms.into(),
        state_number(bill.state).into(),
        bill.elapsed_ms.into(),
        bill.edge_unique.into(),
        bill.edge_total.into(),
        bill.edge_claimed.into(),
        bill.peers_received.into(),
        bill.peers_sent.into(),
        bill.peers_billed.into(),
        bill.flagged.into(),
        speed.into(),
        evidence.digest().0[..].into(),
        if bill.state == Some(UsageState::Failed) { cause(evidence, granted) } else { 0 }.into(),
        bill.max_peer_bytes.into(),
        Value::Text(spot.into()),
        Value::Text(sources),
        book.closes_ms().unwrap_or_default().into(),
    ])
}

/// Returns the uploaders' bytes by their country and network, as JSON; empty if no client's location is known.
fn sources(bill: &Bill, places: &Places, downloader: Spot, ms: u64) -> String {
    let mut by_spot: BTreeMap<Spot, u64> = BTreeMap::new();
    for (uploader, bytes) in &bill.shares {
        let sum = by_spot.entry(places.at(*uploader, ms)).or_default();
        *sum = sum.saturating_add(*bytes);
    }
    if !downloader.is_known() && !by_spot.keys().any(Spot::is_known) {
        return String::new();
    }
    // a map of texts and numbers always serialises
    to_json(&by_spot).unwrap_or_default()
}

/// Returns the GUIDs of a download's downloader and uploaders, whose locations its row needs.
pub(super) fn clients(evidence: &Evidence) -> impl Iterator<Item = Guid> {
    evidence.records().filter_map(|(_, record)| match record {
        LedgerRecord::Granted(g) => Some(g.guid),
        LedgerRecord::Usage(r) if r.record.side == Side::Uploader => Some(r.record.reporter),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Log(_)
        | LedgerRecord::Possession(_) => None,
    })
}

/// Returns the failure cause in the downloader's last usage record, by its number on the wire; 0 if not stated.
fn cause(evidence: &Evidence, granted: &GrantRecord) -> i64 {
    let usage = evidence.records().filter_map(|(_, r)| r.usage());
    let downloader = usage.filter(|r| r.side == Side::Downloader && r.reporter == granted.guid);
    let last = downloader.max_by_key(|r| r.seq);
    last.and_then(|r| r.cause).map_or(0, |cause| i64::from(cause.number()))
}

/// Returns the name of a failure cause in reports.
pub(super) const fn cause_name(number: i64) -> &'static str {
    match number {
        1 => "not found",
        2 => "forbidden",
        3 => "edge unreachable",
        4 => "withdrawn or replaced",
        5 => "disk full",
        6 => "disk failure",
        7 => "wrong bytes from the edge",
        _ => "not said",
    }
}

/// Returns the record of a grant; `None` for other records.
const fn grant(record: &LedgerRecord) -> Option<&GrantRecord> {
    match record {
        LedgerRecord::Granted(g) => Some(g),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_)
        | LedgerRecord::Log(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        #[test]
        fn a_class_says_a_speed_to_six_per_cent(per_second in 16_u64..1 << 40) {
            let of = speed_of(speed_class(per_second, 1000));
            prop_assert!(of.abs_diff(per_second) * 16 <= per_second, "{per_second} became {of}");
            prop_assert!(speed_class(per_second, 1000) <= speed_class(per_second + 1, 1000));
        }
    }
}
