//! Simulated sources of a download in virtual time: each delivers at its rate, in the order of requests.

use super::super::{Config, Download, Input, Output, Phase, Source, Spec};
use crate::content::{Bitfield, Layout};
use crate::ids::{ConnId, Handle, IntroId, PieceIndex, PublicKey, XferId};
use crate::seeded::Seeded;
use crate::swarm::outcome::{CloseReason, EdgeError, FailReason, FetchEnd, SourceName, StoreError};
use crate::wire::peer::RefuseCode;
use crate::{Cx, Machine, Time};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

const STEP: Duration = Duration::from_millis(5);

/// Behaviour of a simulated source.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    /// Speed in bytes a second.
    pub(super) rate: u64,
    /// Error with which the source answers every request; `None`: it delivers.
    pub(super) instead: Option<FetchEnd>,
    /// Whether the source never answers.
    pub(super) silent: bool,
}

pub(super) const fn at_rate(rate: u64) -> Behaviour {
    Behaviour { rate, instead: None, silent: false }
}

pub(super) const fn answering(end: FetchEnd) -> Behaviour {
    Behaviour { rate: 1, instead: Some(end), silent: false }
}

struct Flow {
    source: Source,
    bytes: u64,
    done: u64,
    told: u64,
    cancelled: bool,
}

/// A download under test with its simulated sources.
pub(super) struct Lab {
    pub(super) d: Download,
    pub(super) cfg: Config,
    pub(super) now: Time,
    rng: Seeded,
    pub(super) sources: BTreeMap<Source, Behaviour>,
    flows: BTreeMap<XferId, Flow>,
    order: VecDeque<XferId>,
    /// Time that a piece takes to become durable.
    pub(super) save_takes: Duration,
    pub(super) save_result: Result<(), StoreError>,
    saves: Vec<(Time, PieceIndex)>,
    pub(super) dropped: Vec<(ConnId, CloseReason)>,
    pub(super) dropped_edges: Vec<u32>,
    pub(super) blamed: Vec<(IntroId, PieceIndex, u32)>,
    pub(super) failed: Option<FailReason>,
    pub(super) renewals: u32,
    pub(super) left_peers: u32,
    /// All requests that the download has made so far.
    pub(super) asked: Vec<(Source, PieceIndex, Range<u32>)>,
    pub(super) saved: BTreeSet<PieceIndex>,
    finishing: bool,
}

impl Lab {
    pub(super) fn new(size: u64, edge: Behaviour) -> Self {
        Self::with(Layout::for_size(size).expect("a layout"), Config::default(), edge)
    }

    pub(super) fn with(layout: Layout, cfg: Config, edge: Behaviour) -> Self {
        let spec = Spec {
            handle: Handle(7),
            layout,
            have: Bitfield::empty(layout.pieces()),
            counted: Vec::new(),
            order_seed: 3,
            rate_min: 0,
        };
        let mut lab = Self {
            d: Download::new(spec, &cfg),
            cfg,
            now: Time::ZERO,
            rng: Seeded::new(42),
            sources: BTreeMap::new(),
            flows: BTreeMap::new(),
            order: VecDeque::new(),
            save_takes: Duration::from_millis(20),
            save_result: Ok(()),
            saves: Vec::new(),
            dropped: Vec::new(),
            dropped_edges: Vec::new(),
            blamed: Vec::new(),
            failed: None,
            renewals: 0,
            left_peers: 0,
            asked: Vec::new(),
            saved: BTreeSet::new(),
            finishing: false,
        };
        lab.sources.insert(Source::Edge(0), edge);
        lab
    }

    pub(super) fn key(n: u64) -> PublicKey {
        PublicKey::numbered(u32::try_from(n).expect("small"))
    }

    pub(super) fn name(n: u64) -> SourceName {
        SourceName::Peer(IntroId::numbered(u32::try_from(n).expect("small")), Self::key(n))
    }

    /// Adds a peer that has every piece.
    pub(super) fn add_peer(&mut self, n: u64, behaviour: Behaviour) {
        let all = Bitfield::full(self.d.layout().pieces());
        self.add_peer_with(n, behaviour, &all);
    }

    pub(super) fn add_peer_with(&mut self, n: u64, behaviour: Behaviour, has: &Bitfield) {
        let conn = ConnId(n);
        self.sources.insert(Source::Peer(conn), behaviour);
        self.input(Input::PeerJoined { conn, name: Self::name(n), requests_max: 64 });
        self.input(Input::PeerMap { conn, first: PieceIndex(0), bits: has.as_bytes().to_vec() });
    }

    /// Breaks a peer's connection: its transfers end as broken, then the download is informed that the peer has left.
    pub(super) fn lose_peer(&mut self, n: u64) {
        let source = Source::Peer(ConnId(n));
        self.sources.remove(&source);
        self.end_all(source, FetchEnd::Broken);
        self.input(Input::PeerLeft { conn: ConnId(n) });
    }

    pub(super) fn end_all(&mut self, source: Source, end: FetchEnd) {
        let of_it: Vec<_> = self.flows.iter().filter(|(_, f)| f.source == source).map(|(x, _)| *x).collect();
        for xfer in of_it {
            self.end(xfer, end);
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.d.handle_input(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out }, input);
        self.d.check();
        self.perform(out);
    }

