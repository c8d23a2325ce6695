//! Sharing with peers: of cached versions, and of the pieces of downloads.

use super::io::DownloadState;
use super::job::Job;
use super::{Client, Context, Saving};
use crate::content::{Bitfield, Layout, Policy};
use crate::ids::{Handle, PieceIndex, VersionId};
use crate::session::client as session;
use crate::swarm::upload;
use alloc::vec::Vec;

impl Client {
    /// Stops serving versions that the provider has withdrawn, and deletes cached copies that no download needs.
    pub(super) fn withdraw(&mut self, cx: &mut Context<'_>, versions: Vec<VersionId>) {
        for version in versions {
            self.versions.withdraw(version);
            let needed = |j: &Job| {
                j.granted().is_some_and(|g| g.version == version) && j.record.state != DownloadState::Completed
            };
            if self.versions.is_cached(version) && !self.jobs.values().any(needed) {
                self.uncache(cx, version, Saving::Nothing);
            } else {
                self.unshare(cx, version);
            }
        }
    }

    /// Returns the provider's policy under which a version may be shared; `None` if it may not be shared.
    fn sharing_policy(&self, version: VersionId) -> Option<Policy> {
        if self.versions.is_withdrawn(version) {
            return None;
        }
        let granted = self.jobs.values().filter_map(|j| j.granted()).find(|g| g.version == version)?;
        granted.policy.peer_upload.then(|| granted.policy.clone())
    }

    /// Offers the pieces of a version to peers, and registers the version at the CN.
    fn share(&mut self, cx: &mut Context<'_>, version: VersionId, layout: Layout, have: Bitfield) {
        let Some(policy) = self.sharing_policy(version) else { return };
        let (complete, something) = (have.is_full(), !have.is_empty());
        self.tell_uploads(cx, upload::Input::Share { version, layout, have, policy });
        if something && self.uploads.allowed() {
            self.tell_session(cx, session::Input::Share { version, complete });
        }
    }

    /// Offers the durable pieces of a download to peers.
    pub(super) fn share_job(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, layout, have) = (granted.version, *swarm.layout(), swarm.have().clone());
        self.share(cx, version, layout, have);
    }

    /// Offers every cached version and every download to peers: at the start, and when uploads are switched on.
    pub(super) fn share_all(&mut self, cx: &mut Context<'_>) {
        let cached: Vec<_> = self.versions.cached().map(|(v, layout, have)| (v, *layout, have.clone())).collect();
        for (version, layout, have) in cached {
            self.share(cx, version, layout, have);
        }
        let handles: Vec<_> = self.jobs.keys().copied().collect();
        for handle in handles {
            self.share_job(cx, handle);
        }
    }

    /// Offers a piece of a download to peers, since it has become durable.
    pub(super) fn share_piece(&mut self, cx: &mut Context<'_>, handle: Handle, piece: PieceIndex) {
        let Some(job) = self.jobs.get(&handle) else { return };
        let (Some(granted), Some(swarm)) = (job.granted(), &job.swarm) else { return };
        let (version, have) = (granted.version, swarm.have());
        if !granted.policy.peer_upload || !have.contains(piece) || self.versions.is_withdrawn(version) {
            return;
        }
        let (complete, first) = (have.is_full(), have.count() == 1);
        self.tell_uploads(cx, upload::Input::Have { version, piece });
        if (complete || first) && self.uploads.allowed() {
            self.tell_session(cx, session::Input::Share { version, complete });
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
        let versions = self.jobs.values().filter_map(|j| j.granted()).map(|g| g.version);
        let all: Vec<_> = versions.chain(self.versions.cached().map(|(version, ..)| version)).collect();
        for version in all {
            self.tell_session(cx, session::Input::Unshare { version });
        }
    }
}
