//! Properties of the mapping machine under arbitrary inputs in arbitrary order.

use proptest::prelude::*;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine as _, Time};
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::discovery::io::{Sight, Socket, Witness};
use swarmedge_core::nat::mapping::io::{Config, Effect, IgdAsk, IgdEnd, IgdError, Input, Opened, Output, Site};
use swarmedge_core::nat::mapping::{Mapping, PORT, natpmp, pcp};
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};
use swarmedge_models::rng::Seeded;

/// Maximum number of effects of one input: leaving closes by every protocol, and a check may give way to another
/// attempt.
const EFFECTS_MAX: usize = 8;
/// Maximum number of time-outs in a row at one time.
const TIMERS_MAX: u32 = 8;

/// Arbitrary input; answers are to the latest request, or to none.
#[derive(Clone, Debug)]
enum Any {
    Site(Option<u8>),
    Seen {
        ip: u8,
        port: u16,
        translated: bool,
        witness: bool,
    },
    Pcp {
        ip: u8,
        port: u16,
        lifetime_s: u32,
        epoch_s: u32,
    },
    PcpRefused {
        code: u8,
        wait_s: u32,
    },
    Announced(u32),
    NatPmp(natpmp::Answer),
    Igd {
        stale: bool,
        opened: bool,
        ip: u8,
        port: u16,
        lifetime_s: u32,
    },
    Stun {
        forged: bool,
        class: Class,
    },
    Noise(Socket, Vec<u8>),
    /// Time passes, at most to the next deadline.
    Wait(u32),
    Shutdown,
}

fn outside(ip: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, ip)
}

fn any_input() -> impl Strategy<Value = Any> {
    let (ip, lifetime) = (1..3_u8, prop_oneof![0..300_u32, any::<u32>()]);
    let epoch = prop_oneof![0..2_000_u32, any::<u32>()];
    let said = prop_oneof![
        (1..6_u16).prop_map(natpmp::Said::Refused),
        ip.clone().prop_map(|ip| natpmp::Said::Address(outside(ip))),
        (any::<u16>(), lifetime.clone()).prop_map(|(external_port, lifetime_s)| natpmp::Said::Mapped {
            over: Transport::Udp,
            internal_port: 5000,
            external_port,
            lifetime_s
        }),
    ];
    let class = prop_oneof![3 => Just(Class::Success), 1 => Just(Class::Error)];
    let socket = prop_oneof![Just(Socket::Main), Just(Socket::Gateway), Just(Socket::Asker)];
    prop_oneof![
        1 => prop_oneof![Just(None), (1..3_u8).prop_map(Some)].prop_map(Any::Site),
        3 => (ip.clone(), 40_000..40_003_u16, prop::bool::weighted(0.9), prop::bool::weighted(0.8))
            .prop_map(|(ip, port, translated, witness)| Any::Seen { ip, port, translated, witness }),
        4 => (ip.clone(), any::<u16>(), lifetime.clone(), epoch.clone())
            .prop_map(|(ip, port, lifetime_s, epoch_s)| Any::Pcp { ip, port, lifetime_s, epoch_s }),
        1 => (1..14_u8, any::<u32>()).prop_map(|(code, wait_s)| Any::PcpRefused { code, wait_s }),
        1 => epoch.clone().prop_map(Any::Announced),
        3 => (epoch, said).prop_map(|(epoch_s, said)| Any::NatPmp(natpmp::Answer { epoch_s, said })),
        3 => (any::<bool>(), any::<bool>(), ip, any::<u16>(), lifetime)
            .prop_map(|(stale, opened, ip, port, lifetime_s)| Any::Igd { stale, opened, ip, port, lifetime_s }),
        4 => (prop::bool::weighted(0.2), class).prop_map(|(forged, class)| Any::Stun { forged, class }),
        1 => (socket, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(socket, bytes)| Any::Noise(socket, bytes)),
        8 => any::<u32>().prop_map(Any::Wait),
        1 => Just(Any::Shutdown),
    ]
}

