//! World of secondary GUIDs (a random id for each start of an installation): one installation starts again and again,
//! online or offline, and is copied at some time; the copy may be set back to its first state. Logins arrive late,
//! twice, or never. The analysis of logins ([`Starts`]) and the installation's memory of its starts
//! ([`clones::begun`]) are production code.

pub mod model;

use super::rule::Rule;
use super::world::{Budget, Lane, NodeIx, System, Turn, Way, World};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use swarmedge_core::accounting::clones::{self, History, Pattern, Starts};
use swarmedge_core::ids::SecondaryGuid;
use swarmedge_core::limits::SECONDARY_GUIDS_MAX;
use swarmedge_core::machine::{Rng, Time};

/// Indices of the installation and its copy.
const COPIES: [usize; 2] = [0, 1];

/// Configuration of the clones world.
#[derive(Clone, Debug)]
pub struct Cfg {
    /// Maximum numbers of starts, of the installation and of its copy.
    pub starts: [u8; 2],
    /// Maximum number of logins in flight at a time; 0: each login arrives at once.
    pub late: usize,
    /// Budget of external events: copying the installation costs a change, setting its copy back costs a crash.
    pub budget: Budget,
    /// Seeded defect, or `None` for the correct world.
    pub mutant: Option<Mutant>,
}

/// Seeded defects of the clones world; each must break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Seeded defect: an installation does not store every other start, so that its next login does not name it.
    StartsAreForgotten,
    /// Seeded defect: the ledger takes the order of logins for the order of starts.
    TakesArrivalForOrder,
    /// Seeded defect: the ledger remembers only the last login.
    KeepsLastLogin,
    /// Seeded defect: a copy gives its starts the same secondary GUIDs as the original.
    DrawsAlike,
    /// Seeded defect: the ledger ignores a fork of which one branch has a single start.
    ForgivesOneStart,
    /// Seeded defect: a login names only the last three starts.
    NamesThree,
    /// Seeded defect: the ledger links each start to the one of the last login, whatever lies between them.
    BridgesGaps,
    /// Seeded defect: the ledger classifies histories with missing starts as forked.
    GapsAreForks,
}

/// An external event in the clones world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// The installation (0) or its copy (1) starts, and logs in.
    Start(u8),
    /// The installation (0) or its copy (1) starts without a network, so no login is sent.
    StartOffline(u8),
    /// The installation is copied.
    Copy,
    /// The copy of the installation is set back to the state in which it was made.
    SetBack,
}

/// Directory of one installation, with the true history of its starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Install {
    /// Secondary GUIDs of the starts that the installation remembers, newest first.
    remembers: Vec<SecondaryGuid>,
    /// Secondary GUIDs of all starts that led to the directory's state, oldest first.
    past: Vec<SecondaryGuid>,
    /// Number of times that this directory was started.
    starts: u8,
}

/// Environment: the installations and their true history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Installs {
    all: [Install; 2],
    /// State of the first installation when it was copied; `None` before.
    copied: Option<Install>,
    set_back: bool,
    /// The start directly before each start in the true history of its installation; `None` for the first start.
    before: BTreeMap<SecondaryGuid, Option<SecondaryGuid>>,
    /// Starts whose logins have arrived.
    heard: BTreeSet<SecondaryGuid>,
    /// Start whose login arrived last; used by two seeded defects only.
    last: Option<SecondaryGuid>,
}

impl Installs {
    /// Starts the installation (`copy` = 0) or its copy (1); returns the secondary GUIDs that its login names, newest
    /// first.
    fn start(&mut self, mutant: Option<Mutant>, copy: usize) -> Vec<SecondaryGuid> {
        let made_at = self.copied.as_ref().map_or(0, |c| c.starts);
        let own = &mut self.all[copy];
        own.starts += 1;
        let number = match (copy, mutant) {
            (1, Some(Mutant::DrawsAlike)) => own.starts + made_at,
            (1, _) => own.starts | 0x20,
            _ => own.starts,
        };
        let start = SecondaryGuid::numbered(number.into());
        let mut named = clones::begun(start, own.remembers.iter().copied());
        self.before.insert(start, own.past.last().copied());
        own.past.push(start);
        if mutant != Some(Mutant::StartsAreForgotten) || own.starts % 2 == 1 {
            own.remembers.clone_from(&named);
        }
        if mutant == Some(Mutant::NamesThree) {
            named.truncate(3);
        }
        named
    }

