//! Tests port mapping against miniupnpd, an independent gateway daemon, on the kernel's own NAT, with real binaries of
//! both runtimes.

#[path = "shared/binaries.rs"]
mod binaries;

use binaries::{Program, programs};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use swarmedge_natlab::cdn::{Cdn, Client};
use swarmedge_natlab::lab::{Gateway, Offers};
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Kind, Lab, Plan, require};

const OBJECT_LEN: usize = 8 << 20;
/// Limit of the edge's rate for one download, in bytes per second: the edge alone takes 8 s.
const EDGE_RATE: u64 = 1 << 20;
const WITHIN: Duration = Duration::from_secs(60);

/// Runs a test on both runtimes at the same time.
fn on_both(sites: &[Site], test: impl Fn(Lab, Cdn, &Path, &Path) + Sync) {
    if !require::gateway() {
        return;
    }
    let servers = vec![("edge".into(), 1), ("stun".into(), 2)];
    let plan = Plan { sites: sites.to_vec(), servers, ..Plan::default() };
    let run = |program: &Program| {
        let Some(lab) = require::lab(&plan) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let cdn = Cdn::start(&lab, dir.path(), &program.path).expect("the servers start");
        test(lab, cdn, &program.path, dir.path());
    };
    let (programs, run) = (programs(), &run);
    thread::scope(|s| {
        for p in &programs {
            let name = p.runtime.to_owned();
            thread::Builder::new().name(name).spawn_scoped(s, move || run(p)).expect("a thread");
        }
    });
}

