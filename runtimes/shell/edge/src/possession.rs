//! `POST /v1/completed` and `POST /v1/proofs`: a client reports a completed download and answers the possession
//! challenge. The machine decides. The ledger is told whether a proof was right, the client never.

use super::answer::{Answer, Routes, UNAVAILABLE, json, problem};
use super::grants::read_body;
use super::keeper::Keeper;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::os::unix::fs::FileExt as _;
use swarmedge_core::accounting::possession::{Challenge, Prover, part_range};
use swarmedge_core::ids::{Digest, VersionId};
use swarmedge_core::role::edge::io::{Completed, ServedGrant};
use swarmedge_core::wire::records::Grant;
use swarmedge_ground::edge_api::{COMPLETED_PATH, ChallengeText, CompletedReply, CompletedRequest, ProofRequest};
use swarmedge_ground::http::Body;
use swarmedge_ground::rt::Rt;

/// Answers `POST` to [`COMPLETED_PATH`] and [`PROOFS_PATH`](super::api::PROOFS_PATH).
pub(super) async fn answer<R: Rt>(routes: &Routes<R>, request: Request<Incoming>, path: &str) -> Answer {
    let (head, body) = request.into_parts();
    let bytes = read_body(&routes.rt, body).await?;
    let bad = |detail: String| problem(StatusCode::BAD_REQUEST, "bad-request", detail);
    let granted = |version: &str| -> Result<Grant, _> {
        let version = version.parse().map_err(|_| bad("version".into()))?;
        let missing = || problem(StatusCode::UNAUTHORIZED, "grant-missing", "the download's grant comes with it");
        routes.open_grant(&head.headers, version)?.ok_or_else(missing)
    };
    let unavailable = || problem(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "too many requests");
    if path == COMPLETED_PATH {
        let told: CompletedRequest = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let g = granted(&told.version)?;
        let done = |req| Completed {
            req,
            grant: ServedGrant::of(&g),
            version: g.version,
            size: g.size,
            challenged: g.challenged,
            recheck: told.recheck,
        };
        let challenge = routes.machine.report_completed(done).await.ok_or_else(unavailable)?;
        return Ok(json(&CompletedReply { challenge: challenge.as_ref().map(ChallengeText::from) }));
    }
    let shown: ProofRequest = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    let g = granted(&shown.version)?;
    let proof = shown.proof.parse().map_err(|_| bad("proof".into()))?;
    if !routes.machine.check_proof(ServedGrant::of(&g), proof).await.ok_or_else(unavailable)? {
        return Err(problem(StatusCode::CONFLICT, "not-asked", "no proof is asked for, or one was given already"));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Computes the expected proof from the edge's own content; `None` if that cannot be read, or is damaged.
pub(super) async fn compute_proof<R: Rt>(
    rt: &R,
    keeper: &Keeper<R>,
    version: VersionId,
    challenge: Challenge,
) -> Option<Digest> {
    let stored = keeper.open(version).await.ok()?;
    let layout = stored.manifest.layout();
    let ranges: Vec<_> = challenge.parts.iter().map(|part| part_range(layout.size(), *part)).collect();
    for range in &ranges {
        // a challenged part lies within one piece: it is no longer than the shortest piece
        keeper.admit(&stored, stored.piece_of(range.start)).await.ok()?;
    }
    let read = move || -> std::io::Result<Digest> {
        let mut prover = Prover::new(&challenge);
        for range in ranges {
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
            stored.file.read_exact_at(&mut bytes, range.start)?;
            prover.add(&bytes);
        }
        Ok(prover.finish())
    };
    let proof = rt.blocking(read).await;
    proof.map_err(|error| tracing::error!(%version, %error, "a published file cannot be read")).ok()
}
