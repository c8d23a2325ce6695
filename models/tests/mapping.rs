//! Port mapping against gateways that tell the truth, lie, forget and break.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names the one variant that it expects")]

#[path = "mapping/properties.rs"]
mod properties;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::machine::Time;
use swarmedge_core::nat::mapping::io::{Config, Protocol, Status, Why};
use swarmedge_models::discovery::{Cfg, Move, NatWorld, world};
use swarmedge_models::nat::{Kind, Offers, Truth};
use swarmedge_models::rng::Seeded;
use swarmedge_models::world::{Act, Budget, Way, World};

const ALL: [Protocol; 3] = [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp];
/// Lifetime of mappings in seconds: short, since a world's time ends after an hour.
const LIFETIME_S: u32 = 600;

fn offers(protocol: Protocol, truth: Truth) -> Offers {
    Offers { protocol, truth, lifetime_s: LIFETIME_S }
}

struct Lab {
    cfg: Cfg,
    w: World<NatWorld>,
    rng: Seeded,
}

impl Lab {
    /// Runs until port mapping has finished.
    fn of(cfg: Cfg) -> Self {
        let mut lab = Self { w: world(&cfg, Budget { corruptions: 1, ..Budget::default() }), cfg, rng: Seeded::new(1) };
        lab.act(Move::Start);
        let settled = |w: &World<NatWorld>| w.env.report.is_some() && w.env.mapping != Status::Busy;
        assert!(lab.until(settled), "it comes to an end: {:?}", lab.w.env.mapping);
        lab
    }

    fn offering(kind: Kind, protocol: Protocol, truth: Truth) -> Self {
        Self::of(Cfg::offering(kind, offers(protocol, truth), None))
    }

    fn act(&mut self, mv: Move) {
        self.w.step(&self.cfg, &Act::Move(mv), &mut self.rng);
    }

    fn until(&mut self, goal: impl Fn(&World<NatWorld>) -> bool) -> bool {
        self.w.settle(&self.cfg, 3_000, &mut self.rng, goal)
    }

    fn status(&self) -> Status {
        self.w.env.mapping
    }

    /// Returns the forwarded address that peers are told, and whether the router forwards it to the main socket.
    fn told(&self) -> Option<(SocketAddr, bool)> {
        let told = self.w.env.told.forwarded()?;
        let forwards = self.w.env.router().and_then(|r| r.forwards(self.w.now, told.port()));
        Some((told, forwards == Some(self.w.env.main())))
    }
}

#[test]
fn a_gateway_of_each_protocol_opens_a_port_behind_each_kind_of_nat() {
    for protocol in ALL {
        for kind in [Kind::PortRestricted, Kind::Restricted, Kind::Symmetric, Kind::SymmetricSequential] {
            let lab = Lab::offering(kind, protocol, Truth::Honest);
            let Status::Open { protocol: by, external, .. } = lab.status() else { panic!("{:?}", lab.status()) };
            assert_eq!(by, protocol);
            assert_eq!(lab.told(), Some((external.into(), true)), "{protocol:?} {kind:?}");
            let nat = &lab.w.env.told;
            assert_eq!((nat.mapping, nat.filtering), kind.behaviour(), "what was observed stays as it was");
            let bound = Config::default().within + swarmedge_core::nat::discovery::io::Config::default().within;
            assert!(lab.w.now <= Time::ZERO.after(bound), "{protocol:?} {kind:?}: {:?}", lab.w.now);
        }
    }
}

