//! Requests to edges: bootstrap, grants, renewals and manifests; their retries and errors.

use super::blames::Blamed;
use super::common::{Common, Timer};
use super::edges::{Ask, Edges};
use super::io::{DownloadState, EdgeAnswer, EdgeAsk, EdgeError, FailReason, Granted, NoPeers};
use super::job::{Job, Jobs, Need};
use super::peers::tell_no_peers;
use super::{Client, Context};
use crate::Time;
use crate::accounting::grants;
use crate::content::{Bitfield, Layout};
use crate::ids::{Handle, ReqId};
use crate::session::Wall;
use crate::session::client as session;
use crate::swarm::Download;
use crate::swarm::{download, upload};
use crate::wire::records::UsageState;
use core::time::Duration;

/// Next step of a download that has asked an edge for something, or has its answer.
pub(super) enum Next {
    /// The download waits for an answer of an edge, or to ask again.
    Wait,
    /// The download has a new grant.
    Use(Granted),
    /// The download's version has this layout.
    Build(Layout),
    /// The download's swarm starts or goes on.
    Start,
    /// The download fails.
    Fail(FailReason),
}

impl Job {
    /// Returns the request by which an edge gives the download what it needs.
    fn request(&self, need: Need) -> EdgeAsk {
        let object = self.record.object.clone();
        match (need, self.granted()) {
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
        }
    }

    /// Resets everything that is counted under the old download id, since the new grant has another one: usage,
    /// introductions, fetching time.
    fn begin_new_books(&mut self, now: Time) {
        self.counted.clear();
        if let Some(swarm) = &mut self.swarm {
            swarm.begin_new_books();
        }
        self.search.begin_anew();
        self.reported = None;
        self.record.usage_seq = 0;
        self.count_time(now);
        self.record.active_ms = 0;
    }

    /// Makes the swarm, now that the version's layout is known. `rate_min` is the provider's minimum rate.
    fn make_swarm(&mut self, cfg: &download::Config, layout: Layout, rate_min: u64) {
        let Some(granted) = self.record.granted.as_ref() else { return };
        let fits = self.have.len() == layout.pieces();
        let have = if fits { self.have.clone() } else { Bitfield::empty(layout.pieces()) };
        let spec = download::Spec {
            handle: self.record.handle,
            layout,
            have,
            counted: self.counted.clone(),
            order_seed: granted.order_seed,
            rate_min,
        };
        self.swarm = Some(Download::new(spec, cfg).numbered_from(self.next_xfer));
    }
}

impl Jobs {
    /// Continues a download: requests from an edge what is still needed, if anything.
    pub(super) fn continue_download(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
    ) -> Next {
        let Some(job) = self.get_mut(handle) else { return Next::Wait };
        job.asking_since = cx.now;
        job.invalid = 0;
        let need = match (job.granted(), &job.swarm) {
            (None, _) => Need::Grant { keep: false },
            (Some(_), _) if job.is_void() => Need::Grant { keep: !job.newest },
            (Some(_), _) if job.newest => Need::Renewal,
            (Some(_), None) => Need::Manifest,
            (Some(_), Some(_)) => return Next::Start,
        };
        self.ask_for(common, edges, cx, handle, need)
    }

    /// Requests from an edge what a download needs; replaces the download's pending request, if any.
    pub(super) fn ask_for(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
        need: Need,
    ) -> Next {
        let Some(job) = self.get_mut(handle) else { return Next::Wait };
        common.timers.clear(Timer::Ask(handle));
        if let Some(old) = job.asked.take() {
            edges.take(old);
        }
        let ask = job.request(need);
        job.need = Some(need);
        job.asked = Some(edges.ask(common, cx, edges.current(), Ask::Job(handle), ask));
        Next::Wait
    }

    /// Returns whether a download waits for the answer to this request.
    fn waits_for(&self, handle: Handle, req: ReqId) -> bool {
        self.get(handle).is_some_and(|job| job.asked == Some(req))
    }

