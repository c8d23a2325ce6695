//! Timers, pending writes, request numbers and the time of the wall clock: what every part of a client uses.

use super::Context;
use super::io::{CommandError, Notice, Output, Save};
use crate::ids::{Handle, IntroId, PieceIndex, ReqId};
use crate::session::Wall;
use crate::wire::notice::Known;
use crate::wire::records::{SignedCheckpoint, UsageRecord};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Purpose of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// First call of the machine; the time-out is due at once.
    Start,
    /// Request the bootstrap from an edge again.
    Bootstrap,
    /// Timer of a download's swarm machine.
    Download(Handle),
    /// Repeat a download's request to an edge after its back-off.
    Ask(Handle),
    /// Renew a download's grant before it expires.
    Renew(Handle),
    /// End a download that a user waits for and that has run without an edge, if it has found no peer either.
    Alone(Handle),
    /// Check whether the disks have room for a download that a full disk has stopped.
    Room(Handle),
    /// Save the numbers of bytes sent of each version.
    Terms,
    /// Stop sharing the version that expires next.
    Expiry,
    /// Time-out of a link to a peer: the connection has not opened, or `Hello` is not answered.
    Links,
    /// Timer of the control session machine.
    Session,
    /// Timer of the uploads machine.
    Uploads,
    /// Timer of the connectivity machine.
    Connectivity,
    /// Timer of the receipts machine.
    Receipts,
    /// Report every download's status to the user.
    Status,
    /// Write the usage records that are due.
    Usage,
    /// End the wait for the last acknowledgements before a rekey, or start the next attempt.
    Rekey,
}

/// Follow-up of a durable write, done while its [`super::Input::Saved`] is handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Saving {
    Nothing,
    /// Answer the user's command.
    Command {
        answer: Option<ReqId>,
        handle: Option<Handle>,
    },
    Piece {
        handle: Handle,
        piece: PieceIndex,
    },
    Finish {
        handle: Handle,
    },
    /// Continue the download if its disks have room.
    Room {
        handle: Handle,
    },
    /// Append the durable record to the log; only then may it be sent.
    Usage(UsageRecord),
    /// Pass the durable checkpoint to the session, which may show it to CNs.
    Checkpoint(Box<SignedCheckpoint>),
    /// Raise the downloader's credit, since its receipt is durable.
    Receipt {
        intro: IntroId,
        bytes: u64,
    },
    /// Acknowledge the notice, since it is durable.
    Notice(Known),
}

impl Saving {
    fn is_of_pieces(&self, of: Handle) -> bool {
        matches!(self, Self::Piece { handle, .. } | Self::Finish { handle } if *handle == of)
    }
}

/// Timers, pending writes, request numbers and the time of the wall clock, which every part of a client uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Common {
    pub(super) timers: Deadlines<Timer>,
    /// Writes that are not durable yet.
    saves: BTreeMap<ReqId, Saving>,
    /// Number that the next request gets, be it to the store, to an edge or for a key.
    pub(super) next_req: ReqId,
    /// Time of the wall clock; `None` until a server has told it.
    pub(super) wall: Option<Wall>,
    stopped: bool,
}

impl Common {
    /// Returns the number of a new request.
    pub(super) fn next_req(&mut self) -> ReqId {
        self.next_req.step()
    }

    /// Has the store write something; `saving` is done once that is durable.
    pub(super) fn save(&mut self, cx: &mut Context<'_>, what: Save, saving: Saving) {
        let req = self.next_req();
        let before = self.saves.insert(req, saving);
        debug_assert!(before.is_none(), "a request's number is given once");
        cx.push(Output::Save { req, what });
    }

    /// Removes a write that the store has ended, and returns its follow-up.
    pub(super) fn take_saving(&mut self, req: ReqId) -> Option<Saving> {
        self.saves.remove(&req)
    }

    /// Drops the follow-ups of writes of a download's pieces: they refer to a swarm that is dropped, and a new one must
    /// not hear of them.
    pub(super) fn forget_pieces(&mut self, handle: Handle) {
        self.saves.values_mut().filter(|s| s.is_of_pieces(handle)).for_each(|s| *s = Saving::Nothing);
    }

    /// Returns whether every write is durable or has failed.
    pub(super) fn is_all_saved(&self) -> bool {
        self.saves.is_empty()
    }

    /// Returns the request numbers of the pending writes.
    pub(super) fn saving(&self) -> impl Iterator<Item = &ReqId> {
        self.saves.keys()
    }

    /// Returns the time of the wall clock in Unix milliseconds; `None` until a server has told it.
    pub(super) fn wall_ms(&self, now: Time) -> Option<u64> {
        self.wall.map(|wall| wall.at(now))
    }

    /// Runs a child machine, copies its next deadline to the client's timer, and returns its outputs.
    pub(super) fn run_child<C: Machine>(
        &mut self,
        cx: &mut Context<'_>,
        cfg: &C::Config,
        timer: Timer,
        child: &mut C,
        f: impl FnOnce(&mut C, &mut Cx<'_, C>),
    ) -> Vec<C::Output> {
        let outputs = cx.child(cfg, |cx| f(child, cx));
        self.timers.set(timer, child.poll_timeout());
        outputs
    }

    /// Sets the timer for the next report of all downloads' status to the user.
    pub(super) fn report_status_later(&mut self, cx: &Context<'_>) {
        self.timers.set(Timer::Status, Some(cx.now.after(cx.cfg.status_every)));
    }

    /// Clears every timer; from now on the client only waits for pending writes.
    pub(super) fn stop(&mut self) {
        self.timers = Deadlines::default();
        self.stopped = true;
    }

    /// Returns whether the client has stopped.
    pub(super) const fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Answers a command of the user.
pub(super) fn answer(cx: &mut Context<'_>, req: ReqId, result: Result<Option<Handle>, CommandError>) {
    cx.push(Output::Notice(Notice::Done { req, result }));
}
