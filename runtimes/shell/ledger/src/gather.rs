//! What downloads are settled from: their records are read one after another, in the order in which they came, and of
//! each download no more is held than counts.

use super::day::Day;
use super::quarantine::{self, speaker};
use super::rows::{Value, each_among, insert};
use super::store::decode;
use super::usage::bytes_at;
use sqlx::{AnyConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::accounting::evidence::{Dropped, Evidence, in_turn, key};
use swarmedge_core::accounting::quarantine::Quarantines;
use swarmedge_core::ids::{Guid, RecordId};
use swarmedge_core::wire::records::LedgerRecord;

/// When clients were in quarantine.
pub(super) type Spans = Vec<(Guid, u64, u64)>;

/// What was read of some downloads.
#[derive(Default)]
pub(super) struct Gathered {
    /// By download.
    pub(super) evidence: BTreeMap<Vec<u8>, Evidence>,
    /// When those who speak in them were in quarantine.
    pub(super) spans: Spans,
    /// What was read and does not count.
    gone: Vec<Gone>,
    /// Under which ids usage records are stored that came before they had keys of their own, by these.
    legacy: BTreeMap<RecordId, Vec<u8>>,
}

/// A record that does not count, without what it says: there may be very many.
struct Gone {
    download: Vec<u8>,
    key: RecordId,
    came_ms: u64,
    late: bool,
    is_usage: bool,
}

impl Gone {
    fn of(download: &[u8], dropped: &Dropped) -> Self {
        Self {
            download: download.to_vec(),
            key: key(&dropped.record),
            came_ms: dropped.came_ms,
            late: dropped.late,
            is_usage: matches!(dropped.record, LedgerRecord::Usage(_)),
        }
    }

    fn is_in(&self, fresh: &Fresh<'_>) -> bool {
        fresh.get(&self.download).is_some_and(|all| all.contains_key(&self.key))
    }
}

/// Records that are not stored yet, by download; of each in the order of their keys.
pub(super) type Fresh<'a> = BTreeMap<Vec<u8>, BTreeMap<RecordId, &'a LedgerRecord>>;

/// What is read.
#[derive(Clone, Copy)]
pub(super) struct Which<'a> {
    /// Of these downloads, which have records,
    pub(super) downloads: &'a [Vec<u8>],
    /// what came on this day or later,
    pub(super) since: i64,
    /// and who had been put into quarantine by this time, Unix milliseconds.
    pub(super) known_ms: u64,
}

/// Reads the records of downloads; `fresh` ones came `at_ms`.
pub(super) async fn gather(
    db: &mut AnyConnection,
    which: Which<'_>,
    fresh: &Fresh<'_>,
    at_ms: u64,
) -> Result<Gathered, sqlx::Error> {
    let mut gathered = Gathered::default();
    if !quarantine::nobody_ever(db).await? {
        let mut who: BTreeSet<Guid> = fresh.values().flat_map(BTreeMap::values).filter_map(|r| speaker(r)).collect();
        read(db, which, |row| who.extend(speaker(&row.record))).await?;
        gathered.spans = quarantine::of(db, who, which.known_ms).await?;
    }
    let mut quarantines = Quarantines::default();
    gathered.spans.iter().for_each(|(guid, from, until)| quarantines.add(*guid, *from, *until));
    let mut waiting = fresh.clone();
    let mut adding = Adding { quarantines, at_once: BTreeMap::new(), gathered: &mut gathered };
    read(db, which, |row| {
        let key = key(&row.record);
        // a clock may have been set back
        while let Some(first) = waiting.get_mut(&row.download).and_then(BTreeMap::first_entry)
            && (at_ms, &first.key().0[..]) < (row.came_ms, &row.id)
        {
            adding.add(&row.download, at_ms, first.remove().clone());
        }
        if key.0[..] != row.id {
            adding.gathered.legacy.insert(key, row.id);
        }
        adding.add(&row.download, row.came_ms, row.record);
    })
    .await?;
    for (download, record) in waiting.iter().flat_map(|(d, all)| all.values().map(move |r| (d, *r))) {
        adding.add(download, at_ms, record.clone());
    }
    adding.end();
    Ok(gathered)
}

