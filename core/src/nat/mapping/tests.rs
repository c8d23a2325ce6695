mod properties;

use super::*;
use crate::testing::nat::{Kind, Offers, Truth};
use crate::testing::nat_world::{Cfg, Move, NatWorld, world};
use crate::testing::rng::Seeded;
use crate::testing::world::{Act, Budget, Way, World};
use alloc::vec::Vec;

const ALL: [Protocol; 3] = [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp];
/// Of mappings in these tests: a world's time ends after an hour.
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
    /// Until port mapping has come to an end.
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

    /// What others are told, and whether the router forwards it to the main socket.
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
            let bound = Config::default().within + crate::nat::discovery::io::Config::default().within;
            assert!(lab.w.now <= Time::ZERO.after(bound), "{protocol:?} {kind:?}: {:?}", lab.w.now);
        }
    }
}

#[test]
fn a_listening_port_has_one_opened_too_and_it_is_a_door_only_where_somebody_got_through() {
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
fn a_refusal_is_named_and_silence_is_silence() {
    for (protocol, code) in [(Protocol::Pcp, 2), (Protocol::NatPmp, 2), (Protocol::Upnp, 3)] {
        let lab = Lab::offering(Kind::Symmetric, protocol, Truth::Refuses(code));
        let code = u16::from(code);
        assert_eq!(lab.status(), Status::Failed(Why::Refused { protocol, code }));
    }
    let mut b = Bench::new();
    b.seen();
    while b.m.ask.is_some() {
        b.timeout();
    }
    assert_eq!(b.m.status(&b.cfg), Status::Failed(Why::NoAnswer));
    assert!(b.now <= Time::ZERO.after(b.cfg.within), "{:?}", b.now);
    let mut asked: Vec<_> = b.out.iter().map(|o| matches!(o, Output::Effect(Effect::Igd { .. }))).collect();
    asked.retain(|igd| *igd);
    assert_eq!(asked.len(), 1, "UPnP has its turn, once");
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
        // three lifetimes
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
        // long enough for its count to show that it has begun anew
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
        // UPnP has no announcement of ours: there a look from outside tells
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
            // the n-th thing under way is lost
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

/// The machine by itself.
struct Bench {
    m: Mapping,
    cfg: Config,
    rng: Seeded,
    now: Time,
    out: Vec<Output>,
}

impl Bench {
    fn new() -> Self {
        let mut b = Self {
            m: Mapping::default(),
            cfg: Config::default(),
            rng: Seeded::new(1),
            now: Time::ZERO,
            out: Vec::new(),
        };
        b.input(Input::Site(Some(b.site())));
        b
    }

    fn site(&self) -> Site {
        let local = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000);
        Site { gateway: Ipv4Addr::new(192, 168, 1, 1), local, over: Transport::Udp }
    }

    fn input(&mut self, input: Input) {
        let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut self.out };
        self.m.handle_input(&mut cx, input);
    }

    fn timeout(&mut self) {
        self.now = self.m.poll_timeout().expect("something is due");
        let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut self.out };
        self.m.handle_timeout(&mut cx);
    }

    fn seen(&mut self) {
        let server: SocketAddr = "198.51.100.1:3478".parse().expect("an address");
        let from = "198.51.100.1:3479".parse().expect("an address");
        self.input(Input::Seen(Sight {
            mapped: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 40_000),
            translated: true,
            server,
            ports: alloc::vec![40_000, 40_001],
            witness: Some(crate::nat::discovery::io::Witness { from, other_address: false }),
        }));
    }

    /// The last request, as a gateway reads it.
    fn request(&self) -> pcp::MapRequest {
        let sent = self.out.iter().rev().find_map(|o| match o {
            Output::Effect(Effect::Send { socket: Socket::Gateway, bytes, .. }) => pcp::decode_request(bytes).ok(),
            _ => None,
        });
        sent.expect("a request")
    }

    fn gateway_says(&mut self, from: &str, answer: &pcp::Answer) {
        let from = from.parse().expect("an address");
        self.input(Input::Datagram { socket: Socket::Gateway, from, bytes: answer.encode() });
    }

    fn mapped(&self) -> pcp::Mapped {
        let r = self.request();
        let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), r.external.port());
        let over = Transport::Udp;
        pcp::Mapped { nonce: r.nonce, over, internal_port: 5000, external, lifetime_s: 3600, epoch_s: 1_000 }
    }
}

#[test]
fn only_the_gateways_answer_to_this_request_counts() {
    let mut b = Bench::new();
    b.seen();
    assert_eq!(b.request().internal, b.site().local);
    assert!(!b.m.sight.as_ref().expect("seen").ports.contains(&b.request().external.port()));
    let right = b.mapped();
    for (from, answer) in [
        ("192.168.1.9:5351", right),
        ("192.168.1.1:5350", right),
        ("192.168.1.1:5351", pcp::Mapped { nonce: pcp::Nonce([9; 12]), ..right }),
        ("192.168.1.1:5351", pcp::Mapped { internal_port: 5001, ..right }),
        ("192.168.1.1:5351", pcp::Mapped { over: Transport::Tcp, ..right }),
        ("192.168.1.1:5351", pcp::Mapped { lifetime_s: 0, ..right }),
    ] {
        b.gateway_says(from, &pcp::Answer::Mapped(answer));
        assert!(b.m.lease.is_none(), "{from} {answer:?}");
    }
    let bytes = pcp::Answer::Mapped(right).encode();
    let from = "192.168.1.1:5351".parse().expect("an address");
    b.input(Input::Datagram { socket: Socket::Main, from, bytes });
    assert!(b.m.lease.is_none(), "to another socket");
    b.gateway_says("192.168.1.1:5351", &pcp::Answer::Mapped(right));
    assert_eq!(b.m.lease.map(|l| l.external), Some(right.external));
    assert_eq!(b.m.claimed(), None, "not before the world has shown it");
}

