//! Connections to the DNs. Every DN is told of every client; the first DN that is up answers the queries. A DN that
//! has restarted learns everything again: after each connect the CN registers its sessions, and requests the clients'
//! whole inventories (RE-ADD).

use super::sessions::Sessions;
use super::{Cn, Common, Context, Metric, Output, Timer};
use crate::accounting::rekeys;
use crate::ids::{ConnId, SessionId};
use crate::session::Dialer;
use crate::wire::control::{ReaddRequest, ToClient};
use crate::wire::directory::{DirectoryHello, FromDn, Seen, ToDn};
use alloc::vec::Vec;
use core::time::Duration;

/// Number of sessions registered at a DN in one batch; `REGISTER_PAUSE` follows each batch.
const REGISTER_BATCH: usize = 256;
const REGISTER_PAUSE: Duration = Duration::from_millis(20);
/// Interval of pings to a DN.
const PING_EVERY: Duration = Duration::from_secs(10);

/// Connection to one DN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct DnLink {
    dialer: Dialer,
    /// Whether the DN has sent `Welcome`.
    welcomed: bool,
    /// Whether the last ping is unanswered.
    pinged: bool,
    /// First session that is still to be registered at the DN; `None` if all are registered.
    register_from: Option<SessionId>,
}

impl DnLink {
    fn new(dn: u32) -> Self {
        let dialer = Dialer::new(ConnId::DIRECTORY.0 | u64::from(dn) << 32);
        Self { dialer, welcomed: false, pinged: false, register_from: None }
    }

    /// Asserts that exactly the timers that the link's state needs are set: to dial, to ping, and to register more
    /// sessions.
    fn check(&self, dial: bool, ping: bool, register: bool) {
        let is_open = self.dialer.up().is_some();
        assert!(!self.welcomed || is_open, "a DN that is up has a connection");
        assert!(!self.pinged || is_open, "only a connected DN is pinged");
        assert!(self.register_from.is_none() || self.welcomed, "sessions are registered at DNs that are up");
        assert!(dial == self.dialer.conn().is_none(), "exactly a DN without connection is dialled");
        assert!(ping == is_open, "exactly a connected DN is pinged");
        assert!(register == self.register_from.is_some(), "the registration of sessions goes on to its end");
    }

    const fn is_up(&self) -> bool {
        self.welcomed
    }

    const fn conn(&self) -> Option<ConnId> {
        self.dialer.conn()
    }
}

/// Links to the DNs, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Directories {
    links: Vec<DnLink>,
}

impl Directories {
    /// Creates a link to each configured DN, and dials it.
    pub(super) fn start(&mut self, cx: &Context<'_>, common: &mut Common) {
        self.links = (0..cx.cfg.dns).map(DnLink::new).collect();
        for dn in 0..cx.cfg.dns {
            common.timers.set(Timer::Dial(dn), Some(cx.now));
        }
    }

    /// Returns for each configured DN, in order, whether it is up.
    pub(super) fn each_up(&self) -> impl Iterator<Item = bool> {
        self.links.iter().map(DnLink::is_up)
    }

    /// Returns whether a DN has this index.
    pub(super) fn contains(&self, dn: u32) -> bool {
        self.links.get(dn as usize).is_some()
    }

    fn dn_of(&self, conn: ConnId) -> Option<u32> {
        let at = self.links.iter().position(|d| d.conn() == Some(conn))?;
        u32::try_from(at).ok()
    }

    fn link_mut(&mut self, dn: u32) -> Option<&mut DnLink> {
        self.links.get_mut(dn as usize)
    }

    /// Returns the connection of the first DN that is up.
    pub(super) fn first_up(&self) -> Option<ConnId> {
        self.links.iter().find(|d| d.welcomed).and_then(DnLink::conn)
    }

    /// Returns whether a connection is that of a DN that is up.
    pub(super) fn is_up(&self, conn: ConnId) -> bool {
        self.links.iter().any(|link| link.is_up() && link.conn() == Some(conn))
    }

    /// Sends a message to every DN that is up.
    pub(super) fn tell(&self, cx: &mut Context<'_>, msg: &ToDn) {
        for conn in self.links.iter().filter(|d| d.welcomed).filter_map(DnLink::conn) {
            cx.push(Output::DirectorySend { conn, msg: msg.clone() });
        }
    }

