//! Behaviour discovery (RFC 5780) against NATs of every kind.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names the one variant that it expects")]

use std::net::SocketAddr;
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine as _, Time};
use swarmedge_core::nat::NatBehaviour::Unknown;
use swarmedge_core::nat::cookie::Proven;
use swarmedge_core::nat::discovery::Discovery;
use swarmedge_core::nat::discovery::io::{Config, Effect, Input, Network, Output, Report, Socket, openness};
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};
use swarmedge_core::nat::{CandidateKind, NatBehaviour};
use swarmedge_models::discovery::{Cfg, Move, NatWorld, ROUND_MAX, RULES, world};
use swarmedge_models::nat::{Kind, Ports, Rules};
use swarmedge_models::rng::Seeded;
use swarmedge_models::rule;
use swarmedge_models::world::{Act, Budget, Way as Ends, World};

const ALL: [Kind; 12] = [
    Kind::Public,
    Kind::FullCone,
    Kind::Restricted,
    Kind::PortRestricted,
    Kind::PortRestrictedRandom,
    Kind::Firewall,
    Kind::Cgnat,
    Kind::SymmetricSequential,
    Kind::Symmetric,
    Kind::CgnatSymmetric,
    Kind::UdpBlocked,
    Kind::MasqueradeOpen,
];

/// Runs one round without faults.
fn round(cfg: &Cfg) -> World<NatWorld> {
    let mut w = world(cfg, Budget::default());
    let mut rng = Seeded::new(1);
    w.step(cfg, &Act::Move(Move::Start), &mut rng);
    assert!(w.settle(cfg, 500, &mut rng, |w| w.env.report.is_some()), "the round ends");
    w
}

fn report(cfg: &Cfg) -> Report {
    round(cfg).env.report.expect("the round has ended")
}

#[test]
fn every_kind_is_named_within_its_bound() {
    for kind in ALL {
        let cfg = Cfg::of(kind, None);
        let w = round(&cfg);
        let report = w.env.report.as_ref().expect("the round has ended");
        assert_eq!((report.nat.mapping, report.nat.filtering), kind.behaviour(), "{}", kind.name());
        assert_eq!(report.nat.udp, kind != Kind::UdpBlocked);
        assert!(w.now <= Time::ZERO.after(Config::default().within), "{}: {:?}", kind.name(), w.now);
        assert!(report.tcp && w.env.sent <= ROUND_MAX, "{}: {} datagrams", kind.name(), w.env.sent);
        let translated = !matches!(kind, Kind::Public | Kind::Firewall | Kind::UdpBlocked);
        assert_eq!(report.translated, translated, "{}", kind.name());
    }
}

#[test]
fn only_a_sequential_nat_can_be_foretold() {
    for kind in ALL {
        let nat = report(&Cfg::of(kind, None)).nat;
        assert_eq!(nat.step > 0, kind == Kind::SymmetricSequential, "{}: {}", kind.name(), nat.step);
    }
}

#[test]
fn a_cookie_is_asked_for_told_and_renewed_before_it_expires() {
    use swarmedge_core::nat::cookie::Tag;
    use swarmedge_models::discovery::{WALL_MS, cookie_keys};
    let tag = Tag::of(&swarmedge_core::ids::PublicKey::numbered(1));
    for kind in [Kind::PortRestricted, Kind::Public, Kind::Symmetric] {
        let mut cfg = Cfg::of(kind, None);
        cfg.discovery = Config { tag: Some(tag), silences: Vec::new(), ..Config::default() };
        let mut w = round(&cfg);
        let checks = |w: &World<NatWorld>, all: &[Proven]| {
            let [proven] = all else { panic!("{kind:?}: {all:?}") };
            let cookie = proven.cookie.as_ref().expect("the server's word");
            let at = WALL_MS + w.now.0 / 1000;
            assert_eq!(cookie_keys().check(at, tag, proven.addr, cookie), Ok(()), "{kind:?}");
            cookie.issued_s
        };
        let first = checks(&w, &w.env.told.proven);
        let (epoch, mut rng) = (w.env.told.epoch, Seeded::new(1));
        assert!(w.settle(&cfg, 500, &mut rng, |w| !w.env.proven.is_empty()));
        assert!(checks(&w, &w.env.proven) > first && w.now.0 < 300_000_000, "{kind:?}");
        assert_eq!(w.env.told.epoch, epoch, "a newer cookie is no news");
        let told_next = w.node(0).expect("it runs").descriptor().proven.to_vec();
        assert_eq!(told_next, w.env.proven, "who is told of the addresses later gets the newer one");
    }
    assert!(round(&Cfg::of(Kind::PortRestricted, None)).env.told.proven.is_empty(), "only if wanted");
}

