//! Requests for bootstrap, grants and manifests.

use super::kept::{addresses, cns_of, edges_of, system_ms};
use super::request::{JSON_LEN_MAX, get};
use super::{EdgeClient, News, possession};
use futures_lite::future::or;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use std::time::Duration;
use swarmedge_core::content::Manifest;
use swarmedge_core::ids::{DownloadId, Guid, ReqId, VersionId};
use swarmedge_core::limits::{PATH_LEN_MAX, PIECES_MAX, SERVERS_MAX};
use swarmedge_core::role::client::io::{EdgeAnswer, EdgeAsk, EdgeError, Granted, Input, ObjectRef};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::SignedNotice;
use swarmedge_core::wire::records::{SealedGrant, SigningContext};
use swarmedge_ground::edge_api::{
    self, Bootstrap, GRANT, GRANTS_PATH, GrantReply, GrantRequest, RENEWAL_SIGNATURE, SIGNATURE,
};
use swarmedge_ground::http::{Body, Origin};
use swarmedge_ground::keys::Key;
use swarmedge_ground::mailbox::Permit;
use swarmedge_ground::rt::Rt;

/// Time that a grant request waits for a bootstrap answer, which contains the edges' clock time.
const BOOTSTRAP_WITHIN: Duration = Duration::from_secs(2);
/// Maximum length of a manifest, bytes.
const MANIFEST_LEN_MAX: usize = PIECES_MAX as usize * 32 + PATH_LEN_MAX + 64;

pub(super) fn start<R: Rt>(edges: &EdgeClient<R>, origin: Origin, req: ReqId, ask: EdgeAsk, permit: Permit<Input>) {
    let (edges, rt) = (edges.clone(), edges.0.rt.clone());
    rt.spawn(async move {
        let mut notice = None;
        let answer = match ask {
            EdgeAsk::Bootstrap => bootstrap(&edges, &origin).await,
            EdgeAsk::Grant { object, renew, download, edge_only, version } => {
                let what = GrantParams { object, renew, download, edge_only, version };
                grant(&edges, &origin, what).await.map(|(granted, newest)| {
                    notice = newest;
                    EdgeAnswer::Granted(granted)
                })
            }
            EdgeAsk::Manifest { version, grant } => manifest(&edges, &origin, version, &grant).await,
            EdgeAsk::Completed { version, grant, recheck } => {
                possession::completed(&edges, &origin, (version, recheck), &grant).await
            }
            EdgeAsk::Prove { version, grant, challenge } => {
                possession::prove(&edges, &origin, (version, &grant), challenge).await
            }
        };
        if let Err(why) = &answer {
            tracing::info!(edge = %origin.authority(), ?why, "a request to an edge failed");
        }
        permit.send(Input::Edge { req, answer });
        // sent after the grant, since the client takes notices about a version only once it has the grant
        if let Some(notice) = notice {
            let _ = edges.0.inbox.send(Input::Notice(notice)).await;
        }
    });
}

async fn bootstrap<R: Rt>(edges: &EdgeClient<R>, origin: &Origin) -> Result<EdgeAnswer, EdgeError> {
    let request = || Request::get("/v1/bootstrap").body(Body::empty()).ok();
    let body = get(edges, origin, request, JSON_LEN_MAX).await;
    if body.is_err() {
        edges.0.directory.borrow_mut().rotate();
    }
    let reply: Bootstrap = serde_json::from_slice(&body?).map_err(|error| {
        tracing::warn!(edge = %origin.authority(), %error, "the bootstrap answer does not parse");
        EdgeError::Invalid
    })?;
    let mut stun = Vec::new();
    for server in reply.stun.iter().take(SERVERS_MAX) {
        stun.extend(addresses(edges, server).await);
    }
    edges.keep(reply.clone()).await;
    let now = edges.0.rt.now();
    let mut directory = edges.0.directory.borrow_mut();
    if let Some(own) = own_url(&reply) {
        directory.answers(origin, &own);
    }
    directory.learn(now, reply.now_ms, edges_of(&reply), cns_of(&reply), stun);
    directory.client_version_min = reply.client_version_min;
    edges.tell(News::Edges(directory.edges.clone()));
    edges.0.known.set();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(EdgeAnswer::Bootstrap {
        cns: count(directory.cns.len()),
        edges: count(directory.edges.len()),
        now_ms: reply.now_ms,
    })
}

/// Returns the URL that an edge calls its own in its bootstrap answer.
pub(super) fn own_url(bootstrap: &Bootstrap) -> Option<Origin> {
    bootstrap.edges.first().and_then(|url| Origin::parse(url))
}

struct GrantParams {
    object: ObjectRef,
    renew: Option<SealedGrant>,
    download: Option<DownloadId>,
    edge_only: bool,
    version: Option<VersionId>,
}

/// A grant, and the newest notice about its version if there is one.
type Newest = (Granted, Option<Box<SignedNotice>>);

