//! The production machines as nodes of one world.

use super::Cfg;
use crate::world::{NodeIx, Turn};
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::session::client as session;

/// A node of the simulated deployment: one production state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A client's machine, and the number of this start (0 for the first).
    Client(Box<client::Client>, u8),
    /// A client's session machine alone, for models, and the number of this start.
    Session(Box<session::ClientSession>, u8),
    /// Machine of an edge.
    Edge(Box<edge::Edge>),
    /// Machine of a CN.
    Cn(Box<cn::Cn>),
    /// Machine of a DN.
    Dn(Box<dn::Dn>),
    /// Machine of a ledger.
    Ledger(Box<ledger::Ledger>),
}

/// An input of a node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// Input of a client.
    Client(client::Input),
    /// Input of a client's session machine, run alone.
    Session(session::Input),
    /// Input of an edge.
    Edge(edge::Input),
    /// Input of a CN.
    Cn(cn::Input),
    /// Input of a DN.
    Dn(dn::Input),
    /// Input of a ledger.
    Ledger(ledger::Input),
}

/// An output of a node's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// Output of a client.
    Client(client::Output),
    /// Output of a client's session machine, run alone.
    Session(session::Output),
    /// Output of an edge.
    Edge(edge::Output),
    /// Output of a CN.
    Cn(cn::Output),
    /// Output of a DN.
    Dn(dn::Output),
    /// Output of a ledger.
    Ledger(ledger::Output),
}

/// Configuration of a node. A client has one for each of its starts, with a secondary GUID of its own.
#[derive(Clone, Debug)]
pub enum RoleCfg {
    /// Configurations of a client's machine, one for each of its starts.
    Client(Vec<client::Config>),
    /// Configuration of an edge.
    Edge(edge::Config),
    /// Configuration of a CN.
    Cn(cn::Config),
    /// Configuration of a DN.
    Dn(dn::Config),
    /// Configuration of a ledger.
    Ledger(ledger::Config),
}

/// Runs one machine on an input, or on its timer if `None`, and wraps its outputs.
pub(crate) fn drive<M: Machine, W>(
    machine: &mut M,
    cfg: &M::Config,
    (now, rng): (Time, &mut dyn Rng),
    input: Option<M::Input>,
    wrap: fn(M::Output) -> W,
) -> Vec<W> {
    let mut out = Vec::new();
    let mut cx = Cx { now, cfg, rng, out: &mut out };
    match input {
        Some(input) => machine.handle_input(&mut cx, input),
        None => machine.handle_timeout(&mut cx),
    }
    out.into_iter().map(wrap).collect()
}

/// Translates a client's input to that of its session, which has other names for the control connection.
fn session_input(input: In) -> session::Input {
    match input {
        In::Session(input) => input,
        In::Client(client::Input::ControlOpened { conn }) => session::Input::Opened { conn },
        In::Client(client::Input::ControlClosed { conn }) => session::Input::Closed { conn },
        In::Client(client::Input::Control { conn, msg }) => session::Input::Message { conn, msg },
        other @ (In::Client(_) | In::Edge(_) | In::Cn(_) | In::Dn(_) | In::Ledger(_)) => {
            panic!("a session was told {other:?}")
        }
    }
}

/// Maximum length of a printed input or output, in characters.
const PRINTED_MAX: usize = 400;

/// Prints an input or output of a node's machine.
fn print(cfg: &Cfg, ix: NodeIx, now: Time, what: &dyn std::fmt::Debug) {
    let text: String = format!("{what:?}").chars().take(PRINTED_MAX).collect();
    println!("{:>10.3} s {} {text}", now.since(Time::ZERO).as_secs_f64(), cfg.names[usize::from(ix)]);
}

/// Runs a node's machine on an input, or on its timer; prints both sides if wanted.
pub(super) fn run(cfg: &Cfg, ix: NodeIx, node: &mut Node, turn: Turn<'_>, input: Option<In>) -> Vec<Out> {
    let now = turn.now;
    if cfg.traced {
        print(cfg, ix, now, &input);
    }
    let outputs = run_machine(cfg, ix, node, turn, input);
    if cfg.traced {
        outputs.iter().for_each(|output| print(cfg, ix, now, output));
    }
    outputs
}

fn run_machine(cfg: &Cfg, ix: NodeIx, node: &mut Node, turn: Turn<'_>, input: Option<In>) -> Vec<Out> {
    let at = (turn.now, turn.rng);
    macro_rules! own {
        ($kind:ident) => {
            input.map(|i| {
                let In::$kind(i) = i else { panic!("node {ix} was told {i:?}") };
                i
            })
        };
    }
    match (node, &cfg.roles[usize::from(ix)]) {
        (Node::Client(m, life), RoleCfg::Client(c)) => {
            drive(&mut **m, &c[usize::from(*life) % c.len()], at, own!(Client), Out::Client)
        }
        (Node::Session(m, life), RoleCfg::Client(c)) => {
            let session = &c[usize::from(*life) % c.len()].session;
            drive(&mut **m, session, at, input.map(session_input), Out::Session)
        }
        (Node::Edge(m), RoleCfg::Edge(c)) => drive(&mut **m, c, at, own!(Edge), Out::Edge),
        (Node::Cn(m), RoleCfg::Cn(c)) => drive(&mut **m, c, at, own!(Cn), Out::Cn),
        (Node::Dn(m), RoleCfg::Dn(c)) => drive(&mut **m, c, at, own!(Dn), Out::Dn),
        (Node::Ledger(m), RoleCfg::Ledger(c)) => drive(&mut **m, c, at, own!(Ledger), Out::Ledger),
        (node, cfg) => panic!("{node:?} has the configuration of another role: {cfg:?}"),
    }
}

impl Node {
    /// Returns the time of the machine's next time-out.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Client(m, _) => m.poll_timeout(),
            Self::Session(m, _) => m.poll_timeout(),
            Self::Edge(m) => m.poll_timeout(),
            Self::Cn(m) => m.poll_timeout(),
            Self::Dn(m) => m.poll_timeout(),
            Self::Ledger(m) => m.poll_timeout(),
        }
    }

    /// Asserts the machine's invariants.
    pub(super) fn check(&self) {
        match self {
            Self::Client(m, _) => m.check(),
            Self::Session(m, _) => m.check(),
            Self::Edge(m) => m.check(),
            Self::Cn(m) => m.check(),
            Self::Dn(m) => m.check(),
            Self::Ledger(m) => m.check(),
        }
    }

    /// Moves the origin of the machine's times.
    pub(super) fn rebase(&mut self, by: Duration) {
        match self {
            Self::Client(m, _) => m.rebase(by),
            Self::Session(m, _) => m.rebase(by),
            Self::Edge(m) => m.rebase(by),
            Self::Cn(m) => m.rebase(by),
            Self::Dn(m) => m.rebase(by),
            Self::Ledger(m) => m.rebase(by),
        }
    }
}
