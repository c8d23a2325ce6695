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
    /// The same from a port that may listen too; the socket is one of [`begin_connect`].
    fn connecting(&self, socket: std::net::TcpStream) -> impl Future<Output = io::Result<Self::Tcp>> + 'static;
    /// Takes over a bound, listening, non-blocking socket.
    fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener>;
    /// The next connection.
    fn accept(&self, listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>>;
    /// Timers, tasks and UDP sockets for QUIC.
    fn quic(&self) -> Arc<dyn quinn::Runtime>;
}

/// Begins a TCP connection from `from`, where other sockets may be bound too, if they allow it as this one does.
pub fn begin_connect(from: SocketAddr, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = reusable(from)?;
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket.into()),
        // it goes on by itself
        #[cfg(unix)]
        Err(e) if e.raw_os_error() == Some(EINPROGRESS) => Ok(socket.into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(socket.into()),
        Err(e) => Err(e),
    }
}

/// Listens on `addr`, from where connections may be opened too ([`begin_connect`]).
pub fn begin_listen(addr: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = reusable(addr)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// What `connect` says of a socket that does not wait (errno(3): Linux; BSD and macOS).
#[cfg(unix)]
const EINPROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };

/// A socket that does not wait, bound to an address that it shares with this user's others.
fn reusable(addr: SocketAddr) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
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
        #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
        fn connecting(&self, socket: std::net::TcpStream) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
            async move {
                let socket = smol::Async::new(socket)?;
                socket.writable().await?;
                socket.get_ref().take_error()?.map_or_else(|| Ok(socket.into()), Err)
            }
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
