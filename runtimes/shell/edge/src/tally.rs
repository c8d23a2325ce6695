//! Reports the bytes of one HTTP answer to the edge machine: asks for a reservation before bytes leave, and reports
//! sent bytes after.

use super::answer::{Routes, UNCOUNTED, problem};
use super::content::Meter;
use super::handle::{EdgeHandle, ServeDecision};
use hyper::StatusCode;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use swarmedge_core::ids::{ProviderId, VersionId};
use swarmedge_core::limits::RESERVE_FIRST;
use swarmedge_core::role::edge::Input;
use swarmedge_core::role::edge::io::ServedGrant;
use swarmedge_core::wire::records::Grant;
use swarmedge_ground::http::Problem;
use swarmedge_ground::rt::Rt;

/// Sent bytes are reported to the machine after at most this many.
const REPORT_EVERY: u64 = 4 * 1024 * 1024;
/// Bytes of one reservation, unless more are needed at once.
const RESERVE_BYTES: u64 = RESERVE_FIRST;

/// Counts the bytes of one HTTP answer; on drop it reports the rest and returns the unused reservation.
pub(super) struct Tally<R: Rt> {
    rt: R,
    machine: EdgeHandle,
    grant: Option<Box<Grant>>,
    version: VersionId,
    provider: ProviderId,
    /// Bytes sent and not reported yet.
    sent: Range<u64>,
    /// Whether the bytes in `sent` are counted; otherwise they are given away.
    counted: bool,
    reserved: Rc<Cell<Reserved>>,
}

/// The unused part of an answer's reservation, in bytes.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    bytes: u64,
    /// Whether these bytes are counted; otherwise they are given away.
    counted: bool,
}

impl<R: Rt> Tally<R> {
    /// Makes the tally of an answer and waits for its first reservation. If the machine withholds it, fails with the
    /// problem `uncounted` (HTTP status 409).
    pub(super) async fn new(
        routes: &Routes<R>,
        grant: Option<Box<Grant>>,
        version: VersionId,
        provider: ProviderId,
    ) -> Result<Self, Box<Problem>> {
        let reserved = Rc::new(Cell::new(Reserved { bytes: 0, counted: true }));
        let (rt, machine) = (routes.rt.clone(), routes.machine.clone());
        let tally = Self { rt, machine, grant, version, provider, sent: 0..0, counted: true, reserved };
        if let Some(reserve) = tally.reserve(0) {
            let detail = "this edge cannot count the download now: ask for one without peers in its place";
            reserve.await.map_err(|_| problem(StatusCode::CONFLICT, UNCOUNTED, detail))?;
        }
        Ok(tally)
    }

    /// Asks for a reservation; `None` for an answer without a grant, which needs none.
    fn reserve(&self, bytes: u64) -> Option<impl Future<Output = io::Result<()>> + 'static> {
        let grant = self.grant.clone()?;
        let (machine, reserved, reserve) = (self.machine.clone(), self.reserved.clone(), bytes.max(RESERVE_BYTES));
        let served = ServedGrant::of(&grant);
        Some(async move {
            let decision = machine.serve(grant, reserve).await;
            let left = reserved.get();
            match (decision, left.counted) {
                (ServeDecision::Withheld, _) => return Err(io::Error::other("the download cannot be counted")),
                (ServeDecision::Counted, true) => reserved.set(Reserved { bytes: left.bytes + reserve, counted: true }),
                (ServeDecision::Counted, false) => reserved.set(Reserved { bytes: reserve, counted: true }),
                (ServeDecision::GivenAway, counted) => {
                    reserved.set(Reserved { bytes: reserve, counted: false });
                    if counted && left.bytes > 0 {
                        let _ = machine.inbox().send(Input::BytesNotSent { grant: served, bytes: left.bytes }).await;
                    }
                }
            }
            Ok(())
        })
    }

    fn report(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let range = std::mem::replace(&mut self.sent, 0..0);
        metrics::counter!("swarmedge_edge_sent_bytes_total").increment(range.end - range.start);
        let grant = self.grant.as_deref().map(ServedGrant::of);
        self.send(match self.counted {
            true => Input::BytesSent { grant, version: self.version, provider: self.provider, range },
            false => Input::GivenAway { bytes: range.end - range.start },
        });
    }

    /// Sends an input from a task of its own, so that an overloaded machine neither delays the answer nor loses a
    /// count.
    fn send(&self, input: Input) {
        let inbox = self.machine.inbox().clone();
        self.rt.spawn(async move {
            let _ = inbox.send(input).await;
        });
    }
}

impl<R: Rt> Meter for Tally<R> {
    fn next(&mut self, bytes: u64) -> Option<Pin<Box<dyn Future<Output = io::Result<()>>>>> {
        if self.reserved.get().bytes >= bytes {
            return None;
        }
        Some(Box::pin(self.reserve(bytes)?))
    }

    fn sent(&mut self, range: Range<u64>) {
        let reserved = self.reserved.get();
        self.reserved.set(Reserved { bytes: reserved.bytes.saturating_sub(range.end - range.start), ..reserved });
        if range.start == self.sent.end && !self.sent.is_empty() && self.counted == reserved.counted {
            self.sent.end = range.end;
        } else {
            self.report();
            (self.sent, self.counted) = (range, reserved.counted);
        }
        if self.sent.end - self.sent.start >= REPORT_EVERY {
            self.report();
        }
    }
}

impl<R: Rt> Drop for Tally<R> {
    fn drop(&mut self) {
        self.report();
        let reserved = self.reserved.get();
        if let Some(grant) = self.grant.as_deref().filter(|_| reserved.counted && reserved.bytes > 0) {
            self.send(Input::BytesNotSent { grant: ServedGrant::of(grant), bytes: reserved.bytes });
        }
    }
}
