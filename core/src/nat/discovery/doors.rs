//! Whether listening TCP ports of this host are reached from outside. A request over TCP leaves from the listening port
//! itself, so that a NAT maps it; the server, which then knows who asks, dials back to where it sees the request come
//! from, or to another port of that address, from an address of its own that was not written to. The port counts as a
//! door only if that connection comes, with the request's unpredictable id: it is this host's own observation, and
//! nothing that a server says. So is what a gateway says to forward ([`crate::nat::mapping`]).
//!
//! A port that is no door is looked at from a second address too. Where both see it at the same endpoint, others may
//! meet it there: with a connection that both sides open at once.

use super::io::{Effect, Output, Sight};
use super::{Discovery, HTTPS, transaction_id};
use crate::limits::DOORS_MAX;
use crate::machine::{Cx, Time};
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr, SocketAddrV4};
use core::time::Duration;

/// Requests that are waited for: two for each port, and those of the round before.
const KNOCKS_MAX: usize = 4 * DOORS_MAX;

/// Who was written to this long ago is let in by no NAT any more for that: they forget closed connections sooner.
const CONTACT_MEMORY: Duration = Duration::from_secs(600);

/// A server has ended a connection by which it was asked something so long after the last request.
const KNOCK_LASTS: Duration = Duration::from_secs(15);

/// A listening port is looked at from a second address so often, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(30 * 60);

/// Addresses that are asked to dial back, on one network.
const WRITTEN_MAX: usize = 16;

/// A request to be dialled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Knock {
    server: SocketAddr,
    /// The listening port.
    local: u16,
    /// The outer port to be dialled, if not the one that the request is seen to come from.
    outer: Option<u16>,
    /// Somebody came by it.
    came: bool,
}

/// A look at the first listening port from a second address: whether it is seen there where the first has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Look {
    id: TransactionId,
    server: SocketAddr,
    at: Time,
    seen: Option<SocketAddr>,
}

/// The listening ports and what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Doors {
    locals: Vec<u16>,
    /// A listening port, and the one that a gateway says to forward to it.
    forwarded: Option<(u16, u16)>,
    /// When somebody is asked to come by it.
    forward_at: Option<Time>,
    knocks: BTreeMap<TransactionId, Knock>,
    /// Where the server sees requests from a listening port come from.
    seen: BTreeMap<u16, SocketAddr>,
    /// The server that was asked in this round.
    server: Option<SocketAddr>,
    /// Another address of its own, as it says.
    other: Option<SocketAddr>,
    /// When which address was written to from the listening ports.
    written: BTreeMap<IpAddr, Time>,
    look: Option<Look>,
    /// Where the first listening port is seen by servers of two addresses.
    alike: Option<SocketAddr>,
    /// Who has not come by then does not come.
    until: Option<Time>,
    /// A NAT's mapping is to be kept.
    refresh: Option<Time>,
    /// Where this host was reached.
    pub(super) open: Vec<SocketAddr>,
}

impl Doors {
    /// A round begins: what was open stays so until it is known better.
    pub(super) fn begin(&mut self) {
        self.server = None;
    }

    /// On another network nothing is known.
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

    /// Each listening port, and where it was reached.
    pub(super) fn report(&self) -> Vec<(u16, Option<SocketAddr>)> {
        let reached = |local: &u16| {
            let came = self.knocks.values().find(|k| k.came && k.local == *local)?;
            let seen = self.seen.get(local)?;
            Some(SocketAddr::new(seen.ip(), came.outer.unwrap_or(seen.port())))
        };
        self.locals.iter().map(|local| (*local, reached(local))).collect()
    }

    /// Whether what comes from an address may have been let in because it was written to. It was not at a port that no
    /// server has seen: nothing but a forwarding can have let it in there.
    fn was_written_to(&self, now: Time, ip: IpAddr, knock: &Knock) -> bool {
        let lately = self.written.get(&ip.to_canonical()).is_some_and(|at| now.since(*at) < CONTACT_MEMORY);
        let seen = self.seen.get(&knock.local).into_iter().chain(self.look.iter().filter_map(|l| l.seen.as_ref()));
        let elsewhere = knock.outer.is_some_and(|outer| seen.into_iter().all(|s| s.port() != outer));
        let by_look = |l: Look| l.seen.is_some() && l.server.ip().to_canonical() == ip.to_canonical();
        lately && !(elsewhere && self.look.is_some_and(by_look))
    }

    /// Where a connection that is opened from both sides can meet the first listening port: where servers of two
    /// addresses see it. Until a round has looked again, what it was before still is.
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

    /// Where somebody came by a knock.
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
    /// These ports listen for peers.
    pub(super) fn listens(&mut self, cx: &mut Cx<'_, Self>, mut locals: Vec<u16>) {
        locals.truncate(DOORS_MAX);
        self.doors.left();
        self.doors.locals = locals;
        if let Some((server, _)) = self.tcp.iter().find(|(_, answered)| **answered == Some(true)) {
            self.knock(cx, *server);
        }
    }

