//! Tests what a user is told about a download: why it had no peers, and by which names it goes, with a running client
//! and from its directory alone.

use super::commands::text;
use super::gets::{Cdn, LARGE, PATIENCE, SMALL};
use super::outputs::command;
use std::fs;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs a command for the client in the directory `state`; checks its exit code.
fn says(cdn: &Cdn, args: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = {
        let state = cdn.at("state");
        let state = ["--state", state.to_str().expect("UTF-8")];
        command(&cdn.at(""), &[args, &state].concat()).output().expect("it runs")
    };
    let said = format!("{}{}", text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    said
}

fn end(client: super::gets::Process) {
    client.signal("-TERM");
    let mut client = client;
    assert_eq!(client.code(), Some(0));
}

#[test]
fn the_reason_for_no_peers_is_told_after_the_end_and_without_a_client() {
    let cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", LARGE);
    let client = cdn.client_with(&[]);
    cdn.until("connected", |status| status.control_connected);
    let mut get = cdn.get_with("object", "a", &[]);
    cdn.ends_well(&mut get, "a", &bytes);
    let nobody = "had no peers: nobody else shares it";
    for name in ["0", "1/object", "swarmedge://1/object"] {
        assert!(says(&cdn, &["why", name], 0).contains(nobody), "{name}");
    }
    end(client);
    assert!(says(&cdn, &["why"], 0).contains(nobody));
    let json = says(&cdn, &["why", "1/object", "--addresses", "--json"], 0);
    assert!(json.contains("\"without_peers\":\"not_shared\"") && !json.contains("127.0.0.1"), "{json}");
    let status = says(&cdn, &["status"], 4);
    assert!(status.contains("swarmedge://1/object") && status.contains("does not run"), "{status}");
    assert!(says(&cdn, &["status", "--json"], 4).contains("\"running\":false"));
    assert!(says(&cdn, &["cache", "list"], 0).contains("100.0 %"));
    says(&cdn, &["uploads", "off"], 0);
    assert!(says(&cdn, &["status"], 4).contains("uploads off"));
    let _client = cdn.client_with(&[]);
    cdn.until("what was said without a client holds", |status| !status.uploads && status.running);
    assert!(says(&cdn, &["why", "0"], 0).contains(nobody), "also after a restart");
    assert!(says(&cdn, &["why", "9"], 3).contains("no download is"));
}

#[test]
fn uploads_are_off_from_the_first_start_if_that_was_said_before() {
    let cdn = Cdn::start_at("127.0.0.1");
    says(&cdn, &["uploads", "off"], 0);
    let _client = cdn.client_with(&[]);
    cdn.until("off", |status| !status.uploads);
}

#[test]
fn no_address_of_a_peer_outlives_the_download() {
    let cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", LARGE);
    let holder = cdn.at("holder");
    let bundle = cdn.made.bundle.to_str().expect("UTF-8");
    let at = holder.to_str().expect("UTF-8");
    let run = ["client", "run", "--no-port-mapping", "--bundle", bundle, "--state", at];
    let mut peer = super::gets::Process(command(&cdn.at(""), &run).spawn().expect("it starts"));
    let runs = || command(&cdn.at(""), &["status", "--state", at]).output().expect("it runs").status.success();
    let until = Instant::now() + PATIENCE;
    while !runs() {
        assert!(Instant::now() < until, "the holder's client does not answer");
        sleep(Duration::from_millis(50));
    }
    let get = ["get", "1/object", "-o", "held", "--bundle", bundle, "--state", at];
    assert!(command(&cdn.at(""), &get).output().expect("it runs").status.success());
    let port = fs::read_to_string(holder.join("udp.port")).expect("it has a port");

    let client = cdn.client_with(&[]);
    cdn.until("connected", |status| status.control_connected);
    let mut get = cdn.get_with("object", "a", &[]);
    cdn.until_under_way("object");
    cdn.until("a peer", |status| status.downloads.iter().any(|d| d.peers > 0 || d.state.is_at_rest()));
    let hidden = says(&cdn, &["why", "--json"], 0);
    assert!(!hidden.contains(port.trim()), "{hidden}");
    cdn.ends_well(&mut get, "a", &bytes);
    for args in [&["why"][..], &["why", "--addresses"], &["why", "--addresses", "--json"]] {
        let said = says(&cdn, args, 0);
        assert!(said.contains("connected") && !said.contains("127.0.0.1"), "{said}");
    }
    cdn.until("booked", |status| status.usage_unreported == 0);
    end(client);
    assert!(says(&cdn, &["why"], 0).contains("a peer"), "its outcome is kept, without a name");
    let journal = fs::read(cdn.at("state/state.redb")).expect("a journal");
    let address = format!("127.0.0.1:{}", port.trim());
    assert!(!journal.windows(address.len()).any(|w| w == address.as_bytes()));
    let _ = peer.0.kill();
    drop(peer);
}

#[test]
fn a_download_and_a_version_go_by_their_objects_and_short_ids() {
    let cdn = Cdn::start_at("127.0.0.1");
    let client = cdn.client_with(&[]);
    let odd = "100%41?x=1#y";
    for name in [odd, "plain"] {
        let source = cdn.at("source");
        fs::write(&source, name).expect("writes");
        let config = cdn.made.config.to_str().expect("UTF-8");
        let object = format!("1/n/{name}");
        let publish = ["publish", "source", &object, "--config", config];
        assert!(command(&cdn.at(""), &publish).output().expect("it runs").status.success(), "{name}");
        fs::create_dir_all(cdn.at("into")).expect("made");
        assert!(says(&cdn, &["get", &object, "-o", "into"], 2).contains("is a directory"));
        let output = format!("into/{name}");
        says(&cdn, &["get", &object, "-o", &output], 0);
        assert!(fs::read(cdn.at(&output)).expect("fetched") == name.as_bytes());
    }
    let list = says(&cdn, &["cache", "list", "--json"], 0);
    let id = list.split("\"version\":\"").nth(1).and_then(|rest| rest.get(..8)).expect("an id");
    assert!(says(&cdn, &["cache", "remove", "ffff"], 3).contains("cache list"));
    says(&cdn, &["cache", "remove", id], 0);
    let left = says(&cdn, &["cache", "list"], 0);
    assert_eq!(left.lines().count(), 1, "{left}");
    let other = if left.contains("plain") { "1/n/plain".to_owned() } else { format!("1/n/{odd}") };
    says(&cdn, &["pause", &other], 0);
    says(&cdn, &["cancel", &other], 0);
    says(&cdn, &["cancel", &other], 3);
    says(&cdn, &["cache", "remove", &other], 0);
    drop(client);
}

#[test]
fn an_edge_goes_by_every_name_of_its_certificate_and_counts_once() {
    let cdn = Cdn::start_at("127.0.0.1");
    let bytes = cdn.publish("object", SMALL);
    let url = &cdn.made.edge_url;
    let other = url.replace("127.0.0.1", "localhost");
    let object = format!("{other}/1/object");
    let own = fs::read_to_string(&cdn.made.bundle).expect("it was made");
    let (alone, both) = (cdn.at("alone.toml"), format!("\"{other}\", \"{url}\""));
    fs::write(&alone, own.replace(url, &other)).expect("writes");
    fs::write(&cdn.made.bundle, own.replace(&format!("\"{url}\""), &both)).expect("writes");
    let [alone, state] = [alone, cdn.at("other")].map(|path| path.to_str().expect("UTF-8").to_owned());
    let get = ["get", &object, "-o", "a", "--bundle", &alone, "--state", &state];
    let got = command(&cdn.at(""), &get).output().expect("it runs");
    assert_eq!(got.status.code(), Some(0), "a bundle with the other name: {}", text(&got.stderr));
    let _client = cdn.client_with(&[]);
    cdn.until("connected", |status| status.control_connected);
    says(&cdn, &["get", &object, "-o", "b"], 0);
    for file in ["a", "b"] {
        assert!(fs::read(cdn.at(file)).expect("it is there") == bytes, "{file}");
    }
    let strange = says(&cdn, &["get", "https://localhost:1/1/object", "-o", "c"], 2);
    let authority = |url: &str| url.trim_start_matches("https://").to_owned();
    assert!(strange.contains(&format!("whose edges are {}", authority(url))), "{strange}");
    assert!(!strange.contains(&authority(&other)), "{strange}: the edge counts once");
}
