//! Attempt of this host to connect to one introduced peer. It opens the own NAT, checks the peer's addresses, chooses
//! (nominates) a path, and connects on it.

use super::birthday::Game;
use super::candidates::{candidates, counts, openers};
use super::check;
use super::io::{Along, Attempt, Config, Failure, Offer, Output, Role, Rung, Scatter};
use super::tcp::Tcp;
use super::{Budget, Connectivity};
use crate::ids::IntroId;
use crate::machine::{Cx, Time};
use crate::nat::NatDescriptor;
use crate::nat::stun::{Class, TransactionId};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

type Context<'a> = Cx<'a, Connectivity>;

/// State of one attempt to connect to an introduced peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) intro: IntroId,
    pub(super) role: Role,
    pub(super) key: [u8; 16],
    pub(super) phase: Phase,
    /// Time of the CN's signal to start checks, or, before that, of the introduction.
    began: Time,
    /// Deadline of the present phase.
    until: Time,
    remotes: Vec<Remote>,
    /// Unanswered requests, with the address each was sent to.
    pending: BTreeMap<TransactionId, SocketAddr>,
    /// Number of datagrams sent, without birthday probes.
    sent: u16,
    /// Number of datagrams sent by a finished birthday probing.
    tried: u16,
    /// Time at which the best path found so far is chosen, if no LAN address answers before.
    nominate_at: Option<Time>,
    /// Birthday probing in progress, if any.
    game: Option<Game>,
    /// Use of TCP, if checks find no path.
    pub(super) tcp: Tcp,
}

/// Properties of this host that an attempt to connect depends on.
pub(super) struct Host<'a> {
    /// Source address of this host, as the CN observed it.
    pub(super) observed: Option<SocketAddr>,
    pub(super) behind_nat: bool,
    pub(super) nat: &'a NatDescriptor,
    /// Whether no other attempt does birthday probing.
    pub(super) free: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The NAT of this host is open; the CN's signal to start checks has not come.
    Opening,
    /// Connectivity checks are sent to every address of the peer.
    Checking,
    /// A path was chosen; no connection is open on it yet.
    Nominated(SocketAddr, Rung),
    /// The connection is open; late checks are still answered.
    Connected,
}

/// Address of the peer, and the checks sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Remote {
    addr: SocketAddr,
    rung: Rung,
    /// Whether a datagram with a low TTL, which only opens this host's NAT, was sent to this address.
    opened: bool,
    /// Number of checks sent to this address.
    sent: u8,
    /// Time at which the next check is sent to this address; `None` if no more are sent.
    due: Option<Time>,
    /// Whether this address answered a check.
    answered: bool,
    /// Whether the peer's own checks came from this address.
    heard: bool,
    /// Whether the downloader's check said that it chose the path to this address.
    chosen: bool,
}

impl Remote {
    const fn new(addr: SocketAddr, rung: Rung) -> Self {
        Self { addr, rung, opened: false, sent: 0, due: None, answered: false, heard: false, chosen: false }
    }
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

impl Pair {
    /// Starts an attempt and opens the own NAT. Returns `None` if there is no address to try.
    pub(super) fn open(cx: &mut Context<'_>, offer: &Offer, host: &Host<'_>) -> Option<Self> {
        let every = if offer.role == Role::Downloader && counts(host.nat) { 2 } else { 1 };
        let tcp = Tcp::between(cx.cfg, offer, host);
        // where UDP is of no use to one side and TCP is, no datagram is sent
        let futile = tcp != Tcp::No && !(host.nat.udp && offer.nat.udp);
        let all = match futile {
            true => Vec::new(),
            false => candidates(cx.cfg, &offer.ticket, &offer.nat, host.observed, every),
        };
        if all.is_empty() && tcp == Tcp::No {
            return None;
        }
        let game = if host.free { Game::of(cx, host.nat, &offer.nat, &all) } else { None };
        let mut pair = Self {
            intro: offer.intro,
            role: offer.role,
            key: offer.ticket.key,
            phase: Phase::Opening,
            began: cx.now,
            until: cx.now.after(cx.cfg.go_within),
            remotes: all.iter().map(|(addr, rung)| Remote::new(*addr, *rung)).collect(),
            pending: BTreeMap::new(),
            sent: 0,
            tried: 0,
            nominate_at: None,
            game,
            tcp,
        };
        if host.behind_nat {
            for to in openers(cx.cfg, &all, counts(host.nat)) {
                let id = transaction(cx);
                let bytes = check::request((pair.intro, &pair.key), pair.role, id, (Class::Indication, false));
                pair.sent += 1;
                pair.remotes.iter_mut().filter(|r| r.addr == to).for_each(|r| r.opened = true);
                cx.push(Output::Send { to, bytes, ttl: Some(cx.cfg.opener_ttl) });
            }
        }
        cx.push(Output::Opened(pair.intro));
        Some(pair)
    }

