//! Links of this client's downloads to the peers that a CN has introduced: a link's whole life, from the introduction
//! over meeting, dialling and `Hello` to the open connection and its [`End`].
//!
//! The uploading side of peer connections belongs to [`crate::swarm::upload`].

mod end;
mod search;

pub(super) use end::{End, Stage};
pub(super) use search::Search;

use super::io::{Meeting, NotTried, Notice, Output, PeerOutput, SourceName};
use super::{Config, Context};
use crate::ids::{ConnId, DownloadId, Handle, IntroId, PublicKey};
use crate::limits::PEER_CONNECTIONS_MAX;
use crate::nat::NatDescriptor;
use crate::nat::connectivity::{Along, RawTcp, Ticket};
use crate::swarm::download;
use crate::wire::PROTOCOL;
use crate::wire::control::IntroducedPeer;
use crate::wire::peer::{PeerHello, PeerMsg};
use crate::wire::records::SignedIntroduction;
use crate::{Deadlines, Time};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::SocketAddr;
use core::time::Duration;

/// All links of a client, by connection. A link has its number from the introduction on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerLinks {
    links: BTreeMap<ConnId, PeerLink>,
    next_conn: ConnId,
    /// Time-outs of the links that open or await `Welcome`.
    due: Deadlines<ConnId>,
}

/// Peer that a download of this client was introduced to, and the connection to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerLink {
    handle: Handle,
    intro: IntroId,
    key: PublicKey,
    /// Whether the path is, or was, found by connectivity checks.
    met: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The connectivity machine seeks a path; the introduction will be shown once it is dialled.
    Meeting(Box<SignedIntroduction>, DownloadId),
    /// The connection is being opened; the introduction will be shown on it.
    Dialing(Box<SignedIntroduction>),
    /// `Hello` with the introduction is sent, and `Welcome` awaited.
    Greeting,
    /// The peer has answered `Welcome` and serves.
    Open,
}

impl PeerLink {
    /// Returns the download that the peer was introduced to.
    pub(super) const fn handle(&self) -> Handle {
        self.handle
    }

    /// Returns the introduction.
    pub(super) const fn intro(&self) -> IntroId {
        self.intro
    }

    /// Returns the peer's upload key K_u.
    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the peer's name as a source of pieces.
    pub(super) const fn name(&self) -> SourceName {
        SourceName::Peer(self.intro, self.key)
    }

    /// Returns how far the link has come.
    pub(super) const fn stage(&self) -> Stage {
        match self.state {
            State::Meeting(..) => Stage::Sought,
            State::Dialing(_) if self.met => Stage::Sought,
            State::Dialing(_) => Stage::Direct,
            State::Greeting => Stage::Greeting,
            State::Open => Stage::Open,
        }
    }
}

/// Facts about a download that decide whether it can use another peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Whether it is fetching.
    pub(super) fetching: bool,
    /// Number of further introductions that its usage record has room for.
    pub(super) nameable: usize,
}

/// Content of a peer's message.
pub(super) enum Heard {
    /// The peer serves from now on, so many requests at a time.
    Welcome { intro: IntroId, key: PublicKey, requests_max: u16 },
    /// The peer has pieces.
    Pieces(download::Input),
    /// The peer ends the link, or must not send this message.
    End(End),
}

/// Order to seek a path to a peer by connectivity checks.
pub(super) struct Seek {
    /// Connection that the path is for.
    pub(super) conn: ConnId,
    /// Introduction of the peer.
    pub(super) intro: IntroId,
    /// The CN's ticket for the attempt.
    pub(super) ticket: Ticket,
    /// NAT and addresses of the peer.
    pub(super) nat: NatDescriptor,
}