/// Runs `swarmedge nat` at a peer; returns its output as JSON and as text.
fn nat(lab: &Lab, program: &Path, node: &str) -> (serde_json::Value, String) {
    let server = Cdn::stun(lab).expect("a STUN server");
    let run = |more: &[&str]| {
        let mut command = lab.command(node, program.to_str().expect("a path")).expect("a node");
        let out = command.args(["nat", "--stun", &server]).args(more).output().expect("it runs");
        assert!(out.status.success(), "{node}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    (serde_json::from_str(&run(&["--json"])).expect("JSON"), run(&[]))
}

#[test]
fn each_protocol_opens_a_symmetric_nat_and_closes_it_again() {
    on_both(&[Site::new("home", Kind::Symmetric)], |mut lab, _cdn, program, dir| {
        let (json, words) = nat(&lab, program, "home");
        assert_eq!((&json["port_mapping"]["state"], &json["mapping"]), (&"no_answer".into(), &SYMMETRIC.into()));
        assert!(!words.contains("can reach this host"), "{words}");
        for (offers, protocol) in [(Offers::Everything, "pcp"), (Offers::NatPmp, "nat_pmp"), (Offers::Upnp, "upnp")] {
            let gateway = lab.gateway("home", offers, dir).expect("a gateway");
            let (json, words) = nat(&lab, program, "home");
            let mapped = &json["port_mapping"];
            assert_eq!((&mapped["state"], &mapped["protocol"]), (&"open".into(), &protocol.into()), "{json}");
            let outside = lab.outside("home").expect("a site").to_string();
            let external = mapped["external"].as_str().expect("an endpoint");
            assert!(external.starts_with(&format!("{outside}:")), "{external} of {outside}");
            assert_eq!(json["mapping"], SYMMETRIC, "what was observed stays as it was");
            assert!(words.contains("Every peer that has UDP can reach this host"), "{words}");
            assert_eq!(gateway.forwards(&lab).expect("reads"), 0, "{protocol}: what was opened is closed");
        }
        // a daemon that forwards nothing, whatever it says
        let gateway = lab.gateway("home", Offers::Everything, dir).expect("a gateway");
        lab.script("home-nat", "nft delete chain inet upnp prerouting\n").expect("no forwarding");
        let (json, _) = nat(&lab, program, "home");
        assert_eq!(json["port_mapping"]["state"], "deaf", "{json}");
        drop(gateway);
    });
}

const SYMMETRIC: &str = "address_and_port_dependent";

fn content(seed: u8) -> Vec<u8> {
    (0..OBJECT_LEN).map(|i| (i.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ seed).collect()
}

/// Returns a client that has downloaded this object at the edge's full speed; from then on the edge is slow.
fn seeder(lab: &Lab, cdn: &Cdn, program: &Path, (node, path, seed): (&str, &str, u8)) -> Client {
    cdn.publish(path, &content(seed), 0).expect("published");
    let mut client = cdn.client(lab, node, program, true).expect("starts");
    let line = client.get(path, WITHIN, |_| {}).expect("asked").expect("an answer");
    assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{node} has its object");
    cdn.publish(path, &content(seed), EDGE_RATE).expect("published");
    client
}

/// Waits until the gateway forwards a UDP and a TCP port to the client, or, without a gateway, until the client knows
/// that none does. The CN learns of it at once.
fn settle(client: &mut Client, gateway: Option<(&Lab, &Gateway)>) {
    let until = Instant::now() + WITHIN;
    let settled = |client: &mut Client| {
        let Some(line) = client.nat().expect("asked") else { return false };
        let state = if gateway.is_some() { "open" } else { "no_answer" };
        line.port_mapping.state == state && line.tcp_reached.is_empty() != gateway.is_some()
    };
    while !settled(client) {
        assert!(Instant::now() < until, "{:?}", client.nat());
        thread::sleep(Duration::from_millis(50));
    }
    if let Some((lab, gateway)) = gateway {
        assert_eq!(gateway.forwards(lab).expect("reads"), 2);
    }
    thread::sleep(Duration::from_millis(300));
}

#[test]
fn a_gateway_lets_two_peers_behind_symmetric_nats_connect() {
    let sites = ["open", "hard", "alone"].map(|name| Site::new(name, Kind::Symmetric));
    on_both(&sites, |mut lab, cdn, program, dir| {
        let gateway = lab.gateway("open", Offers::Everything, dir).expect("a gateway");
        let mut open = seeder(&lab, &cdn, program, ("open", "of-open", 1));
        settle(&mut open, Some((&lab, &gateway)));
        let mut alone = seeder(&lab, &cdn, program, ("alone", "of-alone", 2));
        settle(&mut alone, None);
        let mut hard = cdn.client(&lab, "hard", program, true).expect("starts");
        settle(&mut hard, None);

        // in turn the uploader, the downloader, and neither has the gateway
        for (client, path, met) in [(&mut hard, "of-open", true), (&mut open, "of-alone", true)] {
            let line = client.get(path, WITHIN, |_| {}).expect("asked").expect("an answer");
            assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{path}");
            assert_eq!(line.peer_bytes > line.edge_bytes, met, "{path}: {line:?}");
        }
        let rungs: Vec<_> = hard.meetings().expect("asked").into_iter().filter_map(|m| m.attempt.rung).collect();
        assert_eq!(rungs, ["a port that its router forwards"], "why names it");
        drop(open);
        let line = hard.get("of-alone", WITHIN, |_| {}).expect("asked").expect("an answer");
        assert_eq!((line.durable_bytes, line.peer_bytes), (OBJECT_LEN as u64, 0), "{line:?}");
    });
}

#[test]
fn a_forwarded_tcp_port_is_offered_only_after_a_connection_got_through() {
    let sites = [Site::new("open", Kind::Symmetric), Site::new("lied", Kind::Symmetric)];
    let sites = sites.into_iter().chain([Site::new("blocked", Kind::UdpBlocked)]).collect::<Vec<_>>();
    on_both(&sites, |mut lab, cdn, program, dir| {
        let gateway = lab.gateway("open", Offers::Everything, dir).expect("a gateway");
        let mut open = seeder(&lab, &cdn, program, ("open", "of-open", 1));
        settle(&mut open, Some((&lab, &gateway)));
        let doors = open.nat().expect("asked").expect("known").tcp_reached;
        let [door] = &doors[..] else { panic!("{doors:?}") };
        assert!(door.starts_with(&format!("{}:", lab.outside("open").expect("a site"))), "{door}");

        let _liar = lab.gateway("lied", Offers::Everything, dir).expect("a gateway");
        lab.script("lied-nat", "nft delete chain inet upnp prerouting\n").expect("no forwarding");
        let mut lied = seeder(&lab, &cdn, program, ("lied", "of-lied", 2));
        let until = Instant::now() + WITHIN;
        while lied.nat().expect("asked").is_none_or(|line| line.port_mapping.state != "deaf") {
            assert!(Instant::now() < until, "{:?}", lied.nat());
            thread::sleep(Duration::from_millis(50));
        }

        let mut blocked = cdn.client(&lab, "blocked", program, true).expect("starts");
        while blocked.nat().expect("asked").is_none_or(|line| line.udp || !line.tcp) {
            assert!(Instant::now() < until, "{:?}", blocked.nat());
            thread::sleep(Duration::from_millis(50));
        }
        let line = blocked.get("of-open", WITHIN, |_| {}).expect("asked").expect("an answer");
        let met = blocked.meetings().expect("asked");
        assert!(line.peer_bytes > line.edge_bytes, "{line:?} {met:?}");
        let [meeting] = &met[..] else { panic!("{met:?}") };
        // the address is forgotten with the end of the download
        assert_eq!(meeting.path, None, "{met:?}");
        assert_eq!(meeting.attempt.rung.as_deref(), Some("a TCP port on which it listens"), "{met:?}");
        let line = blocked.get("of-lied", WITHIN, |_| {}).expect("asked").expect("an answer");
        assert_eq!((line.durable_bytes, line.peer_bytes), (OBJECT_LEN as u64, 0), "{line:?}");
        assert_eq!(lied.nat().expect("asked").expect("known").tcp_reached, Vec::<String>::new());
    });
}
