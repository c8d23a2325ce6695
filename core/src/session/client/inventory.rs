//! The client's list of shared versions (inventory), and the changes to it that are still to be sent to the CN.

use super::{ClientSession, Context, Output, Timer};
use crate::Deadlines;
use crate::ids::VersionId;
use crate::limits::{INVENTORY_REMOVED_MAX, TICKET_CERTS_MAX, TICKETS_PAGE_MAX};
use crate::wire::List;
use crate::wire::control::{self, Held, ToCn};
use crate::wire::records::{ServerCert, SignedHolderTicket};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// Shared version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offer {
    /// Whether the client has every piece.
    pub(super) complete: bool,
    /// Ticket by which an edge has granted the version to this client.
    pub(super) ticket: Box<SignedHolderTicket>,
}

/// The client's list of shared versions. `changed`: versions whose changes are still to be sent to the CN. `reset`:
/// the complete list is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Inventory {
    shared: BTreeMap<VersionId, Offer>,
    changed: BTreeSet<VersionId>,
    /// Shared versions whose tickets the CN of this session has refused; they are not sent to it again.
    refused: BTreeSet<VersionId>,
    reset: bool,
    seq: u64,
}

/// Page of an inventory that is being filled.
#[derive(Default)]
struct Page {
    certs: Vec<ServerCert>,
    add: Vec<Held>,
    remove: Vec<VersionId>,
}

impl Page {
    /// Adds a version that is shared, or no longer (`None`). Returns `false` if the page is full.
    fn put(&mut self, version: VersionId, offer: Option<&Offer>) -> bool {
        let Some(Offer { complete, ticket }) = offer else {
            let fits = self.remove.len() < INVENTORY_REMOVED_MAX;
            self.remove.extend(fits.then_some(version));
            return fits;
        };
        let known = self.certs.iter().position(|cert| *cert == ticket.cert);
        let at = known.unwrap_or(self.certs.len());
        let Some(index) = u8::try_from(at).ok().filter(|_| at < TICKET_CERTS_MAX) else { return false };
        let fits = self.add.len() < TICKETS_PAGE_MAX;
        if fits {
            self.certs.extend(known.is_none().then(|| ticket.cert.clone()));
            self.add.push(Held::new(*complete, ticket, index));
        }
        fits
    }

    fn finish(self, (seq, reset, last): (u64, bool, bool)) -> control::Inventory {
        let (certs, add) = (List::truncated(self.certs), List::truncated(self.add));
        control::Inventory { seq, reset, last, certs, add, remove: List::truncated(self.remove) }
    }
}

impl Inventory {
    /// Begins a new session, whose pages are counted from 1. `reset`: the CN wants the complete list.
    pub(super) fn connected(&mut self, reset: bool) {
        self.seq = 0;
        self.reset = self.reset || reset;
        self.refused.clear();
    }

    /// Returns the pages of unsent changes, and marks these as sent.
    fn take_pages(&mut self) -> Vec<control::Inventory> {
        let changed = core::mem::take(&mut self.changed);
        let reset = core::mem::take(&mut self.reset);
        let accepted = |version: &VersionId| !self.refused.contains(version);
        let entries: Vec<(VersionId, Option<&Offer>)> = if reset {
            self.shared.iter().filter(|(v, _)| accepted(v)).map(|(v, offer)| (*v, Some(offer))).collect()
        } else {
            changed.iter().map(|v| (*v, self.shared.get(v).filter(|_| accepted(v)))).collect()
        };
        let mut pages: Vec<Page> = Vec::new();
        if reset || !entries.is_empty() {
            pages.push(Page::default());
        }
        for (version, offer) in entries {
            if !pages.last_mut().is_some_and(|page| page.put(version, offer)) {
                let mut next = Page::default();
                let fits = next.put(version, offer);
                debug_assert!(fits, "an empty page has room");
                pages.push(next);
            }
        }
        let (first, count) = (self.seq + 1, pages.len() as u64);
        self.seq += count;
        let numbered = (first..).zip(pages);
        numbered.map(|(seq, page)| page.finish((seq, reset && seq == first, seq + 1 == first + count))).collect()
    }

    /// Asserts that unsent changes have a deadline while the session is open, and that only shared versions' tickets
    /// are refused.
    pub(super) fn check(&self, open: bool, timers: &Deadlines<Timer>) {
        let set = timers.get(Timer::Inventory).is_some();
        let unsent = self.reset || !self.changed.is_empty();
        assert!(open || !set, "only an open session sends its inventory");
        assert!(!open || !unsent || set, "a change of the inventory is sent in time");
        let is_shared = |version: &VersionId| self.shared.contains_key(version);
        assert!(self.refused.iter().all(is_shared), "a refused ticket is of a shared version");
    }
}

#[cfg(test)]
impl Inventory {
    /// Sets the state in which a complete list is due without a deadline, for a test of the check.
    pub(super) const fn forget_reset(&mut self) {
        self.reset = true;
    }

    /// Marks the ticket of a version that is not shared as refused, for a test of the check.
    pub(super) fn refuse_unshared(&mut self) {
        self.refused.insert(VersionId::numbered(77));
    }
}

impl ClientSession {
    /// Records that a version is shared, or no longer (`None`). A newer ticket alone is not sent at once, unless the CN
    /// has refused the one before.
    pub(super) fn share(&mut self, cx: &mut Context<'_>, version: VersionId, offer: Option<Offer>) {
        let inventory = &mut self.inventory;
        let ticket = offer.as_ref().map(|offer| offer.ticket.clone());
        let complete = offer.as_ref().map(|offer| offer.complete);
        let before = match offer {
            Some(offer) => inventory.shared.insert(version, offer),
            None => inventory.shared.remove(&version),
        };
        let is_new = ticket.is_none() || ticket != before.as_ref().map(|old| old.ticket.clone());
        let heals = is_new && inventory.refused.remove(&version) && ticket.is_some();
        if before.map(|old| old.complete) == complete && !heals {
            return;
        }
        inventory.changed.insert(version);
        if self.is_open() && self.timers.get(Timer::Inventory).is_none() {
            self.timers.set(Timer::Inventory, Some(cx.now.after(cx.cfg.inventory_wait)));
        }
    }

    /// Notes that the CN does not offer these versions, since it refuses their tickets.
    pub(super) fn on_tickets_refused(&mut self, cx: &mut Context<'_>, versions: &[VersionId]) {
        let inventory = &mut self.inventory;
        let shared = versions.iter().copied().filter(|version| inventory.shared.contains_key(version));
        let news: Vec<VersionId> = shared.filter(|version| inventory.refused.insert(*version)).collect();
        if !news.is_empty() {
            cx.push(Output::TicketsRefused(news));
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
