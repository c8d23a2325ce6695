//! Rekey: a new key for this installation, because copies of it run (DESIGN §5).
//!
//! 1. The shell makes the key and stores it beside the old one.
//! 2. The CN gets the new key, signed by both keys.
//! 3. When the ledger has retired the old GUID, transfers stop and the last usage records of the old key are sent.
//! 4. The shell replaces the key and restarts the client from its store; downloads keep their pieces and ask for new
//!    grants.
//!
//! A crash in between begins again at step 2 if the new key is stored, else with the CN's next order.

use super::common::{Common, Saving, Timer};
use super::io::{DownloadState, KeyOutput, Output, Save};
use super::job::{Job, Jobs};
use super::{Client, Context};
use crate::ids::{Guid, ReqId};
use crate::session::client as session;
use crate::swarm::upload;
use crate::wire::records::SignedRekey;
use alloc::boxed::Box;
use core::time::Duration;

/// Maximum time for which downloads stop until the last usage records are acknowledged; the ledger may be
/// unreachable.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Wait before the next attempt to close the old key's records; downloads continue under the old key meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Step that the rekey has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// No rekey is in progress.
    #[default]
    None,
    /// The shell is making the new key.
    Making(ReqId),
    /// The new key is stored, and CNs are being told of it.
    Announced,
    /// The old GUID is retired, but not all of its records are acknowledged; the next attempt is at [`Timer::Rekey`].
    Retired,
    /// Transfers are stopped. `reported`: the last usage records are written, and wait for their acknowledgement.
    Closing { reported: bool },
    /// Every record is acknowledged, and the shell is replacing the key.
    Done,
}

/// Owner of the store, compared with this client's GUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// The store belongs to this GUID.
    #[default]
    This,
    /// The store names no owner.
    Unset,
    /// The store belongs to another GUID: this installation was copied, or has changed its key.
    Other,
}

impl Owner {
    /// Returns the owner of a store that keeps this GUID.
    pub(super) fn of(kept: Option<Guid>, guid: Guid) -> Self {
        match kept {
            None => Self::Unset,
            Some(owner) if owner == guid => Self::This,
            Some(_) => Self::Other,
        }
    }
}

/// Change of the installation's key, and the owner of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rekey {
    pub(super) step: Step,
    pub(super) owner: Owner,
    /// New key made by an earlier start, whose rekey the ledger may not have; `None` once the first call has handled
    /// it.
    new_key: Option<Box<SignedRekey>>,
}

impl Rekey {
    /// Returns the state at a start: the owner of the store, and the key that an earlier start has made.
    pub(super) fn restored(owner: Owner, new_key: Option<Box<SignedRekey>>) -> Self {
        Self { step: Step::None, owner, new_key }
    }

    /// Starts the rekey that a CN has ordered, unless one is in progress.
    pub(super) fn on_ordered(&mut self, common: &mut Common, cx: &mut Context<'_>) {
        if self.step == Step::None {
            let req = common.next_req();
            self.step = Step::Making(req);
            cx.push(Output::Key(KeyOutput::Make { req }));
        }
    }

    /// Continues a rekey with the new key that the shell has made; if it could not store one, the client waits for
    /// the next order. Returns the key that the CNs are to be told.
    pub(super) fn on_key_made(&mut self, req: ReqId, made: Option<Box<SignedRekey>>) -> Option<Box<SignedRekey>> {
        if self.step != Step::Making(req) {
            return None;
        }
        self.step = if made.is_some() { Step::Announced } else { Step::None };
        made
    }

    /// Claims the store for this GUID at the start: records of downloads get their new owner. Returns the new key of
    /// an interrupted rekey, which the CNs are to be told.
    pub(super) fn claim_store(
        &mut self,
        common: &mut Common,
        jobs: &Jobs,
        cx: &mut Context<'_>,
    ) -> Option<Box<SignedRekey>> {
        let owner = core::mem::take(&mut self.owner);
        if owner == Owner::Other {
            for handle in jobs.all() {
                jobs.save_record(common, cx, handle, None);
            }
        }
        if owner != Owner::This {
            common.save(cx, Save::Owner(cx.cfg.identity.guid), Saving::Nothing);
        }
        let signed = self.new_key.take()?;
        self.step = Step::Announced;
        Some(signed)
    }

