//! Bound on the number of counts: which count may end to let another begin, and the report to the shell when no new
//! download can be counted because there are too many counts or the spool fails.

use super::Key;
use super::counting::Counted;
use super::io::{Batch, Uncountable};
use super::{Context, Edge, Output, Phase, Saving, Timer};

/// Maximum number of timers examined in search of a count that may end.
const SCAN_MAX: usize = 256;

impl Edge {
    /// Returns the reason why the bytes of a new download cannot be counted now; `None` if they can.
    pub(super) fn uncountable(&mut self, cx: &Context<'_>) -> Option<Uncountable> {
        if !cx.cfg.ledger {
            return None;
        }
        if self.spool_failed {
            return Some(Uncountable::Refused);
        }
        self.full = !self.has_room(cx);
        self.full.then_some(Uncountable::Full)
    }

    fn is_full(&self, cx: &Context<'_>) -> bool {
        self.counts.len() >= cx.cfg.counts_max as usize
    }

    fn has_room(&self, cx: &Context<'_>) -> bool {
        !self.is_full(cx) || self.dispensable().is_some()
    }

    /// Returns whether another count can begin; ends a dispensable count if necessary.
    pub(super) fn ensure_room(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_full(cx) {
            match self.dispensable() {
                Some(key) => self.end_download(cx, key),
                None => self.full = true,
            }
        }
        !self.is_full(cx)
    }

    /// Returns the longest idle download whose count may end: all its bytes are in records, and a further request
    /// would begin a count with another life.
    fn dispensable(&self) -> Option<Key> {
        let idle =
            self.timers.keys().take(SCAN_MAX).filter_map(|t| if let Timer::Idle(key) = t { Some(key) } else { None });
        let settled = |key: &Key| !self.dirty.contains(key) && self.counts.get(key).is_some_and(Counted::is_quiet);
        idle.into_iter().find(settled)
    }

    /// Reports to the shell whether new downloads can be counted, if that has changed.
    pub(super) fn report_counting(&mut self, cx: &mut Context<'_>) {
        self.full = self.full && !self.has_room(cx);
        let why = match (self.spool_failed, self.full) {
            (true, _) => Some(Uncountable::Refused),
            (false, true) => Some(Uncountable::Full),
            (false, false) => None,
        };
        if self.last_reported != why {
            self.last_reported = why;
            cx.push(Output::Counting(why.map_or(Ok(()), Err)));
        }
    }

    /// Asserts that the shell knows whether new downloads can be counted, and that a failed spool is probed.
    pub(super) fn check_places(&self) {
        let known = match self.last_reported {
            Some(Uncountable::Refused) => self.spool_failed,
            Some(Uncountable::Full) => self.full && !self.spool_failed,
            None => !self.full && !self.spool_failed,
        };
        assert!(known, "the shell knows whether new downloads can be counted");
        let probed = self.timers.get(Timer::Probe).is_some() || !self.saving.is_empty();
        assert!(!self.spool_failed || probed || self.phase != Phase::Serving, "a failed spool is tried again");
    }

    /// Schedules an empty write to a spool that has failed, since without requests nothing else would show that it
    /// works again.
    pub(super) fn probe_soon(&mut self, cx: &Context<'_>) {
        if self.phase == Phase::Serving && self.timers.get(Timer::Probe).is_none() {
            self.timers.set(Timer::Probe, Some(cx.now.after(cx.cfg.flush_every)));
        }
    }

    pub(super) fn probe(&mut self, cx: &mut Context<'_>) {
        // any other write in progress shows the same
        if self.spool_failed && self.saving.is_empty() && self.phase == Phase::Serving {
            let req = self.next_req.step();
            self.saving.insert(req, Saving::Probe);
            cx.push(Output::Save { req, batch: Batch::default() });
        }
    }
}
