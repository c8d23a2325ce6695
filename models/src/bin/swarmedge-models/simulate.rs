//! Plays random campaigns on the simulator, or the script of one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;
use swarmedge_models::sim::campaign::{self, Outcome, Script};

/// Plays the campaign of every seed; prints the campaigns that failed with their scripts, how often each kind of step
/// happened, and a summary. Returns whether none failed.
pub(crate) fn run(seeds: Range<u64>) -> bool {
    let began = Instant::now();
    let (mut faults, mut clients, mut virtual_s, mut failed) = (0_u64, 0_u64, 0.0, 0);
    let mut kinds: BTreeMap<&'static str, (u32, u32)> = BTreeMap::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = campaign::run(seed, None);
        faults += u64::from(outcome.faults);
        clients += u64::from(outcome.script.plan.clients);
        virtual_s += outcome.took.as_secs_f64();
        for (kind, (all, met)) in &outcome.kinds {
            let sum = kinds.entry(kind).or_default();
            *sum = (sum.0 + all, sum.1 + met);
        }
        failed += u64::from(!print(&format!("seed {seed}"), &outcome));
    }
    println!("{:<20} {:>9}  met a running transfer", "kind of step", "happened");
    for (kind, (all, met)) in kinds {
        println!("{kind:<20} {all:>9}  {met:>9}");
    }
    println!(
        "{count} seeds, {faults} faults, {clients} clients, {virtual_s:.0} s simulated in {:.1} s; {failed} failed",
        began.elapsed().as_secs_f64()
    );
    failed == 0
}

/// Plays a script; prints whether it failed and, if so and wanted, a shorter one that does. `trace`: prints all events
/// too. Returns whether it held.
pub(crate) fn replay(text: &str, trace: bool, shorten: bool) -> Result<bool, String> {
    let script: Script = text.parse()?;
    let play = |script: &Script| if trace { campaign::trace(script) } else { campaign::replay(script, None) };
    let good = print("the script", &play(&script));
    if !good && shorten {
        println!("a shorter script:\n{}", campaign::shorten(&script, None));
    }
    Ok(good)
}

/// Prints a campaign that failed, with its script; returns whether it held.
fn print(what: &str, outcome: &Outcome) -> bool {
    if let Some(why) = &outcome.failure {
        println!(
            "{what} FAILED: {why}\n  replay with this script, also after the draws have changed: simulate --script FILE"
        );
        println!("{}", outcome.script);
    }
    outcome.failure.is_none()
}
