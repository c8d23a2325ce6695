//! What a client gathers of its way to the Internet: behaviour discovery and port mapping, and one descriptor of both.

use super::cookie::Proven;
use super::discovery::io::{Sight, Socket};
use super::discovery::{self, Discovery};
use super::mapping::{self, Mapping};
use super::{Candidate, CandidateKind, NatDescriptor};
use crate::codec::List;
use crate::machine::{Cx, Machine, Time};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use mapping::io::{IgdAsk, IgdError, Opened, Site, Status};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The network as it is now: at the start, and whenever it may have changed. Discovery begins anew.
    Network {
        /// This host's own addresses with the main socket's port.
        hosts: Vec<SocketAddr>,
        /// STUN servers, best first.
        servers: Vec<SocketAddr>,
        /// The router that the way out begins with (IPv4).
        gateway: Option<Ipv4Addr>,
    },
    /// The mapping may be another one: it is looked at now rather than when that is due.
    Look,
    /// A datagram came.
    Datagram {
        /// To which socket.
        socket: Socket,
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// [`Output::AskTcp`] has ended.
    Tcp {
        /// Who was asked.
        server: SocketAddr,
        /// The answer, if any came.
        answer: Option<Vec<u8>>,
    },
    /// See [`discovery::io::Input::Listens`].
    Listens(Vec<u16>),
    /// An answer to a request of [`Output::Knock`].
    Knocked {
        /// Who was asked.
        server: SocketAddr,
        /// From this port.
        local: u16,
        /// The answer.
        answer: Vec<u8>,
    },
    /// See [`discovery::io::Input::DialledBack`].
    DialledBack {
        /// Who.
        from: SocketAddr,
        /// To which port.
        local: u16,
        /// What.
        bytes: Vec<u8>,
    },
    /// [`Output::Igd`] has ended.
    Igd {
        /// Which.
        id: u32,
        /// How.
        answer: Result<Opened, IgdError>,
    },
    /// This host leaves: what its gateway has opened is closed.
    Shutdown,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram; lost like any, should it fail.
    Send {
        /// From which socket.
        socket: Socket,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Ask over TCP within [`discovery::io::Config::within`]; answered by one [`Input::Tcp`].
    AskTcp {
        /// Whom.
        server: SocketAddr,
        /// The request.
        bytes: Vec<u8>,
    },
    /// See [`discovery::io::Output::Knock`].
    Knock {
        /// Whom.
        server: SocketAddr,
        /// From this port.
        local: u16,
        /// The requests.
        requests: Vec<Vec<u8>>,
    },
    /// Open or close a port by UPnP, of this gateway and no other; answered by one [`Input::Igd`].
    Igd {
        /// Echoed.
        id: u32,
        /// What.
        ask: IgdAsk,
    },
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
    /// What port mapping knows of the socket.
    sight: Option<Sight>,
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
                discovery::io::Output::Send { socket, to, bytes } => cx.push(Output::Send { socket, to, bytes }),
                discovery::io::Output::AskTcp { server, bytes } => cx.push(Output::AskTcp { server, bytes }),
                discovery::io::Output::Knock { server, local, requests } => {
                    cx.push(Output::Knock { server, local, requests });
                }
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
                mapping::io::Output::Send { socket, to, bytes } => cx.push(Output::Send { socket, to, bytes }),
                mapping::io::Output::Igd { id, ask } => cx.push(Output::Igd { id, ask }),
                mapping::io::Output::Claimed(_) => self.announce(cx),
                mapping::io::Output::Status(status) => {
                    self.status = status;
                    self.tell(cx);
                }
            }
        }
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

    fn network(
        &mut self,
        cx: &mut Context<'_>,
        hosts: Vec<SocketAddr>,
        servers: Vec<SocketAddr>,
        gateway: Option<Ipv4Addr>,
    ) {
        let local = hosts.iter().find_map(|h| if let SocketAddr::V4(v4) = h { Some(*v4) } else { None });
        let site = gateway.zip(local).map(|(gateway, local)| Site { gateway, local });
        self.sight = None;
        self.map(cx, |m, cx| m.handle_input(cx, mapping::io::Input::Site(site)));
        self.discover(cx, |d, cx| d.handle_input(cx, discovery::io::Input::Network { hosts, servers }));
    }
}

impl Machine for Gatherer {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        use discovery::io::Input as Seek;
        use mapping::io::Input as Map;
        match input {
            Input::Network { hosts, servers, gateway } => self.network(cx, hosts, servers, gateway),
            Input::Look => self.discover(cx, |d, cx| d.handle_input(cx, Seek::Look)),
            Input::Datagram { socket, from, bytes } => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let seen = bytes.clone();
                self.map(cx, |m, cx| m.handle_input(cx, Map::Datagram { socket, from, bytes: seen }));
                self.discover(cx, |d, cx| d.handle_input(cx, Seek::Datagram { socket, from, bytes }));
            }
            Input::Tcp { server, answer } => {
                self.discover(cx, |d, cx| d.handle_input(cx, Seek::Tcp { server, answer }));
            }
            Input::Listens(ports) => self.discover(cx, |d, cx| d.handle_input(cx, Seek::Listens(ports))),
            Input::Knocked { server, local, answer } => {
                self.discover(cx, |d, cx| d.handle_input(cx, Seek::Knocked { server, local, answer }));
            }
            Input::DialledBack { from, local, bytes } => {
                self.discover(cx, |d, cx| d.handle_input(cx, Seek::DialledBack { from, local, bytes }));
            }
            Input::Igd { id, answer } => self.map(cx, |m, cx| m.handle_input(cx, Map::Igd { id, answer })),
            Input::Shutdown => {
                self.leaving = true;
                self.map(cx, |m, cx| m.handle_input(cx, Map::Shutdown));
            }
        }
        if self.leaving && !self.mapping.is_closing() {
            cx.push(Output::Over);
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.discover(cx, |d, cx| d.handle_timeout(cx));
        self.map(cx, |m, cx| m.handle_timeout(cx));
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.discovery.poll_timeout(), self.mapping.poll_timeout()].into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        self.discovery.rebase(by);
        self.mapping.rebase(by);
    }
}