    /// Returns the starts that the login of `start` names if nothing is defective: `start` and the starts before it in
    /// its installation's history, newest first, at most [`SECONDARY_GUIDS_MAX`].
    fn window(&self, start: SecondaryGuid) -> Vec<SecondaryGuid> {
        let before = |s: &SecondaryGuid| self.before.get(s).copied().flatten();
        std::iter::successors(Some(start), before).take(SECONDARY_GUIDS_MAX).collect()
    }

    /// Returns the forks: each start of a client (a secondary GUID) that two different starts followed. It is computed
    /// from what happened, not from what the logins say; only logins that have arrived count.
    fn told_forks(&self) -> BTreeSet<SecondaryGuid> {
        let mut after: BTreeMap<SecondaryGuid, BTreeSet<SecondaryGuid>> = BTreeMap::new();
        for window in self.heard.iter().map(|s| self.window(*s)) {
            for pair in window.windows(2) {
                after.entry(pair[1]).or_default().insert(pair[0]);
            }
        }
        after.into_iter().filter(|(_, next)| next.len() > 1).map(|(start, _)| start).collect()
    }

    /// Returns the largest number of consecutive starts in `past` whose logins have not arrived, between two whose
    /// logins have.
    fn unheard(&self, past: &[SecondaryGuid]) -> usize {
        let places: Vec<usize> = (0..).zip(past).filter(|(_, s)| self.heard.contains(s)).map(|(i, _)| i).collect();
        places.windows(2).map(|w| w[1] - w[0] - 1).max().unwrap_or(0)
    }

    /// Returns whether the logins of two starts of each copy have arrived, counted from the start that was running
    /// when the copy was made, with at most three starts in a row between them whose logins have not.
    fn heard_twice_each(&self) -> bool {
        let Some(copied) = self.copied.as_ref().filter(|_| !self.set_back) else { return false };
        let running = copied.past.len().saturating_sub(1);
        COPIES.into_iter().all(|copy| {
            let since = &self.all[copy].past[running..];
            // the start of the copying may be unheard: every later start that logs in names it
            let first = since.iter().position(|s| self.heard.contains(s)).unwrap_or(usize::MAX);
            let heard = since.iter().filter(|s| self.heard.contains(s)).count();
            heard >= 2 && first < SECONDARY_GUIDS_MAX && self.unheard(since) + 1 < SECONDARY_GUIDS_MAX
        })
    }
}

impl System for Installs {
    type Cfg = Cfg;
    type Node = Starts;
    type Event = Vec<SecondaryGuid>;
    type Input = Vec<SecondaryGuid>;
    type Output = ();
    type Move = Move;

    fn run(cfg: &Cfg, _: NodeIx, node: &mut Starts, _: Turn<'_>, login: Option<Vec<SecondaryGuid>>) -> Vec<()> {
        if cfg.mutant == Some(Mutant::KeepsLastLogin) {
            *node = Starts::default();
        }
        node.login(&login.unwrap_or_default());
        Vec::new()
    }
    fn deadline(_: &Starts) -> Option<Time> {
        None
    }
    fn rebase(_: &mut Starts, _: Duration) {}
    fn check(node: &Starts) {
        node.check();
    }

    fn rebase_env(&mut self, _: Duration) {}
    fn perform(_: &mut World<Self>, _: &Cfg, _: NodeIx, (): ()) {}
    fn faults(w: &World<Self>, _: &Cfg, _: Lane, _: &Self::Event, ways: &mut Vec<Way>) {
        ways.extend((w.budget.duplicates > 0).then_some(Way::Twice));
    }

    fn arrive(w: &mut World<Self>, cfg: &Cfg, _: Lane, mut login: Self::Event, way: Way) -> Option<Self::Input> {
        w.budget.duplicates -= u8::from(way == Way::Twice);
        let newest = *login.first()?;
        let known = w.env.last.replace(newest);
        w.env.heard.insert(newest);
        match cfg.mutant {
            Some(Mutant::TakesArrivalForOrder) => login = [newest].into_iter().chain(known).collect(),
            Some(Mutant::BridgesGaps) => login.extend(known.filter(|k| !login.contains(k) && k < &newest)),
            _ => {}
        }
        if cfg.mutant != Some(Mutant::TakesArrivalForOrder) && cfg.mutant != Some(Mutant::BridgesGaps) {
            // only these defects depend on the order of arrival
            w.env.last = None;
        }
        Some(login)
    }

    fn delivers_immediately(_: &World<Self>, cfg: &Cfg, _: Lane) -> bool {
        cfg.late == 0
    }

