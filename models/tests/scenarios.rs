//! Runs every scenario on the simulator.

use core::time::Duration;
use std::collections::BTreeSet;
use swarmedge_core::wire::records::{LedgerRecord, Side};
use swarmedge_models::scenario::{self, Command, HONEST, Name, Object, Plan, Progress, Rig, Role, Totals};
use swarmedge_models::sim::Move;
use swarmedge_models::sim::machines::RoleCfg;
use swarmedge_models::sim::rig::SimRig;

fn run_scenario(name: &str) {
    let scenario = scenario::ALL.iter().find(|s| s.name == name).expect("it is in the list");
    for seed in 1..=3 {
        let mut rig = SimRig::new(&scenario.plan, seed);
        (scenario.play)(&mut rig).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run_scenario(stringify!($name));
        })*

        #[test]
        fn every_scenario_is_played() {
            let played = [$(stringify!($name)),*];
            let listed: Vec<_> = scenario::ALL.iter().map(|s| s.name).collect();
            assert_eq!(played.as_slice(), listed.as_slice());
        }
    };
}

scenarios! {
    peers_deliver_and_the_ledger_agrees
    the_cn_dies
    the_dn_dies_and_comes_back
    a_seeder_dies
    a_seeder_sends_wrong_bytes
    a_seeder_with_a_rotten_copy_is_told_and_drops_it
    there_is_no_control_plane
    the_edge_is_away_for_a_while
    every_edge_is_away_for_longer_than_a_grant_lasts
    a_client_starts_while_every_edge_is_away
    an_edge_dies_and_another_goes_on
    an_edge_that_can_count_nothing_serves_on
    a_client_dies_and_resumes
    uploads_off_means_off
    a_withdrawn_object_is_shared_no_more
    a_new_policy_reaches_a_transfer_under_way
    who_has_completed_proves_that_it_holds_what_peers_delivered
    a_quarantined_client_is_served_by_the_edge_alone
    the_sealing_keys_are_rotated_twice
    a_forgotten_download_leaves_a_shared_copy
    a_copy_is_uploaded_no_more_often_than_allowed
    pause_resume_cancel
    two_copies_of_a_client_run
    two_copies_of_a_client_run_on_two_cns
    a_client_that_restarts_keeps_its_key
}

/// Starts four clients at once with only a slow edge; returns the bytes they take from each other when downloads query
/// again after `requery`, or after the default if `None`.
fn a_crowd_takes_from_each_other(requery: Option<Duration>) -> u64 {
    let plan = Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients: 4 };
    let mut rig = SimRig::new(&plan, 1);
    for role in &mut rig.cfg.roles {
        let RoleCfg::Client(lives) = role else { continue };
        lives.iter_mut().for_each(|life| life.session.requery.0 = requery.unwrap_or(life.session.requery.0));
    }
    let crowd = 0..plan.clients;
    rig.publish(&Object { path: "film", size: 4 << 20, edge_rate: 1 << 20, upload_rate: 1 << 20, uploads_max: 0 });
    for n in crowd.clone() {
        rig.start_client(n, HONEST);
        rig.command(n, Command::Get("film"));
    }
    let of = |rig: &mut dyn Rig, n| rig.status(n, "film").filter(|s| s.progress == Progress::Completed);
    let all = rig.run_until(Duration::from_secs(60), &mut |rig| crowd.clone().all(|n| of(rig, n).is_some()));
    assert!(all, "the edge alone needs 4 s");
    crowd.filter_map(|n| of(&mut rig, n)).map(|s| s.peer_bytes).sum()
}

#[test]
fn an_early_second_query_finds_peers_that_started_together() {
    let soon = a_crowd_takes_from_each_other(None);
    let late = a_crowd_takes_from_each_other(Some(Duration::from_secs(5)));
    assert!(soon * 2 > late * 3, "{soon} bytes from peers, {late} if each asks again after 5 s");
}

