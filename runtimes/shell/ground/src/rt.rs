//! The interface to an async runtime: clock, sleep, spawn, blocking pool, TCP, UDP. The crates of tokio and smol
//! implement [`Rt`] and [`Start`] and nothing else; the rest of the shell is generic over [`Rt`].

pub use futures_lite::io::{AsyncRead, AsyncWrite};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// An async runtime on one thread (a shard): futures need not be `Send`, and a machine runs on the thread of its
/// connections. Clones are handles to the same shard.
pub trait Rt: Clone + 'static {
    /// TCP stream of this runtime.
    type Tcp: AsyncRead + AsyncWrite + Unpin + 'static;
    /// Listening TCP socket of this runtime.
    type Listener: 'static;

    /// Name of the runtime: `"tokio"` or `"smol"`.
    const NAME: &'static str;

    /// Returns the time of the clock that [`Rt::sleep_until`] uses.
    fn now(&self) -> Instant;
    /// Completes at `at`, or soon if `at` has passed.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static;
    /// Runs a future on this shard's thread until the future or the shard ends.
    fn spawn(&self, future: impl Future<Output = ()> + 'static);
    /// Runs `work` on the blocking pool, which has a thread per core.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static;
    /// Opens a TCP connection with TCP_NODELAY.
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + 'static;
    /// Completes a connection that [`begin_connect`] has started, from a port that may listen too.
    fn connecting(&self, socket: std::net::TcpStream) -> impl Future<Output = io::Result<Self::Tcp>> + 'static;
    /// Takes over a bound, listening, non-blocking socket.
    fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener>;
    /// Accepts the next connection, with its remote address; IPv4 is never in IPv6-mapped form.
    fn accept(&self, listener: &Self::Listener) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>>;
    /// Returns quinn's view of the runtime: timers, tasks and UDP sockets.
    fn quic(&self) -> Arc<dyn quinn::Runtime>;
}

/// Starts a TCP connection from the local address `from`; other sockets with SO_REUSEADDR and SO_REUSEPORT may share
/// it.
pub fn begin_connect(from: SocketAddr, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = reusable(from)?;
    match socket.connect(&to.into()) {
        Ok(()) => Ok(socket.into()),
        // the kernel goes on connecting
        #[cfg(unix)]
        Err(e) if e.raw_os_error() == Some(EINPROGRESS) => Ok(socket.into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(socket.into()),
        Err(e) => Err(e),
    }
}

/// Listens on `addr`; [`begin_connect`] can open connections from the same address.
pub fn begin_listen(addr: SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = reusable(addr)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Error of `connect` on a non-blocking socket while it connects (errno(3): Linux; BSD and macOS).
#[cfg(unix)]
const EINPROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };

/// Makes a non-blocking TCP socket on an address that other sockets of this user may share.
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
    /// Runs the future of `main` to its end and returns its output.
    fn block_on<F: Future + 'static>(main: impl FnOnce(Self) -> F) -> F::Output;
}

/// A runtime for unit tests of the shell: everything runs on the calling thread, blocking work at once.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Arc, Future, Instant, Rt, SocketAddr, Start, io};
    use async_executor::LocalExecutor;
    use std::rc::{Rc, Weak};

    /// Handle to the test runtime's executor.
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
            let (stream, from) = listener.accept().await?;
            Ok((stream, crate::quic::canonical(from)))
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
