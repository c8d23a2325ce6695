//! The ledger: takes records from CNs and edges, has them stored, and acknowledges those that are durable. A record may
//! come again until it is acknowledged; the store keeps each id once.

use crate::accounting::{Trust, grants};
use crate::ids::{ConnId, Guid, PublicKey, RecordId, ReqId};
use crate::limits::{QUARANTINE_PAGE_MAX, QUARANTINED_MAX};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::session::Wall;
use crate::wire::List;
use crate::wire::ledger::{LedgerAck, LedgerMsg, QuarantinePage};
use crate::wire::records::{GrantRecord, LedgerRecord, ServerCert, ServerRole, Verify};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// What the wall clock shows now; first of all inputs, and again whenever it may have been set.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// A server has connected and proven a key in the TLS handshake (or is this process itself); its first message
    /// shows its certificate.
    Accepted {
        /// Which.
        conn: ConnId,
        /// The key it proved.
        key: PublicKey,
    },
    /// A server's message.
    Server {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// A server's connection has ended (or overflowed).
    Closed {
        /// Which.
        conn: ConnId,
    },
    /// The answer to [`Output::Store`]: exactly one.
    Stored {
        /// Echoed.
        req: ReqId,
        /// Whether all of the batch is durable; otherwise none of it is.
        ok: bool,
    },
    /// Who is quarantined, all of them; again whenever it may have changed.
    Quarantined {
        /// Each once, ascending.
        guids: Vec<Guid>,
    },
    /// Stop: store what has come, then say [`Output::Stopped`].
    Shutdown,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send to a server.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        msg: LedgerMsg,
    },
    /// Close a server's connection; no `Closed` follows.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// Store all of these or none, durably, each id once; answered by [`Input::Stored`]. One batch at a time.
    Store {
        /// Echoed.
        req: ReqId,
        /// The records, in the order they came.
        records: Vec<LedgerRecord>,
    },
    /// Add one to a counter.
    Count(Metric),
    /// The answer to [`Input::Shutdown`]: nothing waits to be stored, the process may end.
    Stopped,
}

/// What a ledger counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A record came.
    Received,
    /// A record was acknowledged.
    Acknowledged,
    /// A batch could not be stored.
    StoreFailed,
    /// A record was set aside because too many wait; its sender will send it again.
    Deferred,
    /// A connection was closed because its server broke the protocol, or was none.
    Violation,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "swarmedge_ledger_received_total",
            Self::Acknowledged => "swarmedge_ledger_acknowledged_total",
            Self::StoreFailed => "swarmedge_ledger_store_failures_total",
            Self::Deferred => "swarmedge_ledger_deferred_total",
            Self::Violation => "swarmedge_ledger_violations_total",
        }
    }
}

/// Limits and intervals of a ledger.
#[derive(Clone, Debug)]
pub struct Config {
    /// The operator's root key.
    pub root: PublicKey,
    /// Checks signatures.
    pub verify: Verify,
    /// Connections at a time.
    pub servers_max: u32,
    /// A connection's first message comes within this.
    pub hello_within: Duration,
    /// A server this long silent is gone.
    pub idle_after: Duration,
    /// Records that wait to be stored.
    pub pending_max: u32,
    /// Records of one batch; at most 1,024.
    pub batch_max: u32,
    /// A batch waits so long for more records.
    pub batch_wait: Duration,
    /// A failed batch is tried again after this.
    pub retry_after: Duration,
}

impl Config {
    /// Production limits.
    #[must_use]
    pub const fn new(root: PublicKey, verify: Verify) -> Self {
        Self {
            root,
            verify,
            servers_max: 1_024,
            hello_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(60),
            pending_max: 65_536,
            batch_max: 1_024,
            batch_wait: Duration::from_millis(20),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// The ledger: records wait in `pending`, one batch is being stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    wall: Wall,
    phase: Phase,
    servers: BTreeMap<ConnId, Server>,
    pending: VecDeque<Submitted>,
    batch: Option<Batch>,
    next_req: ReqId,
    /// Who is quarantined; `None` until it is known.
    quarantined: Option<Vec<Guid>>,
    timers: Deadlines<Timer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// What has come is stored, nothing more is taken.
    Stopping,
    Stopped,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Server {
    key: PublicKey,
    /// Once it has shown a certificate for that key.
    role: Option<Speaker>,
}

/// Whose word is taken for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Speaker {
    /// Passes on what clients say.
    Cn,
    /// Says what it granted and served.
    Edge,
}

/// A record and who is to be told that it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Submitted {
    conn: ConnId,
    record: LedgerRecord,
}

/// The records that are being stored; after a failure, until they are tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    req: ReqId,
    records: Vec<Submitted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The connection must have said `Hello`, or something since then.
    Silent(ConnId),
    /// The batch has waited long enough for more.
    Batch,
    /// Try the failed batch again.
    Retry,
}

