//! Combines the state machines of NAT behaviour discovery and of port mapping into one that produces the client's NAT
//! descriptor.

use super::cookie::Proven;
use super::discovery::io::{Network, Sight, Socket};
use super::discovery::{self, Discovery};
use super::mapping::{self, Mapping};
use super::{Candidate, CandidateKind, NatDescriptor, Transport};
use crate::codec::List;
use crate::machine::{Cx, Machine, Time};
use alloc::vec::Vec;
use core::net::{SocketAddr, SocketAddrV4};
use core::time::Duration;
use mapping::io::{IgdEnd, Site, Status};

/// Event reported to the state machine that runs NAT discovery and port mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// An event for NAT discovery; networks and datagrams are passed to port mapping too.
    Discovery(discovery::io::Input),
    /// A UPnP request to the router has ended.
    Igd(IgdEnd),
    /// The client stops: the ports that the router forwards are to be closed.
    Shutdown,
}

impl From<discovery::io::Input> for Input {
    fn from(input: discovery::io::Input) -> Self {
        Self::Discovery(input)
    }
}

/// Command or notification of the state machine that runs NAT discovery and port mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Perform this network operation for discovery.
    Discovery(discovery::io::Effect),
    /// Perform this network operation for port mapping.
    Mapping(mapping::io::Effect),
    /// Publish this NAT descriptor, which differs from the one published before.
    Changed(NatDescriptor),
    /// Publish newer cookies of STUN servers; the descriptor's addresses have not changed.
    Proven(Vec<Proven>),
    /// Report all findings, after each round of discovery and at each change of port mapping.
    Report(Report),
    /// Finish the shutdown: after [`Input::Shutdown`] no request to close a forwarded port is pending any more. Sent
    /// at least once.
    Over,
}

/// Findings of NAT behaviour discovery and status of port mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Findings of discovery, with the NAT descriptor that is sent to peers.
    pub way: discovery::io::Report,
    /// Status of port mapping for the QUIC socket.
    pub mapping: Status,
}

impl Report {
    /// Returns whether no request of port mapping is pending, so that this report is final for now.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.mapping != Status::Busy
    }
}

/// Configuration of discovery and port mapping.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Time-outs and limits of discovery.
    pub discovery: discovery::io::Config,
    /// Time-outs and limits of port mapping.
    pub mapping: mapping::io::Config,
}

impl Config {
    /// Returns a configuration for one diagnosis, without refreshes or further rounds.
    #[must_use]
    pub fn once() -> Self {
        Self { discovery: discovery::io::Config::once(), mapping: mapping::io::Config::once() }
    }
}

/// State machine that runs NAT behaviour discovery and port mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gatherer {
    discovery: Discovery,
    mapping: Mapping,
    /// Port mapping for the first listening TCP port.
    doorman: Mapping,
    /// Address translation of the QUIC socket that was last passed to port mapping.
    sight: Option<Sight>,
    /// Address translation of the listening TCP port that was last passed to port mapping.
    door_sight: Option<Sight>,
    /// Router and local address of this host, for port mapping.
    site: Option<Site>,
    /// First TCP port on which this host listens for peers.
    door: Option<u16>,
    report: Option<discovery::io::Report>,
    status: Status,
    leaving: bool,
    /// NAT descriptor that is sent to peers.
    nat: NatDescriptor,
}

type Context<'a> = Cx<'a, Gatherer>;

impl Gatherer {
    /// Returns the NAT descriptor, to be sent to peers.
    #[must_use]
    pub const fn descriptor(&self) -> &NatDescriptor {
        &self.nat
    }

