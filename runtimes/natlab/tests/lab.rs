//! Tests of the lab itself: each kind of NAT as an independent client sees it, counters, latency, and complete
//! removal.

#[path = "shared/coturn.rs"]
mod coturn;

use coturn::Found;
use std::collections::BTreeMap;
use std::thread;
use swarmedge_natlab::latency::Latency;
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Kind, Lab, Plan, janitor, require};

/// Builds a lab with these sites; `None` on a machine that cannot build labs.
fn lab(sites: Vec<Site>) -> Option<Lab> {
    require::lab(&Plan { sites, ..Plan::default() })
}

fn one_of_each() -> Vec<Site> {
    Kind::ALL.into_iter().map(|k| Site::new(k.name(), k)).collect()
}

#[test]
fn every_kind_maps_and_filters_as_its_name_says() {
    if !coturn::is_here() {
        return;
    }
    let Some(lab) = lab(one_of_each()) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let _server = coturn::Server::start(&lab, dir.path());
    let found: BTreeMap<Kind, Found> = thread::scope(|s| {
        let asked = Kind::ALL.map(|k| {
            (
                k,
                s.spawn({
                    let lab = &lab;
                    move || coturn::discover(lab, k.name())
                }),
            )
        });
        asked.into_iter().map(|(k, asked)| (k, asked.join().expect("it answers"))).collect()
    });
    let expected: BTreeMap<_, _> =
        Kind::ALL.into_iter().map(|k| (k, Found { mapping: k.mapping(), filtering: k.filtering() })).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_lab_that_is_dropped_leaves_nothing() {
    let Some(lab) = lab(one_of_each()) else { return };
    let name = lab.state().lab.clone();
    let mut inside = lab.command("symmetric", "sleep").expect("a node").arg("60").spawn().expect("it runs");
    assert!(janitor::labs().expect("listed").contains(&name));
    drop(lab);
    assert!(!janitor::labs().expect("listed").contains(&name));
    assert!(!inside.wait().expect("it has ended").success(), "what ran inside has ended");
}

#[test]
fn a_lab_is_taken_down_when_its_process_is_interrupted() {
    if let Err(missing) = require::check() {
        return require::skip(&missing.to_string());
    }
    let before = janitor::labs().expect("listed");
    let tool = env!("CARGO_BIN_EXE_swarmedge-natlab");
    let command = std::process::Command::new(tool).args(["run", "--", "sleep", "60"]).spawn();
    let mut tool = command.expect("it runs");
    let ours = format!("p{}x", tool.id());
    let has_ours = || janitor::labs().expect("listed").iter().any(|l| l.starts_with(&ours) && !before.contains(l));
    while !has_ours() {
        thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = tool.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("it runs").success());
    tool.wait().expect("it ends");
    assert!(!has_ours());
}

#[test]
fn latency_delays_every_packet_across_the_core() {
    let Some(lab) = lab(vec![Site::new("a", Kind::Public), Site::new("b", Kind::Public)]) else { return };
    let to = lab.outside("b").expect("a site").to_string();
    let round_trip_ms = || -> f64 {
        let out = lab.command("a", "ping").expect("a node").args(["-c", "5", "-i", "0.2", &to]).output();
        let said = String::from_utf8_lossy(&out.expect("it runs").stdout).into_owned();
        let (_, times) = said.split_once("mdev = ").unwrap_or_else(|| panic!("no answer: {said}"));
        times.split('/').next().and_then(|least| least.parse().ok()).expect("a number")
    };
    assert!(round_trip_ms() < 200.0, "the lab itself is quick");
    let tool = std::path::Path::new(env!("CARGO_BIN_EXE_swarmedge-natlab"));
    let _late = Latency::start(&lab, std::time::Duration::from_millis(100), tool).expect("delays");
    assert!(round_trip_ms() >= 200.0);
}

#[test]
fn packets_of_a_peer_are_counted_by_destination() {
    let Some(lab) = lab(vec![Site::new("a", Kind::PortRestricted)]) else { return };
    lab.count_sent("a").expect("counts");
    assert!(lab.sent("a").expect("reads").is_empty());
    let send = "for i in 1 2 3; do echo x > /dev/udp/198.51.100.10/4000; done";
    let sent = lab.command("a", "bash").expect("a node").args(["-c", send]).status().expect("it runs");
    assert!(sent.success());
    let to = "198.51.100.10:4000".parse().expect("an address");
    assert_eq!(lab.sent("a").expect("reads"), BTreeMap::from([(to, 3)]));
}

#[test]
fn a_renumbered_site_has_a_new_address_and_reaches_the_servers() {
    let Some(mut lab) = lab(vec![Site::new("a", Kind::FullCone), Site::new("b", Kind::CgnatSymmetric)]) else {
        return;
    };
    for site in ["a", "b", "a"] {
        let before = lab.outside(site).expect("a site");
        let now = lab.rebind(site).expect("moves");
        assert_ne!(before, now);
        assert_eq!(lab.outside(site).expect("a site"), now);
        // refused by the server itself, which shows that the path works in both directions
        let knock = "exec 3<>/dev/tcp/198.51.100.10/9";
        let out = lab.command(site, "timeout").expect("a node").args(["3", "bash", "-c", knock]).output();
        let said = String::from_utf8_lossy(&out.expect("it runs").stderr).into_owned();
        assert!(said.contains("refused"), "{said}");
    }
}

#[test]
fn peers_on_one_lan_connect_outside_only_with_hairpinning() {
    let site = |name: &str, hairpin| Site { peers: 2, hairpin, ..Site::new(name, Kind::PortRestricted) };
    let Some(lab) = lab(vec![site("yes", true), site("no", false)]) else { return };
    for (site, meets) in [("yes", true), ("no", false)] {
        let outside = lab.outside(site).expect("a site");
        lab.count_crossing(site).expect("counts");
        // each host opens its own port towards the other's outside port, as in hole punching
        let talk = |own: u16, other: u16| {
            format!(
                "import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('',{own}))\n\
                 s.settimeout(.1)\ngot=False\nfor i in range(15):\n \
                 s.sendto(b'x',('198.51.100.10',9))\n s.sendto(b'x',('{outside}',{other}))\n \
                 t=time.time()\n try:\n  s.recv(9)\n  got=True\n except OSError: pass\nprint(got)"
            )
        };
        let heard = thread::scope(|s| {
            [(1, 5001, 5002), (2, 5002, 5001)]
                .map(|(n, own, other)| {
                    let lab = &lab;
                    s.spawn(move || {
                        let mut python = lab.command(&format!("{site}-{n}"), "/usr/bin/python3").expect("a node");
                        python.args(["-c", &talk(own, other)]).output().expect("it runs").stdout
                    })
                })
                .map(|t| t.join().expect("it ends") == b"True\n")
        });
        assert_eq!(heard, [meets, meets], "{site}");
        assert!(lab.crossed(site).expect("reads") > 0, "the counter sees what goes through the router");
    }
}
