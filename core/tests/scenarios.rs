//! Every scenario on the simulator.

use swarmedge_core::testing::scenario;
use swarmedge_core::testing::sim::Mutant;
use swarmedge_core::testing::sim::campaign;
use swarmedge_core::testing::sim::rig::SimRig;

fn play(name: &str) {
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
            play(stringify!($name));
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
    there_is_no_control_plane
    the_edge_is_away_for_a_while
    a_client_dies_and_resumes
    uploads_off_means_off
    pause_resume_cancel
}

#[test]
fn random_faults_break_no_promise() {
    for seed in 0..25 {
        let outcome = campaign::run(seed, None);
        assert_eq!(outcome.failure, None, "replay: swarmedge-models simulate --seed {seed}");
    }
}

#[test]
fn campaigns_find_seeded_defects() {
    let defects = [
        Mutant::BadBlockCounts,
        Mutant::SavesAreLost,
        Mutant::UploadsOffIsOverlooked,
        Mutant::ReaddIsLost,
        Mutant::Misdelivers,
    ];
    for defect in defects {
        let found = (0..60).find(|&seed| campaign::run(seed, Some(defect)).failure.is_some());
        assert!(found.is_some(), "no campaign notices {defect:?}");
    }
}
