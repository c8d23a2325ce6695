//! Raw TCP connections (before any handshake) of the two hosts, which open or fail and lose no bytes.

use super::{BYSTANDER, Cfg, Event, KEY, Mutant, Punch, intro};
use crate::world::{Lane, NodeIx, World};
use std::net::SocketAddr;
use swarmedge_core::ids::{IntroId, RawTcpId};
use swarmedge_core::nat::connectivity::{Input, RawTcp, RawTcpEvent};
use swarmedge_core::nat::stun::integrity::Hash;
use swarmedge_core::nat::stun::{Attribute, Class, Message, TransactionId};

/// Returns the accepting side's number of a raw TCP connection that the other side opened as `id`.
const fn there(id: RawTcpId) -> RawTcpId {
    RawTcpId(id.0 | 1 << 63)
}

fn tell(world: &mut World<Punch>, cfg: &Cfg, (host, trips): (NodeIx, u32), input: Input) {
    world.send(Lane { to: host, what: "tcp", id: 0 }, cfg.latency * trips, Event::Tell(input));
}

/// Records that a host dials an address, and returns whether that TCP connection opens.
fn reaches(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, to: SocketAddr) -> bool {
    let (me, other) = (usize::from(node), usize::from(1 - node));
    world.env.dials[me].push(to);
    world.env.strayed |= world.env.strays(me, to);
    to == world.env.door(other) && cfg.doors[other] && cfg.mutant != Some(Mutant::DoorIsShut)
}

/// Dials a listening address of the other host; if the connection opens, both hosts are connected.
pub(super) fn dial(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, (intro, to): (IntroId, SocketAddr)) {
    if reaches(world, cfg, node, to) {
        connected(world, cfg, node, intro);
    }
}

/// Chooses an open raw TCP connection as the downloader's path; both hosts are connected by it.
pub(super) fn take(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, (intro, id): (IntroId, RawTcpId)) {
    world.env.raw_tcp[1].push(id);
    if world.env.raw_tcp[0].contains(&id) {
        connected(world, cfg, node, intro);
    }
}

fn connected(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, intro: IntroId) {
    tell(world, cfg, (1 - node, 1), Input::Connected(intro));
    tell(world, cfg, (node, 2), Input::Connected(intro));
}

/// Performs a command for a TCP connection between the two peers.
pub(super) fn perform(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, command: RawTcp) {
    match command {
        RawTcp::Call { id, to, from: Some(_) } => cross(world, cfg, node, (id, to)),
        RawTcp::Call { id, to, from: None } => {
            let open = reaches(world, cfg, node, to);
            let event = if open { RawTcpEvent::Open(id) } else { RawTcpEvent::Failed(id) };
            tell(world, cfg, (node, 2), Input::RawTcp(event));
        }
        // a crossing raw TCP connection was opened by both sides and accepted by neither
        RawTcp::Serve { .. } if cfg.crossing.is_some() => {}
        RawTcp::Serve { id, first } => {
            world.env.raw_tcp[0].push(there(id));
            let from = SocketAddr::new(world.env.public[usize::from(node)], 50_000);
            let event = RawTcpEvent::Shown { id: there(id), from, bytes: first };
            tell(world, cfg, (1 - node, 1), Input::RawTcp(event));
        }
        RawTcp::HangUp(id) => {
            let waits = &mut world.env.crossing[usize::from(node)];
            *waits = waits.filter(|l| *l != id);
        }
    }
}

/// Begins a host's part of a TCP simultaneous open; the connection opens once the other host has begun its part.
fn cross(world: &mut World<Punch>, cfg: &Cfg, node: NodeIx, (id, to): (RawTcpId, SocketAddr)) {
    let (me, other) = (usize::from(node), usize::from(1 - node));
    world.env.dials[me].push(to);
    world.env.strayed |= world.env.strays(me, to);
    if cfg.crossing != Some(true) || cfg.mutant == Some(Mutant::DoorIsShut) {
        return tell(world, cfg, (node, 2), Input::RawTcp(RawTcpEvent::Failed(id)));
    }
    world.env.crossing[me] = Some(id);
    let Some(theirs) = world.env.crossing[other] else { return };
    world.env.raw_tcp[0].push(if node == 0 { id } else { theirs });
    for (host, id) in [(node, id), (1 - node, theirs)] {
        tell(world, cfg, (host, 1), Input::RawTcp(RawTcpEvent::Open(id)));
    }
    world.env.crossing = [None; 2];
}

/// Sends a forged check in the uploader's name from a host that is no peer to the downloader's listening port.
pub(super) fn pretend(world: &mut World<Punch>, cfg: &Cfg) {
    let key = if cfg.mutant == Some(Mutant::KeyLeaks) { KEY } else { [8; 16] };
    let name = Attribute::Username(format!("{}:u", intro(1)).into_bytes());
    let check = Message::new(Class::Request, TransactionId([9; 12]), Vec::from([name]));
    let (id, from) = (there(RawTcpId(99)), SocketAddr::new(BYSTANDER.into(), 50_000));
    let event = RawTcpEvent::Shown { id, from, bytes: check.encode_signed(&key, Hash::Sha256) };
    world.send(Lane { to: 0, what: "stranger", id: 0 }, cfg.latency * 3, Event::Tell(Input::RawTcp(event)));
}