/// Machine under test and its latest requests.
struct Run {
    m: Mapping,
    cfg: Config,
    rng: Seeded,
    now: Time,
    site: Option<Site>,
    nonce: pcp::Nonce,
    igd: u32,
    /// Latest check by STUN: its id and port.
    look: Option<(TransactionId, u16)>,
    /// Ports confirmed by the witness on this network.
    shown: Vec<u16>,
    /// Time of the gateway's last message; every lease ends within a day of it.
    heard: Time,
}

fn site(n: u8) -> Site {
    let local = SocketAddrV4::new(Ipv4Addr::new(192, 168, n, 2), 5000);
    Site { gateway: Ipv4Addr::new(192, 168, n, 1), local, over: Transport::Udp }
}

fn server(n: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(198, 51, 100, n).into(), 3478)
}

impl Run {
    fn new() -> Self {
        let (m, cfg, rng) = (Mapping::default(), Config::default(), Seeded::new(1));
        let (nonce, look, shown) = (pcp::Nonce::default(), None, Vec::new());
        Self { m, cfg, rng, now: Time::ZERO, site: None, nonce, igd: 0, look, shown, heard: Time::ZERO }
    }

    /// Passes one input or time-out to the machine and checks its effects.
    fn step(&mut self, input: Option<Input>) -> Result<(), TestCaseError> {
        let (mut out, leaving) = (Vec::new(), matches!(input, Some(Input::Shutdown)));
        let mut cx = Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out };
        match input {
            Some(input) => self.m.handle_input(&mut cx, input),
            None => self.m.handle_timeout(&mut cx),
        }
        prop_assert!(out.len() <= EFFECTS_MAX, "{out:?}");
        for output in out {
            match output {
                Output::Effect(Effect::Send { socket: Socket::Gateway, to, bytes }) => {
                    prop_assert_eq!(Some(to), self.site.map(|s| SocketAddr::new(s.gateway.into(), PORT)));
                    self.nonce = pcp::decode_request(&bytes).map_or(self.nonce, |r| r.nonce);
                }
                Output::Effect(Effect::Send { to, bytes, .. }) => {
                    prop_assert_eq!(to, server(1));
                    let message = Message::decode(&bytes).expect("ours");
                    let port = |a: &Attribute| if let Attribute::ResponsePort(p) = a { Some(*p) } else { None };
                    let port = message.attributes.iter().find_map(port);
                    self.look = Some((message.id, port.expect("the port to be shown")));
                }
                Output::Effect(Effect::Igd { id, ask }) => {
                    let (IgdAsk::Open { site, .. } | IgdAsk::Close { site, .. }) = ask;
                    // a port that was being opened when the host left is closed afterwards
                    prop_assert!(self.site.is_none() || self.site == Some(site), "{ask:?}");
                    self.igd = id;
                }
                Output::Claimed(_) | Output::Forwards(_) | Output::Status(_) => {}
            }
        }
        if leaving {
            self.site = None;
        }
        let claimed = self.m.claimed();
        prop_assert!(claimed.is_none_or(|c| self.shown.contains(&c.port())), "{claimed:?} was never shown");
        let day = Duration::from_secs(24 * 3600);
        prop_assert!(claimed.is_none() || self.now.since(self.heard) <= day, "{claimed:?} outlives its lease");
        Ok(())
    }

    fn come(&mut self, any: Any) -> Result<(), TestCaseError> {
        let gateway = self.site.map_or(server(9), |s| SocketAddr::new(s.gateway.into(), PORT));
        let mut of_gateway = |bytes| {
            self.heard = self.now;
            Input::Datagram { socket: Socket::Gateway, from: gateway, bytes }
        };
        let input = match any {
            Any::Site(n) => {
                let next = n.map(site);
                if next != self.site {
                    self.shown.clear();
                }
                self.site = next;
                Input::Site(next)
            }
            Any::Seen { ip, port, translated, witness } => {
                let witness = witness.then_some(Witness { from: server(2), other_address: true });
                let (mapped, ports) = (SocketAddrV4::new(outside(ip), port), vec![port]);
                Input::Seen(Sight { mapped, translated, server: server(1), ports, witness })
            }
            Any::Pcp { ip, port, lifetime_s, epoch_s } => {
                let (nonce, external) = (self.nonce, SocketAddrV4::new(outside(ip), port));
                let mapped =
                    pcp::Mapped { nonce, over: Transport::Udp, internal_port: 5000, external, lifetime_s, epoch_s };
                of_gateway(pcp::Answer::Mapped(mapped).encode())
            }
            Any::PcpRefused { code, wait_s } => {
                let refused = pcp::Answer::Refused { code, version: pcp::VERSION, nonce: Some(self.nonce), wait_s };
                of_gateway(refused.encode())
            }
            Any::Announced(epoch_s) => of_gateway(pcp::Answer::Announced { epoch_s }.encode()),
            Any::NatPmp(answer) => of_gateway(answer.encode()),
            Any::Igd { stale, opened, ip, port, lifetime_s } => {
                self.heard = self.now;
                let opened = opened.then_some(Opened { external: SocketAddrV4::new(outside(ip), port), lifetime_s });
                let id = self.igd.wrapping_sub(u32::from(stale));
                Input::Igd(IgdEnd { id, answer: opened.ok_or(IgdError::NoAnswer) })
            }
            Any::Stun { forged, class } => {
                let (id, port) = self.look.filter(|_| !forged).unwrap_or((TransactionId([0; 12]), 0));
                self.shown.extend((class == Class::Success).then_some(port));
                let from = if class == Class::Success { server(2) } else { server(1) };
                Input::Datagram { socket: Socket::Main, from, bytes: Message::new(class, id, Vec::new()).encode() }
            }
            Any::Noise(socket, bytes) => Input::Datagram { socket, from: gateway, bytes },
            Any::Wait(ms) => {
                let until = self.now.after(Duration::from_millis(ms.into()));
                return self.wait(until);
            }
            Any::Shutdown => Input::Shutdown,
        };
        self.step(Some(input))
    }

    /// Advances the time; timers fire when due, and no timer stays due.
    fn wait(&mut self, until: Time) -> Result<(), TestCaseError> {
        let mut again = 0;
        for _ in 0..200 {
            let Some(due) = self.m.poll_timeout().filter(|due| *due <= until) else { break };
            again = if due > self.now { 0 } else { again + 1 };
            prop_assert!(again <= TIMERS_MAX, "a timer stays due: {:?}", self.m);
            self.now = self.now.max(due);
            self.step(None)?;
        }
        // the rest of a long wait is dropped
        let next = self.m.poll_timeout().unwrap_or(until);
        self.now = self.now.max(until.min(next));
        Ok(())
    }
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(256))]

    #[test]
    fn only_a_port_that_was_reached_is_claimed_whatever_happens(
        inputs in prop::collection::vec(any_input(), 1..60)
    ) {
        let mut run = Run::new();
        for input in [Any::Site(Some(1)), Any::Seen { ip: 1, port: 40_000, translated: true, witness: true }] {
            run.come(input)?;
        }
        for input in inputs {
            run.come(input)?;
        }
    }
}

/// Checks that an answer about the first port confirms nothing after the gateway opened another one.
#[test]
fn an_answer_to_a_look_at_another_port_shows_nothing() -> Result<(), TestCaseError> {
    let seen = |port, witness| Any::Seen { ip: 2, port, translated: true, witness };
    let opens = |port| Any::Pcp { ip: 2, port, lifetime_s: 60, epoch_s: 0 };
    let answer = Any::Stun { forged: false, class: Class::Success };
    let mut run = Run::new();
    for input in [Any::Site(Some(1)), seen(40_000, true), opens(7), seen(40_001, false), opens(1), answer] {
        run.come(input)?;
    }
    Ok(())
}
