//! Model of blames: small numbers of votes stand for those in production.

use crate::blames::{Cfg, Court, Mutant, RULES, world};
use crate::check::{Spec, Tooth};
use crate::world::{Budget, World};
use std::time::Duration;
use swarmedge_core::selection::blames::Rules;

/// Rules of the model's DN: two /24 hide, two AS suspend, three delist.
const SMALL: Rules = Rules { hide_at: 2, suspend_at: 2, delist_at: 3, ..Rules::USUAL };

fn start(cfg: &Cfg) -> World<Court> {
    world(cfg, Budget { changes: 6, fires: 4, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, mutant: Mutant) -> Tooth<Court> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg::new(SMALL, Some(mutant)) }
}

/// Returns a tooth whose DN has other rules than it is to keep.
fn other_rules(defect: &'static str, rule: usize, rules: Rules) -> Tooth<Court> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg { rules: SMALL, ..Cfg::new(rules, None) } }
}

/// Returns the model of blames, with its bounds and seeded defects.
pub fn spec() -> Spec<Court> {
    Spec {
        name: "blames",
        about: "1 DN, 1 holder, 5 clients of three networks that blame it, of which one moves; 6 blames, moves, proofs \
                or waits, 4 timers",
        cfg: Cfg::new(SMALL, None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("geolocation gives each client a network of its own", 0, Mutant::NetworksAreInvented),
            other_rules("a suspension lasts for an hour", 1, Rules { suspend_for: Duration::from_secs(3600), ..SMALL }),
            other_rules("no number of votes delists", 2, Rules { delist_at: usize::MAX, ..SMALL }),
            other_rules("no network is hidden from", 3, Rules { hide_at: usize::MAX, ..SMALL }),
            tooth("the DN hears of no proof", 4, Mutant::ProofsAreLost),
            tooth("requests to check a copy are lost", 5, Mutant::ChecksAreLost),
            tooth("a client has another GUID after it has moved", 6, Mutant::GuidsAreFresh),
        ],
    }
}
