//! Names of edges. An edge has one URL of its own, the first edge of its bootstrap answers. It may be reached by other
//! names too, which an install bundle or another edge's answer may list; such an edge counts once.

use std::collections::BTreeMap;
use swarmedge_core::limits::SERVERS_MAX;
use swarmedge_ground::http::Origin;

/// Maximum number of names whose edges are remembered.
const NAMES_MAX: usize = 2 * SERVERS_MAX;

/// The listed names of edges, and which of them lead to one edge.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// All listed names, each once.
    listed: Vec<Origin>,
    /// The own URL of the edge that answered by a name, where it differs from the name.
    own: BTreeMap<Origin, Origin>,
}

impl Names {
    /// Stores the own URL of the edge that has answered by `name`.
    pub(super) fn note(&mut self, name: &Origin, own: &Origin) {
        // a name may lead to another edge than before
        self.own.remove(name);
        if name != own && self.own.len() < NAMES_MAX {
            self.own.insert(name.clone(), own.clone());
        }
    }

    /// Returns the own URL of the edge with this name; the name itself if no other is known.
    pub(super) fn own<'a>(&'a self, name: &'a Origin) -> &'a Origin {
        self.own.get(name).unwrap_or(name)
    }

    /// Stores a new list of names; returns each edge once by its own URL, in the order of the list.
    pub(super) fn list<'a>(&mut self, names: impl Iterator<Item = &'a Origin>) -> Vec<Origin> {
        self.listed.clear();
        let mut edges: Vec<Origin> = Vec::new();
        for name in names.take(NAMES_MAX) {
            if !self.listed.contains(name) {
                self.listed.push(name.clone());
            }
            let own = self.own(name);
            if !edges.contains(own) {
                edges.push(own.clone());
            }
        }
        edges
    }

    /// Returns the name by which to reach an edge after `failed` has failed: its next one, after the last its own URL.
    pub(super) fn next(&self, failed: &Origin) -> Origin {
        let own = self.own(failed);
        let others = self.listed.iter().filter(|name| *name != own && self.own(name) == own);
        let names: Vec<&Origin> = std::iter::once(own).chain(others).collect();
        let at = names.iter().position(|name| *name == failed).map_or(0, |at| at + 1);
        (*names.get(at).unwrap_or(&own)).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(host: &str) -> Origin {
        Origin { host: host.into(), port: 1 }
    }

    #[test]
    fn an_edge_of_several_names_is_listed_once_and_each_name_tried_in_turn() {
        let mut names = Names::default();
        let [own, other, third, far] = ["own", "other", "third", "far"].map(name);
        let all = [own.clone(), other.clone(), far.clone(), own.clone(), third.clone()];
        assert_eq!(names.list(all.iter()), [own.clone(), other.clone(), far.clone(), third.clone()]);
        assert_eq!(names.next(&own), own, "no other name is known");
        names.note(&other, &own);
        names.note(&third, &own);
        assert_eq!(names.list(all.iter()), [own.clone(), far.clone()]);
        assert_eq!(
            names.list(std::iter::once(&third)),
            std::slice::from_ref(&own),
            "by its own URL, which it was not listed with"
        );
        names.list(all.iter());
        let mut tried = vec![own.clone()];
        for _ in 0..3 {
            tried.push(names.next(&tried[tried.len() - 1]));
        }
        assert_eq!(tried, [own.clone(), other.clone(), third.clone(), own.clone()]);
        names.note(&third, &third);
        assert_eq!(names.list(all.iter()), [own, far, third], "it leads elsewhere now");
    }

    #[test]
    fn what_is_remembered_of_names_is_bounded() {
        let mut names = Names::default();
        let many: Vec<Origin> = (0..500).map(|n| name(&format!("n{n}"))).collect();
        many.iter().for_each(|n| names.note(n, &name("own")));
        names.list(many.iter());
        assert!(names.own.len() <= NAMES_MAX && names.listed.len() <= NAMES_MAX);
    }
}
