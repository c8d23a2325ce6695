//! The queue of `get` commands. A bounded number of objects is downloaded at once, each to one path. A `get` of the
//! same object to the same path joins the download; other `get`s wait, oldest first.
//!
//! A loom test explores the thread schedules of this module, as of the mailbox.

use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The queue of `get` commands (see the module). `K` is the type of objects, `T` of their paths. Cheap to clone.
pub(super) struct Turns<K, T>(Arc<Shared<K, T>>);

struct Shared<K, T> {
    limit: usize,
    state: Mutex<State<K, T>>,
    changed: Condvar,
}

struct State<K, T> {
    next: u64,
    /// Revision counter, incremented by every change that a waiting command may be interested in.
    revision: u64,
    /// Commands in the queue, oldest first.
    waiting: BTreeMap<u64, (K, T)>,
    /// Objects being downloaded, with their path and the commands that wait for them.
    going: BTreeMap<K, Going<T>>,
}

struct Going<T> {
    to: T,
    followers: BTreeSet<u64>,
}

/// The position of a command in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// The command's download may begin now.
    Come,
    /// The maximum number of objects is being downloaded.
    Behind,
    /// The object is being downloaded to this other path.
    Elsewhere(T),
}

impl<K: Ord + Clone, T: Eq + Clone> State<K, T> {
    /// Starts or joins downloads for all waiting commands for which that is possible, oldest first.
    fn admit(&mut self, limit: usize) {
        self.revision += 1;
        for (ticket, (what, to)) in std::mem::take(&mut self.waiting) {
            let room = self.going.len() < limit;
            match self.going.get_mut(&what) {
                Some(going) if going.to == to => drop(going.followers.insert(ticket)),
                None if room => drop(self.going.insert(what, Going { to, followers: [ticket].into() })),
                Some(_) | None => drop(self.waiting.insert(ticket, (what, to))),
            }
        }
    }

    /// Removes a command; returns whether it was the last one that waited for a running download.
    fn remove(&mut self, ticket: u64, what: &K) -> bool {
        self.waiting.remove(&ticket);
        let Some(going) = self.going.get_mut(what) else { return false };
        let last = going.followers.remove(&ticket) && going.followers.is_empty();
        if last {
            self.going.remove(what);
        }
        last
    }
}

impl<K: Ord + Clone, T: Eq + Clone> Shared<K, T> {
    fn lock(&self) -> MutexGuard<'_, State<K, T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<K: Ord + Clone, T: Eq + Clone> Turns<K, T> {
    /// Makes an empty queue that lets at most `limit` objects be downloaded at once.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { next: 0, revision: 0, waiting: BTreeMap::new(), going: BTreeMap::new() };
        Self(Arc::new(Shared { limit, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Adds a command for an object and its path to the queue; it joins a download of the same object to the same
    /// path.
    pub(super) fn ask(&self, what: K, to: T) -> QueueSlot<K, T> {
        let mut state = self.0.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket, (what.clone(), to.clone()));
        state.admit(self.0.limit);
        drop(state);
        QueueSlot { shared: Arc::clone(&self.0), ticket, what, to, left: false }
    }

    /// Returns the number of commands in the queue or waiting for a running download.
    pub(super) fn count(&self) -> usize {
        let state = self.0.lock();
        state.waiting.len() + state.going.values().map(|going| going.followers.len()).sum::<usize>()
    }

    /// Wakes all waiting threads, so that they check their conditions.
    pub(super) fn wake(&self) {
        self.0.lock().revision += 1;
        self.0.changed.notify_all();
    }
}

/// A command's entry: first in the queue, then among those that wait for a running download. Removed when dropped.
pub(super) struct QueueSlot<K: Ord + Clone, T: Eq + Clone> {
    shared: Arc<Shared<K, T>>,
    ticket: u64,
    what: K,
    to: T,
    left: bool,
}

impl<K: Ord + Clone, T: Eq + Clone> QueueSlot<K, T> {
    /// Returns the command's position, and the revision to wait from.
    pub(super) fn look(&self) -> (Turn<T>, u64) {
        let state = self.shared.lock();
        let turn = match state.going.get(&self.what) {
            Some(going) if going.followers.contains(&self.ticket) && going.to == self.to => Turn::Come,
            Some(going) => Turn::Elsewhere(going.to.clone()),
            None => Turn::Behind,
        };
        (turn, state.revision)
    }

    /// Waits up to `patience` for a change after `seen`.
    pub(super) fn wait(&self, seen: u64, patience: Duration) {
        let state = self.shared.lock();
        if state.revision == seen {
            drop(self.shared.changed.wait_timeout(state, patience));
        }
    }

    /// Gives this command's turn to a download of the same object to another path, which no command waits for:
    /// commands that want it there join that download. [`QueueSlot::come_back`] ends this.
    pub(super) fn let_pass(&self, elsewhere: T) {
        self.change(|state, what| {
            if let Some(going) = state.going.get_mut(what) {
                going.to = elsewhere;
            }
        });
    }

    /// Puts the command back into the queue at its old position, after the download that it had let pass has ended or
    /// is paused.
    pub(super) fn come_back(&self) {
        self.change(|state, what| {
            state.remove(self.ticket, what);
            state.waiting.insert(self.ticket, (what.clone(), self.to.clone()));
        });
    }

    /// Changes the running download of this command's object, if this command is among those that wait for it.
    fn change(&self, how: impl FnOnce(&mut State<K, T>, &K)) {
        let mut state = self.shared.lock();
        if state.going.get(&self.what).is_some_and(|going| going.followers.contains(&self.ticket)) {
            how(&mut state, &self.what);
            state.admit(self.shared.limit);
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Removes the command. If no other command waits for the download, `end` is called and its result returned; it
    /// runs before another command can begin a download of the object.
    pub(super) fn leave<E>(&mut self, end: impl FnOnce() -> E) -> Option<E> {
        if std::mem::replace(&mut self.left, true) {
            return None;
        }
        let mut state = self.shared.lock();
        let ended = state.remove(self.ticket, &self.what).then(end);
        state.admit(self.shared.limit);
        drop(state);
        self.shared.changed.notify_all();
        ended
    }
}

impl<K: Ord + Clone, T: Eq + Clone> Drop for QueueSlot<K, T> {
    fn drop(&mut self) {
        self.leave(|| {});
    }
}

#[cfg(test)]
mod tests;
