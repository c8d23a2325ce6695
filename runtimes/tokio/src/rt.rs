//! Implements [`Rt`] on tokio: each shard is a current-thread runtime with a `LocalSet`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use swarmedge_ground::quic::canonical;
use swarmedge_ground::rt::{AsyncRead, AsyncWrite, Rt, Start};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

/// The shard of the calling thread; usable only inside [`Start::block_on`].
#[derive(Clone, Copy, Debug)]
pub struct Tokio(());

impl Rt for Tokio {
    type Tcp = Tcp;
    type Listener = tokio::net::TcpListener;
    const NAME: &'static str = "tokio";

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep_until(at.into())
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(future);
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        let job = tokio::task::spawn_blocking(work);
        async move {
            match job.await {
                Ok(value) => value,
                Err(e) => match e.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // the shard is ending: no task is left to use the result
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Tcp>> + 'static {
        async move {
            let stream = tokio::net::TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Tcp(stream))
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
    fn connecting(&self, socket: std::net::TcpStream) -> impl Future<Output = io::Result<Tcp>> + 'static {
        async move {
            let stream = tokio::net::TcpStream::from_std(socket)?;
            stream.writable().await?;
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            stream.set_nodelay(true)?;
            Ok(Tcp(stream))
        }
    }

    fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener> {
        tokio::net::TcpListener::from_std(socket)
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Tcp, SocketAddr)> {
        let (stream, from) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((Tcp(stream), canonical(from)))
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }
}

impl Start for Tokio {
    fn block_on<F: Future + 'static>(main: impl FnOnce(Self) -> F) -> F::Output {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(cores)
            .build()
            .expect("the system gives an event queue");
        let shard = tokio::task::LocalSet::new();
        shard.block_on(&runtime, async { main(Self(())).await })
    }
}

/// A TCP stream with the I/O traits of `futures-io`.
#[derive(Debug)]
pub struct Tcp(tokio::net::TcpStream);

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        Pin::new(&mut self.0).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
