//! Tests whether listening TCP ports of this host are reached from outside. This host sends a request over TCP from
//! the listening port itself, so that a NAT maps it. The server connects back to the source of the request, or to
//! another port of that address, from another address of its own. The port counts as reachable only if this
//! connection arrives and carries the request's unpredictable identifier, so the result does not rest on a claim of
//! the server. The same test confirms a port that a router reports to forward ([`crate::nat::mapping`]).
//!
//! A port that is not reachable is also seen by a server at a second address. If both servers see the same external
//! port, peers can use it for a simultaneous open.

use super::io::{Effect, Output, Sight};
use super::{Discovery, HTTPS, transaction_id};
use crate::limits::DOORS_MAX;
use crate::machine::{Cx, Time};
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// Maximum number of pending requests to connect back.
const KNOCKS_MAX: usize = 4 * DOORS_MAX;

/// Time after which no NAT lets an address in any more because this host has connected to it.
const CONTACT_MEMORY: Duration = Duration::from_secs(600);

/// Time after the last request after which the STUN server has closed its TCP connection.
const KNOCK_LASTS: Duration = Duration::from_secs(15);

/// Minimum interval between two comparisons of a listening port's external port at a second server.
const LOOK_AGAIN: Duration = Duration::from_secs(30 * 60);

/// Maximum number of server addresses to which this host connects from its listening ports on one network.
const WRITTEN_MAX: usize = 16;

/// Request to a STUN server to connect back to a port of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Knock {
    server: SocketAddr,
    /// Local port that listens for peers.
    local: u16,
    /// External port to which the server connects; `None`: the source port of the request, as the server sees it.
    outer: Option<u16>,
    /// Whether the server's connection has arrived.
    came: bool,
}

/// Request from the first listening port to a server at a second address, to compare the external ports that the two
/// servers see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Look {
    id: TransactionId,
    server: SocketAddr,
    at: Time,
    seen: Option<SocketAddr>,
}

/// State of the tests of whether this host's listening TCP ports are reachable from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TcpReach {
    locals: Vec<u16>,
    /// Listening port, and the router's external port that the router reports to forward to it.
    forwarded: Option<(u16, u16)>,
    /// Time at which a server is asked to connect to the forwarded port.
    forward_at: Option<Time>,
    knocks: BTreeMap<TransactionId, Knock>,
    /// Address and port at which the server sees requests from each listening port.
    seen: BTreeMap<u16, SocketAddr>,
    /// STUN server that was asked in this round.
    server: Option<SocketAddr>,
    /// Other address of the STUN server, as it reports.
    other: Option<SocketAddr>,
    /// Server addresses to which this host connected from its listening ports, and when.
    written: BTreeMap<IpAddr, Time>,
    look: Option<Look>,
    /// External address and port of the first listening port, if servers at two addresses see the same.
    alike: Option<SocketAddr>,
    /// Deadline for the server's connections.
    until: Option<Time>,
    /// Time at which the mappings of the listening ports are refreshed.
    refresh: Option<Time>,
    /// External addresses and ports at which a server could connect to this host.
    pub(super) open: Vec<SocketAddr>,
}

impl TcpReach {
    /// Begins a round of tests. Ports found reachable before keep this status until the round has ended.
    pub(super) fn begin(&mut self) {
        self.server = None;
    }

    /// Deletes all observations about TCP ports, after a change of network.
    pub(super) fn left(&mut self) {
        let Self { forwarded, other, .. } = *self;
        *self = Self { locals: core::mem::take(&mut self.locals), forwarded, other, ..Self::default() };
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.until.into_iter().chain(self.refresh).chain(self.forward_at).min()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        [&mut self.until, &mut self.refresh, &mut self.forward_at]
            .into_iter()
            .for_each(|at| *at = at.map(|at| at.rebased(by)));
        self.written.values_mut().chain(self.look.as_mut().map(|l| &mut l.at)).for_each(|at| *at = at.rebased(by));
    }

