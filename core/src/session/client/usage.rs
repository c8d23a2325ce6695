//! The client's usage records that the ledger has not acknowledged.

use super::io::Output;
use super::{ClientSession, Context, Timer};
use crate::Deadlines;
use crate::accounting::{Trust, logs};
use crate::ids::{DownloadId, RecordId};
use crate::wire::control::{ToCn, UsageAck};
use crate::wire::records::{Logged, Side, SignedCheckpoint};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Maximum number of unacknowledged usage records in memory. Further ones stay in the client's store until its next
/// start.
const OUTBOX_MAX: usize = 4_096;

/// Outbox: of each download and side the newest usage record, until the ledger has acknowledged it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    records: BTreeMap<(DownloadId, u8), Waiting>,
    under_way: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    logged: Logged,
    /// Whether the record was sent over the present connection and is not acknowledged yet.
    sent: bool,
}

const fn key(download: DownloadId, side: Side) -> (DownloadId, u8) {
    (download, side.number())
}

impl Outbox {
    /// Adds a durable usage record. Records are cumulative, so an older record of the same download and side is
    /// dropped.
    pub(super) fn add(&mut self, logged: Logged, out: &mut Vec<Output>) {
        let record = &logged.record;
        let key = key(record.download, record.side);
        match self.records.get(&key) {
            Some(old) if old.logged.record.id == record.id => {}
            Some(old) if old.logged.record.seq >= record.seq => out.push(Output::UsageDone { ids: vec![record.id] }),
            Some(old) => {
                self.under_way = less(self.under_way, old.sent);
                out.push(Output::UsageDone { ids: vec![old.logged.record.id] });
                self.records.insert(key, Waiting { logged, sent: false });
            }
            None if self.records.len() < OUTBOX_MAX => {
                self.records.insert(key, Waiting { logged, sent: false });
            }
            None => {}
        }
    }

    /// Returns whether the ledger has acknowledged all records.
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
        let under_way = &mut self.under_way;
        self.records.retain(|_, w| {
            let is_done = ids.contains(&w.logged.record.id);
            if is_done {
                done.push(w.logged.record.id);
                *under_way = less(*under_way, w.sent);
            }
            !is_done
        });
        done
    }

    /// Asserts that the records sent and not acknowledged are counted, and that they have a deadline for being sent
    /// again.
    pub(super) fn check(&self, open: bool, timers: &Deadlines<Timer>) {
        let sent = self.records.values().filter(|w| w.sent).count();
        assert!(self.under_way as usize == sent, "the records under way are those sent");
        assert!(open || sent == 0, "no record is under way without a session");
        assert!(sent == 0 || timers.get(Timer::Usage).is_some(), "records under way are sent again");
        assert!(self.records.len() <= OUTBOX_MAX, "the outbox is bounded");
        let filed = |(k, w): (&_, &Waiting)| *k == key(w.logged.record.download, w.logged.record.side);
        assert!(self.records.iter().all(filed), "a record is filed under its download and side");
    }
}

#[cfg(test)]
impl Outbox {
    /// Changes that make an outbox with an unacknowledged record wrong, each with the text of the assertion that must
    /// fail.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 3] = [
        ("the records under way are those sent", |all| all.under_way += 1),
        ("the outbox is bounded", |all| {
            let (_, waiting) = all.records.pop_first().expect("a record");
            let unsent = Waiting { sent: false, ..waiting };
            let id = |n: usize| DownloadId::numbered(u32::try_from(n).expect("few"));
            all.records = (0..=OUTBOX_MAX).map(|n| (key(id(n), Side::Uploader), unsent.clone())).collect();
            all.under_way = 0;
        }),
        ("a record is filed under its download and side", |all| {
            let (_, waiting) = all.records.pop_first().expect("a record");
            all.records.insert(key(DownloadId::numbered(77), Side::Uploader), waiting);
        }),
    ];
}

/// Returns the number of sent and unacknowledged records after one is removed, which counts only if it was `sent`.
fn less(under_way: u32, sent: bool) -> u32 {
    debug_assert!(under_way >= u32::from(sent), "a sent record is under way");
    under_way.saturating_sub(u32::from(sent))
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
