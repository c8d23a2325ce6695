//! Test bench for one machine: the test passes each input and advances the time explicitly.

use crate::seeded::Seeded;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
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
        self.machine.check();
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
            self.machine.check();
        }
        panic!("the machine is always due");
    }
}

/// Message of one assertion in a machine's `check` function, and a corruption of a sound state that must make that
/// assertion fail.
pub type Clause<T> = (&'static str, fn(&mut T));

/// Asserts that `check` accepts `sound`, and that it panics with the message `clause` once `corrupt` has changed the
/// state.
pub fn assert_clause_fires<T: Clone>(sound: &T, check: fn(&T), clause: &str, corrupt: impl FnOnce(&mut T)) {
    check(sound);
    let mut state = sound.clone();
    corrupt(&mut state);
    let Err(fired) = catch_unwind(AssertUnwindSafe(|| check(&state))) else { panic!("not found: {clause}") };
    let said = fired.downcast_ref::<&str>().copied().or_else(|| fired.downcast_ref::<String>().map(String::as_str));
    assert_eq!(said, Some(clause), "another clause has fired");
}

/// Asserts that `check` accepts `sound`, and that each corruption of it in `clauses` makes `check` panic with the
/// message beside it.
pub fn assert_each_clause_fires<T: Clone>(sound: &T, check: fn(&T), clauses: &[Clause<T>]) {
    check(sound);
    for (clause, corrupt) in clauses {
        assert_clause_fires(sound, check, clause, corrupt);
    }
}