    /// Asserts the bounds, and that only the listening ports are tested.
    pub(super) fn check(&self) {
        assert!(self.locals.len() <= DOORS_MAX, "no more ports listen than allowed");
        assert!(self.open.len() <= DOORS_MAX, "no more ports are reachable than may listen");
        assert!(self.knocks.len() <= KNOCKS_MAX, "no more requests to dial back are pending than allowed");
        assert!(self.written.len() <= WRITTEN_MAX, "no more servers are written to than allowed");
        let tested = self.knocks.values().map(|k| &k.local).chain(self.seen.keys());
        assert!(tested.into_iter().all(|local| self.locals.contains(local)), "only listening ports are tested");
        assert!(self.forward_at.is_none() || self.forwarded.is_some(), "only a forwarded port is tested later");
    }

    /// Returns each listening port, and the external address and port at which a server could connect to it, if any.
    pub(super) fn report(&self) -> Vec<(u16, Option<SocketAddr>)> {
        let reached = |local: &u16| {
            let came = self.knocks.values().find(|k| k.came && k.local == *local)?;
            let seen = self.seen.get(local)?;
            Some(SocketAddr::new(seen.ip(), came.outer.unwrap_or(seen.port())))
        };
        self.locals.iter().map(|local| (*local, reached(local))).collect()
    }

    /// Returns whether a NAT may have let in a connection from an address only because this host had connected to
    /// that address. Not at an external port that no server has seen, to which only a forwarded port can lead.
    fn was_written_to(&self, now: Time, ip: IpAddr, knock: &Knock) -> bool {
        let lately = self.written.get(&ip.to_canonical()).is_some_and(|at| now.since(*at) < CONTACT_MEMORY);
        let seen = self.seen.get(&knock.local).into_iter().chain(self.look.iter().filter_map(|l| l.seen.as_ref()));
        let elsewhere = knock.outer.is_some_and(|outer| seen.into_iter().all(|s| s.port() != outer));
        let by_look = |l: Look| l.seen.is_some() && l.server.ip().to_canonical() == ip.to_canonical();
        lately && !(elsewhere && self.look.is_some_and(by_look))
    }

    /// Returns the external address and port for a simultaneous open with the first listening port, if servers at two
    /// addresses see the same. Until a round has tested it again, the previous result is returned.
    pub(super) fn crossing(&mut self) -> Option<SocketAddr> {
        let first = self.locals.first().and_then(|local| self.seen.get(local)).copied();
        let looked = self.look.and_then(|l| l.seen);
        let proper = |a: &SocketAddr| a.port() >= 1024 || a.port() == HTTPS;
        match (first, looked) {
            (Some(first), Some(second)) => self.alike = Some(first).filter(|f| *f == second && proper(f)),
            (None, _) if self.until.is_some() || self.server.is_none() => {}
            (Some(_) | None, _) => self.alike = None,
        }
        self.alike
    }

    /// Returns the external addresses and ports at which a server has connected to this host, at most [`DOORS_MAX`].
    fn reached(&self) -> Vec<SocketAddr> {
        let at = |k: &Knock| {
            let seen = self.seen.get(&k.local)?;
            Some(SocketAddr::new(seen.ip(), k.outer.unwrap_or(seen.port())))
        };
        let mut all = Vec::new();
        for addr in self.knocks.values().filter(|k| k.came).filter_map(at) {
            // nobody is told of other ports below 1024
            if (addr.port() >= 1024 || addr.port() == HTTPS) && !all.contains(&addr) && all.len() < DOORS_MAX {
                all.push(addr);
            }
        }
        all
    }
}

impl Discovery {
    /// Sets the listening TCP ports, and tests whether they are reachable from outside.
    pub(super) fn listens(&mut self, cx: &mut Cx<'_, Self>, mut locals: Vec<u16>) {
        locals.truncate(DOORS_MAX);
        self.tcp_reach.left();
        self.tcp_reach.locals = locals;
        if let Some((server, _)) = self.tcp.iter().find(|(_, answered)| **answered == Some(true)) {
            self.knock(cx, *server);
        }
    }

