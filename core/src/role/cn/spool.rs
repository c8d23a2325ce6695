//! The CN's spool: who was introduced is durable in it before anybody is told, since bytes of an introduction that was
//! not recorded are not billed. So neither a crash of this CN nor a ledger that is slow, or away, loses an offer. What
//! the ledger has leaves the spool; what a crash leaves there is sent again, under the same ids.

use super::{Cn, Context, Metric, Output, Phase, Timer};
use crate::ids::{DownloadId, RecordId, ReqId};
use crate::session::ledger_link;
use crate::wire::records::LedgerRecord;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// Records that the ledger has are taken out together, this long after the first.
const CLEAR_AFTER: Duration = Duration::from_secs(1);

/// What of it the machine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Spool {
    /// What is in it, and not being taken out.
    held: BTreeSet<RecordId>,
    /// What is to be taken out with the next write.
    acked: Vec<RecordId>,
    /// Writes under way.
    saving: BTreeMap<ReqId, Saving>,
    /// Downloads whose grants are recorded.
    granted: BTreeSet<DownloadId>,
}

/// A write: what it puts in, and what it takes out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Saving {
    /// A grant that somebody is introduced under.
    granted: Option<LedgerRecord>,
    record: Option<LedgerRecord>,
    acked: Vec<RecordId>,
}

/// Downloads of which it is remembered that their grants are recorded. If there are more all are forgotten, and some
/// are recorded once more, under the same ids.
const GRANTED_MAX: usize = 65_536;

impl Spool {
    /// Records that are not durable yet, and so not on their way to the ledger.
    pub(super) fn writing(&self) -> usize {
        self.saving.values().filter(|saving| saving.record.is_some()).count()
    }

    /// Whether a download's grant is known to be recorded.
    pub(super) fn has_granted(&self, download: DownloadId) -> bool {
        self.granted.contains(&download)
    }

    fn granted(&mut self, download: DownloadId) {
        if self.granted.len() >= GRANTED_MAX {
            self.granted.clear();
        }
        self.granted.insert(download);
    }

    /// Nothing is to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.acked.is_empty() && self.saving.is_empty()
    }
}

impl Cn {
    /// What the spool held at the start. Without a ledger it stays there.
    pub(super) fn restored(&mut self, cx: &mut Context<'_>, records: Vec<LedgerRecord>) {
        if !cx.cfg.ledger {
            return;
        }
        for record in records {
            self.spool.held.insert(record.id());
            self.with_ledger(cx, ledger_link::Input::Submit(record));
        }
    }

    /// Writes a record down, and the grant that it is about. Once they are durable they go to the ledger, and those who
    /// wait for the record go on.
    pub(super) fn spool(&mut self, cx: &mut Context<'_>, granted: Option<LedgerRecord>, record: LedgerRecord) {
        self.save(cx, granted, Some(record));
    }

    fn save(&mut self, cx: &mut Context<'_>, granted: Option<LedgerRecord>, record: Option<LedgerRecord>) {
        self.timers.clear(Timer::Spool);
        let req = self.next_req.step();
        let acked = core::mem::take(&mut self.spool.acked);
        let records = granted.iter().chain(&record).cloned().collect();
        cx.push(Output::Save { req, records, acked: acked.clone() });
        self.spool.saving.insert(req, Saving { granted, record, acked });
    }

    /// A write is durable, or nothing of it is.
    pub(super) fn saved(&mut self, cx: &mut Context<'_>, req: ReqId, ok: bool) {
        let Some(Saving { granted, record, acked }) = self.spool.saving.remove(&req) else { return };
        if !ok {
            cx.push(Output::Count(Metric::SpoolFailed));
            self.spool.acked.extend(acked);
            // also at the end: a disk that refuses is not asked again at once
            self.clear_after(cx, CLEAR_AFTER);
        }
        let Some(record) = record else { return };
        let id = record.id();
        if ok {
            if let Some(download) = granted.as_ref().and_then(LedgerRecord::download) {
                self.spool.granted(download);
            }
            for record in granted.into_iter().chain([record]) {
                self.spool.held.insert(record.id());
                self.with_ledger(cx, ledger_link::Input::Submit(record));
            }
            self.recorded(cx, id);
        } else {
            self.unrecorded(cx, id);
        }
    }

    /// The ledger has a record: it leaves the spool.
    pub(super) fn unspool(&mut self, cx: &mut Context<'_>, id: RecordId) {
        if self.spool.held.remove(&id) {
            self.spool.acked.push(id);
            let wait = if self.phase == Phase::Serving { CLEAR_AFTER } else { Duration::ZERO };
            self.clear_after(cx, wait);
        }
    }

    fn clear_after(&mut self, cx: &Context<'_>, wait: Duration) {
        if !self.spool.acked.is_empty() && self.timers.get(Timer::Spool).is_none_or(|at| at > cx.now.after(wait)) {
            self.timers.set(Timer::Spool, Some(cx.now.after(wait)));
        }
    }

    /// It is time to take out what the ledger has; at the end at once.
    pub(super) fn clear_spool(&mut self, cx: &mut Context<'_>) {
        if !self.spool.acked.is_empty() {
            self.save(cx, None, None);
        }
    }
}