    /// Returns the state machine of NAT discovery, for inspection.
    #[must_use]
    pub const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Returns the state machine of port mapping for the QUIC socket, for inspection.
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn discover(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Discovery, &mut Cx<'_, Discovery>)) {
        let mut news = false;
        for output in cx.child(&cx.cfg.discovery, |cx| f(&mut self.discovery, cx)) {
            match output {
                discovery::io::Output::Effect(effect) => cx.push(Output::Discovery(effect)),
                discovery::io::Output::Changed(_) => self.announce(cx),
                discovery::io::Output::Proven(proven) => {
                    self.nat.renew(&proven);
                    cx.push(Output::Proven(proven));
                }
                discovery::io::Output::Report(report) => {
                    self.report = Some(report);
                    news = true;
                }
            }
        }
        let sight = self.discovery.sight(cx.now);
        if sight.is_some() && sight != self.sight {
            self.sight.clone_from(&sight);
            if let Some(sight) = sight {
                self.map(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Seen(sight)));
            }
        }
        let sight = self.discovery.door_sight();
        if sight.is_some() && sight != self.door_sight {
            self.door_sight.clone_from(&sight);
            sight.into_iter().for_each(|sight| self.door_is_seen(cx, sight));
        }
        // behind what follows for the port: whether all is settled stands in it
        if news {
            self.tell(cx);
        }
    }

    /// Runs the port mapping machine by `f`, and performs its outputs.
    fn map(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Mapping, &mut Cx<'_, Mapping>)) {
        for output in cx.child(&cx.cfg.mapping, |cx| f(&mut self.mapping, cx)) {
            match output {
                mapping::io::Output::Effect(effect) => cx.push(Output::Mapping(effect)),
                mapping::io::Output::Claimed(_) | mapping::io::Output::Forwards(_) => self.announce(cx),
                mapping::io::Output::Status(status) => {
                    self.status = status;
                    self.tell(cx);
                }
            }
        }
    }

    /// Runs the port mapping of the listening TCP port, and passes a forwarded port to discovery, which tests whether
    /// it is reachable.
    fn map_door(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Mapping, &mut Cx<'_, Mapping>)) {
        for output in cx.child(&cx.cfg.mapping, |cx| f(&mut self.doorman, cx)) {
            match output {
                mapping::io::Output::Effect(effect) => cx.push(Output::Mapping(effect)),
                mapping::io::Output::Forwards(external) => {
                    self.door_is_forwarded(cx, external);
                }
                mapping::io::Output::Claimed(_) | mapping::io::Output::Status(_) => {}
            }
        }
    }

    fn door_is_seen(&mut self, cx: &mut Context<'_>, sight: Sight) {
        self.map_door(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Seen(sight)));
    }

    fn door_is_forwarded(&mut self, cx: &mut Context<'_>, external: Option<SocketAddrV4>) {
        let Some(local) = self.door else { return };
        let told = discovery::io::Input::Forwards { local, outer: external.map(|e| e.port()) };
        self.discover(cx, |d, cx| d.handle_input(cx, told));
    }

    /// Restarts the port mapping of the listening TCP port after that port or the network has changed.
    fn place_door(&mut self, cx: &mut Context<'_>) {
        self.door_sight = None;
        let site = self.site.zip(self.door).map(|(site, port)| Site {
            local: SocketAddrV4::new(*site.local.ip(), port),
            over: Transport::Tcp,
            ..site
        });
        self.map_door(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Site(site)));
    }

    /// Publishes the NAT descriptor if discovery or port mapping has changed it, with the next epoch number.
    fn announce(&mut self, cx: &mut Context<'_>) {
        let mut now = self.discovery.descriptor().clone();
        let forwarded = self.mapping.claimed().filter(|_| now.udp).map(SocketAddr::V4);
        let forwarded = forwarded.map(|addr| Candidate { kind: CandidateKind::Mapped, addr });
        // first, so that no list is too long for it
        let others = core::mem::take(&mut now.candidates).into_vec();
        now.candidates = List::truncated(forwarded.into_iter().chain(others));
        now.epoch = self.nat.epoch;
        if now != self.nat {
            self.nat = NatDescriptor { epoch: self.nat.epoch.wrapping_add(1), ..now };
            cx.push(Output::Changed(self.nat.clone()));
        }
    }

    fn tell(&mut self, cx: &mut Context<'_>) {
        if let Some(way) = &self.report {
            let way = discovery::io::Report { nat: self.nat.clone(), ..way.clone() };
            cx.push(Output::Report(Report { way, mapping: self.status }));
        }
    }

    /// Asserts that one port mapping is for UDP and the other for TCP, and that none is active after the shutdown.
    fn check_sites(&self) {
        let placed = |m: &Mapping, over| m.site().is_none_or(|site| site.over == over);
        assert!(placed(&self.mapping, Transport::Udp), "the main socket's port is mapped over UDP");
        assert!(placed(&self.doorman, Transport::Tcp), "the listening port is mapped over TCP");
        let idle = self.mapping.site().is_none() && self.doorman.site().is_none();
        assert!(!self.leaving || idle, "no port is opened after the shutdown");
    }

    /// Passes an input of discovery on to port mapping if it concerns port mapping.
    fn share(&mut self, cx: &mut Context<'_>, input: &discovery::io::Input) {
        use discovery::io::Input as Told;
        if self.leaving {
            return;
        }
        let shared = match input {
            Told::Network(network) => {
                self.sight = None;
                self.site = site(network);
                self.place_door(cx);
                mapping::io::Input::Site(self.site)
            }
            Told::Datagram { socket, from, bytes } => {
                let came = mapping::io::Input::Datagram { socket: *socket, from: *from, bytes: bytes.clone() };
                if *socket == Socket::TcpGateway {
                    return self.map_door(cx, |m, cx| m.handle_input(cx, came));
                }
                came
            }
            Told::Listens(ports) => {
                self.door = ports.first().copied();
                return self.place_door(cx);
            }
            Told::Look | Told::Forwards { .. } | Told::Knocked { .. } | Told::DialledBack { .. } | Told::Tcp { .. } => {
                return;
            }
        };
        self.map(cx, |m, cx| m.handle_input(cx, shared));
    }
}

