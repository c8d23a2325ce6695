//! What every server is made of, whatever its role: its sockets, its TLS, its clock, and the future that serves.
//!
//! Each server opens its sockets and files first, so that every error is known before the process says that it is
//! ready; then it runs until it is told to stop.

pub mod crew;
pub mod sockets;

use crate::error::Error;
use crate::files::read;
use crate::mailbox::Sender;
use crate::rt::Rt;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inputs that wait for a server's machine.
pub(crate) const INBOX_MAX: usize = 1024;
/// How often machines are told the time of day: clocks are set and drift.
const CLOCK_EVERY: Duration = Duration::from_secs(30);

/// A server whose sockets and files are open.
pub struct Server {
    addr: SocketAddr,
    ops: Option<SocketAddr>,
    run: Pin<Box<dyn Future<Output = Result<(), Error>>>>,
}

impl Server {
    /// A server that listens on `addr` and runs as `run`.
    pub(crate) fn new(
        addr: SocketAddr,
        ops: Option<SocketAddr>,
        run: impl Future<Output = Result<(), Error>> + 'static,
    ) -> Self {
        Self { addr, ops, run: Box::pin(run) }
    }

    /// Where it listens; differs from the configuration if that asked for any port.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/healthz` and `/metrics` are.
    #[must_use]
    pub const fn ops(&self) -> Option<SocketAddr> {
        self.ops
    }

    /// Serves until its stop signal has been set and everything is handed over.
    pub async fn run(self) -> Result<(), Error> {
        self.run.await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.addr)
    }
}

/// Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Tells a machine the time of day, now and then, until it has gone.
pub(crate) async fn tell_clock<R: Rt, I: Send>(rt: R, inbox: Sender<I>, wrap: fn(u64) -> I) {
    while inbox.send(wrap(unix_ms())).await.is_ok() {
        rt.sleep_until(rt.now() + CLOCK_EVERY).await;
    }
}

/// The TLS side of a server that asks for client keys. Errors name the files.
pub(crate) fn tls_of(cert: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, Error> {
    crate::tls::server_config(&read(cert)?, &read(key)?, true)
        .map_err(|e| Error::usage(format!("{} and {}: {e}", cert.display(), key.display())))
}
