//! Connections over TCP to a port that was reached from outside before. A downloader connects to its uploader and
//! begins the handshake. An uploader connects to its downloader if the reverse is impossible: it sends a check, which
//! tells the downloader the introduction that the raw TCP connection is for, and the downloader begins the handshake
//! on it. So roles and keys are those of the introduction, whichever peer has opened the connection.
//!
//! If neither can connect to the other, both open a connection at once, each from its listening port to the endpoint
//! at which STUN servers see the other's (RFC 5382 §4.2). The result is one common connection, or one or two that one
//! peer has opened and the other has accepted. The downloader begins the handshake on the first connection that it
//! has. The uploader sends its check on the connection that it has opened, since the downloader may have accepted it.

use super::check::{self, Claim, Incoming};
use super::io::{Along, Attempt, Config, Failure, Offer, Output, RawTcp, RawTcpEvent, Role, Rung};
use super::pair::{Host, Pair, Phase, transaction};
use super::{Budget, Connectivity, Context};
use crate::ids::{IntroId, RawTcpId};
use crate::machine::Time;
use crate::nat::stun::Class;
use crate::nat::{HTTPS, crossing_for, doors_for};
use core::net::SocketAddr;
use core::time::Duration;

/// Use of TCP by an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tcp {
    /// Use no TCP connection.
    No,
    /// Connect to this TCP address of the peer.
    Dial(SocketAddr, Step),
    /// Wait for the peer to connect to a TCP port of this host.
    Await,
    /// Open a connection while the peer opens one too (simultaneous open).
    Cross(Crossing, Step),
}

/// Progress of a TCP connection that this host opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// The connection is not planned yet, or open, or failed.
    Idle,
    /// The connection is to be opened at this time.
    At(Time),
    /// The connection was requested, and is neither open nor failed yet.
    Opening(RawTcpId),
}

impl Tcp {
    /// Returns how an attempt to connect to this peer may use TCP.
    pub(super) fn between(cfg: &Config, offer: &Offer, host: &Host<'_>) -> Self {
        match reachable(offer, host) {
            (Some(to), _) => Self::Dial(to, Step::Idle),
            (None, true) => Self::Await,
            (None, false) => crossing(cfg, offer, host).map_or(Self::No, |c| Self::Cross(c, Step::Idle)),
        }
    }

    /// Returns whether `addr` is the peer's TCP address to which this host connects.
    pub(super) fn is_to(&self, addr: SocketAddr) -> bool {
        match self {
            Self::Dial(to, _) => *to == addr,
            Self::Cross(crossing, _) => crossing.to == addr,
            Self::No | Self::Await => false,
        }
    }

    /// Returns whether the peer opens a TCP connection to this host.
    pub(super) const fn is_by_peer(&self) -> bool {
        matches!(self, Self::Await | Self::Cross(..))
    }

    /// Returns the step that the TCP attempt has reached.
    const fn step(&self) -> Step {
        match self {
            Self::Dial(_, step) | Self::Cross(_, step) => *step,
            Self::No | Self::Await => Step::Idle,
        }
    }

    /// Sets the progress of the TCP connection that this host opens; does nothing if it opens none.
    const fn set(&mut self, to: Step) {
        if let Self::Dial(_, step) | Self::Cross(_, step) = self {
            *step = to;
        }
    }

    /// Plans that this host opens its TCP connection at this time; does nothing if it opens none.
    pub(super) const fn schedule(&mut self, at: Time) {
        self.set(Step::At(at));
    }

    /// Returns the time at which this host is to open a TCP connection; `None` if none is planned.
    pub(super) const fn due(&self) -> Option<Time> {
        match self.step() {
            Step::At(at) => Some(at),
            Step::Idle | Step::Opening(_) => None,
        }
    }

    /// Returns the raw TCP connection that this host has requested and that is not open yet.
    pub(super) const fn opening(&self) -> Option<RawTcpId> {
        match self.step() {
            Step::Opening(id) => Some(id),
            Step::Idle | Step::At(_) => None,
        }
    }

