//! Checks one model: every rule on every state, then every tooth.

use crate::rule::{Demand, Rule};
use crate::shim::Checked;
use crate::trace;
use crate::world::{System, World};
use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// A seeded defect and the rule that must find it.
pub struct Tooth<S: System> {
    /// What is wrong.
    pub defect: &'static str,
    /// The rule that must break.
    pub rule: &'static str,
    /// The configuration that holds the defect.
    pub cfg: S::Cfg,
}

/// A model: a world, its rules and its teeth.
pub struct Spec<S: System> {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is modelled, with its bounds.
    pub about: &'static str,
    /// The sound configuration.
    pub cfg: S::Cfg,
    /// The first state under a configuration.
    pub start: fn(&S::Cfg) -> World<S>,
    /// What must hold.
    pub rules: &'static [Rule<S>],
    /// Which defects must be found.
    pub teeth: Vec<Tooth<S>>,
}

/// What a rule came to.
pub struct RuleReport {
    /// The rule's name.
    pub name: &'static str,
    /// What the rule asks for.
    pub demand: Demand,
    /// How it was broken, or that a state to be reached was not.
    pub failure: Option<String>,
}

/// What a tooth came to.
pub struct ToothReport {
    /// What is wrong.
    pub defect: &'static str,
    /// The rule that must break.
    pub rule: &'static str,
    /// In how many steps the rule broke; `None`: the defect was not found.
    pub steps: Option<usize>,
    /// Distinct states until then.
    pub states: usize,
    /// The time it took.
    pub time: Duration,
}

/// What a model came to.
pub struct Report {
    /// The model's name on the command line.
    pub name: &'static str,
    /// What is modelled, with its bounds.
    pub about: &'static str,
    /// Distinct states.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// Steps to the state that is farthest from the first.
    pub depth: usize,
    /// The time it took.
    pub time: Duration,
    /// What each rule came to.
    pub rules: Vec<RuleReport>,
    /// What each tooth came to.
    pub teeth: Vec<ToothReport>,
}

impl Report {
    /// Every rule holds and every tooth was found.
    pub fn is_good(&self) -> bool {
        self.rules.iter().all(|r| r.failure.is_none()) && self.teeth.iter().all(|t| t.steps.is_some())
    }
}

/// A model whatever its system.
pub trait AnyModel {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Checks everything.
    fn check(&self, threads: usize) -> Report;
    /// Serves stateright's explorer; with `tooth`, of the model with that defect.
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
                Some(trace::print(&self.cfg, &(self.start)(&self.cfg), &path.into_actions()))
            }
            (Demand::Sometimes, None) => Some("never reached".into()),
            (Demand::Always, None) | (Demand::Sometimes, Some(_)) => None,
        };
        RuleReport { name: rule.name, demand: rule.demand, failure }
    }

    fn bite(&self, tooth: &Tooth<S>, threads: usize) -> ToothReport {
        let began = Instant::now();
        let stop = HasDiscoveries::AnyOf([tooth.rule].into());
        let checker = self.under(&tooth.cfg).checker().threads(threads).finish_when(stop).spawn_bfs().join();
        let steps = checker.discovery(tooth.rule).map(|path| path.into_actions().len());
        ToothReport {
            defect: tooth.defect,
            rule: tooth.rule,
            steps,
            states: checker.unique_state_count(),
            time: began.elapsed(),
        }
    }
}
