//! Parts common to the servers of all roles: sockets, TLS, clock, and the future that serves.
//!
//! A server first opens its sockets and files, so that every error is known before the process reports itself ready;
//! the resulting [`Server`] then runs until its stop signal. [`crew`] runs several servers in one process.

pub mod crew;
mod live;
mod role;
pub mod sockets;
pub mod space;
pub mod watched;

pub use live::{Live, LiveTls, Lives, load_tls};
pub use role::{Role, certificate};

use crate::error::Error;
use crate::mailbox::Sender;
use crate::rt::Rt;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Capacity of a server's mailbox, in inputs.
pub const INBOX_MAX: usize = 1024;
/// Interval at which machines are told the time of day, since clocks are set and drift.
const CLOCK_EVERY: Duration = Duration::from_secs(30);

/// A server whose sockets and files are open.
pub struct Server {
    addr: SocketAddr,
    ops: Option<SocketAddr>,
    run: Pin<Box<dyn Future<Output = Result<(), Error>>>>,
    live: Live,
}

impl Server {
    /// Makes a server of the bound address, the bound address of `/healthz` and `/metrics`, and the future that serves.
    pub fn new(
        addr: SocketAddr,
        ops: Option<SocketAddr>,
        run: impl Future<Output = Result<(), Error>> + 'static,
    ) -> Self {
        Self { addr, ops, run: Box::pin(run), live: Live::default() }
    }

    /// Says what the running server can take from changed files.
    #[must_use]
    pub fn living(mut self, live: Live) -> Self {
        self.live = live;
        self
    }

    fn take_live(&mut self) -> Live {
        std::mem::take(&mut self.live)
    }

    /// Returns the bound address, which differs from the configured one if its port is 0.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the bound address of `/healthz` and `/metrics`, if configured.
    #[must_use]
    pub const fn ops(&self) -> Option<SocketAddr> {
        self.ops
    }

    /// Serves until the stop signal is set and pending records are handed over.
    pub async fn run(self) -> Result<(), Error> {
        self.run.await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.addr)
    }
}

/// Returns the current Unix time in milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sends a machine the Unix time in milliseconds now and every 30 s, until its mailbox is closed.
pub async fn send_clock<R: Rt, I: Send>(rt: R, inbox: Sender<I>, wrap: fn(u64) -> I) {
    while inbox.send(wrap(unix_ms())).await.is_ok() {
        rt.sleep_until(rt.now() + CLOCK_EVERY).await;
    }
}
