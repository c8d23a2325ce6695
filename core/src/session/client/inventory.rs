//! The client's list of shared versions (inventory), and the changes to it that are still to be sent to the CN.

use super::{ClientSession, Context, Timer};
use crate::Deadlines;
use crate::ids::VersionId;
use crate::limits::{INVENTORY_PAGE_MAX, INVENTORY_REMOVED_MAX};
use crate::wire::List;
use crate::wire::control::{self, Shared, ToCn};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// The client's list of shared versions. `changed`: versions whose changes are still to be sent to the CN. `reset`:
/// the complete list is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Inventory {
    /// Shared versions, and whether each is complete.
    shared: BTreeMap<VersionId, bool>,
    changed: BTreeSet<VersionId>,
    reset: bool,
    seq: u64,
}

impl Inventory {
    /// Begins a new session, whose pages are counted from 1. `reset`: the CN wants the complete list.
    pub(super) fn connected(&mut self, reset: bool) {
        self.seq = 0;
        self.reset = self.reset || reset;
    }

    /// Returns the pages of unsent changes, and marks these as sent.
    fn take_pages(&mut self) -> Vec<control::Inventory> {
        let changed = core::mem::take(&mut self.changed);
        let reset = core::mem::take(&mut self.reset);
        let entries: Vec<(VersionId, Option<bool>)> = if reset {
            self.shared.iter().map(|(v, c)| (*v, Some(*c))).collect()
        } else {
            changed.iter().map(|v| (*v, self.shared.get(v).copied())).collect()
        };
        let mut pages: Vec<control::Inventory> = Vec::new();
        // all of a whole inventory is there; all of what has changed may be gone
        let chunks = entries.chunks(if reset { INVENTORY_PAGE_MAX } else { INVENTORY_REMOVED_MAX });
        for chunk in chunks.chain((reset && entries.is_empty()).then_some(&[][..])) {
            self.seq += 1;
            let shared =
                |&(version, complete): &(VersionId, Option<bool>)| Some(Shared { version, complete: complete? });
            let gone = |&(version, complete): &(VersionId, Option<bool>)| complete.is_none().then_some(version);
            pages.push(control::Inventory {
                seq: self.seq,
                reset: reset && pages.is_empty(),
                last: false,
                add: List::truncated(chunk.iter().filter_map(shared)),
                remove: List::truncated(chunk.iter().filter_map(gone)),
            });
        }
        if let Some(page) = pages.last_mut() {
            page.last = true;
        }
        pages
    }

    /// Asserts that unsent changes have a deadline while the session is open.
    pub(super) fn check(&self, open: bool, timers: &Deadlines<Timer>) {
        let set = timers.get(Timer::Inventory).is_some();
        let unsent = self.reset || !self.changed.is_empty();
        assert!(open || !set, "only an open session sends its inventory");
        assert!(!open || !unsent || set, "a change of the inventory is sent in time");
    }
}

#[cfg(test)]
impl Inventory {
    /// Sets the state in which a complete list is due without a deadline, for a test of the check.
    pub(super) const fn forget_reset(&mut self) {
        self.reset = true;
    }
}

impl ClientSession {
    /// Records that a version is shared (`Some(complete)`) or no longer (`None`).
    pub(super) fn share(&mut self, cx: &mut Context<'_>, version: VersionId, complete: Option<bool>) {
        let before = match complete {
            Some(c) => self.inventory.shared.insert(version, c),
            None => self.inventory.shared.remove(&version),
        };
        if before == complete {
            return;
        }
        self.inventory.changed.insert(version);
        if self.is_open() && self.timers.get(Timer::Inventory).is_none() {
            self.timers.set(Timer::Inventory, Some(cx.now.after(cx.cfg.inventory_wait)));
        }
    }

    /// Schedules sending the complete list of shared versions, after a random delay below `spread`, since a DN has
    /// lost it.
    pub(super) fn readd(&mut self, cx: &mut Context<'_>, spread: Duration) {
        self.inventory.reset = true;
        let ms = u32::try_from(spread.as_millis()).unwrap_or(u32::MAX);
        let wait = if ms == 0 { 0 } else { cx.rng.below(ms) };
        self.timers.set(Timer::Inventory, Some(cx.now.after(Duration::from_millis(u64::from(wait)))));
    }

    pub(super) fn tell_inventory(&mut self, cx: &mut Context<'_>) {
        if !self.is_open() {
            return;
        }
        for page in self.inventory.take_pages() {
            self.send(cx, ToCn::Inventory(page));
        }
    }
}
