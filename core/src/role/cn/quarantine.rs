//! Quarantine: suspected clients get bytes from edges only. Their queries are answered without peers, and they are
//! offered to nobody as peers. The ledger sends the list; while it is unreachable, the last list counts. No download
//! fails because of quarantine, since none needs a CN.

use super::{Cn, Context, Metric, Output};
use crate::ids::{ConnId, Guid};
use crate::wire::directory::ToDn;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Cn {
    /// Replaces the list of GUIDs in quarantine, and sends the DNs a new entry for each connected client whose
    /// quarantine begins or ends.
    pub(super) fn on_quarantine(&mut self, cx: &mut Context<'_>, guids: Vec<Guid>) {
        let now: BTreeSet<Guid> = guids.into_iter().collect();
        let before = core::mem::replace(&mut self.quarantined, now);
        let changed: Vec<Guid> = self.quarantined.symmetric_difference(&before).copied().collect();
        for guid in changed {
            cx.push(Output::Count(Metric::QuarantineChanged));
            let quarantined = self.is_quarantined(guid);
            let conns: Vec<ConnId> = self.sessions.of_guid(guid).map(|(conn, _)| conn).collect();
            for conn in conns {
                if let Some(session) = self.sessions.get_mut(conn) {
                    session.quarantined = quarantined;
                }
                if let Some(entry) = self.sessions.entry(conn) {
                    self.dns.tell(cx, &ToDn::Peer(entry));
                }
            }
        }
    }

    pub(super) fn is_quarantined(&self, guid: Guid) -> bool {
        self.quarantined.contains(&guid)
    }

    /// Returns whether a client's queries are answered without peers.
    pub(super) fn is_edge_only(&self, conn: ConnId) -> bool {
        self.sessions.get(conn).is_some_and(|s| s.quarantined)
    }
}
