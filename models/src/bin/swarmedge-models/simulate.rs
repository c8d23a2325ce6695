//! Plays random campaigns on the simulator.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use swarmedge_models::sim::campaign;

/// Plays the campaign of every seed, prints the campaigns that failed and a summary; returns whether none failed.
pub(crate) fn run(seeds: Range<u64>) -> bool {
    let began = Instant::now();
    let (mut faults, mut clients, mut virtual_s, mut failed) = (0_u64, 0_u64, 0.0, Vec::new());
    let count = seeds.end - seeds.start;
    for seed in seeds {
        // a failed assertion in a machine fails its seed, not the campaign
        let failure = match catch_unwind(AssertUnwindSafe(|| campaign::run(seed, None))) {
            Ok(outcome) => {
                faults += u64::from(outcome.faults);
                clients += u64::from(outcome.clients);
                virtual_s += outcome.took.as_secs_f64();
                outcome.failure
            }
            Err(_) => Some("a machine panicked (see above)".into()),
        };
        if let Some(why) = failure {
            println!("seed {seed} FAILED: {why}\n  replay: swarmedge-models simulate --seed {seed}");
            failed.push(seed);
        }
    }
    println!(
        "{count} seeds, {faults} faults, {clients} clients, {virtual_s:.0} s simulated in {:.1} s; {} failed",
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    failed.is_empty()
}
