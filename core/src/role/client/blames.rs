//! Blames: what this client says of peers that sent wrong blocks, and what it does when others say so of it. Told to
//! check a copy, it has the store hash it again; what is wrong is deleted, as after any other damage. If all is right,
//! it proves to an edge that it has the bytes, under a new grant, since that of its download may have expired long ago.
//! None of this affects a download.

use super::edges::Ask;
use super::io::{EdgeAnswer, EdgeAsk, EdgeError, Output};
use super::{Client, Context};
use crate::ids::VersionId;
use crate::wire::records::SealedGrant;
use alloc::collections::{BTreeMap, BTreeSet};

/// Maximum number of edges that are asked, one after another, for a challenge.
const TRIES: u8 = 3;

/// Checks of blamed copies that are under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Checks {
    /// Versions that the store is hashing again.
    hashing: BTreeSet<VersionId>,
    /// Versions whose copies are right, and whose possession is being proven.
    proving: BTreeMap<VersionId, Proving>,
}

/// Proof of possession of a blamed copy that is being given to an edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proving {
    edge: u32,
    /// Number of edges that may still be tried.
    tries: u8,
    /// New grant, and the version's size in bytes, once the edge has given it.
    grant: Option<(SealedGrant, u64)>,
}

impl Checks {
    /// Asserts that exactly the proofs that are being given wait for an edge; `asked` are the versions of the pending
    /// requests.
    pub(super) fn check(&self, asked: impl Iterator<Item = VersionId>) {
        let mut asked: alloc::vec::Vec<_> = asked.collect();
        asked.sort_unstable();
        assert!(asked.iter().eq(self.proving.keys()), "exactly a copy that is being proven waits for an edge");
    }
}

impl Client {
    /// Has the store hash a copy again, because downloaders have blamed it.
    pub(super) fn on_check_copy(&mut self, cx: &mut Context<'_>, version: VersionId) {
        let of_job = self.jobs.values().any(|job| job.granted().is_some_and(|g| g.version == version));
        if (of_job || self.versions.is_cached(version)) && self.checks.hashing.insert(version) {
            cx.push(Output::CheckCopy { version });
        }
    }

    /// Handles the end of a check. Damage was reported before; a whole copy that is right is proven to an edge.
    pub(super) fn on_copy_checked(&mut self, cx: &mut Context<'_>, version: VersionId, is_right: bool) {
        let awaited = self.checks.hashing.remove(&version);
        let whole = self.versions.pieces(version).is_some_and(crate::content::Bitfield::is_full);
        if awaited && is_right && whole && !self.checks.proving.contains_key(&version) {
            self.prove_copy(cx, version, self.edges.current(), TRIES);
        }
    }

    /// Asks an edge for a new grant of a version.
    fn prove_copy(&mut self, cx: &mut Context<'_>, version: VersionId, edge: u32, tries: u8) {
        let of_version = self.jobs.values().find(|job| job.granted().is_some_and(|g| g.version == version));
        let Some(object) = of_version.map(|job| job.record.object.clone()) else { return };
        let tries = tries.saturating_sub(1);
        self.checks.proving.insert(version, Proving { edge, tries, grant: None });
        let ask = EdgeAsk::Grant { object, renew: None, download: None, edge_only: false, version: Some(version) };
        self.ask_edge(cx, edge, Ask::Recheck(version), ask);
    }

    /// Handles the answers of an edge on the way to the proof, or their failure.
    pub(super) fn on_recheck_answer(
        &mut self,
        cx: &mut Context<'_>,
        version: VersionId,
        answer: Result<EdgeAnswer, EdgeError>,
    ) {
        let Some(Proving { edge, tries, grant }) = self.checks.proving.remove(&version) else { return };
        match (answer, grant) {
            (Ok(EdgeAnswer::Granted(granted)), None) if granted.version == version => {
                let grant = Some((granted.sealed.clone(), granted.size));
                self.checks.proving.insert(version, Proving { edge, tries, grant });
                let ask = EdgeAsk::Completed { version, grant: granted.sealed, recheck: true };
                self.ask_edge(cx, edge, Ask::Recheck(version), ask);
            }
            (Ok(EdgeAnswer::Challenged(Some(challenge))), Some((grant, size))) if challenge.fits(size) => {
                self.ask_edge(cx, edge, Ask::Proof, EdgeAsk::Prove { version, grant, challenge });
            }
            (Err(EdgeError::Unreachable | EdgeError::Unavailable), _) if tries > 0 => {
                self.prove_copy(cx, version, self.edges.after(edge), tries);
            }
            (Ok(_) | Err(_), _) => {}
        }
    }
}
