//! The machine of one download: its sources (edges and peers), the transfers from each, and the reactions when one
//! fails.

mod assign;
mod budget;
mod ends;
mod invariants;
pub mod io;
mod source;
#[cfg(test)]
mod tests;

pub use budget::{EdgeBudget, Mode};
pub use io::{Config, EDGE_WAIT_MAX, Input, Output, Source, Window};

use super::Picker;
use crate::content::{Bitfield, Layout};
use crate::ids::{ConnId, Handle, PieceIndex, PublicKey, XferId};
use crate::limits::PEER_CONNECTIONS_MAX;
use crate::session::Backoff;
use crate::swarm::outcome::{CloseReason, FailReason, SourceName, StoreError};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use source::{SourceState, Xfer};

/// Phase of a download, from the user's command to the complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Not fetching: new, paused or failed.
    Stopped,
    /// Transfers from edges and peers are running.
    Running,
    /// Every piece is durable; the file is being put at its output path.
    Finishing,
    /// The file is at its output path.
    Done,
}

/// Parameters of a new download.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Number by which this client's commands name the download.
    pub handle: Handle,
    /// Piece and block layout of the version.
    pub layout: Layout,
    /// Pieces that are durable already.
    pub have: Bitfield,
    /// Bytes of durable pieces by source.
    pub counted: Vec<(SourceName, u64)>,
    /// Seed for the order of pieces.
    pub order_seed: u64,
    /// The provider's minimum rate in bytes a second ([`crate::content::Policy::rate_min`]).
    pub rate_min: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Time to measure rates and to decide how much the edge delivers.
    Tick,
    /// The wait after a failure of all edges is over.
    EdgeRetry,
    /// A source has verified nothing for too long.
    Stall(Source),
    /// Every edge has sent wrong bytes, and no source has verified anything for `give_up_after`.
    GiveUp,
}

/// Whether the download may send requests to edges, and if not, for which reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum EdgeHold {
    /// Requests to edges are allowed.
    Open,
    /// No requests until [`Timer::EdgeRetry`]: every edge has failed.
    BackOff,
    /// No requests until a new grant comes: edges refuse the present one, or cannot count its bytes (HTTP 409).
    Grant,
    /// No requests: every edge has sent wrong bytes.
    Banned,
}

/// The download machine. Invariants: bytes in flight stay within the budget; a block is counted once, for the source
/// that delivered it first; a source that sent a wrong block gets no further request; a piece is durable before it is
/// counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Download {
    handle: Handle,
    phase: Phase,
    picker: Picker,
    edge: SourceState,
    /// Index of the edge being asked, below `edges`.
    edge_index: u32,
    edges: u32,
    edge_hold: EdgeHold,
    edge_backoff: Backoff,
    /// Time of the first failure since an edge last delivered; `None` if there was none.
    edge_failed_at: Option<Time>,
    /// Number of consecutive failures of edges, over all edges.
    edge_failures: u32,
    bad_edges: BTreeSet<u32>,
    budget: EdgeBudget,
    peers: BTreeMap<ConnId, SourceState>,
    /// Keys of peers that sent wrong bytes or broke the protocol.
    banned: BTreeSet<PublicKey>,
    xfers: BTreeMap<XferId, Xfer>,
    next_xfer: u32,
    /// Number of bytes that running transfers have not verified yet, without those of cancelled transfers.
    in_flight: u64,
    in_flight_max: u64,
    /// Complete pieces that are being saved, with their bytes by source.
    saving: BTreeMap<PieceIndex, Vec<(SourceName, u32)>>,
    /// Bytes of durable pieces by source.
    counted: BTreeMap<SourceName, u64>,
    wasted: u64,
    timers: Deadlines<Timer>,
    ticked: Time,
}

