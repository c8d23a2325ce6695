//! Connections to the DNs. Every DN is told of every client; the first DN that is up answers the queries. A DN that
//! has restarted learns everything again: after each connect the CN registers its sessions, and requests the clients'
//! whole inventories (RE-ADD).

use super::{Cn, Context, Metric, Output, Timer};
use crate::ids::{ConnId, SessionId};
use crate::session::Dialer;
use crate::wire::control::{ReaddRequest, ToClient};
use crate::wire::directory::{DirectoryHello, FromDn, ToDn};
use alloc::vec::Vec;
use core::time::Duration;

/// Number of sessions registered at a DN in one batch; `REGISTER_PAUSE` follows each batch.
const REGISTER_BATCH: usize = 256;
const REGISTER_PAUSE: Duration = Duration::from_millis(20);
/// Interval of pings to a DN.
const PING_EVERY: Duration = Duration::from_secs(10);

/// Connection to one DN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DnLink {
    dialer: Dialer,
    /// Whether the DN has sent `Welcome`.
    welcomed: bool,
    /// Whether the last ping is unanswered.
    pinged: bool,
    /// First session that is still to be registered at the DN; `None` if all are registered.
    register_from: Option<SessionId>,
}

impl DnLink {
    pub(super) fn new(dn: u32) -> Self {
        let dialer = Dialer::new(ConnId::DIRECTORY.0 | u64::from(dn) << 32);
        Self { dialer, welcomed: false, pinged: false, register_from: None }
    }

    /// Asserts that exactly the timers that the link's state needs are set: to dial, to ping, and to register more
    /// sessions.
    pub(super) fn check(&self, dial: bool, ping: bool, register: bool) {
        let is_open = self.dialer.up().is_some();
        assert!(!self.welcomed || is_open, "a DN that is up has a connection");
        assert!(!self.pinged || is_open, "only a connected DN is pinged");
        assert!(self.register_from.is_none() || self.welcomed, "sessions are registered at DNs that are up");
        assert!(dial == self.dialer.conn().is_none(), "exactly a DN without connection is dialled");
        assert!(ping == is_open, "exactly a connected DN is pinged");
        assert!(register == self.register_from.is_some(), "the registration of sessions goes on to its end");
    }

    pub(super) const fn is_up(&self) -> bool {
        self.welcomed
    }

    pub(super) const fn conn(&self) -> Option<ConnId> {
        self.dialer.conn()
    }
}

impl Cn {
    fn dn_of(&self, conn: ConnId) -> Option<u32> {
        let at = self.dns.iter().position(|d| d.conn() == Some(conn))?;
        u32::try_from(at).ok()
    }

    fn dn_mut(&mut self, dn: u32) -> Option<&mut DnLink> {
        self.dns.get_mut(dn as usize)
    }

    /// Returns the connection of the first DN that is up.
    pub(super) fn first_dn(&self) -> Option<ConnId> {
        self.dns.iter().find(|d| d.welcomed).and_then(DnLink::conn)
    }

    /// Returns whether a connection is that of a DN that is up.
    pub(super) fn is_dn_up(&self, conn: ConnId) -> bool {
        self.dns.iter().any(|link| link.is_up() && link.conn() == Some(conn))
    }

    pub(super) fn tell_dns(&self, cx: &mut Context<'_>, msg: &ToDn) {
        for conn in self.dns.iter().filter(|d| d.welcomed).filter_map(DnLink::conn) {
            cx.push(Output::DirectorySend { conn, msg: msg.clone() });
        }
    }

    pub(super) fn dial_dn(&mut self, cx: &mut Context<'_>, dn: u32) {
        if let Some(conn) = self.dn_mut(dn).and_then(|d| d.dialer.dial()) {
            cx.push(Output::DirectoryDial { conn, dn });
        }
    }

