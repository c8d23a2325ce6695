//! The links to the DNs. Each DN is told of every client; the first that is up is asked. What a DN has forgotten
//! comes back from the clients: after each connect the CN registers its sessions again and asks their owners for
//! their inventories.

use super::clients::Client;
use super::{Cn, Context, Metric, Output, Timer};
use crate::ids::{ConnId, SessionId};
use crate::session::Dialer;
use crate::wire::control::{ControlMsg, ReaddRequest};
use crate::wire::directory::{DirectoryHello, DirectoryMsg};
use alloc::vec::Vec;
use core::time::Duration;

/// Clients told to a new DN at a time, and the pause after each lot.
const REGISTER_LOT: usize = 256;
const REGISTER_PAUSE: Duration = Duration::from_millis(20);
/// A DN is pinged this often.
const PING_EVERY: Duration = Duration::from_secs(10);

/// A DN's link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DnLink {
    dialer: Dialer,
    /// It has said `Welcome`.
    welcomed: bool,
    /// A ping is not answered yet.
    pinged: bool,
    /// Sessions from here on have yet to be registered, if any.
    register_from: Option<SessionId>,
}

impl DnLink {
    pub(super) fn new(dn: u32) -> Self {
        let dialer = Dialer::new((1 << 60) | (u64::from(dn) << 32));
        Self { dialer, welcomed: false, pinged: false, register_from: None }
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

    /// The connection of the first DN that is up.
    pub(super) fn first_dn(&self) -> Option<ConnId> {
        self.dns.iter().find(|d| d.welcomed).and_then(DnLink::conn)
    }

    pub(super) fn tell_dns(&self, cx: &mut Context<'_>, msg: &DirectoryMsg) {
        for conn in self.dns.iter().filter(|d| d.welcomed).filter_map(DnLink::conn) {
            cx.push(Output::DirectorySend { conn, msg: msg.clone() });
        }
    }

    pub(super) fn dial(&mut self, cx: &mut Context<'_>, dn: u32) {
        if let Some(conn) = self.dn_mut(dn).and_then(|d| d.dialer.dial()) {
            cx.push(Output::DirectoryDial { conn, dn });
        }
    }

    pub(super) fn directory_opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let cert = cx.cfg.cert.clone();
        if self.dn_mut(dn).is_some_and(|d| d.dialer.opened(conn)) {
            let hello = DirectoryHello { protocol: crate::wire::PROTOCOL, cert };
            cx.push(Output::DirectorySend { conn, msg: DirectoryMsg::Hello(hello) });
            self.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
        }
    }

    pub(super) fn directory_lost(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(dn) = self.dn_of(conn) else { return };
        let Some(link) = self.dns.get_mut(dn as usize) else { return };
        if core::mem::take(&mut link.welcomed) {
            cx.push(Output::Count(Metric::DirectoryLost));
        }
        link.pinged = false;
        link.register_from = None;
        if let Some(wait) = link.dialer.closed(conn, cx.cfg.backoff, cx.rng) {
            self.timers.set(Timer::Dial(dn), Some(cx.now.after(wait)));
        }
        self.timers.clear(Timer::Ping(dn));
        self.timers.clear(Timer::Register(dn));
        self.queries_lost_dn(cx, conn);
    }

    fn hang_up(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::DirectoryClose { conn });
        self.directory_lost(cx, conn);
    }

    pub(super) fn ping(&mut self, cx: &mut Context<'_>, dn: u32) {
        let Some(link) = self.dn_mut(dn) else { return };
        let Some(conn) = link.dialer.up() else { return };
        if core::mem::replace(&mut link.pinged, true) || !link.welcomed {
            return self.hang_up(cx, conn);
        }
        cx.push(Output::DirectorySend { conn, msg: DirectoryMsg::Ping });
        self.timers.set(Timer::Ping(dn), Some(cx.now.after(PING_EVERY)));
    }

    pub(super) fn directory_message(&mut self, cx: &mut Context<'_>, conn: ConnId, msg: DirectoryMsg) {
        let Some(dn) = self.dn_of(conn) else { return };
        let Some(link) = self.dns.get_mut(dn as usize).filter(|d| d.dialer.up().is_some()) else { return };
        link.pinged = false;
        match msg {
            DirectoryMsg::Welcome(_) if !link.welcomed => {
                link.welcomed = true;
                link.dialer.proven();
                link.register_from = Some(SessionId(0));
                self.register_more(cx, dn);
            }
            DirectoryMsg::Selected(selected) if link.welcomed => self.selected(cx, conn, selected),
            DirectoryMsg::Deliver(deliver) if link.welcomed => self.deliver(cx, conn, deliver),
            DirectoryMsg::Signalled(signalled) if link.welcomed => self.signalled(cx, conn, signalled),
            DirectoryMsg::Challenge(of) if link.welcomed => self.challenged(cx, conn, of.session),
            DirectoryMsg::Cloned(of) if link.welcomed => self.cloned(cx, of.session),
            DirectoryMsg::Ping => cx.push(Output::DirectorySend { conn, msg: DirectoryMsg::Pong }),
            DirectoryMsg::Pong => {}
            DirectoryMsg::Welcome(_)
            | DirectoryMsg::Selected(_)
            | DirectoryMsg::Deliver(_)
            | DirectoryMsg::Hello(_)
            | DirectoryMsg::Peer(_)
            | DirectoryMsg::Shares(_)
            | DirectoryMsg::Gone(_)
            | DirectoryMsg::Select(_)
            | DirectoryMsg::Relay(_)
            | DirectoryMsg::Signal(_)
            | DirectoryMsg::Unreceipted(_)
            | DirectoryMsg::Signalled(_)
            | DirectoryMsg::Seen(_)
            | DirectoryMsg::Challenge(_)
            | DirectoryMsg::Alive(_)
            | DirectoryMsg::Cloned(_)
            | DirectoryMsg::Outcome(_) => self.hang_up(cx, conn),
        }
    }

    /// Registers the next lot of sessions and asks their clients to RE-ADD: all at once would drown the DN.
    pub(super) fn register_more(&mut self, cx: &mut Context<'_>, dn: u32) {
        let Some(link) = self.dns.get(dn as usize).filter(|d| d.welcomed) else { return };
        let (Some(conn), Some(from)) = (link.conn(), link.register_from) else { return };
        let lot: Vec<(SessionId, ConnId)> =
            self.by_session.range(from..).take(REGISTER_LOT).map(|(s, c)| (*s, *c)).collect();
        let spread_ms = u32::try_from(cx.cfg.readd_spread.as_millis()).unwrap_or(u32::MAX);
        for (_, client) in &lot {
            if let Some(entry) = self.clients.get(client).and_then(Client::entry) {
                cx.push(Output::DirectorySend { conn, msg: DirectoryMsg::Peer(entry) });
                let readd = ControlMsg::ReaddRequest(ReaddRequest { spread_ms });
                cx.push(Output::ClientSend { conn: *client, msg: readd });
                self.give_back(cx, *client);
                self.tell_new_home(cx, dn, *client);
            }
        }
        let last = lot.last().filter(|_| lot.len() == REGISTER_LOT).map(|(s, _)| SessionId(s.0 + 1));
        if let Some(link) = self.dn_mut(dn) {
            link.register_from = last;
        }
        self.timers.set(Timer::Register(dn), last.map(|_| cx.now.after(REGISTER_PAUSE)));
    }
}
