//! Client connections and their sessions: `Hello`, messages, inventories, updates and draining.

use super::copies::{Challenge, PendingRekey};
use super::prices::{Budgets, DnView};
use super::{Cn, Context, Metric, Output, Phase, Timer};
use crate::accounting::logs;
use crate::ids::{ConnId, Guid, PublicKey, SecondaryGuid, SessionId};
use crate::nat::cookie::{CookieKeys, Tag};
use crate::nat::{NatDescriptor, vetted};
use crate::session::backoff::jittered;
use crate::wire::control::{Hello, Inventory, Refusal, Refused, RetryAfter, ToClient, ToCn, Update, Welcome};
use crate::wire::directory::{PeerEntry, PeerGone, PeerShares, ToDn};
use crate::wire::place::Place;
use crate::wire::records::SignedHead;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// A client's connection, with its session once `Hello` has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// Public key that the client proved in its TLS handshake.
    key: PublicKey,
    from: SocketAddr,
    /// Country and network; unknown until geolocation has answered.
    place: Place,
    session: Option<Session>,
}

/// Session of a logged-in client: its `Hello`, and what came after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) guid: Guid,
    pub(super) secondary: SecondaryGuid,
    pub(super) incarnation: u64,
    pub(super) upload_key: PublicKey,
    /// Whether the user allows uploads.
    uploads: bool,
    /// Whether the GUID is in quarantine: see [`super::quarantine`].
    pub(super) quarantined: bool,
    /// NAT type and addresses that other clients and DNs are told.
    pub(super) nat: NatDescriptor,
    /// Sequence number of the last inventory page.
    seq: u64,
    /// Newest head of its record log that the client has shown.
    pub(super) log: Option<SignedHead>,
    pub(super) challenge: Challenge,
    pub(super) rekey: Option<PendingRekey>,
    pub(super) budgets: Budgets,
    pub(super) dn_view: DnView,
}

impl Session {
    /// Returns whether it may be offered to other clients as a peer.
    pub(super) const fn may_upload(&self) -> bool {
        self.uploads && !self.quarantined
    }
}

impl Client {
    /// Returns the session, once `Hello` has come.
    pub(super) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) const fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Returns the client's address as this CN sees it.
    pub(super) const fn observed(&self) -> SocketAddr {
        self.from
    }

    /// Returns the client's entry for the DNs.
    pub(super) fn entry(&self) -> Option<PeerEntry> {
        let s = self.session.as_ref()?;
        Some(PeerEntry {
            session: s.id,
            guid: s.guid,
            secondary: s.secondary,
            incarnation: s.incarnation,
            observed: self.from,
            upload_key: s.upload_key,
            uploads: s.may_upload(),
            nat: s.nat.clone(),
            locality: self.place.locality,
        })
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        if let Some(s) = &mut self.session {
            s.budgets.rebase(by);
        }
    }
}

