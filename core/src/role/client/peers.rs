//! Peers that a download is introduced to: dialling, `Hello` and `Welcome`, have-maps, and dropping them.
//!
//! [`PeerLink`] is one such peer. The uploading side of peer connections belongs to [`upload`].

use super::io::{CloseReason, Meeting, NotTried, Notice, Output, PeerOutput, SourceName};
use super::job::Job;
use super::meeting::direct;
use super::{Client, Context, Timer};
use crate::ids::{ConnId, DownloadId, Handle, IntroId, PublicKey};
use crate::limits::{EXCLUDED_MAX, PEER_CONNECTIONS_MAX};
use crate::nat::connectivity::{self, Along, Line, Role};
use crate::session::client as session;
use crate::swarm::{Download, download, receipting, upload};
use crate::wire::PROTOCOL;
use crate::wire::control::IntroducedPeer;
use crate::wire::peer::{PeerHello, PeerMsg};
use crate::wire::records::{Receipt, SignedIntroduction};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Peer that a download of this client was introduced to, and the connection to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerLink {
    handle: Handle,
    intro: IntroId,
    key: PublicKey,
    /// Whether the path is, or was, found by connectivity checks.
    met: bool,
    state: LinkState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LinkState {
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
    const fn name(&self) -> SourceName {
        SourceName::Peer(self.intro, self.key)
    }
}

impl Client {
    fn links_of(&self, handle: Handle) -> Vec<ConnId> {
        self.links.iter().filter(|(_, l)| l.handle == handle).map(|(conn, _)| *conn).collect()
    }

    /// Tells the control session how many more peers a download could use.
    pub(super) fn want_peers(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let links = self.links_of(handle).len();
        let room = PEER_CONNECTIONS_MAX.saturating_sub(self.links.len());
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let fetching = job.swarm.as_ref().is_some_and(|s| s.phase() == download::Phase::Running);
        let Some(granted) = job.record.granted.as_ref().filter(|_| fetching) else { return };
        let nameable = job.nameable(links);
        let more = if job.peers_allowed && job.tried.len() < EXCLUDED_MAX {
            (cx.cfg.peers_wanted as usize).saturating_sub(links).min(room).min(nameable)
        } else {
            0
        };
        let more = u8::try_from(more).unwrap_or(u8::MAX);
        let wanted = Some((more, job.tried.len()));
        if job.last_want == wanted && !job.ask_at_once {
            return;
        }
        job.last_want = wanted;
        let want = session::Want {
            download: granted.download,
            download_key: granted.download_key,
            version: granted.version,
            grant: granted.sealed.clone(),
            more,
            exclude: job.tried.clone(),
            soon: core::mem::take(&mut job.ask_at_once) && more > 0,
        };
        self.tell_session(cx, session::Input::Want(want));
    }

    /// Dials the peers that the CN has introduced to a download.
    pub(super) fn on_introduced(&mut self, cx: &mut Context<'_>, download: DownloadId, peers: Vec<IntroducedPeer>) {
        let job = self.jobs.iter().find(|(_, j)| j.granted().is_some_and(|g| g.download == download));
        let Some(handle) = job.map(|(handle, _)| *handle) else { return };
        for peer in peers {
            self.dial(cx, handle, peer);
        }
        self.want_peers(cx, handle);
    }

    fn dial(&mut self, cx: &mut Context<'_>, handle: Handle, peer: IntroducedPeer) {
        let IntroducedPeer { intro: signed, nat, ticket } = peer;
        let intro = &signed.intro;
        let addrs: Vec<_> = nat.candidates.iter().map(|c| c.addr).collect();
        let links = self.links_of(handle).len();
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let full = self.links.len() >= PEER_CONNECTIONS_MAX
            || links >= cx.cfg.peers_wanted as usize
            || job.nameable(links) == 0;
        let fetching = job.swarm.as_ref().is_some_and(|s| s.phase() == download::Phase::Running);
        let is_self = intro.uploader_key == cx.cfg.identity.upload_key;
        let obstacles = [
            (!fetching, NotTried::NotFetching),
            (is_self, NotTried::SameClient),
            // with a ticket the peer may be the one that dials, so its address is not needed
            (addrs.is_empty() && ticket.is_none(), NotTried::NoAddress),
            (job.tried.contains(&intro.uploader_key) || self.links.values().any(|l| l.intro == intro.id), NotTried::AlreadyTried),
            (full, NotTried::EnoughPeers),
        ];
        let not_tried = obstacles.into_iter().find(|(is_there, _)| *is_there).map(|(_, why)| why);
        let notice = Meeting::Introduced { handle, peer: intro.uploader_key, nat: nat.clone(), not_tried };
        cx.push(Output::Notice(Notice::Meeting(intro.id, notice)));
        if not_tried.is_some() {
            return;
        }
        job.tried.push(intro.uploader_key);
        let conn = self.next_conn.step();
        let (key, download, intro) = (intro.uploader_key, intro.download, intro.id);
        if let Some(ticket) = ticket {
            let state = LinkState::Meeting(Box::new(signed), download);
            self.links.insert(conn, PeerLink { handle, intro, key, met: true, state });
            self.meet(cx, (intro, Role::Downloader), ticket, nat);
            // an introduction that is shown again is not tried again
            if !self.connectivity.has(intro) {
                self.drop_peer(cx, conn, CloseReason::Done);
            }
            return;
        }
        let state = LinkState::Dialing(Box::new(signed));
        self.links.insert(conn, PeerLink { handle, intro, key, met: false, state });
        self.timers.set(Timer::Peer(conn), Some(cx.now.after(cx.cfg.peer_within)));
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs, along: Along::Udp }));
    }

    /// Returns the link that an introduction has led to.
    pub(super) fn link_of(&self, intro: IntroId) -> Option<ConnId> {
        self.links.iter().find(|(_, l)| l.intro == intro).map(|(conn, _)| *conn)
    }

    /// Dials a peer along the path that connectivity checks have found.
    pub(super) fn dial_along(&mut self, cx: &mut Context<'_>, intro: IntroId, addr: SocketAddr, along: Along) {
        let link = self.links.iter_mut().find(|(_, l)| l.intro == intro);
        let meeting = link.and_then(|(conn, link)| match &link.state {
            LinkState::Meeting(signed, download) => Some((*conn, *download, signed.clone(), link)),
            LinkState::Dialing(_) | LinkState::Greeting | LinkState::Open => None,
        });
        let Some((conn, download, signed, link)) = meeting else {
            if let Along::Line(line) = along {
                cx.push(Output::Peer(PeerOutput::Line(Line::HangUp(line))));
            }
            return;
        };
        let key = link.key;
        link.state = LinkState::Dialing(signed);
        cx.push(Output::Notice(Notice::Meeting(intro, Meeting::Path(addr, along.over()))));
        self.timers.set(Timer::Peer(conn), Some(cx.now.after(cx.cfg.peer_within)));
        cx.push(Output::Peer(PeerOutput::Dial { conn, download, key, addrs: alloc::vec![addr], along }));
    }

    /// Lets the CN introduce a peer once more after a failed attempt, at most once.
    pub(super) fn may_meet_again(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        let key = link.key;
        let unforgiven = |j: &&mut Job| !j.retried.contains(&key) && j.retried.len() < EXCLUDED_MAX;
        if let Some(job) = self.jobs.get_mut(&link.handle).filter(unforgiven) {
            job.retried.push(key);
            job.tried.retain(|k| *k != key);
        }
    }

    /// Returns the download and source name of a link, if its connection is open.
    pub(super) fn open_link(&self, conn: ConnId) -> Option<(Handle, SourceName)> {
        let link = self.links.get(&conn).filter(|l| matches!(l.state, LinkState::Greeting | LinkState::Open))?;
        Some((link.handle, link.name()))
    }

    /// Requests a peer again at once: the path to it is lost, but the peer itself has done no wrong.
    pub(super) fn meet_anew(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        if let Some(job) =
            self.jobs.get_mut(&link.handle).filter(|j| j.swarm.as_ref().is_some_and(|s| s.may_ask(&link.key)))
        {
            job.tried.retain(|k| *k != link.key);
            job.retried.retain(|k| *k != link.key);
            job.ask_at_once = true;
        }
    }

    /// Handles a message of a downloader that this client may serve. A valid introduction in its `Hello` ends the
    /// connectivity attempt with success.
    pub(super) fn on_downloader_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        let greets = matches!(msg, PeerMsg::Hello(_));
        self.tell_uploads(cx, upload::Input::Message { conn, msg });
        if let Some(intro) = self.uploads.introduced(conn).filter(|_| greets) {
            self.tell_connectivity(cx, connectivity::Input::Connected(intro));
        }
    }

    /// Shows the introduction on a dialled connection that has opened.
    pub(super) fn on_peer_opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let greeted = core::mem::replace(&mut link.state, LinkState::Greeting);
        let LinkState::Dialing(signed) = greeted else {
            link.state = greeted;
            return;
        };
        let (intro, met) = (link.intro, link.met);
        cx.push(Output::Peer(PeerOutput::Send { conn, msg: PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro: *signed }) }));
        self.timers.set(Timer::Peer(conn), Some(cx.now.after(cx.cfg.peer_within)));
        if met {
            self.tell_connectivity(cx, connectivity::Input::Connected(intro));
        } else {
            self.attempt_ended(cx, intro, direct(true));
        }
    }

    pub(super) fn on_peer_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let (handle, name) = (link.handle, link.name());
        let open = link.state == LinkState::Open;
        match msg {
            PeerMsg::Welcome(w) if link.state == LinkState::Greeting && w.protocol == PROTOCOL => {
                link.state = LinkState::Open;
                let (intro, uploader_key) = (link.intro, link.key);
                if let Some((download, version)) =
                    self.jobs.get(&handle).and_then(Job::granted).map(|g| (g.download, g.version))
                {
                    let receipt = Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 };
                    self.tell_receipts(cx, receipting::Input::Owe(conn, receipt));
                }
                self.timers.clear(Timer::Peer(conn));
                let joined = download::Input::PeerJoined { conn, name, requests_max: w.requests_max };
                self.tell_swarm(cx, handle, joined);
            }
            PeerMsg::HaveMap(m) if open && m.first.0.is_multiple_of(8) => {
                let map = download::Input::PeerMap { conn, first: m.first, bits: m.bits.into_vec() };
                self.tell_swarm(cx, handle, map);
            }
            PeerMsg::Have(h) if open => {
                self.tell_swarm(cx, handle, download::Input::PeerHas { conn, pieces: h.pieces.into_vec() });
            }
            PeerMsg::GoingAway => self.drop_peer(cx, conn, CloseReason::Done),
            PeerMsg::Welcome(_) | PeerMsg::HaveMap(_) | PeerMsg::Have(_) | PeerMsg::Hello(_) | PeerMsg::Receipt(_) => {
                cx.push(Output::Notice(Notice::SourceDropped { handle, source: name, why: CloseReason::Violation }));
                self.drop_peer(cx, conn, CloseReason::Violation);
            }
        }
    }

    /// Handles a dialled connection that has failed or that the peer has ended.
    pub(super) fn on_peer_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        if self.links.get(&conn).is_some_and(|l| l.met && matches!(l.state, LinkState::Dialing(_))) {
            self.may_meet_again(conn);
        }
        let Some(link) = self.forget_link(cx, conn, true) else { return };
        let good = |job: &Job| job.swarm.as_ref().is_some_and(|s| s.may_ask(&link.key));
        if link.state == LinkState::Open && self.jobs.get(&link.handle).is_some_and(good) {
            self.may_try_again(link.handle, &link.key);
        }
        self.want_peers(cx, link.handle);
    }

    /// Drops a peer that has not opened or not answered in time.
    pub(super) fn on_peer_timeout(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.drop_peer(cx, conn, CloseReason::Stalled);
    }

    pub(super) fn drop_peer(&mut self, cx: &mut Context<'_>, conn: ConnId, why: CloseReason) {
        let Some(link) = self.forget_link(cx, conn, why == CloseReason::Stalled) else { return };
        self.tell_receipts(cx, receipting::Input::Close(conn, why));
        self.want_peers(cx, link.handle);
    }

    /// Ends a link whose connection the receipts have closed, since the key that signs them is gone.
    pub(super) fn on_receipts_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        if let Some(link) = self.forget_link(cx, conn, false) {
            self.want_peers(cx, link.handle);
        }
    }

    /// Forgets a link, also in the swarm. `failed`: because of the peer or the path, not by this client's decision.
    fn forget_link(&mut self, cx: &mut Context<'_>, conn: ConnId, failed: bool) -> Option<PeerLink> {
        let link = self.links.remove(&conn)?;
        self.timers.clear(Timer::Peer(conn));
        match link.state {
            LinkState::Meeting(..) | LinkState::Dialing(_) if link.met => {
                let input = if failed { connectivity::Input::Refused } else { connectivity::Input::Drop };
                self.tell_connectivity(cx, input(link.intro));
            }
            LinkState::Meeting(..) | LinkState::Dialing(_) => {
                self.attempt_ended(cx, link.intro, direct(false));
            }
            LinkState::Greeting => {}
            LinkState::Open => self.tell_swarm(cx, link.handle, download::Input::PeerLeft { conn }),
        }
        Some(link)
    }

    /// Closes the connection of a peer that the swarm has dropped.
    pub(super) fn on_swarm_dropped(&mut self, cx: &mut Context<'_>, handle: Handle, conn: ConnId, why: CloseReason) {
        let link = self.links.remove(&conn);
        if why != CloseReason::Done
            && let Some(link) = &link
        {
            let source = link.name();
            cx.push(Output::Notice(Notice::SourceDropped { handle, source, why }));
        }
        if let Some(link) = link {
            self.timers.clear(Timer::Peer(conn));
            self.tell_receipts(cx, receipting::Input::Close(conn, why));
            if why == CloseReason::Done {
                self.may_try_again(handle, &link.key);
            }
        }
        self.want_peers(cx, handle);
    }

    /// Closes all peer connections of a download that needs them no more.
    pub(super) fn close_peers_of(&mut self, cx: &mut Context<'_>, handle: Handle) {
        for conn in self.links_of(handle) {
            if let Some(link) = self.forget_link(cx, conn, false) {
                self.tell_receipts(cx, receipting::Input::Close(conn, CloseReason::Done));
                self.may_try_again(handle, &link.key);
            }
        }
    }

    /// Asserts that each link belongs to an active download and is known where its state says so.
    pub(super) fn check_links(&self) {
        assert!(self.links.len() <= PEER_CONNECTIONS_MAX, "there are no more links than allowed");
        let mut intros = alloc::collections::BTreeSet::new();
        for (conn, link) in &self.links {
            assert!(*conn < self.next_conn, "a connection's number is given once");
            assert!(intros.insert(link.intro), "an introduction leads to one link");
            let job = self.jobs.get(&link.handle).filter(|j| j.is_active() && j.swarm.is_some());
            assert!(job.is_some(), "a link belongs to a download that fetches");
            assert!(job.is_some_and(|j| j.tried.contains(&link.key)), "a link's peer counts as tried");
            let opens = matches!(link.state, LinkState::Dialing(_) | LinkState::Greeting);
            assert!(opens == self.timers.get(Timer::Peer(*conn)).is_some(), "a link that opens has a time-out");
            let sought = link.met && matches!(link.state, LinkState::Meeting(..) | LinkState::Dialing(_));
            assert!(!sought || self.connectivity.has(link.intro), "a link without a path seeks one");
            let open = link.state == LinkState::Open;
            assert!(!open || self.receipts.of(*conn).is_some(), "an open link owes receipts");
            assert!(!self.uploads.knows(*conn), "a connection serves or is served");
        }
        for (handle, job) in &self.jobs {
            let open = self.links.iter().filter(|(_, l)| l.handle == *handle && l.state == LinkState::Open);
            let peers = job.swarm.iter().flat_map(Download::peers);
            assert!(open.map(|(conn, l)| (*conn, l.name())).eq(peers), "the open links are the swarm's peers");
        }
    }

    /// Lets the CN introduce a peer again that has done no wrong.
    fn may_try_again(&mut self, handle: Handle, key: &PublicKey) {
        if let Some(job) = self.jobs.get_mut(&handle) {
            job.tried.retain(|k| k != key);
        }
    }
}