    /// A server's answer over TCP, or that none came.
    pub(super) fn answered_over_tcp(&mut self, cx: &mut Cx<'_, Self>, server: SocketAddr, answer: Option<Vec<u8>>) {
        let answer = answer.and_then(|bytes| Message::decode(&bytes).ok()).filter(|m| m.class == Class::Success);
        let Some(tcp) = self.tcp.get_mut(&server) else { return };
        *tcp = Some(answer.is_some());
        if let Some(answer) = answer {
            self.seen = answer.mapped().or(self.seen);
            self.doors.other = answer.other_address().or(self.doors.other);
            self.knock(cx, server);
        }
        self.finish_if_done(cx);
    }

    /// A server answers over TCP: once a round it is asked to dial back.
    fn knock(&mut self, cx: &mut Cx<'_, Self>, server: SocketAddr) {
        self.doors.written.retain(|_, at| cx.now.since(*at) < CONTACT_MEMORY);
        let ip = server.ip().to_canonical();
        let remembered = self.doors.written.len() < WRITTEN_MAX || self.doors.written.contains_key(&ip);
        if self.doors.server.is_some() || self.doors.locals.is_empty() || !remembered {
            return;
        }
        self.doors.written.insert(ip, cx.now);
        let doors = &mut self.doors;
        (doors.server, doors.until) = (Some(server), Some(cx.now.after(cx.cfg.within)));
        doors.knocks.clear();
        doors.seen.clear();
        let locals = doors.locals.clone();
        let first = locals.first().copied();
        for local in locals.iter().copied() {
            // a router may forward the port of HTTPS, which every network lets out, to another one here
            let https = (Some(local) == first && !locals.contains(&HTTPS)).then_some(HTTPS);
            let told = self.doors.forwarded.filter(|(to, outer)| *to == local && Some(*outer) != https);
            let others = https.into_iter().chain(told.map(|(_, outer)| outer)).map(Some);
            self.ask_back(cx, (server, local), [None].into_iter().chain(others));
        }
    }

    /// Asks to be dialled back at ports that lead to a listening one.
    fn ask_back(
        &mut self,
        cx: &mut Cx<'_, Self>,
        (server, local): (SocketAddr, u16),
        outers: impl IntoIterator<Item = Option<u16>>,
    ) {
        let mut requests = Vec::new();
        for outer in outers {
            if self.doors.knocks.len() < KNOCKS_MAX {
                let id = transaction_id(cx.rng);
                self.doors.knocks.insert(id, Knock { server, local, outer, came: false });
                let asks = Attribute::DialBack(outer.unwrap_or(0));
                requests.push(Message::new(Class::Request, id, alloc::vec![asks]).encode());
            }
        }
        cx.push(Output::Effect(Effect::Knock { server, local, requests }));
    }

    /// A gateway's word is not believed: what it says to forward is a door once somebody has come by it. What it
    /// forwards no more is none.
    pub(super) fn forwards(&mut self, cx: &mut Cx<'_, Self>, local: u16, outer: Option<u16>) {
        let now = outer.map(|outer| (local, outer));
        let Some(before) = Some(core::mem::replace(&mut self.doors.forwarded, now)).filter(|b| *b != now) else {
            return;
        };
        if let Some((_, port)) = before.filter(|(_, port)| *port != HTTPS) {
            self.doors.knocks.retain(|_, k| k.outer != Some(port));
            self.doors.open.retain(|d| d.port() != port);
        }
        // the connection of the round's knock is still there, and there can be one only between the same two ports
        self.doors.forward_at = outer.map(|_| cx.now.after(KNOCK_LASTS));
        self.announce(cx);
    }

    /// What is known of the first listening port by itself (IPv4), for port mapping.
    #[must_use]
    pub fn door_sight(&self) -> Option<Sight> {
        let seen = self.doors.locals.first().and_then(|local| self.doors.seen.get(local))?;
        let (SocketAddr::V4(seen), server) = (*seen, self.doors.server?) else { return None };
        let translated = !self.hosts.iter().any(|h| h.ip() == IpAddr::V4(*seen.ip()));
        // from which port requests come out matters to nobody here, and may be another one each time
        let mapped = SocketAddrV4::new(*seen.ip(), 0);
        Some(Sight { mapped, translated, server, ports: Vec::new(), witness: None })
    }

