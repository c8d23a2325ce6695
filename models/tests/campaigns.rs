//! Campaigns: seeds under random faults, and the scripts that they leave.

use std::path::Path;
use swarmedge_models::sim::Mutant;
use swarmedge_models::sim::campaign::{Outcome, Script, Step, replay, run, shorten};

#[test]
fn random_faults_violate_no_invariant() {
    for seed in 0..60 {
        let outcome = run(seed, None);
        assert_eq!(outcome.failure, None, "seed {seed}, replay with:\n{}", outcome.script);
    }
}

#[test]
fn scripts_of_failures_that_were_found_hold_now() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("it is there").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert_eq!(files.len(), 6);
    for file in files {
        let script: Script = std::fs::read_to_string(&file).expect("a text").parse().expect("a script");
        let outcome = replay(&script, None);
        assert_eq!(outcome.failure, None, "{}", file.display());
        assert_eq!(outcome.script.steps, script.steps, "{}: every step is possible", file.display());
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
        Mutant::SpoolLosesOffers,
        Mutant::JournalIsBelieved,
    ];
    for defect in defects {
        let found = (0..400).find(|&seed| run(seed, Some(defect)).failure.is_some());
        assert!(found.is_some(), "no campaign notices {defect:?}");
    }
}

#[test]
fn a_script_gives_the_same_run_as_the_seed_that_left_it() {
    for seed in 0..4 {
        let played = run(seed, None);
        let script: Script = played.script.to_string().parse().expect("as it was printed");
        assert_eq!(script, played.script);
        let again = replay(&script, None);
        let facts = |o: &Outcome| (o.kinds.clone(), o.faults, o.took, o.failure.clone(), o.script.clone());
        assert_eq!(facts(&again), facts(&played), "seed {seed}");
    }
}

#[test]
fn a_failing_script_is_shortened_to_the_steps_that_matter() {
    let defect = Some(Mutant::BadBlockCounts);
    let failed = (0..400).map(|seed| run(seed, defect)).find(|o| o.failure.is_some()).expect("it is noticed");
    let short = shorten(&failed.script, defect);
    assert!(replay(&short, defect).failure.is_some());
    assert!(short.steps.len() < failed.script.steps.len(), "{short}");
    let all_matter = (0..short.steps.len()).all(|n| {
        let mut without = short.clone();
        without.steps.remove(n);
        replay(&without, defect).failure.is_none()
    });
    assert!(all_matter, "{short}");
}

#[test]
fn every_kind_of_step_happens_and_its_text_is_read_back() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..60 {
        for (_, step) in run(seed, None).script.steps {
            seen.insert(step.kind());
            assert_eq!(step.to_string().parse::<Step>(), Ok(step));
        }
    }
    assert_eq!(seen.len(), 29, "{seen:?}");
    for bad in ["", "crash", "crash client", "crash nobody1", "get 1 four", "uploads 1 maybe", "set-back 1"] {
        assert!(bad.parse::<Step>().is_err(), "{bad}");
    }
}
