//! Rules: named predicates on a world, which every explorer checks.

use super::rng::Seeded;
use super::world::{System, World};

/// States in which a rule's predicate must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Every reachable state satisfies the predicate.
    Always,
    /// At least one reachable state satisfies the predicate, so that the other rules are not vacuously true.
    Sometimes,
}

/// A named predicate on the states of a world.
#[derive(Debug)]
pub struct Rule<S: System> {
    /// Name of the rule, a plain sentence.
    pub name: &'static str,
    /// States in which the predicate must hold.
    pub demand: Demand,
    /// Predicate: returns whether a state satisfies it.
    pub holds: fn(&S::Cfg, &World<S>) -> bool,
}

impl<S: System> Clone for Rule<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S: System> Copy for Rule<S> {}

impl<S: System> Rule<S> {
    /// Returns a rule whose predicate must hold in every reachable state.
    #[must_use]
    pub const fn always(name: &'static str, holds: fn(&S::Cfg, &World<S>) -> bool) -> Self {
        Self { name, demand: Demand::Always, holds }
    }

    /// Returns a rule whose predicate must hold in at least one reachable state.
    #[must_use]
    pub const fn sometimes(name: &'static str, holds: fn(&S::Cfg, &World<S>) -> bool) -> Self {
        Self { name, demand: Demand::Sometimes, holds }
    }
}

/// Returns the name of the first rule that the world breaks; [`Demand::Sometimes`] rules are ignored.
pub fn broken<S: System>(rules: &[Rule<S>], cfg: &S::Cfg, world: &World<S>) -> Option<&'static str> {
    rules.iter().find(|r| r.demand == Demand::Always && !(r.holds)(cfg, world)).map(|r| r.name)
}

/// Returns whether a world without pending events reaches `goal` within `steps` steps without faults; true while events
/// are pending. Expresses progress as a safety rule.
pub fn settles<S: System>(cfg: &S::Cfg, world: &World<S>, steps: u32, goal: impl Fn(&World<S>) -> bool) -> bool {
    !world.is_quiet() || world.clone().settle(cfg, steps, &mut Seeded::new(1), goal)
}
