//! The CN's spool on disk. The record of who is introduced becomes durable in it before any client is told, because
//! bytes of an unrecorded introduction are not billed. So neither a crash of this CN nor a slow or absent ledger loses
//! an offer. Records that the ledger has are deleted from the spool; those left after a crash are sent again under the
//! same ids.

use super::{Cn, Common, Context, Metric, Output, Phase, Timer};
use crate::ids::{DownloadId, RecordId, ReqId};
use crate::wire::records::LedgerRecord;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// Delay between an acknowledgement and the deletion of the record, so that several records are deleted together.
const CLEAR_AFTER: Duration = Duration::from_secs(1);

/// The machine's knowledge of the spool on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Spool {
    /// Records on disk that the ledger has not acknowledged.
    held: BTreeSet<RecordId>,
    /// Records to be deleted with the next write.
    acked: Vec<RecordId>,
    /// Writes that are in progress.
    saving: BTreeMap<ReqId, Saving>,
    /// Downloads whose grants are durably recorded.
    granted: BTreeSet<DownloadId>,
}

/// A write in progress: records added and deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Saving {
    /// Record of the grant of the download that peers are introduced to, if it is not durable yet.
    granted: Option<LedgerRecord>,
    record: Option<LedgerRecord>,
    acked: Vec<RecordId>,
}

/// Largest number of downloads in [`Spool::granted`]. Beyond that all are forgotten, and some grants are recorded once
/// more under the same ids.
const GRANTED_MAX: usize = 65_536;

impl Spool {
    /// Returns the number of writes in progress that add a record.
    pub(super) fn writing(&self) -> usize {
        self.saving.values().filter(|saving| saving.record.is_some()).count()
    }

    /// Returns whether a download's grant is known to be recorded.
    pub(super) fn has_granted(&self, download: DownloadId) -> bool {
        self.granted.contains(&download)
    }

    fn remember_granted(&mut self, download: DownloadId) {
        if self.granted.len() >= GRANTED_MAX {
            self.granted.clear();
        }
        self.granted.insert(download);
    }

    /// Asserts that all records on disk are being sent to the ledger; `is_held` tells which are.
    pub(super) fn check(&self, is_held: impl Fn(RecordId) -> bool) {
        assert!(self.held.iter().all(|id| is_held(*id)), "each spooled record is on its way to the ledger");
        assert!(self.granted.len() <= GRANTED_MAX, "the recorded grants are bounded");
    }

    /// Returns whether no acknowledged record is still to be deleted from the spool.
    pub(super) fn is_cleared(&self) -> bool {
        self.acked.is_empty()
    }

    /// Returns whether nothing is left to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.acked.is_empty() && self.saving.is_empty()
    }
}

impl Spool {
    /// Notes that a record is on disk.
    pub(super) fn hold(&mut self, id: RecordId) {
        self.held.insert(id);
    }

    /// Writes a record to the spool, with the record of the grant that it depends on if given. Once durable, both go
    /// to the ledger, and the waiting query continues.
    pub(super) fn add(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        granted: Option<LedgerRecord>,
        record: LedgerRecord,
    ) {
        self.save(cx, common, granted, Some(record));
    }

    /// Has the shell write records to the spool, and delete acknowledged ones.
    fn save(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        granted: Option<LedgerRecord>,
        record: Option<LedgerRecord>,
    ) {
        common.timers.clear(Timer::Spool);
        let req = common.next_req.step();
        let acked = core::mem::take(&mut self.acked);
        let records = granted.iter().chain(&record).cloned().collect();
        cx.push(Output::Save { req, records, acked: acked.clone() });
        self.saving.insert(req, Saving { granted, record, acked });
    }

    /// Notes the end of a write to the spool, which is durable as a whole or not at all. Returns the write, if there
    /// was one of this number.
    fn end_write(&mut self, cx: &mut Context<'_>, common: &mut Common, req: ReqId, ok: bool) -> Option<Saving> {
        let mut saving = self.saving.remove(&req)?;
        if !ok {
            cx.push(Output::Count(Metric::SpoolFailed));
            self.acked.append(&mut saving.acked);
            // also while stopping: a failed write is not repeated at once
            self.clear_after(cx, common, CLEAR_AFTER);
            return Some(saving);
        }
        if let Some(download) = saving.granted.as_ref().and_then(LedgerRecord::download) {
            self.remember_granted(download);
        }
        self.held.extend(saving.granted.iter().chain(&saving.record).map(LedgerRecord::id));
        Some(saving)
    }

    /// Schedules the deletion of a record that the ledger has.
    pub(super) fn remove(&mut self, cx: &Context<'_>, common: &mut Common, id: RecordId) {
        if self.held.remove(&id) {
            self.acked.push(id);
            let wait = if common.phase == Phase::Serving { CLEAR_AFTER } else { Duration::ZERO };
            self.clear_after(cx, common, wait);
        }
    }

    fn clear_after(&self, cx: &Context<'_>, common: &mut Common, wait: Duration) {
        if !self.acked.is_empty() && common.timers.get(Timer::Spool).is_none_or(|at| at > cx.now.after(wait)) {
            common.timers.set(Timer::Spool, Some(cx.now.after(wait)));
        }
    }

    /// Deletes acknowledged records from the spool.
    pub(super) fn clear(&mut self, cx: &mut Context<'_>, common: &mut Common) {
        if !self.acked.is_empty() {
            self.save(cx, common, None, None);
        }
    }
}

impl Cn {
    /// Handles the end of a write to the spool. Records that are durable go to the ledger; the query that waits for
    /// them is answered, or fails.
    pub(super) fn on_spool_saved(&mut self, cx: &mut Context<'_>, req: ReqId, ok: bool) {
        let ended = self.recording.spool.end_write(cx, &mut self.common, req, ok);
        let Some(Saving { granted, record: Some(record), .. }) = ended else { return };
        let id = record.id();
        if !ok {
            return self.queries.fail_recorded(cx, &mut self.common, &self.sessions, id);
        }
        for record in granted.into_iter().chain([record]) {
            self.recording.submit(cx, record);
        }
        self.on_offer_recorded(cx, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_about_the_spool_of_a_cn_fires() {
        assert_each_clause_fires(
            &Spool::default(),
            |spool| spool.check(|id| id == RecordId::numbered(1)),
            &[
                ("each spooled record is on its way to the ledger", |s| _ = s.held.insert(RecordId::numbered(2))),
                ("the recorded grants are bounded", |s| {
                    s.granted = (0..=u32::try_from(GRANTED_MAX).expect("few")).map(DownloadId::numbered).collect();
                }),
            ],
        );
    }
}
