//! Fuzz body for the connectivity machine, with arbitrary messages of introduced peers and of strangers.

use crate::play::{START, drive_shifted, step};
use arbitrary::{Result, Unstructured};
use std::net::SocketAddr;
use swarmedge_core::codec::List;
use swarmedge_core::ids::{IntroId, RawTcpId};
use swarmedge_core::machine::Machine as _;
use swarmedge_core::nat::connectivity::{
    Along, Config, Connectivity, Input, Offer, Output, RawTcp, RawTcpEvent, Role, Ticket,
};
use swarmedge_core::nat::{NatDescriptor, stun};
use swarmedge_models::rng::Seeded;
use swarmedge_models::sim::keys;

/// Connectivity checks that the machine sent and raw TCP connections that it opened, for inputs that answer them.
#[derive(Default)]
struct Asked {
    checks: Vec<(SocketAddr, stun::TransactionId)>,
    raw_tcp: Vec<RawTcpId>,
}

fn key(n: u8) -> [u8; 16] {
    [n & 1; 16]
}

/// Plays arbitrary introductions, "go" messages, connectivity checks under right and wrong keys from several
/// addresses, answers to the machine's checks, and noise, over UDP and on raw TCP connections. The machine must send
/// datagrams only to introduced peers or in answer to a sender, open raw TCP connections only to introduced peers'
/// listening addresses, answer each connection once, and keep its limits.
pub(crate) fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut m, cfg) =
        (Connectivity::default(), Config { sessions_max: 3, crosses_from: Some(5000), ..Config::default() });
    let (mut now, mut rng, mut asked) = (START, Seeded::new(1), Asked::default());
    while !u.is_empty() {
        step(u, &mut now)?;
        let input = input(u, &asked)?;
        let came = if let Some(Input::Datagram { from, .. }) = &input { Some(*from) } else { None };
        let mut id = match &input {
            Some(Input::RawTcp(RawTcpEvent::Open(id) | RawTcpEvent::Shown { id, .. })) => Some(*id),
            Some(Input::RawTcp(RawTcpEvent::Failed(_))) | Some(_) | None => None,
        };
        let before = m.clone();
        for output in drive_shifted(&mut m, &cfg, now, &mut rng, input) {
            match output {
                Output::Send { to, bytes, .. } => {
                    let proven = came == Some(to);
                    assert!(proven || m.is_introduced(to) || before.is_introduced(to), "a datagram to a stranger");
                    asked.checks.push((to, stun::Message::decode(&bytes).expect("ours").id));
                }
                Output::RawTcp(RawTcp::Call { id, to, .. }) => {
                    assert!(m.is_door(to), "a raw TCP connection to a stranger");
                    asked.raw_tcp.push(id);
                }
                Output::Path { addr, along: Along::Tcp, .. } => {
                    assert!(m.is_door(addr) || before.is_door(addr), "a connection to a stranger");
                }
                // a raw TCP connection may be closed before it is open
                Output::RawTcp(RawTcp::HangUp(of)) if id != Some(of) && asked.raw_tcp.contains(&of) => {}
                Output::RawTcp(RawTcp::Serve { id: of, .. } | RawTcp::HangUp(of))
                | Output::Path { along: Along::RawTcp(of), .. } => {
                    assert_eq!(id.take(), Some(of), "a raw TCP connection that was not there, or not any more");
                }
                Output::Path { along: Along::Udp, .. }
                | Output::Scatter(_)
                | Output::Opened(_)
                | Output::Moved(_)
                | Output::Ended { .. } => {}
            }
        }
        assert_eq!(id, None, "a raw TCP connection that nobody answers for");
        assert!(m.is_within_bounds(&cfg), "more datagrams than allowed");
        assert!(m.sessions() == 0 || m.poll_timeout().is_some(), "an attempt without an end");
    }
    Ok(())
}

fn input(u: &mut Unstructured<'_>, asked: &Asked) -> Result<Option<Input>> {
    let places = [1, 2, 3, 4].map(keys::addr);
    let n = u.int_in_range(0..=4_u8)?;
    let intro = IntroId::numbered(u32::from(n));
    let from = *u.choose(&places)?;
    Ok(match u.int_in_range(0..=15_u8)? {
        0 => Some(Input::Network(nat(u, &places)?)),
        1 => Some(Input::Observed(from)),
        2 | 3 => {
            let role = *u.choose(&[Role::Downloader, Role::Uploader])?;
            let ticket = Ticket { key: key(n), observed: from };
            Some(Input::Offer(Offer { intro, role, ticket, nat: nat(u, &places)? }))
        }
        4 => Some(Input::Go(intro)),
        5 => Some(u.choose(&[Input::Connected(intro), Input::Refused(intro), Input::Drop(intro)])?.clone()),
        6 => Some(Input::Datagram { from, bytes: u.arbitrary()? }),
        7 | 8 => Some(Input::Datagram { from, bytes: check(u, intro)? }),
        9 | 10 if !asked.checks.is_empty() => {
            let (to, id) = *u.choose(&asked.checks)?;
            let mapped = std::vec![stun::Attribute::XorMapped(from)];
            let answer = stun::Message::new(stun::Class::Success, id, mapped);
            let bytes = answer.encode_signed(&key(n), stun::integrity::Hash::Sha256);
            Some(Input::Datagram { from: to, bytes })
        }
        11 => Some(Input::RawTcp(RawTcpEvent::Shown { id: RawTcpId(1 << 63), from, bytes: u.arbitrary()? })),
        12 => Some(Input::RawTcp(RawTcpEvent::Shown { id: RawTcpId(1 << 63), from, bytes: check(u, intro)? })),
        13 | 14 => {
            let id = if asked.raw_tcp.is_empty() { RawTcpId(7) } else { *u.choose(&asked.raw_tcp)? };
            let event = if u.arbitrary()? { RawTcpEvent::Open(id) } else { RawTcpEvent::Failed(id) };
            Some(Input::RawTcp(event))
        }
        _ => None,
    })
}

/// Returns an arbitrary NAT descriptor, or one that names a known address as listening or for TCP simultaneous open.
fn nat(u: &mut Unstructured<'_>, places: &[SocketAddr]) -> Result<NatDescriptor> {
    let nat: NatDescriptor = u.arbitrary()?;
    if u.arbitrary()? {
        return Ok(nat);
    }
    let doors = List::truncated([*u.choose(places)?]);
    if u.arbitrary()? {
        return Ok(NatDescriptor { udp: u.arbitrary()?, tcp_out: true, doors, ..nat });
    }
    let crossing = Some(*u.choose(places)?);
    Ok(NatDescriptor { udp: u.arbitrary()?, tcp_out: true, doors: List::default(), crossing, ..nat })
}

/// Returns a connectivity check under a key that may be wrong.
fn check(u: &mut Unstructured<'_>, intro: IntroId) -> Result<Vec<u8>> {
    let name = std::format!("{intro}:{}", *u.choose(&["d", "u", "x"])?).into_bytes();
    let mut attributes = std::vec![stun::Attribute::Username(name)];
    attributes.extend(u.arbitrary::<bool>()?.then_some(stun::Attribute::UseCandidate));
    let id = stun::TransactionId(u.arbitrary()?);
    let check = stun::Message::new(stun::Class::Request, id, attributes);
    Ok(check.encode_signed(&key(u.arbitrary()?), stun::integrity::Hash::Sha256))
}
