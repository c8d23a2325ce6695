//! The ledger's section of `server.toml`.

use crate::{Database, Day};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The `[ledger]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// Where CNs and edges connect (TLS on TCP).
    pub listen: SocketAddr,
    /// X.509 chain, PEM.
    pub tls_cert: PathBuf,
    /// Its key, PEM.
    pub tls_key: PathBuf,
    /// The database; this process is its only writer: SQLite's file, or `postgres://user:password@host/name`.
    pub database: Database,
    /// Ed25519 key that signs closed days. Without one no day is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// The operator's certificate for `signing_key`: the base64 encoding of a `ServerCert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A day is closed this many days after it has ended: what comes later is recorded and not billed.
    #[serde(default = "default_settle_days")]
    pub settle_days: u32,
    /// Records of closed days are kept for so many days (without it, forever); what was settled is kept forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<u32>,
    /// Where `/healthz` and `/metrics` are served (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

const fn default_settle_days() -> u32 {
    2
}

impl LedgerConfig {
    /// The last day that may be closed today.
    #[must_use]
    pub fn last_due(&self, today: Day) -> Option<Day> {
        today.0.checked_sub(self.settle_days.saturating_add(1)).map(Day)
    }
}
