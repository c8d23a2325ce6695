//! The writing task of a spool. A failed write is tried once more on the reopened file, so that a single failure goes
//! unnoticed. While writes keep failing, batches are refused at once, and a trial write once a second finds out when
//! the disk works again.

use super::Spool;
use crate::health::{Cause, Condition, Health, file_trouble};
use crate::mailbox::{Permit, Sender, mailbox};
use crate::rt::Rt;
use futures_lite::future::or;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::ReqId;
use swarmedge_core::role::edge::io::Batch;

/// Most batches that wait to be written.
const BATCHES_MAX: usize = 1024;
/// Most batches in one transaction.
const BATCHES_AT_ONCE: usize = 128;
/// Interval of trial writes while writes fail.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A batch to write, with reserved space in the mailbox for its completion: an input `I` of the machine that saves
/// it.
struct Write<I> {
    req: ReqId,
    batch: Batch,
    done: Permit<I>,
}

/// A machine's handle to its spool's writing task.
pub struct Saver<I>(Sender<Write<I>>);

impl<I: Send> Saver<I> {
    /// Queues a batch; its completion goes to `inbox`. Returns false if too many batches wait.
    #[must_use]
    pub fn save(&self, inbox: &Sender<I>, req: ReqId, batch: Batch) -> bool {
        let room = || inbox.reserve().and_then(|done| Ok((done, self.0.reserve()?)));
        let Ok((done, place)) = room() else {
            tracing::warn!("too many batches wait for the spool");
            return false;
        };
        place.send(Write { req, batch, done });
        true
    }
}

/// The next event of the writing task.
enum Next<I> {
    Write(Write<I>),
    Trial,
    End,
}

/// Makes a [`Saver`] and the task that writes its batches in order, waiting ones together in one transaction.
/// `to_input` makes the completion input from request number and success; `part` is the spool's name in `health`. The
/// task ends and closes the file when the saver is dropped and everything is written.
pub fn write<R: Rt, I: Send + 'static>(
    rt: R,
    spool: Spool,
    health: &Health,
    part: &str,
    to_input: fn(ReqId, bool) -> I,
) -> (Saver<I>, impl Future<Output = ()> + use<R, I>) {
    let (saver, mut writes) = mailbox::<Write<I>>(BATCHES_MAX);
    let spool = Arc::new(spool);
    let mut condition = Condition::new(health, part);
    let writing = async move {
        let mut try_at = rt.now();
        loop {
            let received = async { writes.recv().await.map_or(Next::End, Next::Write) };
            let next = if condition.is_failing() {
                let trial = rt.sleep_until(try_at);
                or(received, async move {
                    trial.await;
                    Next::Trial
                })
                .await
            } else {
                received.await
            };
            let mut waiting = match next {
                Next::Write(first) => vec![first],
                Next::Trial => Vec::new(),
                Next::End => return,
            };
            while waiting.len() < BATCHES_AT_ONCE
                && let Some(next) = writes.try_recv()
            {
                waiting.push(next);
            }
            let ok = if condition.is_failing() && rt.now() < try_at {
                false
            } else {
                let batches: Vec<Batch> = waiting.iter_mut().map(|w| std::mem::take(&mut w.batch)).collect();
                let (own, failing) = (Arc::clone(&spool), condition.is_failing());
                let written = rt.blocking(move || attempt(&own, &batches, failing)).await;
                try_at = rt.now() + TRY_EVERY;
                match &written {
                    Ok(()) => condition.succeeded(),
                    Err(error) => condition.failed_by(Cause::of(error), file_trouble("write", &spool.path, error)),
                }
                written.is_ok()
            };
            for write in waiting {
                write.done.send(to_input(write.req, ok));
            }
        }
    };
    (Saver(saver), writing)
}

/// Writes batches; a first failure is tried once more. If earlier writes failed, a trial write must succeed first.
pub(super) fn attempt(spool: &Spool, batches: &[Batch], failing: bool) -> io::Result<()> {
    if failing {
        spool.try_out()?;
        return if batches.is_empty() { Ok(()) } else { spool.write(batches) };
    }
    spool.write(batches).or_else(|_| {
        metrics::counter!("swarmedge_spool_second_tries_total").increment(1);
        spool.write(batches)
    })
}
