//! Edges that a client knows, and its pending requests to them.

use super::Context;
use super::common::{Common, Timer};
use super::io::{EdgeAnswer, EdgeAsk, EdgeError, EdgeOutput, Output};
use crate::ids::{Handle, ReqId, VersionId};
use crate::session::Backoff;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Purpose of a pending request to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    /// Learn the lists of CNs and edges.
    Bootstrap,
    /// Request a grant, a renewal or the manifest for a download.
    Job(Handle),
    /// Report to an edge that a download is complete.
    Completed(Report),
    /// Prove to an edge that a blamed copy of this version is right: get a grant, then a challenge.
    Recheck(VersionId),
    /// Send the proof of possession that an edge has asked for.
    Proof,
}

/// Report to an edge that a download is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Report {
    /// Download that is complete.
    pub(super) handle: Handle,
    /// Edge that gets the report.
    pub(super) edge: u32,
    /// Number of other edges that are tried if this one fails.
    pub(super) tries: u8,
}

/// Edges that the client knows, and its pending requests to them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Edges {
    /// Number of known edges, at least 1.
    known: u32,
    /// Index of the edge that gets the requests for grants and manifests.
    current: u32,
    pending: BTreeMap<ReqId, Ask>,
    /// Back-off between requests for the bootstrap.
    backoff: Backoff,
    /// Whether the last request for the bootstrap has failed.
    bootstrap_failed: bool,
    /// Whether a request has failed to reach any edge, and none has succeeded since.
    away: bool,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            known: 1,
            current: 0,
            pending: BTreeMap::new(),
            backoff: Backoff::default(),
            bootstrap_failed: false,
            away: false,
        }
    }
}

impl Edges {
    /// Returns the number of known edges.
    pub(super) const fn known(&self) -> u32 {
        self.known
    }

    /// Returns the index of the edge that gets the requests for grants and manifests.
    pub(super) const fn current(&self) -> u32 {
        self.current
    }

    /// Returns the index of the edge after `edge`, in the order of the bootstrap's list; the first follows the last.
    pub(super) const fn after(&self, edge: u32) -> u32 {
        edge.saturating_add(1) % self.known
    }

    /// Makes the next edge the current one, because the current one has failed.
    pub(super) const fn turn(&mut self) {
        self.current = self.after(self.current);
    }

    /// Stores the number of edges that a bootstrap answer has named.
    pub(super) fn learn(&mut self, known: u32) {
        self.known = known.max(1);
        self.current %= self.known;
        self.backoff.succeeded();
    }

    /// Sends a request to an edge; returns its number.
    pub(super) fn ask(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        edge: u32,
        purpose: Ask,
        ask: EdgeAsk,
    ) -> ReqId {
        let req = common.next_req();
        let before = self.pending.insert(req, purpose);
        debug_assert!(before.is_none(), "a request's number is given once");
        cx.push(Output::Edge(EdgeOutput::Ask { req, edge, ask }));
        req
    }

    /// Requests the lists of CNs and edges, unless such a request is pending.
    pub(super) fn bootstrap(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        if !self.is_bootstrapping() {
            self.ask(common, cx, self.current, Ask::Bootstrap, EdgeAsk::Bootstrap);
        }
    }

    /// Handles the answer to the bootstrap request, or its failure, and sets the timer for the next one. Returns the
    /// number of CNs and the edge's clock in Unix milliseconds; `None` after a failure.
    pub(super) fn on_bootstrap_answer(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        answer: Result<EdgeAnswer, EdgeError>,
    ) -> Option<(u32, u64)> {
        let Ok(EdgeAnswer::Bootstrap { cns, edges, now_ms }) = answer else {
            let wait = self.backoff.failed(cx.cfg.ask_backoff, cx.rng).max(Duration::from_millis(1));
            common.timers.set(Timer::Bootstrap, Some(cx.now.after(wait)));
            self.bootstrap_failed = true;
            return None;
        };
        common.timers.set(Timer::Bootstrap, Some(cx.now.after(cx.cfg.bootstrap_every)));
        self.bootstrap_failed = false;
        self.learn(edges);
        Some((cns, now_ms))
    }

    /// Notes whether an edge has answered; the next one becomes the current one if this one cannot. Returns whether an
    /// edge answers again after an outage, so that [`Edges::on_back`] is to be called.
    pub(super) fn on_answer(&mut self, answer: &Result<EdgeAnswer, EdgeError>) -> bool {
        if matches!(answer, Err(EdgeError::Unreachable | EdgeError::Unavailable | EdgeError::Busy { .. })) {
            self.turn();
        }
        self.away |= matches!(answer, Err(EdgeError::Unreachable));
        answer.is_ok() && self.away
    }

    /// Repeats the bootstrap request at once if it has failed, since an edge answers now or the network has changed.
    pub(super) fn on_back(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        let was_away = core::mem::take(&mut self.away);
        if was_away && common.timers.get(Timer::Bootstrap).is_some() && self.bootstrap_failed {
            self.bootstrap(common, cx);
        }
    }

    /// Removes a pending request, which is answered or no longer needed, and returns its purpose.
    pub(super) fn take(&mut self, req: ReqId) -> Option<Ask> {
        self.pending.remove(&req)
    }

    /// Returns whether a bootstrap request is pending.
    pub(super) fn is_bootstrapping(&self) -> bool {
        self.pending.values().any(|ask| *ask == Ask::Bootstrap)
    }

    /// Returns the pending requests.
    pub(super) const fn pending(&self) -> &BTreeMap<ReqId, Ask> {
        &self.pending
    }

    /// Returns the versions for whose proof of possession an answer is awaited.
    pub(super) fn rechecked(&self) -> impl Iterator<Item = VersionId> {
        self.pending.values().filter_map(|ask| if let Ask::Recheck(version) = ask { Some(*version) } else { None })
    }

    /// Asserts that the current edge is known, and that the bootstrap is asked for once, or will be.
    pub(super) fn check(&self, common: &Common) {
        assert!(self.current < self.known, "the edge that is asked is known");
        let bootstraps = self.pending.values().filter(|ask| **ask == Ask::Bootstrap).count();
        assert!(bootstraps <= 1, "one bootstrap is asked for at a time");
        let waits = common.timers.get(Timer::Bootstrap).is_some();
        let started = common.timers.get(Timer::Start).is_none() && !common.is_stopped();
        assert!(!started || waits || bootstraps == 1, "the bootstrap is asked for again");
    }
}

#[cfg(test)]
impl Edges {
    /// Corruptions of edges with a pending bootstrap request, each with the message of the assertion in `check` that
    /// it must break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 2] = [
        ("the edge that is asked is known", |edges| edges.current = 77),
        ("one bootstrap is asked for at a time", |edges| edges.note(ReqId(1 << 31), Ask::Bootstrap)),
    ];

    /// Adds a pending request that was never sent.
    pub(super) fn note(&mut self, req: ReqId, purpose: Ask) {
        self.pending.insert(req, purpose);
    }
}
