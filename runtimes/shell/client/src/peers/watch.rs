//! Detects silent peers: connections on which nothing arrives although an answer is due. QUIC itself waits half a
//! minute.

use super::Peers;
use super::conn::Conn;
use std::cell::Cell;
use std::time::{Duration, Instant};
use swarmedge_core::role::client::io::Input;
use swarmedge_ground::rt::Rt;

/// Interval at which connections are checked, while any is open.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Length of the first silence that is reported; each later report needs twice the silence of the one before.
const QUIET: Duration = Duration::from_secs(1);

/// Number of datagrams that may be sent after the last received one without an answer being due, since they may be
/// mere acknowledgements. More must be blocks, or QUIC's probes for lost packets.
const UNANSWERED: u64 = 4;

/// The record of a connection's silence.
pub(super) struct Watch {
    /// Number of running transfers on the connection.
    busy: Cell<u32>,
    /// Whether the peer was asked to answer and no datagram has come since.
    knocked: Cell<bool>,
    /// Number of datagrams received at the last check.
    received: Cell<u64>,
    /// Number of datagrams sent when `received` last changed.
    sent: Cell<u64>,
    /// The start of the present silence while an answer is due.
    since: Cell<Option<Instant>>,
    /// The length of silence at which to report next.
    told_at: Cell<Duration>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            busy: Cell::new(0),
            knocked: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            since: Cell::new(None),
            told_at: Cell::new(QUIET),
        }
    }
}

/// A guard: an answer is due on a connection while it exists.
pub(super) struct Busy(std::rc::Rc<Conn>);

impl Busy {
    pub(super) fn on(conn: &std::rc::Rc<Conn>) -> Self {
        conn.watch.busy.set(conn.watch.busy.get() + 1);
        Self(std::rc::Rc::clone(conn))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.watch.busy.set(self.0.watch.busy.get().saturating_sub(1));
    }
}

impl Watch {
    /// Records that an answer is due from now on.
    pub(super) fn knocked(&self) {
        self.knocked.set(true);
    }

    /// Checks a connection's counts of datagrams. Returns the length of a silence to report, if any.
    fn look(&self, now: Instant, received: u64, sent: u64) -> Option<Duration> {
        if self.received.replace(received) != received {
            self.sent.set(sent);
            self.knocked.set(false);
            self.since.set(None);
            self.told_at.set(QUIET);
        }
        let unanswered = sent - self.sent.get();
        if self.busy.get() == 0 && !self.knocked.get() && unanswered < UNANSWERED {
            self.since.set(None);
            return None;
        }
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        let quiet = now.saturating_duration_since(since);
        let told_at = self.told_at.get();
        if quiet < told_at {
            return None;
        }
        self.told_at.set(told_at * 2);
        Some(quiet)
    }
}

/// Checks all connections at intervals, until none is open.
pub(super) async fn run<R: Rt>(peers: Peers<R>) {
    let rt = peers.0.rt.clone();
    loop {
        rt.sleep_until(rt.now() + LOOK_EVERY).await;
        let now = rt.now();
        let state = peers.0.state.borrow();
        let mut any = false;
        for conn in state.open() {
            any = true;
            let (received, sent) = conn.link.counts();
            if let Some(quiet) = conn.watch.look(now, received, sent) {
                let round_trip = conn.link.round_trip();
                tracing::debug!(conn = %conn.id, ?quiet, "nothing is heard of a peer");
                // with a full mailbox it is told next time
                let _ = peers.0.inbox.try_send(Input::PeerQuiet { conn: conn.id, quiet, round_trip });
            }
        }
        drop(state);
        if !any {
            peers.0.state.borrow_mut().watched = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_that_should_not_be_is_told_and_ever_less_often() {
        let (watch, t) = (Watch::default(), Instant::now());
        let at = |ms| t + Duration::from_millis(ms);
        assert_eq!(watch.look(at(0), 7, 7), None);
        assert_eq!(watch.look(at(5_000), 7, 8), None, "nothing is due");
        let told = |from: u64, received, sent| -> Vec<u64> {
            (0..40).map(|i| from + 250 * i).filter(|ms| watch.look(at(*ms), received, sent).is_some()).collect()
        };
        watch.knocked();
        assert_eq!(told(5_000, 7, 8), [6_000, 7_000, 9_000, 13_000]);
        assert_eq!(watch.look(at(20_000), 8, 9), None, "an answer");
        assert_eq!(told(30_000, 8, 9), [0; 0], "and nothing is due since");
        assert_eq!(told(40_000, 8, 20), [41_000, 42_000, 44_000, 48_000], "blocks that nobody acknowledges");
    }
}
