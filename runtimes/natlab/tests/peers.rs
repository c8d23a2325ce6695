//! Tests where peers send packets: real binaries in a lab, counted by the kernel.

#[path = "shared/binaries.rs"]
mod binaries;

use binaries::{Program, programs};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;
use swarmedge_core::nat::connectivity::Config;
use swarmedge_natlab::cdn::{Cdn, Client};
use swarmedge_natlab::lab::Transport;
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Kind, Lab, Plan, require};

const OBJECT_LEN: usize = 4 << 20;
/// Limit of the edge's rate for one download, in bytes per second: the edge alone takes 8 s.
const EDGE_RATE: u64 = 512 << 10;
const WITHIN: Duration = Duration::from_secs(20);
/// Address from a documentation range that belongs to no node of the lab.
const NOBODY: &str = "203.0.113.250";

/// Runs a test on both runtimes at the same time.
fn on_both(sites: &[Site], test: impl Fn(Lab, Cdn, &Path) + Sync) {
    let servers = vec![("edge".into(), 1), ("stun".into(), 2)];
    let plan = Plan { sites: sites.to_vec(), servers, ..Plan::default() };
    let run = |program: &Program| {
        let Some(lab) = require::lab(&plan) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let cdn = Cdn::start(&lab, dir.path(), &program.path).expect("the servers start");
        test(lab, cdn, &program.path);
    };
    let (programs, run) = (programs(), &run);
    thread::scope(|s| {
        for p in &programs {
            let name = p.runtime.to_owned();
            thread::Builder::new().name(name).spawn_scoped(s, move || run(p)).expect("a thread");
        }
    });
}

fn content(seed: u8) -> Vec<u8> {
    (0..OBJECT_LEN).map(|i| (i.wrapping_mul(31) >> 3).to_le_bytes()[0] ^ seed).collect()
}

/// Starts a client that downloads this object at full speed; afterwards the edge is slow.
fn seeder(lab: &Lab, cdn: &Cdn, program: &Path, (node, path, seed): (&str, &str, u8)) -> Client {
    cdn.publish(path, &content(seed), 0).expect("published");
    let mut client = cdn.client(lab, node, program, true).expect("starts");
    let line = client.get(path, WITHIN, |_| {}).expect("asked").expect("an answer");
    assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{node} has its object");
    cdn.publish(path, &content(seed), EDGE_RATE).expect("published");
    settle(&mut client);
    client
}

/// Waits until the client has discovered its NAT and has a session at the CN.
fn settle(client: &mut Client) {
    client.settle(Duration::from_secs(5)).expect("asked");
    thread::sleep(Duration::from_millis(200));
}

/// Sends one UDP datagram from a node.
fn send_one(lab: &Lab, node: &str, to: SocketAddr) {
    let text = format!("echo x > /dev/udp/{}/{}", to.ip(), to.port());
    let status = lab.command(node, "bash").expect("a node").args(["-c", &text]).status().expect("it runs");
    assert!(status.success());
}

#[test]
fn peers_on_one_lan_transfer_without_using_the_router() {
    let home = |name: &str, hairpin| Site { peers: 2, hairpin, ..Site::new(name, Kind::PortRestricted) };
    on_both(&[home("flat", true), home("home", false)], |lab, cdn, program| {
        for (site, seed) in [("flat", 1), ("home", 2)] {
            let [first, second] = [1, 2].map(|n| format!("{site}-{n}"));
            let _seeder = seeder(&lab, &cdn, program, (&first, site, seed));
            lab.count_crossing(site).expect("counts");
            let mut client = cdn.client(&lab, &second, program, false).expect("starts");
            settle(&mut client);
            let before = lab.crossed(site).expect("reads");
            let line = client.get(site, WITHIN, |_| {}).expect("asked").expect("an answer");
            assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{site}");
            assert!(line.peer_bytes > line.edge_bytes, "{site}: {line:?}");
            let met = client.meetings().expect("asked");
            assert_eq!(met.len(), 1, "{met:?}");
            assert_eq!(met[0].attempt.rung.as_deref(), Some("an address of its own, with no NAT between"), "{met:?}");
            assert_eq!(lab.crossed(site).expect("reads") - before, 0, "{site}: packets cross the router");
            // checks the counter itself
            send_one(&lab, &second, format!("{NOBODY}:4000").parse().expect("an address"));
            assert_eq!(lab.crossed(site).expect("reads") - before, 1, "{site}");
        }
    });
}

