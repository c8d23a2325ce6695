//! The smallest system that uses every part of the world: one machine asks another for numbered items over a lane that
//! loses and duplicates, in random order, and counts each once. It tests the explorers themselves.

pub mod model;

use super::rule::{Rule, settles};
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::BTreeSet;
use std::time::Duration;
use swarmedge_core::machine::{Cx, Deadlines, Machine, Rng, Time};

/// Configuration of the toy world.
#[derive(Clone, Debug, Default)]
pub struct Cfg {
    /// Number of items to fetch.
    pub items: u32,
    /// Seeded defect: an item that arrives twice is counted twice.
    pub counts_duplicates: bool,
}

/// Machine that asks for items until it has all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asker {
    missing: BTreeSet<u32>,
    retry: Deadlines<u32>,
}

/// Output of the asker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Ask for this item.
    Ask(u32),
    /// Count this item as received.
    Got(u32),
}

impl Asker {
    fn ask(&mut self, cx: &mut Cx<'_, Self>) {
        let count = u32::try_from(self.missing.len()).unwrap_or(u32::MAX);
        let Some(&item) = self.missing.iter().nth(cx.rng.below(count) as usize) else { return };
        self.retry.set(0, Some(cx.now.after(Duration::from_secs(1))));
        cx.push(Output::Ask(item));
    }
}

impl Machine for Asker {
    type Config = Cfg;
    type Input = u32;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, item: u32) {
        if self.missing.remove(&item) || (cx.cfg.counts_duplicates && item < cx.cfg.items) {
            cx.push(Output::Got(item));
        }
        self.retry.clear(0);
        self.ask(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        if self.retry.pop_due(cx.now).is_some() {
            self.ask(cx);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.retry.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.retry.rebase(by);
    }

    fn check(&self) {}
}

/// Environment: the list of counted items.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Toy {
    counted: Vec<u32>,
    started: bool,
}

impl System for Toy {
    type Cfg = Cfg;
    type Node = Asker;
    type Event = u32;
    type Input = u32;
    type Output = Output;
    type Move = &'static str;

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Asker, Turn { now, rng }: Turn<'_>, input: Option<u32>) -> Vec<Output> {
        let mut out = Vec::new();
        let mut cx = Cx { now, cfg, rng, out: &mut out };
        match input {
            Some(item) => node.handle_input(&mut cx, item),
            None => node.handle_timeout(&mut cx),
        }
        out
    }
    fn deadline(node: &Asker) -> Option<Time> {
        node.poll_timeout()
    }
    fn rebase(node: &mut Asker, by: Duration) {
        node.rebase(by);
    }
    fn check(node: &Asker) {
        node.check();
    }

    fn rebase_env(&mut self, _: Duration) {}
    fn perform(world: &mut World<Self>, _: &Cfg, node: NodeIx, output: Output) {
        match output {
            Output::Ask(item) => {
                world.send(Lane { to: node, what: "item", id: u64::from(item) }, Duration::ZERO, item);
            }
            Output::Got(item) => world.env.counted.push(item),
        }
    }
    fn faults(world: &World<Self>, _: &Cfg, _: Lane, _: &u32, ways: &mut Vec<Way>) {
        ways.extend((world.budget.drops > 0).then_some(Way::Lost));
        ways.extend((world.budget.duplicates > 0).then_some(Way::Twice));
    }
    fn arrive(world: &mut World<Self>, _: &Cfg, _: Lane, item: u32, way: Way) -> Option<u32> {
        world.budget.drops -= u8::from(way == Way::Lost);
        world.budget.duplicates -= u8::from(way == Way::Twice);
        (way != Way::Lost).then_some(item)
    }
    fn external_events(world: &World<Self>, _: &Cfg, moves: &mut Vec<&'static str>) {
        moves.extend((!world.env.started).then_some("start"));
    }
    fn apply_external(world: &mut World<Self>, cfg: &Cfg, _: &&'static str, _: &mut dyn Rng) -> Option<(NodeIx, u32)> {
        world.env.started = true;
        Some((0, cfg.items))
    }
}