    fn timeout(&mut self) {
        let mut out = Vec::new();
        self.d.handle_timeout(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out });
        self.d.check();
        self.perform(out);
    }

    fn perform(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Fetch { xfer, source, piece, blocks } => {
                    let range = self.d.layout().block_range(piece, blocks.clone());
                    assert!(!range.is_empty(), "an empty request");
                    let flow = Flow { source, bytes: range.end - range.start, done: 0, told: 0, cancelled: false };
                    assert!(self.flows.insert(xfer, flow).is_none(), "a transfer's number used twice");
                    self.order.push_back(xfer);
                    self.asked.push((source, piece, blocks));
                }
                Output::CancelFetch { xfer } => {
                    let flow = self.flows.get_mut(&xfer);
                    if let Some(flow) = flow {
                        assert!(!flow.cancelled, "cancelled twice");
                        flow.cancelled = true;
                    }
                }
                Output::SavePiece { piece, from } => {
                    let bytes: u64 = from.iter().map(|(_, b)| u64::from(*b)).sum();
                    assert_eq!(bytes, u64::from(self.d.layout().piece_size(piece)), "every byte is counted once");
                    assert!(self.saved.insert(piece) || self.save_result.is_err(), "a piece saved twice");
                    self.saves.push((self.now.after(self.save_takes), piece));
                }
                Output::Finish => self.finishing = true,
                Output::DropPeer { conn, why, .. } => {
                    self.dropped.push((conn, why));
                    self.sources.remove(&Source::Peer(conn));
                }
                Output::DropEdge { edge } => self.dropped_edges.push(edge),
                Output::Verified { .. } => {}
                Output::Blame { intro, piece, block } => self.blamed.push((intro, piece, block)),
                Output::RenewGrant => self.renewals += 1,
                Output::LeavePeers => self.left_peers += 1,
                Output::Failed(why) => self.failed = Some(why),
            }
        }
    }

    fn end(&mut self, xfer: XferId, end: FetchEnd) {
        if self.flows.remove(&xfer).is_some() {
            self.input(Input::Ended { xfer, end });
        }
    }

    /// Delivers the bytes that one source sends in one step of 5 ms.
    fn flow(&mut self, source: Source, behaviour: &Behaviour) {
        let mut bytes = behaviour.rate * u64::try_from(STEP.as_micros()).expect("short") / 1_000_000;
        let mine: Vec<_> =
            self.order.iter().filter(|x| self.flows.get(x).is_some_and(|f| f.source == source)).copied().collect();
        for xfer in mine {
            if let Some(end) = behaviour.instead {
                self.end(xfer, end);
                continue;
            }
            let Some(flow) = self.flows.get_mut(&xfer) else { continue };
            let take = bytes.min(flow.bytes - flow.done);
            flow.done += take;
            bytes -= take;
            if flow.done == flow.bytes {
                self.end(xfer, FetchEnd::Fetched);
            } else if take > 0 && (self.now.0 / 1000).is_multiple_of(100) && flow.done > flow.told {
                flow.told = flow.done;
                let verified = flow.done;
                self.input(Input::Progress { xfer, verified });
            }
        }
    }

    /// Advances the clock by 5 ms.
    pub(super) fn step(&mut self) {
        self.now = self.now.after(STEP);
        while self.d.poll_timeout().is_some_and(|at| at <= self.now) {
            self.timeout();
        }
        let cancelled: Vec<_> = self.flows.iter().filter(|(_, f)| f.cancelled).map(|(x, _)| *x).collect();
        for xfer in cancelled {
            self.end(xfer, FetchEnd::Cancelled);
        }
        for (source, behaviour) in self.sources.clone() {
            if !behaviour.silent {
                self.flow(source, &behaviour);
            }
        }
        // an edge that does not exist
        let lost: Vec<_> =
            self.flows.iter().filter(|(_, f)| !self.sources.contains_key(&f.source)).map(|(x, _)| *x).collect();
        for xfer in lost {
            self.end(xfer, FetchEnd::Broken);
        }
        self.order.retain(|x| self.flows.contains_key(x));
        let (due, later): (Vec<_>, Vec<_>) = self.saves.iter().copied().partition(|(at, _)| *at <= self.now);
        self.saves = later;
        for (_, piece) in due {
            let result = self.save_result;
            self.input(Input::PieceSaved { piece, result });
        }
        if core::mem::take(&mut self.finishing) {
            self.input(Input::Finished(Ok(())));
        }
        assert!(self.d.in_flight() <= self.cfg.budget, "more under way than the budget");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.now < until {
            self.step();
        }
    }

    /// Runs the download until it is done; returns the virtual time that this took.
    pub(super) fn finish(&mut self) -> Duration {
        let from = self.now;
        while self.d.phase() != Phase::Done {
            self.step();
            assert_eq!(self.failed, None);
            assert!(self.now.since(from) < Duration::from_secs(3600), "never ends: {:?}", self.d);
        }
        assert!(self.d.have().is_full());
        let counted: u64 = self.d.counted().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted, self.d.layout().size(), "every byte is counted once");
        self.now.since(from)
    }

    pub(super) const fn refusing(code: RefuseCode) -> FetchEnd {
        FetchEnd::Refused(code)
    }

    pub(super) const fn edge_says(why: EdgeError) -> FetchEnd {
        FetchEnd::EdgeRefused(why)
    }
}
