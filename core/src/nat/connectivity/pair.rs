//! One introduced pair, seen from one of its peers: Opening → Checking → Nominated → Connected, or failed on the way.

use super::birthday::Game;
use super::candidates::{candidates, counts, openers};
use super::check;
use super::io::{Along, Attempt, Config, Failure, Offer, Output, Role, Rung, Scatter};
use super::tcp::{Crossing, crossing, doors};
use super::{Budget, Connectivity};
use crate::ids::{IntroId, LineId};
use crate::machine::{Cx, Time};
use crate::nat::NatDescriptor;
use crate::nat::stun::{Class, TransactionId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

type Context<'a> = Cx<'a, Connectivity>;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) intro: IntroId,
    pub(super) role: Role,
    pub(super) key: [u8; 16],
    pub(super) phase: Phase,
    /// Of "go", or of the offer before it.
    began: Time,
    /// The present phase ends.
    until: Time,
    remotes: Vec<Remote>,
    /// Requests that may still be answered.
    pending: BTreeMap<TransactionId, SocketAddr>,
    /// Datagrams sent.
    sent: u16,
    /// Datagrams of the game that is over.
    tried: u16,
    /// A validated path is nominated then, if no better one comes before.
    nominate_at: Option<Time>,
    /// Many ports are tried.
    game: Option<Game>,
    /// Where the peer listens on TCP, if it is this host that goes there.
    pub(super) door: Option<SocketAddr>,
    /// When it does.
    pub(super) door_at: Option<Time>,
    /// The peer may come to a TCP port of this host.
    awaited: bool,
    /// Both open a connection to one another at once.
    pub(super) crossing: Option<Crossing>,
    /// The line that this host has asked for.
    pub(super) line: Option<LineId>,
}

/// What an attempt must know of its own host.
pub(super) struct Host<'a> {
    /// Where the CN sees it.
    pub(super) observed: Option<SocketAddr>,
    pub(super) behind_nat: bool,
    pub(super) nat: &'a NatDescriptor,
    /// No other attempt tries many ports.
    pub(super) free: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The own NAT is open; "go" has not come.
    Opening,
    /// Every candidate is tried.
    Checking,
    /// This path was chosen; a connection on it has not come to be.
    Nominated(SocketAddr, Rung),
    /// It has. Late checks are answered.
    Connected,
}

