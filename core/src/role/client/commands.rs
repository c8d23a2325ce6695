//! The user's commands: get, pause, resume, cancel, remove from the cache, shut down; and pieces that the store has
//! lost.

use super::io::{
    Command, CommandError, CommandKind, DownloadRecord, DownloadState, Notice, ObjectRef, Output, Save, SourceName,
};
use super::job::Job;
use super::{Client, Context, Saving, Timer};
use crate::content::Bitfield;
use crate::ids::{Handle, ReqId, VersionId};
use crate::session::client as session;
use crate::swarm::{download, upload};
use crate::wire::records::UsageState;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

type Result<T> = core::result::Result<T, CommandError>;

impl Client {
    pub(super) fn on_command(&mut self, cx: &mut Context<'_>, command: Command) {
        let Command { req, kind } = command;
        let refused = match kind {
            CommandKind::Get { object, output, replace } => self.get(cx, req, object, (output, replace)),
            CommandKind::Pause(handle) => self.pause(cx, req, handle),
            CommandKind::Resume(handle) => self.resume(cx, req, handle),
            CommandKind::Cancel(handle) => self.cancel(cx, req, handle),
            CommandKind::Uploads(on) => {
                self.allow_uploads(cx, on);
                self.save(cx, Save::Uploads(on), Saving::Command { answer: Some(req), handle: None });
                Ok(())
            }
            CommandKind::RemoveCached(version) => self.remove_cached(cx, req, version),
            CommandKind::Shutdown => {
                self.shutdown(cx, req);
                Ok(())
            }
        };
        if let Err(why) = refused {
            Self::answer(cx, req, Err(why));
        }
    }

    pub(super) fn answer(cx: &mut Context<'_>, req: ReqId, result: Result<Option<Handle>>) {
        cx.push(Output::Notice(Notice::Done { req, result }));
    }

    /// Starts a download of an object, or resumes it; a resumed download accepts a newer version of the object.
    fn get(&mut self, cx: &mut Context<'_>, req: ReqId, object: ObjectRef, output: (String, bool)) -> Result<()> {
        let known = self.jobs.iter().find(|(_, j)| j.record.object == object);
        let known = known.map(|(handle, job)| (*handle, job.record.state, job.record.output == output.0));
        match known {
            Some((_, DownloadState::Starting | DownloadState::Running, false)) => {
                return Err(CommandError::AlreadyRunning);
            }
            Some((handle, DownloadState::Starting | DownloadState::Running, true)) => {
                Self::answer(cx, req, Ok(Some(handle)));
            }
            Some((handle, DownloadState::Paused | DownloadState::Failed(_), _)) => {
                if let Some(job) = self.jobs.get_mut(&handle) {
                    (job.record.output, job.record.replace) = output;
                    job.newest = true;
                }
                self.begin(cx, handle, req);
            }
            // completed: its cached copy serves a new download of the same version
            Some((handle, DownloadState::Completed, _)) => {
                let version = self.jobs.remove(&handle).and_then(|job| job.record.granted).map(|g| g.version);
                self.timers.clear(Timer::Download(handle));
                self.save(cx, Save::Forget { handle }, Saving::Nothing);
                version.into_iter().for_each(|version| self.release(version));
                self.get_anew(cx, req, object, output);
            }
            None => self.get_anew(cx, req, object, output),
        }
        Ok(())
    }

    fn get_anew(&mut self, cx: &mut Context<'_>, req: ReqId, object: ObjectRef, (output, replace): (String, bool)) {
        let handle = self.next_handle.step();
        let state = DownloadState::Starting;
        let record =
            DownloadRecord { handle, object, output, replace, granted: None, state, usage_seq: 0, active_ms: 0 };
        let before = self.jobs.insert(handle, Job::new(record, Bitfield::empty(0), Vec::new(), cx.now));
        debug_assert!(before.is_none(), "a handle is given once");
        self.begin(cx, handle, req);
    }

    fn begin(&mut self, cx: &mut Context<'_>, handle: Handle, req: ReqId) {
        if let Some(job) = self.jobs.get_mut(&handle) {
            job.room_backoff.succeeded();
        }
        self.go_on(cx, handle, Some(req));
    }

