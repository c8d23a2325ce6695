//! Fuzz body for the port-mapping machine, with an arbitrary gateway and STUN server.

use crate::play::{START, drive_shifted, step};
use arbitrary::{Result, Unstructured};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use swarmedge_core::nat::Transport;
use swarmedge_core::nat::discovery::io::{Sight, Socket, Witness};
use swarmedge_core::nat::mapping::io::{Config, Effect, IgdEnd, IgdError, Input, Opened, Output, Site};
use swarmedge_core::nat::mapping::{Mapping, PORT, natpmp, pcp};
use swarmedge_core::nat::stun::{Class, Message, TransactionId};
use swarmedge_models::rng::Seeded;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Newest requests of the machine, so that some answers fit them.
#[derive(Default)]
struct Asked {
    pcp: Option<pcp::MapRequest>,
    igd: u32,
    stun: Option<TransactionId>,
}

/// Checks that the machine reports a port as open only after an answer to its STUN request came from the witness: the
/// server address that the host never wrote to.
pub(crate) fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let (mut m, cfg, mut rng) = (Mapping::default(), Config::default(), Seeded::new(1));
    let (mut now, mut asked, mut shown) = (START, Asked::default(), false);
    let over = if u.arbitrary()? { Transport::Tcp } else { Transport::Udp };
    let site = Site { gateway: GATEWAY, local: SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000), over };
    let mut input = Some(Input::Site(Some(site)));
    while !u.is_empty() {
        shown |= is_shown(input.as_ref(), asked.stun);
        for output in drive_shifted(&mut m, &cfg, now, &mut rng, input.take()) {
            match output {
                Output::Effect(Effect::Send { socket: Socket::Gateway | Socket::TcpGateway, bytes, .. }) => {
                    asked.pcp = pcp::decode_request(&bytes).ok().or(asked.pcp);
                }
                Output::Effect(Effect::Send { bytes, .. }) => asked.stun = Message::decode(&bytes).ok().map(|m| m.id),
                Output::Effect(Effect::Igd { id, .. }) => asked.igd = id,
                Output::Forwards(_) => assert_eq!(over, Transport::Tcp, "of the main socket nothing is said unseen"),
                Output::Claimed(_) | Output::Status(_) => {}
            }
        }
        assert!(m.claimed().is_none() || shown, "claimed, and nobody has shown it");
        step(u, &mut now)?;
        input = something(u, site, &asked)?;
    }
    Ok(())
}

/// Returns whether an input is the witness's answer to the machine's newest STUN request.
fn is_shown(input: Option<&Input>, asked: Option<TransactionId>) -> bool {
    let Some(Input::Datagram { socket: Socket::Main, from, bytes }) = input else { return false };
    let right = |m: Message| m.class == Class::Success && Some(m.id) == asked;
    *from == witness() && Message::decode(bytes).is_ok_and(right)
}

fn witness() -> SocketAddr {
    SocketAddr::new(SERVER.into(), 3479)
}

fn something(u: &mut Unstructured<'_>, site: Site, asked: &Asked) -> Result<Option<Input>> {
    let gateway = SocketAddr::new(GATEWAY.into(), PORT);
    let socket = *u.choose(&[Socket::Gateway, Socket::TcpGateway])?;
    let of_gateway = |bytes| Input::Datagram { socket, from: gateway, bytes };
    let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, u.int_in_range(1..=2)?), u.arbitrary()?);
    let (lifetime_s, epoch_s) = (u.arbitrary()?, u.arbitrary()?);
    Ok(Some(match u.int_in_range(0..=10_u8)? {
        0 => Input::Site(u.arbitrary::<bool>()?.then_some(site)),
        1 => Input::Seen(Sight {
            mapped: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), u.arbitrary()?),
            translated: u.ratio(3, 4)?,
            server: SocketAddr::new(SERVER.into(), 3478),
            ports: u.arbitrary()?,
            witness: Some(Witness { from: witness(), other_address: u.arbitrary()? }),
        }),
        2 | 3 => {
            let Some(pcp::MapRequest { nonce, over, internal, .. }) = asked.pcp else { return Ok(None) };
            let internal_port = internal.port();
            let mapped = pcp::Mapped { nonce, over, internal_port, external, lifetime_s, epoch_s };
            of_gateway(pcp::Answer::Mapped(mapped).encode())
        }
        4 => {
            let nonce = asked.pcp.map(|r| r.nonce);
            of_gateway(pcp::Answer::Refused { code: u.arbitrary()?, version: 2, nonce, wait_s: lifetime_s }.encode())
        }
        5 => {
            let (internal_port, external_port) = (site.local.port(), external.port());
            let said = *u.choose(&[
                natpmp::Said::Refused(1),
                natpmp::Said::Address(*external.ip()),
                natpmp::Said::Mapped { over: site.over, internal_port, external_port, lifetime_s },
            ])?;
            of_gateway(natpmp::Answer { epoch_s, said }.encode())
        }
        6 => {
            let answer = if u.arbitrary()? { Ok(Opened { external, lifetime_s }) } else { Err(IgdError::Refused(1)) };
            Input::Igd(IgdEnd { id: asked.igd.wrapping_sub(u.int_in_range(0..=1)?), answer })
        }
        7 | 8 => {
            let id = asked.stun.filter(|_| u.ratio(3, 4).unwrap_or_default()).unwrap_or(TransactionId([0; 12]));
            let class = *u.choose(&[Class::Success, Class::Success, Class::Error])?;
            let from = *u.choose(&[witness(), SocketAddr::new(SERVER.into(), 3478)])?;
            let bytes = Message::new(class, id, std::vec::Vec::new()).encode();
            Input::Datagram { socket: Socket::Main, from, bytes }
        }
        9 => of_gateway(u.arbitrary()?),
        _ => return Ok(None),
    }))
}