/// Returns the destinations to which a node has sent UDP or TCP packets, except servers, its own router's port
/// mapping, and the peers in `introduced`.
fn strays(lab: &Lab, node: &str, introduced: &[IpAddr]) -> BTreeSet<SocketAddr> {
    let mut servers: BTreeSet<IpAddr> = BTreeSet::new();
    for server in ["edge", "stun"] {
        servers.extend(&lab.node(server).expect("a server").addresses);
    }
    let over = |over| lab.sent_over(node, over).expect("reads").into_keys();
    let gateway = lab.script(node, "ip -4 route show default").expect("a route");
    let gateway = gateway.split(' ').nth(2).and_then(|a| a.parse().ok());
    let asks_router = |a: &SocketAddr| {
        // port mapping: the gateway for PCP and NAT-PMP, the multicast address for SSDP, which finds UPnP gateways
        Some(a.ip()) == gateway || a.to_string() == "239.255.255.250:1900"
    };
    let known = |a: &SocketAddr| servers.contains(&a.ip()) || introduced.contains(&a.ip()) || asks_router(a);
    over(Transport::Udp).chain(over(Transport::Tcp)).filter(|a| !known(a)).collect()
}

fn sum_to(sent: &BTreeMap<SocketAddr, u64>, ip: IpAddr) -> u64 {
    sent.iter().filter(|(to, _)| to.ip() == ip).map(|(_, n)| n).sum()
}

#[test]
fn only_introduced_addresses_get_packets_and_probes_are_bounded() {
    let kinds = [
        ("asks", Kind::PortRestricted),
        ("has", Kind::FullCone),
        // the router becomes symmetric after discovery has found this kind
        ("hard", Kind::PortRestricted),
        ("idle", Kind::Public),
    ];
    let sites = kinds.map(|(name, kind)| Site::new(name, kind));
    on_both(&sites, |mut lab, cdn, program| {
        let nodes = kinds.map(|(name, _)| name);
        nodes.iter().for_each(|node| lab.count_sent(node).expect("counts"));
        // each seeder has its own object; with one object they would connect to each other too, and `hard` would
        // report that
        let _has = seeder(&lab, &cdn, program, ("has", "easy-object", 3));
        let mut hard_client = seeder(&lab, &cdn, program, ("hard", "hard-object", 4));
        let mut idle = cdn.client(&lab, "idle", program, true).expect("starts");
        let mut asks = cdn.client(&lab, "asks", program, false).expect("starts");
        [&mut idle, &mut asks].into_iter().for_each(settle);
        lab.become_kind("hard", Kind::Symmetric).expect("another router");
        nodes.iter().for_each(|node| lab.count_sent(node).expect("counts anew"));

        // the CN introduces the holder; the pair that cannot connect tries for 2.5 s, perhaps twice
        for path in ["hard-object", "easy-object"] {
            let line = asks.get(path, WITHIN, |_| {}).expect("asked").expect("an answer");
            assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{path}");
        }
        thread::sleep(Duration::from_secs(3));
        let outside = |site: &str| IpAddr::V4(lab.outside(site).expect("a site"));
        let met = asks.meetings().expect("asked");
        // the addresses are gone with the downloads: the peers are told apart by their keys
        let peers = |outcome: &str| -> BTreeSet<&str> {
            met.iter().filter(|m| m.attempt.outcome == outcome).map(|m| m.peer.as_str()).collect()
        };
        let (connected, failed) = (peers("connected"), peers("failed"));
        assert!(connected.len() == 1 && failed.len() == 1 && connected.is_disjoint(&failed), "{met:?}");
        assert!(met.iter().all(|m| m.addresses.is_empty() && m.path.is_none()), "{met:?}");

        let [me, has, hard] = ["asks", "has", "hard"].map(outside);
        assert_eq!(strays(&lab, "asks", &[has, hard]), BTreeSet::new());
        assert_eq!(strays(&lab, "has", &[me]), BTreeSet::new());
        assert_eq!(strays(&lab, "hard", &[me]), BTreeSet::new());
        assert_eq!(strays(&lab, "idle", &[]), BTreeSet::new());

        let cfg = Config::default();
        let ends = [asks.ends().expect("reads"), hard_client.ends().expect("reads")];
        for (node, to, ends) in [("asks", hard, &ends[0]), ("hard", me, &ends[1])] {
            let failed: Vec<_> = ends.iter().filter(|e| e.outcome == "failed").collect();
            assert!(!failed.is_empty() && failed.iter().all(|e| e.took_ms <= 6_000), "{node}: {ends:?}");
            let counted = sum_to(&lab.sent(node).expect("reads"), to);
            let said: u64 = failed.iter().map(|e| u64::from(e.probes)).sum();
            assert_eq!(counted, said, "{node} reports every datagram that it sent");
            assert!(failed.iter().all(|e| e.probes <= cfg.per_pair_max), "{node}: {failed:?}");
            // one address, one opening datagram and no answers: no packet came through
            let bound = u64::from(cfg.per_address_max) + 1;
            assert!((1..=bound * failed.len() as u64).contains(&counted), "{node}: {counted}");
        }

        // checks the counter itself: a single packet to a stranger is found
        let to = SocketAddr::new(outside("idle"), 4000);
        send_one(&lab, "asks", to);
        assert_eq!(strays(&lab, "asks", &[has, hard]), BTreeSet::from([to]));
    });
}
