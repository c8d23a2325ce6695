//! `init`: makes a ready-to-run deployment on one machine. The demo and the bench commands use it too.

pub mod ports;
mod text;

pub use ports::Ports;

use super::args::{InitArgs, Switch};
use super::certificates::with_new_validity;
use super::{Code, Error};
use crate::config::{Bundle, ServerConfig};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use swarmedge_core::ids::{ProviderId, PublicKey};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::records::{CertBody, ServerRole};
use swarmedge_ground::keys::{Key, SealRing, certify, replace_secret, save_cert};
use swarmedge_ground::reach::authority;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::tls::CertAuthority;

/// Parameters of a new deployment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directory of the deployment.
    pub dir: PathBuf,
    /// Host name or IP address, without brackets, by which clients reach the servers.
    pub host: String,
    /// Region of the edge, sent to clients in the bootstrap response.
    pub region: String,
    /// Ports of the servers.
    pub ports: Ports,
    /// Provider that ships the install bundle.
    pub provider: ProviderId,
    /// Whether newly installed clients upload to others.
    pub uploads: bool,
}

impl Plan {
    /// Returns the IP address that public servers bind, as in `ADDRESS:PORT`.
    fn listen(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() && ip.is_ipv6() => format!("[{ip}]"),
            Ok(ip) if ip.is_loopback() => ip.to_string(),
            Ok(_) | Err(_) if self.host == "localhost" => "127.0.0.1".into(),
            // IPv4 too: what has an IPv4 address may get others
            Ok(_) | Err(_) => "[::]".into(),
        }
    }
}

/// Paths and addresses of a deployment.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Path of the file `server.toml`.
    pub config: PathBuf,
    /// Path of the file `install/bundle.toml`.
    pub bundle: PathBuf,
    /// Path of the CA certificate, `ca.pem`.
    pub ca: PathBuf,
    /// Base URL of the edge: `https://host:port`.
    pub edge_url: String,
    /// Ports of all servers.
    pub ports: Ports,
    /// The operator's root key.
    pub root: PublicKey,
}

/// Runs the command `swarmedge init`.
pub fn run(args: &InitArgs, json: bool) -> Result<(), Error> {
    let ports = args.base_port.map_or_else(Ports::usual_or_free, Ports::at)?;
    let host = checked_host(&args.host)?;
    let plan = Plan {
        dir: args.dir.clone(),
        host,
        region: "local".into(),
        ports,
        provider: ProviderId(args.provider),
        uploads: args.uploads == Switch::On,
    };
    refuse_full(&plan.dir, args.force)?;
    let made = make(&plan)?;
    if json { print_json(&made.to_json()) } else { say!("{}", made.next_commands(&program(), &plan)) }
}

/// Makes a deployment in `plan.dir` and reads its configuration back.
pub fn make(plan: &Plan) -> Result<Deployment, Error> {
    let dir = &plan.dir;
    for sub in ["edge/objects", "cn", "dn", "ledger", "install"] {
        make_dir(&dir.join(sub))?;
    }
    let root = Key::generate();
    save_secret(&dir.join("root.key"), root.to_pem().as_bytes())?;
    SealRing::fresh().replace(&dir.join("seal.key"))?;
    let ca = CertAuthority::new()?;
    write(&dir.join("ca.pem"), ca.cert_pem().as_bytes())?;
    save_secret(&dir.join("ca.key.pem"), ca.key_pem().as_bytes())?;
    let mut names = vec![plan.host.as_str()];
    names.extend(["localhost", "127.0.0.1", "::1"].iter().filter(|name| **name != plan.host));
    for role in ["edge", "cn", "dn", "ledger"] {
        let (cert, key) = ca.issue(&names)?;
        write(&dir.join(role).join("tls.pem"), cert.as_bytes())?;
        save_secret(&dir.join(role).join("tls.key.pem"), key.as_bytes())?;
    }
    for (folder, role) in
        [("edge", ServerRole::Edge), ("cn", ServerRole::Cn), ("dn", ServerRole::Dn), ("ledger", ServerRole::Ledger)]
    {
        certify_server(&root, &dir.join(folder), role, &format!("{folder}-1"))?;
    }
    let made = Deployment {
        config: dir.join("server.toml"),
        bundle: dir.join("install/bundle.toml"),
        ca: dir.join("ca.pem"),
        edge_url: format!("https://{}", authority(&plan.host, plan.ports.edge)),
        ports: plan.ports,
        root: root.public(),
    };
    let bundle = Bundle {
        root: root.public(),
        bootstrap: vec![made.edge_url.clone()],
        provider: plan.provider,
        uploads: plan.uploads,
        ca: ca.cert_pem().to_owned(),
    };
    write(&made.config, text::server_toml(plan, &made).as_bytes())?;
    write(&made.bundle, bundle.to_toml().as_bytes())?;
    check(&made, &bundle)?;
    Ok(made)
}

