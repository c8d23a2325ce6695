//! `certificates`: how long the servers' certificates are good for, and new ones.

use super::Error;
use super::args::ConfigArgs;
use crate::config::ServerConfig;
use crate::http::Origin;
use crate::keys::{Key, certify, load_cert, replace_secret, save_cert};
use crate::rt::Rt;
use crate::terminal::out::{print_json, say};
use crate::tls::{CertAuthority, not_after_s};
use clap::{Args, Subcommand};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::wire::records::CertBody;

/// How long the servers' certificates are good for.
pub(super) const CERTIFIED_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks may differ by this when certificates are new.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// Servers warn from this long before one expires.
const WARN_BEFORE_S: u64 = 30 * DAY_S;
const DAY_S: u64 = 24 * 3600;
/// How often a server looks how long its certificates are still good for.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// See [`super::args::Command::Certificates`].
#[derive(Clone, Debug, Subcommand)]
pub enum CertificatesCommand {
    /// List the servers' certificates and when they expire
    List(ConfigArgs),
    /// Make new ones for the same servers and names, good for a year
    Renew(RenewArgs),
}

/// See [`CertificatesCommand::Renew`].
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Clients need nothing new: the operator's root key and CA stay. Servers take the new certificates \
    up at their next start.\n\n\
    Example:\n  swarmedge certificates renew --config my-cdn/server.toml --keys /media/safe"
)]
pub struct RenewArgs {
    /// Which deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where root.key and ca.key.pem lie [default: beside the configuration]
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
}

/// A certificate of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Expiry {
    /// Whose.
    role: &'static str,
    /// `tls`: X.509, for connections. `operator`: what the root key says.
    kind: &'static str,
    file: PathBuf,
    /// Unix seconds.
    not_after_s: u64,
}

/// What a role shows: its X.509 files, and the operator's word where it has one.
struct Papers<'a> {
    role: &'static str,
    tls_cert: &'a Path,
    tls_key: &'a Path,
    certificate: Option<&'a Path>,
}

