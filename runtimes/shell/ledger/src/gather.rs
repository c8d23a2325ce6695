//! Collects the evidence that downloads are settled from: reads their records in order of arrival and keeps only those
//! that count.

use super::columns::{number_at, record_at};
use super::day::Day;
use super::rows::{Lookup, Value, each_among, insert};
use super::spans::{Spans, nobody_ever, quarantine_subject, spans_of};
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::evidence::{Dropped, Evidence, in_turn, key};
use swarmedge_core::accounting::quarantine::Quarantines;
use swarmedge_core::ids::{Guid, RecordId};
use swarmedge_core::wire::records::LedgerRecord;

/// Evidence read for some downloads.
#[derive(Default)]
pub(super) struct Gathered {
    /// Evidence by download id.
    pub(super) evidence: BTreeMap<Vec<u8>, Evidence>,
    /// Quarantine spans of the clients that reported these records.
    pub(super) spans: Spans,
    /// Records that were read and do not count.
    uncounted: Vec<Uncounted>,
}

/// A record that does not count; without its contents, since there may be very many.
struct Uncounted {
    download: Vec<u8>,
    key: RecordId,
    came_ms: u64,
    late: bool,
    is_usage: bool,
}

impl Uncounted {
    fn of(download: &[u8], dropped: &Dropped) -> Self {
        Self {
            download: download.to_vec(),
            key: key(&dropped.record),
            came_ms: dropped.came_ms,
            late: dropped.late,
            is_usage: matches!(dropped.record, LedgerRecord::Usage(_)),
        }
    }

    fn is_in(&self, fresh: &FreshRecords<'_>) -> bool {
        fresh.get(&self.download).is_some_and(|all| all.contains_key(&self.key))
    }
}

/// Records that are not stored yet, by download id and record key.
pub(super) type FreshRecords<'a> = BTreeMap<Vec<u8>, BTreeMap<RecordId, &'a LedgerRecord>>;

/// Selects the records to read.
#[derive(Clone, Copy)]
pub(super) struct Selection<'a> {
    /// Ids of the downloads.
    pub(super) downloads: &'a [Vec<u8>],
    /// First day of arrival from which records are read.
    pub(super) since: i64,
    /// Unix ms; quarantines that began later are ignored.
    pub(super) known_ms: u64,
}

/// Reads the records of downloads and merges `fresh` ones, which arrived at `at_ms`.
pub(super) async fn gather(
    db: &mut AnyConnection,
    selection: Selection<'_>,
    fresh: &FreshRecords<'_>,
    at_ms: u64,
) -> Result<Gathered, sqlx::Error> {
    let mut gathered = Gathered::default();
    if !nobody_ever(db).await? {
        let mut subjects: BTreeSet<Guid> =
            fresh.values().flat_map(BTreeMap::values).filter_map(|r| quarantine_subject(r)).collect();
        read(db, selection, |row| subjects.extend(quarantine_subject(&row.record))).await?;
        gathered.spans = spans_of(db, subjects, selection.known_ms).await?;
    }
    let mut quarantines = Quarantines::default();
    gathered.spans.iter().for_each(|(guid, from, until)| quarantines.add(*guid, *from, *until));
    let mut waiting = fresh.clone();
    let mut builder = EvidenceBuilder { quarantines, pending: BTreeMap::new(), gathered: &mut gathered };
    read(db, selection, |row| {
        // the clock may have been set back, so fresh records need not be the newest
        while let Some(first) = waiting.get_mut(&row.download).and_then(BTreeMap::first_entry)
            && (at_ms, *first.key()) < (row.came_ms, row.key)
        {
            builder.add(&row.download, at_ms, first.remove().clone());
        }
        builder.add(&row.download, row.came_ms, row.record);
    })
    .await?;
    for (download, record) in waiting.iter().flat_map(|(d, all)| all.values().map(move |r| (d, *r))) {
        builder.add(download, at_ms, record.clone());
    }
    builder.end();
    Ok(gathered)
}

