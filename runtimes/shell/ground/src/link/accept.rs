//! Accepting of links.

use super::{End, Inlet, Peer};
use crate::http::seats::Seats;
use crate::rt::Rt;
use crate::tls::peer_key;
use futures_lite::future::or;
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmedge_core::ids::{ConnId, PublicKey};
use swarmedge_core::wire::Wire;

/// Time-out from the acceptance of a connection to its first frame, TLS handshake included.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(5);
/// Pause after an accept failed, as when file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections that are logged one by one.
const LINES_PER_MINUTE: u32 = 10;

/// End of a handshake whose seat went to another connection; counted there.
const LOST: &str = "too many are open";

/// The settings for accepting links.
pub struct Accept<R: Rt> {
    /// The listening TCP socket.
    pub listener: R::Listener,
    /// The TLS configuration, which requires a client key.
    pub tls: Arc<rustls::ServerConfig>,
    /// Maximum number of connections. Beyond it those in handshake make room; open ones belong to the machine.
    pub connections_max: usize,
    /// The server's name in logs and metrics.
    pub server: &'static str,
}

/// A rate-limited log of refused connections: all are counted, but a flood of them is not a flood of lines.
struct Refusals {
    server: &'static str,
    minute: Cell<Option<Instant>>,
    lines: Cell<u32>,
}

impl Refusals {
    fn note(&self, now: Instant, from: SocketAddr, why: impl fmt::Display) {
        metrics::counter!("swarmedge_link_refused_total", "server" => self.server).increment(1);
        if self.minute.get().is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(60)) {
            let hushed = self.lines.get().saturating_sub(LINES_PER_MINUTE);
            if hushed > 0 {
                tracing::info!(server = self.server, "{hushed} more connections refused");
            }
            self.minute.set(Some(now));
            self.lines.set(0);
        }
        self.lines.set(self.lines.get() + 1);
        if self.lines.get() <= LINES_PER_MINUTE {
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
    let seats = Seats::new(&rt, accept.server, accept.connections_max);
    let refusals = Rc::new(Refusals { server: accept.server, minute: Cell::default(), lines: Cell::default() });
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
        let Some(seat) = seats.take(from) else { continue };
        let conn = next.step();
        let (rt2, acceptor, inlet) = (rt.clone(), acceptor.clone(), inlet.clone());
        let refusals = Rc::clone(&refusals);
        rt.spawn(async move {
            let deadline = rt2.now() + FIRST_FRAME_WITHIN;
            let shaken = or(handshake(&rt2, acceptor, tcp, deadline), async {
                seat.lost().await;
                Err(LOST.into())
            });
            let ended = match shaken.await {
                Ok((stream, key)) => {
                    // from now on the machine decides who has a place
                    seat.serve(true);
                    blame(inlet.run(&rt2, conn, stream, Some(deadline), Some(Peer { key, from })).await)
                }
                Err(why) => Err(why),
            };
            if let Err(why) = ended
                && why != LOST
            {
                refusals.note(rt2.now(), from, why);
            }
            drop(seat);
        });
    }
}

/// Completes the TLS handshake of an accepted connection; returns the key that the other side proves.
async fn handshake<R: Rt>(
    rt: &R,
    acceptor: TlsAcceptor,
    tcp: R::Tcp,
    deadline: Instant,
) -> Result<(TlsStream<R::Tcp>, PublicKey), String> {
    let late = async {
        rt.sleep_until(deadline).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let stream = or(async { acceptor.accept(tcp).await }, late).await;
    let stream = stream.map_err(|e| format!("no TLS handshake: {e}"))?;
    let key = stream.get_ref().1.peer_certificates().and_then(peer_key).ok_or("no key")?;
    Ok((stream, key))
}

/// Returns as `Err` a log line if the other side is to blame for a link's end.
fn blame(end: End) -> Result<(), String> {
    match end {
        End::Closed | End::Gone | End::Unwanted => Ok(()),
        End::Broken(_) | End::Garbage(_) | End::Silent | End::Overflow => Err(end.to_string()),
    }
}
