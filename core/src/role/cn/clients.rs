//! Clients: connections, sessions, inventories.

use super::copies::{Challenge, Taken};
use super::prices::{Purses, Told};
use super::{Cn, Context, Metric, Output, Phase, Timer};
use crate::accounting::logs;
use crate::ids::{ConnId, Guid, PublicKey, SecondaryGuid, SessionId};
use crate::nat::cookie::{CookieKeys, Tag};
use crate::nat::{NatDescriptor, vetted};
use crate::session::backoff::jittered;
use crate::wire::control::{ControlMsg, Hello, Inventory, Refusal, Refused, RetryAfter, Update, Welcome};
use crate::wire::directory::{DirectoryMsg, PeerEntry, PeerGone, PeerShares};
use crate::wire::place::Place;
use crate::wire::records::SignedHead;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// The key it proved in its TLS handshake.
    key: PublicKey,
    from: SocketAddr,
    /// Unknown until geolocation has answered.
    place: Place,
    session: Option<Session>,
}

/// What follows a `Hello`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) guid: Guid,
    pub(super) secondary: SecondaryGuid,
    pub(super) incarnation: u64,
    pub(super) upload_key: PublicKey,
    /// Its user allows uploads.
    uploads: bool,
    /// See [`super::quarantine`].
    pub(super) quarantined: bool,
    /// As others may be told of it.
    pub(super) nat: NatDescriptor,
    /// The last inventory page.
    seq: u64,
    /// The newest place in its log that it has shown.
    pub(super) log: Option<SignedHead>,
    pub(super) challenge: Challenge,
    pub(super) taken: Option<Taken>,
    pub(super) purses: Purses,
    pub(super) told: Told,
}

impl Session {
    /// Whether it may be offered to others.
    pub(super) const fn may_upload(&self) -> bool {
        self.uploads && !self.quarantined
    }
}

impl Client {
    /// Its session, once `Hello` has come.
    pub(super) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) const fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    /// Where this CN sees it.
    pub(super) const fn observed(&self) -> SocketAddr {
        self.from
    }

    /// As a DN is told of it.
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
            s.purses.rebase(by);
        }
    }
}

