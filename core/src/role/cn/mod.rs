//! The connection node: the end of the clients' persistent connections. It checks grants, has DNs choose peers, signs
//! introductions, passes them on, and hands usage records to the ledger. All that it knows of clients is soft state.

mod clients;
mod copies;
mod directories;
pub mod io;
mod logs;
mod meetings;
mod prices;
mod quarantine;
mod queries;
mod spool;
mod usage;
mod withdrawn;

#[cfg(test)]
mod tests;

pub use io::{Config, Input, Metric, Output};
pub use prices::{LEAD, Prices};

use crate::accounting::Trust;
use crate::ids::{ConnId, Guid, IntroId, RecordId, ReqId, SessionId, VersionId};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::nat::broker::Broker;
use crate::nat::cookie::CookieKeys;
use crate::session::{LedgerLink, Wall, ledger_link};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use clients::Client;
use core::time::Duration;
use directories::DnLink;
use meetings::{Guest, Party};
use queries::Pending;
use spool::Spool;
use usage::{Ack, Reported};

/// The CN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cn {
    /// `None` until the shell has said what time it is: nobody is let in before.
    wall: Option<Wall>,
    phase: Phase,
    /// Connections, with their sessions once `Hello` has come.
    clients: BTreeMap<ConnId, Client>,
    /// The sessions of each GUID: one, unless there are copies of an installation, or one was left behind.
    by_guid: BTreeMap<Guid, BTreeSet<ConnId>>,
    by_session: BTreeMap<SessionId, ConnId>,
    next_session: SessionId,
    dns: Vec<DnLink>,
    queries: BTreeMap<ReqId, Pending>,
    next_req: ReqId,
    /// Introductions that this CN has signed, until their peers have met.
    broker: Broker<Party>,
    /// Introductions that were delivered to this CN's clients.
    guests: BTreeMap<IntroId, Guest>,
    /// Checks what STUN servers say of clients.
    cookies: CookieKeys,
    /// What is published no more.
    withdrawn: BTreeSet<VersionId>,
    /// Who gets no peers, and is offered to none.
    quarantined: BTreeSet<Guid>,
    ledger: LedgerLink,
    /// Who is to be told that a record is durable.
    usage: BTreeMap<RecordId, Reported>,
    /// Places in clients' logs that the ledger does not have yet, and the records that stand there, which it has.
    places: BTreeMap<RecordId, RecordId>,
    /// Retired GUIDs on their way to the ledger, and over which connection they last came.
    rekeys: BTreeMap<RecordId, ConnId>,
    /// Acknowledgements whose checkpoints are being signed.
    acks: BTreeMap<ReqId, Ack>,
    /// Queries whose answers wait until it is recorded who is introduced.
    recording: BTreeMap<RecordId, ReqId>,
    spool: Spool,
    timers: Deadlines<Timer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// Clients are told to leave; until [`Timer::Stop`].
    Draining,
    Stopped,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The client must have said `Hello`, or something since then.
    Silent(ConnId),
    /// The client must have answered the challenge.
    Challenge(ConnId),
    /// The query must have been answered.
    Query(ReqId),
    /// Dial this DN.
    Dial(u32),
    /// Ping this DN; it must have answered the last one.
    Ping(u32),
    /// Tell this DN of more clients.
    Register(u32),
    /// Nothing more is passed on of this introduction.
    Guest(IntroId),
    /// Tell DNs how this client is now.
    Tell(ConnId),
    /// Ask this client for its whole inventory.
    Readd(ConnId),
    /// Take out of the spool what the ledger has.
    Spool,
    /// Whoever is still here must go.
    Stop,
}

type Context<'a> = Cx<'a, Cn>;

