//! Invariants of the client machine; those of its peer links and books are checked in their own modules.

use super::edges::Ask;
use super::io::{DownloadState, FailReason};
use super::job::Job;
use super::rekey::{Owner, Rekey};
use super::{Client, Timer};
use crate::Machine as _;
use crate::ids::{Handle, ReqId};
use alloc::collections::BTreeSet;

impl Client {
    /// Asserts that no number of a request and no handle is used twice.
    pub(super) fn check_numbers(&self) {
        let making = if let Rekey::Making(req) = self.rekey { Some(req) } else { None };
        let mut seen = BTreeSet::new();
        let pending = self.edges.pending().keys().chain(self.saves.keys()).chain(self.books.signing()).chain(&making);
        let once = |req: &ReqId| *req < self.next_req && seen.insert(*req);
        assert!(pending.into_iter().all(once), "a request's number is given once");
        assert!(self.jobs.keys().all(|handle| *handle < self.next_handle), "a handle is given once");
        let of_job = |(handle, job): (&Handle, &Job)| *handle == job.record.handle;
        assert!(self.jobs.iter().all(of_job), "a record has the handle of its download");
    }

    /// Asserts the invariants of each download.
    pub(super) fn check_jobs(&self) {
        for (handle, job) in &self.jobs {
            if let Some(swarm) = &job.swarm {
                swarm.check();
                let under_way = swarm.under_way().all(|(xfer, ..)| self.fetches.contains_key(&xfer));
                assert!(under_way, "a transfer of a swarm has not ended");
            }
            assert!(job.granted().is_some() || job.swarm.is_none(), "only a granted download has a swarm");
            let idle = job.need.is_none() && job.fetching_since.is_none();
            assert!(job.is_active() || idle, "a download that is not active needs nothing");
            let running = job.record.state == DownloadState::Running;
            assert!(running || job.fetching_since.is_none(), "fetching time runs only while fetching");
            job.search.check(job.is_active());
            let asked = job.asked.is_none_or(|req| self.edges.pending().get(&req) == Some(&Ask::Job(*handle)));
            assert!(asked, "a download's request is pending");
            let waits = self.timers.get(Timer::Ask(*handle)).is_some();
            assert!(!(waits && job.asked.is_some()), "a request that is pending is not repeated");
            let served = waits || job.asked.is_some();
            assert!(job.need.is_some() == served, "what a download needs is asked for, or will be");
        }
        assert!(self.fetches.keys().all(|xfer| xfer.handle() < self.next_handle), "a transfer has a download");
    }

    /// Asserts the invariants of the pending requests to edges.
    pub(super) fn check_asks(&self) {
        self.edges.check();
        let waited_for = |(req, ask): (&ReqId, &Ask)| match ask {
            Ask::Job(handle) => self.jobs.get(handle).is_some_and(|job| job.asked == Some(*req)),
            Ask::Bootstrap | Ask::Completed { .. } | Ask::Recheck(_) | Ask::Proof => true,
        };
        assert!(self.edges.pending().iter().all(waited_for), "a download waits for its request");
        let rechecked = |ask: &Ask| if let Ask::Recheck(version) = ask { Some(*version) } else { None };
        self.checks.check(self.edges.pending().values().filter_map(rechecked));
        let waits = self.timers.get(Timer::Bootstrap).is_some();
        let started = self.timers.get(Timer::Start).is_none() && !self.stopped;
        assert!(!started || waits || self.edges.is_bootstrapping(), "the bootstrap is asked for again");
    }

    /// Asserts that each timer that is set is needed, and each needed one set. A stopped client has no timers.
    pub(super) fn check_timers(&self) {
        if self.stopped {
            return;
        }
        let set = |timer| self.timers.get(timer).is_some();
        let children = [
            (Timer::Links, self.links.poll_timeout()),
            (Timer::Session, self.session.poll_timeout()),
            (Timer::Uploads, self.uploads.poll_timeout()),
            (Timer::Connectivity, self.connectivity.poll_timeout()),
            (Timer::Receipts, self.receipts.poll_timeout()),
        ];
        let same = children.iter().all(|(timer, at)| self.timers.get(*timer) == *at);
        assert!(same, "a child's deadline is the client's");
        let swarm = |handle| self.jobs.get(&handle).and_then(|job| job.swarm.as_ref()?.poll_timeout());
        for timer in self.timers.keys() {
            match timer {
                Timer::Download(handle) => {
                    assert!(self.timers.get(timer) == swarm(handle), "a swarm's deadline is the client's");
                }
                Timer::Ask(handle) | Timer::Renew(handle) | Timer::Alone(handle) => {
                    let active = self.jobs.get(&handle).is_some_and(Job::is_active);
                    assert!(active, "only an active download waits for an edge");
                }
                Timer::Room(handle) => {
                    let full = DownloadState::Failed(FailReason::NoSpace);
                    let stopped = self.jobs.get(&handle).is_some_and(|job| job.record.state == full);
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
        let all = self.jobs.keys().all(|handle| set(Timer::Download(*handle)) == swarm(*handle).is_some());
        assert!(all, "a swarm that waits has a deadline");
        let closing = matches!(self.rekey, Rekey::Closing { .. } | Rekey::Retired);
        assert!(closing == set(Timer::Rekey), "a rekey that waits has a deadline");
        if !set(Timer::Start) {
            self.check_reports();
        }
    }

    /// Asserts that the client's first call has claimed the store, and that status and usage are reported from then
    /// on.
    fn check_reports(&self) {
        let claimed = self.owner == Owner::This && self.new_key.is_none() && self.books.is_started();
        assert!(claimed, "the first call has claimed the store");
        let set = |timer| self.timers.get(timer).is_some();
        assert!(
            set(Timer::Status) || !self.jobs.values().any(Job::is_active),
            "an active download's status is reported"
        );
        let running = self.jobs.values().any(|job| job.record.state == DownloadState::Running);
        assert!(set(Timer::Usage) || !running && self.books.youngest().is_none(), "usage is reported in time");
    }
}
