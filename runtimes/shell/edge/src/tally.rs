//! What an answer tells the machine of the bytes that leave: that they are about to, and that they have.

use super::content::Meter;
use super::door::{Door, Leave};
use super::routes::{Routes, problem};
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

/// Sent bytes are told to the machine in steps of at most this.
const TELL_EVERY: u64 = 4 * 1024 * 1024;
/// An answer asks for so many bytes at a time.
const ASK_FOR: u64 = RESERVE_FIRST;

/// See the module.
pub(super) struct Tally<R: Rt> {
    rt: R,
    door: Door,
    grant: Option<Box<Grant>>,
    version: VersionId,
    provider: ProviderId,
    /// Sent and not told yet.
    sent: Range<u64>,
    /// How those are told.
    counted: bool,
    room: Rc<Cell<Room>>,
}

/// What may be sent.
#[derive(Clone, Copy, Debug)]
struct Room {
    bytes: u64,
    /// Otherwise they are given away.
    counted: bool,
}

impl<R: Rt> Tally<R> {
    /// Of an answer, which waits here until its first bytes may be sent. Those that may not are refused.
    pub(super) async fn new(
        routes: &Routes<R>,
        grant: Option<Box<Grant>>,
        version: VersionId,
        provider: ProviderId,
    ) -> Result<Self, Box<Problem>> {
        let room = Rc::new(Cell::new(Room { bytes: 0, counted: true }));
        let (rt, door) = (routes.rt.clone(), routes.door.clone());
        let tally = Self { rt, door, grant, version, provider, sent: 0..0, counted: true, room };
        if let Some(more) = tally.more(0) {
            let detail = "this edge cannot count the download now: ask for one without peers in its place";
            more.await.map_err(|_| problem(StatusCode::CONFLICT, "uncounted", detail))?;
        }
        Ok(tally)
    }

    /// Asks for room, if this takes a grant.
    fn more(&self, bytes: u64) -> Option<impl Future<Output = io::Result<()>> + 'static> {
        let grant = self.grant.clone()?;
        let (door, room, more) = (self.door.clone(), self.room.clone(), bytes.max(ASK_FOR));
        let served = ServedGrant::of(&grant);
        Some(async move {
            let leave = door.serve(grant, more).await;
            let left = room.get();
            match (leave, left.counted) {
                (Leave::Withheld, _) => return Err(io::Error::other("the download cannot be counted")),
                (Leave::Counted, true) => room.set(Room { bytes: left.bytes + more, counted: true }),
                (Leave::Counted, false) => room.set(Room { bytes: more, counted: true }),
                (Leave::Given, counted) => {
                    room.set(Room { bytes: more, counted: false });
                    if counted && left.bytes > 0 {
                        let _ = door.inbox().send(Input::BytesNotSent { grant: served, bytes: left.bytes }).await;
                    }
                }
            }
            Ok(())
        })
    }

    fn tell(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let range = std::mem::replace(&mut self.sent, 0..0);
        let grant = self.grant.as_deref().map(ServedGrant::of);
        self.send(match self.counted {
            true => Input::BytesSent { grant, version: self.version, provider: self.provider, range },
            false => Input::GivenAway { bytes: range.end - range.start },
        });
    }

    /// Waits beside the answer, so that an overloaded machine loses no count.
    fn send(&self, input: Input) {
        let inbox = self.door.inbox().clone();
        self.rt.spawn(async move {
            let _ = inbox.send(input).await;
        });
    }
}

impl<R: Rt> Meter for Tally<R> {
    fn next(&mut self, bytes: u64) -> Option<Pin<Box<dyn Future<Output = io::Result<()>>>>> {
        if self.room.get().bytes >= bytes {
            return None;
        }
        Some(Box::pin(self.more(bytes)?))
    }

    fn sent(&mut self, range: Range<u64>) {
        let room = self.room.get();
        self.room.set(Room { bytes: room.bytes.saturating_sub(range.end - range.start), ..room });
        if range.start == self.sent.end && !self.sent.is_empty() && self.counted == room.counted {
            self.sent.end = range.end;
        } else {
            self.tell();
            (self.sent, self.counted) = (range, room.counted);
        }
        if self.sent.end - self.sent.start >= TELL_EVERY {
            self.tell();
        }
    }
}

impl<R: Rt> Drop for Tally<R> {
    fn drop(&mut self) {
        self.tell();
        let room = self.room.get();
        if let Some(grant) = self.grant.as_deref().filter(|_| room.counted && room.bytes > 0) {
            self.send(Input::BytesNotSent { grant: ServedGrant::of(grant), bytes: room.bytes });
        }
    }
}
