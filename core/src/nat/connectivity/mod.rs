//! Connectivity: how two introduced peers find a path between their NATs (similar to RFC 8445, with RFC 5245's
//! aggressive nomination). Each peer first sends one datagram with a TTL so low that it opens its own NAT only, and
//! reports to the CN that its NAT is open. At the CN's signal to start ("go") each sends connectivity checks to every
//! address of the other, from the socket that carries QUIC, and learns the source addresses of the other's checks.
//! The downloader chooses (nominates) the first path that works in both directions. If there is none, or UDP is
//! unusable, one peer opens a TCP connection to a port of the other that was reached from outside before (`tcp.rs`).

mod birthday;
mod candidates;
mod check;
pub mod io;
mod pair;
mod tcp;

pub use check::is_check;
pub use io::{Along, Attempt, Birthday, Config, Failure, Input, Offer, Output, RawTcp, RawTcpEvent, Role, Rung};
pub use io::{Scatter, Scattered, Ticket};

use super::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use crate::codec::List;
use crate::ids::{IntroId, RawTcpId};
use crate::machine::{Cx, Deadlines, Machine, Time};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use check::{Claim, Incoming};
use core::net::SocketAddr;
use core::time::Duration;
use pair::{Host, Pair};

/// Maximum number of introductions remembered as used, so that they are not used again.
const USED_MAX: usize = 256;

/// State shared by all attempts of a host: the rate of checks, and the numbers of raw TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Number of checks sent since `since`.
    spent: u32,
    since: Time,
    next_line: RawTcpId,
}

impl Budget {
    /// Counts one connectivity check if the rate (checks per second) still allows one in this tenth of a second; else
    /// returns false.
    fn take(&mut self, now: Time, rate: u32) -> bool {
        if now.since(self.since) >= Duration::from_millis(100) {
            (self.spent, self.since) = (0, now);
        }
        let free = self.spent < rate.div_ceil(10);
        self.spent += u32::from(free);
        free
    }
}

/// State machine of all of a host's attempts to connect to introduced peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connectivity {
    nat: NatDescriptor,
    observed: Option<SocketAddr>,
    pairs: BTreeMap<IntroId, Pair>,
    used: VecDeque<IntroId>,
    budget: Budget,
    timers: Deadlines<IntroId>,
}

type Context<'a> = Cx<'a, Connectivity>;

impl Connectivity {
    /// Returns the number of attempts, including those that have connected and still answer the peer's checks.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there is an attempt for this introduction, including one that has connected and still answers
    /// checks.
    #[must_use]
    pub fn has(&self, intro: IntroId) -> bool {
        self.pairs.contains_key(&intro)
    }

    /// Returns whether `addr` is an address of a peer with an attempt; only to these may datagrams be sent.
    #[must_use]
    pub fn is_introduced(&self, addr: SocketAddr) -> bool {
        self.pairs.values().any(|p| p.knows(addr))
    }

    /// Returns whether `addr` is the TCP address of a peer with an attempt; only to these may TCP connections be
    /// opened.
    #[must_use]
    pub fn is_door(&self, addr: SocketAddr) -> bool {
        self.pairs.values().any(|p| p.tcp.is_to(addr))
    }

    /// Returns whether no attempt has sent more datagrams than `cfg` allows; for the model checker.
    #[must_use]
    pub fn is_within_bounds(&self, cfg: &Config) -> bool {
        self.pairs.values().all(|p| p.is_within_bounds(cfg))
    }

    /// Returns whether a NAT may be on the way: the address at which the CN sees this host is unknown or none of its
    /// own.
    fn behind_nat(&self) -> bool {
        let Some(observed) = self.observed.map(|a| a.ip().to_canonical()) else { return true };
        !self.nat.candidates.iter().any(|c| c.kind == CandidateKind::Host && c.addr.ip().to_canonical() == observed)
    }

