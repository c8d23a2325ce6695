//! Where an edge counts downloads: how many at a time, who makes room for another, and what it says of itself when
//! there is none, or when the spool refuses to be written.

use super::counting::{Counted, Key};
use super::io::{Batch, Uncountable};
use super::{Context, Edge, Output, Phase, Saving, Timer};

/// Deadlines that are looked through for a download that can make room.
const LOOKS: usize = 256;

impl Edge {
    /// Why the bytes of a new download cannot be counted now, if they cannot.
    pub(super) fn uncountable(&mut self, cx: &Context<'_>) -> Option<Uncountable> {
        if !cx.cfg.ledger {
            return None;
        }
        if self.refused {
            return Some(Uncountable::Refused);
        }
        self.full = !self.has_room(cx);
        self.full.then_some(Uncountable::Full)
    }

    fn is_full(&self, cx: &Context<'_>) -> bool {
        self.counts.len() >= cx.cfg.counts_max as usize
    }

    fn has_room(&self, cx: &Context<'_>) -> bool {
        !self.is_full(cx) || self.spare().is_some()
    }

    /// Has room for another count, if need be in the place of one that nobody misses.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_full(cx) {
            match self.spare() {
                Some(key) => self.over(cx, key),
                None => self.full = true,
            }
        }
        !self.is_full(cx)
    }

    /// The download that was asked for longest ago, of those whose end costs nothing: the ledger is told of all its
    /// bytes, and if more are asked for, a new life begins.
    fn spare(&self) -> Option<Key> {
        let idle =
            self.timers.keys().take(LOOKS).filter_map(|t| if let Timer::Idle(key) = t { Some(key) } else { None });
        let settled = |key: &Key| !self.dirty.contains(key) && self.counts.get(key).is_some_and(Counted::is_quiet);
        idle.into_iter().find(settled)
    }

    /// Says when it changes whether new downloads can be counted.
    pub(super) fn tell_counting(&mut self, cx: &mut Context<'_>) {
        self.full = self.full && !self.has_room(cx);
        let why = match (self.refused, self.full) {
            (true, _) => Some(Uncountable::Refused),
            (false, true) => Some(Uncountable::Full),
            (false, false) => None,
        };
        if self.told != why {
            self.told = why;
            cx.push(Output::Counting(why.map_or(Ok(()), Err)));
        }
    }

    /// A spool that has refused is tried again after a while, though nobody may ask for anything.
    pub(super) fn probe_soon(&mut self, cx: &Context<'_>) {
        if self.phase == Phase::Serving && self.timers.get(Timer::Probe).is_none() {
            self.timers.set(Timer::Probe, Some(cx.now.after(cx.cfg.flush_every)));
        }
    }

    pub(super) fn probe(&mut self, cx: &mut Context<'_>) {
        // whatever else is being written tells as much
        if self.refused && self.saving.is_empty() && self.phase == Phase::Serving {
            let req = self.next_req.step();
            self.saving.insert(req, Saving::Probe);
            cx.push(Output::Save { req, batch: Batch::default() });
        }
    }
}
