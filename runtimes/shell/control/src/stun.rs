//! The port of the STUN machine: messages over UDP, and over TCP framed by their own length (RFC 8489 §6.2.2). With an
//! alternate address there are four sockets for each transport (RFC 5780).

use crate::config::StunConfig;
use futures_lite::future::or;
use futures_lite::io::AsyncWriteExt as _;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::time::Duration;
use swarmedge_core::nat::stun::DATAGRAM_LEN_MAX;
use swarmedge_core::role::stun::{Addresses, Config, Input, Output, Stun};
use swarmedge_ground::drive::{Port, drive};
use swarmedge_ground::error::Error;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::{
    INBOX_MAX, Server, send_clock,
    sockets::{bind_udp, listen_tcp},
};
use swarmedge_ground::http::Signal;
use swarmedge_ground::http::seats::Seats;
use swarmedge_ground::http::signal::Gauge;
use swarmedge_ground::mailbox::{Sender, mailbox};
use swarmedge_ground::nat::read_message;
use swarmedge_ground::nat::udp::Udp;
use swarmedge_ground::ops;
use swarmedge_ground::rt::{Rt, begin_connect};
use swarmedge_ground::seals::Seals;

/// Attempts to find a port that is free for UDP and TCP.
const PORT_TRIES: u32 = 16;
/// Most TCP connections at a time.
const CONNECTIONS_MAX: usize = 1024;
/// Most clients dialled back at a time.
const DIALLING_MAX: usize = 256;
/// Time-out of a dial-back: shorter than TCP's first retransmission (RFC 6298 §2: a second).
const DIAL_WITHIN: Duration = Duration::from_millis(900);
/// Time-out of a request over TCP with its answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Wait after `accept` failed for lack of a resource.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a STUN server, which runs until `stop` is set.
pub fn open<R: Rt>(rt: &R, cfg: &StunConfig, stop: &Signal, health: &Health) -> Result<Server, Error> {
    let health = &health.of("stun");
    let addresses = cfg.alternate.map(|alternate| Addresses { primary: cfg.listen, alternate });
    let mut wanted: Vec<(SocketAddr, &str)> = vec![(cfg.listen, "[stun] listen")];
    wanted.extend(addresses.iter().flat_map(|a| a.all().into_iter().skip(1)).map(|a| (a, "[stun] alternate")));
    wanted.extend(cfg.also.iter().map(|a| (*a, "[stun] also")));
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for (at, key) in wanted {
        let listening = |e: io::Error| Error::io(format!("listen on {at}"), &e);
        let (datagrams, streams) = bind_both(at, key)?;
        let bound = datagrams.local_addr().map_err(listening)?;
        tcp.push((bound, rt.listen(streams).map_err(listening)?));
        udp.push((bound, Udp::wrap(rt, datagrams).map_err(listening)?));
    }
    let addr = udp.first().map_or(cfg.listen, |(bound, _)| *bound);
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[stun] ops", stop.clone(), health.clone())).transpose()?;
    let seals = cfg.seal_key.as_deref().map(Seals::open).transpose()?;
    let (rt, stop) = (rt.clone(), stop.clone());
    let run = async move {
        match addresses {
            Some(a) => tracing::info!(%addr, alternate = %a.alternate, "STUN server is ready"),
            None => tracing::warn!(
                %addr,
                "STUN server is ready, with one address: it cannot answer from another one (CHANGE-REQUEST gets error \
                 420), so clients see how NATs filter only with `alternate` in [stun]"
            ),
        }
        or(stop.wait(), or(serve_udp(rt.clone(), udp, addresses, seals), serve_tcp(rt, tcp, addresses))).await;
        tracing::info!("STUN server has stopped");
        Ok(())
    };
    Ok(Server::new(addr, ops, run))
}

/// Binds UDP and TCP sockets to the same port; for port 0 it searches for one that is free on both.
fn bind_both(listen: SocketAddr, key: &str) -> Result<(UdpSocket, TcpListener), Error> {
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = bind_udp(listen, key)?;
        let addr = udp.local_addr().map_err(|e| Error::io(format!("listen on {listen}"), &e))?;
        tries -= 1;
        match listen_tcp(addr, key) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) if tries == 0 => return Err(e),
            Err(_) => {}
        }
    }
}

/// Runs one STUN machine for all UDP sockets, so that the rate limit of a client's network holds over all of them.
async fn serve_udp<R: Rt>(rt: R, sockets: Vec<(SocketAddr, Udp)>, addresses: Option<Addresses>, seals: Option<Seals>) {
    let (inbox, inputs) = mailbox(INBOX_MAX);
    rt.spawn(send_clock(rt.clone(), inbox.clone(), |unix_ms| Input::WallClock { unix_ms }));
    if let Some(seals) = seals {
        rt.spawn(seals.clone().send_cookie_keys(rt.clone(), inbox.clone(), Input::CookieKeys));
        rt.spawn(seals.follow(rt.clone()));
    }
    let cfg = Config { addresses, ..Config::default() };
    for (bound, udp) in sockets.iter().cloned() {
        let inbox = inbox.clone();
        rt.spawn(udp.receive(rt.clone(), move |from, dst_ip, datagram| {
            let local = SocketAddr::new(dst_ip.unwrap_or_else(|| bound.ip()), bound.port());
            if datagram.len() <= DATAGRAM_LEN_MAX {
                // a full mailbox drops the datagram, as UDP may
                let _ = inbox.try_send(Input::Datagram { from, local, bytes: datagram.to_vec() });
            }
        }));
    }
    drive(rt, Stun::default(), cfg, inputs, UdpPort(sockets)).await;
}

struct UdpPort(Vec<(SocketAddr, Udp)>);