/// Adds records to the evidence of their downloads; they come in the order of their times and keys.
struct Adding<'a> {
    quarantines: Quarantines,
    /// The last records of each download, which came in one millisecond, and when: not added yet.
    at_once: BTreeMap<Vec<u8>, (u64, Vec<LedgerRecord>)>,
    gathered: &'a mut Gathered,
}

impl Adding<'_> {
    fn add(&mut self, download: &[u8], came_ms: u64, record: LedgerRecord) {
        match self.at_once.get_mut(download) {
            Some((at_ms, records)) if *at_ms == came_ms => records.push(record),
            Some((at_ms, records)) => {
                let (before_ms, before) = (*at_ms, std::mem::replace(records, vec![record]));
                *at_ms = came_ms;
                self.add_all(download, before_ms, before);
            }
            None => {
                self.at_once.insert(download.to_vec(), (came_ms, vec![record]));
            }
        }
    }

    fn add_all(&mut self, download: &[u8], came_ms: u64, records: Vec<LedgerRecord>) {
        let Gathered { evidence, gone, .. } = &mut *self.gathered;
        let of_it = evidence.entry(download.to_vec()).or_insert_with(|| Evidence::new(self.quarantines.clone()));
        let dropped = in_turn(records).into_iter().flat_map(|record| of_it.add(came_ms, record));
        gone.extend(dropped.map(|dropped| Gone::of(download, &dropped)));
    }

    fn end(mut self) {
        for (download, (came_ms, records)) in std::mem::take(&mut self.at_once) {
            self.add_all(&download, came_ms, records);
        }
    }
}

/// A record as it is stored.
struct Row {
    download: Vec<u8>,
    id: Vec<u8>,
    came_ms: u64,
    record: LedgerRecord,
}

async fn read(db: &mut AnyConnection, which: Which<'_>, mut each: impl FnMut(Row)) -> Result<(), sqlx::Error> {
    let text = "SELECT download, id, received_ms, body FROM record WHERE download";
    each_among(db, text, which.downloads, which.since, "ORDER BY received_ms, id", |row| {
        let (download, id) = (row.try_get(0)?, row.try_get(1)?);
        each(Row { download, id, came_ms: bytes_at(&row, 2)?, record: decode(&row, 3)? });
        Ok(())
    })
    .await
}

impl Gathered {
    /// The keys of fresh records that another has replaced, or that came too late from a client: they are kept, and
    /// never read again.
    pub(super) fn unread(&self, fresh: &Fresh<'_>) -> BTreeSet<RecordId> {
        let unread = self.gone.iter().filter(|g| (!g.late || g.is_usage) && g.is_in(fresh));
        unread.map(|g| g.key).collect()
    }

    /// Stored records that others have replaced are of no download any more, so that they are not read again.
    pub(super) async fn release(&self, db: &mut AnyConnection, fresh: &Fresh<'_>) -> Result<(), sqlx::Error> {
        let row = |g: &Gone| {
            let id = self.legacy.get(&g.key).map_or(&g.key.0[..], |id| &id[..]);
            vec![g.download[..].into(), Day::of_ms(g.came_ms).to_sql().into(), id.into()]
        };
        let replaced = self.gone.iter().filter(|g| !g.late && !g.is_in(fresh));
        let rows: Vec<Vec<Value>> = replaced.map(row).collect();
        let head = "WITH gone (download, day, id) AS (";
        let tail = ") UPDATE record SET download = NULL FROM gone
                    WHERE record.download = gone.download AND record.day = gone.day AND record.id = gone.id";
        insert(db, head, rows, tail).await.map(|_| ())
    }
}
