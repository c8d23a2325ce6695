//! `POST /v1/grants`: checks signatures and finds the object; the edge machine decides about the grant.

use super::access::withheld;
use super::answer::{Answer, Routes, UNAVAILABLE, json, problem};
use super::notice_signer::NoticeSigner;
use super::notices;
use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use futures_lite::future::or;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use std::net::IpAddr;
use std::time::Duration;
use swarmedge_core::ids::{ProviderId, PublicKey, ReqId, Signature};
use swarmedge_core::role::edge::io::{Denial, GrantAsked, Nonce, ObjectFacts, Renewal};
use swarmedge_core::wire::Text;
use swarmedge_core::wire::notice::Notice;
use swarmedge_core::wire::records::{Grant, HolderTicket, SealedGrant, SigningContext};
use swarmedge_ground::edge_api::{
    GRANT_REQUEST_MAX, GRANTS_PATH, GrantReply, GrantRequest, RENEWAL_SIGNATURE, SIGNATURE, Token, grant_text,
    notice_text, parse_grant, parse_signature, signed_message, ticket_text,
};
use swarmedge_ground::http::{Body, Origin, Problem};
use swarmedge_ground::rt::Rt;

/// Time-out for receiving a request's body.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Answers a request for a grant (`POST /v1/grants`).
pub(super) async fn answer<R: Rt>(routes: &Routes<R>, request: Request<Incoming>, from: IpAddr) -> Answer {
    let (head, body) = request.into_parts();
    let bytes = read_body(&routes.rt, body).await?;
    let bad = |detail: String| problem(StatusCode::BAD_REQUEST, "bad-request", detail);
    let asked: GrantRequest = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    let signed = check_signature(routes, &head, &asked, &bytes)?;
    if routes.cfg.get().client_versions_blocked.contains(&asked.client_version) {
        let detail = "the operator has blocked this version of the client: update it";
        return Err(problem(StatusCode::UPGRADE_REQUIRED, "client-blocked", detail));
    }
    let object = object_facts(routes, &asked).await?;
    let key = (object.provider, asked.path.clone());
    let token = routes.token(&key, asked.token.as_ref().map(Token::as_str), from).await;
    let version = asked.version.as_deref().map(str::parse).transpose().map_err(|_| bad("version".into()))?;
    let guid = asked.guid.parse().map_err(|_| bad("guid".into()))?;
    let download_key = asked.download_key.parse().map_err(|_| bad("download_key".into()))?;
    let shown = |text: &str| renewal(routes, &head, text, asked.edge_only, &signed.message);
    let renew = asked.renew.as_deref().map(shown).transpose()?;
    let Signed { key, nonce, .. } = signed;
    let time_ms = asked.time_ms;
    let ask =
        |req: ReqId| GrantAsked { req, guid, key, download_key, object, token, version, renew, from, time_ms, nonce };
    let (grant, sealed) = routes.machine.grant(ask).await.map_err(denied)?;
    let notice = notices::about(routes, grant.version).await;
    Ok(reply(&routes.notices, grant, &sealed, notice.as_ref()))
}

/// Reads the body of a request, at most [`GRANT_REQUEST_MAX`] bytes, within [`BODY_WITHIN`].
pub(super) async fn read_body<R: Rt>(rt: &R, mut body: Incoming) -> Result<Bytes, Box<Problem>> {
    let too_long = || problem(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "such a request has at most 16 KiB");
    let all = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| problem(StatusCode::BAD_REQUEST, "bad-request", e.to_string()))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > GRANT_REQUEST_MAX {
                    return Err(too_long());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    };
    or(all, async {
        rt.sleep_until(rt.now() + BODY_WITHIN).await;
        Err(problem(StatusCode::REQUEST_TIMEOUT, "too-slow", "the request did not come in time"))
    })
    .await
}

/// The verified key, nonce and signed message of a request.
struct Signed {
    key: PublicKey,
    nonce: Nonce,
    message: Vec<u8>,
}

