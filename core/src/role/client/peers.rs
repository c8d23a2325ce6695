//! Peers that a download is introduced to: passes events to the [`super::links`], and the consequences to the other
//! machines.

use super::io::{Meeting, NoPeers, Notice, Output};
use super::job::Job;
use super::links::{Demand, End, Heard, Seek, Stage};
use super::meeting::direct;
use super::{Client, Context, Timer};
use crate::ids::{ConnId, DownloadId, Handle, IntroId, PublicKey};
use crate::nat::connectivity::{self, Along, Role};
use crate::session::client as session;
use crate::swarm::{Download, download, receipting, upload};
use crate::wire::control::IntroducedPeer;
use crate::wire::peer::PeerMsg;
use crate::wire::records::Receipt;
use alloc::vec::Vec;
use core::net::SocketAddr;

impl Client {
    /// Tells the control session how many more peers a download could use.
    pub(super) fn want_peers(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let links = self.links.of(handle).count();
        let Some(job) = self.jobs.get_mut(&handle).filter(|job| job.is_fetching()) else { return };
        let wanted = self.links.wanted(cx.cfg, handle, job.nameable(links));
        let Some(granted) = job.record.granted.as_ref() else { return };
        let more = if job.peers_allowed && !job.search.is_exhausted() { wanted } else { 0 };
        let more = u8::try_from(more).unwrap_or(u8::MAX);
        let Some((exclude, soon)) = job.search.want(more) else { return };
        if more > 0 && !self.session.is_open() {
            Self::tell_no_peers(cx, handle, NoPeers::NotConnected);
        }
        let want = session::Want {
            download: granted.download,
            download_key: granted.download_key,
            version: granted.version,
            grant: granted.sealed.clone(),
            more,
            exclude,
            soon,
        };
        self.tell_session(cx, session::Input::Want(want));
    }

    /// Tells the user why a download is without peers.
    pub(super) fn tell_no_peers(cx: &mut Context<'_>, handle: Handle, why: NoPeers) {
        cx.push(Output::Notice(Notice::NoPeers { handle, why }));
    }

    /// Begins links to the peers that the CN has introduced to a download.
    pub(super) fn on_introduced(&mut self, cx: &mut Context<'_>, download: DownloadId, peers: Vec<IntroducedPeer>) {
        let Some(handle) = self.handle_of(download) else { return };
        // those of a query before the provider forbade peers
        let allowed = self.jobs.get(&handle).is_some_and(|job| job.peers_allowed);
        for peer in peers.into_iter().filter(|_| allowed) {
            self.begin_link(cx, handle, peer);
        }
        self.want_peers(cx, handle);
    }

    fn begin_link(&mut self, cx: &mut Context<'_>, handle: Handle, peer: IntroducedPeer) {
        let links = self.links.of(handle).count();
        let Some(job) = self.jobs.get_mut(&handle) else { return };
        let demand = Demand { fetching: job.is_fetching(), nameable: job.nameable(links) };
        let not_tried = self.links.obstacle(cx.cfg, (handle, demand), &peer, &job.search);
        let intro = &peer.intro.intro;
        let (peer_key, nat) = (intro.uploader_key, peer.nat.clone());
        let notice = Meeting::Introduced { handle, peer: peer_key, nat, not_tried };
        cx.push(Output::Notice(Notice::Meeting(intro.id, notice)));
        if not_tried.is_some() {
            return;
        }
        let seek = self.links.begin(cx, handle, peer, &mut job.search);
        self.set_links_timer();
        if let Some(Seek { conn, intro, ticket, nat }) = seek {
            self.meet(cx, (intro, Role::Downloader), ticket, nat);
            if !self.connectivity.has(intro) {
                self.end_link(cx, conn, End::Reused);
            }
        }
    }

    fn set_links_timer(&mut self) {
        self.timers.set(Timer::Links, self.links.poll_timeout());
    }

    /// Dials a peer along the path that connectivity checks have found.
    pub(super) fn dial_along(&mut self, cx: &mut Context<'_>, intro: IntroId, addr: SocketAddr, along: Along) {
        self.links.dial_along(cx, intro, addr, along);
        self.set_links_timer();
    }

