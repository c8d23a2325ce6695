//! Receipts as a downloader gives them (DESIGN §10.3): what it owes to each of its uploaders, when the next receipt is
//! due, and the last one before a connection ends. Signing is an effect.

use crate::accounting::receipts::CreditRule;
use crate::ids::{ConnId, ReqId, Signature, XferId};
use crate::swarm::outcome::CloseReason;
use crate::wire::peer::PeerMsg;
use crate::wire::records::{Receipt, SignedReceipt};
use crate::{Cx, Deadlines, Machine, Time};
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A peer serves: what it delivers from here on is receipted, going on from this (`seq` and bytes 0).
    Owe(ConnId, Receipt),
    /// A transfer from a peer begins.
    Fetching(XferId, ConnId),
    /// Blocks of a peer are verified, and it was the first to deliver them.
    Verified(ConnId, u64),
    /// A transfer has ended.
    Over(XferId),
    /// A receipt is signed; `None`: the download's key is gone, and with it the right to be served.
    Signed(ReqId, Option<Signature>),
    /// End the connection: at once if nothing came over it, else with a last receipt.
    Close(ConnId, CloseReason),
    /// The connection is no more: nothing can be receipted over it.
    Gone(ConnId),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Sign with K_d; answered by [`Input::Signed`].
    Sign(ReqId, Receipt),
    /// Send to an uploader.
    Send(ConnId, PeerMsg),
    /// Close a connection.
    Close(ConnId, CloseReason),
}

/// When receipts are due.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What uploaders give on credit.
    pub credit: CreditRule,
    /// An uploader closes within this after the last receipt.
    pub part_within: Duration,
}

/// What is owed to uploaders, by connection. Invariant: what is signed for has been verified by this client, block by
/// block, each block once and for who delivered it first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Receipts {
    owed: BTreeMap<ConnId, Owed>,
    /// Transfers from peers, until they end.
    fetching: BTreeMap<XferId, ConnId>,
    signing: BTreeMap<ReqId, ConnId>,
    next_req: ReqId,
    /// A receipt is due, or an uploader has not closed.
    due: Deadlines<ConnId>,
}

/// What is owed to one uploader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owed {
    /// The last receipt, or the one that is being signed.
    receipt: Receipt,
    /// What was verified of it.
    verified: u64,
    /// Transfers that have not ended.
    fetches: u32,
    signing: bool,
    /// When the last receipt was given.
    last: Time,
    /// The connection ends as soon as everything is receipted.
    closing: Option<Closing>,
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Closing {
    /// Waits for transfers to end and for the last receipt.
    Receipting(CloseReason),
    /// The last receipt is given: the uploader closes, so that no receipt is lost on its way.
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
    /// What was verified of an uploader's blocks, and what of it is receipted.
    #[must_use]
    pub fn of(&self, conn: ConnId) -> Option<(u64, u64)> {
        self.owed.get(&conn).map(|o| (o.verified, o.receipt.bytes))
    }

    /// Has the next receipt signed if it is due, or sets the time at which it will be.
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
            Some(Closing::Receipting(_)) if owed.verified == 0 => return self.part(cx, conn),
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

    fn signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Option<Signature>) {
        let Some(conn) = self.signing.remove(&req) else { return };
        let Some(owed) = self.owed.get_mut(&conn) else { return };
        let Some(signature) = signature else { return self.part(cx, conn) };
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
                self.gone(conn);
                cx.push(Output::Close(conn, why));
            }
        }
    }

    fn part(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let why = self.owed.get(&conn).and_then(|o| o.closing).map_or(CloseReason::Stalled, Closing::why);
        self.gone(conn);
        cx.push(Output::Close(conn, why));
    }

    fn gone(&mut self, conn: ConnId) {
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
            Input::Signed(req, signature) => self.signed(cx, req, signature),
            Input::Close(conn, why) => self.close(cx, conn, why),
            Input::Gone(conn) => self.gone(conn),
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        while let Some(conn) = self.due.pop_due(cx.now) {
            match self.owed.get(&conn).map(|o| o.closing) {
                Some(Some(_)) => self.part(cx, conn),
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
}
