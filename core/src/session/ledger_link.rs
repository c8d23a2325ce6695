//! A server's link to the ledger: keeps each record until the ledger has acknowledged it, and sends it again after
//! each loss of the connection. The ledger stores each id once, so a record counts exactly once however often it is
//! sent.

use super::Dialer;
use crate::ids::{ConnId, Guid, RecordId};
use crate::limits::QUARANTINED_MAX;
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::wire::directory::ProvenCopy;
use crate::wire::ledger::{FromLedger, ToLedger};
use crate::wire::records::{LedgerRecord, ServerCert};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// Event reported to the ledger link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The server has started: the link keeps a connection to the ledger from now on.
    Start,
    /// A record is to be sent to the ledger. Ignored if a record with this id is already waiting for its
    /// acknowledgement.
    Submit(LedgerRecord),
    /// The connection to the ledger is open.
    Opened(ConnId),
    /// The connection could not be opened, or has ended.
    Closed(ConnId),
    /// A message came from the ledger.
    Message(ConnId, FromLedger),
    /// The server stops: the connection is closed for good.
    Stop,
}

/// Command or notification of the ledger link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Open a connection to the ledger; answered by [`Input::Opened`] or [`Input::Closed`].
    Dial(ConnId),
    /// Send a message to the ledger.
    Send(ConnId, ToLedger),
    /// Close this connection; no [`Input::Closed`] follows.
    Close(ConnId),
    /// Records that are now durable in the ledger.
    Acked(Vec<RecordId>),
    /// Complete list of quarantined clients; a ledger sends it to CNs only.
    Quarantined(Vec<Guid>),
    /// A blamed client has proven that it has the right bytes of a version; a ledger tells CNs only.
    Proven(ProvenCopy),
}

/// Limits and identity of a ledger link.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificate of the server, with which it identifies itself to the ledger.
    pub cert: ServerCert,
    /// Delay before the next attempt: initial and maximum.
    pub backoff: (Duration, Duration),
    /// Interval of pings; a connection without an answer by the next ping is lost.
    pub ping_every: Duration,
    /// Maximum number of unacknowledged records in flight.
    pub window: u32,
    /// Time-out after which unacknowledged records are sent again.
    pub retry_after: Duration,
}

impl Config {
    /// Returns the production configuration for the server with this certificate.
    #[must_use]
    pub const fn new(cert: ServerCert, backoff: (Duration, Duration)) -> Self {
        Self { cert, backoff, ping_every: Duration::from_secs(10), window: 256, retry_after: Duration::from_secs(30) }
    }
}

/// State machine of a server's link to the ledger. `records` has all unacknowledged records, `unsent` the ids of
/// those not sent over the present connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerLink {
    dialer: Dialer,
    records: BTreeMap<RecordId, LedgerRecord>,
    unsent: BTreeSet<RecordId>,
    /// Pages received so far of the list of quarantined clients.
    quarantined: Vec<Guid>,
    pinged: bool,
    timers: Deadlines<Timer>,
}

impl Default for LedgerLink {
    fn default() -> Self {
        Self {
            dialer: Dialer::new(ConnId::LEDGER.0),
            records: BTreeMap::new(),
            unsent: BTreeSet::new(),
            quarantined: Vec::new(),
            pinged: false,
            timers: Deadlines::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    Dial,
    Ping,
    Retry,
}

impl LedgerLink {
    /// Returns the number of unacknowledged records.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.records.len()
    }

    /// Returns whether the connection to the ledger is open.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.dialer.up().is_some()
    }

    /// Returns whether this record is still unacknowledged.
    #[must_use]
    pub fn holds(&self, id: RecordId) -> bool {
        self.records.contains_key(&id)
    }

