//! Tests of `certificates renew`: which certificates it replaces and which it leaves alone.

use super::*;
use crate::init::{self, Deployment, Plan, Ports};
use swarmedge_core::accounting::Trust;
use swarmedge_core::ids::ProviderId;
use swarmedge_core::wire::records::ServerRole;
use swarmedge_ground::health::View;
use tempfile::TempDir;

fn deployment(host: &str) -> (TempDir, Deployment) {
    let dir = tempfile::tempdir().expect("a directory");
    let made = init::make(&Plan {
        dir: dir.path().to_path_buf(),
        host: host.into(),
        region: "local".into(),
        ports: Ports::free().expect("free ports"),
        provider: ProviderId(1),
        uploads: true,
    });
    (dir, made.expect("makes"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("there")
}

#[test]
fn renewed_certificates_are_for_the_same_servers_and_last_longer() {
    let (dir, made) = deployment("127.0.0.1");
    let root = Key::load(&dir.path().join("root.key")).expect("made");
    let expire = |(folder, role)| {
        let file = dir.path().join(folder).join("server.cert");
        let old = load_cert(&file).expect("made").body;
        let expired = CertBody { not_after_ms: 5, ..old.clone() };
        save_cert(&file, &certify(&root, CertBody { not_before_ms: 0, ..expired })).expect("writes");
        (role, file, old)
    };
    let expired = [("edge", ServerRole::Edge), ("ledger", ServerRole::Ledger)].map(expire);
    let config = ServerConfig::load(&made.config).expect("reads");
    let all = expiries(&config, |_| true).expect("reads");
    assert!(all.iter().all(|e| e.own), "{all:?}");
    let tls = text(&dir.path().join("cn/tls.pem"));

    renew(&made.config, None).expect("renews");
    let trust = Trust { root: root.public(), verify };
    let now_ms = u64::try_from(now().as_millis()).expect("not so far");
    for (role, file, old) in expired {
        let new = load_cert(&file).expect("there");
        assert_eq!((new.body.key, new.body.name.clone()), (old.key, old.name));
        assert!(trust.check_cert(&new, role, now_ms).is_ok(), "{role:?}");
    }
    assert_ne!(text(&dir.path().join("cn/tls.pem")), tls);
    let all = expiries(&config, |_| true).expect("reads");
    assert_eq!(all.len(), 8, "four of TLS, four of the operator");
    assert!(all.iter().all(|e| e.days_left_if_few().is_none()), "{all:?}");
    let year = now().as_secs() + CERTIFIED_FOR.as_secs();
    assert!(all.iter().all(|e| e.not_after_s.abs_diff(year) < DAY_S), "{all:?}");
    let elsewhere = renew(&made.config, Some(Path::new("/nowhere"))).expect_err("no keys there");
    assert!(elsewhere.to_string().contains("--keys"), "{elsewhere}");
}

#[test]
fn renewal_keeps_the_host_names_of_servers_without_an_edge() {
    let (dir, made) = deployment("cn-7.example.com");
    let whole = text(&made.config);
    let (from, to) = (whole.find("\n[edge]").expect("there"), whole.find("\n[cn]").expect("there"));
    fs::write(&made.config, whole[..from].to_owned() + &whole[to..]).expect("writes");
    let names = |role| Facts::of(&text(&dir.path().join(role).join("tls.pem"))).expect("reads").names;
    // the ledger's certificate was issued by hand, for other names
    let ca = CertAuthority::load(&text(&made.ca), &text(&dir.path().join("ca.key.pem"))).expect("loads");
    let by_hand = ["books.example.com", "10.1.2.3", "fd00::1"];
    let (cert, _) = ca.issue(&by_hand).expect("issued");
    fs::write(dir.path().join("ledger/tls.pem"), &cert).expect("writes");

    renew(&made.config, None).expect("renews");
    assert_eq!(names("cn"), ["cn-7.example.com", "localhost", "127.0.0.1", "::1"]);
    assert_eq!(names("ledger"), by_hand);
    assert_ne!(text(&dir.path().join("ledger/tls.pem")), cert);
}

#[test]
fn certificates_of_another_authority_are_left_alone_with_their_keys() {
    let (dir, made) = deployment("127.0.0.1");
    // this CA has the same name as the operator's, but another key
    let other = CertAuthority::new().expect("made");
    let (cert, key) = other.issue(&["127.0.0.1"]).expect("issued");
    let (cert_file, key_file) = (dir.path().join("edge/tls.pem"), dir.path().join("edge/tls.key.pem"));
    fs::write(&cert_file, &cert).expect("writes");
    fs::write(&key_file, &key).expect("writes");
    // the CA file names both, for clients that trust both
    fs::write(&made.ca, text(&made.ca) + other.cert_pem()).expect("writes");
    let operator_cert_file = dir.path().join("dn/server.cert");
    let operator_cert = certify(&Key::generate(), load_cert(&operator_cert_file).expect("made").body);
    save_cert(&operator_cert_file, &operator_cert).expect("writes");
    let cn = text(&dir.path().join("cn/tls.pem"));

    renew(&made.config, None).expect("renews");
    assert_eq!((text(&cert_file), text(&key_file)), (cert, key));
    assert_eq!(load_cert(&operator_cert_file).expect("there"), operator_cert);
    assert_ne!(text(&dir.path().join("cn/tls.pem")), cn, "its own are renewed beside them");
    let all = expiries(&ServerConfig::load(&made.config).expect("reads"), |_| true).expect("reads");
    let operator_cert = all.iter().find(|e| e.file == operator_cert_file).expect("listed");
    assert!(!operator_cert.own && operator_cert.next_step().contains("where it came from"), "{operator_cert:?}");
}

#[test]
fn a_key_of_no_trusted_authority_renews_nothing() {
    let (dir, made) = deployment("127.0.0.1");
    let cn = text(&dir.path().join("cn/tls.pem"));
    let ca = CertAuthority::new().expect("made");
    let (own, _) = ca.issue(&["127.0.0.1"]).expect("issued");
    fs::write(dir.path().join("cn/tls.pem"), &own).expect("writes");
    fs::write(dir.path().join("ca.key.pem"), ca.key_pem()).expect("writes");
    let error = renew(&made.config, None).expect_err("nobody would trust it").to_string();
    assert!(error.contains("ca.key.pem is not the key of a CA in"), "{error}");
    assert_eq!(text(&dir.path().join("cn/tls.pem")), own);
    assert_ne!(own, cn);
}

#[test]
fn a_warning_depends_on_the_lifetime_and_says_how_to_renew() {
    let left =
        |lifetime_days: u64, days: u64| days_left_if_few(lifetime_days * DAY_S, now().as_secs() + days * DAY_S + 60);
    assert_eq!((left(365, 31), left(365, 29)), (None, Some(29)));
    // automatic renewal of other CAs happens when 30 of 90 days are left, or 2 of 6
    assert_eq!((left(90, 29), left(90, 14)), (None, Some(14)));
    assert_eq!((left(6, 2), left(6, 0)), (None, Some(0)));
    assert_eq!(days_left_if_few(DAY_S, 5), Some(0), "expired long ago");
    let expiry = |own| Expiry { role: "edge", kind: "tls", file: "tls.pem".into(), own, not_after_s: 0, lifetime_s: 0 };
    assert!(expiry(true).next_step().contains("certificates renew"));
    assert!(!expiry(false).next_step().contains("certificates renew"));
    let health = Health::default();
    let told = |not_after_s| {
        let lifetime_s = 365 * DAY_S;
        Expiry { role: "edge", kind: "tls", file: "tls.pem".into(), own: true, not_after_s, lifetime_s }.tell(&health);
        health.told(View::Operator).pop().map(|told| (told.part, told.cause, told.failing))
    };
    let part = "edge's tls certificate".to_owned();
    let in_days = |days: u64| now().as_secs() + days * DAY_S;
    assert_eq!(told(in_days(7)), Some((part.clone(), Cause::CertificateEnds, false)));
    assert_eq!(told(1), Some((part, Cause::CertificateExpired, true)));
    assert_eq!(told(in_days(300)), None);
}
