//! The way from a machine to its spool. A write that fails is tried again at once, on the file opened anew: so one
//! failure passes, and nobody hears of it. While writes fail, the machine is told so without delay, and a trial is
//! written now and then, whether or not there is something to write.

use super::Spool;
use crate::health::{Condition, Health, file_trouble};
use crate::mailbox::{Permit, Sender, mailbox};
use crate::rt::Rt;
use futures_lite::future::or;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::ReqId;
use swarmedge_core::role::edge::io::Batch;

/// Batches that wait to be written.
const BATCHES_MAX: usize = 1024;
/// Batches of one transaction.
const BATCHES_AT_ONCE: usize = 128;
/// While writes fail, one is tried so often.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A batch on its way to the spool, with the room for its answer: an input `I` of the machine that writes.
struct Write<I> {
    req: ReqId,
    batch: Batch,
    done: Permit<I>,
}

/// A machine's way to its spool.
pub struct Saver<I>(Sender<Write<I>>);

impl<I: Send> Saver<I> {
    /// Takes a batch, unless too many wait; its answer goes to `inbox`.
    #[must_use]
    pub fn save(&self, inbox: &Sender<I>, req: ReqId, batch: Batch) -> bool {
        let room = || inbox.reserve().and_then(|done| Ok((done, self.0.reserve()?)));
        let Ok((done, place)) = room() else {
            tracing::warn!("too much waits for the spool");
            return false;
        };
        place.send(Write { req, batch, done });
        true
    }
}

/// What comes next for a spool.
enum Next<I> {
    Write(Write<I>),
    Trial,
    End,
}

/// Writes, from now on, what the machine gives to the [`Saver`], in order; what waits together becomes one transaction.
/// `saved` says how the machine is told; `part` is the spool's name in `health`. Ends, the file closed, when the saver
/// is gone and all is written.
pub fn write<R: Rt, I: Send + 'static>(
    rt: R,
    spool: Spool,
    health: &Health,
    part: &str,
    saved: fn(ReqId, bool) -> I,
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
                    Err(error) => condition.failed(file_trouble("write", &spool.path, error)),
                }
                written.is_ok()
            };
            for write in waiting {
                write.done.send(saved(write.req, ok));
            }
        }
    };
    (Saver(saver), writing)
}

/// Writes batches: again if it fails for the first time; after a trial if it has failed before.
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
