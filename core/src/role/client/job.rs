//! Downloads in the client, each with its record, its pending request to an edge, its peers and its swarm machine.

use super::books::millis_between;
use super::common::{Common, Saving, Timer};
use super::edges::Edges;
use super::io::{DownloadRecord, DownloadState, DownloadStatus, EdgeOutput, FailReason, Granted, Notice};
use super::io::{ObjectRef, Output, PeerOutput, Save, SourceName};
use super::links::Search;
use super::{Client, Context};
use crate::content::Bitfield;
use crate::ids::{DownloadId, Handle, ReqId, VersionId, XferId};
use crate::limits::USAGE_SOURCES_MAX;
use crate::session::Backoff;
use crate::session::client as session;
use crate::swarm::Download;
use crate::swarm::download;
use crate::wire::records::UsageState;
use crate::{Machine as _, Time};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// Answer that a download needs from an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// A grant for a new download id: the first, or a replacement for one too old to be renewed. `keep`: only for the
    /// version that the download has already.
    Grant { keep: bool },
    /// A renewal of the current grant.
    Renewal,
    /// A grant for a new download id without peers, because no edge can count the bytes sent under the current grant.
    EdgeOnly,
    /// The manifest of the download's version.
    Manifest,
}

/// A download and its state in memory. The version never changes while there is a swarm (the machine that fetches
/// pieces).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) record: DownloadRecord,
    /// Durable pieces of the download's version; once there is a swarm, its own bitfield is the current one.
    pub(super) have: Bitfield,
    /// Bytes of durable pieces by source, under the current download id; once there is a swarm, its own count is the
    /// current one.
    pub(super) counted: Vec<(SourceName, u64)>,
    pub(super) swarm: Option<Download>,
    /// Number that the first transfer of the next swarm gets.
    pub(super) next_xfer: u32,
    /// Answer that the download still needs from an edge; `asked` is the number of the pending request for it.
    pub(super) need: Option<Need>,
    pub(super) asked: Option<ReqId>,
    pub(super) ask_backoff: Backoff,
    /// Whether the last request failed because no edge was reached.
    pub(super) unanswered: bool,
    /// Back-off before it is looked again whether a full disk has room.
    pub(super) room_backoff: Backoff,
    /// Time from which `start_within` counts: when the download was last resumed, or when an edge last answered that
    /// it is busy.
    pub(super) asking_since: Time,
    /// Number of invalid answers of edges since the download was last resumed.
    pub(super) invalid: u32,
    /// Whether the user wants the object's current version, so that a newer version may replace the download's one.
    pub(super) newest: bool,
    /// Whether the provider's policy and the CN let the download use peers.
    pub(super) peers_allowed: bool,
    /// Peers that the download has tried, and its last request for more.
    pub(super) search: Search,
    /// Time at which the download began, or was restored at the start of the client.
    pub(super) began: Time,
    /// Start of the fetching time that is not yet added to `record.active_ms`; `None` while the download does not
    /// fetch.
    pub(super) fetching_since: Option<Time>,
    /// Total bytes in the download's last usage record; `None` before the first.
    pub(super) reported: Option<u64>,
    /// Status last reported to the user.
    pub(super) last_status: Option<DownloadStatus>,
}

impl Job {
    pub(super) fn new(record: DownloadRecord, have: Bitfield, counted: Vec<(SourceName, u64)>, now: Time) -> Self {
        Self {
            record,
            have,
            counted,
            swarm: None,
            next_xfer: 0,
            need: None,
            asked: None,
            ask_backoff: Backoff::default(),
            unanswered: false,
            room_backoff: Backoff::default(),
            asking_since: now,
            invalid: 0,
            newest: false,
            peers_allowed: true,
            search: Search::default(),
            began: now,
            fetching_since: None,
            reported: None,
            last_status: None,
        }
    }

    /// Returns the download's current grant, if any.
    pub(super) const fn granted(&self) -> Option<&Granted> {
        self.record.granted.as_ref()
    }

