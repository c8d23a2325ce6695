//! The edge: decides who gets a grant and counts what it serves. Content itself never passes through here.
//!
//! A grant costs nothing but the work of signing it: its record and its count are made when its first byte is asked
//! for. Where nothing can be counted the edge serves on: what it then grants is without peers, and what it sends under
//! such grants and cannot count it gives away. Under a grant with peers it sends nothing uncounted, since peers could
//! be paid for the same bytes.

mod admission;
mod counting;
pub mod io;
mod places;
mod possession;
mod reserving;

#[cfg(test)]
pub(super) mod tests;

pub use io::{Config, Input, Metric, Output};

use crate::accounting::{Spans, Trust, grants};
use crate::ids::{DownloadId, Guid, RecordId, ReqId};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::session::{LedgerLink, Wall, ledger_link};
use crate::wire::records::{GrantRecord, LedgerRecord};
use admission::Admission;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use counting::{Counted, Key};
use io::{Batch, Denial, GrantAsked, Uncountable};
use possession::Posed;

/// The edge. What it counts becomes records: written to the spool, then sent to the ledger until acknowledged, then
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edge {
    /// `None` until the shell has said what time it is: nothing is granted before.
    wall: Option<Wall>,
    phase: Phase,
    admission: Admission,
    counts: BTreeMap<Key, Counted>,
    /// The last download's life: no two have the same.
    life: u64,
    /// The spool has refused the last write.
    refused: bool,
    /// A download has found no place among the counts.
    full: bool,
    /// What the shell was told last of [`Output::Counting`].
    told: Option<Uncountable>,
    /// Counts that the spool or the ledger has not heard of.
    dirty: BTreeSet<Key>,
    /// Downloads that are over: their counts leave the spool with the next batch.
    ended: Vec<DownloadId>,
    /// Records that the ledger has: they leave the spool with the next batch.
    acked: Vec<RecordId>,
    saving: BTreeMap<ReqId, Saving>,
    next_req: ReqId,
    /// Possession challenges by whom they ask, and those whose answers are being checked.
    posed: BTreeMap<Guid, Posed>,
    checks: BTreeMap<ReqId, Guid>,
    ledger: LedgerLink,
    timers: Deadlines<Timer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// The last counts are being written and sent.
    Stopping,
    Stopped,
}

/// What waits for the spool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Saving {
    /// Counts, and the records made of them.
    Counts { records: Vec<LedgerRecord>, batch: Batch },
    /// Room for what will be sent, and at first the record of the download's grant.
    Reserve { key: Key, upto: u64, granted: Option<Box<GrantRecord>> },
    /// Nothing: whether the spool writes again.
    Probe,
    /// What became of a possession challenge.
    Outcome(LedgerRecord),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Make records of what was counted.
    Flush,
    /// See whether the spool writes again.
    Probe,
    /// This download is over.
    Idle(Key),
    /// This client has not answered, or may be challenged again.
    Posed(Guid),
    /// The ledger has had time enough: stop.
    Stop,
}

