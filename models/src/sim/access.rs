//! Clients behind simulated NATs. A client for which no NAT is given has a public address of its own.

use super::machines::In;
use super::{Cfg, Event, Net, keys};
use crate::nat::{HostIx, Internet, Kind};
use crate::punching::descriptor;
use crate::world::{Lane, NodeIx, World};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use swarmedge_core::ids::RawTcpId;
use swarmedge_core::machine::Time;
use swarmedge_core::nat::connectivity::{Along, RawTcp, RawTcpEvent};
use swarmedge_core::nat::{Candidate, CandidateKind, NatDescriptor};
use swarmedge_core::role::client::Input;
use swarmedge_core::wire::List;

/// Default IP time-to-live of datagrams.
const TTL: u8 = 64;
/// UDP port of every client's QUIC socket, and its listening TCP port.
pub(super) const PORT: u16 = 7000;

/// Simulated Internet with the NATs of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    net: Internet,
    stun: Option<HostIx>,
    hosts: BTreeMap<NodeIx, (HostIx, Kind)>,
    /// Public address of the network of each client that has moved.
    moved: BTreeMap<NodeIx, Ipv4Addr>,
    /// Whether clients listen on TCP. Those with a public address are reached there; a client whose NAT shows all
    /// peers the same port can take part in a TCP simultaneous open.
    pub listening: bool,
    /// TCP simultaneous opens that one client has begun, by client and destination.
    crossing: BTreeMap<(NodeIx, SocketAddr), RawTcpId>,
}

impl Access {
    /// Returns simulated NATs, one for each of these clients, of the given kind.
    #[must_use]
    pub fn of(clients: impl IntoIterator<Item = (NodeIx, Kind)>) -> Self {
        let mut net = Internet::default();
        let stun = Some(net.add_host(std::vec![Ipv4Addr::new(198, 51, 100, 1).into()], None));
        let hosts = clients.into_iter().map(|(node, kind)| (node, (net.add_site(kind, node), kind))).collect();
        Self { net, stun, hosts, ..Self::default() }
    }

    /// Returns the kind of a client's NAT; [`Kind::Public`] if none is given.
    #[must_use]
    pub fn kind(&self, node: NodeIx) -> Kind {
        self.hosts.get(&node).map_or(Kind::Public, |(_, kind)| *kind)
    }

    /// Returns the address at which servers see a client; `None` if no NAT is given for it.
    pub(super) fn observed(&self, node: NodeIx) -> Option<SocketAddr> {
        let first = || Ipv4Addr::new(203, 0, 113, node);
        let at = || SocketAddr::new(self.moved.get(&node).copied().unwrap_or_else(first).into(), PORT);
        self.hosts.contains_key(&node).then(at)
    }

    /// Moves a client for the `times`th time to another network with a NAT of the same kind.
    pub(super) fn rehome(&mut self, node: NodeIx, times: u8) {
        if let Some((host, _)) = self.hosts.get(&node) {
            let public = Ipv4Addr::new(204, times, 113, node);
            self.net.move_site(*host, public.into());
            self.moved.insert(node, public);
            self.crossing.retain(|(of, _), _| *of != node);
        }
    }

    fn socket(&self, host: HostIx) -> SocketAddr {
        SocketAddr::new(self.net.addr(host), PORT)
    }

    /// Returns the NAT descriptor that a client discovers; `None` if no NAT is given for it.
    pub(super) fn discovered(&mut self, now: Time, node: NodeIx) -> Option<NatDescriptor> {
        let &(host, kind) = self.hosts.get(&node)?;
        let own = self.socket(host);
        let server = self.stun.map(|stun| SocketAddr::new(self.net.addr(stun), 3478));
        let seen = server.and_then(|to| self.net.send(now, host, own, to, TTL)).map(|arrival| arrival.from);
        let candidate = |kind| move |addr| Candidate { kind, addr };
        let host = Some(own).map(candidate(CandidateKind::Host));
        let reflexive = seen.filter(|addr| *addr != own).map(candidate(CandidateKind::ServerReflexive));
        let doors = List::truncated([own].into_iter().filter(|_| self.listening && kind == Kind::Public));
        let alike = self.listening && matches!(kind, Kind::PortRestricted | Kind::UdpBlocked);
        let crossing = self.observed(node).filter(|_| alike);
        Some(NatDescriptor { doors, crossing, ..descriptor(kind, host.into_iter().chain(reflexive).collect()) })
    }

