//! The seats of a listening server: one for each connection, by the rules of [`swarmedge_core::holdings`]. When all are
//! taken, the idlest connection of the network that has most gives its seat up to the newcomer; one that is being
//! served keeps it.

use super::signal::Signal;
use crate::rt::Rt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use swarmedge_core::holdings::{Amount, Holding, Holdings, Limits, Room};
use swarmedge_core::machine::Time;
use swarmedge_core::selection::locality::prefix;

/// Most memory that the buffers of one connection take in this process, bytes.
pub const CONNECTION_BYTES: u64 = 64 * 1024;
/// Least time between two log lines about one server's refused connections.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Time for which a flood is counted before its first line.
const LINE_AFTER: Duration = Duration::from_secs(1);

/// Returns the bounds of a server's connections. One network has at most three quarters of the seats, so that others
/// find one even if it keeps all of its own in use: of 8,192 seats that is one for each of 4,000 clients behind one
/// address, and half as many again.
#[must_use]
pub const fn limits(connections_max: usize) -> Limits {
    let total = connections_max as u64;
    let quarter = total / 4;
    Limits {
        total: Amount::of(total, CONNECTION_BYTES),
        prefix: Amount::of(total - quarter, CONNECTION_BYTES),
        key: Amount::UNLIMITED,
    }
}

/// The clock of a runtime, without its type.
struct Clock {
    now: Box<dyn Fn() -> Instant>,
    later: Box<dyn Fn(Instant, Rc<FloodLog>)>,
}

/// A log of connections that found no room: at most one line a minute, with their numbers.
pub struct FloodLog {
    server: &'static str,
    clock: Clock,
    refused: Cell<u64>,
    displaced: Cell<u64>,
    last: Cell<Option<Instant>>,
    planned: Cell<bool>,
}

impl FloodLog {
    /// Makes the log of a server.
    pub fn new<R: Rt>(rt: &R, server: &'static str) -> Rc<Self> {
        let (rt, rt2) = (rt.clone(), rt.clone());
        let later = move |at, log: Rc<Self>| {
            let rt = rt2.clone();
            rt2.spawn(async move {
                rt.sleep_until(at).await;
                log.write();
            });
        };
        let clock = Clock { now: Box::new(move || rt.now()), later: Box::new(later) };
        let (refused, displaced, last, planned) = (Cell::new(0), Cell::new(0), Cell::new(None), Cell::new(false));
        Rc::new(Self { server, clock, refused, displaced, last, planned })
    }

    /// Counts a connection that was refused.
    pub fn note_refused(self: &Rc<Self>) {
        metrics::counter!("swarmedge_connections_refused_total", "server" => self.server).increment(1);
        self.refused.set(self.refused.get() + 1);
        self.plan();
    }

    /// Counts a connection that was closed to make room for another one.
    pub fn note_displaced(self: &Rc<Self>) {
        metrics::counter!("swarmedge_connections_displaced_total", "server" => self.server).increment(1);
        self.displaced.set(self.displaced.get() + 1);
        self.plan();
    }

    fn plan(self: &Rc<Self>) {
        if !self.planned.replace(true) {
            let soon = (self.clock.now)() + LINE_AFTER;
            let at = self.last.get().map_or(soon, |last| soon.max(last + LINE_EVERY));
            (self.clock.later)(at, Rc::clone(self));
        }
    }

    fn write(&self) {
        let (refused, displaced) = (self.refused.take(), self.displaced.take());
        self.planned.set(false);
        self.last.set(Some((self.clock.now)()));
        tracing::warn!(
            server = self.server,
            refused,
            displaced,
            "connections were refused, or closed while idle, since all are taken: see `connections_max` or `sessions_max`"
        );
    }
}

impl fmt::Debug for FloodLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FloodLog").field("server", &self.server).finish_non_exhaustive()
    }
}

/// All seats of a server. Clones are the same seats.
#[derive(Clone, Debug)]
pub struct Seats(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    began: Instant,
    next: Cell<u64>,
    table: RefCell<Holdings<u64, ()>>,
    /// Signals to leave, by seat.
    leave: RefCell<BTreeMap<u64, Signal>>,
    log: Rc<FloodLog>,
}

/// The seat of one connection; dropping it gives it up.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    id: u64,
    leave: Signal,
}

impl Seats {
    /// Makes so many seats.
    #[must_use]
    pub fn new<R: Rt>(rt: &R, server: &'static str, connections_max: usize) -> Self {
        let (limits, log) = (limits(connections_max), FloodLog::new(rt, server));
        let (table, leave) = (RefCell::default(), RefCell::default());
        Self(Rc::new(Inner { limits, began: rt.now(), next: Cell::new(0), table, leave, log }))
    }

