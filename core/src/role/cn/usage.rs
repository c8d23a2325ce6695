//! Clients' reports about bytes.
//!
//! Reports of missing receipts go to the DNs, which select peers. Usage records with their log heads go to the ledger;
//! once they are durable there the client gets an acknowledgement, with a signed checkpoint of the newest head. A
//! record beyond the limits is dropped without acknowledgement, so its client keeps it and sends it again.

use super::{Cn, Context, Metric, Output};
use crate::accounting::{introductions, logs};
use crate::ids::{ConnId, Guid, RecordId, ReqId, Signature};
use crate::machine::Machine as _;
use crate::session::{LedgerLink, ledger_link};
use crate::wire::control::{ToClient, Unreceipted, UsageAck};
use crate::wire::directory::{self, ToDn};
use crate::wire::records::{Checkpoint, LedgerRecord, Logged, SignedCheckpoint, SignedHead, SigningContext};
use crate::wire::{List, Wire as _};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Part of [`super::Config::usage_max`] that only log heads may use, as a divisor.
const EVIDENCE_SHARE: u32 = 64;
/// Largest number of GUIDs whose forked log is in the ledger that are remembered.
pub(super) const FORKED_MAX: usize = 4_096;

/// A usage record on its way to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reported {
    /// Connection that it last came over.
    conn: ConnId,
    /// Head of the reporter's log right after this record.
    head: SignedHead,
}

/// Acknowledgement whose checkpoint is being signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ack {
    conn: ConnId,
    ids: List<RecordId, 256>,
    checkpoint: Checkpoint,
}

impl Cn {
    /// Forwards an uploader's report of missing receipts to the DNs. Only the uploader named in the introduction may
    /// report it, and only soon after.
    pub(super) fn on_unreceipted(&self, cx: &mut Context<'_>, conn: ConnId, report: &Unreceipted) {
        let i = &report.intro.intro;
        let named = self.sessions.get(conn).is_some_and(|s| s.upload_key == i.uploader_key);
        if named && introductions::check_ended(&cx.cfg.trust(), &report.intro, self.common.now_ms(cx.now)).is_ok() {
            let (owed, receipted) = (report.owed, report.receipted);
            let report = directory::Unreceipted { download: i.download, intro: i.id, owed, receipted };
            self.dns.tell(cx, &ToDn::Unreceipted(report));
        }
    }

    /// Forwards a usage record to the ledger. A record that is on its way already keeps the log head that it was
    /// submitted with: no checkpoint names a head that the ledger lacks. A record beyond the limit costs no check of
    /// its signature; so a CN that loses its client before the ledger is back never sees whether that record forks a
    /// log.
    pub(super) fn on_usage(&mut self, cx: &mut Context<'_>, conn: ConnId, logged: Logged) {
        if self.sessions.get(conn).is_none_or(|s| s.guid != logged.record.reporter) {
            return self.refuse_violation(cx, conn);
        }
        cx.push(Output::Count(Metric::UsageReceived));
        let (id, head) = (logged.record.id, logged.head.clone());
        let is_pending = self.ledger.holds(id);
        // a part of the room is reserved for the evidence of forked logs
        let most = cx.cfg.usage_max - cx.cfg.usage_max / EVIDENCE_SHARE;
        if !is_pending && self.ledger.waiting() >= most as usize {
            return cx.push(Output::Count(Metric::UsageDeferred));
        }
        if logs::check(cx.cfg.verify, &logged).is_err() {
            return self.refuse_violation(cx, conn);
        }
        self.compare_log_head(cx, conn, &head);
        if is_pending {
            if let Some(reported) = self.usage.get_mut(&id).filter(|r| r.head.key == head.key) {
                reported.conn = conn;
            }
            return;
        }
        self.usage.insert(id, Reported { conn, head });
        self.with_ledger(cx, ledger_link::Input::Submit(LedgerRecord::Usage(logged)));
    }

    /// Compares a log head with the newest one known of the client's log, from its records or from the checkpoint in
    /// `Hello`. Two heads that contradict each other are evidence: both go to the ledger, and the client is ordered to
    /// rekey. One fork of a GUID is evidence enough.
    fn compare_log_head(&mut self, cx: &mut Context<'_>, conn: ConnId, head: &SignedHead) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let guid = session.guid;
        let newer = |known: &SignedHead| known.head.start != head.head.start || known.head.place < head.head.place;
        let forked = session.log.as_ref().filter(|known| logs::contradict(&known.head, &head.head)).cloned();
        if session.log.as_ref().is_none_or(newer) {
            session.log = Some(head.clone());
        }
        if let Some(known) = forked {
            cx.push(Output::Count(Metric::LogForked));
            self.keep_evidence(cx, guid, [known, head.clone()]);
            self.sessions.order_rekey(cx, conn);
        }
    }

