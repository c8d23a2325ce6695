//! Helpers of the fuzz bodies: passing time, inputs to a machine, random values from bytes.

use arbitrary::{Result, Unstructured};
use std::fmt::Debug;
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine, Time};
use swarmedge_core::wire::Wire;
use swarmedge_models::rng::Seeded;

pub(crate) fn value<T: Wire + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(v) = T::from_bytes(bytes) {
        assert_eq!(v.to_bytes(), bytes, "another encoding of the same value");
    }
}

/// Advances the time by a random power of two of microseconds, at most 67 s.
pub(crate) fn step(u: &mut Unstructured<'_>, now: &mut Time) -> Result<()> {
    let by = 1_u64 << u.int_in_range(0..=26_u32)?;
    *now = now.after(Duration::from_micros(by));
    Ok(())
}

/// Maximum number of outputs that a machine may produce for one input.
const OUTPUTS_MAX: usize = 10_000;

/// Passes one input (or the time-out, if `None`) to the machine, checks its invariants, and returns its outputs.
pub(crate) fn drive<M: Machine>(
    m: &mut M,
    cfg: &M::Config,
    now: Time,
    rng: &mut Seeded,
    input: Option<M::Input>,
) -> Vec<M::Output> {
    let mut out = Vec::new();
    let mut cx = Cx { now, cfg, rng, out: &mut out };
    match input {
        Some(input) => m.handle_input(&mut cx, input),
        None => m.handle_timeout(&mut cx),
    }
    m.check();
    assert!(out.len() <= OUTPUTS_MAX, "{} effects of one input", out.len());
    out
}

/// Time at which the bodies that use [`drive_shifted`] start, one day after zero, so that all times can be moved
/// back.
pub(crate) const START: Time = Time(86_400_000_000);

/// Passes one input (or the time-out, if `None`) to the machine, and to a copy whose times are one day earlier: both
/// must produce the same outputs and states.
pub(crate) fn drive_shifted<M: Machine>(
    m: &mut M,
    cfg: &M::Config,
    now: Time,
    rng: &mut Seeded,
    input: Option<M::Input>,
) -> Vec<M::Output>
where
    M::Input: Clone,
    M::Output: PartialEq + Debug,
{
    let by = Duration::from_micros(START.0);
    let (mut later, mut draws) = (m.clone(), rng.clone());
    later.rebase(by);
    let same = drive(&mut later, cfg, now.rebased(by), &mut draws, input.clone());
    let out = drive(m, cfg, now, rng, input);
    assert_eq!(out, same, "the effects depend on when the clock started");
    let mut shifted = m.clone();
    shifted.rebase(by);
    assert!(shifted == later, "the state depends on when the clock started");
    out
}

pub(crate) fn one_of<T: Copy>(u: &mut Unstructured<'_>, all: &[T], other: T) -> Result<T> {
    if all.is_empty() { Ok(other) } else { Ok(*u.choose(all)?) }
}
