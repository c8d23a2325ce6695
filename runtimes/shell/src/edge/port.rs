//! The edge machine's port: signs and seals grants, writes the spool, keeps the link to the ledger.

use super::catalogue::Files;
use super::door::Door;
use super::possession;
use super::spool::Spool;
use crate::drive::Port;
use crate::keys::Key;
use crate::link::{Cap, Event, Inlet, dial};
use crate::mailbox::{Permit, Receiver, Sender, TrySendError};
use crate::rt::Rt;
use crate::seals::Seals;
use std::collections::VecDeque;
use std::sync::Arc;
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::{ConnId, ReqId, VersionId};
use swarmedge_core::role::edge::io::Batch;
use swarmedge_core::role::edge::{Edge, Input, Metric, Output};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::ledger::LedgerMsg;
use swarmedge_core::wire::records::{Context, Grant, SealedGrant, ServerCert, SignedGrant};

/// Batches that wait for the spool.
pub(super) const BATCHES_MAX: usize = 1024;
/// Batches of one transaction.
const BATCHES_AT_ONCE: usize = 128;

/// A batch on its way to the spool, with the room for its answer.
pub(super) struct Write {
    req: ReqId,
    batch: Batch,
    done: Permit<Input>,
}

/// See the module.
pub(super) struct EdgePort<R: Rt> {
    pub(super) rt: R,
    pub(super) key: Key,
    pub(super) cert: ServerCert,
    pub(super) seals: Seals,
    pub(super) door: Door,
    pub(super) files: Files,
    pub(super) spool: Sender<Write>,
    pub(super) ledger: Option<String>,
    pub(super) ledger_tls: Arc<rustls::ClientConfig>,
    pub(super) ledgers: Inlet<LedgerMsg, Input>,
    pub(super) stopped: bool,
}

impl<R: Rt> EdgePort<R> {
    fn issue(&self, grant: &Grant) -> SealedGrant {
        let signature = self.key.sign(Context::Grant, &grant.to_bytes());
        self.seals.seal(&SignedGrant { grant: grant.clone(), signature, cert: self.cert.clone() })
    }

    fn prove(&self, req: ReqId, version: VersionId, challenge: Challenge, local: &mut VecDeque<Input>) {
        let Ok(permit) = self.door.inbox().reserve() else {
            return local.push_back(Input::Proven { req, own: None });
        };
        let (rt, files) = (self.rt.clone(), self.files.clone());
        self.rt.spawn(async move {
            let own = rt.blocking(move || possession::prove(&files, version, &challenge)).await;
            permit.send(Input::Proven { req, own });
        });
    }

    fn save(&self, req: ReqId, batch: Batch) -> Result<(), TrySendError<()>> {
        let done = self.door.inbox().reserve()?;
        let place = self.spool.reserve()?;
        place.send(Write { req, batch, done });
        Ok(())
    }
}

impl<R: Rt> Port<Edge> for EdgePort<R> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::IssueGrant { req, grant } => {
                let sealed = self.issue(&grant);
                self.door.answer(req, Ok((*grant, sealed)));
            }
            Output::DenyGrant { req, why } => self.door.answer(req, Err(why)),
            Output::Serve { req } => self.door.may_serve(req, true),
            Output::Withhold { req } => self.door.may_serve(req, false),
            Output::Pose { req, challenge } => self.door.pose(req, challenge),
            Output::ProofTaken { req, asked } => self.door.taken(req, asked),
            Output::Prove { req, version, challenge } => self.prove(req, version, challenge, local),
            Output::Save { req, batch } => {
                if self.save(req, batch).is_err() {
                    tracing::warn!("too much waits for the spool");
                    local.push_back(Input::Saved { req, ok: false });
                }
            }
            Output::LedgerDial { conn } => match &self.ledger {
                Some(addr) => dial(&self.rt, Arc::clone(&self.ledger_tls), addr, conn, &self.ledgers, Cap::SERVER),
                None => local.push_back(Input::LedgerClosed { conn }),
            },
            Output::LedgerSend { conn, msg } => self.ledgers.links.send(conn, &msg),
            Output::LedgerClose { conn } => self.ledgers.links.close(conn),
            Output::Count(metric) => count(metric),
            Output::Stopped => self.stopped = true,
        }
    }

    fn is_over(&self) -> bool {
        self.stopped
    }
}

fn count(metric: Metric) {
    metrics::counter!(metric.name()).increment(1);
}

/// An event of the ledger's link as an input.
pub(super) fn from_ledger(conn: ConnId, event: Event<LedgerMsg>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::LedgerOpened { conn },
        Event::Message(msg) => Input::Ledger { conn, msg },
        Event::Closed => Input::LedgerClosed { conn },
    })
}

/// Writes what comes to the spool, in order; what waits together becomes one transaction.
pub(super) async fn write_spool<R: Rt>(rt: R, spool: Spool, mut writes: Receiver<Write>) {
    let spool = Arc::new(spool);
    while let Some(first) = writes.recv().await {
        let mut waiting = vec![first];
        while waiting.len() < BATCHES_AT_ONCE
            && let Some(next) = writes.try_recv()
        {
            waiting.push(next);
        }
        let batches: Vec<Batch> = waiting.iter_mut().map(|w| std::mem::take(&mut w.batch)).collect();
        let own = Arc::clone(&spool);
        let ok = rt.blocking(move || own.write(&batches)).await;
        for write in waiting {
            write.done.send(Input::Saved { req: write.req, ok });
        }
    }
}