/// Pauses a download of four MiB with a peer half way for `rest`; returns the ledger's totals at its end and the number
/// of downloads reported.
fn resumed_after(rest: Duration, seed: u64) -> (Totals, usize) {
    let plan = Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients: 2 };
    let mut rig = SimRig::new(&plan, seed);
    let film = Object { path: "film", size: 4 << 20, edge_rate: 1 << 19, upload_rate: 1 << 19, uploads_max: 0 };
    rig.publish(&Object { edge_rate: 0, ..film });
    let done = |rig: &mut dyn Rig, n| rig.status(n, film.path).is_some_and(|s| s.progress == Progress::Completed);
    let begin = |rig: &mut SimRig, n| {
        rig.start_client(n, HONEST);
        rig.command(n, Command::Get(film.path));
    };
    begin(&mut rig, 0);
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| done(rig, 0)));
    rig.publish(&film);
    begin(&mut rig, 1);
    let half = |rig: &mut dyn Rig| rig.status(1, film.path).is_some_and(|s| s.durable >= film.size / 4);
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| half(rig)) && !done(&mut rig, 1));
    rig.command(1, Command::Pause(film.path));
    rig.run_until(rest, &mut |_| false);
    rig.command(1, Command::Resume(film.path));
    assert!(
        rig.run_until(Duration::from_secs(120), &mut |rig| done(rig, 1)),
        "seed {seed}: {:?}",
        rig.status(1, "film")
    );
    assert!(rig.status(1, film.path).is_some_and(|s| s.right));
    // every claim reaches the ledger within its time
    let whole = |t: Totals| t.completed == 2 && t.edge_bytes + t.peer_bytes == 2 * film.size;
    let agreed = |t: Totals| whole(t) && t.agreed_bytes == t.peer_bytes;
    assert!(
        rig.run_until(Duration::from_secs(600), &mut |rig| agreed(rig.totals(film.path))),
        "{rest:?} {:?} {:#?}",
        rig.totals("film"),
        rig.world.env.database.values().collect::<Vec<_>>()
    );
    let version = rig.world.env.objects[film.path].version;
    let of_it = |r: &LedgerRecord| r.usage().is_some_and(|u| u.side == Side::Downloader);
    let reported = rig.world.env.database.values().filter(|r| of_it(r) && r.version() == Some(version));
    let reported = reported.filter_map(LedgerRecord::download);
    let downloads = reported.collect::<BTreeSet<_>>().len();
    (rig.totals(film.path), downloads)
}

#[test]
fn a_paused_download_is_billed_once_with_a_renewed_or_new_grant() {
    const SIZE: u64 = 4 << 20;
    for seed in 1..=3 {
        // the grant has expired and is renewed: the download is the same
        let (t, downloads) = resumed_after(Duration::from_secs(20 * 60), seed);
        assert_eq!(downloads, 2, "seed {seed}");
        assert!(t.billed_bytes + t.edge_unique_bytes <= 2 * SIZE, "seed {seed}: {t:?}");
        // on another day the download is granted anew: both together are billed one size, but for bytes that the edge
        // had under way at the pause
        let (t, downloads) = resumed_after(Duration::from_secs(20 * 3600), seed);
        assert_eq!(downloads, 3, "seed {seed}");
        let more = (t.billed_bytes + t.edge_unique_bytes).saturating_sub(2 * SIZE);
        assert!(more <= 1 << 20, "seed {seed}: {t:?}");
        println!("resumed on another day: {more} bytes were sent twice by the edge, none billed twice from peers");
    }
}

/// Moves one of two peers to another network in mid transfer, without any notice.
fn a_peer_moves(seed: u64, moving: u8) {
    let plan = Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients: 2 };
    let mut rig = SimRig::new(&plan, seed);
    let film = Object { path: "film", size: 8 << 20, edge_rate: 1 << 16, upload_rate: 1 << 20, uploads_max: 0 };
    rig.publish(&Object { edge_rate: 0, ..film });
    let begin = |rig: &mut SimRig, n| {
        rig.start_client(n, HONEST);
        rig.command(n, Command::Get(film.path));
    };
    let peer_bytes = |rig: &mut dyn Rig| rig.status(1, film.path).map_or(0, |s| s.peer_bytes);
    let done = |rig: &mut dyn Rig, n| rig.status(n, film.path).is_some_and(|s| s.progress == Progress::Completed);
    begin(&mut rig, 0);
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| done(rig, 0)));
    rig.publish(&film);
    begin(&mut rig, 1);
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| peer_bytes(rig) >= 2 << 20));
    let node = rig.cfg.find(Name(Role::Client, moving)).expect("it is there");
    rig.happen(Move::Rehome(node));
    // let bytes under way to the disk arrive
    rig.run_until(Duration::from_millis(100), &mut |_| false);
    let before = peer_bytes(&mut rig);
    let flows = rig.run_until(Duration::from_secs(5), &mut |rig| peer_bytes(rig) > before);
    assert!(flows, "seed {seed}, client{moving}: bytes of the peer do not flow again within 5 s");
    assert!(rig.run_until(Duration::from_secs(60), &mut |rig| done(rig, 1)), "seed {seed}, client{moving}");
    let s = rig.status(1, film.path).expect("it is known");
    assert_eq!((s.edge_bytes + s.peer_bytes, s.right), (film.size, true));
    // at most four pieces: what the peer had under way at the move, and what peer and edge both sent at the end
    assert!(s.wasted_bytes <= 256 << 10, "more than was in flight: {s:?}");
    assert!(s.peer_bytes > s.edge_bytes * 4, "{s:?}");
}

#[test]
fn a_transfer_survives_a_network_change_of_either_peer() {
    (1..=5).for_each(|seed| [0, 1].into_iter().for_each(|moving| a_peer_moves(seed, moving)));
}
