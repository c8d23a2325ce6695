//! Small tools for tasks on one thread.

use futures_lite::future;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use swarmedge_ground::mailbox::{Permit, Receiver, Sender, mailbox};
use swarmedge_ground::rt::Rt;

/// Time-out for opening a connection to a peer.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(6);

/// A cancellation token, never reset. Clones share it; one task at a time may wait for it.
#[derive(Clone, Default)]
pub(super) struct Cancel(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Cancel {
    pub(super) fn cancel(&self) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until the token is cancelled.
    pub(super) async fn cancelled(&self) {
        poll_fn(|cx| {
            if self.0.0.get() {
                return Poll::Ready(());
            }
            *self.0.1.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A semaphore with a number of permits, granted in the order of the requests.
pub(super) struct Slots(Sender<()>, #[expect(dead_code, reason = "keeps the places open")] Receiver<()>);

impl Slots {
    pub(super) fn new(n: usize) -> Self {
        let (sender, receiver) = mailbox(n);
        Self(sender, receiver)
    }

    /// Waits for a permit, which is returned when dropped.
    pub(super) async fn take(&self) -> Option<Permit<()>> {
        self.0.room().await.ok()
    }
}

/// Returns the result of `work`, or `None` if it takes longer than `limit`.
pub(super) async fn within<R: Rt, T>(rt: &R, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = rt.sleep_until(rt.now() + limit);
    future::or(async { Some(work.await) }, async {
        late.await;
        None
    })
    .await
}

/// A time-out for silence: it expires when no event was recorded for `limit`. One timer serves many events.
pub(super) struct Stall {
    last: Cell<Instant>,
    limit: Duration,
}

impl Stall {
    pub(super) fn new(now: Instant, limit: Duration) -> Self {
        Self { last: Cell::new(now), limit }
    }

    pub(super) fn alive(&self, now: Instant) {
        self.last.set(now);
    }

    /// Completes when no event was recorded for `limit`.
    pub(super) async fn stalled<R: Rt>(&self, rt: &R) {
        loop {
            let due = self.last.get() + self.limit;
            if rt.now() >= due {
                return;
            }
            rt.sleep_until(due).await;
        }
    }
}
