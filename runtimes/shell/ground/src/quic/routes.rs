//! Sockets used instead of the main one for some remote addresses, after birthday probing has reached a peer over one
//! of many sockets. QUIC does not notice: its packets to such an address are sent from that socket, and packets
//! received there go to QUIC.

use quinn::AsyncUdpSocket;
use quinn::udp::RecvMeta;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Converts an IPv4-mapped IPv6 address to IPv4; other addresses are unchanged.
#[must_use]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Maximum number of routes; a new one then replaces the oldest.
const ROUTES_MAX: usize = 16;

/// A socket as quinn uses it, and as the operating system knows it.
pub(crate) type Both = (Arc<dyn AsyncUdpSocket>, Arc<UdpSocket>);

/// The table of sockets by remote address (see the module). It is almost always empty; then a lookup is one atomic
/// load.
#[derive(Debug, Default)]
pub(super) struct Routes {
    any: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    routes: Vec<(SocketAddr, Both)>,
    /// Waker of the task that receives datagrams: a new route wakes it.
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

    /// Returns the socket for a remote address; `None` means the main socket.
    pub(super) fn to(&self, to: SocketAddr) -> Option<Both> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let to = canonical(to);
        self.table(|table| table.routes.iter().find(|(other, _)| *other == to).map(|(_, both)| both.clone()))
    }

    /// Receives datagrams from any socket of the table. A socket that fails is removed.
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
