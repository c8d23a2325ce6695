//! Copies of one installation, which have the same key and so the same GUID.
//!
//! A session whose client has crashed or changed its network looks like that of a copy too, but nobody answers on it.
//! So when sessions of two starts of one GUID are found, on this CN or by the GUID's home DN, each is pinged again.
//! Only if clients of both answer *after* that are they copies, since an installation's lock lets no start begin
//! before the last one has ended. Sessions without answer are closed. Copies are ordered to rekey; until then their
//! usage records count as before.

use super::{Cn, Context, Metric, Output, Timer};
use crate::accounting::rekeys;
use crate::ids::{ConnId, Guid, RecordId, SecondaryGuid, SessionId};
use crate::session::ledger_link;
use crate::wire::control::{Hello, Refusal, Retired, ToClient};
use crate::wire::directory::{OfSession, ToDn};
use crate::wire::records::{LedgerRecord, LogEvent, LogRecord, SignedRekey};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Maximum number of sessions of one GUID. More are a flood, or many machines made from one image, which then get
/// their new keys a few at a time.
pub(super) const COPIES_MAX: usize = 8;

/// Challenge of a session: a ping that shows whether its client still answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Challenge {
    /// Whether a ping is unanswered.
    pub(super) open: bool,
    /// Whether the client has answered the last challenge.
    pub(super) answered: bool,
    /// Connection of the DN that waits for the answer.
    pub(super) by: Option<ConnId>,
}

/// Rekey of a session's client: its new key's GUID, and whether the ledger has the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRekey {
    /// Record that retires the old GUID.
    record: RecordId,
    /// GUID of the new key.
    new: Guid,
    /// Whether the record is durable in the ledger.
    durable: bool,
}

impl Challenge {
    /// Asserts that exactly an open challenge has a time-out, and that a DN waits for an open one only.
    pub(super) fn check(&self, has_timeout: bool) {
        assert!(self.open == has_timeout, "exactly the open challenges have a time-out");
        assert!(!self.open || !self.answered, "an answered challenge is not open");
        assert!(self.open || self.by.is_none(), "a DN waits for an open challenge only");
    }
}

