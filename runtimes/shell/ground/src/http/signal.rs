//! A one-way switch for the futures of one thread: off until it is set, then on for ever.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A one-way switch that many futures of one thread can wait for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Signal(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: Cell<bool>,
    waiting: RefCell<Slots>,
}

/// The wakers of waiting futures. A future takes a slot at its first poll and frees it when dropped.
#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Signal {
    /// Switches the signal on and wakes all waiting futures.
    pub fn set(&self) {
        self.0.set.set(true);
        let wakers: Vec<_> = self.0.waiting.borrow_mut().wakers.iter_mut().filter_map(Option::take).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns whether the signal is on.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Returns a future that completes once the signal is on.
    pub fn wait(&self) -> impl Future<Output = ()> + use<> {
        Wait { signal: self.clone(), slot: None }
    }
}

struct Wait {
    signal: Signal,
    slot: Option<usize>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.is_set() {
            return Poll::Ready(());
        }
        let this = &mut *self;
        let mut slots = this.signal.0.waiting.borrow_mut();
        let Slots { wakers, free } = &mut *slots;
        let slot = *this.slot.get_or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            })
        });
        match &mut wakers[slot] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let mut slots = self.signal.0.waiting.borrow_mut();
            slots.wakers[slot] = None;
            slots.free.push(slot);
        }
    }
}

/// A counter of users of something. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Cell<usize>>);

/// A guard that is counted by a [`Gauge`] until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Gauge {
    /// Returns the number of users now.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.get()
    }

    /// Adds a user until the returned guard is dropped.
    #[must_use]
    pub fn enter(&self) -> Counted {
        self.0.set(self.0.get() + 1);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn every_waiter_wakes_once_the_signal_is_set() {
        let signal = Signal::default();
        assert_eq!(block_on(poll_once(signal.wait())), None);
        let other = signal.clone();
        block_on(zip(zip(signal.wait(), other.wait()), async { other.set() }));
        assert!(signal.is_set());
    }

    #[test]
    fn whoever_stops_waiting_leaves_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..100 {
            assert_eq!(block_on(poll_once(signal.wait())), None);
        }
        let held = signal.wait();
        assert_eq!(block_on(poll_once(signal.wait())), None);
        let slots = signal.0.waiting.borrow();
        assert_eq!((slots.wakers.len(), slots.free.len()), (1, 1));
        assert!(slots.wakers.iter().all(Option::is_none));
        drop(slots);
        drop(held);
    }

    #[test]
    fn a_gauge_falls_when_its_users_go() {
        let gauge = Gauge::default();
        let (a, b) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop((a, b));
        assert_eq!(gauge.get(), 0);
    }
}
