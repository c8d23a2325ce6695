//! The ledger role: receives records from CNs and edges, has them stored, and acknowledges those that are durable. A
//! server sends a record until it is acknowledged; the store keeps each record id once.
//!
//! [`Ledger`] is the machine, which groups the records into batches. The database, and everything computed from it,
//! belongs to the shell.

use crate::accounting::{Trust, grants};
use crate::ids::{ConnId, Guid, PublicKey, RecordId, ReqId};
use crate::limits::{QUARANTINE_PAGE_MAX, QUARANTINED_MAX};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::session::Wall;
use crate::wire::List;
use crate::wire::directory::ProvenCopy;
use crate::wire::ledger::{FromLedger, LedgerAck, QuarantinePage, ToLedger};
use crate::wire::records::{GrantRecord, LedgerRecord, ServerCert, ServerRole, Verify};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

/// Event that the shell reports to the ledger machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Current time of the wall clock; the first of all inputs, repeated whenever the clock may have been set.
    WallClock {
        /// Time as Unix milliseconds.
        unix_ms: u64,
    },
    /// A server has connected and proven a key in the TLS handshake (or runs in this process); its first message shows
    /// its certificate.
    Accepted {
        /// Number that the shell gave the connection.
        conn: ConnId,
        /// Public key that the server proved.
        key: PublicKey,
    },
    /// A server's message has arrived.
    Server {
        /// Connection of the server.
        conn: ConnId,
        /// Message as decoded by the shell.
        msg: ToLedger,
    },
    /// A server's connection has ended (or its send queue overflowed).
    Closed {
        /// Connection that is closed.
        conn: ConnId,
    },
    /// Answer to [`Output::Store`]: exactly one.
    Stored {
        /// Number of the request that is answered.
        req: ReqId,
        /// Whether all of the batch is durable; otherwise none of it is.
        ok: bool,
    },
    /// Complete list of GUIDs in quarantine; repeated whenever it may have changed.
    Quarantined {
        /// GUIDs in ascending order, each once.
        guids: Vec<Guid>,
    },
    /// Stop: store the records that have been received, then report [`Output::Stopped`].
    Shutdown,
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message to a server.
    Send {
        /// Connection of the server.
        conn: ConnId,
        /// Message to be sent.
        msg: FromLedger,
    },
    /// Close a server's connection; no `Closed` follows.
    Close {
        /// Connection to be closed.
        conn: ConnId,
    },
    /// Store all of these records durably or none, each id once; answered by [`Input::Stored`]. One batch at a time.
    Store {
        /// Number of the request, repeated in the answer.
        req: ReqId,
        /// Records in the order of their arrival.
        records: Vec<LedgerRecord>,
    },
    /// Add one to a counter of the metrics.
    Count(Metric),
    /// Answer to [`Input::Shutdown`]: no record waits to be stored, and the process may end.
    Stopped,
}

/// Counter in the metrics of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Records received from servers.
    Received,
    /// Records acknowledged as durable.
    Acknowledged,
    /// Batches that could not be stored.
    StoreFailed,
    /// Records dropped because too many wait to be stored; their servers send them again.
    Deferred,
    /// Connections closed because the server broke the protocol or is neither CN nor edge.
    Violation,
}

impl Metric {
    /// Returns the counter's name for Prometheus.
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
    /// Function that checks signatures; models use a fake.
    pub verify: Verify,
    /// Maximum number of connections of servers.
    pub servers_max: u32,
    /// Time-out of a connection's first message, `Hello`.
    pub hello_within: Duration,
    /// Silence after which a server's connection is closed.
    pub idle_after: Duration,
    /// Largest number of records that wait to be stored.
    pub pending_max: u32,
    /// Largest number of records in a batch; at most 1,024.
    pub batch_max: u32,
    /// Maximum time that records wait for a batch to fill.
    pub batch_wait: Duration,
    /// Pause before a batch that could not be stored is stored again.
    pub retry_after: Duration,
}

impl Config {
    /// Returns the limits for production.
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

/// State machine of the ledger role. Records wait in `pending` while one batch is being stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    wall: Wall,
    phase: Phase,
    servers: BTreeMap<ConnId, Server>,
    pending: VecDeque<Submitted>,
    batch: Option<Batch>,
    next_req: ReqId,
    /// GUIDs in quarantine; `None` until the shell has reported them.
    quarantined: Option<Vec<Guid>>,
    timers: Deadlines<Timer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// Records that have been received are stored, and further ones dropped.
    Stopping,
    Stopped,
}

/// Connection of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Server {
    key: PublicKey,
    /// Role of the server; `None` until it has shown a certificate for `key`.
    role: Option<ServerKind>,
}

/// Role of a server, which decides what records it may submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ServerKind {
    /// CN, which forwards clients' records.
    Cn,
    /// Edge, which reports what it has granted and served.
    Edge,
}

/// Record, and the connection on which it must be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Submitted {
    conn: ConnId,
    record: LedgerRecord,
}

