//! The client role: one state machine for downloads, uploads, the control session and the user's commands.
//!
//! [`Client`] composes a [`Download`] machine for each download (wrapped in a `Job`), [`Uploads`], [`Receipts`],
//! [`ClientSession`], [`Connectivity`] and the `PeerLinks`, and turns their outputs into its own [`Output`]s.

mod asks;
mod blames;
mod books;
mod commands;
mod config;
mod edges;
mod invariants;
pub mod io;
mod job;
mod links;
mod meeting;
mod network;
mod notices;
mod outages;
mod peers;
mod possession;
mod receipts;
mod rekey;
mod restore;
mod sharing;
#[cfg(test)]
mod tests;
mod usage;
mod versions;

pub use config::{Config, START_WITHIN};
pub use io::{Input, Output};
pub use restore::{KeptServers, Restore};

use crate::ids::{DownloadId, Handle, IntroId, PieceIndex, ReqId, XferId};
use crate::nat::connectivity::{self, Connectivity};
use crate::session::client as session;
use crate::session::{ClientSession, Wall};
use crate::swarm::{Download, Receipts, Uploads, download, receipting, upload};
use crate::wire::notice::Known;
use crate::wire::records::{SignedCheckpoint, SignedRekey, UsageRecord, UsageState};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use blames::Checks;
use books::{Books, ServedTo};
use core::time::Duration;
use edges::Edges;
use io::{CommandError, ControlOutput, DownloadState, EdgeOutput, FetchEnd, Notice, PeerOutput, Save, StoreError};
use job::{Job, Need};
use links::{End, PeerLinks};
use notices::Notices;
use rekey::{Owner, Rekey};
use versions::Versions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// First call of the machine; the time-out is due at once.
    Start,
    /// Request the bootstrap from an edge again.
    Bootstrap,
    /// Timer of a download's swarm machine.
    Download(Handle),
    /// Repeat a download's request to an edge after its back-off.
    Ask(Handle),
    /// Renew a download's grant before it expires.
    Renew(Handle),
    /// End a download that a user waits for and that has run without an edge, if it has found no peer either.
    Alone(Handle),
    /// Check whether the disks have room for a download that a full disk has stopped.
    Room(Handle),
    /// Save the numbers of bytes sent of each version.
    Terms,
    /// Stop sharing the version that expires next.
    Expiry,
    /// Time-out of a link to a peer: the connection has not opened, or `Hello` is not answered.
    Links,
    /// Timer of the control session machine.
    Session,
    /// Timer of the uploads machine.
    Uploads,
    /// Timer of the connectivity machine.
    Connectivity,
    /// Timer of the receipts machine.
    Receipts,
    /// Report every download's status to the user.
    Status,
    /// Write the usage records that are due.
    Usage,
    /// End the wait for the last acknowledgements before a rekey, or start the next attempt.
    Rekey,
}

/// Follow-up of a durable write, done while its [`Input::Saved`] is handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Saving {
    Nothing,
    /// Answer the user's command.
    Command {
        answer: Option<ReqId>,
        handle: Option<Handle>,
    },
    Piece {
        handle: Handle,
        piece: PieceIndex,
    },
    Finish {
        handle: Handle,
    },
    /// Continue the download if its disks have room.
    Room {
        handle: Handle,
    },
    /// Append the durable record to the log; only then may it be sent.
    Usage(UsageRecord),
    /// Pass the durable checkpoint to the session, which may show it to CNs.
    Checkpoint(Box<SignedCheckpoint>),
    /// Raise the downloader's credit, since its receipt is durable.
    Receipt {
        intro: IntroId,
        bytes: u64,
    },
    /// Acknowledge the notice, since it is durable.
    Notice(Known),
}

impl Saving {
    fn is_of_pieces(&self, of: Handle) -> bool {
        matches!(self, Self::Piece { handle, .. } | Self::Finish { handle } if *handle == of)
    }
}