type Context<'a> = Cx<'a, Edge>;

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Edge {
    /// How many records the ledger has not acknowledged.
    #[must_use]
    pub fn records_waiting(&self) -> usize {
        self.ledger.waiting()
    }

    /// How many downloads (and versions with plain traffic) are counted.
    #[must_use]
    pub fn counting(&self) -> usize {
        self.counts.len()
    }

    fn asked(&mut self, cx: &mut Context<'_>, asked: &GrantAsked) {
        let req = asked.req;
        let Some(wall) = self.wall.filter(|_| self.phase == Phase::Serving) else {
            return deny(cx, req, Denial::Unavailable);
        };
        let now_ms = wall.at(cx.now);
        if let Err(why) = self.admission.admit(&cx.cfg.limits, cx.now, now_ms, asked) {
            if matches!(why, Denial::TooMany { .. }) {
                cx.push(Output::Count(Metric::Limited));
            }
            return deny(cx, req, why);
        }
        let trust = Trust { root: cx.cfg.root, verify: cx.cfg.verify };
        let lives = grants::Lifetimes {
            valid_ms: millis(cx.cfg.grant_for),
            renew_ms: millis(cx.cfg.renew_within),
            whole_ms: grants::RENEWED_FOR_MS,
        };
        let decision = match grants::decide(&trust, lives, now_ms, cx.rng, asked) {
            Ok(decision) => decision,
            Err(why) => return deny(cx, req, why),
        };
        let mut grant = decision.grant;
        if decision.first && !grant.is_edge_only() && self.uncountable(cx).is_some() {
            cx.push(Output::Count(Metric::GrantedEdgeOnly));
            grant = grant.edge_only();
        }
        if decision.first {
            grant.challenged = Self::draw_challenged(cx, grant.max_peer_bytes);
        }
        cx.push(Output::Count(if decision.first { Metric::Granted } else { Metric::Renewed }));
        cx.push(Output::IssueGrant { req, grant: Box::new(grant) });
    }

    /// What was to be written is durable, or not: only now it is acted upon.
    fn saved(&mut self, cx: &mut Context<'_>, req: ReqId, ok: bool) {
        let Some(saving) = self.saving.remove(&req) else { return };
        self.refused = !ok;
        if !ok {
            cx.push(Output::Count(Metric::SpoolFailed));
            self.probe_soon(cx);
        }
        if let Saving::Counts { batch, .. } = &saving {
            self.counts_saved(batch);
        }
        match saving {
            Saving::Probe => {}
            Saving::Counts { records, .. } if ok => {
                records.into_iter().for_each(|record| self.submit(cx, record));
                if !self.dirty.is_empty() || !self.acked.is_empty() {
                    self.flush_soon(cx);
                }
            }
            Saving::Counts { records, batch } => self.unsaved(cx, &records, batch),
            Saving::Reserve { key, upto, granted } => {
                self.reserved(cx, key, upto, ok);
                if let Some(record) = granted.filter(|_| ok) {
                    self.submit(cx, LedgerRecord::Granted(*record));
                }
            }
            // one that a crash may lose is better than none
            Saving::Outcome(record) => self.submit(cx, record),
        }
    }

    fn submit(&mut self, cx: &mut Context<'_>, record: LedgerRecord) {
        cx.push(Output::Count(Metric::RecordMade));
        self.with_ledger(cx, ledger_link::Input::Submit(record));
    }

    fn wall_clock(&mut self, cx: &mut Context<'_>, unix_ms: u64) {
        let first = self.wall.is_none();
        self.wall = Some(Wall::showing(unix_ms, cx.now));
        if first && cx.cfg.ledger {
            self.with_ledger(cx, ledger_link::Input::Start);
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Stopping;
            self.timers.set(Timer::Stop, Some(cx.now.after(cx.cfg.drain)));
            self.flush(cx);
        }
    }

    /// A stopping edge ends as soon as all is written and, if there is a ledger, sent; or when its time is up and
    /// nothing is being written.
    fn stop_if_done(&mut self, cx: &mut Context<'_>) {
        let written = self.saving.is_empty() && self.dirty.is_empty();
        let sent = self.ledger.waiting() == 0 || !cx.cfg.ledger;
        let late = self.timers.get(Timer::Stop).is_none_or(|at| at <= cx.now) && self.saving.is_empty();
        if self.phase == Phase::Stopping && (written && sent || late) {
            self.with_ledger(cx, ledger_link::Input::Stop);
            self.phase = Phase::Stopped;
            self.timers = Deadlines::default();
            cx.push(Output::Stopped);
        }
    }

    fn with_ledger(&mut self, cx: &mut Context<'_>, input: ledger_link::Input) {
        let cfg = ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_input(cx, input));
        self.ledger_did(cx, outputs);
    }

    fn ledger_due(&mut self, cx: &mut Context<'_>) {
        let cfg = ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_timeout(cx));
        self.ledger_did(cx, outputs);
    }

    fn ledger_did(&mut self, cx: &mut Context<'_>, outputs: Vec<ledger_link::Output>) {
        for output in outputs {
            match output {
                ledger_link::Output::Dial(conn) => cx.push(Output::LedgerDial { conn }),
                ledger_link::Output::Send(conn, msg) => cx.push(Output::LedgerSend { conn, msg }),
                ledger_link::Output::Close(conn) => cx.push(Output::LedgerClose { conn }),
                ledger_link::Output::Acked(ids) => {
                    ids.iter().for_each(|_| cx.push(Output::Count(Metric::RecordStored)));
                    self.acked.extend(ids);
                    self.flush_soon(cx);
                }
                // edges serve everybody
                ledger_link::Output::Quarantined(_) => {}
            }
        }
    }
}

fn deny(cx: &mut Context<'_>, req: ReqId, why: Denial) {
    cx.push(Output::Count(Metric::Denied));
    cx.push(Output::DenyGrant { req, why });
}

impl Machine for Edge {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        if self.phase == Phase::Stopped {
            return;
        }
        match input {
            Input::WallClock { unix_ms } => self.wall_clock(cx, unix_ms),
            Input::Restored { records, counts } => self.restored(cx, records, counts),
            Input::GrantAsked(asked) => self.asked(cx, &asked),
            Input::Served { grant, version, provider, range } => self.served(cx, grant, version, provider, range),
            Input::Serving { req, grant, bytes } => self.serving(cx, req, &grant, bytes),
            Input::GivenAway { bytes } => cx.push(Output::GaveAway { bytes }),
            Input::Unsent { grant, bytes } => self.unsent(grant, bytes),
            Input::Completed(done) => self.completed(cx, &done),
            Input::Proof { req, grant, proof } => self.proof(cx, req, grant, proof),
            Input::Proven { req, own } => self.proven(cx, req, own),
            Input::LedgerOpened { conn } => self.with_ledger(cx, ledger_link::Input::Opened(conn)),
            Input::LedgerClosed { conn } => self.with_ledger(cx, ledger_link::Input::Closed(conn)),
            Input::Ledger { conn, msg } => self.with_ledger(cx, ledger_link::Input::Message(conn, msg)),
            Input::Saved { req, ok } => self.saved(cx, req, ok),
            Input::Shutdown => self.shutdown(cx),
        }
        self.tell_counting(cx);
        self.stop_if_done(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let mut due = Vec::new();
        while let Some(timer) = self.timers.pop_due(cx.now) {
            due.push(timer);
        }
        for timer in due {
            match timer {
                Timer::Flush => self.flush(cx),
                Timer::Idle(key) => self.idle(cx, key),
                Timer::Posed(guid) => self.posed_due(cx, guid),
                Timer::Probe => self.probe(cx),
                Timer::Stop => {}
            }
        }
        if self.ledger.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.ledger_due(cx);
        }
        self.tell_counting(cx);
        self.stop_if_done(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.timers.next(), self.ledger.poll_timeout()].into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        self.timers.rebase(by);
        self.admission.rebase(by);
        self.ledger.rebase(by);
    }
}