    /// Sends two contradicting log heads to the ledger, once for each GUID. Without room for both they are dropped, and
    /// the next fork is kept in their place.
    fn keep_evidence(&mut self, cx: &mut Context<'_>, guid: Guid, heads: [SignedHead; 2]) {
        if !cx.cfg.ledger || !cx.cfg.logs || self.forked.contains(&guid) {
            return;
        }
        if self.ledger.waiting() + heads.len() > cx.cfg.usage_max as usize {
            return cx.push(Output::Count(Metric::LogDropped));
        }
        if self.forked.len() >= FORKED_MAX {
            // at worst its next fork is stored too
            self.forked.pop_first();
        }
        self.forked.insert(guid);
        heads.into_iter().for_each(|head| self.log_head(cx, guid, head));
    }

    fn link_config(cx: &Context<'_>) -> ledger_link::Config {
        ledger_link::Config::new(cx.cfg.cert.clone(), cx.cfg.backoff)
    }

    pub(super) fn with_ledger(&mut self, cx: &mut Context<'_>, input: ledger_link::Input) {
        let cfg = Self::link_config(cx);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_input(cx, input));
        self.on_ledger_outputs(cx, outputs);
    }

    pub(super) fn on_ledger_timer(&mut self, cx: &mut Context<'_>) {
        let cfg = Self::link_config(cx);
        let ledger = &mut self.ledger;
        let outputs = cx.child::<LedgerLink>(&cfg, |cx| ledger.handle_timeout(cx));
        self.on_ledger_outputs(cx, outputs);
    }

    fn on_ledger_outputs(&mut self, cx: &mut Context<'_>, outputs: Vec<ledger_link::Output>) {
        for output in outputs {
            match output {
                ledger_link::Output::Dial(conn) => cx.push(Output::LedgerDial { conn }),
                ledger_link::Output::Send(conn, msg) => cx.push(Output::LedgerSend { conn, msg }),
                ledger_link::Output::Close(conn) => cx.push(Output::LedgerClose { conn }),
                ledger_link::Output::Acked(ids) => self.on_durable(cx, ids),
                ledger_link::Output::Quarantined(guids) => self.on_quarantine(cx, guids),
                // a blamed client has proven that it has the right bytes
                ledger_link::Output::Proven(proven) => self.dns.tell(cx, &ToDn::Proven(proven)),
            }
        }
    }

    fn on_durable(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let mut by_conn: BTreeMap<ConnId, Vec<(RecordId, SignedHead)>> = BTreeMap::new();
        for id in ids {
            cx.push(Output::Count(Metric::UsageStored));
            self.unspool(cx, id);
            self.on_offer_recorded(cx, id);
            if let Some(conn) = self.rekeys.remove(&id) {
                self.sessions.on_rekey_durable(cx, conn);
            }
            let reported = self.usage.remove(&id).filter(|r| self.sessions.is_connected(r.conn));
            if let Some(Reported { conn, head }) = reported {
                by_conn.entry(conn).or_default().push((id, head));
            }
        }
        for (conn, records) in by_conn {
            for page in records.chunks(List::<RecordId, 256>::MAX) {
                self.acknowledge(cx, conn, page);
            }
        }
    }

    fn acknowledge(&mut self, cx: &mut Context<'_>, conn: ConnId, records: &[(RecordId, SignedHead)]) {
        let Some((_, newest)) = records.iter().max_by_key(|(_, head)| head.head.place) else { return };
        let checkpoint = Checkpoint { head: newest.clone(), at_ms: self.common.now_ms(cx.now) };
        let message = checkpoint.to_bytes();
        let ids = List::truncated(records.iter().map(|(id, _)| *id));
        let req = self.common.next_req.step();
        self.acks.insert(req, Ack { conn, ids, checkpoint });
        cx.push(Output::Sign { req, context: SigningContext::Checkpoint, message });
    }

    /// Sends an acknowledgement, whose checkpoint is now signed.
    pub(super) fn on_checkpoint_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Signature) {
        let Some(Ack { conn, ids, checkpoint }) = self.acks.remove(&req) else { return };
        if self.sessions.is_connected(conn) {
            let checkpoint = Some(SignedCheckpoint { checkpoint, signature, cert: cx.cfg.cert.clone() });
            cx.push(Output::ClientSend { conn, msg: ToClient::UsageAck(UsageAck { ids, checkpoint }) });
        }
    }
}