async fn grant<R: Rt>(edges: &EdgeClient<R>, origin: &Origin, what: GrantParams) -> Result<Newest, EdgeError> {
    let known = match what.download {
        Some(download) => {
            let store = edges.0.store.clone();
            let key = edges.0.rt.blocking(move || store.key(download)).await;
            // without its key a download cannot be renewed, only started anew
            Some(key.ok().flatten().ok_or(EdgeError::GrantExpired)?)
        }
        None => None,
    };
    let renewal = what.renew.as_ref().and(known.as_ref());
    let own = known.clone().unwrap_or_else(Key::generate);
    // requests carry the edge's time as known from a bootstrap; without one, the system's time
    let rt = &edges.0.rt;
    or(edges.known(), rt.sleep_until(rt.now() + BOOTSTRAP_WITHIN)).await;
    // a fresh nonce for each attempt
    let request = |origin: &Origin| grant_request(edges, origin, &what, &own, renewal.is_some());
    // without a grant in the request, a 401 means that the provider's token is missing
    let missing = |why| if why == EdgeError::GrantExpired && renewal.is_none() { EdgeError::Forbidden } else { why };
    // an edge grants only what it is asked for by its own URL
    let edge = edges.directory().own(origin);
    let mut sent = get(edges, &edge, || request(&edge), JSON_LEN_MAX).await;
    if sent.is_err() && edges.0.needs_bootstrap.take() {
        // this host's clock may be off, after sleep for example, or the edge has another name: a bootstrap answer has
        // the edge's time and its own URL
        bootstrap(edges, origin).await?;
        let edge = edges.directory().own(origin);
        sent = get(edges, &edge, || request(&edge), JSON_LEN_MAX).await;
    }
    let body = sent.map_err(missing)?;
    let reply: GrantReply = serde_json::from_slice(&body).map_err(|_| EdgeError::Invalid)?;
    let notice = reply.notice.as_deref().and_then(edge_api::parse_notice).map(Box::new);
    let granted = read_reply(reply).ok_or(EdgeError::Invalid)?;
    let same = |asked: Option<VersionId>| asked.is_none_or(|version| version == granted.version);
    // the edge may replace the download by another one only if that one has no peers
    let kept = renewal.is_none() || what.download == Some(granted.download) || !granted.policy.peer_download;
    if granted.download_key != own.public() || !same(what.version) || !kept {
        return Err(EdgeError::Invalid);
    }
    // the key becomes durable together with the download's record
    edges.0.store.put_key(granted.download, &own);
    Ok((granted, notice))
}

/// Builds the signed request for a grant; `None` if a value does not fit into HTTP.
fn grant_request<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    what: &GrantParams,
    own: &Key,
    renews: bool,
) -> Option<Request<Body>> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the system gives random bytes");
    let time_ms = edges.directory().now_ms(edges.0.rt.now()).unwrap_or_else(system_ms);
    let key = edges.0.key.public();
    let request = GrantRequest {
        provider: what.object.provider.0,
        path: what.object.path.clone(),
        version: what.version.map(|v| v.to_string()),
        guid: Guid::of(&key).to_string(),
        key: key.to_string(),
        download_key: own.public().to_string(),
        time_ms,
        nonce: data_encoding::HEXLOWER.encode(&nonce),
        // a renewal needs no token
        token: if renews { None } else { edges.0.tokens.get(&what.object) },
        renew: what.renew.as_ref().filter(|_| renews).map(edge_api::grant_text),
        edge_only: what.edge_only,
        client_version: env!("CARGO_PKG_VERSION").into(),
    };
    let body = serde_json::to_vec(&request).expect("strings and numbers");
    let message = edge_api::signed_message(&origin.authority(), GRANTS_PATH, time_ms, &nonce, &body);
    let sign = |key: &Key| edge_api::signature_text(&key.sign(SigningContext::EdgeRequest, &message));
    let mut post = Request::builder().method(Method::POST).uri(GRANTS_PATH);
    post = post.header(CONTENT_TYPE, "application/json").header(SIGNATURE, sign(&edges.0.key));
    if renews {
        post = post.header(RENEWAL_SIGNATURE, sign(own));
    }
    post.body(Body::full(body)).ok()
}

/// Reads a grant from an edge's answer; `None` if it makes no sense.
fn read_reply(reply: GrantReply) -> Option<Granted> {
    Some(Granted {
        download: reply.download.parse().ok()?,
        download_key: reply.download_key.parse().ok()?,
        version: reply.version.parse().ok()?,
        size: reply.size,
        policy: reply.policy.into(),
        order_seed: reply.order_seed,
        expires_ms: reply.expires_ms,
        sealed: edge_api::parse_grant(&reply.grant)?,
        ticket: reply.ticket.as_deref().and_then(edge_api::parse_ticket).map(Box::new),
    })
}

/// Gets a version's manifest, from the store if it is there.
async fn manifest<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    version: VersionId,
    grant: &SealedGrant,
) -> Result<EdgeAnswer, EdgeError> {
    if let Some(known) = edges.0.store.manifest(version) {
        edges.0.store.check_soon(version);
        return Ok(EdgeAnswer::Manifest { layout: known.layout() });
    }
    let path = format!("/v1/manifests/{version}");
    let grant = edge_api::grant_text(grant);
    let request = || Request::get(&path).header(GRANT, &grant).body(Body::empty()).ok();
    let body = get(edges, origin, request, MANIFEST_LEN_MAX).await?;
    let store = edges.0.store.clone();
    let read = edges.0.rt.blocking(move || {
        let manifest = Manifest::from_bytes(&body).map_err(|_| EdgeError::Invalid)?;
        if manifest.version() != version {
            return Err(EdgeError::Invalid);
        }
        Ok(store.put_manifest(manifest))
    });
    read.await.map(|manifest| EdgeAnswer::Manifest { layout: manifest.layout() })
}
