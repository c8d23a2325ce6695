//! Polls a CN's edges for withdrawn versions, every few seconds. An edge that does not answer keeps its last list.

use hyper::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::ids::VersionId;
use swarmedge_core::limits::WITHDRAWN_MAX;
use swarmedge_core::role::cn::Input;
use swarmedge_ground::edge_api::{WITHDRAWN_PATH, Withdrawn};
use swarmedge_ground::health::{Cause, Health};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::{Body, Client, Origin};
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::rt::Rt;

/// Polling interval; with it, sharing ends within a minute of an `unpublish` even if some polls fail.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Maximum length of an edge's answer in bytes; each version takes 67.
const ANSWER_LEN_MAX: usize = 80 * WITHDRAWN_MAX;
/// Difference of two clocks from which on it is told: grants and cookies carry times.
const CLOCKS_DIFFER_MS: u64 = 60_000;
/// The part in `/healthz`.
const CLOCK: &str = "CN's clock";

/// After each round of polls sends the machine all versions that any edge lists as withdrawn, until the machine has
/// ended.
pub(super) async fn follow<R: Rt>(
    rt: R,
    tls: Arc<rustls::ClientConfig>,
    edges: Vec<Origin>,
    inbox: Sender<Input>,
    health: Health,
) {
    let http = Client::new(rt.clone(), tls);
    let mut lists: BTreeMap<&Origin, BTreeSet<VersionId>> = BTreeMap::new();
    let mut clocks: BTreeMap<&Origin, u64> = BTreeMap::new();
    loop {
        for edge in &edges {
            match poll(&http, edge).await {
                Ok((list, their_ms)) => {
                    clocks.insert(edge, their_ms.abs_diff(unix_ms()));
                    lists.insert(edge, list);
                }
                Err(error) => tracing::info!(edge = %edge.authority(), %error, "cannot read the withdrawn versions"),
            }
        }
        tell_clock(&health, &clocks);
        let versions: BTreeSet<_> = lists.values().flatten().copied().collect();
        if inbox.send(Input::Withdrawn { versions: versions.into_iter().collect() }).await.is_err() {
            return;
        }
        rt.sleep_until(rt.now() + POLL_EVERY).await;
    }
}

/// Tells in health if this machine's clock differs from that of most edges.
fn tell_clock(health: &Health, clocks: &BTreeMap<&Origin, u64>) {
    let wrong: Vec<_> = clocks.values().filter(|by_ms| **by_ms >= CLOCKS_DIFFER_MS).collect();
    if wrong.len() * 2 <= clocks.len() {
        return health.clear(CLOCK);
    }
    let by_s = wrong.iter().min().map_or(0, |by_ms| **by_ms / 1000);
    let why = format!("it differs by {by_s} s from the clocks of the edges (set the clocks, as by NTP)");
    health.warn(CLOCK, Cause::ClockWrong, why);
}

/// Returns what an edge lists as withdrawn, and its clock in Unix milliseconds.
async fn poll<R: Rt>(http: &Client<R>, edge: &Origin) -> Result<(BTreeSet<VersionId>, u64), String> {
    let request = || Request::get(WITHDRAWN_PATH).body(Body::empty()).unwrap_or_default();
    let answer = http.send(edge, request).await.map_err(|e| e.to_string())?;
    let status = answer.head.status;
    let body = answer.collect(ANSWER_LEN_MAX).await.map_err(|e| e.to_string())?;
    if !status.is_success() {
        return Err(status.to_string());
    }
    let list: Withdrawn = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    let versions = list.versions.iter().map(|v| v.parse().map_err(|_| "not a version".to_owned()));
    Ok((versions.collect::<Result<_, _>>()?, list.now_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ground::health::View;

    #[test]
    fn a_clock_that_differs_from_most_edges_is_told() {
        let edges = ["a", "b", "c"].map(|host| Origin { host: host.into(), port: 443 });
        let health = Health::default();
        for (by_ms, told) in [([0, 59_999, 1], false), ([0, 60_000, 1], false), ([61_000, 90_000, 1], true)] {
            tell_clock(&health, &edges.iter().zip(by_ms).collect());
            assert_eq!(health.has(Cause::ClockWrong), told, "{by_ms:?}");
        }
        assert!(health.told(View::Operator)[0].why.contains("by 61 s"));
        tell_clock(&health, &BTreeMap::new());
        assert!(!health.has(Cause::ClockWrong), "nothing is known of other clocks");
    }
}