#[test]
fn kept_ports_and_hairpinning_are_seen() {
    let keeps = |kind| report(&Cfg::of(kind, None)).keeps_port;
    assert_eq!(keeps(Kind::PortRestricted), Some(true));
    assert_eq!(keeps(Kind::PortRestrictedRandom), Some(false));
    assert_eq!(keeps(Kind::Public), None);
    for hairpin in [false, true] {
        let mut cfg = Cfg::of(Kind::FullCone, None);
        cfg.rules[0].hairpin = hairpin;
        assert_eq!(report(&cfg).nat.hairpin, hairpin);
    }
}

#[test]
fn one_address_of_the_server_leaves_unknown_what_it_cannot_show() {
    for kind in ALL {
        let cfg = Cfg { two_addresses: false, ..Cfg::of(kind, None) };
        let report = report(&cfg);
        let untranslated = matches!(kind, Kind::Public | Kind::Firewall);
        let mapping = if untranslated { NatBehaviour::EndpointIndependent } else { Unknown };
        assert_eq!((report.nat.mapping, report.nat.filtering), (mapping, Unknown), "{}", kind.name());
        assert!(!report.two_addresses);
    }
}

struct Bench {
    m: Discovery,
    cfg: Config,
    rng: Seeded,
    now: Time,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl Bench {
    fn new(cfg: Config) -> Self {
        Self { m: Discovery::default(), cfg, rng: Seeded::new(1), now: Time::ZERO }
    }

    fn run(&mut self, input: Option<Input>) -> Vec<Output> {
        let mut out = Vec::new();
        let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out };
        match input {
            Some(input) => self.m.handle_input(&mut cx, input),
            None => self.m.handle_timeout(&mut cx),
        }
        out
    }

    /// Advances the time to the next deadline and fires it.
    fn fire(&mut self) -> Vec<Output> {
        self.now = self.m.poll_timeout().expect("something is due");
        self.run(None)
    }

    fn network(&mut self, servers: &[&str]) -> Vec<Output> {
        let servers = servers.iter().map(|s| addr(s)).collect();
        self.run(Some(Input::Network(Network { hosts: std::vec![addr("192.168.0.2:5000")], servers, gateway: None })))
    }

    /// Answers the request sent to `to`, with these attributes, from `from`.
    fn answer(&mut self, sent: &[Output], to: &str, from: &str, attributes: Vec<Attribute>) -> Vec<Output> {
        let id = sent.iter().find_map(|o| match o {
            Output::Effect(Effect::Send { to: at, bytes, .. }) if *at == addr(to) => {
                Message::decode(bytes).ok().map(|m| m.id)
            }
            _ => None,
        });
        let bytes = Message::new(Class::Success, id.expect("it was sent"), attributes).encode();
        self.run(Some(Input::Datagram { socket: Socket::Main, from: addr(from), bytes }))
    }
}

#[test]
fn an_answer_from_the_asked_address_proves_no_other_address() {
    let mut b = Bench::new(Config::once());
    let sent = b.network(&["198.51.100.1:3478"]);
    let mapped = || Attribute::XorMapped(addr("203.0.113.9:7000"));
    let other = Attribute::OtherAddress(addr("198.51.100.2:3479"));
    let sent = b.answer(&sent, "198.51.100.1:3478", "198.51.100.1:3478", std::vec![mapped(), other]);
    // both requests for an answer from elsewhere are answered by the server itself, which lies
    b.answer(&sent, "198.51.100.1:3478", "198.51.100.1:3478", std::vec![mapped()]);
    while b.m.is_busy() {
        b.fire();
    }
    assert_eq!(b.m.descriptor().filtering, NatBehaviour::AddressAndPortDependent);
}

