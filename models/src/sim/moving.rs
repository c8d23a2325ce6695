//! Clients that change their network: another address, and nothing arrives any more on what was connected before,
//! without anybody being told.

use super::links::{Kind, lane};
use super::machines::In;
use super::{Cfg, Event, Net, bulk, keys};
use crate::world::{Lane, NodeIx, World};
use std::net::SocketAddr;
use std::time::Duration;
use swarmedge_core::nat::{Candidate, CandidateKind, NatDescriptor};
use swarmedge_core::role::client::io::Input;
use swarmedge_core::wire::List;

/// The silences that a shell tells of.
const QUIET_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// After so long without a word QUIC gives a connection up.
const IDLE: Duration = Duration::from_secs(30);

impl Net {
    /// Where a node's socket is now.
    #[must_use]
    pub fn addr(&self, node: NodeIx) -> SocketAddr {
        let public = || keys::addr_after(node, self.moved.get(&node).copied().unwrap_or(0));
        self.access.observed(node).unwrap_or_else(public)
    }
}

/// What STUN shows a client now.
pub(super) fn nat(w: &mut World<Net>, node: NodeIx) -> NatDescriptor {
    let moved = w.env.moved.get(&node).copied().unwrap_or(0);
    let now = w.now;
    if let Some(nat) = w.env.access.discovered(now, node) {
        return NatDescriptor { epoch: nat.epoch + u32::from(moved), ..nat };
    }
    let candidate = Candidate { kind: CandidateKind::Host, addr: w.env.addr(node) };
    NatDescriptor { epoch: 1 + u32::from(moved), candidates: List::truncated([candidate]), ..keys::nat(node) }
}

/// A client asks what has become of its network.
pub(super) fn look(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let told = Input::Network(nat(w, node));
    w.send(Lane { to: node, what: "stun", id: 0 }, cfg.latency * 2, Event::Input(In::Client(told)));
}

/// A client joins another network.
pub(super) fn change(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    *w.env.moved.entry(node).or_default() += 1;
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