    /// The server's answer to a knock, or to one that keeps a mapping.
    pub(super) fn knocked(&mut self, cx: &mut Cx<'_, Self>, (server, local): (SocketAddr, u16), answer: &[u8]) {
        let Ok(answer) = Message::decode(answer) else { return };
        let Some(seen) = answer.mapped().filter(|_| answer.class == Class::Success) else { return };
        if self.doors.knocks.get(&answer.id).is_some_and(|k| k.server == server && k.local == local) {
            self.doors.seen.insert(local, seen);
            self.announce(cx);
        } else if let Some(look) = self.doors.look.as_mut().filter(|l| l.id == answer.id && l.server == server) {
            look.seen = Some(seen);
            self.announce(cx);
            cx.push(Output::Report(self.report(cx.cfg)));
        }
    }

    /// Has the first listening port looked at from another address, if it is no door. What is written to there shows
    /// nothing when it comes by itself for a while, so that this comes last, and not often.
    fn look_at_crossing(&mut self, cx: &mut Cx<'_, Self>) {
        let (Some(first), Some(local)) = (self.doors.server, self.doors.locals.first().copied()) else { return };
        let fresh = self.doors.look.is_some_and(|l| cx.now.since(l.at) < LOOK_AGAIN);
        if fresh || !self.doors.open.is_empty() || !self.doors.seen.contains_key(&local) {
            return;
        }
        let elsewhere = |s: &SocketAddr| s.is_ipv4() == first.is_ipv4() && s.ip() != first.ip();
        let second = self.servers.iter().copied().find(elsewhere).or(self.doors.other.filter(elsewhere));
        let Some(server) = second.filter(|_| self.doors.written.len() < WRITTEN_MAX) else { return };
        let id = transaction_id(cx.rng);
        self.doors.look = Some(Look { id, server, at: cx.now, seen: None });
        self.doors.written.insert(server.ip().to_canonical(), cx.now);
        let requests = alloc::vec![Message::request(id).encode()];
        cx.push(Output::Effect(Effect::Knock { server, local, requests }));
    }

    /// Somebody has connected to a listening port and shows a message. It counts if it comes from an address that was
    /// not written to: what a filter lets in from there it lets in from anywhere.
    pub(super) fn dialled_back(&mut self, cx: &mut Cx<'_, Self>, from: SocketAddr, local: u16, bytes: &[u8]) {
        let Ok(message) = Message::decode(bytes) else { return };
        let Some(knock) = self.doors.knocks.get(&message.id).copied() else { return };
        let shows = knock.local == local && !self.doors.was_written_to(cx.now, from.ip(), &knock);
        if shows && message.class == Class::Indication {
            self.doors.knocks.insert(message.id, Knock { came: true, ..knock });
            self.announce(cx);
        }
    }

    /// What is open now. Until the round's knocks have had their time, what was open before still is.
    pub(super) fn doors_now(&mut self) -> Vec<SocketAddr> {
        let mut open = self.doors.reached();
        if self.doors.until.is_some() || self.doors.server.is_none() {
            let before = self.doors.open.iter().filter(|d| !open.contains(d)).copied();
            open = open.iter().copied().chain(before).take(DOORS_MAX).collect();
        }
        self.doors.open.clone_from(&open);
        open
    }

    pub(super) fn doors_due(&mut self, cx: &mut Cx<'_, Self>) {
        let now = cx.now;
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.doors.until) {
            self.doors.until = None;
            self.announce(cx);
            self.look_at_crossing(cx);
            let kept = !self.doors.open.is_empty() || self.doors.look.is_some();
            let mapped = kept && !self.hosts.iter().any(|h| self.is_door_of(h));
            self.doors.refresh = mapped.then(|| cx.now.after(cx.cfg.door_keep_alive));
            cx.push(Output::Report(self.report(cx.cfg)));
        }
        if due(self.doors.forward_at) {
            self.doors.forward_at = None;
            let forwarded = self.doors.forwarded.filter(|(local, _)| self.doors.locals.contains(local));
            if let (Some(server), Some((local, outer))) = (self.doors.server, forwarded) {
                self.doors.until = Some(cx.now.after(cx.cfg.within));
                self.ask_back(cx, (server, local), [Some(outer)]);
            }
        }
        if due(self.doors.refresh) {
            self.doors.refresh = Some(cx.now.after(cx.cfg.door_keep_alive));
            let server = self.doors.server.into_iter();
            for (server, local) in server.flat_map(|s| self.doors.locals.iter().map(move |l| (s, *l))) {
                let bytes = Message::request(transaction_id(cx.rng)).encode();
                cx.out.push(Output::Effect(Effect::Knock { server, local, requests: alloc::vec![bytes] }));
            }
        }
    }

    /// Whether a door is at an address of this host: then no NAT has to be kept from forgetting it.
    fn is_door_of(&self, host: &SocketAddr) -> bool {
        let seen = self.doors.seen.values().filter(|_| self.doors.open.is_empty());
        self.doors.open.iter().chain(seen).any(|d| d.ip() == host.ip())
    }
}
