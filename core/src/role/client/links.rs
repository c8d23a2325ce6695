//! Links between this client's downloads and the peers that a CN has introduced to them. A link begins with the
//! introduction, goes through connectivity checks, dialling and `Hello` to the open connection, and ends with an
//! [`End`].
//!
//! The uploading side of peer connections is in [`crate::swarm::upload`].

mod end;
mod search;

pub(super) use end::{End, Stage};
pub(super) use search::Search;

use super::common::{Common, Timer};
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

/// All links of a client, by the number of their connection. A link has this number from the introduction on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerLinks {
    links: BTreeMap<ConnId, PeerLink>,
    next_conn: ConnId,
    /// Time-outs of the links whose connection is being opened or that wait for `Welcome`.
    due: Deadlines<ConnId>,
}

/// Link to a peer that was introduced to a download of this client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerLink {
    handle: Handle,
    intro: IntroId,
    key: PublicKey,
    /// Whether the path to the peer is found by connectivity checks, now or earlier.
    met: bool,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    /// The connectivity machine seeks a path to the peer, which the introduction will be shown to.
    Meeting(Box<SignedIntroduction>, DownloadId),
    /// The connection is being opened; the introduction will be sent on it.
    Dialing(Box<SignedIntroduction>),
    /// `Hello` with the introduction is sent; the peer's `Welcome` has not come yet.
    Greeting,
    /// The peer has answered `Welcome`, and serves requests.
    Open,
}

impl PeerLink {
    /// Returns the handle of the download that the peer was introduced to.
    pub(super) const fn handle(&self) -> Handle {
        self.handle
    }

    /// Returns the id of the introduction.
    pub(super) const fn intro(&self) -> IntroId {
        self.intro
    }

    /// Returns the peer's upload key K_u.
    pub(super) const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the name by which the peer is counted as a source of pieces.
    pub(super) const fn name(&self) -> SourceName {
        SourceName::Peer(self.intro, self.key)
    }

    /// Returns the stage that the link has reached.
    pub(super) const fn stage(&self) -> Stage {
        match self.state {
            State::Meeting(..) => Stage::Sought,
            State::Dialing(_) if self.met => Stage::Sought,
            State::Dialing(_) => Stage::Direct,
            State::Greeting => Stage::Greeting,
            State::Open => Stage::Open,
        }
    }

    /// Returns which machine the end of the link concerns.
    pub(super) const fn consequence(&self, why: End) -> Consequence {
        match self.stage() {
            // the swarm that has dropped a peer does not know it any more
            _ if matches!(why, End::Swarm(_)) => Consequence::None,
            Stage::Sought if why.is_failure() => Consequence::Refused(self.intro),
            Stage::Sought => Consequence::NotNeeded(self.intro),
            Stage::Direct => Consequence::NotConnected(self.intro),
            Stage::Greeting => Consequence::None,
            Stage::Open => Consequence::PeerLeft,
        }
    }
}

/// Machine that an ended link concerns, and what it is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// No machine knows the link.
    None,
    /// The connectivity machine has found a path, or seeks one, and the peer or the path has failed.
    Refused(IntroId),
    /// The connectivity machine seeks a path that is not needed any more.
    NotNeeded(IntroId),
    /// The CN is told that the peer could not be dialled.
    NotConnected(IntroId),
    /// The download's swarm has lost a peer.
    PeerLeft,
}

/// Facts about a download that decide whether it can use another peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Whether the download is fetching.
    pub(super) fetching: bool,
    /// Number of further introductions that fit into the download's usage record.
    pub(super) nameable: usize,
}

/// Meaning of a message that a peer has sent.
pub(super) enum Heard {
    /// The peer serves from now on, at most `requests_max` requests at a time.
    Welcome { intro: IntroId, key: PublicKey, requests_max: u16 },
    /// The peer has these pieces.
    Pieces(download::Input),
    /// The link ends: the peer leaves, or sent a message that it may not send now.
    End(End),
}

/// Parameters for seeking a path to a peer by connectivity checks.
pub(super) struct Seek {
    /// Connection that the path is for.
    pub(super) conn: ConnId,
    /// Introduction of the peer.
    pub(super) intro: IntroId,
    /// Ticket of the CN, with the key for the checks.
    pub(super) ticket: Ticket,
    /// NAT type and addresses of the peer.
    pub(super) nat: NatDescriptor,
}

impl PeerLinks {
    /// Returns whether a connection is that of a link.
    pub(super) fn has(&self, conn: ConnId) -> bool {
        self.links.contains_key(&conn)
    }

    /// Returns the connections of a download's links.
    pub(super) fn of(&self, handle: Handle) -> impl Iterator<Item = ConnId> {
        self.links.iter().filter(move |(_, link)| link.handle == handle).map(|(conn, _)| *conn)
    }

    /// Returns the connection of the link that an introduction has led to.
    pub(super) fn of_intro(&self, intro: IntroId) -> Option<ConnId> {
        self.links.iter().find(|(_, link)| link.intro == intro).map(|(conn, _)| *conn)
    }

