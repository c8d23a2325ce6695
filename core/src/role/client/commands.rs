//! The user's commands: get, pause, resume, cancel, remove from the cache, shut down; and pieces that the store has
//! lost.

use super::common::{Saving, Timer, answer};
use super::io::{Command, CommandError, CommandKind, DownloadState, ObjectRef, Save, SourceName};
use super::job::Job;
use super::{Client, Context};
use crate::content::Bitfield;
use crate::ids::{Handle, ReqId, VersionId};
use crate::session::client as session;
use crate::swarm::download;
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
                self.common.save(cx, Save::Uploads(on), Saving::Command { answer: Some(req), handle: None });
                Ok(())
            }
            CommandKind::RemoveCached(version) => self.remove_cached(cx, req, version),
            CommandKind::Shutdown => {
                self.shutdown(cx, req);
                Ok(())
            }
        };
        if let Err(why) = refused {
            answer(cx, req, Err(why));
        }
    }

    /// Starts a download of an object, or resumes it; a resumed download accepts a newer version of the object.
    fn get(&mut self, cx: &mut Context<'_>, req: ReqId, object: ObjectRef, output: (String, bool)) -> Result<()> {
        let known = self.jobs.of_object(&object);
        let known = known.map(|(handle, job)| (handle, job.record.state, job.record.output == output.0));
        match known {
            Some((_, DownloadState::Starting | DownloadState::Running, false)) => {
                return Err(CommandError::AlreadyRunning);
            }
            Some((handle, DownloadState::Starting | DownloadState::Running, true)) => {
                answer(cx, req, Ok(Some(handle)));
            }
            Some((handle, DownloadState::Paused | DownloadState::Failed(_), _)) => {
                if let Some(job) = self.jobs.get_mut(handle) {
                    (job.record.output, job.record.replace) = output;
                    job.newest = true;
                }
                self.go_on(cx, handle, Some(req));
            }
            // completed: its cached copy serves a new download of the same version
            Some((handle, DownloadState::Completed, _)) => {
                let version = self.jobs.remove(&mut self.common, handle).and_then(|job| job.record.granted);
                self.common.save(cx, Save::Forget { handle }, Saving::Nothing);
                version.into_iter().for_each(|granted| self.copies.release(&self.jobs, granted.version));
                let handle = self.jobs.add(cx.now, object, output);
                self.go_on(cx, handle, Some(req));
            }
            None => {
                let handle = self.jobs.add(cx.now, object, output);
                self.go_on(cx, handle, Some(req));
            }
        }
        Ok(())
    }

    /// Starts or continues a download; `answer` is the number of the user's command, if one asked for it.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>, handle: Handle, answer: Option<ReqId>) {
        if let Some(job) = self.jobs.get_mut(handle).filter(|_| answer.is_some()) {
            job.room_backoff.succeeded();
        }
        self.common.timers.clear(Timer::Room(handle));
        self.jobs.set_state(cx, handle, DownloadState::Starting);
        self.jobs.save_record(&mut self.common, cx, handle, answer);
        self.continue_download(cx, handle);
        self.common.report_soon(cx, cx.now);
        self.common.report_status_later(cx);
    }

    fn pause(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(handle).ok_or(CommandError::UnknownHandle)?;
        if !job.is_active() && self.common.timers.get(Timer::Room(handle)).is_none() {
            answer(cx, req, Ok(Some(handle)));
            return Ok(());
        }
        self.halt(cx, handle, DownloadState::Paused);
        self.jobs.report(&mut self.common, cx, handle, UsageState::Running);
        self.jobs.save_record(&mut self.common, cx, handle, Some(req));
        Ok(())
    }

    fn resume(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(handle).ok_or(CommandError::UnknownHandle)?;
        match job.record.state {
            DownloadState::Paused | DownloadState::Failed(_) => self.go_on(cx, handle, Some(req)),
            DownloadState::Starting | DownloadState::Running | DownloadState::Completed => {
                answer(cx, req, Ok(Some(handle)));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, cx: &mut Context<'_>, req: ReqId, handle: Handle) -> Result<()> {
        let job = self.jobs.get(handle).ok_or(CommandError::UnknownHandle)?;
        let completed = job.record.state == DownloadState::Completed;
        if !completed {
            self.halt(cx, handle, DownloadState::Paused);
            self.jobs.report(&mut self.common, cx, handle, UsageState::Cancelled);
        }
        let job = self.jobs.remove(&mut self.common, handle);
        let version = job.and_then(|job| job.record.granted).map(|granted| granted.version);
        if let Some(version) = version.filter(|v| !self.copies.versions.is_cached(*v)) {
            self.unshare(cx, version);
            self.copies.release(&self.jobs, version);
        }
        self.common.save(cx, Save::Forget { handle }, Saving::Command { answer: Some(req), handle: Some(handle) });
        Ok(())
    }

    fn remove_cached(&mut self, cx: &mut Context<'_>, req: ReqId, version: VersionId) -> Result<()> {
        let needed = |job: &Job| job.is_of(version) && job.record.state != DownloadState::Completed;
        if !self.jobs.handles(needed).is_empty() {
            return Err(CommandError::InUse);
        }
        if !self.copies.versions.is_cached(version) {
            return Err(CommandError::UnknownVersion);
        }
        self.uncache(cx, version, Saving::Command { answer: Some(req), handle: None });
        Ok(())
    }

    /// Deletes a cached version and forgets its completed downloads; the files that they made are left to the user.
    pub(super) fn uncache(&mut self, cx: &mut Context<'_>, version: VersionId, saving: Saving) {
        let handles = self.jobs.of_version(version);
        self.copies.versions.remove(version);
        self.unshare(cx, version);
        for handle in handles {
            self.jobs.remove(&mut self.common, handle);
            self.common.save(cx, Save::Forget { handle }, Saving::Nothing);
        }
        self.copies.release(&self.jobs, version);
        self.common.save(cx, Save::Uncache { version }, saving);
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
        self.copies.versions.remove(version);
        self.unshare(cx, version);
        for handle in self.jobs.of_version(version) {
            // transfers under way are cancelled without waiting for their ends
            self.tell_swarm(cx, handle, download::Input::Stop);
            self.common.timers.clear(Timer::Download(handle));
            let Some(job) = self.jobs.get_mut(handle) else { continue };
            if job.record.state == DownloadState::Completed {
                self.jobs.remove(&mut self.common, handle);
                self.common.save(cx, Save::Forget { handle }, Saving::Nothing);
                continue;
            }
            job.drop_swarm();
            job.search.stop();
            job.have.clone_from(left);
            job.counted = sources.remove(&handle).unwrap_or_default().into_iter().collect();
            self.common.forget_pieces(handle);
            self.end_links_of(cx, handle);
            let Some(job) = self.jobs.get_mut(handle) else { continue };
            job.notify_status(cx);
            if job.is_active() && job.asked.is_none() {
                self.continue_download(cx, handle);
            }
        }
        // the store has forgotten the terms if it has forgotten every piece
        self.copies.versions.save_again(version);
        self.copies.release(&self.jobs, version);
        self.copies.versions.save_terms(&mut self.common, cx);
    }

    /// Stops every transfer, says goodbye to the CN, and writes the last usage records. Active downloads resume at
    /// the next start.
    fn shutdown(&mut self, cx: &mut Context<'_>, req: ReqId) {
        self.halt_all(cx);
        self.books.report_all(&mut self.common, &mut self.jobs, cx);
        self.copies.versions.save_terms(&mut self.common, cx);
        self.tell_session(cx, session::Input::Shutdown);
        self.common.stop();
        // the store writes in order: when this last write is done, all are
        let last = Saving::Command { answer: Some(req), handle: None };
        self.common.save(cx, Save::UsageDone(Vec::new()), last);
    }
}
