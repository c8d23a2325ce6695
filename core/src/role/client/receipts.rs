//! Receipts, both ways (DESIGN §10.3): what this client signs for what it got from others, and what others have signed
//! for what they got from it.

use super::io::{CloseReason, KeptReceipt, Output, Save, StoreError};
use super::{Client, Context, Saving, Timer};
use crate::Time;
use crate::ids::{ConnId, DownloadId, IntroId, PublicKey, ReqId, Signature, VersionId, XferId};
use crate::swarm::upload;
use crate::wire::peer::PeerMsg;
use crate::wire::records::{PeerBytes, Receipt, ReceiptProof, SignedReceipt};
use alloc::collections::BTreeMap;
use core::time::Duration;

/// What is owed to uploaders, by connection. Invariant: what is signed for has been verified by this client, block by
/// block, each block once and for who delivered it first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Receipts {
    owed: BTreeMap<ConnId, Owed>,
    /// Transfers from peers, until they end.
    fetching: BTreeMap<XferId, ConnId>,
    signing: BTreeMap<ReqId, ConnId>,
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

impl Receipts {
    pub(super) fn rebase(&mut self, by: Duration) {
        self.owed.values_mut().for_each(|o| o.last = o.last.rebased(by));
    }

    /// A transfer from a peer begins.
    pub(super) fn fetch_begins(&mut self, xfer: XferId, conn: ConnId) {
        if let Some(owed) = self.owed.get_mut(&conn) {
            owed.fetches += 1;
            self.fetching.insert(xfer, conn);
        }
    }
}

impl Client {
    // --- as a downloader ------------------------------------------------------------------------------------------

    /// A peer serves: what it delivers from here on is receipted.
    pub(super) fn owe(
        &mut self,
        cx: &Context<'_>,
        conn: ConnId,
        (download, version): (DownloadId, VersionId),
        (intro, uploader_key): (IntroId, PublicKey),
    ) {
        let receipt = Receipt { intro, download, version, uploader_key, seq: 0, bytes: 0 };
        let owed = Owed { receipt, verified: 0, fetches: 0, signing: false, last: cx.now, closing: None };
        self.receipts.owed.insert(conn, owed);
    }

    /// Blocks of a peer are verified, and it was the first to deliver them.
    pub(super) fn verified(&mut self, cx: &mut Context<'_>, conn: ConnId, bytes: u64) {
        if let Some(owed) = self.receipts.owed.get_mut(&conn) {
            owed.verified = owed.verified.saturating_add(bytes);
            self.receipt_if_due(cx, conn);
        }
    }

    /// A transfer from a peer has ended.
    pub(super) fn fetch_is_over(&mut self, cx: &mut Context<'_>, xfer: XferId) {
        let Some(conn) = self.receipts.fetching.remove(&xfer) else { return };
        if let Some(owed) = self.receipts.owed.get_mut(&conn) {
            owed.fetches = owed.fetches.saturating_sub(1);
            self.receipt_if_due(cx, conn);
        }
    }

    /// Has the next receipt signed if it is due, or sets the time at which it will be.
    fn receipt_if_due(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let rule = cx.cfg.upload.credit;
        let Some(owed) = self.receipts.owed.get_mut(&conn) else { return };
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
                return cx.push(Output::PeerSend { conn, msg: PeerMsg::GoingAway });
            }
            Some(Closing::Receipting(_)) => true,
            None => new > 0 && (new >= rule.due(owed.receipt.bytes) || at <= cx.now),
        };
        if due {
            owed.signing = true;
            owed.receipt.seq = owed.receipt.seq.saturating_add(1);
            owed.receipt.bytes = owed.verified;
            let req = self.next_req.step();
            self.receipts.signing.insert(req, conn);
            cx.push(Output::SignReceipt { req, receipt: owed.receipt.clone() });
        } else if new > 0 && self.timers.get(Timer::Receipt(conn)).is_none() {
            self.timers.set(Timer::Receipt(conn), Some(at));
        }
    }

    /// A receipt is signed (`None`: the download's key is gone, and with it the right to be served).
    pub(super) fn receipt_signed(&mut self, cx: &mut Context<'_>, req: ReqId, signature: Option<Signature>) {
        let Some(conn) = self.receipts.signing.remove(&req) else { return };
        let Some(owed) = self.receipts.owed.get_mut(&conn) else { return };
        let Some(signature) = signature else { return self.part(cx, conn) };
        owed.signing = false;
        owed.last = cx.now;
        let signed = SignedReceipt { receipt: owed.receipt.clone(), signature };
        cx.push(Output::PeerSend { conn, msg: PeerMsg::Receipt(signed) });
        if owed.closing.is_none() {
            self.timers.clear(Timer::Receipt(conn));
        }
        self.receipt_if_due(cx, conn);
    }

    /// Ends a connection to an uploader: at once if nothing came over it, else with a last receipt.
    pub(super) fn close_peer(&mut self, cx: &mut Context<'_>, conn: ConnId, why: CloseReason) {
        match self.receipts.owed.get_mut(&conn) {
            Some(owed) if owed.verified > 0 || owed.fetches > 0 => {
                owed.closing = Some(Closing::Receipting(why));
                self.timers.set(Timer::Receipt(conn), Some(cx.now.after(cx.cfg.part_within)));
                self.receipt_if_due(cx, conn);
            }
            Some(_) | None => {
                self.forget_owed(conn);
                cx.push(Output::PeerClose { conn, why });
            }
        }
    }

    /// It is time for a receipt, or the uploader has not closed in time.
    pub(super) fn receipt_timer(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        match self.receipts.owed.get(&conn).map(|o| o.closing) {
            Some(Some(_)) => self.part(cx, conn),
            Some(None) => self.receipt_if_due(cx, conn),
            None => {}
        }
    }

    fn part(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let why = self.receipts.owed.get(&conn).and_then(|o| o.closing).map_or(CloseReason::Stalled, Closing::why);
        self.forget_owed(conn);
        cx.push(Output::PeerClose { conn, why });
    }

    /// A connection is no more: nothing can be receipted over it.
    pub(super) fn forget_owed(&mut self, conn: ConnId) {
        self.receipts.owed.remove(&conn);
        self.receipts.signing.retain(|_, of| *of != conn);
        self.receipts.fetching.retain(|_, of| *of != conn);
        self.timers.clear(Timer::Receipt(conn));
    }

    // --- as an uploader -------------------------------------------------------------------------------------------

    /// A downloader has receipted: durable first, then it counts.
    pub(super) fn receipted(
        &mut self,
        cx: &mut Context<'_>,
        (download, version): (DownloadId, VersionId),
        (intro, key): (IntroId, PublicKey),
        proof: ReceiptProof,
    ) {
        let bytes = proof.bytes;
        if !self.serve_for(cx, download, version) {
            return;
        }
        let Some(served) = self.served.get_mut(&download) else { return };
        served.receipted((intro, key), proof.clone(), cx.now);
        let peer = PeerBytes { intro, key, bytes, receipt: Some(proof) };
        self.save(cx, Save::Receipt(KeptReceipt { download, version, peer }), Saving::Receipt { intro, bytes });
        self.report_soon(cx);
    }

    pub(super) fn receipt_saved(
        &mut self,
        cx: &mut Context<'_>,
        (intro, bytes): (IntroId, u64),
        result: Result<(), StoreError>,
    ) {
        // what cannot be kept would be lost in a crash: no credit is given on it
        if result.is_ok() {
            self.tell_uploads(cx, upload::Input::ReceiptKept { intro, bytes });
        }
    }
}
