//! The CN's spool on disk. The record of who is introduced becomes durable in it before any client is told, because
//! bytes of an unrecorded introduction are not billed. So neither a crash of this CN nor a slow or absent ledger loses
//! an offer. Records that the ledger has are deleted from the spool; those left after a crash are sent again under the
//! same ids.

use super::{Cn, Context, Metric, Output, Phase, Timer};
use crate::ids::{DownloadId, RecordId, ReqId};
use crate::session::ledger_link;
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

impl Cn {
    /// Sends to the ledger the records that the spool held at the start. Without a configured ledger they stay in the
    /// spool.
    pub(super) fn on_spool_restored(&mut self, cx: &mut Context<'_>, records: Vec<LedgerRecord>) {
        if !cx.cfg.ledger {
            return;
        }
        for record in records {
            self.spool.held.insert(record.id());
            self.with_ledger(cx, ledger_link::Input::Submit(record));
        }
    }

    /// Writes a record to the spool, with the record of the grant that it depends on if given. Once durable, both go
    /// to the ledger, and the waiting query continues.
    pub(super) fn spool(&mut self, cx: &mut Context<'_>, granted: Option<LedgerRecord>, record: LedgerRecord) {
        self.save(cx, granted, Some(record));
    }

    fn save(&mut self, cx: &mut Context<'_>, granted: Option<LedgerRecord>, record: Option<LedgerRecord>) {
        self.common.timers.clear(Timer::Spool);
        let req = self.common.next_req.step();
        let acked = core::mem::take(&mut self.spool.acked);
        let records = granted.iter().chain(&record).cloned().collect();
        cx.push(Output::Save { req, records, acked: acked.clone() });
        self.spool.saving.insert(req, Saving { granted, record, acked });
    }

    /// Handles the end of a write to the spool, which is durable as a whole or not at all.
    pub(super) fn on_spool_saved(&mut self, cx: &mut Context<'_>, req: ReqId, ok: bool) {
        let Some(Saving { granted, record, acked }) = self.spool.saving.remove(&req) else { return };
        if !ok {
            cx.push(Output::Count(Metric::SpoolFailed));
            self.spool.acked.extend(acked);
            // also while stopping: a failed write is not repeated at once
            self.clear_after(cx, CLEAR_AFTER);
        }
        let Some(record) = record else { return };
        let id = record.id();
        if ok {
            if let Some(download) = granted.as_ref().and_then(LedgerRecord::download) {
                self.spool.remember_granted(download);
            }
            for record in granted.into_iter().chain([record]) {
                self.spool.held.insert(record.id());
                self.with_ledger(cx, ledger_link::Input::Submit(record));
            }
            self.on_offer_recorded(cx, id);
        } else {
            self.on_offer_not_recorded(cx, id);
        }
    }

    /// Schedules the deletion of a record that the ledger has.
    pub(super) fn unspool(&mut self, cx: &mut Context<'_>, id: RecordId) {
        if self.spool.held.remove(&id) {
            self.spool.acked.push(id);
            let wait = if self.common.phase == Phase::Serving { CLEAR_AFTER } else { Duration::ZERO };
            self.clear_after(cx, wait);
        }
    }

    fn clear_after(&mut self, cx: &Context<'_>, wait: Duration) {
        if !self.spool.acked.is_empty() && self.common.timers.get(Timer::Spool).is_none_or(|at| at > cx.now.after(wait))
        {
            self.common.timers.set(Timer::Spool, Some(cx.now.after(wait)));
        }
    }

    /// Deletes acknowledged records from the spool.
    pub(super) fn clear_spool(&mut self, cx: &mut Context<'_>) {
        if !self.spool.acked.is_empty() {
            self.save(cx, None, None);
        }
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
