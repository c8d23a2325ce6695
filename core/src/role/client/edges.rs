//! Edges that a client knows, and its pending requests to them.

use super::Context;
use super::io::{EdgeAsk, EdgeOutput, Output};
use crate::ids::{Handle, ReqId, VersionId};
use crate::session::Backoff;
use alloc::collections::BTreeMap;

/// Purpose of a pending request to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    /// Learn the lists of CNs and edges.
    Bootstrap,
    /// Request a grant, a renewal or the manifest for a download.
    Job(Handle),
    /// Report to an edge that a download is complete; if that fails, up to `tries` other edges are tried.
    Completed { handle: Handle, edge: u32, tries: u8 },
    /// Prove to an edge that a blamed copy of this version is right: get a grant, then a challenge.
    Recheck(VersionId),
    /// Send the proof of possession that an edge has asked for.
    Proof,
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
}

impl Default for Edges {
    fn default() -> Self {
        Self { known: 1, current: 0, pending: BTreeMap::new(), backoff: Backoff::default() }
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

    /// Returns the back-off between requests for the bootstrap.
    pub(super) const fn backoff(&mut self) -> &mut Backoff {
        &mut self.backoff
    }

    /// Sends a request to an edge under the number `req`.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, (req, edge): (ReqId, u32), purpose: Ask, ask: EdgeAsk) {
        let before = self.pending.insert(req, purpose);
        debug_assert!(before.is_none(), "a request's number is given once");
        cx.push(Output::Edge(EdgeOutput::Ask { req, edge, ask }));
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

    /// Asserts that the current edge is known, and that at most one bootstrap request is pending.
    pub(super) fn check(&self) {
        assert!(self.current < self.known, "the edge that is asked is known");
        let bootstraps = self.pending.values().filter(|ask| **ask == Ask::Bootstrap).count();
        assert!(bootstraps <= 1, "one bootstrap is asked for at a time");
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
