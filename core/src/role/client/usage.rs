//! Usage records of the client as downloader and as uploader: when they are due, and their way to the store, into the
//! log and to the session.

use super::Context;
use super::books::{Books, ServedTo};
use super::common::{Common, Saving, Timer};
use super::io::{DownloadState, KeptReceipt, KeyOutput, Output, Save, SourceName};
use super::job::Jobs;
use crate::Time;
use crate::ids::{DownloadId, Handle, RecordId, ReqId, Signature};
use crate::wire::List;
use crate::wire::records::{Logged, PeerBytes, ReceiptProof, Side, SignedHead, UsageRecord, UsageState};
use alloc::vec::Vec;

impl Common {
    /// Schedules the next usage records early enough for a count that began at `began`.
    pub(super) fn report_soon(&mut self, cx: &Context<'_>, began: Time) {
        let at = cx.now.after(cx.cfg.usage_wait(cx.now.since(began)));
        if self.timers.get(Timer::Usage).is_none_or(|set| set > at) {
            self.timers.set(Timer::Usage, Some(at));
        }
    }

    /// Saves a usage record; once it is durable, it enters the log.
    fn save_usage(&mut self, cx: &mut Context<'_>, record: UsageRecord) {
        self.save(cx, Save::Usage(record.clone()), Saving::Usage(record));
    }

    /// Has the store delete usage records.
    fn drop_usage(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        if !ids.is_empty() {
            self.save(cx, Save::UsageDone(ids), Saving::Nothing);
        }
    }
}

impl Jobs {
    /// Writes a usage record of one of this client's downloads, if its bytes or state have changed.
    pub(super) fn report(&mut self, common: &mut Common, cx: &mut Context<'_>, handle: Handle, state: UsageState) {
        let Some(job) = self.get_mut(handle) else { return };
        let Some((download, version)) = job.granted().map(|g| (g.download, g.version)) else { return };
        let counted = job.counted_bytes();
        let total = counted.iter().map(|(_, bytes)| bytes).sum();
        if state == UsageState::Running && (job.reported == Some(total) || total == 0) {
            return;
        }
        job.reported = Some(total);
        job.count_time(cx.now);
        job.record.usage_seq = job.record.usage_seq.saturating_add(1);
        let (mut edge_bytes, mut peers) = (0, Vec::new());
        for (name, bytes) in counted {
            match name {
                SourceName::Edge => edge_bytes = bytes,
                SourceName::Peer(intro, key) => peers.push(PeerBytes { intro, key, bytes, receipt: None }),
            }
        }
        let record = UsageRecord {
            id: RecordId(cx.rng.nonce()),
            reporter: cx.cfg.identity.guid,
            side: Side::Downloader,
            download,
            version,
            seq: job.record.usage_seq,
            state,
            edge_bytes,
            peers: List::truncated(peers),
            elapsed_ms: job.record.active_ms,
            cause: job.record.state.cause(),
        };
        // the sequence number becomes durable before the record: no restart uses it again
        self.save_record(common, cx, handle, None);
        common.save_usage(cx, record);
    }

    /// Has the bytes of a download go into another usage record, since the newest could not be stored.
    fn report_again(&mut self, download: DownloadId) {
        if let Some(job) = self.of_download(download).and_then(|handle| self.get_mut(handle)) {
            job.reported = None;
        }
    }
}

impl Books {
    /// Counts bytes sent to a peer under an introduction; `last`: no more will be sent over its connection.
    pub(super) fn on_sent(&mut self, common: &mut Common, cx: &mut Context<'_>, to: ServedTo, bytes: u64, last: bool) {
        let Some(began) = self.count_sent(&to, bytes, cx.now) else { return };
        if last {
            self.report_served(common, cx, to.download);
        }
        common.report_soon(cx, began);
    }

