//! Models of rekeying: each copy of an installation gets a key of its own, but an installation of which only an old
//! session is left open keeps its key.

use crate::check::{Spec, Tooth};
use crate::rekey::{ALONE_RULES, RULES, cfg, world};
use crate::sim::{Mutant, Net};
use crate::world::Budget;

/// Returns the model of an installation and a copy of it.
pub fn copies() -> Spec<Net> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) };
    Spec {
        name: "rekey",
        about: "a client and a copy of it that starts at any time, 1 CN, 1 ledger; 1 crash, 9 timers",
        cfg: cfg(None),
        start: |cfg| world(cfg, Budget { crashes: 1, changes: 1, fires: 9, ..Budget::default() }),
        rules: RULES,
        teeth: vec![
            tooth("a batch is acknowledged and not kept", 1, Mutant::LedgerLosesBatches),
            tooth("orders to take another key are lost", 2, Mutant::RekeyOrdersAreLost),
            tooth("clients do not hear that their old keys are retired", 2, Mutant::RetirementsAreLost),
        ],
    }
}

/// Returns the model of an installation that has no copy.
pub fn alone() -> Spec<Net> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: ALONE_RULES[rule].name, cfg: cfg(Some(mutant)) };
    Spec {
        name: "rekey-alone",
        about: "the same without a copy; 1 crash or loss of power, 1 (half-)broken connection, 6 timers",
        cfg: cfg(None),
        start: |cfg| world(cfg, Budget { drops: 1, crashes: 1, fires: 6, ..Budget::default() }),
        rules: ALONE_RULES,
        teeth: vec![
            tooth("a session that was left behind answers", 0, Mutant::GhostsAnswer),
            tooth("a session that was left behind answers", 1, Mutant::GhostsAnswer),
        ],
    }
}
