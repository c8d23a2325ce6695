//! The world: production machines, the events pending between them, the time and a budget of faults, as one value. An
//! explorer needs three functions only: [`World::actions`], [`World::next`] (exhaustive: an action includes its
//! random draws) and [`World::step`] (draws come from the explorer's own generator).

use super::rng::Draws;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::machine::{Rng, Time};

/// Index of a node, counted from 0.
pub type NodeIx = u8;

/// Time and random source for one call of a machine.
pub struct Turn<'a> {
    /// Time of the world.
    pub now: Time,
    /// The explorer's random generator, or a list of given draws.
    pub rng: &'a mut dyn Rng,
}

/// The environment of the machines, which turns their outputs into events: connections, disks, users, and the history
/// that rules depend on. A value of this type is the environment's state, a part of the world's state.
pub trait System: Clone + Debug + Eq + Hash + 'static {
    /// Configurations of all nodes, and the seeded defect if any: passed to each function, never part of the state.
    type Cfg;
    /// A production state machine, run as one node.
    type Node: Clone + Debug + Eq + Hash;
    /// A pending event: a message in flight, or an effect not yet performed.
    type Event: Clone + Debug + Eq + Hash;
    /// An input of a node's machine.
    type Input;
    /// An output of a node's machine.
    type Output;
    /// An external event: a user's command, a crash, a restart, a broken link.
    type Move: Clone + Debug + Eq + Hash;

    /// Runs a node's machine on an input, or on its timer.
    fn run(
        cfg: &Self::Cfg,
        ix: NodeIx,
        node: &mut Self::Node,
        turn: Turn<'_>,
        input: Option<Self::Input>,
    ) -> Vec<Self::Output>;
    /// Returns the node's next deadline, if any.
    fn deadline(node: &Self::Node) -> Option<Time>;
    /// Moves all times in the node's machine back by `by`.
    fn rebase(node: &mut Self::Node, by: Duration);
    /// Asserts the invariants of the node's machine, as [`swarmedge_core::machine::Machine::check`] does.
    fn check(node: &Self::Node);
    /// Returns whether a node that has run at this time is checked; a simulation may leave some out.
    fn checks_at(_now: Time) -> bool {
        true
    }
    /// Moves all times in the environment back by `by`.
    fn rebase_env(&mut self, by: Duration);
    /// Performs an output of a machine, most often by queueing an event with [`World::send`].
    fn perform(world: &mut World<Self>, cfg: &Self::Cfg, node: NodeIx, output: Self::Output);
    /// Appends to `ways` the faults that the remaining budget allows for this event.
    fn faults(world: &World<Self>, cfg: &Self::Cfg, lane: Lane, event: &Self::Event, ways: &mut Vec<Way>);
    /// Delivers an event and returns the receiver's input, if any. If `way` is a fault, it is deducted from the
    /// budget.
    fn arrive(
        world: &mut World<Self>,
        cfg: &Self::Cfg,
        lane: Lane,
        event: Self::Event,
        way: Way,
    ) -> Option<Self::Input>;
    /// Returns whether events on a lane are delivered within the step that sends them. True for local effects whose
    /// delay does not matter, or matters no longer because the budget allows nothing to happen in between.
    fn delivers_immediately(_: &World<Self>, _: &Self::Cfg, _: Lane) -> bool {
        false
    }
    /// Appends the external events that can happen next.
    fn external_events(world: &World<Self>, cfg: &Self::Cfg, moves: &mut Vec<Self::Move>);
    /// Performs an external event; returns the node to notify and its input, if any.
    fn apply_external(
        world: &mut World<Self>,
        cfg: &Self::Cfg,
        mv: &Self::Move,
        rng: &mut dyn Rng,
    ) -> Option<(NodeIx, Self::Input)>;
}

/// Maximum number of immediate deliveries within one step; each further one takes a step of its own.
const IMMEDIATE_MAX: u32 = 1_000;

/// A queue of pending events. Events on one lane keep their order; events on different lanes arrive in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Node that receives the lane's events.
    pub to: NodeIx,
    /// Kind of event on this lane, for example a protocol's name.
    pub what: &'static str,
    /// Number that distinguishes lanes of the same kind.
    pub id: u64,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x} to node {}", self.what, self.id, self.to)
    }
}

/// Choice of what happens to a pending event: delivery, loss, duplication or another fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Delivered once, without a fault.
    Whole,
    /// Lost: the event is never delivered.
    Lost,
    /// Delivered now, and once more later.
    Twice,
    /// Delivered with this fault, named by the system.
    Fault(&'static str),
}

/// One step of a world, without the random draws made in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act<M> {
    /// The first event of a lane is delivered.
    Deliver(Lane, Way),
    /// A node's timer fires.
    Fire(NodeIx),
    /// An external event happens.
    Move(M),
}

/// A step together with the results of the random draws made while it is performed. If `draws` has too few results,
/// the next state is an intermediate one, whose actions only supply the next draw.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Action<M> {
    /// The step to take.
    pub act: Act<M>,
    /// Results of random draws, in order.
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

/// Numbers of faults that may still happen; part of the state, so that exploration is finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Number of events lost and links broken.
    pub drops: u8,
    /// Number of events delivered twice.
    pub duplicates: u8,
    /// Number of crashes of nodes.
    pub crashes: u8,
    /// Number of blocks with wrong content.
    pub corruptions: u8,
    /// Number of changes that users make: commands and settings.
    pub changes: u8,
    /// Number of times that a timer fires while events are pending.
    pub early: u8,
    /// Number of times that timers fire in all.
    pub fires: u8,
}

