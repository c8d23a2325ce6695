//! Clients that change their network: they get another address, and their connections carry nothing any more, without
//! notice.

use super::connection::{Kind, lane};
use super::machines::In;
use super::{Cfg, Event, Net, bulk, keys};
use crate::world::{Lane, NodeIx, World};
use std::net::SocketAddr;
use std::time::Duration;
use swarmedge_core::nat::{Candidate, CandidateKind, NatDescriptor};
use swarmedge_core::role::client::io::Input;
use swarmedge_core::wire::List;

/// Durations of silence on a peer connection, in milliseconds, after which the shell reports it.
const QUIET_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// Duration of silence after which QUIC closes a connection.
const IDLE: Duration = Duration::from_secs(30);

impl Net {
    /// Returns the address of a node's socket in its current network.
    #[must_use]
    pub fn addr(&self, node: NodeIx) -> SocketAddr {
        let public = || keys::addr_after(node, self.moved.get(&node).copied().unwrap_or(0));
        self.access.observed(node).unwrap_or_else(public)
    }
}

/// Returns the NAT descriptor that a client finds in its current network by asking the STUN server.
pub(super) fn nat(w: &mut World<Net>, node: NodeIx) -> NatDescriptor {
    let moved = w.env.moved.get(&node).copied().unwrap_or(0);
    let now = w.now;
    if let Some(nat) = w.env.access.discovered(now, node) {
        return NatDescriptor { epoch: nat.epoch + u32::from(moved), ..nat };
    }
    let candidate = Candidate { kind: CandidateKind::Host, addr: w.env.addr(node) };
    NatDescriptor { epoch: 1 + u32::from(moved), candidates: List::truncated([candidate]), ..keys::nat(node) }
}

/// Answers a client's request to probe its network.
pub(super) fn look(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let told = Input::Network(nat(w, node));
    w.send(Lane { to: node, what: "stun", id: 0 }, cfg.latency * 2, Event::Input(In::Client(told)));
}

/// Moves a client to another network.
pub(super) fn change(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let times = w.env.moved.entry(node).or_default();
    *times += 1;
    let times = *times;
    w.env.access.rehome(node, times);
    let lost = w.env.links.iter_mut().filter(|(_, l)| l.from.0 == node || l.to.0 == node);
    let lost: Vec<_> = lost
        .map(|(&id, l)| {
            l.silent = true;
            (id, l.clone())
        })
        .collect();
    bulk::silence(w, node);
    for (id, link) in lost {
        for end in [link.from, link.to] {
            w.clear_lanes(|l| *l == lane(link.kind, id, end.0));
            if link.kind != Kind::Peer {
                continue;
            }
            let conn = end.1;
            for ms in QUIET_MS {
                let quiet = Duration::from_millis(ms);
                let told = Input::PeerQuiet { conn, quiet, round_trip: cfg.latency * 2 };
                let lane = Lane { to: end.0, what: "quiet", id: w.env.number() };
                w.send(lane, quiet, Event::Input(In::Client(told)));
            }
            w.send(lane(link.kind, id, end.0), IDLE, Event::Input(In::Client(Input::PeerClosed { conn })));
        }
    }
}
