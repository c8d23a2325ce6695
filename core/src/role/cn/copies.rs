//! Copies of one installation, which have the same key and so the same GUID.
//!
//! A session whose client has crashed or changed its network looks like that of a copy too, but nobody answers on it.
//! So when sessions of two starts of one GUID are found, on this CN or by the GUID's home DN, each is pinged again.
//! Only if clients of both answer *after* that are they copies, since an installation's lock lets no start begin
//! before the last one has ended. Sessions without answer are closed. Copies are ordered to rekey; until then their
//! usage records count as before.

use super::sessions::{COPIES_MAX, Challenge, PendingRekey, Session, Sessions};
use super::{Cn, Common, Context, Metric, Output, Timer};
use crate::accounting::rekeys;
use crate::ids::{ConnId, Guid, SecondaryGuid, SessionId};
use crate::wire::control::{Hello, Refusal, Retired, ToClient};
use crate::wire::directory::{OfSession, ToDn};
use crate::wire::records::{LedgerRecord, LogEvent, LogRecord, SignedRekey};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Sessions {
    /// Challenges all sessions of a GUID, if it has more than one, because a session has just opened.
    fn challenge_copies(&mut self, cx: &mut Context<'_>, common: &mut Common, guid: Guid) {
        let copies: Vec<ConnId> = self.of_guid(guid).map(|(conn, _)| conn).collect();
        if copies.len() > 1 {
            for copy in copies {
                self.challenge(cx, common, copy, None);
            }
        }
    }

    /// Challenges a session, because a DN has found another session of its GUID.
    pub(super) fn on_challenge(&mut self, cx: &mut Context<'_>, common: &mut Common, dn: ConnId, session: SessionId) {
        if let Some(conn) = self.conn(session) {
            self.challenge(cx, common, conn, Some(dn));
        }
    }

    fn challenge(&mut self, cx: &mut Context<'_>, common: &mut Common, conn: ConnId, by: Option<ConnId>) {
        let Some(s) = self.get_mut(conn) else { return };
        s.challenge.by = by.or(s.challenge.by);
        s.challenge.answered = false;
        if !core::mem::replace(&mut s.challenge.open, true) {
            cx.push(Output::ClientSend { conn, msg: ToClient::Ping });
            common.timers.set(Timer::Challenge(conn), Some(cx.now.after(cx.cfg.answer_within)));
        }
    }

    /// Closes an open challenge whose client has answered, and returns it as it was.
    fn answered(&mut self, common: &mut Common, conn: ConnId) -> Option<Challenge> {
        let s = self.get_mut(conn).filter(|s| s.challenge.open)?;
        common.timers.clear(Timer::Challenge(conn));
        Some(core::mem::replace(&mut s.challenge, Challenge { open: false, answered: true, by: None }))
    }

    /// Orders the sessions of a GUID that have answered their challenges to rekey, if they are of two starts.
    fn order_copies_to_rekey(&self, cx: &mut Context<'_>, guid: Guid) {
        let alive: Vec<_> = self.of_guid(guid).filter(|(_, session)| session.challenge.answered).collect();
        let starts: BTreeSet<_> = alive.iter().map(|(_, session)| session.secondary).collect();
        if starts.len() > 1 {
            alive.iter().for_each(|(copy, _)| self.order_rekey(cx, *copy));
        }
    }

    /// Orders a rekey because the home DN has found a copy alive on another CN.
    pub(super) fn on_cloned(&self, cx: &mut Context<'_>, session: SessionId) {
        if let Some(conn) = self.conn(session) {
            self.order_rekey(cx, conn);
        }
    }

    /// Orders a client to rekey, unless this session has sent a new key already.
    pub(super) fn order_rekey(&self, cx: &mut Context<'_>, conn: ConnId) {
        if self.get(conn).is_some_and(|s| s.rekey.is_none()) {
            cx.push(Output::Count(Metric::RekeyOrdered));
            cx.push(Output::ClientSend { conn, msg: ToClient::Rekey });
        }
    }

    /// Tells the client of a durable rekey that its old GUID is retired.
    pub(super) fn on_rekey_durable(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        cx.push(Output::Count(Metric::Rekeyed));
        let session = self.get_mut(conn);
        if let Some(rekey) = session.and_then(|s| s.rekey.as_mut()) {
            rekey.durable = true;
            tell_retired(cx, conn, rekey.new);
        }
    }
}