    /// Handles a STUN server's answer over TCP; `None`: it did not answer.
    pub(super) fn answered_over_tcp(&mut self, cx: &mut Cx<'_, Self>, server: SocketAddr, answer: Option<Vec<u8>>) {
        let answer = answer.and_then(|bytes| Message::decode(&bytes).ok()).filter(|m| m.class == Class::Success);
        let Some(tcp) = self.tcp.get_mut(&server) else { return };
        *tcp = Some(answer.is_some());
        if let Some(answer) = answer {
            self.seen = answer.mapped().or(self.seen);
            self.tcp_reach.other = answer.other_address().or(self.tcp_reach.other);
            self.knock(cx, server);
        }
        self.finish_if_done(cx);
    }

    /// Asks a STUN server that answers over TCP to connect back to the listening ports, once per round.
    fn knock(&mut self, cx: &mut Cx<'_, Self>, server: SocketAddr) {
        self.tcp_reach.written.retain(|_, at| cx.now.since(*at) < CONTACT_MEMORY);
        let ip = server.ip().to_canonical();
        let remembered = self.tcp_reach.written.len() < WRITTEN_MAX || self.tcp_reach.written.contains_key(&ip);
        if self.tcp_reach.server.is_some() || self.tcp_reach.locals.is_empty() || !remembered {
            return;
        }
        self.tcp_reach.written.insert(ip, cx.now);
        let reach = &mut self.tcp_reach;
        (reach.server, reach.until) = (Some(server), Some(cx.now.after(cx.cfg.within)));
        reach.knocks.clear();
        reach.seen.clear();
        let locals = reach.locals.clone();
        let first = locals.first().copied();
        for local in locals.iter().copied() {
            // a router may forward the port of HTTPS, which every network lets out, to another one here
            let https = (Some(local) == first && !locals.contains(&HTTPS)).then_some(HTTPS);
            let told = self.tcp_reach.forwarded.filter(|(to, outer)| *to == local && Some(*outer) != https);
            let others = https.into_iter().chain(told.map(|(_, outer)| outer)).map(Some);
            self.ask_back(cx, (server, local), [None].into_iter().chain(others));
        }
    }

    /// Asks a STUN server to connect to these external ports, which may lead to the listening port `local`.
    fn ask_back(
        &mut self,
        cx: &mut Cx<'_, Self>,
        (server, local): (SocketAddr, u16),
        outers: impl IntoIterator<Item = Option<u16>>,
    ) {
        let mut requests = Vec::new();
        for outer in outers {
            if self.tcp_reach.knocks.len() < KNOCKS_MAX {
                let id = transaction_id(cx.rng);
                self.tcp_reach.knocks.insert(id, Knock { server, local, outer, came: false });
                let asks = Attribute::DialBack(outer.unwrap_or(0));
                requests.push(Message::new(Class::Request, id, alloc::vec![asks]).encode());
            }
        }
        cx.push(Output::Effect(Effect::Knock { server, local, requests }));
    }

    /// Handles a router's report that it forwards a port: it counts as reachable only when a server has connected to
    /// it. A port that is no longer forwarded is removed.
    pub(super) fn forwards(&mut self, cx: &mut Cx<'_, Self>, local: u16, outer: Option<u16>) {
        let now = outer.map(|outer| (local, outer));
        let Some(before) = Some(core::mem::replace(&mut self.tcp_reach.forwarded, now)).filter(|b| *b != now) else {
            return;
        };
        if let Some((_, port)) = before.filter(|(_, port)| *port != HTTPS) {
            self.tcp_reach.knocks.retain(|_, k| k.outer != Some(port));
            self.tcp_reach.open.retain(|d| d.port() != port);
        }
        // the connection of the round's knock is still there, and there can be one only between the same two ports
        self.tcp_reach.forward_at = outer.map(|_| cx.now.after(KNOCK_LASTS));
        self.announce(cx);
    }

