//! Models of port mapping by PCP, NAT-PMP and UPnP, with honest, lying and refusing gateways.

use crate::check::{Spec, Tooth};
use crate::mapping::{Cfg, MappingWorld, Mutant, RULES, world};
use crate::world::Budget;
use swarmedge_core::nat::mapping::io::Protocol;

fn tooth(defect: &'static str, rule: usize, protocol: Protocol, mutant: Mutant) -> Tooth<MappingWorld> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg::tiny(protocol, Some(mutant)) }
}

/// Returns the model of port mapping in which the gateway restarts and loses its mappings.
pub fn forgotten() -> Spec<MappingWorld> {
    let tooth = |defect, rule, mutant| tooth(defect, rule, Protocol::Pcp, mutant);
    Spec {
        name: "mapping",
        about: "1 client, by PCP of a gateway that is honest, lies, refuses, gives another port or for a short time; \
                it begins anew once, 1 loss, 1 late timer, forged answers",
        cfg: Cfg::tiny(Protocol::Pcp, None),
        start: |cfg| world(cfg, Budget { drops: 1, corruptions: 1, early: 1, fires: 2, ..Budget::default() }),
        rules: RULES,
        teeth: vec![
            tooth("every request has the same id, so a forged answer passes", 0, Mutant::RepeatsIds),
            tooth("an open port is not looked at again", 2, Mutant::NeverRechecks),
            tooth("announcements are not heard", 3, Mutant::HearsNoAnnouncement),
            tooth("the machine forgets what its timer was for", 9, Mutant::ForgetsTimers),
        ],
    }
}

/// Returns the model of port mapping in which a port stays open for several lifetimes of its mapping.
pub fn renewed() -> Spec<MappingWorld> {
    let tooth = |defect, rule, mutant| tooth(defect, rule, Protocol::Pcp, mutant);
    Spec {
        name: "mapping-renewed",
        about: "the same for two lifetimes; 1 loss, 1 duplicate, and nobody begins anew",
        cfg: Cfg::tiny(Protocol::Pcp, None),
        start: |cfg| world(cfg, Budget { drops: 1, duplicates: 1, fires: 30, ..Budget::default() }),
        rules: RULES,
        teeth: vec![
            tooth("lifetimes are read as four times as long", 1, Mutant::ReadsLifetimesLong),
            tooth("requests to renew get lost", 4, Mutant::RenewalsAreLost),
        ],
    }
}

/// Returns the model of NAT-PMP, where the external address and the mapped port come in separate answers.
pub fn by_natpmp() -> Spec<MappingWorld> {
    let tooth = |defect, rule, mutant| tooth(defect, rule, Protocol::NatPmp, mutant);
    Spec {
        name: "mapping-natpmp",
        about: "the same by NAT-PMP; the gateway begins anew once",
        cfg: Cfg::tiny(Protocol::NatPmp, None),
        start: |cfg| world(cfg, Budget { corruptions: 1, fires: 3, ..Budget::default() }),
        rules: RULES,
        teeth: vec![
            tooth("announcements are not heard", 3, Mutant::HearsNoAnnouncement),
            tooth("what has failed is tried again at once, and again", 6, Mutant::NeverTires),
        ],
    }
}

/// Returns the model of UPnP: requests take long, and the client may stop at any time and start again.
pub fn client_stops() -> Spec<MappingWorld> {
    let tooth = |defect, rule, mutant| tooth(defect, rule, Protocol::Upnp, mutant);
    Spec {
        name: "mapping-left",
        about: "the same by UPnP, whose requests end late or not at all; the client ends at any time and comes again",
        cfg: Cfg::tiny(Protocol::Upnp, None),
        start: |cfg| world(cfg, Budget { drops: 1, crashes: 1, early: 1, fires: 3, ..Budget::default() }),
        rules: RULES,
        teeth: vec![
            tooth("requests to close get lost", 5, Mutant::ClosesNothing),
            tooth("protocols have their turn for as long as they like", 8, Mutant::HasNoEnd),
        ],
    }
}

/// Returns the model of port mapping in which the host moves to another network.
pub fn moved() -> Spec<MappingWorld> {
    Spec {
        name: "mapping-moved",
        about: "the same, and the client joins another network at any time",
        cfg: Cfg::tiny(Protocol::Upnp, None),
        start: |cfg| world(cfg, Budget { crashes: 1, changes: 1, early: 1, fires: 3, ..Budget::default() }),
        rules: RULES,
        teeth: vec![tooth(
            "the machine is not told that it is on another network",
            7,
            Protocol::Upnp,
            Mutant::KeepsGateway,
        )],
    }
}
