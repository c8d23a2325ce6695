//! Rolled back and cloned installations (DESIGN §10.4, §10.6): what the secondary GUIDs of one GUID's logins say.
//!
//! Each login names the last five starts, newest first. Starts that follow one another in a login are joined; a healthy
//! installation makes a chain. A start that two others follow has been lived through twice: an installation was set
//! back, or there are two of them. The patterns and their causes are those of the paper's figure 12. Such a graph is a
//! reason to give the installation a new key, not a proof of guilt.

use crate::ids::SecondaryGuid;
use crate::limits::SECONDARY_GUIDS_MAX;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Starts of fewer than so many say nothing (the paper's rule).
pub const STARTS_MIN: usize = 3;

/// What an installation remembers once a start has begun, newest first: it and those before, as many as a login names.
#[must_use]
pub fn begun(start: SecondaryGuid, before: impl IntoIterator<Item = SecondaryGuid>) -> Vec<SecondaryGuid> {
    core::iter::once(start).chain(before).take(SECONDARY_GUIDS_MAX).collect()
}

/// What a connected graph of starts looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Fewer than [`STARTS_MIN`] starts.
    Short,
    /// A chain: a healthy installation.
    Linear,
    /// One branch of a single start beside a longer one: an update that failed and was rolled back.
    FailedUpdate,
    /// Two branches that both went on: a restored backup.
    RestoredBackup,
    /// Three branches or more: a machine that is set back again and again, or many from one image.
    Reimaged,
    /// No tree: what no sequence of rollbacks can leave behind. Somebody makes secondary GUIDs up.
    Irregular,
}

impl Pattern {
    /// Its name in reports.
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

    /// Whether a start was lived through twice: the installation is to get a new key.
    #[must_use]
    pub const fn is_forked(self) -> bool {
        !matches!(self, Self::Short | Self::Linear)
    }
}

/// A connected graph of starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Graph {
    /// Its form.
    pub pattern: Pattern,
    /// How many starts.
    pub starts: usize,
    /// Starts that more than one other follows, in order: the evidence.
    pub forks: Vec<SecondaryGuid>,
    /// Starts that none is known before, in order. Where there is another graph, these are what a gap lies before.
    pub oldest: Vec<SecondaryGuid>,
    /// Starts that none is known after, in order. Where there is another graph, these are what a gap lies behind.
    pub newest: Vec<SecondaryGuid>,
}

/// What one GUID's logins come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The connected graphs, each by its smallest start's place.
    pub graphs: Vec<Graph>,
}

impl History {
    /// The worst of its graphs' patterns.
    #[must_use]
    pub fn pattern(&self) -> Pattern {
        self.graphs.iter().map(|g| g.pattern).max().unwrap_or(Pattern::Short)
    }

    /// Whether starts are missing in between: four in a row, or more, never logged in, so that no login names both a
    /// start before and one after. It is no fork: what happened meanwhile is not known.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.graphs.len() > 1
    }
}

/// The starts that logins of one GUID have named. The order of logins, their repetition, and lost ones (up to three in
/// a row) make no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Starts {
    /// Each start, with those before it and those after it.
    joined: BTreeMap<SecondaryGuid, (BTreeSet<SecondaryGuid>, BTreeSet<SecondaryGuid>)>,
}

impl Starts {
    /// Takes in a login's secondary GUIDs, newest first.
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

    /// What they come to.
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

    /// All that is connected with a start.
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

    /// Whether a leaf is a branch of its own.
    fn hangs_alone(&self, leaf: &SecondaryGuid) -> bool {
        self.before(leaf).any(|parent| self.after(parent).count() > 1)
    }
}

/// What the logins of one GUID come to, in any order.
pub fn classify<'a>(logins: impl IntoIterator<Item = &'a [SecondaryGuid]>) -> History {
    let mut starts = Starts::default();
    logins.into_iter().for_each(|login| starts.login(login));
    starts.history()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logins written as the paper writes them: numbers newest first, logins apart by `/`.
    fn logins(text: &str) -> Vec<Vec<SecondaryGuid>> {
        let start = |n: &str| SecondaryGuid::numbered(n.parse().expect("a number"));
        text.split('/').map(|login| login.split_whitespace().map(start).collect()).collect()
    }

    fn history(text: &str) -> History {
        classify(logins(text).iter().map(Vec::as_slice))
    }

    #[test]
    fn the_patterns_of_figure_12_are_told_apart() {
        use Pattern::{FailedUpdate, Irregular, Linear, Reimaged, RestoredBackup, Short};
        let table = [
            ("1", Short, false),
            ("2 1", Short, false),
            ("1 / 2 1 / 3 2 1", Linear, false),
            ("5 4 3 2 1 / 6 5 4 3 2 / 7 6 5 4 3", Linear, false),
            // a login that is lost, repeated or late changes nothing
            ("5 4 3 2 1 / 9 8 7 6 5", Linear, false),
            ("7 6 5 4 3 / 5 4 3 2 1 / 5 4 3 2 1 / 6 5 4 3 2", Linear, false),
            // four or more lost in a row: nobody knows, and nobody is blamed
            ("5 4 3 2 1 / 10 9 8 7 6", Linear, true),
            ("5 4 3 2 1 / 14 13 12 11 10", Linear, true),
            // an update is tried as start 4, fails, and everything goes on from 3
            ("3 2 1 / 4 3 2 1 / 5 3 2 1 / 6 5 3 2 1", FailedUpdate, false),
            // a backup taken at 3 is restored after 5
            ("5 4 3 2 1 / 6 3 2 1 / 7 6 3 2 1", RestoredBackup, false),
            // the café: set back to 2 every night
            ("2 1 / 3 2 1 / 4 2 1 / 5 2 1", Reimaged, false),
            // the master image: many from 2, each going on
            ("3 2 1 / 4 3 2 1 / 5 2 1 / 6 5 2 1 / 7 2 1", Reimaged, false),
            // two pasts of one start, and a start before itself
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
    fn the_start_that_was_lived_through_twice_is_the_evidence() {
        let found = history("5 4 3 2 1 / 6 3 2 1 / 7 6 3 2 1");
        assert_eq!(found.graphs.len(), 1);
        assert_eq!(found.graphs[0].forks, [SecondaryGuid::numbered(3)]);
        assert_eq!(found.graphs[0].starts, 7);
    }

    #[test]
    fn what_a_gap_lies_between_is_named() {
        let found = history("5 4 3 2 1 / 14 13 12 11 10");
        let ends: Vec<_> = found.graphs.iter().map(|g| (&g.oldest[..], &g.newest[..])).collect();
        let of = |n| [SecondaryGuid::numbered(n)];
        assert_eq!(ends, [(&of(1)[..], &of(5)[..]), (&of(10)[..], &of(14)[..])]);
    }

    proptest::proptest! {
        #![proptest_config(swarmedge_seeds::random(256))]

        /// An installation of which any subset of logins arrives, in any order, is never taken for a fork; and one that
        /// was cloned is, as soon as both copies were heard with their fork in sight.
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
