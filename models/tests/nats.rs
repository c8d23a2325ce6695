//! Deployments whose clients are behind NATs of all kinds: pairs that can connect do, and every client completes.

use core::time::Duration;
use swarmedge_models::nat::{Expect, Kind, expected};
use swarmedge_models::scenario::{Command, HONEST, Name, Object, Plan, Progress, Rig, Role, Status};
use swarmedge_models::sim::access::Access;
use swarmedge_models::sim::rig::SimRig;
use swarmedge_models::sim::{Move, campaign};

const WITHIN: Duration = Duration::from_secs(300);
const SIZE: u64 = 2 << 20;

/// Returns whether a pair connects according to the lab of real NATs.
fn connects(a: Kind, b: Kind) -> bool {
    matches!(expected(a, b), Expect::Connects | Expect::ByPrediction)
}

fn deployment(kinds: &[Kind], seed: u64) -> SimRig {
    let clients = u8::try_from(kinds.len()).expect("few clients");
    let mut rig = SimRig::new(&Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients }, seed);
    let ix = |n| rig.cfg.find(Name(Role::Client, n)).expect("the plan has it");
    let access = Access::of((0..clients).map(ix).zip(kinds.iter().copied()));
    rig.world.env.access = access;
    rig.publish(&Object { path: "film", size: SIZE, edge_rate: 64 << 10, upload_rate: 0, uploads_max: 0 });
    rig
}

/// Starts a client, gets the film and waits until it is complete.
fn get(rig: &mut SimRig, client: u8) -> Status {
    rig.start_client(client, HONEST);
    rig.run_until(Duration::from_secs(2), &mut |_| false);
    rig.command(client, Command::Get("film"));
    let done = rig.run_until(WITHIN, &mut |rig| {
        rig.status(client, "film").is_some_and(|s| s.progress == Progress::Completed && s.right)
    });
    assert!(done, "client {client}: {:?}", rig.status(client, "film"));
    rig.status(client, "film").expect("it is known")
}

#[test]
fn exactly_the_pairs_of_the_compatibility_table_connect() {
    for (i, a) in Kind::ALL.into_iter().enumerate() {
        for b in &Kind::ALL[i..] {
            let mut rig = deployment(&[a, *b], 1);
            get(&mut rig, 0);
            let met = get(&mut rig, 1).peer_bytes > 0;
            assert_eq!(met, connects(a, *b), "{} and {}", a.name(), b.name());
        }
    }
}

#[test]
fn in_a_mixed_population_all_complete_and_loners_use_the_edge() {
    use Kind::{Cgnat, FullCone, PortRestricted, Public, Symmetric, SymmetricSequential, UdpBlocked};
    let kinds = [PortRestricted, UdpBlocked, Symmetric, SymmetricSequential, Cgnat, Public, FullCone, Symmetric];
    for seed in 1..=3 {
        let mut rig = deployment(&kinds, seed);
        let ended: Vec<Status> = (0..8).map(|n| get(&mut rig, n)).collect();
        for (n, status) in ended.iter().enumerate() {
            let met = kinds[..n].iter().any(|k| connects(*k, kinds[n]));
            assert_eq!(status.peer_bytes > 0, met, "seed {seed}: {n}, {}", kinds[n].name());
            assert_eq!(status.edge_bytes + status.peer_bytes, SIZE);
        }
        assert!(ended[7].peer_bytes > ended[7].edge_bytes, "the last one finds those that do not filter by port");
    }
}

#[test]
fn without_udp_a_client_downloads_over_tcp_from_listening_peers() {
    use Kind::{FullCone, PortRestricted, Public, UdpBlocked};
    let with = |first: Kind, listening| {
        let mut rig = deployment(&[first, UdpBlocked], 1);
        rig.world.env.access.listening = listening;
        get(&mut rig, 0);
        get(&mut rig, 1).peer_bytes
    };
    assert!(with(Public, true) > 0);
    // both clients open a connection at once
    assert!(with(PortRestricted, true) > 0 && with(UdpBlocked, true) > 0);
    // no TCP port can be reached in these cases, so there is nothing to dial
    assert_eq!([with(PortRestricted, false), with(FullCone, true), with(Public, false)], [0; 3]);
}

#[test]
fn without_udp_a_client_dials_listening_downloaders_to_serve_them() {
    use Kind::{FullCone, Public, UdpBlocked};
    let serves = |second: Kind, listening| {
        let mut rig = deployment(&[UdpBlocked, second], 1);
        rig.world.env.access.listening = listening;
        get(&mut rig, 0);
        get(&mut rig, 1).peer_bytes
    };
    assert!(serves(Public, true) > 0);
    assert_eq!([serves(FullCone, true), serves(Public, false)], [0; 2]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let play = |seed| {
        let mut rig = deployment(&[Kind::PortRestricted, Kind::SymmetricSequential, Kind::Symmetric], seed);
        let ended: Vec<Status> = (0..3).map(|n| get(&mut rig, n)).collect();
        (ended, rig.world.now, rig.world.env)
    };
    assert!(play(7) == play(7));
}

#[test]
fn behind_mixed_nats_downloads_complete_after_random_faults() {
    // odd seeds draw the clients' kinds of NAT
    for seed in [1, 3, 5, 7] {
        let outcome = campaign::run(seed, None);
        assert_eq!(outcome.failure, None, "seed {seed}");
    }
}

/// Moves one of two clients to another network in mid transfer, with a NAT of the same kind but another public address.
/// Returns the time until bytes of the peer flow again; `None` if that takes longer than a minute.
fn flows_again(kinds: [Kind; 2], seed: u64, moving: u8) -> Option<Duration> {
    let mut rig = deployment(&kinds, seed);
    let film = Object { path: "film", size: 32 << 20, edge_rate: 64 << 10, upload_rate: 256 << 10, uploads_max: 0 };
    rig.publish(&Object { edge_rate: 0, ..film });
    get(&mut rig, 0);
    rig.publish(&film);
    rig.start_client(1, HONEST);
    rig.command(1, Command::Get(film.path));
    let peer_bytes = |rig: &mut dyn Rig| rig.status(1, film.path).map_or(0, |s| s.peer_bytes);
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| peer_bytes(rig) >= 2 << 20), "{kinds:?} {seed}");
    let node = rig.cfg.find(Name(Role::Client, moving)).expect("it is there");
    rig.happen(Move::Rehome(node));
    // let bytes under way to the disk arrive
    rig.run_until(Duration::from_millis(100), &mut |_| false);
    let (before, moved_at) = (peer_bytes(&mut rig), rig.world.now);
    let flows = rig.run_until(Duration::from_secs(60), &mut |rig| peer_bytes(rig) > before);
    flows.then(|| rig.world.now.since(moved_at))
}

#[test]
fn bytes_flow_again_soon_after_the_nat_of_either_peer_has_moved() {
    use Kind::{Cgnat, FullCone, PortRestricted, Public, Symmetric};
    let pairs = [[PortRestricted; 2], [Public, PortRestricted], [FullCone, Symmetric], [Cgnat, PortRestricted]];
    let mut longest = Duration::ZERO;
    for kinds in pairs {
        for (seed, moving) in (1..=5).flat_map(|seed| [(seed, 0), (seed, 1)]) {
            let took = flows_again(kinds, seed, moving).unwrap_or(Duration::MAX);
            println!("{kinds:?} seed {seed} client{moving}: {took:?}");
            longest = longest.max(took);
        }
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
