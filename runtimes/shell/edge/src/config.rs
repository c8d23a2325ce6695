//! Configuration of an edge: the `[edge]` section.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use swarmedge_ground::client_version;
use swarmedge_ground::edge_api::CnAddr;
use swarmedge_ground::terminal::units::Rate;

/// The `[edge]` section. Relative paths are relative to the configuration file ([`EdgeConfig::resolve`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// The edge's name in logs, the bootstrap answer and `Cache-Status`; 1 to 64 bytes.
    pub name: String,
    /// Socket address on which HTTPS is served.
    pub listen: SocketAddr,
    /// Socket address of `/metrics`, `/healthz` and `/livez` (plain HTTP: keep it private).
    #[serde(default)]
    pub ops: Option<SocketAddr>,
    /// URL by which clients reach this edge: `https://host:port`, without a path.
    pub url: String,
    /// The edge's region, as the bootstrap answer names it.
    #[serde(default = "default_region")]
    pub region: String,
    /// Directory of the published objects and their catalogue.
    pub objects: PathBuf,
    /// PEM file with the X.509 chain for HTTPS.
    pub tls_cert: PathBuf,
    /// PEM file with the private key of `tls_cert`.
    pub tls_key: PathBuf,
    /// The operator's root public key, hexadecimal; the one of `[operator]` if absent.
    #[serde(default)]
    pub root: String,
    /// File with the Ed25519 key that signs grants.
    pub signing_key: PathBuf,
    /// File with the operator's certificate for `signing_key`: a `ServerCert` in base64.
    pub certificate: PathBuf,
    /// File with the key that seals grants, shared with the CNs.
    pub seal_key: PathBuf,
    /// Spool file: records that the ledger has not acknowledged, and byte counts.
    pub spool: PathBuf,
    /// PEM file with the operator's CA, which must have issued the ledger's certificate; `[operator]`'s if absent.
    #[serde(default)]
    pub ca: PathBuf,
    /// Address of the ledger, `host:port`; absent where this process embeds the ledger.
    #[serde(default)]
    pub ledger: Option<String>,
    /// CNs that the bootstrap answer lists, nearest first.
    #[serde(default)]
    pub cns: Vec<CnAddr>,
    /// URLs of other edges, in the form of `url`.
    #[serde(default)]
    pub edges: Vec<String>,
    /// Addresses of STUN servers, `host:port`.
    #[serde(default)]
    pub stun: Vec<String>,
    /// Lowest client version that may have peers, as the bootstrap answer names it: the CNs' `client_version_min`.
    #[serde(default = "default_client_version_min")]
    pub client_version_min: String,
    /// Client versions that get no grants at all, `major.minor.patch`, because they do harm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_versions_blocked: Vec<String>,
    /// Limit for content sent to all clients together; 0: no limit.
    #[serde(default)]
    pub rate_limit: Rate,
    /// Rate at which stored content is read again from the disk to find damage; 0: not at all.
    #[serde(default = "default_scrub_rate")]
    pub scrub_rate: Rate,
    /// Most HTTPS connections at a time, at most three quarters of them from one /24 (IPv6: /48). At the limit, a new
    /// connection displaces the idlest one of the network with most connections.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
    /// Lifetime of a grant, milliseconds; at most 15 minutes.
    #[serde(default = "default_grant_lifetime_ms")]
    pub grant_lifetime_ms: u64,
    /// How many of 1000 downloads with peers get a possession challenge at their end.
    #[serde(default = "default_challenge_permille")]
    pub challenge_permille: u32,
    /// Time that running transfers get to end after a stop request, milliseconds.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
}

impl EdgeConfig {
    /// Resolves every relative path against `base`, the directory of the configuration file.
    pub fn resolve(&mut self, base: &Path) {
        for path in [
            &mut self.objects,
            &mut self.tls_cert,
            &mut self.tls_key,
            &mut self.signing_key,
            &mut self.certificate,
            &mut self.seal_key,
            &mut self.spool,
            &mut self.ca,
        ] {
            *path = base.join(&*path);
        }
    }

