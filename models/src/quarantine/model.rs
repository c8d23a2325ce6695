//! Model of quarantine, which must never block downloads from the edge.

use crate::check::{Spec, Tooth};
use crate::quarantine::{RULES, cfg, world};
use crate::sim::{Cfg, Mutant, Net};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Net> {
    world(cfg, Budget { changes: 2, fires: 2, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, mutant: Mutant) -> Tooth<Net> {
    Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) }
}

/// Returns the model of quarantine, with its bounds and seeded defects.
pub fn spec() -> Spec<Net> {
    Spec {
        name: "quarantine",
        about: "2 clients, of which one downloads what the other has; the downloader is put into quarantine and let out; \
                1 edge, CN, DN and ledger; 2 timers",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("an edge grants nothing to who is in quarantine", 0, Mutant::EdgesDenySuspects),
            tooth("an edge sends nothing to who is in quarantine", 0, Mutant::EdgesStarveSuspects),
            tooth("CNs do not hear who is in quarantine", 1, Mutant::QuarantineIsLost),
        ],
    }
}