    /// Returns whether the download's grant is for this version.
    pub(super) fn is_of(&self, version: VersionId) -> bool {
        self.granted().is_some_and(|granted| granted.version == version)
    }

    /// Drops the swarm, and keeps its next transfer number for another swarm.
    pub(super) fn drop_swarm(&mut self) {
        if let Some(swarm) = self.swarm.take() {
            self.next_xfer = swarm.next_xfer();
        }
    }

    /// Returns whether the download makes progress without a command of the user.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self.record.state, DownloadState::Starting | DownloadState::Running)
    }

    /// Returns whether the download's swarm is fetching pieces.
    pub(super) fn is_fetching(&self) -> bool {
        self.swarm.as_ref().is_some_and(|swarm| swarm.phase() == download::Phase::Running)
    }

    fn sum(&self, of: impl Fn(SourceName) -> bool) -> u64 {
        self.counted_bytes().iter().filter(|(name, _)| of(*name)).map(|(_, bytes)| bytes).sum()
    }

    /// Returns the bytes of durable pieces by source, under the current download id.
    pub(super) fn counted_bytes(&self) -> Vec<(SourceName, u64)> {
        self.swarm.as_ref().map_or_else(|| self.counted.clone(), |s| s.counted().collect())
    }

    /// Returns how many more introductions fit into the download's usage record, besides those with counted bytes and
    /// the `links` open ones. Bytes under an introduction that is not in the record would not be billed.
    pub(super) fn nameable(&self, links: usize) -> usize {
        let of_peer = |(name, _): &(SourceName, u64)| *name != SourceName::Edge;
        let all = self.swarm.as_ref().map(|s| s.counted().filter(of_peer).count());
        let counted = all.unwrap_or_else(|| self.counted.iter().filter(|c| of_peer(c)).count());
        USAGE_SOURCES_MAX.saturating_sub(counted + links)
    }

    /// Adds the time since the last call to the record, if the download spent it fetching.
    pub(super) fn count_time(&mut self, now: Time) {
        if let Some(since) = &mut self.fetching_since {
            self.record.active_ms = self.record.active_ms.saturating_add(millis_between(*since, now));
            *since = now;
        }
    }

    /// Returns the total bytes of durable pieces.
    fn durable(&self) -> u64 {
        let size = self.granted().map_or(0, |g| g.size);
        match &self.swarm {
            Some(swarm) => swarm.durable_bytes(),
            None if !self.have.is_empty() && self.have.is_full() => size,
            // the layout is not known: a close enough figure for a download that is not running
            None => size / u64::from(self.have.len().max(1)) * u64::from(self.have.count()),
        }
    }

    /// Returns the status of the download for the user.
    pub(super) fn status(&self) -> DownloadStatus {
        DownloadStatus {
            handle: self.record.handle,
            object: self.record.object.clone(),
            download: self.granted().map(|g| g.download),
            version: self.granted().map(|g| g.version),
            state: self.record.state,
            size: self.granted().map_or(0, |g| g.size),
            durable: self.durable(),
            edge_bytes: self.sum(|name| name == SourceName::Edge),
            peer_bytes: self.sum(|name| name != SourceName::Edge),
            wasted_bytes: self.swarm.as_ref().map_or(0, Download::wasted_bytes),
            peers: self.swarm.as_ref().map_or(0, |s| u32::try_from(s.peers().count()).unwrap_or(u32::MAX)),
        }
    }

    /// Reports the download's status to the user, if it has changed.
    pub(super) fn notify_status(&mut self, cx: &mut Context<'_>) {
        let status = self.status();
        if self.last_status.as_ref() != Some(&status) {
            self.last_status = Some(status.clone());
            cx.push(Output::Notice(Notice::Download(status)));
        }
    }

    /// Asserts that the download's state, its grant and its needs agree.
    fn check(&self) {
        assert!(self.granted().is_some() || self.swarm.is_none(), "only a granted download has a swarm");
        let idle = self.need.is_none() && self.fetching_since.is_none();
        assert!(self.is_active() || idle, "a download that is not active needs nothing");
        let running = self.record.state == DownloadState::Running;
        assert!(running || self.fetching_since.is_none(), "fetching time runs only while fetching");
        self.search.check(self.is_active());
    }
}

