//! What this client shares: complete versions in its cache, and downloads as far as they are.

use super::io::{DownloadState, Output, SourceName};
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

/// Downloads that are remembered as served, at most.
const SERVED_MAX: usize = 1024;

/// What was served to one download of another client: its usage record in the making.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Served {
    version: VersionId,
    seq: u32,
    peers: BTreeMap<IntroId, ServedPeer>,
    began: Time,
    last: Time,
    /// Something is not in any record yet.
    dirty: bool,
    /// The newest record, and whether the ledger has it. It is kept as long as it may grow.
    record: Option<(RecordId, bool)>,
}

/// What was served over one introduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServedPeer {
    /// K_d.
    key: PublicKey,
    /// Bytes sent.
    bytes: u64,
    /// The highest receipt.
    receipt: Option<ReceiptProof>,
}

impl Served {
    pub(super) fn new(version: VersionId, seq: u32, now: Time) -> Self {
        Self { version, seq, peers: BTreeMap::new(), began: now, last: now, dirty: false, record: None }
    }

    /// What a record that survived a restart says.
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

    /// Takes in a receipt that survived a restart and is in no record.
    pub(super) fn kept(&mut self, peer: &PeerBytes) {
        if let Some(proof) = &peer.receipt {
            self.receipted((peer.intro, peer.key), proof.clone(), Time::ZERO);
        }
    }

    /// Takes in a receipt. It proves at least so many bytes, whatever was counted as sent.
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
    /// The provider has taken these off: they are served to nobody any more, and what was only kept for others goes.
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

    /// The policy under which a version may be shared; `None`: it may not.
    fn sharing_policy(&self, version: VersionId) -> Option<Policy> {
        if self.withdrawn.contains(&version) {
            return None;
        }
        let granted = self.jobs.values().filter_map(|j| j.granted()).find(|g| g.version == version)?;
        granted.policy.peer_upload.then(|| granted.policy.clone())
    }

    /// Offers a version for upload, as far as it is there.
    fn share(&mut self, cx: &mut Context<'_>, version: VersionId, layout: Layout, have: Bitfield) {
        let Some(policy) = self.sharing_policy(version) else { return };
        let (complete, something) = (have.is_full(), !have.is_empty());
        self.tell_uploads(cx, upload::Input::Share { version, layout, have, policy });
        if something && self.uploads.allowed() {
            self.tell_session(cx, session::Input::Share { version, complete });
        }
    }

    /// Offers what a download has.
    pub(super) fn share_job(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, layout, have) = (granted.version, *swarm.layout(), swarm.have().clone());
        self.share(cx, version, layout, have);
    }

    /// Offers all that is there: at the start, and when uploads are switched on.
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

    /// A piece of a download is durable: others may have it.
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

    /// Switches uploads on or off, at once.
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

    /// Counts bytes that were sent to a peer.
    pub(super) fn sent(
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

    /// Whether there is a place in the books for what a download is served.
    pub(super) fn serve_for(&mut self, cx: &Context<'_>, download: DownloadId, version: VersionId) -> bool {
        if self.served.len() >= SERVED_MAX && !self.served.contains_key(&download) {
            return false;
        }
        self.served.entry(download).or_insert_with(|| Served::new(version, 0, cx.now));
        true
    }

    /// There will be news of what has begun then.
    pub(super) fn report_soon(&mut self, cx: &Context<'_>, began: Time) {
        let at = cx.now.after(cx.cfg.usage_wait(cx.now.since(began)));
        if self.timers.get(Timer::Usage).is_none_or(|set| set > at) {
            self.timers.set(Timer::Usage, Some(at));
        }
    }

    /// Writes a usage record of what was served to a download, if there is news.
    fn report_served(&mut self, cx: &mut Context<'_>, download: DownloadId) {
        let Some(served) = self.served.get_mut(&download).filter(|s| s.dirty) else { return };
        served.dirty = false;
        // a sequence that goes on rising even if an earlier record of this download has been forgotten
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
        // one that is acknowledged was kept for this one's sake only; the session speaks of those that are not
        self.drop_usage(cx, older.filter(|(_, acked)| *acked).map(|(id, _)| id).into_iter().collect());
    }

    /// Writes a download's usage record, if there is news or its state has changed.
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
        // the sequence number is durable before the record is: a restart never uses it again
        self.save_record(cx, handle, None);
        self.save(cx, Save::Usage(record.clone()), Saving::Usage(record));
    }

    /// Writes what is due.
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

    /// Forgets what was served long ago and is in the ledger.
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

    /// Records that need not be kept, by the session's word. Those of what may still grow are kept all the same:
    /// after a restart they say where to go on.
    pub(super) fn usage_done(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
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

    /// Gives a durable record its place in this start's log. It goes out once the head of that place is signed.
    pub(super) fn log_usage(&mut self, cx: &mut Context<'_>, record: UsageRecord) {
        let Some(&start) = cx.cfg.identity.secondary.first() else { return };
        let head = self.log.append(start, &record);
        let req = self.next_req.step();
        cx.push(Output::SignHead { req, head: head.clone() });
        self.logging.insert(req, (record, head));
    }

    pub(super) fn head_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Signature) {
        let Some((record, head)) = self.logging.remove(&req) else { return };
        let head = SignedHead { head, key: cx.cfg.identity.key, signature };
        self.tell_session(cx, session::Input::Usage(Logged { record, head }));
    }

    /// A usage record is durable, or not: then it is written again with the next.
    pub(super) fn usage_saved(&mut self, cx: &mut Context<'_>, record: UsageRecord, durable: bool) {
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
