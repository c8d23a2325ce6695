//! News about edges for a waiting user: the edges of the deployment, and the reasons why one fails.

use rustls::CertificateError as Cert;
use std::io;
use swarmedge_ground::edge_api::{CONTENT_DAMAGED, DISK_FULL};
use swarmedge_ground::http::client::Error as HttpError;
use swarmedge_ground::http::{Origin, Problem};
use swarmedge_ground::reach::ProxyError;

/// News about the edges for a waiting user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The edges of the deployment, as a bootstrap names them.
    Edges(Vec<Origin>),
    /// The edge that is reached by a name which the user gave calls itself `own`; `None`: no edge of the deployment
    /// answers there.
    Name {
        /// The name, as the user gave it.
        name: Origin,
        /// The own URL of the edge.
        own: Option<Origin>,
    },
    /// An edge answered a request successfully.
    Answered,
    /// An edge failed; another edge or a retry may succeed.
    Trouble(Trouble),
}

/// The reason why a request to an edge failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Description of the failure, naming the edge.
    pub what: String,
    /// Advice to the user; may be empty.
    pub next: &'static str,
    /// Whether the edge answered with wrong data; otherwise it did not answer usefully at all.
    pub wrong: bool,
}

impl Trouble {
    /// Describes a failure of connection, TLS or HTTP framing, on the way through `proxy` if there is one.
    pub(super) fn of(origin: &Origin, proxy: Option<String>, error: &HttpError) -> Self {
        let edge = origin.authority();
        let edge = match (proxy, error) {
            // errors of the proxy name it themselves
            (None, _) | (_, HttpError::Connect(_)) => edge,
            (Some(proxy), _) => format!("{edge} through the proxy {proxy}"),
        };
        let (what, next) = match error {
            HttpError::Connect(e) => {
                let proxy = e.get_ref().and_then(|e| e.downcast_ref::<ProxyError>());
                (format!("cannot reach the edge {edge}: {}", plain(e)), proxy.map_or("", ProxyError::next))
            }
            HttpError::Tls(e) => return Self::tls(&edge, e),
            HttpError::Http(e) => (format!("the edge {edge} has broken off: {e}"), ""),
            HttpError::Silent => (format!("the edge {edge} does not answer in time"), ""),
            HttpError::TooLong => (format!("the edge {edge} sends more than was asked for"), ""),
        };
        Self { what, next, wrong: matches!(error, HttpError::TooLong) }
    }

    /// Describes an answer that means "try again later"; its body may name the problem.
    pub(super) fn status(origin: &Origin, status: hyper::StatusCode, body: &[u8]) -> Self {
        let edge = origin.authority();
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let known = match problem.as_ref().map_or("", Problem::name) {
            DISK_FULL => {
                Some((format!("the edge's disk is full ({edge})"), "tell the operator: some space must be freed there"))
            }
            CONTENT_DAMAGED => Some((
                format!("the copy of this object on the edge {edge} is damaged"),
                "tell the operator: publishing the same file again repairs it; what is whole is fetched meanwhile",
            )),
            _ => None,
        };
        if let Some((what, next)) = known {
            return Self { what, next, wrong: false };
        }
        let next =
            if status.is_server_error() { "if that goes on, tell the operator: its server needs care" } else { "" };
        Self { what: format!("the edge {edge} answers {status}"), next, wrong: false }
    }

    /// Describes content that does not match the version's hashes.
    pub(super) fn wrong_bytes(origin: &Origin, piece: impl std::fmt::Display) -> Self {
        let what = format!("the edge {} sends wrong bytes for piece {piece}", origin.authority());
        let next = "report it to the operator: its copy is damaged (publishing the file again repairs it)";
        Self { what, next, wrong: true }
    }

    fn tls(edge: &str, error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        let certificate =
            cause.and_then(|e| if let rustls::Error::InvalidCertificate(why) = e { Some(why) } else { None });
        let (what, next) = match certificate {
            Some(Cert::Expired | Cert::ExpiredContext { .. }) => (
                format!("the certificate of the edge {edge} has expired"),
                "check this machine's clock; if it is right, the operator must run `swarmedge certificates renew`",
            ),
            Some(Cert::NotValidYet | Cert::NotValidYetContext { .. }) => {
                (format!("the certificate of the edge {edge} is not valid yet"), "check this machine's clock")
            }
            Some(Cert::UnknownIssuer) => (
                format!("the edge {edge} is not certified by this bundle's operator"),
                "get the operator's present bundle and give it with --bundle",
            ),
            Some(Cert::NotValidForName | Cert::NotValidForNameContext { .. }) => {
                (format!("the certificate of the edge {edge} is not for that name"), "tell the operator")
            }
            Some(_) | None => (
                format!("no secure connection with the edge {edge}: {error}"),
                "check the edge's address in the bundle, and what stands between: something else seems to answer there",
            ),
        };
        Self { what, next, wrong: false }
    }
}

/// Returns the operating system's error text without the error number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_damaged_content_of_an_edge_are_told_as_that() {
        let origin = Origin { host: "edge.example".into(), port: 443 };
        let status = hyper::StatusCode::SERVICE_UNAVAILABLE;
        let told = |name: &str| {
            let body = serde_json::to_vec(&Problem::new(status, name, "in words")).expect("JSON");
            Trouble::status(&origin, status, &body)
        };
        let full = told(DISK_FULL);
        assert_eq!(full.what, "the edge's disk is full (edge.example:443)");
        assert!(full.next.contains("operator") && !full.next.contains("network"), "{full:?}");
        assert!(told(CONTENT_DAMAGED).what.contains("damaged"));
        for other in [told("unavailable"), Trouble::status(&origin, status, b"<html>")] {
            assert_eq!(other.what, "the edge edge.example:443 answers 503 Service Unavailable");
        }
    }

    #[test]
    fn certificate_errors_advise_the_user() {
        let origin = Origin { host: "edge.example".into(), port: 443 };
        let rustls = rustls::Error::InvalidCertificate(Cert::Expired);
        let trouble = Trouble::of(&origin, None, &HttpError::Tls(io::Error::new(io::ErrorKind::InvalidData, rustls)));
        assert_eq!(trouble.what, "the certificate of the edge edge.example:443 has expired");
        assert!(trouble.next.contains("certificates renew"), "{trouble:?}");
        let silent = Trouble::of(&origin, Some("http://p:1".into()), &HttpError::Silent);
        assert_eq!(silent.what, "the edge edge.example:443 through the proxy http://p:1 does not answer in time");
        let refused = Trouble::of(&origin, None, &HttpError::Connect(io::Error::from_raw_os_error(111)));
        assert_eq!(refused.what, "cannot reach the edge edge.example:443: connection refused");
    }
}
