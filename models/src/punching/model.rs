//! Models of hole punching: two peers behind NATs, introduced by a CN, either connect or fail on both sides, whatever
//! messages are lost or duplicated.

use crate::check::{Spec, Tooth};
use crate::nat::Kind;
use crate::punching::{Cfg, Mutant, Punch, RULES, world};
use crate::world::{Budget, World};

fn start(cfg: &Cfg) -> World<Punch> {
    let calm = Budget { drops: 2, duplicates: 1, fires: 6, ..Budget::default() };
    let late = Budget { drops: 1, early: 1, fires: 3, ..Budget::default() };
    world(cfg, if cfg.hurried { late } else { calm })
}

fn tooth(defect: &'static str, rule: usize, kinds: [Kind; 2], mutant: Mutant) -> Tooth<Punch> {
    Tooth { defect, rule: RULES[rule].name, cfg: Cfg::tiny(kinds, Some(mutant)) }
}

fn spec(name: &'static str, about: &'static str, kinds: [Kind; 2], teeth: Vec<Tooth<Punch>>) -> Spec<Punch> {
    Spec { name, about, cfg: Cfg::tiny(kinds, None), start, rules: RULES, teeth }
}

/// Returns the model of two peers behind port-restricted NATs, the usual home routers.
pub fn homes() -> Spec<Punch> {
    let kinds = [Kind::PortRestricted; 2];
    let teeth = vec![
        tooth("the CN aims a host at a bystander", 0, kinds, Mutant::AimsAtBystander),
        tooth("the CN passes on an address with a forged cookie", 0, kinds, Mutant::BelievesAnything),
        tooth("somebody who knows the key answers in the peer's place", 2, kinds, Mutant::KeyLeaks),
        tooth("the same two are introduced twice", 3, kinds, Mutant::IntroducesTwice),
        tooth("one opened NAT counts for two", 4, kinds, Mutant::GoesTooSoon),
        tooth("checks do not reach one side", 7, kinds, Mutant::ChecksAreLost),
    ];
    spec("punching", "2 peers behind port-restricted NATs, 1 CN; 2 losses, 1 duplicate", kinds, teeth)
}

/// Returns the model of two peers of which one's address can be learned only from the connectivity checks that it
/// sends.
pub fn learned() -> Spec<Punch> {
    let kinds = [Kind::Symmetric, Kind::Restricted];
    let teeth = vec![tooth("checks do not reach one side", 7, kinds, Mutant::ChecksAreLost)];
    spec("punching-learned", "a symmetric NAT and one that filters by address", kinds, teeth)
}

/// Returns the model of two peers whose NATs do not let them connect.
pub fn hopeless() -> Spec<Punch> {
    let kinds = [Kind::Symmetric, Kind::PortRestricted];
    let teeth = vec![
        tooth("the CN aims a host at a bystander", 0, kinds, Mutant::AimsAtBystander),
        tooth("hosts know no end of checking", 1, kinds, Mutant::NeverTires),
    ];
    spec("punching-hopeless", "a symmetric NAT and one that filters by port", kinds, teeth)
}

/// Returns the model of a downloader without UDP that dials the uploader's listening TCP port.
pub fn over_tcp() -> Spec<Punch> {
    let kinds = [Kind::UdpBlocked, Kind::Public];
    let door = |mutant| Cfg { doors: [false, true], ..Cfg::tiny(kinds, mutant) };
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: door(Some(mutant)) };
    let teeth = vec![
        tooth("the CN passes on an address with a forged cookie", 0, Mutant::BelievesAnything),
        tooth("the same two are introduced twice", 5, Mutant::IntroducesTwice),
        tooth("the port on which the uploader listens is shut", 7, Mutant::DoorIsShut),
    ];
    let about = "a host without UDP and one that listens on TCP; 2 losses, 1 duplicate";
    Spec { cfg: door(None), ..spec("punching-tcp", about, kinds, teeth) }
}

/// Returns the model of an uploader without UDP that dials the downloader's listening TCP port.
pub fn uploader_dials() -> Spec<Punch> {
    let kinds = [Kind::Public, Kind::UdpBlocked];
    let door = |mutant| Cfg { doors: [true, false], ..Cfg::tiny(kinds, mutant) };
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: door(Some(mutant)) };
    let teeth = vec![
        tooth("the CN passes on an address with a forged cookie", 0, Mutant::BelievesAnything),
        tooth("the same two are introduced twice", 5, Mutant::IntroducesTwice),
        tooth("somebody who knows the key comes in the uploader's place", 6, Mutant::KeyLeaks),
        tooth("the port on which the downloader listens is shut", 7, Mutant::DoorIsShut),
    ];
    let about = "an uploader without UDP and a downloader that listens on TCP; a bystander comes too";
    Spec { cfg: door(None), ..spec("punching-called", about, kinds, teeth) }
}

/// Returns the model of TCP simultaneous open: neither peer accepts connections, so both open one at the same time.
pub fn crossing() -> Spec<Punch> {
    let cross = |mutant| Cfg { crossing: Some(true), ..Cfg::tiny(CROSSING, mutant) };
    let tooth = |defect, rule: usize, mutant| Tooth { defect, rule: RULES[rule].name, cfg: cross(Some(mutant)) };
    let teeth = vec![
        tooth("the CN aims a host at a bystander", 7, Mutant::AimsAtBystander),
        tooth("a connection that both open does not come to be", 7, Mutant::DoorIsShut),
    ];
    let about = "two hosts, one without UDP, that open a TCP connection to one another at once";
    Spec { cfg: cross(None), ..spec("punching-crossing", about, CROSSING, teeth) }
}

/// Returns the model of a TCP simultaneous open that the NATs refuse.
pub fn refused() -> Spec<Punch> {
    let cross = |mutant| Cfg { crossing: Some(false), ..Cfg::tiny(CROSSING, mutant) };
    let defect = "hosts know no end of trying";
    let teeth = vec![Tooth { defect, rule: RULES[5].name, cfg: cross(Some(Mutant::NeverTires)) }];
    let about = "the same two, whose NATs refuse what the other opens";
    Spec { cfg: cross(None), ..spec("punching-refused", about, CROSSING, teeth) }
}

const CROSSING: [Kind; 2] = [Kind::UdpBlocked, Kind::PortRestricted];

/// Returns the model in which timers fire before the messages that they wait for arrive.
pub fn timers_fire_early() -> Spec<Punch> {
    let cfg = Cfg { hurried: true, ..Cfg::tiny([Kind::PortRestricted; 2], None) };
    let about = "the usual pair; 1 loss, 1 timer while something is under way";
    Spec { cfg, ..spec("punching-late", about, [Kind::PortRestricted; 2], vec![]) }
}