    /// Returns the number of taken seats.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.0.table.borrow().all().items
    }

    fn now(&self) -> Time {
        let passed = (self.0.log.clock.now)().saturating_duration_since(self.0.began);
        Time::ZERO.after(passed)
    }

    /// Takes a seat for a new connection, if need be in place of an idle one; `None` if there is none.
    #[must_use]
    pub fn take(&self, from: SocketAddr) -> Option<Seat> {
        let net = prefix(from.ip());
        loop {
            let room = self.0.table.borrow().ask(&self.0.limits, (net, ()), Amount::one(CONNECTION_BYTES));
            match room {
                Room::Free => break,
                Room::InPlaceOf(idle) => {
                    self.0.log.note_displaced();
                    if let Some(leave) = self.give_up(idle) {
                        leave.set();
                    }
                }
                Room::Full(_) => {
                    self.0.log.note_refused();
                    return None;
                }
            }
        }
        let (id, leave) = (self.0.next.get(), Signal::default());
        self.0.next.set(id + 1);
        let holding = Holding { prefix: net, key: (), bytes: CONNECTION_BYTES, turn: (0, self.now()), kept: false };
        self.0.table.borrow_mut().put(id, holding);
        self.0.leave.borrow_mut().insert(id, leave.clone());
        self.show();
        Some(Seat { seats: self.clone(), id, leave })
    }

    fn show(&self) {
        let taken = u32::try_from(self.taken()).unwrap_or(u32::MAX);
        metrics::gauge!("swarmedge_connections", "server" => self.0.log.server).set(f64::from(taken));
    }

    fn give_up(&self, id: u64) -> Option<Signal> {
        self.0.table.borrow_mut().take(id);
        self.show();
        self.0.leave.borrow_mut().remove(&id)
    }
}

impl Seat {
    /// Completes when the connection must end, since another one has its seat.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.leave.wait()
    }

    /// Says whether the connection is being served; while it is, it keeps its seat.
    pub fn serve(&self, on: bool) {
        let now = self.seats.now();
        self.seats.0.table.borrow_mut().change(self.id, |seat| (seat.kept, seat.turn.1) = (on, now));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.seats.give_up(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Start as _, testing::TestRt};
    use futures_lite::future::{block_on, poll_once};

    fn at(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), 4000)
    }

    fn has_lost(seat: &Seat) -> bool {
        block_on(poll_once(seat.lost())).is_some()
    }

    #[test]
    fn idle_connections_of_one_address_lock_nobody_out() {
        TestRt::block_on(|rt| async move {
            let seats = Seats::new(&rt, "test", 300);
            let flood: Vec<_> = (0..900).map(|_| seats.take(at("192.0.2.1"))).collect();
            let flood: Vec<_> = flood.iter().map(|seat| seat.as_ref().expect("a seat")).collect();
            assert_eq!(seats.taken(), 225, "one network leaves a quarter to others");
            assert!(flood[..675].iter().all(|s| has_lost(s)) && !flood[675..].iter().any(|s| has_lost(s)));
            let others: Vec<_> = (0..200).map(|n| seats.take(at(&format!("198.51.{n}.1"))).expect("a seat")).collect();
            assert_eq!(seats.taken(), 300);
            assert!(!others.iter().any(has_lost), "the full network makes room");
            let neighbour = seats.take(at("192.0.2.2")).expect("a seat");
            neighbour.serve(true);
            assert!(!has_lost(&neighbour));
            drop((flood.len(), others, neighbour));
        });
    }

    #[test]
    fn who_is_served_keeps_its_seat() {
        TestRt::block_on(|rt| async move {
            let seats = Seats::new(&rt, "test", 4);
            let served: Vec<_> = (0..3).map(|_| seats.take(at("192.0.2.1")).expect("a seat")).collect();
            served.iter().for_each(|seat| seat.serve(true));
            assert!(seats.take(at("192.0.2.1")).is_none(), "one network leaves a quarter to others");
            let other = seats.take(at("198.51.100.1")).expect("a seat");
            other.serve(true);
            assert!(seats.take(at("203.0.113.1")).is_none());
            served[1].serve(false);
            let third = seats.take(at("203.0.113.1")).expect("a seat");
            assert!(has_lost(&served[1]) && !has_lost(&served[0]) && !has_lost(&other));
            drop((third, served, other));
            assert_eq!(seats.taken(), 0);
        });
    }

    #[test]
    fn a_flood_is_one_line_with_its_numbers() {
        TestRt::block_on(|rt| async move {
            let log = FloodLog::new(&rt, "test");
            (0..1_000).for_each(|_| log.note_refused());
            assert!(log.planned.get() && log.last.get().is_none());
            log.write();
            assert_eq!((log.refused.get(), log.planned.get()), (0, false));
            let due = Rc::new(Cell::new(None));
            let (planned, clock) = (Rc::clone(&due), Instant::now());
            let clock = Clock { now: Box::new(move || clock), later: Box::new(move |at, _| planned.set(Some(at))) };
            let last = Cell::new(Some((clock.now)()));
            let counts = (Cell::new(0), Cell::new(0));
            let log = Rc::new(FloodLog {
                server: "test",
                clock,
                refused: counts.0,
                displaced: counts.1,
                last,
                planned: Cell::new(false),
            });
            log.note_displaced();
            let first = due.take().expect("planned");
            assert_eq!(first, (log.clock.now)() + LINE_EVERY);
            log.note_displaced();
            assert_eq!(due.take(), None, "no other line is planned");
        });
    }
}
