//! Requests to edges: bootstrap, grants, renewals and manifests; their retries and errors.

use super::edges::Ask;
use super::io::{DownloadState, EdgeAnswer, EdgeAsk, EdgeError, FailReason, Granted, NoPeers};
use super::job::Need;
use super::{Client, Context, Timer};
use crate::accounting::grants;
use crate::content::{Bitfield, Layout};
use crate::ids::{Handle, ReqId};
use crate::session::Wall;
use crate::session::client as session;
use crate::swarm::Download;
use crate::swarm::download;
use crate::wire::records::UsageState;
use alloc::vec::Vec;
use core::time::Duration;

impl Client {
    /// Requests the lists of CNs and edges, unless such a request is pending.
    pub(super) fn bootstrap(&mut self, cx: &mut Context<'_>) {
        if !self.edges.is_bootstrapping() {
            self.ask_edge(cx, self.edges.current(), Ask::Bootstrap, EdgeAsk::Bootstrap);
        }
    }

    /// Sends a request to an edge; returns its number.
    pub(super) fn ask_edge(&mut self, cx: &mut Context<'_>, edge: u32, purpose: Ask, ask: EdgeAsk) -> ReqId {
        let req = self.next_req.step();
        self.edges.ask(cx, (req, edge), purpose, ask);
        req
    }

    /// Requests from an edge what a download needs; replaces the download's pending request, if any.
    pub(super) fn ask_for(&mut self, cx: &mut Context<'_>, handle: Handle, need: Need) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        self.timers.clear(Timer::Ask(handle));
        if let Some(old) = job.asked.take() {
            self.edges.take(old);
        }
        let granted = job.granted();
        let object = job.record.object.clone();
        let ask = match (need, granted) {
            (Need::Grant { keep }, granted) => {
                let version = granted.filter(|_| keep).map(|g| g.version);
                EdgeAsk::Grant { object, renew: None, download: None, edge_only: false, version }
            }
            (Need::Renewal | Need::EdgeOnly, Some(g)) => EdgeAsk::Grant {
                object,
                renew: Some(g.sealed.clone()),
                download: Some(g.download),
                edge_only: need == Need::EdgeOnly,
                version: Some(g.version),
            },
            (Need::Manifest, Some(g)) => EdgeAsk::Manifest { version: g.version, grant: g.sealed.clone() },
            (Need::Renewal | Need::EdgeOnly | Need::Manifest, None) => {
                EdgeAsk::Grant { object, renew: None, download: None, edge_only: false, version: None }
            }
        };
        let req = self.next_req.step();
        job.need = Some(need);
        job.asked = Some(req);
        self.edges.ask(cx, (req, self.edges.current()), Ask::Job(handle), ask);
    }

    pub(super) fn on_edge_answer(&mut self, cx: &mut Context<'_>, req: ReqId, answer: Result<EdgeAnswer, EdgeError>) {
        let Some(ask) = self.edges.take(req) else { return };
        if matches!(answer, Err(EdgeError::Unreachable | EdgeError::Unavailable | EdgeError::Busy { .. })) {
            self.edges.turn();
        }
        self.edges_away |= matches!(answer, Err(EdgeError::Unreachable));
        let back = answer.is_ok() && self.edges_away;
        match ask {
            Ask::Bootstrap => self.on_bootstrap_answer(cx, answer),
            Ask::Job(handle) => self.on_job_answer(cx, (handle, req), answer),
            Ask::Completed { handle, edge, tries } => self.on_completed_answer(cx, (handle, edge, tries), answer),
            Ask::Recheck(version) => self.on_recheck_answer(cx, version, answer),
            Ask::Proof => {}
        }
        if back {
            self.on_edges_back(cx);
        }
    }

