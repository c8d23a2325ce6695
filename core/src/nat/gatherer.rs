//! What a client gathers of its way to the Internet: behaviour discovery and port mapping, and one descriptor of both.

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

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// To discovery; networks and datagrams are of interest to port mapping too.
    Discovery(discovery::io::Input),
    /// To port mapping.
    Igd(IgdEnd),
    /// This host leaves: what its gateway has opened is closed.
    Shutdown,
}

impl From<discovery::io::Input> for Input {
    fn from(input: discovery::io::Input) -> Self {
        Self::Discovery(input)
    }
}

/// Something to be done or told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// What discovery asks for.
    Discovery(discovery::io::Effect),
    /// What port mapping asks for.
    Mapping(mapping::io::Effect),
    /// The descriptor that others may be told has changed.
    Changed(NatDescriptor),
    /// Newer cookies for the addresses of the descriptor, which stays as it is.
    Proven(Vec<Proven>),
    /// All that is known, told at the end of each round of discovery and as port mapping goes on.
    Report(Report),
    /// After [`Input::Shutdown`]: what was open is closed, as far as can be told. Said once or more.
    Over,
}

/// All that is known of the way to the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// What discovery has found; its descriptor is the one that others are told.
    pub way: discovery::io::Report,
    /// How port mapping stands.
    pub mapping: Status,
}

impl Report {
    /// Whether nothing is being looked into any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.mapping != Status::Busy
    }
}

/// Times and bounds of both.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Discovery's.
    pub discovery: discovery::io::Config,
    /// Port mapping's.
    pub mapping: mapping::io::Config,
}

impl Config {
    /// A look, and no more.
    #[must_use]
    pub fn once() -> Self {
        Self { discovery: discovery::io::Config::once(), mapping: mapping::io::Config::once() }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gatherer {
    discovery: Discovery,
    mapping: Mapping,
    /// Port mapping of the first listening TCP port.
    doorman: Mapping,
    /// What port mapping knows of the socket, and of that port.
    sight: Option<Sight>,
    door_sight: Option<Sight>,
    /// Where port mapping is to be had, and that port.
    site: Option<Site>,
    door: Option<u16>,
    report: Option<discovery::io::Report>,
    status: Status,
    leaving: bool,
    /// What others are told.
    nat: NatDescriptor,
}

type Context<'a> = Cx<'a, Gatherer>;

impl Gatherer {
    /// What others may be told.
    #[must_use]
    pub const fn descriptor(&self) -> &NatDescriptor {
        &self.nat
    }

    /// Behaviour discovery.
    #[must_use]
    pub const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Port mapping.
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn discover(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Discovery, &mut Cx<'_, Discovery>)) {
        let cfg = cx.cfg;
        let discovery = &mut self.discovery;
        let mut news = false;
        for output in cx.child(&cfg.discovery, |cx| f(discovery, cx)) {
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

    fn map(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Mapping, &mut Cx<'_, Mapping>)) {
        let cfg = cx.cfg;
        let mapping = &mut self.mapping;
        for output in cx.child(&cfg.mapping, |cx| f(mapping, cx)) {
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

    /// Port mapping of a listening port: whether anybody gets through is for discovery to see, and to tell.
    fn map_door(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Mapping, &mut Cx<'_, Mapping>)) {
        let cfg = cx.cfg;
        let doorman = &mut self.doorman;
        for output in cx.child(&cfg.mapping, |cx| f(doorman, cx)) {
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

    /// The port that is to be reached over TCP, or where, has changed.
    fn place_door(&mut self, cx: &mut Context<'_>) {
        self.door_sight = None;
        let site = self.site.zip(self.door).map(|(site, port)| Site {
            local: SocketAddrV4::new(*site.local.ip(), port),
            over: Transport::Tcp,
            ..site
        });
        self.map_door(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Site(site)));
    }

    /// Tells others what is known by now, if it is news. Its epoch is this machine's own: both parts have news.
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

    /// Has port mapping know of what discovery is about to be told.
    fn share(&mut self, cx: &mut Context<'_>, input: &discovery::io::Input) {
        use discovery::io::Input as Told;
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

/// Where port mapping is to be had on a network.
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
}