    /// Returns a simultaneous open whose first connection was requested, for tests.
    #[cfg(test)]
    pub(super) fn opening_first() -> Self {
        let to = SocketAddr::from(([203, 0, 113, 5], 2000));
        Self::Cross(Crossing { from: 5000, to, tried: 1 }, Step::Opening(RawTcpId(1)))
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        if let Step::At(at) = self.step() {
            self.set(Step::At(at.rebased(by)));
        }
    }
}

/// Returns the peer's TCP address to which this host connects, and whether the peer connects to this host instead.
/// Both peers compute the same result: the downloader connects if it can, else the uploader. Port 443 is preferred,
/// since most networks allow connections to it.
fn reachable(offer: &Offer, host: &Host<'_>) -> (Option<SocketAddr>, bool) {
    let apart = |d: &SocketAddr| host.observed.is_none_or(|own| own.ip().to_canonical() != d.ip().to_canonical());
    let its_own = |d: &SocketAddr| offer.nat.candidates.iter().any(|c| c.addr.ip().to_canonical() == d.ip());
    let all = doors_for(host.nat, &offer.nat, offer.ticket.observed.ip());
    let door = all.filter(|d| apart(d) || its_own(d)).min_by_key(|d| d.port() != HTTPS);
    let reached = host.observed.is_some_and(|own| doors_for(&offer.nat, host.nat, own.ip()).next().is_some());
    match offer.role {
        Role::Downloader => (door, door.is_none() && reached),
        Role::Uploader => (door.filter(|_| !reached), reached),
    }
}

/// Simultaneous TCP open by both peers (RFC 5382 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Crossing {
    /// Local listening port to connect from.
    from: u16,
    /// Address and port at which STUN servers see the peer's listening port.
    to: SocketAddr,
    /// Number of attempts made so far.
    tried: u8,
}

/// Returns the simultaneous TCP open to try; `None` unless both peers can do it.
fn crossing(cfg: &Config, offer: &Offer, host: &Host<'_>) -> Option<Crossing> {
    let observed = [host.observed?.ip(), offer.ticket.observed.ip()].map(|ip| ip.to_canonical());
    let to = crossing_for(host.nat, &offer.nat, observed[1])?;
    let back = crossing_for(&offer.nat, host.nat, observed[0]);
    (back.is_some() && observed[0] != observed[1]).then_some(Crossing { from: cfg.crosses_from?, to, tried: 0 })
}

impl Budget {
    fn raw_tcp_id(&mut self) -> RawTcpId {
        self.next_line.step()
    }
}

impl Pair {
    /// Tries TCP, after connectivity checks over UDP have found no path in time, or if none can be sent.
    pub(super) fn use_tcp(&mut self, cx: &mut Context<'_>, budget: &mut Budget) {
        self.tcp.set(Step::Idle);
        if self.phase != Phase::Checking {
            return;
        }
        match (&mut self.tcp, self.role) {
            (Tcp::Dial(to, _), Role::Downloader) => {
                let to = *to;
                self.take_path(cx, (to, Rung::Tcp), Along::Tcp);
            }
            (Tcp::Dial(to, _), Role::Uploader) => {
                let (id, to) = (budget.raw_tcp_id(), *to);
                self.chosen(cx, (to, Rung::Called));
                self.tcp.set(Step::Opening(id));
                cx.push(Output::RawTcp(RawTcp::Call { id, to, from: None }));
            }
            // the peer opens one at the same time
            (Tcp::Cross(Crossing { from, to, tried }, step), _) if *tried < cx.cfg.crossings.0 => {
                *tried += 1;
                let id = budget.raw_tcp_id();
                *step = Step::Opening(id);
                cx.push(Output::RawTcp(RawTcp::Call { id, to: *to, from: Some(*from) }));
            }
            (Tcp::No | Tcp::Await | Tcp::Cross(..), _) => {}
        }
    }

