//! Addresses of edges, CNs and STUN servers from the last bootstrap. The client machine names a server by its index.

use super::names::Names;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use swarmedge_core::limits::SERVERS_MAX;
use swarmedge_ground::http::Origin;

/// The known edges, CNs and STUN servers of a deployment.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Edges, each once whatever its names. Before any bootstrap answer: those of the install bundle; afterwards those
    /// of the answer, then the bundle's other edges.
    pub edges: Vec<Origin>,
    /// Addresses of CNs, `host:port`, nearest first.
    pub cns: Vec<String>,
    /// Resolved addresses of STUN servers.
    pub stun: Vec<SocketAddr>,
    /// Lowest client version that the CNs let take part, as an edge names it; empty if none has.
    pub client_version_min: String,
    bundle: Vec<Origin>,
    names: Names,
    /// Whether any bootstrap, of an edge or kept, has named the servers.
    named: bool,
    clock: Option<(u64, Instant)>,
}

impl Directory {
    /// Makes a directory of an install bundle's edges.
    #[must_use]
    pub fn new(bundle: Vec<Origin>) -> Self {
        Self { edges: bundle.clone(), bundle, ..Self::default() }
    }

    /// Returns whether any edge has answered a bootstrap request.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.clock.is_some()
    }

    /// Stores an edge's bootstrap answer, received at `now`, when the edge's clock showed `now_ms`.
    pub fn learn(
        &mut self,
        now: Instant,
        now_ms: u64,
        edges: Vec<Origin>,
        cns: Vec<String>,
        mut stun: Vec<SocketAddr>,
    ) {
        stun.truncate(SERVERS_MAX);
        self.stun = stun;
        self.name(edges, cns);
        self.clock = Some((now_ms, now));
    }

    /// Stores the servers of a kept bootstrap.
    pub fn recall(&mut self, edges: Vec<Origin>, cns: Vec<String>, client_version_min: &str) {
        client_version_min.clone_into(&mut self.client_version_min);
        self.name(edges, cns);
    }

    /// Stores the STUN servers of a kept bootstrap, unless an edge has named some since.
    pub fn recall_stun(&mut self, mut stun: Vec<SocketAddr>) {
        if !self.is_known() {
            stun.truncate(SERVERS_MAX);
            self.stun = stun;
        }
    }

    /// Stores the own URL of the edge that answers by `name`, as its bootstrap says.
    pub fn answers(&mut self, name: &Origin, own: &Origin) {
        self.names.note(name, own);
    }

    /// Returns the own URL of the edge with this name; the name itself if no other is known.
    #[must_use]
    pub fn own(&self, name: &Origin) -> Origin {
        self.names.own(name).clone()
    }

    /// Replaces the name of an edge that could not be reached by it, if the edge has another.
    pub fn unreachable(&mut self, name: &Origin) {
        let next = self.names.next(name);
        self.edges.iter_mut().filter(|edge| *edge == name).for_each(|edge| edge.clone_from(&next));
    }

    fn name(&mut self, edges: Vec<Origin>, mut cns: Vec<String>) {
        self.edges = self.names.list(edges.iter().chain(&self.bundle));
        self.edges.truncate(SERVERS_MAX);
        cns.truncate(SERVERS_MAX);
        self.cns = cns;
        self.named = true;
    }

    /// Before any bootstrap answer: moves the bundle's next edge to index 0, the only one that is asked then.
    pub fn rotate(&mut self) {
        if !self.named && !self.edges.is_empty() {
            self.edges.rotate_left(1);
        }
    }

    /// Returns the edges' clock time at `now` in Unix milliseconds; `None` before any bootstrap answer.
    #[must_use]
    pub fn now_ms(&self, now: Instant) -> Option<u64> {
        let since = |at| u64::try_from(now.saturating_duration_since(at).min(Duration::MAX).as_millis());
        self.clock.map(|(ms, at)| ms.saturating_add(since(at).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(port: u16) -> Origin {
        Origin { host: "edge".into(), port }
    }

    #[test]
    fn the_bundles_edges_rotate_until_a_bootstrap_and_stay_behind_it() {
        let mut d = Directory::new(vec![origin(1), origin(2)]);
        d.rotate();
        assert_eq!(d.edges, [origin(2), origin(1)]);
        let start = Instant::now();
        d.learn(start, 1_000, vec![origin(3), origin(1)], vec![], vec![]);
        assert_eq!(d.edges, [origin(3), origin(1), origin(2)]);
        d.rotate();
        assert_eq!(d.edges[0], origin(3));
        assert_eq!(d.now_ms(start + Duration::from_secs(2)), Some(3_000));
    }

    #[test]
    fn two_names_of_one_edge_are_one_edge() {
        let mut d = Directory::new(vec![origin(1), origin(2)]);
        d.answers(&origin(1), &origin(3));
        d.learn(Instant::now(), 1_000, vec![origin(3), origin(4), origin(3)], vec![], vec![]);
        assert_eq!(d.edges, [origin(3), origin(4), origin(2)], "the bundle's first name leads to it too");
        assert_eq!((d.own(&origin(1)), d.own(&origin(2))), (origin(3), origin(2)));
        d.unreachable(&origin(3));
        assert_eq!(d.edges, [origin(1), origin(4), origin(2)], "its other name may still lead to it");
        d.unreachable(&origin(4));
        d.unreachable(&origin(1));
        assert_eq!(d.edges, [origin(3), origin(4), origin(2)]);
        d.answers(&origin(4), &origin(3));
        d.learn(Instant::now(), 1_000, vec![origin(3), origin(4)], vec![], vec![]);
        assert_eq!(d.edges, [origin(3), origin(2)], "also a name that the edge itself lists");
    }

    #[test]
    fn a_kept_bootstrap_names_servers_but_tells_no_time() {
        let mut d = Directory::new(vec![origin(1)]);
        d.recall(vec![origin(3)], vec!["cn:1".into()], "0.2.0");
        assert_eq!((&d.edges[..], &d.cns[..]), (&[origin(3), origin(1)][..], &["cn:1".to_owned()][..]));
        assert!(!d.is_known() && d.now_ms(Instant::now()).is_none());
        d.rotate();
        assert_eq!(d.edges[0], origin(3), "the machine numbers them by this order");
        let stun = |port| SocketAddr::from(([1, 1, 1, 1], port));
        d.recall_stun(vec![stun(1)]);
        assert_eq!(d.stun, [stun(1)]);
        d.learn(Instant::now(), 5, vec![], vec![], vec![stun(2)]);
        d.recall_stun(vec![stun(1)]);
        assert_eq!(d.stun, [stun(2)]);
    }
}
