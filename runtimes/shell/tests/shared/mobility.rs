//! Tests clients whose network path changes during a transfer, on real kernel NATs.

use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use swarmedge_natlab::cdn::{Cdn, Client};
use swarmedge_natlab::plan::Site;
use swarmedge_natlab::{Kind, Lab, Plan, require};

const MIB: u64 = 1 << 20;
/// Size of each object in bytes.
const OBJECT_LEN: u64 = 10 * MIB;
/// Rate of each seeder's link: a transfer takes about four seconds.
const LINK_MBIT: u32 = 20;
/// Limit of the edge's rate to one download in bytes a second: the edge alone would take more than a minute.
const EDGE_RATE: u64 = 128 * 1024;
/// Bytes from the peer after which the path changes.
const UNDER_WAY: u64 = 3 * MIB;
/// Time-out for bytes to flow again. With enough processor time it takes less than five seconds, as is printed; five
/// pairs at once on a busy machine have taken eight.
const FLOW_WITHIN: Duration = Duration::from_secs(20);
/// Bytes that may be in flight when the path changes: a peer's window and an edge's.
const IN_FLIGHT_MAX: u64 = 3 * MIB;
const PATIENCE: Duration = Duration::from_secs(60);

/// Change of one peer's network path.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// The NAT gets another address and loses every mapping.
    NatMoves,
    /// The NAT loses every mapping.
    NatForgets,
    /// The host joins another network, with another address of its own and another outside address.
    HostMoves,
}

/// A seeder and a downloader, each behind its own NAT.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    /// NATs of the seeder and of the downloader.
    kinds: [Kind; 2],
    /// Whether the seeder's path changes, not the downloader's.
    of_seeder: bool,
    change: Change,
}

const CASES: [Case; 5] = [
    Case { name: "up", kinds: [Kind::PortRestricted; 2], of_seeder: true, change: Change::NatMoves },
    Case { name: "down", kinds: [Kind::PortRestricted; 2], of_seeder: false, change: Change::NatMoves },
    // QUIC migrates by itself if the server's NAT lets any address in
    Case { name: "open", kinds: [Kind::FullCone, Kind::PortRestricted], of_seeder: false, change: Change::NatMoves },
    Case { name: "flush", kinds: [Kind::PortRestrictedRandom; 2], of_seeder: true, change: Change::NatForgets },
    Case { name: "host", kinds: [Kind::PortRestricted; 2], of_seeder: false, change: Change::HostMoves },
];

impl Case {
    fn seeder(&self) -> String {
        format!("s-{}", self.name)
    }

    fn downloader(&self) -> String {
        format!("d-{}", self.name)
    }

    fn happen(&self, lab: &mut Lab) {
        let site = if self.of_seeder { self.seeder() } else { self.downloader() };
        match self.change {
            Change::NatMoves => lab.rebind(&site).map(drop),
            Change::NatForgets => lab.flush(&site),
            Change::HostMoves => lab
                .script(
                    &site,
                    "old=$(ip -4 -o addr show dev eth0 | awk '{print $4}')\nvia=$(ip route show default | awk '{print $3}')\n\
                     ip addr del $old dev eth0\nip addr add ${old%.*}.77/24 dev eth0\n\
                     ip route replace default via $via\n",
                )
                .and_then(|_| lab.rebind(&site))
                .map(drop),
        }
        .unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }
}

/// Returns the bytes that a node has received on its network interface.
fn received(lab: &Lab, node: &str) -> u64 {
    let text = lab.script(node, "cat /sys/class/net/eth0/statistics/rx_bytes\n").expect("a node");
    text.trim().parse().expect("a number")
}

fn content(seed: u64) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * seed + 1);
    let words = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    words.flatten().take(usize::try_from(OBJECT_LEN).expect("it fits")).collect()
}

fn seed(lab: &Lab, cdn: &Cdn, binary: &Path, case: Case) -> Client {
    let mut seeder = cdn.client(lab, &case.seeder(), binary, true).expect("a seeder");
    let line = seeder.get(case.name, PATIENCE, |_| {}).expect("an answer").expect("a download");
    assert_eq!(line.durable_bytes, OBJECT_LEN, "{}", case.name);
    seeder.settle(PATIENCE).expect("it is known");
    seeder
}

