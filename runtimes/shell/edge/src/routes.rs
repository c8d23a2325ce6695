//! The edge's HTTP interface: [`Routes`] matches each request's method and path and makes the answer. The path is read
//! in its normal form ([`normal_path`]), so that access is decided on the path that is served.

use super::access::RequestParts;
pub use super::answer::Routes;
use super::answer::{Answer, UNAVAILABLE, UNCOUNTED, json, problem};
use super::catalogue::{Object, ObjectKey, Version};
use super::conditional::time;
use super::content::{Part, Plan, Representation, Sending, attachment, body, media_type, plan, set};
use super::damage::What;
use super::grants;
use super::keeper::Refused;
use super::notices;
use super::pace::Pacer;
use super::possession;
use super::tally::Tally;
use headers::{Date, HeaderMapExt as _};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use swarmedge_core::content::Access;
use swarmedge_core::ids::{ProviderId, VersionId};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::Grant;
use swarmedge_ground::edge_api::{
    Bootstrap, COMPLETED_PATH, CONTENT_DAMAGED, DISK_FULL, GRANTS_PATH, NOTICES_PATH, PROOFS_PATH,
};
use swarmedge_ground::health::{Cause, View};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::{Body, Problem, Service, normal_path};
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;

/// Delay after which a client should repeat a request that could not be answered, milliseconds.
const RETRY_AFTER_MS: u32 = 5_000;
/// Delay after which a client should request damaged content again, milliseconds; an operator must repair it first.
const RETRY_DAMAGED_AFTER_MS: u32 = 30_000;
/// Delay after which a client should repeat a request to an edge with a full disk, milliseconds.
const RETRY_FULL_AFTER_MS: u32 = 30_000;
/// Number of downloads' rate limiters at which those of ended downloads are dropped.
const PACERS_KEPT: usize = 1024;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Paths that take POST requests only.
const POSTED: [&str; 3] = [GRANTS_PATH, COMPLETED_PATH, PROOFS_PATH];

/// Returns the `Cache-Control` of a version, which never changes; shared caches may keep public versions only.
const fn immutable(access: Access) -> &'static str {
    match access {
        Access::Public => "public, max-age=31536000, immutable",
        Access::Token => "private, max-age=31536000, immutable",
    }
}

/// A version that a request names, with its object.
struct Found<'a> {
    id: VersionId,
    object: &'a Object,
    version: &'a Version,
}

impl<R: Rt> Service for Routes<R> {
    async fn call(self: Rc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let (method, path) = (request.method().clone(), normal_path(request.uri().path()));
        let mut response = match self.route(request, &path, peer.ip()).await {
            Ok(response) => response,
            Err(problem) => {
                let problem = if self.health.has(Cause::DiskFull) { for_a_full_disk(problem) } else { problem };
                tracing::debug!(%peer, %method, path, status = problem.status, kind = problem.name(), "refused");
                let mut response = problem.response();
                if problem.status == StatusCode::UNAUTHORIZED.as_u16() {
                    let scheme = if problem.name().starts_with("grant") { "Swarmedge-Grant" } else { "EdgeAuth" };
                    set(&mut response, WWW_AUTHENTICATE, scheme);
                }
                if problem.status == StatusCode::METHOD_NOT_ALLOWED.as_u16() {
                    set(&mut response, ALLOW, if POSTED.contains(&path.as_str()) { "POST" } else { "GET, HEAD" });
                }
                response
            }
        };
        count_request(response.status());
        set(&mut response, NOSNIFF, "nosniff");
        response.headers_mut().typed_insert(Date::from(time(unix_ms() / 1000)));
        response
    }
}

