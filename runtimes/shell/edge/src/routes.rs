//! The edge's HTTP interface: [`Routes`] matches each request's method and path and makes the answer. The path is read
//! in its normal form ([`normal_path`]), so that access is decided on the path that is served.

use super::access::RequestParts;
pub use super::answer::Routes;
use super::answer::{Answer, json, problem};
use super::catalogue::{Object, Version};
use super::conditional::time;
use super::content::{Plan, Representation, Sending, attachment, body, media_type, plan, set};
use super::grants;
use super::pace::Pacer;
use super::possession;
use super::tally::Tally;
use headers::{Date, HeaderMapExt as _};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use swarmedge_core::content::Access;
use swarmedge_core::ids::{ProviderId, VersionId};
use swarmedge_core::wire::records::Grant;
use swarmedge_ground::edge_api::{Bootstrap, COMPLETED_PATH, GRANTS_PATH, PROOFS_PATH, WITHDRAWN_PATH, Withdrawn};
use swarmedge_ground::health::{LogLimiter, file_trouble};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::{Body, Problem, Service, normal_path};
use swarmedge_ground::ops;
use swarmedge_ground::rt::Rt;

/// Number of single downloads' rate limiters above which those of ended downloads are dropped.
const PACERS_KEPT: usize = 1024;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Paths that take POST requests only.
const POSTED: [&str; 3] = [GRANTS_PATH, COMPLETED_PATH, PROOFS_PATH];

/// Returns the `Cache-Control` of a version, which never changes; shared caches may not keep what is not public.
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
            WITHDRAWN_PATH => {
                let catalogue = self.published.catalogue().await;
                let versions = catalogue.withdrawn_since(unix_ms()).map(|v| v.to_string()).collect();
                Ok(json(&Withdrawn { versions }))
            }
            _ => {
                if let Some(answer) = ops::answer(request.method(), path, &self.health) {
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
        let file = self.published.files().manifest(id);
        let bytes = self.read_published(id, file, |file| std::fs::read(file)).await?;
        let mut response = Response::new(Body::full(bytes));
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
        let (response, parts) = match plan(&repr, head_only, fields, unix_ms() / 1000, &boundary()) {
            Plan::Done(response) => return Ok(response),
            Plan::Send(response, parts) => (response, parts),
        };
        let file = self.read_published(id, self.published.files().content(id), |path| File::open(path)).await?;
        let mut pacers = vec![self.pacer.clone()];
        pacers.extend(self.policy_pacer(grant.as_deref(), object.policy.edge_rate_max));
        let meter = Box::new(Tally::new(self, grant, id, version.key.0).await?);
        let (lines, path) = (Rc::clone(&self.read_errors), self.published.files().content(id));
        let on_read_error = Box::new(move |error: &io::Error| log_read_error(&lines, &path, error));
        let sending = Sending { rt: self.rt.clone(), pacers, meter, on_read_error };
        Ok(response.map(|_| body(file, parts, sending)))
    }

    /// Reads or opens a version's file. The answer is 404 if the version was unpublished meanwhile, and 503 after any
    /// other failure, which the operator must repair.
    async fn read_published<T: Send + 'static>(
        &self,
        id: VersionId,
        path: PathBuf,
        read: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Box<Problem>> {
        let own = path.clone();
        let error = match self.rt.blocking(move || read(&own)).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::NotFound && self.published.catalogue().await.version(id).is_none() {
            return Err(unknown_version());
        }
        log_read_error(&self.read_errors, &path, &error);
        Err(problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the content cannot be read now"))
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

fn log_read_error(lines: &LogLimiter, path: &Path, error: &io::Error) {
    lines.say(|left_out| tracing::error!(left_out, "{}", file_trouble("read", path, error)));
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
