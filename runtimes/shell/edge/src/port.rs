//! The port of the edge machine: signs and seals grants, writes the spool, and keeps the link to the ledger.

use super::handle::{EdgeHandle, ServeDecision};
use super::keeper::Keeper;
use super::possession;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::{ConnId, ReqId, VersionId};
use swarmedge_core::role::edge::io::Uncountable;
use swarmedge_core::role::edge::{Edge, Input, Metric, Output};
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::ledger::{FromLedger, ToLedger};
use swarmedge_core::wire::records::{Grant, SealedGrant, ServerCert, SignedGrant, SigningContext};
use swarmedge_ground::drive::Port;
use swarmedge_ground::health::Health;
use swarmedge_ground::host::watched::WatchedLink;
use swarmedge_ground::keys::Key;
use swarmedge_ground::link::{Event, Inlet, dial};
use swarmedge_ground::rt::Rt;
use swarmedge_ground::seals::Seals;
use swarmedge_ground::spool::Saver;

/// Performs the outputs of the edge machine.
pub(super) struct EdgePort<R: Rt> {
    pub(super) rt: R,
    pub(super) key: Key,
    pub(super) cert: ServerCert,
    pub(super) seals: Seals,
    pub(super) machine: EdgeHandle,
    pub(super) keeper: Keeper<R>,
    pub(super) spool: Saver<Input>,
    pub(super) ledger: Option<String>,
    pub(super) ledger_tls: Arc<rustls::ClientConfig>,
    pub(super) ledgers: Inlet<ToLedger, FromLedger, Input>,
    pub(super) health: Health,
    /// The link to the ledger, if one is configured.
    pub(super) ledger_link: Option<WatchedLink>,
    /// Makes the spool refuse every batch while set: a fault injected by tests.
    pub(super) refuses: Arc<AtomicBool>,
    pub(super) stopped: bool,
}

/// Name of the `/healthz` entry that says that new downloads cannot be counted.
const COUNTING: &str = "edge counts";

impl<R: Rt> EdgePort<R> {
    fn issue(&self, grant: &Grant) -> SealedGrant {
        let signature = self.key.sign(SigningContext::Grant, &grant.to_bytes());
        self.seals.seal(&SignedGrant { grant: grant.clone(), signature, cert: self.cert.clone() })
    }

    fn counting(&self, can: Result<(), Uncountable>) {
        let why = match can {
            Ok(()) => {
                tracing::info!("new downloads are counted again, and may have peers");
                return self.health.clear(COUNTING);
            }
            Err(Uncountable::Refused) => "the spool cannot be written: see to its disk",
            Err(Uncountable::Full) => {
                "as many downloads as fit are under way or not taken by the ledger: see to the ledger"
            }
        };
        tracing::error!(why, "new downloads cannot be counted: they have no peers, and their bytes are given away");
        let consequence = "new downloads have no peers, and their bytes are not billed";
        self.health.set(COUNTING, format!("{why}; meanwhile {consequence}"));
    }

    fn compute_proof(&self, req: ReqId, version: VersionId, challenge: Challenge, local: &mut VecDeque<Input>) {
        let Ok(permit) = self.machine.inbox().reserve() else {
            return local.push_back(Input::Proven { req, own: None });
        };
        let (rt, keeper) = (self.rt.clone(), self.keeper.clone());
        self.rt.spawn(async move {
            let own = possession::compute_proof(&rt, &keeper, version, challenge).await;
            permit.send(Input::Proven { req, own });
        });
    }
}

impl<R: Rt> Port<Edge> for EdgePort<R> {
    fn perform(&mut self, output: Output, local: &mut VecDeque<Input>) {
        match output {
            Output::IssueGrant { req, grant } => {
                let sealed = self.issue(&grant);
                self.machine.answer_grant(req, Ok((*grant, sealed)));
            }
            Output::DenyGrant { req, why } => self.machine.answer_grant(req, Err(why)),
            Output::Serve { req, counted } => {
                self.machine.answer_serve(req, if counted { ServeDecision::Counted } else { ServeDecision::GivenAway });
            }
            Output::Withhold { req } => self.machine.answer_serve(req, ServeDecision::Withheld),
            Output::Counting(can) => self.counting(can),
            Output::AnswerCompleted { req, challenge } => self.machine.answer_completed(req, challenge),
            Output::AnswerProof { req, asked } => self.machine.answer_proof(req, asked),
            Output::Prove { req, version, challenge } => self.compute_proof(req, version, challenge, local),
            Output::Save { req, batch } => {
                if self.refuses.load(Ordering::Relaxed) || !self.spool.save(self.machine.inbox(), req, batch) {
                    local.push_back(Input::Saved { req, ok: false });
                }
            }
            Output::LedgerDial { conn } => match &self.ledger {
                Some(addr) => dial(&self.rt, Arc::clone(&self.ledger_tls), addr, conn, &self.ledgers),
                None => local.push_back(Input::LedgerClosed { conn }),
            },
            Output::LedgerSend { conn, msg } => self.ledgers.links.send(conn, &msg),
            Output::LedgerClose { conn } => self.ledgers.links.close(conn),
            Output::Count(metric) => count(metric, 1),
            Output::GaveAway { bytes } => count(Metric::GivenAway, bytes),
            Output::Stopped => self.stopped = true,
        }
    }

    fn observe(&mut self, edge: &Edge) {
        if let Some(link) = &mut self.ledger_link {
            link.note(edge.is_ledger_up());
        }
    }

    fn is_over(&self) -> bool {
        self.stopped
    }
}

fn count(metric: Metric, by: u64) {
    metrics::counter!(metric.name()).increment(by);
}

/// Converts an event of the ledger link to a machine input.
pub(super) fn from_ledger(conn: ConnId, event: Event<FromLedger>) -> Option<Input> {
    Some(match event {
        Event::Opened(_) => Input::LedgerOpened { conn },
        Event::Message(msg) => Input::Ledger { conn, msg },
        Event::Closed => Input::LedgerClosed { conn },
    })
}
