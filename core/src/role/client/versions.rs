//! Versions that a client holds in its cache, and versions that their provider has withdrawn.

use crate::content::{Bitfield, Layout};
use crate::ids::VersionId;
use crate::limits::WITHDRAWN_MAX;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Versions in the client's cache, and versions that their provider has withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Versions {
    /// Layout and pieces of each cached version.
    cached: BTreeMap<VersionId, (Layout, Bitfield)>,
    /// Versions that CNs have reported as withdrawn; at most [`WITHDRAWN_MAX`].
    withdrawn: BTreeSet<VersionId>,
}

impl Versions {
    /// Returns the versions of a store's cache, none of them withdrawn.
    pub(super) fn restored(cached: Vec<(VersionId, Layout, Bitfield)>) -> Self {
        let cached = cached.into_iter().map(|(version, layout, have)| (version, (layout, have)));
        Self { cached: cached.collect(), withdrawn: BTreeSet::new() }
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
    }
}

#[cfg(test)]
impl Versions {
    /// Corruptions of a cache with a version, each with the message of the assertion in `check` that it must break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 2] = [
        ("the withdrawn versions are bounded", |versions| {
            versions.withdrawn = (0..).take(WITHDRAWN_MAX + 1).map(VersionId::numbered).collect();
        }),
        ("a cached version's pieces fit its layout", |versions| {
            versions.cached.values_mut().for_each(|(_, have)| *have = Bitfield::empty(1));
        }),
    ];
}