/// What a client may be said to be: addresses that the CN does not see need a STUN server's word, once a session.
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
    /// Lets a connection in, or sends it away while there is no room, no clock, or no future.
    pub(super) fn accepted(&mut self, cx: &mut Context<'_>, conn: ConnId, key: PublicKey, from: SocketAddr) {
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

    /// There is no room: another CN, or this one later.
    pub(super) fn turn_away(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let retry_after_ms = millis(jittered(cx.cfg.busy_retry, cx.rng));
        cx.push(Output::Count(Metric::Busy));
        cx.push(Output::ClientSend { conn, msg: ControlMsg::Busy(RetryAfter { retry_after_ms }) });
        self.close(cx, conn);
    }

    /// Geolocation has answered.
    pub(super) fn located(&mut self, conn: ConnId, place: Place) {
        if let Some(client) = self.clients.get_mut(&conn) {
            client.place = place;
        }
    }

    /// Forgets a connection that is gone, and tells the DNs if it had a session.
    pub(super) fn forget(&mut self, cx: &mut Context<'_>, conn: ConnId) {
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
        self.tell_dns(cx, &DirectoryMsg::Gone(PeerGone { session: session.id }));
    }

    pub(super) fn close(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::ClientClose { conn });
        self.forget(cx, conn);
    }

    pub(super) fn refuse(&mut self, cx: &mut Context<'_>, conn: ConnId, why: Refusal) {
        cx.push(Output::ClientSend { conn, msg: ControlMsg::Refused(Refused { why }) });
        self.close(cx, conn);
    }

    pub(super) fn violation(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::Count(Metric::Violation));
        self.refuse(cx, conn, Refusal::Violation);
    }

    pub(super) fn silent(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.refuse(cx, conn, Refusal::Idle);
    }

    pub(super) fn client_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: ControlMsg) {
        let Some(client) = self.clients.get(&conn) else { return };
        if client.session.is_none() {
            let ControlMsg::Hello(hello) = msg else { return self.violation(cx, conn) };
            return self.hello(cx, conn, &hello);
        }
        self.timers.set(Timer::Silent(conn), Some(cx.now.after(cx.cfg.idle_after)));
        let Some(msg) = self.charge(cx, conn, msg) else { return };
        match msg {
            ControlMsg::Inventory(page) => self.inventory(cx, conn, page),
            ControlMsg::Query(query) => self.query(cx, conn, query),
            ControlMsg::Opened(o) => self.opened(cx, conn, o.intro),
            ControlMsg::Outcome(o) => self.outcome(cx, conn, o),
            ControlMsg::Usage(logged) => {
                if self.clients.get(&conn).and_then(Client::session).is_some_and(|s| s.guid == logged.record.reporter)
                    && logs::check(cx.cfg.verify, &logged).is_ok()
                {
                    self.usage_from(cx, conn, logged);
                } else {
                    self.violation(cx, conn);
                }
            }
            ControlMsg::Unreceipted(told) => self.unreceipted(cx, conn, &told),
            ControlMsg::Update(update) => self.update(cx, conn, &update),
            ControlMsg::Ping => cx.push(Output::ClientSend { conn, msg: ControlMsg::Pong }),
            ControlMsg::Pong => self.answered(cx, conn),
            ControlMsg::Rekeyed(signed) => self.rekeyed(cx, conn, signed),
            ControlMsg::Hello(_)
            | ControlMsg::Welcome(_)
            | ControlMsg::ReaddRequest(_)
            | ControlMsg::Introductions(_)
            | ControlMsg::QueryFailed(_)
            | ControlMsg::Introduce(_)
            | ControlMsg::Go(_)
            | ControlMsg::Withdraw(_)
            | ControlMsg::UsageAck(_)
            | ControlMsg::Rekey
            | ControlMsg::Retired(_)
            | ControlMsg::Drain(_)
            | ControlMsg::Busy(_)
            | ControlMsg::Refused(_) => self.violation(cx, conn),
        }
    }

    fn hello(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello) {
        let Some(client) = self.clients.get(&conn) else { return };
        if hello.protocol < crate::wire::PROTOCOL {
            return self.refuse(cx, conn, Refusal::Protocol);
        }
        if Guid::of(&client.key) != hello.guid {
            return self.refuse(cx, conn, Refusal::WrongKey);
        }
        let Some(&secondary) = hello.secondary.first() else { return self.violation(cx, conn) };
        if !self.make_way(cx, hello.guid, (secondary, hello.incarnation)) {
            return self.refuse(cx, conn, Refusal::Replaced);
        }
        self.open(cx, conn, hello, secondary);
    }

    fn open(&mut self, cx: &mut Context<'_>, conn: ConnId, hello: &Hello, secondary: SecondaryGuid) {
        let now_ms = self.now_ms(cx.now);
        let Some(client) = self.clients.get_mut(&conn) else { return };
        let known = (client.from, &hello.upload_key);
        let nat = believed((&self.cookies, now_ms), &hello.nat, known, &NatDescriptor::default());
        // what does not check is none: the ledger has the log
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
            taken: None,
            purses: Purses::default(),
            told: Told::default(),
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
        cx.push(Output::ClientSend { conn, msg: ControlMsg::Welcome(welcome) });
        if let Some(entry) = entry {
            self.tell_dns(cx, &DirectoryMsg::Peer(entry));
        }
        self.begins_told(conn);
        self.begun(cx, conn, hello.guid);
        self.log_login(cx, observed, place, hello);
    }

    /// A gap in the numbers of pages would leave a hole at the DNs for good.
    pub(super) fn is_next_page(&mut self, cx: &mut Context<'_>, conn: ConnId, page: &Inventory) -> bool {
        let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) else { return false };
        let is_next = page.seq == session.seq.wrapping_add(1);
        session.seq = page.seq;
        if !is_next {
            self.violation(cx, conn);
        }
        is_next
    }

    /// A page of changes goes on to the DNs.
    fn inventory(&mut self, cx: &mut Context<'_>, conn: ConnId, page: Inventory) {
        if !self.is_next_page(cx, conn, &page) || !self.goes_on(conn, &page) {
            return;
        }
        let page = self.strip(cx, conn, page);
        let Some(session) = self.clients.get(&conn).and_then(Client::session) else { return };
        let (id, guid) = (session.id, session.guid);
        self.log_registered(cx, guid, &page);
        let shares = PeerShares { session: id, reset: page.reset, add: page.add, remove: page.remove };
        self.tell_dns(cx, &DirectoryMsg::Shares(shares));
    }

    /// What a client says of itself holds here at once. DNs are told if it changes anything.
    fn update(&mut self, cx: &mut Context<'_>, conn: ConnId, update: &Update) {
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
            self.tell_change(cx, conn);
        }
    }

    /// Tells every client when to leave, spread over the time there is.
    pub(super) fn drain_clients(&mut self, cx: &mut Context<'_>) {
        let spread = millis(cx.cfg.drain / 2);
        let conns: Vec<(ConnId, bool)> =
            self.clients.iter().map(|(c, client)| (*c, client.session.is_some())).collect();
        for (conn, open) in conns {
            if open {
                let retry_after_ms = if spread == 0 { 0 } else { cx.rng.below(spread) };
                cx.push(Output::ClientSend { conn, msg: ControlMsg::Drain(RetryAfter { retry_after_ms }) });
            } else {
                self.close(cx, conn);
            }
        }
    }
}
