//! Where HTTP requests meet the edge machine: questions go to its mailbox, its answers come back by request number.

use crate::mailbox::{Sender, mailbox};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use swarmedge_core::ids::{ProviderId, ReqId, VersionId};
use swarmedge_core::role::edge::Input;
use swarmedge_core::role::edge::io::{Denial, GrantAsked, ServedGrant};
use swarmedge_core::wire::records::{Grant, SealedGrant};

/// Grant requests that wait for the machine at a time.
const WAITING_MAX: usize = 4096;

/// A grant as its asker gets it.
pub type Issued = Result<(Grant, SealedGrant), Denial>;

/// The way to the machine; clones are the same way.
#[derive(Clone)]
pub struct Door {
    inbox: Sender<Input>,
    waiting: Rc<RefCell<BTreeMap<ReqId, Sender<Issued>>>>,
    serving: Rc<RefCell<BTreeMap<ReqId, Sender<()>>>>,
    next: Rc<Cell<ReqId>>,
}

impl Door {
    /// To the machine that reads the other end of `inbox`.
    #[must_use]
    pub fn new(inbox: Sender<Input>) -> Self {
        Self { inbox, waiting: Rc::default(), serving: Rc::default(), next: Rc::default() }
    }

    /// Asks for a grant; `ask` is given the request's number.
    pub async fn grant(&self, ask: impl FnOnce(ReqId) -> GrantAsked) -> Issued {
        if self.waiting.borrow().len() >= WAITING_MAX {
            return Err(Denial::Unavailable);
        }
        let req = self.number();
        let (tx, mut answer) = mailbox(1);
        self.waiting.borrow_mut().insert(req, tx);
        // whoever stops waiting takes the place away
        let _place = Place { req, door: self };
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

    /// Waits until so many bytes of a download may be sent.
    pub async fn serve(self, grant: ServedGrant, version: VersionId, provider: ProviderId, bytes: u64) {
        let req = self.number();
        let (tx, mut answer) = mailbox(1);
        self.serving.borrow_mut().insert(req, tx);
        let _place = Turn { req, door: &self };
        if self.inbox.send(Input::Serving { req, grant, version, provider, bytes }).await.is_ok() {
            answer.recv().await.unwrap_or_default();
        }
    }

    /// They may.
    pub fn may_serve(&self, req: ReqId) {
        if let Some(tx) = self.serving.borrow_mut().remove(&req) {
            // whoever has waited may have gone
            let _ = tx.try_send(());
        }
    }

    /// The machine's answer.
    pub fn answer(&self, req: ReqId, issued: Issued) {
        if let Some(tx) = self.waiting.borrow_mut().remove(&req) {
            // the asker may have gone
            let _ = tx.try_send(issued);
        }
    }

    /// The machine's mailbox.
    #[must_use]
    pub const fn inbox(&self) -> &Sender<Input> {
        &self.inbox
    }
}

struct Turn<'a> {
    req: ReqId,
    door: &'a Door,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.door.serving.borrow_mut().remove(&self.req);
    }
}

struct Place<'a> {
    req: ReqId,
    door: &'a Door,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.door.waiting.borrow_mut().remove(&self.req);
    }
}
