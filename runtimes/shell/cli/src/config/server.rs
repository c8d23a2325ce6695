//! `server.toml`: one section per role, and `[operator]` with what all of them trust. A server uses only the sections
//! of its own roles, so the same file may be copied to every machine.

use super::File;
use serde::{Deserialize, Serialize};
use std::path::Path;
use swarmedge_control::config::{CnConfig, DnConfig, StunConfig};
use swarmedge_core::limits;
use swarmedge_edge::EdgeConfig;
use swarmedge_ground::config::OperatorConfig;
use swarmedge_ground::error::Error;
use swarmedge_ground::reach::host_and_port;
use swarmedge_ledger::config::LedgerConfig;

/// The whole file. Relative paths in the file start from its directory; here they are resolved already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The operator's root key and CA, which all roles trust.
    pub operator: OperatorConfig,
    /// Section of the edge; `None` if this file configures none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeConfig>,
    /// Section of the connection node (CN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cn: Option<CnConfig>,
    /// Section of the database node (DN).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<DnConfig>,
    /// Section of the STUN server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stun: Option<StunConfig>,
    /// Section of the ledger server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerConfig>,
}

impl ServerConfig {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_file(&File::read(path)?)
    }

    /// Parses and checks every section, and resolves relative paths against the file's directory.
    pub fn from_file(file: &File) -> Result<Self, Error> {
        let mut config: Self = file.parse()?;
        config.share_operator();
        config.check().map_err(|(section, key, why)| file.error_at(&[section, key], &why))?;
        config.resolve(file.base());
        Ok(config)
    }

    /// Fills in the edge's root key and CA from `[operator]` where its own section leaves them out.
    fn share_operator(&mut self) {
        if let Some(edge) = &mut self.edge {
            if edge.root.is_empty() {
                edge.root = self.operator.root.to_string();
            }
            if edge.ca.as_os_str().is_empty() {
                edge.ca.clone_from(&self.operator.ca);
            }
        }
    }

    /// Checks the values; an error holds section, key and reason.
    fn check(&self) -> Result<(), (&'static str, &'static str, String)> {
        if let Some(edge) = &self.edge {
            edge.check().map_err(|(key, why)| ("edge", key, why))?;
        }
        if let Some(cn) = &self.cn {
            check_name(&cn.name).map_err(|why| ("cn", "name", why))?;
            if cn.dns.is_empty() || cn.dns.len() > limits::SERVERS_MAX {
                return Err(("cn", "dns", format!("must name 1 to {} DNs", limits::SERVERS_MAX)));
            }
            for addr in cn.dns.iter() {
                check_host_port(addr).map_err(|why| ("cn", "dns", why))?;
            }
            cn.ledger.as_deref().map_or(Ok(()), check_host_port).map_err(|why| ("cn", "ledger", why))?;
            if cn.sessions_max == 0 {
                return Err(("cn", "sessions_max", "must be at least 1".into()));
            }
        }
        if let Some(dn) = &self.dn {
            check_name(&dn.name).map_err(|why| ("dn", "name", why))?;
            if dn.copies_max < 1_000 {
                return Err(("dn", "copies_max", "must be at least 1000".into()));
            }
        }
        if let Some(stun) = &self.stun {
            check_alternate(stun).map_err(|why| ("stun", "alternate", why))?;
        }
        Ok(())
    }

    fn resolve(&mut self, base: &Path) {
        let mut paths = vec![&mut self.operator.ca];
        if let Some(edge) = &mut self.edge {
            edge.resolve(base);
        }
        if let Some(c) = &mut self.cn {
            paths.extend([&mut c.tls_cert, &mut c.tls_key, &mut c.signing_key, &mut c.certificate, &mut c.seal_key]);
            paths.extend(c.geo_countries.iter_mut().chain(&mut c.geo_networks).chain(&mut c.spool));
        }
        if let Some(c) = &mut self.dn {
            paths.extend([&mut c.tls_cert, &mut c.tls_key, &mut c.certificate]);
        }
        if let Some(c) = &mut self.stun {
            paths.extend(&mut c.seal_key);
        }
        if let Some(c) = &mut self.ledger {
            paths.extend([&mut c.tls_cert, &mut c.tls_key].into_iter().chain(&mut c.signing_key));
            paths.extend(&mut c.certificate);
            c.database.resolve(base);
        }
        for path in paths {
            *path = base.join(&*path);
        }
    }
}

