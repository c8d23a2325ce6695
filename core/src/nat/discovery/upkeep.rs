//! Work between rounds of NAT discovery: the mapping is refreshed, and a changed mapping is reported at once.

use super::io::{Output, Sight, Witness};
use super::way::{Probe, Stage};
use super::{Discovery, MISSED_MAX};
use crate::codec::List;
use crate::machine::{Cx, Time};
use crate::nat::{Candidate, CandidateKind, NatDescriptor};
use alloc::vec::Vec;
use core::net::SocketAddr;

impl Discovery {
    /// Returns the IPv4 address translation of the QUIC socket; `None` while a round of requests could still change
    /// it.
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

    /// Publishes a new external address on the same network at once. Until the next round has ended, the NAT is
    /// assumed to behave as before.
    pub(super) fn moved(&mut self, cx: &mut Cx<'_, Self>, mapped: SocketAddr) {
        let mut candidates = core::mem::take(&mut self.nat.candidates).into_vec();
        let old = |c: &Candidate| c.kind == CandidateKind::ServerReflexive && c.addr.is_ipv6() == mapped.is_ipv6();
        candidates.retain(|c| !old(c));
        // an address of the host itself stays one
        if !candidates.iter().any(|c| c.addr == mapped) {
            candidates.push(Candidate { kind: CandidateKind::ServerReflexive, addr: mapped });
        }
        self.nat.candidates = List::truncated(candidates);
        self.nat.proven = List::truncated(self.proven());
        self.nat.epoch = self.nat.epoch.wrapping_add(1);
        cx.push(Output::Changed(self.nat.clone()));
    }

    /// Deletes the NAT descriptor's observations, after a change of network. New ones are published as soon as a STUN
    /// server answers.
    pub(super) fn left(&mut self, cx: &mut Cx<'_, Self>) {
        if self.nat.udp {
            self.nat = NatDescriptor { epoch: self.nat.epoch.wrapping_add(1), ..NatDescriptor::default() };
            cx.push(Output::Changed(self.nat.clone()));
        }
    }

    /// Sends a request now that shows whether the external address has changed.
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

#[cfg(test)]
mod tests {
    use super::super::io::Config;
    use super::*;
    use CandidateKind::{Host, ServerReflexive};

    #[test]
    fn an_external_address_that_is_the_hosts_own_stays_its_own() {
        let [own, outside] = [1, 9].map(|n| SocketAddr::from(([192, 0, 2, n], 5000)));
        let of = |kind, addr| Candidate { kind, addr };
        let mut m = Discovery::default();
        m.nat.candidates = List::truncated([of(Host, own), of(ServerReflexive, outside)]);
        let (cfg, rng, mut out) = (Config::default(), &mut crate::seeded::Seeded::new(1), Vec::new());
        let mut cx = Cx { now: Time(1), cfg: &cfg, rng, out: &mut out };
        m.moved(&mut cx, own);
        assert_eq!(m.nat.candidates[..], [of(Host, own)], "without a NAT");
        m.moved(&mut cx, outside);
        assert_eq!(m.nat.candidates[..], [of(Host, own), of(ServerReflexive, outside)]);
    }
}
