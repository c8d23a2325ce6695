//! Sockets that take the main one's place towards some endpoints: of many that were opened, the one that a peer has
//! met. QUIC does not notice: what it sends there leaves from that socket, and what comes to it comes to QUIC.

use quinn::AsyncUdpSocket;
use quinn::udp::RecvMeta;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// An IPv4 address that came through an IPv6 socket, as IPv4.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Maximum number of routes; the oldest is replaced.
const ROUTES_MAX: usize = 16;

/// A socket as quinn uses it, and as the system knows it.
pub(crate) type Both = (Arc<dyn AsyncUdpSocket>, Arc<UdpSocket>);

/// The table of routes (see the module), almost always empty, which costs one atomic load.
#[derive(Debug, Default)]
pub(super) struct Routes {
    any: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    routes: Vec<(SocketAddr, Both)>,
    /// The task that waits for datagrams and must be woken for a new route.
    waiting: Option<Waker>,
}

impl Routes {
    fn table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn adopt(&self, to: SocketAddr, socket: Both) {
        let to = canonical(to);
        let waiting = self.table(|table| {
            table.routes.retain(|(other, _)| *other != to);
            if table.routes.len() >= ROUTES_MAX {
                table.routes.remove(0);
            }
            table.routes.push((to, socket));
            table.waiting.take()
        });
        self.any.store(true, Ordering::Release);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Returns the socket that leads to an endpoint, if it is not the main one.
    pub(super) fn to(&self, to: SocketAddr) -> Option<Both> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let to = canonical(to);
        self.table(|table| table.routes.iter().find(|(other, _)| *other == to).map(|(_, both)| both.clone()))
    }

    /// Receives datagrams from any of the routes' sockets. A failed socket is dropped.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.table(|table| {
            let mut came = Poll::Pending;
            table.routes.retain(|(to, (socket, _))| {
                if came.is_ready() {
                    return true;
                }
                match socket.poll_recv(cx, bufs, meta) {
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(%to, %error, "a socket beside the main one is given up");
                        return false;
                    }
                    other @ (Poll::Ready(Ok(_)) | Poll::Pending) => came = other,
                }
                true
            });
            if came.is_pending() {
                table.waiting = Some(cx.waker().clone());
            }
            came
        })
    }
}