/// Makes a server's signing key and the certificate for it, signed by the root key.
fn certify_server(root: &Key, dir: &Path, role: ServerRole, name: &str) -> Result<(), Error> {
    let key = Key::generate();
    save_secret(&dir.join("signing.key"), key.to_pem().as_bytes())?;
    let body = CertBody {
        role,
        name: Text::new(name).map_err(|e| Error::failed(format!("a server cannot be called {name:?}: {e:?}")))?,
        key: key.public(),
        not_before_ms: 0,
        not_after_ms: 0,
    };
    save_cert(&dir.join("server.cert"), &certify(root, with_new_validity(body)))
}

/// Reads the written configuration and bundle back and compares them with the intended ones.
fn check(made: &Deployment, bundle: &Bundle) -> Result<(), Error> {
    let wrong = |what: &str| Error::failed(format!("what init has written does not read back: {what}"));
    let config = ServerConfig::load(&made.config)?;
    if config.operator.root != made.root {
        return Err(wrong("the root key"));
    }
    if config.edge.as_ref().is_none_or(|e| e.url != made.edge_url) {
        return Err(wrong("[edge]"));
    }
    if config.cn.is_none() || config.dn.is_none() || config.stun.is_none() || config.ledger.is_none() {
        return Err(wrong("a section is missing"));
    }
    if Bundle::load(&made.bundle)? != *bundle {
        return Err(wrong("the bundle"));
    }
    Ok(())
}

impl Deployment {
    /// Returns the files of the new deployment as JSON.
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "config": self.config, "bundle": self.bundle, "ca": self.ca, "edge_url": self.edge_url,
            "root": self.root.to_string(),
        })
    }

    /// Returns the next commands for the user to copy.
    fn next_commands(&self, program: &str, plan: &Plan) -> String {
        let (dir, provider) = (plan.dir.display(), plan.provider);
        let url = format!("{}/{provider}/files/FILE", self.edge_url);
        // some shells take brackets for patterns
        let url = if url.contains('[') { format!("'{url}'") } else { url };
        let (config, bundle, ca) = (self.config.display(), self.bundle.display(), self.ca.display());
        format!(
            "Made a deployment in {dir}. Next:\n\n  \
             # publish a file\n  \
             {program} publish FILE --provider {provider} --path files/FILE --config {config}\n\n  \
             # run all servers in one process (or each role by itself, see --help)\n  \
             {program} serve --roles edge,ledger,cn,dn,stun --config {config}\n\n  \
             # download it, in another terminal: by our client, or by any other\n  \
             {program} get {url} --bundle {bundle}\n  \
             curl --cacert {ca} -O {url}\n\n  \
             # share what was downloaded, and look at the books\n  \
             {program} client run --bundle {bundle}\n  \
             {program} ledger show --config {config}\n\n\
             {dir}/root.key signs for everything: move it off line before this serves anybody else."
        )
    }
}

/// Returns the command by which the user called this program.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "swarmedge".into())
}

/// Returns a name or an IP address as it stands in certificates and URLs, without brackets.
fn checked_host(host: &str) -> Result<String, Error> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(ip) = bare.unwrap_or(host).parse::<IpAddr>().ok().filter(|ip| bare.is_none() || ip.is_ipv6()) {
        return Ok(ip.to_string());
    }
    let ok = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    let wrong = || Error::usage(format!("--host {host:?} is neither a name nor an IP address"));
    if ok { Ok(host.to_owned()) } else { Err(wrong().next("write it without scheme, port or path")) }
}

fn refuse_full(dir: &Path, force: bool) -> Result<(), Error> {
    let Ok(mut entries) = fs::read_dir(dir) else { return Ok(()) };
    if !force && entries.next().is_some() {
        return Err(Error::new(Code::Usage, format!("{} is not empty", dir.display()))
            .next("choose another directory, or add --force to write new keys over what is there"));
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::io(format_args!("make the directory {}", dir.display()), &e))
}

/// Writes a file with default permissions, without secrets.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|e| Error::io(format_args!("write {}", path.display()), &e))
}

