//! The door to a runtime: clock, sleep, spawn, blocking pool, TCP, UDP. A runtime implements [`Rt`] and nothing else;
//! everything that decides or does lives on this side.

use futures_lite::io::{AsyncRead, AsyncWrite};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A runtime. One shard is one thread: futures need not be `Send`, and a machine lives on the thread of its connections.
pub trait Rt: Clone + 'static {
    /// A TCP stream.
    type Tcp: AsyncRead + AsyncWrite + Unpin + 'static;
    /// A listening TCP socket.
    type Listener: 'static;

    /// `"tokio"` or `"smol"`.
    const NAME: &'static str;

    /// The clock that [`Rt::sleep_until`] goes by.
    fn now(&self) -> Instant;
    /// Completes at `at`, or soon if that has passed.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static;
    /// Runs a future on this shard's thread until it ends or the shard does.
    fn spawn(&self, future: impl Future<Output = ()> + 'static);
    /// Runs `work` on the blocking pool (threads = cores).
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static;
    /// Opens a TCP connection, without delay for small writes.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + 'static;
    /// Takes over a bound, listening, non-blocking socket.
    fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener>;
    /// The next connection.
    fn accept(&self, listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>>;
    /// Timers, tasks and UDP sockets for QUIC.
    fn quic(&self) -> Arc<dyn quinn::Runtime>;
}

/// Starts a runtime on the calling thread and runs `main` to its end.
pub trait Start: Rt {
    /// See the trait.
    fn block_on<F: Future + 'static>(main: impl FnOnce(Self) -> F) -> F::Output;
}