/// An address of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Remote {
    addr: SocketAddr,
    rung: Rung,
    /// An opener went there.
    opened: bool,
    /// Checks sent there.
    sent: u8,
    /// The next one.
    due: Option<Time>,
    /// It answered.
    answered: bool,
    /// The peer's own checks came from there.
    heard: bool,
    /// The peer nominated it.
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
    /// Takes an offer and opens the own NAT. Without an address to try there is no pair.
    pub(super) fn open(cx: &mut Context<'_>, offer: &Offer, host: &Host<'_>) -> Option<Self> {
        let every = if offer.role == Role::Downloader && counts(host.nat) { 2 } else { 1 };
        let (door, awaited) = doors(offer, host);
        let crossing = crossing(cx.cfg, offer, host).filter(|_| door.is_none() && !awaited);
        // where UDP is of no use to one side and TCP is, no datagram is sent
        let futile = (door.is_some() || awaited || crossing.is_some()) && !(host.nat.udp && offer.nat.udp);
        let all = match futile {
            true => Vec::new(),
            false => candidates(cx.cfg, &offer.ticket, &offer.nat, host.observed, every),
        };
        if all.is_empty() && door.is_none() && !awaited && crossing.is_none() {
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
            door,
            door_at: None,
            awaited,
            crossing,
            line: None,
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

    /// Whether every datagram so far went to one of the peer's addresses, and not too many: for checks.
    pub(super) fn is_within_bounds(&self, cfg: &Config) -> bool {
        let game = self.game.is_none_or(|g| cfg.birthday.is_some_and(|b| g.sent() <= g.limit(&b)));
        game && self.sent <= cfg.per_pair_max && self.remotes.iter().all(|r| r.sent <= cfg.per_address_max)
    }

    /// Endpoints that something was sent to: so many mappings a symmetric NAT has made for this attempt.
    pub(super) fn flows(&self) -> u16 {
        u16::try_from(self.remotes.iter().filter(|r| r.sent > 0 || r.opened).count()).unwrap_or(u16::MAX)
    }

    /// Whether `addr` is one of the peer's.
    pub(super) fn knows(&self, addr: SocketAddr) -> bool {
        self.remotes.iter().any(|r| r.addr == addr) || self.game.is_some_and(|g| g.aims_at(addr))
    }

    /// Whether a TCP connection to `addr` is one to the peer.
    pub(super) fn has_door(&self, addr: SocketAddr) -> bool {
        self.door == Some(addr) || self.crossing.is_some_and(|c| c.to == addr)
    }

    /// Many ports are tried.
    pub(super) const fn plays(&self) -> bool {
        self.game.is_some()
    }

    /// Whether what came from the peer to one of many sockets counts as come to the main one.
    pub(super) fn meets(&mut self, cx: &mut Context<'_>, socket: u16, from: SocketAddr) -> bool {
        let met = self.game.as_mut().is_some_and(|g| g.meets(cx, self.intro, socket, from));
        self.remotes.iter_mut().filter(|r| met && r.addr == from).for_each(|r| r.rung = Rung::Birthday);
        met
    }

    /// No more ports are tried.
    pub(super) fn end_game(&mut self, cx: &mut Context<'_>) {
        let Some(game) = self.game.take() else { return };
        self.tried = game.sent();
        if game.has_sockets() {
            cx.push(Output::Scatter(Scatter::Gather(self.intro)));
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Time {
        let checks = self.remotes.iter().filter_map(|r| r.due);
        let game = self.game.and_then(|g| g.due());
        checks.chain(game).chain(self.nominate_at).chain(self.door_at).chain([self.until]).min().unwrap_or(self.until)
    }

    /// The CN says "go", or the peer's check shows that it has.
    pub(super) fn go(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Opening {
            return;
        }
        self.phase = Phase::Checking;
        self.began = cx.now;
        let birthday = cx.cfg.birthday.filter(|_| self.game.is_some());
        self.until = cx.now.after(birthday.map_or(cx.cfg.check_within, |b| b.within));
        if self.awaited || self.crossing.is_some() {
            // the peer is given the time that it may take
            self.until = self.until.after(cx.cfg.connect_within);
        }
        let wait = if self.remotes.is_empty() { Duration::ZERO } else { cx.cfg.door_after };
        self.door_at = self.door.or(self.crossing.map(|c| c.to)).map(|_| cx.now.after(wait));
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

    /// Sends what is due. `Some` when the attempt is over.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Option<Attempt> {
        if cx.now >= self.until {
            return Some(self.expire(cx.now));
        }
        if self.nominate_at.is_some_and(|at| at <= cx.now) {
            self.nominate(cx);
        }
        if self.door_at.is_some_and(|at| at <= cx.now) {
            self.use_door(cx, budget);
        }
        for i in 0..self.remotes.len() {
            if self.remotes[i].due.is_some_and(|at| at <= cx.now) {
                self.check(cx, budget, i);
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

    /// How it stands, as an end.
    pub(super) fn attempt(&self, now: Time, failure: Option<Failure>) -> Attempt {
        let rung = match self.phase {
            Phase::Nominated(_, rung) => rung,
            Phase::Opening | Phase::Checking | Phase::Connected => Rung::None,
        };
        let tried = self.game.map_or(self.tried, |g| g.sent());
        Attempt { failure, rung, probes: self.sent.saturating_add(tried), took_ms: millis(now.since(self.began)) }
    }

    fn check(&mut self, cx: &mut Context<'_>, budget: &mut Budget, i: usize) {
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

    /// An authenticated request of the peer came: it is answered to where it came from, wherever that is, and that
    /// address is tried too.
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
            self.check(cx, budget, at);
        }
        self.settle(cx);
    }

    /// An authenticated answer to a request of ours came. It counts only from where the request went (RFC 8445
    /// §7.2.5.2.1).
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

    /// Chooses a path if one can be chosen.
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

    /// The downloader chooses the best path that answered, once and for all, and says so along it.
    fn nominate(&mut self, cx: &mut Context<'_>) {
        self.nominate_at = None;
        let answered = self.remotes.iter().filter(|r| r.answered);
        let Some(remote) = answered.min_by_key(|r| r.rung.number()).copied() else { return };
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

    /// Nothing else is tried any more.
    pub(super) fn chosen(&mut self, cx: &mut Context<'_>, (addr, rung): (SocketAddr, Rung)) {
        self.phase = Phase::Nominated(addr, rung);
        self.until = cx.now.after(cx.cfg.connect_within);
        (self.nominate_at, self.door_at) = (None, None);
        self.hang_up(cx);
        self.remotes.iter_mut().for_each(|r| r.due = None);
        self.end_game(cx);
    }

    /// A connection has come to be. `None` if it already had.
    pub(super) fn connected(&mut self, cx: &mut Context<'_>) -> Option<Attempt> {
        let attempt = match self.phase {
            Phase::Connected => return None,
            // the other side was quicker: its connection says more than checks could
            Phase::Opening | Phase::Checking => {
                let sure = self.remotes.iter().find(|r| r.answered || r.chosen);
                let heard = sure.or_else(|| self.remotes.iter().find(|r| r.heard && !self.awaited));
                let other = match self.crossing {
                    Some(_) => Rung::Crossed,
                    None if self.awaited => Rung::Tcp,
                    None => Rung::Direct,
                };
                Attempt { rung: heard.map_or(other, |r| r.rung), ..self.attempt(cx.now, None) }
            }
            Phase::Nominated(..) => self.attempt(cx.now, None),
        };
        self.phase = Phase::Connected;
        self.door_at = None;
        self.hang_up(cx);
        self.until = cx.now.after(cx.cfg.linger);
        self.remotes.iter_mut().for_each(|r| r.due = None);
        self.pending.clear();
        Some(attempt)
    }

    pub(super) const fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected)
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        for at in [&mut self.began, &mut self.until].into_iter().chain(&mut self.nominate_at).chain(&mut self.door_at) {
            *at = at.rebased(by);
        }
        self.game.as_mut().into_iter().for_each(|g| g.rebase(by));
        self.remotes.iter_mut().filter_map(|r| r.due.as_mut()).for_each(|at| *at = at.rebased(by));
    }
}

/// Unpredictable, so that nobody off the path can answer.
pub(super) fn transaction(cx: &mut Context<'_>) -> TransactionId {
    let nonce = cx.rng.nonce();
    let mut id = [0; 12];
    id.copy_from_slice(&nonce[4..]);
    TransactionId(id)
}