    fn offer(&mut self, cx: &mut Context<'_>, offer: &Offer) {
        let intro = offer.intro;
        if self.pairs.contains_key(&intro) || self.used.contains(&intro) {
            return;
        }
        self.used.push_back(intro);
        if self.used.len() > USED_MAX {
            self.used.pop_front();
        }
        let active = self.pairs.values().filter(|p| !p.is_connected()).count();
        let none = |failure| Attempt { failure: Some(failure), rung: Rung::None, probes: 0, took_ms: 0 };
        if active >= cx.cfg.sessions_max {
            return cx.push(Output::Ended { intro, attempt: none(Failure::Busy) });
        }
        let free = !self.pairs.values().any(Pair::is_birthday_probing);
        let host = Host { observed: self.observed, behind_nat: self.behind_nat(), nat: &self.nat, free };
        match Pair::open(cx, offer, &host) {
            Some(pair) => {
                self.timers.set(intro, Some(pair.due()));
                self.pairs.insert(intro, pair);
            }
            None => cx.push(Output::Ended { intro, attempt: none(Failure::NoCandidates) }),
        }
    }

    /// Runs `f` on an attempt, then sets its timer or removes it.
    fn with(
        &mut self,
        cx: &mut Context<'_>,
        intro: IntroId,
        f: impl FnOnce(&mut Pair, &mut Context<'_>, &mut Budget) -> Option<Attempt>,
    ) {
        let Some(pair) = self.pairs.get_mut(&intro) else { return };
        let was_connected = pair.is_connected();
        let ended = f(pair, cx, &mut self.budget);
        let stays = ended.is_none() || pair.is_connected() && !was_connected;
        self.timers.set(intro, stays.then(|| pair.due()));
        // its mappings stay behind it, whether it stays itself or not
        let flows = if ended.is_some() && !was_connected { pair.flows() } else { 0 };
        if ended.is_some() {
            pair.end_game(cx);
            pair.stop_tcp(cx);
        }
        if !stays {
            self.pairs.remove(&intro);
        }
        self.count_on(cx, flows);
        if let Some(attempt) = ended.filter(|_| !was_connected) {
            cx.push(Output::Ended { intro, attempt });
        }
        if cfg!(debug_assertions) {
            self.pairs.get(&intro).into_iter().for_each(Pair::check);
        }
    }

    /// Advances the external port in this host's descriptor by `flows` mappings if its NAT assigns ports in sequence,
    /// so that the next peer tries later ports.
    fn count_on(&mut self, cx: &mut Context<'_>, flows: u16) {
        let counts = self.nat.mapping != NatBehaviour::EndpointIndependent && self.nat.step > 0;
        let mut candidates = core::mem::take(&mut self.nat.candidates).into_vec();
        let reflexive = |c: &&mut Candidate| c.kind == CandidateKind::ServerReflexive && c.addr.is_ipv4();
        let last = candidates.iter_mut().find(reflexive).filter(|_| counts && flows > 0);
        let next = last.and_then(|c| Some((c.addr.port().checked_add(flows.checked_mul(self.nat.step)?)?, c)));
        let moved = next.map(|(port, c)| c.addr.set_port(port)).is_some();
        self.nat.candidates = List::truncated(candidates);
        if moved {
            cx.push(Output::Moved(self.nat.clone()));
        }
    }

    /// Handles a connectivity check that arrived on an extra socket of birthday probing: if the introduced peer sent
    /// it, that socket is used towards the peer instead of the QUIC socket.
    fn scattered(&mut self, cx: &mut Context<'_>, (intro, socket): (IntroId, u16), from: SocketAddr, bytes: &[u8]) {
        let Some(incoming) = Incoming::read(bytes) else { return };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(Claim::Request { intro: named, by, .. }) = incoming.claim() else { return };
        let Some(pair) = self.pairs.get_mut(&intro).filter(|p| named == intro && p.role() != by) else { return };
        if incoming.is_of(pair.key()) && pair.on_birthday_hit(cx, socket, from) {
            self.datagram(cx, from, bytes);
        }
    }

    fn datagram(&mut self, cx: &mut Context<'_>, from: SocketAddr, bytes: &[u8]) {
        let Some(incoming) = Incoming::read(bytes) else { return };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let id = incoming.id();
        match incoming.claim() {
            Some(Claim::Request { intro, by, nominates }) => {
                let known = self.pairs.get(&intro).is_some_and(|p| p.role() != by && incoming.is_of(p.key()));
                if known {
                    self.with(cx, intro, |pair, cx, budget| {
                        pair.asked_by_peer(cx, budget, (id, from), nominates);
                        None
                    });
                }
            }
            Some(Claim::Answer) => {
                let asked = self.pairs.iter().find(|(_, p)| p.asked(id) && incoming.is_of(p.key()));
                if let Some(intro) = asked.map(|(intro, _)| *intro) {
                    self.with(cx, intro, |pair, cx, _| {
                        pair.answered_by_peer(cx, id, from);
                        None
                    });
                }
            }
            None => {}
        }
    }
}

impl Machine for Connectivity {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Network(nat) if nat.epoch >= self.nat.epoch => self.nat = nat,
            Input::Network(_) => {}
            Input::Observed(addr) => self.observed = Some(addr),
            Input::Offer(offer) => self.offer(cx, &offer),
            Input::Go(intro) => self.with(cx, intro, |pair, cx, budget| {
                pair.go(cx);
                pair.tick(cx, budget)
            }),
            Input::Datagram { from, bytes } => self.datagram(cx, from, &bytes),
            Input::Scattered(s) => self.scattered(cx, (s.intro, s.socket), s.from, &s.bytes),
            Input::RawTcp(event) => self.raw_tcp(cx, event),
            Input::Connected(intro) => self.with(cx, intro, |pair, cx, _| pair.connected(cx)),
            Input::Refused(intro) => {
                self.with(cx, intro, |pair, cx, _| Some(pair.attempt(cx.now, Some(Failure::NoHandshake))));
            }
            Input::Drop(intro) => {
                self.with(cx, intro, |pair, cx, _| Some(pair.attempt(cx.now, Some(Failure::Dropped))));
            }
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for this same moment waits for the next call
        let mut due = alloc::vec::Vec::new();
        while let Some(intro) = self.timers.pop_due(cx.now) {
            due.push(intro);
        }
        for intro in due {
            self.with(cx, intro, Pair::tick);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.budget.since = self.budget.since.rebased(by);
        self.pairs.values_mut().for_each(|p| p.rebase(by));
    }