/// Adds records, ordered by time and key, to the evidence of their downloads.
struct EvidenceBuilder<'a> {
    quarantines: Quarantines,
    /// For each download its newest records that were read and not yet added: all of one arrival time (Unix ms).
    pending: BTreeMap<Vec<u8>, (u64, Vec<LedgerRecord>)>,
    gathered: &'a mut Gathered,
}

impl EvidenceBuilder<'_> {
    /// Adds a record that came to a download; records that came at the same time stay together.
    fn add(&mut self, download: &[u8], came_ms: u64, record: LedgerRecord) {
        match self.pending.get_mut(download) {
            Some((at_ms, records)) if *at_ms == came_ms => records.push(record),
            Some((at_ms, records)) => {
                let (before_ms, before) = (*at_ms, std::mem::replace(records, vec![record]));
                *at_ms = came_ms;
                self.add_all(download, before_ms, before);
            }
            None => {
                self.pending.insert(download.to_vec(), (came_ms, vec![record]));
            }
        }
    }

    fn add_all(&mut self, download: &[u8], came_ms: u64, records: Vec<LedgerRecord>) {
        let Gathered { evidence, uncounted, .. } = &mut *self.gathered;
        let of_it = evidence.entry(download.to_vec()).or_insert_with(|| Evidence::new(self.quarantines.clone()));
        let dropped = in_turn(records).into_iter().flat_map(|record| of_it.add(came_ms, record));
        uncounted.extend(dropped.map(|dropped| Uncounted::of(download, &dropped)));
    }

    fn end(mut self) {
        for (download, (came_ms, records)) in std::mem::take(&mut self.pending) {
            self.add_all(&download, came_ms, records);
        }
    }
}

/// A row of the `record` table.
struct Row {
    download: Vec<u8>,
    key: RecordId,
    came_ms: u64,
    record: LedgerRecord,
}

async fn read(db: &mut AnyConnection, selection: Selection<'_>, mut each: impl FnMut(Row)) -> Result<(), sqlx::Error> {
    let text = "SELECT download, received_ms, body FROM record WHERE download";
    let lookup = Lookup { head: text, ids: selection.downloads, from_day: selection.since };
    each_among(db, lookup, "ORDER BY received_ms, id", |row| {
        let (download, record) = (row.try_get(0)?, record_at(&row, 2)?);
        each(Row { download, key: key(&record), came_ms: number_at(&row, 1)?, record });
        Ok(())
    })
    .await
}

impl Gathered {
    /// Returns the keys of fresh records that settlement need not read again: those that a later record replaced, and
    /// those that arrived too late from a client. They are stored all the same.
    pub(super) fn unread(&self, fresh: &FreshRecords<'_>) -> BTreeSet<RecordId> {
        let unread = self.uncounted.iter().filter(|g| (!g.late || g.is_usage) && g.is_in(fresh));
        unread.map(|g| g.key).collect()
    }

    /// Detaches stored records that were replaced from their downloads, so that they are not read again.
    pub(super) async fn detach_replaced(
        &self,
        db: &mut AnyConnection,
        fresh: &FreshRecords<'_>,
    ) -> Result<(), sqlx::Error> {
        let row =
            |g: &Uncounted| vec![g.download[..].into(), Day::of_ms(g.came_ms).to_sql().into(), g.key.0[..].into()];
        let replaced = self.uncounted.iter().filter(|g| !g.late && !g.is_in(fresh));
        let rows: Vec<Vec<Value>> = replaced.map(row).collect();
        let head = "WITH gone (download, day, id) AS (";
        let tail = ") UPDATE record SET download = NULL FROM gone
                    WHERE record.download = gone.download AND record.day = gone.day AND record.id = gone.id";
        insert(db, head, rows, tail).await.map(|_| ())
    }
}
