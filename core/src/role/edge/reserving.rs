//! Reservations: before an edge sends bytes of a download, it reserves them durably in its spool; it counts them
//! afterwards. So a crash neither invents bytes nor loses them. After a crash the downloader's record tells how many
//! reserved bytes were sent but not counted; it is believed up to the reservation.

use super::Key;
use super::io::{Batch, ServedGrant};
use super::{Context, Edge, Metric, Output, Phase, Saving};
use crate::ids::ReqId;
use crate::limits::{RESERVE_FIRST, RESERVE_MAX};
use crate::wire::records::{Grant, LedgerRecord};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// Reservation of one download, in bytes since its count began. `allowed <= durable` holds whenever bytes may be
/// sent, and the reservation in the spool is never smaller than `durable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Room {
    /// Bytes that may be sent or have been sent.
    allowed: u64,
    /// Reservation that is durable in the spool.
    pub(super) durable: u64,
    /// Reservation of the newest write, durable or not.
    pub(super) written: u64,
    /// Reserved bytes that may have been sent without being counted before a crash, see [`Count::unsure`].
    pub(super) unsure: u64,
    /// Requests for bytes that wait until their reservation is durable.
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    req: ReqId,
    upto: u64,
    bytes: u64,
}

impl Room {
    /// Restores a reservation after a restart. Bytes reserved and not counted may have been sent, so they are added to
    /// `unsure`.
    pub(super) const fn restored(total: u64, reserved: u64, unsure: u64) -> Self {
        let unsure = unsure.saturating_add(reserved.saturating_sub(total));
        Self { allowed: total, durable: total, written: total, unsure, waiting: Vec::new() }
    }

    /// Asserts the limits of a reservation. `reserving`: a write of it is in progress; `serving`: the edge is not
    /// stopping.
    fn check(&self, reserving: bool, serving: bool) {
        assert!(self.durable <= self.written, "no more is durable than was written");
        assert!(self.written == self.durable || reserving, "a reservation that is not durable is being written");
        assert!(self.waiting.is_empty() || reserving || !serving, "requests wait for a reservation");
    }

    /// Returns the reservation, in bytes since the count began, that the next write of this count contains.
    pub(super) fn written(&self, total: u64) -> u64 {
        self.written.max(total)
    }

    /// Releases the unused part of the reservation: all but a little when nothing is being sent, all of it `at_end`.
    pub(super) fn shrink(&mut self, total: u64, at_end: bool) {
        let quiet = self.allowed <= total && self.waiting.is_empty();
        if quiet || at_end {
            let keep = if at_end { 0 } else { RESERVE_FIRST };
            self.written = self.written.min(total.saturating_add(keep));
            self.durable = self.durable.min(self.written);
        }
    }

    /// Returns the size of the next reservation, in bytes since the count began; `None` if the current one suffices.
    fn due(&self) -> Option<u64> {
        let ahead = self.allowed.clamp(RESERVE_FIRST, RESERVE_MAX);
        (self.written < self.allowed.saturating_add(ahead / 2)).then(|| self.allowed.saturating_add(ahead))
    }

    /// Returns whether no bytes are being sent and no reservation is being written.
    pub(super) const fn is_quiet(&self, total: u64) -> bool {
        self.allowed <= total && self.waiting.is_empty() && self.written <= self.durable
    }

    /// Removes and returns the requests whose reservation is durable; with `all` every request.
    fn ready(&mut self, all: bool) -> Vec<Waiting> {
        let durable = self.durable;
        let (ready, waiting) = core::mem::take(&mut self.waiting).into_iter().partition(|w| all || w.upto <= durable);
        self.waiting = waiting;
        ready
    }
}

impl Edge {
    /// Asserts the limits of all reservations.
    pub(super) fn check_reservations(&self) {
        let key_of = |s: &Saving| if let Saving::Reserve { key, .. } = s { Some(*key) } else { None };
        let reserving: BTreeSet<Key> = self.saving.values().filter_map(key_of).collect();
        for (key, counted) in &self.counts {
            let in_progress = reserving.contains(key);
            counted.room.check(in_progress, self.phase == Phase::Serving);
            assert!(counted.granted.is_none() || in_progress, "a grant that is not recorded is being written");
        }
    }

    /// Handles a request for bytes of a download: allows it at once if the durable reservation covers it.
    pub(super) fn on_serving(&mut self, cx: &mut Context<'_>, req: ReqId, grant: &Grant, bytes: u64) {
        if !cx.cfg.ledger {
            return cx.push(Output::Serve { req, counted: true });
        }
        let Some((key, counted)) = self.count_for_request(cx, grant) else {
            return answer_uncounted(cx, req, grant.is_edge_only());
        };
        if counted.is_scattered() && !grant.is_edge_only() {
            return answer_uncounted(cx, req, false);
        }
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
        self.check_touched(key);
    }

    /// Writes a reservation to the spool, with the record of the grant if that is not durable yet.
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

    /// Handles the end of a reservation's write.
    pub(super) fn on_reservation_saved(&mut self, cx: &mut Context<'_>, key: Key, upto: u64, ok: bool) {
        match (self.counts.get_mut(&key), key) {
            (Some(_), _) if !ok => self.on_reservation_failed(cx, key),
            (Some(counted), _) => {
                counted.granted = None;
                let room = &mut counted.room;
                room.durable = room.durable.max(upto.min(room.written));
                for waiting in room.ready(false) {
                    cx.push(Output::Serve { req: waiting.req, counted: true });
                }
            }
            // an earlier write has failed, and the requests that waited were answered without counting
            (None, Key::Download(download)) if ok => {
                self.ended.insert(download);
                self.flush_soon(cx);
            }
            (None, _) => {}
        }
        self.check_touched(key);
    }

    /// Handles the failed write of a reservation. If the grant allows peers, waiting requests are withheld; otherwise
    /// they are allowed, uncounted if the record of the grant is not durable.
    fn on_reservation_failed(&mut self, cx: &mut Context<'_>, key: Key) {
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
                answer_uncounted(cx, waiting.req, edge_only);
            }
        }
        if is_new {
            self.end_download(cx, key);
        }
    }

    /// Takes back the allowance of bytes that will not be sent.
    pub(super) fn on_unsent(&mut self, grant: ServedGrant, bytes: u64) {
        if let Some(counted) = self.counts.get_mut(&Key::Download(grant.download)) {
            counted.room.allowed = counted.room.allowed.saturating_sub(bytes).max(counted.total_bytes);
        }
    }
}

/// Answers a request whose bytes cannot be counted: they may be sent only if no peer can ever be paid for them.
fn answer_uncounted(cx: &mut Context<'_>, req: ReqId, edge_only: bool) {
    cx.push(if edge_only { Output::Serve { req, counted: false } } else { Output::Withhold { req } });
}