impl Drop for UdpPort {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, udp)| udp.close());
    }
}

impl Port<Stun> for UdpPort {
    fn perform(&mut self, output: Output, _local: &mut VecDeque<Input>) {
        match output {
            Output::Datagram { local, to, bytes } => {
                let any = |bound: &SocketAddr| bound.ip().is_unspecified() && bound.port() == local.port();
                let exactly = self.0.iter().find(|(bound, _)| *bound == local);
                let Some((_, udp)) = exactly.or_else(|| self.0.iter().find(|(bound, _)| any(bound))) else { return };
                let src_ip = Some(local.ip()).filter(|ip| !ip.is_unspecified());
                if let Err(error) = udp.send_from(src_ip, &bytes, to) {
                    // the client will retry
                    tracing::debug!(%to, %error, "cannot send an answer");
                }
            }
            // only requests over TCP are answered by a dial-back
            Output::DialBack { .. } => {}
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
        }
    }
}

/// Senders of answers to TCP connections, by remote and local address.
type Answers = Rc<RefCell<BTreeMap<(SocketAddr, SocketAddr), Sender<Vec<u8>>>>>;

/// Runs a STUN machine for TCP of its own, so that no answer to a TCP request is sent over UDP or the reverse.
async fn serve_tcp<R: Rt>(rt: R, listeners: Vec<(SocketAddr, R::Listener)>, addresses: Option<Addresses>) {
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let answers = Answers::default();
    let dials_from = addresses.map(|a| [a.primary.ip(), a.alternate.ip()]);
    let cfg = Config { addresses, verified: true, dials_from, ..Config::default() };
    let seats = Seats::new(&rt, "stun", CONNECTIONS_MAX);
    let stopped = StopOnDrop(Signal::default());
    for (local, listener) in listeners {
        let (seats, inbox, answers) = (seats.clone(), inbox.clone(), Rc::clone(&answers));
        let accepting = accept(rt.clone(), listener, Connections { local, seats, inbox, answers });
        let stop = stopped.0.clone();
        rt.spawn(async move { or(stop.wait(), accepting).await });
    }
    let port = TcpPort { rt: rt.clone(), answers, dialling: Gauge::default() };
    drive(rt, Stun::default(), cfg, inputs, port).await;
}

/// Sets its signal when dropped, which ends the tasks that accept TCP connections.
struct StopOnDrop(Signal);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The TCP connections of one listening address.
#[derive(Clone)]
struct Connections {
    local: SocketAddr,
    seats: Seats,
    inbox: Sender<Input>,
    answers: Answers,
}

/// Accepts TCP connections and starts a task for each that gets a seat.
async fn accept<R: Rt>(rt: R, listener: R::Listener, connections: Connections) {
    loop {
        match rt.accept(&listener).await {
            Ok((tcp, from)) => {
                let Some(seat) = connections.seats.take(from) else { continue };
                let (rt2, connections) = (rt.clone(), connections.clone());
                rt.spawn(async move {
                    let lost = async {
                        seat.lost().await;
                        Err(io::Error::other("another one has its place"))
                    };
                    if let Err(error) = or(lost, connection(&rt2, tcp, from, &connections)).await {
                        tracing::debug!(%from, %error, "STUN connection ended");
                    }
                    connections.answers.borrow_mut().remove(&(from, connections.local));
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                rt.sleep_until(rt.now() + PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a TCP connection one after another.
async fn connection<R: Rt>(
    rt: &R,
    mut tcp: R::Tcp,
    from: SocketAddr,
    Connections { local, inbox, answers, .. }: &Connections,
) -> io::Result<()> {
    let local = *local;
    let (to_write, mut answer) = mailbox(1);
    answers.borrow_mut().insert((from, local), to_write);
    loop {
        let exchange = async {
            let bytes = read_message(&mut tcp).await?;
            let ended = || io::Error::other("the server is ending");
            inbox.send(Input::Datagram { from, local, bytes }).await.map_err(|_| ended())?;
            let answer = answer.recv().await.ok_or_else(ended)?;
            tcp.write_all(&answer).await?;
            tcp.flush().await
        };
        let late = async {
            rt.sleep_until(rt.now() + REQUEST_WITHIN).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        or(exchange, late).await?;
    }
}

struct TcpPort<R: Rt> {
    rt: R,
    answers: Answers,
    dialling: Gauge,
}

impl<R: Rt> TcpPort<R> {
    /// Dials a client's TCP port and sends the message, which proves to the client that the port is reachable.
    fn dial_back(&self, from: IpAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.dialling.get() >= DIALLING_MAX {
            return;
        }
        let (rt, counted) = (self.rt.clone(), self.dialling.enter());
        self.rt.spawn(async move {
            let late = rt.sleep_until(rt.now() + DIAL_WITHIN);
            let dial = async {
                let mut tcp = rt.connecting(begin_connect(SocketAddr::new(from, 0), to)?).await?;
                tcp.write_all(&bytes).await?;
                tcp.close().await
            };
            let dialled = or(dial, async {
                late.await;
                Err(io::ErrorKind::TimedOut.into())
            });
            if let Err(error) = dialled.await {
                tracing::debug!(%to, %error, "the client's TCP port was not reached");
            }
            drop(counted);
        });
    }
}

impl<R: Rt> Port<Stun> for TcpPort<R> {
    fn perform(&mut self, output: Output, _local: &mut VecDeque<Input>) {
        match output {
            Output::Datagram { to, local, bytes } => {
                if let Some(connection) = self.answers.borrow().get(&(to, local)) {
                    // there is room: the connection waits for the answer to its only request
                    let _ = connection.try_send(bytes);
                }
            }
            Output::DialBack { from, to, bytes } => self.dial_back(from, to, bytes),
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
        }
    }
}
