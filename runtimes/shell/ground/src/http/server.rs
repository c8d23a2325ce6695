//! An HTTPS server: accepts connections, performs TLS handshakes, serves requests, and closes connections that hang.

use super::Body;
use super::io::{Io, Phase, Pulse};
use super::seats::{Seat, Seats};
use super::signal::Signal;
use crate::rt::Rt;
use futures_lite::future::or;
use futures_rustls::TlsAcceptor;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::holdings::taking::{LeastRate, Taker};
use swarmedge_core::machine::Time;

/// Maximum length of a request's head (request line and header fields) in bytes.
const HEAD_LEN_MAX: usize = 8 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 64;
/// Most bytes that wait in a connection's TLS layer: about a record. The rest waits where it is read from.
const TLS_BUFFER_LEN: usize = 16 * 1024;
/// The wait after an accept that failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; beyond that idle ones make room, see [`super::seats`].
    pub connections_max: usize,
    /// Time-out for the TLS handshake.
    pub handshake_within: Duration,
    /// Time-out for a request's head, measured from its first byte; for the first request from the end of the
    /// handshake.
    pub head_within: Duration,
    /// A connection that moves no byte for so long is closed.
    pub idle_after: Duration,
    /// The rate at which a client must take what it has asked for.
    pub least: LeastRate,
    /// Time-out for running requests when the server is told to stop.
    pub drain_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            handshake_within: Duration::from_secs(10),
            head_within: Duration::from_secs(10),
            idle_after: Duration::from_secs(60),
            least: LeastRate::USUAL,
            drain_within: Duration::from_secs(10),
        }
    }
}

/// A handler of HTTP requests.
pub trait Service: 'static {
    /// Returns the answer to one request.
    fn call(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + 'static;
}

struct Server<R, S> {
    rt: R,
    tls: TlsAcceptor,
    limits: Limits,
    service: Rc<S>,
    /// The signal to take no new requests.
    stop: Signal,
    /// The signal to close all connections at once.
    kill: Signal,
    seats: Seats,
}

/// The parameters of an HTTPS server.
pub struct Site<R: Rt, S> {
    /// The listening TCP socket.
    pub listener: R::Listener,
    /// The TLS configuration.
    pub tls: Arc<rustls::ServerConfig>,
    /// The bounds of the server.
    pub limits: Limits,
    /// The handler of requests.
    pub service: Rc<S>,
}

impl<R: Rt, S> fmt::Debug for Site<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Serves until `stop` is set, then lets running requests finish for at most [`Limits::drain_within`].
pub async fn serve<R: Rt, S: Service>(rt: R, site: Site<R, S>, stop: Signal) {
    let Site { listener, tls, limits, service } = site;
    let seats = Seats::new(&rt, "https", limits.connections_max);
    let server = Rc::new(Server {
        rt: rt.clone(),
        tls: TlsAcceptor::from(tls),
        limits,
        service,
        stop: stop.clone(),
        kill: Signal::default(),
        seats,
    });
    or(stop.wait(), accept_all(&server, &listener)).await;
    drop(listener);
    let deadline = rt.now() + server.limits.drain_within;
    while server.seats.taken() > 0 && rt.now() < deadline {
        rt.sleep_until((rt.now() + Duration::from_millis(20)).min(deadline)).await;
    }
    server.kill.set();
}

/// Accepts connections and starts a task for each that gets a seat.
async fn accept_all<R: Rt, S: Service>(server: &Rc<Server<R, S>>, listener: &R::Listener) {
    loop {
        match server.rt.accept(listener).await {
            Ok((tcp, peer)) => {
                let Some(seat) = server.seats.take(peer) else { continue };
                let (server2, lost) = (server.clone(), seat.lost());
                server.rt.spawn(async move {
                    or(or(server2.kill.wait(), lost), connection(&server2, tcp, peer, seat)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                server.rt.sleep_until(server.rt.now() + ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection<R: Rt, S: Service>(server: &Rc<Server<R, S>>, tcp: R::Tcp, peer: SocketAddr, seat: Seat) {
    let rt = &server.rt;
    let deadline = rt.now() + server.limits.handshake_within;
    let bounded = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER_LEN));
    let handshake = async { Some(server.tls.accept_with(tcp, bounded).await) };
    let give_up = async {
        or(rt.sleep_until(deadline), server.stop.wait()).await;
        None
    };
    let tls = match or(handshake, give_up).await {
        Some(Ok(tls)) => tls,
        Some(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        None => return tracing::debug!(%peer, "TLS handshake given up"),
    };
    let pulse = Pulse::new(Phase::Head, Some(seat));
    let service = service_fn(|request| {
        let answer = server.service.clone().call(request, peer);
        let busy = Busy::new(&pulse);
        async move { Ok::<_, Infallible>(answer.await.map(|body| body.guarded(busy))) }
    });
    let http = hyper::server::conn::http1::Builder::new()
        // who has asked and sends no more still wants the answer (RFC 9112 §9.6); who has gone fails the next write
        .half_close(true)
        .max_buf_size(HEAD_LEN_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(Io::with_pulse(tls, pulse.clone()), service);
    let mut http = pin!(http);
    let served = async {
        let stopped = async {
            server.stop.wait().await;
            None
        };
        if or(async { Some(http.as_mut().await) }, stopped).await.is_none() {
            http.as_mut().graceful_shutdown();
            let _ = http.await;
        }
    };
    or(served, watch(rt, &server.limits, &pulse)).await;
}

/// A guard that exists while a request of a connection is being answered.
struct Busy(Rc<Pulse>);

impl Busy {
    fn new(pulse: &Rc<Pulse>) -> Self {
        pulse.enter(Phase::Busy);
        pulse.requests.set(pulse.requests.get().wrapping_add(1));
        Self(pulse.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// Ends when the connection is to be given up: a head that takes too long, no byte moved for too long, or too few
/// taken.
async fn watch<R: Rt>(rt: &R, limits: &Limits, pulse: &Pulse) {
    let tick = (limits.head_within / 4).max(Duration::from_millis(1));
    let (mut head_since, mut quiet_since) = (rt.now(), rt.now());
    let (mut beats, mut requests) = (pulse.beats.get(), pulse.requests.get());
    let (began, mut taker) = (rt.now(), Taker::default());
    loop {
        rt.sleep_until(rt.now() + tick).await;
        let now = rt.now();
        if pulse.phase.get() != Phase::Head || pulse.requests.get() != requests {
            requests = pulse.requests.get();
            head_since = now;
        }
        if pulse.beats.get() != beats {
            beats = pulse.beats.get();
            quiet_since = now;
        }
        let (at, taken) = (Time::ZERO.after(now - began), pulse.taken.get());
        let trickles = taker.is_too_slow(&limits.least, at, taken, pulse.waits.get());
        if trickles || now - head_since >= limits.head_within || now - quiet_since >= limits.idle_after {
            return;
        }
    }
}
