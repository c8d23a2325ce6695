//! The connection node (CN): the server end of the clients' persistent connections. It checks grants, has DNs select
//! peers, signs and delivers introductions, and forwards usage records to the ledger. Everything that it knows of
//! clients is soft state.
//!
//! [`Cn`] is the machine. It consists of parts, and each part changes its own state only:
//!
//! - `Sessions`: the clients; `charges` has the limits of each session by the `prices` of its messages, `copies` the
//!   detection of copied installations, `quarantine` the clients that nobody is introduced to.
//! - `Directories`: the links to the DNs.
//! - `Queries`: the steps from a query to introductions.
//! - `Meetings`: the coordination of hole punching; `blames` has the pairs that have connected.
//! - `Tickets`: the holder's tickets that were checked, by which clients may share versions.
//! - `Notices`: the notices of operator and providers to the fleet.
//! - `Recording`: the records for the ledger, which `logs` makes, and of which `usage` and `spool` keep account.
//!
//! `Common` is the state that the steps of all parts use: the clock, the phase and the timers. The methods of [`Cn`]
//! route: they pass an input to the part that it is for, and the part's answer to other parts. `clients` has those for
//! the messages of clients.

mod blames;
mod charges;
mod clients;
mod copies;
mod directories;
mod invariants;
pub mod io;
mod logs;
mod meetings;
mod notices;
mod prices;
mod quarantine;
mod queries;
mod recording;
mod sessions;
mod spool;
mod tickets;
mod usage;

#[cfg(test)]
mod tests;

pub use io::{Config, Input, Metric, Output};
pub use prices::{LEAD, Prices};

use crate::ids::{ConnId, IntroId, ReqId};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::nat::cookie::CookieKeys;
use crate::session::{Wall, ledger_link};
use crate::wire::control::Refusal;
use alloc::vec::Vec;
use core::time::Duration;
use directories::Directories;
use meetings::Meetings;
use notices::Notices;
use queries::Queries;
use recording::Recording;
use sessions::Sessions;
use tickets::Tickets;

/// State machine of the CN role. Its methods route inputs, and what one part reports to others, between the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cn {
    common: Common,
    sessions: Sessions,
    dns: Directories,
    queries: Queries,
    meetings: Meetings,
    /// Keys to check the STUN cookies that prove clients' reflexive addresses.
    cookies: CookieKeys,
    tickets: Tickets,
    notices: Notices,
    recording: Recording,
}

/// State that the steps of all parts use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Common {
    /// Wall clock; `None` until the shell has reported the time, and no client is accepted before.
    wall: Option<Wall>,
    phase: Phase,
    /// Number of the next request of which the answer names the number: a query, a write or a signature.
    next_req: ReqId,
    timers: Deadlines<Timer>,
}

impl Common {
    /// Returns the Unix time in milliseconds; 0 before the clock is known, which makes every grant invalid.
    fn now_ms(&self, now: Time) -> u64 {
        self.wall.map_or(0, |w| w.at(now))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// Clients are told to leave; ends with [`Timer::Stop`].
    Draining,
    Stopped,
}

/// Purpose of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Close a connection that sent no `Hello` in time, or a session that has been silent too long.
    Silent(ConnId),
    /// Close a session that has not answered a challenge.
    Challenge(ConnId),
    /// Fail a query that has taken too long.
    Query(ReqId),
    /// Dial this DN, by its index in the configuration.
    Dial(u32),
    /// Ping this DN; close its connection if the last ping is unanswered.
    Ping(u32),
    /// Register more sessions at this DN.
    Register(u32),
    /// Forget an introduction that was delivered to an uploader; its signals are no longer forwarded.
    IntroducedUploader(IntroId),
    /// Send a client's newest state to the DNs, since its budget allows that now.
    Tell(ConnId),
    /// Request a client's whole inventory, since its budget allows that now.
    Readd(ConnId),
    /// Send again the notices that were not acknowledged.
    Notices,
    /// Delete from the spool the records that the ledger has.
    Spool,
    /// Stop, and close the connections that are still open.
    Stop,
}

type Context<'a> = Cx<'a, Cn>;

impl Cn {
    /// Returns the number of open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Returns the number of connected DNs.
    #[must_use]
    pub fn dns_up(&self) -> usize {
        self.dns.each_up().filter(|is_up| *is_up).count()
    }

    /// Returns for each configured DN, in order, whether it is connected.
    pub fn each_dn_up(&self) -> impl Iterator<Item = bool> {
        self.dns.each_up()
    }

    /// Returns whether the connection to the ledger is open.
    #[must_use]
    pub const fn is_ledger_up(&self) -> bool {
        self.recording.ledger.is_up()
    }

    /// Returns the number of records that the ledger has not acknowledged.
    #[must_use]
    pub fn usage_waiting(&self) -> usize {
        self.recording.ledger.waiting()
    }

