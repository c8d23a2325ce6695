//! What the secondary GUIDs of all installations look like, as figure 12 of the paper counts them, and of which too
//! many starts in a row are missing.

use serde::Serialize;
use std::collections::BTreeMap;
use swarmedge_core::accounting::clones::{Graph, Starts};
use swarmedge_core::ids::SecondaryGuid;

/// See [`Suspects::gaps`](super::suspects::Suspects::gaps).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapFound {
    /// GUID.
    pub guid: String,
    /// How often it logged in.
    pub logins: u64,
    /// The parts of its history, which no login joins.
    pub parts: Vec<PartFound>,
}

/// See [`GapFound::parts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartFound {
    /// How many starts it has.
    pub starts: usize,
    /// Those that none is known before: secondary GUIDs.
    pub oldest: Vec<String>,
    /// Those that none is known after.
    pub newest: Vec<String>,
}

/// What the starts of all installations come to.
#[derive(Default)]
pub(super) struct Histories {
    /// How many graphs there are of each pattern.
    pub(super) graphs: BTreeMap<&'static str, u64>,
    pub(super) gaps: Vec<GapFound>,
}

impl Histories {
    /// Of installations: GUID, starts, and how often it logged in.
    pub(super) fn of<'a>(all: impl Iterator<Item = (String, &'a Starts, u64)>) -> Self {
        let mut histories = Self::default();
        for (guid, starts, logins) in all {
            let history = starts.history();
            for graph in &history.graphs {
                *histories.graphs.entry(graph.pattern.name()).or_default() += 1;
            }
            if history.has_gap() {
                let parts = history.graphs.iter().map(part).collect();
                histories.gaps.push(GapFound { guid, logins, parts });
            }
        }
        histories
    }
}

fn part(graph: &Graph) -> PartFound {
    let names = |starts: &[SecondaryGuid]| starts.iter().map(ToString::to_string).collect();
    PartFound { starts: graph.starts, oldest: names(&graph.oldest), newest: names(&graph.newest) }
}
