//! Model of the records of introductions, on their way from the CN's spool to the ledger. Bytes of an introduction
//! without a record are not billed.

use crate::check::{Spec, Tooth};
use crate::offers::{RULES, cfg, world};
use crate::sim::{Cfg, Mutant, Net};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Net> {
    world(cfg, Budget { drops: 1, crashes: 1, fires: 3, ..Budget::default() })
}

/// Returns the model of introduction records, with its bounds and seeded defects.
pub fn spec() -> Spec<Net> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) };
    Spec {
        name: "offers",
        about: "2 clients, of which one looks for a peer, 1 CN with a spool, 1 DN, 1 ledger; 1 crash, 1 refused write, 3 \
                timers",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("the spool says that it has taken an offer, and has not", 0, Mutant::SpoolLosesOffers),
            tooth("a batch is acknowledged and not kept", 0, Mutant::LedgerLosesBatches),
            tooth("a CN that starts does not look into its spool", 1, Mutant::OffersNotReplayed),
        ],
    }
}
