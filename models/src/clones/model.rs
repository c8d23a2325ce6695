//! Models of secondary GUIDs: an installation is copied and restored from a backup, while logins arrive late, twice or
//! never.

use crate::check::{Spec, Tooth};
use crate::clones::{Cfg, Installs, Mutant, RULES, world};
use crate::world::Budget;

fn long(mutant: Option<Mutant>) -> Cfg {
    Cfg { starts: [6, 4], late: 0, budget: Budget { changes: 1, crashes: 1, ..Budget::default() }, mutant }
}

fn late(mutant: Option<Mutant>) -> Cfg {
    Cfg { starts: [3, 3], late: 2, budget: Budget { changes: 1, duplicates: 1, ..Budget::default() }, mutant }
}

/// Returns the model with many starts, any of which may be offline.
pub fn offline() -> Spec<Installs> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: long(Some(mutant)) };
    Spec {
        name: "clones",
        about: "an installation that starts 6 times and is copied at any of them, a copy that starts 4 times and is set \
                back once; any starts are offline",
        cfg: long(None),
        start: world,
        rules: RULES,
        teeth: vec![
            tooth("every other start is not written down", 0, Mutant::StartsAreForgotten),
            tooth("the ledger knows the last login only", 1, Mutant::KeepsLastLogin),
            tooth("a copy draws the same numbers", 2, Mutant::DrawsAlike),
            tooth("one start beside a longer branch is taken for nothing", 2, Mutant::ForgivesOneStart),
            tooth("a login names three starts", 3, Mutant::NamesThree),
            tooth("gaps are bridged by guessing", 3, Mutant::BridgesGaps),
            tooth("gaps are taken for forks", 3, Mutant::GapsAreForks),
        ],
    }
}

/// Returns the model in which logins arrive late, in another order, or twice.
pub fn reordered() -> Spec<Installs> {
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: late(Some(mutant)) };
    Spec {
        name: "clones-late",
        about: "the same with 3 starts each, 2 logins under way at a time, 1 that comes twice",
        cfg: late(None),
        start: world,
        rules: &RULES[..6],
        teeth: vec![tooth("starts are put in the order in which their logins come", 0, Mutant::TakesArrivalForOrder)],
    }
}
