//! What has happened in a run, as far as rules depend on it.

use crate::world::NodeIx;
use std::collections::{BTreeMap, BTreeSet};
use swarmedge_core::ids::{ConnId, Digest, Guid, IntroId, PieceIndex, PublicKey, SecondaryGuid, SessionId, VersionId};
use swarmedge_core::wire::records::SignedHead;

/// Events of a run so far that rules depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Whether a client served a piece that was not durable on its disk.
    pub served_unverified: bool,
    /// Whether a client served or placed a piece that its disk had lost.
    pub believed: bool,
    /// Pieces with a wrong block that passed verification.
    pub tainted: BTreeSet<(NodeIx, VersionId, PieceIndex)>,
    /// Number of times that each piece was committed to a client's disk.
    pub commits: BTreeMap<(NodeIx, VersionId, PieceIndex), u8>,
    /// Whether an introduction reached a client that it does not name.
    pub misdelivered: bool,
    /// Whether a DN chose a client whose last registration forbids uploads.
    pub chosen_though_off: bool,
    /// Whether any two peers were introduced.
    pub introduced: bool,
    /// Clients that were ordered to take another key.
    pub rekey_ordered: BTreeSet<NodeIx>,
    /// Log heads that clients have signed; empty unless [`super::Cfg::heads`] is set.
    pub signed: BTreeMap<(SecondaryGuid, u64, Digest), SignedHead>,
    /// Log heads of `signed` that have reached a CN.
    pub told_heads: BTreeSet<(SecondaryGuid, u64, Digest)>,
    /// Whether a client sent a usage record that was not on its disk.
    pub told_undurable: bool,
    /// Whether a client was set back to its saved image.
    pub set_back: bool,
    /// GUIDs in quarantine according to the list last sent to CNs.
    pub suspects: BTreeSet<Guid>,
    /// Queries that clients in quarantine have sent, as node and number of the query.
    pub suspects_asked: BTreeSet<(NodeIx, u32)>,
    /// Introductions that clients have got, and that the ledger must also record.
    pub introductions: BTreeSet<IntroId>,
    /// Whether a query of a client in quarantine was answered with peers.
    pub suspect_introduced: bool,
    /// Bytes that clients have sent to peers, by version; empty in models, where it would tell apart equal states.
    pub sent_by_peers: BTreeMap<VersionId, u64>,
    /// Last registration sent to a DN, by connection and session: upload key and whether uploads are on.
    pub told: BTreeMap<(NodeIx, ConnId, SessionId), (PublicKey, bool)>,
}

impl Seen {
    /// Notes that a piece was committed to a client's disk.
    pub(super) fn committed(&mut self, node: NodeIx, version: VersionId, piece: PieceIndex) {
        let n = self.commits.entry((node, version, piece)).or_default();
        *n = n.saturating_add(1);
    }
}
