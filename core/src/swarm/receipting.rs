//! Receipts on the downloader's side (DESIGN §10.3): what it owes to each uploader, when the next receipt is due, and
//! the last receipt before a connection ends. Signing is an effect.

use crate::accounting::receipts::CreditRule;
use crate::ids::{ConnId, ReqId, Signature, XferId};
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::PeerMsg;
use crate::wire::records::{Receipt, SignedReceipt};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::collections::BTreeMap;
use core::time::Duration;

/// An event for the receipts of a download.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// An uploader serves from now on: its bytes are receipted, beginning with this empty receipt (`seq` and bytes 0).
    Owe(ConnId, Receipt),
    /// A transfer from a peer begins.
    Fetching(XferId, ConnId),
    /// A peer's blocks of this many bytes are verified, and it was the first to deliver them.
    Verified(ConnId, u64),
    /// A transfer has ended, successfully or not.
    Over(XferId),
    /// The receipt is signed. `None`: the download's key was deleted, so no more receipts can be given.
    Signed(ReqId, Option<Signature>),
    /// Close the connection: at once if nothing was received over it, else after a last receipt.
    Close(ConnId, CloseReason),
    /// The connection has ended: no receipt can be sent over it.
    Gone(ConnId),
}

/// A command of the receipts to the client's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Sign a receipt with K_d; answered by [`Input::Signed`].
    Sign(ReqId, Receipt),
    /// Send a message to an uploader.
    Send(ConnId, PeerMsg),
    /// Close the connection for this reason.
    Close(ConnId, CloseReason),
}

/// Rule and time-out for receipts.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many bytes uploaders send without receipt.
    pub credit: CreditRule,
    /// Time-out for the uploader to close after the last receipt.
    pub part_within: Duration,
}

/// Receipts owed to uploaders, by connection. Invariant: each receipt covers only bytes that this client has verified,
/// block by block, each block once and for the uploader that delivered it first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Receipts {
    owed: BTreeMap<ConnId, Owed>,
    /// Transfers from peers that have not ended.
    fetching: BTreeMap<XferId, ConnId>,
    signing: BTreeMap<ReqId, ConnId>,
    next_req: ReqId,
    /// Deadline of the next receipt, or of the uploader's closing after the last one.
    due: Deadlines<ConnId>,
}

/// Receipt state of one uploader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owed {
    /// The last receipt, or the one being signed.
    receipt: Receipt,
    /// Bytes verified from this uploader, receipted or not.
    verified: u64,
    /// Number of transfers that have not ended.
    fetches: u32,
    signing: bool,
    /// When the last receipt was given.
    last: Time,
    /// Set while the connection is being closed.
    closing: Option<Closing>,
}

/// Progress of closing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Closing {
    /// Waiting for transfers to end and for the last receipt to be signed.
    Receipting(CloseReason),
    /// The last receipt was sent. The uploader closes the connection, so that the receipt is not lost on its way.
    Parting(CloseReason),
}

impl Closing {
    const fn why(self) -> CloseReason {
        match self {
            Self::Receipting(why) | Self::Parting(why) => why,
        }
    }
}

type Context<'a> = Cx<'a, Receipts>;

impl Receipts {
    /// Returns the verified and the receipted bytes of an uploader.
    #[must_use]
    pub fn of(&self, conn: ConnId) -> Option<(u64, u64)> {
        self.owed.get(&conn).map(|o| (o.verified, o.receipt.bytes))
    }

