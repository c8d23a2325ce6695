//! Receipts: what downloader, uploaders and the ledger's rules come to together.

use crate::check::{Spec, Tooth};
use swarmedge_core::accounting::receipts::CreditRule;
use swarmedge_core::testing::receipts_world::{BUDGET, Cfg, Mutant, RULES, Swarm, world};
use swarmedge_core::testing::sim::keys;
use swarmedge_core::testing::world::World;

fn cfg(mutant: Option<Mutant>) -> Cfg {
    let credit = CreditRule { first: 64 * 1024, most: 256 * 1024, ..CreditRule::PROTOCOL };
    Cfg { credit, ledger: keys::verify, visits: vec![1, 1], mutant }
}

fn start(cfg: &Cfg) -> World<Swarm> {
    world(cfg, BUDGET)
}

fn tooth(defect: &'static str, rule: usize, mutant: Mutant) -> Tooth<Swarm> {
    Tooth { defect, rule: RULES[rule].name, cfg: cfg(Some(mutant)) }
}

/// See the module.
pub(crate) fn spec() -> Spec<Swarm> {
    let unchecked = Cfg { ledger: |_, _, _, _| true, ..cfg(None) };
    Spec {
        name: "receipts",
        about: "1 downloader of 2 pieces, 2 uploaders, the ledger's rules; 1 crash, 1 broken connection, every one-sided lie",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            Tooth { defect: "the ledger takes receipts unchecked", rule: RULES[0].name, cfg: unchecked },
            tooth("what comes twice is receipted twice", 0, Mutant::DuplicatesCount),
            tooth("what one uploader sent is receipted to the other", 2, Mutant::WrongUploader),
            tooth("credit grows before the receipt is durable", 1, Mutant::CreditBeforeDisk),
            tooth("receipts are not kept", 2, Mutant::ReceiptsAreLost),
            tooth("connections end without the last receipt", 2, Mutant::PartsAtOnce),
        ],
    }
}
