//! Reaction to changes of the network: the NAT has lost its mappings or changed its address, or the host has joined
//! another network. Silent connections are the first sign; a STUN query confirms it.

use super::io::{EdgeOutput, Output, PeerOutput};
use super::links::End;
use super::{Client, Context};
use crate::Time;
use crate::ids::ConnId;
use crate::nat::connectivity;
use crate::nat::{CandidateKind, NatBehaviour, NatDescriptor};
use crate::session::client as session;
use crate::swarm::download;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// Last known addresses of this host, and the time when they were last checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Network {
    /// Local and reflexive addresses that this host's connections use; the port is 0 if the NAT uses another port for
    /// each destination.
    addresses: Vec<(CandidateKind, SocketAddr)>,
    /// Whether no STUN server has answered lately: perhaps there is no network at all.
    is_out: bool,
    /// Time of the last [`Output::ProbeNetwork`].
    checked_at: Option<Time>,
}

/// Change of the network that an answer of a STUN server has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    /// Whether an address in use is gone.
    has_moved: bool,
    /// Whether a STUN server answers again after an outage.
    is_back: bool,
}

impl Network {
    /// Checks the network, unless that was done within half of `quiet_after`; returns whether it is checked now.
    fn probe(&mut self, cx: &mut Context<'_>) -> bool {
        if self.checked_at.is_some_and(|at| cx.now.since(at) < cx.cfg.quiet_after / 2) {
            return false;
        }
        self.checked_at = Some(cx.now);
        cx.push(Output::Peer(PeerOutput::ProbePaths));
        cx.push(Output::ProbeNetwork);
        true
    }

    /// Stores the addresses of the network.
    fn learn(&mut self, nat: &NatDescriptor) -> Change {
        let now = addresses(nat);
        let stays = |old: &(CandidateKind, SocketAddr)| now.iter().any(|new| is_same(*old, *new));
        let has_moved = nat.udp && !self.addresses.iter().all(stays);
        if nat.udp {
            self.addresses = now;
        }
        let was_out = core::mem::replace(&mut self.is_out, !nat.udp);
        Change { has_moved, is_back: was_out && nat.udp }
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.checked_at = self.checked_at.map(|at| at.rebased(by));
    }
}

/// Returns the addresses that this host's connections depend on, with port 0 if the NAT uses another port for each
/// destination.
fn addresses(nat: &NatDescriptor) -> Vec<(CandidateKind, SocketAddr)> {
    let one_port = nat.mapping == NatBehaviour::EndpointIndependent;
    let outside = nat.candidates.iter().filter(|c| c.kind != CandidateKind::Mapped);
    let without_port = |a: SocketAddr| SocketAddr::new(a.ip(), if one_port { a.port() } else { 0 });
    outside.map(|c| (c.kind, without_port(c.addr))).collect()
}

/// Returns whether two addresses may be the same; port 0 matches any port.
fn is_same(a: (CandidateKind, SocketAddr), b: (CandidateKind, SocketAddr)) -> bool {
    let ports = [a.1.port(), b.1.port()];
    a.0 == b.0 && a.1.ip() == b.1.ip() && (ports[0] == ports[1] || ports.contains(&0))
}

impl Client {
    /// Handles a peer connection that has been silent for `quiet` although something was due. First the network is
    /// checked, and QUIC probes the path. If the silence lasts, the path counts as lost: other sources fetch its
    /// pieces, and the CN is asked to introduce the peer again. A downloader that this client serves must reconnect
    /// by itself.
    pub(super) fn on_peer_quiet(&mut self, cx: &mut Context<'_>, conn: ConnId, quiet: Duration, round_trip: Duration) {
        if quiet < cx.cfg.quiet_after {
            return;
        }
        if self.network.probe(cx) {
            self.tell_session(cx, session::Input::ProbePath);
        }
        let is_lost = quiet >= cx.cfg.lost_after.max(round_trip * 4);
        if is_lost && self.links.is_connected(conn) {
            self.end_link(cx, conn, End::PathLost);
        }
    }

    /// Stores the addresses and the NAT type of the network. If an address in use is gone, connections that used it
    /// are dead: those to edges are dropped, and QUIC and the session probe theirs.
    pub(super) fn on_network(&mut self, cx: &mut Context<'_>, mut nat: NatDescriptor) {
        nat.birthday = cx.cfg.connectivity.birthday.is_some();
        let Change { has_moved, is_back } = self.network.learn(&nat);
        self.tell_connectivity(cx, connectivity::Input::Network(nat.clone()));
        self.tell_session(cx, session::Input::Network(nat));
        if has_moved {
            cx.push(Output::Peer(PeerOutput::ProbePaths));
            cx.push(Output::Edge(EdgeOutput::DropConnections));
            for handle in self.jobs.active() {
                self.tell_swarm(cx, handle, download::Input::Moved);
            }
        }
        if has_moved || is_back {
            self.on_edges_back(cx);
        }
    }
}
