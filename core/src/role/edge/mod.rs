//! The edge role: decides about grants, and counts the bytes that the edge sends. Content itself never passes through
//! the machine.
//!
//! Signing is the only work for a grant: its record and its count begin when its first byte is requested. While bytes
//! cannot be counted, the edge goes on serving: it grants new downloads without peers, and sends the bytes of such
//! downloads uncounted, so that nobody is billed for them. Under a grant with peers it sends nothing uncounted, since
//! peers could be paid for the same bytes.
//!
//! [`Edge`] is the machine. `admission` limits requests for grants, `counting` counts sent bytes and makes records,
//! `reserving` makes reservations durable before bytes are sent, `places` bounds the number of counts, and
//! `possession` challenges clients that have completed a download.

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
use crate::ids::{DownloadId, Guid, RecordId, ReqId, VersionId};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::session::{LedgerLink, Wall, ledger_link};
use crate::wire::records::{GrantRecord, LedgerRecord};
use admission::Admission;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use counting::Counted;
use io::{Batch, Denial, GrantAsked, Uncountable};
use possession::ChallengeState;

/// Subject of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// Download whose grant the requests carried.
    Download(DownloadId),
    /// Version that was requested without a grant.
    Plain(VersionId),
}

/// State machine of the edge role. Counts become records, which are written to the spool, sent to the ledger until
/// acknowledged, and then deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Wall clock; `None` until the shell has reported the time, and nothing is granted before.
    wall: Option<Wall>,
    phase: Phase,
    admission: Admission,
    counts: BTreeMap<Key, Counted>,
    /// Number of separate ranges of all counts.
    ranges: usize,
    /// Life of the newest count. No two counts have the same, so a download that is counted anew can be told apart.
    life: u64,
    /// Whether the last write to the spool has failed.
    spool_failed: bool,
    /// Whether a download could not be counted because there were too many counts.
    full: bool,
    /// Reason that was last reported by [`Output::Counting`]; `None` if the last report was that bytes can be
    /// counted.
    last_reported: Option<Uncountable>,
    /// Counts with changes that are not yet in the spool, or not yet in a record for the ledger.
    dirty: BTreeSet<Key>,
    /// Downloads that are over and have no count; the next batch deletes their counts from the spool.
    ended: BTreeSet<DownloadId>,
    /// Records that the ledger has; the next batch deletes them from the spool.
    acked: Vec<RecordId>,
    saving: BTreeMap<ReqId, Saving>,
    next_req: ReqId,
    /// Possession challenges by the client's GUID; `checks` has the clients whose proofs are being checked.
    challenges: BTreeMap<Guid, ChallengeState>,
    checks: BTreeMap<ReqId, Guid>,
    ledger: LedgerLink,
    timers: Deadlines<Timer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Phase {
    #[default]
    Serving,
    /// The last counts are being written to the spool, and their records sent to the ledger.
    Stopping,
    Stopped,
}

/// Content of a write to the spool that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Saving {
    /// Counts, and the new records made of them.
    Counts { records: Vec<LedgerRecord>, batch: Batch },
    /// Reservation of a download up to `upto` bytes; with the record of its grant, if that is not durable yet.
    Reserve { key: Key, upto: u64, granted: Option<Box<GrantRecord>> },
    /// Nothing: an empty write that shows whether the spool works again.
    Probe,
    /// Record of a possession challenge's outcome.
    Outcome(LedgerRecord),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// Write the changed counts, and records made of them.
    Flush,
    /// Probe whether the spool works again.
    Probe,
    /// End a download for which nothing was requested lately.
    Idle(Key),
    /// Time-out of a client's proof; later the end of the pause before its next challenge.
    Challenge(Guid),
    /// Stop without waiting longer for the ledger.
    Stop,
}