#[test]
fn a_server_that_was_written_to_shows_nothing_by_answering() {
    let mut b = Bench::new(Config::once());
    b.network(&["198.51.100.2:3478", "198.51.100.1:3478"]);
    // the first server does not answer, so the second is asked; its other address is the first's
    let mut sent = b.fire();
    while !sent.iter().any(|o| matches!(o, Output::Effect(Effect::Send { to, .. }) if *to == addr("198.51.100.1:3478")))
    {
        sent = b.fire();
    }
    let mapped = Attribute::XorMapped(addr("203.0.113.9:7000"));
    let other = Attribute::OtherAddress(addr("198.51.100.2:3479"));
    let sent = b.answer(&sent, "198.51.100.1:3478", "198.51.100.1:3478", std::vec![mapped, other]);
    let asked: Vec<_> = sent
        .iter()
        .filter_map(|o| if let Output::Effect(Effect::Send { to, .. }) = o { Some(*to) } else { None })
        .collect();
    assert_eq!(asked, [addr("198.51.100.2:3478")], "the mapping at once");
    while b.m.is_busy() {
        b.fire();
    }
    assert_eq!(b.m.descriptor().filtering, Unknown);
}

#[test]
fn silence_is_retried_and_a_moved_mapping_starts_a_new_round() {
    let mut b = Bench::new(Config { silences: Vec::new(), ..Config::default() });
    b.network(&["198.51.100.1:3478"]);
    while b.m.is_busy() {
        b.fire();
    }
    assert!(!b.m.descriptor().udp);
    let silent_until = b.now.after(b.cfg.again_silent);
    let sent = b.fire();
    assert_eq!(b.now, silent_until);
    let seen_as = |port| std::vec![Attribute::XorMapped(SocketAddr::new([203, 0, 113, 9].into(), port))];
    let server = "198.51.100.1:3478";
    b.answer(&sent, server, server, seen_as(7000));
    while b.m.is_busy() {
        b.fire();
    }
    assert!(b.m.descriptor().udp);
    let epoch = b.m.descriptor().epoch;
    let refresh = b.fire();
    b.answer(&refresh, server, server, seen_as(7000));
    assert!(!b.m.is_busy(), "nothing has changed");
    let refresh = loop {
        let out = b.fire();
        if out.iter().any(|o| matches!(o, Output::Effect(Effect::Send { .. }))) {
            break out;
        }
    };
    let again = b.answer(&refresh, server, server, seen_as(7001));
    assert!(b.m.is_busy());
    b.answer(&again, server, server, seen_as(7001));
    while b.m.is_busy() {
        b.fire();
    }
    assert!(b.m.descriptor().epoch > epoch);
    assert_eq!(b.m.descriptor().mapped(), Some(addr("203.0.113.9:7001")));
}

#[test]
fn on_another_network_nothing_is_claimed_until_a_server_answers() {
    let mut b = Bench::new(Config { silences: Vec::new(), ..Config::default() });
    let server = "198.51.100.1:3478";
    let seen_as = |port| std::vec![Attribute::XorMapped(SocketAddr::new([203, 0, 113, 9].into(), port))];
    let sent = b.network(&[server]);
    b.answer(&sent, server, server, seen_as(7000));
    while b.m.is_busy() {
        b.fire();
    }
    let hosts = std::vec![addr("10.0.0.7:5000")];
    let sent = b.run(Some(Input::Network(Network { hosts, servers: std::vec![addr(server)], gateway: None })));
    let Some(Output::Changed(nothing)) = sent.first() else { panic!("{sent:?}") };
    assert!(!nothing.udp && nothing.candidates.is_empty(), "{nothing:?}");
    let out = b.answer(&sent, server, server, seen_as(8000));
    let Some(Output::Changed(now)) = out.first() else { panic!("{out:?}") };
    assert_eq!((now.udp, now.mapped(), now.mapping), (true, Some(addr("203.0.113.9:8000")), Unknown));
    assert!(now.candidates.iter().any(|c| c.addr == addr("10.0.0.7:5000")));
}