    pub(super) const fn role(&self) -> Role {
        self.role
    }

    pub(super) const fn key(&self) -> &[u8; 16] {
        &self.key
    }

    pub(super) fn asked(&self, id: TransactionId) -> bool {
        self.pending.contains_key(&id)
    }

    /// Returns whether the attempt has sent no more datagrams than allowed; for the model checker.
    pub(super) fn is_within_bounds(&self, cfg: &Config) -> bool {
        let game = self.game.is_none_or(|g| cfg.birthday.is_some_and(|b| g.sent() <= g.limit(&b)));
        game && self.sent <= cfg.per_pair_max && self.remotes.iter().all(|r| r.sent <= cfg.per_address_max)
    }

    /// Returns the number of addresses to which datagrams were sent; a symmetric NAT has made a mapping for each.
    pub(super) fn flows(&self) -> u16 {
        u16::try_from(self.remotes.iter().filter(|r| r.sent > 0 || r.opened).count()).unwrap_or(u16::MAX)
    }

    /// Returns whether `addr` is an address of the peer that the attempt may send to.
    pub(super) fn knows(&self, addr: SocketAddr) -> bool {
        self.remotes.iter().any(|r| r.addr == addr) || self.game.is_some_and(|g| g.aims_at(addr))
    }

    /// Returns whether birthday probing is in progress.
    pub(super) const fn is_birthday_probing(&self) -> bool {
        self.game.is_some()
    }

    /// Handles a check of the peer that arrived on an extra socket of birthday probing. Returns whether it is to be
    /// handled as if it had arrived on the QUIC socket.
    pub(super) fn on_birthday_hit(&mut self, cx: &mut Context<'_>, socket: u16, from: SocketAddr) -> bool {
        let met = self.game.as_mut().is_some_and(|g| g.on_hit(cx, self.intro, socket, from));
        self.remotes.iter_mut().filter(|r| met && r.addr == from).for_each(|r| r.rung = Rung::Birthday);
        met
    }

    /// Ends birthday probing and closes its extra sockets.
    pub(super) fn end_game(&mut self, cx: &mut Context<'_>) {
        let Some(game) = self.game.take() else { return };
        self.tried = game.sent();
        if game.has_sockets() {
            cx.push(Output::Scatter(Scatter::Gather(self.intro)));
        }
    }

    /// Returns the time at which the attempt must act next.
    pub(super) fn due(&self) -> Time {
        let checks = self.remotes.iter().filter_map(|r| r.due);
        let game = self.game.and_then(|g| g.due());
        checks.chain(game).chain(self.nominate_at).chain(self.tcp.due()).chain([self.until]).min().unwrap_or(self.until)
    }

