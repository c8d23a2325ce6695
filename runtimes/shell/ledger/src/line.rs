//! A download's line: what its records come to, as the database keeps it beside them.

use super::day::Day;
use super::places::{Places, Spot};
use super::proven::verify_once;
use super::rollup::to_json;
use super::rows::Value;
use std::collections::BTreeMap;
use swarmedge_core::accounting::evidence::Evidence;
use swarmedge_core::accounting::settlement::Bill;
use swarmedge_core::ids::Guid;
use swarmedge_core::wire::records::{GrantRecord, LedgerRecord, Side, UsageState};

/// The columns that [`line_of`] fills, in its order.
pub(super) const COLUMNS: &str = "download, provider, day, path, version, guid, size, issued_ms, state, elapsed_ms, \
     edge_unique, edge_total, edge_claimed, peers_received, peers_sent, peers_billed, flagged, speed, evidence, cause, \
     max_peer_bytes, spot, sources, closes_ms";

/// Classes of speed for each doubling.
const CLASSES: u64 = 16;

/// A state as the database writes it.
pub(super) const fn state_number(state: Option<UsageState>) -> i64 {
    match state {
        None => 0,
        Some(UsageState::Running) => 1,
        Some(UsageState::Completed) => 2,
        Some(UsageState::Cancelled) => 3,
        Some(UsageState::Failed) => 4,
    }
}

/// The class of a speed: 16 a doubling, each 1/16 of its doubling wide, so that a class says the speed to 6 %.
pub(super) fn speed_class(bytes: u64, ms: u64) -> i64 {
    let per_second = u64::try_from(u128::from(bytes) * 1000 / u128::from(ms.max(1))).unwrap_or(u64::MAX).max(CLASSES);
    let doubling = per_second.ilog2();
    let within = (per_second >> (doubling - CLASSES.ilog2())) - CLASSES;
    i64::from(doubling) * 16 + i64::try_from(within).unwrap_or(0)
}

/// The middle of a class, bytes a second.
pub(super) fn speed_of(class: i64) -> u64 {
    let class = u64::try_from(class).unwrap_or(0).clamp(CLASSES * 4, CLASSES * 63);
    let width = 1_u64 << (class / CLASSES - 4);
    (CLASSES + class % CLASSES) * width + width / 2
}

/// How long before it came a grant may have been issued: an edge's clock is not believed beyond that.
const GRANT_DAYS: u32 = 7;

/// The line at `now_ms` of a download from its records; none without its first grant. A download belongs to the day of
/// that grant, unless that was closed: then to `first_open`.
pub(super) fn line_of(evidence: &Evidence, places: &Places, first_open: Day, now_ms: u64) -> Option<Vec<Value>> {
    let first = |r: &(Day, &GrantRecord)| (r.1.issued_ms, r.1.id);
    let grants = evidence.records().filter_map(|(came, r)| Some((Day::of_ms(came), grant(r)?)));
    let (came, granted) = grants.min_by_key(first)?;
    let day = Day::of_ms(granted.issued_ms).clamp(Day(came.0.saturating_sub(GRANT_DAYS)), came).max(first_open);
    let book = evidence.book();
    let bill = book.bill(verify_once, now_ms);
    let done = bill.state == Some(UsageState::Completed);
    let spot = places.at(granted.guid, granted.issued_ms);
    let sources = sources(&bill, places, spot, granted.issued_ms);
    // a download that found all or some of it here moved less than the size; one that moved nothing has no speed
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

/// The bytes of peers by where these were, as JSON; nothing where that is not known of anybody.
fn sources(bill: &Bill, places: &Places, downloader: Spot, ms: u64) -> String {
    let mut by_spot: BTreeMap<Spot, u64> = BTreeMap::new();
    for (uploader, bytes) in &bill.shares {
        let sum = by_spot.entry(places.at(*uploader, ms)).or_default();
        *sum = sum.saturating_add(*bytes);
    }
    if !downloader.is_known() && !by_spot.keys().any(Spot::is_known) {
        return String::new();
    }
    // a map of texts and numbers can always be written
    to_json(&by_spot).unwrap_or_default()
}

/// Whose logins a line asks for: the downloader's and the uploaders'.
pub(super) fn clients(evidence: &Evidence) -> impl Iterator<Item = Guid> {
    evidence.records().filter_map(|(_, record)| match record {
        LedgerRecord::Granted(g) => Some(g.guid),
        LedgerRecord::Usage(r) if r.side == Side::Uploader => Some(r.reporter),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Log(_)
        | LedgerRecord::Possession(_) => None,
    })
}

/// What a downloader says last of why it failed, by its number.
fn cause(evidence: &Evidence, granted: &GrantRecord) -> i64 {
    let downloader = evidence.records().filter_map(|(_, r)| match r {
        LedgerRecord::Usage(r) if r.side == Side::Downloader && r.reporter == granted.guid => Some(r),
        LedgerRecord::Usage(_)
        | LedgerRecord::Edge(_)
        | LedgerRecord::Granted(_)
        | LedgerRecord::Log(_)
        | LedgerRecord::Served(_)
        | LedgerRecord::Possession(_) => None,
    });
    let last = downloader.max_by_key(|r| r.seq);
    last.and_then(|r| r.cause).map_or(0, |cause| i64::from(cause.number()))
}

/// A cause as people read it, by its number.
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
