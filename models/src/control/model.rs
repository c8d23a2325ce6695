//! Model of sessions and directory, with crashes of CNs and the DN, broken and half-broken connections, and RE-ADD.

use crate::check::{Spec, Tooth};
use crate::control::{RULES, cfg, world};
use crate::sim::{Cfg, Mutant, Net};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Net> {
    world(cfg, Budget { drops: 1, crashes: 1, changes: 1, fires: 2, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: &'static str, mutant: Mutant) -> Tooth<Net> {
    Tooth { defect, rule, cfg: cfg(Some(mutant)) }
}

/// Returns the model of the control plane, with its bounds and seeded defects.
pub fn spec() -> Spec<Net> {
    Spec {
        name: "control",
        about: "2 clients, 2 CNs, 1 DN; 1 crash, 1 (half-)broken connection, uploads turned off, 2 timers, jitter; a \
                copied holder's ticket",
        cfg: cfg(None),
        start,
        rules: RULES,
        teeth: vec![
            tooth(
                "a DN overlooks that uploads were turned off",
                "a client whose user forbids uploads is never chosen",
                Mutant::UploadsOffIsOverlooked,
            ),
            tooth(
                "a CN does not close a connection that another replaces",
                "a client has at most one session on a CN",
                Mutant::ClosesAreLost,
            ),
            tooth(
                "sessions are numbered downwards",
                "of a client's registrations only the newest is listed",
                Mutant::IncarnationsFall,
            ),
            tooth(
                "a CN believes every holder's ticket",
                "a DN lists only holders to whom an edge has granted the version",
                Mutant::TicketsAreBelieved,
            ),
            tooth(
                "an introduction is handed to another client of the same CN",
                "an introduction reaches only the client that it names",
                Mutant::Misdelivers,
            ),
            tooth(
                "a client does not hear that it must tell everything again",
                "left alone, the directory comes to say what is true",
                Mutant::ReaddIsLost,
            ),
        ],
    }
}
