//! Models of NAT behaviour discovery, with lost, duplicated, late and forged answers.

use crate::check::{Spec, Tooth};
use crate::discovery::{Cfg, Mutant, NatWorld, RULES, world};
use crate::nat::Kind;
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<NatWorld> {
    world(cfg, Budget { drops: 2, duplicates: 1, changes: 1, early: 0, fires: 40, ..Budget::default() })
}

fn tooth(defect: &'static str, rule: usize, kind: Kind, mutant: Mutant) -> Tooth<NatWorld> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg::of(kind, Some(mutant)) }
}

/// Returns the model of NAT discovery behind a port-restricted NAT, the usual home router.
pub fn home() -> Spec<NatWorld> {
    let kind = Kind::PortRestricted;
    Spec {
        name: "discovery",
        about: "1 client behind a port-restricted NAT, 1 STUN server; 2 losses, 1 duplicate, 1 forgery",
        cfg: Cfg::of(kind, None),
        start,
        rules: RULES,
        teeth: vec![
            tooth("every transaction has the same id, so a forged answer passes", 0, kind, Mutant::RepeatsIds),
            tooth("something else writes to the server's other address first", 0, kind, Mutant::WritesAhead),
            tooth("a round takes ten times as long", 2, Kind::UdpBlocked, Mutant::HasNoEnd),
            tooth("the machine forgets what its timer was for", 3, kind, Mutant::ForgetsTimers),
            tooth("requests are repeated without bound", 4, Kind::UdpBlocked, Mutant::NeverTires),
        ],
    }
}

/// Returns the model of NAT discovery for a client that also listens on TCP.
pub fn listening() -> Spec<NatWorld> {
    let listens = |kind, mutant| Cfg { listens: true, ..Cfg::of(kind, mutant) };
    let (defect, rule) =
        ("something else on the listening port writes to the server's other address first", RULES[1].name);
    let tooth = Tooth { defect, rule, cfg: listens(Kind::Restricted, Some(Mutant::KnocksAhead)) };
    let echo = Tooth {
        defect: "the server's other address repeats what the first one has seen",
        rule: RULES[5].name,
        cfg: listens(Kind::SymmetricSequential, Some(Mutant::EchoesFirst)),
    };
    Spec {
        name: "discovery-listening",
        about: "the same behind a NAT that filters by address, with a listening TCP port; 1 loss",
        cfg: listens(Kind::Restricted, None),
        start: |cfg| world(cfg, Budget { drops: 1, fires: 40, ..Budget::default() }),
        rules: RULES,
        teeth: vec![tooth, echo],
    }
}

/// Returns the model behind a symmetric NAT, which maps each destination to a separate port.
pub fn symmetric() -> Spec<NatWorld> {
    let kind = Kind::SymmetricSequential;
    Spec {
        name: "discovery-symmetric",
        about: "the same behind a sequential symmetric NAT",
        cfg: Cfg::of(kind, None),
        start,
        rules: RULES,
        teeth: vec![tooth("every transaction has the same id, so a forged answer passes", 0, kind, Mutant::RepeatsIds)],
    }
}

/// Returns the model behind a NAT that filters by remote address, not by port.
pub fn restricted() -> Spec<NatWorld> {
    let kind = Kind::Restricted;
    Spec {
        name: "discovery-restricted",
        about: "the same behind a NAT that filters by address alone",
        cfg: Cfg::of(kind, None),
        start,
        rules: RULES,
        teeth: vec![tooth("something else writes to the server's other address first", 0, kind, Mutant::WritesAhead)],
    }
}
