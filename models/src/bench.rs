//! One machine on a bench: inputs one by one, time by hand.

use crate::seeded::Seeded;
use std::time::Duration;
use std::vec::Vec;
use swarmedge_core::machine::{Cx, Machine, Time};

/// A machine, its configuration and its clock.
#[derive(Debug)]
pub struct Bench<M: Machine> {
    /// State machine under test.
    pub machine: M,
    /// Configuration passed to the machine.
    pub cfg: M::Config,
    /// Current time of the bench.
    pub now: Time,
    rng: Seeded,
}

impl<M: Machine> Bench<M> {
    /// Puts a machine on the bench at time 0.
    pub fn new(machine: M, cfg: M::Config) -> Self {
        Self { machine, cfg, now: Time::ZERO, rng: Seeded::new(1) }
    }

    /// Gives one input; what it puts out.
    pub fn input(&mut self, input: M::Input) -> Vec<M::Output> {
        let mut out = Vec::new();
        self.machine.handle_input(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out }, input);
        out
    }

    /// Gives several inputs; what they put out together.
    pub fn inputs(&mut self, inputs: impl IntoIterator<Item = M::Input>) -> Vec<M::Output> {
        inputs.into_iter().flat_map(|i| self.input(i)).collect()
    }

    /// Lets time pass, stopping at each deadline on the way; what that puts out.
    pub fn wait(&mut self, by: Duration) -> Vec<M::Output> {
        let end = self.now.after(by);
        let mut out = Vec::new();
        // a machine that is due again and again at one moment is broken: the count ends the test instead of hanging it
        for _ in 0..100_000 {
            let Some(due) = self.machine.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                return out;
            };
            self.now = self.now.max(due);
            self.machine.handle_timeout(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out });
        }
        panic!("the machine is always due");
    }
}
