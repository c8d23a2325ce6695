//! The downloader's receipts to its uploaders: the bytes that each uploader has delivered, when its next receipt is
//! due, and the last receipt before a connection ends. Signatures are made by the shell.

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
    /// An uploader has accepted the connection. It gets receipts for its bytes, the next after this empty one (`seq`
    /// and bytes 0).
    Owe(ConnId, Receipt),
    /// A transfer from a peer begins.
    Fetching(XferId, ConnId),
    /// A peer's blocks of this many bytes are verified, and it was the first to deliver them.
    Verified(ConnId, u64),
    /// A transfer has ended, successfully or not.
    Over(XferId),
    /// The receipt is signed. `None`: the download's key was deleted, so no more receipts can be given.
    Signed(ReqId, Option<Signature>),
    /// The client wants the connection closed: at once if nothing was received over it, else after a last receipt.
    Close(ConnId, CloseReason),
    /// The connection has ended: no receipt can be sent over it.
    Gone(ConnId),
}

/// A command of [`Receipts`] to the client's machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Sign a receipt with the download's key; answered by [`Input::Signed`].
    Sign(ReqId, Receipt),
    /// Send a message to an uploader.
    Send(ConnId, PeerMsg),
    /// Close the connection for this reason.
    Close(ConnId, CloseReason),
}

/// Rule and time-out for receipts.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Rule for how many bytes an uploader sends before it needs a receipt.
    pub credit: CreditRule,
    /// Time-out for the uploader to close the connection after the last receipt.
    pub part_within: Duration,
}

/// The downloader's receipts to its uploaders, by connection. Invariant: each receipt covers only bytes that this
/// client has verified, block by block, each block once and for the uploader that delivered it first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Receipts {
    owed: BTreeMap<ConnId, Owed>,
    /// Transfers from peers that have not ended.
    fetching: BTreeMap<XferId, ConnId>,
    signing: BTreeMap<ReqId, ConnId>,
    next_req: ReqId,
    /// Deadline of the next receipt, or for the uploader to close the connection after the last receipt.
    due: Deadlines<ConnId>,
}

/// State of the receipts for one uploader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owed {
    /// The newest receipt for this uploader, which may still wait for its signature.
    receipt: Receipt,
    /// Bytes verified from this uploader, receipted or not.
    verified: u64,
    /// Number of transfers that have not ended.
    fetches: u32,
    signing: bool,
    /// Time at which the last receipt was signed and sent.
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
    /// Returns the reason for which the connection will be closed.
    const fn why(self) -> CloseReason {
        match self {
            Self::Receipting(why) | Self::Parting(why) => why,
        }
    }
}

type Context<'a> = Cx<'a, Receipts>;

impl Receipts {
    /// Returns how many bytes of an uploader are verified, and for how many of them receipts were given; `None` if
    /// the connection is unknown.
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
        let Some(owed) = self.owed.get_mut(&conn) else {
            // whoever is forgotten has no receipt that is being signed
            return debug_assert!(false, "a receipt that is being signed is owed");
        };
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

    fn on_input(&mut self, cx: &mut Context<'_>, input: Input) {
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
                    debug_assert!(owed.fetches > 0, "a transfer that ends was counted");
                    owed.fetches = owed.fetches.saturating_sub(1);
                    self.receipt_if_due(cx, conn);
                }
            }
            Input::Signed(req, signature) => self.on_signed(cx, req, signature),
            Input::Close(conn, why) => self.close(cx, conn, why),
            Input::Gone(conn) => self.forget(conn),
        }
    }

    /// Returns the connection that an event is about.
    fn conn_of(&self, input: &Input) -> Option<ConnId> {
        match input {
            Input::Owe(conn, _) | Input::Fetching(_, conn) | Input::Verified(conn, _) => Some(*conn),
            Input::Close(conn, _) | Input::Gone(conn) => Some(*conn),
            Input::Over(xfer) => self.fetching.get(xfer).copied(),
            Input::Signed(req, _) => self.signing.get(req).copied(),
        }
    }

    /// Asserts the invariants of one uploader's receipts, without a loop over the others.
    fn check_one(&self, conn: ConnId) {
        let Some(owed) = self.owed.get(&conn) else { return };
        assert!(owed.receipt.bytes <= owed.verified, "a receipt covers verified bytes only");
        let due = self.due.get(conn).is_some();
        assert!(owed.closing.is_none() || due, "a connection that is being closed has a deadline");
        let waits = owed.closing.is_none() && !owed.signing && owed.receipt.bytes < owed.verified;
        assert!(!waits || due, "bytes without receipt have a deadline");
        let parting = matches!(owed.closing, Some(Closing::Parting(_)));
        assert!(!parting || !owed.signing, "nothing is signed after the last receipt");
    }
}

