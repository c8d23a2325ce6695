//! One download in the client: its record, its pending request to an edge, its peers and its swarm machine.

use super::books::millis_between;
use super::io::{DownloadRecord, DownloadState, DownloadStatus, Granted, Save};
use super::links::Search;
use super::{Client, Context, Saving, Timer};
use crate::Time;
use crate::content::Bitfield;
use crate::ids::{Handle, ReqId};
use crate::limits::USAGE_SOURCES_MAX;
use crate::role::client::io::{FailReason, Notice, Output, SourceName};
use crate::session::Backoff;
use crate::session::client as session;
use crate::swarm::Download;
use crate::swarm::download;
use crate::wire::records::UsageState;
use alloc::vec::Vec;

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
}

impl Client {
    /// Saves the download's record; `answer` is the number of the command to be answered when that is durable.
    pub(super) fn save_record(&mut self, cx: &mut Context<'_>, handle: Handle, answer: Option<ReqId>) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let record = job.record.clone();
        self.save(cx, Save::Download(record), Saving::Command { answer, handle: Some(handle) });
    }

    pub(super) fn set_state(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        if let Some(job) = self.jobs.get_mut(&handle) {
            job.count_time(cx.now);
            job.record.state = state;
            job.fetching_since = (state == DownloadState::Running).then_some(cx.now);
            self.notify_status(cx, handle);
        }
    }

    /// Reports a download's status to the user, if it has changed.
    pub(super) fn notify_status(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let status = job.status();
        if job.last_status.as_ref() != Some(&status) {
            job.last_status = Some(status.clone());
            cx.push(Output::Notice(Notice::Download(status)));
        }
    }

    /// Continues a download: requests from an edge what is still needed, or starts the swarm.
    pub(super) fn continue_download(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        job.asking_since = cx.now;
        job.invalid = 0;
        let need = match (job.granted(), &job.swarm) {
            (None, _) => Some(Need::Grant { keep: false }),
            (Some(_), _) if job.is_void() => Some(Need::Grant { keep: !job.newest }),
            (Some(_), _) if job.newest => Some(Need::Renewal),
            (Some(_), None) => Some(Need::Manifest),
            (Some(_), Some(_)) => None,
        };
        match need {
            Some(need) => self.ask_for(cx, handle, need),
            None => self.start_swarm(cx, handle),
        }
    }

    /// Starts the swarm of a download whose version and layout are known.
    pub(super) fn start_swarm(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.set_state(cx, handle, DownloadState::Running);
        // it may have waited for an edge so long that no report was due any more
        if let Some(began) = self.jobs.get(&handle).map(|job| job.began) {
            self.report_soon(cx, began);
        }
        self.set_budgets(cx);
        let edges = self.edges.known();
        self.run(cx, handle, |swarm, cx| {
            use crate::Machine as _;
            swarm.handle_input(cx, download::Input::Edges(edges));
            swarm.handle_input(cx, download::Input::Start);
        });
        self.want_peers(cx, handle);
    }

    /// Divides the maximum number of requested bytes equally among the active downloads.
    pub(super) fn set_budgets(&mut self, cx: &mut Context<'_>) {
        let running: Vec<_> = self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect();
        let each = cx.cfg.budget / (running.len() as u64).max(1);
        for handle in running {
            self.tell_swarm(cx, handle, download::Input::Budget(each));
        }
    }

    /// Stops a download's fetching, its requests to edges and its peer links, and sets its new state.
    pub(super) fn halt(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        self.tell_swarm(cx, handle, download::Input::Stop);
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        job.need = None;
        job.newest = false;
        job.search.stop();
        let download = job.granted().map(|g| g.download);
        if let Some(req) = job.asked.take() {
            self.edges.take(req);
        }
        for timer in [Timer::Ask(handle), Timer::Renew(handle), Timer::Alone(handle)] {
            self.timers.clear(timer);
        }
        self.set_state(cx, handle, state);
        self.set_room_timer(cx, handle, state);
        if let Some(download) = download {
            self.tell_session(cx, session::Input::Unwant { download });
        }
        self.end_links_of(cx, handle);
        debug_assert!(self.links.of(handle).next().is_none(), "a halted download has no links");
        self.set_budgets(cx);
    }

    /// Fails a download with a reason for the user. Durable pieces are kept.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, handle: Handle, why: FailReason) {
        self.halt(cx, handle, DownloadState::Failed(why));
        self.report(cx, handle, UsageState::Failed);
        self.save_record(cx, handle, None);
    }
}
