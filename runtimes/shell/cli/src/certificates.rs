//! `certificates`: lists when the servers' certificates expire, and renews them. Edge, CN, DN and ledger have a TLS
//! certificate (X.509) and an operator's certificate: the server's public key, signed by the operator's root key.

use super::Error;
use super::args::CertificatesCommand;
use crate::config::ServerConfig;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use swarmedge_core::ids::PublicKey;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::{CertBody, ServerCert, SigningContext};
use swarmedge_ground::files::read;
use swarmedge_ground::health::{Cause, Health};
use swarmedge_ground::keys::{Key, certify, load_cert, replace_secret, save_cert, verify};
use swarmedge_ground::rt::Rt;
use swarmedge_ground::terminal::out::{print_json, say};
use swarmedge_ground::tls::CertAuthority;
use swarmedge_ground::tls::x509::{Facts, is_issued_by};

/// Lifetime of new certificates.
pub(super) const CERTIFIED_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Time by which the validity of new certificates begins in the past, since clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// Servers warn when a certificate expires in less than this time, or in less than this fraction of its lifetime if
/// that is shorter. Automatic renewal of other CAs' certificates happens when a third is left.
const WARN_BEFORE_S: u64 = 30 * DAY_S;
const WARN_BEFORE_PART: u64 = 6;
const DAY_S: u64 = 24 * 3600;
/// Interval at which a server checks its certificates, and the number of checks after which the log warns again.
const CHECK_EVERY: Duration = Duration::from_secs(60);
const LINE_EVERY: u32 = 60;

/// Expiry of one certificate of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Expiry {
    /// Role of the server that uses the certificate.
    role: &'static str,
    /// `tls` for an X.509 certificate, `operator` for one signed by the root key.
    kind: &'static str,
    file: PathBuf,
    /// Whether this operator's CA or root key issued the certificate, so that `certificates renew` can replace it.
    own: bool,
    /// End of validity in Unix seconds.
    not_after_s: u64,
    /// Length of the whole validity in seconds.
    #[serde(skip)]
    lifetime_s: u64,
}

impl Expiry {
    fn days_left_if_few(&self) -> Option<u64> {
        days_left_if_few(self.lifetime_s, self.not_after_s)
    }

    /// Returns whether this is an X.509 certificate, which a running server reloads on SIGHUP.
    pub(super) fn is_of_tls(&self) -> bool {
        self.kind == "tls"
    }

    /// Warns in health that the certificate expires soon, or has expired.
    fn tell(&self, health: &Health) {
        let (health, part) = (health.of(self.role), format!("{}'s {} certificate", self.role, self.kind));
        let expired = self.not_after_s <= now().as_secs();
        match self.days_left_if_few() {
            _ if expired => {
                let why = format!("it has expired: {}", self.next_step());
                health.fail(&part, Cause::CertificateExpired, why);
            }
            Some(days) => {
                let why = format!("it ends in {days} days: {}", self.next_step());
                health.warn(&part, Cause::CertificateEnds, why);
            }
            None => health.clear(&part),
        }
    }

    /// Returns what the operator must do before the certificate expires.
    const fn next_step(&self) -> &'static str {
        if self.own {
            "run `swarmedge certificates renew`, then restart"
        } else {
            "this operator's CA did not issue it: renew it where it came from, then send the server SIGHUP"
        }
    }
}

/// Certificate files of one role: the X.509 pair, and the operator's certificate if the role has one.
struct CertFiles<'a> {
    role: &'static str,
    tls_cert: &'a Path,
    tls_key: &'a Path,
    certificate: Option<&'a Path>,
}