impl PeerLinks {
    /// Returns whether a connection is one of these links.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.links.contains_key(&conn)
    }

    /// Returns the connections of a download.
    pub(super) fn of(&self, handle: Handle) -> impl Iterator<Item = ConnId> {
        self.links.iter().filter(move |(_, link)| link.handle == handle).map(|(conn, _)| *conn)
    }

    /// Returns the connection that an introduction has led to.
    pub(super) fn of_intro(&self, intro: IntroId) -> Option<ConnId> {
        self.links.iter().find(|(_, link)| link.intro == intro).map(|(conn, _)| *conn)
    }

    /// Returns whether a link's connection is open.
    pub(super) fn is_connected(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| matches!(link.stage(), Stage::Greeting | Stage::Open))
    }

    /// Returns how many more peers a download could use.
    pub(super) fn wanted(&self, cfg: &Config, handle: Handle, nameable: usize) -> usize {
        let room = PEER_CONNECTIONS_MAX.saturating_sub(self.links.len());
        (cfg.peers_wanted as usize).saturating_sub(self.of(handle).count()).min(room).min(nameable)
    }

    /// Returns why an introduced peer is not tried; `None` if it is to be tried.
    pub(super) fn obstacle(
        &self,
        cfg: &Config,
        (handle, demand): (Handle, Demand),
        peer: &IntroducedPeer,
        search: &Search,
    ) -> Option<NotTried> {
        let intro = &peer.intro.intro;
        let known = search.has_tried(&intro.uploader_key) || self.of_intro(intro.id).is_some();
        let obstacles = [
            (!demand.fetching, NotTried::NotFetching),
            (intro.uploader_key == cfg.identity.upload_key, NotTried::SameClient),
            // with a ticket the peer may be the one that dials, so its address is not needed
            (peer.nat.candidates.is_empty() && peer.ticket.is_none(), NotTried::NoAddress),
            (known, NotTried::AlreadyTried),
            (self.wanted(cfg, handle, demand.nameable) == 0, NotTried::EnoughPeers),
        ];
        obstacles.into_iter().find(|(is_there, _)| *is_there).map(|(_, why)| why)
    }

    /// Begins a link to an introduced peer, which counts as tried: dials it, or returns the order to seek a path.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        handle: Handle,
        peer: IntroducedPeer,
        search: &mut Search,
    ) -> Option<Seek> {
        let IntroducedPeer { intro: signed, nat, ticket } = peer;
        let (key, download, intro) = (signed.intro.uploader_key, signed.intro.download, signed.intro.id);
        search.try_peer(key);
        let conn = self.next_conn.step();
        let met = ticket.is_some();
        let signed = Box::new(signed);
        let state = if met { State::Meeting(signed, download) } else { State::Dialing(signed) };
        let before = self.links.insert(conn, PeerLink { handle, intro, key, met, state });
        debug_assert!(before.is_none(), "a connection's number is given once");
        debug_assert!(self.links.len() <= PEER_CONNECTIONS_MAX, "there are no more links than allowed");
        if let Some(ticket) = ticket {
            return Some(Seek { conn, intro, ticket, nat });
        }
        let addrs = nat.candidates.iter().map(|c| c.addr).collect();
        self.await_peer(cx, conn);
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs, along: Along::Udp }));
        None
    }

    /// Sets the time-out of the peer's next step.
    fn await_peer(&mut self, cx: &Context<'_>, conn: ConnId) {
        debug_assert!(self.has(conn), "only a link has a time-out");
        self.due.set(conn, Some(cx.now.after(cx.cfg.peer_within)));
    }

    /// Dials a peer along the path that connectivity checks have found. Nobody uses a path that comes too late.
    pub(super) fn dial_along(&mut self, cx: &mut Context<'_>, intro: IntroId, addr: SocketAddr, along: Along) {
        let link = self.links.iter_mut().find(|(_, link)| link.intro == intro);
        let meeting = link.and_then(|(conn, link)| match &link.state {
            State::Meeting(signed, download) => Some((*conn, *download, signed.clone(), link)),
            State::Dialing(_) | State::Greeting | State::Open => None,
        });
        let Some((conn, download, signed, link)) = meeting else {
            if let Along::RawTcp(id) = along {
                cx.push(Output::Peer(PeerOutput::RawTcp(RawTcp::HangUp(id))));
            }
            return;
        };
        let key = link.key;
        link.state = State::Dialing(signed);
        cx.push(Output::Notice(Notice::Meeting(intro, Meeting::Path(addr, along.over()))));
        self.await_peer(cx, conn);
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs: alloc::vec![addr], along }));
    }

    /// Shows the introduction on a dialled connection that has opened. Returns how the path was found.
    pub(super) fn greet(&mut self, cx: &mut Context<'_>, conn: ConnId) -> Option<(IntroId, Stage)> {
        let link = self.links.get_mut(&conn)?;
        let (intro, stage) = (link.intro, link.stage());
        let before = core::mem::replace(&mut link.state, State::Greeting);
        let State::Dialing(signed) = before else {
            link.state = before;
            return None;
        };
        let hello = PeerHello { protocol: PROTOCOL, intro: *signed };
        cx.push(Output::Peer(PeerOutput::Send { conn, msg: PeerMsg::Hello(hello) }));
        self.await_peer(cx, conn);
        Some((intro, stage))
    }

    /// Takes a message of a peer. Returns the download of the link, and what the message says.
    pub(super) fn hear(&mut self, conn: ConnId, msg: PeerMsg) -> Option<(Handle, Heard)> {
        let link = self.links.get_mut(&conn)?;
        let open = link.state == State::Open;
        let heard = match msg {
            PeerMsg::Welcome(w) if link.state == State::Greeting && w.protocol == PROTOCOL => {
                link.state = State::Open;
                self.due.clear(conn);
                Heard::Welcome { intro: link.intro, key: link.key, requests_max: w.requests_max }
            }
            PeerMsg::HaveMap(m) if open && m.first.0.is_multiple_of(8) => {
                Heard::Pieces(download::Input::PeerMap { conn, first: m.first, bits: m.bits.into_vec() })
            }
            PeerMsg::Have(h) if open => Heard::Pieces(download::Input::PeerHas { conn, pieces: h.pieces.into_vec() }),
            PeerMsg::GoingAway => Heard::End(End::Left),
            PeerMsg::Welcome(_) | PeerMsg::HaveMap(_) | PeerMsg::Have(_) | PeerMsg::Hello(_) | PeerMsg::Receipt(_) => {
                Heard::End(End::Violation)
            }
        };
        Some((link.handle, heard))
    }

    /// Removes a link and its time-out.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<PeerLink> {
        self.due.clear(conn);
        self.links.remove(&conn)
    }

    /// Removes and returns the connections that have not opened or not been answered in time.
    pub(super) fn take_late(&mut self, now: Time) -> alloc::vec::Vec<ConnId> {
        core::iter::from_fn(|| self.due.pop_due(now)).collect()
    }

    /// Returns when the next link is late.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.due.next()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.due.rebase(by);
    }

    /// Returns every link with its connection.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &PeerLink)> {
        self.links.iter().map(|(conn, link)| (*conn, link))
    }

    /// Asserts that the links are bounded, numbered once, and late in time.
    pub(super) fn check(&self) {
        assert!(self.links.len() <= PEER_CONNECTIONS_MAX, "there are no more links than allowed");
        let intros: BTreeSet<_> = self.links.values().map(|link| link.intro).collect();
        assert!(intros.len() == self.links.len(), "an introduction leads to one link");
        for (conn, link) in &self.links {
            assert!(*conn < self.next_conn, "a connection's number is given once");
            let opens = matches!(link.state, State::Dialing(_) | State::Greeting);
            assert!(opens == self.due.get(*conn).is_some(), "a link that opens has a time-out, and no other");
            assert!(link.met || !matches!(link.state, State::Meeting(..)), "a path that is sought was not given");
        }
        assert!(self.due.keys().all(|conn| self.has(conn)), "only a link has a time-out");
    }
}

