//! Versions that a client holds in its cache, and versions that their provider has withdrawn.

use super::io::CopyTerms;
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::VersionId;
use crate::limits::WITHDRAWN_MAX;
use crate::wire::records::SignedHolderTicket;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Versions in the client's cache, and versions that their provider has withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Versions {
    /// Layout and pieces of each cached version.
    cached: BTreeMap<VersionId, (Layout, Bitfield)>,
    /// Terms of sharing of each cached version, and of each version of a granted download.
    terms: BTreeMap<VersionId, CopyTerms>,
    /// Versions whose terms have changed since they were last saved.
    unsaved: BTreeSet<VersionId>,
    /// Versions that CNs have reported as withdrawn; at most [`WITHDRAWN_MAX`].
    withdrawn: BTreeSet<VersionId>,
}

impl Versions {
    /// Returns the versions of a store's cache, none of them withdrawn, and the terms of copies.
    pub(super) fn restored(cached: Vec<(VersionId, Layout, Bitfield)>, terms: BTreeMap<VersionId, CopyTerms>) -> Self {
        let cached = cached.into_iter().map(|(version, layout, have)| (version, (layout, have)));
        Self { cached: cached.collect(), terms, ..Self::default() }
    }

    /// Returns the terms of sharing of a version.
    pub(super) fn terms(&self, version: VersionId) -> Option<&CopyTerms> {
        self.terms.get(&version)
    }

    /// Sets the policy of a version, as a grant or a newer notice names it; the store keeps it with the granted
    /// download or as the notice.
    pub(super) fn set_policy(&mut self, version: VersionId, policy: &Policy) {
        if let Some(terms) = self.terms.get_mut(&version) {
            terms.policy = policy.clone();
        } else {
            self.terms.insert(version, CopyTerms { policy: policy.clone(), spent: 0, ticket: None });
        }
    }

    /// Sets the holder's ticket of a version with terms; the store keeps it with the granted download.
    pub(super) fn set_ticket(&mut self, version: VersionId, ticket: Box<SignedHolderTicket>) {
        if let Some(terms) = self.terms.get_mut(&version) {
            terms.ticket = Some(ticket);
        }
    }

    /// Counts the bytes of a version sent to peers. The count is saved later.
    pub(super) fn spent(&mut self, version: VersionId, bytes: u64) {
        if let Some(terms) = self.terms.get_mut(&version)
            && terms.spent != bytes
        {
            terms.spent = bytes;
            self.unsaved.insert(version);
        }
    }

    /// Takes the terms that have changed since they were last saved.
    pub(super) fn take_unsaved(&mut self) -> Vec<(VersionId, CopyTerms)> {
        let versions = core::mem::take(&mut self.unsaved);
        versions.into_iter().filter_map(|v| Some((v, self.terms.get(&v)?.clone()))).collect()
    }

    /// Notes that the store may have lost the count of sent bytes, so that it is to be saved again.
    pub(super) fn save_again(&mut self, version: VersionId) {
        if self.terms.get(&version).is_some_and(|terms| terms.spent > 0) {
            self.unsaved.insert(version);
        }
    }

    /// Forgets the terms of a version of which the store keeps nothing.
    pub(super) fn forget_terms(&mut self, version: VersionId) {
        self.terms.remove(&version);
        self.unsaved.remove(&version);
    }

    /// Returns each version that expires, with the time in Unix milliseconds.
    pub(super) fn expiries(&self) -> impl Iterator<Item = (VersionId, u64)> {
        let expires = self.terms.iter().map(|(version, terms)| (*version, terms.policy.expires_ms));
        expires.filter(|(_, at_ms)| *at_ms != 0)
    }

    /// Adds a version to the cache.
    pub(super) fn put(&mut self, version: VersionId, layout: Layout, have: Bitfield) {
        debug_assert!(have.len() == layout.pieces(), "a cached version's pieces fit its layout");
        self.cached.insert(version, (layout, have));
    }

    /// Removes a version from the cache.
    pub(super) fn remove(&mut self, version: VersionId) {
        self.cached.remove(&version);
    }

    /// Returns whether a version is cached.
    pub(super) fn is_cached(&self, version: VersionId) -> bool {
        self.cached.contains_key(&version)
    }

    /// Returns the cached pieces of a version.
    pub(super) fn pieces(&self, version: VersionId) -> Option<&Bitfield> {
        self.cached.get(&version).map(|(_, have)| have)
    }

    /// Returns every cached version.
    pub(super) fn cached(&self) -> impl Iterator<Item = (VersionId, &Layout, &Bitfield)> {
        self.cached.iter().map(|(version, (layout, have))| (*version, layout, have))
    }

    /// Notes that a provider has withdrawn a version, unless [`WITHDRAWN_MAX`] are noted.
    pub(super) fn withdraw(&mut self, version: VersionId) {
        if self.withdrawn.len() < WITHDRAWN_MAX {
            self.withdrawn.insert(version);
        }
    }

    /// Notes that a withdrawn version is published again.
    pub(super) fn publish(&mut self, version: VersionId) {
        self.withdrawn.remove(&version);
    }

    /// Returns whether a version is withdrawn.
    pub(super) fn is_withdrawn(&self, version: VersionId) -> bool {
        self.withdrawn.contains(&version)
    }

    /// Asserts that the number of withdrawn versions is bounded, and that each cached version's bitfield fits its
    /// layout.
    pub(super) fn check(&self) {
        assert!(self.withdrawn.len() <= WITHDRAWN_MAX, "the withdrawn versions are bounded");
        let fits = |(layout, have): &(Layout, Bitfield)| have.len() == layout.pieces();
        assert!(self.cached.values().all(fits), "a cached version's pieces fit its layout");
        assert!(self.unsaved.iter().all(|v| self.terms.contains_key(v)), "terms that are to be saved are known");
    }
}

#[cfg(test)]
impl Versions {
    /// Corruptions of a cache with a version, each with the message of the assertion in `check` that it must break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 3] = [
        ("terms that are to be saved are known", |versions| {
            _ = versions.unsaved.insert(VersionId::numbered(77));
        }),
        ("the withdrawn versions are bounded", |versions| {
            versions.withdrawn = (0..).take(WITHDRAWN_MAX + 1).map(VersionId::numbered).collect();
        }),
        ("a cached version's pieces fit its layout", |versions| {
            versions.cached.values_mut().for_each(|(_, have)| *have = Bitfield::empty(1));
        }),
    ];
}
