//! Test bench for one machine, with explicit inputs and time.

use crate::seeded::Seeded;
use std::time::Duration;
use std::vec::Vec;
use swarmedge_core::machine::{Cx, Machine, Time};

/// Machine under test with its configuration and clock.
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

    /// Passes one input to the machine; returns its outputs.
    pub fn input(&mut self, input: M::Input) -> Vec<M::Output> {
        let mut out = Vec::new();
        self.machine.handle_input(&mut Cx { now: self.now, cfg: &self.cfg, rng: &mut self.rng, out: &mut out }, input);
        out
    }

    /// Passes several inputs to the machine; returns all outputs.
    pub fn inputs(&mut self, inputs: impl IntoIterator<Item = M::Input>) -> Vec<M::Output> {
        inputs.into_iter().flat_map(|i| self.input(i)).collect()
    }

    /// Advances the time, stopping at each deadline on the way; returns all outputs.
    pub fn wait(&mut self, by: Duration) -> Vec<M::Output> {
        let end = self.now.after(by);
        let mut out = Vec::new();
        // a machine with endless deadlines at one time is broken: the limit ends the test instead of hanging it
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
