//! Peers that a download is introduced to: passes events to the [`super::links`], and the consequences to the other
//! machines.

use super::io::{Meeting, NoPeers, Notice, Output, SourceName};
use super::job::{Job, Jobs};
use super::links::{Consequence, Demand, End, Heard, PeerLink, PeerLinks, Seek, Stage};
use super::meeting::direct;
use super::{Client, Context};
use crate::ids::{ConnId, DownloadId, Handle};
use crate::nat::connectivity::{self, Role};
use crate::session::client as session;
use crate::swarm::{Download, download, receipting, upload};
use crate::wire::control::IntroducedPeer;
use crate::wire::peer::PeerMsg;
use crate::wire::records::Receipt;
use alloc::vec::Vec;

/// Tells the user why a download is without peers.
pub(super) fn tell_no_peers(cx: &mut Context<'_>, handle: Handle, why: NoPeers) {
    cx.push(Output::Notice(Notice::NoPeers { handle, why }));
}

impl Jobs {
    /// Returns how many more peers a download could use, as the control session is to be told; `None` if it knows.
    /// `unconnected`: why there is no control session; `None` if there is one.
    fn want(
        &mut self,
        links: &PeerLinks,
        cx: &mut Context<'_>,
        handle: Handle,
        unconnected: Option<NoPeers>,
    ) -> Option<session::Want> {
        let job = self.get_mut(handle).filter(|job| job.is_fetching())?;
        let wanted = links.wanted(cx.cfg, handle, job.nameable(links.of(handle).count()));
        let granted = job.record.granted.as_ref()?;
        let more = if job.peers_allowed && !job.search.is_exhausted() { wanted } else { 0 };
        let more = u8::try_from(more).unwrap_or(u8::MAX);
        let (exclude, soon) = job.search.want(more)?;
        if more > 0
            && let Some(why) = unconnected
        {
            tell_no_peers(cx, handle, why);
        }
        Some(session::Want {
            download: granted.download,
            download_key: granted.download_key,
            version: granted.version,
            grant: granted.sealed.clone(),
            more,
            exclude,
            soon,
        })
    }

    /// Notes in a download's search for peers that a link has ended.
    fn on_link_ended(&mut self, link: &PeerLink, why: End) {
        if let Some(job) = self.get_mut(link.handle()) {
            let good = job.swarm.as_ref().is_some_and(|swarm| swarm.may_ask(link.key()));
            job.search.on_ended(link, why, good);
        }
    }
}

impl Client {
    /// Tells the control session how many more peers a download could use.
    pub(super) fn want_peers(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let refused = self.session.is_version_refused();
        let why = if refused { NoPeers::VersionRefused } else { NoPeers::NotConnected };
        let unconnected = Some(why).filter(|_| !self.session.is_open());
        if let Some(want) = self.jobs.want(&self.links, cx, handle, unconnected) {
            self.tell_session(cx, session::Input::Want(want));
        }
    }

    /// Tells the user that a CN refuses this version of the client, also as the reason why downloads are without peers.
    pub(super) fn on_version_refused(&mut self, cx: &mut Context<'_>) {
        cx.push(Output::Notice(Notice::Outdated));
        for (handle, _) in self.jobs.iter().filter(|(_, job)| job.is_fetching() && job.peers_allowed) {
            tell_no_peers(cx, handle, NoPeers::VersionRefused);
        }
    }

    /// Begins links to the peers that the CN has introduced to a download.
    pub(super) fn on_introduced(&mut self, cx: &mut Context<'_>, download: DownloadId, peers: Vec<IntroducedPeer>) {
        let Some(handle) = self.jobs.of_download(download) else { return };
        // those of a query before the provider forbade peers
        let allowed = self.jobs.get(handle).is_some_and(|job| job.peers_allowed);
        for peer in peers.into_iter().filter(|_| allowed) {
            self.begin_link(cx, handle, peer);
        }
        self.want_peers(cx, handle);
    }

