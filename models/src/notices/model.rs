//! Model of notices to the fleet, which never go back and reach everybody.

use crate::check::{Spec, Tooth};
use crate::notices::{Cfg, Defect, Notices, RULES, world};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Notices> {
    world(cfg, Budget { drops: 1, crashes: 1, corruptions: 1, changes: 1, fires: 2, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, seeded: Defect) -> Tooth<Notices> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg { defect: Some(seeded) } }
}

/// Returns the model of notices, with its bounds and seeded defects.
pub fn spec() -> Spec<Notices> {
    Spec {
        name: "notices",
        about: "a CN and 2 clients, 2 notices in any order, 1 forged, 1 of an edge, 1 broken link, 1 crash, 1 refused \
                write, 2 timers",
        cfg: Cfg::default(),
        start,
        rules: RULES,
        teeth: vec![
            tooth("a client takes older notices, too", 0, Defect::TakesOlder),
            tooth("nobody checks signatures", 1, Defect::SignaturesUnchecked),
            tooth("the CN does not say what has changed", 2, Defect::NotAnnounced),
            tooth("a client does not report what it has after a login", 3, Defect::NotReported),
            tooth("a client acknowledges what is not durable", 4, Defect::AcknowledgedEarly),
            tooth("the CN sends each notice once", 5, Defect::SentOnce),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::broken;

    #[test]
    fn no_rule_is_broken_before_anything_has_happened() {
        let cfg = Cfg::default();
        assert_eq!(broken(RULES, &cfg, &start(&cfg)), None);
    }
}
