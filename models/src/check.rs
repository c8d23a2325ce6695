//! Checks one model: every rule on every state, then that every tooth (seeded defect) is found.

use crate::rule::{Demand, Rule};
use crate::shim::Checked;
use crate::trace;
use crate::world::{Action, System, World};
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A seeded defect and the rule that must find it.
pub struct Tooth<S: System> {
    /// Description of the defect.
    pub defect: &'static str,
    /// Name of the rule that must fail.
    pub rule: &'static str,
    /// Configuration with the defect switched on.
    pub cfg: S::Cfg,
}

/// A model: a world, its rules and its teeth.
pub struct Spec<S: System> {
    /// Name on the command line.
    pub name: &'static str,
    /// Description of the model's nodes and the bounds of its faults.
    pub about: &'static str,
    /// Configuration without a defect.
    pub cfg: S::Cfg,
    /// Builds the first state for a configuration.
    pub start: fn(&S::Cfg) -> World<S>,
    /// Rules that must hold in every state or be reached.
    pub rules: &'static [Rule<S>],
    /// Seeded defects that the rules must find.
    pub teeth: Vec<Tooth<S>>,
}

/// Result of checking a rule.
pub struct RuleReport {
    /// The rule's name, as the checker prints it.
    pub name: &'static str,
    /// Whether the rule must always hold or be reached once.
    pub demand: Demand,
    /// Steps to a state that breaks the rule, or a note that a required state was not reached.
    pub failure: Option<String>,
}

/// Result of checking a model with one seeded defect.
pub struct ToothReport {
    /// The seeded defect, in one sentence.
    pub defect: &'static str,
    /// The rule that must break.
    pub rule: &'static str,
    /// Number of steps until the rule failed; `None`: the defect was not found.
    pub steps: Option<usize>,
    /// Number of distinct states explored until the rule failed.
    pub states: usize,
    /// Duration of the check with this defect.
    pub time: Duration,
}

/// Result of checking a model.
pub struct Report {
    /// The model's name on the command line.
    pub name: &'static str,
    /// Description of the model's nodes and the bounds of its faults.
    pub about: &'static str,
    /// Number of distinct states explored.
    pub states: usize,
    /// Number of steps between these states.
    pub transitions: usize,
    /// Steps to the state that is farthest from the first.
    pub depth: usize,
    /// Duration of the check without a defect.
    pub time: Duration,
    /// Result of each rule.
    pub rules: Vec<RuleReport>,
    /// Result of each seeded defect.
    pub teeth: Vec<ToothReport>,
}

impl Report {
    /// Returns whether every rule holds and every seeded defect was found.
    pub fn is_good(&self) -> bool {
        self.rules.iter().all(|r| r.failure.is_none()) && self.teeth.iter().all(|t| t.steps.is_some())
    }
}

/// A [`Spec`] of any system, so that all models fit into one list.
pub trait AnyModel {
    /// Name on the command line.
    fn name(&self) -> &'static str;
    /// Checks every rule and every seeded defect.
    fn check(&self, threads: usize) -> Report;
    /// Serves stateright's explorer in a browser; with `tooth`, for the model with that defect.
    fn explore(&self, address: &str, tooth: Option<usize>) -> Result<(), String>;
}

impl<S> AnyModel for Spec<S>
where
    S: System + Send + Sync + 'static,
    S::Cfg: Clone + Send + Sync + 'static,
    S::Node: Send + Sync,
    S::Event: Send + Sync,
    S::Move: Send + Sync + Debug,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, threads: usize) -> Report {
        let began = Instant::now();
        let checker = self.under(&self.cfg).checker().threads(threads).finish_when(HasDiscoveries::AllFailures);
        let checker = checker.spawn_bfs().join();
        let time = began.elapsed();
        let rules = self.rules.iter().map(|r| self.rule_report(&checker, r)).collect();
        Report {
            name: self.name,
            about: self.about,
            states: checker.unique_state_count(),
            transitions: checker.state_count(),
            depth: checker.max_depth(),
            time,
            rules,
            teeth: self.teeth.iter().map(|t| self.bite(t, threads)).collect(),
        }
    }

    fn explore(&self, address: &str, tooth: Option<usize>) -> Result<(), String> {
        let cfg = match tooth {
            None => &self.cfg,
            Some(n) => &self.teeth.get(n).ok_or_else(|| format!("{} has no tooth {n}", self.name))?.cfg,
        };
        self.under(cfg).checker().serve(address);
        Ok(())
    }
}

impl<S> Spec<S>
where
    S: System + Send + Sync + 'static,
    S::Cfg: Clone + Send + Sync + 'static,
    S::Node: Send + Sync,
    S::Event: Send + Sync,
    S::Move: Send + Sync + Debug,
{
    fn under(&self, cfg: &S::Cfg) -> Checked<S> {
        Checked { cfg: cfg.clone(), start: (self.start)(cfg), rules: self.rules }
    }

    fn rule_report(&self, checker: &impl Checker<Checked<S>>, rule: &Rule<S>) -> RuleReport {
        let path = checker.discovery(rule.name);
        let failure = match (rule.demand, path) {
            (Demand::Always, Some(path)) => {
                let mut actions = path.into_actions();
                actions.truncate(self.first(&self.cfg, rule, &actions));
                let steps = trace::print(&self.cfg, &(self.start)(&self.cfg), &actions);
                Some(if steps.is_empty() { "in the first state".into() } else { steps })
            }
            (Demand::Sometimes, None) => Some("never reached".into()),
            (Demand::Always, None) | (Demand::Sometimes, Some(_)) => None,
        };
        RuleReport { name: rule.name, demand: rule.demand, failure }
    }

    /// Returns the number of steps of a path to the first state that breaks the rule, or that a rule requires. The
    /// checker's path leads to the last such state that it has found, and may go through others.
    fn first(&self, cfg: &S::Cfg, rule: &Rule<S>, path: &[Action<S::Move>]) -> usize {
        let mut world = (self.start)(cfg);
        for (steps, action) in path.iter().enumerate() {
            if (rule.holds)(cfg, &world) == (rule.demand == Demand::Sometimes) {
                return steps;
            }
            world = world.next(cfg, action);
        }
        path.len()
    }

    fn bite(&self, tooth: &Tooth<S>, threads: usize) -> ToothReport {
        let began = Instant::now();
        let stop = HasDiscoveries::AnyOf([tooth.rule].into());
        let checker = self.under(&tooth.cfg).checker().threads(threads).finish_when(stop).spawn_bfs().join();
        let rule = self.rules.iter().find(|rule| rule.name == tooth.rule);
        let path = checker.discovery(tooth.rule).map(|path| path.into_actions());
        let steps = rule.zip(path).map(|(rule, path)| self.first(&tooth.cfg, rule, &path));
        ToothReport {
            defect: tooth.defect,
            rule: tooth.rule,
            steps,
            states: checker.unique_state_count(),
            time: began.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{Toy, model};

    #[test]
    fn a_rule_is_shown_to_break_where_it_first_does() {
        const RULES: &[Rule<Toy>] = &[
            Rule::always("there is no state", |_, _| false),
            Rule::always("nothing happens", |_, world| world.is_quiet()),
        ];
        let spec = Spec { rules: RULES, teeth: Vec::new(), ..model::spec() };
        let failures: Vec<_> = spec.check(1).rules.into_iter().filter_map(|rule| rule.failure).collect();
        let [first, second] = &failures[..] else { panic!("both break: {failures:?}") };
        assert_eq!(first, "in the first state");
        assert_eq!(second.lines().count(), 1, "{second}");
    }
}