/// Checks the alternate STUN address (RFC 5780 §6): it differs in IP and port, and none is a wildcard, since the server
/// announces them to clients.
fn check_alternate(stun: &StunConfig) -> Result<(), String> {
    let Some(alternate) = stun.alternate else { return Ok(()) };
    let pair = [stun.listen, alternate];
    if pair.iter().any(|a| a.ip().is_unspecified() || a.port() == 0) {
        return Err("wants `listen` and `alternate` to name their addresses and ports".into());
    }
    if stun.listen.is_ipv4() != alternate.is_ipv4() {
        return Err("must be of the same family as `listen`".into());
    }
    if stun.listen.ip() == alternate.ip() || stun.listen.port() == alternate.port() {
        return Err("must differ from `listen` in its address and in its port".into());
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    let ok = (1..=limits::NAME_LEN_MAX).contains(&name.len());
    if ok { Ok(()) } else { Err(format!("must have 1 to {} bytes", limits::NAME_LEN_MAX)) }
}

fn check_host_port(addr: &str) -> Result<(), String> {
    host_and_port(addr).map(|_| ()).ok_or_else(|| format!("{addr:?} is not host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CN: &str = r#"
[operator]
root = "0000000000000000000000000000000000000000000000000000000000000007"
ca = "ca.pem"

[cn]
name = "cn-1"
listen = "127.0.0.1:9001"
tls_cert = "cn/tls.pem"
tls_key = "cn/tls.key.pem"
signing_key = "cn/signing.key"
certificate = "cn/server.cert"
seal_key = "/etc/seal.key"
dns = ["127.0.0.1:9002"]
"#;

    fn read(text: &str) -> Result<ServerConfig, Error> {
        ServerConfig::from_file(&File::from_text(Path::new("/srv/server.toml"), text.into()))
    }

    #[test]
    fn paths_start_from_the_file_and_absent_sections_are_absent() {
        let config = read(CN).expect("valid");
        let cn = config.cn.expect("there");
        assert_eq!(cn.tls_cert, Path::new("/srv/cn/tls.pem"));
        assert_eq!(cn.seal_key, Path::new("/etc/seal.key"));
        assert_eq!(cn.sessions_max, 15_000);
        assert!(config.edge.is_none() && config.ledger.is_none());
    }

    #[test]
    fn a_rate_is_a_number_or_a_text_and_a_wrong_one_is_named() {
        let edge = r#"[edge]
name = "edge-1"
listen = "127.0.0.1:0"
url = "https://localhost:8443"
objects = "o"
tls_cert = "t"
tls_key = "k"
signing_key = "s"
certificate = "c"
seal_key = "k"
spool = "s"
rate_limit = "#;
        let rate = |value: &str| {
            let config = read(&format!("{CN}{edge}{value}\n"))?;
            Ok::<_, Error>(config.edge.expect("there").rate_limit.0)
        };
        for (value, n) in [("0", 0), ("2000", 2_000), ("\"20MB/s\"", 20_000_000), ("\"1 GiB\"", 1 << 30)] {
            assert_eq!(rate(value).ok(), Some(n), "{value}");
        }
        for (value, named) in
            [("\"5 parsecs\"", "string \"5 parsecs\""), ("-1", "integer `-1`"), ("1.5", "point `1.5`")]
        {
            let error = rate(value).expect_err(value).to_string();
            assert!(error.contains("server.toml:26:14: rate_limit: invalid ") && error.contains(named), "{error}");
            assert!(error.ends_with("expected a rate like 20MB/s, 512KiB/s or 1000000 (bytes a second)"), "{error}");
        }
    }

    #[test]
    fn every_wrong_value_is_named_with_its_line() {
        for (from, to, expected) in [
            ("root = \"00", "root = \"0", "server.toml:3:8: root: a key has 64 hexadecimal digits"),
            ("name = \"cn-1\"", "name = \"\"", "server.toml:7:8: name: must have 1 to 64 bytes"),
            ("127.0.0.1:9001", "127.0.0.1", "server.toml:8:10: listen: invalid socket address syntax"),
            ("[\"127.0.0.1:9002\"]", "[]", "server.toml:14:7: dns: must name 1 to 32 DNs"),
            ("127.0.0.1:9002", "dn.example", "server.toml:14:7: dns: \"dn.example\" is not host:port"),
            ("127.0.0.1:9002", "::1:9002", "server.toml:14:7: dns: \"::1:9002\" is not host:port"),
            ("dns =", "sesions_max = 5\ndns =", "server.toml:14:1: unknown key \"sesions_max\" in [cn]"),
        ] {
            let error = read(&CN.replacen(from, to, 1)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
