//! Charges for a session's messages by the prices in [`super::prices`], and the consequences if a session cannot pay.

use super::prices::Budget;
use super::queries::fail;
use super::sessions::{Session, Sessions};
use super::{Cn, Common, Context, Metric, Output, Timer};
use crate::ids::ConnId;
use crate::limits::SHARES_PER_PEER_MAX;
use crate::nat::{Class, Endpoint};
use crate::wire::control::{Inventory, QueryError, ReaddRequest, ToClient, ToCn};
use crate::wire::directory::{PeerEntry, ToDn};
use core::time::Duration;

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX).saturating_add(1)
}

/// Reason why a client's message has no effect.
pub(super) enum Dropped {
    /// The session's budget does not suffice.
    Unpaid,
    /// An inventory page is missing, so that the DNs would never learn of its versions.
    PageMissing,
}

impl Sessions {
    /// Charges a message to its session. If the budget does not suffice, the message has no effect: a query is
    /// answered with an error, and `Err` is returned.
    pub(super) fn charge(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        conn: ConnId,
        msg: ToCn,
    ) -> Result<ToCn, Dropped> {
        let session = self.get_mut(conn).ok_or(Dropped::Unpaid)?;
        let (budget, price) = cx.cfg.prices.of(&msg);
        let Err(wait) = session.budgets.pay(cx.now, budget, price) else { return Ok(msg) };
        cx.push(Output::Count(Metric::Limited));
        if let ToCn::Query(query) = msg {
            cx.push(Output::Count(Metric::Query));
            fail(cx, conn, query.query, QueryError::TooMany, millis(wait));
        } else if let ToCn::Usage(_) = msg {
            cx.push(Output::Count(Metric::UsageDeferred));
        } else if let ToCn::Inventory(page) = msg {
            if !self.is_next_page(conn, &page) {
                return Err(Dropped::PageMissing);
            }
            self.skip_page(cx, common, conn);
        }
        Err(Dropped::Unpaid)
    }

    /// Counts an inventory page, and returns whether its number follows the last one's.
    pub(super) fn is_next_page(&mut self, conn: ConnId, page: &Inventory) -> bool {
        let Some(session) = self.get_mut(conn) else { return false };
        let is_next = page.seq == session.seq.wrapping_add(1);
        session.seq = page.seq;
        is_next
    }

    /// Skips an inventory page for which the budget does not suffice, and schedules a request for the whole
    /// inventory.
    fn skip_page(&mut self, cx: &Context<'_>, common: &mut Common, conn: ConnId) {
        let Some(session) = self.get_mut(conn) else { return };
        session.dn_view.has_gap = true;
        let whole = cx.cfg.prices.versions(SHARES_PER_PEER_MAX);
        let wait = session.budgets.wait_for(cx.now, whole);
        if common.timers.get(Timer::Readd(conn)).is_none() {
            common.timers.set(Timer::Readd(conn), Some(cx.now.after(wait)));
        }
    }

    /// Returns whether a page may be forwarded to the DNs; after a skipped page only those of a whole inventory may.
    pub(super) fn forwards_page(&mut self, common: &mut Common, conn: ConnId, page: &Inventory) -> bool {
        let Some(session) = self.get_mut(conn) else { return false };
        if page.reset {
            (session.dn_view.has_gap, session.dn_view.versions) = (false, 0);
            common.timers.clear(Timer::Readd(conn));
        }
        let versions = &mut session.dn_view.versions;
        *versions = versions.saturating_add(page.add.len()).min(SHARES_PER_PEER_MAX);
        !session.dn_view.has_gap
    }

    /// Requests the whole inventory of a client of which pages were skipped, since its budget allows that now.
    pub(super) fn request_readd(&self, cx: &mut Context<'_>, conn: ConnId) {
        if self.get(conn).is_some_and(|s| s.dn_view.has_gap) {
            cx.push(Output::ClientSend { conn, msg: ToClient::ReaddRequest(ReaddRequest { spread_ms: 0 }) });
        }
    }

    /// Refunds the price of a whole inventory that the CN requests because a DN has come up.
    pub(super) fn refund_readd(&mut self, cx: &Context<'_>, conn: ConnId) {
        if let Some(session) = self.get_mut(conn) {
            session.budgets.refund(Budget::Requests, cx.cfg.prices.versions(session.dn_view.versions));
        }
    }

    /// Notes that the DNs have been told of a new session.
    pub(super) fn note_registered(&mut self, conn: ConnId) {
        let Some(client) = self.client(conn) else { return };
        let class = client.session().and_then(|s| class_of(s, client.from.ip()));
        if let Some(session) = self.get_mut(conn) {
            session.dn_view.class = class;
        }
    }

    /// Returns a client's changed state for the DNs, or delays that until the budget allows it.
    fn pay_change(&mut self, cx: &mut Context<'_>, common: &mut Common, conn: ConnId) -> Option<PeerEntry> {
        let from = self.client(conn)?.from.ip();
        let session = self.get_mut(conn)?;
        let class = class_of(session, from);
        let moved = if class == session.dn_view.class { 0 } else { session.dn_view.versions };
        let price = cx.cfg.prices.update.saturating_add(cx.cfg.prices.versions(moved));
        if let Err(wait) = session.budgets.pay(cx.now, Budget::Requests, price) {
            if !core::mem::replace(&mut session.dn_view.is_stale, true) {
                cx.push(Output::Count(Metric::Limited));
            }
            common.timers.set(Timer::Tell(conn), Some(cx.now.after(wait)));
            return None;
        }
        (session.dn_view.class, session.dn_view.is_stale) = (class, false);
        common.timers.clear(Timer::Tell(conn));
        self.entry(conn)
    }
}

impl Cn {
    /// Sends a client's changed state to the DNs, once its budget allows that.
    pub(super) fn publish_change(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        if let Some(entry) = self.sessions.pay_change(cx, &mut self.common, conn) {
            self.dns.tell(cx, &ToDn::Peer(entry));
        }
    }
}

fn class_of(session: &Session, observed: core::net::IpAddr) -> Option<Class> {
    session.may_upload().then(|| Class::of(Endpoint { observed, nat: &session.nat }))
}
