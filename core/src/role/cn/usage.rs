//! Clients' reports about bytes.
//!
//! Reports of missing receipts go to the DNs, which select peers. Usage records with their log heads go to the ledger;
//! once they are durable there the client gets an acknowledgement, with a signed checkpoint of the newest head. A
//! record beyond the limits is dropped without acknowledgement, so its client keeps it and sends it again.

use super::sessions::Sessions;
use super::{Cn, Common, Context, Metric, Output};
use crate::accounting::{introductions, logs};
use crate::ids::{ConnId, Guid, RecordId, ReqId, Signature};
use crate::wire::control::{ToClient, Unreceipted, UsageAck};
use crate::wire::directory::{self, ToDn};
use crate::wire::records::{Checkpoint, LedgerRecord, Logged, SignedCheckpoint, SignedHead, SigningContext};
use crate::wire::{List, Wire as _};
use alloc::collections::{BTreeMap, BTreeSet};
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

/// Usage records of clients until these have their acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Usage {
    /// Usage records on their way to the ledger, and whom to acknowledge them to.
    pub(super) reported: BTreeMap<RecordId, Reported>,
    /// GUIDs with a forked log of which the evidence was sent to the ledger.
    pub(super) forked: BTreeSet<Guid>,
    /// Acknowledgements whose checkpoints are being signed.
    pub(super) acks: BTreeMap<ReqId, Ack>,
}

impl Usage {
    /// Returns whether the evidence of a GUID's forked log was sent to the ledger.
    pub(super) fn has_forked(&self, guid: Guid) -> bool {
        self.forked.contains(&guid)
    }

    /// Notes that the evidence of a GUID's forked log is sent to the ledger.
    pub(super) fn note_forked(&mut self, guid: Guid) {
        if self.forked.len() >= FORKED_MAX {
            // at worst its next fork is stored too
            self.forked.pop_first();
        }
        self.forked.insert(guid);
    }

    /// Notes the connection of a record that has come again. The record keeps the log head that it was submitted
    /// with: no checkpoint names a head that the ledger lacks.
    fn repeat(&mut self, conn: ConnId, id: RecordId, head: &SignedHead) {
        if let Some(reported) = self.reported.get_mut(&id).filter(|r| r.head.key == head.key) {
            reported.conn = conn;
        }
    }

    /// Has the checkpoint of an acknowledgement of durable records signed.
    fn acknowledge(
        &mut self,
        cx: &mut Context<'_>,
        common: &mut Common,
        conn: ConnId,
        records: &[(RecordId, SignedHead)],
    ) {
        let Some((_, newest)) = records.iter().max_by_key(|(_, head)| head.head.place) else { return };
        let checkpoint = Checkpoint { head: newest.clone(), at_ms: common.now_ms(cx.now) };
        let message = checkpoint.to_bytes();
        let ids = List::truncated(records.iter().map(|(id, _)| *id));
        let req = common.next_req.step();
        self.acks.insert(req, Ack { conn, ids, checkpoint });
        cx.push(Output::Sign { req, context: SigningContext::Checkpoint, message });
    }

    /// Returns whether a signature with this number is of an acknowledgement.
    pub(super) fn is_signing(&self, req: ReqId) -> bool {
        self.acks.contains_key(&req)
    }

    /// Returns the numbers of the signatures of acknowledgements.
    pub(super) fn reqs(&self) -> impl Iterator<Item = ReqId> {
        self.acks.keys().copied()
    }

    /// Returns the usage records on their way to the ledger.
    pub(super) fn reports(&self) -> impl Iterator<Item = RecordId> {
        self.reported.keys().copied()
    }

    /// Sends an acknowledgement, whose checkpoint is now signed.
    pub(super) fn on_checkpoint_signed(
        &mut self,
        cx: &mut Context<'_>,
        sessions: &Sessions,
        req: ReqId,
        signature: Signature,
    ) {
        let Some(Ack { conn, ids, checkpoint }) = self.acks.remove(&req) else { return };
        if sessions.is_connected(conn) {
            let checkpoint = Some(SignedCheckpoint { checkpoint, signature, cert: cx.cfg.cert.clone() });
            cx.push(Output::ClientSend { conn, msg: ToClient::UsageAck(UsageAck { ids, checkpoint }) });
        }
    }

