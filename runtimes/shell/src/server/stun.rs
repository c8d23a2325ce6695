//! The STUN server's port: datagrams on UDP, framed by their own length on TCP (RFC 8489 §6.2.2).

use super::{
    INBOX_MAX, Server,
    sockets::{bind_udp, listen_tcp},
};
use crate::cli::Error;
use crate::config::StunConfig;
use crate::drive::{Port, drive};
use crate::http::Signal;
use crate::http::signal::Gauge;
use crate::mailbox::{Sender, mailbox};
use crate::ops;
use crate::rt::Rt;
use futures_lite::future::{or, poll_fn};
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use quinn::AsyncUdpSocket;
use quinn::udp::{RecvMeta, Transmit};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::nat::stun::{DATAGRAM_LEN_MAX, HEADER_LEN, MESSAGE_LEN_MAX};
use swarmedge_core::role::stun::{Config, Input, Output, Stun};

/// Bytes of the receive buffer: one GRO batch.
const RECEIVE_LEN: usize = 64 * 1024;
/// Ports that are tried where any will do.
const PORT_TRIES: u32 = 16;
/// TCP connections at once.
const CONNECTIONS_MAX: usize = 1024;
/// For a request on TCP, and for its answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// The wait after a socket call that failed for want of a resource.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a STUN server. It runs until `stop` is set.
pub fn open<R: Rt>(rt: &R, cfg: &StunConfig, stop: &Signal) -> Result<Server, Error> {
    let listening = |e: io::Error| Error::io(format!("listen on {}", cfg.listen), &e);
    let (udp, tcp) = bind_both(cfg.listen)?;
    let addr = udp.local_addr().map_err(listening)?;
    let tcp = rt.listen(tcp).map_err(listening)?;
    let udp = rt.quic().wrap_udp_socket(udp).map_err(listening)?;
    let ops = cfg.ops.map(|at| ops::serve(rt, at, "[stun] ops", stop.clone())).transpose()?;
    let (rt, stop) = (rt.clone(), stop.clone());
    let run = async move {
        tracing::info!(%addr, "STUN server is ready");
        or(stop.wait(), or(over_udp(rt.clone(), udp), over_tcp(rt, tcp, addr))).await;
        tracing::info!("STUN server has stopped");
        Ok(())
    };
    Ok(Server { addr, ops, run: Box::pin(run) })
}

/// UDP and TCP sockets of one port. Where any port will do, one that is free on both is looked for.
fn bind_both(listen: SocketAddr) -> Result<(UdpSocket, TcpListener), Error> {
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = bind_udp(listen, "[stun] listen")?;
        let addr = udp.local_addr().map_err(|e| Error::io(format!("listen on {listen}"), &e))?;
        tries -= 1;
        match listen_tcp(addr, "[stun] listen") {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e) if tries == 0 => return Err(e),
            Err(_) => {}
        }
    }
}

async fn over_udp<R: Rt>(rt: R, socket: Arc<dyn AsyncUdpSocket>) {
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let machine = drive(rt.clone(), Stun::default(), Config::default(), inputs, UdpPort(Arc::clone(&socket)));
    or(machine, receive(&rt, &*socket, &inbox)).await;
}

async fn receive<R: Rt>(rt: &R, socket: &dyn AsyncUdpSocket, inbox: &Sender<Input>) {
    let mut buffer = vec![0; RECEIVE_LEN];
    loop {
        let mut meta = [RecvMeta::default()];
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta)).await;
        if let Err(error) = received {
            tracing::warn!(%error, "cannot receive datagrams");
            rt.sleep_until(rt.now() + PAUSE).await;
            continue;
        }
        let [RecvMeta { addr: from, len, stride, dst_ip, .. }] = meta;
        let Ok(bound) = socket.local_addr() else { continue };
        let local = SocketAddr::new(dst_ip.unwrap_or_else(|| bound.ip()), bound.port());
        for datagram in buffer[..len.min(RECEIVE_LEN)].chunks(stride.max(1)) {
            if datagram.len() <= DATAGRAM_LEN_MAX {
                // what finds no room is lost, as UDP does
                let _ = inbox.try_send(Input::Datagram { from, local, bytes: datagram.to_vec() });
            }
        }
    }
}

struct UdpPort(Arc<dyn AsyncUdpSocket>);

impl Port<Stun> for UdpPort {
    fn perform(&mut self, output: Output, _local: &mut VecDeque<Input>) {
        match output {
            Output::Datagram { local, to, bytes } => {
                let src_ip = Some(local.ip()).filter(|ip| !ip.is_unspecified());
                let transmit = Transmit { destination: to, ecn: None, contents: &bytes, segment_size: None, src_ip };
                if let Err(error) = self.0.try_send(&transmit) {
                    // the client asks again
                    tracing::debug!(%to, %error, "answer not sent");
                }
            }
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
        }
    }
}

/// Where answers go, by who asked over TCP.
type Answers = Rc<RefCell<BTreeMap<SocketAddr, Sender<Vec<u8>>>>>;

/// A machine of its own: an answer must not take the other transport.
async fn over_tcp<R: Rt>(rt: R, listener: R::Listener, local: SocketAddr) {
    let (inbox, inputs) = mailbox(INBOX_MAX);
    let answers = Answers::default();
    let machine = drive(
        rt.clone(),
        Stun::default(),
        Config { verified: true, ..Config::default() },
        inputs,
        TcpPort(Rc::clone(&answers)),
    );
    let accepting = async {
        let open = Gauge::default();
        loop {
            match rt.accept(&listener).await {
                Ok((tcp, from)) if open.get() < CONNECTIONS_MAX => {
                    let counted = open.enter();
                    let (rt2, inbox, answers) = (rt.clone(), inbox.clone(), Rc::clone(&answers));
                    rt.spawn(async move {
                        if let Err(error) = connection(&rt2, tcp, from, local, &inbox, &answers).await {
                            tracing::debug!(%from, %error, "STUN connection ended");
                        }
                        answers.borrow_mut().remove(&from);
                        drop(counted);
                    });
                }
                Ok((_, from)) => tracing::warn!(%from, "connection refused: too many are open"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    rt.sleep_until(rt.now() + PAUSE).await;
                }
            }
        }
    };
    or(machine, accepting).await;
}

/// Answers one request after another.
async fn connection<R: Rt>(
    rt: &R,
    mut tcp: R::Tcp,
    from: SocketAddr,
    local: SocketAddr,
    inbox: &Sender<Input>,
    answers: &Answers,
) -> io::Result<()> {
    let (to_write, mut answer) = mailbox(1);
    answers.borrow_mut().insert(from, to_write);
    loop {
        let exchange = async {
            let mut bytes = vec![0; HEADER_LEN];
            tcp.read_exact(&mut bytes).await?;
            let len = HEADER_LEN + usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            if len > MESSAGE_LEN_MAX {
                return Err(io::Error::other("not a STUN message"));
            }
            bytes.resize(len, 0);
            tcp.read_exact(&mut bytes[HEADER_LEN..]).await?;
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

struct TcpPort(Answers);

impl Port<Stun> for TcpPort {
    fn perform(&mut self, output: Output, _local: &mut VecDeque<Input>) {
        match output {
            Output::Datagram { to, bytes, .. } => {
                if let Some(connection) = self.0.borrow().get(&to) {
                    // it has asked once and waits
                    let _ = connection.try_send(bytes);
                }
            }
            Output::Count(metric) => metrics::counter!(metric.name()).increment(1),
        }
    }
}
