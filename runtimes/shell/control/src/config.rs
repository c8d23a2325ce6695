//! The sections of `server.toml`: one for each role of the control plane.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use swarmedge_core::role::dn::COPIES_MAX;

/// The `[cn]` section of `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnConfig {
    /// The server's name, as in its certificate.
    pub name: String,
    /// Socket address for clients (TLS over TCP).
    pub listen: SocketAddr,
    /// PEM file with the X.509 chain for TLS.
    pub tls_cert: PathBuf,
    /// PEM file with the private key of `tls_cert`.
    pub tls_key: PathBuf,
    /// File with the Ed25519 key that signs introductions and identifies the CN to DNs and the ledger.
    pub signing_key: PathBuf,
    /// File with the operator's certificate for `signing_key`: a `ServerCert` in base64.
    pub certificate: PathBuf,
    /// File with the key that seals grants, shared with the edges.
    pub seal_key: PathBuf,
    /// Addresses of the DNs, `host:port`.
    pub dns: Vec<String>,
    /// Address of the ledger, `host:port`; without one, clients keep their usage records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Spool file for the records of introductions until the ledger has acknowledged them, so that a crash of this CN
    /// loses no billed bytes. Without a file they are kept in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<PathBuf>,
    /// Edges, `https://host:port`, that are asked every few seconds for notices: changed policies and unpublished
    /// versions. Without edges these take effect when the last grants expire.
    #[serde(default)]
    pub edges: Vec<String>,
    /// Geolocation database of countries or cities, in the MaxMind format. With it and `geo_networks`, peers are chosen
    /// by country and network, reports show both, and `detect` finds implausible travel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_countries: Option<PathBuf>,
    /// Geolocation database of networks (ASes), in the MaxMind format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo_networks: Option<PathBuf>,
    /// Socket address of `/healthz` and `/metrics` (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
    /// Most sessions at a time. Beyond it the idlest client of the network with most is told to come back later, or the
    /// new one, if its own network has most.
    #[serde(default = "default_sessions_max")]
    pub sessions_max: u32,
    /// Lowest client version that gets a session, `major.minor.patch`. Older clients are told so: they find no peers
    /// and upload nothing, and the edges serve them.
    #[serde(default = "default_client_version_min")]
    pub client_version_min: String,
    /// Time over which a stopping CN sends its clients to other CNs, milliseconds.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
}

/// The `[dn]` section of `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnConfig {
    /// The server's name, as in its certificate.
    pub name: String,
    /// Socket address for CNs (TLS over TCP).
    pub listen: SocketAddr,
    /// PEM file with the X.509 chain for TLS.
    pub tls_cert: PathBuf,
    /// PEM file with the private key of `tls_cert`.
    pub tls_key: PathBuf,
    /// File with the operator's certificate for this DN: a `ServerCert` in base64.
    pub certificate: PathBuf,
    /// Socket address of `/healthz` and `/metrics` (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
    /// Most copies (clients' versions) that are listed, each of half a KiB; a quarter of them for one /24 (IPv6: /48).
    #[serde(default = "default_copies_max")]
    pub copies_max: u64,
}

/// The `[stun]` section of `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StunConfig {
    /// Socket address for binding requests, over UDP and TCP.
    pub listen: SocketAddr,
    /// Second IP address and port of this machine: the server then listens on both ports of both addresses, so that
    /// clients can detect how NATs filter (RFC 5780) and whether their TCP ports are reachable from an address they
    /// never wrote to. Needs a `listen` with a specified IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternate: Option<SocketAddr>,
    /// File with the key that seals grants, shared with edges and CNs: its cookies prove to CNs the reflexive addresses
    /// that they cannot see, such as IPv6 beside IPv4. Without it, such addresses are not passed to peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<PathBuf>,
    /// Further socket addresses, over UDP and TCP: port 443 for clients whose UDP is blocked, or IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<SocketAddr>,
    /// Socket address of `/healthz` and `/metrics` (plain HTTP: keep it private).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<SocketAddr>,
}

fn default_client_version_min() -> String {
    "0.0.0".into()
}

const fn default_sessions_max() -> u32 {
    15_000
}

const fn default_copies_max() -> u64 {
    COPIES_MAX
}

const fn default_drain_ms() -> u64 {
    3_000
}
