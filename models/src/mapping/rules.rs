//! Rules of the [port-mapping world](super).

use super::{Cfg, MappingWorld, claimed, passed, site};
use crate::nat::Truth;
use crate::rule::{Rule, settles};
use crate::world::World;
use std::time::Duration;
use swarmedge_core::nat::mapping::io::{Config, Status};

/// Maximum time until the machine notices that its gateway has lost the mapping: the next check, its retransmissions,
/// and datagrams in flight.
pub(super) const FOUND_WITHIN: Duration = Duration::from_secs(130);
/// Maximum duration of one attempt to open a port, in which all protocols are tried and the STUN server is asked.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(12);
/// Maximum number of requests to gateways in any ten seconds, whatever the gateways answer and however often the host
/// changes its network.
const ASKED_MAX: usize = 12;

/// Returns whether the gateway forwards the port that the machine claims to the host's main socket.
fn is_right(w: &World<MappingWorld>) -> bool {
    claimed(w).is_some_and(|c| w.env.forwards(w.now, c.port()))
}

/// Returns whether the machine has the result that this gateway must lead to: an open port, or a failure.
fn has_come_to_an_end(w: &World<MappingWorld>, cfg: &Config) -> bool {
    let offers = w.env.offers();
    let opens = matches!(offers.truth, Truth::Honest | Truth::GivesAnother) && offers.lifetime_s >= 60;
    if opens { is_right(w) } else { w.node(0).is_some_and(|n| matches!(n.status(cfg), Status::Failed(_))) }
}

/// Rules of the models of port mapping, checked in their reachable states.
pub const RULES: &[Rule<MappingWorld>] = &[
    Rule::always("nothing is claimed but where a STUN server has got through", |_, w| {
        claimed(w).is_none_or(|c| w.env.shown == Some(c))
    }),
    Rule::always("what is claimed is forwarded, as long as the gateway remembers", |_, w| {
        claimed(w).is_none() || is_right(w) || w.env.vanished.is_some()
    }),
    Rule::always("a gateway that has forgotten is found out in time", |_, w| {
        let stands = claimed(w).is_some() && !is_right(w);
        let late = |at: Duration| passed(w).saturating_sub(at) > FOUND_WITHIN;
        !(w.env.overdue || stands && w.env.vanished.is_some_and(late))
    }),
    Rule::always(
        "once a gateway has said that it has forgotten, nothing is claimed until a server gets through",
        |_, w| !w.env.doubted || claimed(w).is_none(),
    ),
    Rule::always("an honest gateway's port is renewed in time", |_, w| !w.env.lapsed),
    Rule::always("who leaves gives back what was opened, answered or not", |_, w| {
        let left = w.env.stopped && w.is_quiet() && !w.env.untold;
        !left || !w.env.networks[w.env.at].1.forwards_to(w.now, site(w.env.at).local.into())
    }),
    Rule::always("gateways are asked a bounded number of times", |_, w| w.env.asked.len() <= ASKED_MAX),
    Rule::always("nobody but the gateway is asked, nor to close what was not opened there", |_, w| !w.env.strayed),
    Rule::always("it is busy for a bounded time", |_, w| !w.env.dawdled),
    Rule::always("left alone, a gateway that opens ports has one open, any other leaves a reason", |cfg: &Cfg, w| {
        let idle = !w.env.started || w.env.stopped;
        idle || settles(cfg, w, 400, |w| has_come_to_an_end(w, &cfg.mapping))
    }),
    Rule::sometimes("a port is open again after its gateway has begun anew", |_, w| {
        w.budget.corruptions == 0 && is_right(w) && w.env.vanished.is_none()
    }),
    Rule::sometimes("who has left and come again has a port open", |_, w| w.budget.crashes == 0 && is_right(w)),
];