#[test]
fn who_doubts_the_mapping_is_told_at_once_where_it_has_moved() {
    let mut b = Bench::new(Config { silences: Vec::new(), ..Config::default() });
    let server = "198.51.100.1:3478";
    let seen_as = |port| std::vec![Attribute::XorMapped(SocketAddr::new([203, 0, 113, 9].into(), port))];
    let sent = b.network(&[server]);
    assert_eq!(b.run(Some(Input::Look)), [], "a round is under way");
    b.answer(&sent, server, server, seen_as(7000));
    while b.m.is_busy() {
        b.fire();
    }
    let before = b.m.descriptor().clone();
    let sent = b.run(Some(Input::Look));
    assert_eq!(b.answer(&sent, server, server, seen_as(7000)), [], "it has not moved");
    let sent = b.run(Some(Input::Look));
    let out = b.answer(&sent, server, server, seen_as(7001));
    let Some(Output::Changed(now)) = out.first() else { panic!("{out:?}") };
    assert_eq!((now.mapped(), now.epoch), (Some(addr("203.0.113.9:7001")), before.epoch + 1));
    let reflexive = now.candidates.iter().filter(|c| c.kind == CandidateKind::ServerReflexive);
    assert_eq!((now.candidates.len(), reflexive.count()), (before.candidates.len(), 1), "the old one is gone");
    assert!(b.m.is_busy(), "and all is looked at anew");
}

#[test]
fn the_keep_alive_follows_the_lifetime_that_was_measured() {
    for (lifetime, lives, dies) in [(20, 0, Some(30)), (50, 30, Some(60)), (90, 60, Some(120)), (1_000, 240, None)] {
        let mut cfg = Cfg::of(Kind::PortRestricted, None);
        cfg.discovery.silences = Config::default().silences;
        cfg.rules[0].lifetime = Duration::from_secs(lifetime);
        let mut w = round(&cfg);
        let before = w.env.sent;
        let over = |w: &World<NatWorld>| w.now > Time::ZERO.after(Duration::from_secs(1_000));
        w.settle(&cfg, 10_000, &mut Seeded::new(1), over);
        let report = w.env.report.expect("reported");
        let (lives, dies) = (Duration::from_secs(lives), dies.map(Duration::from_secs));
        assert_eq!((report.lives, report.dies), (lives, dies), "{lifetime} s");
        assert!(report.keep_alive < Duration::from_secs(lifetime), "{lifetime} s: {:?}", report.keep_alive);
        assert!(w.env.sent - before <= 8 * 4, "{} datagrams", w.env.sent - before);
    }
}

proptest::proptest! {
    #![proptest_config(swarmedge_seeds::random(300))]

    /// Checks all routers' behaviours under arbitrary loss, duplication and delay.
    #[test]
    fn no_loss_makes_a_nat_look_more_open(
        layers in proptest::collection::vec((0_u8..2, 1_u8..4, 1_u8..4, 0_u8..3, proptest::bool::ANY), 0..3),
        faults in proptest::collection::vec(0_u8..8, 0..60),
    ) {
        let behaviour = |n| match n {
            1 => NatBehaviour::EndpointIndependent,
            2 => NatBehaviour::AddressDependent,
            _ => NatBehaviour::AddressAndPortDependent,
        };
        let rules = |(kind, mapping, filtering, ports, keeps_uninvited): (u8, u8, u8, u8, bool)| Rules {
            translates: kind == 0,
            udp: true,
            mapping: behaviour(mapping),
            filtering: behaviour(filtering),
            // a port that is kept towards all endpoints is one mapping, whatever the router calls it
            ports: if ports == 0 && mapping == 1 { Ports::Preserve } else { [Ports::Random, Ports::Sequential][usize::from(ports % 2)] },
            keeps_uninvited,
            hairpin: false,
            lifetime: Duration::from_secs(120),
        };
        let rules: Vec<Rules> = layers.into_iter().map(rules).collect();
        let strictest = |of: fn(&Rules) -> NatBehaviour, all: &[&Rules]| {
            all.iter().map(|r| of(r)).min_by_key(|b| openness(*b)).unwrap_or(NatBehaviour::EndpointIndependent)
        };
        let translating: Vec<&Rules> = rules.iter().filter(|r| r.translates).collect();
        let all: Vec<&Rules> = rules.iter().collect();
        let truth = (strictest(|r| r.mapping, &translating), strictest(|r| r.filtering, &all));
        let cfg = Cfg { rules, truth, ..Cfg::of(Kind::Public, None) };
        let mut w = world(&cfg, Budget { drops: 99, duplicates: 99, changes: 0, ..Budget::default() });
        let mut rng = Seeded::new(3);
        w.step(&cfg, &Act::Move(Move::Start), &mut rng);
        let mut faults = faults.into_iter();
        while w.env.report.is_none() {
            let (_, act) = w.earliest().expect("the round is under way");
            let act = match (act, faults.next().unwrap_or(7)) {
                (Act::Deliver(lane, _), 0..=1) if lane.what != "tcp" => Act::Deliver(lane, Ends::Lost),
                (Act::Deliver(lane, _), 2) if lane.what != "tcp" => Act::Deliver(lane, Ends::Twice),
                (act, _) => act,
            };
            w.step(&cfg, &act, &mut rng);
            proptest::prop_assert_eq!(rule::broken(&RULES[..1], &cfg, &w), None, "{:?} of {:?}", w.env.told, cfg.truth);
        }
        proptest::prop_assert!(w.now <= Time::ZERO.after(cfg.discovery.within));
    }
}

