//! Receipts in both directions: those that this client signs as a downloader, and those that it gets as an uploader.

use super::io::{KeptReceipt, KeyOutput, Output, PeerOutput, Save, StoreError};
use super::links::End;
use super::{Client, Context, Saving, Timer};
use crate::Machine as _;
use crate::ids::{DownloadId, IntroId, PublicKey, VersionId};
use crate::swarm::{Receipts, receipting, upload};
use crate::wire::records::{PeerBytes, ReceiptProof};

impl Client {
    // --- as a downloader ------------------------------------------------------------------------------------------

    pub(super) fn tell_receipts(&mut self, cx: &mut Context<'_>, input: receipting::Input) {
        self.run_receipts(cx, |receipts, cx| receipts.handle_input(cx, input));
    }

    pub(super) fn run_receipts(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut Receipts, &mut crate::Cx<'_, Receipts>),
    ) {
        let cfg = receipting::Config { credit: cx.cfg.upload.credit, part_within: cx.cfg.part_within };
        let receipts = &mut self.receipts;
        let outputs = cx.child(&cfg, |cx| f(receipts, cx));
        self.timers.set(Timer::Receipts, self.receipts.poll_timeout());
        for output in outputs {
            match output {
                receipting::Output::Sign(req, receipt) => cx.push(Output::Key(KeyOutput::SignReceipt { req, receipt })),
                receipting::Output::Send(conn, msg) => cx.push(Output::Peer(PeerOutput::Send { conn, msg })),
                receipting::Output::Close(conn, why) => {
                    cx.push(Output::Peer(PeerOutput::Close { conn, why }));
                    self.end_link(cx, conn, End::Unsigned);
                }
            }
        }
    }

    // --- as an uploader -------------------------------------------------------------------------------------------

    /// Saves a receipt that a downloader has given. Only a durable receipt raises the downloader's credit.
    pub(super) fn on_receipt(
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
        let began = served.began();
        let peer = PeerBytes { intro, key, bytes, receipt: Some(proof) };
        self.save(cx, Save::Receipt(KeptReceipt { download, version, peer }), Saving::Receipt { intro, bytes });
        self.report_soon(cx, began);
    }

    pub(super) fn on_receipt_saved(
        &mut self,
        cx: &mut Context<'_>,
        (intro, bytes): (IntroId, u64),
        result: Result<(), StoreError>,
    ) {
        // a receipt that is not durable would be lost in a crash: it raises no credit
        if result.is_ok() {
            self.tell_uploads(cx, upload::Input::ReceiptKept { intro, bytes });
        }
    }
}
