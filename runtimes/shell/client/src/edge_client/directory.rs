//! Addresses of edges, CNs and STUN servers from the last bootstrap. The client machine names a server by its index.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use swarmedge_core::limits::SERVERS_MAX;
use swarmedge_ground::http::Origin;

/// The known edges, CNs and STUN servers of a deployment.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Edges. Before any bootstrap answer: those of the install bundle; afterwards those of the answer, then the
    /// bundle's other edges.
    pub edges: Vec<Origin>,
    /// Addresses of CNs, `host:port`, nearest first.
    pub cns: Vec<String>,
    /// Resolved addresses of STUN servers.
    pub stun: Vec<SocketAddr>,
    /// Lowest client version that the CNs let take part, as an edge names it; empty if none has.
    pub client_version_min: String,
    bundle: Vec<Origin>,
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

    fn name(&mut self, edges: Vec<Origin>, mut cns: Vec<String>) {
        self.edges = edges;
        for edge in &self.bundle {
            if !self.edges.contains(edge) {
                self.edges.push(edge.clone());
            }
        }
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