/// Downloads an object and changes the path in the middle.
fn play(lab: &Mutex<Lab>, cdn: &Cdn, binary: &Path, case: Case) {
    let name = case.name;
    let locked = || lab.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut client = cdn.client(&locked(), &case.downloader(), binary, false).expect("a downloader");
    client.settle(PATIENCE).expect("it is known");
    let before = received(&locked(), &case.downloader());
    let (mut changed, mut flows): (Option<(Instant, u64)>, Option<Duration>) = (None, None);
    let line = client.get(name, PATIENCE, |line| match changed {
        None if line.peer_bytes >= UNDER_WAY => {
            case.happen(&mut locked());
            changed = Some((Instant::now(), line.peer_bytes));
        }
        // bytes that arrived before the change are reported up to half a second later
        Some((at, _)) if at.elapsed() < Duration::from_millis(600) => changed = Some((at, line.peer_bytes)),
        Some((at, bytes)) if line.peer_bytes > bytes && flows.is_none() => flows = Some(at.elapsed()),
        Some(_) | None => {}
    });
    let line = line.expect("an answer").expect("a download");
    let whole = received(&locked(), &case.downloader()) - before;
    let shown = format!(
        "{name}: bytes of the peer again after {flows:?}; {:.2} MiB received for {}, {:.2} wasted, {:.2} of the edge",
        whole as f64 / MIB as f64,
        OBJECT_LEN / MIB,
        line.wasted_bytes as f64 / MIB as f64,
        line.edge_bytes as f64 / MIB as f64,
    );
    println!("{shown}");
    let met: Vec<_> = client
        .meetings()
        .expect("an answer")
        .into_iter()
        .map(|m| (m.attempt.outcome, m.attempt.reason, m.attempt.rung))
        .collect();
    println!("{name}: {met:?}");
    let fail = |what: &str| panic!("{what}: {}", client.error(&shown));
    if line.durable_bytes != OBJECT_LEN || line.edge_bytes + line.peer_bytes != OBJECT_LEN {
        fail("the download is not complete, or counted wrongly");
    }
    if flows.is_none_or(|after| after > FLOW_WITHIN) {
        fail("bytes did not flow again in time");
    }
    // packet headers add a twentieth
    if whole > OBJECT_LEN * 21 / 20 + IN_FLIGHT_MAX {
        fail("more was fetched twice than was on its way");
    }
}

/// When a peer's NAT or network changes during a transfer, bytes flow again within seconds, every download completes,
/// and only bytes in flight are fetched twice.
#[test]
fn a_transfer_continues_when_a_network_path_changes() {
    let binary = crate::BINARY;
    let sites = CASES.iter().flat_map(|c| {
        let [seeder, downloader] = c.kinds;
        [Site { rate_mbit: Some(LINK_MBIT), ..Site::new(&c.seeder(), seeder) }, Site::new(&c.downloader(), downloader)]
    });
    let Some(lab) = require::lab(&Plan { sites: sites.collect(), ..Plan::default() }) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let binary = Path::new(binary);
    let cdn = Cdn::start(&lab, dir.path(), binary).expect("servers");
    let publish = |rate| {
        for (n, case) in (0..).zip(CASES) {
            cdn.publish(case.name, &content(n), rate).expect("published");
        }
    };
    publish(0);
    let _seeders: Vec<Client> = thread::scope(|s| {
        let all = CASES.map(|case| {
            s.spawn({
                let (lab, cdn) = (&lab, &cdn);
                move || seed(lab, cdn, binary, case)
            })
        });
        all.into_iter().map(|t| t.join().expect("seeded")).collect()
    });
    publish(EDGE_RATE);
    let lab = Mutex::new(lab);
    thread::scope(|s| {
        for case in CASES {
            let (lab, cdn) = (&lab, &cdn);
            s.spawn(move || play(lab, cdn, binary, case));
        }
    });
}
