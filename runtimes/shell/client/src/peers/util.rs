//! Small tools for tasks on one thread.

use futures_lite::future;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
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

/// The first success, starting each attempt `stagger` after the one before, or at once when one fails.
pub(super) async fn first_of<R: Rt, F: Future<Output = Option<T>>, T>(
    rt: &R,
    stagger: Duration,
    attempts: impl IntoIterator<Item = F>,
) -> Option<T> {
    let mut attempts = attempts.into_iter();
    let mut running: Vec<std::pin::Pin<Box<F>>> = Vec::new();
    let mut more = true;
    loop {
        if more {
            match attempts.next() {
                Some(attempt) => running.push(Box::pin(attempt)),
                None => more = false,
            }
        }
        if !more && running.is_empty() {
            return None;
        }
        let mut timer = pin!(rt.sleep_until(rt.now() + stagger));
        // ready: one has succeeded, or it is time for the next
        let step = poll_fn(|cx| {
            let before = running.len();
            let mut won = None;
            running.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                Poll::Ready(Some(value)) => {
                    won = won.take().or(Some(value));
                    false
                }
                Poll::Ready(None) => false,
                Poll::Pending => true,
            });
            if won.is_some() || running.len() < before || (more && timer.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(won);
            }
            Poll::Pending
        });
        if let Some(won) = step.await {
            return Some(won);
        }
    }
}