fn tell_retired(cx: &mut Context<'_>, conn: ConnId, new: Guid) {
    cx.push(Output::ClientSend { conn, msg: ToClient::Retired(Retired { new }) });
}

impl Cn {
    /// Closes older sessions of the same start, before its new session opens. Returns `false` if there is a newer
    /// session of this start, or if the GUID has too many sessions.
    pub(super) fn replace_older_sessions(
        &mut self,
        cx: &mut Context<'_>,
        hello: &Hello,
        secondary: SecondaryGuid,
    ) -> bool {
        let of_start = |(conn, s): (ConnId, &Session)| (s.secondary == secondary).then_some((conn, s.incarnation));
        let others: Vec<_> = self.sessions.of_guid(hello.guid).filter_map(of_start).collect();
        for (conn, incarnation) in others {
            // connections of one start may be accepted in another order than they were made
            if incarnation >= hello.incarnation {
                return false;
            }
            self.refuse(cx, conn, Refusal::Replaced);
        }
        self.sessions.of_guid(hello.guid).count() < COPIES_MAX
    }

    /// Handles a new session. If its GUID has sessions of other starts, all of them are challenged.
    pub(super) fn on_session_opened(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(seen) = self.sessions.seen(conn) else { return };
        self.sessions.challenge_copies(cx, &mut self.common, seen.guid);
        self.dns.report_to_home(cx, seen);
    }

    /// Handles a client's answer to a ping. Once clients of two starts have answered their challenges, those that have
    /// are ordered to rekey.
    pub(super) fn on_pong(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(challenge) = self.sessions.answered(&mut self.common, conn) else { return };
        let Some((session, guid)) = self.sessions.get(conn).map(|s| (s.id, s.guid)) else { return };
        if let Some(dn) = challenge.by {
            self.dns.send(cx, dn, ToDn::Alive(OfSession { session }));
        }
        self.sessions.order_copies_to_rekey(cx, guid);
    }

    /// Checks a client's new key and sends its rekey record to the ledger; `Retired` answers once that is durable.
    ///
    /// A session may bring one key, ordered or not: the order may have come over an earlier session or from a CN that
    /// has crashed. More are refused, since a client that forks its log gets orders again and again.
    pub(super) fn on_rekeyed(&mut self, cx: &mut Context<'_>, conn: ConnId, signed: SignedRekey) {
        let Some(session) = self.sessions.get(conn) else { return };
        let (guid, id) = (Guid::of(&signed.rekey.old), rekeys::record_id(&signed));
        match session.rekey {
            Some(rekey) if rekey.record != id => return self.refuse_violation(cx, conn),
            Some(PendingRekey { durable: true, new, .. }) => return tell_retired(cx, conn, new),
            Some(_) => return,
            None if session.guid != guid || !rekeys::check(cx.cfg.verify, &signed) => {
                return self.refuse_violation(cx, conn);
            }
            None if !cx.cfg.ledger => return,
            None => {}
        }
        if !self.recording.ledger.holds(id) && self.recording.ledger.waiting() >= cx.cfg.usage_max as usize {
            // the client sends its rekey to the next CN, or to this one later: each session begins with it
            cx.push(Output::Count(Metric::LogDropped));
            return self.turn_away(cx, conn, Metric::Busy);
        }
        let new = Guid::of(&signed.rekey.new);
        if let Some(session) = self.sessions.get_mut(conn) {
            session.rekey = Some(PendingRekey { record: id, new, durable: false });
        }
        self.recording.rekeys.insert(id, conn);
        let record = LogRecord { id, at_ms: self.common.now_ms(cx.now), guid, event: LogEvent::Rekeyed(signed) };
        self.recording.submit(cx, LedgerRecord::Log(record));
    }
}
