//! Outages that end without the user's action: an edge answers again, the network is back, a full disk has room.

use super::common::{Common, Timer};
use super::edges::Edges;
use super::io::{DownloadState, FailReason, StoreError};
use super::job::Jobs;
use super::{Client, Context};
use crate::ids::Handle;
use crate::swarm::download;

/// State of a download that a full disk has stopped.
const DISK_FULL: DownloadState = DownloadState::Failed(FailReason::NoSpace);

impl Jobs {
    /// Repeats at once a download's request that no edge has answered.
    fn ask_unanswered(&mut self, common: &mut Common, edges: &mut Edges, cx: &mut Context<'_>, handle: Handle) {
        let unanswered = self.get(handle).is_some_and(|job| job.unanswered);
        if unanswered && common.timers.get(Timer::Ask(handle)).is_some() {
            self.ask_again(common, edges, cx, handle);
        }
    }

    /// Returns whether an active download has a swarm, but no source.
    pub(super) fn is_alone(&self, handle: Handle) -> bool {
        let job = self.get(handle).filter(|job| job.is_active());
        job.and_then(|job| job.swarm.as_ref()).is_some_and(|swarm| swarm.peers().next().is_none() && !swarm.has_edge())
    }

    /// Sets the timer for the next check of free disk space, if a full disk has stopped the download; else clears it.
    pub(super) fn set_room_timer(
        &mut self,
        common: &mut Common,
        cx: &mut Context<'_>,
        handle: Handle,
        state: DownloadState,
    ) {
        let waits = cx.cfg.background && state == DISK_FULL;
        let job = self.get_mut(handle).filter(|_| waits);
        let at = job.map(|job| cx.now.after(job.room_backoff.failed(cx.cfg.room_backoff, cx.rng)));
        common.timers.set(Timer::Room(handle), at);
    }

    /// Schedules, at the start of a background client, the space check for each download that a full disk has stopped.
    pub(super) fn look_for_room(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        for handle in self.handles(|job| job.record.state == DISK_FULL) {
            self.set_room_timer(common, cx, handle, DISK_FULL);
        }
    }
}

impl Client {
    /// Repeats at once the unanswered requests of downloads and of the bootstrap, since an edge answers now or the
    /// network has changed.
    pub(super) fn on_edges_back(&mut self, cx: &mut Context<'_>) {
        self.edges.on_back(&mut self.common, cx);
        for handle in self.jobs.active() {
            self.tell_swarm(cx, handle, download::Input::EdgeAnswered);
            self.jobs.ask_unanswered(&mut self.common, &mut self.edges, cx, handle);
        }
    }

    /// Continues a download that a full disk has stopped, unless the disk is still full or the download's state has
    /// been changed meanwhile.
    pub(super) fn on_room(&mut self, cx: &mut Context<'_>, handle: Handle, result: Result<(), StoreError>) {
        if self.jobs.get(handle).is_none_or(|job| job.record.state != DISK_FULL) || self.common.is_stopped() {
            return;
        }
        match result {
            Ok(()) => self.go_on(cx, handle, None),
            Err(_) => self.jobs.set_room_timer(&mut self.common, cx, handle, DISK_FULL),
        }
    }
}