impl<R: Rt> Routes<R> {
    async fn route(&self, request: Request<Incoming>, path: &str, from: IpAddr) -> Answer {
        let wrong_method = || problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "");
        if POSTED.contains(&path) {
            return match (request.method() == Method::POST, path) {
                (false, _) => Err(wrong_method()),
                (true, GRANTS_PATH) => grants::answer(self, request, from).await,
                (true, _) => possession::answer(self, request, path).await,
            };
        }
        let head_only = request.method() == Method::HEAD;
        if !head_only && request.method() != Method::GET {
            return Err(wrong_method());
        }
        let mut response = self.get(&request, path, from).await?;
        if head_only {
            let (head, body) = response.into_parts();
            // a HEAD answer has the length that GET would have
            let len = body.len();
            response = Response::from_parts(head, Body::empty());
            if len > 0 {
                set(&mut response, hyper::header::CONTENT_LENGTH, &len.to_string());
            }
        }
        Ok(response)
    }

    async fn get(&self, request: &Request<Incoming>, path: &str, from: IpAddr) -> Answer {
        let head_only = request.method() == Method::HEAD;
        let asked = RequestParts { fields: request.headers(), query: request.uri().query(), from };
        match path {
            "/v1/bootstrap" => Ok(json(&self.bootstrap())),
            NOTICES_PATH => notices::answer(self, request.uri().query()).await,
            _ => {
                if let Some(answer) = ops::answer(request, path, &self.health, View::Strangers) {
                    return Ok(answer);
                }
                if let Some(version) = path.strip_prefix("/v1/manifests/") {
                    return self.manifest(version, &asked).await;
                }
                if let Some(version) = path.strip_prefix("/v1/content/") {
                    return self.version(version, &asked, head_only).await;
                }
                self.object(path, &asked, head_only).await
            }
        }
    }

    fn bootstrap(&self) -> Bootstrap {
        let cfg = self.cfg.get();
        Bootstrap {
            name: cfg.name.clone(),
            now_ms: unix_ms(),
            region: cfg.region.clone(),
            client_version_min: cfg.client_version_min.clone(),
            cns: cfg.cns.clone(),
            edges: std::iter::once(&cfg.url).chain(&cfg.edges).cloned().collect(),
            stun: cfg.stun.clone(),
        }
    }

    async fn manifest(&self, version: &str, asked: &RequestParts<'_>) -> Answer {
        let id = parse_version(version)?;
        let catalogue = self.published.catalogue().await;
        let (object, version) = catalogue.version(id).ok_or_else(unknown_version)?;
        self.admit(asked, (&version.key, object, id)).await?;
        check_expiry(object)?;
        let manifest = match self.keeper.manifest(id).await {
            Ok(manifest) => manifest,
            Err(why) => return Err(self.refuse(id, &version.key, &why).await),
        };
        let mut response = Response::new(Body::full(manifest.to_bytes()));
        set(&mut response, CONTENT_TYPE, "application/vnd.swarmedge.manifest");
        set(&mut response, CACHE_CONTROL, immutable(object.access));
        Ok(response)
    }

    async fn version(&self, version: &str, asked: &RequestParts<'_>, head_only: bool) -> Answer {
        let id = parse_version(version)?;
        let catalogue = self.published.catalogue().await;
        let (object, version) = catalogue.version(id).ok_or_else(unknown_version)?;
        let grant = self.admit(asked, (&version.key, object, id)).await?;
        let caching = immutable(object.access).to_owned();
        let extra = vec![(CACHE_CONTROL, caching), (CONTENT_DISPOSITION, attachment(&version.key.1))];
        self.content(Found { id, object, version }, extra, grant, asked.fields, head_only).await
    }

    async fn object(&self, path: &str, asked: &RequestParts<'_>, head_only: bool) -> Answer {
        let not_found = || problem(StatusCode::NOT_FOUND, "not-found", "no such object");
        let (provider, path) = path.trim_start_matches('/').split_once('/').ok_or_else(not_found)?;
        let provider = provider.parse().map(ProviderId).map_err(|_| not_found())?;
        let path = percent_encoding::percent_decode_str(path).decode_utf8().map_err(|_| not_found())?;
        let catalogue = self.published.catalogue().await;
        let key = (provider, path.into_owned());
        let (object, id, version) = catalogue.current(&key).ok_or_else(not_found)?;
        let grant = self.admit(asked, (&key, object, id)).await?;
        let caching = match object.access {
            Access::Public => "no-cache",
            Access::Token => "private, no-cache",
        };
        let extra = vec![(CACHE_CONTROL, caching.to_owned())];
        self.content(Found { id, object, version }, extra, grant, asked.fields, head_only).await
    }

    /// Answers a request for an object's content: whole, in ranges, or not modified.
    async fn content(
        &self,
        Found { id, object, version }: Found<'_>,
        mut extra: Vec<(HeaderName, String)>,
        grant: Option<Box<Grant>>,
        fields: &HeaderMap,
        head_only: bool,
    ) -> Answer {
        check_expiry(object)?;
        extra.push((CACHE_STATUS, format!("\"{}\"; hit", self.cfg.get().name)));
        let repr = Representation {
            version: id,
            size: version.size,
            sha256: version.sha256,
            published_ms: version.published_ms,
            media_type: media_type(&version.key.1),
            fields: extra,
        };
        let planned = plan(&repr, head_only, fields, unix_ms() / 1000, &boundary());
        let (response, parts) = match planned {
            Plan::Done(response) if response.status() == StatusCode::OK => (response, None),
            Plan::Done(response) => return Ok(response),
            Plan::Send(response, parts) => (response, Some(parts)),
        };
        let wanted = parts.iter().flatten().filter_map(|part| match part {
            Part::Content(range) => Some(range.clone()),
            Part::Text(_) => None,
        });
        let mut wanted: Vec<_> = wanted.collect();
        if parts.is_none() {
            wanted.push(0..version.size);
        }
        let stored = match self.keeper.open(id).await {
            Ok(stored) => stored,
            Err(why) => return Err(self.refuse(id, &version.key, &why).await),
        };
        if let Err(why) = self.keeper.prepare(&stored, &wanted, parts.is_some()).await {
            return Err(self.refuse(id, &version.key, &why).await);
        }
        let Some(parts) = parts else { return Ok(response) };
        let mut pacers = vec![self.pacer.clone()];
        pacers.extend(self.policy_pacer(grant.as_deref(), object.policy.edge_rate_max));
        let meter = Box::new(Tally::new(self, grant, id, version.key.0).await?);
        let (keeper, key) = (self.keeper.clone(), version.key.clone());
        let on_refused = Box::new(move |why: &Refused| keeper.note(id, &key, why));
        let (rt, keeper, bodies) = (self.rt.clone(), self.keeper.clone(), self.bodies.clone());
        let sending = Sending { rt, pacers, meter, bodies, keeper, on_refused };
        Ok(response.map(|_| body(stored, parts, sending)))
    }

    /// Returns the answer to a request whose content cannot be sent: 404 if the version was unpublished meanwhile, and
    /// otherwise 503, since the operator will repair the damage or the cause is temporary.
    async fn refuse(&self, id: VersionId, key: &ObjectKey, why: &Refused) -> Box<Problem> {
        if self.published.catalogue().await.version(id).is_none() {
            return unknown_version();
        }
        self.keeper.note(id, key, why);
        let (name, detail, after_ms) = match why {
            Refused::Damaged(What::Pieces(_)) => (
                CONTENT_DAMAGED,
                "a part of what this edge has stored is damaged; the rest is served",
                RETRY_DAMAGED_AFTER_MS,
            ),
            Refused::Damaged(_) => (CONTENT_DAMAGED, "what this edge has stored is damaged", RETRY_DAMAGED_AFTER_MS),
            Refused::Busy(_) => (UNAVAILABLE, "the content cannot be read now", RETRY_AFTER_MS),
        };
        Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, name, detail).again_after(after_ms))
    }

    /// Returns the rate limiter of the grant's download, shared by its requests; without a grant, a new one.
    fn policy_pacer(&self, grant: Option<&Grant>, rate: u64) -> Option<Rc<RefCell<Pacer>>> {
        if rate == 0 {
            return None;
        }
        let fresh = || Rc::new(RefCell::new(Pacer::new(rate)));
        let Some(grant) = grant else { return Some(fresh()) };
        let mut pacers = self.pacers.borrow_mut();
        if let Some(known) = pacers.get(&grant.download).and_then(Weak::upgrade) {
            // the policy may have changed
            known.borrow().set_rate(rate);
            return Some(known);
        }
        if pacers.len() >= PACERS_KEPT {
            pacers.retain(|_, p| p.strong_count() > 0);
        }
        let pacer = fresh();
        pacers.insert(grant.download, Rc::downgrade(&pacer));
        Some(pacer)
    }
}

