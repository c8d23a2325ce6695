//! Asks a CN's edges for new notices every few seconds, and compares their clocks with the clock of this machine. An
//! edge that does not answer is asked again at the next poll.

use hyper::Request;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use swarmedge_core::role::cn::Input;
use swarmedge_core::wire::notice::SignedNotice;
use swarmedge_ground::edge_api::{NOTICES_LEN_MAX, NOTICES_PATH, Notices, parse_notice};
use swarmedge_ground::health::{Cause, Health};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::{Body, Client, Origin};
use swarmedge_ground::mailbox::Sender;
use swarmedge_ground::rt::Rt;

/// Polling interval; with it, a notice reaches clients within a minute even if some polls fail.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Number of polls of an edge after which it is asked for all notices again, in case its catalogue was restored.
const POLLS_UNTIL_WHOLE: u32 = 120;
/// Minimum clock difference that is reported, in milliseconds: grants and STUN cookies contain times.
const CLOCKS_DIFFER_MS: u64 = 60_000;
/// Name of the clock check in `/healthz`.
const CLOCK: &str = "CN's clock";

/// Result of asking an edge for notices.
struct Polled {
    /// Absolute difference between the edge's clock and this machine's, milliseconds.
    clock_differs_ms: u64,
    /// Whether the CN's state machine still runs.
    runs: bool,
}

/// Passes every new notice of the edges to the CN's state machine, until the machine has ended.
pub(super) async fn follow<R: Rt>(
    rt: R,
    tls: Arc<rustls::ClientConfig>,
    edges: Vec<Origin>,
    inbox: Sender<Input>,
    health: Health,
) {
    let http = Client::new(rt.clone(), tls);
    let mut after = vec![0; edges.len()];
    let mut clocks: BTreeMap<&Origin, u64> = BTreeMap::new();
    for round in (0..POLLS_UNTIL_WHOLE).cycle() {
        for (edge, after) in edges.iter().zip(&mut after) {
            if round == 0 {
                *after = 0;
            }
            match poll(&http, edge, after, &inbox).await {
                Ok(Polled { runs: false, .. }) => return,
                Ok(Polled { clock_differs_ms, .. }) => _ = clocks.insert(edge, clock_differs_ms),
                Err(error) => tracing::info!(edge = %edge.authority(), %error, "cannot read the notices"),
            }
        }
        tell_clock(&health, &clocks);
        rt.sleep_until(rt.now() + POLL_EVERY).await;
    }
}

/// Warns in health if this machine's clock differs from the clocks of most edges.
fn tell_clock(health: &Health, clocks: &BTreeMap<&Origin, u64>) {
    let wrong: Vec<_> = clocks.values().filter(|by_ms| **by_ms >= CLOCKS_DIFFER_MS).collect();
    if wrong.len() * 2 <= clocks.len() {
        return health.clear(CLOCK);
    }
    let by_s = wrong.iter().min().map_or(0, |by_ms| **by_ms / 1000);
    let why = format!("it differs by {by_s} s from the clocks of the edges (set the clocks, as by NTP)");
    health.warn(CLOCK, Cause::ClockWrong, why);
}

/// Passes the notices of an edge with serial numbers above `after` to the machine.
async fn poll<R: Rt>(
    http: &Client<R>,
    edge: &Origin,
    after: &mut u64,
    inbox: &Sender<Input>,
) -> Result<Polled, String> {
    loop {
        let path = format!("{NOTICES_PATH}?after={after}");
        let request = || Request::get(&path).body(Body::empty()).unwrap_or_default();
        let answer = http.send(edge, request).await.map_err(|e| e.to_string())?;
        let status = answer.head.status;
        let body = answer.collect(NOTICES_LEN_MAX).await.map_err(|e| e.to_string())?;
        if !status.is_success() {
            return Err(status.to_string());
        }
        let Notices { notices, last, more, now_ms } = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
        let clock_differs_ms = now_ms.abs_diff(unix_ms());
        let read = |text: &String| parse_notice(text).ok_or_else(|| "not a notice".to_owned());
        let notices: Vec<SignedNotice> = notices.iter().map(read).collect::<Result<_, _>>()?;
        if !notices.is_empty() && inbox.send(Input::Notices(notices)).await.is_err() {
            return Ok(Polled { clock_differs_ms, runs: false });
        }
        // an edge that announces more notices and sends none is not asked again in this poll
        let goes_on = more && last > *after;
        *after = last.max(*after);
        if !goes_on {
            return Ok(Polled { clock_differs_ms, runs: true });
        }
    }
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
