//! The drive loop of a role: it feeds time, randomness and inputs to the machine and hands the outputs to a [`Port`].

use crate::mailbox::Receiver;
use crate::rt::Rt;
use futures_lite::future;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use swarmedge_core::machine::{Cx, Machine, Rng, Time};

/// Inputs handled in a row before the loop yields to the other tasks of its thread.
const BATCH: usize = 64;
/// Least pause between two timeouts.
const BREATH: Duration = Duration::from_millis(1);

/// The shell's part of a role: performs the machine's outputs and reports the results as inputs.
pub trait Port<M: Machine> {
    /// Starts one effect without waiting. The result of an effect that ends at once goes to `local`, handled next.
    fn perform(&mut self, output: M::Output, local: &mut VecDeque<M::Input>);

    /// Reads the machine after each input or timer, for gauges and status reports.
    fn observe(&mut self, _machine: &M) {}

    /// Returns whether the machine has finished, so that [`drive`] must return.
    fn is_over(&self) -> bool {
        false
    }
}

/// Random numbers from the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn below(&mut self, n: u32) -> u32 {
        let n = n.max(1);
        // the largest multiple of n in 32 bits; draws above it would make small numbers more likely
        let fair = u32::MAX - (u32::MAX % n + 1) % n;
        loop {
            let draw = getrandom::u32().expect("the system gives random bytes");
            if draw <= fair {
                return draw % n;
            }
        }
    }

    fn nonce(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system gives random bytes");
        bytes
    }
}

/// Event that woke the drive loop.
enum Woke<I> {
    Input(I),
    Timer,
    Closed,
}

/// Runs `machine` until every sender of `inbox` is dropped or `port` is over. The machine's time starts at zero now.
pub async fn drive<M, R, P>(rt: R, mut machine: M, cfg: M::Config, mut inbox: Receiver<M::Input>, mut port: P)
where
    M: Machine,
    M::Input: Send,
    R: Rt,
    P: Port<M>,
{
    let start = rt.now();
    let mut local = VecDeque::new();
    let mut out = Vec::new();
    let mut budget = BATCH;
    // queued inputs that come before the next timeout
    let mut ahead = 0;
    while !port.is_over() {
        let queued = || {
            ahead = usize::checked_sub(ahead, 1)?;
            inbox.try_recv()
        };
        let woke = match local.pop_front().or_else(queued) {
            Some(input) => Woke::Input(input),
            None => wait(&rt, start, machine.poll_timeout(), &mut inbox).await,
        };
        let is_timer = matches!(woke, Woke::Timer);
        let mut cx = Cx { now: since(start, rt.now()), cfg: &cfg, rng: &mut OsRng, out: &mut out };
        match woke {
            Woke::Input(input) => machine.handle_input(&mut cx, input),
            Woke::Timer => machine.handle_timeout(&mut cx),
            Woke::Closed => return,
        }
        out.drain(..).for_each(|output| port.perform(output, &mut local));
        port.observe(&machine);
        if is_timer {
            ahead = BATCH;
            // Work that outlasts the pause to the next timeout, as on a slow machine, would keep the network and all
            // inputs waiting until it is done.
            if machine.poll_timeout().is_some_and(|due| due <= since(start, rt.now())) {
                rt.sleep_until(rt.now() + BREATH).await;
            }
        }
        budget -= 1;
        if budget == 0 {
            budget = BATCH;
            future::yield_now().await;
        }
    }
}

/// Waits for the next event: a deadline that has passed, then inputs that are queued, then whichever comes first.
async fn wait<R: Rt, I: Send>(rt: &R, start: Instant, due: Option<Time>, inbox: &mut Receiver<I>) -> Woke<I> {
    let input = async |inbox: &mut Receiver<I>| inbox.recv().await.map_or(Woke::Closed, Woke::Input);
    let Some(due) = due else { return input(inbox).await };
    if due <= since(start, rt.now()) {
        return Woke::Timer;
    }
    if let Some(next) = inbox.try_recv() {
        return Woke::Input(next);
    }
    let timer = async {
        match start.checked_add(Duration::from_micros(due.0)) {
            Some(at) => rt.sleep_until(at).await,
            // a deadline beyond the range of the system's clock
            None => future::pending().await,
        }
        Woke::Timer
    };
    future::or(input(inbox), timer).await
}

fn since(start: Instant, now: Instant) -> Time {
    Time::ZERO.after(now.saturating_duration_since(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Sender, mailbox};
    use crate::rt::{Start, testing::TestRt};

    /// A machine for tests. It returns its inputs as outputs, counts down from a number through the local queue, and
    /// requests a number of timeouts, all due at `due`.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Toy {
        due: Time,
        timeouts: u32,
    }

    impl Machine for Toy {
        type Config = ();
        type Input = u32;
        type Output = u32;
        fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: u32) {
            cx.push(input);
        }
        fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
            self.timeouts -= 1;
            cx.push(100);
        }
        fn poll_timeout(&self) -> Option<Time> {
            (self.timeouts > 0).then_some(self.due)
        }
        fn rebase(&mut self, _: Duration) {}

        fn check(&self) {}
    }

    struct Log(Sender<u32>);

    impl Port<Toy> for Log {
        fn perform(&mut self, output: u32, local: &mut VecDeque<u32>) {
            self.0.try_send(output).expect("room");
            if (1..100).contains(&output) {
                local.push_back(output - 1);
            }
        }
    }

    fn run((due, timeouts): (Time, u32), inputs: &[u32], outputs: usize) -> Vec<u32> {
        let inputs = inputs.to_vec();
        TestRt::block_on(move |rt| async move {
            let (tx, inbox) = mailbox(8);
            let (log, mut seen) = mailbox(500);
            for input in inputs {
                tx.try_send(input).expect("room");
            }
            rt.spawn(drive(rt.clone(), Toy { due, timeouts }, (), inbox, Log(log)));
            let mut all = Vec::new();
            for _ in 0..outputs {
                all.extend(seen.recv().await);
            }
            drop(tx);
            assert_eq!(seen.recv().await, None, "the loop ends with its last sender");
            all
        })
    }

    #[test]
    fn results_of_instant_effects_are_handled_before_queued_inputs() {
        assert_eq!(run((Time::ZERO, 0), &[2, 0], 4), [2, 1, 0, 0]);
    }

    #[test]
    fn a_passed_deadline_fires_once_and_before_queued_inputs() {
        assert_eq!(run((Time::ZERO, 1), &[0], 2), [100, 0]);
    }

    #[test]
    fn deadlines_that_have_always_passed_do_not_keep_inputs_waiting() {
        assert_eq!(run((Time::ZERO, 3), &[0, 0], 5), [100, 0, 0, 100, 100]);
    }

    #[test]
    fn a_future_deadline_fires_after_the_queued_inputs() {
        assert_eq!(run((Time(50_000), 1), &[1], 3), [1, 0, 100]);
    }

    #[test]
    fn draws_stay_below_their_bound() {
        for n in [1, 2, 3, 7, u32::MAX] {
            assert!((0..200).all(|_| OsRng.below(n) < n));
        }
        assert_ne!(OsRng.nonce(), OsRng.nonce());
    }
}
