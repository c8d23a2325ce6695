//! The world: production machines, what is under way between them, time and fault budgets, as one value. An explorer
//! needs three calls only: [`World::actions`], [`World::next`] (exhaustive: draws are part of the action) and
//! [`World::step`] (with a generator of the explorer's own).

use super::rng::Draws;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::machine::{Rng, Time};

/// A node, counted from 0.
pub type NodeIx = u8;

/// What surrounds the machines and turns their outputs into events: links, disks, users, and what the rules must
/// remember. The value itself is the environment's state, a part of the world's.
pub trait System: Clone + Debug + Eq + Hash + 'static {
    /// All roles' configurations and the seeded defect, if any: passed, never part of the state.
    type Cfg;
    /// A production machine.
    type Node: Clone + Debug + Eq + Hash;
    /// Something under way: a message, or an effect not yet done.
    type Event: Clone + Debug + Eq + Hash;
    /// What a machine is told.
    type Input;
    /// What a machine asks for.
    type Output;
    /// What comes from outside: a user's command, a crash, a restart, a broken link.
    type Move: Clone + Debug + Eq + Hash;

    /// Runs a node's machine on an input, or on its timer.
    fn run(
        cfg: &Self::Cfg,
        ix: NodeIx,
        node: &mut Self::Node,
        now: Time,
        rng: &mut dyn Rng,
        input: Option<Self::Input>,
    ) -> Vec<Self::Output>;
    /// The node's next deadline.
    fn deadline(node: &Self::Node) -> Option<Time>;
    /// Shifts all times of the node.
    fn rebase(node: &mut Self::Node, by: Duration);
    /// Shifts all times of the environment.
    fn rebase_env(&mut self, by: Duration);
    /// Does what a machine asks for; most often puts something under way by [`World::send`].
    fn perform(world: &mut World<Self>, cfg: &Self::Cfg, node: NodeIx, output: Self::Output);
    /// The faults that may befall an event, as far as the budget goes.
    fn faults(world: &World<Self>, cfg: &Self::Cfg, lane: Lane, event: &Self::Event, ways: &mut Vec<Way>);
    /// An event ends its way: what the receiver is told, if anything. Pays for faults.
    fn arrive(
        world: &mut World<Self>,
        cfg: &Self::Cfg,
        lane: Lane,
        event: Self::Event,
        way: Way,
    ) -> Option<Self::Input>;
    /// What arrives at once, within the step that sends it: local effects whose delay is of no interest to a model, or
    /// of none any more, since the budget allows nothing that could come in between.
    fn prompt(_: &World<Self>, _: &Self::Cfg, _: Lane) -> bool {
        false
    }
    /// What may come from outside.
    fn moves(world: &World<Self>, cfg: &Self::Cfg, moves: &mut Vec<Self::Move>);
    /// It comes: who is told what, if anybody.
    fn act(
        world: &mut World<Self>,
        cfg: &Self::Cfg,
        mv: &Self::Move,
        rng: &mut dyn Rng,
    ) -> Option<(NodeIx, Self::Input)>;
}

/// Events that arrive at once within one step; what is left then takes a step each.
const PROMPT_MAX: u32 = 1_000;

/// Events on one lane keep their order; those on different lanes do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The receiver.
    pub to: NodeIx,
    /// What sort of thing travels.
    pub what: &'static str,
    /// Tells lanes of one sort apart.
    pub id: u64,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x} to node {}", self.what, self.id, self.to)
    }
}

/// How an event ends its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// As it should.
    Whole,
    /// Never.
    Lost,
    /// It arrives, and once more later.
    Twice,
    /// With this fault.
    Fault(&'static str),
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act<M> {
    /// The head of a lane arrives.
    Deliver(Lane, Way),
    /// A node's timer fires.
    Fire(NodeIx),
    /// Something comes from outside.
    Move(M),
}

/// An act with the answers to the random draws made while it is handled. Too few answers lead to a state that only
/// asks for the next one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Action<M> {
    /// What happens.
    pub act: Act<M>,
    /// The draws.
    pub draws: Vec<u32>,
}

impl<M: Debug> fmt::Display for Action<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.act {
            Act::Deliver(lane, Way::Whole) => write!(f, "deliver {lane}"),
            Act::Deliver(lane, Way::Lost) => write!(f, "lose {lane}"),
            Act::Deliver(lane, Way::Twice) => write!(f, "duplicate {lane}"),
            Act::Deliver(lane, Way::Fault(what)) => write!(f, "{what} {lane}"),
            Act::Fire(node) => write!(f, "timer of node {node}"),
            Act::Move(m) => write!(f, "{m:?}"),
        }?;
        if self.draws.is_empty() { Ok(()) } else { write!(f, " drawing {:?}", self.draws) }
    }
}