impl Cn {
    /// Returns the sessions of a GUID, each with the secondary GUID of its start.
    fn copies(&self, guid: Guid) -> impl Iterator<Item = (ConnId, SecondaryGuid)> + '_ {
        self.sessions.of_guid(guid).map(|(conn, session)| (conn, session.secondary))
    }

    /// Closes older sessions of the same start, before its new session opens. Returns `false` if there is a newer
    /// session of this start, or if the GUID has too many sessions.
    pub(super) fn replace_older_sessions(
        &mut self,
        cx: &mut Context<'_>,
        hello: &Hello,
        secondary: SecondaryGuid,
    ) -> bool {
        let others: Vec<_> = self.copies(hello.guid).collect();
        for (conn, start) in &others {
            let session = self.sessions.get(*conn);
            if *start == secondary {
                // connections of one start may be accepted in another order than they were made
                if session.is_some_and(|s| s.incarnation >= hello.incarnation) {
                    return false;
                }
                self.refuse(cx, *conn, Refusal::Replaced);
            }
        }
        self.copies(hello.guid).count() < COPIES_MAX
    }

    /// Handles a new session. If its GUID has sessions of other starts, all of them are challenged.
    pub(super) fn on_session_opened(&mut self, cx: &mut Context<'_>, conn: ConnId, guid: Guid) {
        let copies: Vec<_> = self.copies(guid).collect();
        if copies.len() > 1 {
            for (copy, _) in copies {
                self.challenge(cx, copy, None);
            }
        }
        if let Some(seen) = self.sessions.seen(conn) {
            self.dns.report_to_home(cx, seen);
        }
    }

    fn challenge(&mut self, cx: &mut Context<'_>, conn: ConnId, by: Option<ConnId>) {
        let Some(s) = self.sessions.get_mut(conn) else { return };
        s.challenge.by = by.or(s.challenge.by);
        s.challenge.answered = false;
        if !core::mem::replace(&mut s.challenge.open, true) {
            cx.push(Output::ClientSend { conn, msg: ToClient::Ping });
            self.common.timers.set(Timer::Challenge(conn), Some(cx.now.after(cx.cfg.answer_within)));
        }
    }

    /// Challenges a session, because a DN has found another session of its GUID.
    pub(super) fn on_challenge(&mut self, cx: &mut Context<'_>, dn: ConnId, session: SessionId) {
        if let Some(conn) = self.sessions.conn(session) {
            self.challenge(cx, conn, Some(dn));
        }
    }

    /// Handles a client's answer to a ping. Once clients of two starts have answered their challenges, those that have
    /// are ordered to rekey.
    pub(super) fn on_pong(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(s) = self.sessions.get_mut(conn).filter(|s| s.challenge.open) else {
            return;
        };
        let by = s.challenge.by.take();
        s.challenge = Challenge { open: false, answered: true, by: None };
        let (guid, session) = (s.guid, s.id);
        self.common.timers.clear(Timer::Challenge(conn));
        if let Some(dn) = by {
            self.dns.send(cx, dn, ToDn::Alive(OfSession { session }));
        }
        let alive: Vec<_> =
            self.copies(guid).filter(|(c, _)| self.sessions.get(*c).is_some_and(|s| s.challenge.answered)).collect();
        let starts: BTreeSet<_> = alive.iter().map(|(_, start)| *start).collect();
        if starts.len() > 1 {
            alive.iter().for_each(|(copy, _)| self.order_rekey(cx, *copy));
        }
    }

    /// Closes a session that has not answered its challenge in time.
    pub(super) fn on_challenge_timeout(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.refuse(cx, conn, Refusal::Replaced);
    }

    /// Orders a rekey because the home DN has found a copy alive on another CN.
    pub(super) fn on_cloned(&self, cx: &mut Context<'_>, session: SessionId) {
        if let Some(conn) = self.sessions.conn(session) {
            self.order_rekey(cx, conn);
        }
    }

    /// Orders a client to rekey, unless this session has sent a new key already.
    pub(super) fn order_rekey(&self, cx: &mut Context<'_>, conn: ConnId) {
        if self.sessions.get(conn).is_some_and(|s| s.rekey.is_none()) {
            cx.push(Output::Count(Metric::RekeyOrdered));
            cx.push(Output::ClientSend { conn, msg: ToClient::Rekey });
        }
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
            Some(PendingRekey { durable: true, new, .. }) => return Self::tell_retired(cx, conn, new),
            Some(_) => return,
            None if session.guid != guid || !rekeys::check(cx.cfg.verify, &signed) => {
                return self.refuse_violation(cx, conn);
            }
            None if !cx.cfg.ledger => return,
            None => {}
        }
        if !self.ledger.holds(id) && self.ledger.waiting() >= cx.cfg.usage_max as usize {
            // the client sends its rekey to the next CN, or to this one later: each session begins with it
            cx.push(Output::Count(Metric::LogDropped));
            return self.turn_away(cx, conn);
        }
        let new = Guid::of(&signed.rekey.new);
        if let Some(session) = self.sessions.get_mut(conn) {
            session.rekey = Some(PendingRekey { record: id, new, durable: false });
        }
        self.rekeys.insert(id, conn);
        let record = LogRecord { id, at_ms: self.common.now_ms(cx.now), guid, event: LogEvent::Rekeyed(signed) };
        self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Log(record)));
    }

    /// Handles a durable record. If it is a rekey, its client is told that the old GUID is retired.
    pub(super) fn on_durable_rekey(&mut self, cx: &mut Context<'_>, id: RecordId) {
        let Some(conn) = self.rekeys.remove(&id) else { return };
        cx.push(Output::Count(Metric::Rekeyed));
        let session = self.sessions.get_mut(conn);
        if let Some(rekey) = session.and_then(|s| s.rekey.as_mut()) {
            rekey.durable = true;
            let new = rekey.new;
            Self::tell_retired(cx, conn, new);
        }
    }

    fn tell_retired(cx: &mut Context<'_>, conn: ConnId, new: Guid) {
        cx.push(Output::ClientSend { conn, msg: ToClient::Retired(Retired { new }) });
    }
}