#[cfg(test)]
impl PeerLinks {
    /// Corruptions of links of which the first is dialled, each with the clause of the check that it breaks.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 6] = [
        ("there are no more links than allowed", |all| {
            let link = all.links.values().next().expect("a link").clone();
            all.links.extend((0..=PEER_CONNECTIONS_MAX as u64).map(|n| (ConnId(n), link.clone())));
        }),
        ("an introduction leads to one link", |all| {
            all.links.values_mut().for_each(|link| link.intro = IntroId::numbered(77));
        }),
        ("a connection's number is given once", |all| all.next_conn = ConnId(0)),
        ("a link that opens has a time-out, and no other", |all| all.due = Deadlines::default()),
        ("a path that is sought was not given", |all| {
            let (conn, link) = all.links.iter_mut().next().expect("a link");
            let State::Dialing(signed) = link.state.clone() else { panic!("a link that is dialled") };
            link.state = State::Meeting(signed, DownloadId::numbered(1));
            all.due.clear(*conn);
        }),
        ("only a link has a time-out", |all| all.due.set(ConnId(77), Some(Time(9)))),
    ];

    /// Gives the first link to a download that is not there.
    pub(super) fn lose_download(&mut self) {
        self.links.values_mut().for_each(|link| link.handle = Handle(77));
    }

    /// Claims that the first link's path was found by connectivity checks.
    pub(super) fn claim_met(&mut self) {
        self.links.values_mut().for_each(|link| link.met = true);
    }
}
