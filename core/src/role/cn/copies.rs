//! Copies of one installation: they have one key, so one GUID. A session that is left behind by a crash or a change of
//! network looks the same, but nobody answers on it. So where sessions of two starts of one GUID meet, here or by the
//! word of the GUID's home DN, each is pinged anew, and only those whose clients answer *after* both were there are two
//! copies: an installation's lock lets no start begin before the one before it has ended. Who does not answer is gone.
//! Copies are told to take keys of their own; what they do meanwhile counts as before.

use super::clients::Client;
use super::{Cn, Context, Metric, Output, Timer};
use crate::accounting::rekeys;
use crate::ids::{ConnId, Guid, RecordId, SecondaryGuid, SessionId};
use crate::session::ledger_link;
use crate::wire::control::{ControlMsg, Refusal, Retired};
use crate::wire::directory::{DirectoryMsg, OfSession, Seen};
use crate::wire::records::{LedgerRecord, LogEvent, LogRecord, SignedRekey};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Sessions of one GUID at a time. More are a flood, or many machines from one image: they come again, one by one.
pub(super) const COPIES_MAX: usize = 8;

/// Whether a session's client still answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Challenge {
    /// A ping is out.
    pub(super) open: bool,
    /// It was answered.
    pub(super) answered: bool,
    /// The DN that wants to know.
    pub(super) by: Option<ConnId>,
}

/// The key that a session's client has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Taken {
    /// What the ledger is told.
    record: RecordId,
    /// The GUID that follows.
    new: Guid,
    /// The ledger has it.
    durable: bool,
}