    /// Sends a message over a connection, if that is of a DN that is up.
    pub(super) fn send(&self, cx: &mut Context<'_>, conn: ConnId, msg: ToDn) {
        if self.is_up(conn) {
            cx.push(Output::DirectorySend { conn, msg });
        }
    }

    /// Reports a session to the GUID's home DN, if that DN is up.
    pub(super) fn report_to_home(&self, cx: &mut Context<'_>, seen: Seen) {
        let home = rekeys::home(&seen.guid, cx.cfg.dns).and_then(|dn| self.links.get(dn as usize));
        if let Some(conn) = home.filter(|dn| dn.is_up()).and_then(DnLink::conn) {
            cx.push(Output::DirectorySend { conn, msg: ToDn::Seen(seen) });
        }
    }

    pub(super) fn dial(&mut self, cx: &mut Context<'_>, dn: u32) {
        if let Some(conn) = self.link_mut(dn).and_then(|d| d.dialer.dial()) {
            cx.push(Output::DirectoryDial { conn, dn });
        }
    }

    pub(super) fn on_opened(&mut self, cx: &mut Context<'_>, common: &mut Common, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let cert = cx.cfg.cert.clone();
        if self.link_mut(dn).is_some_and(|d| d.dialer.opened(conn)) {
            let hello = DirectoryHello { protocol: crate::wire::PROTOCOL, cert };
            cx.push(Output::DirectorySend { conn, msg: ToDn::Hello(hello) });
            common.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
        }
    }

    /// Records the end of a connection, and schedules the next attempt.
    fn on_closed(&mut self, cx: &mut Context<'_>, common: &mut Common, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let Some(link) = self.link_mut(dn) else { return };
        if core::mem::take(&mut link.welcomed) {
            cx.push(Output::Count(Metric::DirectoryLost));
        }
        link.pinged = false;
        link.register_from = None;
        if let Some(wait) = link.dialer.closed(conn, cx.cfg.backoff, cx.rng) {
            common.timers.set(Timer::Dial(dn), Some(cx.now.after(wait)));
        }
        common.timers.clear(Timer::Ping(dn));
        common.timers.clear(Timer::Register(dn));
    }

    /// Pings a DN. Returns the connection to be closed, if the DN has not answered the last ping or sent `Welcome`.
    pub(super) fn ping(&mut self, cx: &mut Context<'_>, common: &mut Common, dn: u32) -> Option<ConnId> {
        let link = self.link_mut(dn)?;
        let conn = link.dialer.up()?;
        if core::mem::replace(&mut link.pinged, true) || !link.welcomed {
            return Some(conn);
        }
        cx.push(Output::DirectorySend { conn, msg: ToDn::Ping });
        common.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
        None
    }

    /// Notes that a DN has sent a message. Returns whether the DN may send it now: first `Welcome`, then all others.
    /// `None` if the connection is not open.
    fn is_in_place(&mut self, conn: ConnId, msg: &FromDn) -> Option<bool> {
        let link = self.links.iter_mut().find(|link| link.dialer.up() == Some(conn))?;
        link.pinged = false;
        let is_welcome = matches!(msg, FromDn::Welcome(_));
        Some(matches!(msg, FromDn::Ping | FromDn::Pong) || link.welcomed != is_welcome)
    }

