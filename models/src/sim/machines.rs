//! The production machines as nodes of one world.

use super::Cfg;
use crate::world::NodeIx;
use std::time::Duration;
use swarmedge_core::machine::{Cx, Machine, Rng, Time};
use swarmedge_core::role::{client, cn, dn, edge, ledger};
use swarmedge_core::session::client as session;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A client, and which of its lives this is.
    Client(Box<client::Client>, u8),
    /// A client's session alone, for models, and which life this is.
    Session(Box<session::ClientSession>, u8),
    /// An edge.
    Edge(Box<edge::Edge>),
    /// A CN.
    Cn(Box<cn::Cn>),
    /// A DN.
    Dn(Box<dn::Dn>),
    /// A ledger.
    Ledger(Box<ledger::Ledger>),
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum In {
    /// See [`Node`].
    Client(client::Input),
    /// See [`Node`].
    Session(session::Input),
    /// See [`Node`].
    Edge(edge::Input),
    /// See [`Node`].
    Cn(cn::Input),
    /// See [`Node`].
    Dn(dn::Input),
    /// See [`Node`].
    Ledger(ledger::Input),
}

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Out {
    /// See [`Node`].
    Client(client::Output),
    /// See [`Node`].
    Session(session::Output),
    /// See [`Node`].
    Edge(edge::Output),
    /// See [`Node`].
    Cn(cn::Output),
    /// See [`Node`].
    Dn(dn::Output),
    /// See [`Node`].
    Ledger(ledger::Output),
}

/// A node's configuration. A client has one for each of its lives: each has another secondary GUID.
#[derive(Clone, Debug)]
pub enum RoleCfg {
    /// See [`Node`].
    Client(Vec<client::Config>),
    /// See [`Node`].
    Edge(edge::Config),
    /// See [`Node`].
    Cn(cn::Config),
    /// See [`Node`].
    Dn(dn::Config),
    /// See [`Node`].
    Ledger(ledger::Config),
}

/// Runs one machine and wraps what it emits.
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

/// A session knows its control connection under other names than the client that holds it.
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

/// Runs a node.
pub(super) fn run(cfg: &Cfg, ix: NodeIx, node: &mut Node, at: (Time, &mut dyn Rng), input: Option<In>) -> Vec<Out> {
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
