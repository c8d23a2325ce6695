//! Possession challenges between clients and edges. The bytes of a part are simulated by the version's id and the
//! part's number.

use super::machines::In;
use super::posting::{answer, at_once};
use super::{Cfg, Event, Net, keys};
use crate::world::{Lane, NodeIx, World};
use swarmedge_core::accounting::possession::{Challenge, Prover, part_range};
use swarmedge_core::content::Layout;
use swarmedge_core::ids::{Digest, PieceIndex, ReqId, VersionId};
use swarmedge_core::role::client::io::{EdgeAnswer, EdgeError};
use swarmedge_core::role::edge::io as edge;
use swarmedge_core::wire::records::SealedGrant;

/// Message from a client to an edge about a completed download of a version.
pub(super) struct Told {
    pub(super) client: NodeIx,
    pub(super) req: ReqId,
    pub(super) edge: NodeIx,
    pub(super) version: VersionId,
}

fn layout(w: &World<Net>, version: VersionId) -> Option<Layout> {
    w.env.objects.values().find(|o| o.version == version).map(|o| o.layout)
}

/// Returns the proof over the challenge's parts; `None` if `has` denies one of them.
fn proof(version: VersionId, challenge: &Challenge, has: impl Fn(u64) -> bool) -> Option<Digest> {
    let mut prover = Prover::new(challenge);
    for part in &challenge.parts {
        if !has(*part) {
            return None;
        }
        prover.add(&version.0);
        prover.add(&part.to_be_bytes());
    }
    Some(prover.finish())
}

/// Sends an input to the edge under a new number, and notes which client's request it belongs to.
fn tell(w: &mut World<Net>, cfg: &Cfg, told: &Told, input: impl FnOnce(ReqId) -> edge::Input) {
    let number = ReqId(w.env.number());
    w.env.told.insert((told.edge, number), (told.client, told.req));
    let lane = Lane { to: told.edge, what: "https", id: number.0 };
    w.send(lane, cfg.latency, Event::Input(In::Edge(input(number))));
}

/// Reports to the edge that a client has completed a download.
pub(super) fn completed(w: &mut World<Net>, cfg: &Cfg, told: Told, (grant, recheck): (&SealedGrant, bool)) {
    let opened = keys::open(grant, w.env.epochs).map(|g| g.grant);
    let (Some(grant), Some(layout)) = (opened, layout(w, told.version)) else {
        return answer(w, cfg, told.client, told.req, Err(EdgeError::NotFound));
    };
    let served = edge::ServedGrant { download: grant.download, guid: grant.guid };
    let (version, size, challenged) = (told.version, layout.size(), grant.challenged);
    tell(w, cfg, &told, |req| {
        edge::Input::Completed(edge::Completed { req, grant: served, version, size, challenged, recheck }.into())
    });
}

/// Returns a client's proof; a client that corrupts its pieces computes a wrong one. `None` if the client lacks a
/// part.
fn proof_of(w: &World<Net>, client: NodeIx, version: VersionId, challenge: &Challenge) -> Option<Digest> {
    let layout = layout(w, version)?;
    let piece = |part: u64| {
        let at = part_range(layout.size(), part).start / u64::from(layout.piece_len());
        PieceIndex(u32::try_from(at).unwrap_or(u32::MAX))
    };
    let corrupts = w.env.options.get(&client).is_some_and(|o| o.corrupts);
    let real = proof(version, challenge, |part| w.env.disks.get(&client).is_some_and(|d| d.has(version, piece(part))));
    real.map(|digest| if corrupts { Digest::numbered(1) } else { digest })
}

/// Sends a client's proof to the edge.
pub(super) fn prove_to(w: &mut World<Net>, cfg: &Cfg, told: Told, grant: &SealedGrant, challenge: &Challenge) {
    let opened = keys::open(grant, w.env.epochs).map(|g| g.grant);
    let (Some(grant), Some(proof)) = (opened, proof_of(w, told.client, told.version, challenge)) else {
        return answer(w, cfg, told.client, told.req, Err(EdgeError::Invalid));
    };
    let grant = edge::ServedGrant { download: grant.download, guid: grant.guid };
    tell(w, cfg, &told, |req| edge::Input::Proof { req, grant, proof });
}

/// Sends the edge's answer to a completed download, with its challenge if any.
pub(super) fn posed(w: &mut World<Net>, cfg: &Cfg, edge: NodeIx, req: ReqId, challenge: Option<Challenge>) {
    if let Some((client, req)) = w.env.told.remove(&(edge, req)) {
        answer(w, cfg, client, req, Ok(EdgeAnswer::Challenged(challenge)));
    }
}

/// Sends the edge's answer to a proof.
pub(super) fn taken(w: &mut World<Net>, cfg: &Cfg, edge: NodeIx, req: ReqId) {
    if let Some((client, req)) = w.env.told.remove(&(edge, req)) {
        answer(w, cfg, client, req, Ok(EdgeAnswer::ProofTaken));
    }
}

/// Computes the edge's own proof, from its content.
pub(super) fn prove(w: &mut World<Net>, edge: NodeIx, req: ReqId, version: VersionId, challenge: &Challenge) {
    let own = layout(w, version).and_then(|_| proof(version, challenge, |_| true));
    at_once(w, edge, In::Edge(edge::Input::Proven { req, own }));
}

/// Fails the messages to an edge that crashed, and drops those of a client that crashed.
pub(super) fn fail(w: &mut World<Net>, cfg: &Cfg, node: NodeIx) {
    let all = std::mem::take(&mut w.env.told);
    for ((edge, number), (client, req)) in all {
        if edge == node {
            answer(w, cfg, client, req, Err(EdgeError::Unreachable));
        } else if client != node {
            w.env.told.insert((edge, number), (client, req));
        }
    }
}
