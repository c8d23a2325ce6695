//! [`EdgeHandle`] connects HTTP requests with the edge machine: questions go to the machine's mailbox, and each answer
//! comes back to the waiting request by its [`ReqId`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::{Digest, ReqId};
use swarmedge_core::role::edge::Input;
use swarmedge_core::role::edge::io::{Completed, Denial, GrantAsked, ServedGrant};
use swarmedge_core::wire::records::{Grant, SealedGrant};
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};

/// Maximum number of requests of one kind that wait for the machine's answer at a time; more are refused.
const WAITING_MAX: usize = 4096;

/// The answer to a grant request: the grant and its sealed form, or why it was denied.
pub type GrantAnswer = Result<(Grant, SealedGrant), Denial>;

/// The machine's decision about bytes that an answer wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeDecision {
    /// Send the bytes; they are counted and billed.
    Counted,
    /// Send the bytes; they are given away unbilled.
    GivenAway,
    /// Do not send: uncounted bytes of this download could be billed again as peers' bytes.
    Withheld,
}

/// Senders to the requests that wait for the machine's answer, by request number.
type Waiting<T> = Rc<RefCell<BTreeMap<ReqId, Sender<T>>>>;

/// A handle to the edge machine; clones share its mailbox and its waiting requests.
#[derive(Clone)]
pub struct EdgeHandle {
    inbox: Sender<Input>,
    waiting_grant: Waiting<GrantAnswer>,
    waiting_serve: Waiting<ServeDecision>,
    waiting_completed: Waiting<Option<Challenge>>,
    waiting_proof: Waiting<bool>,
    next: Rc<Cell<ReqId>>,
}

impl EdgeHandle {
    /// Makes a handle to the machine that reads the other end of `inbox`.
    #[must_use]
    pub fn new(inbox: Sender<Input>) -> Self {
        Self {
            inbox,
            waiting_grant: Rc::default(),
            waiting_serve: Rc::default(),
            waiting_completed: Rc::default(),
            waiting_proof: Rc::default(),
            next: Rc::default(),
        }
    }

    /// Asks the machine for a grant; `ask` builds the request from its number.
    pub async fn grant(&self, ask: impl FnOnce(ReqId) -> GrantAsked) -> GrantAnswer {
        if self.waiting_grant.borrow().len() >= WAITING_MAX {
            return Err(Denial::Unavailable);
        }
        let req = self.next_req();
        let (_entry, mut answer) = WaitingEntry::take(&self.waiting_grant, req);
        if self.inbox.send(Input::GrantAsked(Box::new(ask(req)))).await.is_err() {
            return Err(Denial::Unavailable);
        }
        answer.recv().await.unwrap_or(Err(Denial::Unavailable))
    }

    fn next_req(&self) -> ReqId {
        let mut next = self.next.get();
        let req = next.step();
        self.next.set(next);
        req
    }

    /// Waits for the machine's decision whether `bytes` more bytes of a download may be sent.
    pub async fn serve(&self, grant: Box<Grant>, bytes: u64) -> ServeDecision {
        let req = self.next_req();
        let (_entry, mut answer) = WaitingEntry::take(&self.waiting_serve, req);
        // if the machine has ended, nothing can be counted any more
        let if_ended = if grant.is_edge_only() { ServeDecision::GivenAway } else { ServeDecision::Withheld };
        match self.inbox.send(Input::SendRequested { req, grant, bytes }).await {
            Ok(()) => answer.recv().await.unwrap_or(if_ended),
            Err(_) => if_ended,
        }
    }

    /// Reports a completed download; returns the possession challenge for its client, if it gets one. The outer `None`
    /// means that too many requests wait or the machine has ended.
    pub async fn report_completed(&self, done: impl FnOnce(ReqId) -> Completed) -> Option<Option<Challenge>> {
        let req = self.next_req();
        let input = Input::Completed(Box::new(done(req)));
        self.ask(&self.waiting_completed, req, input).await
    }

    /// Passes a client's possession proof to the machine; returns whether a proof was due. `None` means that too many
    /// requests wait or the machine has ended.
    pub async fn check_proof(&self, grant: ServedGrant, proof: Digest) -> Option<bool> {
        let req = self.next_req();
        self.ask(&self.waiting_proof, req, Input::Proof { req, grant, proof }).await
    }

    async fn ask<T: Send>(&self, waiting: &Waiting<T>, req: ReqId, input: Input) -> Option<T> {
        if waiting.borrow().len() >= WAITING_MAX {
            return None;
        }
        let (_entry, mut answer) = WaitingEntry::take(waiting, req);
        self.inbox.send(input).await.ok()?;
        answer.recv().await
    }

    /// Answers the waiting [`Self::serve`] with the machine's decision.
    pub fn answer_serve(&self, req: ReqId, decision: ServeDecision) {
        send_answer(&self.waiting_serve, req, decision);
    }

    /// Answers the waiting [`Self::grant`].
    pub fn answer_grant(&self, req: ReqId, answer: GrantAnswer) {
        send_answer(&self.waiting_grant, req, answer);
    }

    /// Answers the waiting [`Self::report_completed`].
    pub fn answer_completed(&self, req: ReqId, challenge: Option<Challenge>) {
        send_answer(&self.waiting_completed, req, challenge);
    }

    /// Answers the waiting [`Self::check_proof`].
    pub fn answer_proof(&self, req: ReqId, was_due: bool) {
        send_answer(&self.waiting_proof, req, was_due);
    }

    /// Returns the machine's mailbox.
    #[must_use]
    pub const fn inbox(&self) -> &Sender<Input> {
        &self.inbox
    }
}

/// Sends an answer to the waiting request; does nothing if the request was dropped.
fn send_answer<T: Send>(waiting: &Waiting<T>, req: ReqId, answer: T) {
    if let Some(tx) = waiting.borrow_mut().remove(&req) {
        let _ = tx.try_send(answer);
    }
}

/// A request's entry in [`Waiting`], removed on drop, also when the request is cancelled.
struct WaitingEntry<'a, T> {
    req: ReqId,
    waiting: &'a Waiting<T>,
}

impl<'a, T: Send> WaitingEntry<'a, T> {
    fn take(waiting: &'a Waiting<T>, req: ReqId) -> (Self, Receiver<T>) {
        let (tx, answer) = mailbox(1);
        waiting.borrow_mut().insert(req, tx);
        (Self { req, waiting }, answer)
    }
}

impl<T> Drop for WaitingEntry<'_, T> {
    fn drop(&mut self) {
        self.waiting.borrow_mut().remove(&self.req);
    }
}