impl Download {
    /// Creates a download that is stopped.
    #[must_use]
    pub fn new(spec: Spec, cfg: &Config) -> Self {
        Self {
            handle: spec.handle,
            phase: Phase::Stopped,
            picker: Picker::new(spec.layout, spec.have, spec.order_seed),
            edge: SourceState::new(SourceName::Edge, None, u32::MAX),
            edge_index: 0,
            edges: 1,
            edge_hold: EdgeHold::Open,
            edge_backoff: Backoff::default(),
            edge_failed_at: None,
            edge_failures: 0,
            bad_edges: BTreeSet::new(),
            budget: EdgeBudget::new(spec.rate_min),
            peers: BTreeMap::new(),
            banned: BTreeSet::new(),
            xfers: BTreeMap::new(),
            next_xfer: 0,
            in_flight: 0,
            in_flight_max: cfg.budget,
            saving: BTreeMap::new(),
            counted: spec.counted.into_iter().collect(),
            wasted: 0,
            timers: Deadlines::default(),
            ticked: Time::ZERO,
        }
    }

    /// Sets the number of the next transfer. Transfers of an earlier download under the same handle may still end, so
    /// their numbers must not be used again.
    #[must_use]
    pub const fn numbered_from(mut self, next_xfer: u32) -> Self {
        self.next_xfer = next_xfer;
        self
    }

    /// Returns the number of the next transfer.
    #[must_use]
    pub const fn next_xfer(&self) -> u32 {
        self.next_xfer
    }

