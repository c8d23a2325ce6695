//! Commands under way and the machine's end: whoever waits for an answer gets it, or learns that none will come. Any
//! number of shutdowns may be under way; the machine answers one of them and has ended for all.
//!
//! Loom explores its schedules, as those of the mailbox.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use swarmedge_core::ids::{Handle, ReqId};
use swarmedge_core::role::client::io::CommandError;

/// The machine's answer to a command.
pub(super) type Answered = Result<Option<Handle>, CommandError>;

/// The outcome of waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// With the machine's answer.
    Answered(Answered),
    /// The machine has ended.
    Over,
    /// No answer came before the time-out.
    Silent,
}

/// The table of commands awaiting an answer (see the module).
pub(super) struct Slots {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next: ReqId,
    /// Commands that somebody waits for, and their answers.
    waited: BTreeMap<ReqId, Option<Answered>>,
    /// Every shutdown that was asked for.
    shutdowns: BTreeSet<ReqId>,
    over: bool,
    /// Whoever waits for the first shutdown.
    on_shutdown: Option<Waker>,
}

impl Slots {
    pub(super) fn new() -> Self {
        let state = State {
            next: ReqId::COMMAND,
            waited: BTreeMap::new(),
            shutdowns: BTreeSet::new(),
            over: false,
            on_shutdown: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // the state is whole between any two statements
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a number for a command that will be waited for; `None` if the machine has ended.
    pub(super) fn open(&self) -> Option<ReqId> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let req = state.next.step();
        state.waited.insert(req, None);
        Some(req)
    }

    /// Registers a shutdown command, whose answer need not be awaited. Returns none once the machine has ended.
    pub(super) fn open_shutdown(&self) -> Option<ReqId> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let req = state.next.step();
        state.shutdowns.insert(req);
        let waker = state.on_shutdown.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(req)
    }

    /// Completes once a shutdown is asked for. One waits at a time.
    pub(super) fn shutdown_asked(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if !state.shutdowns.is_empty() {
                return Poll::Ready(());
            }
            state.on_shutdown = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Whether a shutdown was asked for.
    pub(super) fn is_shutdown_asked(&self) -> bool {
        !self.lock().shutdowns.is_empty()
    }

    /// Takes the machine's answer.
    pub(super) fn answer(&self, req: ReqId, answered: Answered) {
        let mut state = self.lock();
        state.over |= state.shutdowns.contains(&req);
        if let Some(slot) = state.waited.get_mut(&req) {
            *slot = Some(answered);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The machine has ended, or was never told of what was opened last.
    pub(super) fn close(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// A command that the machine was not told of.
    pub(super) fn forget(&self, req: ReqId) {
        self.lock().waited.remove(&req);
    }

    /// The machine has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Waits for the answer to a command. A shutdown is answered by the machine's end, whichever of them brought it.
    pub(super) fn wait(&self, req: ReqId, patience: Duration) -> Waited {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if let Some(Some(answered)) = state.waited.get(&req).copied() {
                state.waited.remove(&req);
                return Waited::Answered(answered);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.over || left.is_zero() {
                state.waited.remove(&req);
                let shutdown = state.shutdowns.contains(&req);
                return match state.over {
                    true if shutdown => Waited::Answered(Ok(None)),
                    true => Waited::Over,
                    false => Waited::Silent,
                };
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

#[cfg(test)]
mod tests;