    fn check(&self) {
        self.timers.check();
        assert!(self.timers.keys().count() == self.pairs.len(), "only an attempt has a timer");
        let mut opening = BTreeSet::new();
        for (intro, pair) in &self.pairs {
            pair.check();
            assert!(pair.intro == *intro, "an attempt stands under its introduction");
            assert!(self.timers.get(*intro) == Some(pair.due()), "the timer of an attempt shows what is due first");
            let fresh = pair.tcp.opening().is_none_or(|id| opening.insert(id));
            assert!(fresh, "no two attempts wait for the same TCP connection");
        }
        let probing = self.pairs.values().filter(|p| p.is_birthday_probing()).count();
        assert!(probing <= 1, "one attempt at a time does birthday probing");
        assert!(self.used.len() <= USED_MAX, "no more introductions are remembered than allowed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    const INTRO: IntroId = IntroId([1; 16]);
    const OTHER: IntroId = IntroId([2; 16]);

    /// Returns a state with one attempt that waits for the CN's signal to start checks.
    fn healthy() -> Connectivity {
        let mut m = Connectivity::default();
        m.pairs.insert(INTRO, Pair::waiting(INTRO));
        m.timers.set(INTRO, Some(m.pairs[&INTRO].due()));
        m
    }

    #[test]
    fn each_clause_about_connectivity_fires() {
        assert_each_clause_fires(
            &healthy(),
            Connectivity::check,
            &[
                ("only an attempt has a timer", |m| m.timers.set(OTHER, Some(Time(1)))),
                ("an attempt stands under its introduction", |m| {
                    m.pairs.values_mut().for_each(|p| p.intro = OTHER);
                }),
                ("the timer of an attempt shows what is due first", |m| m.timers.set(INTRO, Some(Time(1)))),
                ("no two attempts wait for the same TCP connection", |m| {
                    let crossing = Pair::crossing(OTHER);
                    m.pairs.insert(INTRO, Pair::crossing(INTRO));
                    m.pairs.insert(OTHER, crossing);
                    [INTRO, OTHER].into_iter().for_each(|i| m.timers.set(i, Some(m.pairs[&i].due())));
                }),
                ("one attempt at a time does birthday probing", |m| {
                    for intro in [INTRO, OTHER] {
                        m.pairs.insert(intro, Pair::probing(intro));
                        m.timers.set(intro, Some(m.pairs[&intro].due()));
                    }
                }),
                ("no more introductions are remembered than allowed", |m| {
                    m.used.extend(core::iter::repeat_n(OTHER, USED_MAX + 1));
                }),
            ],
        );
    }
}
