//! Adapter of a world to stateright: the whole bridge between the production machines and the checker.

use crate::rule::{Demand, Rule};
use crate::world::{Action, System, World};
use stateright::{Expectation, Model, Property};

/// A world under one configuration, with its rules, as a model for stateright.
pub(crate) struct Checked<S: System> {
    /// Configuration with the seeded defect, if any.
    pub(crate) cfg: S::Cfg,
    /// State in which exploration begins.
    pub(crate) start: World<S>,
    /// Rules to check, at most [`RULES_MAX`].
    pub(crate) rules: &'static [Rule<S>],
}

impl<S: System> Model for Checked<S> {
    type State = World<S>;
    type Action = Action<S::Move>;

    fn init_states(&self) -> Vec<World<S>> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World<S>, out: &mut Vec<Self::Action>) {
        world.actions(&self.cfg, out);
    }

    fn next_state(&self, world: &World<S>, action: Self::Action) -> Option<World<S>> {
        let next = world.next(&self.cfg, &action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // stateright takes plain function pointers, so the rule's index is a constant of the function
        let conditions: [fn(&Self, &World<S>) -> bool; RULES_MAX] = [
            holds::<S, 0>,
            holds::<S, 1>,
            holds::<S, 2>,
            holds::<S, 3>,
            holds::<S, 4>,
            holds::<S, 5>,
            holds::<S, 6>,
            holds::<S, 7>,
            holds::<S, 8>,
            holds::<S, 9>,
            holds::<S, 10>,
            holds::<S, 11>,
            holds::<S, 12>,
        ];
        assert!(self.rules.len() <= RULES_MAX, "more rules than conditions");
        let property = |(rule, condition): (&Rule<S>, _)| {
            let expectation = match rule.demand {
                Demand::Always => Expectation::Always,
                Demand::Sometimes => Expectation::Sometimes,
            };
            Property { expectation, name: rule.name, condition }
        };
        self.rules.iter().zip(conditions).map(property).collect()
    }
}

/// Maximum number of rules of a model.
const RULES_MAX: usize = 13;

fn holds<S: System, const I: usize>(model: &Checked<S>, world: &World<S>) -> bool {
    (model.rules[I].holds)(&model.cfg, world)
}
