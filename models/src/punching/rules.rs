//! Rules of the [punching world](super) for two hosts that are introduced to each other.

use super::{Cfg, Node, Punch};
use crate::rule::{Rule, settles};
use crate::world::World;
use swarmedge_core::machine::Machine as _;
use swarmedge_core::nat::connectivity::Connectivity;

fn hosts(w: &World<Punch>) -> impl Iterator<Item = &Connectivity> {
    w.nodes().filter_map(|(_, n)| if let Node::Host(host) = n { Some(host) } else { None })
}

/// Rules of the models of hole punching, checked in their reachable states.
pub const RULES: &[Rule<Punch>] = &[
    Rule::always("nothing goes to an address that is neither the introduced peer's nor configured", |_, w| {
        !w.env.strayed
    }),
    Rule::always("no attempt sends more than it may", |cfg: &Cfg, w| {
        hosts(w).all(|h| h.is_within_bounds(&cfg.connectivity))
            && w.env.sent.iter().all(|n| *n <= cfg.connectivity.datagrams_max())
    }),
    Rule::always("a path is taken only when each has heard the other", |_, w| {
        w.env.paths.iter().all(Vec::is_empty) || w.env.delivered == [true; 2]
    }),
    Rule::always("each takes one path, and it leads to the other", |_, w| {
        (0..2).all(|i| w.env.paths[i].len() <= 1 && w.env.paths[i].iter().all(|p| w.env.leads(i, *p, w.now)))
    }),
    Rule::always("nobody is told to go before both have opened or had their time", |_, w| !w.env.too_soon),
    Rule::always(
        "a TCP connection is opened once, by one of the two, or tried by both as often as allowed",
        |cfg: &Cfg, w| {
            let dials = w.env.dials.each_ref().map(Vec::len);
            let tries = usize::from(cfg.connectivity.crossings.0);
            if cfg.crossing.is_some() { dials.iter().all(|n| *n <= tries) } else { dials.iter().sum::<usize>() <= 1 }
        },
    ),
    Rule::always("a raw TCP connection is taken only if the introduced uploader has opened it", |_, w| {
        w.env.raw_tcp[1].iter().all(|id| w.env.raw_tcp[0].contains(id))
    }),
    Rule::always(
        "left alone, a pair that can connect does, one that cannot fails on both sides, and nothing stays",
        |cfg, w| {
            settles(cfg, w, 2000, |w| {
                let ended = match cfg.is_reachable() {
                    true if cfg.hurried => w.env.is_over(),
                    true => w.env.is_connected(),
                    false => w.env.has_failed(),
                };
                ended && hosts(w).all(|h| h.sessions() == 0 && h.poll_timeout().is_none())
            })
        },
    ),
];
