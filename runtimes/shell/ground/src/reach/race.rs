//! Attempts that race, as RFC 8305 ("Happy Eyeballs") has it: each starts a moment after the one before, or at once
//! when one fails. The first success wins, and the others are dropped.

use crate::quic::canonical;
use crate::rt::Rt;
use futures_lite::future::or;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Delay before the next attempt starts beside those that run (RFC 8305 §8).
const STAGGER: Duration = Duration::from_millis(250);
/// Time-out of one attempt: three retransmissions of a SYN (RFC 6298) fit.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(8);

/// Sorts addresses so that the two families alternate, beginning with that of the first address (RFC 8305 §4). Repeated
/// addresses are left out.
#[must_use]
pub fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut families = [Vec::new(), Vec::new()];
    let addrs: Vec<_> = addrs.into_iter().map(canonical).collect();
    let first = addrs.first().is_some_and(SocketAddr::is_ipv6);
    for addr in addrs {
        let family = &mut families[usize::from(addr.is_ipv6() != first)];
        if !family.contains(&addr) {
            family.push(addr);
        }
    }
    let longest = families.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|n| families.iter().filter_map(move |f| f.get(n).copied())).collect()
}

/// The plan of a race: tells when each attempt starts.
#[derive(Clone, Debug)]
pub struct Schedule {
    waiting: usize,
    running: usize,
    next_at: Option<Instant>,
}

/// The next step of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the next attempt.
    Start,
    /// Wait for the attempts that run, at most until this time.
    Wait(Option<Instant>),
    /// All attempts have failed.
    Over,
}

impl Schedule {
    /// Makes the plan of so many attempts.
    #[must_use]
    pub const fn new(attempts: usize) -> Self {
        Self { waiting: attempts, running: 0, next_at: None }
    }

    /// Returns what to do at `now`; each [`Step::Start`] counts as done.
    pub fn step(&mut self, now: Instant) -> Step {
        match self.next_at {
            _ if self.waiting == 0 && self.running == 0 => Step::Over,
            _ if self.waiting == 0 => Step::Wait(None),
            Some(at) if now < at => Step::Wait(Some(at)),
            _ => {
                self.waiting -= 1;
                self.running += 1;
                self.next_at = now.checked_add(STAGGER);
                Step::Start
            }
        }
    }

    /// One of the running attempts has failed: the next one starts at once.
    pub const fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next_at = None;
    }
}

/// Runs attempts as [`Schedule`] says until one succeeds. If none does, returns their errors in the order of failure.
pub async fn first_of<R: Rt, F: Future<Output = Result<T, E>>, T, E>(
    rt: &R,
    attempts: impl IntoIterator<Item = F, IntoIter: ExactSizeIterator>,
) -> Result<T, Vec<E>> {
    let mut attempts = attempts.into_iter();
    let mut schedule = Schedule::new(attempts.len());
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut errors = Vec::new();
    loop {
        let until = match schedule.step(rt.now()) {
            Step::Start => {
                match attempts.next() {
                    Some(attempt) => running.push(Box::pin(attempt)),
                    None => schedule.failed(),
                }
                continue;
            }
            Step::Wait(until) => until,
            Step::Over => return Err(errors),
        };
        let mut timer = pin!(async {
            match until {
                Some(at) => rt.sleep_until(at).await,
                None => pending().await,
            }
        });
        let before = errors.len();
        let won = poll_fn(|cx| {
            let mut won = None;
            running.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                _ if won.is_some() => true,
                Poll::Ready(Ok(value)) => {
                    won = Some(value);
                    false
                }
                Poll::Ready(Err(error)) => {
                    errors.push(error);
                    false
                }
                Poll::Pending => true,
            });
            let over = won.is_some() || errors.len() > before || timer.as_mut().poll(cx).is_ready();
            if over { Poll::Ready(won) } else { Poll::Pending }
        });
        if let Some(won) = won.await {
            return Ok(won);
        }
        (before..errors.len()).for_each(|_| schedule.failed());
    }
}

/// Opens a TCP connection to one of a host's addresses, whichever answers first.
pub async fn race<R: Rt>(rt: &R, addrs: Vec<SocketAddr>) -> io::Result<R::Tcp> {
    let attempts: Vec<_> = interleave(addrs).into_iter().map(|addr| attempt(rt, addr)).collect();
    first_of(rt, attempts).await.map_err(most_telling)
}

