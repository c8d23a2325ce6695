//! The table of commands that wait for the machine's answer: each one is answered, or informed that the machine has
//! ended. Several shutdown commands may wait; the machine answers one of them, and its end answers the others.
//!
//! A loom test explores the thread schedules of this module, as of the mailbox.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use swarmedge_core::ids::{Handle, ReqId};
use swarmedge_core::role::client::io::CommandError;

/// The machine's answer to a command.
pub(super) type Answered = Result<Option<Handle>, CommandError>;

/// The result of waiting for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The machine has answered.
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
    /// Commands that a thread waits for, with their answers once given.
    waited: BTreeMap<ReqId, Option<Answered>>,
    /// Ids of all shutdown commands so far.
    shutdowns: BTreeSet<ReqId>,
    over: bool,
    /// Waker of the task that waits for the first shutdown command.
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

    /// Allocates the id of a command whose answer will be awaited; `None` if the machine has ended.
    pub(super) fn open(&self) -> Option<ReqId> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        let req = state.next.step();
        state.waited.insert(req, None);
        Some(req)
    }

    /// Allocates the id of a shutdown command, whose answer need not be awaited; `None` if the machine has ended.
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

    /// Completes once a shutdown was requested. Only one task at a time may wait.
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

    /// Returns whether a shutdown was requested.
    pub(super) fn is_shutdown_asked(&self) -> bool {
        !self.lock().shutdowns.is_empty()
    }

    /// Stores the machine's answer to a command and wakes its waiter. The answer to a shutdown means that the machine
    /// has ended.
    pub(super) fn answer(&self, req: ReqId, answered: Answered) {
        let mut state = self.lock();
        state.over |= state.shutdowns.contains(&req);
        if let Some(slot) = state.waited.get_mut(&req) {
            *slot = Some(answered);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Records that the machine has ended, or can receive no more commands, and wakes all waiters.
    pub(super) fn close(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Removes a command that could not be sent to the machine.
    pub(super) fn forget(&self, req: ReqId) {
        self.lock().waited.remove(&req);
    }

    /// Returns whether the machine has ended.
    pub(super) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Waits for the answer to a command, at most `patience`. All shutdown commands count as answered once the
    /// machine has ended.
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
