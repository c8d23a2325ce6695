//! Fuzz body for the connectivity machine, with arbitrary messages of introduced peers and strangers.

use crate::play::{START, drive_shifted, step};
use arbitrary::{Result, Unstructured};
use std::net::SocketAddr;
use swarmedge_core::codec::List;
use swarmedge_core::ids::{IntroId, RawTcpId};
use swarmedge_core::machine::Machine as _;
use swarmedge_core::nat::connectivity::{
    Along, Config, Connectivity, Input, Line, LineEvent, Offer, Output, Role, Ticket,
};
use swarmedge_core::nat::{NatDescriptor, stun};
use swarmedge_models::rng::Seeded;
use swarmedge_models::sim::keys;

/// Checks sent and connections dialled that input may still answer.
#[derive(Default)]
struct Asked {
    checks: Vec<(SocketAddr, stun::TransactionId)>,
    lines: Vec<RawTcpId>,
}

fn key(n: u8) -> [u8; 16] {
    [n & 1; 16]
}

/// Plays offers, goes, checks under right and wrong keys from several addresses, answers to requests, and noise, over
/// UDP and on lines. Datagrams go only to introduced peers or to addresses that proved to know the key, lines are
/// opened only to introduced peers' listening addresses, each line is answered once, and all limits hold.
pub(crate) fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut m, cfg) =
        (Connectivity::default(), Config { sessions_max: 3, crosses_from: Some(5000), ..Config::default() });
    let (mut now, mut rng, mut asked) = (START, Seeded::new(1), Asked::default());
    while !u.is_empty() {
        step(u, &mut now)?;
        let input = input(u, &asked)?;
        let came = if let Some(Input::Datagram { from, .. }) = &input { Some(*from) } else { None };
        let mut line = match &input {
            Some(Input::Line(LineEvent::Open(line) | LineEvent::Shown { line, .. })) => Some(*line),
            Some(Input::Line(LineEvent::Failed(_))) | Some(_) | None => None,
        };
        let before = m.clone();
        for output in drive_shifted(&mut m, &cfg, now, &mut rng, input) {
            match output {
                Output::Send { to, bytes, .. } => {
                    let proven = came == Some(to);
                    assert!(proven || m.is_introduced(to) || before.is_introduced(to), "a datagram to a stranger");
                    asked.checks.push((to, stun::Message::decode(&bytes).expect("ours").id));
                }
                Output::Line(Line::Call { line, to, .. }) => {
                    assert!(m.is_door(to), "a line to a stranger");
                    asked.lines.push(line);
                }
                Output::Path { addr, along: Along::Tcp, .. } => {
                    assert!(m.is_door(addr) || before.is_door(addr), "a connection to a stranger");
                }
                // a line may be closed before it is open
                Output::Line(Line::HangUp(of)) if line != Some(of) && asked.lines.contains(&of) => {}
                Output::Line(Line::Serve { line: of, .. } | Line::HangUp(of))
                | Output::Path { along: Along::Line(of), .. } => {
                    assert_eq!(line.take(), Some(of), "a line that was not there, or not any more");
                }
                Output::Path { along: Along::Udp, .. }
                | Output::Scatter(_)
                | Output::Opened(_)
                | Output::Moved(_)
                | Output::Ended { .. } => {}
            }
        }
        assert_eq!(line, None, "a line that nobody answers for");
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
        11 => Some(Input::Line(LineEvent::Shown { line: RawTcpId(1 << 63), from, bytes: u.arbitrary()? })),
        12 => Some(Input::Line(LineEvent::Shown { line: RawTcpId(1 << 63), from, bytes: check(u, intro)? })),
        13 | 14 => {
            let line = if asked.lines.is_empty() { RawTcpId(7) } else { *u.choose(&asked.lines)? };
            let event = if u.arbitrary()? { LineEvent::Open(line) } else { LineEvent::Failed(line) };
            Some(Input::Line(event))
        }
        _ => None,
    })
}

/// Returns an arbitrary descriptor, or one that listens at or crosses from a known address.
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

/// Returns a check under a key that may be wrong.
fn check(u: &mut Unstructured<'_>, intro: IntroId) -> Result<Vec<u8>> {
    let name = std::format!("{intro}:{}", *u.choose(&["d", "u", "x"])?).into_bytes();
    let mut attributes = std::vec![stun::Attribute::Username(name)];
    attributes.extend(u.arbitrary::<bool>()?.then_some(stun::Attribute::UseCandidate));
    let id = stun::TransactionId(u.arbitrary()?);
    let check = stun::Message::new(stun::Class::Request, id, attributes);
    Ok(check.encode_signed(&key(u.arbitrary()?), stun::integrity::Hash::Sha256))
}