    /// Starts the connectivity checks, at the CN's signal or at the first check of the peer, which shows that the
    /// signal was sent.
    pub(super) fn go(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Opening {
            return;
        }
        self.phase = Phase::Checking;
        self.began = cx.now;
        let birthday = cx.cfg.birthday.filter(|_| self.game.is_some());
        self.until = cx.now.after(birthday.map_or(cx.cfg.check_within, |b| b.within));
        if self.tcp.is_by_peer() {
            // the peer is given the time that it may take
            self.until = self.until.after(cx.cfg.connect_within);
        }
        let wait = if self.remotes.is_empty() { Duration::ZERO } else { cx.cfg.door_after };
        self.tcp.schedule(cx.now.after(wait));
        // what works on a LAN need not go through its router
        let lan = self.remotes.iter().any(|r| r.rung == Rung::Lan);
        let (mut place, mut predicted) = (0, 0);
        for remote in &mut self.remotes {
            let waits = if lan && remote.rung != Rung::Lan { cx.cfg.prefer } else { Duration::ZERO };
            remote.due = Some(cx.now.after(waits + cx.cfg.pace * place));
            if remote.rung == Rung::Predicted {
                // they cost little and most are wrong: four at a time
                predicted += 1;
                place += u32::from(predicted % 4 == 0);
            } else {
                place += 1;
            }
        }
        if let Some(game) = &mut self.game {
            game.begin(cx.now);
            self.remotes.iter_mut().filter(|r| game.is_met_elsewhere(r.addr)).for_each(|r| r.due = None);
        }
    }

    /// Performs what is due at `cx.now`: sends checks, chooses a path, or opens a TCP connection. Returns the result
    /// if the attempt has timed out.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Option<Attempt> {
        if cx.now >= self.until {
            return Some(self.expire(cx.now));
        }
        if cx.is_due(self.nominate_at) {
            self.nominate(cx);
        }
        if cx.is_due(self.tcp.due()) {
            self.use_tcp(cx, budget);
        }
        for i in 0..self.remotes.len() {
            if cx.is_due(self.remotes[i].due) {
                self.send_check(cx, budget, i);
            }
        }
        let (named, role) = ((self.intro, &self.key), self.role);
        if let Some(game) = &mut self.game {
            let request = |cx: &mut Context<'_>| check::request(named, role, transaction(cx), (Class::Request, false));
            game.play(cx, self.intro, request);
        }
        None
    }

    fn expire(&self, now: Time) -> Attempt {
        let heard = self.remotes.iter().any(|r| r.heard || r.answered);
        let failure = match self.phase {
            Phase::Opening => Some(Failure::NoGo),
            Phase::Checking if heard => Some(Failure::OneWay),
            Phase::Checking => Some(Failure::Silence),
            Phase::Nominated(..) => Some(Failure::NoHandshake),
            Phase::Connected => None,
        };
        self.attempt(now, failure)
    }

    /// Returns the result of the attempt if it ends now; `failure` is `None` if the peer is connected.
    pub(super) fn attempt(&self, now: Time, failure: Option<Failure>) -> Attempt {
        let rung = match self.phase {
            Phase::Nominated(_, rung) => rung,
            Phase::Opening | Phase::Checking | Phase::Connected => Rung::None,
        };
        let tried = self.game.map_or(self.tried, |g| g.sent());
        Attempt { failure, rung, probes: self.sent.saturating_add(tried), took_ms: millis(now.since(self.began)) }
    }

    /// Sends a connectivity check to one of the peer's addresses, if the limits on datagrams allow it.
    fn send_check(&mut self, cx: &mut Context<'_>, budget: &mut Budget, i: usize) {
        let nominating = matches!(self.phase, Phase::Nominated(addr, _) if addr == self.remotes[i].addr);
        let nominates = nominating && self.role == Role::Downloader;
        let remote = &mut self.remotes[i];
        if remote.sent >= cx.cfg.per_address_max || self.sent >= cx.cfg.per_pair_max {
            remote.due = None;
            return;
        }
        if !budget.take(cx.now, cx.cfg.rate) {
            remote.due = Some(cx.now.after(Duration::from_millis(20)));
            return;
        }
        let (first, more, most) = cx.cfg.resend;
        let wait = (first + more * u32::from(remote.sent)).min(most);
        let wait = if remote.rung == Rung::Predicted { most * 2 } else { wait };
        remote.due = Some(cx.now.after(wait));
        remote.sent += 1;
        self.sent += 1;
        let to = remote.addr;
        let id = transaction(cx);
        self.pending.insert(id, to);
        let bytes = check::request((self.intro, &self.key), self.role, id, (Class::Request, nominates));
        cx.push(Output::Send { to, bytes, ttl: None });
    }

