//! Meetings: both peers of an introduction open their NATs, then both are told to go. The querier's CN is the broker;
//! the other one's passes "opened" and "go" on, through the DN that passed the introduction.

use super::clients::Client;
use super::{Cn, Context, Metric, Output, Timer};
use crate::ids::{ConnId, IntroId, SessionId};
use crate::nat::connectivity::Role;
use crate::wire::control::{ControlMsg, Go, Outcome};
use crate::wire::directory::{DirectoryMsg, PairOutcome, Route, Signal, Signalled, Step};

/// Guests at a time; of more no step is passed on, and their peers go without them.
const GUESTS_MAX: usize = 65_536;

/// How to reach a peer of a meeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// This CN's client, which asked.
    Own(ConnId),
    /// Any CN's client, by way of a DN.
    Far { dn: ConnId, route: Route },
}

/// A client of this CN that another CN's client (or another of its own) was introduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guest {
    client: ConnId,
    dn: ConnId,
    /// The querier.
    back: Route,
}

impl Cn {
    /// Hands an introduction's steps on for a while.
    pub(super) fn add_guest(
        &mut self,
        cx: &mut Context<'_>,
        intro: IntroId,
        client: ConnId,
        (dn, back): (ConnId, Route),
    ) {
        if self.guests.len() < GUESTS_MAX {
            self.guests.insert(intro, Guest { client, dn, back });
            self.timers.set(Timer::Guest(intro), Some(cx.now.after(cx.cfg.broker.keep)));
        }
    }

    pub(super) fn guest_expired(&mut self, intro: IntroId) {
        self.guests.remove(&intro);
    }

    fn asks_for(&self, intro: IntroId, conn: ConnId) -> bool {
        self.broker.peer(intro, Role::Downloader) == Some(&Party::Own(conn))
    }

    /// One of this CN's clients has opened its NAT.
    pub(super) fn opened(&mut self, cx: &mut Context<'_>, conn: ConnId, intro: IntroId) {
        if self.asks_for(intro, conn) {
            let peers = self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Downloader);
            return self.send_off(cx, intro, peers);
        }
        if let Some(guest) = self.guests.get(&intro).filter(|g| g.client == conn) {
            self.signal(cx, guest.dn, Signal { route: guest.back, intro, what: Step::Opened });
        }
    }

    fn signal(&self, cx: &mut Context<'_>, dn: ConnId, signal: Signal) {
        if self.dns.iter().any(|d| d.is_up() && d.conn() == Some(dn)) {
            cx.push(Output::DirectorySend { conn: dn, msg: DirectoryMsg::Signal(signal) });
        }
    }

    /// Another CN passes a step on.
    pub(super) fn signalled(&mut self, cx: &mut Context<'_>, dn: ConnId, signalled: Signalled) {
        let Signalled { session, intro, what } = signalled;
        let Some(&client) = self.by_session.get(&session) else { return };
        match what {
            Step::Opened => {
                let other = self.broker.peer(intro, Role::Uploader);
                let its = matches!(other, Some(Party::Far { dn: d, .. }) if *d == dn);
                if its && self.asks_for(intro, client) {
                    let peers = self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Uploader);
                    self.send_off(cx, intro, peers);
                }
            }
            Step::Go if self.guests.get(&intro).is_some_and(|g| g.client == client) => self.send_go(cx, client, intro),
            Step::Go => {}
        }
    }

    fn send_go(&self, cx: &mut Context<'_>, conn: ConnId, intro: IntroId) {
        if self.clients.contains_key(&conn) {
            cx.push(Output::ClientSend { conn, msg: ControlMsg::Go(Go { intro }) });
        }
    }

    fn send_off(&self, cx: &mut Context<'_>, intro: IntroId, peers: Option<[Party; 2]>) {
        for party in peers.into_iter().flatten() {
            match party {
                Party::Own(conn) => self.send_go(cx, conn, intro),
                Party::Far { dn, route } => self.signal(cx, dn, Signal { route, intro, what: Step::Go }),
            }
        }
    }

    /// Meetings whose time has come.
    pub(super) fn meetings_due(&mut self, cx: &mut Context<'_>) {
        while let Some((intro, peers)) = self.broker.pop_due(cx.now, &cx.cfg.broker) {
            self.send_off(cx, intro, peers);
        }
    }

    /// A peer says how its attempt ended. The downloader's word is counted, and told to the DN, which learns.
    pub(super) fn outcome(&mut self, cx: &mut Context<'_>, conn: ConnId, outcome: Outcome) {
        let Outcome { intro, attempt } = outcome;
        if self.guests.get(&intro).is_some_and(|g| g.client == conn) && !self.asks_for(intro, conn) {
            self.guests.remove(&intro);
            return self.timers.clear(Timer::Guest(intro));
        }
        let connected = attempt.failure.is_none();
        cx.push(Output::Count(if connected { Metric::Connected } else { Metric::NotConnected }));
        if !self.asks_for(intro, conn) {
            return;
        }
        let session: Option<SessionId> = self.clients.get(&conn).and_then(Client::session).map(|s| s.id);
        let peers = self.broker.done(intro);
        if let (Some([_, Party::Far { dn, route }]), Some(session)) = (peers, session)
            && self.dns.iter().any(|d| d.is_up() && d.conn() == Some(dn))
        {
            let msg = DirectoryMsg::Outcome(PairOutcome { session, route, attempt });
            cx.push(Output::DirectorySend { conn: dn, msg });
        }
    }
}