    /// Returns the IPv4 address translation of the first listening TCP port, for port mapping; `None` if no server
    /// has seen it.
    #[must_use]
    pub fn door_sight(&self) -> Option<Sight> {
        let seen = self.tcp_reach.locals.first().and_then(|local| self.tcp_reach.seen.get(local))?;
        let (SocketAddr::V4(seen), server) = (*seen, self.tcp_reach.server?) else { return None };
        let translated = !self.hosts.iter().any(|h| h.ip() == IpAddr::V4(*seen.ip()));
        // from which port requests come out matters to nobody here, and may be another one each time
        let mapped = SocketAddrV4::new(*seen.ip(), 0);
        Some(Sight { mapped, translated, server, ports: Vec::new(), witness: None })
    }

    /// Handles a STUN server's answer to a request from a listening port.
    pub(super) fn knocked(&mut self, cx: &mut Cx<'_, Self>, (server, local): (SocketAddr, u16), answer: &[u8]) {
        let Ok(answer) = Message::decode(answer) else { return };
        let Some(seen) = answer.mapped().filter(|_| answer.class == Class::Success) else { return };
        if self.tcp_reach.knocks.get(&answer.id).is_some_and(|k| k.server == server && k.local == local) {
            self.tcp_reach.seen.insert(local, seen);
            self.announce(cx);
        } else if let Some(look) = self.tcp_reach.look.as_mut().filter(|l| l.id == answer.id && l.server == server) {
            look.seen = Some(seen);
            self.announce(cx);
            cx.push(Output::Report(self.report(cx.cfg)));
        }
    }

    /// Asks a server at a second address how it sees the first listening port, if that is not reachable. Done last
    /// and rarely, since afterwards a connection from that server proves nothing for a while.
    fn look_at_crossing(&mut self, cx: &mut Cx<'_, Self>) {
        let (Some(first), Some(local)) = (self.tcp_reach.server, self.tcp_reach.locals.first().copied()) else {
            return;
        };
        let fresh = self.tcp_reach.look.is_some_and(|l| cx.now.since(l.at) < LOOK_AGAIN);
        if fresh || !self.tcp_reach.open.is_empty() || !self.tcp_reach.seen.contains_key(&local) {
            return;
        }
        let elsewhere = |s: &SocketAddr| s.is_ipv4() == first.is_ipv4() && s.ip() != first.ip();
        let second = self.servers.iter().copied().find(elsewhere).or(self.tcp_reach.other.filter(elsewhere));
        let Some(server) = second.filter(|_| self.tcp_reach.written.len() < WRITTEN_MAX) else { return };
        let id = transaction_id(cx.rng);
        self.tcp_reach.look = Some(Look { id, server, at: cx.now, seen: None });
        self.tcp_reach.written.insert(server.ip().to_canonical(), cx.now);
        let requests = alloc::vec![Message::request(id).encode()];
        cx.push(Output::Effect(Effect::Knock { server, local, requests }));
    }

    /// Handles a connection to a listening port. It proves that the port is reachable if this host had not connected
    /// to its source address before: a NAT that lets it in lets in anybody.
    pub(super) fn dialled_back(&mut self, cx: &mut Cx<'_, Self>, from: SocketAddr, local: u16, bytes: &[u8]) {
        let Ok(message) = Message::decode(bytes) else { return };
        let Some(knock) = self.tcp_reach.knocks.get(&message.id).copied() else { return };
        let shows = knock.local == local && !self.tcp_reach.was_written_to(cx.now, from.ip(), &knock);
        if shows && message.class == Class::Indication {
            self.tcp_reach.knocks.insert(message.id, Knock { came: true, ..knock });
            self.announce(cx);
        }
    }

