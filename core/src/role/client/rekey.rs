//! A new key for this installation, because copies of it run (DESIGN §5). The order: the shell makes the key and keeps
//! it; the CN is told, under both keys' signatures; when the old GUID's end is in the ledger, what was done under the
//! old key is brought to its books' end; then the shell puts the new key in the old one's place, and the client begins
//! anew under it, as after a restart: downloads go on with what they have, under new grants. A crash anywhere between
//! these begins again at the last thing that is durable: the new key beside the old one.

use super::io::{DownloadState, Output, Save};
use super::{Client, Context, Job, Saving, Timer};
use crate::ids::{Guid, Handle, ReqId};
use crate::session::client as session;
use crate::swarm::upload;
use crate::wire::records::SignedRekey;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// Downloads rest no longer than this for the books' sake: the ledger may be away.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Then they go on under the old key, and the next try is after this.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// How far the change of keys is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Rekey {
    /// There is none.
    #[default]
    None,
    /// The shell makes the key.
    Making(ReqId),
    /// It is kept; the CN is told.
    Told,
    /// The old GUID is retired; until [`Timer::Rekey`].
    Retired,
    /// Transfers rest and the books are being closed; whether the last records are written.
    Closing { reported: bool },
    /// The shell has the last word.
    Done,
}

/// Whose the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// This GUID's.
    #[default]
    Us,
    /// It does not say.
    Nobody,
    /// Another GUID's: this installation was copied, or has taken another key.
    Another,
}

impl Owner {
    pub(super) fn of(kept: Option<Guid>, guid: Guid) -> Self {
        match kept {
            None => Self::Nobody,
            Some(owner) if owner == guid => Self::Us,
            Some(_) => Self::Another,
        }
    }
}

impl Client {
    /// A CN orders a new key. One order is enough.
    pub(super) fn rekey_ordered(&mut self, cx: &mut Context<'_>) {
        if self.rekey == Rekey::None {
            let req = self.next_req.step();
            self.rekey = Rekey::Making(req);
            cx.push(Output::MakeKey { req });
        }
    }

    /// The key is made and durable, or could not be: then the next order tries again.
    pub(super) fn key_made(&mut self, cx: &mut Context<'_>, req: ReqId, made: Option<Box<SignedRekey>>) {
        if self.rekey != Rekey::Making(req) {
            return;
        }
        self.rekey = Rekey::None;
        if let Some(signed) = made {
            self.take_key(cx, signed);
        }
    }

    /// A new key is durable: the CNs are told of it.
    pub(super) fn take_key(&mut self, cx: &mut Context<'_>, signed: Box<SignedRekey>) {
        self.rekey = Rekey::Told;
        self.tell_session(cx, session::Input::Rekey(signed));
    }

    /// The old GUID's end is in the ledger.
    pub(super) fn guid_retired(&mut self, cx: &mut Context<'_>) {
        if self.rekey == Rekey::Told {
            self.close_books(cx);
        }
    }

    fn active(&self) -> Vec<Handle> {
        self.jobs.iter().filter(|(_, j)| j.is_active()).map(|(h, _)| *h).collect()
    }

    /// Lets transfers rest, so that the books can be brought to an end.
    fn close_books(&mut self, cx: &mut Context<'_>) {
        self.rekey = Rekey::Closing { reported: false };
        for handle in self.active() {
            let Some(state) = self.jobs.get(&handle).map(|j| j.record.state) else { continue };
            self.halt(cx, handle, state);
        }
        self.tell_uploads(cx, upload::Input::Allow(false));
        self.timers.set(Timer::Rekey, Some(cx.now.after(CLOSE_WITHIN)));
    }

    /// The books could not be closed in time, or are to be closed now.
    pub(super) fn rekey_due(&mut self, cx: &mut Context<'_>) {
        match self.rekey {
            Rekey::Closing { .. } => {
                self.rekey = Rekey::Retired;
                self.tell_uploads(cx, upload::Input::Allow(self.session.uploads()));
                self.share_all(cx);
                for handle in self.active() {
                    self.go_on(cx, handle);
                }
                self.timers.set(Timer::Rekey, Some(cx.now.after(TRY_AGAIN)));
            }
            Rekey::Retired => self.close_books(cx),
            Rekey::None | Rekey::Making(_) | Rekey::Told | Rekey::Done => {}
        }
    }

    /// Looks, after each event, whether the books are closed.
    pub(super) fn rekey_goes_on(&mut self, cx: &mut Context<'_>) {
        let Rekey::Closing { reported } = self.rekey else { return };
        if !self.fetches.is_empty() || !self.saves.is_empty() {
            return;
        }
        if !reported {
            self.rekey = Rekey::Closing { reported: true };
            self.report_all(cx);
        }
        if self.saves.is_empty() && self.logging.is_empty() && self.session.is_reported() {
            self.rekey = Rekey::Done;
            self.tell_session(cx, session::Input::Shutdown);
            self.timers = crate::Deadlines::default();
            self.stopped = true;
            cx.push(Output::AdoptKey);
        }
    }

    /// The first thing of a start: from here on all is kept under this GUID; and a change of keys goes on.
    pub(super) fn begin_as(&mut self, cx: &mut Context<'_>) {
        let owner = core::mem::take(&mut self.owner);
        if owner == Owner::Another {
            let handles: Vec<_> = self.jobs.keys().copied().collect();
            for handle in handles {
                self.save_record(cx, handle, None);
            }
        }
        if owner != Owner::Us {
            self.save(cx, Save::Owner(cx.cfg.identity.guid), Saving::Nothing);
        }
        if let Some(signed) = self.new_key.take() {
            self.take_key(cx, signed);
        }
    }

    /// What was granted to another GUID serves this one no more: unfinished downloads ask anew, and keep what they
    /// have.
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
    /// Its grant is another GUID's.
    pub(super) fn is_void(&self) -> bool {
        self.granted().is_some_and(|g| g.expires_ms == 0)
    }
}