/// Downloads of a client by their handles, and the transfers that fetch their pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Jobs {
    jobs: BTreeMap<Handle, Job>,
    next_handle: Handle,
    /// Transfers whose [`super::Input::FetchEnded`] has not come yet.
    fetches: BTreeMap<XferId, download::Source>,
}

impl Jobs {
    /// Returns a download.
    pub(super) fn get(&self, handle: Handle) -> Option<&Job> {
        self.jobs.get(&handle)
    }

    /// Returns a download, to be changed.
    pub(super) fn get_mut(&mut self, handle: Handle) -> Option<&mut Job> {
        self.jobs.get_mut(&handle)
    }

    /// Returns every download with its handle.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, &Job)> {
        self.jobs.iter().map(|(handle, job)| (*handle, job))
    }

    /// Returns every download, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.jobs.values_mut()
    }

    /// Returns the handles of the downloads for which `is` is true.
    pub(super) fn handles(&self, is: impl Fn(&Job) -> bool) -> Vec<Handle> {
        self.iter().filter(|(_, job)| is(job)).map(|(handle, _)| handle).collect()
    }

    /// Returns the handles of all downloads.
    pub(super) fn all(&self) -> Vec<Handle> {
        self.jobs.keys().copied().collect()
    }

    /// Returns the handles of the active downloads.
    pub(super) fn active(&self) -> Vec<Handle> {
        self.handles(Job::is_active)
    }

    /// Returns the handles of the downloads whose grant is for this version.
    pub(super) fn of_version(&self, version: VersionId) -> Vec<Handle> {
        self.handles(|job| job.is_of(version))
    }

    /// Returns the handle of the download that has this id under its grant.
    pub(super) fn of_download(&self, download: DownloadId) -> Option<Handle> {
        self.iter().find(|(_, job)| job.granted().is_some_and(|g| g.download == download)).map(|(handle, _)| handle)
    }

    /// Returns the download of an object.
    pub(super) fn of_object(&self, object: &ObjectRef) -> Option<(Handle, &Job)> {
        self.iter().find(|(_, job)| job.record.object == *object)
    }

    /// Returns an object that has this version, if a download has a grant for it.
    pub(super) fn object_of(&self, version: VersionId) -> Option<ObjectRef> {
        self.jobs.values().find(|job| job.is_of(version)).map(|job| job.record.object.clone())
    }

    /// Returns whether a download has a grant for this version.
    pub(super) fn has_version(&self, version: VersionId) -> bool {
        self.jobs.values().any(|job| job.is_of(version))
    }

    /// Returns the versions that the downloads' grants are for.
    pub(super) fn versions(&self) -> impl Iterator<Item = VersionId> {
        self.jobs.values().filter_map(Job::granted).map(|granted| granted.version)
    }

    /// Returns whether a download is active.
    pub(super) fn is_active(&self, handle: Handle) -> bool {
        self.get(handle).is_some_and(Job::is_active)
    }

    /// Returns whether any download is active.
    pub(super) fn has_active(&self) -> bool {
        self.jobs.values().any(Job::is_active)
    }

    /// Adds a download of an object that is to be stored at the path `output`, and to take the place of a file there
    /// if `replace` is set; returns its handle.
    pub(super) fn add(&mut self, now: Time, object: ObjectRef, (output, replace): (String, bool)) -> Handle {
        let handle = self.next_handle.step();
        let state = DownloadState::Starting;
        let record =
            DownloadRecord { handle, object, output, replace, granted: None, state, usage_seq: 0, active_ms: 0 };
        let before = self.jobs.insert(handle, Job::new(record, Bitfield::empty(0), Vec::new(), now));
        debug_assert!(before.is_none(), "a handle is given once");
        handle
    }

    /// Adds a download from the store.
    pub(super) fn restore(&mut self, job: Job) {
        let handle = job.record.handle;
        self.next_handle = Handle(self.next_handle.0.max(handle.0.saturating_add(1)));
        self.jobs.insert(handle, job);
    }

    /// Removes a download with its timers.
    pub(super) fn remove(&mut self, common: &mut Common, handle: Handle) -> Option<Job> {
        common.timers.clear(Timer::Download(handle));
        common.timers.clear(Timer::Room(handle));
        self.jobs.remove(&handle)
    }

    /// Saves the download's record; `answer` is the number of the command to be answered when that is durable.
    pub(super) fn save_record(&self, common: &mut Common, cx: &mut Context<'_>, handle: Handle, answer: Option<ReqId>) {
        let Some(job) = self.get(handle) else { return };
        let record = job.record.clone();
        common.save(cx, Save::Download(record), Saving::Command { answer, handle: Some(handle) });
    }

    pub(super) fn set_state(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        if let Some(job) = self.get_mut(handle) {
            job.count_time(cx.now);
            job.record.state = state;
            job.fetching_since = (state == DownloadState::Running).then_some(cx.now);
            job.notify_status(cx);
        }
    }

    /// Drops what a download needs from edges and peers, and sets its new state.
    pub(super) fn halt(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
        state: DownloadState,
    ) {
        let Some(job) = self.get_mut(handle) else { return };
        job.need = None;
        job.newest = false;
        job.search.stop();
        if let Some(req) = job.asked.take() {
            edges.take(req);
        }
        for timer in [Timer::Ask(handle), Timer::Renew(handle), Timer::Alone(handle)] {
            common.timers.clear(timer);
        }
        self.set_state(cx, handle, state);
        self.set_room_timer(common, cx, handle, state);
    }

    /// Reports every download's status to the user, and sets the timer for the next report.
    pub(super) fn notify_all_statuses(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        for job in self.jobs.values_mut() {
            job.notify_status(cx);
        }
        common.timers.clear(Timer::Status);
        if self.has_active() {
            common.report_status_later(cx);
        }
    }

    /// Notes that a swarm's transfer has begun.
    pub(super) fn begin_fetch(&mut self, xfer: XferId, source: download::Source) {
        let before = self.fetches.insert(xfer, source);
        debug_assert!(before.is_none(), "a transfer's number is given once");
    }

    /// Cancels a transfer. It goes on until [`super::Input::FetchEnded`] comes.
    pub(super) fn cancel_fetch(&self, cx: &mut Context<'_>, xfer: XferId) {
        match self.fetches.get(&xfer) {
            Some(download::Source::Edge(_)) => cx.push(Output::Edge(EdgeOutput::CancelFetch { xfer })),
            Some(download::Source::Peer(_)) => cx.push(Output::Peer(PeerOutput::CancelFetch { xfer })),
            // a swarm cancels only transfers that have not ended
            None => debug_assert!(false, "a cancelled transfer is under way"),
        }
    }

    /// Notes that a transfer has ended.
    pub(super) fn end_fetch(&mut self, xfer: XferId) {
        self.fetches.remove(&xfer);
    }

    /// Returns whether a transfer has not ended.
    pub(super) fn is_fetching(&self) -> bool {
        !self.fetches.is_empty()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        for job in self.jobs.values_mut() {
            job.began = job.began.rebased(by);
            job.fetching_since = job.fetching_since.map(|since| since.rebased(by));
            job.asking_since = job.asking_since.rebased(by);
            if let Some(swarm) = &mut job.swarm {
                swarm.rebase(by);
            }
        }
    }

    /// Asserts the invariants of each download and of the transfers.
    pub(super) fn check(&self) {
        assert!(self.jobs.keys().all(|handle| *handle < self.next_handle), "a handle is given once");
        for (handle, job) in self.iter() {
            assert!(handle == job.record.handle, "a record has the handle of its download");
            if let Some(swarm) = &job.swarm {
                swarm.check();
                let under_way = swarm.under_way().all(|(xfer, ..)| self.fetches.contains_key(&xfer));
                assert!(under_way, "a transfer of a swarm has not ended");
            }
            job.check();
        }
        assert!(self.fetches.keys().all(|xfer| xfer.handle() < self.next_handle), "a transfer has a download");
    }
}

