//! Error answers as RFC 9457 problem documents.

use super::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

/// An error answer to a request, for programs (`kind`) and people (`detail`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// URI that identifies the kind of problem; it never changes.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status code of the answer.
    pub status: u16,
    /// Description of this occurrence for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Seconds after which the client may retry, if known.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// Makes a problem of the kind `urn:swarmedge:problem:<name>`.
    #[must_use]
    pub fn new(status: StatusCode, name: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:swarmedge:problem:{name}"),
            title: name.replace('-', " "),
            status: status.as_u16(),
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    /// Returns the problem with a retry time of `ms` milliseconds, rounded up to seconds, at least one.
    #[must_use]
    pub fn again_after(self, ms: u32) -> Self {
        Self { retry_after_s: Some(ms.div_ceil(1000).max(1)), ..self }
    }

    /// Returns the `<name>` in the URI of the problem's kind.
    #[must_use]
    pub fn name(&self) -> &str {
        self.kind.strip_prefix("urn:swarmedge:problem:").unwrap_or(&self.kind)
    }

    /// Returns the HTTP response for this problem.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut response = Response::new(Body::full(json));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