type Context<'a> = Cx<'a, Edge>;

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Edge {
    /// Returns the number of records that the ledger has not acknowledged.
    #[must_use]
    pub fn records_waiting(&self) -> usize {
        self.ledger.waiting()
    }

    /// Returns whether the connection to the ledger is open.
    #[must_use]
    pub const fn is_ledger_up(&self) -> bool {
        self.ledger.is_up()
    }

    /// Returns the number of counts: of downloads, and of versions with plain traffic.
    #[must_use]
    pub fn counting(&self) -> usize {
        self.counts.len()
    }

    fn on_grant_asked(&mut self, cx: &mut Context<'_>, asked: &GrantAsked) {
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

    /// Handles the end of a write to the spool, and only now acts on what it made durable.
    fn on_saved(&mut self, cx: &mut Context<'_>, req: ReqId, ok: bool) {
        let Some(saving) = self.saving.remove(&req) else { return };
        self.spool_failed = !ok;
        if !ok {
            cx.push(Output::Count(Metric::SpoolFailed));
            self.probe_soon(cx);
        }
        if let Saving::Counts { batch, .. } = &saving {
            self.on_counts_saved(batch);
        }
        match saving {
            Saving::Probe => {}
            Saving::Counts { records, .. } if ok => {
                records.into_iter().for_each(|record| self.submit(cx, record));
                if !self.dirty.is_empty() || !self.acked.is_empty() || !self.ended.is_empty() {
                    self.flush_soon(cx);
                }
            }
            Saving::Counts { records, batch } => self.on_counts_not_saved(cx, &records, batch),
            Saving::Reserve { key, upto, granted } => {
                self.on_reservation_saved(cx, key, upto, ok);
                if let Some(record) = granted.filter(|_| ok) {
                    self.submit(cx, LedgerRecord::Granted(*record));
                }
            }
            // sent even if the spool could not keep it: a record that a crash may lose is better than none
            Saving::Outcome(record) => self.submit(cx, record),
        }
    }

    /// Asserts that requests are numbered in order, that a stopping edge stops in time, and that a stopped one has
    /// nothing to do.
    fn check_phase(&self) {
        let requested = |req: &ReqId| *req < self.next_req;
        assert!(self.saving.keys().chain(self.checks.keys()).all(requested), "requests are numbered in order");
        let stops = self.timers.get(Timer::Stop).is_some() || !self.saving.is_empty();
        assert!(self.phase != Phase::Stopping || stops, "a stopping edge stops one day");
        let idle = self.saving.is_empty() && self.timers.next().is_none();
        assert!(self.phase != Phase::Stopped || idle, "a stopped edge has nothing to do");
    }

    fn submit(&mut self, cx: &mut Context<'_>, record: LedgerRecord) {
        cx.push(Output::Count(Metric::RecordMade));
        self.with_ledger(cx, ledger_link::Input::Submit(record));
    }

    fn on_wall_clock(&mut self, cx: &mut Context<'_>, unix_ms: u64) {
        let first = self.wall.is_none();
        self.wall = Some(Wall::showing(unix_ms, cx.now));
        if first && cx.cfg.ledger {
            self.with_ledger(cx, ledger_link::Input::Start);
        }
    }

    fn on_shutdown(&mut self, cx: &mut Context<'_>) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Stopping;
            self.timers.set(Timer::Stop, Some(cx.now.after(cx.cfg.drain)));
            self.flush(cx);
        }
    }

    /// Stops a stopping edge as soon as everything is written and, with a ledger, acknowledged; or when its time is up
    /// and nothing is being written.
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
        self.on_ledger_outputs(cx, outputs);
    }

    fn on_ledger_timer(&mut self, cx: &mut Context<'_>) {
        let cfg = ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_timeout(cx));
        self.on_ledger_outputs(cx, outputs);
    }

    fn on_ledger_outputs(&mut self, cx: &mut Context<'_>, outputs: Vec<ledger_link::Output>) {
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
                // edges serve clients in quarantine too, and only DNs need to know who was cleared of blames
                ledger_link::Output::Quarantined(_) | ledger_link::Output::Proven(_) => {}
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
            Input::WallClock { unix_ms } => self.on_wall_clock(cx, unix_ms),
            Input::Restored { records, counts } => self.on_restored(cx, records, counts),
            Input::GrantAsked(asked) => self.on_grant_asked(cx, &asked),
            Input::BytesSent { grant, version, provider, range } => self.on_served(cx, grant, version, provider, range),
            Input::SendRequested { req, grant, bytes } => self.on_serving(cx, req, &grant, bytes),
            Input::GivenAway { bytes } => cx.push(Output::GaveAway { bytes }),
            Input::BytesNotSent { grant, bytes } => self.on_unsent(grant, bytes),
            Input::Completed(done) => self.on_completed(cx, &done),
            Input::Proof { req, grant, proof } => self.on_proof(cx, req, grant, proof),
            Input::Proven { req, own } => self.on_own_proof(cx, req, own),
            Input::LedgerOpened { conn } => self.with_ledger(cx, ledger_link::Input::Opened(conn)),
            Input::LedgerClosed { conn } => self.with_ledger(cx, ledger_link::Input::Closed(conn)),
            Input::Ledger { conn, msg } => self.with_ledger(cx, ledger_link::Input::Message(conn, msg)),
            Input::Saved { req, ok } => self.on_saved(cx, req, ok),
            Input::Shutdown => self.on_shutdown(cx),
        }
        self.report_counting(cx);
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
                Timer::Idle(key) => self.on_idle(cx, key),
                Timer::Challenge(guid) => self.on_challenge_timer(cx, guid),
                Timer::Probe => self.probe(cx),
                Timer::Stop => {}
            }
        }
        if self.ledger.poll_timeout().is_some_and(|at| at <= cx.now) {
            self.on_ledger_timer(cx);
        }
        self.report_counting(cx);
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

    fn check(&self) {
        self.ledger.check();
        self.admission.check();
        self.check_counts();
        self.check_writes();
        self.check_reservations();
        self.check_challenges();
        self.check_places();
        self.check_phase();
    }
}