    /// Handles the answer to a download's request.
    fn on_job_answer(
        &mut self,
        cx: &mut Context<'_>,
        (handle, req): (Handle, ReqId),
        answer: Result<EdgeAnswer, EdgeError>,
    ) {
        let Some(job) = self.jobs.get_mut(&handle).filter(|j| j.asked == Some(req)) else { return };
        job.asked = None;
        job.unanswered = matches!(answer, Err(EdgeError::Unreachable));
        let asked_manifest = job.need == Some(Need::Manifest);
        match answer {
            Ok(EdgeAnswer::Granted(granted)) if !asked_manifest => {
                job.ask_backoff.succeeded();
                self.on_granted(cx, handle, granted);
            }
            Ok(EdgeAnswer::Manifest { layout }) if asked_manifest => {
                job.ask_backoff.succeeded();
                self.on_manifest(cx, handle, layout);
            }
            // an answer of another kind than requested
            Ok(
                EdgeAnswer::Granted(_)
                | EdgeAnswer::Manifest { .. }
                | EdgeAnswer::Bootstrap { .. }
                | EdgeAnswer::Challenged(_)
                | EdgeAnswer::ProofTaken,
            ) => self.on_ask_failed(cx, handle, EdgeError::Invalid),
            Err(why) => self.on_ask_failed(cx, handle, why),
        }
    }

    fn on_bootstrap_answer(&mut self, cx: &mut Context<'_>, answer: Result<EdgeAnswer, EdgeError>) {
        let Ok(EdgeAnswer::Bootstrap { cns, edges, now_ms }) = answer else {
            let wait = self.edges.backoff().failed(cx.cfg.ask_backoff, cx.rng).max(Duration::from_millis(1));
            self.timers.set(Timer::Bootstrap, Some(cx.now.after(wait)));
            self.bootstrap_failed = true;
            return;
        };
        self.timers.set(Timer::Bootstrap, Some(cx.now.after(cx.cfg.bootstrap_every)));
        self.bootstrap_failed = false;
        self.edges.learn(edges);
        let handles: Vec<_> = self.jobs.keys().copied().collect();
        for handle in handles {
            self.tell_swarm(cx, handle, download::Input::Edges(self.edges.known()));
        }
        self.learn_wall(cx, Wall::showing(now_ms, cx.now));
        self.tell_session(cx, session::Input::Servers { cns, now_ms });
    }

    /// Stores the time of the wall clock, passes it to the uploads, and sets the timers that renew grants.
    pub(super) fn learn_wall(&mut self, cx: &mut Context<'_>, wall: Wall) {
        self.wall = Some(wall);
        self.tell_uploads(cx, crate::swarm::upload::Input::Wall(wall));
        self.expire_copies(cx);
        let handles: Vec<_> = self.jobs.keys().copied().collect();
        for handle in handles {
            self.set_renewal(cx, handle);
        }
    }

    /// Sets the timer that renews a running download's grant before it expires.
    fn set_renewal(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let (Some(job), Some(wall)) = (self.jobs.get(&handle), self.wall) else { return };
        let Some(granted) = job.granted().filter(|_| job.is_active()) else { return };
        let left = Duration::from_millis(granted.expires_ms.saturating_sub(wall.at(cx.now)));
        let wait = grants::renew_after(left, cx.cfg.renew_before);
        self.timers.set(Timer::Renew(handle), Some(cx.now.after(wait)));
    }

    fn on_granted(&mut self, cx: &mut Context<'_>, handle: Handle, granted: Granted) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let old = job.granted().map(|g| (g.download, g.version));
        if old.is_some_and(|(download, _)| download != granted.download) {
            // bytes delivered under the old download id get their last usage record under it
            self.report(cx, handle, UsageState::Running);
            self.reset_download_id(cx, handle);
        }
        let same_version = old.is_some_and(|(_, version)| version == granted.version);
        if !same_version {
            self.drop_version(cx, handle);
        }
        let cached = self.versions.pieces(granted.version).cloned();
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        if !same_version && let Some(have) = cached {
            job.have = have;
        }
        job.newest = false;
        let need = job.need.take();
        let version = granted.version;
        // the policy in the newest notice overrides the one in the grant
        let policy = self.notices.policy(version).unwrap_or(&granted.policy).clone();
        job.peers_allowed = granted.policy.peer_download && policy.peer_download;
        if !job.peers_allowed {
            Self::tell_no_peers(cx, handle, NoPeers::Policy);
        } else if need == Some(Need::EdgeOnly) {
            Self::tell_no_peers(cx, handle, NoPeers::EdgesAlone);
        }
        job.record.granted = Some(granted);
        self.hold_notices(cx, version);
        old.into_iter().for_each(|(_, before)| self.release(before));
        self.save_record(cx, handle, None);
        self.versions.set_policy(version, &policy);
        self.expire_copies(cx);
        self.set_renewal(cx, handle);
        let has_swarm = self.jobs.get(&handle).is_some_and(|j| j.swarm.is_some());
        if has_swarm {
            self.tell_swarm(cx, handle, download::Input::Renewed);
            self.start_swarm(cx, handle);
        } else {
            self.ask_for(cx, handle, Need::Manifest);
        }
    }

