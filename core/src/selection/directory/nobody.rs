//! The reason that no peer can be selected for a query.

use super::{Directory, Peer, PeerKey};
use crate::ids::{PublicKey, VersionId};
use crate::wire::directory::WhyNobody;
use alloc::collections::BTreeSet;

/// Maximum number of copies of a version that are examined to find the reason.
const LOOKS_MAX: usize = 256;

impl Directory {
    /// Returns why no client that shares `version` can be selected for `querier`; examines a bounded number of them.
    #[must_use]
    pub fn why_nobody(&self, querier: PeerKey, version: VersionId, exclude: &BTreeSet<PublicKey>) -> WhyNobody {
        let Some(me) = self.peer(querier) else { return WhyNobody::NotShared };
        let is_other = |peer: &&Peer| peer.entry.guid != me.entry.guid && peer.entry.upload_key != me.entry.upload_key;
        let sharers = self.lists.keys(version).take(LOOKS_MAX).filter_map(|key| self.offered(key, version));
        let mut why = WhyNobody::NotShared;
        // a copy that blames have hidden from the downloader's network is as good as none
        let is_shown = |peer: &&Peer| !self.is_hidden(peer, version, me);
        for peer in sharers.filter(is_other).filter(is_shown) {
            if !exclude.contains(&peer.entry.upload_key) {
                // the compatibility table, or earlier attempts, say that this peer and the downloader cannot connect
                return WhyNobody::Unreachable;
            }
            why = WhyNobody::AllKnown;
        }
        why
    }
}