/// Nodes, environment, pending events and clock of one simulated deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World<S: System> {
    nodes: Vec<Option<Arc<S::Node>>>,
    /// State of the environment.
    pub env: S,
    lanes: BTreeMap<Lane, VecDeque<(Time, S::Event)>>,
    /// Current time of the world.
    pub now: Time,
    /// Numbers of faults that may still happen.
    pub budget: Budget,
    nonces: u64,
    choosing: Option<(Action<S::Move>, u32)>,
}

impl<S: System> World<S> {
    /// Creates a world of these machines and this environment, without pending events.
    #[must_use]
    pub fn new(env: S, nodes: Vec<S::Node>, budget: Budget) -> Self {
        let nodes = nodes.into_iter().map(|n| Some(Arc::new(n))).collect();
        Self { nodes, env, lanes: BTreeMap::new(), now: Time::ZERO, budget, nonces: 0, choosing: None }
    }

    /// Returns a node's machine, or `None` while the node is down.
    #[must_use]
    pub fn node(&self, ix: NodeIx) -> Option<&S::Node> {
        self.nodes.get(usize::from(ix))?.as_deref()
    }

    /// Iterates over all nodes that are up.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeIx, &S::Node)> {
        (0..).zip(&self.nodes).filter_map(|(ix, n)| Some((ix, n.as_deref()?)))
    }

    /// Replaces a node's machine (a restart), or takes the node down if `None`; events pending for it are lost.
    pub fn set_node(&mut self, ix: NodeIx, node: Option<S::Node>) {
        self.lanes.retain(|lane, _| lane.to != ix);
        self.nodes[usize::from(ix)] = node.map(Arc::new);
    }

    /// Adds a node, down if `None`, and returns its index.
    pub fn add_node(&mut self, node: Option<S::Node>) -> NodeIx {
        self.nodes.push(node.map(Arc::new));
        NodeIx::try_from(self.nodes.len() - 1).expect("a world has at most 256 nodes")
    }

    /// Queues an event for delivery, at the earliest `after` from now and behind the events already on its lane.
    pub fn send(&mut self, lane: Lane, after: Duration, event: S::Event) {
        let queue = self.lanes.entry(lane).or_default();
        let at = queue.back().map_or(Time::ZERO, |&(at, _)| at).max(self.now.after(after));
        queue.push_back((at, event));
    }

    /// Iterates over all pending events, by lane.
    pub fn under_way(&self) -> impl Iterator<Item = (Lane, &S::Event)> {
        self.lanes.iter().flat_map(|(&lane, q)| q.iter().map(move |(_, e)| (lane, e)))
    }

    /// Returns whether no event is pending and no random draw is awaited.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.lanes.is_empty() && self.choosing.is_none()
    }

    /// Drops the pending events of all lanes for which `gone` returns true.
    pub fn clear_lanes(&mut self, gone: impl Fn(&Lane) -> bool) {
        self.lanes.retain(|lane, _| !gone(lane));
    }

    /// Appends to `out` all actions that can happen next.
    pub fn actions(&self, cfg: &S::Cfg, out: &mut Vec<Action<S::Move>>) {
        if let Some((action, n)) = &self.choosing {
            out.extend(Draws::answers(*n).into_iter().map(|d| {
                let draws = action.draws.iter().copied().chain([d]).collect();
                Action { act: action.act.clone(), draws }
            }));
            return;
        }
        if let Some(act) = self.immediate_delivery(cfg) {
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
        S::external_events(self, cfg, &mut moves);
        out.extend(moves.into_iter().map(|m| Action { act: Act::Move(m), draws: Vec::new() }));
    }

    /// Returns the world after an action, with its time set back to 0, so that equal situations at different times
    /// are equal states.
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
        for _ in 0..IMMEDIATE_MAX {
            let Some(act) = world.immediate_delivery(cfg).filter(|_| rng.missing.is_none()) else { break };
            world.step(cfg, &act, &mut rng);
        }
        if let Some(n) = rng.missing {
            return Self { choosing: Some((action.clone(), n)), ..self.clone() };
        }
        world.nonces = rng.nonces;
        world.rebase();
        world
    }

    /// Performs `act` with draws from `rng`, and advances the clock to the time of the event or deadline.
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
                if let Some((ix, input)) = S::apply_external(self, cfg, m, rng) {
                    self.run(cfg, ix, rng, Some(input));
                }
            }
        }
    }

    /// Returns the step that delivers the next event of a lane with immediate delivery; `None` if there is no such
    /// event.
    fn immediate_delivery(&self, cfg: &S::Cfg) -> Option<Act<S::Move>> {
        let lane = self.lanes.keys().find(|&&lane| S::delivers_immediately(self, cfg, lane))?;
        Some(Act::Deliver(*lane, Way::Whole))
    }

    /// Returns the next step without faults, and its time: the earliest delivery, or a timer that is due before it.
    /// `None` if nothing is pending.
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

    /// Runs the world without faults until `goal` holds, for at most `steps` steps; returns whether it holds.
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
        let outputs = S::run(cfg, ix, Arc::make_mut(node), Turn { now: self.now, rng }, input);
        if S::checks_at(self.now) {
            S::check(node);
        }
        for output in outputs {
            S::perform(self, cfg, ix, output);
        }
    }

    /// Moves all times back so that the world's current time is 0.
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
