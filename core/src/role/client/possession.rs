//! Proof of possession. When a download that used peers completes, the client reports it to an edge, which may
//! challenge the client to prove that it has the bytes. A failed report or proof does not affect the download; it is
//! not repeated, and the challenge counts as unanswered.

use super::Context;
use super::common::Common;
use super::edges::{Ask, Edges, Report};
use super::io::{EdgeAnswer, EdgeAsk, EdgeError, SourceName};
use super::job::Jobs;
use crate::accounting::possession::Challenge;
use crate::ids::Handle;

/// Maximum number of edges that get the report of a completed download, one after another, until one answers.
const TRIES: u8 = 3;

impl Jobs {
    /// Reports a completed download to an edge, if peers have delivered some of it.
    pub(super) fn tell_completed(&self, common: &mut Common, edges: &mut Edges, cx: &mut Context<'_>, handle: Handle) {
        let from_peers = |(name, bytes): &(SourceName, u64)| *name != SourceName::Edge && *bytes > 0;
        if self.get(handle).is_some_and(|job| job.counted_bytes().iter().any(from_peers)) {
            let report = Report { handle, edge: edges.current(), tries: TRIES - 1 };
            self.tell_edge(common, edges, cx, report);
        }
    }

    fn tell_edge(&self, common: &mut Common, edges: &mut Edges, cx: &mut Context<'_>, report: Report) {
        let Some(granted) = self.get(report.handle).and_then(|job| job.granted()) else { return };
        let ask = EdgeAsk::Completed { version: granted.version, grant: granted.sealed.clone(), recheck: false };
        edges.ask(common, cx, report.edge, Ask::Completed(report), ask);
    }

    /// Handles an edge's answer to the report of a completed download, or its failure.
    pub(super) fn on_completed_answer(
        &self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        report: Report,
        answer: Result<EdgeAnswer, EdgeError>,
    ) {
        match answer {
            Ok(EdgeAnswer::Challenged(Some(challenge))) => self.prove(common, edges, cx, report, challenge),
            Err(EdgeError::Unreachable | EdgeError::Unavailable) if report.tries > 0 => {
                let report = Report { edge: edges.after(report.edge), tries: report.tries - 1, ..report };
                self.tell_edge(common, edges, cx, report);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Sends the proof for which an edge has asked after a report.
    fn prove(
        &self,
        common: &mut Common,
        edges: &mut Edges,
        cx: &mut Context<'_>,
        report: Report,
        challenge: Challenge,
    ) {
        let Some(granted) = self.get(report.handle).and_then(|job| job.granted()) else { return };
        if challenge.fits(granted.size) {
            let ask = EdgeAsk::Prove { version: granted.version, grant: granted.sealed.clone(), challenge };
            edges.ask(common, cx, report.edge, Ask::Proof, ask);
        }
    }
}
