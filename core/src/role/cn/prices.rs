//! What a session's messages cost. A price is the time after which a session has earned it again, and a session may
//! spend [`LEAD`] ahead. Prices are charged in one place, before anything is done for a message, and each leaves well
//! above what an honest client needs:
//!
//! | message | price | in a minute | because it makes work for |
//! |---|---|---|---|
//! | query | 6 s | 10 | DN, signer, spool and 40 other clients: a client of ours keeps to ten itself |
//! | inventory | 0.4 ms a version | 150,000 versions | DN: two whole inventories of the largest client and more |
//! | update that changes something | 1 s | 60 | DN: networks come and go, a NAT is looked at again |
//! | … that moves a client to other lists | 0.4 ms a version besides | 2 of the largest client | DN: all that it
//! shares |
//! | update that changes nothing | none | | nobody: it ends here |
//! | opened, outcome | 50 ms | 1,200 | the other peer's CN: as many as a popular seeder may get |
//! | usage | 0.5 s | 120 | ledger, two records, and checks: one every few seconds for each download |
//! | unreceipted | 0.5 s | 120 | checks, DN |
//! | rekeyed | 0.5 s | 120 | checks, ledger: one a session is heard |
//! | ping, pong | 50 ms | 1,200 | one answer: one in 20 s |
//!
//! The last four are the books, and have a purse of their own: who floods this CN with wishes loses neither its
//! accounting nor its session. What cannot be paid is not done, and no session ends for it. A query is told when to ask
//! again; a usage record is not acknowledged, so it comes again; the newest state of a client is told to DNs once it
//! can be paid, whatever was between; an inventory with a gap is asked for anew once a whole one can be paid, and what
//! a CN asks for anew itself, because a DN came up, is free. The others are dropped.

use super::clients::{Client, Session};
use super::{Cn, Context, Metric, Output, Timer};
use crate::ids::ConnId;
use crate::limits::SHARES_PER_PEER_MAX;
use crate::machine::Time;
use crate::nat::{Class, Endpoint};
use crate::wire::control::{ControlMsg, Inventory, QueryError, ReaddRequest};
use crate::wire::directory::DirectoryMsg;
use core::time::Duration;

/// So much of what it will have earned a session may spend ahead.
pub const LEAD: Duration = Duration::from_secs(60);

/// What messages cost. What costs nothing is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// A query.
    pub query: Duration,
    /// A version in an inventory, or on other lists by an update.
    pub version: Duration,
    /// An update that changes something.
    pub update: Duration,
    /// A step of a meeting.
    pub step: Duration,
    /// A usage record, the end of an introduction without receipts, a new key.
    pub record: Duration,
    /// A ping.
    pub ping: Duration,
}

impl Prices {
    /// Of production.
    pub const USUAL: Self = Self {
        query: Duration::from_secs(6),
        version: Duration::from_micros(400),
        update: Duration::from_secs(1),
        step: Duration::from_millis(50),
        record: Duration::from_millis(500),
        ping: Duration::from_millis(50),
    };

    /// Nothing is limited.
    pub const NONE: Self = Self {
        query: Duration::ZERO,
        version: Duration::ZERO,
        update: Duration::ZERO,
        step: Duration::ZERO,
        record: Duration::ZERO,
        ping: Duration::ZERO,
    };

    fn versions(&self, n: usize) -> Duration {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.version.saturating_mul(n).min(LEAD)
    }

    /// What a message costs when it comes. What an update costs shows only when it is clear what it changes.
    fn of(&self, msg: &ControlMsg) -> (Purse, Duration) {
        match msg {
            ControlMsg::Query(_) => (Purse::Wishes, self.query),
            ControlMsg::Inventory(page) => (Purse::Wishes, self.versions(page.add.len() + page.remove.len())),
            ControlMsg::Opened(_) | ControlMsg::Outcome(_) => (Purse::Wishes, self.step),
            ControlMsg::Usage(_) | ControlMsg::Unreceipted(_) | ControlMsg::Rekeyed(_) => (Purse::Books, self.record),
            ControlMsg::Ping | ControlMsg::Pong => (Purse::Books, self.ping),
            // what only a CN says ends the session
            ControlMsg::Update(_)
            | ControlMsg::Hello(_)
            | ControlMsg::Welcome(_)
            | ControlMsg::ReaddRequest(_)
            | ControlMsg::Introductions(_)
            | ControlMsg::QueryFailed(_)
            | ControlMsg::Introduce(_)
            | ControlMsg::UsageAck(_)
            | ControlMsg::Drain(_)
            | ControlMsg::Busy(_)
            | ControlMsg::Refused(_)
            | ControlMsg::Go(_)
            | ControlMsg::Withdraw(_)
            | ControlMsg::Rekey
            | ControlMsg::Retired(_) => (Purse::Wishes, Duration::ZERO),
        }
    }
}

/// What is paid from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purse {
    /// All that a client wants.
    Wishes,
    /// Its accounting, and its life.
    Books,
}

/// What a session has spent: until when it has paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Purses {
    wishes: Time,
    books: Time,
}