    fn pump(&mut self, cx: &mut Cx<'_, Self>) {
        let Some(conn) = self.dialer.up() else { return };
        debug_assert!(self.unsent.len() <= self.records.len(), "what is not sent is kept");
        let under_way = self.records.len().saturating_sub(self.unsent.len());
        for _ in under_way..cx.cfg.window as usize {
            let Some(record) = self.unsent.pop_first().and_then(|id| self.records.get(&id)) else { break };
            cx.push(Output::Send(conn, ToLedger::Submit(record.clone())));
        }
        if self.unsent.len() < self.records.len() && self.timers.get(Timer::Retry).is_none() {
            self.timers.set(Timer::Retry, Some(cx.now.after(cx.cfg.retry_after)));
        }
    }

    fn lost(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        let Some(wait) = self.dialer.closed(conn, cx.cfg.backoff, cx.rng) else { return };
        self.unsent = self.records.keys().copied().collect();
        self.quarantined.clear();
        self.timers.clear(Timer::Ping);
        self.timers.clear(Timer::Retry);
        self.timers.set(Timer::Dial, Some(cx.now.after(wait)));
    }

    fn hang_up(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId) {
        cx.push(Output::Close(conn));
        self.lost(cx, conn);
    }

    fn message(&mut self, cx: &mut Cx<'_, Self>, conn: ConnId, msg: FromLedger) {
        self.pinged = false;
        self.dialer.proven();
        match msg {
            FromLedger::Ack(ack) => {
                let mut done = ack.ids.into_vec();
                done.retain(|id| {
                    self.unsent.remove(id);
                    self.records.remove(id).is_some()
                });
                if self.unsent.len() == self.records.len() {
                    self.timers.clear(Timer::Retry);
                }
                if !done.is_empty() {
                    cx.push(Output::Acked(done));
                }
                self.pump(cx);
            }
            FromLedger::Ping => cx.push(Output::Send(conn, ToLedger::Pong)),
            FromLedger::Pong => {}
            FromLedger::Quarantine(page) => {
                let room = QUARANTINED_MAX.saturating_sub(self.quarantined.len());
                self.quarantined.extend(page.guids.iter().take(room));
                if page.last {
                    cx.push(Output::Quarantined(core::mem::take(&mut self.quarantined)));
                }
            }
            FromLedger::Proven(proven) => cx.push(Output::Proven(proven)),
        }
    }
}

impl Machine for LedgerLink {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        match input {
            Input::Start => self.timers.set(Timer::Dial, Some(cx.now)),
            Input::Submit(record) => {
                let id = record.id();
                if self.records.insert(id, record).is_none() {
                    self.unsent.insert(id);
                    self.pump(cx);
                }
            }
            Input::Opened(conn) => {
                if self.dialer.opened(conn) {
                    self.pinged = false;
                    self.timers.set(Timer::Ping, Some(cx.now.after(cx.cfg.ping_every)));
                    cx.push(Output::Send(conn, ToLedger::Hello(cx.cfg.cert.clone())));
                    self.pump(cx);
                }
            }
            Input::Closed(conn) => self.lost(cx, conn),
            Input::Message(conn, msg) => {
                if self.dialer.up() == Some(conn) {
                    self.message(cx, conn, msg);
                }
            }
            Input::Stop => {
                if let Some(conn) = self.dialer.conn() {
                    self.hang_up(cx, conn);
                }
                self.timers = Deadlines::default();
            }
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        if self.timers.get(Timer::Dial).is_some_and(|at| at <= cx.now) {
            self.timers.clear(Timer::Dial);
            if let Some(conn) = self.dialer.dial() {
                cx.push(Output::Dial(conn));
            }
        }
        if self.timers.get(Timer::Retry).is_some_and(|at| at <= cx.now) {
            self.timers.clear(Timer::Retry);
            self.unsent = self.records.keys().copied().collect();
            self.pump(cx);
        }
        if self.timers.get(Timer::Ping).is_some_and(|at| at <= cx.now) {
            self.timers.clear(Timer::Ping);
            let Some(conn) = self.dialer.up() else { return };
            if self.pinged {
                return self.hang_up(cx, conn);
            }
            self.pinged = true;
            cx.push(Output::Send(conn, ToLedger::Ping));
            self.timers.set(Timer::Ping, Some(cx.now.after(cx.cfg.ping_every)));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
    }

