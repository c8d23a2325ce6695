//! A one-way switch for the futures of one thread: off until it is set, then on for good.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// A switch that many futures of one thread can wait for. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Signal(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Switches on and wakes all who wait.
    pub fn set(&self) {
        self.0.set.set(true);
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Completes once it is on.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.is_set() {
                return Poll::Ready(());
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Counts users of something, and completes when the last has gone.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Cell<usize>>);

/// One user of a [`Gauge`]; dropping it takes it off.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Gauge {
    /// How many there are.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.get()
    }

    /// One more, until the result is dropped.
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
    fn a_gauge_falls_when_its_users_go() {
        let gauge = Gauge::default();
        let (a, b) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.get(), 2);
        drop((a, b));
        assert_eq!(gauge.get(), 0);
    }
}