impl Ledger {
    /// How many records wait to be durable.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.batch.as_ref().map_or(0, |b| b.records.len())
    }

    fn accepted(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, key: PublicKey) {
        if self.phase != Phase::Serving || self.servers.len() >= cx.cfg.servers_max as usize {
            return cx.push(Output::Close { conn });
        }
        self.servers.insert(conn, Server { key, role: None });
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.hello_within)));
    }

    fn forget(&mut self, conn: ConnId) {
        self.servers.remove(&conn);
        self.timers.clear(Timer::Silent(conn));
    }

    fn close(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Close { conn });
        self.forget(conn);
    }

    fn violation(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Count(Metric::Violation));
        self.close(cx, conn);
    }

    fn message(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, msg: LedgerMsg) {
        let Some(server) = self.servers.get(&conn).copied() else { return };
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        match (msg, server.role) {
            (LedgerMsg::Hello(cert), None) => self.hello(cx, conn, server.key, &cert),
            (LedgerMsg::Submit(record), Some(role)) => self.submit(cx, Submitted { conn, record }, server.key, role),
            (LedgerMsg::Ping, Some(_)) => cx.push(Output::Send { conn, msg: LedgerMsg::Pong }),
            (LedgerMsg::Pong, Some(_)) => {}
            (
                LedgerMsg::Hello(_)
                | LedgerMsg::Submit(_)
                | LedgerMsg::Ack(_)
                | LedgerMsg::Ping
                | LedgerMsg::Pong
                | LedgerMsg::Quarantine(_),
                Some(_) | None,
            ) => self.violation(cx, conn),
        }
    }

    fn hello(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, key: PublicKey, cert: &ServerCert) {
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let role = match cert.body.role {
            ServerRole::Cn => Some(Speaker::Cn),
            ServerRole::Edge => Some(Speaker::Edge),
            ServerRole::Dn | ServerRole::Ledger => None,
        };
        let certified = trust.check_cert(cert, cert.body.role, self.wall.at(cx.now)).is_ok() && cert.body.key == key;
        if role.is_none() || !certified {
            return self.violation(cx, conn);
        }
        self.servers.insert(conn, Server { key, role });
        if role == Some(Speaker::Cn) {
            self.tell_quarantined(cx, conn);
        }
    }

    /// CNs keep the last list that they were told whole, so only changes need to be told.
    fn quarantined(&mut self, cx: &mut Cx<'_, Self>, mut guids: Vec<Guid>) {
        guids.truncate(QUARANTINED_MAX);
        if self.quarantined.as_ref() == Some(&guids) {
            return;
        }
        self.quarantined = Some(guids);
        let cns = self.servers.iter().filter(|(_, s)| s.role == Some(Speaker::Cn));
        let cns: Vec<ConnId> = cns.map(|(conn, _)| *conn).collect();
        cns.into_iter().for_each(|conn| self.tell_quarantined(cx, conn));
    }

    fn tell_quarantined(&self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        let Some(guids) = &self.quarantined else { return };
        let mut pages = guids.chunks(QUARANTINE_PAGE_MAX).peekable();
        loop {
            let guids = List::truncated(pages.next().unwrap_or_default().iter().copied());
            let last = pages.peek().is_none();
            cx.push(Output::Send { conn, msg: LedgerMsg::Quarantine(QuarantinePage { guids, last }) });
            if last {
                return;
            }
        }
    }

    /// A CN passes on clients' records only, and grants under an edge's signature; an edge its own records only.
    fn submit(&mut self, cx: &mut Cx<'_, Self>, mut submitted: Submitted, key: PublicKey, role: Speaker) {
        let may = match (&mut submitted.record, role) {
            (LedgerRecord::Usage(_) | LedgerRecord::Log(_), Speaker::Cn) => true,
            (LedgerRecord::Granted(r), Speaker::Edge) => r.proof.is_none(),
            (LedgerRecord::Granted(r), Speaker::Cn) => {
                let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
                let now_ms = self.wall.at(cx.now);
                r.proof.take().is_some_and(|signed| {
                    // it may have waited until the edge's certificate was no longer good, and clocks differ
                    let mut times = [signed.grant.issued_ms, now_ms].into_iter();
                    GrantRecord::of(&signed.grant) == *r
                        && times.any(|at_ms| grants::check_chain(&trust, &signed, at_ms).is_ok())
                })
            }
            (LedgerRecord::Edge(r), Speaker::Edge) => r.edge == key,
            (LedgerRecord::Served(r), Speaker::Edge) => r.edge == key,
            (LedgerRecord::Possession(r), Speaker::Edge) => r.edge == key,
            (LedgerRecord::Usage(_) | LedgerRecord::Log(_), Speaker::Edge)
            | (LedgerRecord::Edge(_) | LedgerRecord::Served(_) | LedgerRecord::Possession(_), Speaker::Cn) => false,
        };
        if !may {
            return self.violation(cx, submitted.conn);
        }
        cx.push(Output::Count(Metric::Received));
        if self.pending.len() >= cx.cfg.pending_max as usize || self.phase != Phase::Serving {
            return cx.push(Output::Count(Metric::Deferred));
        }
        self.pending.push_back(submitted);
        self.store(cx, false);
    }

    fn batch_max(cx: &Cx<'_, Self>) -> usize {
        (cx.cfg.batch_max as usize).clamp(1, List::<RecordId, 1024>::MAX)
    }

    /// Stores a batch if none is being stored and there are enough records, or they have waited (`now`).
    fn store(&mut self, cx: &mut Cx<'_, Self>, now: bool) {
        if self.batch.is_some() || self.pending.is_empty() {
            return;
        }
        let most = Self::batch_max(cx);
        if !now && self.pending.len() < most {
            if self.timers.get(Timer::Batch).is_none() {
                self.timers.set(Timer::Batch, Some(cx.now.after(cx.cfg.batch_wait)));
            }
            return;
        }
        self.timers.clear(Timer::Batch);
        let records = self.pending.drain(..most.min(self.pending.len())).collect();
        self.send_batch(cx, records);
    }

    fn send_batch(&mut self, cx: &mut Cx<'_, Self>, records: Vec<Submitted>) {
        let req = self.next_req.step();
        cx.push(Output::Store { req, records: records.iter().map(|s| s.record.clone()).collect() });
        self.batch = Some(Batch { req, records });
    }

    fn stored(&mut self, cx: &mut Cx<'_, Self>, req: ReqId, ok: bool) {
        let Some(batch) = self.batch.take_if(|b| b.req == req) else { return };
        if !ok {
            cx.push(Output::Count(Metric::StoreFailed));
            if self.phase == Phase::Stopping {
                // unacknowledged: their senders will send them again
                return self.stop(cx);
            }
            self.timers.set(Timer::Retry, Some(cx.now.after(cx.cfg.retry_after)));
            self.batch = Some(batch);
            return;
        }
        let mut by_conn: BTreeMap<ConnId, Vec<RecordId>> = BTreeMap::new();
        for s in &batch.records {
            cx.push(Output::Count(Metric::Acknowledged));
            by_conn.entry(s.conn).or_default().push(s.record.id());
        }
        for (conn, ids) in by_conn {
            if self.servers.contains_key(&conn) {
                let ids = List::truncated(ids);
                cx.push(Output::Send { conn, msg: LedgerMsg::Ack(LedgerAck { ids }) });
            }
        }
        self.store(cx, self.phase == Phase::Stopping);
        self.stop_if_done(cx);
    }

    fn stop_if_done(&mut self, cx: &mut Cx<'_, Self>) {
        if self.phase == Phase::Stopping && self.batch.is_none() && self.pending.is_empty() {
            self.stop(cx);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_, Self>) {
        let conns: Vec<ConnId> = self.servers.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(cx, conn));
        self.phase = Phase::Stopped;
        self.pending.clear();
        self.timers = Deadlines::default();
        cx.push(Output::Stopped);
    }
}

impl Machine for Ledger {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::WallClock { unix_ms } => self.wall = Wall::showing(unix_ms, cx.now),
            Input::Accepted { conn, key } => self.accepted(cx, conn, key),
            Input::Server { conn, msg } => self.message(cx, conn, msg),
            Input::Closed { conn } => self.forget(conn),
            Input::Stored { req, ok } => self.stored(cx, req, ok),
            Input::Quarantined { guids } => self.quarantined(cx, guids),
            Input::Shutdown => {
                if self.phase == Phase::Serving {
                    self.phase = Phase::Stopping;
                    self.store(cx, true);
                    self.stop_if_done(cx);
                }
            }
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        while let Some(timer) = self.timers.pop_due(cx.now) {
            match timer {
                Timer::Silent(conn) => self.close(cx, conn),
                Timer::Batch => self.store(cx, true),
                Timer::Retry => {
                    if let Some(batch) = self.batch.take() {
                        self.send_batch(cx, batch.records);
                    }
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
    }
}

#[cfg(test)]
mod tests;
