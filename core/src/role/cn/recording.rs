//! Records on their way to the ledger, in memory and in the spool, and what must happen once the ledger has them.

use super::spool::Spool;
use super::usage::Usage;
use super::{Cn, Common, Context, Output, Timer};
use crate::ids::{ConnId, Guid, RecordId};
use crate::machine::{Cx, Machine as _, Time};
use crate::session::{LedgerLink, ledger_link};
use crate::wire::directory::{ProvenCopy, ToDn};
use crate::wire::records::LedgerRecord;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Records that the ledger may not have, and the link to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recording {
    pub(super) ledger: LedgerLink,
    pub(super) spool: Spool,
    pub(super) usage: Usage,
    /// Rekey records on their way to the ledger, each with the connection that it last came over.
    pub(super) rekeys: BTreeMap<RecordId, ConnId>,
}

/// Message of the ledger that concerns other parts of the CN.
pub(super) enum News {
    /// Records that are now durable in the ledger.
    Durable(Vec<RecordId>),
    /// Complete list of quarantined clients.
    Quarantined(Vec<Guid>),
    /// A blamed client has proven that it has the right bytes of a version.
    Proven(ProvenCopy),
}

/// Performs an output of the link to the ledger; what concerns other parts is returned.
pub(super) fn perform(cx: &mut Context<'_>, output: ledger_link::Output) -> Option<News> {
    match output {
        ledger_link::Output::Dial(conn) => cx.push(Output::LedgerDial { conn }),
        ledger_link::Output::Send(conn, msg) => cx.push(Output::LedgerSend { conn, msg }),
        ledger_link::Output::Close(conn) => cx.push(Output::LedgerClose { conn }),
        ledger_link::Output::Acked(ids) => return Some(News::Durable(ids)),
        ledger_link::Output::Quarantined(guids) => return Some(News::Quarantined(guids)),
        ledger_link::Output::Proven(proven) => return Some(News::Proven(proven)),
    }
    None
}

impl Recording {
    /// Runs the link to the ledger, and returns its outputs.
    pub(super) fn run_link(
        &mut self,
        cx: &mut Context<'_>,
        run: impl FnOnce(&mut LedgerLink, &mut Cx<'_, LedgerLink>),
    ) -> Vec<ledger_link::Output> {
        let cfg = ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff);
        let ledger = &mut self.ledger;
        cx.child::<LedgerLink>(&cfg, |cx| run(ledger, cx))
    }

    /// Sends a record to the ledger, now or once there is a connection.
    pub(super) fn submit(&mut self, cx: &mut Context<'_>, record: LedgerRecord) {
        for output in self.run_link(cx, |link, cx| link.handle_input(cx, ledger_link::Input::Submit(record))) {
            let news = perform(cx, output);
            debug_assert!(news.is_none(), "only a message of the ledger brings news");
        }
    }

    /// Sends to the ledger the records that the spool held at the start. Without a configured ledger they stay in the
    /// spool.
    pub(super) fn on_spool_restored(&mut self, cx: &mut Context<'_>, records: Vec<LedgerRecord>) {
        if !cx.cfg.ledger {
            return;
        }
        for record in records {
            self.spool.hold(record.id());
            self.submit(cx, record);
        }
    }

    /// Returns whether every record is durable in the ledger and out of the spool.
    pub(super) fn is_idle(&self) -> bool {
        self.ledger.waiting() == 0 && self.spool.is_idle()
    }

    /// Returns when the link to the ledger has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.ledger.poll_timeout()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.ledger.rebase(by);
    }

    /// Asserts that every record that must reach the ledger is among those being sent to it.
    pub(super) fn check(&self, common: &Common) {
        self.usage.check();
        self.ledger.check();
        let is_held = |id: RecordId| self.ledger.holds(id);
        self.spool.check(is_held);
        let waits = !self.spool.is_cleared();
        assert!(waits == common.timers.get(Timer::Spool).is_some(), "the spool is cleared exactly when it must be");
        assert!(self.rekeys.keys().all(|id| is_held(*id)), "each rekey is on its way to the ledger");
        assert!(self.usage.reports().all(is_held), "each usage record is on its way to the ledger");
    }
}

impl Cn {
    pub(super) fn with_ledger(&mut self, cx: &mut Context<'_>, input: ledger_link::Input) {
        let outputs = self.recording.run_link(cx, |link, cx| link.handle_input(cx, input));
        self.on_ledger_outputs(cx, outputs);
    }

    pub(super) fn on_ledger_timer(&mut self, cx: &mut Context<'_>) {
        let outputs = self.recording.run_link(cx, |link, cx| link.handle_timeout(cx));
        self.on_ledger_outputs(cx, outputs);
    }

    /// Performs what the link to the ledger asks for.
    fn on_ledger_outputs(&mut self, cx: &mut Context<'_>, outputs: Vec<ledger_link::Output>) {
        for output in outputs {
            match perform(cx, output) {
                Some(News::Durable(ids)) => self.on_durable(cx, ids),
                Some(News::Quarantined(guids)) => self.on_quarantine(cx, guids),
                Some(News::Proven(proven)) => self.dns.tell(cx, &ToDn::Proven(proven)),
                None => {}
            }
        }
    }
}