#[test]
fn a_mapped_tcp_port_is_open_only_if_a_connection_came_through() {
    for protocol in ALL {
        for (kind, truth) in [
            (Kind::Symmetric, Truth::Honest),
            (Kind::PortRestricted, Truth::Honest),
            (Kind::Symmetric, Truth::Lies),
            (Kind::Symmetric, Truth::Refuses(2)),
        ] {
            let cfg = Cfg { listens: true, ..Cfg::offering(kind, offers(protocol, truth), None) };
            let mut lab = Lab::of(cfg);
            lab.act(Move::Listen);
            lab.until(|w| truth == Truth::Honest && !w.env.told.doors.is_empty());
            let doors: Vec<_> = lab.w.env.told.doors.iter().copied().collect();
            if truth != Truth::Honest {
                assert_eq!(doors, [], "{protocol:?} {kind:?} {truth:?}");
                continue;
            }
            let [door] = doors[..] else { panic!("{protocol:?} {kind:?}: {doors:?}") };
            let forwards = lab.w.env.router().and_then(|r| r.forwards(lab.w.now, door.port()));
            assert_eq!(forwards, Some(lab.w.env.door()), "{protocol:?} {kind:?}");
            assert_ne!(Some(door), lab.w.env.told.forwarded(), "each has a port of its own");
            lab.act(Move::Leave);
            lab.until(|w| w.env.router().is_some_and(|r| r.forwards(w.now, door.port()).is_none()));
            let open = lab.w.env.router().and_then(|r| r.forwards(lab.w.now, door.port()));
            assert_eq!(open, None, "{protocol:?} {kind:?}: what was opened is closed");
        }
    }
}

#[test]
fn without_a_nat_or_against_the_users_will_the_gateway_is_not_asked() {
    let public = Lab::offering(Kind::Public, Protocol::Pcp, Truth::Honest);
    assert_eq!((public.status(), public.told()), (Status::Unneeded, None));
    let mut cfg = Cfg::offering(Kind::Symmetric, offers(Protocol::Pcp, Truth::Honest), None);
    cfg.mapping.enabled = false;
    let off = Lab::of(cfg);
    assert_eq!((off.status(), off.told()), (Status::Off, None));
    let blocked = Lab::offering(Kind::UdpBlocked, Protocol::Pcp, Truth::Honest);
    assert_eq!((blocked.status(), blocked.told()), (Status::Unneeded, None));
}

#[test]
fn a_port_that_is_not_open_is_not_claimed_whatever_the_gateway_says() {
    for protocol in ALL {
        for kind in [Kind::PortRestricted, Kind::Restricted, Kind::Symmetric, Kind::MasqueradeOpen] {
            let lab = Lab::offering(kind, protocol, Truth::Lies);
            assert_eq!(lab.told(), None, "{protocol:?} {kind:?}");
            let deaf = matches!(lab.status(), Status::Failed(Why::Deaf { .. }));
            assert!(deaf, "{protocol:?} {kind:?}: {:?}", lab.status());
        }
    }
}

#[test]
fn behind_another_nat_the_gateways_address_is_not_the_worlds() {
    for protocol in ALL {
        for kind in [Kind::Cgnat, Kind::CgnatSymmetric] {
            let lab = Lab::offering(kind, protocol, Truth::Honest);
            assert_eq!(lab.told(), None);
            let external = Ipv4Addr::new(100, 64, 9, 2);
            assert_eq!(lab.status(), Status::Failed(Why::DoubleNat { protocol, external }), "{kind:?}");
        }
    }
}

#[test]
fn a_refusal_is_named() {
    for (protocol, code) in [(Protocol::Pcp, 2), (Protocol::NatPmp, 2), (Protocol::Upnp, 3)] {
        let lab = Lab::offering(Kind::Symmetric, protocol, Truth::Refuses(code));
        let code = u16::from(code);
        assert_eq!(lab.status(), Status::Failed(Why::Refused { protocol, code }));
    }
}

#[test]
fn without_a_server_of_two_addresses_nothing_is_claimed() {
    let mut cfg = Cfg::offering(Kind::Symmetric, offers(Protocol::Pcp, Truth::Honest), None);
    cfg.two_addresses = false;
    let lab = Lab::of(cfg);
    assert_eq!(lab.told(), None);
    assert!(matches!(lab.status(), Status::Failed(Why::NoWitness { .. })), "{:?}", lab.status());
}