#[test]
fn a_lifetime_counts_from_the_first_request_on() {
    let mut b = Bench::new();
    b.seen();
    b.timeout();
    let asked_again = b.now;
    b.gateway_says("192.168.1.1:5351", &pcp::Answer::Mapped(b.mapped()));
    let ends = b.m.lease.expect("open").ends;
    assert!(asked_again > Time::ZERO);
    assert_eq!(ends, Time::ZERO.after(Duration::from_secs(3600)));
}

#[test]
fn a_count_that_jumps_means_that_the_gateway_has_forgotten() {
    let epoch = Epoch { server: Duration::from_secs(1_000), at: Time::ZERO };
    let broken = |after_s: u64, server_s| epoch.is_broken_by(Time::ZERO.after(Duration::from_secs(after_s)), server_s);
    for (after_s, server_s) in [(0, 1_000), (100, 1_100), (100, 1_095), (100, 1_108), (1, 999), (1600, 2_500)] {
        assert!(!broken(after_s, server_s), "{after_s} {server_s}");
    }
    for (after_s, server_s) in [(0, 998), (100, 5), (100, 1_090), (100, 1_115), (100, 1_000), (5, u32::MAX)] {
        assert!(broken(after_s, server_s), "{after_s} {server_s}");
    }
    let mut rebased = Mapping { epoch: Some(epoch), ..Mapping::default() };
    rebased.rebase(Duration::from_secs(100));
    let count = |m: &Mapping, server_s| m.epoch.expect("one").is_broken_by(Time::ZERO, server_s);
    assert!(!count(&rebased, 1_100) && count(&rebased, 1_000), "as seen from later");
}

#[test]
fn what_a_gateway_puts_off_waits_and_no_longer_than_a_day() {
    let mut b = Bench::new();
    b.seen();
    let refused =
        pcp::Answer::Refused { code: 8, version: pcp::VERSION, nonce: Some(b.request().nonce), wait_s: u32::MAX };
    b.gateway_says("192.168.1.1:5351", &refused);
    while b.m.ask.is_some() {
        b.timeout();
    }
    assert_eq!(b.m.status(&b.cfg), Status::Failed(Why::Refused { protocol: Protocol::Pcp, code: 8 }));
    let wait = b.m.next.expect("later").since(b.now);
    assert_eq!(wait, WAIT_MAX);
}

#[test]
fn nothing_is_shown_at_a_port_that_the_socket_was_seen_at_by_an_address_that_it_has_written_to() {
    let mut b = Bench::new();
    b.seen();
    let mut ports = Vec::new();
    for _ in 0..=REDRAWS_MAX {
        ports.push(b.request().external.port());
        let mapped = pcp::Mapped { external: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 40_001), ..b.mapped() };
        b.gateway_says("192.168.1.1:5351", &pcp::Answer::Mapped(mapped));
    }
    assert!(b.m.check.is_none() && b.m.claimed().is_none());
    assert!(matches!(b.m.status(&b.cfg), Status::Failed(Why::NoWitness { .. })), "{:?}", b.m.status(&b.cfg));
    ports.dedup();
    assert_eq!(ports.len(), usize::from(REDRAWS_MAX) + 1, "another one each time");
}

#[test]
fn who_leaves_while_it_asks_gives_back_what_the_answer_would_have_said() {
    let mut b = Bench::new();
    b.seen();
    b.input(Input::Shutdown);
    assert_eq!((b.request().lifetime_s, b.m.is_closing()), (0, false), "the last request closes");

    // UPnP has to end first, and then it is closed where it was opened
    let mut b = Bench::new();
    b.seen();
    while !b.out.iter().any(|o| matches!(o, Output::Effect(Effect::Igd { .. }))) {
        b.timeout();
    }
    b.input(Input::Shutdown);
    assert!(b.m.is_closing());
    let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 50_000);
    b.input(Input::Igd(io::IgdEnd { id: 1, answer: Ok(io::Opened { external, lifetime_s: 3600 }) }));
    let close = IgdAsk::Close { site: b.site(), port: 50_000 };
    assert_eq!(b.out.pop(), Some(Output::Effect(Effect::Igd { id: 2, ask: close })));
    b.input(Input::Igd(io::IgdEnd { id: 2, answer: Err(io::IgdError::NoAnswer) }));
    assert!(!b.m.is_closing());
}

#[test]
fn a_lifetime_too_short_to_be_kept_is_named_and_closed() {
    let mut b = Bench::new();
    b.seen();
    b.gateway_says("192.168.1.1:5351", &pcp::Answer::Mapped(pcp::Mapped { lifetime_s: 30, ..b.mapped() }));
    let why = Why::TooShort { protocol: Protocol::Pcp, lifetime_s: 30 };
    assert_eq!((b.m.status(&b.cfg), b.m.claimed()), (Status::Failed(why), None));
    assert_eq!(b.request().lifetime_s, 0, "it is closed");
}