    /// Answers an authenticated check of the peer, and sends checks to its source address too.
    pub(super) fn asked_by_peer(
        &mut self,
        cx: &mut Context<'_>,
        budget: &mut Budget,
        (id, from): (TransactionId, SocketAddr),
        nominates: bool,
    ) {
        if self.sent < cx.cfg.per_pair_max {
            self.sent += 1;
            cx.push(Output::Send { to: from, bytes: check::answer(&self.key, id, from), ttl: None });
        }
        // the peer checks, so it was told to go: both NATs are open
        self.go(cx);
        let rung = if self.game.is_some() { Rung::Birthday } else { Rung::PeerReflexive };
        self.game.as_mut().into_iter().for_each(Game::stop);
        let learned = self.remotes.iter().filter(|r| r.rung == rung).count();
        let at = match self.remotes.iter().position(|r| r.addr == from) {
            Some(at) => at,
            None if learned < cx.cfg.learned_max => {
                self.remotes.push(Remote::new(from, rung));
                self.remotes.len() - 1
            }
            None => return,
        };
        let remote = &mut self.remotes[at];
        let first = !core::mem::replace(&mut remote.heard, true);
        remote.chosen |= nominates && self.role == Role::Uploader;
        if first && !remote.answered && self.phase == Phase::Checking {
            self.send_check(cx, budget, at);
        }
        self.settle(cx);
    }

    /// Records an authenticated answer to a check. It counts only if it comes from the address to which the check was
    /// sent (RFC 8445 §7.2.5.2.1).
    pub(super) fn answered_by_peer(&mut self, cx: &mut Context<'_>, id: TransactionId, from: SocketAddr) {
        if self.pending.get(&id) != Some(&from) {
            return;
        }
        self.pending.remove(&id);
        let Some(remote) = self.remotes.iter_mut().find(|r| r.addr == from) else { return };
        remote.answered = true;
        remote.due = None;
        self.settle(cx);
    }

    /// Chooses a path that works in both directions, if there is one; the uploader takes the one that the downloader
    /// chose.
    fn settle(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Checking || !self.remotes.iter().any(|r| r.answered) {
            return;
        }
        match self.role {
            Role::Uploader => {
                if let Some(remote) = self.remotes.iter().find(|r| r.answered && r.chosen).copied() {
                    self.nominated(cx, remote);
                }
            }
            Role::Downloader => {
                let best = self.remotes.iter().filter(|r| r.answered).map(|r| r.rung.number()).min().unwrap_or(0);
                let better = self.remotes.iter().any(|r| r.rung.number() < best && r.rung == Rung::Lan);
                let wait = self.began.after(cx.cfg.prefer);
                if better && cx.now < wait {
                    self.nominate_at = Some(wait);
                } else {
                    self.nominate(cx);
                }
            }
        }
    }

    /// Chooses, as downloader, the best address that answered, and informs the uploader with the next check
    /// (nomination).
    fn nominate(&mut self, cx: &mut Context<'_>) {
        self.nominate_at = None;
        let answered = self.remotes.iter().filter(|r| r.answered);
        let Some(remote) = answered.min_by_key(|r| r.rung.number()).copied() else {
            // an address that has answered is kept
            return debug_assert!(false, "a path is nominated once an address has answered");
        };
        self.nominated(cx, remote);
        if let Some(remote) = self.remotes.iter_mut().find(|r| r.addr == remote.addr) {
            remote.due = Some(cx.now);
        }
    }

    fn nominated(&mut self, cx: &mut Context<'_>, remote: Remote) {
        self.take_path(cx, (remote.addr, remote.rung), Along::Udp);
    }

    pub(super) fn take_path(&mut self, cx: &mut Context<'_>, way: (SocketAddr, Rung), along: Along) {
        self.chosen(cx, way);
        cx.push(Output::Path { intro: self.intro, addr: way.0, along });
    }

