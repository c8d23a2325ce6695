//! NAT behaviour discovery (RFC 5780 §4): how the NATs and firewalls on the path map and filter, observed with STUN
//! on the socket that carries QUIC. A NAT is never reported as more open than observed, and a round of requests ends
//! within [`Config::within`](io::Config::within).
//!
//! Filtering is tested before anything is sent to the server's other addresses, since after a packet to an address
//! the NAT lets that address's packets in. Between rounds the mapping is kept alive. In the background the lifetime
//! of a mapping is measured on separate sockets ([`lifetime`]).

mod invariants;
pub mod io;
pub mod lifetime;
mod tcp_reach;
mod upkeep;
mod way;

use crate::codec::{List, Wire as _};
use crate::limits;
use crate::machine::{Cx, Machine, Rng, Time};
use crate::nat::cookie::{Cookie, Proven};
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use crate::nat::{Candidate, CandidateKind, HTTPS, Ipv6Reach, NatBehaviour, NatDescriptor};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;
use io::{Config, Effect, Input, Network, Output, Report, Socket};
use lifetime::Lifetime;
use tcp_reach::TcpReach;
use way::{Probe, Stage, Way};

/// Maximum number of STUN servers that discovery uses.
const SERVERS_MAX: usize = 4;
/// Time for which an address to which this host has sent counts as let in by the NAT (RFC 4787 §4.3 recommends
/// mappings of 5 minutes; some NATs keep them longer).
const CONTACT_MEMORY: Duration = Duration::from_secs(600);
/// Maximum number of remembered addresses to which this host has sent; STUN servers name these addresses.
const CONTACTS_MAX: usize = 64;
/// Number of consecutive unanswered refreshes after which the network counts as changed.
const MISSED_MAX: u32 = 3;

/// State machine of NAT behaviour discovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Discovery {
    hosts: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
    ways: [Way; 2],
    open: Vec<Transaction>,
    /// STUN servers asked over TCP, and whether each answered; `None`: not decided yet.
    tcp: BTreeMap<SocketAddr, Option<bool>>,
    /// Address and port of this host as a STUN server sees them over TCP.
    seen: Option<SocketAddr>,
    tcp_reach: TcpReach,
    hairpin: bool,
    /// Deadline of the present round of requests; `None` between rounds.
    ends: Option<Time>,
    again: Option<Time>,
    refresh: Option<Time>,
    missed: u32,
    contacts: BTreeMap<SocketAddr, Time>,
    lifetime: Lifetime,
    nat: NatDescriptor,
}

/// STUN request that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    id: TransactionId,
    probe: Probe,
    to: SocketAddr,
    sent: u32,
    due: Time,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            servers: Vec::new(),
            ways: [Way::new(false), Way::new(true)],
            open: Vec::new(),
            tcp: BTreeMap::new(),
            seen: None,
            tcp_reach: TcpReach::default(),
            hairpin: false,
            ends: None,
            again: None,
            refresh: None,
            missed: 0,
            contacts: BTreeMap::new(),
            lifetime: Lifetime::default(),
            nat: NatDescriptor::default(),
        }
    }
}

