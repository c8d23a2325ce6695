//! The client role: one state machine for downloads, uploads, the control session and the user's commands.
//!
//! [`Client`] composes machines and parts. The machines ([`Download`] in each `Job`, [`Uploads`], [`Receipts`],
//! [`ClientSession`], [`Connectivity`]) have outputs of their own, which the client turns into inputs of the others and
//! into its own [`Output`]s. The parts keep the rest of the state and take each step that concerns one or two of them:
//!
//! | part | owns |
//! |---|---|
//! | `Common` | timers, pending writes, request numbers, the wall clock; every part saves and waits through it |
//! | `Jobs` | the downloads and their transfers: records, states, what each needs from an edge |
//! | `PeerLinks` | a link's whole life from the introduction to its end, with the time-outs |
//! | `Edges` | the known edges, the pending requests to them, the bootstrap and outages |
//! | `Copies` | versions in the cache, their terms of sharing, notices about them, checks of blamed ones |
//! | `Books` | bytes served to other clients, usage records and their log |
//! | `Rekey` | the change of the key, and the owner of the store |
//! | `Network` | the addresses of this host, and when they were last checked |
//!
//! A method of [`Client`] itself exists only where a step passes from a machine or part to another machine.

mod asks;
mod blames;
mod books;
mod commands;
mod common;
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

use crate::ids::{Handle, ReqId, XferId};
use crate::nat::connectivity::{self, Connectivity};
use crate::session::ClientSession;
use crate::session::client as session;
use crate::swarm::{Download, Receipts, Uploads, download, receipting, upload};
use crate::wire::records::UsageState;
use crate::{Cx, Machine, Time};
use alloc::vec::Vec;
use blames::{Blamed, Checks};
use books::{Books, ServedTo};
use common::{Common, Saving, Timer, answer};
use core::time::Duration;
use edges::Edges;
use io::{CommandError, ControlOutput, DownloadState, EdgeOutput, FailReason, FetchEnd};
use io::{Notice, PeerOutput, Save, StoreError};
use job::{Jobs, Need};
use links::{End, PeerLinks};
use notices::Notices;
use peers::tell_no_peers;
use rekey::Rekey;
use versions::Versions;

/// Copies of versions that the client holds, the notices about them, and the checks of copies that were blamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Copies {
    versions: Versions,
    notices: Notices,
    checks: Checks,
}

/// State machine of the client role: passes what happens between the machines and the parts that it is composed of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Timers, pending writes and request numbers, which every part uses.
    common: Common,
    /// Downloads, each with its swarm machine.
    jobs: Jobs,
    session: ClientSession,
    uploads: Uploads,
    connectivity: Connectivity,
    receipts: Receipts,
    network: network::Network,
    links: PeerLinks,
    edges: Edges,
    copies: Copies,
    books: Books,
    rekey: Rekey,
    /// Servers of the last bootstrap, as the store kept it; used at the first call.
    kept_servers: Option<KeptServers>,
}

type Context<'a> = Cx<'a, Client>;