    /// Begins to register all sessions at a DN that has sent `Welcome`.
    fn on_welcome(&mut self, cx: &mut Context<'_>, common: &mut Common, sessions: &mut Sessions, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        if let Some(link) = self.link_mut(dn) {
            link.welcomed = true;
            link.dialer.proven();
            link.register_from = Some(SessionId(0));
        }
        self.register_more(cx, common, sessions, dn);
    }

    /// Registers the next batch of sessions at a DN, and asks their clients to send their whole inventories (RE-ADD).
    /// Not all at once, since that would overload the DN.
    pub(super) fn register_more(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        sessions: &mut Sessions,
        dn: u32,
    ) {
        let Some(link) = self.links.get(dn as usize).filter(|d| d.welcomed) else { return };
        let (Some(conn), Some(from)) = (link.conn(), link.register_from) else { return };
        let batch: Vec<(SessionId, ConnId)> = sessions.from(from).take(REGISTER_BATCH).collect();
        let spread_ms = u32::try_from(cx.cfg.readd_spread.as_millis()).unwrap_or(u32::MAX);
        for (_, client) in &batch {
            if let Some(entry) = sessions.entry(*client) {
                cx.push(Output::DirectorySend { conn, msg: ToDn::Peer(entry) });
                let readd = ToClient::ReaddRequest(ReaddRequest { spread_ms });
                cx.push(Output::ClientSend { conn: *client, msg: readd });
                sessions.refund_readd(cx, *client);
                let is_home = |seen: &Seen| rekeys::home(&seen.guid, cx.cfg.dns) == Some(dn);
                if let Some(seen) = sessions.seen(*client).filter(is_home) {
                    cx.push(Output::DirectorySend { conn, msg: ToDn::Seen(seen) });
                }
            }
        }
        let last = batch.last().filter(|_| batch.len() == REGISTER_BATCH).map(|(s, _)| SessionId(s.0 + 1));
        debug_assert!(last.is_none_or(|last| last > from), "each batch registers further sessions");
        if let Some(link) = self.link_mut(dn) {
            link.register_from = last;
        }
        common.timers.set(Timer::Register(dn), last.map(|_| cx.now.after(REGISTER_PAUSE)));
    }

    /// Closes all connections for good.
    pub(super) fn stop(&self, cx: &mut Context<'_>) {
        for conn in self.links.iter().filter_map(DnLink::conn) {
            cx.push(Output::DirectoryClose { conn });
        }
    }

    /// Asserts that each link has the timers that its state needs.
    pub(super) fn check(&self, common: &Common) {
        assert!(common.wall.is_some() || self.links.is_empty(), "without the time no DN is dialled");
        let is_set = |timer: Timer| common.timers.get(timer).is_some();
        for (dn, link) in (0..).zip(&self.links) {
            link.check(is_set(Timer::Dial(dn)), is_set(Timer::Ping(dn)), is_set(Timer::Register(dn)));
        }
    }
}

impl Cn {
    pub(super) fn on_directory_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.dns.on_closed(cx, &mut self.common, conn);
        self.queries.fail_of_dn(cx, &mut self.common, &self.sessions, conn);
    }

    pub(super) fn hang_up(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::DirectoryClose { conn });
        self.on_directory_closed(cx, conn);
    }

    pub(super) fn on_directory_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: FromDn) {
        let Some(is_in_place) = self.dns.is_in_place(conn, &msg) else { return };
        if !is_in_place {
            return self.hang_up(cx, conn);
        }
        match msg {
            FromDn::Welcome(_) => self.dns.on_welcome(cx, &mut self.common, &mut self.sessions, conn),
            FromDn::Selected(selected) => {
                self.queries.on_selected(cx, &mut self.common, &self.sessions, conn, selected);
            }
            FromDn::Nobody(nobody) => self.queries.on_nobody(cx, &mut self.common, &self.sessions, conn, nobody),
            FromDn::Deliver(deliver) => {
                self.meetings.on_deliver(cx, &mut self.common, &self.sessions, conn, deliver);
            }
            FromDn::Signalled(signalled) => self.on_signalled(cx, conn, signalled),
            FromDn::Challenge(of) => self.sessions.on_challenge(cx, &mut self.common, conn, of.session),
            FromDn::Cloned(of) => self.sessions.on_cloned(cx, of.session),
            FromDn::CheckCopy(doubted) => self.sessions.on_check_copy(cx, &doubted),
            FromDn::Ping => cx.push(Output::DirectorySend { conn, msg: ToDn::Pong }),
            FromDn::Pong => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_about_the_link_to_a_dn_fires() {
        assert_each_clause_fires(
            &DnLink::new(0),
            |link| link.check(true, false, false),
            &[
                ("a DN that is up has a connection", |link| link.welcomed = true),
                ("only a connected DN is pinged", |link| link.pinged = true),
                ("sessions are registered at DNs that are up", |link| link.register_from = Some(SessionId(0))),
                ("exactly a DN without connection is dialled", |link| _ = link.dialer.dial()),
            ],
        );
    }
}