    /// Checks the values; returns the first wrong key and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let url = |key, url: &str| {
            let host = url.strip_prefix("https://").ok_or((key, format!("{url:?} does not begin with https://")))?;
            let bad = host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace);
            if bad { Err((key, format!("{url:?} is not https://host:port without a path"))) } else { Ok(()) }
        };
        url("url", &self.url)?;
        self.edges.iter().try_for_each(|e| url("edges", e))?;
        if self.name.is_empty() || self.name.len() > swarmedge_core::limits::NAME_LEN_MAX {
            return Err(("name", "must have 1 to 64 bytes".into()));
        }
        if self.root.parse::<swarmedge_core::ids::PublicKey>().is_err() {
            return Err(("root", "is not a public key of 64 hexadecimal digits".into()));
        }
        let wrong = |version: &&String| client_version::number(version).is_none();
        if let Some(bad) = self.client_versions_blocked.iter().find(wrong) {
            return Err(("client_versions_blocked", format!("{bad:?} is not a version like 0.2.0")));
        }
        if self.connections_max == 0 {
            return Err(("connections_max", "must be at least 1".into()));
        }
        if !(1..=15 * 60 * 1000).contains(&self.grant_lifetime_ms) {
            return Err(("grant_lifetime_ms", "must be 1 to 900000".into()));
        }
        if self.challenge_permille > 1000 {
            return Err(("challenge_permille", "must be 0 to 1000".into()));
        }
        Ok(())
    }
}

fn default_region() -> String {
    "local".into()
}

fn default_client_version_min() -> String {
    "0.1.0".into()
}

const fn default_scrub_rate() -> Rate {
    Rate(4_000_000)
}

const fn default_connections_max() -> usize {
    8192
}

const fn default_grant_lifetime_ms() -> u64 {
    15 * 60 * 1000
}

const fn default_challenge_permille() -> u32 {
    20
}

const fn default_drain_ms() -> u64 {
    10_000
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn minimal() -> EdgeConfig {
        toml::from_str(
            r#"name = "edge-1"
            listen = "127.0.0.1:0"
            url = "https://localhost:8443"
            objects = "edge/objects"
            tls_cert = "edge/cert.pem"
            tls_key = "edge/key.pem"
            root = "00000000000000000000000000000000000000000000000000000000000000ff"
            signing_key = "edge/edge.key"
            certificate = "edge/edge.cert"
            seal_key = "seal.key"
            spool = "edge/spool"
            ca = "ca.pem""#,
        )
        .expect("a minimal section")
    }

    #[test]
    fn a_minimal_section_is_valid_and_paths_are_relative_to_the_file() {
        let mut cfg = minimal();
        assert_eq!(cfg.check(), Ok(()));
        cfg.seal_key = "/abs/seal.key".into();
        cfg.resolve(Path::new("/srv"));
        assert_eq!(cfg.objects, Path::new("/srv/edge/objects"));
        assert_eq!(cfg.seal_key, Path::new("/abs/seal.key"));
    }

    #[test]
    fn bad_values_are_named() {
        for (url, ok) in [("https://a:1", true), ("http://a:1", false), ("https://a/b", false), ("https://", false)] {
            let cfg = EdgeConfig { url: url.into(), ..minimal() };
            assert_eq!(cfg.check().is_ok(), ok, "{url}");
        }
        assert_eq!(EdgeConfig { name: String::new(), ..minimal() }.check().map_err(|e| e.0), Err("name"));
        assert_eq!(EdgeConfig { connections_max: 0, ..minimal() }.check().map_err(|e| e.0), Err("connections_max"));
        let cfg = EdgeConfig { challenge_permille: 1_001, ..minimal() };
        assert_eq!(cfg.check().map_err(|e| e.0), Err("challenge_permille"));
    }
}
