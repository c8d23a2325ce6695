//! Parts common to the servers of all roles: sockets, TLS, clock, and the future that serves.
//!
//! A server first opens its sockets and files, so that every error is known before the process reports itself ready;
//! the resulting [`Server`] then runs until its stop signal. [`crew`] runs several servers in one process.

mod clock;
pub mod crew;
mod live;
mod role;
pub mod sockets;
pub mod space;
pub mod watched;

pub use clock::{send_clock, unix_ms};
pub use live::{Live, LiveTls, Lives, load_tls};
pub use role::{Role, certificate};

use crate::error::Error;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

/// Capacity of a server's mailbox, in inputs.
pub const INBOX_MAX: usize = 1024;

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
