//! What follows when the ways to others change: a NAT that has forgotten its mappings or has another address, a host
//! that has joined another network. First signs are connections on which nothing is heard; certainty comes from STUN.

use super::io::{CloseReason, Notice, Output};
use super::job::Job;
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

/// What is remembered of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Network {
    /// Where connections begin and come out; ports only of a NAT that keeps one for all.
    ways: Vec<(CandidateKind, SocketAddr)>,
    /// The last [`Output::Look`].
    looked: Option<Time>,
}

impl Network {
    pub(super) fn rebase(&mut self, by: Duration) {
        self.looked = self.looked.map(|at| at.rebased(by));
    }
}

/// The addresses on which connections of this host depend.
fn ways(nat: &NatDescriptor) -> Vec<(CandidateKind, SocketAddr)> {
    let one_port = nat.mapping == NatBehaviour::EndpointIndependent;
    let outside = nat.candidates.iter().filter(|c| c.kind != CandidateKind::Mapped);
    let without_port = |a: SocketAddr| SocketAddr::new(a.ip(), if one_port { a.port() } else { 0 });
    outside.map(|c| (c.kind, without_port(c.addr))).collect()
}

/// A port that is not known may be any.
fn is_same(a: (CandidateKind, SocketAddr), b: (CandidateKind, SocketAddr)) -> bool {
    let ports = [a.1.port(), b.1.port()];
    a.0 == b.0 && a.1.ip() == b.1.ip() && (ports[0] == ports[1] || ports.contains(&0))
}

impl Client {
    /// Nothing has come on a peer's connection for `quiet`, though something was due. First the network is looked at,
    /// which makes QUIC try the way too; what stays silent then is lost: its pieces go to others at once, and the CN is
    /// asked to introduce the peer anew. Who is served only may come back by itself.
    pub(super) fn peer_quiet(&mut self, cx: &mut Context<'_>, conn: ConnId, quiet: Duration, round_trip: Duration) {
        if quiet < cx.cfg.quiet_after {
            return;
        }
        self.look(cx);
        if quiet >= cx.cfg.lost_after.max(round_trip * 4) {
            self.peer_lost(cx, conn);
        }
    }

    fn peer_lost(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some((handle, source)) = self.open_link(conn) else { return };
        cx.push(Output::Notice(Notice::SourceDropped { handle, source, why: CloseReason::Stalled }));
        self.meet_anew(conn);
        self.let_go(cx, conn, CloseReason::Stalled);
    }

    /// Asks what has become of the network, unless that was asked a moment ago.
    fn look(&mut self, cx: &mut Context<'_>) {
        if self.network.looked.is_some_and(|at| cx.now.since(at) < cx.cfg.quiet_after / 2) {
            return;
        }
        self.network.looked = Some(cx.now);
        cx.push(Output::Look);
        self.tell_session(cx, session::Input::Look);
    }

    /// The network as it is now. Connections that came by another way are dead, though they do not know: those to edges
    /// are made anew, QUIC tries its own, the session judges for itself.
    pub(super) fn network(&mut self, cx: &mut Context<'_>, mut nat: NatDescriptor) {
        nat.birthday = cx.cfg.connectivity.birthday.is_some();
        let now = ways(&nat);
        let stays = |old: &(CandidateKind, SocketAddr)| now.iter().any(|new| is_same(*old, *new));
        let changed = nat.udp && !self.network.ways.iter().all(stays);
        if nat.udp {
            self.network.ways = now;
        }
        self.tell_connectivity(cx, connectivity::Input::Network(nat.clone()));
        self.tell_session(cx, session::Input::Network(nat));
        if changed {
            cx.push(Output::Moved);
            let running: Vec<_> = self.jobs.iter().filter(|(_, j)| Job::is_active(j)).map(|(h, _)| *h).collect();
            for handle in running {
                self.tell_swarm(cx, handle, download::Input::Moved);
            }
        }
    }
}
