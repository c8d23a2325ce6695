//! The port of the machine for NAT behaviour discovery and port mapping: its sockets, its requests over TCP and UPnP,
//! and its reports.

mod gateway;
mod igd;
mod line;
mod mapped;
pub mod udp;

pub use line::NatLine;
pub use mapped::MappedLine;

use crate::drive::{Port, drive};
use crate::http::Signal;
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::quic::{Datagram, RawSender};
use crate::rt::{Rt, begin_connect};
use futures_lite::future::or;
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::nat::NatDescriptor;
use swarmedge_core::nat::cookie::{Proven, Tag};
use swarmedge_core::nat::discovery::io::{self as discovery, Network, Socket};
use swarmedge_core::nat::gatherer::{Config, Gatherer, Input, Output, Report};
use swarmedge_core::nat::mapping::io::{self as mapping, IgdEnd, IgdError};
use swarmedge_core::nat::stun::{HEADER_LEN, MESSAGE_LEN_MAX};
use udp::Udp;

/// Maximum number of inputs in the machine's queue.
const INBOX_MAX: usize = 256;
/// Time-out for a connection from a listening port to a STUN server: longer than servers wait for another request.
const KNOCK_WITHIN: Duration = Duration::from_secs(20);
/// Interval at which this host's own addresses are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time-out for removing the port mapping from the gateway.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A result of observing the network.
#[derive(Clone, Debug)]
pub enum Told {
    /// The NAT description for other hosts has changed.
    Changed(NatDescriptor),
    /// Newer cookies, by which STUN servers prove this host's addresses to CNs, have arrived.
    Proven(Vec<Proven>),
    /// A round of discovery, the measurement of the mapping's lifetime, or a step of port mapping has ended.
    Report(Report),
}

/// The function that sends a datagram from the main socket.
pub type Send = Box<dyn Fn(&[u8], SocketAddr) -> io::Result<()>>;

/// The parts of a running client that discovery and port mapping use.
pub struct Sight {
    /// The sender of raw datagrams from the QUIC socket.
    pub raw: RawSender,
    /// Receiver of the STUN datagrams on the QUIC socket.
    pub datagrams: Receiver<Datagram>,
    /// Receiver of requests to check whether the network has changed.
    pub looks: Receiver<()>,
    /// TCP ports on which this host listens for peers.
    pub doors: Vec<u16>,
    /// Receiver of STUN messages on the listening TCP ports.
    pub called: Receiver<Called>,
    /// The tag that identifies this client to STUN servers.
    pub tag: Tag,
    /// Whether the gateway may be asked to forward a port.
    pub maps_ports: bool,
    /// The signal that the client ends, whereupon the port mapping is removed.
    pub leaves: Signal,
}

/// A STUN message on a connection to a listening TCP port.
#[derive(Clone, Debug)]
pub struct Called {
    /// The remote address of the connection.
    pub from: SocketAddr,
    /// The local port of the connection.
    pub local: u16,
    /// The bytes of the STUN message.
    pub bytes: Vec<u8>,
}

/// Observes the path from the QUIC socket to the Internet until the client ends, then removes the port mappings made.
pub async fn run<R: Rt>(rt: R, sight: Sight, servers: Vec<SocketAddr>, told: impl FnMut(Told) + 'static) {
    let Sight { raw, mut datagrams, mut looks, doors, mut called, tag, maps_ports, leaves } = sight;
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let bound = raw.local_addr();
    let forward = inbox.clone();
    let main: Send = Box::new(move |bytes, to| raw.send(bytes, to));
    let mut port = NatPort::new(rt.clone(), main, inbox.clone(), told);
    port.bound = bound.as_ref().ok().map(SocketAddr::ip);
    let calls = inbox.clone();
    let answering = async {
        while let Some(Called { from, local, bytes }) = called.recv().await {
            let _ = calls.try_send(discovery::Input::DialledBack { from, local, bytes }.into());
        }
        std::future::pending::<()>().await;
    };
    let listening = async {
        while let Some(Datagram { from, bytes }) = datagrams.recv().await {
            // what finds no room is lost, as UDP does
            let came = discovery::Input::Datagram { socket: Socket::Main, from, bytes: bytes.to_vec() };
            let _ = forward.try_send(came.into());
        }
    };
    let looking = async {
        let Ok(bound) = bound else { return };
        let _ = inbox.try_send(discovery::Input::Listens(doors).into());
        let (mut known, mut doubted) = (None, false);
        loop {
            let now = network(bound, &servers);
            let news = if known.as_ref() != Some(&now) {
                known = Some(now.clone());
                Some(discovery::Input::Network(now))
            } else {
                doubted.then_some(discovery::Input::Look)
            };
            if let Some(news) = news
                && inbox.send(news.into()).await.is_err()
            {
                return;
            }
            let timer = rt.sleep_until(rt.now() + LOOK_EVERY);
            doubted = or(doubt(&mut looks), async {
                timer.await;
                false
            })
            .await;
        }
    };
    let mut cfg = Config::default();
    cfg.discovery.tag = Some(tag);
    cfg.mapping.enabled = maps_ports;
    let leaving = leave(&rt, leaves.wait(), &inbox);
    or(drive(rt.clone(), Gatherer::default(), cfg, inputs, port), or(or(leaving, looking), or(answering, listening)))
        .await;
}