/// Returns the toy world at its start.
#[must_use]
pub fn world(cfg: &Cfg) -> World<Toy> {
    let asker = Asker { missing: (0..cfg.items).collect(), ..Asker::default() };
    let budget = Budget { drops: 2, duplicates: 2, fires: 8, early: 2, ..Budget::default() };
    World::new(Toy::default(), std::vec![asker], budget)
}

/// Rules of the model of the toy system, checked in its reachable states.
pub const RULES: &[Rule<Toy>] = &[
    Rule::always("every item is counted at most once", |_, w| {
        w.env.counted.iter().collect::<BTreeSet<_>>().len() == w.env.counted.len()
    }),
    Rule::always("the asker gets everything once faults end", |cfg, w| {
        !w.env.started || settles(cfg, w, 64, |w| w.env.counted.len() >= cfg.items as usize)
    }),
    Rule::sometimes("everything is counted", |cfg: &Cfg, w| w.env.counted.len() == cfg.items as usize),
];

#[cfg(test)]
mod tests {
    use super::super::world::Act;
    use super::super::{rule, trace};
    use super::*;

    /// Explores the reachable states breadth-first; returns their number and the path to the first broken one.
    fn explore(cfg: &Cfg) -> (usize, Option<std::string::String>) {
        let start = world(cfg);
        let mut seen: Vec<(World<Toy>, Option<(usize, super::super::world::Action<&'static str>)>)> =
            std::vec![(start.clone(), None)];
        let mut at = 0;
        while at < seen.len() {
            let here = seen[at].0.clone();
            if rule::broken(RULES, cfg, &here).is_some() {
                let mut path = Vec::new();
                let mut i = at;
                while let Some((from, action)) = seen[i].1.clone() {
                    path.insert(0, action);
                    i = from;
                }
                return (seen.len(), Some(trace::print(cfg, &start, &path)));
            }
            let mut actions = Vec::new();
            here.actions(cfg, &mut actions);
            for a in actions {
                let next = here.next(cfg, &a);
                if !seen.iter().any(|(w, _)| *w == next) {
                    seen.push((next, Some((at, a))));
                }
            }
            at += 1;
        }
        (seen.len(), None)
    }

    #[test]
    fn the_sound_toy_keeps_its_rules_in_every_state() {
        let (states, broken) = explore(&Cfg { items: 2, counts_duplicates: false });
        assert_eq!(broken, None);
        assert!(states > 100, "only {states} states");
    }

    #[test]
    fn the_defect_is_found_and_its_printed_trace_replays() {
        let cfg = Cfg { items: 2, counts_duplicates: true };
        let text = explore(&cfg).1.expect("the defect is reachable");
        let worlds = trace::replay(&cfg, world(&cfg), &text).expect("the trace is possible");
        assert!(rule::broken(RULES, &cfg, worlds.last().expect("there is a start")).is_some(), "{text}");
    }

    #[test]
    fn a_line_that_is_not_possible_is_named() {
        let cfg = Cfg { items: 1, counts_duplicates: false };
        assert_eq!(
            trace::replay(&cfg, world(&cfg), "timer of node 7").err().as_deref(),
            Some("not possible here: timer of node 7")
        );
    }

    #[test]
    fn worlds_do_not_depend_on_when_they_are_reached() {
        let cfg = Cfg { items: 1, counts_duplicates: false };
        let start = world(&cfg);
        let go = |act| super::super::world::Action { act, draws: Vec::new() };
        let asked = start.next(&cfg, &go(Act::Move("start")));
        let lane = asked.under_way().next().expect("an item is under way").0;
        let lost = asked.next(&cfg, &go(Act::Deliver(lane, Way::Lost))).next(&cfg, &go(Act::Fire(0)));
        assert_eq!(lost.now, Time::ZERO);
        assert!(lost.under_way().eq(asked.under_way()));
    }
}
