//! Tests of SIGHUP: clients end by it as by SIGTERM, servers read their files again.

use super::gets::{Cdn, LARGE, PATIENCE, Process};
use std::fs;
use std::time::{Duration, Instant};
use swarmedge_ground::tls::CertAuthority;

/// Sends the servers SIGHUP; returns what they have logged once their line is there.
fn hang_up(cdn: &Cdn) -> String {
    let before = cdn.said("servers").len();
    cdn.servers.signal("-HUP");
    let until = Instant::now() + PATIENCE;
    loop {
        let said = cdn.said("servers").split_off(before);
        if said.lines().any(|line| line.contains("needs a restart:")) {
            return said;
        }
        assert!(Instant::now() < until, "no line about SIGHUP: {said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn change(cdn: &Cdn, from: &str, to: &str) {
    let whole = fs::read_to_string(&cdn.made.config).expect("it was made");
    assert!(whole.contains(from), "{from}");
    fs::write(&cdn.made.config, whole.replacen(from, to, 1)).expect("writes");
}

#[test]
fn a_hangup_ends_client_and_get_cleanly_and_the_get_resumes() {
    let mut cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", LARGE);
    let mut get = cdn.get_with("object", "out", &[]);
    cdn.until_under_way("object");
    get.signal("-HUP");
    assert_eq!(get.code(), Some(130), "{}", cdn.said("out"));
    assert!(cdn.said("out").contains("paused"), "{}", cdn.said("out"));
    let mut client = cdn.client_with(&[]);
    client.until_it_listens();
    client.signal("-HUP");
    assert_eq!(client.code(), Some(0), "{}", cdn.said("client"));
    assert!(cdn.said("client").contains("client stopped"));
    change(&cdn, "rate_limit = 2000000", "rate_limit = 0");
    assert!(hang_up(&cdn).contains("taken: [edge] rate_limit; needs a restart: nothing"));
    let mut again = cdn.get_with("object", "out", &[]);
    cdn.ends_well(&mut again, "out", &bytes);
    assert!(is_running(&mut cdn.servers));
}

fn is_running(process: &mut Process) -> bool {
    process.0.try_wait().expect("it was started").is_none()
}

#[test]
fn servers_take_certificates_on_hangup_unless_these_are_broken() {
    let mut cdn = Cdn::start_at("127.0.0.1");
    for name in ["first", "second", "third", "fourth"] {
        cdn.publish(name, 100);
    }
    let mut first = cdn.get_with("first", "first", &[]);
    assert_eq!(first.code(), Some(0), "{}", cdn.said("first"));
    let cert = cdn.at("cdn/edge/tls.pem");
    let good = fs::read(&cert).expect("it was made");
    fs::write(&cert, "broken").expect("writes");
    change(&cdn, "name = \"edge-1\"", "name = \"edge-1");
    let said = hang_up(&cdn);
    assert!(said.contains("taken: nothing; needs a restart: nothing"), "{said}");
    assert!(said.contains("tls.pem") && said.contains("server.toml:"), "both errors are told: {said}");
    let mut second = cdn.get_with("second", "second", &[]);
    assert_eq!(second.code(), Some(0), "the old certificate is in force: {}", cdn.said("second"));

    // a certificate of a stranger, which shows that it is in use
    let (stranger, key) = CertAuthority::new().expect("made").issue(&["127.0.0.1"]).expect("issued");
    let key_file = cdn.at("cdn/edge/tls.key.pem");
    let good_key = fs::read(&key_file).expect("it was made");
    fs::write(&cert, stranger).expect("writes");
    fs::write(&key_file, key).expect("writes");
    change(&cdn, "name = \"edge-1", "name = \"edge-2\"");
    let said = hang_up(&cdn);
    assert!(said.contains("taken: edge's TLS certificate; needs a restart: [edge] name"), "{said}");
    let mut third = cdn.get_with("third", "third", &[]);
    assert_eq!(third.code(), Some(4), "{}", cdn.said("third"));
    assert!(cdn.said("third").contains("no edge can be trusted"), "{}", cdn.said("third"));
    fs::write(&cert, good).expect("writes");
    fs::write(&key_file, good_key).expect("writes");
    assert!(hang_up(&cdn).contains("taken: edge's TLS certificate; needs a restart: [edge] name"));
    let mut fourth = cdn.get_with("fourth", "fourth", &[]);
    assert_eq!(fourth.code(), Some(0), "{}", cdn.said("fourth"));
    assert!(is_running(&mut cdn.servers));
}
