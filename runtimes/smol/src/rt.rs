//! Implements [`Rt`] on smol: each shard is a `LocalExecutor` with a pool of blocking threads.

use async_executor::{Executor, LocalExecutor};
use futures_lite::future;
use smol::channel;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::sync::{self, Arc};
use std::time::Instant;
use swarmedge_ground::quic::canonical;
use swarmedge_ground::rt::{Rt, Start};

use crate::quic::Quic;

/// One shard: a thread's executors. Tasks hold only weak references to them, so that tasks end with
/// [`Start::block_on`].
#[derive(Clone, Debug)]
pub struct Smol {
    executor: Weak<LocalExecutor<'static>>,
    /// Executor of quinn's tasks, which must be `Send`; it runs on the same thread.
    drivers: sync::Weak<Executor<'static>>,
    jobs: channel::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Rt for Smol {
    type Tcp = smol::net::TcpStream;
    type Listener = smol::net::TcpListener;
    const NAME: &'static str = "smol";

    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + 'static {
        async move {
            async_io::Timer::at(at).await;
        }
    }

    fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        if let Some(executor) = self.executor.upgrade() {
            executor.spawn(future).detach();
        }
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + 'static {
        let (done, answer) = channel::bounded(1);
        let job: Job = Box::new(move || {
            // the waiting task may have been dropped
            let _ = done.try_send(catch_unwind(AssertUnwindSafe(work)));
        });
        let queued = self.jobs.try_send(job);
        async move {
            match (queued, answer.recv().await) {
                (Ok(()), Ok(Ok(value))) => value,
                (Ok(()), Ok(Err(panic))) => resume_unwind(panic),
                // the shard is ending: no task is left to use the result
                _ => std::future::pending().await,
            }
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
    fn connect(&self, addr: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
        async move {
            let stream = smol::net::TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow `self`")]
    fn connecting(&self, socket: std::net::TcpStream) -> impl Future<Output = io::Result<Self::Tcp>> + 'static {
        async move {
            let socket = async_io::Async::new(socket)?;
            socket.writable().await?;
            if let Some(error) = socket.get_ref().take_error()? {
                return Err(error);
            }
            socket.get_ref().set_nodelay(true)?;
            Ok(socket.into())
        }
    }

    fn listen(&self, socket: std::net::TcpListener) -> io::Result<Self::Listener> {
        smol::net::TcpListener::try_from(socket)
    }

    async fn accept(&self, listener: &Self::Listener) -> io::Result<(Self::Tcp, SocketAddr)> {
        let (stream, from) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, canonical(from)))
    }

    fn quic(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(Quic(self.drivers.clone()))
    }
}

impl Start for Smol {
    fn block_on<F: Future + 'static>(main: impl FnOnce(Self) -> F) -> F::Output {
        // unbounded: callers limit their own jobs, since each holds a buffer or a request of theirs
        let (jobs, queue) = channel::unbounded::<Job>();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pool: Vec<_> = (0..cores)
            .map(|n| {
                let queue = queue.clone();
                let work = move || {
                    while let Ok(job) = queue.recv_blocking() {
                        job();
                    }
                };
                std::thread::Builder::new()
                    .name(format!("blocking-{n}"))
                    .spawn(work)
                    .expect("the system gives a thread")
            })
            .collect();
        let executor = Rc::new(LocalExecutor::new());
        let drivers = Arc::new(Executor::new());
        let shard = Self { executor: Rc::downgrade(&executor), drivers: Arc::downgrade(&drivers), jobs };
        let drive = drivers.run(future::pending());
        let output = async_io::block_on(executor.run(future::or(main(shard), drive)));
        drop(executor);
        drop(drivers);
        queue.close();
        for thread in pool {
            // the panic of a job was passed to the task that waits for it
            let _ = thread.join();
        }
        output
    }
}