    /// Returns the download's phase.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the piece and block layout of the version.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        self.picker.layout()
    }

    /// Returns the durable pieces.
    #[must_use]
    pub const fn have(&self) -> &Bitfield {
        self.picker.have()
    }

    /// Returns the total size of the durable pieces in bytes.
    #[must_use]
    pub fn durable_bytes(&self) -> u64 {
        self.picker.durable_bytes()
    }

    /// Returns the bytes of durable pieces by source, each byte counted once.
    pub fn counted(&self) -> impl Iterator<Item = (SourceName, u64)> + '_ {
        self.counted.iter().map(|(name, bytes)| (*name, *bytes))
    }

    /// Returns the bytes of durable pieces that edges delivered.
    #[must_use]
    pub fn edge_bytes(&self) -> u64 {
        self.counted.get(&SourceName::Edge).copied().unwrap_or(0)
    }

    /// Returns the bytes of durable pieces that peers delivered.
    #[must_use]
    pub fn peer_bytes(&self) -> u64 {
        self.counted.iter().filter(|(name, _)| **name != SourceName::Edge).map(|(_, bytes)| bytes).sum()
    }

    /// Resets the bytes by source for a new download id. Bytes counted so far belong to an earlier download of the same
    /// version. Blocks of incomplete pieces that peers delivered are fetched again: under the new id no uploader could
    /// be paid for them.
    pub fn begin_new_books(&mut self) {
        self.counted.clear();
        self.wasted = self.wasted.saturating_add(self.picker.forget_incomplete_of_peers());
    }

    /// Returns the number of bytes that were received and discarded, such as blocks delivered twice.
    #[must_use]
    pub const fn wasted_bytes(&self) -> u64 {
        self.wasted
    }

    /// Returns the number of bytes requested from all sources and not yet verified.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Returns the peers connected for this download, with their names in usage records.
    pub fn peers(&self) -> impl Iterator<Item = (ConnId, SourceName)> + '_ {
        self.peers.iter().map(|(conn, peer)| (*conn, peer.name))
    }

    /// Returns the running transfers that are not cancelled, with source and blocks.
    pub fn under_way(&self) -> impl Iterator<Item = (XferId, Source, &super::picker::Span)> + '_ {
        self.xfers.iter().filter(|(_, x)| !x.cancelled).map(|(id, x)| (*id, x.source, &x.span))
    }

    /// Returns whether blocks may be requested from the peer with this key; not if it sent wrong bytes or broke the
    /// protocol.
    #[must_use]
    pub fn may_ask(&self, key: &PublicKey) -> bool {
        !self.banned.contains(key)
    }

    /// Returns whether an edge has delivered since the last failure of all edges, or there was none.
    #[must_use]
    pub const fn has_edge(&self) -> bool {
        self.edge_failed_at.is_none()
    }

    /// Returns which blocks may be requested from the edge at present.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.budget.mode()
    }

    fn start(&mut self, cx: &mut Cx<'_, Self>) {
        if self.phase != Phase::Stopped {
            return;
        }
        self.phase = Phase::Running;
        self.ticked = cx.now;
        self.edge_failures = 0;
        debug_assert!(self.edge_hold != EdgeHold::BackOff, "a back-off from the edges ends with the transfers");
        if !cx.cfg.tick.is_zero() {
            self.timers.set(Timer::Tick, Some(cx.now.after(cx.cfg.tick)));
        }
        self.timers.set(Timer::GiveUp, Some(cx.now.after(cx.cfg.give_up_after)));
        self.advance(cx);
    }

    /// Stops fetching: cancels all transfers and disconnects all peers.
    fn stop(&mut self, cx: &mut Cx<'_, Self>, to: Phase) {
        self.phase = to;
        let all: Vec<_> = self.xfers.keys().copied().collect();
        all.into_iter().for_each(|x| self.cancel(cx, x));
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|conn| self.drop_peer(cx, conn, CloseReason::Done));
        self.timers = Deadlines::default();
        if self.edge_hold == EdgeHold::BackOff {
            self.edge_hold = EdgeHold::Open;
        }
    }

    fn fail(&mut self, cx: &mut Cx<'_, Self>, why: FailReason) {
        if matches!(self.phase, Phase::Running | Phase::Finishing) {
            self.stop(cx, Phase::Stopped);
            cx.push(Output::Failed(why));
        }
    }

    /// Continues after an event: finishes the download or assigns more transfers.
    fn advance(&mut self, cx: &mut Cx<'_, Self>) {
        if self.phase != Phase::Running {
            return;
        }
        if self.have().is_full() {
            self.stop(cx, Phase::Finishing);
            cx.push(Output::Finish);
            return;
        }
        self.assign(cx);
        if self.edge_hold == EdgeHold::Banned && self.peers.is_empty() && self.saving.is_empty() {
            self.fail(cx, FailReason::EdgeCorrupt);
        }
    }

    fn join(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, name: SourceName, requests_max: u16) {
        let welcome = match name {
            SourceName::Peer(_, key) => self.phase == Phase::Running && !self.banned.contains(&key),
            SourceName::Edge => false,
        };
        if !welcome || self.peers.len() >= PEER_CONNECTIONS_MAX || self.peers.contains_key(&conn) {
            cx.push(Output::DropPeer { conn, name, why: CloseReason::Full });
            return;
        }
        let has = Bitfield::empty(self.layout().pieces());
        self.peers.insert(conn, SourceState::new(name, Some(has), u32::from(requests_max.max(1))));
        self.budget.peer_joined();
    }

    fn learn(&mut self, conn: ConnId, pieces: impl Iterator<Item = PieceIndex>) {
        let Some(has) = self.peers.get_mut(&conn).and_then(|peer| peer.has.as_mut()) else { return };
        self.picker.add_holder(pieces.filter(|&p| has.insert(p)));
    }

    /// Removes a peer and cancels its transfers; returns its name.
    fn remove_peer(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) -> Option<SourceName> {
        let peer = self.peers.remove(&conn)?;
        if let Some(has) = &peer.has {
            self.picker.remove_holder(has.iter());
        }
        self.timers.clear(Timer::Stall(Source::Peer(conn)));
        self.cancel_all_of(cx, Source::Peer(conn));
        Some(peer.name)
    }

    fn drop_peer(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, why: CloseReason) {
        let Some(name) = self.remove_peer(cx, conn) else { return };
        cx.push(Output::DropPeer { conn, name, why });
        if let (SourceName::Peer(_, key), CloseReason::BadBlock | CloseReason::Violation) = (name, why) {
            self.ban(cx, key, why);
        }
    }

    /// Bans the peer with this key: requests nothing more from it, and closes its other connections, which result from
    /// other introductions.
    fn ban(&mut self, cx: &mut Cx<'_, Self>, key: PublicKey, why: CloseReason) {
        self.banned.insert(key);
        let is_its = |peer: &SourceState| matches!(peer.name, SourceName::Peer(_, k) if k == key);
        let others: Vec<_> = self.peers.iter().filter(|(_, peer)| is_its(peer)).map(|(conn, _)| *conn).collect();
        others.into_iter().for_each(|conn| self.drop_peer(cx, conn, why));
    }

    fn on_piece_saved(&mut self, cx: &mut Cx<'_, Self>, piece: PieceIndex, result: Result<(), StoreError>) {
        let Some(from) = self.saving.remove(&piece) else { return };
        match result {
            Ok(()) => {
                self.picker.saved(piece);
                for (name, bytes) in from {
                    *self.counted.entry(name).or_default() += u64::from(bytes);
                }
            }
            Err(why) => {
                self.picker.not_saved(piece);
                self.fail(cx, why.into());
            }
        }
    }

    fn on_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        match input {
            Input::Start => return self.start(cx),
            Input::Stop => {
                if matches!(self.phase, Phase::Running) {
                    self.stop(cx, Phase::Stopped);
                }
            }
            Input::Edges(n) => self.on_edges(cx, n),
            Input::Renewed => {
                if self.edge_hold == EdgeHold::Grant {
                    self.edge_hold = EdgeHold::Open;
                }
            }
            Input::EdgeAnswered => self.end_edge_wait(),
            Input::Moved => self.restart_edge_transfers(cx),
            Input::Budget(bytes) => self.in_flight_max = bytes,
            Input::RateMin(rate) => self.budget.set_rate_min(rate),
            Input::PeerJoined { conn, name, requests_max } => self.join(cx, conn, name, requests_max),
            Input::PeerMap { conn, first, bits } => self.learn(conn, pieces_in_map(first, &bits)),
            Input::PeerHas { conn, pieces } => self.learn(conn, pieces.into_iter()),
            Input::PeerLeft { conn } => {
                self.remove_peer(cx, conn);
            }
            // progress alone frees too little window to assign blocks to all sources; ends and ticks do that
            Input::Progress { xfer, verified } => return self.on_progress(cx, xfer, verified),
            Input::Ended { xfer, end } => self.on_ended(cx, xfer, end),
            Input::PieceSaved { piece, result } => self.on_piece_saved(cx, piece, result),
            Input::Finished(result) => match (self.phase, result) {
                (Phase::Finishing, Ok(())) => self.phase = Phase::Done,
                (_, Ok(())) => {}
                (_, Err(why)) => self.fail(cx, why.into()),
            },
        }
        self.advance(cx);
    }
}

