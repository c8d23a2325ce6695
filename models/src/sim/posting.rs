//! Inputs that nodes get on no connection: immediate ones, and the answers of edges to clients.

use super::machines::In;
use super::{Cfg, Event, Net};
use crate::world::{Lane, NodeIx, World};
use std::time::Duration;
use swarmedge_core::ids::ReqId;
use swarmedge_core::role::client::io::{EdgeAnswer, EdgeError, Input};

/// Sends an input that its node handles before any other event happens.
pub fn at_once(w: &mut World<Net>, ix: NodeIx, input: In) {
    w.send(Lane { to: ix, what: "at once", id: 0 }, Duration::ZERO, Event::Input(input));
}

/// Sends an edge's answer to a client.
pub(super) fn answer(w: &mut World<Net>, cfg: &Cfg, client: NodeIx, req: ReqId, answer: Result<EdgeAnswer, EdgeError>) {
    let after = if answer == Err(EdgeError::Unreachable) { cfg.latency * 4 } else { cfg.latency };
    let id = w.env.number();
    w.send(Lane { to: client, what: "https", id }, after, Event::Input(In::Client(Input::Edge { req, answer })));
}
