//! Between rounds: the mapping is kept alive, and where it has moved that is told at once.

use super::io::{Output, Sight, Witness};
use super::way::{Probe, Stage};
use super::{Discovery, MISSED_MAX};
use crate::codec::List;
use crate::machine::{Cx, Time};
use crate::nat::{Candidate, CandidateKind, NatDescriptor};
use alloc::vec::Vec;
use core::net::SocketAddr;

impl Discovery {
    /// What is known of the main socket by itself (IPv4), when nothing that is under way could change it.
    #[must_use]
    pub fn sight(&self, now: Time) -> Option<Sight> {
        let way = &self.ways[0];
        let (Some(SocketAddr::V4(mapped)), Some(server), Stage::Done) = (way.mapped, way.server, way.stage) else {
            return None;
        };
        let ports = [way.mapped, way.second, way.third].into_iter().flatten().map(|a| a.port()).collect();
        let witness = way.other.filter(|_| !way.refused).and_then(|other| {
            let same_address = SocketAddr::new(server.ip(), other.port());
            let all = [(other, true), (same_address, false)];
            let silent = all.into_iter().find(|(from, whole)| !self.has_contacted(now, *from, !*whole));
            silent.map(|(from, other_address)| Witness { from, other_address })
        });
        Some(Sight { mapped, translated: self.is_translated(), server, ports, witness })
    }

    /// The same network maps to another endpoint. Peers must hear of it before the round that follows has looked at
    /// all: until then the network counts as behaving as it did.
    pub(super) fn moved(&mut self, cx: &mut Cx<'_, Self>, mapped: SocketAddr) {
        let mut candidates = core::mem::take(&mut self.nat.candidates).into_vec();
        let old = |c: &Candidate| c.kind == CandidateKind::ServerReflexive && c.addr.is_ipv6() == mapped.is_ipv6();
        candidates.retain(|c| !old(c) && c.addr != mapped);
        candidates.push(Candidate { kind: CandidateKind::ServerReflexive, addr: mapped });
        self.nat.candidates = List::truncated(candidates);
        self.nat.proven = List::truncated(self.proven());
        self.nat.epoch = self.nat.epoch.wrapping_add(1);
        cx.push(Output::Changed(self.nat.clone()));
    }

    /// Another network: what was seen on the last one is true of nothing any more. What is seen on this one is told as
    /// soon as a server answers.
    pub(super) fn left(&mut self, cx: &mut Cx<'_, Self>) {
        if self.nat.udp {
            self.nat = NatDescriptor { epoch: self.nat.epoch.wrapping_add(1), ..NatDescriptor::default() };
            cx.push(Output::Changed(self.nat.clone()));
        }
    }

    /// Somebody has reason to think that the mapping is another one.
    pub(super) fn look(&mut self, cx: &mut Cx<'_, Self>) {
        if !self.is_busy() {
            self.refresh_due(cx);
        }
    }

    pub(super) fn refresh_due(&mut self, cx: &mut Cx<'_, Self>) {
        self.refresh = Some(cx.now.after(self.keep_alive(cx.cfg)));
        self.missed += 1;
        if self.missed > MISSED_MAX || !self.nat.udp {
            return self.begin(cx);
        }
        let servers: Vec<(SocketAddr, bool)> = self.ways.iter().filter_map(|w| Some((w.server?, w.v6))).collect();
        for (server, v6) in servers {
            self.ask(cx, Probe::Refresh, v6, server);
        }
    }
}
