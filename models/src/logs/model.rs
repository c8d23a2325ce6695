//! Models of clients' record logs: each usage record is durable on the client's disk before it is sent, each log head
//! is signed, and the ledger stores both. If a log forks, its heads prove it.

use crate::check::{Spec, Tooth};
use crate::logs::{FORK_RULES, RULES, cfg, world};
use crate::sim::{Cfg, Mutant, Net};
use crate::world::{Budget, World};

const FIRES: u8 = 9;

fn start(cfg: &Cfg) -> World<Net> {
    world(cfg, Budget { crashes: 1, fires: FIRES, ..Budget::default() })
}

/// Returns the model in which the client, the CN and the ledger crash.
pub fn crashes() -> Spec<Net> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) };
    Spec {
        name: "logs",
        about: "1 client with a record and a receipt of an earlier life, 1 CN and 1 ledger that set aside what does \
                not fit; 1 crash of any",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("a start goes on under the name of the one before", 0, Mutant::StartsRepeat),
            tooth("a record is told that is on no disk", 1, Mutant::SavesAreLost),
            tooth("a start goes on under the name of the one before", 2, Mutant::StartsRepeat),
            tooth("a batch is acknowledged and not kept", 3, Mutant::LedgerLosesBatches),
            tooth("a record gets another id each time it is sent on", 4, Mutant::FreshRecordIds),
            tooth("acknowledgements do not reach the client", 5, Mutant::AcksAreLost),
        ],
    }
}

/// Returns the model in which the client is restored from a backup, so that its log forks.
pub fn forks() -> Spec<Net> {
    let tooth = |defect, rule: &'static str, mutant| Tooth { defect, rule, cfg: cfg(Some(mutant)) };
    Spec {
        name: "logs-forked",
        about: "the same without a crash; the client's machine is set back to an image that was made of it at any time",
        cfg: cfg(None),
        start: |cfg| world(cfg, Budget { changes: 1, fires: FIRES, ..Budget::default() }),
        rules: FORK_RULES,
        teeth: vec![tooth("a batch is acknowledged and not kept", RULES[6].name, Mutant::LedgerLosesBatches)],
    }
}
