//! Sharing with peers: cached versions, and the durable pieces of downloads.

use super::common::{Common, Saving, Timer};
use super::io::{CopyTerms, DownloadState, Save};
use super::job::Job;
use super::versions::Versions;
use super::{Client, Context};
use crate::content::{Bitfield, Layout};
use crate::ids::{Handle, PieceIndex, VersionId};
use crate::session::client as session;
use crate::swarm::upload;
use alloc::vec::Vec;
use core::time::Duration;

/// Delay before the counts of bytes sent to peers are saved; a crash loses at most the counts of this time.
const TERMS_WAIT: Duration = Duration::from_secs(1);

impl Versions {
    /// Returns the terms under which a version may be shared; `None` if it may not be shared.
    fn sharing_terms(&self, now_ms: Option<u64>, version: VersionId) -> Option<&CopyTerms> {
        let terms = self.terms(version).filter(|_| !self.is_withdrawn(version))?;
        let has_expired = now_ms.is_some_and(|now_ms| terms.policy.has_expired(now_ms));
        (terms.policy.peer_upload && !has_expired).then_some(terms)
    }

    /// Returns the versions that have expired, and sets the timer for the next one.
    fn expire(&self, common: &mut Common, cx: &Context<'_>) -> Vec<VersionId> {
        let Some(now_ms) = common.wall_ms(cx.now) else { return Vec::new() };
        let (over, later): (Vec<_>, Vec<_>) = self.expiries().partition(|(_, at_ms)| *at_ms <= now_ms);
        let next = later.iter().map(|(_, at_ms)| at_ms.saturating_sub(now_ms)).min();
        common.timers.set(Timer::Expiry, next.map(|ms| cx.now.after(Duration::from_millis(ms.max(1)))));
        over.into_iter().map(|(version, _)| version).collect()
    }

    /// Counts bytes of a version that were sent to peers; the count is saved after `TERMS_WAIT` at the latest.
    pub(super) fn on_spent(&mut self, common: &mut Common, cx: &Context<'_>, version: VersionId, bytes: u64) {
        self.spent(version, bytes);
        if common.timers.get(Timer::Terms).is_none() {
            common.timers.set(Timer::Terms, Some(cx.now.after(TERMS_WAIT)));
        }
    }

    /// Saves the terms of copies that have changed.
    pub(super) fn save_terms(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        common.timers.clear(Timer::Terms);
        for (version, terms) in self.take_unsaved() {
            common.save(cx, Save::Copy { version, terms }, Saving::Nothing);
        }
    }
}

impl Client {
    /// Stops serving versions that the provider has withdrawn, and deletes cached copies that no download needs.
    pub(super) fn withdraw(&mut self, cx: &mut Context<'_>, versions: Vec<VersionId>) {
        for version in versions {
            self.copies.versions.withdraw(version);
            let needed = |job: &Job| job.is_of(version) && job.record.state != DownloadState::Completed;
            if self.copies.versions.is_cached(version) && self.jobs.handles(needed).is_empty() {
                self.uncache(cx, version, Saving::Nothing);
            } else {
                self.unshare(cx, version);
            }
        }
    }

    /// Stops sharing versions that have expired, and sets the timer for the next one.
    pub(super) fn expire_copies(&mut self, cx: &mut Context<'_>) {
        for version in self.copies.versions.expire(&mut self.common, cx) {
            if self.uploads.shares(&version) {
                self.unshare(cx, version);
            }
        }
    }

    /// Applies a version's new policy: shares the version under it, or stops sharing.
    pub(super) fn share_anew(&mut self, cx: &mut Context<'_>, version: VersionId) {
        if self.copies.versions.sharing_terms(self.common.wall_ms(cx.now), version).is_none() {
            return self.unshare(cx, version);
        }
        let cached = self.copies.versions.cached().find(|(v, ..)| *v == version);
        if let Some((_, layout, have)) = cached.map(|(v, layout, have)| (v, *layout, have.clone())) {
            self.share(cx, version, layout, have);
        } else {
            for handle in self.jobs.of_version(version) {
                self.share_job(cx, handle);
            }
        }
        if !self.uploads.offers(&version) {
            // the uploads so far have reached the new limit already
            self.tell_session(cx, session::Input::Unshare { version });
        }
    }

    /// Offers the pieces of a version to peers, and registers the version at the CN.
    fn share(&mut self, cx: &mut Context<'_>, version: VersionId, layout: Layout, have: Bitfield) {
        let Some(CopyTerms { policy, spent, .. }) =
            self.copies.versions.sharing_terms(self.common.wall_ms(cx.now), version).cloned()
        else {
            return;
        };
        let (complete, something) = (have.is_full(), !have.is_empty());
        self.tell_uploads(cx, upload::Input::Share { version, layout, have, policy, spent });
        if something {
            self.announce(cx, version, complete);
        }
    }

    /// Registers a version at the CN, if it can be served now. Without a ticket in this client's name no CN would offer
    /// it to others.
    fn announce(&mut self, cx: &mut Context<'_>, version: VersionId, complete: bool) {
        if !self.uploads.allowed() || !self.uploads.offers(&version) {
            return;
        }
        let ticket = self.copies.versions.terms(version).and_then(|terms| terms.ticket.clone());
        if let Some(ticket) = ticket.filter(|ticket| ticket.is_of(cx.cfg.identity.guid, version)) {
            self.tell_session(cx, session::Input::Share { version, complete, ticket });
        }
    }

    /// Offers the durable pieces of a download to peers.
    pub(super) fn share_job(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, layout, have) = (granted.version, *swarm.layout(), swarm.have().clone());
        self.share(cx, version, layout, have);
    }

    /// Offers every cached version and every download to peers: at the start, and when uploads are switched on.
    pub(super) fn share_all(&mut self, cx: &mut Context<'_>) {
        let cached: Vec<_> =
            self.copies.versions.cached().map(|(v, layout, have)| (v, *layout, have.clone())).collect();
        for (version, layout, have) in cached {
            self.share(cx, version, layout, have);
        }
        for handle in self.jobs.all() {
            self.share_job(cx, handle);
        }
    }

    /// Offers a piece of a download to peers, since it has become durable.
    pub(super) fn share_piece(&mut self, cx: &mut Context<'_>, handle: Handle, piece: PieceIndex) {
        let Some(job) = self.jobs.get(handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, have) = (granted.version, swarm.have());
        if !have.contains(piece) || self.copies.versions.sharing_terms(self.common.wall_ms(cx.now), version).is_none() {
            return;
        }
        let (complete, first) = (have.is_full(), have.count() == 1);
        self.tell_uploads(cx, upload::Input::Have { version, piece });
        if complete || first {
            self.announce(cx, version, complete);
        }
    }

    pub(super) fn unshare(&mut self, cx: &mut Context<'_>, version: VersionId) {
        self.tell_uploads(cx, upload::Input::Unshare { version });
        self.tell_session(cx, session::Input::Unshare { version });
    }

    /// Switches uploads on or off, with immediate effect.
    pub(super) fn allow_uploads(&mut self, cx: &mut Context<'_>, on: bool) {
        self.tell_uploads(cx, upload::Input::Allow(on));
        self.tell_session(cx, session::Input::Uploads(on));
        if on {
            return self.share_all(cx);
        }
        let all: Vec<_> =
            self.jobs.versions().chain(self.copies.versions.cached().map(|(version, ..)| version)).collect();
        for version in all {
            self.tell_session(cx, session::Input::Unshare { version });
        }
    }
}