#[cfg(test)]
impl Jobs {
    /// Corruptions of downloads of which the first fetches from peers, each with the message of the assertion in
    /// `check` that it must break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 8] = [
        ("a handle is given once", |all| all.next_handle = Handle(0)),
        ("a record has the handle of its download", |all| all.first().record.handle = Handle(77)),
        ("a transfer of a swarm has not ended", |all| all.fetches.clear()),
        ("a transfer has a download", |all| all.begin_fetch(XferId(77 << 32), download::Source::Edge(0))),
        ("only a granted download has a swarm", |all| all.first().record.granted = None),
        ("a download that is not active needs nothing", |all| all.first().record.state = DownloadState::Paused),
        ("fetching time runs only while fetching", |all| all.first().record.state = DownloadState::Starting),
        ("a download that is not active wants no peers", |all| {
            all.first().record.state = DownloadState::Paused;
            all.first().fetching_since = None;
        }),
    ];

    /// Returns the download with the lowest handle.
    pub(super) fn first(&mut self) -> &mut Job {
        self.jobs.values_mut().next().expect("a download")
    }
}

impl Client {
    /// Continues a download: requests from an edge what is still needed, or starts the swarm.
    pub(super) fn continue_download(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let next = self.jobs.continue_download(&mut self.common, &mut self.edges, cx, handle);
        self.proceed(cx, handle, next);
    }

