//! Counts of sent bytes, and the records for the ledger that are made of them.
//!
//! There is a [`Counted`] for each download, and one for the plain traffic of each version (requests without a
//! grant). A flush writes the changed counts to the spool, and makes one record of each for the ledger. A count that
//! begins again after its end gets a new number, its `life`; the ledger combines the counts of all these numbers.

use super::Key;
use super::io::{Batch, Count, ServedGrant};
use super::reserving::Room;
use super::{Context, Edge, Metric, Output, Phase, Saving, Spans, Timer};
use crate::ids::{DownloadId, ProviderId, PublicKey, RecordId, VersionId};
use crate::limits::PIECE_LEN_MIN;
use crate::wire::records::{EdgeRecord, Grant, GrantRecord, LedgerRecord, ServedRecord};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

/// Delay before a download that is idle is examined again, if not all of its bytes are in records yet.
const RECHECK: Duration = Duration::from_secs(60);
/// Most separate ranges of a download while ranges shorter than the smallest piece are still added. Honest downloads
/// have one for each piece whose rest came from the edge after a peer had gone.
const FRAGMENTS_MAX: usize = 64;
/// Most bytes of a download that are missing in `sent`; beyond it a grant that allows peers gets no more content.
const SCATTERED_MAX: u64 = 4 << 20;

fn key_of(count: &Count) -> Key {
    count.grant.map_or(Key::Plain(count.version), |g| Key::Download(g.download))
}