    /// Handles the answer to a download's request.
    fn on_answer(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
        answer: Result<EdgeAnswer, EdgeError>,
    ) -> Next {
        let Some(job) = self.get_mut(handle) else { return Next::Wait };
        job.asked = None;
        job.unanswered = matches!(answer, Err(EdgeError::Unreachable));
        let asked_manifest = job.need == Some(Need::Manifest);
        let why = match answer {
            Ok(EdgeAnswer::Granted(granted)) if !asked_manifest => {
                job.ask_backoff.succeeded();
                return Next::Use(granted);
            }
            Ok(EdgeAnswer::Manifest { layout }) if asked_manifest => {
                job.ask_backoff.succeeded();
                match job.granted() {
                    None => return Next::Wait,
                    Some(granted) if layout.size() == granted.size => return Next::Build(layout),
                    Some(_) => EdgeError::Invalid,
                }
            }
            // an answer of another kind than requested
            Ok(
                EdgeAnswer::Granted(_)
                | EdgeAnswer::Manifest { .. }
                | EdgeAnswer::Bootstrap { .. }
                | EdgeAnswer::Challenged(_)
                | EdgeAnswer::ProofTaken,
            ) => EdgeError::Invalid,
            Err(why) => why,
        };
        self.on_ask_failed(common, edges, cx, handle, why)
    }

    /// Handles an edge's refusal or silence: asks again later, asks for something else, or fails the download.
    fn on_ask_failed(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
        why: EdgeError,
    ) -> Next {
        let Some(job) = self.get_mut(handle) else { return Next::Wait };
        let Some(need) = job.need else { return Next::Wait };
        let running = job.record.state == DownloadState::Running;
        match why {
            EdgeError::Unreachable | EdgeError::Unavailable | EdgeError::Uncounted => {
                let alone = if need == Need::Manifest { None } else { self.go_on_alone(common, edges, cx, handle) };
                alone.unwrap_or_else(|| self.ask_later(common, cx, handle, Duration::ZERO))
            }
            EdgeError::Busy { retry_after_ms } => {
                // a busy edge is reachable, so the start time-out begins anew; of several edges another may have room
                job.asking_since = cx.now;
                let wait_ms = if edges.known() > 1 { 0 } else { retry_after_ms };
                self.ask_later(common, cx, handle, Duration::from_millis(wait_ms.into()))
            }
            EdgeError::Invalid => {
                job.invalid += 1;
                edges.turn();
                if job.invalid >= edges.known() {
                    Next::Fail(FailReason::EdgeCorrupt)
                } else {
                    self.ask_later(common, cx, handle, Duration::ZERO)
                }
            }
            EdgeError::NotFound if running || need == Need::Manifest => Next::Fail(FailReason::VersionGone),
            EdgeError::NotFound => Next::Fail(FailReason::NotFound),
            EdgeError::Expired => Next::Fail(FailReason::Expired),
            EdgeError::Blocked => Next::Fail(FailReason::Blocked),
            // an earlier grant was issued with this token, so the token has expired since
            EdgeError::Forbidden if matches!(need, Need::Grant { .. }) && job.granted().is_some() => {
                Next::Fail(FailReason::TokenExpired)
            }
            EdgeError::Forbidden => Next::Fail(FailReason::Forbidden),
            EdgeError::Changed if job.newest => self.ask_for(common, edges, cx, handle, Need::Grant { keep: false }),
            EdgeError::Changed => Next::Fail(FailReason::VersionGone),
            // the grant of the resumed download is too old even to be exchanged for a new one
            EdgeError::GrantExpired if need == (Need::Grant { keep: true }) => Next::Fail(FailReason::TokenExpired),
            EdgeError::GrantExpired if need == Need::Manifest => self.ask_for(common, edges, cx, handle, Need::Renewal),
            EdgeError::GrantExpired => self.ask_for(common, edges, cx, handle, Need::Grant { keep: true }),
        }
    }

    /// Continues a restarted download under its earlier grant, since no edge answers: peers may have the missing
    /// pieces. Returns `None` if it has no grant, is fetching already, or has not waited long enough.
    fn go_on_alone(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
    ) -> Option<Next> {
        let job = self.get_mut(handle)?;
        let waited = cx.now.since(job.asking_since) >= cx.cfg.alone_after;
        if !waited || job.granted().is_none() || job.is_void() || job.is_fetching() {
            return None;
        }
        job.newest = false;
        if !cx.cfg.background {
            let until = job.asking_since.after(cx.cfg.start_within);
            common.timers.set(Timer::Alone(handle), Some(until.max(cx.now)));
        }
        if job.swarm.is_none() {
            // the store may have the manifest
            return Some(self.ask_for(common, edges, cx, handle, Need::Manifest));
        }
        job.need = None;
        Some(Next::Start)
    }

