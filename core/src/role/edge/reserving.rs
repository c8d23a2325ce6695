//! What an edge will send of a download is reserved in the spool before it is sent, and what it has sent is counted
//! afterwards: so a crash neither invents bytes nor loses sight of them. How many may have been sent besides, the
//! downloader says; it is believed as far as the reserve went.

use super::counting::Key;
use super::io::{Count, ServedGrant};
use super::{Context, Edge, Metric, Output, Saving, Timer};
use crate::ids::{ProviderId, ReqId, VersionId};
use crate::limits::{RESERVE_FIRST, RESERVE_MAX};
use crate::wire::records::Grant;
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
    waiting: Vec<(ReqId, u64)>,
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

    /// Who need not wait any more; with `all` nobody.
    fn ready(&mut self, all: bool) -> Vec<ReqId> {
        let durable = self.durable;
        let ready = |(_, upto): &(ReqId, u64)| all || *upto <= durable;
        let go = self.waiting.iter().filter(|w| ready(w)).map(|(req, _)| *req).collect();
        self.waiting.retain(|w| !ready(w));
        go
    }
}

impl Edge {
    /// What is written together with a first grant, so that its first bytes need not wait.
    pub(super) fn first_count(grant: ServedGrant, of: (VersionId, ProviderId), life: u64) -> Count {
        let (grant, sent) = (Some(grant), Vec::new());
        let (version, provider) = of;
        Count { grant, version, provider, life, seq: 0, total_bytes: 0, reserved: RESERVE_FIRST, unsure: 0, sent }
    }

    /// That is durable. Where there is no room to count the download, the spool need not know of it either.
    pub(super) fn reserved_first(&mut self, cx: &mut Context<'_>, grant: &Grant) {
        let served = ServedGrant { download: grant.download, guid: grant.guid };
        let key = Key::Download(grant.download);
        let counted = self.counted(cx, Some(served), grant.version, grant.provider);
        let Some((_, counted)) = counted.filter(|(found, _)| *found == key) else {
            self.ended.push(grant.download);
            return self.flush_soon(cx);
        };
        counted.room.written = counted.room.written.max(RESERVE_FIRST);
        counted.room.durable = counted.room.durable.max(RESERVE_FIRST);
        // who asks for nothing while the grant is good needs no place
        let idle_after = cx.cfg.idle_after.min(cx.cfg.grant_for);
        self.timers.set(Timer::Idle(key), Some(cx.now.after(idle_after)));
    }

    /// Bytes of a download are about to be sent: at once if the reserve covers them.
    pub(super) fn serving(
        &mut self,
        cx: &mut Context<'_>,
        req: ReqId,
        grant: ServedGrant,
        (version, provider): (VersionId, ProviderId),
        bytes: u64,
    ) {
        if !cx.cfg.ledger {
            return cx.push(Output::Serve { req });
        }
        let counted = self.counted(cx, Some(grant), version, provider);
        let Some((key, counted)) = counted.filter(|(key, _)| matches!(key, Key::Download(_))) else {
            cx.push(Output::Count(Metric::CountOverflow));
            return cx.push(Output::Withhold { req });
        };
        let room = &mut counted.room;
        room.allowed = room.allowed.max(counted.total_bytes).saturating_add(bytes);
        if room.allowed <= room.durable {
            cx.push(Output::Serve { req });
        } else {
            room.waiting.push((req, room.allowed));
        }
        if let Some(upto) = room.due() {
            room.written = upto;
            let batch = super::Batch { counts: vec![counted.count()], ..super::Batch::default() };
            let save = self.next_req.step();
            self.saving.insert(save, Saving::Reserve(key, upto));
            cx.push(Output::Save { req: save, batch });
        }
        self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
    }

    /// The spool has, or has not, taken a reserve. Content is not withheld for want of it: then a crash may lose count.
    pub(super) fn room_saved(&mut self, cx: &mut Context<'_>, key: Key, upto: u64, ok: bool) {
        let Some(counted) = self.counts.get_mut(&key) else { return };
        let room = &mut counted.room;
        if ok {
            room.durable = room.durable.max(upto.min(room.written));
        } else {
            room.written = room.durable;
            cx.push(Output::Count(Metric::CountOverflow));
        }
        room.ready(!ok).into_iter().for_each(|req| cx.push(Output::Serve { req }));
    }

    /// Allowed, and not sent after all.
    pub(super) fn unsent(&mut self, grant: ServedGrant, bytes: u64) {
        if let Some(counted) = self.counts.get_mut(&Key::Download(grant.download)) {
            counted.room.allowed = counted.room.allowed.saturating_sub(bytes).max(counted.total_bytes);
        }
    }
}
