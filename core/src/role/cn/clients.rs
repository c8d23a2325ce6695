//! Client connections and their sessions: `Hello`, messages, inventories, updates and draining.

use super::charges::Dropped;
use super::prices::{Budgets, DnView};
use super::sessions::{Challenge, Client, Session, Sessions};
use super::{Cn, Context, Metric, Output, Phase, Timer};
use crate::accounting::logs;
use crate::holdings::Room;
use crate::ids::{ConnId, Guid, PublicKey, SecondaryGuid, SessionId};
use crate::nat::cookie::{CookieKeys, Tag};
use crate::nat::{NatDescriptor, vetted};
use crate::notice;
use crate::session::backoff::jittered;
use crate::wire::List;
use crate::wire::control::{Hello, Inventory, Refusal, Refused, RetryAfter, ToClient, ToCn, Update, Welcome};
use crate::wire::directory::{PeerGone, PeerShares, ToDn};
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// A client that claims addresses, as the CN knows it.
struct Claimant<'a> {
    observed: SocketAddr,
    upload_key: &'a PublicKey,
    /// NAT descriptor that the CN has believed in this session before.
    before: &'a NatDescriptor,
}

/// Returns the part of the descriptor `nat` that others may be told. An address other than the one the CN sees needs
/// a STUN server's cookie, shown once in the session.
fn believed(keys: &CookieKeys, now_ms: u64, nat: &NatDescriptor, by: &Claimant<'_>) -> NatDescriptor {
    let tag = Tag::of(by.upload_key);
    vetted(nat, by.observed.ip(), |proven| {
        let checked = |c| keys.check(now_ms, tag, proven.addr, c).is_ok();
        proven.cookie.as_ref().is_some_and(checked) || by.before.proven.iter().any(|p| p.addr == proven.addr)
    })
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

/// Returns whether a message asks for something, other than to keep the session alive.
fn is_work(msg: &ToCn) -> bool {
    match msg {
        ToCn::Ping | ToCn::Pong | ToCn::Hello(_) => false,
        ToCn::Inventory(page) => !page.add.is_empty() || !page.remove.is_empty(),
        ToCn::Query(_) | ToCn::Opened(_) | ToCn::Outcome(_) | ToCn::Usage(_) | ToCn::Unreceipted(_) => true,
        ToCn::Update(_) | ToCn::Rekeyed(_) | ToCn::Blame(_) => true,
        // an answer
        ToCn::NoticesHeld(_) => false,
    }
}

impl Sessions {
    /// Stores a client's new NAT descriptor and upload setting, and returns whether something has changed.
    fn update(&mut self, keys: &CookieKeys, now_ms: u64, conn: ConnId, update: &Update) -> bool {
        let Some(observed) = self.client(conn).map(|client| client.from) else { return false };
        let Some(session) = self.get_mut(conn) else { return false };
        let mut changes = core::mem::replace(&mut session.uploads, update.uploads) != update.uploads;
        if update.nat.epoch >= session.nat.epoch {
            let by = Claimant { observed, upload_key: &session.upload_key, before: &session.nat };
            let nat = believed(keys, now_ms, &update.nat, &by);
            changes |= core::mem::replace(&mut session.nat, nat.clone()) != nat;
        }
        changes
    }
}

impl Cn {
    /// Accepts a connection, or turns it away if the CN is full, draining, or does not know the time.
    pub(super) fn on_client_accepted(&mut self, cx: &mut Context<'_>, conn: ConnId, key: PublicKey, from: SocketAddr) {
        if self.common.wall.is_none() || self.common.phase != Phase::Serving || !self.make_room(cx, (key, from)) {
            return self.turn_away(cx, conn, Metric::Busy);
        }
        if cx.cfg.geolocation {
            cx.push(Output::Locate { conn, addr: from.ip() });
        }
        // the shell never gives a number twice; if it did, the older connection would be the one that has ended
        self.remove_client(cx, conn);
        self.sessions.connect(conn, Client::new(key, from), cx.now);
        self.common.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.hello_within)));
    }

    /// Makes room for a client, if need be in place of others, which are told to come back later.
    fn make_room(&mut self, cx: &mut Context<'_>, who: (PublicKey, SocketAddr)) -> bool {
        loop {
            match self.sessions.room_for(cx.cfg, cx.now, who) {
                Room::Free => return true,
                Room::Full(_) => return false,
                Room::InPlaceOf(loser) => {
                    self.turn_away(cx, loser, Metric::Displaced);
                }
            }
        }
    }

    /// Turns a connection away with `Busy`: the client tries another CN, or this one later.
    pub(super) fn turn_away(&mut self, cx: &mut Context<'_>, conn: ConnId, metric: Metric) {
        let retry_after_ms = millis(jittered(cx.cfg.busy_retry, cx.rng));
        cx.push(Output::Count(metric));
        cx.push(Output::ClientSend { conn, msg: ToClient::Busy(RetryAfter { retry_after_ms }) });
        self.close(cx, conn);
    }

    /// Removes a closed connection, and tells the DNs if it had a session.
    pub(super) fn remove_client(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.common.timers.clear(Timer::Silent(conn));
        self.common.timers.clear(Timer::Challenge(conn));
        self.common.timers.clear(Timer::Tell(conn));
        self.common.timers.clear(Timer::Readd(conn));
        let Some(session) = self.sessions.remove(conn) else { return };
        cx.push(Output::Count(Metric::SessionClosed));
        self.notices.tell(cx, &mut self.common, notice::server::Input::Closed(conn));
        self.dns.tell(cx, &ToDn::Gone(PeerGone { session: session.id }));
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::ClientClose { conn });
        self.remove_client(cx, conn);
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, conn: ConnId, why: Refusal) {
        cx.push(Output::ClientSend { conn, msg: ToClient::Refused(Refused { why }) });
        self.close(cx, conn);
    }

    pub(super) fn refuse_violation(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::Count(Metric::Violation));
        self.refuse(cx, conn, Refusal::Violation);
    }

    pub(super) fn on_client_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: ToCn) {
        let Some(client) = self.sessions.client(conn) else { return };
        if client.session().is_none() {
            let ToCn::Hello(hello) = msg else { return self.refuse_violation(cx, conn) };
            return self.on_hello(cx, conn, &hello);
        }
        self.common.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        let msg = match self.sessions.charge(cx, &mut self.common, conn, msg) {
            Ok(msg) => msg,
            Err(Dropped::Unpaid) => return,
            Err(Dropped::PageMissing) => return self.refuse_violation(cx, conn),
        };
        if is_work(&msg) {
            self.sessions.note_work(conn, cx.now);
        }
        match msg {
            ToCn::Inventory(page) => self.on_inventory(cx, conn, page),
            ToCn::Query(query) => self.on_query(cx, conn, query),
            ToCn::Opened(o) => self.on_nat_opened(cx, conn, o.intro),
            ToCn::Outcome(o) => self.on_outcome(cx, conn, o),
            ToCn::Usage(logged) => self.on_usage(cx, conn, logged),
            ToCn::Unreceipted(report) => self.on_unreceipted(cx, conn, &report),
            ToCn::Blame(blame) => self.on_blame(cx, conn, &blame),
            ToCn::Update(update) => self.on_update(cx, conn, &update),
            ToCn::Ping => cx.push(Output::ClientSend { conn, msg: ToClient::Pong }),
            ToCn::Pong => self.on_pong(cx, conn),
            ToCn::Rekeyed(signed) => self.on_rekeyed(cx, conn, signed),
            ToCn::NoticesHeld(list) => self.notices.on_held(cx, &mut self.common, conn, list),
            ToCn::Hello(_) => self.refuse_violation(cx, conn),
        }
    }

    fn on_hello(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello) {
        let Some(client) = self.sessions.client(conn) else { return };
        if hello.protocol < crate::wire::PROTOCOL {
            return self.refuse(cx, conn, Refusal::Protocol);
        }
        if Guid::of(&client.key) != hello.guid {
            return self.refuse(cx, conn, Refusal::WrongKey);
        }
        if hello.client_version < cx.cfg.client_version_min {
            cx.push(Output::Count(Metric::Outdated));
            return self.refuse(cx, conn, Refusal::Outdated);
        }
        let Some(&secondary) = hello.secondary.first() else { return self.refuse_violation(cx, conn) };
        if !self.replace_older_sessions(cx, hello, secondary) {
            return self.refuse(cx, conn, Refusal::Replaced);
        }
        self.open_session(cx, conn, hello, secondary);
    }

    fn open_session(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello, secondary: SecondaryGuid) {
        let now_ms = self.common.now_ms(cx.now);
        let Some(client) = self.sessions.client(conn) else { return };
        let (observed, location) = (client.from, client.location);
        let by = Claimant { observed, upload_key: &hello.upload_key, before: &NatDescriptor::default() };
        let nat = believed(&self.cookies, now_ms, &hello.nat, &by);
        // a checkpoint that fails the check counts as none: the ledger has the log anyway
        let shown = hello.checkpoint.as_ref().filter(|c| logs::is_checkpoint_of(hello.guid, &cx.cfg.trust(), c));
        let log = shown.map(|c| c.checkpoint.head.clone());
        let quarantined = self.sessions.is_quarantined(hello.guid);
        let session = Session {
            id: SessionId::default(),
            guid: hello.guid,
            secondary,
            incarnation: hello.incarnation,
            upload_key: hello.upload_key,
            uploads: hello.uploads,
            quarantined,
            nat,
            seq: 0,
            log,
            challenge: Challenge::default(),
            rekey: None,
            budgets: Budgets::default(),
            dn_view: DnView::default(),
        };
        self.sessions.open(conn, session);
        self.common.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        cx.push(Output::Count(Metric::SessionOpened));
        let welcome = Welcome {
            protocol: crate::wire::PROTOCOL,
            now_ms,
            observed,
            cert: cx.cfg.cert.clone(),
            ping_ms: millis(cx.cfg.ping_every),
            want_inventory: true,
        };
        cx.push(Output::ClientSend { conn, msg: ToClient::Welcome(welcome) });
        if let Some(entry) = self.sessions.entry(conn) {
            self.dns.tell(cx, &ToDn::Peer(entry));
        }
        self.notices.tell(cx, &mut self.common, notice::server::Input::Opened(conn));
        self.sessions.note_registered(conn);
        self.on_session_opened(cx, conn);
        self.recording.log_login(cx, &self.common, observed, location, hello);
    }

    /// Forwards a page of inventory changes to the DNs, without versions that the client was not granted. A missing
    /// page ends the session, since the DNs would never learn of its versions.
    fn on_inventory(&mut self, cx: &mut Context<'_>, conn: ConnId, page: Inventory) {
        if !self.sessions.is_next_page(conn, &page) {
            return self.refuse_violation(cx, conn);
        }
        if !self.sessions.forwards_page(&mut self.common, conn, &page) {
            return;
        }
        let add = List::truncated(self.granted(cx, conn, &page));
        let Some(session) = self.sessions.get(conn) else { return };
        let (id, guid) = (session.id, session.guid);
        let shares = PeerShares { session: id, reset: page.reset, add, remove: page.remove };
        if shares.reset || !shares.add.is_empty() || !shares.remove.is_empty() {
            self.recording.log_registered(cx, &self.common, guid, &shares);
            self.dns.tell(cx, &ToDn::Shares(shares));
        }
    }

    /// Handles a client's new NAT descriptor and upload setting, and tells the DNs if something has changed.
    fn on_update(&mut self, cx: &mut Context<'_>, conn: ConnId, update: &Update) {
        let now_ms = self.common.now_ms(cx.now);
        if self.sessions.update(&self.cookies, now_ms, conn, update) {
            self.publish_change(cx, conn);
        }
    }

    /// Sends `Drain` to every session, with delays spread over half the draining time; closes connections without
    /// session.
    pub(super) fn drain_clients(&mut self, cx: &mut Context<'_>) {
        let spread = millis(cx.cfg.drain / 2);
        let conns: Vec<(ConnId, bool)> =
            self.sessions.clients().map(|(conn, client)| (conn, client.session().is_some())).collect();
        for (conn, open) in conns {
            if open {
                let retry_after_ms = if spread == 0 { 0 } else { cx.rng.below(spread) };
                cx.push(Output::ClientSend { conn, msg: ToClient::Drain(RetryAfter { retry_after_ms }) });
            } else {
                self.close(cx, conn);
            }
        }
    }
}
