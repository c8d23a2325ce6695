//! Who follows which download, and in which order `get`s get their turn: a bounded number of objects at once, each on
//! its way to one place. Whoever wants the same object at the same place joins; others wait, oldest first.
//!
//! Loom explores its schedules, as those of the mailbox.

use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The queue of `get` commands (see the module). `K` names an object, `T` a place. Cheap to clone.
pub(super) struct Turns<K, T>(Arc<Shared<K, T>>);

struct Shared<K, T> {
    limit: usize,
    state: Mutex<State<K, T>>,
    changed: Condvar,
}

struct State<K, T> {
    next: u64,
    /// Revision counter, raised by every change that somebody may wait for.
    revision: u64,
    /// Commands in the queue, oldest first.
    waiting: BTreeMap<u64, (K, T)>,
    /// Objects being downloaded, with their place and commands.
    going: BTreeMap<K, Going<T>>,
}

struct Going<T> {
    to: T,
    followers: BTreeSet<u64>,
}

/// The position of a command in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// The command may begin now.
    Come,
    /// The maximum number of objects is being downloaded.
    Behind,
    /// The object is being downloaded to another place.
    Elsewhere(T),
}

impl<K: Ord + Clone, T: Eq + Clone> State<K, T> {
    /// Lets in whoever can go, oldest first.
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

    /// Takes one out; whether it was the last that followed an object on its way.
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
    /// At most `limit` objects are on their way at once.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { next: 0, revision: 0, waiting: BTreeMap::new(), going: BTreeMap::new() };
        Self(Arc::new(Shared { limit, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Gets in line for an object, or joins those that follow it.
    pub(super) fn ask(&self, what: K, to: T) -> QueueSlot<K, T> {
        let mut state = self.0.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket, (what.clone(), to.clone()));
        state.admit(self.0.limit);
        drop(state);
        QueueSlot { shared: Arc::clone(&self.0), ticket, what, to, left: false }
    }

    /// How many follow an object or wait for their turn.
    pub(super) fn count(&self) -> usize {
        let state = self.0.lock();
        state.waiting.len() + state.going.values().map(|going| going.followers.len()).sum::<usize>()
    }

    /// Wakes all who wait, that they look around.
    pub(super) fn wake(&self) {
        self.0.lock().revision += 1;
        self.0.changed.notify_all();
    }
}

/// A place in the line, then among those that follow an object. It is left when dropped.
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

    /// Lets a download pass that nobody follows, and that takes the object elsewhere: whoever wants it there joins. See
    /// [`QueueSlot::come_back`].
    pub(super) fn let_pass(&self, elsewhere: T) {
        self.change(|state, what| {
            if let Some(going) = state.going.get_mut(what) {
                going.to = elsewhere;
            }
        });
    }

    /// Gets in line again, where it stood, once what it has let pass is at rest.
    pub(super) fn come_back(&self) {
        self.change(|state, what| {
            state.remove(self.ticket, what);
            state.waiting.insert(self.ticket, (what.clone(), self.to.clone()));
        });
    }

    /// Changes what is on its way, if this one follows it.
    fn change(&self, how: impl FnOnce(&mut State<K, T>, &K)) {
        let mut state = self.shared.lock();
        if state.going.get(&self.what).is_some_and(|going| going.followers.contains(&self.ticket)) {
            how(&mut state, &self.what);
            state.admit(self.shared.limit);
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Leaves; `end` is called if nobody else follows the object, and before anybody else can: what it begins comes
    /// before what they begin.
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