    /// Handles a message of a downloader that this client may serve. If it is a `Hello` with a valid introduction,
    /// the connection attempt has succeeded.
    pub(super) fn on_downloader_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        let greets = matches!(msg, PeerMsg::Hello(_));
        self.tell_uploads(cx, upload::Input::Message { conn, msg });
        if let Some(intro) = self.uploads.introduced(conn).filter(|_| greets) {
            self.tell_connectivity(cx, connectivity::Input::Connected(intro));
        }
    }

    /// Sends `Hello` with the introduction on a dialled connection that has opened.
    pub(super) fn on_peer_opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some((intro, stage)) = self.links.greet(cx, conn) else { return };
        self.set_links_timer();
        if stage == Stage::Sought {
            self.tell_connectivity(cx, connectivity::Input::Connected(intro));
        } else {
            self.attempt_ended(cx, intro, direct(true));
        }
    }

    pub(super) fn on_peer_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        let Some((handle, heard)) = self.links.hear(conn, msg) else { return };
        self.set_links_timer();
        match heard {
            Heard::Welcome { intro, key, requests_max } => {
                self.on_peer_welcome(cx, (handle, conn), (intro, key), requests_max);
            }
            Heard::Pieces(input) => self.tell_swarm(cx, handle, input),
            Heard::End(why) => self.end_link(cx, conn, why),
        }
    }

    fn on_peer_welcome(
        &mut self,
        cx: &mut Context<'_>,
        (handle, conn): (Handle, ConnId),
        (intro, uploader_key): (IntroId, PublicKey),
        requests_max: u16,
    ) {
        let granted = self.jobs.get(&handle).and_then(Job::granted).map(|g| (g.download, g.version));
        if let Some((download, version)) = granted {
            let receipt = Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 };
            self.tell_receipts(cx, receipting::Input::Owe(conn, receipt));
        }
        let name = super::io::SourceName::Peer(intro, uploader_key);
        self.tell_swarm(cx, handle, download::Input::PeerJoined { conn, name, requests_max });
    }

    /// Ends the links whose connection has not opened, or whose `Hello` was not answered, in time.
    pub(super) fn on_links_timer(&mut self, cx: &mut Context<'_>) {
        for conn in self.links.take_late(cx.now) {
            self.end_link(cx, conn, End::TimedOut);
        }
        self.set_links_timer();
    }

    /// Ends the link of a connection, if there is one, and tells the user, the machines that know it and the control
    /// session.
    pub(super) fn end_link(&mut self, cx: &mut Context<'_>, conn: ConnId, why: End) {
        let Some(link) = self.links.remove(conn) else { return };
        self.set_links_timer();
        let handle = link.handle();
        if let Some(job) = self.jobs.get_mut(&handle) {
            let good = job.swarm.as_ref().is_some_and(|swarm| swarm.may_ask(link.key()));
            job.search.on_ended(&link, why, good);
        }
        if let Some(why) = why.notice() {
            cx.push(Output::Notice(Notice::SourceDropped { handle, source: link.name(), why }));
        }
        match link.stage() {
            // the swarm that has dropped a peer does not know it any more
            _ if matches!(why, End::Swarm(_)) => {}
            Stage::Sought if why.is_failure() => {
                self.tell_connectivity(cx, connectivity::Input::Refused(link.intro()));
            }
            Stage::Sought => self.tell_connectivity(cx, connectivity::Input::Drop(link.intro())),
            Stage::Direct => self.attempt_ended(cx, link.intro(), direct(false)),
            Stage::Greeting => {}
            Stage::Open => self.tell_swarm(cx, handle, download::Input::PeerLeft { conn }),
        }
        if let Some(why) = why.close() {
            self.tell_receipts(cx, receipting::Input::Close(conn, why));
        }
        if why != End::NotNeeded {
            self.want_peers(cx, handle);
        }
    }

    /// Ends all links of a download that needs no peers now.
    pub(super) fn end_links_of(&mut self, cx: &mut Context<'_>, handle: Handle) {
        for conn in self.links.of(handle).collect::<Vec<_>>() {
            self.end_link(cx, conn, End::NotNeeded);
        }
    }

    /// Asserts that the links agree with the downloads and with the machines for connectivity, receipts and uploads.
    pub(super) fn check_links(&self) {
        self.links.check();
        for (conn, link) in self.links.iter() {
            let job = self.jobs.get(&link.handle()).filter(|job| job.is_active() && job.swarm.is_some());
            assert!(job.is_some(), "a link belongs to a download that fetches");
            assert!(job.is_some_and(|job| job.search.has_tried(link.key())), "a link's peer counts as tried");
            let sought = link.stage() == Stage::Sought;
            assert!(!sought || self.connectivity.has(link.intro()), "a link without a path seeks one");
            let open = link.stage() == Stage::Open;
            assert!(!open || self.receipts.of(conn).is_some(), "an open link owes receipts");
            assert!(!self.uploads.knows(conn), "a connection serves or is served");
        }
        for (handle, job) in &self.jobs {
            let open = self.links.iter().filter(|(_, link)| link.handle() == *handle && link.stage() == Stage::Open);
            let peers = job.swarm.iter().flat_map(Download::peers);
            assert!(open.map(|(conn, link)| (conn, link.name())).eq(peers), "the open links are the swarm's peers");
        }
    }
}
