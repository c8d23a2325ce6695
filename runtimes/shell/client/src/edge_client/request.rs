//! Sending one request to an edge, and translating its failures to the machine's errors.

use super::{EdgeClient, News, Trouble};
use bytes::Bytes;
use hyper::header::RETRY_AFTER;
use hyper::{Request, StatusCode};
use swarmedge_core::role::client::io::EdgeError;
use swarmedge_ground::http::client::Error as HttpError;
use swarmedge_ground::http::{Body, Origin, Problem};
use swarmedge_ground::rt::Rt;

/// Maximum length of a JSON answer, bytes.
pub(super) const JSON_LEN_MAX: usize = 64 * 1024;

/// Converts an edge's HTTP error status to the machine's error.
pub(super) fn refusal(status: StatusCode) -> EdgeError {
    match status.as_u16() {
        404 => EdgeError::NotFound,
        410 => EdgeError::Expired,
        426 => EdgeError::Blocked,
        // RFC 9110 §15.5.2: the request's credentials are missing or no longer valid
        401 => EdgeError::GrantExpired,
        403 => EdgeError::Forbidden,
        409 => EdgeError::Uncounted,
        412 => EdgeError::Changed,
        408 | 429 | 500..=599 => EdgeError::Unavailable,
        _ => EdgeError::Invalid,
    }
}

/// Returns whether an edge refuses a request for a reason that a new bootstrap removes: the request's time differs too
/// much from the edge's clock (this host has slept, or its clock was set), or the edge calls itself otherwise.
fn needs_bootstrap(status: StatusCode, body: &[u8]) -> bool {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let name = problem.as_ref().map_or("", Problem::name);
    matches!((status, name), (StatusCode::BAD_REQUEST, "clock") | (StatusCode::MISDIRECTED_REQUEST, "wrong-edge"))
}

/// Converts an edge's refusal to the machine's error. Another clock or name ends no download: it is set right some
/// time, or the edge's next bootstrap tells its time.
fn refused(status: StatusCode, body: &[u8], retry_after_s: Option<u32>) -> EdgeError {
    match (refusal(status), retry_after_s) {
        _ if needs_bootstrap(status, body) => EdgeError::Unavailable,
        (EdgeError::Unavailable, Some(seconds)) => {
            EdgeError::Busy { retry_after_ms: u32::saturating_mul(seconds, 1000) }
        }
        (why, _) => why,
    }
}

/// Converts a failure of connection, TLS or HTTP framing to the machine's error, and reports it to the user.
pub(super) fn failure<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, error: &HttpError) -> EdgeError {
    edges.tell(News::Trouble(Trouble::of(origin, edges.0.http.proxy(origin), error)));
    tracing::info!(edge = %origin.authority(), %error, "a connection to an edge failed");
    if let HttpError::Connect(_) | HttpError::Silent = error {
        edges.0.directory.borrow_mut().unreachable(origin);
    }
    match error {
        HttpError::Connect(_) | HttpError::Http(_) | HttpError::Silent => EdgeError::Unreachable,
        HttpError::Tls(_) | HttpError::TooLong => EdgeError::Invalid,
    }
}

/// Sends a request to an edge and returns the body of its answer, at most `len_max` bytes.
pub(super) async fn get<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    request: impl Fn() -> Option<Request<Body>>,
    len_max: usize,
) -> Result<Bytes, EdgeError> {
    // if the request cannot be built, an edge gave an invalid value
    if request().is_none() {
        return Err(EdgeError::Invalid);
    }
    let sent = edges.0.http.send(origin, || request().unwrap_or_default()).await;
    let answer = sent.map_err(|e| failure(edges, origin, &e))?;
    let status = answer.head.status;
    let retry_after_s = answer.head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = answer.collect(len_max).await.map_err(|e| failure(edges, origin, &e))?;
    if !status.is_success() {
        tracing::debug!(edge = %origin.authority(), %status, body = %String::from_utf8_lossy(&body), "refused");
        if needs_bootstrap(status, &body) {
            edges.0.needs_bootstrap.set(true);
        }
        let why = refused(status, &body, retry_after_s);
        if matches!(why, EdgeError::Unavailable | EdgeError::Busy { .. }) {
            edges.tell(News::Trouble(Trouble::status(origin, status, &body)));
        }
        return Err(why);
    }
    edges.tell(News::Answered);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_the_time_or_the_edges_name_are_told_from_others() {
        let body = |name: &str| serde_json::to_vec(&Problem::new(StatusCode::BAD_REQUEST, name, "")).expect("plain");
        assert!(needs_bootstrap(StatusCode::BAD_REQUEST, &body("clock")));
        assert!(needs_bootstrap(StatusCode::MISDIRECTED_REQUEST, &body("wrong-edge")));
        assert!(!needs_bootstrap(StatusCode::BAD_REQUEST, &body("wrong-edge")));
        assert!(!needs_bootstrap(StatusCode::BAD_REQUEST, &body("replayed")));
        assert!(!needs_bootstrap(StatusCode::FORBIDDEN, &body("clock")));
        assert!(!needs_bootstrap(StatusCode::BAD_REQUEST, b"clock"));
    }

    #[test]
    fn a_refusal_for_the_time_is_asked_again_and_other_bad_requests_are_not() {
        let body = |name: &str| serde_json::to_vec(&Problem::new(StatusCode::BAD_REQUEST, name, "")).expect("plain");
        assert_eq!(refused(StatusCode::BAD_REQUEST, &body("clock"), None), EdgeError::Unavailable);
        assert_eq!(refused(StatusCode::BAD_REQUEST, &body("replayed"), None), EdgeError::Invalid);
        let busy = refused(StatusCode::SERVICE_UNAVAILABLE, b"", Some(3));
        assert_eq!(busy, EdgeError::Busy { retry_after_ms: 3000 });
    }
}