/// What the adversary may still spend. In the state, so that exploration is finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Events lost, links broken.
    pub drops: u8,
    /// Events that arrive twice.
    pub duplicates: u8,
    /// Nodes that crash.
    pub crashes: u8,
    /// Blocks that are wrong.
    pub corruptions: u8,
    /// Changes of mind of users.
    pub changes: u8,
    /// Timers that fire while something is still under way.
    pub early: u8,
    /// Timers that fire at all.
    pub fires: u8,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World<S: System> {
    nodes: Vec<Option<Arc<S::Node>>>,
    /// The environment's state.
    pub env: S,
    lanes: BTreeMap<Lane, VecDeque<(Time, S::Event)>>,
    /// The present.
    pub now: Time,
    /// What the adversary may still spend.
    pub budget: Budget,
    nonces: u64,
    choosing: Option<(Action<S::Move>, u32)>,
}

impl<S: System> World<S> {
    /// These machines in this environment, nothing under way.
    #[must_use]
    pub fn new(env: S, nodes: Vec<S::Node>, budget: Budget) -> Self {
        let nodes = nodes.into_iter().map(|n| Some(Arc::new(n))).collect();
        Self { nodes, env, lanes: BTreeMap::new(), now: Time::ZERO, budget, nonces: 0, choosing: None }
    }

    /// A node, unless it is down.
    #[must_use]
    pub fn node(&self, ix: NodeIx) -> Option<&S::Node> {
        self.nodes.get(usize::from(ix))?.as_deref()
    }