    /// Returns whether CNs are being told of the new key.
    pub(super) fn is_announced(&self) -> bool {
        self.step == Step::Announced
    }

    /// Returns whether the first call has claimed the store.
    pub(super) fn has_claimed_store(&self) -> bool {
        self.owner == Owner::This && self.new_key.is_none()
    }

    /// Returns the number of the request for a new key that the shell is handling.
    pub(super) const fn making(&self) -> Option<ReqId> {
        if let Step::Making(req) = self.step { Some(req) } else { None }
    }

    /// Asserts that a rekey that waits has a deadline, and that a client with another key has stopped.
    pub(super) fn check(&self, common: &Common) {
        let closing = matches!(self.step, Step::Closing { .. } | Step::Retired);
        let waits = common.timers.get(Timer::Rekey).is_some();
        assert!(closing == waits || common.is_stopped(), "a rekey that waits has a deadline");
        assert!(self.step != Step::Done || common.is_stopped(), "a client that takes a new key has stopped");
    }
}

impl Client {
    /// Tells the CNs of a new key that is durable, if there is one.
    pub(super) fn announce_key(&mut self, cx: &mut Context<'_>, signed: Option<Box<SignedRekey>>) {
        if let Some(signed) = signed {
            self.tell_session(cx, session::Input::Rekey(signed));
        }
    }

    /// Stops all transfers, so that the last usage records under the old key can be written.
    pub(super) fn close_books(&mut self, cx: &mut Context<'_>) {
        self.rekey.step = Step::Closing { reported: false };
        self.halt_all(cx);
        self.common.timers.set(Timer::Rekey, Some(cx.now.after(CLOSE_WITHIN)));
    }

    /// Stops all downloads, which keep their state, and all uploads.
    pub(super) fn halt_all(&mut self, cx: &mut Context<'_>) {
        for handle in self.jobs.active() {
            let Some(state) = self.jobs.get(handle).map(|job| job.record.state) else { continue };
            self.halt(cx, handle, state);
        }
        self.tell_uploads(cx, upload::Input::Allow(false));
    }

    /// Resumes downloads if the last records were not acknowledged in time; later starts the next attempt.
    pub(super) fn on_rekey_timer(&mut self, cx: &mut Context<'_>) {
        match self.rekey.step {
            Step::Closing { .. } => {
                self.rekey.step = Step::Retired;
                self.tell_uploads(cx, upload::Input::Allow(self.session.uploads()));
                self.share_all(cx);
                for handle in self.jobs.active() {
                    self.continue_download(cx, handle);
                }
                self.common.timers.set(Timer::Rekey, Some(cx.now.after(TRY_AGAIN)));
            }
            Step::Retired => self.close_books(cx),
            Step::None | Step::Making(_) | Step::Announced | Step::Done => {}
        }
    }

    /// Checks, after each event, whether the rekey can take its next step.
    pub(super) fn advance_rekey(&mut self, cx: &mut Context<'_>) {
        let Step::Closing { reported } = self.rekey.step else { return };
        if self.jobs.is_fetching() || !self.common.is_all_saved() {
            return;
        }
        if !reported {
            self.rekey.step = Step::Closing { reported: true };
            self.books.report_all(&mut self.common, &mut self.jobs, cx);
        }
        let is_reported = self.books.signing().next().is_none() && self.session.is_reported();
        if self.common.is_all_saved() && is_reported {
            self.rekey.step = Step::Done;
            self.tell_session(cx, session::Input::Shutdown);
            self.common.stop();
            cx.push(Output::Key(KeyOutput::Adopt));
        }
    }
}

impl Jobs {
    /// Voids grants of another GUID: unfinished downloads ask for new ones and keep their pieces.
    pub(super) fn void_grants(&mut self) {
        for job in self.values_mut().filter(|job| job.record.state != DownloadState::Completed) {
            if let Some(granted) = &mut job.record.granted {
                granted.expires_ms = 0;
            }
            job.counted.clear();
        }
    }
}

impl Job {
    /// Returns whether the download's grant belongs to another GUID.
    pub(super) fn is_void(&self) -> bool {
        self.granted().is_some_and(|g| g.expires_ms == 0)
    }
}
