//! Birthday probing, for a peer whose NAT assigns each flow a random port and one whose NAT filters by port: the peer
//! behind the first NAT sends from many sockets to the other's one endpoint, and the other tries many ports of the
//! first peer's address. With 256 sockets and 1,024 ports of 64,512 the two meet in 98 of 100 attempts. It fills
//! NATs' tables, so it is done only if both users enable it, and each host does one such probing at a time.

use super::Connectivity;
use super::io::{Birthday, Output, Rung, Scatter};
use crate::ids::IntroId;
use crate::machine::{Cx, Time};
use crate::nat::{NatBehaviour, NatDescriptor, draws_ports, filters_by_port};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

type Context<'a> = Cx<'a, Connectivity>;

/// Lowest port that is probed.
const PORT_MIN: u16 = 1_024;
/// Number of ports that a NAT may assign, from [`PORT_MIN`] on.
const PORTS: u32 = 64_512;
/// Distance between ports tried in succession: a prime, so that none is repeated.
const PORT_STEP: u32 = 10_007;

/// State of one side of birthday probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Game {
    side: Side,
    /// Number of datagrams sent.
    sent: u16,
    due: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    /// Sending from many sockets of this host to one endpoint of the peer; `met` is the socket that the peer reached.
    Sockets { to: SocketAddr, met: Option<u16> },
    /// Sending to many ports of one address of the peer, beginning with `first`.
    Ports { of: IpAddr, first: u32 },
}

impl Game {
    /// Returns the birthday probing that this host does towards a peer; `None` if the two NATs or the users' settings
    /// rule it out. `all`: the peer's addresses that may be tried.
    pub(super) fn of(
        cx: &mut Context<'_>,
        own: &NatDescriptor,
        peer: &NatDescriptor,
        all: &[(SocketAddr, Rung)],
    ) -> Option<Self> {
        cx.cfg.birthday.filter(|_| own.birthday && peer.birthday)?;
        let outside = all.iter().filter(|(addr, rung)| *rung == Rung::Reflexive && addr.is_ipv4());
        let to = outside.map(|(addr, _)| *addr).next()?;
        let independent = |d: &NatDescriptor| d.maps() == NatBehaviour::EndpointIndependent;
        let side = if draws_ports(own) && independent(peer) && filters_by_port(peer) {
            Side::Sockets { to, met: None }
        } else if draws_ports(peer) && independent(own) && filters_by_port(own) {
            Side::Ports { of: to.ip(), first: cx.rng.below(PORTS) }
        } else {
            return None;
        };
        Some(Self { side, sent: 0, due: None })
    }

    /// Returns a birthday probing from many sockets that has not begun, for tests.
    #[cfg(test)]
    pub(super) const fn idle(to: SocketAddr) -> Self {
        Self { side: Side::Sockets { to, met: None }, sent: 0, due: None }
    }

    pub(super) const fn begin(&mut self, now: Time) {
        self.due = Some(now);
    }

    /// Stops the birthday probing, since a check of the peer has arrived.
    pub(super) const fn stop(&mut self) {
        self.due = None;
    }

    pub(super) const fn due(&self) -> Option<Time> {
        self.due
    }

    pub(super) const fn sent(&self) -> u16 {
        self.sent
    }

    /// Returns the maximum number of datagrams that this host sends for the probing.
    pub(super) const fn limit(&self, cfg: &Birthday) -> u16 {
        match self.side {
            Side::Sockets { .. } => cfg.sockets.saturating_mul(2),
            Side::Ports { .. } => cfg.probes,
        }
    }

    /// Returns whether the birthday probing sends datagrams to this address.
    pub(super) fn aims_at(&self, addr: SocketAddr) -> bool {
        match self.side {
            Side::Sockets { to, .. } => addr == to,
            Side::Ports { of, .. } => addr.ip() == of && addr.port() >= PORT_MIN,
        }
    }

    /// Returns whether this address is probed from extra sockets, so that the QUIC socket need not send checks to it.
    pub(super) fn is_met_elsewhere(&self, addr: SocketAddr) -> bool {
        matches!(self.side, Side::Sockets { to, .. } if to == addr)
    }

    pub(super) const fn has_sockets(&self) -> bool {
        matches!(self.side, Side::Sockets { .. })
    }

    /// Records a check of the peer that arrived on an extra socket. Returns whether it is handled as if it had
    /// arrived on the QUIC socket: only if it came to the first extra socket that the peer reached, which is used
    /// towards this peer from then on.
    pub(super) fn on_hit(&mut self, cx: &mut Context<'_>, intro: IntroId, socket: u16, from: SocketAddr) -> bool {
        let Side::Sockets { to, met } = &mut self.side else { return false };
        if met.is_none() && *to == from {
            *met = Some(socket);
            cx.push(Output::Scatter(Scatter::Adopt { intro, socket, to: from }));
        }
        *met == Some(socket) && *to == from
    }

    /// Sends the probes that are due. `request` creates a connectivity check to be sent.
    pub(super) fn play(
        &mut self,
        cx: &mut Context<'_>,
        intro: IntroId,
        request: impl Fn(&mut Context<'_>) -> alloc::vec::Vec<u8>,
    ) {
        let Some(cfg) = cx.cfg.birthday.filter(|_| cx.is_due(self.due)) else { return };
        let limit = self.limit(&cfg);
        for _ in 0..cfg.batch {
            if self.sent >= limit {
                break;
            }
            let bytes = request(cx);
            match self.side {
                Side::Sockets { to, .. } => {
                    cx.push(Output::Scatter(Scatter::Send { intro, socket: self.sent % cfg.sockets, to, bytes }));
                }
                Side::Ports { of, first } => {
                    let nth = (first + PORT_STEP * u32::from(self.sent)) % PORTS;
                    let port = PORT_MIN + u16::try_from(nth).unwrap_or(0);
                    cx.push(Output::Send { to: SocketAddr::new(of, port), bytes, ttl: None });
                }
            }
            self.sent += 1;
        }
        debug_assert!(self.sent <= limit, "no more probes are sent than configured");
        self.due = (self.sent < limit).then(|| cx.now.after(cfg.tick));
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.due = self.due.map(|at| at.rebased(by));
    }
}
