//! Proof of possession. When a download that used peers completes, the client reports it to an edge, which may
//! challenge the client to prove that it has the bytes. A failed report or proof does not affect the download; it is
//! not repeated, and the challenge counts as unanswered.

use super::edges::Ask;
use super::io::{EdgeAnswer, EdgeAsk, EdgeError, SourceName};
use super::{Client, Context};
use crate::accounting::possession::Challenge;
use crate::ids::Handle;

/// Maximum number of edges that get the report of a completed download, one after another, until one answers.
const TRIES: u8 = 3;

impl Client {
    /// Reports a completed download to an edge, if peers have delivered some of it.
    pub(super) fn tell_completed(&mut self, cx: &mut Context<'_>, handle: Handle) {
        let from_peers = |(name, bytes): &(SourceName, u64)| *name != SourceName::Edge && *bytes > 0;
        if self.jobs.get(&handle).is_some_and(|job| job.counted_bytes().iter().any(from_peers)) {
            self.tell_edge(cx, handle, self.edges.current(), TRIES);
        }
    }

    fn tell_edge(&mut self, cx: &mut Context<'_>, handle: Handle, edge: u32, tries: u8) {
        let Some(granted) = self.jobs.get(&handle).and_then(|job| job.granted()) else { return };
        let ask = EdgeAsk::Completed { version: granted.version, grant: granted.sealed.clone(), recheck: false };
        self.ask_edge(cx, edge, Ask::Completed { handle, edge, tries: tries.saturating_sub(1) }, ask);
    }

    /// Handles an edge's answer to the report of a completed download, or its failure.
    pub(super) fn on_completed_answer(
        &mut self,
        cx: &mut Context<'_>,
        (handle, edge, tries): (Handle, u32, u8),
        answer: Result<EdgeAnswer, EdgeError>,
    ) {
        match answer {
            Ok(EdgeAnswer::Challenged(Some(challenge))) => self.prove(cx, handle, edge, challenge),
            Err(EdgeError::Unreachable | EdgeError::Unavailable) if tries > 0 => {
                self.tell_edge(cx, handle, self.edges.after(edge), tries);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn prove(&mut self, cx: &mut Context<'_>, handle: Handle, edge: u32, challenge: Challenge) {
        let Some(granted) = self.jobs.get(&handle).and_then(|job| job.granted()) else { return };
        if challenge.fits(granted.size) {
            let ask = EdgeAsk::Prove { version: granted.version, grant: granted.sealed.clone(), challenge };
            self.ask_edge(cx, edge, Ask::Proof, ask);
        }
    }
}