impl Discovery {
    /// Returns whether a round of requests to STUN servers is in progress.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.ends.is_some()
    }

    /// Returns the NAT descriptor, to be sent to peers.
    #[must_use]
    pub const fn descriptor(&self) -> &NatDescriptor {
        &self.nat
    }

    fn begin(&mut self, cx: &mut Cx<'_, Self>) {
        self.open.clear();
        self.tcp.clear();
        self.tcp_reach.begin();
        (self.hairpin, self.missed, self.again, self.refresh) = (false, 0, None, None);
        self.ways = [Way::new(false), Way::new(true)];
        self.ends = Some(cx.now.after(cx.cfg.within));
        for v6 in [false, true] {
            self.ask_next_server(cx, v6);
        }
        if let Some(&first) = self.servers.first() {
            for server in [SocketAddr::new(first.ip(), HTTPS), first] {
                if self.tcp.insert(server, None).is_none() {
                    let bytes = Message::request(transaction_id(cx.rng)).encode();
                    cx.push(Output::Effect(Effect::AskTcp { server, bytes }));
                }
            }
        }
        self.finish_if_done(cx);
    }

    /// Asks the next server of an address family that was not asked yet; a family without servers is done at once.
    fn ask_next_server(&mut self, cx: &mut Cx<'_, Self>, v6: bool) {
        let way = &mut self.ways[usize::from(v6)];
        let server = self.servers.iter().filter(|s| s.is_ipv6() == v6).nth(way.asked).copied();
        match server {
            Some(server) => {
                way.asked += 1;
                way.stage = Stage::Reach;
                way.due = Some(cx.now.after(cx.cfg.rto * 4));
                self.ask(cx, Probe::Reach(server), v6, server);
            }
            None if way.asked == 0 => way.stage = Stage::Done,
            None => way.due = None,
        }
    }

    /// Begins a STUN transaction: sends a request to a server until it is answered.
    fn ask(&mut self, cx: &mut Cx<'_, Self>, probe: Probe, v6: bool, to: SocketAddr) {
        let t = Transaction { id: transaction_id(cx.rng), probe, to, sent: 0, due: cx.now };
        self.open.retain(|t| t.probe != probe || t.to.is_ipv6() != v6);
        self.open.push(t);
        self.send_due(cx);
    }

    /// Sends the STUN requests that are due, also again if unanswered, up to [`Config::requests_max`] times each.
    fn send_due(&mut self, cx: &mut Cx<'_, Self>) {
        for t in &mut self.open {
            if t.due > cx.now {
                continue;
            }
            if t.sent == cx.cfg.requests_max {
                t.due = Time(u64::MAX);
                continue;
            }
            // a round is short, so the waits grow slowly: 1, 1, 1, 2, 2, 2, 3, 3
            t.due = cx.now.after(cx.cfg.rto * (1 + t.sent / 3));
            t.sent += 1;
            if t.probe.socket() == Socket::Main {
                self.contacts.insert(t.to, cx.now);
            }
            let bytes = Message::new(Class::Request, t.id, t.probe.attributes(cx.cfg.tag)).encode();
            cx.out.push(Output::Effect(Effect::Send { socket: t.probe.socket(), to: t.to, bytes }));
        }
        while self.contacts.len() > CONTACTS_MAX {
            let oldest = self.contacts.iter().min_by_key(|(_, at)| **at).map(|(addr, _)| *addr);
            oldest.map(|addr| self.contacts.remove(&addr));
        }
    }

    /// Returns whether the QUIC socket has recently sent to this IP address, or, with `port`, to this address and
    /// port.
    fn has_contacted(&self, now: Time, addr: SocketAddr, port: bool) -> bool {
        let lately = self.contacts.iter().filter(|(_, at)| now.since(**at) < CONTACT_MEMORY);
        lately.map(|(a, _)| a).any(|a| *a == addr || !port && a.ip() == addr.ip())
    }

    fn datagram(&mut self, cx: &mut Cx<'_, Self>, socket: Socket, from: SocketAddr, bytes: &[u8]) {
        let Ok(message) = Message::decode(bytes) else { return };
        let life = cx.child::<Lifetime>(cx.cfg, |cx| self.lifetime.datagram(cx, socket, from, &message));
        self.pass(cx, life);
        let Some(at) = self.open.iter().position(|t| t.id == message.id) else { return };
        let t = &self.open[at];
        let v6 = usize::from(t.to.is_ipv6());
        if t.probe == Probe::Hairpin {
            if socket == Socket::Main && message.class == Class::Request {
                self.hairpin = true;
                self.open.remove(at);
                (self.ways[0].stage, self.ways[0].due) = (Stage::Done, None);
                self.finish_if_done(cx);
            }
            return;
        }
        let expected = self.ways[v6].expected(t.probe, t.to);
        if socket != t.probe.socket() || message.class == Class::Success && Some(from) != expected {
            return;
        }
        let probe = self.open.remove(at).probe;
        match (message.class, message.mapped()) {
            (Class::Success, Some(_)) => self.answered(cx, probe, from, &message),
            (Class::Error, _) => self.refused(cx, probe, v6),
            (Class::Success | Class::Request | Class::Indication, _) => {}
        }
    }

    fn answered(&mut self, cx: &mut Cx<'_, Self>, probe: Probe, from: SocketAddr, message: &Message) {
        let (Some(mapped), other, v6) = (message.mapped(), message.other_address(), from.is_ipv6()) else { return };
        let cookie = message.cookie().and_then(|value| Cookie::from_bytes(value).ok());
        match probe {
            Probe::Reach(server) => {
                let way = &mut self.ways[usize::from(v6)];
                if way.stage != Stage::Reach || mapped.is_ipv6() != v6 {
                    return;
                }
                // another address that is not another address shows nothing
                let other = other.filter(|o| o.is_ipv6() == v6 && o.ip() != server.ip() && o.port() != server.port());
                (way.server, way.mapped, way.other, way.cookie) = (Some(server), Some(mapped), other, cookie);
                self.open.retain(|t| t.to.is_ipv6() != v6);
                if !self.nat.udp {
                    self.announce(cx);
                }
                self.look_at_filtering(cx, v6);
            }
            Probe::Both | Probe::Port => {
                let way = &mut self.ways[usize::from(v6)];
                way.let_in(probe);
                if way.filtering == NatBehaviour::EndpointIndependent {
                    self.look_at_mapping(cx, v6);
                }
            }
            Probe::Second => {
                self.ways[0].second = Some(mapped);
                self.judge_second(cx);
            }
            Probe::Third => {
                self.ways[0].third = Some(mapped);
                self.ways[0].stage = Stage::Done;
                self.finish_if_done(cx);
            }
            Probe::FreshFirst | Probe::FreshSecond => {
                let fresh = &mut self.ways[0].fresh;
                fresh[usize::from(probe == Probe::FreshSecond)] = Some(mapped);
                if fresh.iter().all(Option::is_some) {
                    self.look_for_hairpin(cx);
                }
            }
            Probe::Refresh => {
                let way = &mut self.ways[usize::from(v6)];
                if way.mapped == Some(mapped) {
                    let newer = cookie.is_some();
                    way.cookie = cookie.or(way.cookie.take());
                    self.missed = if v6 && self.ways[0].server.is_some() { self.missed } else { 0 };
                    if newer {
                        self.nat.renew(&self.proven());
                        cx.push(Output::Proven(self.proven()));
                    }
                } else {
                    (way.mapped, way.cookie) = (Some(mapped), cookie);
                    self.contacts.clear();
                    self.lifetime = Lifetime::default();
                    self.moved(cx, mapped);
                    self.begin(cx);
                }
            }
            Probe::Hairpin => {}
        }
    }

    /// Handles a STUN server's error answer to a test, which then shows nothing.
    fn refused(&mut self, cx: &mut Cx<'_, Self>, probe: Probe, v6: usize) {
        match probe {
            Probe::Both | Probe::Port => {
                self.ways[v6].refused = true;
                self.look_at_mapping(cx, v6 == 1);
            }
            Probe::Reach(_) if self.ways[v6].stage == Stage::Reach => self.ask_next_server(cx, v6 == 1),
            Probe::Reach(_) | Probe::Second | Probe::Third | Probe::FreshFirst | Probe::FreshSecond => {}
            Probe::Hairpin | Probe::Refresh => {}
        }
    }

    fn look_at_filtering(&mut self, cx: &mut Cx<'_, Self>, v6: bool) {
        let way = &self.ways[usize::from(v6)];
        let (Some(server), Some(other)) = (way.server, way.other) else { return self.look_at_mapping(cx, v6) };
        let fresh = [
            !self.has_contacted(cx.now, other, false),
            !self.has_contacted(cx.now, SocketAddr::new(server.ip(), other.port()), true),
        ];
        let way = &mut self.ways[usize::from(v6)];
        way.testable = fresh == [true; 2];
        if !way.testable {
            return self.look_at_mapping(cx, v6);
        }
        way.stage = Stage::Filter;
        way.due = Some(cx.now.after(cx.cfg.filter_wait));
        self.ask(cx, Probe::Both, v6, server);
        self.ask(cx, Probe::Port, v6, server);
    }

    fn look_at_mapping(&mut self, cx: &mut Cx<'_, Self>, v6: bool) {
        self.open.retain(|t| t.to.is_ipv6() != v6);
        let hosts = &self.hosts;
        let way = &mut self.ways[usize::from(v6)];
        way.due = None;
        let translated = way.mapped.is_some_and(|m| !hosts.contains(&m));
        // IPv6 is not translated by anything that we would traverse
        if v6 || !translated {
            way.stage = Stage::Done;
            return self.finish_if_done(cx);
        }
        let elsewhere = self.servers.iter().find(|s| s.is_ipv4() && Some(s.ip()) != way.server.map(|s| s.ip()));
        let second = way.server.zip(way.other).map(|(s, o)| SocketAddr::new(o.ip(), s.port())).or(elsewhere.copied());
        match second {
            Some(second) => {
                way.stage = Stage::Map;
                way.second_server = Some(second);
                self.ask(cx, Probe::Second, v6, second);
            }
            None => {
                way.stage = Stage::Done;
                self.finish_if_done(cx);
            }
        }
    }

    /// Continues when the mapping towards a second server address is known: tests whether mappings depend on the
    /// remote port too, or confirms them from a fresh socket.
    fn judge_second(&mut self, cx: &mut Cx<'_, Self>) {
        let way = &mut self.ways[0];
        let third = way.other.filter(|_| way.second != way.mapped);
        way.third_server = third;
        if let Some(third) = third {
            return self.ask(cx, Probe::Third, false, third);
        }
        let (same, server) = (way.second == way.mapped, way.server.zip(way.second_server));
        match server.filter(|_| same && way.needs_confirmation()) {
            Some((first, second)) => {
                way.stage = Stage::Confirm;
                self.ask(cx, Probe::FreshFirst, false, first);
                self.ask(cx, Probe::FreshSecond, false, second);
            }
            None => self.look_for_hairpin(cx),
        }
    }

    fn look_for_hairpin(&mut self, cx: &mut Cx<'_, Self>) {
        let way = &mut self.ways[0];
        match way.mapped.filter(|_| way.mapping(true) == NatBehaviour::EndpointIndependent) {
            Some(mapped) => {
                way.stage = Stage::Hairpin;
                way.due = Some(cx.now.after(cx.cfg.hairpin_wait));
                self.ask(cx, Probe::Hairpin, false, mapped);
            }
            None => {
                way.stage = Stage::Done;
                self.finish_if_done(cx);
            }
        }
    }

    /// Handles the deadline of the present stage of tests of an address family.
    fn stage_over(&mut self, cx: &mut Cx<'_, Self>, v6: bool) {
        let way = &mut self.ways[usize::from(v6)];
        way.due = None;
        match way.stage {
            Stage::Reach => self.ask_next_server(cx, v6),
            Stage::Filter => {
                way.filter_over();
                self.look_at_mapping(cx, v6);
            }
            Stage::Hairpin => {
                way.stage = Stage::Done;
                self.finish_if_done(cx);
            }
            Stage::Idle | Stage::Map | Stage::Confirm | Stage::Done => {}
        }
    }

    fn finish_if_done(&mut self, cx: &mut Cx<'_, Self>) {
        if self.ends.is_none() || self.ways.iter().any(|w| w.stage != Stage::Done) {
            return;
        }
        if self.tcp.values().all(Option::is_some) {
            self.finish(cx);
        } else if self.ways.iter().any(|w| w.mapped.is_some()) {
            // a download should not wait for a port that swallows everything
            self.announce(cx);
        }
    }

    /// Ends the round of requests with the findings so far, and plans refreshes and the next round.
    fn finish(&mut self, cx: &mut Cx<'_, Self>) {
        self.ends = None;
        self.open.clear();
        self.ways.iter_mut().for_each(|w| (w.stage, w.due) = (Stage::Done, None));
        self.announce(cx);
        let silent = !self.nat.udp;
        // a second address was asked how the NAT maps, and nothing came back: bad luck rather than a finding
        let unsure = self.ways[0].second_server.is_some() && self.nat.mapping == NatBehaviour::Unknown;
        self.again = Some(cx.now.after(if silent || unsure { cx.cfg.again_silent } else { cx.cfg.again }));
        self.refresh = (!silent).then(|| cx.now.after(self.keep_alive(cx.cfg)));
        if let (Some(server), true) = (self.ways[0].server, self.is_translated()) {
            let out = cx.child::<Lifetime>(cx.cfg, |cx| self.lifetime.begin(cx, server));
            self.pass(cx, out);
        }
        cx.push(Output::Report(self.report(cx.cfg)));
    }

    fn is_translated(&self) -> bool {
        self.ways[0].mapped.is_some_and(|m| !self.hosts.contains(&m))
    }

    fn keep_alive(&self, cfg: &Config) -> Duration {
        let open = self.nat.filtering == NatBehaviour::EndpointIndependent && !self.is_translated();
        if open { cfg.look } else { self.lifetime.keep_alive(cfg) }
    }

    /// Returns all findings about NATs and firewalls so far.
    #[must_use]
    pub fn report(&self, cfg: &Config) -> Report {
        let way = &self.ways[0];
        let port = self.hosts.first().map(SocketAddr::port);
        Report {
            nat: self.nat.clone(),
            server: self.ways.iter().find_map(|w| w.server),
            two_addresses: self.ways.iter().any(|w| w.server.is_some() && w.other.is_some() && !w.refused),
            translated: self.is_translated(),
            keeps_port: way.mapped.filter(|_| self.is_translated()).map(|m| Some(m.port()) == port),
            tcp: self.tcp.values().any(|t| *t == Some(true)),
            seen: self.seen,
            doors: self.tcp_reach.report(),
            lives: self.lifetime.lives,
            dies: self.lifetime.dies,
            keep_alive: self.keep_alive(cfg),
        }
    }

    /// Returns the addresses at which STUN servers see the QUIC socket, with the servers' cookies.
    fn proven(&self) -> Vec<Proven> {
        let of = |w: &Way| Some(Proven { addr: w.mapped?, cookie: Some(w.cookie.clone()?) });
        self.ways.iter().filter_map(of).collect()
    }

    /// Publishes the NAT descriptor if the findings have changed it.
    fn announce(&mut self, cx: &mut Cx<'_, Self>) {
        let doors = self.reachable_now();
        let [v4, v6] = &self.ways;
        let reflexive = [v4.newest(), v6.mapped].into_iter().flatten();
        let reflexive = reflexive.map(|addr| Candidate { kind: CandidateKind::ServerReflexive, addr });
        let hosts = self.hosts.iter().map(|&addr| Candidate { kind: CandidateKind::Host, addr });
        let mut candidates: Vec<Candidate> = Vec::new();
        for candidate in hosts.chain(reflexive) {
            if !candidates.iter().any(|c| c.addr == candidate.addr) {
                candidates.push(candidate);
            }
        }
        let tcp_out = self.tcp.iter().any(|(s, t)| s.port() != HTTPS && t.unwrap_or(self.nat.tcp_out));
        let https = self.tcp.iter().find(|(server, _)| server.port() == HTTPS);
        let https = https.is_some_and(|(_, answered)| answered.unwrap_or(self.nat.tcp443));
        let mut now = NatDescriptor {
            epoch: self.nat.epoch,
            udp: v4.mapped.is_some() || v6.mapped.is_some(),
            mapping: v4.mapping(self.is_translated()),
            filtering: v4.filtering,
            step: v4.step(),
            v4: v4.mapped.is_some(),
            v6: v6.reach(),
            hairpin: self.hairpin,
            tcp443: https,
            tcp_out,
            // not the network's but the user's
            birthday: false,
            candidates: List::<_, { limits::CANDIDATES_MAX }>::truncated(candidates),
            proven: List::truncated(self.proven()),
            doors: List::truncated(doors),
            crossing: self.tcp_reach.crossing(),
        };
        // an answer from where was written to before shows nothing: what was seen before still stands
        if !v4.testable && v4.mapped.is_some() && self.nat.mapped() == now.mapped() {
            now.filtering = self.nat.filtering;
        }
        if !v6.testable && v6.mapped.is_some() && self.nat.v6 == Ipv6Reach::Open {
            now.v6 = self.nat.v6;
        }
        if now != self.nat {
            self.nat = NatDescriptor { epoch: self.nat.epoch.wrapping_add(1), ..now };
            cx.push(Output::Changed(self.nat.clone()));
        }
    }

    fn pass(&mut self, cx: &mut Cx<'_, Self>, out: Vec<Output>) {
        for output in out {
            // the lifetime has moved: the report is ours to make
            let output = if matches!(output, Output::Report(_)) { Output::Report(self.report(cx.cfg)) } else { output };
            cx.push(output);
        }
    }
}

