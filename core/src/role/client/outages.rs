//! Outages that end without the user's action: an edge answers again, the network is back, a full disk has room.

use super::io::{DownloadState, FailReason, Save, StoreError};
use super::job::Job;
use super::{Client, Context, Saving, Timer};
use crate::ids::Handle;
use crate::swarm::download;
use alloc::vec::Vec;

/// State of a download that a full disk has stopped.
const DISK_FULL: DownloadState = DownloadState::Failed(FailReason::NoSpace);

impl Client {
    /// Repeats at once the unanswered requests of downloads and of the bootstrap, since an edge answers now or the
    /// network has changed.
    pub(super) fn on_edges_back(&mut self, cx: &mut Context<'_>) {
        if core::mem::take(&mut self.edges_away) && self.timers.get(Timer::Bootstrap).is_some() && self.bootstrap_failed
        {
            self.bootstrap(cx);
        }
        let active: Vec<_> = self.jobs.iter().filter(|(_, job)| job.is_active()).map(|(handle, _)| *handle).collect();
        for handle in active {
            self.tell_swarm(cx, handle, download::Input::EdgeAnswered);
            if self.jobs.get(&handle).is_some_and(|job| job.unanswered) && self.timers.get(Timer::Ask(handle)).is_some()
            {
                self.ask_again(cx, handle);
            }
        }
    }

    /// Fails a download that continued without an edge and has no peer either, because the user waits for it.
    pub(super) fn on_alone_timer(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let Some(job) = self.jobs.get(&handle).filter(|job| job.is_active()) else { return };
        let Some(swarm) = &job.swarm else { return };
        if swarm.peers().next().is_some() || swarm.has_edge() {
            return;
        }
        self.fail(cx, handle, FailReason::EdgeUnreachable);
    }

    /// Sets the timer for the next check of free disk space, if a full disk has stopped the download; else clears it.
    pub(super) fn set_room_timer(&mut self, cx: &mut Context<'_>, handle: Handle, state: DownloadState) {
        let waits = cx.cfg.background && state == DISK_FULL;
        let job = self.jobs.get_mut(&handle).filter(|_| waits);
        let at = job.map(|job| cx.now.after(job.room_backoff.failed(cx.cfg.room_backoff, cx.rng)));
        self.timers.set(Timer::Room(handle), at);
    }

    /// Schedules, at the start of a background client, the space check for each download that a full disk has stopped.
    pub(super) fn look_for_room(&mut self, cx: &mut Context<'_>) {
        let stopped = |job: &Job| job.record.state == DISK_FULL;
        let handles: Vec<_> = self.jobs.iter().filter(|(_, job)| stopped(job)).map(|(handle, _)| *handle).collect();
        for handle in handles {
            self.set_room_timer(cx, handle, DISK_FULL);
        }
    }

    /// Asks the store whether the disk has room for the rest of a download.
    pub(super) fn on_room_timer(&mut self, cx: &mut Context<'_>, handle: Handle) {
        self.save(cx, Save::Room { handle }, Saving::Room { handle });
    }

    /// Continues a download that a full disk has stopped, unless the disk is still full or the download's state has
    /// been changed meanwhile.
    pub(super) fn on_room(&mut self, cx: &mut Context<'_>, handle: Handle, result: Result<(), StoreError>) {
        if self.jobs.get(&handle).is_none_or(|job| job.record.state != DISK_FULL) || self.stopped {
            return;
        }
        match result {
            Ok(()) => self.go_on(cx, handle, None),
            Err(_) => self.set_room_timer(cx, handle, DISK_FULL),
        }
    }
}
