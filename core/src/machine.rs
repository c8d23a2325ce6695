//! Types shared by all state machines: [`Machine`], its context [`Cx`], [`Time`], [`Rng`] and [`Deadlines`].
//!
//! A machine is a value. All input (messages, time, randomness, configuration, the failure of an effect) is passed as
//! an argument; every effect is an output pushed to [`Cx::out`]. A machine never blocks and never performs effects
//! itself, so the same value runs under a model checker, a fuzzer, a simulator and a real runtime.

use alloc::collections::BTreeMap;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::Hash;
use core::time::Duration;

/// Microseconds since the process started. Monotonic; arithmetic saturates, so that durations received from others
/// cannot overflow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The moment at which the process started.
    pub const ZERO: Self = Self(0);

    /// Returns this moment plus `by`, at most the largest representable moment.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// Returns the time since `earlier`; zero if `earlier` is later than this moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns this moment relative to an origin that is `by` later; earlier moments become zero.
    #[must_use]
    pub fn rebased(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// Source of randomness, passed as an argument. The model checker explores each result of [`Rng::below`], and
/// [`Rng::nonce`] counts there.
pub trait Rng {
    /// Draws a uniform number below `n`, which is at least 1.
    fn below(&mut self, n: u32) -> u32;
    /// Draws bytes for an identifier: unpredictable in production, distinct in the model checker.
    fn nonce(&mut self) -> [u8; 16];
}

/// The context in which a machine handles one input.
pub struct Cx<'a, M: Machine> {
    /// The time of this input.
    pub now: Time,
    /// The role's configuration: passed each time, never stored.
    pub cfg: &'a M::Config,
    /// The only source of randomness.
    pub rng: &'a mut dyn Rng,
    /// The machine's outputs, in order, which the caller performs.
    pub out: &'a mut Vec<M::Output>,
}

impl<M: Machine> Cx<'_, M> {
    /// Emits one effect: appends it to the outputs.
    pub fn push(&mut self, output: M::Output) {
        self.out.push(output);
    }

    /// Returns whether the deadline `at` is not later than `now`; false for `None`.
    #[must_use]
    pub fn is_due(&self, at: Option<Time>) -> bool {
        at.is_some_and(|at| at <= self.now)
    }

    /// Runs a child machine with its own configuration and returns its outputs, which the parent translates into its
    /// own.
    pub fn child<C: Machine>(&mut self, cfg: &C::Config, run: impl FnOnce(&mut Cx<'_, C>)) -> Vec<C::Output> {
        let mut out = Vec::new();
        run(&mut Cx { now: self.now, cfg, rng: &mut *self.rng, out: &mut out });
        out
    }
}

/// A protocol state machine. `handle_*` accepts every input: invalid bytes were rejected by the codec, a peer's
/// misbehaviour becomes a `Close` output, a failed effect is an input. It panics only if the machine has a defect.
pub trait Machine: Clone + Debug + Eq + Hash {
    /// Limits and intervals: `Default` is for production, `tiny()` for the model checker.
    type Config;
    /// The events that can happen to the machine.
    type Input;
    /// The effects that the machine can command.
    type Output;

    /// Handles one event at `cx.now`.
    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Self::Input);
    /// Handles the deadlines that are due at `cx.now`. A call without a due deadline has no effect.
    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>);
    /// Returns when [`Machine::handle_timeout`] must be called next; `None` without a deadline. Implementations take
    /// no time that grows with the machine's state.
    fn poll_timeout(&self) -> Option<Time>;
    /// Shifts every stored [`Time`] back by `by`, in children too, so that the model checker can compare states whose
    /// times differ only by a constant.
    fn rebase(&mut self, by: Duration);
    /// Asserts the machine's invariants over its whole state; models and fuzz targets call it after each event. In
    /// debug builds `handle_*` asserts the invariants of the entries that it changed.
    fn check(&self);
}

/// A set of deadlines, at most one for each key, ordered by time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deadlines<K: Ord + Copy> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Sets, moves or (with `None`) clears the deadline of `key`.
    pub fn set(&mut self, key: K, at: Option<Time>) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at {
            self.by_key.insert(key, at);
            self.by_time.insert((at, key));
        }
        debug_assert!(self.by_key.len() == self.by_time.len(), "a deadline is in one of two maps");
    }

    /// Clears the deadline of `key`.
    pub fn clear(&mut self, key: K) {
        self.set(key, None);
    }

    /// Returns the deadline of `key`, if one is set.
    #[must_use]
    pub fn get(&self, key: K) -> Option<Time> {
        self.by_key.get(&key).copied()
    }

    /// Iterates over all keys, earliest deadline first.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.by_time.iter().map(|&(_, key)| key)
    }

    /// Returns the earliest deadline of all keys.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Removes the earliest deadline if it is due at `now`, and returns its key; `None` if none is due.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let &(at, key) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }

    /// Shifts all deadlines back by `by`, as [`Machine::rebase`] does.
    pub fn rebase(&mut self, by: Duration) {
        let old = core::mem::take(self);
        for (key, at) in old.by_key {
            self.set(key, Some(at.rebased(by)));
        }
    }

    /// Asserts that the map by key and the set by time hold the same deadlines.
    pub fn check(&self) {
        assert!(self.by_key.len() == self.by_time.len(), "as many deadlines by key as by time");
        let mirrored = |(key, at): (&K, &Time)| self.by_time.contains(&(*at, *key));
        assert!(self.by_key.iter().all(mirrored), "each deadline stands in both maps");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_clause_about_deadlines_fires() {
        let mut healthy = Deadlines::default();
        healthy.set('a', Some(Time(5)));
        healthy.set('b', Some(Time(7)));
        crate::bench::assert_each_clause_fires(
            &healthy,
            Deadlines::check,
            &[
                ("as many deadlines by key as by time", |d| _ = d.by_time.pop_last()),
                ("each deadline stands in both maps", |d| _ = d.by_key.insert('a', Time(6))),
            ],
        );
    }

    #[test]
    fn a_moved_deadline_fires_once_at_its_new_time() {
        let mut d = Deadlines::default();
        d.set('a', Some(Time(5)));
        d.set('b', Some(Time(7)));
        d.set('a', Some(Time(9)));
        assert_eq!(d.next(), Some(Time(7)));
        assert_eq!(d.pop_due(Time(6)), None);
        assert_eq!(d.pop_due(Time(9)), Some('b'));
        assert_eq!(d.pop_due(Time(9)), Some('a'));
        assert_eq!(d.pop_due(Time(u64::MAX)), None);
    }

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Time(u64::MAX - 1).after(Duration::MAX), Time(u64::MAX));
        assert_eq!(Time(3).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(3).rebased(Duration::from_secs(1)), Time::ZERO);
    }
}
