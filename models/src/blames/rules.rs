//! Rules of the model of blames.

use super::{Cfg, Court, NEIGHBOUR, STRANGER, is_offered};
use crate::rule::Rule;
use crate::world::{System as _, World};
use std::collections::BTreeSet;

/// Returns the number of AS of those clients that have ever blamed, each by its first blame.
fn networks_said(w: &World<Court>) -> usize {
    w.env.said.values().map(|said| said.asn).collect::<BTreeSet<_>>().len()
}

/// Returns the AS and /24 of the counted blames that have not expired.
fn alive(w: &World<Court>) -> impl Iterator<Item = (u32, u8)> {
    w.env.counted.iter().filter(|(_, until)| **until > w.now).map(|(said, _)| (said.asn, said.net))
}

fn networks_alive(w: &World<Court>) -> usize {
    alive(w).map(|(asn, _)| asn).collect::<BTreeSet<_>>().len()
}

fn is_suspended_lately(w: &World<Court>) -> bool {
    w.env.suspended_until.is_some_and(|until| until > w.now)
}

/// Returns whether the DN has not handled yet that votes have expired or a suspension has ended.
fn is_late(w: &World<Court>) -> bool {
    w.node(0).and_then(Court::deadline).is_some_and(|at| at <= w.now)
}

fn is_delisted(cfg: &Cfg, w: &World<Court>) -> bool {
    networks_alive(w) >= cfg.rules.delist_at
}

/// Rules of the model of blames, checked in its reachable states.
pub const RULES: &[Rule<Court>] = &[
    Rule::always("a copy that clients of few networks blame is offered to others", |cfg: &Cfg, w| {
        networks_said(w) >= cfg.rules.suspend_at || is_offered(w, STRANGER)
    }),
    Rule::always("a suspended copy is offered again in time", |cfg: &Cfg, w| {
        is_offered(w, STRANGER) || is_delisted(cfg, w) || is_suspended_lately(w) || is_late(w)
    }),
    Rule::always(
        "a copy that clients of many networks blame is offered to nobody, whatever its holder proves",
        |cfg: &Cfg, w| !is_delisted(cfg, w) || !is_offered(w, STRANGER),
    ),
    Rule::always("a copy that several prefixes of a network blame is not offered to that network", |cfg: &Cfg, w| {
        let blamed: BTreeSet<_> = alive(w).filter(|(asn, _)| *asn == w.env.place(NEIGHBOUR).1).collect();
        blamed.len() < cfg.rules.hide_at || !is_offered(w, NEIGHBOUR)
    }),
    Rule::always("a proof ends a suspension", |cfg: &Cfg, w| {
        !w.env.proven || is_offered(w, STRANGER) || is_delisted(cfg, w) || is_late(w)
    }),
    Rule::always("a blamed holder is told to check its copy", |_, w| w.env.counted.is_empty() || w.env.holder_told),
    Rule::always("one client that moves does not count as two", |cfg: &Cfg, w| {
        let clients = w.env.counted.keys().map(|said| said.by).collect::<BTreeSet<_>>().len();
        clients >= cfg.rules.suspend_at || is_offered(w, STRANGER)
    }),
    Rule::sometimes("a proof brings a suspended copy back", |_, w| w.env.cleared && is_offered(w, STRANGER)),
    Rule::sometimes("a delisted copy comes back when votes have expired", |cfg: &Cfg, w| {
        w.env.counted.len() >= cfg.rules.delist_at && networks_alive(w) == 0 && is_offered(w, NEIGHBOUR)
    }),
];