fn cert_files(config: &ServerConfig) -> Vec<CertFiles<'_>> {
    let edge = config.edge.as_ref().map(|c| ("edge", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let cn = config.cn.as_ref().map(|c| ("cn", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let dn = config.dn.as_ref().map(|c| ("dn", &c.tls_cert, &c.tls_key, Some(&c.certificate)));
    let ledger = config.ledger.as_ref().map(|c| ("ledger", &c.tls_cert, &c.tls_key, c.certificate.as_ref()));
    let all = [edge, cn, dn, ledger].into_iter().flatten();
    all.map(|(role, tls_cert, tls_key, certificate)| CertFiles {
        role,
        tls_cert,
        tls_key,
        certificate: certificate.map(PathBuf::as_path),
    })
    .collect()
}

/// Runs the command `swarmedge certificates ...`.
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
        let whose = if e.own { "" } else { "  (not of this operator's CA)" };
        say!("{:7} {:9} {left:>14}  {}{whose}", e.role, e.kind, e.file.display())?;
    }
    if matches!(command, CertificatesCommand::Renew(_)) {
        for e in all.iter().filter(|e| !e.own) {
            say!("left alone: {}: {}", e.file.display(), e.next_step())?;
        }
        if all.iter().any(|e| e.own) {
            say!("renewed; restart the servers, which have read the old ones")?;
        } else {
            say!("nothing was renewed: this operator issued none of them")?;
        }
    }
    Ok(())
}

/// Reads when the certificates of the chosen roles expire; leaves out X.509 certificates without a readable date.
pub(super) fn expiries(config: &ServerConfig, of: impl Fn(&str) -> bool) -> Result<Vec<Expiry>, Error> {
    let ca = read(&config.operator.ca)?;
    let mut all = Vec::new();
    for p in cert_files(config).into_iter().filter(|p| of(p.role)) {
        let text = read(p.tls_cert)?;
        if let Some(Facts { not_before_s, not_after_s, .. }) = Facts::of(&text) {
            let (own, file) = (is_issued_by(&text, &ca), p.tls_cert.into());
            let lifetime_s = not_after_s.saturating_sub(not_before_s);
            all.push(Expiry { role: p.role, kind: "tls", file, own, not_after_s, lifetime_s });
        }
        if let Some(file) = p.certificate {
            let cert = load_cert(file)?;
            let (own, not_after_s) = (is_signed_by_root(&config.operator.root, &cert), cert.body.not_after_ms / 1000);
            let lifetime_s = lifetime_s(&cert.body);
            all.push(Expiry { role: p.role, kind: "operator", file: file.into(), own, not_after_s, lifetime_s });
        }
    }
    Ok(all)
}

/// Returns the key and certificate files that the chosen roles read only at their start.
pub(super) fn fixed_files(config: &ServerConfig, of: impl Fn(&str) -> bool) -> Vec<&Path> {
    let edge = config.edge.as_ref().map(|c| ("edge", Some(&c.signing_key)));
    let cn = config.cn.as_ref().map(|c| ("cn", Some(&c.signing_key)));
    let ledger = config.ledger.as_ref().map(|c| ("ledger", c.signing_key.as_ref()));
    let signing = [edge, cn, ledger].into_iter().flatten().filter(|(role, _)| of(role));
    let signing = signing.filter_map(|(_, file)| file.map(PathBuf::as_path));
    let certificates = cert_files(config).into_iter().filter(|p| of(p.role)).filter_map(|p| p.certificate);
    std::iter::once(config.operator.ca.as_path()).chain(signing).chain(certificates).collect()
}

/// Returns whether this root key signed the server certificate, expired or not.
fn is_signed_by_root(root: &PublicKey, cert: &ServerCert) -> bool {
    verify(root, SigningContext::Cert, &cert.body.to_bytes(), &cert.signature)
}

/// Returns the length of a server certificate's validity in seconds.
pub(super) const fn lifetime_s(body: &CertBody) -> u64 {
    body.not_after_ms.saturating_sub(body.not_before_ms) / 1000
}

/// Replaces the certificates that this operator issued. All files are read and all certificates made before any is
/// written.
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
    let ca_key = keys.join("ca.key.pem");
    let ca_pem = read(&config.operator.ca)?;
    let ca = CertAuthority::load(&ca_pem, &read(&ca_key).map_err(away)?)?;
    let (mut tls, mut operator_certs) = (Vec::new(), Vec::new());
    for p in cert_files(&config) {
        let old = read(p.tls_cert)?;
        let names = Facts::of(&old).map(|facts| facts.names).unwrap_or_default();
        if ca.has_issued(&old)? && !names.is_empty() {
            let (cert, key) = ca.issue(&names)?;
            if !is_issued_by(&cert, &ca_pem) {
                let (key, ca) = (ca_key.display(), config.operator.ca.display());
                return Err(Error::usage(format!(
                    "{key} is not the key of a CA in {ca}, which servers and clients trust"
                )));
            }
            tls.push((p.tls_cert, cert, p.tls_key, key));
        }
        if let Some(file) = p.certificate {
            let old = load_cert(file)?;
            if is_signed_by_root(&root.public(), &old) {
                operator_certs.push((file, certify(&root, with_new_validity(old.body))));
            }
        }
    }
    for (cert_file, cert, key_file, key) in tls {
        // a server that starts between the two writes finds a mismatched pair, reports it, and succeeds at its next
        // start
        replace_secret(key_file, key.as_bytes())
            .map_err(|e| Error::io(format_args!("write {}", key_file.display()), &e))?;
        fs::write(cert_file, cert).map_err(|e| Error::io(format_args!("write {}", cert_file.display()), &e))?;
    }
    operator_certs.iter().try_for_each(|(file, cert)| save_cert(file, cert))
}

/// Returns the certificate body with a new validity of [`CERTIFIED_FOR`] from now.
pub(super) fn with_new_validity(body: CertBody) -> CertBody {
    let ms = |t: Duration| u64::try_from(t.as_millis()).unwrap_or(u64::MAX);
    let now = now();
    CertBody { not_before_ms: ms(now.saturating_sub(CLOCK_SKEW)), not_after_ms: ms(now + CERTIFIED_FOR), ..body }
}

/// Reports the remaining validity of certificates by metric, and warns in log and health, until the process ends.
pub(super) async fn watch<R: Rt>(rt: R, all: Rc<RefCell<Vec<Expiry>>>, health: Health) {
    let mut checks = 0_u32;
    loop {
        let speaks = checks.is_multiple_of(LINE_EVERY);
        checks = checks.wrapping_add(1);
        let now = now().as_secs();
        for e in all.borrow().iter() {
            let left = e.not_after_s.saturating_sub(now);
            let gauge = metrics::gauge!("swarmedge_certificate_expires_seconds", "role" => e.role, "kind" => e.kind);
            gauge.set(f64::from(u32::try_from(left).unwrap_or(u32::MAX)));
            e.tell(&health);
            if let Some(days) = e.days_left_if_few().filter(|_| speaks) {
                let (file, next) = (e.file.display(), e.next_step());
                let what = if left == 0 { "has expired" } else { "expires soon" };
                tracing::warn!(%file, days, "a certificate {what}: {next}");
            }
        }
        rt.sleep_until(rt.now() + CHECK_EVERY).await;
    }
}

/// Returns the days until a certificate expires if they are few for its lifetime, otherwise `None`.
pub(super) fn days_left_if_few(lifetime_s: u64, not_after_s: u64) -> Option<u64> {
    let left = not_after_s.saturating_sub(now().as_secs());
    (left < WARN_BEFORE_S.min(lifetime_s / WARN_BEFORE_PART)).then_some(left / DAY_S)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