    /// Resets everything that is counted under the old download id, since the new grant has another one: usage,
    /// introductions, fetching time.
    fn reset_download_id(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.end_links_of(cx, handle);
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let old = job.granted().map(|g| g.download);
        job.counted.clear();
        if let Some(swarm) = &mut job.swarm {
            swarm.begin_new_books();
        }
        job.search.begin_anew();
        job.reported = None;
        job.record.usage_seq = 0;
        job.count_time(cx.now);
        job.record.active_ms = 0;
        if let Some(download) = old {
            self.tell_session(cx, session::Input::Unwant { download });
        }
    }

    /// Drops a download's swarm and pieces, because the object's current version is another one.
    fn drop_version(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.tell_swarm(cx, handle, download::Input::Stop);
        self.end_links_of(cx, handle);
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let old = job.granted().map(|g| g.version);
        job.drop_swarm();
        job.search.stop();
        job.have = Bitfield::empty(0);
        self.timers.clear(Timer::Download(handle));
        if let Some(version) = old.filter(|v| !self.versions.is_cached(*v)) {
            self.unshare(cx, version);
            self.versions.forget_terms(version);
        }
    }

    fn on_manifest(&mut self, cx: &mut Context<'_>, handle: Handle, layout: Layout) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let Some(granted) = job.record.granted.as_ref() else { return };
        if layout.size() != granted.size {
            return self.on_ask_failed(cx, handle, EdgeError::Invalid);
        }
        job.need = None;
        let have = if job.have.len() == layout.pieces() { job.have.clone() } else { Bitfield::empty(layout.pieces()) };
        let spec = download::Spec {
            handle,
            layout,
            have,
            counted: job.counted.clone(),
            order_seed: granted.order_seed,
            rate_min: self.notices.policy(granted.version).unwrap_or(&granted.policy).rate_min,
        };
        job.swarm = Some(Download::new(spec, &cx.cfg.download).numbered_from(job.next_xfer));
        self.share_job(cx, handle);
        self.start_swarm(cx, handle);
        self.save_record(cx, handle, None);
    }

