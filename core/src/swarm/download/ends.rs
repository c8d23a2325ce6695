//! Handles progress and ends of a download's transfers, and disconnects or replaces sources that failed.

use super::assign::stall_after;
use super::io::{EDGE_WAIT_MAX, Output, Source};
use super::source::Xfer;
use super::{Download, EdgeHold, Timer};
use crate::Cx;
use crate::ids::{ConnId, PieceIndex, XferId};
use crate::limits::BLOCK_LEN;
use crate::swarm::outcome::{CloseReason, EdgeError, FailReason, FetchEnd, SourceName};
use crate::wire::peer::RefuseCode;
use alloc::vec::Vec;
use core::time::Duration;

/// Number of consecutive failed transfers, none proven to be the peer's fault, after which a peer is disconnected.
pub(super) const STRIKES: u8 = 3;

impl Download {
    /// Counts a transfer's progress. The last block counts only when the transfer has ended, since then all of it is
    /// written.
    pub(super) fn on_progress(&mut self, cx: &mut Cx<'_, Self>, id: XferId, verified: u64) {
        let Some(xfer) = self.xfers.get(&id) else { return };
        let piece = xfer.span.0;
        let total = self.picker.bytes(&xfer.span);
        self.credit(cx, id, verified.min(total.saturating_sub(1)));
        self.complete(cx, piece);
    }

    /// Counts the first `verified` bytes of a transfer as verified, less those counted before.
    fn credit(&mut self, cx: &mut Cx<'_, Self>, id: XferId, verified: u64) {
        let Some(xfer) = self.xfers.get_mut(&id) else { return };
        let total = self.picker.bytes(&xfer.span);
        let before = xfer.verified;
        if verified <= before {
            return;
        }
        xfer.verified = verified;
        let (source, name, cancelled) = (xfer.source, xfer.name, xfer.cancelled);
        let (piece, blocks) = xfer.span.clone();
        let done = |bytes: u64| match u32::try_from(bytes / u64::from(BLOCK_LEN)) {
            Ok(n) if bytes < total => blocks.start + n,
            _ => blocks.end,
        };
        let span = (piece, done(before)..done(verified));
        let credited = self.picker.bytes(&span);
        let fresh = self.picker.verified(span, name);
        debug_assert!(fresh <= credited, "no more blocks are new than were verified");
        self.wasted = self.wasted.saturating_add(credited.saturating_sub(fresh));
        if let Source::Peer(conn) = source
            && fresh > 0
        {
            cx.push(Output::Verified { conn, bytes: fresh });
        }
        if !cancelled {
            debug_assert!(self.in_flight >= verified - before, "verified bytes were in flight");
            self.in_flight = self.in_flight.saturating_sub(verified - before);
        }
        self.on_delivered(cx, source, cancelled, verified - before);
    }

    /// Resets a source's stall timer and failure counts after it has delivered.
    fn on_delivered(&mut self, cx: &mut Cx<'_, Self>, source: Source, cancelled: bool, bytes: u64) {
        let stall = stall_after(cx.cfg, source, self.layout().piece_len());
        let now = cx.now;
        let Some(state) = self.source_mut(source) else { return };
        state.rate.add(bytes);
        state.strikes = 0;
        state.proven = true;
        state.quiet_since = now;
        if !cancelled {
            debug_assert!(state.in_flight >= bytes, "delivered bytes were in flight with their source");
            state.in_flight = state.in_flight.saturating_sub(bytes);
        }
        let busy = state.fetches > 0;
        self.timers.set(Timer::Stall(source), busy.then(|| now.after(stall)));
        if matches!(source, Source::Edge(_)) {
            self.edge_backoff.succeeded();
            self.edge_failures = 0;
            self.edge_failed_at = None;
        }
        if self.timers.get(Timer::GiveUp).is_some() {
            self.timers.set(Timer::GiveUp, Some(now.after(cx.cfg.give_up_after)));
        }
    }

    /// Saves the piece if it is complete, and cancels transfers that still fetch it.
    fn complete(&mut self, cx: &mut Cx<'_, Self>, piece: PieceIndex) {
        for id in self.picker.needless(piece) {
            self.cancel(cx, id);
        }
        let Some(complete) = self.picker.take_complete(piece) else { return };
        for id in complete.needless {
            self.cancel(cx, id);
        }
        self.saving.insert(piece, complete.from.clone());
        cx.push(Output::SavePiece { piece, from: complete.from });
    }