/// Batch that is being stored, or that waits after a failure to be stored again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Batch {
    req: ReqId,
    records: Vec<Submitted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Close a connection that sent no `Hello` in time, or has been silent too long.
    Silent(ConnId),
    /// Store the pending records, although they do not fill a batch.
    Batch,
    /// Store the failed batch again.
    Retry,
}

impl Ledger {
    /// Returns the number of records that are not durable yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.batch.as_ref().map_or(0, |b| b.records.len())
    }

    fn on_accepted(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, key: PublicKey) {
        if self.phase != Phase::Serving || self.servers.len() >= cx.cfg.servers_max as usize {
            return cx.push(Output::Close { conn });
        }
        self.servers.insert(conn, Server { key, role: None });
        debug_assert!(self.servers.len() <= cx.cfg.servers_max as usize, "connections are bounded");
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.hello_within)));
    }

    fn remove_conn(&mut self, conn: ConnId) {
        self.servers.remove(&conn);
        self.timers.clear(Timer::Silent(conn));
    }

    fn close(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Close { conn });
        self.remove_conn(conn);
    }

    fn on_violation(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Count(Metric::Violation));
        self.close(cx, conn);
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, msg: ToLedger) {
        let Some(server) = self.servers.get(&conn).copied() else { return };
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        match (msg, server.role) {
            (ToLedger::Hello(cert), None) => self.on_hello(cx, conn, server.key, &cert),
            (ToLedger::Submit(record), Some(role)) => self.on_submit(cx, Submitted { conn, record }, server.key, role),
            (ToLedger::Ping, Some(_)) => cx.push(Output::Send { conn, msg: FromLedger::Pong }),
            (ToLedger::Pong, Some(_)) => {}
            (ToLedger::Hello(_), Some(_)) | (ToLedger::Submit(_) | ToLedger::Ping | ToLedger::Pong, None) => {
                self.on_violation(cx, conn)
            }
        }
    }

    fn on_hello(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, key: PublicKey, cert: &ServerCert) {
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let role = match cert.body.role {
            ServerRole::Cn => Some(ServerKind::Cn),
            ServerRole::Edge => Some(ServerKind::Edge),
            ServerRole::Dn | ServerRole::Ledger => None,
        };
        let certified = trust.check_cert(cert, cert.body.role, self.wall.at(cx.now)).is_ok() && cert.body.key == key;
        if role.is_none() || !certified {
            return self.on_violation(cx, conn);
        }
        self.servers.insert(conn, Server { key, role });
        if role == Some(ServerKind::Cn) {
            self.send_quarantined(cx, conn);
        }
    }

    /// Stores the list of GUIDs in quarantine and, if it has changed, sends it to the CNs. While the ledger is
    /// unreachable, CNs keep the last complete list.
    fn on_quarantined(&mut self, cx: &mut Cx<'_, Self>, mut guids: Vec<Guid>) {
        guids.truncate(QUARANTINED_MAX);
        if self.quarantined.as_ref() == Some(&guids) {
            return;
        }
        self.quarantined = Some(guids);
        self.cns().into_iter().for_each(|conn| self.send_quarantined(cx, conn));
    }

    /// Returns the connections of the CNs.
    fn cns(&self) -> Vec<ConnId> {
        let cns = self.servers.iter().filter(|(_, s)| s.role == Some(ServerKind::Cn));
        cns.map(|(conn, _)| *conn).collect()
    }

    fn tell_cns(&self, cx: &mut Cx<'_, Self>, msg: &FromLedger) {
        self.cns().into_iter().for_each(|conn| cx.push(Output::Send { conn, msg: msg.clone() }));
    }

    fn send_quarantined(&self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        let Some(guids) = &self.quarantined else { return };
        let mut pages = guids.chunks(QUARANTINE_PAGE_MAX).peekable();
        loop {
            let guids = List::truncated(pages.next().unwrap_or_default().iter().copied());
            let last = pages.peek().is_none();
            cx.push(Output::Send { conn, msg: FromLedger::Quarantine(QuarantinePage { guids, last }) });
            if last {
                return;
            }
        }
    }

    /// Queues a record if this server may submit it: a CN may submit clients' records, and grants that an edge has
    /// signed; an edge its own records. Otherwise the connection is closed.
    fn on_submit(&mut self, cx: &mut Cx<'_, Self>, mut submitted: Submitted, key: PublicKey, role: ServerKind) {
        let may = match (&mut submitted.record, role) {
            (LedgerRecord::Usage(_) | LedgerRecord::Log(_), ServerKind::Cn) => true,
            (LedgerRecord::Granted(r), ServerKind::Edge) => r.proof.is_none(),
            (LedgerRecord::Granted(r), ServerKind::Cn) => {
                let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
                let now_ms = self.wall.at(cx.now);
                r.proof.take().is_some_and(|signed| {
                    // the record may have waited until the edge's certificate expired, and clocks differ
                    let mut times = [signed.grant.issued_ms, now_ms].into_iter();
                    GrantRecord::of(&signed.grant) == *r
                        && times.any(|at_ms| grants::check_chain(&trust, &signed, at_ms).is_ok())
                })
            }
            (LedgerRecord::Edge(r), ServerKind::Edge) => r.edge == key,
            (LedgerRecord::Served(r), ServerKind::Edge) => r.edge == key,
            (LedgerRecord::Possession(r), ServerKind::Edge) => r.edge == key,
            (LedgerRecord::Usage(_) | LedgerRecord::Log(_), ServerKind::Edge)
            | (LedgerRecord::Edge(_) | LedgerRecord::Served(_) | LedgerRecord::Possession(_), ServerKind::Cn) => false,
        };
        if !may {
            return self.on_violation(cx, submitted.conn);
        }
        cx.push(Output::Count(Metric::Received));
        if self.pending.len() >= cx.cfg.pending_max as usize || self.phase != Phase::Serving {
            return cx.push(Output::Count(Metric::Deferred));
        }
        self.pending.push_back(submitted);
        debug_assert!(self.pending.len() <= cx.cfg.pending_max as usize, "waiting records are bounded");
        self.store_batch(cx, false);
    }

    fn batch_max(cx: &Cx<'_, Self>) -> usize {
        (cx.cfg.batch_max as usize).clamp(1, List::<RecordId, 1024>::MAX)
    }

    /// Stores a batch, unless one is being stored. With `now` any number of records is enough; otherwise they must
    /// fill a batch.
    fn store_batch(&mut self, cx: &mut Cx<'_, Self>, now: bool) {
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
        debug_assert!(self.batch.is_none(), "one batch is stored at a time");
        let req = self.next_req.step();
        cx.push(Output::Store { req, records: records.iter().map(|s| s.record.clone()).collect() });
        self.batch = Some(Batch { req, records });
    }

    fn on_stored(&mut self, cx: &mut Cx<'_, Self>, req: ReqId, ok: bool) {
        let Some(batch) = self.batch.take_if(|b| b.req == req) else { return };
        self.timers.clear(Timer::Retry);
        if !ok {
            cx.push(Output::Count(Metric::StoreFailed));
            if self.phase == Phase::Stopping {
                // not acknowledged, so their senders send them again
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
        let proven = batch.records.iter().filter_map(|s| s.record.rechecked());
        let proven: Vec<ProvenCopy> = proven.map(|(holder, version)| ProvenCopy { holder, version }).collect();
        for copy in proven {
            self.tell_cns(cx, &FromLedger::Proven(copy));
        }
        for (conn, ids) in by_conn {
            if self.servers.contains_key(&conn) {
                let ids = List::truncated(ids);
                cx.push(Output::Send { conn, msg: FromLedger::Ack(LedgerAck { ids }) });
            }
        }
        self.store_batch(cx, self.phase == Phase::Stopping);
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
            Input::Accepted { conn, key } => self.on_accepted(cx, conn, key),
            Input::Server { conn, msg } => self.on_message(cx, conn, msg),
            Input::Closed { conn } => self.remove_conn(conn),
            Input::Stored { req, ok } => self.on_stored(cx, req, ok),
            Input::Quarantined { guids } => self.on_quarantined(cx, guids),
            Input::Shutdown => {
                if self.phase == Phase::Serving {
                    self.phase = Phase::Stopping;
                    self.store_batch(cx, true);
                    self.stop_if_done(cx);
                }
            }
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        while let Some(timer) = self.timers.pop_due(cx.now) {
            match timer {
                Timer::Silent(conn) => self.close(cx, conn),
                Timer::Batch => self.store_batch(cx, true),
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

    fn check(&self) {
        let timed = |t: Timer| if let Timer::Silent(conn) = t { self.servers.contains_key(&conn) } else { true };
        assert!(self.timers.keys().all(timed), "a timed connection is open");
        let in_time = |conn: &ConnId| self.timers.get(Timer::Silent(*conn)).is_some();
        assert!(self.servers.keys().all(in_time), "a silent connection is closed in time");
        let due = self.batch.is_none() && !self.pending.is_empty();
        assert!(self.timers.get(Timer::Batch).is_some() == due, "waiting records are stored next");
        assert!(self.timers.get(Timer::Retry).is_none() || self.batch.is_some(), "a failed batch is kept");
        if let Some(batch) = &self.batch {
            assert!(batch.req < self.next_req, "batches are numbered in order");
            let fits = (1..=List::<RecordId, 1024>::MAX).contains(&batch.records.len());
            assert!(fits, "a batch can be acknowledged in one message");
        }
        let quarantined = self.quarantined.as_ref().map_or(0, Vec::len);
        assert!(quarantined <= QUARANTINED_MAX, "the quarantine is bounded");
        let idle = self.servers.is_empty() && self.waiting() == 0 && self.timers.next().is_none();
        assert!(self.phase != Phase::Stopped || idle, "a stopped ledger has nothing to do");
    }
}

#[cfg(test)]
mod tests;