    fn begin_link(&mut self, cx: &mut Context<'_>, handle: Handle, peer: IntroducedPeer) {
        let links = self.links.of(handle).count();
        let Some(job) = self.jobs.get_mut(handle) else { return };
        let demand = Demand { fetching: job.is_fetching(), nameable: job.nameable(links) };
        let not_tried = self.links.obstacle(cx.cfg, (handle, demand), &peer, &job.search);
        let intro = &peer.intro.intro;
        let (peer_key, nat) = (intro.uploader_key, peer.nat.clone());
        let notice = Meeting::Introduced { handle, peer: peer_key, nat, not_tried };
        cx.push(Output::Notice(Notice::Meeting(intro.id, notice)));
        if not_tried.is_some() {
            return;
        }
        let seek = self.links.begin(&mut self.common, cx, handle, peer, &mut job.search);
        if let Some(Seek { conn, intro, ticket, nat }) = seek {
            self.meet(cx, (intro, Role::Downloader), ticket, nat);
            if !self.connectivity.has(intro) {
                self.end_link(cx, conn, End::Reused);
            }
        }
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
        let Some((intro, stage)) = self.links.greet(&mut self.common, cx, conn) else { return };
        if stage == Stage::Sought {
            self.tell_connectivity(cx, connectivity::Input::Connected(intro));
        } else {
            self.attempt_ended(cx, intro, direct(true));
        }
    }

    pub(super) fn on_peer_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: PeerMsg) {
        let Some((handle, heard)) = self.links.hear(&mut self.common, conn, msg) else { return };
        match heard {
            Heard::Welcome { intro, key: uploader_key, requests_max } => {
                let granted = self.jobs.get(handle).and_then(Job::granted);
                if let Some((download, version)) = granted.map(|granted| (granted.download, granted.version)) {
                    let receipt = Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 };
                    self.tell_receipts(cx, receipting::Input::Owe(conn, receipt));
                }
                let name = SourceName::Peer(intro, uploader_key);
                self.tell_swarm(cx, handle, download::Input::PeerJoined { conn, name, requests_max });
            }
            Heard::Pieces(input) => self.tell_swarm(cx, handle, input),
            Heard::End(why) => self.end_link(cx, conn, why),
        }
    }

    /// Ends the link of a connection, if there is one, and tells the user, the machines that know it and the control
    /// session.
    pub(super) fn end_link(&mut self, cx: &mut Context<'_>, conn: ConnId, why: End) {
        let Some(link) = self.links.end(&mut self.common, cx, conn, why) else { return };
        self.jobs.on_link_ended(&link, why);
        match link.consequence(why) {
            Consequence::None => {}
            Consequence::Refused(intro) => self.tell_connectivity(cx, connectivity::Input::Refused(intro)),
            Consequence::NotNeeded(intro) => self.tell_connectivity(cx, connectivity::Input::Drop(intro)),
            Consequence::NotConnected(intro) => self.attempt_ended(cx, intro, direct(false)),
            Consequence::PeerLeft => self.tell_swarm(cx, link.handle(), download::Input::PeerLeft { conn }),
        }
        if let Some(why) = why.close() {
            self.tell_receipts(cx, receipting::Input::Close(conn, why));
        }
        if why != End::NotNeeded {
            self.want_peers(cx, link.handle());
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
            let job = self.jobs.get(link.handle()).filter(|job| job.is_active() && job.swarm.is_some());
            assert!(job.is_some(), "a link belongs to a download that fetches");
            assert!(job.is_some_and(|job| job.search.has_tried(link.key())), "a link's peer counts as tried");
            let sought = link.stage() == Stage::Sought;
            assert!(!sought || self.connectivity.has(link.intro()), "a link without a path seeks one");
            let open = link.stage() == Stage::Open;
            assert!(!open || self.receipts.of(conn).is_some(), "an open link owes receipts");
            assert!(!self.uploads.knows(conn), "a connection serves or is served");
        }
        for (handle, job) in self.jobs.iter() {
            let open = self.links.iter().filter(|(_, link)| link.handle() == handle && link.stage() == Stage::Open);
            let peers = job.swarm.iter().flat_map(Download::peers);
            assert!(open.map(|(conn, link)| (conn, link.name())).eq(peers), "the open links are the swarm's peers");
        }
    }
}
