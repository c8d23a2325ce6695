//! Counting what was served, and making records of it.

use super::io::{Batch, Count, ServedGrant};
use super::reserving::Room;
use super::{Context, Edge, Metric, Output, Phase, Saving, Spans, Timer};
use crate::ids::{DownloadId, ProviderId, PublicKey, RecordId, VersionId};
use crate::wire::records::{EdgeRecord, Grant, GrantRecord, LedgerRecord, ServedRecord};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// A download that is over but for what the ledger does not know yet is looked at again after this.
const RECHECK: Duration = Duration::from_secs(60);

/// What bytes are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// A download: the requests carried its grant.
    Download(DownloadId),
    /// A version, by whoever needs no grant.
    Plain(VersionId),
}

fn key_of(count: &Count) -> Key {
    count.grant.map_or(Key::Plain(count.version), |g| Key::Download(g.download))
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    grant: Option<ServedGrant>,
    version: VersionId,
    provider: ProviderId,
    life: u64,
    /// The last record's.
    seq: u32,
    pub(super) total_bytes: u64,
    sent: Spans,
    pub(super) room: Room,
    /// The record of its grant, until it is durable: before that nothing is sent.
    pub(super) granted: Option<Box<GrantRecord>>,
    /// Edges alone deliver it.
    pub(super) edge_only: bool,
    /// The last record, until a newer one: no other is made before the ledger has it.
    record: Option<RecordId>,
    /// Bytes have been counted since the last record was made.
    unreported: bool,
    /// Something has changed since the spool was last written.
    unsaved: bool,
    /// What has changed is being written.
    saving: bool,
}

impl Counted {
    fn new(grant: Option<ServedGrant>, version: VersionId, provider: ProviderId, life: u64) -> Self {
        Self {
            grant,
            version,
            provider,
            life,
            seq: 0,
            total_bytes: 0,
            sent: Spans::default(),
            room: Room::default(),
            granted: None,
            edge_only: false,
            record: None,
            unreported: false,
            unsaved: false,
            saving: false,
        }
    }

    pub(super) const fn version(&self) -> VersionId {
        self.version
    }

    /// Nothing of it is being sent or written.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.saving && self.room.is_quiet(self.total_bytes)
    }

    /// See [`ServedRecord::life`].
    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn sent(&self) -> &Spans {
        &self.sent
    }

    pub(super) fn count(&self, over_ms: u64) -> Count {
        Count {
            grant: self.grant,
            version: self.version,
            provider: self.provider,
            life: self.life,
            seq: self.seq,
            total_bytes: self.total_bytes,
            reserved: self.room.written(self.total_bytes),
            unsure: self.room.unsure,
            over_ms,
            sent: self.sent.ranges().to_vec(),
        }
    }

    /// What the ledger is told. A download's record says which bytes, plain traffic's how many.
    fn record(&self, id: RecordId, edge: PublicKey) -> LedgerRecord {
        let Self { version, provider, seq, total_bytes, .. } = *self;
        let Some(ServedGrant { download, guid }) = self.grant else {
            let (download, guid, unique_bytes) = (None, None, 0);
            let r = EdgeRecord { id, edge, download, guid, version, provider, seq, unique_bytes, total_bytes };
            return LedgerRecord::Edge(r);
        };
        let (life, sent, unsure_bytes) = (self.life, self.sent.to_blob(), self.room.unsure);
        LedgerRecord::Served(ServedRecord {
            id,
            edge,
            download,
            guid,
            version,
            provider,
            life,
            seq,
            sent,
            total_bytes,
            unsure_bytes,
        })
    }
}

