//! Invariants of a download, for [`crate::Machine::check`].

use super::ends::STRIKES;
use super::source::SourceState;
use super::{Download, EdgeHold, Phase, Source, Timer};
use crate::limits::PEER_CONNECTIONS_MAX;
use crate::swarm::outcome::SourceName;
use alloc::collections::BTreeMap;

/// Number of a source's running transfers, and their bytes that are not verified yet.
type Sums = (u32, u64);

impl Download {
    /// Asserts the invariants of the phase, the edge and the timers, without a loop over pieces or transfers.
    pub(super) fn check_phase(&self) {
        let running = self.phase == Phase::Running;
        let gives_up = self.timers.get(Timer::GiveUp).is_some();
        assert!(gives_up == running, "a download gives up at some time if it is running");
        assert!(running || self.timers.next().is_none(), "a timer is set only while the download is running");
        let idle = self.peers.is_empty() && self.in_flight == 0 && self.edge.fetches == 0;
        assert!(running || idle, "nothing is in flight unless the download is running");
        assert!(self.edge_index < self.edges, "the edge being asked is one of the edges");
        let waits = self.edge_hold == EdgeHold::BackOff;
        assert!(!waits || self.timers.get(Timer::EdgeRetry).is_some(), "a back-off from the edges ends");
        let bad = self.bad_edges.contains(&self.edge_index);
        assert!(!bad || self.edge_hold == EdgeHold::Banned, "an edge that sent wrong bytes is not asked");
        assert!(self.peers.len() <= PEER_CONNECTIONS_MAX, "there are no more peers than allowed");
    }

    /// Asserts every invariant of the download.
    pub(super) fn check_all(&self) {
        self.check_phase();
        self.picker.check();
        self.budget.check();
        self.timers.check();
        self.check_sums(self.check_transfers());
        self.check_peers();
        assert!(self.picker.complete() == self.saving.len(), "each complete piece is being saved");
        for (piece, from) in &self.saving {
            assert!(self.picker.is_complete(*piece), "only a complete piece is saved");
            let bytes: u64 = from.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
            assert!(bytes == u64::from(self.layout().piece_size(*piece)), "each byte of a saved piece has a source");
        }
    }

    /// Asserts the invariants of each transfer; returns number and unverified bytes of the running transfers by
    /// source.
    fn check_transfers(&self) -> BTreeMap<Source, Sums> {
        let mut sums: BTreeMap<Source, Sums> = BTreeMap::new();
        for (id, xfer) in &self.xfers {
            let bytes = self.picker.bytes(&xfer.span);
            assert!(id.0 >> 32 == u64::from(self.handle.0), "the number of a transfer names its download");
            assert!(xfer.verified <= bytes, "no transfer verifies more than it fetches");
            if !xfer.cancelled {
                assert!(self.picker.is_fetching(*id, &xfer.span), "the picker knows each running transfer");
                let (fetches, in_flight) = sums.entry(xfer.source).or_default();
                (*fetches, *in_flight) = (*fetches + 1, *in_flight + (bytes - xfer.verified));
            }
        }
        sums
    }

    /// Asserts that the counts of transfers and bytes in flight equal `sums`, the sums over the transfers by source.
    fn check_sums(&self, mut sums: BTreeMap<Source, Sums>) {
        let running: u32 = sums.values().map(|(fetches, _)| fetches).sum();
        assert!(self.picker.transfers() == running as usize, "the picker knows no other transfers");
        let in_flight: u64 = sums.values().map(|(_, bytes)| bytes).sum();
        assert!(self.in_flight == in_flight, "the bytes in flight are the sum over the transfers");
        let peers = self.peers.iter().map(|(conn, peer)| (Source::Peer(*conn), peer));
        let mut busy = 0;
        for (source, state) in peers.chain([(Source::Edge(self.edge_index), &self.edge)]) {
            let sum = sums.remove(&source).unwrap_or_default();
            assert!((state.fetches, state.in_flight) == sum, "the counts of a source are the sums over its transfers");
            let stalls = self.timers.get(Timer::Stall(source)).is_some();
            assert!(stalls == (state.fetches > 0), "a source can stall if it has a transfer");
            busy += usize::from(stalls);
        }
        assert!(sums.is_empty(), "only connected peers and the present edge are fetched from");
        let stalls = self.timers.keys().filter(|timer| matches!(timer, Timer::Stall(_))).count();
        assert!(stalls == busy, "only connected peers and the present edge can stall");
    }

    fn check_peers(&self) {
        let mut copies = 0;
        for peer in self.peers.values() {
            let SourceState { name, has, strikes, fetches, fetches_max, proven, .. } = peer;
            let allowed = matches!(name, SourceName::Peer(_, key) if !self.banned.contains(key));
            assert!(allowed, "no banned peer is connected");
            assert!(*strikes < STRIKES, "a peer with too many failures is disconnected");
            assert!(fetches <= fetches_max, "no peer is given more transfers than it accepts");
            assert!(*proven || *fetches <= 1, "a peer that has delivered nothing has one transfer at most");
            let has = has.as_ref().filter(|has| has.len() == self.layout().pieces());
            assert!(has.is_some(), "the pieces of each peer are known");
            has.into_iter().for_each(|has| has.check());
            copies += has.map_or(0, |has| u64::from(has.count()));
        }
        assert!(self.picker.copies() == copies, "the picker counts the pieces of all peers");
    }
}
