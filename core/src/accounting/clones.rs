//! Finds installations that were rolled back or cloned, by the secondary GUIDs in the logins of one GUID. An
//! installation draws a random secondary GUID at each start of its client process; "start" below means such a launch,
//! known by that GUID. The predecessor of a start is the installation's start before it, the successor the one after.
//!
//! Each login names the installation's last five starts, newest first. Neighbours in this list are joined as successor
//! and predecessor; a healthy installation makes a chain. A start with two successors shows that the installation
//! was set back, or that two copies of it run. The patterns and their causes are those of figure 12 in the paper on
//! Akamai's NetSession. A fork is a reason to give the installation a new key, not a proof of guilt.

use crate::ids::SecondaryGuid;
use crate::limits::SECONDARY_GUIDS_MAX;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Smallest number of an installation's starts whose graph is classified.
pub const STARTS_MIN: usize = 3;

/// Returns the secondary GUIDs that an installation stores: that of the present `start`, then earlier ones, at most
/// as many as a login names.
#[must_use]
pub fn begun(start: SecondaryGuid, before: impl IntoIterator<Item = SecondaryGuid>) -> Vec<SecondaryGuid> {
    core::iter::once(start).chain(before).take(SECONDARY_GUIDS_MAX).collect()
}

/// Shape of a connected graph of an installation's starts, each named by its secondary GUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// The graph has fewer than [`STARTS_MIN`] starts.
    Short,
    /// The graph is a chain: a healthy installation.
    Linear,
    /// The graph has one branch of a single start beside a longer one: an update that failed and was rolled back.
    FailedUpdate,
    /// The graph has two branches that both continued: a restored backup.
    RestoredBackup,
    /// The graph has three branches or more: a machine that is set back again and again, or many from one image.
    Reimaged,
    /// The graph is not a tree, which no sequence of rollbacks can cause: the client has invented secondary GUIDs.
    Irregular,
}

impl Pattern {
    /// Returns the pattern's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Linear => "linear",
            Self::FailedUpdate => "failed update",
            Self::RestoredBackup => "restored backup",
            Self::Reimaged => "re-imaged or cloned",
            Self::Irregular => "irregular",
        }
    }

    /// Returns whether the graph has a fork or is not a tree, so that the installation is to get a new key.
    #[must_use]
    pub const fn is_forked(self) -> bool {
        !matches!(self, Self::Short | Self::Linear)
    }
}

/// A connected graph of starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Graph {
    /// Shape of the graph.
    pub pattern: Pattern,
    /// Number of starts in the graph.
    pub starts: usize,
    /// Starts with more than one successor, in order: the evidence of a fork.
    pub forks: Vec<SecondaryGuid>,
    /// Starts without a known predecessor, in order. If there are several graphs, starts that no login names may lie
    /// before them.
    pub oldest: Vec<SecondaryGuid>,
    /// Starts without a known successor, in order. If there are several graphs, starts that no login names may lie
    /// after them.
    pub newest: Vec<SecondaryGuid>,
}

/// Graphs of starts from the logins of one GUID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The connected graphs, ordered by their smallest start.
    pub graphs: Vec<Graph>,
}

impl History {
    /// Returns the pattern of the graphs that is worst in the order of [`Pattern`]; [`Pattern::Short`] without a
    /// graph.
    #[must_use]
    pub fn pattern(&self) -> Pattern {
        self.graphs.iter().map(|g| g.pattern).max().unwrap_or(Pattern::Short)
    }

    /// Returns whether the graphs are not connected: after four or more consecutive starts without a login, no login
    /// names both an earlier and a later start. Such a gap is no evidence of a clone.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.graphs.len() > 1
    }
}

/// The starts named in the logins of one GUID. The result does not depend on the order of logins, on repeated logins,
/// or on up to three consecutive lost ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Starts {
    /// Each start with the starts directly before it (predecessors) and directly after it (successors).
    joined: BTreeMap<SecondaryGuid, (BTreeSet<SecondaryGuid>, BTreeSet<SecondaryGuid>)>,
}

impl Starts {
    /// Adds the secondary GUIDs that a login names, newest first.
    pub fn login(&mut self, newest_first: &[SecondaryGuid]) {
        for start in newest_first {
            self.joined.entry(*start).or_default();
        }
        for pair in newest_first.windows(2) {
            let (newer, older) = (pair[0], pair[1]);
            self.joined.entry(older).or_default().1.insert(newer);
            self.joined.entry(newer).or_default().0.insert(older);
        }
    }

