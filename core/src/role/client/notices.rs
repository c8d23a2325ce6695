//! Notices about the versions that the client holds: a provider's newest policy, or a withdrawal. Both take effect at
//! once: for sharing, for uploads under way and for running downloads.

use super::common::{Common, Saving};
use super::io::{NoPeers, Save};
use super::job::Jobs;
use super::peers::tell_no_peers;
use super::{Client, Context, Copies};
use crate::content::Policy;
use crate::ids::VersionId;
use crate::notice::{Holder, Received};
use crate::session::client as session;
use crate::swarm::download;
use crate::wire::notice::{Known, Notice, SignedNotice, Subject, Terms};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// Notices about the versions that a client holds: those in its cache or being downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Notices {
    holder: Holder,
    /// Policy of each held version about which there is a notice.
    policies: BTreeMap<VersionId, Policy>,
}

impl Notices {
    /// Accepts notices about a version from now on. Returns what the CN is to be told, so that it sends the newest one;
    /// `None` if notices were accepted already.
    pub(super) fn hold(&mut self, version: VersionId) -> Option<Known> {
        let none = Known { subject: Subject::version(version), serial: 0 };
        self.holder.hold(none).then_some(none)
    }

    /// Returns the newest durable notice of every held version, which the CN is told after a login; it then sends newer
    /// ones.
    pub(super) fn durable(&self) -> Vec<Known> {
        self.holder.durable()
    }

    /// Returns what the CN is to be told of versions with announced notices that are newer than the client's, so that
    /// it sends them.
    pub(super) fn outdated(&self, changed: &[Known]) -> Vec<Known> {
        self.holder.outdated(changed)
    }

    /// Notes that a notice is durable. Returns the acknowledgement.
    pub(super) fn on_saved(&mut self, known: Known) -> Option<Known> {
        self.holder.saved(known)
    }

    /// Saves a notice. Returns the acknowledgement if there is nothing to be saved: the client has deleted its copy
    /// because of this notice, so older notices about it no longer matter.
    fn save(&self, common: &mut Common, cx: &mut Context<'_>, notice: Notice) -> Option<Known> {
        let known = notice.known();
        if self.holder.serial(known.subject).is_none() {
            return Some(known);
        }
        common.save(cx, Save::Notice(notice), Saving::Notice(known));
        None
    }

    /// Returns the policy in the newest notice about a version; `None` without a notice.
    pub(super) fn policy(&self, version: VersionId) -> Option<&Policy> {
        self.policies.get(&version)
    }

    /// Asserts that only held versions have policies here.
    pub(super) fn check(&self, is_held: impl Fn(VersionId) -> bool) {
        self.holder.check();
        let held = |version: &VersionId| self.holder.serial(Subject::version(*version)).is_some();
        assert!(self.policies.keys().all(held), "each policy is of a version about which notices are taken");
        let needed = |known: Known| known.subject.as_version().is_some_and(&is_held);
        assert!(self.holder.durable().into_iter().all(needed), "notices are taken about held versions only");
    }
}

#[cfg(test)]
impl Notices {
    /// Adds the policy of a version that is not held, to test `check`.
    pub(super) fn policy_of_stranger(&mut self) {
        self.policies.insert(VersionId::numbered(77), Policy::default());
    }

    /// Accepts notices about a version that is not held, to test `check`.
    pub(super) fn hold_stranger(&mut self) {
        self.holder.hold(Known { subject: Subject::version(VersionId::numbered(77)), serial: 0 });
    }
}

impl Copies {
    /// Restores the notices from the store; after the login the CN sends the missing and newer ones.
    pub(super) fn restore_notices(&mut self, jobs: &Jobs, kept: &[Notice]) {
        let cached = self.versions.cached().map(|(version, ..)| version);
        for version in jobs.versions().chain(cached) {
            self.notices.hold(version);
        }
        for notice in kept {
            let is_held = |version: VersionId| self.notices.holder.serial(Subject::version(version)).is_some();
            let Some((version, terms)) = notice.terms().filter(|(version, _)| is_held(*version)) else { continue };
            self.notices.holder.hold(notice.known());
            match terms {
                Terms::Withdrawn => self.versions.withdraw(version),
                Terms::Policy(policy) => self.set_policy(version, &policy),
            }
        }
    }