    /// Returns the external addresses and ports at which this host is reachable; until the round has ended, with
    /// those found before.
    pub(super) fn reachable_now(&mut self) -> Vec<SocketAddr> {
        let mut open = self.tcp_reach.reached();
        if self.tcp_reach.until.is_some() || self.tcp_reach.server.is_none() {
            let before = self.tcp_reach.open.iter().filter(|d| !open.contains(d)).copied();
            open = open.iter().copied().chain(before).take(DOORS_MAX).collect();
        }
        self.tcp_reach.open.clone_from(&open);
        open
    }

    pub(super) fn tcp_reach_due(&mut self, cx: &mut Cx<'_, Self>) {
        if cx.is_due(self.tcp_reach.until) {
            self.tcp_reach.until = None;
            self.announce(cx);
            self.look_at_crossing(cx);
            let kept = !self.tcp_reach.open.is_empty() || self.tcp_reach.look.is_some();
            let mapped = kept && !self.hosts.iter().any(|h| self.is_reached_at(h));
            self.tcp_reach.refresh = mapped.then(|| cx.now.after(cx.cfg.door_keep_alive));
            cx.push(Output::Report(self.report(cx.cfg)));
        }
        if cx.is_due(self.tcp_reach.forward_at) {
            self.tcp_reach.forward_at = None;
            let forwarded = self.tcp_reach.forwarded.filter(|(local, _)| self.tcp_reach.locals.contains(local));
            if let (Some(server), Some((local, outer))) = (self.tcp_reach.server, forwarded) {
                self.tcp_reach.until = Some(cx.now.after(cx.cfg.within));
                self.ask_back(cx, (server, local), [Some(outer)]);
            }
        }
        if cx.is_due(self.tcp_reach.refresh) {
            self.tcp_reach.refresh = Some(cx.now.after(cx.cfg.door_keep_alive));
            let server = self.tcp_reach.server.into_iter();
            for (server, local) in server.flat_map(|s| self.tcp_reach.locals.iter().map(move |l| (s, *l))) {
                let bytes = Message::request(transaction_id(cx.rng)).encode();
                cx.out.push(Output::Effect(Effect::Knock { server, local, requests: alloc::vec![bytes] }));
            }
        }
    }

    /// Returns whether servers see or reach this host at its own address, so that no NAT's mapping must be refreshed.
    fn is_reached_at(&self, host: &SocketAddr) -> bool {
        let seen = self.tcp_reach.seen.values().filter(|_| self.tcp_reach.open.is_empty());
        self.tcp_reach.open.iter().chain(seen).any(|d| d.ip() == host.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_about_listening_ports_fires() {
        let seen = SocketAddr::from(([192, 0, 2, 1], 5000));
        let healthy =
            TcpReach { locals: alloc::vec![5000], seen: BTreeMap::from([(5000, seen)]), ..TcpReach::default() };
        assert_each_clause_fires(
            &healthy,
            TcpReach::check,
            &[
                ("no more ports listen than allowed", |d| d.locals = alloc::vec![1, 2, 3]),
                ("no more ports are reachable than may listen", |d| {
                    d.open = alloc::vec![SocketAddr::from(([192, 0, 2, 1], 5000)); 3];
                }),
                ("no more requests to dial back are pending than allowed", |d| {
                    let server = SocketAddr::from(([192, 0, 2, 1], 3478));
                    let knock = Knock { server, local: 5000, outer: None, came: false };
                    d.knocks.extend((0..9).map(|n| (TransactionId([n; 12]), knock)));
                }),
                ("no more servers are written to than allowed", |d| {
                    d.written.extend((0..17).map(|n| (IpAddr::from([192, 0, 2, n]), Time(1))));
                }),
                ("only listening ports are tested", |d| d.locals.clear()),
                ("only a forwarded port is tested later", |d| d.forward_at = Some(Time(1))),
            ],
        );
    }
}
