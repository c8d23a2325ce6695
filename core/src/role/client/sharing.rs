//! What this client shares (cached versions and its downloads' pieces), and the usage records of both sides.

use super::io::{DownloadState, KeyOutput, Output, SourceName};
use super::job::Job;
use super::{Client, Context, Saving, Timer};
use crate::Time;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{DownloadId, Handle, IntroId, PieceIndex, PublicKey, RecordId, ReqId, Signature, VersionId};
use crate::limits::WITHDRAWN_MAX;
use crate::role::client::io::Save;
use crate::session::client as session;
use crate::swarm::upload;
use crate::wire::List;
use crate::wire::records::{Logged, PeerBytes, ReceiptProof, Side, SignedHead, UsageRecord, UsageState};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Largest number of other clients' downloads whose served bytes are counted at a time.
const SERVED_MAX: usize = 1024;

/// Bytes served to one download of another client, for its next usage record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Served {
    version: VersionId,
    seq: u32,
    peers: BTreeMap<IntroId, ServedPeer>,
    began: Time,
    last: Time,
    /// Whether something has changed since the newest record.
    dirty: bool,
    /// The newest usage record, and whether the ledger has acknowledged it. The store keeps it while the count may
    /// grow.
    record: Option<(RecordId, bool)>,
}

/// Bytes served under one introduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServedPeer {
    /// K_d: key of the downloader.
    key: PublicKey,
    /// Bytes sent under this introduction.
    bytes: u64,
    /// The receipt with the most bytes.
    receipt: Option<ReceiptProof>,
}

impl Served {
    pub(super) fn new(version: VersionId, seq: u32, now: Time) -> Self {
        Self { version, seq, peers: BTreeMap::new(), began: now, last: now, dirty: false, record: None }
    }

    /// Restores the count from a stored usage record.
    pub(super) fn restored(record: &UsageRecord) -> Self {
        let mut served = Self::new(record.version, record.seq, Time::ZERO);
        served.peers = record
            .peers
            .iter()
            .map(|p| (p.intro, ServedPeer { key: p.key, bytes: p.bytes, receipt: p.receipt.clone() }))
            .collect();
        served.record = Some((record.id, false));
        served
    }

    /// Adds a stored receipt that no usage record holds.
    pub(super) fn kept(&mut self, peer: &PeerBytes) {
        if let Some(proof) = &peer.receipt {
            self.receipted((peer.intro, peer.key), proof.clone(), Time::ZERO);
        }
    }

    /// Adds a receipt. It proves at least its bytes, however many were counted as sent.
    pub(super) fn receipted(&mut self, (intro, key): (IntroId, PublicKey), proof: ReceiptProof, now: Time) {
        let peer = self.peers.entry(intro).or_insert(ServedPeer { key, bytes: 0, receipt: None });
        if peer.receipt.as_ref().is_none_or(|old| old.bytes < proof.bytes) {
            peer.receipt = Some(proof);
            self.dirty = true;
        }
        self.last = self.last.max(now);
    }

    pub(super) const fn seq(&self) -> u32 {
        self.seq
    }

    pub(super) const fn began(&self) -> Time {
        self.began
    }

    pub(super) fn rebase(&mut self, by: core::time::Duration) {
        self.began = self.began.rebased(by);
        self.last = self.last.rebased(by);
    }
}

impl Client {
    /// Stops serving versions that the provider has withdrawn, and deletes cached copies that no download needs.
    pub(super) fn withdraw(&mut self, cx: &mut Context<'_>, versions: Vec<VersionId>) {
        for version in versions {
            if self.withdrawn.len() < WITHDRAWN_MAX {
                self.withdrawn.insert(version);
            }
            let needed = |j: &Job| {
                j.granted().is_some_and(|g| g.version == version) && j.record.state != DownloadState::Completed
            };
            if self.cached.contains_key(&version) && !self.jobs.values().any(needed) {
                self.uncache(cx, version, Saving::Nothing);
            } else {
                self.unshare(cx, version);
            }
        }
    }

    /// Returns the policy under which a version may be shared; `None` if it may not.
    fn sharing_policy(&self, version: VersionId) -> Option<Policy> {
        if self.withdrawn.contains(&version) {
            return None;
        }
        let granted = self.jobs.values().filter_map(|j| j.granted()).find(|g| g.version == version)?;
        granted.policy.peer_upload.then(|| granted.policy.clone())
    }

    /// Offers the pieces of a version to peers, and registers the version at the CN.
    fn share(&mut self, cx: &mut Context<'_>, version: VersionId, layout: Layout, have: Bitfield) {
        let Some(policy) = self.sharing_policy(version) else { return };
        let (complete, something) = (have.is_full(), !have.is_empty());
        self.tell_uploads(cx, upload::Input::Share { version, layout, have, policy });
        if something && self.uploads.allowed() {
            self.tell_session(cx, session::Input::Share { version, complete });
        }
    }