/// Count of the bytes sent of one download, or of the plain traffic of one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    grant: Option<ServedGrant>,
    version: VersionId,
    provider: ProviderId,
    pub(super) life: u64,
    /// Sequence number of the last record.
    seq: u32,
    pub(super) total_bytes: u64,
    pub(super) sent: Spans,
    /// Bytes that were sent but not added to `sent`, whose number of ranges is limited.
    scattered: u64,
    pub(super) room: Room,
    /// Record of the download's grant until it is durable in the spool; nothing is sent before that.
    pub(super) granted: Option<Box<GrantRecord>>,
    /// Whether the grant allows no peers.
    pub(super) edge_only: bool,
    /// Newest record. Another one is made only after the ledger has acknowledged it.
    record: Option<RecordId>,
    /// Whether bytes were counted since the last record.
    unreported: bool,
    /// Whether something has changed since the last write to the spool.
    unsaved: bool,
    /// Whether a write of this count is in progress.
    pub(super) saving: bool,
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
            scattered: 0,
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

    /// Returns whether no bytes are being sent and no write of this count is in progress.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.saving && self.room.is_quiet(self.total_bytes)
    }

    /// Returns whether an answer may still send bytes, or waits for its reservation.
    const fn is_sending(&self) -> bool {
        !self.room.is_quiet(self.total_bytes)
    }

    /// Returns whether so many bytes are missing in `sent` that they could be billed a second time, as peers' bytes.
    pub(super) const fn is_scattered(&self) -> bool {
        self.scattered > SCATTERED_MAX
    }

    /// Adds a range to `sent`, the distinct ranges; returns whether that was possible. After [`FRAGMENTS_MAX`] ranges a
    /// new separate one must be as long as the smallest piece, and needs `room` in the limit for all downloads. Bytes
    /// of other ranges, like those hidden by a crash, are unsure: the downloader claims how many were distinct, and the
    /// ledger accepts at most their sum.
    fn add_range(&mut self, range: Range<u64>, most: usize, room: bool) -> bool {
        let len = range.end - range.start;
        let is_piece = len >= u64::from(PIECE_LEN_MIN);
        let may_stand_alone = room && (self.sent.ranges().len() < FRAGMENTS_MAX || is_piece);
        let has_place = self.sent.insert(range, if may_stand_alone { most } else { 0 });
        if !has_place {
            self.room.unsure = self.room.unsure.saturating_add(len);
            self.scattered = self.scattered.saturating_add(len);
        }
        has_place
    }

    /// Asserts that the count of a key is consistent in itself.
    fn check(&self, key: Key, newest_life: u64) {
        let own = self.grant.map_or(Key::Plain(self.version), |g| Key::Download(g.download));
        assert!(own == key, "a count is listed under its subject");
        assert!(self.life <= newest_life, "lives are numbered in order");
        assert!(self.grant.is_some() || self.sent.ranges().is_empty(), "plain traffic has no ranges");
    }

    /// Returns the number of this count among the download's counts, see [`ServedRecord::life`].
    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn sent(&self) -> &Spans {
        &self.sent
    }

    /// Returns the count as the spool stores it.
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

    /// Returns the ledger's record of this count: of a download the ranges sent, of plain traffic only the sum of
    /// bytes.
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
    /// Asserts that each count is sound, is in the spool or about to be, and ends when it is idle.
    pub(super) fn check_counts(&self) {
        let stopped = self.phase == Phase::Stopped;
        for (key, c) in &self.counts {
            c.check(*key, self.life);
            c.sent.check();
            assert!(c.sent.bytes() <= c.total_bytes, "no more bytes are distinct than were sent");
            assert!(self.dirty.contains(key) == (c.unreported || c.unsaved), "a changed count is to be written");
            let idle = self.timers.get(Timer::Idle(*key)).is_some();
            assert!(idle == matches!(key, Key::Download(_)) || stopped, "a download ends when it is idle");
        }
        assert!(self.dirty.iter().all(|key| self.counts.contains_key(key)), "what is to be written is counted");
        let counted = |download: &DownloadId| self.counts.contains_key(&Key::Download(*download));
        assert!(!self.ended.iter().any(counted), "a download that is over has no count");
        let ranges: usize = self.counts.values().map(|c| c.sent.ranges().len()).sum();
        assert!(self.ranges == ranges, "the ranges of all downloads are counted");
        let has_count = |t: Timer| if let Timer::Idle(key) = t { self.counts.contains_key(&key) } else { true };
        assert!(self.timers.keys().all(has_count), "what is idle is counted");
    }

    /// Asserts that one batch of counts is written at a time, and another one when there is something to write.
    pub(super) fn check_writes(&self) {
        let of_counts =
            self.saving.values().filter_map(|s| if let Saving::Counts { batch, .. } = s { Some(batch) } else { None });
        let batches: Vec<&Batch> = of_counts.collect();
        assert!(batches.len() <= 1, "counts are written one batch at a time");
        let keys: BTreeSet<Key> = batches.iter().flat_map(|b| b.counts.iter().map(key_of)).collect();
        let written = |(key, c): (&Key, &Counted)| !c.saving || keys.contains(key);
        assert!(self.counts.iter().all(written), "a count that is being written is in the batch");
        let waits = |key: &Key| self.counts.get(key).and_then(|c| c.record).is_some_and(|id| self.ledger.holds(id));
        let due = !self.dirty.iter().all(waits) || !self.ended.is_empty() || !self.acked.is_empty();
        let planned = self.timers.get(Timer::Flush).is_some() || !batches.is_empty();
        assert!(!due || planned || self.phase == Phase::Stopped, "changes are written soon");
    }

    pub(super) fn on_restored(&mut self, cx: &mut Context<'_>, records: Vec<LedgerRecord>, counts: Vec<Count>) {
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        for c in counts {
            let key = key_of(&c);
            let counted = Counted {
                seq: c.seq,
                total_bytes: c.total_bytes,
                room: Room::restored(c.total_bytes, c.reserved, c.unsure),
                sent: Spans::of(c.sent),
                // the last record may or may not have been made: one more does no harm
                unreported: true,
                ..Counted::new(c.grant, c.version, c.provider, c.life)
            };
            self.life = self.life.max(c.life);
            self.ranges += counted.sent.ranges().len();
            self.forget_ranges(key);
            self.counts.insert(key, counted);
            self.dirty.insert(key);
            if let Some(grant) = c.grant {
                self.ended.remove(&grant.download);
                let left = Duration::from_millis(c.over_ms.saturating_sub(now_ms)).min(cx.cfg.idle_after);
                self.timers.set(Timer::Idle(key), Some(cx.now.after(left)));
            }
        }
        self.flush_soon(cx);
        for record in records {
            self.submit(cx, record);
        }
    }

    /// Subtracts the ranges of a count that is removed from the number for all downloads.
    fn forget_ranges(&mut self, key: Key) {
        let ranges = self.counts.get(&key).map_or(0, |c| c.sent.ranges().len());
        debug_assert!(self.ranges >= ranges, "the ranges of all downloads are counted");
        self.ranges = self.ranges.saturating_sub(ranges);
    }

    /// Counts a sent range, as plain traffic if there is no room for a count of its download. Repeated bytes count in
    /// the total only; of ranges beyond the limit of separate ranges the downloader claims how many bytes were
    /// distinct.
    pub(super) fn on_served(
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
        let has_room = self.ranges < cx.cfg.all_ranges_max as usize;
        let Some((key, counted)) = self.count_for(cx, grant, version, provider) else {
            cx.push(Output::Count(Metric::CountOverflow));
            return cx.push(Output::GaveAway { bytes: range.end - range.start });
        };
        counted.total_bytes = counted.total_bytes.saturating_add(range.end - range.start);
        (counted.unreported, counted.unsaved) = (true, true);
        if counted.grant.is_some() {
            let before = counted.sent.ranges().len();
            let has_place = counted.add_range(range, cx.cfg.ranges_max as usize, has_room);
            let after = counted.sent.ranges().len();
            self.ranges = (self.ranges + after).saturating_sub(before);
            if !has_place {
                cx.push(Output::Count(Metric::CountOverflow));
            }
        }
        self.touch(cx, key);
    }

    /// Returns the count that a sent range belongs to: its download's, or that of plain traffic if there are too many
    /// counts.
    fn count_for(
        &mut self,
        cx: &mut Context<'_>,
        grant: Option<ServedGrant>,
        version: VersionId,
        provider: ProviderId,
    ) -> Option<(Key, &mut Counted)> {
        let download = grant.map(|g| Key::Download(g.download)).filter(|key| self.fits(cx, key, version));
        let grant = grant.filter(|_| download.is_some());
        let key = download.or_else(|| Some(Key::Plain(version)).filter(|key| self.fits(cx, key, version)))?;
        if !self.counts.contains_key(&key) {
            let life = self.next_life(cx);
            self.insert_count(cx, key, Counted::new(grant, version, provider, life));
        }
        Some((key, self.counts.get_mut(&key)?))
    }

    /// Adds a new count. If the download was over, the old count in the spool is replaced, not deleted.
    fn insert_count(&mut self, cx: &Context<'_>, key: Key, counted: Counted) {
        if let Key::Download(download) = key {
            self.ended.remove(&download);
        }
        self.counts.insert(key, counted);
        debug_assert!(self.counts.len() <= cx.cfg.counts_max as usize, "counts are bounded");
    }

    /// Returns whether bytes of a version can be counted under this key.
    fn fits(&mut self, cx: &mut Context<'_>, key: &Key, version: VersionId) -> bool {
        match self.counts.get(key) {
            Some(counted) => counted.version == version,
            None => self.ensure_room(cx),
        }
    }

    fn next_life(&mut self, cx: &Context<'_>) -> u64 {
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        self.life = now_ms.max(self.life.saturating_add(1));
        self.life
    }

    /// Returns the count for bytes that are requested with a grant; it begins with the first request. `None` if the
    /// spool fails or there are too many counts.
    pub(super) fn count_for_request(&mut self, cx: &mut Context<'_>, grant: &Grant) -> Option<(Key, &mut Counted)> {
        let key = Key::Download(grant.download);
        let is_new = !self.counts.contains_key(&key);
        if is_new && self.spool_failed || !self.fits(cx, &key, grant.version) {
            return None;
        }
        if is_new {
            let life = self.next_life(cx);
            let counted = Counted {
                granted: Some(Box::new(GrantRecord::of(grant))),
                ..Counted::new(Some(ServedGrant::of(grant)), grant.version, grant.provider, life)
            };
            self.insert_count(cx, key, counted);
        }
        self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
        let counted = self.counts.get_mut(&key)?;
        counted.edge_only = grant.is_edge_only();
        Some((key, counted))
    }

    /// Returns the time when the download ends if nothing more is requested, in Unix milliseconds.
    pub(super) fn over_ms(&self, cx: &Context<'_>, key: Key) -> u64 {
        let left = self.timers.get(Timer::Idle(key)).map_or(Duration::ZERO, |at| at.since(cx.now));
        self.wall.map_or(0, |wall| wall.at(cx.now.after(left)))
    }

    /// Marks a count as changed, and restarts the idle time of its download.
    pub(super) fn touch(&mut self, cx: &mut Context<'_>, key: Key) {
        self.dirty.insert(key);
        self.flush_soon(cx);
        if matches!(key, Key::Download(_)) {
            self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
        }
        self.check_touched(key);
    }

    /// Asserts in debug builds that a count which has changed is sound.
    pub(super) fn check_touched(&self, key: Key) {
        if cfg!(debug_assertions)
            && let Some(counted) = self.counts.get(&key)
        {
            counted.check(key, self.life);
        }
    }

    pub(super) fn flush_soon(&mut self, cx: &mut Context<'_>) {
        let flushing = self.saving.values().any(|s| matches!(s, Saving::Counts { .. }));
        if self.timers.get(Timer::Flush).is_none() && !flushing {
            let wait = if self.phase == Phase::Serving { cx.cfg.flush_every } else { core::time::Duration::ZERO };
            self.timers.set(Timer::Flush, Some(cx.now.after(wait)));
        }
    }

    /// Ends a download for which nothing was requested lately, once no answer may still send bytes of it and the
    /// ledger has the records of all that was sent. A slow answer keeps its reservation however long it takes.
    pub(super) fn on_idle(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(counted) = self.counts.get(&key) else { return self.end_download(cx, key) };
        let recorded = !self.dirty.contains(&key) && counted.record.is_none_or(|id| !self.ledger.holds(id));
        let wait = match (counted.is_sending(), counted.saving || !recorded) {
            // the full idle time, as after a request: an earlier deadline would precede those of downloads that may end
            (true, _) => cx.cfg.idle_after,
            (false, true) => RECHECK,
            (false, false) => return self.end_download(cx, key),
        };
        self.timers.set(Timer::Idle(key), Some(cx.now.after(wait)));
    }

    /// Ends a download: forgets its count, and deletes it from the spool with the next flush.
    pub(super) fn end_download(&mut self, cx: &mut Context<'_>, key: Key) {
        let Key::Download(download) = key else { return };
        self.timers.clear(Timer::Idle(key));
        self.forget_ranges(key);
        self.counts.remove(&key);
        self.dirty.remove(&key);
        self.ended.insert(download);
        self.flush_soon(cx);
    }

    /// Writes changed counts and new records to the spool. While a count's last record is not acknowledged, no other is
    /// made of it: so a download has one record on its way, however long the ledger is away. While stopping, records of
    /// all counts are made.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        self.timers.clear(Timer::Flush);
        if self.saving.values().any(|s| matches!(s, Saving::Counts { .. })) {
            return;
        }
        let edge = cx.cfg.cert.body.key;
        let mut batch = Batch {
            acked: core::mem::take(&mut self.acked),
            ended: core::mem::take(&mut self.ended).into_iter().collect(),
            ..Batch::default()
        };
        for key in core::mem::take(&mut self.dirty) {
            let over_ms = self.over_ms(cx, key);
            let Some(c) = self.counts.get_mut(&key) else {
                debug_assert!(false, "what ends a count also takes it from the changed ones");
                continue;
            };
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

    /// Notes that a write of counts to the spool is durable.
    pub(super) fn on_counts_saved(&mut self, batch: &Batch) {
        for count in &batch.counts {
            if let Some(c) = self.counts.get_mut(&key_of(count)) {
                c.saving = false;
            }
        }
    }

    /// Takes back the effects of a write of counts that has failed, and schedules another one.
    pub(super) fn on_counts_not_saved(&mut self, cx: &mut Context<'_>, records: &[LedgerRecord], batch: Batch) {
        self.acked.extend(batch.acked);
        let over = |download: &DownloadId| !self.counts.contains_key(&Key::Download(*download));
        self.ended.extend(batch.ended.into_iter().filter(over));
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