/// State machine of the client role, composed of further machines (downloads, session, uploads, connectivity,
/// receipts) and of structures that each keep one part of the client's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Downloads, each with its swarm machine.
    jobs: BTreeMap<Handle, Job>,
    session: ClientSession,
    uploads: Uploads,
    connectivity: Connectivity,
    receipts: Receipts,
    network: network::Network,
    links: PeerLinks,
    edges: Edges,
    versions: Versions,
    notices: Notices,
    checks: Checks,
    books: Books,
    owner: Owner,
    rekey: Rekey,
    /// New key made by an earlier start, whose rekey the ledger may not have; `None` once the first call has handled
    /// it.
    new_key: Option<Box<SignedRekey>>,
    /// Transfers whose [`Input::FetchEnded`] has not come yet.
    fetches: BTreeMap<XferId, download::Source>,
    /// Whether a request has failed to reach any edge, and none has succeeded since.
    edges_away: bool,
    /// Whether the last request for the bootstrap has failed.
    bootstrap_failed: bool,
    /// Servers of the last bootstrap, as the store kept it; used at the first call.
    kept_servers: Option<KeptServers>,
    /// Writes that are not durable yet.
    saves: BTreeMap<ReqId, Saving>,
    next_req: ReqId,
    next_handle: Handle,
    wall: Option<Wall>,
    stopped: bool,
    timers: Deadlines<Timer>,
}

type Context<'a> = Cx<'a, Client>;

