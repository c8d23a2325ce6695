//! Model of grants over clock ticks and rotations of the sealing keys.

use crate::check::{Spec, Tooth};
use crate::grants::{Cfg, Grants, Mutant, RULES, world};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Grants> {
    world(cfg, Budget { drops: 1, changes: 2, fires: 3, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, mutant: Mutant) -> Tooth<Grants> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg { mutant: Some(mutant) } }
}

/// Returns the model of grants, with its bounds and seeded defects.
pub fn spec() -> Spec<Grants> {
    Spec {
        name: "grants",
        about: "1 client, a thief, 2 edges and a CN with 3 settings of their clocks; 3 ticks, 2 rotations, and an edge \
                that fails, a client that sleeps or another version",
        cfg: Cfg::default(),
        start,
        rules: RULES,
        teeth: vec![
            tooth("the CN does not look at the time", 0, Mutant::CnHasNoClock),
            tooth("the CN makes no allowance for skew", 1, Mutant::NoAllowance),
            tooth("the CN checks no signature", 2, Mutant::CnTrusts),
            tooth("the CN does not ask whose a grant is", 2, Mutant::AnyClient),
            tooth("an edge renews without proof of K_d", 2, Mutant::NoProof),
            tooth("a renewal takes the ceiling of the present", 3, Mutant::Widens),
            tooth("a renewal begins another download", 3, Mutant::NewDownload),
            tooth("a renewal takes another K_d", 3, Mutant::NewKey),
            tooth("an edge renews into another version", 4, Mutant::AnyVersion),
            tooth("an edge renews however late", 4, Mutant::RenewsForever),
            tooth("an edge renews however old the download is", 4, Mutant::NeverEnds),
            tooth("a client renews when its grant has expired", 5, Mutant::RenewsLate),
            tooth("a client asks one edge only", 5, Mutant::AsksOneEdge),
            tooth("rotation seals with a key that nobody has heard of", 6, Mutant::SwitchesAtOnce),
            tooth("servers forget the epoch before", 6, Mutant::ForgetsPrevious),
        ],
    }
}
