//! Model of a toy system, which tests the checker itself.

use crate::check::{Spec, Tooth};
use crate::toy::{Cfg, RULES, Toy, world};

/// Returns the model: two items, two losses, two duplicates, two early timers.
pub fn spec() -> Spec<Toy> {
    let cfg = Cfg { items: 2, counts_duplicates: false };
    Spec {
        name: "toy",
        about: "a machine that asks for 2 items, 2 losses, 2 duplicates",
        start: world,
        rules: RULES,
        teeth: vec![Tooth {
            defect: "what arrives twice is counted twice",
            rule: "every item is counted at most once",
            cfg: Cfg { counts_duplicates: true, ..cfg.clone() },
        }],
        cfg,
    }
}
