//! One download as the client sees it: its record, what is being asked of an edge for it, and its swarm.

use super::io::{DownloadRecord, DownloadState, DownloadStatus, Granted, Save};
use super::sharing::millis_between;
use super::{Client, Context, Saving, Timer};
use crate::Time;
use crate::content::Bitfield;
use crate::ids::{Handle, PublicKey, ReqId};
use crate::limits::USAGE_SOURCES_MAX;
use crate::role::client::io::{FailReason, Notice, Output, SourceName};
use crate::session::Backoff;
use crate::session::client as session;
use crate::swarm::Download;
use crate::swarm::download;
use crate::wire::records::UsageState;
use alloc::vec::Vec;

/// What an edge is to be asked for a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// Its first grant, or one in place of a grant that is too old to be renewed. `keep`: of the version it has.
    Grant { keep: bool },
    /// A renewal of its grant.
    Renewal,
    /// A grant without peers in the place of its own, whose bytes no edge can count.
    EdgeOnly,
    /// The manifest of its version.
    Manifest,
}

/// A download. Its version never changes while it has a swarm.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Job {
    pub(super) record: DownloadRecord,
    /// What is durable of its version, until the swarm knows it better.
    pub(super) have: Bitfield,
    /// Who delivered it.
    pub(super) counted: Vec<(SourceName, u64)>,
    pub(super) swarm: Option<Download>,
    /// The number of the next swarm's first transfer.
    pub(super) next_xfer: u32,
    /// What an edge must still say, and the request under way for it.
    pub(super) need: Option<Need>,
    pub(super) asked: Option<ReqId>,
    pub(super) ask_backoff: Backoff,
    /// Since when no edge has answered.
    pub(super) asking_since: Time,
    /// Wrong answers.
    pub(super) invalid: u32,
    /// The user has asked for the object as it is now: another version may take this one's place.
    pub(super) newest: bool,
    /// The provider and the CN let it have peers.
    pub(super) peers_allowed: bool,
    /// K_u of peers that it has, or has tried in vain.
    pub(super) tried: Vec<PublicKey>,
    /// K_u of peers that were tried in vain and may be, or have been, tried once more.
    pub(super) retried: Vec<PublicKey>,
    /// The way to a peer was lost: the control session is to ask at once.
    pub(super) soon: bool,
    /// What the control session was last told to want: how many, and how long `tried` was.
    pub(super) wanted: Option<(u8, usize)>,
    /// When it began in this life of the client.
    pub(super) began: Time,
    /// Since when the time that it is fetching is not in its record yet; none while it is not.
    pub(super) fetching_since: Option<Time>,
    /// Bytes in its last usage record.
    pub(super) reported: Option<u64>,
    /// What the user was last told.
    pub(super) told: Option<DownloadStatus>,
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
            asking_since: now,
            invalid: 0,
            newest: false,
            peers_allowed: true,
            tried: Vec::new(),
            retried: Vec::new(),
            soon: false,
            wanted: None,
            began: now,
            fetching_since: None,
            reported: None,
            told: None,
        }
    }

    /// Its grant.
    pub(super) const fn granted(&self) -> Option<&Granted> {
        self.record.granted.as_ref()
    }

    /// It has no swarm any more, or another one soon.
    pub(super) fn drop_swarm(&mut self) {
        if let Some(swarm) = self.swarm.take() {
            self.next_xfer = swarm.next_xfer();
        }
    }

    /// Whether it is to go on by itself.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self.record.state, DownloadState::Starting | DownloadState::Running)
    }

    fn sum(&self, of: impl Fn(SourceName) -> bool) -> u64 {
        self.counted_bytes().iter().filter(|(name, _)| of(*name)).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of durable pieces by who delivered them, under this download's id.
    pub(super) fn counted_bytes(&self) -> Vec<(SourceName, u64)> {
        self.swarm.as_ref().map_or_else(|| self.counted.clone(), |s| s.counted().collect())
    }

    /// How many more introductions its usage record can name beside those that count and these links: bytes of one
    /// that finds no place in it would be nobody's.
    pub(super) fn nameable(&self, links: usize) -> usize {
        let of_peer = |(name, _): &(SourceName, u64)| *name != SourceName::Edge;
        let all = self.swarm.as_ref().map(|s| s.counted().filter(of_peer).count());
        let counted = all.unwrap_or_else(|| self.counted.iter().filter(|c| of_peer(c)).count());
        USAGE_SOURCES_MAX.saturating_sub(counted + links)
    }

    /// Takes the time that it has been fetching into its record.
    pub(super) fn count_time(&mut self, now: Time) {
        if let Some(since) = &mut self.fetching_since {
            self.record.active_ms = self.record.active_ms.saturating_add(millis_between(*since, now));
            *since = now;
        }
    }

    /// Bytes of durable pieces.
    fn durable(&self) -> u64 {
        let size = self.granted().map_or(0, |g| g.size);
        match &self.swarm {
            Some(swarm) => swarm.durable_bytes(),
            None if !self.have.is_empty() && self.have.is_full() => size,
            // without the layout: close enough for a download that is not running
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
    /// Makes the job's record durable; `answer`: a command is done once it is.
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
            self.tell(cx, handle);
        }
    }

    /// Tells the user how a download is, if anything has changed.
    pub(super) fn tell(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let status = job.status();
        if job.told.as_ref() != Some(&status) {
            job.told = Some(status.clone());
            cx.push(Output::Notice(Notice::Download(status)));
        }
    }

    /// Lets a download go on: the edge is asked for what it lacks, or the swarm starts.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>, handle: Handle) {
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

    /// Starts the swarm, whose version and layout are known.
    pub(super) fn start_swarm(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.set_state(cx, handle, DownloadState::Running);
        self.set_budgets(cx);
        let edges = self.edges;
        self.run(cx, handle, |swarm, cx| {
            use crate::Machine as _;
            swarm.handle_input(cx, download::Input::Edges(edges));
            swarm.handle_input(cx, download::Input::Start);
        });
        self.want_peers(cx, handle);
    }

    /// Divides the budget among the downloads that run.
    pub(super) fn set_budgets(&mut self, cx: &mut Context<'_>) {
        let running: Vec<_> = self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect();
        let each = cx.cfg.budget / (running.len() as u64).max(1);
        for handle in running {
            self.tell_swarm(cx, handle, download::Input::Budget(each));
        }
    }

    /// Stops fetching and asking, for whatever reason; the record says which.
    pub(super) fn halt(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        self.tell_swarm(cx, handle, download::Input::Stop);
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        job.need = None;
        job.newest = false;
        job.wanted = None;
        let download = job.granted().map(|g| g.download);
        if let Some(req) = job.asked.take() {
            self.asks.remove(&req);
        }
        for timer in [Timer::Ask(handle), Timer::Renew(handle)] {
            self.timers.clear(timer);
        }
        self.set_state(cx, handle, state);
        if let Some(download) = download {
            self.tell_session(cx, session::Input::Unwant { download });
        }
        self.close_peers_of(cx, handle);
        self.set_budgets(cx);
    }

    /// Gives up, with a reason that tells the user what to do. What is durable stays.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, handle: Handle, why: FailReason) {
        self.halt(cx, handle, DownloadState::Failed(why));
        self.report(cx, handle, UsageState::Failed);
        self.save_record(cx, handle, None);
    }
}