    /// Records the chosen path and stops trying all others.
    pub(super) fn chosen(&mut self, cx: &mut Context<'_>, (addr, rung): (SocketAddr, Rung)) {
        self.phase = Phase::Nominated(addr, rung);
        self.until = cx.now.after(cx.cfg.connect_within);
        self.nominate_at = None;
        self.stop_tcp(cx);
        self.remotes.iter_mut().for_each(|r| r.due = None);
        self.end_game(cx);
    }

    /// Records that the connection to the peer is open, and returns the attempt's result; `None` if it was open
    /// before.
    pub(super) fn connected(&mut self, cx: &mut Context<'_>) -> Option<Attempt> {
        let attempt = match self.phase {
            Phase::Connected => return None,
            // the other side was quicker: its connection says more than checks could
            Phase::Opening | Phase::Checking => {
                let sure = self.remotes.iter().find(|r| r.answered || r.chosen);
                let heard = sure.or_else(|| self.remotes.iter().find(|r| r.heard && self.tcp != Tcp::Await));
                let other = match self.tcp {
                    Tcp::Cross(..) => Rung::Crossed,
                    Tcp::Await => Rung::Tcp,
                    Tcp::Dial(..) | Tcp::No => Rung::Direct,
                };
                Attempt { rung: heard.map_or(other, |r| r.rung), ..self.attempt(cx.now, None) }
            }
            Phase::Nominated(..) => self.attempt(cx.now, None),
        };
        self.phase = Phase::Connected;
        // a path that comes too late must not be nominated
        self.nominate_at = None;
        self.stop_tcp(cx);
        self.until = cx.now.after(cx.cfg.linger);
        self.remotes.iter_mut().for_each(|r| r.due = None);
        self.pending.clear();
        Some(attempt)
    }

    /// Asserts the invariants of the phase, the checks and the use of TCP.
    pub(super) fn check(&self) {
        let checking = self.phase == Phase::Checking;
        let nominates = checking && self.role == Role::Downloader;
        assert!(self.nominate_at.is_none() || nominates, "a downloader nominates later only while it checks");
        let early = matches!(self.phase, Phase::Opening | Phase::Checking);
        assert!(self.game.is_none() || early, "birthday probing ends with the checks");
        assert!(self.tcp.due().is_none() || checking, "a TCP connection is planned only while paths are checked");
        let calls = match self.tcp {
            Tcp::Cross(..) => checking,
            Tcp::Dial(..) => self.role == Role::Uploader && matches!(self.phase, Phase::Nominated(_, Rung::Called)),
            Tcp::No | Tcp::Await => false,
        };
        assert!(self.tcp.opening().is_none() || calls, "a TCP connection is opened only where it is of use");
        let idle = matches!(self.phase, Phase::Opening | Phase::Connected);
        assert!(!idle || self.pending.is_empty(), "no answer is awaited before the checks and after the connection");
        let addrs: BTreeSet<SocketAddr> = self.remotes.iter().map(|r| r.addr).collect();
        assert!(addrs.len() == self.remotes.len(), "each address of the peer is tried once");
        assert!(self.pending.values().all(|to| addrs.contains(to)), "checks go to the peer's addresses");
        for remote in &self.remotes {
            let tried = checking || matches!(self.phase, Phase::Nominated(addr, _) if addr == remote.addr);
            assert!(remote.due.is_none() || tried, "only a nominated path is tried after the checks");
            assert!(!remote.chosen || self.role == Role::Uploader, "only an uploader is told which path is chosen");
        }
        let sent: u32 = self.remotes.iter().map(|r| u32::from(r.sent)).sum();
        assert!(sent <= u32::from(self.sent), "each check is counted as a datagram");
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        for at in [&mut self.began, &mut self.until].into_iter().chain(&mut self.nominate_at) {
            *at = at.rebased(by);
        }
        self.tcp.rebase(by);
        self.game.as_mut().into_iter().for_each(|g| g.rebase(by));
        self.remotes.iter_mut().filter_map(|r| r.due.as_mut()).for_each(|at| *at = at.rebased(by));
    }
}

