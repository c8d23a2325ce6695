//! Connections over TCP to a port that was reached from outside before. A downloader connects to its uploader and
//! begins the handshake. An uploader connects to its downloader if the reverse is impossible: it sends a check, which
//! tells the downloader the introduction that the line (bare connection) is for, and the downloader begins the
//! handshake on it. So roles and keys are the introduction's, whoever has opened the connection, and the downloader
//! nominates, as over UDP.
//!
//! If neither can connect to the other, both open a connection at once, each from its listening port to the endpoint at
//! which STUN servers see the other's (RFC 5382 §4.2). The result is one connection of both, or one that one has opened
//! and the other has accepted; two at most, and the downloader begins the handshake on the first that it has. The
//! uploader sends its check on the connection that it has opened, since the downloader may have accepted it.

use super::check::{self, Claim, Incoming};
use super::io::{Along, Attempt, Config, Failure, Line, LineEvent, Offer, Output, Role, Rung};
use super::pair::{Host, Pair, Phase, transaction};
use super::{Budget, Connectivity, Context};
use crate::ids::{IntroId, LineId};
use crate::nat::stun::Class;
use crate::nat::{HTTPS, crossing_for, doors_for};
use core::net::SocketAddr;

/// Returns the TCP endpoint to which this host connects, and whether the peer may connect to this host. Both sides
/// compute it alike, so that one of them connects: the downloader, if it can. The port of HTTPS comes first, since
/// every network lets it out.
pub(super) fn doors(offer: &Offer, host: &Host<'_>) -> (Option<SocketAddr>, bool) {
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

/// Simultaneous TCP open by both peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Crossing {
    /// Local listening port to connect from.
    from: u16,
    /// Endpoint at which the peer's listening port is seen.
    pub(super) to: SocketAddr,
    /// Number of attempts made so far.
    tried: u8,
}

/// Returns the simultaneous open to try, if both peers can do it.
pub(super) fn crossing(cfg: &Config, offer: &Offer, host: &Host<'_>) -> Option<Crossing> {
    let observed = [host.observed?.ip(), offer.ticket.observed.ip()].map(|ip| ip.to_canonical());
    let to = crossing_for(host.nat, &offer.nat, observed[1])?;
    let back = crossing_for(&offer.nat, host.nat, observed[0]);
    (back.is_some() && observed[0] != observed[1]).then_some(Crossing { from: cfg.crosses_from?, to, tried: 0 })
}

impl Budget {
    fn line(&mut self) -> LineId {
        self.next_line.step()
    }
}

impl Pair {
    /// Returns whether this attempt still waits for this line to open.
    fn waits_for(&self, line: LineId) -> bool {
        self.line == Some(line)
    }

    /// Tries TCP, since checks have found no path in their time or there are none.
    pub(super) fn use_door(&mut self, cx: &mut Context<'_>, budget: &mut Budget) {
        self.door_at = None;
        if self.phase != Phase::Checking {
            return;
        }
        let Some(addr) = self.door else { return self.cross(cx, budget) };
        match self.role {
            Role::Downloader => self.take_path(cx, (addr, Rung::Tcp), Along::Tcp),
            Role::Uploader => {
                let line = budget.line();
                self.chosen(cx, (addr, Rung::Called));
                self.line = Some(line);
                cx.push(Output::Line(Line::Call { line, to: addr, from: None }));
            }
        }
    }

    /// Opens a connection while the peer opens one too.
    fn cross(&mut self, cx: &mut Context<'_>, budget: &mut Budget) {
        let Some(crossing) = self.crossing.as_mut().filter(|c| c.tried < cx.cfg.crossings.0) else { return };
        crossing.tried += 1;
        let (line, Crossing { from, to, .. }) = (budget.line(), *crossing);
        self.line = Some(line);
        cx.push(Output::Line(Line::Call { line, to, from: Some(from) }));
    }

    /// Cancels the line that was requested.
    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = self.line.take() {
            cx.push(Output::Line(Line::HangUp(line)));
        }
    }

    /// Handles a line that failed to open. A simultaneous open is retried: the peer's NAT may have rejected it before
    /// the peer's own packet opened it.
    fn failed(&mut self, cx: &mut Context<'_>) -> Option<Attempt> {
        self.line = None;
        if self.crossing.is_none() {
            return Some(self.attempt(cx.now, Some(Failure::NoHandshake)));
        }
        self.door_at = Some(cx.now.after(cx.cfg.crossings.1));
        None
    }

    /// Handles an open line: the downloader begins the handshake, the uploader sends its check.
    fn opened(&mut self, cx: &mut Context<'_>, line: LineId) {
        self.line = None;
        if let Some(crossing) = self.crossing {
            let way = (crossing.to, Rung::Crossed);
            if self.role == Role::Downloader {
                return self.take_path(cx, way, Along::Line(line));
            }
            self.chosen(cx, way);
        }
        let id = transaction(cx);
        let shows = check::request((self.intro, &self.key), self.role, id, (Class::Request, false));
        cx.push(Output::Line(Line::Serve { line, shows }));
    }

    /// Accepts a connection of the uploader, unless a path was chosen before.
    fn called(&mut self, cx: &mut Context<'_>, line: LineId, from: SocketAddr) {
        // it was told to go, so both NATs are open
        self.go(cx);
        match self.phase {
            Phase::Checking => {
                let rung = if self.crossing.is_some() { Rung::Crossed } else { Rung::Called };
                self.take_path(cx, (from, rung), Along::Line(line));
            }
            Phase::Opening | Phase::Nominated(..) | Phase::Connected => cx.push(Output::Line(Line::HangUp(line))),
        }
    }
}

impl Connectivity {
    /// Handles an event on a line. A line that nobody waits for, or whose check is not an introduced uploader's, is
    /// closed.
    pub(super) fn line(&mut self, cx: &mut Context<'_>, event: LineEvent) {
        match event {
            LineEvent::Open(line) => match self.waiting(line) {
                Some(intro) => self.with(cx, intro, |pair, cx, _| {
                    pair.opened(cx, line);
                    None
                }),
                None => cx.push(Output::Line(Line::HangUp(line))),
            },
            LineEvent::Failed(line) => {
                if let Some(intro) = self.waiting(line) {
                    self.with(cx, intro, |pair, cx, _| pair.failed(cx));
                }
            }
            LineEvent::Shown { line, from, bytes } => match self.caller(&bytes) {
                Some(intro) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    self.with(cx, intro, |pair, cx, _| {
                        pair.called(cx, line, from);
                        None
                    });
                }
                None => cx.push(Output::Line(Line::HangUp(line))),
            },
        }
    }

    fn waiting(&self, line: LineId) -> Option<IntroId> {
        self.pairs.iter().find(|(_, p)| p.waits_for(line)).map(|(intro, _)| *intro)
    }

    /// Returns the introduction for which an uploader sent this check.
    fn caller(&self, bytes: &[u8]) -> Option<IntroId> {
        let incoming = Incoming::read(bytes)?;
        let Claim::Request { intro, by: Role::Uploader, .. } = incoming.claim()? else { return None };
        let pair = self.pairs.get(&intro)?;
        (pair.role() == Role::Downloader && incoming.is_of(pair.key())).then_some(intro)
    }
}