impl Machine for Discovery {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        match input {
            Input::Network(Network { hosts, mut servers, .. }) => {
                servers.truncate(SERVERS_MAX);
                if hosts != self.hosts {
                    // another network: nobody there has let anything in for us
                    self.contacts.clear();
                    self.lifetime = Lifetime::default();
                    self.tcp_reach.left();
                    self.seen = None;
                }
                // IPv6 addresses come and go by themselves (RFC 8981)
                if self.hosts.iter().any(|h| h.is_ipv4() && !hosts.contains(h)) {
                    self.left(cx);
                }
                (self.hosts, self.servers) = (hosts, servers);
                self.begin(cx);
            }
            Input::Look => self.look(cx),
            Input::Datagram { socket, from, bytes } => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                self.datagram(cx, socket, from, &bytes);
            }
            Input::Tcp { server, answer } => self.answered_over_tcp(cx, server, answer),
            Input::Listens(ports) => self.listens(cx, ports),
            Input::Forwards { local, outer } => self.forwards(cx, local, outer),
            Input::Knocked { server, local, answer } => self.knocked(cx, (server, local), &answer),
            Input::DialledBack { from, local, bytes } => self.dialled_back(cx, from, local, &bytes),
        }
        if cfg!(debug_assertions) {
            self.check_round();
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        if cx.is_due(self.ends) {
            return self.finish(cx);
        }
        if cx.is_due(self.again) {
            return self.begin(cx);
        }
        if cx.is_due(self.refresh) {
            self.refresh_due(cx);
        }
        for v6 in [false, true] {
            if cx.is_due(self.ways[usize::from(v6)].due) {
                self.stage_over(cx, v6);
            }
        }
        self.send_due(cx);
        self.tcp_reach_due(cx);
        let out = cx.child::<Lifetime>(cx.cfg, |cx| self.lifetime.handle_timeout(cx));
        self.pass(cx, out);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let sends = self.open.iter().map(|t| t.due).filter(|at| *at < Time(u64::MAX));
        let ways = self.ways.iter().filter_map(|w| w.due);
        let own = [self.ends, self.again, self.refresh, self.lifetime.poll_timeout(), self.tcp_reach.poll_timeout()];
        sends.chain(ways).chain(own.into_iter().flatten()).min()
    }

    fn rebase(&mut self, by: Duration) {
        let shift = |at: &mut Option<Time>| *at = at.map(|at| at.rebased(by));
        [&mut self.ends, &mut self.again, &mut self.refresh].into_iter().for_each(shift);
        self.ways.iter_mut().for_each(|w| shift(&mut w.due));
        self.contacts.values_mut().for_each(|at| *at = at.rebased(by));
        for t in self.open.iter_mut().filter(|t| t.due < Time(u64::MAX)) {
            t.due = t.due.rebased(by);
        }
        self.lifetime.rebase(by);
        self.tcp_reach.rebase(by);
    }

    fn check(&self) {
        self.check_all();
    }
}

/// Returns a random STUN transaction identifier, so that only a host on the network path can answer (RFC 8489 §5).
pub(in crate::nat) fn transaction_id(rng: &mut dyn Rng) -> TransactionId {
    let nonce = rng.nonce();
    let mut id = [0; 12];
    id.copy_from_slice(&nonce[4..]);
    TransactionId(id)
}