    /// Starts the swarm of a download whose version and layout are known.
    pub(super) fn start_swarm(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.jobs.set_state(cx, handle, DownloadState::Running);
        // it may have waited for an edge so long that no report was due any more
        if let Some(began) = self.jobs.get(handle).map(|job| job.began) {
            self.common.report_soon(cx, began);
        }
        self.set_budgets(cx);
        let edges = self.edges.known();
        self.run(cx, handle, |swarm, cx| {
            swarm.handle_input(cx, download::Input::Edges(edges));
            swarm.handle_input(cx, download::Input::Start);
        });
        self.want_peers(cx, handle);
    }

    /// Divides the maximum number of requested bytes equally among the active downloads.
    pub(super) fn set_budgets(&mut self, cx: &mut Context<'_>) {
        let running = self.jobs.active();
        let each = cx.cfg.budget / (running.len() as u64).max(1);
        for handle in running {
            self.tell_swarm(cx, handle, download::Input::Budget(each));
        }
    }

    /// Stops a download's fetching, its requests to edges and its peer links, and sets its new state.
    pub(super) fn halt(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        self.tell_swarm(cx, handle, download::Input::Stop);
        self.jobs.halt(&mut self.common, &mut self.edges, cx, handle, state);
        let Some(job) = self.jobs.get(handle) else { return };
        if let Some(download) = job.granted().map(|granted| granted.download) {
            self.tell_session(cx, session::Input::Unwant { download });
        }
        self.end_links_of(cx, handle);
        debug_assert!(self.links.of(handle).next().is_none(), "a halted download has no links");
        self.set_budgets(cx);
    }

    /// Fails a download with a reason for the user. Durable pieces are kept.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, handle: Handle, why: FailReason) {
        self.halt(cx, handle, DownloadState::Failed(why));
        self.jobs.report(&mut self.common, cx, handle, UsageState::Failed);
        self.jobs.save_record(&mut self.common, cx, handle, None);
    }
}