/// Once `when` has completed, asks the machine to remove its port mappings, and waits for at most [`CLOSE_WITHIN`].
/// The machine usually ends earlier.
async fn leave<R: Rt>(rt: &R, when: impl Future<Output = ()>, inbox: &Sender<Input>) {
    when.await;
    let _ = inbox.send(Input::Shutdown).await;
    rt.sleep_until(rt.now() + CLOSE_WITHIN).await;
}

/// Completes when a check for a change of the network is requested.
async fn doubt(looks: &mut Receiver<()>) -> bool {
    match looks.recv().await {
        Some(()) => true,
        None => std::future::pending().await,
    }
}

/// Observes the network once, with a new socket; `maps_ports` allows to ask the gateway for a port. Returns the
/// report.
pub async fn once<R: Rt>(rt: R, servers: Vec<SocketAddr>, maps_ports: bool) -> io::Result<Report> {
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let main = Udp::open(&rt)?;
    let network = network(main.local_addr()?, &servers);
    rt.spawn(main.clone().receive(rt.clone(), into_inbox(inbox.clone(), Socket::Main)));
    let sender = main.clone();
    let (found, settled) = (Rc::new(RefCell::new(None)), Signal::default());
    let (finds, ends) = (Rc::clone(&found), settled.clone());
    let told = move |told| {
        if let Told::Report(report) = told {
            // what follows is of the end
            if report.is_settled() && !ends.is_set() {
                *finds.borrow_mut() = Some(report);
                ends.set();
            }
        }
    };
    let send: Send = Box::new(move |bytes, to| sender.send(bytes, to));
    let port = NatPort::new(rt.clone(), send, inbox.clone(), told);
    let _ = inbox.try_send(discovery::Input::Network(network).into());
    let mut cfg = Config::once();
    cfg.mapping.enabled = maps_ports;
    or(drive(rt.clone(), Gatherer::default(), cfg, inputs, port), leave(&rt, settled.wait(), &inbox)).await;
    main.close();
    let report = found.take();
    report.ok_or_else(|| io::Error::other("discovery ended early"))
}

fn into_inbox(inbox: Sender<Input>, socket: Socket) -> impl FnMut(SocketAddr, Option<IpAddr>, &[u8]) {
    move |from, _, bytes| {
        let came = discovery::Input::Datagram { socket, from, bytes: bytes.to_vec() };
        let _ = inbox.try_send(came.into());
    }
}

struct NatPort<R, F> {
    rt: R,
    main: Send,
    inbox: Sender<Input>,
    /// UDP sockets of the machine besides the main one, opened at first use.
    own: Rc<RefCell<BTreeMap<Socket, Udp>>>,
    told: F,
    /// IP address to which the main socket is bound, and the listening TCP sockets too.
    bound: Option<IpAddr>,
    /// Whether the machine has ended.
    over: bool,
}

impl<R: Rt, F: FnMut(Told)> NatPort<R, F> {
    fn new(rt: R, main: Send, inbox: Sender<Input>, told: F) -> Self {
        Self { rt, main, inbox, own: Rc::default(), told, bound: None, over: false }
    }

    fn send(&self, socket: Socket, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        if socket == Socket::Main {
            return (self.main)(bytes, to);
        }
        let open = self.own.borrow().get(&socket).cloned();
        let udp = match open {
            Some(udp) => udp,
            None => {
                let udp = Udp::open(&self.rt)?;
                self.rt.spawn(udp.clone().receive(self.rt.clone(), into_inbox(self.inbox.clone(), socket)));
                self.own.borrow_mut().insert(socket, udp.clone());
                udp
            }
        };
        udp.send(bytes, to)
    }

    fn ask_tcp(&self, server: SocketAddr, bytes: Vec<u8>) {
        let (rt, inbox) = (self.rt.clone(), self.inbox.clone());
        self.rt.spawn(async move {
            let late = rt.sleep_until(rt.now() + discovery::Config::default().within);
            let asked = async { ask_tcp(&rt, server, &bytes).await.ok() };
            let answer = or(asked, async {
                late.await;
                None
            });
            let _ = inbox.send(discovery::Input::Tcp { server, answer: answer.await }.into()).await;
        });
    }

