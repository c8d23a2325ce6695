//! Tests that a copy is shared for as long as its policy lets it, not for as long as the grant that it came by.

use super::gets::{Cdn, LARGE, PATIENCE};
use super::outputs::command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use swarmedge_client::client::local::Call;
use swarmedge_client::client::protocol::{Answer, Request, StatusLine};

/// Lifetime of grants in this test.
const GRANT_MS: u64 = 5_000;

fn status(cdn: &Cdn, state: &str) -> Option<StatusLine> {
    let Ok(Some(Answer::Status(line))) = Call::ask(&cdn.at(state), &Request::Status) else { return None };
    Some(line)
}

#[test]
fn a_holder_serves_long_after_its_grant_and_restarts_of_everything() {
    let mut cdn = Cdn::start_with("127.0.0.1", |config| {
        let short = format!("grant_lifetime_ms = {GRANT_MS}\nrate_limit = ");
        let edited = config.replacen("rate_limit = ", &short, 1);
        assert_ne!(edited, config);
        edited
    });
    let bytes = cdn.publish("object", 3 * LARGE);
    let mut holder = cdn.client_with(&[]);
    let mut get = cdn.get_with("object", "held", &[]);
    cdn.ends_well(&mut get, "held", &bytes);
    for process in [&mut holder, &mut cdn.servers] {
        process.signal("-KILL");
        process.code();
    }
    sleep(Duration::from_millis(GRANT_MS));
    cdn.serve_again();
    let _holder = cdn.client_with(&[]);
    cdn.until("connected", |status| status.control_connected);

    let (bundle, newcomer) = (cdn.made.bundle.to_str().expect("UTF-8"), cdn.at("newcomer"));
    let at = newcomer.to_str().expect("UTF-8");
    let run = ["client", "run", "--no-port-mapping", "--bundle", bundle, "--state", at];
    let _newcomer = super::gets::Process(command(&cdn.at(""), &run).spawn().expect("it starts"));
    let until = Instant::now() + PATIENCE;
    while !status(&cdn, "newcomer").is_some_and(|status| status.control_connected) {
        assert!(Instant::now() < until, "the newcomer does not connect");
        sleep(Duration::from_millis(50));
    }
    let get = ["get", "1/object", "-o", "new", "--bundle", bundle, "--state", at];
    assert!(command(&cdn.at(""), &get).output().expect("it runs").status.success());
    assert!(std::fs::read(cdn.at("new")).expect("it is there") == bytes);
    let downloads = status(&cdn, "newcomer").expect("it runs").downloads;
    assert!(downloads.iter().any(|d| d.peer_bytes > 0), "{downloads:?}");
    assert_eq!(status(&cdn, "state").expect("it runs").copies_refused, 0);
}
