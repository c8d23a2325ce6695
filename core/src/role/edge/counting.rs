//! Counting what was served, and making records of it.

use super::io::{Batch, Count, ServedGrant};
use super::reserving::Room;
use super::{Context, Edge, Metric, Output, Phase, Saving, Spans, Timer};
use crate::ids::{DownloadId, ProviderId, PublicKey, RecordId, VersionId};
use crate::wire::records::{EdgeRecord, LedgerRecord, ServedRecord};
use alloc::vec::Vec;
use core::ops::Range;

/// What bytes are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// A download: the requests carried its grant.
    Download(DownloadId),
    /// A version, by whoever needs no grant.
    Plain(VersionId),
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
    /// The last record, until a newer one: no other is made before the ledger has it.
    record: Option<RecordId>,
    /// Bytes have been counted since the last record was made.
    unreported: bool,
    /// Something has changed since the spool was last written.
    unsaved: bool,
}

impl Counted {
    pub(super) const fn version(&self) -> VersionId {
        self.version
    }

    /// See [`ServedRecord::life`].
    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn sent(&self) -> &Spans {
        &self.sent
    }

    pub(super) fn count(&self) -> Count {
        Count {
            grant: self.grant,
            version: self.version,
            provider: self.provider,
            life: self.life,
            seq: self.seq,
            total_bytes: self.total_bytes,
            reserved: self.room.written(self.total_bytes),
            unsure: self.room.unsure,
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
        for c in counts {
            let key = c.grant.map_or(Key::Plain(c.version), |g| Key::Download(g.download));
            let counted = Counted {
                grant: c.grant,
                version: c.version,
                provider: c.provider,
                life: c.life,
                seq: c.seq,
                total_bytes: c.total_bytes,
                room: Room::restored(c.total_bytes, c.reserved, c.unsure),
                sent: Spans::of(c.sent),
                record: None,
                // whether its last record was made is not known: one more does no harm
                unreported: true,
                unsaved: false,
            };
            self.counts.insert(key, counted);
            self.touch(cx, key);
        }
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
            return cx.push(Output::Count(Metric::CountOverflow));
        };
        counted.total_bytes = counted.total_bytes.saturating_add(range.end - range.start);
        (counted.unreported, counted.unsaved) = (true, true);
        if counted.grant.is_some() && !counted.sent.insert(range, cx.cfg.ranges_max as usize) {
            cx.push(Output::Count(Metric::CountOverflow));
        }
        self.touch(cx, key);
    }

    /// Where a download's bytes are counted; as plain traffic if there is no room for it.
    pub(super) fn counted(
        &mut self,
        cx: &Context<'_>,
        grant: Option<ServedGrant>,
        version: VersionId,
        provider: ProviderId,
    ) -> Option<(Key, &mut Counted)> {
        let room = self.counts.len() < cx.cfg.counts_max as usize;
        let fits = |key: &Key| match self.counts.get(key) {
            Some(counted) => counted.version == version,
            None => room,
        };
        let own = grant.map(|g| Key::Download(g.download)).filter(fits);
        let grant = grant.filter(|_| own.is_some());
        let key = own.or_else(|| Some(Key::Plain(version)).filter(fits))?;
        let life = self.wall.map_or(0, |wall| wall.at(cx.now));
        let counted = self.counts.entry(key).or_insert_with(|| Counted {
            grant,
            version,
            provider,
            life,
            seq: 0,
            total_bytes: 0,
            room: Room::default(),
            sent: Spans::default(),
            record: None,
            unreported: false,
            unsaved: false,
        });
        Some((key, counted))
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
        let Key::Download(download) = key else { return };
        if self.dirty.contains(&key) {
            self.timers.set(Timer::Idle(key), Some(cx.now.after(cx.cfg.idle_after)));
            return;
        }
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
                batch.counts.push(c.count());
            }
        }
        if batch == Batch::default() {
            return;
        }
        let req = self.next_req.step();
        self.saving.insert(req, Saving::Counts { records: batch.records.clone(), batch: batch.clone() });
        cx.push(Output::Save { req, batch });
    }

    /// The spool refused: what was counted is counted still, and tried again.
    pub(super) fn unsaved(&mut self, cx: &mut Context<'_>, records: &[LedgerRecord], batch: Batch) {
        self.acked.extend(batch.acked);
        self.ended.extend(batch.ended);
        for count in batch.counts {
            let key = count.grant.map_or(Key::Plain(count.version), |g| Key::Download(g.download));
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