/// Returns the router and the local address of this host, for port mapping; `None` without IPv4 or a router.
fn site(network: &Network) -> Option<Site> {
    let local = network.hosts.iter().find_map(|h| if let SocketAddr::V4(v4) = h { Some(*v4) } else { None })?;
    Some(Site { gateway: network.gateway?, local, over: Transport::Udp })
}

impl Machine for Gatherer {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Discovery(input) => {
                self.share(cx, &input);
                self.discover(cx, |d, cx| d.handle_input(cx, input));
            }
            Input::Igd(end) if end.id & mapping::TCP_ID != 0 => {
                self.map_door(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Igd(end)));
            }
            Input::Igd(end) => self.map(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Igd(end))),
            Input::Shutdown => {
                self.leaving = true;
                self.map(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Shutdown));
                self.map_door(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Shutdown));
            }
        }
        if self.leaving && !self.mapping.is_closing() && !self.doorman.is_closing() {
            cx.push(Output::Over);
        }
        if cfg!(debug_assertions) {
            self.check_sites();
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.discover(cx, |d, cx| d.handle_timeout(cx));
        self.map(cx, |m, cx| m.handle_timeout(cx));
        self.map_door(cx, |m, cx| m.handle_timeout(cx));
    }

    fn poll_timeout(&self) -> Option<Time> {
        let all = [self.discovery.poll_timeout(), self.mapping.poll_timeout(), self.doorman.poll_timeout()];
        all.into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        self.discovery.rebase(by);
        self.mapping.rebase(by);
        self.doorman.rebase(by);
    }

    fn check(&self) {
        self.discovery.check();
        self.mapping.check();
        self.doorman.check();
        self.check_sites();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use core::net::Ipv4Addr;

    fn run(m: &mut Gatherer, input: impl Into<Input>) {
        let (cfg, rng) = (Config::default(), &mut crate::seeded::Seeded::new(1));
        m.handle_input(&mut Cx { now: Time(1), cfg: &cfg, rng, out: &mut alloc::vec![] }, input.into());
    }

    fn network() -> discovery::io::Input {
        let hosts = alloc::vec![SocketAddr::from(([192, 168, 1, 2], 5000))];
        let gateway = Some(Ipv4Addr::new(192, 168, 1, 1));
        discovery::io::Input::Network(Network { hosts, servers: alloc::vec![], gateway })
    }

    fn healthy() -> Gatherer {
        let mut m = Gatherer::default();
        run(&mut m, discovery::io::Input::Listens(alloc::vec![6000]));
        run(&mut m, network());
        m
    }

    #[test]
    fn each_clause_about_a_gatherer_fires() {
        assert_each_clause_fires(
            &healthy(),
            Gatherer::check,
            &[
                ("the main socket's port is mapped over UDP", |m| m.mapping = m.doorman.clone()),
                ("the listening port is mapped over TCP", |m| m.doorman = m.mapping.clone()),
                ("no port is opened after the shutdown", |m| m.leaving = true),
            ],
        );
    }

    #[test]
    fn a_network_that_comes_after_the_shutdown_opens_no_port() {
        let mut m = healthy();
        run(&mut m, Input::Shutdown);
        run(&mut m, network());
        run(&mut m, discovery::io::Input::Listens(alloc::vec![6001]));
        m.check();
    }
}