/// Returns the part of `nat` that may be told to others. An address other than the observed one needs a STUN server's
/// cookie, once a session.
fn believed(
    (keys, now_ms): (&CookieKeys, u64),
    nat: &NatDescriptor,
    (observed, upload_key): (SocketAddr, &PublicKey),
    before: &NatDescriptor,
) -> NatDescriptor {
    let tag = Tag::of(upload_key);
    vetted(nat, observed.ip(), |proven| {
        let checked = |c| keys.check(now_ms, tag, proven.addr, c).is_ok();
        proven.cookie.as_ref().is_some_and(checked) || before.proven.iter().any(|p| p.addr == proven.addr)
    })
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

impl Cn {
    /// Accepts a connection, or turns it away if the CN is full, draining, or does not know the time.
    pub(super) fn on_client_accepted(&mut self, cx: &mut Context<'_>, conn: ConnId, key: PublicKey, from: SocketAddr) {
        let full = self.clients.len() >= cx.cfg.sessions_max as usize;
        if full || self.wall.is_none() || self.phase != Phase::Serving {
            return self.turn_away(cx, conn);
        }
        if cx.cfg.geolocation {
            cx.push(Output::Locate { conn, addr: from.ip() });
        }
        self.clients.insert(conn, Client { key, from, place: Place::UNKNOWN, session: None });
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.hello_within)));
    }

    /// Turns a connection away with `Busy`: the client tries another CN, or this one later.
    pub(super) fn turn_away(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let retry_after_ms = millis(jittered(cx.cfg.busy_retry, cx.rng));
        cx.push(Output::Count(Metric::Busy));
        cx.push(Output::ClientSend { conn, msg: ToClient::Busy(RetryAfter { retry_after_ms }) });
        self.close(cx, conn);
    }

    /// Stores the answer of geolocation.
    pub(super) fn on_located(&mut self, conn: ConnId, place: Place) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.place = place;
        }
    }

    /// Removes a closed connection, and tells the DNs if it had a session.
    pub(super) fn remove_client(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.timers.clear(Timer::Silent(conn));
        self.timers.clear(Timer::Challenge(conn));
        self.timers.clear(Timer::Tell(conn));
        self.timers.clear(Timer::Readd(conn));
        let Some(session) = self.clients.remove(&conn).and_then(|c| c.session) else { return };
        if let Some(sessions) = self.by_guid.get_mut(&session.guid) {
            sessions.remove(&conn);
            if sessions.is_empty() {
                self.by_guid.remove(&session.guid);
            }
        }
        self.by_session.remove(&session.id);
        cx.push(Output::Count(Metric::SessionClosed));
        self.tell_dns(cx, &ToDn::Gone(PeerGone { session: session.id }));
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

    pub(super) fn on_silent(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.refuse(cx, conn, Refusal::Idle);
    }

    pub(super) fn on_client_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: ToCn) {
        let Some(client) = self.clients.get(&conn) else { return };
        if client.session.is_none() {
            let ToCn::Hello(hello) = msg else { return self.refuse_violation(cx, conn) };
            return self.on_hello(cx, conn, &hello);
        }
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        let Some(msg) = self.charge(cx, conn, msg) else { return };
        match msg {
            ToCn::Inventory(page) => self.on_inventory(cx, conn, page),
            ToCn::Query(query) => self.on_query(cx, conn, query),
            ToCn::Opened(o) => self.on_nat_opened(cx, conn, o.intro),
            ToCn::Outcome(o) => self.on_outcome(cx, conn, o),
            ToCn::Usage(logged) => {
                if self.clients.get(&conn).and_then(Client::session).is_some_and(|s| s.guid == logged.record.reporter)
                    && logs::check(cx.cfg.verify, &logged).is_ok()
                {
                    self.on_usage(cx, conn, logged);
                } else {
                    self.refuse_violation(cx, conn);
                }
            }
            ToCn::Unreceipted(report) => self.on_unreceipted(cx, conn, &report),
            ToCn::Update(update) => self.on_update(cx, conn, &update),
            ToCn::Ping => cx.push(Output::ClientSend { conn, msg: ToClient::Pong }),
            ToCn::Pong => self.on_pong(cx, conn),
            ToCn::Rekeyed(signed) => self.on_rekeyed(cx, conn, signed),
            ToCn::Hello(_) => self.refuse_violation(cx, conn),
        }
    }

    fn on_hello(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello) {
        let Some(client) = self.clients.get(&conn) else { return };
        if hello.protocol < crate::wire::PROTOCOL {
            return self.refuse(cx, conn, Refusal::Protocol);
        }
        if Guid::of(&client.key) != hello.guid {
            return self.refuse(cx, conn, Refusal::WrongKey);
        }
        let Some(&secondary) = hello.secondary.first() else { return self.refuse_violation(cx, conn) };
        if !self.replace_older_sessions(cx, hello.guid, (secondary, hello.incarnation)) {
            return self.refuse(cx, conn, Refusal::Replaced);
        }
        self.open_session(cx, conn, hello, secondary);
    }

    fn open_session(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello, secondary: SecondaryGuid) {
        let now_ms = self.now_ms(cx.now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let known = (client.from, &hello.upload_key);
        let nat = believed((&self.cookies, now_ms), &hello.nat, known, &NatDescriptor::default());
        // a checkpoint that fails the check counts as none: the ledger has the log anyway
        let shown = hello.checkpoint.as_ref().filter(|c| logs::is_checkpoint_of(hello.guid, &Self::trust(cx), c));
        let log = shown.map(|c| c.checkpoint.head.clone());
        let id = self.next_session.step();
        let quarantined = self.quarantined.contains(&hello.guid);
        client.session = Some(Session {
            id,
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
        });
        let (observed, place, entry) = (client.from, client.place, client.entry());
        self.by_guid.entry(hello.guid).or_default().insert(conn);
        self.by_session.insert(id, conn);
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
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
        if let Some(entry) = entry {
            self.tell_dns(cx, &ToDn::Peer(entry));
        }
        self.note_registered(conn);
        self.session_opened(cx, conn, hello.guid);
        self.log_login(cx, observed, place, hello);
    }

    /// Counts an inventory page. A gap in the page numbers ends the session, since the DNs would miss those versions
    /// for good.
    pub(super) fn is_next_page(&mut self, cx: &mut Context<'_>, conn: ConnId, page: &Inventory) -> bool {
        let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) else { return false };
        let is_next = page.seq == session.seq.wrapping_add(1);
        session.seq = page.seq;
        if !is_next {
            self.refuse_violation(cx, conn);
        }
        is_next
    }

    /// Forwards a page of inventory changes to the DNs.
    fn on_inventory(&mut self, cx: &mut Context<'_>, conn: ConnId, page: Inventory) {
        if !self.is_next_page(cx, conn, &page) || !self.forwards_page(conn, &page) {
            return;
        }
        let page = self.strip(cx, conn, page);
        let Some(session) = self.clients.get(&conn).and_then(Client::session) else { return };
        let (id, guid) = (session.id, session.guid);
        self.log_registered(cx, guid, &page);
        let shares = PeerShares { session: id, reset: page.reset, add: page.add, remove: page.remove };
        self.tell_dns(cx, &ToDn::Shares(shares));
    }

    /// Stores a client's new NAT descriptor and upload setting, and tells the DNs if something has changed.
    fn on_update(&mut self, cx: &mut Context<'_>, conn: ConnId, update: &Update) {
        let now_ms = self.now_ms(cx.now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let from = client.from;
        let Some(session) = client.session_mut() else { return };
        let mut changes = core::mem::replace(&mut session.uploads, update.uploads) != update.uploads;
        if update.nat.epoch >= session.nat.epoch {
            let known = (from, &session.upload_key);
            let nat = believed((&self.cookies, now_ms), &update.nat, known, &session.nat);
            changes |= core::mem::replace(&mut session.nat, nat.clone()) != nat;
        }
        if changes {
            self.publish_change(cx, conn);
        }
    }

    /// Sends `Drain` to every session, with delays spread over half the draining time; closes connections without
    /// session.
    pub(super) fn drain_clients(&mut self, cx: &mut Context<'_>) {
        let spread = millis(cx.cfg.drain / 2);
        let conns: Vec<(ConnId, bool)> =
            self.clients.iter().map(|(c, client)| (*c, client.session.is_some())).collect();
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