    /// Repeats a download's request to an edge after a back-off of at least `least`. A download without a swarm fails
    /// instead when it has waited for `start_within`, unless the client runs in the background.
    fn ask_later(&mut self, common: &mut Common, cx: &mut Context<'_>, handle: Handle, least: Duration) -> Next {
        let Some(job) = self.get_mut(handle) else { return Next::Wait };
        let waited = cx.now.since(job.asking_since);
        let left = cx.cfg.start_within.saturating_sub(waited);
        let limited = job.swarm.is_none() && !cx.cfg.background;
        if limited && left.is_zero() {
            return Next::Fail(FailReason::EdgeUnreachable);
        }
        let (first, longest) = cx.cfg.ask_backoff;
        let longest = longest.max((waited / 4).min(download::EDGE_WAIT_MAX));
        let wait = job.ask_backoff.failed((first, longest), cx.rng).max(least);
        // the last retry comes exactly when the start time-out ends
        let wait = if limited { wait.min(left) } else { wait }.max(Duration::from_millis(1));
        common.timers.set(Timer::Ask(handle), Some(cx.now.after(wait)));
        Next::Wait
    }

    /// Repeats a download's pending request after its back-off.
    pub(super) fn ask_again(&mut self, common: &mut Common, edges: &mut Edges, cx: &mut Context<'_>, handle: Handle) {
        if let Some(need) = self.get(handle).and_then(|job| job.need) {
            self.ask_for(common, edges, cx, handle, need);
        }
    }

    /// Requests a new grant for a running download, because the old one expires soon, or a CN or edge does not accept
    /// it.
    pub(super) fn renew(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        handle: Handle,
        need: Need,
    ) {
        let Some(job) = self.get(handle) else { return };
        if job.is_active() && job.swarm.is_some() && job.need.is_none() {
            self.ask_for(common, edges, cx, handle, need);
        }
    }

    /// Sets the timer that renews a running download's grant before it expires.
    fn set_renewal(&self, common: &mut Common, cx: &Context<'_>, handle: Handle) {
        let (Some(job), Some(now_ms)) = (self.get(handle), common.wall_ms(cx.now)) else { return };
        let Some(granted) = job.granted().filter(|_| job.is_active()) else { return };
        let left = Duration::from_millis(granted.expires_ms.saturating_sub(now_ms));
        let wait = grants::renew_after(left, cx.cfg.renew_before);
        common.timers.set(Timer::Renew(handle), Some(cx.now.after(wait)));
    }
}

impl Client {
    pub(super) fn on_edge_answer(&mut self, cx: &mut Context<'_>, req: ReqId, answer: Result<EdgeAnswer, EdgeError>) {
        let Some(ask) = self.edges.take(req) else { return };
        let back = self.edges.on_answer(&answer);
        let (common, edges) = (&mut self.common, &mut self.edges);
        match ask {
            Ask::Bootstrap => self.on_bootstrap_answer(cx, answer),
            Ask::Job(handle) if self.jobs.waits_for(handle, req) => {
                let next = self.jobs.on_answer(common, edges, cx, handle, answer);
                self.proceed(cx, handle, next);
            }
            Ask::Completed(report) => self.jobs.on_completed_answer(common, edges, cx, report, answer),
            Ask::Recheck(version) => {
                let blamed = Blamed { version, object: self.jobs.object_of(version) };
                self.copies.checks.on_answer(common, edges, cx, blamed, answer);
            }
            Ask::Job(_) | Ask::Proof => {}
        }
        if back {
            self.on_edges_back(cx);
        }
    }

    /// Does a download's next step.
    pub(super) fn proceed(&mut self, cx: &mut Context<'_>, handle: Handle, next: Next) {
        match next {
            Next::Wait => {}
            Next::Use(granted) => self.on_granted(cx, handle, granted),
            Next::Build(layout) => self.on_manifest(cx, handle, layout),
            Next::Start => self.start_swarm(cx, handle),
            Next::Fail(why) => self.fail(cx, handle, why),
        }
    }

    fn on_bootstrap_answer(&mut self, cx: &mut Context<'_>, answer: Result<EdgeAnswer, EdgeError>) {
        let Some((cns, now_ms)) = self.edges.on_bootstrap_answer(&mut self.common, cx, answer) else { return };
        for handle in self.jobs.all() {
            self.tell_swarm(cx, handle, download::Input::Edges(self.edges.known()));
        }
        self.learn_wall(cx, Wall::showing(now_ms, cx.now));
        self.tell_session(cx, session::Input::Servers { cns, now_ms });
    }