    /// Returns whether a link's connection is open.
    pub(super) fn is_connected(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| matches!(link.stage(), Stage::Greeting | Stage::Open))
    }

    /// Returns how many more peers a download could use. `nameable`: how many more introductions fit into its usage
    /// record.
    pub(super) fn wanted(&self, cfg: &Config, handle: Handle, nameable: usize) -> usize {
        let room = PEER_CONNECTIONS_MAX.saturating_sub(self.links.len());
        (cfg.peers_wanted as usize).saturating_sub(self.of(handle).count()).min(room).min(nameable)
    }

    /// Returns the reason why an introduced peer is not tried; `None` if it is to be tried.
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

    /// Begins a link to an introduced peer, which counts as tried from then on. Without a ticket the peer is dialled;
    /// with one, the parameters for connectivity checks are returned.
    pub(super) fn begin(
        &mut self,
        common: &mut Common,
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
        self.await_peer(common, cx, conn);
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs, along: Along::Udp }));
        None
    }

    /// Sets the time-out for the peer's next step.
    fn await_peer(&mut self, common: &mut Common, cx: &Context<'_>, conn: ConnId) {
        debug_assert!(self.has(conn), "only a link has a time-out");
        self.due.set(conn, Some(cx.now.after(cx.cfg.peer_within)));
        self.set_timer(common);
    }

    /// Copies the time of the next time-out to the client's timer.
    fn set_timer(&self, common: &mut Common) {
        common.timers.set(Timer::Links, self.due.next());
    }

    /// Dials a peer along the path that connectivity checks have found. If the link waits for no path any more,
    /// nothing is dialled.
    pub(super) fn dial_along(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        intro: IntroId,
        addr: SocketAddr,
        along: Along,
    ) {
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
        self.await_peer(common, cx, conn);
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs: alloc::vec![addr], along }));
    }

    /// Sends `Hello` with the introduction on a connection that has opened. Returns the introduction and the stage
    /// before, which tells how the path was found; `None` if the connection was not being dialled.
    pub(super) fn greet(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        conn: ConnId,
    ) -> Option<(IntroId, Stage)> {
        let link = self.links.get_mut(&conn)?;
        let (intro, stage) = (link.intro, link.stage());
        let before = core::mem::replace(&mut link.state, State::Greeting);
        let State::Dialing(signed) = before else {
            link.state = before;
            return None;
        };
        let hello = PeerHello { protocol: PROTOCOL, intro: *signed };
        cx.push(Output::Peer(PeerOutput::Send { conn, msg: PeerMsg::Hello(hello) }));
        self.await_peer(common, cx, conn);
        Some((intro, stage))
    }

    /// Handles a peer's message. Returns the handle of the link's download, and the meaning of the message; `None` if
    /// the connection has no link.
    pub(super) fn hear(&mut self, common: &mut Common, conn: ConnId, msg: PeerMsg) -> Option<(Handle, Heard)> {
        let link = self.links.get_mut(&conn)?;
        let open = link.state == State::Open;
        let heard = match msg {
            PeerMsg::Welcome(w) if link.state == State::Greeting && w.protocol == PROTOCOL => {
                link.state = State::Open;
                self.due.clear(conn);
                common.timers.set(Timer::Links, self.due.next());
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

    /// Ends the link of a connection, if there is one: removes it with its time-out, and tells the user. The caller
    /// passes the end on to the download's search, and to the machine that [`PeerLink::consequence`] names.
    pub(super) fn end(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        conn: ConnId,
        why: End,
    ) -> Option<PeerLink> {
        let link = self.links.remove(&conn)?;
        self.due.clear(conn);
        self.set_timer(common);
        if let Some(why) = why.notice() {
            cx.push(Output::Notice(Notice::SourceDropped { handle: link.handle, source: link.name(), why }));
        }
        Some(link)
    }

    /// Removes the due time-outs and returns their connections: they have not opened, or `Hello` was not answered in
    /// time.
    pub(super) fn take_late(&mut self, common: &mut Common, now: Time) -> alloc::vec::Vec<ConnId> {
        let late = core::iter::from_fn(|| self.due.pop_due(now)).collect();
        self.set_timer(common);
        late
    }

    /// Returns the time of the next time-out.
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

    /// Asserts that the number of links is bounded, that no connection or introduction has two, and that those in
    /// opening have time-outs.
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
    /// Corruptions of links of which the first is being dialled, each with the message of the assertion in `check`
    /// that it must break.
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

    /// Gives all links to a download that does not exist.
    pub(super) fn lose_download(&mut self) {
        self.links.values_mut().for_each(|link| link.handle = Handle(77));
    }

    /// Removes a link without telling anybody.
    pub(super) fn remove(&mut self, conn: ConnId) {
        self.due.clear(conn);
        self.links.remove(&conn);
    }

    /// Sets in all links that the path was found by connectivity checks.
    pub(super) fn claim_met(&mut self) {
        self.links.values_mut().for_each(|link| link.met = true);
    }
}
