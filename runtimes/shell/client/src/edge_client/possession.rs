//! Reports a completed download to an edge and answers its possession challenge.

use super::EdgeClient;
use super::request::{JSON_LEN_MAX, get};
use crate::store::Store;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;
use swarmedge_core::accounting::possession::{Challenge, Prover, part_range};
use swarmedge_core::ids::{Digest, PieceIndex, VersionId};
use swarmedge_core::limits::BLOCK_LEN;
use swarmedge_core::role::client::io::{EdgeAnswer, EdgeError, StoreError};
use swarmedge_core::wire::records::SealedGrant;
use swarmedge_ground::edge_api::{
    COMPLETED_PATH, CompletedReply, CompletedRequest, GRANT, PROOFS_PATH, ProofRequest, grant_text,
};
use swarmedge_ground::http::{Body, Origin};
use swarmedge_ground::rt::Rt;

fn post(path: &str, grant: &str, body: &impl Serialize) -> Option<Request<Body>> {
    let body = serde_json::to_vec(body).ok()?;
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").header(GRANT, grant);
    request.body(Body::full(body)).ok()
}

/// Tells an edge that this client has the whole version; `recheck`: because peers have blamed its copy. The edge may
/// answer with a challenge.
pub(super) async fn completed<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    (version, recheck): (VersionId, bool),
    grant: &SealedGrant,
) -> Result<EdgeAnswer, EdgeError> {
    let (grant, told) = (grant_text(grant), CompletedRequest { version: version.to_string(), recheck });
    let body = get(edges, origin, || post(COMPLETED_PATH, &grant, &told), JSON_LEN_MAX).await?;
    let reply: CompletedReply = serde_json::from_slice(&body).map_err(|_| EdgeError::Invalid)?;
    let challenge = reply.challenge.map(|text| text.read().ok_or(EdgeError::Invalid)).transpose()?;
    Ok(EdgeAnswer::Challenged(challenge))
}

/// Answers a challenge: hashes the parts of the stored copy that the edge has drawn.
pub(super) async fn prove<R: Rt>(
    edges: &EdgeClient<R>,
    origin: &Origin,
    (version, grant): (VersionId, &SealedGrant),
    challenge: Challenge,
) -> Result<EdgeAnswer, EdgeError> {
    let store = edges.0.store.clone();
    // if the user changed or deleted the file meanwhile, possession cannot be proven
    let proof =
        edges.0.rt.blocking(move || proof(&store, version, &challenge)).await.map_err(|_| EdgeError::Invalid)?;
    let (grant, shown) = (grant_text(grant), ProofRequest { version: version.to_string(), proof: proof.to_string() });
    get(edges, origin, || post(PROOFS_PATH, &grant, &shown), JSON_LEN_MAX).await?;
    Ok(EdgeAnswer::ProofTaken)
}

/// Computes the proof of possession from the stored pieces. Blocks the thread.
fn proof(store: &Store, version: VersionId, challenge: &Challenge) -> Result<Digest, StoreError> {
    let layout = store.manifest(version).ok_or(StoreError::Io)?.layout();
    let mut prover = Prover::new(challenge);
    for part in &challenge.parts {
        let range = part_range(layout.size(), *part);
        // parts never cross a piece boundary
        let (piece, within) =
            (range.start / u64::from(layout.piece_len()), range.start % u64::from(layout.piece_len()));
        let first = within / u64::from(BLOCK_LEN);
        let blocks = first..first + (range.end - range.start).div_ceil(u64::from(BLOCK_LEN));
        let number = |n: u64| u32::try_from(n).map_err(|_| StoreError::Io);
        let blocks = number(blocks.start)?..number(blocks.end)?;
        prover.add(&store.read_blocks(version, PieceIndex(number(piece)?), blocks)?);
    }
    Ok(prover.finish())
}
