//! Assigns a download's transfers to its sources (edges and peers), takes part in the endgame (the last blocks are
//! fetched twice), and measures the rates of the sources.

use super::budget::Sample;
use super::io::{Output, Source};
use super::source::{SourceState, Xfer};
use super::{Download, EdgeHold, Timer};
use crate::Cx;
use crate::ids::{ConnId, XferId};
use crate::swarm::outcome::SourceName;
use crate::swarm::picker::{Span, blocks_in};
use alloc::vec::Vec;
use core::time::Duration;

impl Download {
    /// Starts transfers, one for each source in turn, until each source's window or the budget of bytes in flight is
    /// full or no block is left to request.
    pub(super) fn assign(&mut self, cx: &mut Cx<'_, Self>) {
        let mut open: Vec<Source> = self.peers.keys().map(|c| Source::Peer(*c)).collect();
        if self.edge_hold == EdgeHold::Open {
            open.push(Source::Edge(self.edge_index));
        }
        while !open.is_empty() && self.within_budget() {
            open.retain(|&source| self.within_budget() && self.give(cx, source));
        }
        if self.picker.all_under_way() {
            self.endgame(cx);
        }
    }

    /// Returns whether one more piece fits into the budget of bytes in flight or being saved. One transfer is always
    /// allowed.
    fn within_budget(&self) -> bool {
        let piece = u64::from(self.layout().piece_len());
        let held = self.in_flight.saturating_add(piece.saturating_mul(self.saving.len() as u64));
        held.saturating_add(piece) <= self.in_flight_max || held == 0
    }

    /// Starts one transfer from `source` if its window allows one more and the picker has blocks for it; returns
    /// whether it did.
    fn give(&mut self, cx: &mut Cx<'_, Self>, source: Source) -> bool {
        let longest = blocks_in(cx.cfg.fetch_len);
        let span = match source {
            Source::Edge(_) if self.edge.has_room(&cx.cfg.edge_window) => {
                self.picker.pick_for_edge(longest, self.budget.yields())
            }
            Source::Peer(conn) => match self.peers.get(&conn) {
                Some(SourceState { has: Some(has), .. }) if self.peer_has_room(cx, conn) => {
                    self.picker.pick_for_peer(has, longest, cx.rng)
                }
                _ => None,
            },
            Source::Edge(_) => None,
        };
        let Some(span) = span else { return false };
        self.fetch(cx, source, span);
        true
    }

    fn peer_has_room(&self, cx: &Cx<'_, Self>, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|peer| peer.has_room(&cx.cfg.peer_window))
    }

    fn fetch(&mut self, cx: &mut Cx<'_, Self>, source: Source, span: Span) {
        let xfer = XferId::of(self.handle, self.next_xfer);
        self.next_xfer = self.next_xfer.wrapping_add(1);
        let bytes = self.picker.bytes(&span);
        let piece_len = self.layout().piece_len();
        let Some(state) = self.source_mut(source) else {
            // only connected peers and the present edge are given transfers
            return debug_assert!(false, "a source that gets a transfer is known");
        };
        if state.fetches == 0 {
            state.quiet_since = cx.now;
        }
        state.fetches += 1;
        state.in_flight += bytes;
        let name = state.name;
        if state.fetches == 1 {
            self.timers.set(Timer::Stall(source), Some(cx.now.after(stall_after(cx.cfg, source, piece_len))));
        }
        self.in_flight += bytes;
        self.picker.begin(xfer, span.clone(), name == SourceName::Edge);
        let (piece, blocks) = span.clone();
        self.xfers.insert(xfer, Xfer { source, name, span, verified: 0, cancelled: false });
        cx.push(Output::Fetch { xfer, source, piece, blocks });
    }

    /// Returns the state of a source; `None` for an unknown peer and for an edge other than the one being asked now.
    pub(super) fn source_mut(&mut self, source: Source) -> Option<&mut SourceState> {
        match source {
            Source::Edge(edge) => (edge == self.edge_index).then_some(&mut self.edge),
            Source::Peer(conn) => self.peers.get_mut(&conn),
        }
    }

    /// Runs the endgame, in which every block is being fetched: an idle source fetches blocks again that a slower
    /// source is still to deliver, if it is expected to be earlier by
    /// [`Config::endgame_gain`](super::Config::endgame_gain). The transfer that ends first counts; the other is
    /// cancelled.
    fn endgame(&mut self, cx: &mut Cx<'_, Self>) {
        let mut idle: Vec<Source> =
            self.peers.iter().filter(|(_, p)| p.fetches == 0).map(|(c, _)| Source::Peer(*c)).collect();
        if self.edge_hold == EdgeHold::Open && self.edge.fetches == 0 {
            idle.push(Source::Edge(self.edge_index));
        }
        for source in idle {
            if let Some(span) = self.worth_doubling(cx, source) {
                self.fetch(cx, source, span);
            }
        }
    }

    /// Returns the blocks that `idle` should fetch a second time: those of the source that is expected to finish
    /// last. `None` if that would not save enough time.
    fn worth_doubling(&mut self, cx: &Cx<'_, Self>, idle: Source) -> Option<Span> {
        let (for_edge, longest) = (matches!(idle, Source::Edge(_)), blocks_in(cx.cfg.fetch_len));
        let own = self.source_mut(idle)?.clone();
        let others = self.under_way().filter(|(_, source, span)| *source != idle && own.has(span.0));
        let left = |source: Source| match source {
            Source::Edge(edge) if edge == self.edge_index => self.edge.time_left(cx.now),
            Source::Edge(_) => Duration::ZERO,
            Source::Peer(conn) => self.peers.get(&conn).map_or(Duration::ZERO, |p| p.time_left(cx.now)),
        };
        let candidates = others.filter_map(|(_, source, span)| {
            let span = self.picker.duplicate_of(span, for_edge, longest)?;
            Some((left(source), span))
        });
        // the newest transfer of a source is the least likely to have begun
        let (left, span) = candidates.reduce(|a, b| if b.0 >= a.0 { b } else { a })?;
        // a source with unknown rate is assumed to need as long as the margin
        let takes = own.rate.time_for(self.picker.bytes(&span)).unwrap_or(cx.cfg.endgame_gain);
        (left >= takes * 2 + cx.cfg.endgame_gain).then_some(span)
    }

    /// Measures the rate of every source since the last tick and decides with them whether the edge yields to peers.
    pub(super) fn tick(&mut self, cx: &mut Cx<'_, Self>) {
        let over = cx.now.since(self.ticked);
        self.ticked = cx.now;
        let edge_busy = self.edge.fetches > 0;
        self.edge.rate.sample(over, edge_busy);
        let mut peers = 0_u64;
        let mut any_peer = false;
        for peer in self.peers.values_mut() {
            peer.rate.sample(over, peer.fetches > 0);
            peers = peers.saturating_add(if peer.fetches > 0 { peer.rate.recent() } else { 0 });
            any_peer |= peer.has.as_ref().is_some_and(|has| !has.is_empty());
        }
        let sample = Sample { edge: self.edge.rate.recent(), edge_busy, peers, any_peer };
        self.budget.tick(cx.now, sample, cx.cfg);
        self.timers.set(Timer::Tick, Some(cx.now.after(cx.cfg.tick)));
    }
}

/// Returns the time-out of a source that verifies nothing.
pub(super) fn stall_after(cfg: &super::Config, source: Source, piece_len: u32) -> Duration {
    match source {
        Source::Edge(_) => cfg.stall_after + cfg.edge_stall_per_64k * (piece_len >> 16),
        Source::Peer(_) => cfg.stall_after,
    }
}
