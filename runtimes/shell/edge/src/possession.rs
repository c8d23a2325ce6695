//! `POST /v1/completed` and `POST /v1/proofs`: a client reports a completed download and answers the possession
//! challenge. The machine decides; whether a proof was right is told to the ledger, never to the client.

use super::answer::{Answer, Routes, json, problem};
use super::catalogue::Files;
use super::grants::read_body;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
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
    let unavailable = || problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "too many requests");
    if path == COMPLETED_PATH {
        let told: CompletedRequest = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let g = granted(&told.version)?;
        let done = |req| Completed {
            req,
            grant: ServedGrant::of(&g),
            version: g.version,
            size: g.size,
            challenged: g.challenged,
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

/// Computes the expected proof from the edge's own content; `None` if it cannot be read. Blocks the thread.
pub(super) fn compute_proof(files: &Files, version: VersionId, challenge: &Challenge) -> Option<Digest> {
    let read = || -> std::io::Result<Digest> {
        let mut file = File::open(files.content(version))?;
        let size = file.metadata()?.len();
        let mut prover = Prover::new(challenge);
        for part in &challenge.parts {
            let range = part_range(size, *part);
            let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(std::io::Error::other)?];
            file.seek(SeekFrom::Start(range.start))?;
            file.read_exact(&mut bytes)?;
            prover.add(&bytes);
        }
        Ok(prover.finish())
    };
    read().map_err(|error| tracing::error!(%version, %error, "a published file cannot be read")).ok()
}
