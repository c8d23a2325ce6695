//! What the local API knows of edges: their names, the names that users give, and the newest failure.

use super::{ApiState, Told};
use crate::client::protocol::Failure;
use crate::edge_client::News;
use std::time::{Duration, Instant};
use swarmedge_ground::error::Code;
use swarmedge_ground::http::Origin;
use swarmedge_ground::mailbox::Sender;

/// Maximum number of names of edges that users have given and that are remembered.
const NAMES_MAX: usize = 64;

impl ApiState {
    /// Sets the edges named by the install bundle, known before any bootstrap.
    pub fn bundle_edges(&self, edges: impl Iterator<Item = Origin>) {
        self.lock().edges = (false, edges.map(|edge| edge.authority()).collect());
    }

    /// Updates the state from a report of the edge connections.
    pub fn edge_news(&self, news: News) {
        let mut state = self.lock();
        match news {
            News::Edges(edges) => state.edges = (true, edges.iter().map(Origin::authority).collect()),
            News::Name { name, own } => {
                if state.names.len() >= NAMES_MAX {
                    state.names.clear();
                }
                state.names.insert(name.authority(), own.map(|own| own.authority()));
            }
            News::Answered => state.trouble = None,
            News::Trouble(trouble) => {
                let code = if trouble.wrong { Code::Failed } else { Code::Unreachable };
                let failure = Failure::new(code, trouble.what, trouble.next);
                let now = Instant::now();
                // an unchanged failure is repeated only every TROUBLE_EVERY
                let old = |t: &Told| t.failure == failure && now.duration_since(t.at) < super::TROUBLE_EVERY;
                if state.trouble.as_ref().is_some_and(old) {
                    return;
                }
                state.revision += 1;
                state.trouble = Some(Told { failure, at: now, revision: state.revision });
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Sets the queue of names of edges whose own URLs are to be found out; [`News::Name`] answers each.
    pub fn identify_by(&self, queue: Sender<Origin>) {
        // a client sets it once
        let _ = self.0.identify.set(queue);
    }

    /// Refuses an edge (`host:port`) that is none of the deployment's. Waits up to `patience` for a bootstrap to name
    /// these, and for the edge to say which of them it is if the name is none of theirs. Without a bootstrap, only the
    /// install bundle's names are accepted.
    pub fn expect_edge(&self, edge: &str, patience: Duration) -> Result<(), Failure> {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        let mut is_asked = false;
        loop {
            let (named, edges) = &state.edges;
            let own = state.names.get(edge).filter(|_| is_asked);
            let is_known = |name: &str| edges.iter().any(|known| known == name);
            if is_known(edge) || own.and_then(Option::as_deref).is_some_and(is_known) {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            let named = *named;
            if own.is_some() || self.is_over() || left.is_zero() || named && !is_asked && !self.identify(edge) {
                return Err(no_edge(edge, edges));
            }
            if named && !is_asked {
                is_asked = true;
                state.names.remove(edge);
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Queues a name whose edge is to be asked for its own URL; returns whether there was room.
    fn identify(&self, name: &str) -> bool {
        let origin = Origin::parse(&format!("https://{name}"));
        origin.zip(self.0.identify.get()).is_some_and(|(origin, queue)| queue.try_send(origin).is_ok())
    }
}

fn no_edge(edge: &str, known: &[String]) -> Failure {
    let next = "use one of them, or PROVIDER/PATH alone; another operator's objects need its bundle and a --state of \
                their own";
    let known = known.join(", ");
    Failure::new(Code::Usage, format!("{edge} is no edge of this client's operator, whose edges are {known}"), next)
}
