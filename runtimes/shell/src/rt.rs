//! The door to a runtime: clock, sleep, spawn, blocking pool, TCP, UDP. A runtime implements [`Rt`] and nothing else;
//! everything that decides or does lives on this side.

pub use futures_lite::io::{AsyncRead, AsyncWrite};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A runtime. One shard is one thread: futures need not be `Send`, and a machine lives on the thread of its
/// connections.
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

/// A runtime for unit tests of the shell: everything on the calling thread, blocking work at once.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Arc, Future, Instant, Rt, SocketAddr, Start, io};
    use async_executor::LocalExecutor;
    use std::rc::{Rc, Weak};

    /// See the module.
    #[derive(Clone, Debug)]
    pub(crate) struct TestRt(Weak<LocalExecutor<'static>>);

    impl Rt for TestRt {
        type Tcp = smol::net::TcpStream;
        type Listener = smol::net::TcpListener;
        const NAME: &'static str = "test";

        fn now(&self) -> Instant {
            Instant::now()
        }
        #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
        fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
            async move {
                smol::Timer::at(at).await;
            }
        }
        fn spawn(&self, future: impl Future<Output = ()> + 'static) {
            if let Some(executor) = self.0.upgrade() {
                executor.spawn(future).detach();
            }
        }
        fn blocking<T: Send + 'static>(
            &self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> impl Future<Output = T> + 'static {
            std::future::ready(work())
        }
        fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
            smol::net::TcpStream::connect(addr)
        }
        fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener> {
            smol::net::TcpListener::try_from(socket)
        }
        async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Tcp, SocketAddr)> {
            listener.accept().await
        }
        fn quic(&self) -> Arc<dyn quinn::Runtime> {
            Arc::new(quinn::SmolRuntime)
        }
    }

    impl Start for TestRt {
        fn block_on<F: Future + 'static>(main: impl FnOnce(Self) -> F) -> F::Output {
            let executor = Rc::new(LocalExecutor::new());
            let shard = Self(Rc::downgrade(&executor));
            smol::block_on(executor.run(main(shard)))
        }
    }
}