#[cfg(test)]
impl Pair {
    /// Returns an attempt that waits for the CN's signal to start checks, for tests.
    pub(super) const fn waiting(intro: IntroId) -> Self {
        Self {
            intro,
            role: Role::Downloader,
            key: [0; 16],
            phase: Phase::Opening,
            began: Time(1),
            until: Time(9),
            remotes: Vec::new(),
            pending: BTreeMap::new(),
            sent: 0,
            tried: 0,
            nominate_at: None,
            game: None,
            tcp: Tcp::No,
        }
    }

    /// Returns an attempt that does birthday probing, for tests.
    pub(super) fn probing(intro: IntroId) -> Self {
        Self { game: Some(Game::idle(SocketAddr::from(([203, 0, 113, 5], 2000)))), ..Self::waiting(intro) }
    }

    /// Returns an attempt whose peers both open a TCP connection simultaneously, for tests.
    pub(super) fn crossing(intro: IntroId) -> Self {
        Self { phase: Phase::Checking, tcp: Tcp::opening_first(), ..Self::waiting(intro) }
    }
}

/// Returns a random STUN transaction identifier, so that only a host on the network path can answer.
pub(super) fn transaction(cx: &mut Context<'_>) -> TransactionId {
    let nonce = cx.rng.nonce();
    let mut id = [0; 12];
    id.copy_from_slice(&nonce[4..]);
    TransactionId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Clause, assert_each_clause_fires};
    use crate::ids::RawTcpId;
    use crate::nat::connectivity::tcp::Step;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 5], port))
    }

    /// Returns an attempt of a downloader that checks one address.
    fn checking() -> Pair {
        Pair {
            phase: Phase::Checking,
            remotes: alloc::vec![Remote { sent: 1, due: Some(Time(5)), ..Remote::new(addr(2000), Rung::Reflexive) }],
            pending: BTreeMap::from([(TransactionId([1; 12]), addr(2000))]),
            sent: 1,
            tcp: Tcp::Dial(addr(3000), Step::At(Time(7))),
            ..Pair::waiting(IntroId([1; 16]))
        }
    }

    const CLAUSES: &[Clause<Pair>] = &[
        ("a downloader nominates later only while it checks", |p| {
            (p.nominate_at, p.role) = (Some(Time(5)), Role::Uploader);
        }),
        ("a TCP connection is planned only while paths are checked", |p| p.phase = Phase::Connected),
        ("a TCP connection is opened only where it is of use", |p| {
            p.tcp = Tcp::Dial(addr(3000), Step::Opening(RawTcpId(1)));
        }),
        ("no answer is awaited before the checks and after the connection", |p| {
            (p.phase, p.tcp) = (Phase::Connected, Tcp::No);
        }),
        ("each address of the peer is tried once", |p| p.remotes.push(p.remotes[0])),
        ("checks go to the peer's addresses", |p| _ = p.pending.insert(TransactionId([2; 12]), addr(2001))),
        ("only a nominated path is tried after the checks", |p| {
            (p.phase, p.tcp) = (Phase::Nominated(addr(3000), Rung::Tcp), Tcp::No);
        }),
        ("only an uploader is told which path is chosen", |p| p.remotes[0].chosen = true),
        ("each check is counted as a datagram", |p| p.sent = 0),
        ("birthday probing ends with the checks", |p| {
            (p.phase, p.tcp) = (Phase::Connected, Tcp::No);
            p.game = Some(Game::idle(addr(2000)));
        }),
    ];

    #[test]
    fn each_clause_about_a_pair_fires() {
        assert_each_clause_fires(&checking(), Pair::check, CLAUSES);
    }

    #[test]
    fn once_connected_no_other_path_is_nominated() {
        let (mut pair, cfg) = (Pair { nominate_at: Some(Time(5)), ..checking() }, Config::default());
        let (mut out, mut rng) = (Vec::new(), crate::seeded::Seeded::new(1));
        let cx = &mut Cx { now: Time(4), cfg: &cfg, rng: &mut rng, out: &mut out };
        assert!(pair.connected(cx).is_some());
        pair.check();
        assert_eq!(pair.due(), Time(4).after(cfg.linger));
    }
}