    /// Sends a datagram from a client's QUIC socket; returns the receiving client and the source address that it
    /// sees, or `None` if the datagram is lost.
    fn send(&mut self, now: Time, node: NodeIx, to: SocketAddr, ttl: u8) -> Option<(NodeIx, SocketAddr)> {
        let &(host, _) = self.hosts.get(&node)?;
        let arrival = self.net.send(now, host, self.socket(host), to, ttl)?;
        let (there, _) = self.hosts.iter().find(|(_, (host, _))| *host == arrival.host)?;
        (arrival.to == self.socket(arrival.host)).then_some((*there, arrival.from))
    }

    /// Returns the client that listens on TCP at the public address `to`.
    fn listens(&self, to: SocketAddr) -> Option<NodeIx> {
        let public = |(_, (host, kind)): &(&NodeIx, &(HostIx, Kind))| *kind == Kind::Public && self.socket(*host) == to;
        self.hosts.iter().filter(|_| self.listening).find(public).map(|(node, _)| *node)
    }

    /// Begins a client's part of a TCP simultaneous open to `to`. Returns the other client and its number for the
    /// connection if it has begun its part already.
    fn cross(&mut self, node: NodeIx, id: RawTcpId, to: SocketAddr) -> Option<(NodeIx, RawTcpId)> {
        let there = *self.hosts.keys().find(|n| self.observed(**n) == Some(to))?;
        let theirs = self.crossing.remove(&(there, self.observed(node)?));
        if theirs.is_none() {
            self.crossing.insert((node, to), id);
        }
        theirs.map(|theirs| (there, theirs))
    }

    /// Moves all stored times back by `by`.
    pub(super) fn rebase(&mut self, by: Duration) {
        self.net.rebase(by);
    }
}

impl Net {
    /// Sends a datagram from a client's QUIC socket; returns the receiving node and the source address that it sees,
    /// or `None` if the datagram is lost.
    pub(super) fn datagram(
        &mut self,
        now: Time,
        node: NodeIx,
        to: SocketAddr,
        ttl: Option<u8>,
    ) -> Option<(NodeIx, SocketAddr)> {
        if self.access.hosts.contains_key(&node) {
            return self.access.send(now, node, to, ttl.unwrap_or(TTL));
        }
        let there = keys::node_at(to).filter(|&n| self.addr(n) == to && ttl.is_none())?;
        Some((there, self.addr(node)))
    }

    /// Returns the node that accepts a client's connection to `to`, or `None` if the connection fails; over UDP,
    /// datagrams must pass both ways.
    pub(super) fn connects(&mut self, now: Time, node: NodeIx, to: SocketAddr, along: Along) -> Option<NodeIx> {
        match along {
            Along::Udp => {}
            Along::Tcp => return self.access.listens(to),
            Along::RawTcp(id) => return self.raw_tcp.remove(&(node, id)),
        }
        let (there, from) = self.datagram(now, node, to, None)?;
        let (back, _) = self.datagram(now, there, from, None)?;
        (back == node).then_some(there)
    }
}

/// Performs a client's command on a raw TCP connection.
pub(super) fn raw_tcp(w: &mut World<Net>, cfg: &Cfg, node: NodeIx, command: RawTcp) {
    let (to, trips, event) = match command {
        RawTcp::Call { id, to, from: Some(_) } => {
            let Some((there, theirs)) = w.env.access.cross(node, id, to) else { return };
            for (node, id, to) in [(node, id, there), (there, theirs, node)] {
                w.env.raw_tcp.insert((node, id), to);
                let (lane, open) = (Lane { to: node, what: "raw TCP", id: w.env.number() }, RawTcpEvent::Open(id));
                w.send(lane, cfg.latency, Event::Input(In::Client(Input::RawTcp(open))));
            }
            return;
        }
        RawTcp::Call { id, to, from: None } => {
            match w.env.access.listens(to).filter(|there| w.node(*there).is_some()) {
                Some(there) => {
                    w.env.raw_tcp.insert((node, id), there);
                    (node, 2, RawTcpEvent::Open(id))
                }
                None => (node, 4, RawTcpEvent::Failed(id)),
            }
        }
        RawTcp::Serve { id, first } => {
            let Some(there) = w.env.raw_tcp.remove(&(node, id)) else { return };
            let (id, from) = (RawTcpId(1 << 63 | w.env.number()), w.env.addr(node));
            w.env.raw_tcp.insert((there, id), node);
            (there, 1, RawTcpEvent::Shown { id, from, bytes: first })
        }
        RawTcp::HangUp(id) => {
            w.env.raw_tcp.remove(&(node, id));
            w.env.access.crossing.retain(|(of, _), l| *of != node || *l != id);
            return;
        }
    };
    let lane = Lane { to, what: "raw TCP", id: w.env.number() };
    w.send(lane, cfg.latency * trips, Event::Input(In::Client(Input::RawTcp(event))));
}
