//! Versions that providers have withdrawn: edges no longer grant them, and CNs make clients stop sharing them. Edges
//! keep the list; this CN gets all of it every few seconds, so a lost update does no harm.

use super::{Cn, Context, Metric, Output};
use crate::ids::{ConnId, VersionId};
use crate::limits::{WITHDRAWN_MAX, WITHDRAWN_PAGE_MAX};
use crate::wire::List;
use crate::wire::control::{Inventory, ToClient, Withdraw};
use alloc::vec::Vec;

impl Cn {
    /// Replaces the list of withdrawn versions, and tells every client of the new ones, since the CN does not know
    /// which client shares which version.
    pub(super) fn on_withdrawn(&mut self, cx: &mut Context<'_>, versions: Vec<VersionId>) {
        let before = core::mem::replace(&mut self.withdrawn, versions.into_iter().take(WITHDRAWN_MAX).collect());
        let new: Vec<VersionId> = self.withdrawn.difference(&before).copied().collect();
        if new.is_empty() {
            return;
        }
        new.iter().for_each(|_| cx.push(Output::Count(Metric::Withdrawn)));
        let open = self.sessions.clients().filter(|(_, client)| client.session().is_some());
        open.for_each(|(conn, _)| send_withdraw(cx, conn, &new));
    }

    /// Returns whether a version is withdrawn and may not be shared.
    pub(super) fn is_withdrawn(&self, version: VersionId) -> bool {
        self.withdrawn.contains(&version)
    }

    /// Removes withdrawn versions from a client's inventory page, and tells the client of them.
    pub(super) fn strip(&self, cx: &mut Context<'_>, conn: ConnId, mut page: Inventory) -> Inventory {
        let (gone, kept): (Vec<_>, Vec<_>) =
            page.add.into_vec().into_iter().partition(|s| self.is_withdrawn(s.version));
        if self.sessions.get(conn).is_some() && !gone.is_empty() {
            let versions: Vec<_> = gone.iter().map(|s| s.version).collect();
            send_withdraw(cx, conn, &versions);
        }
        page.add = List::truncated(kept);
        page
    }
}

fn send_withdraw(cx: &mut Context<'_>, conn: ConnId, versions: &[VersionId]) {
    for page in versions.chunks(WITHDRAWN_PAGE_MAX) {
        let versions = List::truncated(page.iter().copied());
        cx.push(Output::ClientSend { conn, msg: ToClient::Withdraw(Withdraw { versions }) });
    }
}