    /// Asserts that each start is listed among the successors of each of its predecessors, and the reverse.
    pub fn check(&self) {
        for (start, (before, after)) in &self.joined {
            let follows = |old: &SecondaryGuid| self.joined.get(old).is_some_and(|(_, after)| after.contains(start));
            assert!(before.iter().all(follows), "a start follows its predecessors");
            let leads = |new: &SecondaryGuid| self.joined.get(new).is_some_and(|(before, _)| before.contains(start));
            assert!(after.iter().all(leads), "a start precedes its successors");
        }
    }

    /// Returns the connected graphs of all starts.
    #[must_use]
    pub fn history(&self) -> History {
        let mut seen = BTreeSet::new();
        let mut graphs = Vec::new();
        for &first in self.joined.keys() {
            if !seen.contains(&first) {
                let members = self.reach(first);
                seen.extend(members.iter().copied());
                graphs.push(self.graph(&members));
            }
        }
        History { graphs }
    }

    fn before(&self, start: &SecondaryGuid) -> impl Iterator<Item = &SecondaryGuid> {
        self.joined.get(start).into_iter().flat_map(|(before, _)| before)
    }

    fn after(&self, start: &SecondaryGuid) -> impl Iterator<Item = &SecondaryGuid> {
        self.joined.get(start).into_iter().flat_map(|(_, after)| after)
    }

    /// Returns all starts that are connected with a start.
    fn reach(&self, from: SecondaryGuid) -> BTreeSet<SecondaryGuid> {
        let mut members = BTreeSet::from([from]);
        let mut todo = alloc::vec![from];
        while let Some(start) = todo.pop() {
            for next in self.before(&start).chain(self.after(&start)) {
                if members.insert(*next) {
                    todo.push(*next);
                }
            }
        }
        members
    }

    fn graph(&self, members: &BTreeSet<SecondaryGuid>) -> Graph {
        let forks: Vec<_> = members.iter().filter(|s| self.after(s).count() > 1).copied().collect();
        let oldest: Vec<_> = members.iter().filter(|s| self.before(s).next().is_none()).copied().collect();
        let is_tree = oldest.len() == 1 && members.iter().all(|s| self.before(s).count() <= 1);
        let newest: Vec<_> = members.iter().filter(|s| self.after(s).next().is_none()).copied().collect();
        let pattern = match (is_tree, newest.len()) {
            (false, _) => Pattern::Irregular,
            (true, _) if members.len() < STARTS_MIN => Pattern::Short,
            (true, 0 | 1) => Pattern::Linear,
            (true, 2) if newest.iter().any(|leaf| self.hangs_alone(leaf)) => Pattern::FailedUpdate,
            (true, 2) => Pattern::RestoredBackup,
            (true, _) => Pattern::Reimaged,
        };
        Graph { pattern, starts: members.len(), forks, oldest, newest }
    }

    /// Returns whether a start without successors is a branch of its own: its predecessor has other successors.
    fn hangs_alone(&self, leaf: &SecondaryGuid) -> bool {
        self.before(leaf).any(|parent| self.after(parent).count() > 1)
    }
}