impl Purses {
    /// Pays, or says how long it takes until that can be paid.
    fn pay(&mut self, now: Time, purse: Purse, price: Duration) -> Result<(), Duration> {
        let paid = match purse {
            Purse::Wishes => &mut self.wishes,
            Purse::Books => &mut self.books,
        };
        let lead = paid.since(now).saturating_add(price.min(LEAD));
        if price.is_zero() {
            return Ok(());
        }
        if lead > LEAD {
            return Err(lead.saturating_sub(LEAD));
        }
        *paid = now.after(lead);
        Ok(())
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.wishes = self.wishes.rebased(by);
        self.books = self.books.rebased(by);
    }
}

/// What the DNs know of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Told {
    /// Where they list it: its class of NAT, if it is listed at all.
    place: Option<Class>,
    /// Versions that it has told since it began to tell all, at most: those that are listed.
    versions: usize,
    /// Its newest state waits until it can be paid.
    is_old: bool,
    /// Pages of its inventory were left out.
    has_gap: bool,
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX).saturating_add(1)
}

impl Cn {
    /// Charges a message. `None`: it could not be paid, and all is done that is done then.
    pub(super) fn charge(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: ControlMsg) -> Option<ControlMsg> {
        let session = self.clients.get_mut(&conn).and_then(Client::session_mut)?;
        let (purse, price) = cx.cfg.prices.of(&msg);
        let Err(wait) = session.purses.pay(cx.now, purse, price) else { return Some(msg) };
        cx.push(Output::Count(Metric::Limited));
        if let ControlMsg::Query(query) = msg {
            cx.push(Output::Count(Metric::Query));
            super::queries::fail(cx, conn, query.query, QueryError::TooMany, millis(wait));
        } else if let ControlMsg::Usage(_) = msg {
            cx.push(Output::Count(Metric::UsageDeferred));
        } else if let ControlMsg::Inventory(page) = msg {
            self.leave_out(cx, conn, &page);
        }
        None
    }

    /// A page of an inventory cannot be paid: all is asked for anew, once all can be.
    fn leave_out(&mut self, cx: &mut Context<'_>, conn: ConnId, page: &Inventory) {
        if !self.is_next_page(cx, conn, page) {
            return;
        }
        let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) else { return };
        session.told.has_gap = true;
        let whole = cx.cfg.prices.versions(SHARES_PER_PEER_MAX);
        let wait = session.purses.wishes.since(cx.now).saturating_add(whole).saturating_sub(LEAD);
        if self.timers.get(Timer::Readd(conn)).is_none() {
            self.timers.set(Timer::Readd(conn), Some(cx.now.after(wait)));
        }
    }

    /// Whether a page goes on to the DNs: none does behind a gap, until all is told anew.
    pub(super) fn goes_on(&mut self, conn: ConnId, page: &Inventory) -> bool {
        let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) else { return false };
        if page.reset {
            (session.told.has_gap, session.told.versions) = (false, 0);
            self.timers.clear(Timer::Readd(conn));
        }
        let versions = &mut session.told.versions;
        *versions = versions.saturating_add(page.add.len()).min(SHARES_PER_PEER_MAX);
        !session.told.has_gap
    }

    /// A client with a gap in its inventory can pay for all of it.
    pub(super) fn readd(&self, cx: &mut Context<'_>, conn: ConnId) {
        if self.clients.get(&conn).and_then(Client::session).is_some_and(|s| s.told.has_gap) {
            cx.push(Output::ClientSend { conn, msg: ControlMsg::ReaddRequest(ReaddRequest { spread_ms: 0 }) });
        }
    }

    /// What a client tells again because a DN came up costs it nothing.
    pub(super) fn give_back(&mut self, cx: &Context<'_>, conn: ConnId) {
        if let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) {
            let wishes = &mut session.purses.wishes;
            *wishes = wishes.rebased(cx.cfg.prices.versions(session.told.versions));
        }
    }

    /// A client's session has begun, and the DNs have heard of it.
    pub(super) fn begins_told(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let place = client.session().and_then(|s| place(s, client.observed().ip()));
        if let Some(session) = client.session_mut() {
            session.told.place = place;
        }
    }

    /// A client is not as DNs know it: tells them, or waits until that can be paid.
    pub(super) fn tell_change(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let from = client.observed().ip();
        let Some(session) = client.session_mut() else { return };
        let place = place(session, from);
        let moved = if place == session.told.place { 0 } else { session.told.versions };
        let price = cx.cfg.prices.update.saturating_add(cx.cfg.prices.versions(moved));
        if let Err(wait) = session.purses.pay(cx.now, Purse::Wishes, price) {
            if !core::mem::replace(&mut session.told.is_old, true) {
                cx.push(Output::Count(Metric::Limited));
            }
            return self.timers.set(Timer::Tell(conn), Some(cx.now.after(wait)));
        }
        (session.told.place, session.told.is_old) = (place, false);
        self.timers.clear(Timer::Tell(conn));
        if let Some(entry) = self.clients.get(&conn).and_then(Client::entry) {
            self.tell_dns(cx, &DirectoryMsg::Peer(entry));
        }
    }
}

fn place(session: &Session, observed: core::net::IpAddr) -> Option<Class> {
    session.may_upload().then(|| Class::of(Endpoint { observed, nat: &session.nat }))
}