    /// Stores the time of the wall clock, passes it to the uploads, and sets the timers that renew grants.
    pub(super) fn learn_wall(&mut self, cx: &mut Context<'_>, wall: Wall) {
        self.common.wall = Some(wall);
        self.tell_uploads(cx, upload::Input::Wall(wall));
        self.expire_copies(cx);
        for handle in self.jobs.all() {
            self.jobs.set_renewal(&mut self.common, cx, handle);
        }
    }

    fn on_granted(&mut self, cx: &mut Context<'_>, handle: Handle, granted: Granted) {
        let Some(job) = self.jobs.get(handle) else { return };
        let old = job.granted().map(|g| (g.download, g.version));
        if old.is_some_and(|(download, _)| download != granted.download) {
            // bytes delivered under the old download id get their last usage record under it
            self.jobs.report(&mut self.common, cx, handle, UsageState::Running);
            self.reset_download_id(cx, handle);
        }
        let same_version = old.is_some_and(|(_, version)| version == granted.version);
        if !same_version {
            self.drop_version(cx, handle);
        }
        let cached = self.copies.versions.pieces(granted.version).cloned();
        let Some(job) = self.jobs.get_mut(handle) else { return };
        if !same_version && let Some(have) = cached {
            job.have = have;
        }
        job.newest = false;
        let need = job.need.take();
        let version = granted.version;
        // the policy in the newest notice overrides the one in the grant
        let policy = self.copies.notices.policy(version).unwrap_or(&granted.policy).clone();
        job.peers_allowed = granted.policy.peer_download && policy.peer_download;
        if !job.peers_allowed {
            tell_no_peers(cx, handle, NoPeers::Policy);
        } else if need == Some(Need::EdgeOnly) {
            tell_no_peers(cx, handle, NoPeers::EdgesAlone);
        }
        let ticket = granted.ticket.clone();
        job.record.granted = Some(granted);
        let held = self.copies.notices.hold(version);
        self.tell_held(cx, held);
        old.into_iter().for_each(|(_, before)| self.copies.release(&self.jobs, before));
        self.jobs.save_record(&mut self.common, cx, handle, None);
        self.copies.versions.set_policy(version, &policy);
        ticket.into_iter().for_each(|ticket| self.copies.versions.set_ticket(version, ticket));
        self.expire_copies(cx);
        self.jobs.set_renewal(&mut self.common, cx, handle);
        let has_swarm = self.jobs.get(handle).is_some_and(|j| j.swarm.is_some());
        if has_swarm {
            // the CN may have refused the ticket before this one
            self.share_job(cx, handle);
            self.tell_swarm(cx, handle, download::Input::Renewed);
            self.start_swarm(cx, handle);
        } else {
            self.jobs.ask_for(&mut self.common, &mut self.edges, cx, handle, Need::Manifest);
        }
    }

    /// Ends everything that belongs to a download's old download id, since the new grant has another one.
    fn reset_download_id(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.end_links_of(cx, handle);
        let Some(job) = self.jobs.get_mut(handle) else { return };
        job.begin_new_books(cx.now);
        if let Some(download) = job.granted().map(|g| g.download) {
            self.tell_session(cx, session::Input::Unwant { download });
        }
    }

    /// Drops a download's swarm and pieces, because the object's current version is another one.
    fn drop_version(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.tell_swarm(cx, handle, download::Input::Stop);
        self.end_links_of(cx, handle);
        let Some(job) = self.jobs.get_mut(handle) else { return };
        let old = job.granted().map(|g| g.version);
        job.drop_swarm();
        job.search.stop();
        job.have = Bitfield::empty(0);
        self.common.timers.clear(Timer::Download(handle));
        if let Some(version) = old.filter(|v| !self.copies.versions.is_cached(*v)) {
            self.unshare(cx, version);
            self.copies.versions.forget_terms(version);
        }
    }

    fn on_manifest(&mut self, cx: &mut Context<'_>, handle: Handle, layout: Layout) {
        let Some(job) = self.jobs.get_mut(handle) else { return };
        let Some(granted) = job.granted() else { return };
        let rate_min = self.copies.notices.policy(granted.version).unwrap_or(&granted.policy).rate_min;
        job.need = None;
        job.make_swarm(&cx.cfg.download, layout, rate_min);
        self.share_job(cx, handle);
        self.start_swarm(cx, handle);
        self.jobs.save_record(&mut self.common, cx, handle, None);
    }
}
