//! Models of an edge's records, from its spool to the ledger: delivered exactly once, and billed rightly.

use crate::check::{Spec, Tooth};
use crate::spool::{Cfg, Delivery, Mutant, RULES, world};
use crate::world::Budget;

fn crashing(mutant: Option<Mutant>) -> Cfg {
    Cfg { budget: Budget { crashes: 1, fires: 6, early: 1, ..Budget::default() }, mutant }
}

fn breaking(mutant: Option<Mutant>) -> Cfg {
    Cfg { budget: Budget { drops: 1, duplicates: 1, fires: 6, ..Budget::default() }, mutant }
}

/// Returns the model with crashes.
pub fn crashes() -> Spec<Delivery> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: crashing(Some(mutant)) };
    Spec {
        name: "spool",
        about: "1 edge that grants and serves a download in 2 parts, 1 ledger that takes 2 records at once; 1 crash, 6 \
                timers, of which 1 fires while messages are under way",
        cfg: crashing(None),
        start: world,
        rules: RULES,
        teeth: vec![
            tooth("bytes are counted under a grant without a durable record", 0, Mutant::SpoolLosesGrants),
            tooth("a batch is acknowledged and not kept", 1, Mutant::LedgerLosesBatches),
            tooth("a batch is acknowledged before it is durable", 1, Mutant::AcksAhead),
            tooth("a record gets another id each time it is sent", 2, Mutant::FreshIds),
            tooth("acknowledgements do not reach the edge", 3, Mutant::AcksAreLost),
            tooth("records in the spool are not sent again after a crash", 3, Mutant::RecordsNotReplayed),
            tooth("counts in the spool are forgotten in a crash", 4, Mutant::CountsNotReplayed),
            tooth("room is not reserved before bytes are sent", 4, Mutant::NoReserve),
            tooth("what has left is not counted", 5, Mutant::CountsAreLost),
        ],
    }
}

/// Returns the model with broken links, disk errors and duplicated acknowledgements.
pub fn breaks() -> Spec<Delivery> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: breaking(Some(mutant)) };
    Spec {
        name: "spool-broken",
        about: "the same without a crash, and a client that goes on without peers; 1 broken link or refused write, 1 acknowledgement that comes twice",
        cfg: breaking(None),
        start: world,
        rules: &RULES[..10],
        teeth: vec![
            tooth("a batch is acknowledged and not kept", 1, Mutant::LedgerLosesBatches),
            tooth("a record gets another id each time it is sent", 2, Mutant::FreshIds),
            tooth("what the edge withholds is sent all the same", 6, Mutant::SendsWithheld),
            tooth("who goes on without peers keeps the download", 7, Mutant::KeepsDownload),
        ],
    }
}
