//! What providers have withdrawn: edges no longer grant it, and CNs see to it that it is no longer shared. The list is
//! the edges'; this CN is told all of it every few seconds, so nothing is lost for good.

use super::clients::Client;
use super::{Cn, Context, Metric, Output};
use crate::ids::{ConnId, VersionId};
use crate::limits::{WITHDRAWN_MAX, WITHDRAWN_PAGE_MAX};
use crate::wire::List;
use crate::wire::control::{ControlMsg, Inventory, Withdraw};
use alloc::vec::Vec;

impl Cn {
    /// Takes the whole list and tells every client what is new in it: who shares what is not this CN's to know.
    pub(super) fn withdrawn(&mut self, cx: &mut Context<'_>, versions: Vec<VersionId>) {
        let before = core::mem::replace(&mut self.withdrawn, versions.into_iter().take(WITHDRAWN_MAX).collect());
        let new: Vec<VersionId> = self.withdrawn.difference(&before).copied().collect();
        if new.is_empty() {
            return;
        }
        new.iter().for_each(|_| cx.push(Output::Count(Metric::Withdrawn)));
        let open = self.clients.iter().filter(|(_, client)| client.session().is_some());
        let open: Vec<ConnId> = open.map(|(conn, _)| *conn).collect();
        open.into_iter().for_each(|conn| tell(cx, conn, &new));
    }

    /// Whether a version may be shared no more.
    pub(super) fn is_withdrawn(&self, version: VersionId) -> bool {
        self.withdrawn.contains(&version)
    }

    /// Takes what is withdrawn out of a client's inventory, and tells it so.
    pub(super) fn strip(&self, cx: &mut Context<'_>, conn: ConnId, mut page: Inventory) -> Inventory {
        let (gone, kept): (Vec<_>, Vec<_>) =
            page.add.into_vec().into_iter().partition(|s| self.is_withdrawn(s.version));
        if self.clients.get(&conn).and_then(Client::session).is_some() && !gone.is_empty() {
            let versions: Vec<_> = gone.iter().map(|s| s.version).collect();
            tell(cx, conn, &versions);
        }
        page.add = List::truncated(kept);
        page
    }
}

fn tell(cx: &mut Context<'_>, conn: ConnId, versions: &[VersionId]) {
    for page in versions.chunks(WITHDRAWN_PAGE_MAX) {
        let versions = List::truncated(page.iter().copied());
        cx.push(Output::ClientSend { conn, msg: ControlMsg::Withdraw(Withdraw { versions }) });
    }
}
