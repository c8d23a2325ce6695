//! Graphs of secondary GUIDs (one per client start) counted by pattern, as in figure 12 of the paper, and installations
//! whose history has gaps because too many starts in a row are missing.

use serde::Serialize;
use std::collections::BTreeMap;
use swarmedge_core::accounting::clones::{Graph, Starts};
use swarmedge_core::ids::SecondaryGuid;

/// An installation with gaps in its history of starts; listed in [`Suspects::gaps`](super::suspects::Suspects::gaps).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapFound {
    /// GUID of the installation.
    pub guid: String,
    /// Number of its logins.
    pub logins: u64,
    /// Parts of the history between which no recorded login gives a link.
    pub parts: Vec<PartFound>,
}

/// A connected part of an installation's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartFound {
    /// Number of starts in this part.
    pub starts: usize,
    /// Secondary GUIDs of the starts without a known predecessor.
    pub oldest: Vec<String>,
    /// Secondary GUIDs of the starts without a known successor.
    pub newest: Vec<String>,
}

/// Summary of the starts of all installations.
#[derive(Default)]
pub(super) struct Histories {
    /// Number of graphs of each pattern.
    pub(super) graphs: BTreeMap<&'static str, u64>,
    pub(super) gaps: Vec<GapFound>,
}

impl Histories {
    /// Summarises installations, each given by GUID, starts and number of logins.
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