    /// Every node that is up.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIx, &S::Node)> {
        (0..).zip(&self.nodes).filter_map(|(ix, n)| Some((ix, n.as_deref()?)))
    }

    /// Replaces a node (a restart), or takes it down: what is under way to it is lost.
    pub fn set_node(&mut self, ix: NodeIx, node: Option<S::Node>) {
        self.lanes.retain(|lane, _| lane.to != ix);
        self.nodes[usize::from(ix)] = node.map(Arc::new);
    }

    /// Adds a node.
    pub fn add_node(&mut self, node: Option<S::Node>) -> NodeIx {
        self.nodes.push(node.map(Arc::new));
        NodeIx::try_from(self.nodes.len() - 1).expect("a world has at most 256 nodes")
    }

    /// Puts an event under way; it arrives `after` from now at the earliest, behind what is on its lane.
    pub fn send(&mut self, lane: Lane, after: Duration, event: S::Event) {
        let queue = self.lanes.entry(lane).or_default();
        let at = queue.back().map_or(Time::ZERO, |&(at, _)| at).max(self.now.after(after));
        queue.push_back((at, event));
    }

    /// What is under way, by lane.
    pub fn under_way(&self) -> impl Iterator<Item = (Lane, &S::Event)> {
        self.lanes.iter().flat_map(|(&lane, q)| q.iter().map(move |(_, e)| (lane, e)))
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.lanes.is_empty() && self.choosing.is_none()
    }

    /// Forgets what is under way on the lanes that `gone` names.
    pub fn clear_lanes(&mut self, gone: impl Fn(&Lane) -> bool) {
        self.lanes.retain(|lane, _| !gone(lane));
    }

    /// Everything that can happen next.
    pub fn actions(&self, cfg: &S::Cfg, out: &mut Vec<Action<S::Move>>) {
        if let Some((action, n)) = &self.choosing {
            out.extend(Draws::answers(*n).into_iter().map(|d| {
                let draws = action.draws.iter().copied().chain([d]).collect();
                Action { act: action.act.clone(), draws }
            }));
            return;
        }
        if let Some(act) = self.prompt(cfg) {
            out.push(Action { act, draws: Vec::new() });
            return;
        }
        let mut ways = Vec::new();
        for (&lane, queue) in &self.lanes {
            let Some((_, event)) = queue.front() else { continue };
            ways.push(Way::Whole);
            S::faults(self, cfg, lane, event, &mut ways);
            out.extend(ways.drain(..).map(|way| Action { act: Act::Deliver(lane, way), draws: Vec::new() }));
        }
        if self.budget.fires > 0 && (self.lanes.is_empty() || self.budget.early > 0) {
            let due = self.nodes().filter_map(|(ix, n)| Some((S::deadline(n)?, ix)));
            out.extend(due.min().map(|(_, ix)| Action { act: Act::Fire(ix), draws: Vec::new() }));
        }
        let mut moves = Vec::new();
        S::moves(self, cfg, &mut moves);
        out.extend(moves.into_iter().map(|m| Action { act: Act::Move(m), draws: Vec::new() }));
    }

    /// The world after an action, with now = 0: equal situations are equal states whenever they occur.
    #[must_use]
    pub fn next(&self, cfg: &S::Cfg, action: &Action<S::Move>) -> Self {
        let mut world = self.clone();
        world.choosing = None;
        if matches!(action.act, Act::Fire(_)) {
            world.budget.fires = world.budget.fires.saturating_sub(1);
            world.budget.early = world.budget.early.saturating_sub(u8::from(!world.lanes.is_empty()));
        }
        let mut rng = Draws::new(&action.draws, self.nonces);
        world.step(cfg, &action.act, &mut rng);
        for _ in 0..PROMPT_MAX {
            let Some(act) = world.prompt(cfg).filter(|_| rng.missing.is_none()) else { break };
            world.step(cfg, &act, &mut rng);
        }
        if let Some(n) = rng.missing {
            return Self { choosing: Some((action.clone(), n)), ..self.clone() };
        }
        world.nonces = rng.nonces;
        world.rebase();
        world
    }

    /// Makes `act` happen, drawing from `rng`. Time goes on to the event's or the deadline's.
    pub fn step(&mut self, cfg: &S::Cfg, act: &Act<S::Move>, rng: &mut dyn Rng) {
        match act {
            &Act::Deliver(lane, way) => {
                let Some((at, event)) = self.pop(lane, way == Way::Twice) else { return };
                self.now = self.now.max(at);
                if let Some(input) = S::arrive(self, cfg, lane, event, way) {
                    self.run(cfg, lane.to, rng, Some(input));
                }
            }
            &Act::Fire(ix) => {
                let Some(at) = self.node(ix).and_then(S::deadline) else { return };
                self.now = self.now.max(at);
                self.run(cfg, ix, rng, None);
            }
            Act::Move(m) => {
                if let Some((ix, input)) = S::act(self, cfg, m, rng) {
                    self.run(cfg, ix, rng, Some(input));
                }
            }
        }
    }

    /// The next of what arrives at once.
    fn prompt(&self, cfg: &S::Cfg) -> Option<Act<S::Move>> {
        let lane = self.lanes.keys().find(|&&lane| S::prompt(self, cfg, lane))?;
        Some(Act::Deliver(*lane, Way::Whole))
    }

    /// What happens next where nothing interferes, and when: the earliest arrival, else the earliest deadline.
    #[must_use]
    pub fn earliest(&self) -> Option<(Time, Act<S::Move>)> {
        let arrivals = self.lanes.iter().filter_map(|(lane, q)| Some((q.front()?.0.max(self.now), lane)));
        let arrival = arrivals.min().map(|(at, &lane)| (at, Act::Deliver(lane, Way::Whole)));
        let timers = self.nodes().filter_map(|(ix, n)| Some((S::deadline(n)?.max(self.now), ix)));
        let timer = timers.min().map(|(at, ix)| (at, Act::Fire(ix)));
        match (arrival, timer) {
            (Some(a), Some(t)) => Some(if t.0 < a.0 { t } else { a }),
            (a, t) => a.or(t),
        }
    }

    /// Lets the world go on undisturbed for at most `steps` steps, until `goal`; whether it was reached.
    pub fn settle(&mut self, cfg: &S::Cfg, steps: u32, rng: &mut dyn Rng, goal: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..steps {
            if goal(self) {
                return true;
            }
            let Some((_, act)) = self.earliest() else { return false };
            self.step(cfg, &act, rng);
        }
        goal(self)
    }

    fn pop(&mut self, lane: Lane, keep: bool) -> Option<(Time, S::Event)> {
        let queue = self.lanes.get_mut(&lane)?;
        let head = if keep { queue.front().cloned() } else { queue.pop_front() };
        if queue.is_empty() {
            self.lanes.remove(&lane);
        }
        head
    }

    fn run(&mut self, cfg: &S::Cfg, ix: NodeIx, rng: &mut dyn Rng, input: Option<S::Input>) {
        let Some(node) = self.nodes.get_mut(usize::from(ix)).and_then(Option::as_mut) else { return };
        for output in S::run(cfg, ix, Arc::make_mut(node), self.now, rng, input) {
            S::perform(self, cfg, ix, output);
        }
    }

    /// Makes the present the beginning of time.
    pub fn rebase(&mut self) {
        let by = self.now.since(Time::ZERO);
        if by.is_zero() {
            return;
        }
        self.nodes.iter_mut().flatten().for_each(|n| S::rebase(Arc::make_mut(n), by));
        self.lanes.values_mut().flatten().for_each(|(at, _)| *at = at.rebased(by));
        self.env.rebase_env(by);
        self.now = Time::ZERO;
    }
}
