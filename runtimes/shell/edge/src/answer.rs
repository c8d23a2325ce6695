//! What the routes and their parts share: the state of an edge's HTTP interface, and the answers that it makes.

use super::content::set;
use super::handle::EdgeHandle;
use super::keeper::Keeper;
use super::live::LiveConfig;
use super::notice_signer::NoticeSigner;
use super::pace::Pacer;
use super::published::PublishedFiles;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use swarmedge_core::accounting::Trust;
use swarmedge_core::ids::DownloadId;
use swarmedge_ground::health::Health;
use swarmedge_ground::http::{Body, Problem};
use swarmedge_ground::seals::Seals;

/// State shared by all HTTP requests of an edge.
pub struct Routes<R> {
    /// Runtime for timers, tasks and blocking reads.
    pub rt: R,
    /// The `[edge]` section of the configuration.
    pub cfg: LiveConfig,
    /// The published objects and the providers' keys.
    pub published: PublishedFiles<R>,
    /// Handle to the edge machine.
    pub machine: EdgeHandle,
    /// Keys that unseal grants.
    pub seals: Seals,
    /// The operator's root key, which grants are checked against.
    pub trust: Trust,
    /// Rate limiter of all clients together.
    pub pacer: Rc<RefCell<Pacer>>,
    /// Rate limiters of single downloads, as their policies demand.
    pub pacers: RefCell<BTreeMap<DownloadId, Weak<RefCell<Pacer>>>>,
    /// The bodies that are being sent: each holds a copy.
    pub bodies: Rc<()>,
    /// Conditions that `/healthz` reports.
    pub health: Health,
    /// Says which stored bytes are right.
    pub keeper: Keeper<R>,
    /// Key that signs notices.
    pub notices: NoticeSigner,
}

/// Name of the problem that the edge cannot answer now.
pub(super) const UNAVAILABLE: &str = "unavailable";
/// Name of the problem that the bytes of a download with peers cannot be counted now.
pub(super) const UNCOUNTED: &str = "uncounted";

/// An HTTP answer, or the problem document to send in its place.
pub(super) type Answer = Result<Response<Body>, Box<Problem>>;

pub(super) fn problem(status: StatusCode, name: &str, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(status, name, detail))
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    let mut response = Response::new(Body::full(serde_json::to_vec(value).unwrap_or_default()));
    set(&mut response, CONTENT_TYPE, "application/json");
    set(&mut response, CACHE_CONTROL, "no-store");
    response
}
