//! Tests clients without UDP: real binaries in a lab, where a firewall passes TCP only.

#[path = "shared/binaries.rs"]
mod binaries;

use binaries::{Program, programs};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use swarmedge_ground::nat::NatLine;
use swarmedge_natlab::cdn::{Cdn, Client};
use swarmedge_natlab::lab::Transport;
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Kind, Lab, Plan, require};

const OBJECT_LEN: usize = 8 << 20;
/// Limits of the edge's rate for one download, in bytes per second: where peers are reachable, and where none is.
const EDGE_RATE: [u64; 2] = [512 << 10, 2 << 20];
/// Text of the command `why` for a connection by TCP simultaneous open.
const SIMULTANEOUS_OPEN: &str = "a TCP connection that both opened at once";
/// Text of the command `why` for a connection that the uploader opened to the downloader.
const UPLOADER_DIALLED: &str = "a TCP port on which the downloader listens, where the uploader came";
/// Time-out of each step, generous for slow machines.
const WITHIN: Duration = Duration::from_secs(120);

/// Runs a test on both runtimes at the same time.
fn on_both(sites: &[Site], test: impl Fn(&Lab, &mut Cdn, &Path) + Sync) {
    let servers = vec![("edge".into(), 1), ("stun".into(), 2)];
    let plan = Plan { sites: sites.to_vec(), servers, ..Plan::default() };
    let run = |program: &Program| {
        let Some(lab) = require::lab(&plan) else { return };
        let dir = tempfile::tempdir().expect("a directory");
        let mut cdn = Cdn::start(&lab, dir.path(), &program.path).expect("the servers start");
        test(&lab, &mut cdn, &program.path);
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

/// Waits until `right` accepts a client's view of its network; returns that view.
fn found(client: &mut Client, what: &str, right: impl Fn(&NatLine) -> bool) -> NatLine {
    let until = Instant::now() + WITHIN;
    loop {
        let nat = client.nat().expect("asked");
        match nat {
            Some(nat) if right(&nat) && client.status().expect("asked").control_connected => return nat,
            nat if Instant::now() > until => panic!("{what}: {nat:?}"),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Starts a client that downloads an object named after its node at full speed; afterwards the edge is limited to
/// `edge_rate`.
fn holder(lab: &Lab, cdn: &Cdn, program: &Path, node: &str, edge_rate: u64) -> Client {
    let seed = node.bytes().fold(0, |n: u8, b| n.wrapping_mul(31).wrapping_add(b));
    cdn.publish(node, &content(seed), 0).expect("published");
    let mut client = cdn.client(lab, node, program, true).expect("starts");
    let line = client.get(node, WITHIN, |_| {}).expect("asked").expect("an answer");
    assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{node} has its object");
    cdn.publish(node, &content(seed), edge_rate).expect("published");
    client
}

/// How a client without UDP can connect over TCP to a client that listens on TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The client without UDP can dial the other client's listening port.
    Door,
    /// The two clients can connect only if both dial at the same time (TCP simultaneous open).
    Crossing,
    /// The two clients cannot connect over TCP.
    None,
}

/// Starts a seeder that has UDP, and that can be reached over TCP in the given way.
fn seeder(lab: &Lab, cdn: &Cdn, program: &Path, node: &str, way: Way) -> Client {
    let mut client = holder(lab, cdn, program, node, EDGE_RATE[usize::from(way == Way::None)]);
    let found_out = |nat: &NatLine| {
        nat.tcp_reached.is_empty() != (way == Way::Door) && nat.tcp_crossing.is_none() != (way == Way::Crossing)
    };
    let nat = found(&mut client, node, |nat| nat.udp && !nat.tcp_ports.is_empty() && found_out(nat));
    let outside = lab.outside(node).expect("a site").to_string();
    assert!(nat.tcp_reached.iter().chain(&nat.tcp_crossing).all(|at| at.starts_with(&outside)), "{node}: {nat:?}");
    let words = nat.words().join("\n");
    let said = match way {
        Way::Door => "peers without UDP can come there",
        Way::Crossing => "peers without UDP can be met there",
        Way::None => "peers without UDP cannot come",
    };
    assert!(words.contains(said), "{node}: {words}");
    client
}

/// Returns the destinations to which a node has sent TCP packets, except servers and the peers in `introduced`.
fn strays(lab: &Lab, node: &str, introduced: &[IpAddr]) -> BTreeSet<SocketAddr> {
    let mut known: BTreeSet<IpAddr> = introduced.iter().copied().collect();
    for server in ["edge", "stun"] {
        known.extend(&lab.node(server).expect("a server").addresses);
    }
    let sent = lab.sent_over(node, Transport::Tcp).expect("reads");
    sent.into_keys().filter(|to| !known.contains(&to.ip())).collect()
}

#[test]
fn without_udp_a_client_downloads_from_peers_over_tcp() {
    let seeders = [
        ("open", Kind::Public, Way::Door),
        ("cone", Kind::FullCone, Way::Door),
        ("closed", Kind::PortRestricted, Way::Crossing),
        ("hard", Kind::Symmetric, Way::None),
    ];
    let mut sites: Vec<Site> = seeders.iter().map(|(name, kind, _)| Site::new(name, *kind)).collect();
    sites.push(Site::new("blocked", Kind::UdpBlocked));
    on_both(&sites, |lab, cdn, program| {
        let _seeders = seeders.map(|(name, _, way)| seeder(lab, cdn, program, name, way));
        lab.count_sent("blocked").expect("counts");
        let mut blocked = cdn.client(lab, "blocked", program, true).expect("starts");
        let nat = found(&mut blocked, "blocked", |nat| {
            !nat.udp && nat.tcp && nat.tcp443 && nat.tcp_address.is_some() && nat.tcp_crossing.is_some()
        });
        let words = nat.words().join("\n");
        assert!(words.contains("UDP is blocked") && words.contains("only over TCP"), "{words}");
        let outside = lab.outside("blocked").expect("a site").to_string();
        assert!(nat.tcp_address.as_ref().is_some_and(|a| a.starts_with(&outside)), "{nat:?}");

        for (name, _, way) in seeders {
            let line = blocked.get(name, WITHIN, |_| {}).expect("asked").expect("an answer");
            assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{name}: {line:?}");
            // only this seeder has the object
            let met = blocked.meetings_of(line.download).expect("asked");
            let its: Vec<_> = met.iter().collect();
            if way != Way::None {
                let rung = if way == Way::Door { "a TCP port on which it listens" } else { SIMULTANEOUS_OPEN };
                assert!(line.peer_bytes > line.edge_bytes, "{name}: {line:?} {met:?}");
                assert_eq!(its.len(), 1, "{met:?}");
                assert_eq!(its[0].attempt.rung.as_deref(), Some(rung), "{met:?}");
                assert!(its[0].path.is_none() && its[0].addresses.is_empty(), "the download is over: {met:?}");
            } else {
                assert_eq!((line.peer_bytes, its.len()), (0, 0), "{name}: {line:?} {met:?}");
            }
            books_agree(cdn, name, line.peer_bytes);
        }
        let introduced = ["open", "cone", "closed"].map(|site| IpAddr::V4(lab.outside(site).expect("a site")));
        assert_eq!(strays(lab, "blocked", &introduced), BTreeSet::new());
        // checks the counter itself
        assert_eq!(strays(lab, "blocked", &[]).iter().map(SocketAddr::ip).collect::<BTreeSet<_>>(), introduced.into());
    });
}

#[test]
fn without_udp_a_client_uploads_to_peers_over_tcp() {
    let sites = [
        ("blocked", Kind::UdpBlocked),
        ("open", Kind::Public),
        ("closed", Kind::PortRestricted),
        ("hard", Kind::Symmetric),
    ]
    .map(|(n, k)| Site::new(n, k));
    on_both(&sites, |lab, cdn, program| {
        lab.count_sent("blocked").expect("counts");
        let mut blocked = holder(lab, cdn, program, "blocked", EDGE_RATE[0]);
        found(&mut blocked, "blocked", |nat| !nat.udp && nat.tcp && nat.tcp443);
        let mut open = cdn.client(lab, "open", program, true).expect("starts");
        found(&mut open, "open", |nat| nat.udp && !nat.tcp_reached.is_empty());
        let line = open.get("blocked", WITHIN, |_| {}).expect("asked").expect("an answer");
        let met = open.meetings().expect("asked");
        assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{line:?}");
        assert!(line.peer_bytes > line.edge_bytes, "{line:?} {met:?}");
        let [meeting] = &met[..] else { panic!("{met:?}") };
        assert_eq!(meeting.attempt.rung.as_deref(), Some(UPLOADER_DIALLED), "{met:?}");
        books_agree(cdn, "blocked", line.peer_bytes);

        // the other holder stops, so that only `blocked` has the object
        drop(open);
        let mut closed = cdn.client(lab, "closed", program, true).expect("starts");
        found(&mut closed, "closed", |nat| nat.udp && nat.tcp_reached.is_empty() && nat.tcp_crossing.is_some());
        let line = closed.get("blocked", WITHIN, |_| {}).expect("asked").expect("an answer");
        let met = closed.meetings().expect("asked");
        assert!(line.peer_bytes > line.edge_bytes, "{line:?} {met:?}");
        let its: Vec<_> = met.iter().filter(|m| m.attempt.outcome == "connected").collect();
        assert_eq!(its.len(), 1, "{met:?}");
        assert_eq!(its[0].attempt.rung.as_deref(), Some(SIMULTANEOUS_OPEN), "{met:?}");
        drop(closed);

        let mut hard = cdn.client(lab, "hard", program, true).expect("starts");
        found(&mut hard, "hard", |nat| nat.udp && nat.tcp_reached.is_empty() && !nat.tcp_ports.is_empty());
        let line = hard.get("blocked", WITHIN, |_| {}).expect("asked").expect("an answer");
        assert_eq!(line.durable_bytes, OBJECT_LEN as u64, "{line:?}");
        let met = hard.meetings().expect("asked");
        assert!(met.iter().all(|m| m.attempt.outcome != "connected"), "{met:?}");
        // only introduced peers were dialled; the second line checks the counter itself
        let introduced = ["open", "closed"].map(|site| IpAddr::V4(lab.outside(site).expect("a site")));
        assert_eq!(strays(lab, "blocked", &introduced), BTreeSet::new());
        assert_eq!(strays(lab, "blocked", &[]).iter().map(SocketAddr::ip).collect::<BTreeSet<_>>(), introduced.into());
    });
}

/// Waits until the ledger's record agrees with the client: every byte recorded once, peer bytes as both sides claim,
/// and no byte billed for peers that the edge also sent.
fn books_agree(cdn: &Cdn, path: &str, peer_bytes: u64) {
    let until = Instant::now() + WITHIN;
    loop {
        let books = cdn.ledger(path).expect("reads");
        let downloads = books["downloads"].as_array().cloned().unwrap_or_default();
        // the other of the two downloads is the seeder's own
        let of = |d: &serde_json::Value, name: &str| d[name].as_u64().unwrap_or(u64::MAX);
        let agrees = |d: &serde_json::Value| {
            let uploaders = d["uploaders"].as_array().cloned().unwrap_or_default();
            let (size, agreed) = (OBJECT_LEN as u64, uploaders.iter().map(|u| of(u, "agreed")).sum::<u64>());
            d["state"] == "completed"
                && agreed == peer_bytes
                && of(d, "edge_claimed") + agreed == size
                && of(d, "peers_billed") == agreed.min(size - of(d, "edge_unique").min(size))
        };
        if downloads.len() == 2 && downloads.iter().any(agrees) {
            return;
        }
        assert!(Instant::now() < until, "{path}, {peer_bytes} bytes of peers: {books:#}");
        thread::sleep(Duration::from_millis(200));
    }
}