#[test]
fn a_tcp_port_is_open_only_if_an_address_not_written_to_connects() {
    for kind in ALL {
        let cfg = Cfg { listens: true, ..Cfg::of(kind, None) };
        let (mut w, mut rng) = (round(&cfg), Seeded::new(1));
        w.step(&cfg, &Act::Move(Move::Listen), &mut rng);
        w.settle(&cfg, 500, &mut rng, |w| w.env.report.as_ref().is_some_and(|r| r.doors.len() == 1));
        assert_eq!(rule::broken(RULES, &cfg, &w), None, "{}", kind.name());
        let open = matches!(kind, Kind::Public | Kind::FullCone);
        let doors = &w.env.told.doors;
        assert_eq!(doors.len(), usize::from(open), "{}: {doors:?}", kind.name());
        assert!(doors.iter().all(|d| d.ip() == "203.0.113.9".parse::<std::net::IpAddr>().expect("an address")));
    }
    let one_address = Cfg { listens: true, two_addresses: false, ..Cfg::of(Kind::Public, None) };
    let (mut w, mut rng) = (round(&one_address), Seeded::new(1));
    w.step(&one_address, &Act::Move(Move::Listen), &mut rng);
    w.settle(&one_address, 500, &mut rng, |w| w.env.report.as_ref().is_some_and(|r| r.doors.len() == 1));
    assert!(w.env.told.doors.is_empty(), "from the address that was written to anybody may come");
}

#[test]
fn a_closed_tcp_port_is_for_simultaneous_open_if_two_see_it_alike() {
    let told = |cfg: Cfg| {
        let (mut w, mut rng) = (round(&cfg), Seeded::new(1));
        w.step(&cfg, &Act::Move(Move::Listen), &mut rng);
        w.settle(&cfg, 500, &mut rng, |_| false);
        assert_eq!(rule::broken(RULES, &cfg, &w), None, "{:?}", w.env.told);
        w.env.told.crossing
    };
    for kind in ALL {
        // a router that lets in no UDP lets in no TCP here either
        let closed = !matches!(kind, Kind::Public | Kind::FullCone | Kind::UdpBlocked);
        let alike = closed && kind.behaviour().0 == NatBehaviour::EndpointIndependent;
        let crossing = told(Cfg { listens: true, ..Cfg::of(kind, None) });
        assert_eq!(crossing.is_some(), alike, "{}: {crossing:?}", kind.name());
        assert!(crossing.is_none_or(|at| at.ip() == "203.0.113.9".parse::<std::net::IpAddr>().expect("an address")));
    }
    let one_address = Cfg { listens: true, two_addresses: false, ..Cfg::of(Kind::PortRestricted, None) };
    assert_eq!(told(one_address), None, "what one address sees shows nothing");
}

