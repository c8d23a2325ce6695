//! The edge's signed notices: the policies that were changed, and the versions that were unpublished.

use super::answer::{Answer, Routes, json, problem};
use hyper::StatusCode;
use swarmedge_core::ids::VersionId;
use swarmedge_core::wire::notice::Notice;
use swarmedge_ground::edge_api::{NOTICES_PER_ANSWER, Notices, notice_text};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::rt::Rt;

/// Answers `GET /v1/notices?after=SERIAL`: the notices with higher serial numbers, in their order.
pub(super) async fn answer<R: Rt>(routes: &Routes<R>, query: Option<&str>) -> Answer {
    let bad = || problem(StatusCode::BAD_REQUEST, "bad-request", "the query must be after=SERIAL");
    let after = match query {
        None => 0,
        Some(query) => query.strip_prefix("after=").and_then(|n| n.parse().ok()).ok_or_else(bad)?,
    };
    let mut notices = routes.published.catalogue().await.notices_after(after);
    // notices of one serial number stay together: the next request goes on after it
    let end = notices.get(NOTICES_PER_ANSWER).map(|next| next.serial);
    let more = end.is_some();
    if let Some(end) = end {
        let len = notices.partition_point(|n| n.serial < end);
        notices.truncate(if len == 0 { notices.partition_point(|n| n.serial <= end) } else { len });
    }
    let last = notices.last().map_or(after, |n| n.serial);
    let (signer, rt) = (routes.notices.clone(), &routes.rt);
    let sign = move || notices.iter().map(|n| notice_text(&signer.sign(n))).collect();
    Ok(json(&Notices { notices: rt.blocking(sign).await, last, more, now_ms: unix_ms() }))
}

/// Returns the notice about a version for the answer to a grant request; `None` if there is none.
pub(super) async fn about<R: Rt>(routes: &Routes<R>, version: VersionId) -> Option<Notice> {
    routes.published.catalogue().await.notice(version)
}
