//! Receipts that this client signs as a downloader.

use super::common::Timer;
use super::io::{KeyOutput, Output, PeerOutput};
use super::links::End;
use super::{Client, Context};
use crate::Machine as _;
use crate::swarm::{Receipts, receipting};

impl Client {
    pub(super) fn tell_receipts(&mut self, cx: &mut Context<'_>, input: receipting::Input) {
        self.run_receipts(cx, |receipts, cx| receipts.handle_input(cx, input));
    }

    /// Runs the receipts machine by `f`, and performs its outputs.
    pub(super) fn run_receipts(
        &mut self,
        cx: &mut Context<'_>,
        f: impl FnOnce(&mut Receipts, &mut crate::Cx<'_, Receipts>),
    ) {
        let cfg = receipting::Config { credit: cx.cfg.upload.credit, part_within: cx.cfg.part_within };
        for output in self.common.run_child(cx, &cfg, Timer::Receipts, &mut self.receipts, f) {
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
}