    fn knock(&self, server: SocketAddr, local: u16, requests: Vec<Vec<u8>>) {
        let (rt, inbox) = (self.rt.clone(), self.inbox.clone());
        let bound = self.bound.filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == server.is_ipv4());
        let from = SocketAddr::new(bound.unwrap_or_else(|| unspecified(server)), local);
        self.rt.spawn(async move {
            let late = rt.sleep_until(rt.now() + KNOCK_WITHIN);
            let asked = knock(&rt, &inbox, (from, server), requests);
            let ended = or(asked, async {
                late.await;
                Ok(())
            });
            if let Err(error) = ended.await {
                tracing::debug!(%from, %server, %error, "a listening port cannot be shown to a STUN server");
            }
        });
    }
}

impl<R, F> Drop for NatPort<R, F> {
    fn drop(&mut self) {
        self.own.borrow().values().for_each(Udp::close);
    }
}

impl<R: Rt, F: FnMut(Told)> Port<Gatherer> for NatPort<R, F> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::Discovery(discovery::Effect::Send { socket, to, bytes })
            | Output::Mapping(mapping::Effect::Send { socket, to, bytes }) => {
                if let Err(error) = self.send(socket, to, &bytes) {
                    // lost like any datagram: the machine asks again
                    tracing::debug!(%to, %error, "request not sent");
                }
            }
            Output::Discovery(discovery::Effect::AskTcp { server, bytes }) => self.ask_tcp(server, bytes),
            Output::Discovery(discovery::Effect::Knock { server, local, requests }) => {
                self.knock(server, local, requests);
            }
            Output::Mapping(mapping::Effect::Igd { id, ask }) => match self.inbox.reserve() {
                Ok(permit) => igd::begin(ask, move |answer| permit.send(Input::Igd(IgdEnd { id, answer }))),
                Err(_) => local.push_back(Input::Igd(IgdEnd { id, answer: Err(IgdError::NoAnswer) })),
            },
            Output::Over => self.over = true,
            Output::Changed(nat) => (self.told)(Told::Changed(nat)),
            Output::Proven(proven) => (self.told)(Told::Proven(proven)),
            Output::Report(report) => (self.told)(Told::Report(report)),
        }
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

/// Sends one STUN request over a new TCP connection; returns the answer.
async fn ask_tcp<R: Rt>(rt: &R, server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = rt.connect(server).await?;
    tcp.write_all(bytes).await?;
    tcp.flush().await?;
    read_message(&mut tcp).await
}

/// Sends STUN requests over a TCP connection from a listening port. The server closes it, since the side that closes
/// first could not open the same connection again for a while (TIME_WAIT).
async fn knock<R: Rt>(
    rt: &R,
    inbox: &Sender<Input>,
    (from, server): (SocketAddr, SocketAddr),
    requests: Vec<Vec<u8>>,
) -> io::Result<()> {
    let mut tcp = rt.connecting(begin_connect(from, server)?).await?;
    for request in requests {
        tcp.write_all(&request).await?;
        tcp.flush().await?;
        let answer = read_message(&mut tcp).await?;
        let _ = inbox.send(discovery::Input::Knocked { server, local: from.port(), answer }.into()).await;
    }
    let _ = tcp.read(&mut [0]).await;
    Ok(())
}

/// Reads the next STUN message of a TCP stream, where messages are framed by their own length (RFC 8489 §6.2.2).
pub async fn read_message(tcp: &mut (impl futures_lite::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_LEN];
    tcp.read_exact(&mut bytes).await?;
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    // all STUN messages begin with two zero bits and end on a word
    if len > MESSAGE_LEN_MAX || bytes[0] > 3 || !len.is_multiple_of(4) {
        return Err(io::Error::other("not a STUN message"));
    }
    bytes.resize(len, 0);
    tcp.read_exact(&mut bytes[HEADER_LEN..]).await?;
    Ok(bytes)
}

/// Returns this host's addresses, gateway and STUN servers, as input of the machine.
fn network(bound: SocketAddr, servers: &[SocketAddr]) -> Network {
    Network { hosts: hosts(bound, servers), servers: servers.to_vec(), gateway: gateway::default_route() }
}

/// Returns this host's own addresses on the routes to `servers`, with the socket's port. The system reports a route's
/// source address when a UDP socket is connected; nothing is sent.
pub fn hosts(bound: SocketAddr, servers: &[SocketAddr]) -> Vec<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let mut hosts = Vec::new();
    for ip in servers.iter().filter_map(|&server| way_to(server).ok()) {
        let host = SocketAddr::new(ip, bound.port());
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// Returns the unspecified address (all zeros) of the server's address family.
const fn unspecified(server: SocketAddr) -> IpAddr {
    if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

fn way_to(server: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(server), 0))?;
    socket.connect(server)?;
    socket.local_addr().map(|addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_address_is_the_only_host_address() {
        let addr = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let servers = [addr("127.0.0.1:3478")];
        assert_eq!(hosts(addr("127.0.0.2:9"), &servers), [addr("127.0.0.2:9")]);
        assert_eq!(hosts(addr("0.0.0.0:9"), &servers), [addr("127.0.0.1:9")]);
    }
}
