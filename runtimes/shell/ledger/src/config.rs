//! The ledger's section of `server.toml`.

use super::database::Database;
use super::day::Day;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The `[ledger]` section of `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// Socket address for CNs and edges (TLS over TCP).
    pub listen: SocketAddr,
    /// PEM file with the X.509 chain for TLS.
    pub tls_cert: PathBuf,
    /// PEM file with the private key of `tls_cert`.
    pub tls_key: PathBuf,
    /// SQLite file, or `postgres://user:password@host/name`; this process is the only writer.
    pub database: Database,
    /// File with the Ed25519 key that signs closed days; without one no day is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// File with the operator's certificate for `signing_key`: a `ServerCert` in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Days between the end of a day and its closing; later records are stored and not billed.
    #[serde(default = "default_settle_days")]
    pub settle_days: u32,
    /// Days for which records of closed days are kept; absent: forever. Settled figures are kept forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// Days for which the addresses in clients' logins are kept; the rest of a login stays.
    #[serde(default = "default_address_days")]
    pub address_days: u32,
    /// Socket address of `/healthz` and `/metrics` (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

/// Returns the usual time for which addresses of clients are kept (paper §3.9: they are deleted).
const fn default_address_days() -> u32 {
    90
}

const fn default_settle_days() -> u32 {
    2
}

impl LedgerConfig {
    /// Returns the last day that may be closed today.
    #[must_use]
    pub fn last_due(&self, today: Day) -> Option<Day> {
        today.0.checked_sub(self.settle_days.saturating_add(1)).map(Day)
    }
}