    fn external_events(w: &World<Self>, cfg: &Cfg, moves: &mut Vec<Move>) {
        let under_way = w.under_way().count();
        for copy in [0, 1] {
            let there = copy == 0 || w.env.copied.is_some();
            if there && w.env.all[usize::from(copy)].starts < cfg.starts[usize::from(copy)] {
                moves.extend((under_way < cfg.late.max(1)).then_some(Move::Start(copy)));
                moves.push(Move::StartOffline(copy));
            }
        }
        if w.budget.changes > 0 && w.env.copied.is_none() && w.env.all[0].starts > 0 {
            moves.push(Move::Copy);
        }
        if w.budget.crashes > 0 && w.env.all[1].starts > 0 {
            moves.push(Move::SetBack);
        }
    }

    fn apply_external(w: &mut World<Self>, cfg: &Cfg, mv: &Move, _: &mut dyn Rng) -> Option<(NodeIx, Self::Input)> {
        match *mv {
            Move::Start(copy) => {
                let named = w.env.start(cfg.mutant, usize::from(copy));
                let id = u64::from(copy) << 8 | u64::from(w.env.all[usize::from(copy)].starts);
                w.send(Lane { to: 0, what: "login", id }, Duration::ZERO, named);
            }
            Move::StartOffline(copy) => {
                w.env.start(cfg.mutant, usize::from(copy));
            }
            Move::Copy => {
                w.budget.changes -= 1;
                let made = w.env.all[0].clone();
                w.env.all[1] = Install { starts: 0, ..made.clone() };
                w.env.copied = Some(made);
            }
            Move::SetBack => {
                w.budget.crashes -= 1;
                let starts = w.env.all[1].starts;
                let made = w.env.copied.clone().unwrap_or_default();
                (w.env.all[1], w.env.set_back) = (Install { starts, ..made }, true);
            }
        }
        None
    }
}

/// Returns the world with an installation that has not started yet.
#[must_use]
pub fn world(cfg: &Cfg) -> World<Installs> {
    World::new(Installs::default(), std::vec![Starts::default()], cfg.budget)
}

type W = World<Installs>;

fn history(w: &W) -> History {
    w.node(0).map(Starts::history).unwrap_or_default()
}

/// Returns whether the ledger classifies the installation as forked, with the seeded defect if any.
fn is_flagged(cfg: &Cfg, history: &History) -> bool {
    match cfg.mutant {
        Some(Mutant::ForgivesOneStart) if history.pattern() == Pattern::FailedUpdate => false,
        Some(Mutant::GapsAreForks) if history.has_gap() => true,
        _ => history.pattern().is_forked(),
    }
}

/// Rules of the models of secondary GUIDs, checked in their reachable states.
pub const RULES: &[Rule<Installs>] = &[
    Rule::always("an installation that was never copied is never taken for forked", |cfg, w| {
        w.env.copied.is_some() || !is_flagged(cfg, &history(w))
    }),
    Rule::always(
        "of starts that were lived through twice, those are named that logins tell, and no others",
        |cfg, w| {
            let (found, told) = (history(w), w.env.told_forks());
            let named: BTreeSet<_> = found.graphs.iter().flat_map(|g| g.forks.iter().copied()).collect();
            named == told && is_flagged(cfg, &found) != told.is_empty()
        },
    ),
    Rule::always(
        "copies are found once each was heard under two starts, with no more than three lost in a row",
        |cfg, w| !w.env.heard_twice_each() || is_flagged(cfg, &history(w)),
    ),
    Rule::always("starts that nobody heard of make a gap if four or more follow each other, and no fork", |cfg, w| {
        if w.env.copied.is_some() {
            return true;
        }
        let (env, found) = (&w.env, history(w));
        let gap = env.unheard(&env.all[0].past) + 1 >= SECONDARY_GUIDS_MAX;
        found.has_gap() == gap && !is_flagged(cfg, &found)
    }),
    Rule::sometimes("copies are found by the first start of each", |cfg, w| {
        w.env.all[1].starts == 1 && is_flagged(cfg, &history(w))
    }),
    Rule::sometimes("two copies that both went on look like a restored backup", |_, w| {
        !w.env.set_back && history(w).pattern() == Pattern::RestoredBackup
    }),
    Rule::sometimes("one that is set back again looks re-imaged", |_, w| {
        w.env.set_back && history(w).pattern() == Pattern::Reimaged
    }),
    Rule::sometimes("there is a gap", |_, w| history(w).has_gap()),
];