    /// Cancels a transfer. Its blocks can be requested elsewhere at once; its end is still to be reported by the
    /// shell.
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_, Self>, id: XferId) {
        if self.release(id) {
            cx.push(Output::CancelFetch { xfer: id });
        }
    }

    /// Takes a transfer out of its source's window and frees its blocks; returns `false` if that was done before.
    fn release(&mut self, id: XferId) -> bool {
        let Some(Xfer { source, span, verified, cancelled, .. }) = self.xfers.get_mut(&id) else { return false };
        if *cancelled {
            return false;
        }
        *cancelled = true;
        let (source, piece) = (*source, span.0);
        let left = self.picker.bytes(span).saturating_sub(*verified);
        self.picker.end(id, piece);
        debug_assert!(self.in_flight >= left, "the rest of a transfer was in flight");
        self.in_flight = self.in_flight.saturating_sub(left);
        if let Some(state) = self.source_mut(source) {
            debug_assert!(state.in_flight >= left && state.fetches > 0, "a source counts each of its transfers");
            state.in_flight = state.in_flight.saturating_sub(left);
            state.fetches = state.fetches.saturating_sub(1);
            if state.fetches == 0 {
                self.timers.clear(Timer::Stall(source));
            }
        }
        true
    }

    pub(super) fn cancel_all_of(&mut self, cx: &mut Cx<'_, Self>, source: Source) {
        let ids: Vec<_> = self.xfers.iter().filter(|(_, x)| x.source == source).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.cancel(cx, id));
    }

    /// Handles the end of a transfer. Why a cancelled transfer failed does not matter, unless it sent a wrong block.
    pub(super) fn on_ended(&mut self, cx: &mut Cx<'_, Self>, id: XferId, end: FetchEnd) {
        let Some(xfer) = self.xfers.get(&id) else { return };
        let piece = xfer.span.0;
        if end == FetchEnd::Fetched {
            let total = self.picker.bytes(&xfer.span);
            self.credit(cx, id, total);
        }
        let awaited = self.release(id);
        let Some(xfer) = self.xfers.remove(&id) else { return };
        self.complete(cx, piece);
        match (end, xfer.source) {
            (FetchEnd::BadBlock { block }, Source::Peer(conn)) => {
                if let SourceName::Peer(intro, _) = xfer.name {
                    cx.push(Output::Blame { intro, piece, block });
                }
                self.bad_peer(cx, conn, xfer.name);
            }
            (FetchEnd::BadBlock { .. }, Source::Edge(edge)) => {
                let lost = self.picker.bytes(&xfer.span).saturating_sub(xfer.verified);
                self.wasted = self.wasted.saturating_add(lost);
                self.bad_edge(cx, edge);
            }
            (FetchEnd::Fetched | FetchEnd::Cancelled, _) => {}
            _ if !awaited => {}
            (FetchEnd::Store(why), _) => self.fail(cx, why.into()),
            (FetchEnd::Refused(code), Source::Peer(conn)) => self.peer_refused(cx, conn, piece, code),
            (FetchEnd::EdgeRefused(why), Source::Edge(edge)) => self.edge_refused(cx, edge, why),
            (FetchEnd::Broken | FetchEnd::EdgeRefused(_), Source::Peer(conn)) => self.strike(cx, conn),
            (FetchEnd::Broken | FetchEnd::Refused(_), Source::Edge(edge)) => self.edge_failed(cx, edge),
        }
    }

    /// Bans a peer for a wrong block: the hash proves that this peer sent it.
    fn bad_peer(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, name: SourceName) {
        self.wasted = self.wasted.saturating_add(u64::from(BLOCK_LEN));
        if self.peers.contains_key(&conn) {
            self.drop_peer(cx, conn, CloseReason::BadBlock);
        } else if let SourceName::Peer(_, key) = name
            && !self.banned.contains(&key)
        {
            // the peer has left already; it is reported nevertheless
            cx.push(Output::DropPeer { conn, name, why: CloseReason::BadBlock });
            self.ban(cx, key, CloseReason::BadBlock);
        }
    }

    fn peer_refused(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, piece: PieceIndex, code: RefuseCode) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        match code {
            RefuseCode::NotHere | RefuseCode::Failed => {
                if peer.has.as_mut().is_some_and(|has| has.remove(piece)) {
                    self.picker.remove_holder([piece].into_iter());
                }
            }
            RefuseCode::TooMany => {
                peer.fetches_max = peer.fetches.max(1);
                if peer.fetches == 0 {
                    self.strike(cx, conn);
                }
            }
            RefuseCode::NotAllowed => self.drop_peer(cx, conn, CloseReason::UploadsOff),
        }
    }

    fn strike(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.strikes = peer.strikes.saturating_add(1);
        if peer.strikes >= STRIKES {
            self.drop_peer(cx, conn, CloseReason::Stalled);
        }
    }

    /// Handles a transfer that has made no progress for too long: the peer is dropped, or the edge counts as failed.
    pub(super) fn on_stalled(&mut self, cx: &mut Cx<'_, Self>, source: Source) {
        match source {
            Source::Peer(conn) => self.drop_peer(cx, conn, CloseReason::Stalled),
            Source::Edge(edge) => self.edge_failed(cx, edge),
        }
    }

    /// Handles an edge's refusal of a transfer: waits, tries another edge, renews the grant, or fails the download.
    fn edge_refused(&mut self, cx: &mut Cx<'_, Self>, edge: u32, why: EdgeError) {
        match why {
            EdgeError::Unreachable | EdgeError::Unavailable | EdgeError::Busy { .. } => self.edge_failed(cx, edge),
            EdgeError::Uncounted => self.edge_uncounted(cx, edge),
            EdgeError::NotFound | EdgeError::Changed => self.fail(cx, FailReason::VersionGone),
            EdgeError::Forbidden => self.fail(cx, FailReason::Forbidden),
            EdgeError::Expired => self.fail(cx, FailReason::Expired),
            EdgeError::Blocked => self.fail(cx, FailReason::Blocked),
            EdgeError::GrantExpired => {
                if self.edge_hold == EdgeHold::Open {
                    self.edge_hold = EdgeHold::Grant;
                    self.cancel_all_of(cx, Source::Edge(edge));
                    cx.push(Output::RenewGrant);
                }
            }
            EdgeError::Invalid => self.bad_edge(cx, edge),
        }
    }

    /// Handles HTTP 409 of an edge, which cannot count this download's bytes and so sends none. Tries the next edge;
    /// once every edge has failed or refused, requests a grant without peers, under which bytes may stay uncounted.
    fn edge_uncounted(&mut self, cx: &mut Cx<'_, Self>, edge: u32) {
        if edge != self.edge_index || self.edge_hold != EdgeHold::Open {
            return;
        }
        if self.edge_failures + 1 < self.usable_edges() {
            return self.edge_failed(cx, edge);
        }
        self.edge_hold = EdgeHold::Grant;
        self.cancel_all_of(cx, Source::Edge(edge));
        cx.push(Output::LeavePeers);
    }

    fn usable_edges(&self) -> u32 {
        self.edges - u32::try_from(self.bad_edges.len()).unwrap_or(0).min(self.edges)
    }

    /// Switches to the next edge after a connection broke or stalled: at once, or after a wait if every edge has
    /// failed.
    fn edge_failed(&mut self, cx: &mut Cx<'_, Self>, edge: u32) {
        if edge != self.edge_index || self.edge_hold == EdgeHold::BackOff {
            return;
        }
        self.leave_edge(cx, edge);
        self.edge_failures = self.edge_failures.saturating_add(1);
        if self.edge_hold == EdgeHold::Open && self.edge_failures >= self.usable_edges() {
            let (first, longest) = cx.cfg.edge_backoff;
            if !longest.is_zero() {
                self.edge_failed_at.get_or_insert(cx.now);
            }
            let outage = self.edge_failed_at.map_or(Duration::ZERO, |at| cx.now.since(at));
            let longest = longest.max((outage / 4).min(EDGE_WAIT_MAX));
            let wait = self.edge_backoff.failed((first, longest), cx.rng);
            self.edge_hold = EdgeHold::BackOff;
            // a minimum wait, so that a client does not spin against a broken edge
            let wait = wait.max(Duration::from_millis(1));
            self.timers.set(Timer::EdgeRetry, Some(cx.now.after(wait)));
        }
    }

    /// Cancels and repeats the edge's transfers after the network path was lost, without blaming the edge.
    pub(super) fn restart_edge_transfers(&mut self, cx: &mut Cx<'_, Self>) {
        self.cancel_all_of(cx, Source::Edge(self.edge_index));
        self.end_edge_wait();
    }

    /// Ends the wait that follows a failure of all edges.
    pub(super) fn end_edge_wait(&mut self) {
        if self.edge_hold == EdgeHold::BackOff {
            self.edge_hold = EdgeHold::Open;
            self.timers.clear(Timer::EdgeRetry);
        }
    }

    fn bad_edge(&mut self, cx: &mut Cx<'_, Self>, edge: u32) {
        if !self.bad_edges.insert(edge) {
            return;
        }
        cx.push(Output::DropEdge { edge });
        if edge == self.edge_index {
            self.leave_edge(cx, edge);
        }
    }

    /// Handles a new number of edges: stops using an edge whose number is too high, and tries a new edge if all
    /// earlier ones have sent wrong bytes.
    pub(super) fn on_edges(&mut self, cx: &mut Cx<'_, Self>, edges: u32) {
        self.edges = edges.max(1);
        if self.edge_hold == EdgeHold::Banned {
            self.edge_hold = EdgeHold::Open;
            self.leave_edge(cx, self.edge_index);
        } else if self.edge_index >= self.edges {
            self.leave_edge(cx, self.edge_index);
        }
    }

    /// Switches to the next edge that has not sent wrong bytes.
    fn leave_edge(&mut self, cx: &mut Cx<'_, Self>, edge: u32) {
        self.cancel_all_of(cx, Source::Edge(edge));
        self.timers.clear(Timer::Stall(Source::Edge(edge)));
        let next = (1..=self.edges).map(|step| (edge.wrapping_add(step)) % self.edges);
        match next.into_iter().find(|e| !self.bad_edges.contains(e)) {
            Some(next) => self.edge_index = next,
            None => (self.edge_index, self.edge_hold) = (edge % self.edges, EdgeHold::Banned),
        }
    }
}