    /// Offers the pieces of a download.
    pub(super) fn share_job(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, layout, have) = (granted.version, *swarm.layout(), swarm.have().clone());
        self.share(cx, version, layout, have);
    }

    /// Offers every cached version and download: at the start, and when uploads are switched on.
    pub(super) fn share_all(&mut self, cx: &mut Context<'_>) {
        let cached: Vec<_> = self.cached.iter().map(|(v, (layout, have))| (*v, *layout, have.clone())).collect();
        for (version, layout, have) in cached {
            self.share(cx, version, layout, have);
        }
        let handles: Vec<_> = self.jobs.keys().copied().collect();
        for handle in handles {
            self.share_job(cx, handle);
        }
    }

    /// Offers a piece of a download that has become durable.
    pub(super) fn share_piece(&mut self, cx: &mut Context<'_>, handle: Handle, piece: PieceIndex) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, have) = (granted.version, swarm.have());
        if !granted.policy.peer_upload || !have.contains(piece) || self.withdrawn.contains(&version) {
            return;
        }
        let (complete, first) = (have.is_full(), have.count() == 1);
        self.tell_uploads(cx, upload::Input::Have { version, piece });
        if (complete || first) && self.uploads.allowed() {
            self.tell_session(cx, session::Input::Share { version, complete });
        }
    }

    pub(super) fn unshare(&mut self, cx: &mut Context<'_>, version: VersionId) {
        self.tell_uploads(cx, upload::Input::Unshare { version });
        self.tell_session(cx, session::Input::Unshare { version });
    }

    /// Switches uploads on or off, with immediate effect.
    pub(super) fn allow_uploads(&mut self, cx: &mut Context<'_>, on: bool) {
        self.tell_uploads(cx, upload::Input::Allow(on));
        self.tell_session(cx, session::Input::Uploads(on));
        if on {
            return self.share_all(cx);
        }
        let versions = self.jobs.values().filter_map(|j| j.granted()).map(|g| g.version);
        let all: Vec<_> = versions.chain(self.cached.keys().copied()).collect();
        for version in all {
            self.tell_session(cx, session::Input::Unshare { version });
        }
    }

    /// Counts bytes sent to a peer under an introduction; `last`: no more will be sent over its connection.
    pub(super) fn on_sent(
        &mut self,
        cx: &mut Context<'_>,
        (download, version): (DownloadId, VersionId),
        (intro, key): (IntroId, PublicKey),
        bytes: u64,
        last: bool,
    ) {
        if (bytes == 0 && !self.served.contains_key(&download)) || !self.serve_for(cx, download, version) {
            return;
        }
        let Some(served) = self.served.get_mut(&download) else { return };
        let peer = served.peers.entry(intro).or_insert(ServedPeer { key, bytes: 0, receipt: None });
        peer.bytes = peer.bytes.saturating_add(bytes);
        served.dirty |= bytes > 0;
        served.last = cx.now;
        let began = served.began;
        if last {
            self.report_served(cx, download);
        }
        self.report_soon(cx, began);
    }

    /// Returns whether bytes served to a download can be counted, and makes room for the count.
    pub(super) fn serve_for(&mut self, cx: &Context<'_>, download: DownloadId, version: VersionId) -> bool {
        if self.served.len() >= SERVED_MAX && !self.served.contains_key(&download) {
            return false;
        }
        self.served.entry(download).or_insert_with(|| Served::new(version, 0, cx.now));
        true
    }

    /// Schedules the next usage records no later than a count begun at `began` needs one.
    pub(super) fn report_soon(&mut self, cx: &Context<'_>, began: Time) {
        let at = cx.now.after(cx.cfg.usage_wait(cx.now.since(began)));
        if self.timers.get(Timer::Usage).is_none_or(|set| set > at) {
            self.timers.set(Timer::Usage, Some(at));
        }
    }

    /// Writes a usage record of the bytes served to a download, if they have changed.
    fn report_served(&mut self, cx: &mut Context<'_>, download: DownloadId) {
        let Some(served) = self.served.get_mut(&download).filter(|s| s.dirty) else { return };
        served.dirty = false;
        // the sequence rises with the clock even if an earlier record of this download is forgotten
        let seconds = self.wall.map_or(0, |wall| wall.at(cx.now) / 1000);
        served.seq = served.seq.saturating_add(1).max(u32::try_from(seconds).unwrap_or(u32::MAX / 2));
        let id = RecordId(cx.rng.nonce());
        let older = served.record.replace((id, false));
        let peers = served.peers.iter().map(|(intro, p)| PeerBytes {
            intro: *intro,
            key: p.key,
            bytes: p.bytes,
            receipt: p.receipt.clone(),
        });
        let record = UsageRecord {
            id,
            reporter: cx.cfg.identity.guid,
            side: Side::Uploader,
            download,
            version: served.version,
            seq: served.seq,
            state: UsageState::Running,
            edge_bytes: 0,
            peers: List::truncated(peers),
            elapsed_ms: millis_between(served.began, cx.now),
            cause: None,
        };
        self.save(cx, Save::Usage(record.clone()), Saving::Usage(record));
        // an acknowledged record was stored only to be replaced by this one; the session handles the others
        self.drop_usage(cx, older.filter(|(_, acked)| *acked).map(|(id, _)| id).into_iter().collect());
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

    /// Writes the usage records that are due.
    pub(super) fn report_all(&mut self, cx: &mut Context<'_>) {
        let running = self.jobs.iter().filter(|(_, j)| j.record.state == DownloadState::Running);
        let running: Vec<_> = running.map(|(handle, _)| *handle).collect();
        for handle in &running {
            self.report(cx, *handle, UsageState::Running);
        }
        let served: Vec<_> = self.served.keys().copied().collect();
        for download in served {
            self.report_served(cx, download);
        }
        self.forget_served(cx);
        let began = running.iter().filter_map(|handle| Some(self.jobs.get(handle)?.began));
        let youngest = began.chain(self.served.values().map(|s| s.began)).max();
        self.timers.clear(Timer::Usage);
        if let Some(youngest) = youngest {
            self.report_soon(cx, youngest);
        }
    }

    /// Forgets what was served long ago and is acknowledged.
    fn forget_served(&mut self, cx: &mut Context<'_>) {
        let old = |s: &Served| !s.dirty && cx.now.since(s.last) >= cx.cfg.served_keep;
        let settled = self.served.iter().filter(|(_, s)| old(s) && s.record.is_none_or(|(_, acked)| acked));
        let settled: Vec<_> = settled.map(|(download, s)| (*download, s.record)).collect();
        let mut done = Vec::new();
        for (download, record) in settled {
            self.served.remove(&download);
            done.extend(record.map(|(id, _)| id));
        }
        self.drop_usage(cx, done);
    }

    /// Deletes records that the session reports as settled. The newest record of a growing count stays stored: a
    /// restart continues from it.
    pub(super) fn on_usage_done(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let mut done = Vec::new();
        for id in ids {
            let growing = self.served.values_mut().find_map(|s| s.record.as_mut().filter(|(newest, _)| *newest == id));
            match growing {
                Some((_, acked)) => *acked = true,
                None => done.push(id),
            }
        }
        self.drop_usage(cx, done);
    }

    fn drop_usage(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        if !ids.is_empty() {
            self.save(cx, Save::UsageDone(ids), Saving::Nothing);
        }
    }

    /// Asserts that the books are bounded and in order.
    pub(super) fn check_books(&self) {
        assert!(self.withdrawn.len() <= WITHDRAWN_MAX, "the withdrawn versions are bounded");
        assert!(self.served.len() <= SERVED_MAX, "the counts of served bytes are bounded");
        assert!(self.served.values().all(|s| s.began <= s.last), "a count begins before its last change");
        let places = self.logging.values().map(|(_, head)| head.place);
        assert!(places.is_sorted_by(|a, b| a < b), "the log's heads are signed in order");
        let fits = |(layout, have): &(Layout, Bitfield)| have.len() == layout.pieces();
        assert!(self.cached.values().all(fits), "a cached version's pieces fit its layout");
    }

    /// Appends a durable record to this start's log. It is sent once its log head is signed.
    pub(super) fn log_usage(&mut self, cx: &mut Context<'_>, record: UsageRecord) {
        let Some(&start) = cx.cfg.identity.secondary.first() else { return };
        let head = self.log.append(start, &record);
        let req = self.next_req.step();
        cx.push(Output::Key(KeyOutput::SignHead { req, head: head.clone() }));
        self.logging.insert(req, (record, head));
    }

    pub(super) fn on_head_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Signature) {
        let Some((record, head)) = self.logging.remove(&req) else { return };
        let head = SignedHead { head, key: cx.cfg.identity.key, signature };
        self.tell_session(cx, session::Input::Usage(Logged { record, head }));
    }

    /// Logs a usage record that is durable; if saving failed, marks its count for another record.
    pub(super) fn on_usage_saved(&mut self, cx: &mut Context<'_>, record: UsageRecord, durable: bool) {
        if durable {
            return self.log_usage(cx, record);
        }
        match record.side {
            Side::Uploader => {
                if let Some(served) = self.served.get_mut(&record.download) {
                    served.dirty = true;
                }
            }
            Side::Downloader => {
                let job = self.jobs.values_mut().find(|j| j.granted().is_some_and(|g| g.download == record.download));
                if let Some(job) = job {
                    job.reported = None;
                }
            }
        }
    }
}

pub(super) fn millis_between(from: Time, to: Time) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