    fn on_wall_clock(&mut self, cx: &mut Context<'_>, unix_ms: u64) {
        let first = self.common.wall.is_none();
        self.common.wall = Some(Wall::showing(unix_ms, cx.now));
        if first {
            self.dns.start(cx, &mut self.common);
            if cx.cfg.ledger {
                self.with_ledger(cx, ledger_link::Input::Start);
            }
        }
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        if self.common.phase != Phase::Serving {
            return;
        }
        self.common.phase = Phase::Draining;
        self.common.timers.set(Timer::Stop, Some(cx.now.after(cx.cfg.drain)));
        self.drain_clients(cx);
        self.recording.spool.clear(cx, &mut self.common);
        self.stop_if_empty(cx);
    }

    /// Stops a draining CN as soon as its clients have left and their records are durable and out of the spool.
    fn stop_if_empty(&mut self, cx: &mut Context<'_>) {
        if self.common.phase == Phase::Draining && self.sessions.connections() == 0 && self.recording.is_idle() {
            self.stop(cx);
        }
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        let conns: Vec<ConnId> = self.sessions.clients().map(|(conn, _)| conn).collect();
        for conn in conns {
            self.close(cx, conn);
        }
        self.dns.stop(cx);
        self.with_ledger(cx, ledger_link::Input::Stop);
        self.common.phase = Phase::Stopped;
        self.common.timers = Deadlines::default();
        self.meetings.stop();
        cx.push(Output::Stopped);
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Silent(conn) => self.refuse(cx, conn, Refusal::Idle),
            Timer::Challenge(conn) => self.refuse(cx, conn, Refusal::Replaced),
            Timer::Query(req) => self.on_query_timeout(cx, req),
            Timer::Dial(dn) => self.dns.dial(cx, dn),
            Timer::Ping(dn) => {
                if let Some(conn) = self.dns.ping(cx, &mut self.common, dn) {
                    self.hang_up(cx, conn);
                }
            }
            Timer::Register(dn) => self.dns.register_more(cx, &mut self.common, &mut self.sessions, dn),
            Timer::IntroducedUploader(intro) => self.meetings.on_uploader_timeout(intro),
            Timer::Tell(conn) => self.publish_change(cx, conn),
            Timer::Readd(conn) => self.sessions.request_readd(cx, conn),
            Timer::Notices => self.notices.on_timer(cx, &mut self.common),
            Timer::Spool => self.recording.spool.clear(cx, &mut self.common),
            Timer::Stop => self.stop(cx),
        }
    }
}

impl Machine for Cn {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.common.phase == Phase::Stopped {
            return;
        }
        let client = input.client();
        match input {
            Input::WallClock { unix_ms } => self.on_wall_clock(cx, unix_ms),
            Input::CookieKeys(keys) => self.cookies = keys,
            Input::ClientAccepted { conn, key, from } => self.on_client_accepted(cx, conn, key, from),
            Input::Located { conn, location } => self.sessions.on_located(conn, location),
            Input::Client { conn, msg } => self.on_client_message(cx, conn, msg),
            Input::ClientClosed { conn } => self.remove_client(cx, conn),
            Input::DirectoryOpened { conn } => self.dns.on_opened(cx, &mut self.common, conn),
            Input::DirectoryClosed { conn } => self.on_directory_closed(cx, conn),
            Input::Directory { conn, msg } => self.on_directory_message(cx, conn, msg),
            Input::LedgerOpened { conn } => self.with_ledger(cx, ledger_link::Input::Opened(conn)),
            Input::LedgerClosed { conn } => self.with_ledger(cx, ledger_link::Input::Closed(conn)),
            Input::Ledger { conn, msg } => self.with_ledger(cx, ledger_link::Input::Message(conn, msg)),
            Input::Restored { records } => self.recording.on_spool_restored(cx, records),
            Input::Saved { req, ok } => self.on_spool_saved(cx, req, ok),
            Input::Notices(notices) => self.notices.on_published(cx, &mut self.common, notices),
            Input::GrantOpened { req, grant } => self.on_grant_opened(cx, req, grant),
            Input::Signed { req, signature } if self.recording.usage.is_signing(req) => {
                self.recording.usage.on_checkpoint_signed(cx, &self.sessions, req, signature)
            }
            Input::Signed { req, signature } => self.on_introductions_signed(cx, req, signature),
            Input::Shutdown => self.on_shutdown(cx),
        }
        self.stop_if_empty(cx);
        if let Some(conn) = client.filter(|_| cfg!(debug_assertions)) {
            self.check_client(conn);
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for this moment waits for the next call
        let mut due = Vec::new();
        while let Some(timer) = self.common.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            // an earlier timer in `due` may have ended the draining
            if self.common.phase != Phase::Stopped {
                self.on_timer(cx, timer);
            }
        }
        self.on_meeting_timers(cx);
        if self.recording.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.on_ledger_timer(cx);
        }
        self.stop_if_empty(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.common.timers.next(), self.meetings.poll_timeout(), self.recording.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn rebase(&mut self, by: Duration) {
        self.common.timers.rebase(by);
        self.meetings.rebase(by);
        self.recording.rebase(by);
        self.sessions.rebase(by);
        self.notices.rebase(by);
        self.tickets.rebase(by);
    }

    fn check(&self) {
        self.check_state();
    }
}