    fn on_ask_failed(&mut self, cx: &mut Context<'_>, handle: Handle, why: EdgeError) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let Some(need) = job.need else { return };
        let running = job.record.state == DownloadState::Running;
        match why {
            EdgeError::Unreachable | EdgeError::Unavailable | EdgeError::Uncounted => {
                if need != Need::Manifest && self.goes_on_alone(cx, handle) {
                    return;
                }
                self.ask_later(cx, handle, Duration::ZERO);
            }
            EdgeError::Busy { retry_after_ms } => {
                // a busy edge is reachable, so the start time-out begins anew; of several edges another may have room
                job.asking_since = cx.now;
                let wait_ms = if self.edges.known() > 1 { 0 } else { retry_after_ms };
                self.ask_later(cx, handle, Duration::from_millis(wait_ms.into()));
            }
            EdgeError::Invalid => {
                job.invalid += 1;
                self.edges.turn();
                if job.invalid >= self.edges.known() {
                    self.fail(cx, handle, FailReason::EdgeCorrupt)
                } else {
                    self.ask_later(cx, handle, Duration::ZERO)
                }
            }
            EdgeError::NotFound if running || need == Need::Manifest => self.fail(cx, handle, FailReason::VersionGone),
            EdgeError::NotFound => self.fail(cx, handle, FailReason::NotFound),
            EdgeError::Expired => self.fail(cx, handle, FailReason::Expired),
            EdgeError::Blocked => self.fail(cx, handle, FailReason::Blocked),
            // an earlier grant was issued with this token, so the token has expired since
            EdgeError::Forbidden if matches!(need, Need::Grant { .. }) && job.granted().is_some() => {
                self.fail(cx, handle, FailReason::TokenExpired);
            }
            EdgeError::Forbidden => self.fail(cx, handle, FailReason::Forbidden),
            EdgeError::Changed if job.newest => self.ask_for(cx, handle, Need::Grant { keep: false }),
            EdgeError::Changed => self.fail(cx, handle, FailReason::VersionGone),
            // the grant of the resumed download is too old even to be exchanged for a new one
            EdgeError::GrantExpired if need == (Need::Grant { keep: true }) => {
                self.fail(cx, handle, FailReason::TokenExpired);
            }
            EdgeError::GrantExpired if need == Need::Manifest => self.ask_for(cx, handle, Need::Renewal),
            EdgeError::GrantExpired => self.ask_for(cx, handle, Need::Grant { keep: true }),
        }
    }

    /// Continues a restarted download under its earlier grant, since no edge answers: peers may have the missing
    /// pieces. Returns `false` if it has no grant, is fetching already, or has not waited long enough.
    fn goes_on_alone(&mut self, cx: &mut Context<'_>, handle: Handle) -> bool {
        let Some(job) = self.jobs.get_mut(&handle) else { return false };
        let waited = cx.now.since(job.asking_since) >= cx.cfg.alone_after;
        if !waited || job.granted().is_none() || job.is_void() || job.is_fetching() {
            return false;
        }
        job.newest = false;
        if !cx.cfg.background {
            let until = job.asking_since.after(cx.cfg.start_within);
            self.timers.set(Timer::Alone(handle), Some(until.max(cx.now)));
        }
        if job.swarm.is_none() {
            // the store may have the manifest
            self.ask_for(cx, handle, Need::Manifest);
        } else {
            job.need = None;
            self.start_swarm(cx, handle);
        }
        true
    }

    /// Repeats a download's request to an edge after a back-off of at least `least`. A download without a swarm fails
    /// instead when it has waited for `start_within`, unless the client runs in the background.
    fn ask_later(&mut self, cx: &mut Context<'_>, handle: Handle, least: Duration) {
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let waited = cx.now.since(job.asking_since);
        let left = cx.cfg.start_within.saturating_sub(waited);
        let limited = job.swarm.is_none() && !cx.cfg.background;
        if limited && left.is_zero() {
            return self.fail(cx, handle, FailReason::EdgeUnreachable);
        }
        let (first, longest) = cx.cfg.ask_backoff;
        let longest = longest.max((waited / 4).min(download::EDGE_WAIT_MAX));
        let wait = job.ask_backoff.failed((first, longest), cx.rng).max(least);
        // the last retry comes exactly when the start time-out ends
        let wait = if limited { wait.min(left) } else { wait }.max(Duration::from_millis(1));
        self.timers.set(Timer::Ask(handle), Some(cx.now.after(wait)));
    }

    /// Repeats a download's pending request after its back-off.
    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>, handle: Handle) {
        if let Some(need) = self.jobs.get(&handle).and_then(|j| j.need) {
            self.ask_for(cx, handle, need);
        }
    }

    /// Requests a new grant for a running download, because the old one expires soon, or a CN or edge does not accept
    /// it.
    pub(super) fn renew(&mut self, cx: &mut Context<'_>, handle: Handle, need: Need) {
        let Some(job) = self.jobs.get(&handle) else { return };
        if job.is_active() && job.swarm.is_some() && job.need.is_none() {
            self.ask_for(cx, handle, need);
        }
    }
}