    /// Returns whether the client has a version in its cache or downloads it.
    pub(super) fn holds(&self, jobs: &Jobs, version: VersionId) -> bool {
        self.versions.is_cached(version) || jobs.has_version(version)
    }

    /// Sets the policy of a version from its newest notice, in place of the policy in the terms of the copy and in any
    /// grant.
    fn set_policy(&mut self, version: VersionId, policy: &Policy) {
        self.notices.policies.insert(version, policy.clone());
        self.versions.set_policy(version, policy);
    }

    /// Forgets the terms and notices of a version that is neither cached nor being downloaded.
    pub(super) fn release(&mut self, jobs: &Jobs, version: VersionId) {
        if !self.holds(jobs, version) {
            self.versions.forget_terms(version);
            self.notices.holder.release(Subject::version(version));
            self.notices.policies.remove(&version);
            self.versions.publish(version);
        }
    }
}

impl Client {
    /// Returns the serial number of the newest accepted notice about a version; `None` if the version is not held.
    #[must_use]
    pub fn notice_serial(&self, version: VersionId) -> Option<u64> {
        self.copies.notices.holder.serial(Subject::version(version))
    }

    /// Handles a notice from a CN or an edge: if it is valid and newer, obeys it and makes it durable.
    pub(super) fn on_notice(&mut self, cx: &mut Context<'_>, signed: &SignedNotice) {
        let Some(now_ms) = self.common.wall_ms(cx.now) else { return };
        let acknowledged = match self.copies.notices.holder.receive(&cx.cfg.upload.trust, now_ms, signed) {
            Received::Newer(notice) => {
                self.obey(cx, &notice);
                self.copies.notices.save(&mut self.common, cx, notice)
            }
            Received::NotDurable(notice) => self.copies.notices.save(&mut self.common, cx, notice),
            Received::Durable(known) => Some(known),
            Received::Refused(_) => None,
        };
        self.tell_held(cx, acknowledged);
    }

    /// Tells the CN of the newest notice about a version that the client has, if `known` names one.
    pub(super) fn tell_held(&mut self, cx: &mut Context<'_>, known: Option<Known>) {
        if let Some(known) = known {
            self.tell_session(cx, session::Input::NoticesHeld(vec![known]));
        }
    }

    fn obey(&mut self, cx: &mut Context<'_>, notice: &Notice) {
        match notice.terms() {
            None => {}
            Some((version, Terms::Withdrawn)) => self.withdraw(cx, vec![version]),
            Some((version, Terms::Policy(policy))) => {
                self.copies.versions.publish(version);
                self.copies.set_policy(version, &policy);
                self.share_anew(cx, version);
                self.expire_copies(cx);
                self.change_downloads(cx, version, &policy);
            }
        }
    }

    /// Applies a version's new policy to its running downloads. A grant that permits no peers overrides the policy.
    fn change_downloads(&mut self, cx: &mut Context<'_>, version: VersionId, policy: &Policy) {
        for handle in self.jobs.of_version(version) {
            self.tell_swarm(cx, handle, download::Input::RateMin(policy.rate_min));
            let Some(job) = self.jobs.get_mut(handle) else { continue };
            let granted = job.granted().is_some_and(|g| g.policy.peer_download);
            let before = core::mem::replace(&mut job.peers_allowed, granted && policy.peer_download);
            let forbidden = !job.peers_allowed;
            self.want_peers(cx, handle);
            if before && forbidden {
                tell_no_peers(cx, handle, NoPeers::Policy);
            }
            if forbidden {
                self.end_links_of(cx, handle);
            }
        }
    }
}