impl Edge {
    pub(super) fn restored(&mut self, cx: &mut Context<'_>, records: Vec<LedgerRecord>, counts: Vec<Count>) {
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        for c in counts {
            let key = key_of(&c);
            let counted = Counted {
                seq: c.seq,
                total_bytes: c.total_bytes,
                room: Room::restored(c.total_bytes, c.reserved, c.unsure),
                sent: Spans::of(c.sent),
                // whether its last record was made is not known: one more does no harm
                unreported: true,
                ..Counted::new(c.grant, c.version, c.provider, c.life)
            };
            self.life = self.life.max(c.life);
            self.counts.insert(key, counted);
            self.dirty.insert(key);
            if c.grant.is_some() {
                let left = Duration::from_millis(c.over_ms.saturating_sub(now_ms)).min(cx.cfg.idle_after);
                self.timers.set(Timer::Idle(key), Some(cx.now.after(left)));
            }
        }
        self.flush_soon(cx);
        for record in records {
            self.submit(cx, record);
        }
    }

    /// Counts a range. What finds no room as a download's is counted as plain traffic; repeated bytes, and ranges
    /// past the limit of separate ranges, count in the total only.
    pub(super) fn served(
        &mut self,
        cx: &mut Context<'_>,
        grant: Option<ServedGrant>,
        version: VersionId,
        provider: ProviderId,
        range: Range<u64>,
    ) {
        if range.is_empty() || !cx.cfg.ledger {
            return;
        }
        let Some((key, counted)) = self.counted(cx, grant, version, provider) else {
            cx.push(Output::Count(Metric::CountOverflow));
            return cx.push(Output::GaveAway { bytes: range.end - range.start });
        };
        counted.total_bytes = counted.total_bytes.saturating_add(range.end - range.start);
        (counted.unreported, counted.unsaved) = (true, true);
        if counted.grant.is_some() && !counted.sent.insert(range, cx.cfg.ranges_max as usize) {
            cx.push(Output::Count(Metric::CountOverflow));
        }
        self.touch(cx, key);
    }

    /// Where a download's bytes are counted; as plain traffic if there is no room for it.
    fn counted(
        &mut self,
        cx: &mut Context<'_>,
        grant: Option<ServedGrant>,
        version: VersionId,
        provider: ProviderId,
    ) -> Option<(Key, &mut Counted)> {
        let own = grant.map(|g| Key::Download(g.download)).filter(|key| self.fits(cx, key, version));
        let grant = grant.filter(|_| own.is_some());
        let key = own.or_else(|| Some(Key::Plain(version)).filter(|key| self.fits(cx, key, version)))?;
        if !self.counts.contains_key(&key) {
            let life = self.next_life(cx);
            self.counts.insert(key, Counted::new(grant, version, provider, life));
        }
        Some((key, self.counts.get_mut(&key)?))
    }

    /// Whether bytes of a version have a place under this key.
    fn fits(&mut self, cx: &mut Context<'_>, key: &Key, version: VersionId) -> bool {
        match self.counts.get(key) {
            Some(counted) => counted.version == version,
            None => self.make_room(cx),
        }
    }

    fn next_life(&mut self, cx: &Context<'_>) -> u64 {
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        self.life = now_ms.max(self.life.saturating_add(1));
        self.life
    }

    /// Where the bytes that are asked for with a grant are counted: found, or made with the first of them, as long as
    /// the spool can be written.
    pub(super) fn counted_under(&mut self, cx: &mut Context<'_>, grant: &Grant) -> Option<(Key, &mut Counted)> {
        let key = Key::Download(grant.download);
        let is_new = !self.counts.contains_key(&key);
        if is_new && self.refused || !self.fits(cx, &key, grant.version) {
            return None;
        }
        if is_new {
            let life = self.next_life(cx);
            let counted = Counted {
                granted: Some(Box::new(GrantRecord::of(grant))),
                ..Counted::new(Some(ServedGrant::of(grant)), grant.version, grant.provider, life)
            };
            self.counts.insert(key, counted);
        }
        self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
        let counted = self.counts.get_mut(&key)?;
        counted.edge_only = grant.is_edge_only();
        Some((key, counted))
    }

    /// When a download is over if nothing more is asked for, Unix milliseconds.
    pub(super) fn over_ms(&self, cx: &Context<'_>, key: Key) -> u64 {
        let left = self.timers.get(Timer::Idle(key)).map_or(Duration::ZERO, |at| at.since(cx.now));
        self.wall.map_or(0, |wall| wall.at(cx.now.after(left)))
    }