impl Cn {
    /// How many sessions are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.by_session.len()
    }

    /// How many DNs are connected.
    #[must_use]
    pub fn dns_up(&self) -> usize {
        self.dns.iter().filter(|d| d.is_up()).count()
    }

    /// How many usage records the ledger has not acknowledged.
    #[must_use]
    pub fn usage_waiting(&self) -> usize {
        self.ledger.waiting()
    }

    /// Unix milliseconds; 0 before the clock is known, so that nothing is valid.
    fn now_ms(&self, now: Time) -> u64 {
        self.wall.map_or(0, |w| w.at(now))
    }

    fn wall_clock(&mut self, cx: &mut Context<'_>, unix_ms: u64) {
        let first = self.wall.is_none();
        self.wall = Some(Wall::showing(unix_ms, cx.now));
        if first {
            self.dns = (0..cx.cfg.dns).map(DnLink::new).collect();
            for dn in 0..cx.cfg.dns {
                self.timers.set(Timer::Dial(dn), Some(cx.now));
            }
            if cx.cfg.ledger {
                self.with_ledger(cx, ledger_link::Input::Start);
            }
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Serving {
            return;
        }
        self.phase = Phase::Draining;
        self.timers.set(Timer::Stop, Some(cx.now.after(cx.cfg.drain)));
        self.drain_clients(cx);
        self.clear_spool(cx);
        self.stop_if_empty(cx);
    }

    /// A draining CN ends as soon as its clients have gone, and their records are durable and out of the spool.
    fn stop_if_empty(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Draining
            && self.clients.is_empty()
            && self.ledger.waiting() == 0
            && self.spool.is_idle()
        {
            self.stop(cx);
        }
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        let conns: Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in conns {
            self.close(cx, conn);
        }
        for conn in self.dns.iter().filter_map(DnLink::conn) {
            cx.push(Output::DirectoryClose { conn });
        }
        self.with_ledger(cx, ledger_link::Input::Stop);
        self.phase = Phase::Stopped;
        self.timers = Deadlines::default();
        self.broker = Broker::default();
        cx.push(Output::Stopped);
    }

    const fn trust(cx: &Context<'_>) -> Trust {
        Trust { root: cx.cfg.root, verify: cx.cfg.verify }
    }

    fn due(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Silent(conn) => self.silent(cx, conn),
            Timer::Challenge(conn) => self.unanswered(cx, conn),
            Timer::Query(req) => self.query_expired(cx, req),
            Timer::Dial(dn) => self.dial(cx, dn),
            Timer::Ping(dn) => self.ping(cx, dn),
            Timer::Register(dn) => self.register_more(cx, dn),
            Timer::Guest(intro) => self.guest_expired(intro),
            Timer::Tell(conn) => self.tell_change(cx, conn),
            Timer::Readd(conn) => self.readd(cx, conn),
            Timer::Spool => self.clear_spool(cx),
            Timer::Stop => self.stop(cx),
        }
    }
}

impl Machine for Cn {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::WallClock { unix_ms } => self.wall_clock(cx, unix_ms),
            Input::CookieKeys(keys) => self.cookies = keys,
            Input::ClientAccepted { conn, key, from } => self.accepted(cx, conn, key, from),
            Input::Located { conn, place } => self.located(conn, place),
            Input::Client { conn, msg } => self.client_message(cx, conn, msg),
            Input::ClientClosed { conn } => self.forget(cx, conn),
            Input::DirectoryOpened { conn } => self.directory_opened(cx, conn),
            Input::DirectoryClosed { conn } => self.directory_lost(cx, conn),
            Input::Directory { conn, msg } => self.directory_message(cx, conn, msg),
            Input::LedgerOpened { conn } => self.with_ledger(cx, ledger_link::Input::Opened(conn)),
            Input::LedgerClosed { conn } => self.with_ledger(cx, ledger_link::Input::Closed(conn)),
            Input::Ledger { conn, msg } => self.with_ledger(cx, ledger_link::Input::Message(conn, msg)),
            Input::Restored { records } => self.restored(cx, records),
            Input::Saved { req, ok } => self.saved(cx, req, ok),
            Input::Withdrawn { versions } => self.withdrawn(cx, versions),
            Input::GrantOpened { req, grant } => self.grant_opened(cx, req, grant),
            Input::Signed { req, signature } if self.acks.contains_key(&req) => self.checkpointed(cx, req, signature),
            Input::Signed { req, signature } => self.signed(cx, req, signature),
            Input::Shutdown => self.shutdown(cx),
        }
        self.stop_if_empty(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for this same moment waits for the next call
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            self.due(cx, timer);
        }
        self.meetings_due(cx);
        if self.ledger.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.ledger_due(cx);
        }
        self.stop_if_empty(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.timers.next(), self.broker.poll_timeout(), self.ledger.poll_timeout()].into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.broker.rebase(by);
        self.ledger.rebase(by);
        self.clients.values_mut().for_each(|c| c.rebase(by));
    }
}
