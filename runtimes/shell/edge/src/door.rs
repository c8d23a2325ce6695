//! Where HTTP requests meet the edge machine: questions go to its mailbox, its answers come back by request number.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::{Digest, ReqId};
use swarmedge_core::role::edge::Input;
use swarmedge_core::role::edge::io::{Completed, Denial, GrantAsked, ServedGrant};
use swarmedge_core::wire::records::{Grant, SealedGrant};
use swarmedge_ground::mailbox::{Receiver, Sender, mailbox};

/// Grant requests that wait for the machine at a time.
const WAITING_MAX: usize = 4096;

/// A grant as its asker gets it.
pub type Issued = Result<(Grant, SealedGrant), Denial>;

/// Whether bytes of a download may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// They may, and are counted.
    Counted,
    /// They may, and are given away.
    Given,
    /// They may not: peers could be paid for them.
    Withheld,
}

/// Those who wait for the machine, by their number.
type Waiting<T> = Rc<RefCell<BTreeMap<ReqId, Sender<T>>>>;

/// The way to the machine; clones are the same way.
#[derive(Clone)]
pub struct Door {
    inbox: Sender<Input>,
    waiting: Waiting<Issued>,
    serving: Waiting<Leave>,
    posing: Waiting<Option<Challenge>>,
    proving: Waiting<bool>,
    next: Rc<Cell<ReqId>>,
}

impl Door {
    /// To the machine that reads the other end of `inbox`.
    #[must_use]
    pub fn new(inbox: Sender<Input>) -> Self {
        Self {
            inbox,
            waiting: Rc::default(),
            serving: Rc::default(),
            posing: Rc::default(),
            proving: Rc::default(),
            next: Rc::default(),
        }
    }

    /// Asks for a grant; `ask` is given the request's number.
    pub async fn grant(&self, ask: impl FnOnce(ReqId) -> GrantAsked) -> Issued {
        if self.waiting.borrow().len() >= WAITING_MAX {
            return Err(Denial::Unavailable);
        }
        let req = self.number();
        let (_place, mut answer) = Place::take(&self.waiting, req);
        if self.inbox.send(Input::GrantAsked(Box::new(ask(req)))).await.is_err() {
            return Err(Denial::Unavailable);
        }
        answer.recv().await.unwrap_or(Err(Denial::Unavailable))
    }

    fn number(&self) -> ReqId {
        let mut next = self.next.get();
        let req = next.step();
        self.next.set(next);
        req
    }

    /// Waits until it is known whether so many bytes of a download may be sent.
    pub async fn serve(&self, grant: Box<Grant>, bytes: u64) -> Leave {
        let req = self.number();
        let (_place, mut answer) = Place::take(&self.serving, req);
        // where the machine has gone nothing is counted any more
        let gone = if grant.is_edge_only() { Leave::Given } else { Leave::Withheld };
        match self.inbox.send(Input::SendRequested { req, grant, bytes }).await {
            Ok(()) => answer.recv().await.unwrap_or(gone),
            Err(_) => gone,
        }
    }

    /// Tells of a completed download: what its client is asked for. None if too many wait, or the machine has gone.
    pub async fn completed(&self, done: impl FnOnce(ReqId) -> Completed) -> Option<Option<Challenge>> {
        let req = self.number();
        let input = Input::Completed(Box::new(done(req)));
        self.ask(&self.posing, req, input).await
    }

    /// Tells of a client's proof: whether it was asked for.
    pub async fn proof(&self, grant: ServedGrant, proof: Digest) -> Option<bool> {
        let req = self.number();
        self.ask(&self.proving, req, Input::Proof { req, grant, proof }).await
    }

    async fn ask<T: Send>(&self, waiting: &Waiting<T>, req: ReqId, input: Input) -> Option<T> {
        if waiting.borrow().len() >= WAITING_MAX {
            return None;
        }
        let (_place, mut answer) = Place::take(waiting, req);
        self.inbox.send(input).await.ok()?;
        answer.recv().await
    }

    /// Whether they may.
    pub fn may_serve(&self, req: ReqId, leave: Leave) {
        give(&self.serving, req, leave);
    }

    /// The machine's answer.
    pub fn answer(&self, req: ReqId, issued: Issued) {
        give(&self.waiting, req, issued);
    }

    /// The machine's answer to [`Self::completed`].
    pub fn pose(&self, req: ReqId, challenge: Option<Challenge>) {
        give(&self.posing, req, challenge);
    }

    /// The machine's answer to [`Self::proof`].
    pub fn taken(&self, req: ReqId, asked: bool) {
        give(&self.proving, req, asked);
    }

    /// The machine's mailbox.
    #[must_use]
    pub const fn inbox(&self) -> &Sender<Input> {
        &self.inbox
    }
}

/// Answers whoever waits, who may have gone.
fn give<T: Send>(waiting: &Waiting<T>, req: ReqId, answer: T) {
    if let Some(tx) = waiting.borrow_mut().remove(&req) {
        let _ = tx.try_send(answer);
    }
}

/// Whoever stops waiting takes the place away.
struct Place<'a, T> {
    req: ReqId,
    waiting: &'a Waiting<T>,
}

impl<'a, T: Send> Place<'a, T> {
    fn take(waiting: &'a Waiting<T>, req: ReqId) -> (Self, Receiver<T>) {
        let (tx, answer) = mailbox(1);
        waiting.borrow_mut().insert(req, tx);
        (Self { req, waiting }, answer)
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.waiting.borrow_mut().remove(&self.req);
    }
}
