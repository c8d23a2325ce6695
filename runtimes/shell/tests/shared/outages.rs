//! Tests of outages, and of what the operator or provider tells a client: edges away, versions refused, objects
//! expired.

use super::gets::{Cdn, LARGE, SMALL};
use std::process::{Command, Output};
use std::time::Duration;
use swarmedge_client::client::protocol::State;
use swarmedge_core::content::Policy;

/// Longer than a `get` waits that starts a client of its own.
const LONG: Duration = Duration::from_secs(25);

/// Runs a command of the user's client to its end.
fn run(cdn: &Cdn, args: &[&str]) -> Output {
    let state = cdn.at("state");
    let mut command = Command::new(crate::BINARY);
    command.args(args).arg("--state").arg(state).env_remove("SWARMEDGE_LOG").env_remove("RUST_LOG");
    command.output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn kill_servers(cdn: &mut Cdn) {
    cdn.servers.signal("-KILL");
    cdn.servers.code();
}

#[test]
fn a_get_in_the_background_waits_for_an_edge_and_one_alone_does_not() {
    let mut cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", SMALL);
    kill_servers(&mut cdn);
    let mut alone = cdn.get_with("object", "alone", &[]);
    assert_eq!(alone.code(), Some(4), "{}", cdn.said("alone"));
    assert!(cdn.said("alone").contains("given up after 20 s"), "{}", cdn.said("alone"));
    let _client = cdn.client_with(&[]);
    let mut get = cdn.get_with("object", "out", &[]);
    std::thread::sleep(LONG);
    assert_eq!(get.0.try_wait().expect("it was started"), None, "{}", cdn.said("out"));
    assert!(!cdn.said("out").contains("given up"), "{}", cdn.said("out"));
    cdn.serve_again();
    cdn.ends_well(&mut get, "out", &bytes);
}

#[test]
fn a_get_that_has_begun_waits_for_the_edge_as_long_as_it_is_let() {
    let mut cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", LARGE);
    let mut get = cdn.get_with("object", "out", &[]);
    cdn.until_under_way("object");
    kill_servers(&mut cdn);
    std::thread::sleep(LONG);
    assert_eq!(get.0.try_wait().expect("it was started"), None, "{}", cdn.said("out"));
    assert!(!cdn.said("out").contains("given up"), "the remark is true: {}", cdn.said("out"));
    cdn.serve_again();
    cdn.ends_well(&mut get, "out", &bytes);
}

#[test]
fn uploads_can_be_turned_off_before_the_first_start() {
    let cdn = Cdn::start_at("127.0.0.1");
    let off = run(&cdn, &["uploads", "off"]);
    assert_eq!(off.status.code(), Some(0), "{}", said(&off));
    {
        let _client = cdn.client_with(&[]);
        cdn.until("uploads are off", |status| !status.uploads);
        assert!(said(&run(&cdn, &["status"])).contains("uploads off"));
    }
    let on = run(&cdn, &["uploads", "on"]);
    assert_eq!(on.status.code(), Some(0), "also between two starts: {}", said(&on));
    let _client = cdn.client_with(&[]);
    cdn.until("uploads are on", |status| status.uploads);
}

#[test]
fn a_client_that_is_too_old_is_served_by_the_edge_alone_and_told_so_once() {
    let newer = |text: String| {
        let text = text.replace("[cn]\n", "[cn]\nclient_version_min = \"9.1.0\"\n");
        text.replace("[edge]\n", "[edge]\nclient_version_min = \"9.1.0\"\n")
    };
    let cdn = Cdn::start_with("127.0.0.1", newer);
    let bytes = cdn.publish("object", LARGE);
    let mut client = cdn.client_with(&[]);
    cdn.until("it is told", |status| status.outdated.is_some());
    let mut get = cdn.get_with("object", "out", &[]);
    cdn.until_under_way("object");
    let why = said(&run(&cdn, &["why"]));
    cdn.ends_well(&mut get, "out", &bytes);
    let status = said(&run(&cdn, &["status"]));
    for text in [&why, &status, &cdn.said("client")] {
        assert!(text.contains("they want 9.1.0") && text.contains("update the client"), "{text}");
    }
    assert_eq!(cdn.said("client").matches("update the client").count(), 1);
    cdn.until("no session", |status| !status.control_connected);
    let is_kept = || {
        let why = said(&run(&cdn, &["why"]));
        assert!(why.contains("had no peers") && why.contains("below `client_version_min`"), "{why}");
    };
    is_kept();
    client.signal("-TERM");
    assert_eq!(client.code(), Some(0));
    is_kept();
}

#[test]
fn a_blocked_version_of_the_client_gets_nothing_and_is_told_why() {
    let own = env!("CARGO_PKG_VERSION");
    let block = |text: String| text.replace("[edge]\n", &format!("[edge]\nclient_versions_blocked = [\"{own}\"]\n"));
    let cdn = Cdn::start_with("127.0.0.1", block);
    cdn.publish("object", SMALL);
    let mut get = cdn.get_with("object", "out", &[]);
    assert_eq!(get.code(), Some(5), "{}", cdn.said("out"));
    assert!(cdn.said("out").contains("blocked this version of the client"), "{}", cdn.said("out"));
    assert!(cdn.said("out").contains("update the client"), "{}", cdn.said("out"));
}

#[test]
fn an_expired_object_is_said_to_have_expired() {
    let cdn = Cdn::start_at("127.0.0.1");
    cdn.publish_under("object", SMALL, Some(Policy { expires_ms: 1, ..Policy::default() }));
    let mut get = cdn.get_with("object", "out", &[]);
    assert_eq!(get.code(), Some(3), "{}", cdn.said("out"));
    let said = cdn.said("out");
    assert!(said.contains("this object has expired") && !said.contains("check the URL"), "{said}");
}

#[test]
fn a_cached_copy_that_has_expired_is_listed_as_expired() {
    let cdn = Cdn::start_at("127.0.0.1");
    let soon = std::time::UNIX_EPOCH.elapsed().expect("after 1970") + Duration::from_secs(45);
    let expires_ms = u64::try_from(soon.as_millis()).expect("not so far");
    let bytes = cdn.publish_under("object", SMALL, Some(Policy { expires_ms, ..Policy::default() }));
    let _client = cdn.client_with(&[]);
    let mut get = cdn.get_with("object", "out", &[]);
    cdn.ends_well(&mut get, "out", &bytes);
    cdn.until("it is complete", |status| status.downloads.iter().any(|d| d.state == State::Completed));
    while !said(&run(&cdn, &["cache", "list"])).contains("expired: no longer shared") {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        assert!(now < soon + Duration::from_secs(60), "{}", said(&run(&cdn, &["cache", "list"])));
        std::thread::sleep(Duration::from_millis(200));
    }
}
