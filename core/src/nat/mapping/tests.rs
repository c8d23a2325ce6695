use super::*;
use crate::seeded::Seeded;
use alloc::vec::Vec;

/// A port mapping state machine under test, with its configuration and outputs.
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
        self.sees(true);
    }

    /// Passes what a STUN server sees of the socket: whether a NAT translates its address.
    fn sees(&mut self, translated: bool) {
        let server: SocketAddr = "198.51.100.1:3478".parse().expect("an address");
        let from = "198.51.100.1:3479".parse().expect("an address");
        self.input(Input::Seen(Sight {
            mapped: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 40_000),
            translated,
            server,
            ports: alloc::vec![40_000, 40_001],
            witness: Some(crate::nat::discovery::io::Witness { from, other_address: false }),
        }));
    }

    /// Returns the last request that was sent, decoded as a gateway would.
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
fn a_request_under_way_ends_when_no_nat_translates_any_more() {
    let mut b = Bench::new();
    b.seen();
    let first = b.mapped();
    b.sees(false);
    assert!(b.m.ask.is_none());
    assert_eq!(b.m.status(&b.cfg), Status::Unneeded);
    b.gateway_says("192.168.1.1:5351", &pcp::Answer::Mapped(first));
    assert!(b.m.lease.is_none(), "a late answer opens nothing");
    b.seen();
    assert!(b.m.ask.is_some(), "behind a NAT again");
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
fn a_port_seen_by_an_address_written_to_proves_no_mapping() {
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

#[test]
fn a_silent_gateway_is_given_up_after_each_protocol_had_its_turn() {
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