fn parse_version(text: &str) -> Result<VersionId, Box<Problem>> {
    text.parse().map_err(|_| problem(StatusCode::NOT_FOUND, "not-found", "not a version id"))
}

/// Rewrites a problem that the full disk may have caused, so that the answer names the disk; returns others unchanged.
fn for_a_full_disk(problem: Box<Problem>) -> Box<Problem> {
    let uncounted = problem.name() == UNCOUNTED;
    if !uncounted && problem.name() != UNAVAILABLE {
        return problem;
    }
    let detail = "the edge's disk is full: its operator must free some space";
    if uncounted {
        return Box::new(Problem { detail: format!("{detail}; {}", problem.detail), ..*problem });
    }
    Box::new(Problem::new(StatusCode::SERVICE_UNAVAILABLE, DISK_FULL, detail).again_after(RETRY_FULL_AFTER_MS))
}

/// Counts an answer by its class of status codes.
fn count_request(status: StatusCode) {
    let class = match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("swarmedge_edge_requests_total", "status" => class).increment(1);
}

fn unknown_version() -> Box<Problem> {
    problem(StatusCode::NOT_FOUND, "not-found", "no such version")
}

fn check_expiry(object: &Object) -> Result<(), Box<Problem>> {
    let expires_ms = object.policy.expires_ms;
    if expires_ms != 0 && unix_ms() >= expires_ms {
        return Err(problem(StatusCode::GONE, "expired", "the object is no longer delivered"));
    }
    Ok(())
}

/// Draws a random boundary for each answer, so that content cannot contain it on purpose.
fn boundary() -> String {
    let mut bytes = [0; 16];
    // without randomness two answers share a boundary, which is allowed
    let _ = getrandom::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_that_where_it_may_be_the_cause() {
        let told = |status, name| for_a_full_disk(problem(status, name, "in words"));
        let full = told(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE);
        assert_eq!((full.status, full.name(), full.retry_after_s), (503, DISK_FULL, Some(30)));
        assert!(full.detail.starts_with("the edge's disk is full"));
        let uncounted = told(StatusCode::CONFLICT, UNCOUNTED);
        assert_eq!((uncounted.status, uncounted.name()), (409, UNCOUNTED));
        assert!(uncounted.detail.starts_with("the edge's disk is full") && uncounted.detail.ends_with("in words"));
        for (status, name) in [(StatusCode::SERVICE_UNAVAILABLE, CONTENT_DAMAGED), (StatusCode::NOT_FOUND, "not-found")]
        {
            assert_eq!(told(status, name), problem(status, name, "in words"), "for another reason");
        }
    }
}
