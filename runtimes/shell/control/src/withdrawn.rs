//! Polls a CN's edges for withdrawn versions, every few seconds. An edge that does not answer keeps its last list.

use hyper::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::VersionId;
use swarmedge_core::limits::WITHDRAWN_MAX;
use swarmedge_core::role::cn::Input;
use swarmedge_ground::edge_api::{WITHDRAWN_PATH, Withdrawn};
use swarmedge_ground::http::{Body, Client, Origin};
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::rt::Rt;

/// Polling interval; with it, sharing ends within a minute of an `unpublish` even if some polls fail.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Maximum length of an edge's answer in bytes; each version takes 67.
const ANSWER_LEN_MAX: usize = 80 * WITHDRAWN_MAX;

/// After each round of polls sends the machine all versions that any edge lists as withdrawn, until the machine has
/// ended.
pub(super) async fn follow<R: Rt>(rt: R, tls: Arc<rustls::ClientConfig>, edges: Vec<Origin>, inbox: Sender<Input>) {
    let http = Client::new(rt.clone(), tls);
    let mut lists: BTreeMap<&Origin, BTreeSet<VersionId>> = BTreeMap::new();
    loop {
        for edge in &edges {
            match poll(&http, edge).await {
                Ok(list) => drop(lists.insert(edge, list)),
                Err(error) => tracing::info!(edge = %edge.authority(), %error, "cannot read the withdrawn versions"),
            }
        }
        let versions: BTreeSet<_> = lists.values().flatten().copied().collect();
        if inbox.send(Input::Withdrawn { versions: versions.into_iter().collect() }).await.is_err() {
            return;
        }
        rt.sleep_until(rt.now() + POLL_EVERY).await;
    }
}

async fn poll<R: Rt>(http: &Client<R>, edge: &Origin) -> Result<BTreeSet<VersionId>, String> {
    let request = || Request::get(WITHDRAWN_PATH).body(Body::empty()).unwrap_or_default();
    let answer = http.send(edge, request).await.map_err(|e| e.to_string())?;
    let status = answer.head.status;
    let body = answer.collect(ANSWER_LEN_MAX).await.map_err(|e| e.to_string())?;
    if !status.is_success() {
        return Err(status.to_string());
    }
    let list: Withdrawn = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    list.versions.iter().map(|v| v.parse().map_err(|_| "not a version".to_owned())).collect()
}