impl Machine for Receipts {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        let conn = self.conn_of(&input);
        self.on_input(cx, input);
        if cfg!(debug_assertions) {
            conn.into_iter().for_each(|conn| self.check_one(conn));
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

    fn check(&self) {
        self.due.check();
        let mut counts: BTreeMap<ConnId, (u32, u32)> = BTreeMap::new();
        self.fetching.values().for_each(|conn| counts.entry(*conn).or_default().0 += 1);
        self.signing.values().for_each(|conn| counts.entry(*conn).or_default().1 += 1);
        for (conn, owed) in &self.owed {
            self.check_one(*conn);
            let (fetches, signing) = counts.remove(conn).unwrap_or_default();
            assert!(owed.fetches == fetches, "the transfers of an uploader are counted");
            assert!(u32::from(owed.signing) == signing, "at most one receipt of an uploader is being signed");
        }
        let owing = self.due.keys().all(|conn| self.owed.contains_key(&conn));
        assert!(owing && counts.is_empty(), "nothing is kept of a connection without receipts");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use crate::ids::{DownloadId, IntroId, PublicKey, VersionId};
    use crate::seeded::Seeded;

    const CONN: ConnId = ConnId(1);

    fn owed(r: &mut Receipts) -> &mut Owed {
        r.owed.get_mut(&CONN).expect("an uploader")
    }

    fn run(r: &mut Receipts, input: Input) {
        let cfg = Config { credit: CreditRule::PROTOCOL, part_within: Duration::from_secs(5) };
        r.handle_input(&mut Cx { now: Time(1), cfg: &cfg, rng: &mut Seeded::new(1), out: &mut alloc::vec![] }, input);
    }

    /// Returns receipts for an uploader with a transfer and a few bytes that no receipt covers yet.
    fn healthy() -> Receipts {
        let mut r = Receipts::default();
        let receipt = Receipt {
            intro: IntroId::numbered(1),
            download: DownloadId::numbered(1),
            version: VersionId::numbered(1),
            uploader_key: PublicKey::numbered(1),
            seq: 0,
            bytes: 0,
        };
        run(&mut r, Input::Owe(CONN, receipt));
        run(&mut r, Input::Fetching(XferId(1), CONN));
        run(&mut r, Input::Verified(CONN, 1));
        r
    }

    #[test]
    fn each_clause_about_receipts_fires() {
        let mut closing = healthy();
        run(&mut closing, Input::Close(CONN, CloseReason::Done));
        assert_each_clause_fires(
            &healthy(),
            Receipts::check,
            &[
                ("a receipt covers verified bytes only", |r| owed(r).receipt.bytes = 2),
                ("bytes without receipt have a deadline", |r| r.due.clear(CONN)),
                ("the transfers of an uploader are counted", |r| owed(r).fetches = 2),
                ("at most one receipt of an uploader is being signed", |r| owed(r).signing = true),
                ("nothing is kept of a connection without receipts", |r| r.owed.clear()),
            ],
        );
        assert_each_clause_fires(
            &closing,
            Receipts::check,
            &[
                ("a connection that is being closed has a deadline", |r| r.due.clear(CONN)),
                ("nothing is signed after the last receipt", |r| {
                    (owed(r).closing, owed(r).signing) = (Some(Closing::Parting(CloseReason::Done)), true);
                }),
            ],
        );
    }
}
