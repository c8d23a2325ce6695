//! Model of usage records, delivered from the client to the ledger exactly once.

use crate::check::{Spec, Tooth};
use crate::sim::{Cfg, Mutant, Net};
use crate::usage::{RULES, cfg, world};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Net> {
    world(cfg, Budget { drops: 1, crashes: 1, fires: 3, early: 1, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, mutant: Mutant) -> Tooth<Net> {
    Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) }
}

/// Returns the model of usage records, with its bounds and seeded defects.
pub fn spec() -> Spec<Net> {
    Spec {
        name: "usage",
        about: "1 client with 3 records, 1 CN, 1 ledger; 1 crash, 1 broken connection or refused batch, 3 timers",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("a batch is acknowledged and not kept", 0, Mutant::LedgerLosesBatches),
            tooth("a record gets another id each time it is sent on", 1, Mutant::FreshRecordIds),
            tooth("acknowledgements do not reach the client", 2, Mutant::AcksAreLost),
        ],
    }
}