    /// Asserts that the list of forked logs is bounded.
    pub(super) fn check(&self) {
        assert!(self.forked.len() <= FORKED_MAX, "the list of forked logs is bounded");
    }
}

impl Sessions {
    /// Compares a log head with the newest one known of the client's log, from its records or from the checkpoint in
    /// `Hello`. Returns both if they contradict each other.
    fn compare_log_head(&mut self, conn: ConnId, head: &SignedHead) -> Option<[SignedHead; 2]> {
        let session = self.get_mut(conn)?;
        let newer = |known: &SignedHead| known.head.start != head.head.start || known.head.place < head.head.place;
        let forked = session.log.as_ref().filter(|known| logs::contradict(&known.head, &head.head)).cloned();
        if session.log.as_ref().is_none_or(newer) {
            session.log = Some(head.clone());
        }
        forked.map(|known| [known, head.clone()])
    }
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

    /// Forwards a usage record to the ledger. If its log head contradicts the newest one known, both heads are evidence
    /// and go to the ledger, and the client is ordered to rekey; one fork of a GUID is evidence enough. A record beyond
    /// the limit costs no check of its signature; so a CN that loses its client before the ledger is back never sees
    /// whether that record forks a log.
    pub(super) fn on_usage(&mut self, cx: &mut Context<'_>, conn: ConnId, logged: Logged) {
        if self.sessions.get(conn).is_none_or(|s| s.guid != logged.record.reporter) {
            return self.refuse_violation(cx, conn);
        }
        cx.push(Output::Count(Metric::UsageReceived));
        let (id, head) = (logged.record.id, logged.head.clone());
        let is_pending = self.recording.ledger.holds(id);
        // a part of the room is reserved for the evidence of forked logs
        let most = cx.cfg.usage_max - cx.cfg.usage_max / EVIDENCE_SHARE;
        if !is_pending && self.recording.ledger.waiting() >= most as usize {
            return cx.push(Output::Count(Metric::UsageDeferred));
        }
        if logs::check(cx.cfg.verify, &logged).is_err() {
            return self.refuse_violation(cx, conn);
        }
        if let Some(heads) = self.sessions.compare_log_head(conn, &head) {
            cx.push(Output::Count(Metric::LogForked));
            self.recording.keep_evidence(cx, &self.common, logged.record.reporter, heads);
            self.sessions.order_rekey(cx, conn);
        }
        if is_pending {
            return self.recording.usage.repeat(conn, id, &head);
        }
        self.recording.usage.reported.insert(id, Reported { conn, head });
        self.recording.submit(cx, LedgerRecord::Usage(logged));
    }

    /// Handles records that are now durable in the ledger: each is what a query, a rekey or an uploader waits for.
    pub(super) fn on_durable(&mut self, cx: &mut Context<'_>, ids: Vec<RecordId>) {
        let mut by_conn: BTreeMap<ConnId, Vec<(RecordId, SignedHead)>> = BTreeMap::new();
        for id in ids {
            cx.push(Output::Count(Metric::UsageStored));
            self.recording.spool.remove(cx, &mut self.common, id);
            self.on_offer_recorded(cx, id);
            if let Some(conn) = self.recording.rekeys.remove(&id) {
                self.sessions.on_rekey_durable(cx, conn);
            }
            let reported = self.recording.usage.reported.remove(&id).filter(|r| self.sessions.is_connected(r.conn));
            if let Some(Reported { conn, head }) = reported {
                by_conn.entry(conn).or_default().push((id, head));
            }
        }
        for (conn, records) in by_conn {
            for page in records.chunks(List::<RecordId, 256>::MAX) {
                self.recording.usage.acknowledge(cx, &mut self.common, conn, page);
            }
        }
    }
}