impl Cn {
    /// Sessions of a GUID, each with its start.
    fn copies(&self, guid: Guid) -> impl Iterator<Item = (ConnId, SecondaryGuid)> + '_ {
        let conns = self.by_guid.get(&guid).into_iter().flatten();
        conns.filter_map(|c| Some((*c, self.clients.get(c)?.session()?.secondary)))
    }

    /// A session of this start is about to begin: what of the same start is older goes, what is of another start must
    /// show that it is alive. `false`: there is a newer session of the same start, or there are too many.
    pub(super) fn make_way(
        &mut self,
        cx: &mut Context<'_>,
        guid: Guid,
        (secondary, incarnation): (SecondaryGuid, u64),
    ) -> bool {
        let others: Vec<_> = self.copies(guid).collect();
        for (conn, start) in &others {
            let theirs = self.clients.get(conn).and_then(Client::session);
            if *start == secondary {
                // connections of one start may be accepted in another order than they were made
                if theirs.is_some_and(|s| s.incarnation >= incarnation) {
                    return false;
                }
                self.refuse(cx, *conn, Refusal::Replaced);
            }
        }
        self.copies(guid).count() < COPIES_MAX
    }

    /// A session has begun. Where others of its GUID are of other starts, all must show that they are alive.
    pub(super) fn begun(&mut self, cx: &mut Context<'_>, conn: ConnId, guid: Guid) {
        let copies: Vec<_> = self.copies(guid).collect();
        if copies.len() > 1 {
            for (copy, _) in copies {
                self.challenge(cx, copy, None);
            }
        }
        self.tell_home(cx, conn);
    }

    /// Tells the GUID's home DN of a session, if that DN is up.
    fn tell_home(&self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(s) = self.clients.get(&conn).and_then(Client::session) else { return };
        let home = rekeys::home(&s.guid, cx.cfg.dns).and_then(|dn| self.dns.get(dn as usize));
        if let Some(dn) = home.filter(|dn| dn.is_up()).and_then(super::DnLink::conn) {
            let seen = Seen { session: s.id, guid: s.guid, secondary: s.secondary };
            cx.push(Output::DirectorySend { conn: dn, msg: DirectoryMsg::Seen(seen) });
        }
    }

    /// The same for a DN that has come up: of the sessions whose home it is.
    pub(super) fn tell_new_home(&self, cx: &mut Context<'_>, dn: u32, conn: ConnId) {
        let of = self.clients.get(&conn).and_then(Client::session).map(|s| s.guid);
        if of.and_then(|guid| rekeys::home(&guid, cx.cfg.dns)) == Some(dn) {
            self.tell_home(cx, conn);
        }
    }

    fn challenge(&mut self, cx: &mut Context<'_>, conn: ConnId, by: Option<ConnId>) {
        let Some(s) = self.clients.get_mut(&conn).and_then(Client::session_mut) else { return };
        s.challenge.by = by.or(s.challenge.by);
        s.challenge.answered = false;
        if !core::mem::replace(&mut s.challenge.open, true) {
            cx.push(Output::ClientSend { conn, msg: ControlMsg::Ping });
            self.timers.set(Timer::Challenge(conn), Some(cx.now.after(cx.cfg.answer_within)));
        }
    }

    /// A DN doubts a session.
    pub(super) fn challenged(&mut self, cx: &mut Context<'_>, dn: ConnId, session: SessionId) {
        if let Some(&conn) = self.by_session.get(&session) {
            self.challenge(cx, conn, Some(dn));
        }
    }

    /// A client has answered a ping.
    pub(super) fn answered(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(s) = self.clients.get_mut(&conn).and_then(Client::session_mut).filter(|s| s.challenge.open) else {
            return;
        };
        let by = s.challenge.by.take();
        s.challenge = Challenge { open: false, answered: true, by: None };
        let (guid, session) = (s.guid, s.id);
        self.timers.clear(Timer::Challenge(conn));
        if let Some(dn) = by.filter(|by| self.dns.iter().any(|dn| dn.is_up() && dn.conn() == Some(*by))) {
            cx.push(Output::DirectorySend { conn: dn, msg: DirectoryMsg::Alive(OfSession { session }) });
        }
        let alive: Vec<_> = self
            .copies(guid)
            .filter(|(c, _)| self.clients.get(c).and_then(Client::session).is_some_and(|s| s.challenge.answered))
            .collect();
        let starts: BTreeSet<_> = alive.iter().map(|(_, start)| *start).collect();
        if starts.len() > 1 {
            alive.iter().for_each(|(copy, _)| self.order_rekey(cx, *copy));
        }
    }

    /// Nobody has answered: the session was left behind.
    pub(super) fn unanswered(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.refuse(cx, conn, Refusal::Replaced);
    }

    /// The home DN has heard that a copy on another CN is alive too.
    pub(super) fn cloned(&self, cx: &mut Context<'_>, session: SessionId) {
        if let Some(&conn) = self.by_session.get(&session) {
            self.order_rekey(cx, conn);
        }
    }

    /// Who has taken another key already has no use for an order.
    pub(super) fn order_rekey(&self, cx: &mut Context<'_>, conn: ConnId) {
        if self.clients.get(&conn).and_then(Client::session).is_some_and(|s| s.taken.is_none()) {
            cx.push(Output::Count(Metric::RekeyOrdered));
            cx.push(Output::ClientSend { conn, msg: ControlMsg::Rekey });
        }
    }

    /// A client has made another key. Its old GUID's end goes to the ledger, and the answer back once it is there.
    ///
    /// One key a session, and not one an order: an order may have come over a session before this one, or from a CN
    /// that has died since; and whoever forks its own log is ordered again and again.
    pub(super) fn rekeyed(&mut self, cx: &mut Context<'_>, conn: ConnId, signed: SignedRekey) {
        let Some(session) = self.clients.get(&conn).and_then(Client::session) else { return };
        let (guid, id) = (Guid::of(&signed.rekey.old), rekeys::record_id(&signed));
        match session.taken {
            Some(taken) if taken.record != id => return self.violation(cx, conn),
            Some(Taken { durable: true, new, .. }) => return Self::tell_retired(cx, conn, new),
            Some(_) => return,
            None if session.guid != guid || !rekeys::check(cx.cfg.verify, &signed) => return self.violation(cx, conn),
            None if !cx.cfg.ledger => return,
            None => {}
        }
        if !self.ledger.holds(id) && self.ledger.waiting() >= cx.cfg.usage_max as usize {
            // it tells the next CN, or this one later: each session begins with that
            cx.push(Output::Count(Metric::LogDropped));
            return self.turn_away(cx, conn);
        }
        let new = Guid::of(&signed.rekey.new);
        if let Some(session) = self.clients.get_mut(&conn).and_then(Client::session_mut) {
            session.taken = Some(Taken { record: id, new, durable: false });
        }
        self.rekeys.insert(id, conn);
        let record = LogRecord { id, at_ms: self.now_ms(cx.now), guid, event: LogEvent::Rekeyed(signed) };
        self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Log(record)));
    }

    /// A record is durable: if it is a GUID's end, its client may go on under the new one.
    pub(super) fn retired(&mut self, cx: &mut Context<'_>, id: RecordId) {
        let Some(conn) = self.rekeys.remove(&id) else { return };
        cx.push(Output::Count(Metric::Rekeyed));
        let session = self.clients.get_mut(&conn).and_then(Client::session_mut);
        if let Some(taken) = session.and_then(|s| s.taken.as_mut()) {
            taken.durable = true;
            let new = taken.new;
            Self::tell_retired(cx, conn, new);
        }
    }

    fn tell_retired(cx: &mut Context<'_>, conn: ConnId, new: Guid) {
        cx.push(Output::ClientSend { conn, msg: ControlMsg::Retired(Retired { new }) });
    }
}
