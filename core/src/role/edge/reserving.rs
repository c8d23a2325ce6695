//! What an edge will send of a download is reserved in the spool before it is sent, and what it has sent is counted
//! afterwards: so a crash neither invents bytes nor loses sight of them. How many may have been sent besides, the
//! downloader says; it is believed as far as the reserve went.

use super::counting::Key;
use super::io::{Batch, ServedGrant};
use super::{Context, Edge, Metric, Output, Saving};
use crate::ids::ReqId;
use crate::limits::{RESERVE_FIRST, RESERVE_MAX};
use crate::wire::records::{Grant, LedgerRecord};
use alloc::vec;
use alloc::vec::Vec;

/// The reserve of one download, in bytes since it is counted. Invariant: `allowed <= durable` wherever sending is
/// allowed, and what the spool holds is never less than `durable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Room {
    /// May be sent, or was.
    allowed: u64,
    /// The spool knows of so many.
    durable: u64,
    /// A write of so many is under way, or was.
    written: u64,
    /// See [`Count::unsure`].
    pub(super) unsure: u64,
    /// Who waits until so many are durable.
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    req: ReqId,
    upto: u64,
    bytes: u64,
}

impl Room {
    /// After a restart nothing is under way; what was reserved and not counted may have been sent.
    pub(super) const fn restored(total: u64, reserved: u64, unsure: u64) -> Self {
        let unsure = unsure.saturating_add(reserved.saturating_sub(total));
        Self { allowed: total, durable: total, written: total, unsure, waiting: Vec::new() }
    }

    /// What a write of this count tells the spool.
    pub(super) fn written(&self, total: u64) -> u64 {
        self.written.max(total)
    }

    /// Gives back what nobody needs: when nothing is under way but little, at the end everything.
    pub(super) fn shrink(&mut self, total: u64, at_end: bool) {
        let quiet = self.allowed <= total && self.waiting.is_empty();
        if quiet || at_end {
            let keep = if at_end { 0 } else { RESERVE_FIRST };
            self.written = self.written.min(total.saturating_add(keep));
            self.durable = self.durable.min(self.written);
        }
    }

    /// How many to reserve now, if it is time.
    fn due(&self) -> Option<u64> {
        let ahead = self.allowed.clamp(RESERVE_FIRST, RESERVE_MAX);
        (self.written < self.allowed.saturating_add(ahead / 2)).then(|| self.allowed.saturating_add(ahead))
    }

    /// Nothing is being sent or written.
    pub(super) const fn is_quiet(&self, total: u64) -> bool {
        self.allowed <= total && self.waiting.is_empty() && self.written <= self.durable
    }

    /// Who need not wait any more; with `all` nobody.
    fn ready(&mut self, all: bool) -> Vec<Waiting> {
        let durable = self.durable;
        let (ready, waiting) = core::mem::take(&mut self.waiting).into_iter().partition(|w| all || w.upto <= durable);
        self.waiting = waiting;
        ready
    }
}

impl Edge {
    /// Bytes of a download are about to be sent: at once if the reserve covers them.
    pub(super) fn serving(&mut self, cx: &mut Context<'_>, req: ReqId, grant: &Grant, bytes: u64) {
        if !cx.cfg.ledger {
            return cx.push(Output::Serve { req, counted: true });
        }
        let Some((key, counted)) = self.counted_under(cx, grant) else {
            return uncounted(cx, req, grant.is_edge_only());
        };
        let room = &mut counted.room;
        room.allowed = room.allowed.max(counted.total_bytes).saturating_add(bytes);
        if room.allowed <= room.durable && counted.granted.is_none() {
            cx.push(Output::Serve { req, counted: true });
        } else {
            room.waiting.push(Waiting { req, upto: room.allowed, bytes });
        }
        if let Some(upto) = room.due() {
            self.reserve(cx, key, upto);
        }
    }

    /// Writes a reserve, and the record of the grant until it is durable.
    fn reserve(&mut self, cx: &mut Context<'_>, key: Key, upto: u64) {
        let over_ms = self.over_ms(cx, key);
        let Some(counted) = self.counts.get_mut(&key) else { return };
        counted.room.written = upto;
        let granted = counted.granted.clone();
        let records = granted.iter().map(|record| LedgerRecord::Granted((**record).clone())).collect();
        let batch = Batch { records, counts: vec![counted.count(over_ms)], ..Batch::default() };
        let req = self.next_req.step();
        self.saving.insert(req, Saving::Reserve { key, upto, granted });
        cx.push(Output::Save { req, batch });
    }

    /// The spool has, or has not, taken a reserve.
    pub(super) fn reserved(&mut self, cx: &mut Context<'_>, key: Key, upto: u64, ok: bool) {
        match (self.counts.get_mut(&key), key) {
            (Some(_), _) if !ok => self.unreserved(cx, key),
            (Some(counted), _) => {
                counted.granted = None;
                let room = &mut counted.room;
                room.durable = room.durable.max(upto.min(room.written));
                for waiting in room.ready(false) {
                    cx.push(Output::Serve { req: waiting.req, counted: true });
                }
            }
            // an earlier write was refused, and all that waited has gone without
            (None, Key::Download(download)) if ok => {
                self.ended.push(download);
                self.flush_soon(cx);
            }
            (None, _) => {}
        }
    }

    /// A reserve was refused. Who waits for it goes on without peers: those whose download has some are told, the
    /// others' bytes leave; uncounted, if nothing of the download is durable.
    fn unreserved(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(counted) = self.counts.get_mut(&key) else { return };
        cx.push(Output::Count(Metric::CountOverflow));
        let (edge_only, is_new) = (counted.edge_only, counted.granted.is_some());
        let room = &mut counted.room;
        room.written = room.durable;
        for waiting in room.ready(true) {
            if edge_only && !is_new {
                cx.push(Output::Serve { req: waiting.req, counted: true });
            } else {
                room.allowed = room.allowed.saturating_sub(waiting.bytes).max(counted.total_bytes);
                uncounted(cx, waiting.req, edge_only);
            }
        }
        if is_new {
            self.over(cx, key);
        }
    }

    /// Allowed, and not sent after all.
    pub(super) fn unsent(&mut self, grant: ServedGrant, bytes: u64) {
        if let Some(counted) = self.counts.get_mut(&Key::Download(grant.download)) {
            counted.room.allowed = counted.room.allowed.saturating_sub(bytes).max(counted.total_bytes);
        }
    }
}

/// Bytes that cannot be counted leave only where no peer can ever be paid for them.
fn uncounted(cx: &mut Context<'_>, req: ReqId, edge_only: bool) {
    cx.push(if edge_only { Output::Serve { req, counted: false } } else { Output::Withhold { req } });
}
