//! Usage records on their way to the ledger.

use super::io::Output;
use super::{ClientSession, Context, Timer};
use crate::accounting::{Trust, logs};
use crate::ids::{DownloadId, RecordId};
use crate::wire::control::{ToCn, UsageAck};
use crate::wire::records::{Logged, Side, SignedCheckpoint};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Maximum number of records kept here. Others stay in the client's store and are given again at its next start.
const OUTBOX_MAX: usize = 4_096;

/// Outbox of the newest usage record of each download and side that the ledger may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    records: BTreeMap<(DownloadId, u8), Waiting>,
    under_way: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    logged: Logged,
    /// Whether the record was sent on this connection and not acknowledged.
    sent: bool,
}

const fn key(download: DownloadId, side: Side) -> (DownloadId, u8) {
    (download, side.number())
}

impl Outbox {
    /// Adds a durable record. Records are cumulative, so an older one of the same download and side is dropped.
    pub(super) fn add(&mut self, logged: Logged, out: &mut Vec<Output>) {
        let record = &logged.record;
        let key = key(record.download, record.side);
        match self.records.get(&key) {
            Some(old) if old.logged.record.id == record.id => {}
            Some(old) if old.logged.record.seq >= record.seq => out.push(Output::UsageDone { ids: vec![record.id] }),
            Some(old) => {
                self.under_way -= u32::from(old.sent);
                out.push(Output::UsageDone { ids: vec![old.logged.record.id] });
                self.records.insert(key, Waiting { logged, sent: false });
            }
            None if self.records.len() < OUTBOX_MAX => {
                self.records.insert(key, Waiting { logged, sent: false });
            }
            None => {}
        }
    }

    /// Returns whether every record that was given is in the ledger.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Marks all records as unsent, after a disconnection.
    pub(super) fn disconnected(&mut self) {
        self.records.values_mut().for_each(|w| w.sent = false);
        self.under_way = 0;
    }

    fn acked(&mut self, ids: &[RecordId]) -> Vec<RecordId> {
        let mut done = Vec::new();
        self.records.retain(|_, w| {
            let is_done = ids.contains(&w.logged.record.id);
            if is_done {
                done.push(w.logged.record.id);
                self.under_way -= u32::from(w.sent);
            }
            !is_done
        });
        done
    }
}

impl ClientSession {
    pub(super) fn send_usage(&mut self, cx: &mut Context<'_>) {
        let super::Phase::Open(link) = self.phase else { return };
        let room = cx.cfg.usage_window.saturating_sub(self.usage.under_way) as usize;
        for waiting in self.usage.records.values_mut().filter(|w| !w.sent).take(room) {
            waiting.sent = true;
            self.usage.under_way += 1;
            cx.push(Output::Send { conn: link.conn, msg: ToCn::Usage(waiting.logged.clone()) });
        }
        if self.usage.under_way > 0 && self.timers.get(Timer::Usage).is_none() {
            self.timers.set(Timer::Usage, Some(cx.now.after(cx.cfg.usage_retry)));
        }
    }

    pub(super) fn usage_acked(&mut self, cx: &mut Context<'_>, ack: UsageAck) {
        if let Some(signed) = ack.checkpoint {
            let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
            if !logs::is_checkpoint_of(cx.cfg.guid, &trust, &signed) {
                return self.hang_up(cx);
            }
            let age = |s: &SignedCheckpoint| (s.checkpoint.at_ms, s.checkpoint.head.head.place);
            if self.checkpoint.as_ref().is_none_or(|kept| age(kept) < age(&signed)) {
                cx.push(Output::Checkpoint(Box::new(signed)));
            }
        }
        let done = self.usage.acked(&ack.ids);
        if done.is_empty() {
            return;
        }
        cx.push(Output::UsageDone { ids: done });
        self.timers.clear(Timer::Usage);
        self.send_usage(cx);
    }
}
