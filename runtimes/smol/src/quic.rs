//! Runs quinn on the shard's own thread; quinn's own support for smol would use another thread. A socket is read until
//! it is empty before its readiness is requested, and a postponed timer is left to fire early without effect. Both
//! save most system calls.

use async_executor::Executor;
use async_io::{Async, Timer, WritableOwned};
use futures_lite::ready;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

/// Runs quinn's tasks on the shard's executor; does nothing once the shard has ended.
#[derive(Debug)]
pub(crate) struct Quic(pub(crate) Weak<Executor<'static>>);

impl Runtime for Quic {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(LazyTimer { timer: Timer::at(at), armed: Some(at), due: at })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(future).detach();
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Socket { io: Arc::new(Async::new_nonblocking(socket)?), state }))
    }
}

/// A timer that quinn resets with almost every packet, nearly always to a later time.
#[derive(Debug)]
struct LazyTimer {
    timer: Timer,
    /// When `timer` will fire; `None` if it has fired.
    armed: Option<Instant>,
    due: Instant,
}

impl AsyncTimer for LazyTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.due = at;
        if self.armed.is_none_or(|armed| armed > at) {
            self.timer.set_at(at);
            self.armed = Some(at);
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while self.armed.is_some() {
            ready!(Future::poll(Pin::new(&mut self.timer), cx));
            self.armed = None;
            if Instant::now() < self.due {
                let due = self.due;
                self.as_mut().reset(due);
            }
        }
        Poll::Ready(())
    }
}

#[derive(Debug)]
struct Socket {
    io: Arc<Async<UdpSocket>>,
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { io: Arc::clone(&self.io), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send(self.io.get_ref().into(), transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            // other errors are ICMP messages about one peer, which mean nothing for the other peers
            if let Ok(n) = self.state.recv(self.io.get_ref().into(), bufs, meta) {
                return Poll::Ready(Ok(n));
            }
            ready!(self.io.poll_readable(cx))?;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits for room in the socket's send buffer; each connection has its own waiter.
struct Writable {
    io: Arc<Async<UdpSocket>>,
    waiting: Option<Pin<Box<WritableOwned<UdpSocket>>>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = Arc::clone(&self.io);
        let result = ready!(self.waiting.get_or_insert_with(|| Box::pin(io.writable_owned())).as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}