/// Runs a child machine, copies its next deadline to the client's timer, and returns its outputs.
fn run_child<C: Machine>(
    cx: &mut Context<'_>,
    cfg: &C::Config,
    (timers, timer): (&mut Deadlines<Timer>, Timer),
    child: &mut C,
    f: impl FnOnce(&mut C, &mut Cx<'_, C>),
) -> Vec<C::Output> {
    let outputs = cx.child(cfg, |cx| f(child, cx));
    timers.set(timer, child.poll_timeout());
    outputs
}

impl Client {
    /// Returns every download's handle and state.
    pub fn downloads(&self) -> impl Iterator<Item = (Handle, DownloadState)> + '_ {
        self.jobs.iter().map(|(handle, job)| (*handle, job.record.state))
    }

    /// Returns a download's swarm machine, once its version and layout are known.
    #[must_use]
    pub fn swarm(&self, handle: Handle) -> Option<&Download> {
        self.jobs.get(&handle)?.swarm.as_ref()
    }

    /// Returns the control session machine.
    #[must_use]
    pub const fn session(&self) -> &ClientSession {
        &self.session
    }

    /// Returns the uploads machine.
    #[must_use]
    pub const fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    fn save(&mut self, cx: &mut Context<'_>, what: Save, saving: Saving) {
        let req = self.next_req.step();
        let before = self.saves.insert(req, saving);
        debug_assert!(before.is_none(), "a request's number is given once");
        cx.push(Output::Save { req, what });
    }

    fn on_saved(&mut self, cx: &mut Context<'_>, req: ReqId, result: Result<(), StoreError>) {
        match self.saves.remove(&req) {
            None | Some(Saving::Nothing) => {}
            Some(Saving::Command { answer, handle }) => {
                if let Some(req) = answer {
                    Self::answer(cx, req, result.map(|()| handle).map_err(CommandError::Store));
                }
                if let (Err(why), Some(handle)) = (result, handle) {
                    self.on_record_not_saved(cx, handle, why);
                }
            }
            Some(Saving::Piece { handle, piece }) => {
                self.tell_swarm(cx, handle, download::Input::PieceSaved { piece, result });
                self.share_piece(cx, handle, piece);
            }
            Some(Saving::Finish { handle }) => {
                self.tell_swarm(cx, handle, download::Input::Finished(result));
                self.on_finish_saved(cx, handle);
            }
            Some(Saving::Room { handle }) => self.on_room(cx, handle, result),
            Some(Saving::Receipt { intro, bytes }) => self.on_receipt_saved(cx, (intro, bytes), result),
            Some(Saving::Usage(record)) => self.on_usage_saved(cx, record, result.is_ok()),
            // a CN sends the notice again
            Some(Saving::Checkpoint(_) | Saving::Notice(_)) if result.is_err() => {}
            Some(Saving::Notice(known)) => self.on_notice_saved(cx, known),
            Some(Saving::Checkpoint(kept)) => self.tell_session(cx, session::Input::Checkpoint(kept)),
        }
    }

    /// Fails a download whose record cannot be saved, since it would not survive a crash.
    fn on_record_not_saved(&mut self, cx: &mut Context<'_>, handle: Handle, why: StoreError) {
        if self.jobs.get(&handle).is_some_and(Job::is_active) {
            self.halt(cx, handle, DownloadState::Failed(why.into()));
        }
    }

    fn on_finish_saved(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(swarm), Some(granted)) = (&job.swarm, job.granted()) else { return };
        if swarm.phase() != download::Phase::Done || job.record.state == DownloadState::Completed {
            return;
        }
        self.versions.put(granted.version, *swarm.layout(), swarm.have().clone());
        // usage record first: a user who sees "completed" may ask at once whether everything was reported
        self.report(cx, handle, UsageState::Completed);
        self.halt(cx, handle, DownloadState::Completed);
        self.save_record(cx, handle, None);
        self.tell_completed(cx, handle);
    }

    // --- children -------------------------------------------------------------------------------------------------

    fn tell_swarm(&mut self, cx: &mut Context<'_>, handle: Handle, input: download::Input) {
        self.run(cx, handle, |swarm, cx| swarm.handle_input(cx, input));
    }

    /// Runs a download's swarm machine by `f`, and performs its outputs.
    fn run(&mut self, cx: &mut Context<'_>, handle: Handle, f: impl FnOnce(&mut Download, &mut Cx<'_, Download>)) {
        let Some(swarm) = self.jobs.get_mut(&handle).and_then(|j| j.swarm.as_mut()) else { return };
        let cfg = &cx.cfg.download;
        for output in run_child(cx, cfg, (&mut self.timers, Timer::Download(handle)), swarm, f) {
            self.on_swarm_output(cx, handle, output);
        }
    }

    fn on_swarm_output(&mut self, cx: &mut Context<'_>, handle: Handle, output: download::Output) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let Some(granted) = job.granted() else { return };
        let version = granted.version;
        match output {
            download::Output::Fetch { xfer, source, piece, blocks } => {
                let output = match source {
                    download::Source::Edge(edge) => {
                        let grant = granted.sealed.clone();
                        Output::Edge(EdgeOutput::Fetch { xfer, edge, grant, version, piece, blocks })
                    }
                    download::Source::Peer(conn) => {
                        self.tell_receipts(cx, receipting::Input::Fetching(xfer, conn));
                        Output::Peer(PeerOutput::Fetch { xfer, conn, version, piece, blocks })
                    }
                };
                let before = self.fetches.insert(xfer, source);
                debug_assert!(before.is_none(), "a transfer's number is given once");
                cx.push(output);
            }
            download::Output::Verified { conn, bytes } => {
                self.tell_receipts(cx, receipting::Input::Verified(conn, bytes))
            }
            download::Output::CancelFetch { xfer } => match self.fetches.get(&xfer) {
                Some(download::Source::Edge(_)) => cx.push(Output::Edge(EdgeOutput::CancelFetch { xfer })),
                Some(download::Source::Peer(_)) => cx.push(Output::Peer(PeerOutput::CancelFetch { xfer })),
                // a swarm cancels only transfers that have not ended
                None => debug_assert!(false, "a cancelled transfer is under way"),
            },
            download::Output::SavePiece { piece, from } => {
                self.save(cx, Save::Piece { handle, version, piece, from }, Saving::Piece { handle, piece });
            }
            download::Output::Finish => {
                self.save(cx, Save::Finish { handle, version }, Saving::Finish { handle });
            }
            download::Output::DropPeer { conn, why, .. } => self.end_link(cx, conn, End::Swarm(why)),
            download::Output::Blame { intro, piece, block } => {
                self.tell_session(cx, session::Input::Blame { intro, piece, block });
            }
            download::Output::DropEdge { .. } => {
                let (source, why) = (io::SourceName::Edge, io::CloseReason::BadBlock);
                cx.push(Output::Notice(Notice::SourceDropped { handle, source, why }));
            }
            download::Output::RenewGrant => self.renew(cx, handle, Need::Renewal),
            download::Output::LeavePeers => self.renew(cx, handle, Need::EdgeOnly),
            download::Output::Failed(why) => self.fail(cx, handle, why),
        }
    }

    fn tell_session(&mut self, cx: &mut Context<'_>, input: session::Input) {
        self.run_session(cx, |session, cx| session.handle_input(cx, input));
    }

    fn run_session(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut ClientSession, &mut Cx<'_, ClientSession>)) {
        let cfg = &cx.cfg.session;
        for output in run_child(cx, cfg, (&mut self.timers, Timer::Session), &mut self.session, f) {
            self.on_session_output(cx, output);
        }
    }

    fn on_session_output(&mut self, cx: &mut Context<'_>, output: session::Output) {
        match output {
            session::Output::Dial { conn, cn } => cx.push(Output::Control(ControlOutput::Dial { conn, cn })),
            session::Output::Send { conn, msg } => cx.push(Output::Control(ControlOutput::Send { conn, msg })),
            session::Output::Close { conn } => cx.push(Output::Control(ControlOutput::Close { conn })),
            session::Output::Connected => {
                self.learn_wall(cx, self.session.wall());
                self.report_all_notices(cx);
                cx.push(Output::Notice(Notice::Session { connected: true }));
                self.on_edges_back(cx);
            }
            session::Output::Disconnected => cx.push(Output::Notice(Notice::Session { connected: false })),
            session::Output::NoServers => self.bootstrap(cx),
            session::Output::Outdated => cx.push(Output::Notice(Notice::Outdated)),
            session::Output::Introduced { download, peers } => self.on_introduced(cx, download, peers),
            session::Output::Regrant { download } => {
                if let Some(handle) = self.handle_of(download) {
                    self.renew(cx, handle, Need::Renewal);
                }
            }
            session::Output::NoPeers { download, why } => {
                if let Some(handle) = self.handle_of(download) {
                    Self::tell_no_peers(cx, handle, io::NoPeers::Refused(why));
                }
            }
            session::Output::PeersForbidden { download } => {
                if let Some(job) = self.handle_of(download).and_then(|h| self.jobs.get_mut(&h)) {
                    job.peers_allowed = false;
                }
            }
            session::Output::PeerComing(introduce) => self.expect_peer(cx, introduce),
            session::Output::Go(intro) => self.tell_connectivity(cx, connectivity::Input::Go(intro)),
            session::Output::NoticesChanged(changed) => self.on_notices_changed(cx, &changed),
            session::Output::Notice(signed) => self.on_notice(cx, &signed),
            session::Output::CheckCopy(version) => self.on_check_copy(cx, version),
            session::Output::Checkpoint(new) => self.save(cx, Save::Checkpoint(new.clone()), Saving::Checkpoint(new)),
            session::Output::RekeyOrdered => self.on_rekey_ordered(cx),
            session::Output::Retired => self.on_guid_retired(cx),
            session::Output::UsageDone { ids } => self.on_usage_done(cx, ids),
        }
    }

    fn handle_of(&self, download: DownloadId) -> Option<Handle> {
        let job = self.jobs.iter().find(|(_, j)| j.granted().is_some_and(|g| g.download == download));
        job.map(|(handle, _)| *handle)
    }

    fn tell_uploads(&mut self, cx: &mut Context<'_>, input: upload::Input) {
        self.run_uploads(cx, |uploads, cx| uploads.handle_input(cx, input));
    }

    fn run_uploads(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Uploads, &mut Cx<'_, Uploads>)) {
        let cfg = &cx.cfg.upload;
        for output in run_child(cx, cfg, (&mut self.timers, Timer::Uploads), &mut self.uploads, f) {
            match output {
                upload::Output::Send { conn, msg } => cx.push(Output::Peer(PeerOutput::Send { conn, msg })),
                upload::Output::Close { conn, why } => cx.push(Output::Peer(PeerOutput::Close { conn, why })),
                upload::Output::Serve { xfer, version, piece, blocks, leaves, rate_max } => {
                    cx.push(Output::Peer(PeerOutput::Serve { xfer, version, piece, blocks, leaves, rate_max }));
                }
                upload::Output::Refuse { xfer, why } => cx.push(Output::Peer(PeerOutput::Refuse { xfer, why })),
                upload::Output::Receipted { download, version, intro, key, proof } => {
                    self.on_receipt(cx, ServedTo { download, version, intro, key }, proof);
                }
                upload::Output::Spent { version, bytes } => self.on_spent(cx, version, bytes),
                upload::Output::UsedUp { version } => self.tell_session(cx, session::Input::Unshare { version }),
                upload::Output::Ended { intro, end } => {
                    self.tell_session(cx, session::Input::Unreceipted { intro, end });
                }
                upload::Output::Sent { download, version, intro, key, bytes, last } => {
                    self.on_sent(cx, ServedTo { download, version, intro, key }, bytes, last);
                }
            }
        }
    }

    // --- events ---------------------------------------------------------------------------------------------------

    /// Handles the first call: requests the bootstrap and resumes every active download.
    fn on_start(&mut self, cx: &mut Context<'_>) {
        if let Some(KeptServers { cns, edges, now_ms }) = self.kept_servers.take() {
            self.edges.learn(edges);
            self.tell_session(cx, session::Input::Servers { cns, now_ms });
        }
        self.bootstrap(cx);
        self.claim_store(cx);
        for record in self.books.take_unsent() {
            self.log_usage(cx, record);
        }
        self.share_all(cx);
        let active: Vec<_> = self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect();
        for handle in active {
            self.continue_download(cx, handle);
        }
        self.look_for_room(cx);
        self.report_soon(cx, cx.now);
        self.timers.set(Timer::Status, Some(cx.now.after(cx.cfg.status_every)));
    }

    fn notify_all_statuses(&mut self, cx: &mut Context<'_>) {
        let handles: Vec<_> = self.jobs.keys().copied().collect();
        for handle in handles {
            self.notify_status(cx, handle);
        }
        let busy = self.jobs.values().any(Job::is_active);
        self.timers.set(Timer::Status, busy.then(|| cx.now.after(cx.cfg.status_every)));
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Start => self.on_start(cx),
            Timer::Bootstrap => self.bootstrap(cx),
            Timer::Download(handle) => self.run(cx, handle, |swarm, cx| swarm.handle_timeout(cx)),
            Timer::Ask(handle) => self.ask_again(cx, handle),
            Timer::Renew(handle) => self.renew(cx, handle, Need::Renewal),
            Timer::Alone(handle) => self.on_alone_timer(cx, handle),
            Timer::Room(handle) => self.on_room_timer(cx, handle),
            Timer::Terms => self.save_terms(cx),
            Timer::Expiry => self.expire_copies(cx),
            Timer::Links => self.on_links_timer(cx),
            Timer::Receipts => self.run_receipts(cx, |receipts, cx| receipts.handle_timeout(cx)),
            Timer::Session => self.run_session(cx, |session, cx| session.handle_timeout(cx)),
            Timer::Uploads => self.run_uploads(cx, |uploads, cx| uploads.handle_timeout(cx)),
            Timer::Connectivity => self.run_connectivity(cx, |c, cx| c.handle_timeout(cx)),
            Timer::Status => self.notify_all_statuses(cx),
            Timer::Usage => self.report_all(cx),
            Timer::Rekey => self.on_rekey_timer(cx),
        }
    }

    fn on_fetch_ended(&mut self, cx: &mut Context<'_>, xfer: XferId, end: FetchEnd) {
        self.tell_swarm(cx, xfer.handle(), download::Input::Ended { xfer, end });
        self.fetches.remove(&xfer);
        self.tell_receipts(cx, receipting::Input::Over(xfer));
    }
}

