//! Notices about the versions that the client holds: a provider's newest policy, or a withdrawal. Both take effect at
//! once: for sharing, for uploads under way and for running downloads.

use super::io::{NoPeers, Save};
use super::{Client, Context, Saving};
use crate::content::Policy;
use crate::ids::{Handle, VersionId};
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

impl Client {
    /// Returns the serial number of the newest accepted notice about a version; `None` if the version is not held.
    #[must_use]
    pub fn notice_serial(&self, version: VersionId) -> Option<u64> {
        self.notices.holder.serial(Subject::version(version))
    }

    /// Restores the notices from the store; after the login the CN sends the missing and newer ones.
    pub(super) fn restore_notices(&mut self, kept: &[Notice]) {
        let granted = self.jobs.values().filter_map(|j| j.granted()).map(|g| g.version);
        let held: Vec<_> = granted.chain(self.versions.cached().map(|(version, ..)| version)).collect();
        for version in held {
            self.notices.holder.hold(Known { subject: Subject::version(version), serial: 0 });
        }
        for notice in kept {
            let Some((version, terms)) = notice.terms().filter(|(v, _)| self.notice_serial(*v).is_some()) else {
                continue;
            };
            self.notices.holder.hold(notice.known());
            match terms {
                Terms::Withdrawn => self.versions.withdraw(version),
                Terms::Policy(policy) => self.set_policy(version, &policy),
            }
        }
    }

    /// Accepts notices about a version from now on, and asks the CN for the newest one.
    pub(super) fn hold_notices(&mut self, cx: &mut Context<'_>, version: VersionId) {
        let none = Known { subject: Subject::version(version), serial: 0 };
        if self.notices.holder.hold(none) {
            self.tell_session(cx, session::Input::NoticesHeld(vec![none]));
        }
    }

    /// Returns whether the client has a version in its cache or downloads it.
    pub(super) fn holds(&self, version: VersionId) -> bool {
        self.versions.is_cached(version)
            || self.jobs.values().any(|j| j.granted().is_some_and(|g| g.version == version))
    }

    /// Sets the policy of a version from its newest notice, in place of the policy in the terms of the copy and in any
    /// grant.
    fn set_policy(&mut self, version: VersionId, policy: &Policy) {
        self.notices.policies.insert(version, policy.clone());
        self.versions.set_policy(version, policy);
    }

    /// Forgets the terms and notices of a version that is neither cached nor being downloaded.
    pub(super) fn release(&mut self, version: VersionId) {
        if !self.holds(version) {
            self.versions.forget_terms(version);
            self.notices.holder.release(Subject::version(version));
            self.notices.policies.remove(&version);
            self.versions.publish(version);
        }
    }

    /// Reports the newest notice of every held version to the CN after a login; the CN then sends newer ones.
    pub(super) fn report_all_notices(&mut self, cx: &mut Context<'_>) {
        let held = self.notices.holder.durable();
        self.tell_session(cx, session::Input::NoticesHeld(held));
    }

    /// Asks the CN for the announced notices that are newer than the client's.
    pub(super) fn on_notices_changed(&mut self, cx: &mut Context<'_>, changed: &[Known]) {
        let outdated = self.notices.holder.outdated(changed);
        self.tell_session(cx, session::Input::NoticesHeld(outdated));
    }

    /// Handles a notice from a CN or an edge: if it is valid and newer, obeys it and makes it durable.
    pub(super) fn on_notice(&mut self, cx: &mut Context<'_>, signed: &SignedNotice) {
        let Some(wall) = self.wall else { return };
        match self.notices.holder.receive(&cx.cfg.upload.trust, wall.at(cx.now), signed) {
            Received::Newer(notice) => {
                self.obey(cx, &notice);
                self.save_notice(cx, notice);
            }
            Received::NotDurable(notice) => self.save_notice(cx, notice),
            Received::Durable(known) => self.tell_session(cx, session::Input::NoticesHeld(vec![known])),
            Received::Refused(_) => {}
        }
    }

    fn save_notice(&mut self, cx: &mut Context<'_>, notice: Notice) {
        let known = notice.known();
        if self.notices.holder.serial(known.subject).is_none() {
            // the client has deleted its copy because of this notice, so older notices about it no longer matter
            return self.tell_session(cx, session::Input::NoticesHeld(vec![known]));
        }
        self.save(cx, Save::Notice(notice), Saving::Notice(known));
    }

    /// Acknowledges a notice that is durable.
    pub(super) fn on_notice_saved(&mut self, cx: &mut Context<'_>, known: Known) {
        if let Some(known) = self.notices.holder.saved(known) {
            self.tell_session(cx, session::Input::NoticesHeld(vec![known]));
        }
    }

    fn obey(&mut self, cx: &mut Context<'_>, notice: &Notice) {
        match notice.terms() {
            None => {}
            Some((version, Terms::Withdrawn)) => self.withdraw(cx, vec![version]),
            Some((version, Terms::Policy(policy))) => {
                self.versions.publish(version);
                self.set_policy(version, &policy);
                self.share_anew(cx, version);
                self.expire_copies(cx);
                self.change_downloads(cx, version, &policy);
            }
        }
    }

    /// Applies a version's new policy to its running downloads. A grant that permits no peers overrides the policy.
    fn change_downloads(&mut self, cx: &mut Context<'_>, version: VersionId, policy: &Policy) {
        let of_version = self.jobs.iter().filter(|(_, j)| j.granted().is_some_and(|g| g.version == version));
        let handles: Vec<Handle> = of_version.map(|(handle, _)| *handle).collect();
        for handle in handles {
            self.tell_swarm(cx, handle, download::Input::RateMin(policy.rate_min));
            let Some(job) = self.jobs.get_mut(&handle) else { continue };
            let granted = job.granted().is_some_and(|g| g.policy.peer_download);
            let before = core::mem::replace(&mut job.peers_allowed, granted && policy.peer_download);
            let forbidden = !job.peers_allowed;
            self.want_peers(cx, handle);
            if before && forbidden {
                Self::tell_no_peers(cx, handle, NoPeers::Policy);
            }
            if forbidden {
                self.end_links_of(cx, handle);
            }
        }
    }
}
