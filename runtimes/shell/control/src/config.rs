//! The sections of `server.toml` of the control plane: one a role.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The `[cn]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnConfig {
    /// Its name, as in its certificate.
    pub name: String,
    /// Where clients connect (TLS on TCP).
    pub listen: SocketAddr,
    /// X.509 chain, PEM.
    pub tls_cert: PathBuf,
    /// Its key, PEM.
    pub tls_key: PathBuf,
    /// Ed25519 key that signs introductions and that DNs and the ledger know it by.
    pub signing_key: PathBuf,
    /// The operator's certificate for `signing_key`: the base64 encoding of a `ServerCert`.
    pub certificate: PathBuf,
    /// The key that grants are sealed with, shared with the edges.
    pub seal_key: PathBuf,
    /// The DNs, `host:port`.
    pub dns: Vec<String>,
    /// The ledger, `host:port`. Without one clients keep their usage records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// A file: who is introduced is kept there until the ledger has it on record, so that a crash of this CN costs no
    /// provider's bill anything. Without one this is kept in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<PathBuf>,
    /// The edges, `https://host:port`: asked every few seconds what was withdrawn. Without any, what is unpublished is
    /// shared until its last grants have expired.
    #[serde(default)]
    pub edges: Vec<String>,
    /// Geolocation: a database of countries (or cities) and one of networks, in the MaxMind format. Peers are then
    /// chosen by network and country, reports say them, and `detect` sees implausible travel. Without them nothing is
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_countries: Option<PathBuf>,
    /// See `geo_countries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_networks: Option<PathBuf>,
    /// Where `/healthz` and `/metrics` are served (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
    /// Sessions at once; more are told to come back later.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: u32,
    /// At shutdown clients are sent elsewhere, spread over this, milliseconds.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
}

/// The `[dn]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnConfig {
    /// Its name, as in its certificate.
    pub name: String,
    /// Where CNs connect (TLS on TCP).
    pub listen: SocketAddr,
    /// X.509 chain, PEM.
    pub tls_cert: PathBuf,
    /// Its key, PEM.
    pub tls_key: PathBuf,
    /// The operator's certificate for it: the base64 encoding of a `ServerCert`.
    pub certificate: PathBuf,
    /// Where `/healthz` and `/metrics` are served (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

/// The `[stun]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StunConfig {
    /// Where binding requests come in, over UDP and TCP.
    pub listen: SocketAddr,
    /// Another address of this machine and another port: the server then listens on both ports of both addresses, and
    /// clients can see how NATs filter (RFC 5780), and whether their TCP ports are reached, since they are dialled back
    /// from the address that they have not written to. `listen` must name its address then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<SocketAddr>,
    /// The key that grants are sealed with, shared with the edges and CNs: vouches to CNs for clients' addresses that
    /// they do not see, as IPv6 beside IPv4. Without it such addresses are told to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<PathBuf>,
    /// Where else it answers, over UDP and TCP: port 443, which clients whose UDP is blocked can reach, or IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SocketAddr>,
    /// Where `/healthz` and `/metrics` are served (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

const fn default_sessions_max() -> u32 {
    15_000
}

const fn default_drain_ms() -> u64 {
    3_000
}