impl Client {
    /// Returns every download's handle and state.
    pub fn downloads(&self) -> impl Iterator<Item = (Handle, DownloadState)> + '_ {
        self.jobs.iter().map(|(handle, job)| (handle, job.record.state))
    }

    /// Returns a download's swarm machine, once its version and layout are known.
    #[must_use]
    pub fn swarm(&self, handle: Handle) -> Option<&Download> {
        self.jobs.get(handle)?.swarm.as_ref()
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

    fn on_saved(&mut self, cx: &mut Context<'_>, req: ReqId, result: Result<(), StoreError>) {
        match self.common.take_saving(req) {
            None | Some(Saving::Nothing) => {}
            Some(Saving::Command { answer: command, handle }) => {
                if let Some(req) = command {
                    answer(cx, req, result.map(|()| handle).map_err(CommandError::Store));
                }
                // a download whose record is not durable would not survive a crash
                if let (Err(why), Some(handle)) = (result, handle)
                    && self.jobs.is_active(handle)
                {
                    self.halt(cx, handle, DownloadState::Failed(why.into()));
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
            Some(Saving::Usage(record)) => {
                self.books.on_usage_saved(&mut self.common, &mut self.jobs, cx, record, result.is_ok());
            }
            // a receipt that is not durable would be lost in a crash: it raises no credit; a CN sends a notice again
            Some(Saving::Receipt { .. } | Saving::Checkpoint(_) | Saving::Notice(_)) if result.is_err() => {}
            Some(Saving::Receipt { intro, bytes }) => {
                self.tell_uploads(cx, upload::Input::ReceiptKept { intro, bytes })
            }
            Some(Saving::Notice(known)) => {
                let acknowledged = self.copies.notices.on_saved(known);
                self.tell_held(cx, acknowledged);
            }
            Some(Saving::Checkpoint(kept)) => self.tell_session(cx, session::Input::Checkpoint(kept)),
        }
    }

    fn on_finish_saved(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(handle) else { return };
        let (Some(swarm), Some(granted)) = (&job.swarm, job.granted()) else { return };
        if swarm.phase() != download::Phase::Done || job.record.state == DownloadState::Completed {
            return;
        }
        self.copies.versions.put(granted.version, *swarm.layout(), swarm.have().clone());
        // usage record first: a user who sees "completed" may ask at once whether everything was reported
        self.jobs.report(&mut self.common, cx, handle, UsageState::Completed);
        self.halt(cx, handle, DownloadState::Completed);
        self.jobs.save_record(&mut self.common, cx, handle, None);
        self.jobs.tell_completed(&mut self.common, &mut self.edges, cx, handle);
    }

    // --- children -------------------------------------------------------------------------------------------------

    fn tell_swarm(&mut self, cx: &mut Context<'_>, handle: Handle, input: download::Input) {
        self.run(cx, handle, |swarm, cx| swarm.handle_input(cx, input));
    }

    /// Runs a download's swarm machine by `f`, and performs its outputs.
    fn run(&mut self, cx: &mut Context<'_>, handle: Handle, f: impl FnOnce(&mut Download, &mut Cx<'_, Download>)) {
        let Some(swarm) = self.jobs.get_mut(handle).and_then(|job| job.swarm.as_mut()) else { return };
        let cfg = &cx.cfg.download;
        for output in self.common.run_child(cx, cfg, Timer::Download(handle), swarm, f) {
            self.on_swarm_output(cx, handle, output);
        }
    }

    fn on_swarm_output(&mut self, cx: &mut Context<'_>, handle: Handle, output: download::Output) {
        let Some(job) = self.jobs.get(handle) else { return };
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
                self.jobs.begin_fetch(xfer, source);
                cx.push(output);
            }
            download::Output::Verified { conn, bytes } => {
                self.tell_receipts(cx, receipting::Input::Verified(conn, bytes))
            }
            download::Output::CancelFetch { xfer } => self.jobs.cancel_fetch(cx, xfer),
            download::Output::SavePiece { piece, from } => {
                self.common.save(cx, Save::Piece { handle, version, piece, from }, Saving::Piece { handle, piece });
            }
            download::Output::Finish => {
                self.common.save(cx, Save::Finish { handle, version }, Saving::Finish { handle });
            }
            download::Output::DropPeer { conn, why, .. } => self.end_link(cx, conn, End::Swarm(why)),
            download::Output::Blame { intro, piece, block } => {
                self.tell_session(cx, session::Input::Blame { intro, piece, block });
            }
            download::Output::DropEdge { .. } => {
                let (source, why) = (io::SourceName::Edge, io::CloseReason::BadBlock);
                cx.push(Output::Notice(Notice::SourceDropped { handle, source, why }));
            }
            download::Output::RenewGrant => {
                self.jobs.renew(&mut self.common, &mut self.edges, cx, handle, Need::Renewal)
            }
            download::Output::LeavePeers => {
                self.jobs.renew(&mut self.common, &mut self.edges, cx, handle, Need::EdgeOnly)
            }
            download::Output::Failed(why) => self.fail(cx, handle, why),
        }
    }

    fn tell_session(&mut self, cx: &mut Context<'_>, input: session::Input) {
        self.run_session(cx, |session, cx| session.handle_input(cx, input));
    }

    fn run_session(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut ClientSession, &mut Cx<'_, ClientSession>)) {
        let cfg = &cx.cfg.session;
        for output in self.common.run_child(cx, cfg, Timer::Session, &mut self.session, f) {
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
                self.tell_session(cx, session::Input::NoticesHeld(self.copies.notices.durable()));
                cx.push(Output::Notice(Notice::Session { connected: true }));
                self.on_edges_back(cx);
            }
            session::Output::Disconnected => cx.push(Output::Notice(Notice::Session { connected: false })),
            session::Output::NoServers => self.edges.bootstrap(&mut self.common, cx),
            session::Output::Outdated => self.on_version_refused(cx),
            session::Output::Introduced { download, peers } => self.on_introduced(cx, download, peers),
            session::Output::Regrant { download } => {
                if let Some(handle) = self.jobs.of_download(download) {
                    self.jobs.renew(&mut self.common, &mut self.edges, cx, handle, Need::Renewal);
                }
            }
            session::Output::NoPeers { download, why } => {
                if let Some(handle) = self.jobs.of_download(download) {
                    tell_no_peers(cx, handle, io::NoPeers::Refused(why));
                }
            }
            session::Output::PeersForbidden { download } => {
                if let Some(job) = self.jobs.of_download(download).and_then(|handle| self.jobs.get_mut(handle)) {
                    job.peers_allowed = false;
                }
            }
            session::Output::PeerComing(introduce) => self.expect_peer(cx, introduce),
            session::Output::Go(intro) => self.tell_connectivity(cx, connectivity::Input::Go(intro)),
            session::Output::NoticesChanged(changed) => {
                let outdated = self.copies.notices.outdated(&changed);
                self.tell_session(cx, session::Input::NoticesHeld(outdated));
            }
            session::Output::Notice(signed) => self.on_notice(cx, &signed),
            session::Output::TicketsRefused(of) => cx.push(Output::Notice(Notice::TicketsRefused(of))),
            session::Output::CheckCopy(version) => self.copies.on_check_copy(&self.jobs, cx, version),
            session::Output::Checkpoint(new) => {
                self.common.save(cx, Save::Checkpoint(new.clone()), Saving::Checkpoint(new))
            }
            session::Output::RekeyOrdered => self.rekey.on_ordered(&mut self.common, cx),
            session::Output::Retired if self.rekey.is_announced() => self.close_books(cx),
            session::Output::Retired => {}
            session::Output::UsageDone { ids } => self.books.on_usage_done(&mut self.common, cx, ids),
        }
    }

    fn tell_uploads(&mut self, cx: &mut Context<'_>, input: upload::Input) {
        self.run_uploads(cx, |uploads, cx| uploads.handle_input(cx, input));
    }

    fn run_uploads(&mut self, cx: &mut Context<'_>, f: impl FnOnce(&mut Uploads, &mut Cx<'_, Uploads>)) {
        let cfg = &cx.cfg.upload;
        for output in self.common.run_child(cx, cfg, Timer::Uploads, &mut self.uploads, f) {
            match output {
                upload::Output::Send { conn, msg } => cx.push(Output::Peer(PeerOutput::Send { conn, msg })),
                upload::Output::Close { conn, why } => cx.push(Output::Peer(PeerOutput::Close { conn, why })),
                upload::Output::Serve { xfer, version, piece, blocks, leaves, rate_max } => {
                    cx.push(Output::Peer(PeerOutput::Serve { xfer, version, piece, blocks, leaves, rate_max }));
                }
                upload::Output::Refuse { xfer, why } => cx.push(Output::Peer(PeerOutput::Refuse { xfer, why })),
                upload::Output::Receipted { download, version, intro, key, proof } => {
                    let to = ServedTo { download, version, intro, key };
                    self.books.on_receipt(&mut self.common, cx, to, proof);
                }
                upload::Output::Spent { version, bytes } => {
                    self.copies.versions.on_spent(&mut self.common, cx, version, bytes)
                }
                upload::Output::UsedUp { version } => self.tell_session(cx, session::Input::Unshare { version }),
                upload::Output::Ended { intro, end } => {
                    self.tell_session(cx, session::Input::Unreceipted { intro, end });
                }
                upload::Output::Sent { download, version, intro, key, bytes, last } => {
                    let to = ServedTo { download, version, intro, key };
                    self.books.on_sent(&mut self.common, cx, to, bytes, last);
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
        self.edges.bootstrap(&mut self.common, cx);
        let new_key = self.rekey.claim_store(&mut self.common, &self.jobs, cx);
        self.announce_key(cx, new_key);
        self.books.log_unsent(&mut self.common, cx);
        self.share_all(cx);
        for handle in self.jobs.active() {
            self.continue_download(cx, handle);
        }
        self.jobs.look_for_room(&mut self.common, cx);
        self.common.report_soon(cx, cx.now);
        self.common.report_status_later(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Start => self.on_start(cx),
            Timer::Bootstrap => self.edges.bootstrap(&mut self.common, cx),
            Timer::Download(handle) => self.run(cx, handle, |swarm, cx| swarm.handle_timeout(cx)),
            Timer::Ask(handle) => self.jobs.ask_again(&mut self.common, &mut self.edges, cx, handle),
            Timer::Renew(handle) => self.jobs.renew(&mut self.common, &mut self.edges, cx, handle, Need::Renewal),
            // the user waits for it, and it goes on without an edge, but has found no peer either
            Timer::Alone(handle) if self.jobs.is_alone(handle) => self.fail(cx, handle, FailReason::EdgeUnreachable),
            Timer::Alone(_) => {}
            Timer::Room(handle) => self.common.save(cx, Save::Room { handle }, Saving::Room { handle }),
            Timer::Terms => self.copies.versions.save_terms(&mut self.common, cx),
            Timer::Expiry => self.expire_copies(cx),
            Timer::Links => {
                for conn in self.links.take_late(&mut self.common, cx.now) {
                    self.end_link(cx, conn, End::TimedOut);
                }
            }
            Timer::Receipts => self.run_receipts(cx, |receipts, cx| receipts.handle_timeout(cx)),
            Timer::Session => self.run_session(cx, |session, cx| session.handle_timeout(cx)),
            Timer::Uploads => self.run_uploads(cx, |uploads, cx| uploads.handle_timeout(cx)),
            Timer::Connectivity => self.run_connectivity(cx, |c, cx| c.handle_timeout(cx)),
            Timer::Status => self.jobs.notify_all_statuses(&mut self.common, cx),
            Timer::Usage => self.books.report_all(&mut self.common, &mut self.jobs, cx),
            Timer::Rekey => self.on_rekey_timer(cx),
        }
    }

    fn on_fetch_ended(&mut self, cx: &mut Context<'_>, xfer: XferId, end: FetchEnd) {
        self.tell_swarm(cx, xfer.handle(), download::Input::Ended { xfer, end });
        self.jobs.end_fetch(xfer);
        self.tell_receipts(cx, receipting::Input::Over(xfer));
    }
}

impl Machine for Client {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.common.is_stopped() && !matches!(input, Input::Saved { .. }) {
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
            Input::HeadSigned { req, signature } => {
                if let Some(logged) = self.books.on_head_signed(cx, req, signature) {
                    self.tell_session(cx, session::Input::Usage(logged));
                }
            }
            Input::KeyMade { req, made } => {
                let new_key = self.rekey.on_key_made(req, made);
                self.announce_key(cx, new_key);
            }
            Input::Saved { req, result } => self.on_saved(cx, req, result),
            Input::VersionLost { version, left, sources } => self.on_version_lost(cx, version, &left, sources),
            Input::CopyChecked { version, is_right } => {
                let blamed = Blamed { version, object: self.jobs.object_of(version) };
                self.copies.on_copy_checked(&mut self.common, &mut self.edges, cx, blamed, is_right);
            }
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
        while let Some(timer) = self.common.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            self.on_timer(cx, timer);
        }
        self.advance_rekey(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.common.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.common.timers.rebase(by);
        self.session.rebase(by);
        self.uploads.rebase(by);
        self.connectivity.rebase(by);
        self.links.rebase(by);
        self.network.rebase(by);
        self.receipts.rebase(by);
        self.books.rebase(by);
        self.jobs.rebase(by);
    }

    fn check(&self) {
        self.session.check();
        self.uploads.check();
        self.connectivity.check();
        self.receipts.check();
        self.check_numbers();
        self.jobs.check();
        self.check_links();
        self.jobs.check_asks(&self.common, &self.edges);
        self.edges.check(&self.common);
        self.copies.checks.check(self.edges.rechecked());
        self.books.check();
        self.copies.versions.check();
        self.copies.notices.check(|version| self.copies.holds(&self.jobs, version));
        self.check_timers();
        self.jobs.check_timers(&self.common);
        self.rekey.check(&self.common);
    }
}