    /// A count has changed.
    pub(super) fn touch(&mut self, cx: &mut Context<'_>, key: Key) {
        self.dirty.insert(key);
        self.flush_soon(cx);
        if matches!(key, Key::Download(_)) {
            self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
        }
    }

    pub(super) fn flush_soon(&mut self, cx: &mut Context<'_>) {
        let flushing = self.saving.values().any(|s| matches!(s, Saving::Counts { .. }));
        if self.timers.get(Timer::Flush).is_none() && !flushing {
            let wait = if self.phase == Phase::Serving { cx.cfg.flush_every } else { core::time::Duration::ZERO };
            self.timers.set(Timer::Flush, Some(cx.now.after(wait)));
        }
    }

    /// A download that got nothing for so long is over, once the ledger knows all of it.
    pub(super) fn idle(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.dirty.contains(&key) || self.counts.get(&key).is_some_and(|c| c.saving) {
            return self.timers.set(Timer::Idle(key), Some(cx.now.after(RECHECK)));
        }
        self.over(cx, key);
    }

    /// A download is over.
    pub(super) fn over(&mut self, cx: &mut Context<'_>, key: Key) {
        let Key::Download(download) = key else { return };
        self.timers.clear(Timer::Idle(key));
        self.counts.remove(&key);
        self.ended.push(download);
        self.flush_soon(cx);
    }

    /// Writes counts and new records to the spool. A count whose last record is still on its way is written, and
    /// reported later: so there is one record a download under way, however long the ledger is gone. The last flush
    /// makes them all.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        self.timers.clear(Timer::Flush);
        if self.saving.values().any(|s| matches!(s, Saving::Counts { .. })) {
            return;
        }
        let edge = cx.cfg.cert.body.key;
        let mut batch = Batch {
            acked: core::mem::take(&mut self.acked),
            ended: core::mem::take(&mut self.ended),
            ..Batch::default()
        };
        for key in core::mem::take(&mut self.dirty) {
            let over_ms = self.over_ms(cx, key);
            let Some(c) = self.counts.get_mut(&key) else { continue };
            let under_way = c.record.is_some_and(|id| self.ledger.holds(id)) && self.phase == Phase::Serving;
            if under_way {
                self.dirty.insert(key);
            } else if c.unreported {
                c.seq += 1;
                (c.unreported, c.unsaved) = (false, true);
                let id = RecordId(cx.rng.nonce());
                c.record = Some(id);
                batch.records.push(c.record(id, edge));
            }
            if core::mem::take(&mut c.unsaved) {
                c.room.shrink(c.total_bytes, self.phase != Phase::Serving);
                c.saving = true;
                batch.counts.push(c.count(over_ms));
            }
        }
        if batch == Batch::default() {
            return;
        }
        let req = self.next_req.step();
        self.saving.insert(req, Saving::Counts { records: batch.records.clone(), batch: batch.clone() });
        cx.push(Output::Save { req, batch });
    }

    /// The spool has answered a write of counts.
    pub(super) fn counts_saved(&mut self, batch: &Batch) {
        for count in &batch.counts {
            if let Some(c) = self.counts.get_mut(&key_of(count)) {
                c.saving = false;
            }
        }
    }

    /// The spool refused: what was counted is counted still, and tried again.
    pub(super) fn unsaved(&mut self, cx: &mut Context<'_>, records: &[LedgerRecord], batch: Batch) {
        self.acked.extend(batch.acked);
        self.ended.extend(batch.ended);
        for count in batch.counts {
            let key = key_of(&count);
            let Some(c) = self.counts.get_mut(&key) else { continue };
            if c.record.is_some_and(|id| records.iter().any(|r| r.id() == id)) {
                c.record = None;
                c.unreported = true;
            }
            c.unsaved = true;
            self.dirty.insert(key);
        }
        self.timers.set(Timer::Flush, Some(cx.now.after(cx.cfg.flush_every)));
    }
}
