//! Blames: what this client says of peers that sent wrong blocks, and what it does when others say so of it. Told to
//! check a copy, it has the store hash it again; what is wrong is deleted, as after any other damage. If all is right,
//! it proves to an edge that it has the bytes, under a new grant, since that of its download may have expired long ago.
//! None of this affects a download.

use super::common::Common;
use super::edges::{Ask, Edges};
use super::io::{EdgeAnswer, EdgeAsk, EdgeError, ObjectRef, Output};
use super::job::Jobs;
use super::{Context, Copies};
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

/// Copy that downloaders have blamed.
#[derive(Clone, Debug)]
pub(super) struct Blamed {
    pub(super) version: VersionId,
    /// Object that has this version; `None` if no download names one, so that no edge can be asked for a grant.
    pub(super) object: Option<ObjectRef>,
}

impl Copies {
    /// Has the store hash a copy again, because downloaders have blamed it.
    pub(super) fn on_check_copy(&mut self, jobs: &Jobs, cx: &mut Context<'_>, version: VersionId) {
        if self.holds(jobs, version) && self.checks.hashing.insert(version) {
            cx.push(Output::CheckCopy { version });
        }
    }

    /// Handles the end of a check. Damage was reported before; a whole copy that is right is proven to an edge.
    pub(super) fn on_copy_checked(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        blamed: Blamed,
        is_right: bool,
    ) {
        let version = blamed.version;
        let awaited = self.checks.hashing.remove(&version);
        let whole = self.versions.pieces(version).is_some_and(crate::content::Bitfield::is_full);
        if awaited && is_right && whole && !self.checks.proving.contains_key(&version) {
            let proving = Proving { edge: edges.current(), tries: TRIES - 1, grant: None };
            self.checks.prove_copy(common, edges, cx, blamed, proving);
        }
    }
}

impl Checks {
    /// Asks an edge for a new grant of a version.
    fn prove_copy(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        blamed: Blamed,
        proving: Proving,
    ) {
        let Blamed { version, object: Some(object) } = blamed else { return };
        let ask = EdgeAsk::Grant { object, renew: None, download: None, edge_only: false, version: Some(version) };
        edges.ask(common, cx, proving.edge, Ask::Recheck(version), ask);
        self.proving.insert(version, proving);
    }

    /// Handles the answers of an edge on the way to the proof, or their failure.
    pub(super) fn on_answer(
        &mut self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        blamed: Blamed,
        answer: Result<EdgeAnswer, EdgeError>,
    ) {
        let version = blamed.version;
        let Some(Proving { edge, tries, grant }) = self.proving.remove(&version) else { return };
        match (answer, grant) {
            (Ok(EdgeAnswer::Granted(granted)), None) if granted.version == version => {
                let grant = Some((granted.sealed.clone(), granted.size));
                self.proving.insert(version, Proving { edge, tries, grant });
                let ask = EdgeAsk::Completed { version, grant: granted.sealed, recheck: true };
                edges.ask(common, cx, edge, Ask::Recheck(version), ask);
            }
            (Ok(EdgeAnswer::Challenged(Some(challenge))), Some((grant, size))) if challenge.fits(size) => {
                edges.ask(common, cx, edge, Ask::Proof, EdgeAsk::Prove { version, grant, challenge });
            }
            (Err(EdgeError::Unreachable | EdgeError::Unavailable), _) if tries > 0 => {
                let proving = Proving { edge: edges.after(edge), tries: tries - 1, grant: None };
                self.prove_copy(common, edges, cx, blamed, proving);
            }
            (Ok(_) | Err(_), _) => {}
        }
    }
}