/// Checks the client's signature of a request for a grant, and returns what it has signed.
fn check_signature<R: Rt>(
    routes: &Routes<R>,
    head: &Parts,
    asked: &GrantRequest,
    body: &[u8],
) -> Result<Signed, Box<Problem>> {
    let unsigned = |detail: &str| problem(StatusCode::FORBIDDEN, "signature-invalid", detail);
    // the signature covers this edge's authority, so that a request forwarded to another edge is invalid there
    let host = head.headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    let own = Origin::parse(&routes.cfg.get().url).map(|o| o.authority());
    if own.as_deref() != Some(host) {
        let detail = format!("this edge is {}, the request was for {host:?}", routes.cfg.get().url);
        return Err(problem(StatusCode::MISDIRECTED_REQUEST, "wrong-edge", detail));
    }
    let key: PublicKey = asked.key.parse().map_err(|_| unsigned("key"))?;
    let nonce: Nonce = HEXLOWER
        .decode(asked.nonce.as_bytes())
        .ok()
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| unsigned("nonce"))?;
    let message = signed_message(host, GRANTS_PATH, asked.time_ms, &nonce, body);
    let signature = field(head, SIGNATURE).ok_or_else(|| unsigned("no signature"))?;
    if !(routes.trust.verify)(&key, SigningContext::EdgeRequest, &message, &signature) {
        return Err(unsigned("the signature is not that of the key"));
    }
    Ok(Signed { key, nonce, message })
}

fn field(head: &Parts, name: &str) -> Option<Signature> {
    head.headers.get(name)?.to_str().ok().and_then(parse_signature)
}

async fn object_facts<R: Rt>(routes: &Routes<R>, asked: &GrantRequest) -> Result<ObjectFacts, Box<Problem>> {
    let not_found = || problem(StatusCode::NOT_FOUND, "not-found", "no such object");
    let catalogue = routes.published.catalogue().await;
    let key = (ProviderId(asked.provider), asked.path.clone());
    let (object, version, facts) = catalogue.current(&key).ok_or_else(not_found)?;
    Ok(ObjectFacts {
        provider: key.0,
        path: Text::new(key.1.as_str()).map_err(|_| not_found())?,
        version,
        size: facts.size,
        access: object.access,
        policy: object.policy.clone(),
    })
}

/// Opens the sealed grant that a client wants to renew.
fn renewal<R: Rt>(
    routes: &Routes<R>,
    head: &Parts,
    text: &str,
    edge_only: bool,
    message: &[u8],
) -> Result<Renewal, Box<Problem>> {
    let sealed = parse_grant(text).ok_or_else(|| problem(StatusCode::BAD_REQUEST, "bad-request", "renew"))?;
    let grant = routes.seals.unseal(&sealed);
    let proven = grant.as_ref().is_some_and(|signed| {
        field(head, RENEWAL_SIGNATURE).is_some_and(|signature| {
            (routes.trust.verify)(&signed.grant.download_key, SigningContext::EdgeRequest, message, &signature)
        })
    });
    Ok(Renewal { grant, proven, edge_only })
}

/// Returns the response with a grant.
fn reply(signer: &NoticeSigner, grant: Grant, sealed: &SealedGrant, notice: Option<&Notice>) -> Response<Body> {
    let ticket = HolderTicket::of(&grant, notice.map_or(0, |notice| notice.serial));
    json(&GrantReply {
        download: grant.download.to_string(),
        download_key: grant.download_key.to_string(),
        version: grant.version.to_string(),
        size: grant.size,
        policy: grant.policy.into(),
        notice: notice.map(|notice| notice_text(&signer.sign(notice))),
        ticket: Some(ticket_text(&signer.sign_ticket(ticket))),
        order_seed: grant.order_seed,
        expires_ms: grant.expires_ms,
        grant: grant_text(sealed),
        manifest: format!("/v1/manifests/{}", grant.version),
    })
}

/// Returns the problem document for a grant that the edge denies.
fn denied(why: Denial) -> Box<Problem> {
    match why {
        Denial::WrongKey => problem(StatusCode::FORBIDDEN, "wrong-key", "the GUID is not that of the key"),
        Denial::Withheld(why) => withheld(why),
        Denial::Gone => problem(StatusCode::GONE, "expired", "the object is no longer delivered"),
        Denial::Changed => problem(StatusCode::PRECONDITION_FAILED, "changed", "the object has another version now"),
        Denial::GrantExpired => problem(StatusCode::UNAUTHORIZED, "grant-expired", "ask for a new grant"),
        Denial::Clock => problem(StatusCode::BAD_REQUEST, "clock", "the request's time is not the edge's"),
        Denial::Replayed => problem(StatusCode::BAD_REQUEST, "replayed", "the request was seen before"),
        Denial::TooMany { retry_after_ms } => {
            let detail = "this client, its network or this download has asked for too many grants";
            let too_many = problem(StatusCode::TOO_MANY_REQUESTS, "too-many-grants", detail);
            Box::new(too_many.again_after(retry_after_ms))
        }
        Denial::Unavailable => problem(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "try again"),
    }
}
