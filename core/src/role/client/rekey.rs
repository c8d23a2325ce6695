//! Rekey: a new key for this installation, because copies of it run (DESIGN §5).
//!
//! 1. The shell makes the key and stores it beside the old one.
//! 2. The CN gets the new key, signed by both keys.
//! 3. When the ledger has retired the old GUID, transfers stop and the last usage records of the old key are sent.
//! 4. The shell replaces the key and restarts the client from its store; downloads keep their pieces and ask for new
//!    grants.
//!
//! A crash in between begins again at step 2 if the new key is stored, else with the CN's next order.

use super::io::{DownloadState, KeyOutput, Output, Save};
use super::{Client, Context, Job, Saving, Timer};
use crate::ids::{Guid, Handle, ReqId};
use crate::session::client as session;
use crate::swarm::upload;
use crate::wire::records::SignedRekey;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// Maximum time for which downloads stop until the last usage records are acknowledged; the ledger may be
/// unreachable.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Wait before the next attempt to close the old key's records; downloads continue under the old key meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Stage of the rekey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Rekey {
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
    pub(super) fn of(kept: Option<Guid>, guid: Guid) -> Self {
        match kept {
            None => Self::Unset,
            Some(owner) if owner == guid => Self::This,
            Some(_) => Self::Other,
        }
    }
}

impl Client {
    /// Starts the rekey that a CN has ordered, unless one is in progress.
    pub(super) fn on_rekey_ordered(&mut self, cx: &mut Context<'_>) {
        if self.rekey == Rekey::None {
            let req = self.next_req.step();
            self.rekey = Rekey::Making(req);
            cx.push(Output::Key(KeyOutput::Make { req }));
        }
    }

    /// Continues a rekey with the new key that the shell has made; if it could not store one, the client waits for
    /// the next order.
    pub(super) fn on_key_made(&mut self, cx: &mut Context<'_>, req: ReqId, made: Option<Box<SignedRekey>>) {
        if self.rekey != Rekey::Making(req) {
            return;
        }
        self.rekey = Rekey::None;
        if let Some(signed) = made {
            self.take_key(cx, signed);
        }
    }

    /// Tells the CNs of a new key that is durable.
    pub(super) fn take_key(&mut self, cx: &mut Context<'_>, signed: Box<SignedRekey>) {
        self.rekey = Rekey::Announced;
        self.tell_session(cx, session::Input::Rekey(signed));
    }

    /// Continues a rekey, because the ledger has retired the old GUID.
    pub(super) fn on_guid_retired(&mut self, cx: &mut Context<'_>) {
        if self.rekey == Rekey::Announced {
            self.close_books(cx);
        }
    }

    fn active(&self) -> Vec<Handle> {
        self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect()
    }

    /// Stops all transfers, so that the last usage records under the old key can be written.
    fn close_books(&mut self, cx: &mut Context<'_>) {
        self.rekey = Rekey::Closing { reported: false };
        for handle in self.active() {
            let Some(state) = self.jobs.get(&handle).map(|j| j.record.state) else { continue };
            self.halt(cx, handle, state);
        }
        self.tell_uploads(cx, upload::Input::Allow(false));
        self.timers.set(Timer::Rekey, Some(cx.now.after(CLOSE_WITHIN)));
    }

    /// Resumes downloads if the last records were not acknowledged in time; later starts the next attempt.
    pub(super) fn on_rekey_timer(&mut self, cx: &mut Context<'_>) {
        match self.rekey {
            Rekey::Closing { .. } => {
                self.rekey = Rekey::Retired;
                self.tell_uploads(cx, upload::Input::Allow(self.session.uploads()));
                self.share_all(cx);
                for handle in self.active() {
                    self.continue_download(cx, handle);
                }
                self.timers.set(Timer::Rekey, Some(cx.now.after(TRY_AGAIN)));
            }
            Rekey::Retired => self.close_books(cx),
            Rekey::None | Rekey::Making(_) | Rekey::Announced | Rekey::Done => {}
        }
    }

    /// Checks, after each event, whether the rekey can take its next step.
    pub(super) fn advance_rekey(&mut self, cx: &mut Context<'_>) {
        let Rekey::Closing { reported } = self.rekey else { return };
        if !self.fetches.is_empty() || !self.saves.is_empty() {
            return;
        }
        if !reported {
            self.rekey = Rekey::Closing { reported: true };
            self.report_all(cx);
        }
        if self.saves.is_empty() && self.books.signing().next().is_none() && self.session.is_reported() {
            self.rekey = Rekey::Done;
            self.tell_session(cx, session::Input::Shutdown);
            self.timers = crate::Deadlines::default();
            self.stopped = true;
            cx.push(Output::Key(KeyOutput::Adopt));
        }
    }

    /// Claims the store for this GUID at the start, and continues an interrupted rekey.
    pub(super) fn claim_store(&mut self, cx: &mut Context<'_>) {
        let owner = core::mem::take(&mut self.owner);
        if owner == Owner::Other {
            let handles: Vec<_> = self.jobs.keys().copied().collect();
            for handle in handles {
                self.save_record(cx, handle, None);
            }
        }
        if owner != Owner::This {
            self.save(cx, Save::Owner(cx.cfg.identity.guid), Saving::Nothing);
        }
        if let Some(signed) = self.new_key.take() {
            self.take_key(cx, signed);
        }
    }

    /// Voids grants of another GUID: unfinished downloads ask for new ones and keep their pieces.
    pub(super) fn void_grants(&mut self) {
        for job in self.jobs.values_mut().filter(|j| j.record.state != DownloadState::Completed) {
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