#[test]
fn an_open_port_is_renewed_before_it_runs_out() {
    for protocol in ALL {
        let mut lab = Lab::offering(Kind::Symmetric, protocol, Truth::Honest);
        let first = lab.told();
        // wait for three lifetimes
        while lab.w.now < Time::ZERO.after(Duration::from_secs(u64::from(3 * LIFETIME_S))) {
            let now = lab.w.now;
            assert!(lab.until(|w| w.now > now), "time goes on");
            assert_eq!(lab.told(), first, "{protocol:?} at {:?}", lab.w.now);
        }
    }
}

#[test]
fn a_gateway_that_restarts_is_asked_again_at_once() {
    for protocol in ALL {
        let mut lab = Lab::offering(Kind::Symmetric, protocol, Truth::Honest);
        let open = lab.told();
        assert!(matches!(open, Some((_, true))));
        // long enough for the gateway's epoch to show the restart
        assert!(lab.until(|w| w.now > Time::ZERO.after(Duration::from_secs(30))));
        let before = lab.w.now;
        lab.act(Move::Reboot);
        let heard = protocol != Protocol::Upnp;
        assert_eq!(lab.told().map(|(_, open)| open), (!heard).then_some(false), "who has heard claims nothing");
        assert!(lab.until(|w| w.env.router().is_some_and(|r| {
            w.env.told.forwarded().is_some_and(|t| r.forwards(w.now, t.port()) == Some(w.env.main()))
        })));
        assert_eq!(lab.told(), open, "the same port");
        let took = lab.w.now.since(before);
        // UPnP has no announcement: there the check from outside finds out
        let bound = if protocol == Protocol::Upnp { Config::default().recheck * 2 } else { Duration::from_secs(1) };
        assert!(took <= bound, "{protocol:?}: {took:?}");
    }
}

#[test]
fn a_gateway_that_has_stopped_forwarding_is_found_out() {
    for protocol in ALL {
        let mut lab = Lab::offering(Kind::Symmetric, protocol, Truth::Honest);
        assert!(matches!(lab.told(), Some((_, true))));
        let before = lab.w.now;
        lab.w.env.end_gateway();
        assert!(lab.until(|w| w.env.told.forwarded().is_none()), "{protocol:?}");
        let took = lab.w.now.since(before);
        let bound = Config::default().recheck + Duration::from_secs(5);
        assert!(took <= bound, "{protocol:?}: claimed for {took:?}");
    }
}

#[test]
fn who_leaves_closes_the_door() {
    for protocol in ALL {
        let mut lab = Lab::offering(Kind::Symmetric, protocol, Truth::Honest);
        let Some((told, true)) = lab.told() else { panic!("open") };
        lab.act(Move::Leave);
        assert!(
            lab.until(|w| w.env.router().is_some_and(|r| r.forwards(w.now, told.port()).is_none())),
            "{protocol:?}"
        );
    }
}

#[test]
fn losses_delay_and_do_not_prevent() {
    for protocol in ALL {
        for lost in 1..12 {
            let cfg = Cfg::offering(Kind::Symmetric, offers(protocol, Truth::Honest), None);
            let mut lab = Lab { w: world(&cfg, Budget { drops: 1, ..Budget::default() }), cfg, rng: Seeded::new(1) };
            lab.act(Move::Start);
            let mut sent = 0;
            // the n-th message under way is lost
            for _ in 0..3_000 {
                if matches!(lab.status(), Status::Open { .. }) {
                    break;
                }
                let Some((_, mut act)) = lab.w.earliest() else { break };
                if let Act::Deliver(lane, way) = &mut act
                    && !["tcp", "igd"].contains(&lane.what)
                {
                    sent += 1;
                    *way = if sent == lost { Way::Lost } else { Way::Whole };
                }
                lab.w.step(&lab.cfg, &act, &mut lab.rng);
            }
            assert!(matches!(lab.told(), Some((_, true))), "{protocol:?}, {lost}: {:?}", lab.status());
        }
    }
}