/// Returns the graphs of starts that the logins of one GUID form. Each login is a list of secondary GUIDs, newest
/// first; logins are given in any order.
pub fn classify<'a>(logins: impl IntoIterator<Item = &'a [SecondaryGuid]>) -> History {
    let mut starts = Starts::default();
    logins.into_iter().for_each(|login| starts.login(login));
    starts.history()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses logins: each is a list of starts as numbers, newest first; logins are separated by `/`.
    fn logins(text: &str) -> Vec<Vec<SecondaryGuid>> {
        let start = |n: &str| SecondaryGuid::numbered(n.parse().expect("a number"));
        text.split('/').map(|login| login.split_whitespace().map(start).collect()).collect()
    }

    fn history(text: &str) -> History {
        classify(logins(text).iter().map(Vec::as_slice))
    }

    #[test]
    fn each_clause_of_starts_finds_a_corruption() {
        let mut starts = Starts::default();
        let (old, new) = (SecondaryGuid::numbered(1), SecondaryGuid::numbered(2));
        starts.login(&[new, old]);
        crate::bench::assert_each_clause_fires(
            &starts,
            Starts::check,
            &[
                ("a start follows its predecessors", |s| s.joined.values_mut().for_each(|(_, after)| after.clear())),
                ("a start precedes its successors", |s| s.joined.values_mut().for_each(|(before, _)| before.clear())),
            ],
        );
    }

    #[test]
    fn the_patterns_of_figure_12_are_distinguished() {
        use Pattern::{FailedUpdate, Irregular, Linear, Reimaged, RestoredBackup, Short};
        let table = [
            ("1", Short, false),
            ("2 1", Short, false),
            ("1 / 2 1 / 3 2 1", Linear, false),
            ("5 4 3 2 1 / 6 5 4 3 2 / 7 6 5 4 3", Linear, false),
            // a lost, repeated or late login changes nothing
            ("5 4 3 2 1 / 9 8 7 6 5", Linear, false),
            ("7 6 5 4 3 / 5 4 3 2 1 / 5 4 3 2 1 / 6 5 4 3 2", Linear, false),
            // four or more lost in a row: unknown, and no fork
            ("5 4 3 2 1 / 10 9 8 7 6", Linear, true),
            ("5 4 3 2 1 / 14 13 12 11 10", Linear, true),
            // an update is tried as start 4 and fails; the next start follows 3
            ("3 2 1 / 4 3 2 1 / 5 3 2 1 / 6 5 3 2 1", FailedUpdate, false),
            // a backup taken at 3 is restored after 5
            ("5 4 3 2 1 / 6 3 2 1 / 7 6 3 2 1", RestoredBackup, false),
            // an internet café: rolled back to 2 every night
            ("2 1 / 3 2 1 / 4 2 1 / 5 2 1", Reimaged, false),
            // a master image: several copies of 2, each with starts of its own
            ("3 2 1 / 4 3 2 1 / 5 2 1 / 6 5 2 1 / 7 2 1", Reimaged, false),
            // a start with two predecessors, and a start that precedes itself
            ("3 1 / 3 2", Irregular, false),
            ("1 2 3 1", Irregular, false),
            ("1 1", Irregular, false),
        ];
        for (text, pattern, gap) in table {
            let found = history(text);
            assert_eq!((found.pattern(), found.has_gap()), (pattern, gap), "{text}");
        }
    }

    #[test]
    fn the_start_with_two_successors_is_the_evidence() {
        let found = history("5 4 3 2 1 / 6 3 2 1 / 7 6 3 2 1");
        assert_eq!(found.graphs.len(), 1);
        assert_eq!(found.graphs[0].forks, [SecondaryGuid::numbered(3)]);
        assert_eq!(found.graphs[0].starts, 7);
    }

    #[test]
    fn the_starts_around_a_gap_are_named() {
        let found = history("5 4 3 2 1 / 14 13 12 11 10");
        let ends: Vec<_> = found.graphs.iter().map(|g| (&g.oldest[..], &g.newest[..])).collect();
        let of = |n| [SecondaryGuid::numbered(n)];
        assert_eq!(ends, [(&of(1)[..], &of(5)[..]), (&of(10)[..], &of(14)[..])]);
    }

    proptest::proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        /// Tests that one installation is never reported as cloned, whichever of its logins arrive in whichever
        /// order, and that a cloned one is, as soon as logins of both copies have arrived.
        #[test]
        fn an_unbroken_history_is_never_a_fork_and_a_branch_always_is(
            lost in proptest::collection::vec(proptest::bool::ANY, 20),
            rotate in 0_usize..20,
            at in 1_usize..15,
        ) {
            let all: Vec<_> = (0..20).map(SecondaryGuid::numbered).collect();
            let login = |n: usize| all[n.saturating_sub(SECONDARY_GUIDS_MAX - 1)..=n].iter().rev().copied();
            let mut heard: Vec<Vec<_>> = (0..20).filter(|n| !lost[*n]).map(|n| login(n).collect()).collect();
            let by = rotate.min(heard.len());
            heard.rotate_left(by);
            let found = classify(heard.iter().map(Vec::as_slice));
            proptest::prop_assert!(!found.pattern().is_forked());
            let clone: Vec<_> = core::iter::once(SecondaryGuid::numbered(99)).chain(login(at).take(4)).collect();
            heard.extend([login(at + 1).collect(), clone]);
            let found = classify(heard.iter().map(Vec::as_slice));
            proptest::prop_assert!(found.pattern().is_forked());
            proptest::prop_assert!(found.graphs.iter().any(|g| g.forks.contains(&all[at])));
        }
    }
}