async fn attempt<R: Rt>(rt: &R, addr: SocketAddr) -> io::Result<R::Tcp> {
    let late = async {
        rt.sleep_until(rt.now() + ATTEMPT_WITHIN).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let connected = or(rt.connect(addr), late).await;
    connected.inspect_err(|error| tracing::debug!(%addr, %error, "an address does not answer"))
}

/// Returns the error to report: a host that answers and refuses says more than a family that leads nowhere.
fn most_telling(errors: Vec<io::Error>) -> io::Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    let rank = |error: &io::Error| match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => 2,
        io::ErrorKind::TimedOut => 1,
        _ => 0,
    };
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    errors.into_iter().min_by_key(rank).unwrap_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Start as _, testing::TestRt};
    use std::cell::RefCell;
    use std::net::TcpListener;

    fn addrs(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|addr| addr.parse().expect("an address")).collect()
    }

    #[test]
    fn families_alternate_and_begin_with_the_resolvers_choice() {
        for (given, sorted) in [
            ("", ""),
            ("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1", "[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1"),
            ("1.1.1.1:1 [::1]:1 2.2.2.2:1 [::2]:1", "1.1.1.1:1 [::1]:1 2.2.2.2:1 [::2]:1"),
            ("[::ffff:1.1.1.1]:1 1.1.1.1:1 [::1]:1 1.1.1.1:2", "1.1.1.1:1 [::1]:1 1.1.1.1:2"),
        ] {
            assert_eq!(interleave(addrs(given)), addrs(sorted), "{given}");
        }
    }

    #[test]
    fn attempts_start_one_delay_apart_and_at_once_after_a_failure() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(4);
        assert_eq!(schedule.step(start), Step::Start);
        assert_eq!(schedule.step(at(249)), Step::Wait(Some(at(250))));
        assert_eq!(schedule.step(at(250)), Step::Start);
        assert_eq!(schedule.step(at(300)), Step::Wait(Some(at(500))));
        schedule.failed();
        assert_eq!((schedule.step(at(300)), schedule.step(at(549))), (Step::Start, Step::Wait(Some(at(550)))));
        assert_eq!((schedule.step(at(550)), schedule.step(at(9_000))), (Step::Start, Step::Wait(None)));
        (0..3).for_each(|_| schedule.failed());
        assert_eq!(schedule.step(at(9_000)), Step::Over);
        assert_eq!(Schedule::new(0).step(start), Step::Over);
    }

    #[test]
    fn the_first_success_wins_and_failures_are_returned_in_order() {
        TestRt::block_on(|rt| async move {
            let begun = RefCell::new(Vec::new());
            let begun = &begun;
            let attempt = |n: u32, result: Option<Result<u32, u32>>| async move {
                begun.borrow_mut().push(n);
                match result {
                    Some(result) => result,
                    None => pending().await,
                }
            };
            let silent_first = vec![attempt(1, None), attempt(2, Some(Err(2))), attempt(3, Some(Ok(3)))];
            assert_eq!(first_of(&rt, silent_first).await, Ok(3));
            assert_eq!(begun.take(), [1, 2, 3]);
            let quick = vec![attempt(1, Some(Ok(1))), attempt(2, Some(Ok(2)))];
            assert_eq!(first_of(&rt, quick).await, Ok(1));
            assert_eq!(begun.take(), [1], "nothing starts after a success");
            let failing = vec![attempt(1, Some(Err(1))), attempt(2, Some(Err(2)))];
            assert_eq!(first_of(&rt, failing).await, Err(vec![1, 2]));
        });
    }

    #[test]
    fn a_refused_address_is_passed_over_and_its_error_told_before_others() {
        TestRt::block_on(|rt| async move {
            let open = TcpListener::bind("127.0.0.1:0").expect("a port");
            let there = open.local_addr().expect("bound");
            let closed = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
            assert!(race(&rt, vec![closed, there]).await.is_ok());
            let none = race(&rt, Vec::new()).await.expect_err("no address");
            assert_eq!(none.kind(), io::ErrorKind::NotFound);
        });
        let error = |kind: io::ErrorKind| io::Error::from(kind);
        let all = [io::ErrorKind::NetworkUnreachable, io::ErrorKind::TimedOut, io::ErrorKind::ConnectionRefused];
        assert_eq!(most_telling(all.map(error).into()).kind(), io::ErrorKind::ConnectionRefused);
    }
}