    fn check(&self) {
        self.dialer.check();
        assert!(self.unsent.iter().all(|id| self.records.contains_key(id)), "what is not sent is kept");
        let (up, sent) = (self.dialer.up().is_some(), self.unsent.len() != self.records.len());
        assert!(up || !sent, "without a connection nothing is sent");
        assert!(self.timers.get(Timer::Retry).is_some() == sent, "what is sent is sent again in time");
        assert!(self.timers.get(Timer::Ping).is_some() == up, "an open connection is pinged");
        assert!(up || self.quarantined.is_empty(), "a list of clients comes over one connection");
        assert!(self.quarantined.len() <= QUARANTINED_MAX, "the list of clients is bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::certs::tests::cert;
    use crate::bench::{Bench, Clause, assert_each_clause_fires};
    use crate::ids::{DownloadId, PublicKey, VersionId};
    use crate::wire::records::{PossessionOutcome, PossessionRecord, ServerRole};

    const KEY: PublicKey = PublicKey([3; 32]);

    fn record(n: u32) -> LedgerRecord {
        LedgerRecord::Possession(PossessionRecord {
            id: RecordId::numbered(n),
            edge: KEY,
            download: DownloadId::numbered(n),
            guid: Guid::numbered(n),
            version: VersionId::numbered(n),
            outcome: PossessionOutcome::Passed,
            at_ms: 1,
        })
    }

    const CLAUSES: &[Clause<LedgerLink>] = &[
        ("what is not sent is kept", |m| {
            m.unsent.insert(RecordId::numbered(9));
        }),
        ("without a connection nothing is sent", |m| m.dialer = Dialer::new(ConnId::LEDGER.0)),
        ("what is sent is sent again in time", |m| m.timers.clear(Timer::Retry)),
        ("an open connection is pinged", |m| m.timers.clear(Timer::Ping)),
        ("a list of clients comes over one connection", |m| {
            *m = LedgerLink { quarantined: alloc::vec![Guid::numbered(1)], ..LedgerLink::default() };
        }),
        ("the list of clients is bounded", |m| m.quarantined = alloc::vec![Guid::numbered(1); QUARANTINED_MAX + 1]),
    ];

    #[test]
    fn each_clause_of_a_ledger_link_finds_a_corruption() {
        let backoff = (Duration::from_secs(1), Duration::from_secs(1));
        let cfg = Config { window: 1, ..Config::new(cert(ServerRole::Edge, KEY), backoff) };
        let mut b = Bench::new(LedgerLink::default(), cfg);
        b.inputs([Input::Start, Input::Submit(record(1)), Input::Submit(record(2))]);
        let out = b.wait(Duration::ZERO);
        let [Output::Dial(conn)] = out[..] else { panic!("{out:?}") };
        b.input(Input::Opened(conn));
        assert_eq!(b.machine.unsent.len(), 1, "one is on its way, one waits");
        assert_each_clause_fires(&b.machine, LedgerLink::check, CLAUSES);
    }

    #[test]
    fn a_ledger_that_does_not_answer_a_ping_is_left_and_dialled_again() {
        let backoff = (Duration::from_secs(1), Duration::from_secs(1));
        let mut b = Bench::new(LedgerLink::default(), Config::new(cert(ServerRole::Edge, KEY), backoff));
        b.input(Input::Start);
        let out = b.wait(Duration::ZERO);
        let [Output::Dial(conn)] = out[..] else { panic!("{out:?}") };
        b.input(Input::Opened(conn));
        let every = b.cfg.ping_every;
        for _ in 0..3 {
            assert_eq!(b.wait(every), [Output::Send(conn, ToLedger::Ping)]);
            b.input(Input::Message(conn, FromLedger::Pong));
        }
        assert_eq!(b.wait(every), [Output::Send(conn, ToLedger::Ping)]);
        assert_eq!(b.wait(every), [Output::Close(conn)]);
        let out = b.wait(Duration::from_secs(1));
        assert!(matches!(out[..], [Output::Dial(next)] if next != conn), "{out:?}");
    }
}