impl Machine for Client {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.stopped && !matches!(input, Input::Saved { .. }) {
            return;
        }
        match input {
            Input::Command(command) => self.on_command(cx, command),
            Input::Edge { req, answer } => self.on_edge_answer(cx, req, answer),
            Input::ControlOpened { conn } => self.tell_session(cx, session::Input::Opened { conn }),
            Input::ControlClosed { conn } => self.tell_session(cx, session::Input::Closed { conn }),
            Input::Control { conn, msg } => self.tell_session(cx, session::Input::Message { conn, msg }),
            Input::PeerOpened { conn } => self.on_peer_opened(cx, conn),
            Input::PeerAccepted { conn, key, .. } => self.tell_uploads(cx, upload::Input::Accepted { conn, key }),
            Input::PeerClosed { conn } => {
                self.tell_receipts(cx, receipting::Input::Gone(conn));
                self.tell_uploads(cx, upload::Input::Closed { conn });
                self.end_link(cx, conn, End::Closed);
            }
            Input::Peer { conn, msg } if self.links.has(conn) => self.on_peer_message(cx, conn, msg),
            Input::Peer { conn, msg } => self.on_downloader_message(cx, conn, msg),
            Input::PeerRequest { conn, xfer, request } => {
                self.tell_uploads(cx, upload::Input::Request { conn, xfer, request });
            }
            Input::Progress { xfer, verified } => {
                self.tell_swarm(cx, xfer.handle(), download::Input::Progress { xfer, verified });
            }
            Input::FetchEnded { xfer, end } => self.on_fetch_ended(cx, xfer, end),
            Input::ServeEnded { xfer, bytes } => self.tell_uploads(cx, upload::Input::Served { xfer, bytes }),
            Input::Signed { req, signature } => self.tell_receipts(cx, receipting::Input::Signed(req, signature)),
            Input::HeadSigned { req, signature } => self.on_head_signed(cx, req, signature),
            Input::KeyMade { req, made } => self.on_key_made(cx, req, made),
            Input::Saved { req, result } => self.on_saved(cx, req, result),
            Input::VersionLost { version, left, sources } => self.on_version_lost(cx, version, &left, sources),
            Input::CopyChecked { version, is_right } => self.on_copy_checked(cx, version, is_right),
            Input::PeerQuiet { conn, quiet, round_trip } => self.on_peer_quiet(cx, conn, quiet, round_trip),
            Input::Network(nat) => self.on_network(cx, nat),
            Input::Notice(signed) => self.on_notice(cx, &signed),
            Input::Proven(proven) => self.tell_session(cx, session::Input::Proven(proven)),
            Input::Datagram { from, bytes } => {
                self.tell_connectivity(cx, connectivity::Input::Datagram { from, bytes });
            }
            Input::Scattered(scattered) => self.tell_connectivity(cx, connectivity::Input::Scattered(scattered)),
            Input::RawTcp(event) => self.tell_connectivity(cx, connectivity::Input::RawTcp(event)),
        }
        self.advance_rekey(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for this moment waits for the next call
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            self.on_timer(cx, timer);
        }
        self.advance_rekey(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.session.rebase(by);
        self.uploads.rebase(by);
        self.connectivity.rebase(by);
        self.links.rebase(by);
        self.network.rebase(by);
        self.receipts.rebase(by);
        self.books.rebase(by);
        for job in self.jobs.values_mut() {
            job.began = job.began.rebased(by);
            job.fetching_since = job.fetching_since.map(|since| since.rebased(by));
            job.asking_since = job.asking_since.rebased(by);
            if let Some(swarm) = &mut job.swarm {
                swarm.rebase(by);
            }
        }
    }

    fn check(&self) {
        self.session.check();
        self.uploads.check();
        self.connectivity.check();
        self.receipts.check();
        self.check_numbers();
        self.check_jobs();
        self.check_links();
        self.check_asks();
        self.books.check();
        self.versions.check();
        self.notices.check(|version| self.holds(version));
        self.check_timers();
        assert!(self.rekey != Rekey::Done || self.stopped, "a client that takes a new key has stopped");
    }
}
