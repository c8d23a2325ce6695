//! Accepting links.

use super::{Cap, End, Inlet, Peer};
use crate::http::signal::Gauge;
use crate::rt::Rt;
use crate::tls::peer_key;
use futures_lite::future::or;
use futures_rustls::TlsAcceptor;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmedge_core::ids::ConnId;
use swarmedge_core::wire::Wire;

/// Time-out from acceptance to the first frame, TLS handshake included (DESIGN §12).
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// The wait after an accept that failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections that are logged one by one.
const LINES_PER_SECOND: u32 = 10;

/// The settings for accepting links.
pub struct Accept<R: Rt> {
    /// The listening TCP socket.
    pub listener: R::Listener,
    /// The TLS configuration, which requires a client key.
    pub tls: Arc<rustls::ServerConfig>,
    /// Maximum number of connections, in handshake or open; more are closed at once.
    pub connections_max: usize,
    /// The limits of each link's queue.
    pub cap: Cap,
    /// The server's name in logs and metrics.
    pub server: &'static str,
}

/// A rate-limited log of refused connections: all are counted, but a flood of them is not a flood of lines.
struct Refusals {
    server: &'static str,
    second: Cell<Option<Instant>>,
    lines: Cell<u32>,
}

impl Refusals {
    fn note(&self, now: Instant, from: SocketAddr, why: impl fmt::Display) {
        metrics::counter!("swarmedge_link_refused_total", "server" => self.server).increment(1);
        if self.second.get().is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            let hushed = self.lines.get().saturating_sub(LINES_PER_SECOND);
            if hushed > 0 {
                tracing::info!(server = self.server, "{hushed} more connections refused");
            }
            self.second.set(Some(now));
            self.lines.set(0);
        }
        self.lines.set(self.lines.get() + 1);
        if self.lines.get() <= LINES_PER_SECOND {
            tracing::info!(server = self.server, %from, "connection refused: {why}");
        }
    }
}

/// Accepts links until dropped.
pub async fn accept<R: Rt, Out, In, I>(rt: R, accept: Accept<R>, inlet: Inlet<Out, In, I>)
where
    Out: Wire + Clone + 'static,
    In: Wire + 'static,
    I: Send + 'static,
{
    let acceptor = TlsAcceptor::from(accept.tls);
    let open = Gauge::default();
    let refusals = Rc::new(Refusals { server: accept.server, second: Cell::default(), lines: Cell::default() });
    let mut next = ConnId::ACCEPTED;
    loop {
        let (tcp, from) = match rt.accept(&accept.listener).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                rt.sleep_until(rt.now() + ACCEPT_PAUSE).await;
                continue;
            }
        };
        if open.get() >= accept.connections_max {
            refusals.note(rt.now(), from, "too many are open");
            continue;
        }
        let (counted, conn) = (open.enter(), next.step());
        let (rt2, acceptor, inlet, cap) = (rt.clone(), acceptor.clone(), inlet.clone(), accept.cap);
        let refusals = Rc::clone(&refusals);
        rt.spawn(async move {
            if let Err(why) = accepted(&rt2, acceptor, tcp, from, conn, &inlet, cap).await {
                refusals.note(rt2.now(), from, why);
            }
            drop(counted);
        });
    }
}

/// Runs one connection to its end. Fails with a line for the log if the other side is to blame.
async fn accepted<R: Rt, Out, In, I>(
    rt: &R,
    acceptor: TlsAcceptor,
    tcp: R::Tcp,
    from: SocketAddr,
    conn: ConnId,
    inlet: &Inlet<Out, In, I>,
    cap: Cap,
) -> Result<(), String>
where
    Out: Wire + Clone + 'static,
    In: Wire + 'static,
    I: Send + 'static,
{
    let deadline = rt.now() + FIRST_FRAME_WITHIN;
    let late = async {
        rt.sleep_until(deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stream = or(async { acceptor.accept(tcp).await }, late).await;
    let stream = stream.map_err(|e| format!("no TLS handshake: {e}"))?;
    let key = stream.get_ref().1.peer_certificates().and_then(peer_key).ok_or("no key")?;
    match inlet.run(rt, conn, stream, Some(deadline), Some(Peer { key, from }), cap).await {
        End::Closed | End::Gone | End::Unwanted => Ok(()),
        end @ (End::Broken(_) | End::Garbage(_) | End::Silent | End::Overflow) => Err(end.to_string()),
    }
}
