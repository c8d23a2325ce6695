//! Attempt to connect one introduced pair, as one of its peers runs it: Opening → Checking → Nominated → Connected, or
//! failed on the way.

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

/// State of one attempt to connect to an introduced peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) intro: IntroId,
    pub(super) role: Role,
    pub(super) key: [u8; 16],
    pub(super) phase: Phase,
    /// Time of "go", or of the offer before "go" comes.
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
    /// Time at which a validated path is nominated, if no better one comes before.
    nominate_at: Option<Time>,
    /// Birthday probing in progress, if any.
    game: Option<Game>,
    /// TCP address of the peer, if this host is the one to connect.
    pub(super) door: Option<SocketAddr>,
    /// Time at which this host opens a TCP connection.
    pub(super) door_at: Option<Time>,
    /// Whether the peer may connect to a TCP port of this host.
    awaited: bool,
    /// Simultaneous TCP open by both peers, if they do so.
    pub(super) crossing: Option<Crossing>,
    /// Line that this host has requested and not yet got.
    pub(super) line: Option<LineId>,
}

/// State of this host that an attempt depends on.
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
    /// The own NAT is open; "go" has not come.
    Opening,
    /// Every candidate is tried.
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
    /// Whether an opener was sent to this address.
    opened: bool,
    /// Number of checks sent to this address.
    sent: u8,
    /// Time of the next check.
    due: Option<Time>,
    /// Whether this address answered a check.
    answered: bool,
    /// Whether the peer's own checks came from this address.
    heard: bool,
    /// Whether the peer nominated this address.
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

    /// Returns whether the attempt has sent no more datagrams than allowed; for model checks.
    pub(super) fn is_within_bounds(&self, cfg: &Config) -> bool {
        let game = self.game.is_none_or(|g| cfg.birthday.is_some_and(|b| g.sent() <= g.limit(&b)));
        game && self.sent <= cfg.per_pair_max && self.remotes.iter().all(|r| r.sent <= cfg.per_address_max)
    }

    /// Returns the number of endpoints contacted: a symmetric NAT has made as many mappings.
    pub(super) fn flows(&self) -> u16 {
        u16::try_from(self.remotes.iter().filter(|r| r.sent > 0 || r.opened).count()).unwrap_or(u16::MAX)
    }

    /// Returns whether `addr` belongs to the peer.
    pub(super) fn knows(&self, addr: SocketAddr) -> bool {
        self.remotes.iter().any(|r| r.addr == addr) || self.game.is_some_and(|g| g.aims_at(addr))
    }

    /// Returns whether `addr` is a TCP endpoint of the peer.
    pub(super) fn has_door(&self, addr: SocketAddr) -> bool {
        self.door == Some(addr) || self.crossing.is_some_and(|c| c.to == addr)
    }

    /// Returns whether birthday probing is in progress.
    pub(super) const fn plays(&self) -> bool {
        self.game.is_some()
    }

    /// Returns whether a datagram on this extra socket counts as received on the main one.
    pub(super) fn meets(&mut self, cx: &mut Context<'_>, socket: u16, from: SocketAddr) -> bool {
        let met = self.game.as_mut().is_some_and(|g| g.meets(cx, self.intro, socket, from));
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

    /// Returns the earliest time at which something is due.
    pub(super) fn due(&self) -> Time {
        let checks = self.remotes.iter().filter_map(|r| r.due);
        let game = self.game.and_then(|g| g.due());
        checks.chain(game).chain(self.nominate_at).chain(self.door_at).chain([self.until]).min().unwrap_or(self.until)
    }

    /// Starts the checks: the CN said "go", or the peer's check shows that it did.
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

    /// Sends the checks that are due. Returns the result once the attempt is over.
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

    /// Returns the result of an attempt that ends now, with this failure or none.
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

    /// Answers an authenticated request to its source address, and tries that address too.
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

    /// Records an authenticated answer. It counts only from the address that the request went to (RFC 8445 §7.2.5.2.1).
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

    /// Chooses a path if one qualifies.
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

    /// Chooses the downloader's best answered path, once and for all, and nominates it with a check.
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

    /// Records the chosen path and stops trying all others.
    pub(super) fn chosen(&mut self, cx: &mut Context<'_>, (addr, rung): (SocketAddr, Rung)) {
        self.phase = Phase::Nominated(addr, rung);
        self.until = cx.now.after(cx.cfg.connect_within);
        (self.nominate_at, self.door_at) = (None, None);
        self.hang_up(cx);
        self.remotes.iter_mut().for_each(|r| r.due = None);
        self.end_game(cx);
    }

    /// Records that the connection is open. Returns `None` if it already was.
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

/// Returns a random transaction identifier, so that nobody off the path can answer.
pub(super) fn transaction(cx: &mut Context<'_>) -> TransactionId {
    let nonce = cx.rng.nonce();
    let mut id = [0; 12];
    id.copy_from_slice(&nonce[4..]);
    TransactionId(id)
}