    pub(super) fn on_directory_opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let cert = cx.cfg.cert.clone();
        if self.dn_mut(dn).is_some_and(|d| d.dialer.opened(conn)) {
            let hello = DirectoryHello { protocol: crate::wire::PROTOCOL, cert };
            cx.push(Output::DirectorySend { conn, msg: ToDn::Hello(hello) });
            self.common.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
        }
    }

    pub(super) fn on_directory_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let Some(link) = self.dns.get_mut(dn as usize) else { return };
        if core::mem::take(&mut link.welcomed) {
            cx.push(Output::Count(Metric::DirectoryLost));
        }
        link.pinged = false;
        link.register_from = None;
        if let Some(wait) = link.dialer.closed(conn, cx.cfg.backoff, cx.rng) {
            self.common.timers.set(Timer::Dial(dn), Some(cx.now.after(wait)));
        }
        self.common.timers.clear(Timer::Ping(dn));
        self.common.timers.clear(Timer::Register(dn));
        self.fail_queries_of_dn(cx, conn);
    }

    fn hang_up(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::DirectoryClose { conn });
        self.on_directory_closed(cx, conn);
    }

    pub(super) fn ping_dn(&mut self, cx: &mut Context<'_>, dn: u32) {
        let Some(link) = self.dn_mut(dn) else { return };
        let Some(conn) = link.dialer.up() else { return };
        if core::mem::replace(&mut link.pinged, true) || !link.welcomed {
            return self.hang_up(cx, conn);
        }
        cx.push(Output::DirectorySend { conn, msg: ToDn::Ping });
        self.common.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
    }

    pub(super) fn on_directory_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: FromDn) {
        let Some(dn) = self.dn_of(conn) else { return };
        let Some(link) = self.dns.get_mut(dn as usize).filter(|d| d.dialer.up().is_some()) else { return };
        link.pinged = false;
        let in_place = matches!(msg, FromDn::Ping | FromDn::Pong) || link.welcomed != matches!(msg, FromDn::Welcome(_));
        if !in_place {
            return self.hang_up(cx, conn);
        }
        match msg {
            FromDn::Welcome(_) => {
                link.welcomed = true;
                link.dialer.proven();
                link.register_from = Some(SessionId(0));
                self.register_more(cx, dn);
            }
            FromDn::Selected(selected) => self.on_selected(cx, conn, selected),
            FromDn::Nobody(nobody) => self.on_nobody(cx, conn, nobody),
            FromDn::Deliver(deliver) => self.on_deliver(cx, conn, deliver),
            FromDn::Signalled(signalled) => self.on_signalled(cx, conn, signalled),
            FromDn::Challenge(of) => self.on_challenge(cx, conn, of.session),
            FromDn::Cloned(of) => self.on_cloned(cx, of.session),
            FromDn::CheckCopy(doubted) => self.on_check_copy(cx, &doubted),
            FromDn::Ping => cx.push(Output::DirectorySend { conn, msg: ToDn::Pong }),
            FromDn::Pong => {}
        }
    }

    /// Registers the next batch of sessions at a DN, and asks their clients to send their whole inventories (RE-ADD).
    /// Not all at once, since that would overload the DN.
    pub(super) fn register_more(&mut self, cx: &mut Context<'_>, dn: u32) {
        let Some(link) = self.dns.get(dn as usize).filter(|d| d.welcomed) else { return };
        let (Some(conn), Some(from)) = (link.conn(), link.register_from) else { return };
        let batch: Vec<(SessionId, ConnId)> = self.sessions.from(from).take(REGISTER_BATCH).collect();
        let spread_ms = u32::try_from(cx.cfg.readd_spread.as_millis()).unwrap_or(u32::MAX);
        for (_, client) in &batch {
            if let Some(entry) = self.sessions.entry(*client) {
                cx.push(Output::DirectorySend { conn, msg: ToDn::Peer(entry) });
                let readd = ToClient::ReaddRequest(ReaddRequest { spread_ms });
                cx.push(Output::ClientSend { conn: *client, msg: readd });
                self.refund_readd(cx, *client);
                self.report_to_new_home(cx, dn, *client);
            }
        }
        let last = batch.last().filter(|_| batch.len() == REGISTER_BATCH).map(|(s, _)| SessionId(s.0 + 1));
        debug_assert!(last.is_none_or(|last| last > from), "each batch registers further sessions");
        if let Some(link) = self.dn_mut(dn) {
            link.register_from = last;
        }
        self.common.timers.set(Timer::Register(dn), last.map(|_| cx.now.after(REGISTER_PAUSE)));
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