    /// Saves a receipt that a downloader has given. Only a durable receipt raises the downloader's credit.
    pub(super) fn on_receipt(&mut self, common: &mut Common, cx: &mut Context<'_>, to: ServedTo, proof: ReceiptProof) {
        let ServedTo { download, version, intro, key } = to;
        let bytes = proof.bytes;
        let Some(began) = self.count_receipt(&to, proof.clone(), cx.now) else { return };
        let peer = PeerBytes { intro, key, bytes, receipt: Some(proof) };
        common.save(cx, Save::Receipt(KeptReceipt { download, version, peer }), Saving::Receipt { intro, bytes });
        common.report_soon(cx, began);
    }

    /// Writes a usage record of the bytes served to another client's download, if they have changed.
    fn report_served(&mut self, common: &mut Common, cx: &mut Context<'_>, download: DownloadId) {
        if !self.is_dirty(download) {
            return;
        }
        let seconds = common.wall_ms(cx.now).map_or(0, |now_ms| now_ms / 1000);
        let seq_min = u32::try_from(seconds).unwrap_or(u32::MAX / 2);
        let name = (RecordId(cx.rng.nonce()), cx.cfg.identity.guid);
        let Some((record, replaced)) = self.next_record(download, name, seq_min, cx.now) else { return };
        common.save_usage(cx, record);
        common.drop_usage(cx, replaced.into_iter().collect());
    }

    /// Writes the usage records of all downloads whose bytes have changed, and schedules the next ones.
    pub(super) fn report_all(&mut self, common: &mut Common, jobs: &mut Jobs, cx: &mut Context<'_>) {
        let running = jobs.handles(|job| job.record.state == DownloadState::Running);
        for handle in &running {
            jobs.report(common, cx, *handle, UsageState::Running);
        }
        for download in self.downloads() {
            self.report_served(common, cx, download);
        }
        let settled = self.forget_old(cx.now, cx.cfg.served_keep);
        common.drop_usage(cx, settled);
        let began = running.iter().filter_map(|handle| Some(jobs.get(*handle)?.began));
        let youngest = began.chain(self.youngest()).max();
        common.timers.clear(Timer::Usage);
        if let Some(youngest) = youngest {
            common.report_soon(cx, youngest);
        }
    }

    /// Deletes usage records that the ledger has acknowledged, as the session reports.
    pub(super) fn on_usage_done(&mut self, common: &mut Common, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let settled = self.settle(ids);
        common.drop_usage(cx, settled);
    }

    /// Appends the usage records of an earlier start to this start's log.
    pub(super) fn log_unsent(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        for record in self.take_unsent() {
            self.log_usage(common, cx, record);
        }
    }

    /// Appends a durable usage record to this start's log. It is sent once the shell has signed its log head.
    fn log_usage(&mut self, common: &mut Common, cx: &mut Context<'_>, record: UsageRecord) {
        let Some(&start) = cx.cfg.identity.secondary.first() else { return };
        let req = common.next_req();
        let head = self.append(start, record, req);
        cx.push(Output::Key(KeyOutput::SignHead { req, head }));
    }

    /// Returns the usage record whose log head the shell has signed; it can be sent now.
    pub(super) fn on_head_signed(&mut self, cx: &Context<'_>, req: ReqId, signature: Signature) -> Option<Logged> {
        let (record, head) = self.take_signed(req)?;
        Some(Logged { record, head: SignedHead { head, key: cx.cfg.identity.key, signature } })
    }

    /// Appends a usage record to the log if it is durable. If it could not be stored, its bytes go into another
    /// record.
    pub(super) fn on_usage_saved(
        &mut self,
        common: &mut Common,
        jobs: &mut Jobs,
        cx: &mut Context<'_>,
        record: UsageRecord,
        durable: bool,
    ) {
        if durable {
            return self.log_usage(common, cx, record);
        }
        match record.side {
            Side::Uploader => self.on_not_stored(record.download),
            Side::Downloader => jobs.report_again(record.download),
        }
    }
}