/// Returns the pieces that a page of a have-map names.
fn pieces_in_map(first: PieceIndex, bits: &[u8]) -> impl Iterator<Item = PieceIndex> + '_ {
    (0_u32..).zip(bits).flat_map(move |(i, b)| {
        let set = (0..8_u32).filter(move |bit| b & (0x80 >> bit) != 0);
        set.filter_map(move |bit| first.0.checked_add(i * 8 + bit).map(PieceIndex))
    })
}

impl Machine for Download {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        self.on_input(cx, input);
        if cfg!(debug_assertions) {
            self.check_phase();
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        while let Some(timer) = self.timers.pop_due(cx.now) {
            match timer {
                Timer::Tick => self.tick(cx),
                Timer::EdgeRetry => {
                    if self.edge_hold == EdgeHold::BackOff {
                        self.edge_hold = EdgeHold::Open;
                    }
                }
                Timer::Stall(source) => self.on_stalled(cx, source),
                // while verified pieces wait for the disk, no source is at fault
                Timer::GiveUp if self.edge_hold == EdgeHold::Banned && self.saving.is_empty() => {
                    self.fail(cx, FailReason::EdgeCorrupt);
                }
                // an edge that is unreachable may come back at any time
                Timer::GiveUp => self.timers.set(Timer::GiveUp, Some(cx.now.after(cx.cfg.give_up_after))),
            }
        }
        self.advance(cx);
        if cfg!(debug_assertions) {
            self.check_phase();
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.budget.rebase(by);
        self.ticked = self.ticked.rebased(by);
        self.edge_failed_at = self.edge_failed_at.map(|at| at.rebased(by));
        for source in self.peers.values_mut().chain([&mut self.edge]) {
            source.quiet_since = source.quiet_since.rebased(by);
        }
    }

    fn check(&self) {
        self.check_all();
    }
}