    /// Requests a signature for the next receipt if it is due, or else sets its deadline.
    fn receipt_if_due(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let rule = cx.cfg.credit;
        let Some(owed) = self.owed.get_mut(&conn) else { return };
        let new = owed.verified.saturating_sub(owed.receipt.bytes);
        if owed.signing {
            return;
        }
        let at = owed.last.after(rule.every);
        let due = match owed.closing {
            Some(Closing::Parting(_)) => return,
            Some(Closing::Receipting(_)) if owed.fetches > 0 => return,
            Some(Closing::Receipting(_)) if owed.verified == 0 => return self.close_now(cx, conn),
            Some(Closing::Receipting(why)) if new == 0 => {
                owed.closing = Some(Closing::Parting(why));
                return cx.push(Output::Send(conn, PeerMsg::GoingAway));
            }
            Some(Closing::Receipting(_)) => true,
            None => new > 0 && (new >= rule.due(owed.receipt.bytes) || at <= cx.now),
        };
        if due {
            owed.signing = true;
            owed.receipt.seq = owed.receipt.seq.saturating_add(1);
            owed.receipt.bytes = owed.verified;
            let req = self.next_req.step();
            self.signing.insert(req, conn);
            cx.push(Output::Sign(req, owed.receipt.clone()));
        } else if new > 0 && self.due.get(conn).is_none() {
            self.due.set(conn, Some(at));
        }
    }

    fn on_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Option<Signature>) {
        let Some(conn) = self.signing.remove(&req) else { return };
        let Some(owed) = self.owed.get_mut(&conn) else { return };
        let Some(signature) = signature else { return self.close_now(cx, conn) };
        owed.signing = false;
        owed.last = cx.now;
        let signed = SignedReceipt { receipt: owed.receipt.clone(), signature };
        cx.push(Output::Send(conn, PeerMsg::Receipt(signed)));
        if owed.closing.is_none() {
            self.due.clear(conn);
        }
        self.receipt_if_due(cx, conn);
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: ConnId, why: CloseReason) {
        match self.owed.get_mut(&conn) {
            Some(owed) if owed.verified > 0 || owed.fetches > 0 => {
                owed.closing = Some(Closing::Receipting(why));
                self.due.set(conn, Some(cx.now.after(cx.cfg.part_within)));
                self.receipt_if_due(cx, conn);
            }
            Some(_) | None => {
                self.forget(conn);
                cx.push(Output::Close(conn, why));
            }
        }
    }

    fn close_now(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let why = self.owed.get(&conn).and_then(|o| o.closing).map_or(CloseReason::Stalled, Closing::why);
        self.forget(conn);
        cx.push(Output::Close(conn, why));
    }

    fn forget(&mut self, conn: ConnId) {
        self.owed.remove(&conn);
        self.signing.retain(|_, of| *of != conn);
        self.fetching.retain(|_, of| *of != conn);
        self.due.clear(conn);
    }
}

impl Machine for Receipts {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Owe(conn, receipt) => {
                let owed = Owed { receipt, verified: 0, fetches: 0, signing: false, last: cx.now, closing: None };
                self.owed.insert(conn, owed);
            }
            Input::Fetching(xfer, conn) => {
                if let Some(owed) = self.owed.get_mut(&conn) {
                    owed.fetches += 1;
                    self.fetching.insert(xfer, conn);
                }
            }
            Input::Verified(conn, bytes) => {
                if let Some(owed) = self.owed.get_mut(&conn) {
                    owed.verified = owed.verified.saturating_add(bytes);
                    self.receipt_if_due(cx, conn);
                }
            }
            Input::Over(xfer) => {
                let Some(conn) = self.fetching.remove(&xfer) else { return };
                if let Some(owed) = self.owed.get_mut(&conn) {
                    owed.fetches = owed.fetches.saturating_sub(1);
                    self.receipt_if_due(cx, conn);
                }
            }
            Input::Signed(req, signature) => self.on_signed(cx, req, signature),
            Input::Close(conn, why) => self.close(cx, conn, why),
            Input::Gone(conn) => self.forget(conn),
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some(conn) = self.due.pop_due(cx.now) {
            match self.owed.get(&conn).map(|o| o.closing) {
                Some(Some(_)) => self.close_now(cx, conn),
                Some(None) => self.receipt_if_due(cx, conn),
                None => {}
            }
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.due.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.owed.values_mut().for_each(|o| o.last = o.last.rebased(by));
        self.due.rebase(by);
    }

    fn check(&self) {}
}