    /// Starts or continues a download; `answer` is the number of the user's command, if one asked for it.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>, handle: Handle, answer: Option<ReqId>) {
        self.timers.clear(Timer::Room(handle));
        self.set_state(cx, handle, DownloadState::Starting);
        self.save_record(cx, handle, answer);
        self.continue_download(cx, handle);
        self.report_soon(cx, cx.now);
        self.timers.set(Timer::Status, Some(cx.now.after(cx.cfg.status_every)));
    }

    fn pause(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(&handle).ok_or(CommandError::UnknownHandle)?;
        if !job.is_active() && self.timers.get(Timer::Room(handle)).is_none() {
            Self::answer(cx, req, Ok(Some(handle)));
            return Ok(());
        }
        self.halt(cx, handle, DownloadState::Paused);
        self.report(cx, handle, UsageState::Running);
        self.save_record(cx, handle, Some(req));
        Ok(())
    }

    fn resume(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(&handle).ok_or(CommandError::UnknownHandle)?;
        match job.record.state {
            DownloadState::Paused | DownloadState::Failed(_) => self.begin(cx, handle, req),
            DownloadState::Starting | DownloadState::Running | DownloadState::Completed => {
                Self::answer(cx, req, Ok(Some(handle)));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(&handle).ok_or(CommandError::UnknownHandle)?;
        let completed = job.record.state == DownloadState::Completed;
        if !completed {
            self.halt(cx, handle, DownloadState::Paused);
            self.report(cx, handle, UsageState::Cancelled);
        }
        let version = self.jobs.remove(&handle).and_then(|job| job.record.granted).map(|g| g.version);
        self.timers.clear(Timer::Download(handle));
        self.timers.clear(Timer::Room(handle));
        if let Some(version) = version.filter(|v| !self.versions.is_cached(*v)) {
            self.unshare(cx, version);
            self.release(version);
        }
        self.save(cx, Save::Forget { handle }, Saving::Command { answer: Some(req), handle: Some(handle) });
        Ok(())
    }

    fn remove_cached(&mut self, cx: &mut Context<'_>, req: ReqId, version: VersionId) -> Result<()> {
        let of_version: Vec<_> =
            self.jobs.iter().filter(|(_, j)| j.granted().is_some_and(|g| g.version == version)).collect();
        if of_version.iter().any(|(_, j)| j.record.state != DownloadState::Completed) {
            return Err(CommandError::InUse);
        }
        if !self.versions.is_cached(version) {
            return Err(CommandError::UnknownVersion);
        }
        self.uncache(cx, version, Saving::Command { answer: Some(req), handle: None });
        Ok(())
    }

    /// Deletes a cached version and forgets its completed downloads; the files that they made are left to the user.
    pub(super) fn uncache(&mut self, cx: &mut Context<'_>, version: VersionId, saving: Saving) {
        let of_version = self.jobs.iter().filter(|(_, j)| j.granted().is_some_and(|g| g.version == version));
        let handles: Vec<_> = of_version.map(|(handle, _)| *handle).collect();
        self.versions.remove(version);
        self.unshare(cx, version);
        for handle in handles {
            self.jobs.remove(&handle);
            self.timers.clear(Timer::Download(handle));
            self.save(cx, Save::Forget { handle }, Saving::Nothing);
        }
        self.release(version);
        self.save(cx, Save::Uncache { version }, saving);
    }

    /// Handles the loss of a version's pieces: only the pieces `left` are still in the store. Completed downloads of
    /// the version are forgotten and their files left to the user; other downloads continue from `left`.
    pub(super) fn on_version_lost(
        &mut self,
        cx: &mut Context<'_>,
        version: VersionId,
        left: &Bitfield,
        mut sources: BTreeMap<Handle, BTreeMap<SourceName, u64>>,
    ) {
        self.versions.remove(version);
        self.unshare(cx, version);
        let of_version = self.jobs.iter().filter(|(_, j)| j.granted().is_some_and(|g| g.version == version));
        let handles: Vec<_> = of_version.map(|(handle, _)| *handle).collect();
        for handle in handles {
            // transfers under way are cancelled without waiting for their ends
            self.tell_swarm(cx, handle, download::Input::Stop);
            self.timers.clear(Timer::Download(handle));
            let Some(job) = self.jobs.get_mut(&handle) else { continue };
            if job.record.state == DownloadState::Completed {
                self.jobs.remove(&handle);
                self.save(cx, Save::Forget { handle }, Saving::Nothing);
                continue;
            }
            job.drop_swarm();
            job.search.stop();
            job.have.clone_from(left);
            job.counted = sources.remove(&handle).unwrap_or_default().into_iter().collect();
            // pending saves of pieces refer to the dropped swarm: the new one must not hear of them
            self.saves.values_mut().filter(|s| s.is_of_pieces(handle)).for_each(|s| *s = Saving::Nothing);
            self.end_links_of(cx, handle);
            self.notify_status(cx, handle);
            if self.jobs.get(&handle).is_some_and(|job| job.is_active() && job.asked.is_none()) {
                self.continue_download(cx, handle);
            }
        }
        // the store has forgotten the terms if it has forgotten every piece
        self.versions.save_again(version);
        self.release(version);
        self.save_terms(cx);
    }

    /// Stops every transfer, says goodbye to the CN, and writes the last usage records. Active downloads resume at
    /// the next start.
    fn shutdown(&mut self, cx: &mut Context<'_>, req: ReqId) {
        let handles: Vec<_> = self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect();
        for handle in handles {
            let Some(state) = self.jobs.get(&handle).map(|j| j.record.state) else { continue };
            self.halt(cx, handle, state);
        }
        self.tell_uploads(cx, upload::Input::Allow(false));
        self.report_all(cx);
        self.save_terms(cx);
        self.tell_session(cx, session::Input::Shutdown);
        self.timers = crate::Deadlines::default();
        self.stopped = true;
        // the store writes in order: when this last write is done, all are
        let last = Saving::Command { answer: Some(req), handle: None };
        self.save(cx, Save::UsageDone(Vec::new()), last);
    }
}
