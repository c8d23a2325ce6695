//! The mailbox: a bounded queue with many senders and one receiver, between tasks of one thread or of several.
//! Waiting senders get free slots in the order in which they asked. A [`Permit`] reserves a slot, so that the
//! completion of a command never finds the queue full.
//!
//! Loom tests explore the thread schedules of this module. The cfg goes to this crate only: `cargo rustc -p
//! swarmedge-ground --tests -- --cfg swarmedge_loom` builds the unit tests; only those named `loom_` run (`.ci/run
//! loom`).

use crate::sync::{Arc, Mutex, MutexGuard};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::task::{Context, Poll, Waker};

/// Makes a mailbox for `capacity` items (at least 1), reserved slots included.
#[must_use]
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        reserved: 0,
        senders: 1,
        open: true,
        receiver: None,
        waiting: BTreeMap::new(),
        next_ticket: 0,
    };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Error of a send: the receiver was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Error of an immediate send; gives the value back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// All slots are taken or reserved.
    Full(T),
    /// The receiver was dropped.
    Closed(T),
}

struct Shared<T>(Mutex<State<T>>);

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    /// Number of slots reserved by permits; `queue.len() + reserved <= capacity`.
    reserved: usize,
    /// Number of senders, permits included.
    senders: usize,
    /// False once the receiver was dropped.
    open: bool,
    receiver: Option<Waker>,
    /// Senders that wait for a free slot, by ticket. The oldest is woken but stays first until it takes its slot or
    /// is dropped, so that no other overtakes it.
    waiting: BTreeMap<u64, Waker>,
    next_ticket: u64,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // no code that can panic runs under the lock
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> State<T> {
    fn has_room(&self) -> bool {
        self.queue.len() + self.reserved < self.capacity
    }

    /// Returns the waker of the longest waiting sender if a slot is free. Wake it after releasing the lock.
    fn next_waiting(&self) -> Option<Waker> {
        if self.has_room() { self.waiting.first_key_value().map(|(_, waker)| waker.clone()) } else { None }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The sending end of a mailbox.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T: Send> Sender<T> {
    /// Waits for a free slot and queues `value`. If the future is dropped before it completes, nothing is queued.
    pub fn send(&self, value: T) -> impl Future<Output = Result<(), Closed>> {
        let room = self.room();
        async move {
            room.await?.send(value);
            Ok(())
        }
    }

    /// Waits for a free slot and reserves it.
    pub fn room(&self) -> impl Future<Output = Result<Permit<T>, Closed>> {
        let mut wait = Waiting { shared: Arc::clone(&self.0), ticket: None };
        poll_fn(move |cx| wait.poll(cx))
    }

    /// Queues `value` if a slot is free, without waiting.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self.reserve() {
            Ok(permit) => {
                permit.send(value);
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(TrySendError::Full(value)),
            Err(TrySendError::Closed(())) => Err(TrySendError::Closed(value)),
        }
    }

    /// Reserves a slot for one value to be sent later, without waiting.
    pub fn reserve(&self) -> Result<Permit<T>, TrySendError<()>> {
        let mut state = self.0.lock();
        if !state.open {
            return Err(TrySendError::Closed(()));
        }
        if !state.has_room() {
            return Err(TrySendError::Full(()));
        }
        state.reserved += 1;
        state.senders += 1;
        drop(state);
        Ok(Permit { shared: Arc::clone(&self.0), used: false })
    }

    /// Returns whether the receiver was dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.0.lock().open
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        release(&self.0, |_| {});
    }
}

/// Applies `change` and removes one sender. Wakes the receiver for a value or the last sender's end, and a waiting
/// sender if a slot is free.
fn release<T>(shared: &Shared<T>, change: impl FnOnce(&mut State<T>)) {
    let mut state = shared.lock();
    change(&mut state);
    state.senders -= 1;
    let receiver = if state.senders == 0 || !state.queue.is_empty() { state.receiver.take() } else { None };
    let sender = state.next_waiting();
    drop(state);
    wake(receiver);
    wake(sender);
}

/// A sender that waits for a free slot; `ticket` is set once it is in the queue of senders.
struct Waiting<T> {
    shared: Arc<Shared<T>>,
    ticket: Option<u64>,
}

impl<T: Send> Waiting<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit<T>, Closed>> {
        let mut state = self.shared.lock();
        if !state.open {
            self.ticket = None;
            return Poll::Ready(Err(Closed));
        }
        // senders that have waited longer go first
        let first = match (self.ticket, state.waiting.keys().next()) {
            (Some(own), Some(&oldest)) => own <= oldest,
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if first && state.has_room() {
            state.reserved += 1;
            state.senders += 1;
            if let Some(own) = self.ticket.take() {
                state.waiting.remove(&own);
            }
            // there may be room for the next one too
            let next = state.next_waiting();
            drop(state);
            wake(next);
            return Poll::Ready(Ok(Permit { shared: Arc::clone(&self.shared), used: false }));
        }
        let ticket = self.ticket.unwrap_or_else(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        self.ticket = Some(ticket);
        state.waiting.insert(ticket, cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let Some(own) = self.ticket else { return };
        let mut state = self.shared.lock();
        let gone = state.waiting.remove(&own);
        // this sender may have been woken for room: pass the wake-up on
        let next = state.next_waiting();
        drop(state);
        drop(gone);
        wake(next);
    }
}

/// A reserved slot for one value. Dropping the permit frees the slot.
pub struct Permit<T> {
    shared: Arc<Shared<T>>,
    used: bool,
}

impl<T> Permit<T> {
    /// Queues `value`. Never fails: if the receiver was dropped, the value is dropped too.
    pub fn send(mut self, value: T) {
        self.used = true;
        let mut unwanted = None;
        release(&self.shared, |state| {
            state.reserved -= 1;
            if state.open {
                state.queue.push_back(value);
            } else {
                unwanted = Some(value);
            }
        });
    }
}

impl<T> Drop for Permit<T> {
    fn drop(&mut self) {
        if !self.used {
            release(&self.shared, |state| state.reserved -= 1);
        }
    }
}

/// The receiving end of a mailbox.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T: Send> Receiver<T> {
    /// Waits for the next value; `None` once every sender was dropped and the queue is empty. Cancel-safe: a value is
    /// taken only by the poll that returns it.
    pub fn recv(&mut self) -> impl Future<Output = Option<T>> + use<'_, T> {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Takes the next value if one is queued.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        let value = state.queue.pop_front();
        let sender = state.next_waiting();
        drop(state);
        wake(sender);
        value
    }

    /// Polls for the next value; `None` as in [`Receiver::recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(value) = state.queue.pop_front() {
            let sender = state.next_waiting();
            drop(state);
            wake(sender);
            return Poll::Ready(Some(value));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        let old = state.receiver.replace(cx.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.open = false;
        let values = std::mem::take(&mut state.queue);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(values);
        waiting.into_values().for_each(Waker::wake);
    }
}

macro_rules! opaque_debug {
    ($($name:ident),*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
opaque_debug!(Sender, Receiver, Permit);

#[cfg(test)]
mod tests;