/// Writes a file that only its owner may read. It replaces an existing one, which is there only with `--force`.
fn save_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace_secret(path, bytes).map_err(|e| Error::io(format_args!("write secret {}", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ground::tls::x509::Facts;

    fn plan(dir: &Path) -> Plan {
        Plan {
            dir: dir.to_path_buf(),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports: Ports::free().expect("free ports"),
            provider: ProviderId(7),
            uploads: false,
        }
    }

    #[test]
    fn files_of_init_read_back_and_secrets_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let made = make(&plan(dir.path())).expect("makes");
        let config = ServerConfig::load(&made.config).expect("reads");
        assert_eq!(config.edge.expect("there").cns[0].addr, format!("127.0.0.1:{}", made.ports.cn));
        let bundle = Bundle::load(&made.bundle).expect("reads");
        assert_eq!((bundle.provider, bundle.uploads), (ProviderId(7), false));
        for secret in ["root.key", "seal.key", "ca.key.pem", "edge/tls.key.pem", "cn/signing.key"] {
            let mode = fs::metadata(dir.path().join(secret)).expect(secret).permissions().mode();
            assert_eq!(mode & 0o77, 0, "{secret}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn secrets_written_over_others_are_private_and_follow_no_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (dir, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "theirs").expect("written");
        symlink(&victim, dir.path().join("root.key")).expect("linked");
        fs::write(dir.path().join("seal.key"), "readable by all").expect("written");
        make(&plan(dir.path())).expect("makes");
        assert_eq!(fs::read_to_string(&victim).expect("there"), "theirs");
        for secret in ["root.key", "seal.key"] {
            let meta = fs::symlink_metadata(dir.path().join(secret)).expect(secret);
            assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o600, "{secret}: {meta:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_empty_is_refused_without_force() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(refuse_full(dir.path(), false).is_ok());
        fs::write(dir.path().join("x"), "").expect("writes");
        assert_eq!(refuse_full(dir.path(), false).expect_err("refused").code(), Code::Usage);
        assert!(refuse_full(dir.path(), true).is_ok());
    }

    #[test]
    fn the_next_commands_name_the_made_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = plan(dir.path());
        let text = make(&plan).expect("makes").next_commands("swarmedge", &plan);
        for part in ["publish FILE --provider 7", "serve --roles edge,ledger,cn,dn,stun", "install/bundle.toml"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_host_with_a_scheme_is_refused() {
        for (host, bare) in [("cdn.example.com", "cdn.example.com"), ("10.0.0.1", "10.0.0.1"), ("[0::1]", "::1")] {
            assert_eq!(checked_host(host).as_deref(), Ok(bare));
        }
        for bad in ["https://cdn.example.com", "", "[::1", "[10.0.0.1]", "fe80::1%eth0", "[::1]:8443"] {
            assert_eq!(checked_host(bad).expect_err(bad).code(), Code::Usage);
        }
    }

    #[test]
    fn a_deployment_on_ipv6_has_its_address_in_urls_and_certificates() {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = Plan { host: "::1".into(), ..plan(dir.path()) };
        let made = make(&plan).expect("makes");
        assert_eq!(made.edge_url, format!("https://[::1]:{}", made.ports.edge));
        let config = ServerConfig::load(&made.config).expect("reads");
        let (edge, cn, stun) = (config.edge.expect("there"), config.cn.expect("there"), config.stun.expect("there"));
        assert_eq!(edge.cns[0].addr, format!("[::1]:{}", made.ports.cn));
        assert_eq!(edge.stun, [format!("[::1]:{}", made.ports.stun)]);
        assert!([edge.listen, cn.listen, stun.listen].iter().all(|at| at.ip() == std::net::Ipv6Addr::LOCALHOST));
        let names = Facts::of(&fs::read_to_string(&edge.tls_cert).expect("reads")).expect("a certificate").names;
        assert_eq!(names, ["::1", "localhost", "127.0.0.1"]);
        assert!(made.next_commands("swarmedge", &plan).contains(&format!("'{}/7/files/FILE'", made.edge_url)));
    }

    #[test]
    fn servers_with_a_name_listen_on_both_families() {
        let dir = tempfile::tempdir().expect("a directory");
        for (host, listen) in [
            ("cdn.example.com", "[::]"),
            ("192.0.2.1", "[::]"),
            ("2001:db8::1", "[::]"),
            ("localhost", "127.0.0.1"),
            ("127.0.0.2", "127.0.0.2"),
            ("::1", "[::1]"),
        ] {
            assert_eq!(Plan { host: host.into(), ..plan(dir.path()) }.listen(), listen, "{host}");
        }
    }
}