    /// Cancels the TCP connection that this host has planned or requested.
    pub(super) fn stop_tcp(&mut self, cx: &mut Context<'_>) {
        if let Some(id) = self.tcp.opening() {
            cx.push(Output::RawTcp(RawTcp::HangUp(id)));
        }
        self.tcp.set(Step::Idle);
    }

    /// Handles a raw TCP connection that failed to open. A simultaneous open is retried: the peer's NAT may have
    /// rejected it before the peer's own packet opened it.
    fn failed(&mut self, cx: &mut Context<'_>) -> Option<Attempt> {
        self.tcp.set(Step::Idle);
        if !matches!(self.tcp, Tcp::Cross(..)) {
            return Some(self.attempt(cx.now, Some(Failure::NoHandshake)));
        }
        self.tcp.schedule(cx.now.after(cx.cfg.crossings.1));
        None
    }

    /// Handles a raw TCP connection that has opened: the downloader begins the TLS handshake, the uploader sends a
    /// check.
    fn opened(&mut self, cx: &mut Context<'_>, id: RawTcpId) {
        self.tcp.set(Step::Idle);
        if let Tcp::Cross(crossing, _) = self.tcp {
            let way = (crossing.to, Rung::Crossed);
            if self.role == Role::Downloader {
                return self.take_path(cx, way, Along::RawTcp(id));
            }
            self.chosen(cx, way);
        }
        let transaction = transaction(cx);
        let first = check::request((self.intro, &self.key), self.role, transaction, (Class::Request, false));
        cx.push(Output::RawTcp(RawTcp::Serve { id, first }));
    }

    /// Accepts a TCP connection that the uploader has opened, unless a path was chosen before.
    fn called(&mut self, cx: &mut Context<'_>, id: RawTcpId, from: SocketAddr) {
        // it was told to go, so both NATs are open
        self.go(cx);
        match self.phase {
            Phase::Checking => {
                let rung = if matches!(self.tcp, Tcp::Cross(..)) { Rung::Crossed } else { Rung::Called };
                self.take_path(cx, (from, rung), Along::RawTcp(id));
            }
            Phase::Opening | Phase::Nominated(..) | Phase::Connected => cx.push(Output::RawTcp(RawTcp::HangUp(id))),
        }
    }
}

impl Connectivity {
    /// Handles an event on a raw TCP connection. Closes the connection if no attempt waits for it, or if the check
    /// received on it was not sent by an introduced uploader.
    pub(super) fn raw_tcp(&mut self, cx: &mut Context<'_>, event: RawTcpEvent) {
        match event {
            RawTcpEvent::Open(id) => match self.waiting(id) {
                Some(intro) => self.with(cx, intro, |pair, cx, _| {
                    pair.opened(cx, id);
                    None
                }),
                None => cx.push(Output::RawTcp(RawTcp::HangUp(id))),
            },
            RawTcpEvent::Failed(id) => {
                if let Some(intro) = self.waiting(id) {
                    self.with(cx, intro, |pair, cx, _| pair.failed(cx));
                }
            }
            RawTcpEvent::Shown { id, from, bytes } => match self.caller(&bytes) {
                Some(intro) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    self.with(cx, intro, |pair, cx, _| {
                        pair.called(cx, id, from);
                        None
                    });
                }
                None => cx.push(Output::RawTcp(RawTcp::HangUp(id))),
            },
        }
    }

    fn waiting(&self, id: RawTcpId) -> Option<IntroId> {
        self.pairs.iter().find(|(_, p)| p.tcp.opening() == Some(id)).map(|(intro, _)| *intro)
    }

    /// Returns the introduction whose uploader sent this connectivity check; `None` if no introduced uploader sent
    /// it.
    fn caller(&self, bytes: &[u8]) -> Option<IntroId> {
        let incoming = Incoming::read(bytes)?;
        let Claim::Request { intro, by: Role::Uploader, .. } = incoming.claim()? else { return None };
        let pair = self.pairs.get(&intro)?;
        (pair.role() == Role::Downloader && incoming.is_of(pair.key())).then_some(intro)
    }
}