fn papers(config: &ServerConfig) -> Vec<Papers<'_>> {
    let edge = config.edge.as_ref().map(|c| ("edge", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let cn = config.cn.as_ref().map(|c| ("cn", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let dn = config.dn.as_ref().map(|c| ("dn", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let ledger = config.ledger.as_ref().map(|c| ("ledger", &c.tls_cert, &c.tls_key, c.certificate.as_ref()));
    let all = [edge, cn, dn, ledger].into_iter().flatten();
    all.map(|(role, tls_cert, tls_key, certificate)| Papers {
        role,
        tls_cert,
        tls_key,
        certificate: certificate.map(PathBuf::as_path),
    })
    .collect()
}

/// `swarmedge certificates ...`.
pub(super) fn run(command: &CertificatesCommand, json: bool) -> Result<(), Error> {
    let args = match command {
        CertificatesCommand::List(args) => args,
        CertificatesCommand::Renew(args) => {
            renew(&args.config.config, args.keys.as_deref())?;
            &args.config
        }
    };
    let all = expiries(&ServerConfig::load(&args.config)?, |_| true)?;
    if json {
        return print_json(&all);
    }
    let now = now().as_secs();
    for e in &all {
        let left = match e.not_after_s.checked_sub(now) {
            Some(left) => format!("{} days left", left / DAY_S),
            None => "EXPIRED".into(),
        };
        say!("{:7} {:9} {left:>14}  {}", e.role, e.kind, e.file.display())?;
    }
    if matches!(command, CertificatesCommand::Renew(_)) {
        say!("renewed; restart the servers, which have read the old ones")?;
    }
    Ok(())
}

/// When the certificates of these roles expire. One whose date cannot be read is left out.
pub(super) fn expiries(config: &ServerConfig, of: impl Fn(&str) -> bool) -> Result<Vec<Expiry>, Error> {
    let mut all = Vec::new();
    for p in papers(config).into_iter().filter(|p| of(p.role)) {
        if let Some(not_after_s) = not_after_s(&read(p.tls_cert)?) {
            all.push(Expiry { role: p.role, kind: "tls", file: p.tls_cert.into(), not_after_s });
        }
        if let Some(file) = p.certificate {
            let not_after_s = load_cert(file)?.body.not_after_ms / 1000;
            all.push(Expiry { role: p.role, kind: "operator", file: file.into(), not_after_s });
        }
    }
    Ok(all)
}

fn renew(config_file: &Path, keys: Option<&Path>) -> Result<(), Error> {
    let config = ServerConfig::load(config_file)?;
    let beside = config_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let keys = keys.unwrap_or(beside);
    let away = |e: Error| e.next("name the directory of root.key and ca.key.pem with --keys");
    let root = Key::load(&keys.join("root.key")).map_err(away)?;
    if root.public() != config.operator.root {
        let file = keys.join("root.key");
        return Err(Error::usage(format!("{} is not the operator's root key of this deployment", file.display())));
    }
    let ca_key = read(&keys.join("ca.key.pem")).map_err(away)?;
    let ca = CertAuthority::load(&read(&config.operator.ca)?, &ca_key)?;
    let host = config.edge.as_ref().and_then(|e| Origin::parse(&e.url)).map_or_else(|| "localhost".into(), |o| o.host);
    let mut names = vec![host.as_str()];
    names.extend(["localhost", "127.0.0.1"].iter().filter(|name| **name != host));
    for p in papers(&config) {
        let (cert, key) = ca.issue(&names)?;
        // a server that starts in between finds a pair that does not fit, says so, and starts well the next time
        replace_secret(p.tls_key, key.as_bytes())
            .map_err(|e| Error::io(format_args!("write {}", p.tls_key.display()), &e))?;
        fs::write(p.tls_cert, cert).map_err(|e| Error::io(format_args!("write {}", p.tls_cert.display()), &e))?;
        if let Some(file) = p.certificate {
            save_cert(file, &certify(&root, dated(load_cert(file)?.body)))?;
        }
    }
    Ok(())
}

/// The same word, good from now for [`CERTIFIED_FOR`].
pub(super) fn dated(body: CertBody) -> CertBody {
    let ms = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX);
    let now = now();
    CertBody { not_before_ms: ms(now.saturating_sub(CLOCK_SKEW)), not_after_ms: ms(now + CERTIFIED_FOR), ..body }
}

/// Tells by metric and log how long certificates are still good for, as long as the process lives.
pub(super) async fn watch<R: Rt>(rt: R, all: Vec<Expiry>) {
    loop {
        let now = now().as_secs();
        for e in &all {
            let left = e.not_after_s.saturating_sub(now);
            let gauge = metrics::gauge!("swarmedge_certificate_expires_seconds", "role" => e.role, "kind" => e.kind);
            gauge.set(f64::from(u32::try_from(left).unwrap_or(u32::MAX)));
            if let Some(days) = days_left_if_few(e.not_after_s) {
                let file = e.file.display();
                tracing::warn!(%file, days, "a certificate expires soon: run `swarmedge certificates renew`, then restart");
            }
        }
        rt.sleep_until(rt.now() + LOOK_EVERY).await;
    }
}

/// How many days a certificate is still good for, where it is time to renew it.
pub(super) fn days_left_if_few(not_after_s: u64) -> Option<u64> {
    let left = not_after_s.saturating_sub(now().as_secs());
    (left < WARN_BEFORE_S).then_some(left / DAY_S)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::{self, Plan, Ports};
    use crate::keys::verify;
    use swarmedge_core::accounting::Trust;
    use swarmedge_core::ids::ProviderId;
    use swarmedge_core::wire::records::ServerRole;

    #[test]
    fn renewed_certificates_are_for_the_same_servers_and_last_longer() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = init::make(&Plan {
            dir: dir.path().to_path_buf(),
            host: "127.0.0.1".into(),
            region: "local".into(),
            ports: Ports::free().expect("free ports"),
            provider: ProviderId(1),
            uploads: true,
        });
        let made = made.expect("makes");
        let root = Key::load(&dir.path().join("root.key")).expect("made");
        let expire = |(folder, role)| {
            let file = dir.path().join(folder).join("server.cert");
            let old = load_cert(&file).expect("made").body;
            let expired = CertBody { not_after_ms: 5, ..old.clone() };
            save_cert(&file, &certify(&root, expired)).expect("writes");
            (role, file, old)
        };
        let expired = [("edge", ServerRole::Edge), ("ledger", ServerRole::Ledger)].map(expire);
        let config = ServerConfig::load(&made.config).expect("reads");
        let all = expiries(&config, |_| true).expect("reads");
        assert_eq!(all.iter().filter(|e| days_left_if_few(e.not_after_s) == Some(0)).count(), 2, "{all:?}");
        let tls = fs::read_to_string(dir.path().join("cn/tls.pem")).expect("made");

        renew(&made.config, None).expect("renews");
        let trust = Trust { root: root.public(), verify };
        let now_ms = u64::try_from(now().as_millis()).expect("not so far");
        for (role, file, old) in expired {
            let new = load_cert(&file).expect("there");
            assert_eq!((new.body.key, new.body.name.clone()), (old.key, old.name));
            assert!(trust.check_cert(&new, role, now_ms).is_ok(), "{role:?}");
        }
        assert_ne!(fs::read_to_string(dir.path().join("cn/tls.pem")).expect("there"), tls);
        let all = expiries(&config, |_| true).expect("reads");
        assert_eq!(all.len(), 8, "four of TLS, four of the operator");
        assert!(all.iter().all(|e| days_left_if_few(e.not_after_s).is_none()), "{all:?}");
        let year = now().as_secs() + CERTIFIED_FOR.as_secs();
        assert!(all.iter().all(|e| e.not_after_s.abs_diff(year) < DAY_S), "{all:?}");
        let elsewhere = renew(&made.config, Some(Path::new("/nowhere"))).expect_err("no keys there");
        assert!(elsewhere.to_string().contains("--keys"), "{elsewhere}");
    }
}
