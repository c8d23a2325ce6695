//! Usage records of the client as downloader and as uploader: when they are due, and their way to the store, into the
//! log and to the session.

use super::books::ServedTo;
use super::io::{DownloadState, KeptReceipt, KeyOutput, Output, Save, SourceName, StoreError};
use super::{Client, Context, Saving, Timer};
use crate::Time;
use crate::ids::{DownloadId, Handle, IntroId, RecordId, ReqId, Signature};
use crate::session::client as session;
use crate::swarm::upload;
use crate::wire::List;
use crate::wire::records::{Logged, PeerBytes, ReceiptProof, Side, SignedHead, UsageRecord, UsageState};
use alloc::vec::Vec;

impl Client {
    /// Counts bytes sent to a peer under an introduction; `last`: no more will be sent over its connection.
    pub(super) fn on_sent(&mut self, cx: &mut Context<'_>, to: ServedTo, bytes: u64, last: bool) {
        let Some(began) = self.books.on_sent(&to, bytes, cx.now) else { return };
        if last {
            self.report_served(cx, to.download);
        }
        self.report_soon(cx, began);
    }

    /// Saves a receipt that a downloader has given. Only a durable receipt raises the downloader's credit.
    pub(super) fn on_receipt(&mut self, cx: &mut Context<'_>, to: ServedTo, proof: ReceiptProof) {
        let ServedTo { download, version, intro, key } = to;
        let bytes = proof.bytes;
        let Some(began) = self.books.on_receipt(&to, proof.clone(), cx.now) else { return };
        let peer = PeerBytes { intro, key, bytes, receipt: Some(proof) };
        self.save(cx, Save::Receipt(KeptReceipt { download, version, peer }), Saving::Receipt { intro, bytes });
        self.report_soon(cx, began);
    }

    pub(super) fn on_receipt_saved(
        &mut self,
        cx: &mut Context<'_>,
        (intro, bytes): (IntroId, u64),
        result: Result<(), StoreError>,
    ) {
        // a receipt that is not durable would be lost in a crash: it raises no credit
        if result.is_ok() {
            self.tell_uploads(cx, upload::Input::ReceiptKept { intro, bytes });
        }
    }

    /// Schedules the next usage records early enough for a count that began at `began`.
    pub(super) fn report_soon(&mut self, cx: &Context<'_>, began: Time) {
        let at = cx.now.after(cx.cfg.usage_wait(cx.now.since(began)));
        if self.timers.get(Timer::Usage).is_none_or(|set| set > at) {
            self.timers.set(Timer::Usage, Some(at));
        }
    }

    /// Writes a usage record of the bytes served to another client's download, if they have changed.
    fn report_served(&mut self, cx: &mut Context<'_>, download: DownloadId) {
        if !self.books.is_dirty(download) {
            return;
        }
        let seconds = self.wall.map_or(0, |wall| wall.at(cx.now) / 1000);
        let seq_min = u32::try_from(seconds).unwrap_or(u32::MAX / 2);
        let name = (RecordId(cx.rng.nonce()), cx.cfg.identity.guid);
        let Some((record, replaced)) = self.books.next_record(download, name, seq_min, cx.now) else { return };
        self.save(cx, Save::Usage(record.clone()), Saving::Usage(record));
        self.drop_usage(cx, replaced.into_iter().collect());
    }

    /// Writes a usage record of one of this client's downloads, if its bytes or state have changed.
    pub(super) fn report(&mut self, cx: &mut Context<'_>, handle: Handle, state: UsageState) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
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
        self.save_record(cx, handle, None);
        self.save(cx, Save::Usage(record.clone()), Saving::Usage(record));
    }

    /// Writes the usage records of all downloads whose bytes have changed, and schedules the next ones.
    pub(super) fn report_all(&mut self, cx: &mut Context<'_>) {
        let running = self.jobs.iter().filter(|(_, j)| j.record.state == DownloadState::Running);
        let running: Vec<_> = running.map(|(handle, _)| *handle).collect();
        for handle in &running {
            self.report(cx, *handle, UsageState::Running);
        }
        for download in self.books.downloads() {
            self.report_served(cx, download);
        }
        let settled = self.books.forget_old(cx.now, cx.cfg.served_keep);
        self.drop_usage(cx, settled);
        let began = running.iter().filter_map(|handle| Some(self.jobs.get(handle)?.began));
        let youngest = began.chain(self.books.youngest()).max();
        self.timers.clear(Timer::Usage);
        if let Some(youngest) = youngest {
            self.report_soon(cx, youngest);
        }
    }

    /// Deletes usage records that the ledger has acknowledged, as the session reports.
    pub(super) fn on_usage_done(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let settled = self.books.settle(ids);
        self.drop_usage(cx, settled);
    }

    fn drop_usage(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        if !ids.is_empty() {
            self.save(cx, Save::UsageDone(ids), Saving::Nothing);
        }
    }

    /// Appends a durable usage record to this start's log. It is sent once the shell has signed its log head.
    pub(super) fn log_usage(&mut self, cx: &mut Context<'_>, record: UsageRecord) {
        let Some(&start) = cx.cfg.identity.secondary.first() else { return };
        let req = self.next_req.step();
        let head = self.books.append(start, record, req);
        cx.push(Output::Key(KeyOutput::SignHead { req, head }));
    }

    pub(super) fn on_head_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Signature) {
        let Some((record, head)) = self.books.take_signed(req) else { return };
        let head = SignedHead { head, key: cx.cfg.identity.key, signature };
        self.tell_session(cx, session::Input::Usage(Logged { record, head }));
    }

    /// Appends a usage record to the log if it is durable. If it could not be stored, its bytes go into another
    /// record.
    pub(super) fn on_usage_saved(&mut self, cx: &mut Context<'_>, record: UsageRecord, durable: bool) {
        if durable {
            return self.log_usage(cx, record);
        }
        match record.side {
            Side::Uploader => self.books.on_not_stored(record.download),
            Side::Downloader => {
                if let Some(job) = self.handle_of(record.download).and_then(|handle| self.jobs.get_mut(&handle)) {
                    job.reported = None;
                }
            }
        }
    }
}
