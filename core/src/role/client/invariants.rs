//! Invariants of the client machine across its parts; those of a part are checked in its own module.

use super::Client;
use super::common::{Common, Timer};
use super::edges::{Ask, Edges};
use super::io::{DownloadState, FailReason};
use super::job::Jobs;
use crate::Machine as _;
use crate::ids::ReqId;
use alloc::collections::BTreeSet;

impl Client {
    /// Asserts that no number of a request is used twice.
    pub(super) fn check_numbers(&self) {
        let making = self.rekey.making();
        let mut seen = BTreeSet::new();
        let pending =
            self.edges.pending().keys().chain(self.common.saving()).chain(self.books.signing()).chain(&making);
        let once = |req: &ReqId| *req < self.common.next_req && seen.insert(*req);
        assert!(pending.into_iter().all(once), "a request's number is given once");
    }

    /// Asserts that the timers of child machines and reports are set, if they are needed. A stopped client has no
    /// timers.
    pub(super) fn check_timers(&self) {
        if self.common.is_stopped() {
            return;
        }
        let timers = &self.common.timers;
        let children = [
            (Timer::Links, self.links.poll_timeout()),
            (Timer::Session, self.session.poll_timeout()),
            (Timer::Uploads, self.uploads.poll_timeout()),
            (Timer::Connectivity, self.connectivity.poll_timeout()),
            (Timer::Receipts, self.receipts.poll_timeout()),
        ];
        let same = children.iter().all(|(timer, at)| timers.get(*timer) == *at);
        assert!(same, "a child's deadline is the client's");
        if timers.get(Timer::Start).is_some() {
            return;
        }
        let claimed = self.rekey.has_claimed_store() && self.books.is_started();
        assert!(claimed, "the first call has claimed the store");
        let shown = timers.get(Timer::Status).is_some();
        assert!(shown || !self.jobs.has_active(), "an active download's status is reported");
        let running = self.jobs.iter().any(|(_, job)| job.record.state == DownloadState::Running);
        let reported = timers.get(Timer::Usage).is_some();
        assert!(reported || !running && self.books.youngest().is_none(), "usage is reported in time");
    }
}

impl Jobs {
    /// Asserts that the pending requests to edges and their timers agree with what the downloads need.
    pub(super) fn check_asks(&self, common: &Common, edges: &Edges) {
        for (handle, job) in self.iter() {
            let asked = job.asked.is_none_or(|req| edges.pending().get(&req) == Some(&Ask::Job(handle)));
            assert!(asked, "a download's request is pending");
            let waits = common.timers.get(Timer::Ask(handle)).is_some();
            assert!(!(waits && job.asked.is_some()), "a request that is pending is not repeated");
            let served = waits || job.asked.is_some();
            assert!(job.need.is_some() == served, "what a download needs is asked for, or will be");
        }
        let waited_for = |(req, ask): (&ReqId, &Ask)| match ask {
            Ask::Job(handle) => self.get(*handle).is_some_and(|job| job.asked == Some(*req)),
            Ask::Bootstrap | Ask::Completed(_) | Ask::Recheck(_) | Ask::Proof => true,
        };
        assert!(edges.pending().iter().all(waited_for), "a download waits for its request");
    }

    /// Asserts that each timer of a download is needed, and each needed one set. A stopped client has no timers.
    pub(super) fn check_timers(&self, common: &Common) {
        if common.is_stopped() {
            return;
        }
        let swarm = |handle| self.get(handle).and_then(|job| job.swarm.as_ref()?.poll_timeout());
        for timer in common.timers.keys() {
            match timer {
                Timer::Download(handle) => {
                    assert!(common.timers.get(timer) == swarm(handle), "a swarm's deadline is the client's");
                }
                Timer::Ask(handle) | Timer::Renew(handle) | Timer::Alone(handle) => {
                    assert!(self.is_active(handle), "only an active download waits for an edge");
                }
                Timer::Room(handle) => {
                    let full = DownloadState::Failed(FailReason::NoSpace);
                    let stopped = self.get(handle).is_some_and(|job| job.record.state == full);
                    assert!(stopped, "only a download that a full disk has stopped waits for room");
                }
                Timer::Start
                | Timer::Terms
                | Timer::Expiry
                | Timer::Bootstrap
                | Timer::Session
                | Timer::Uploads
                | Timer::Connectivity
                | Timer::Links
                | Timer::Receipts
                | Timer::Status
                | Timer::Usage
                | Timer::Rekey => {}
            }
        }
        let set = |handle| common.timers.get(Timer::Download(handle)).is_some();
        let all = self.iter().all(|(handle, _)| set(handle) == swarm(handle).is_some());
        assert!(all, "a swarm that waits has a deadline");
    }
}