/// Returns the endpoint for a simultaneous open that a client tells whose listening port servers at two addresses see
/// at `port`.
fn crossing_at(port: u16) -> Option<SocketAddr> {
    let servers = ["198.51.100.1:3478", "198.51.100.2:3478"];
    let seen = Attribute::XorMapped(SocketAddr::new([203, 0, 113, 9].into(), port));
    let answer = |id| Message::new(Class::Success, id, std::vec![seen.clone()]).encode();
    let mut b = Bench::new(Config::once());
    b.run(Some(Input::Listens(std::vec![5000])));
    let mut out = b.network(&servers);
    out.extend(b.run(Some(Input::Tcp { server: addr(servers[0]), answer: Some(answer(TransactionId([1; 12]))) })));
    // each server that the client asks how it sees the port is answered alike
    for _ in 0..200 {
        let knocks: Vec<_> = out
            .drain(..)
            .filter_map(|o| match o {
                Output::Effect(Effect::Knock { server, local, requests }) => Some((server, local, requests)),
                _ => None,
            })
            .collect();
        for (server, local, requests) in knocks {
            let id = Message::decode(&requests[0]).expect("ours").id;
            out.extend(b.run(Some(Input::Knocked { server, local, answer: answer(id) })));
        }
        if b.m.poll_timeout().is_some() {
            out.extend(b.fire());
        }
    }
    b.m.descriptor().crossing
}

#[test]
fn a_simultaneous_open_is_told_at_no_port_below_1024_but_that_of_https() {
    for (port, told) in [(443, true), (1024, true), (40_000, true), (1023, false), (80, false), (22, false)] {
        assert_eq!(crossing_at(port).map(|at| at.port()), told.then_some(port));
    }
}

/// Returns the machine of a client that listens on port 5000 and has knocked at a server, and the knock's id.
fn knocked(rng: &mut Seeded, server: SocketAddr) -> (Discovery, TransactionId) {
    let (mut m, cfg, mut out) = (Discovery::default(), Config::once(), Vec::new());
    let mut give = |input| {
        out.clear();
        m.handle_input(&mut Cx { now: Time::ZERO, cfg: &cfg, rng, out: &mut out }, input);
        out.clone()
    };
    let seen = Attribute::XorMapped("203.0.113.9:5000".parse().expect("an address"));
    give(Input::Listens(std::vec![5000]));
    give(Input::Network(Network {
        hosts: std::vec!["192.168.0.2:7000".parse().expect("an address")],
        servers: std::vec![server],
        gateway: None,
    }));
    let answer = |id| Message::new(Class::Success, id, std::vec![seen.clone()]).encode();
    let knock = give(Input::Tcp { server, answer: Some(answer(TransactionId([1; 12]))) });
    let requests = knock
        .into_iter()
        .find_map(|o| if let Output::Effect(Effect::Knock { requests, .. }) = o { Some(requests) } else { None });
    let id = Message::decode(&requests.expect("a knock")[0]).expect("ours").id;
    give(Input::Knocked { server, local: 5000, answer: answer(id) });
    (m, id)
}

#[test]
fn a_caller_written_to_or_with_another_id_proves_no_open_port() {
    let server: SocketAddr = "198.51.100.1:3478".parse().expect("an address");
    let opens = |from: &str, other_id: bool, class| {
        let mut rng = Seeded::new(1);
        let (mut m, id) = knocked(&mut rng, server);
        let id = if other_id { TransactionId([9; 12]) } else { id };
        let (cfg, mut out) = (Config::once(), Vec::new());
        let mut cx = Cx { now: Time::ZERO, cfg: &cfg, rng: &mut rng, out: &mut out };
        let bytes = Message::new(class, id, Vec::new()).encode();
        m.handle_input(&mut cx, Input::DialledBack { from: from.parse().expect("an address"), local: 5000, bytes });
        !m.descriptor().doors.is_empty()
    };
    assert!(opens("198.51.100.2:9", false, Class::Indication));
    assert!(!opens("198.51.100.1:9", false, Class::Indication), "whom it has written to");
    assert!(!opens("198.51.100.2:9", true, Class::Indication), "who does not know the request");
    assert!(!opens("198.51.100.2:9", false, Class::Success), "what is no call");
}
