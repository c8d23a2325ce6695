//! Quarantine: suspected clients get bytes from edges only. Their queries are answered without peers, and they are
//! offered to nobody as peers. The ledger sends the list; while it is unreachable, the last list counts. No download
//! fails because of quarantine, since none needs a CN.

use super::sessions::Sessions;
use super::{Cn, Context, Metric, Output};
use crate::ids::{ConnId, Guid};
use crate::wire::directory::{PeerEntry, ToDn};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Sessions {
    /// Replaces the list of GUIDs in quarantine, and returns those whose quarantine begins or ends.
    fn replace_quarantined(&mut self, guids: Vec<Guid>) -> Vec<Guid> {
        let now: BTreeSet<Guid> = guids.into_iter().collect();
        let before = core::mem::replace(&mut self.quarantined, now);
        self.quarantined.symmetric_difference(&before).copied().collect()
    }

    /// Notes in a GUID's sessions whether it is in quarantine, and returns their new entries for the DNs.
    fn note_quarantine(&mut self, guid: Guid) -> Vec<PeerEntry> {
        let quarantined = self.is_quarantined(guid);
        let conns: Vec<ConnId> = self.of_guid(guid).map(|(conn, _)| conn).collect();
        for conn in &conns {
            if let Some(session) = self.get_mut(*conn) {
                session.quarantined = quarantined;
            }
        }
        conns.into_iter().filter_map(|conn| self.entry(conn)).collect()
    }

    /// Returns whether a client's queries are answered without peers.
    pub(super) fn is_edge_only(&self, conn: ConnId) -> bool {
        self.get(conn).is_some_and(|s| s.quarantined)
    }
}

impl Cn {
    /// Replaces the list of GUIDs in quarantine, and sends the DNs a new entry for each connected client whose
    /// quarantine begins or ends.
    pub(super) fn on_quarantine(&mut self, cx: &mut Context<'_>, guids: Vec<Guid>) {
        for guid in self.sessions.replace_quarantined(guids) {
            cx.push(Output::Count(Metric::QuarantineChanged));
            for entry in self.sessions.note_quarantine(guid) {
                self.dns.tell(cx, &ToDn::Peer(entry));
            }
        }
    }
}
