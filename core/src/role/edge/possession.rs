//! Possession challenges to clients that have completed a download; see [`crate::accounting::possession`]. A client has
//! one challenge at a time, whose nonce is good for one answer. Nothing here affects the download itself.

use super::Key;
use super::io::{Completed, ServedGrant};
use super::{Context, Edge, Metric, Output, Phase, Saving, Timer};
use crate::accounting::Spans;
use crate::accounting::possession::{self, Challenge};
use crate::ids::{Digest, Guid, ReqId, VersionId};
use crate::wire::records::{LedgerRecord, PossessionOutcome, PossessionRecord};

/// Possession challenge of a client, kept until the client may get another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChallengeState {
    pub(super) grant: ServedGrant,
    version: VersionId,
    challenge: Challenge,
    /// Whether the client has asked for it, because peers have blamed its copy.
    recheck: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The client has not answered yet.
    Open,
    /// The client has answered with this proof, and the edge is computing its own under this request number.
    Answered(Digest, ReqId),
    /// The outcome is decided; the client gets no new challenge before the pause is over.
    Over,
}

impl Edge {
    /// Returns the number of remembered challenges.
    #[must_use]
    pub fn challenges(&self) -> usize {
        self.challenges.len()
    }

    /// Asserts that each challenge has a time-out or is being checked, and that each check belongs to a challenge.
    pub(super) fn check_challenges(&self) {
        for (guid, state) in &self.challenges {
            assert!(state.grant.guid == *guid, "a challenge is listed under its client");
            let timed = self.timers.get(Timer::Challenge(*guid)).is_some() || self.phase == Phase::Stopped;
            match state.stage {
                Stage::Open | Stage::Over => assert!(timed, "a challenge ends in time"),
                Stage::Answered(_, req) => assert!(self.checks.get(&req) == Some(guid), "an answer is being checked"),
            }
        }
        let is_of_use = |(req, guid): (&ReqId, &Guid)| {
            self.challenges.get(guid).is_some_and(|p| matches!(p.stage, Stage::Answered(_, r) if r == *req))
        };
        assert!(self.checks.iter().all(is_of_use), "a check is of an answer");
    }

    /// Draws whether a new download will be challenged at its end.
    pub(super) fn draw_challenged(cx: &mut Context<'_>, max_peer_bytes: u64) -> bool {
        let permille = cx.cfg.challenge_permille;
        max_peer_bytes > 0 && (permille >= 1000 || permille > 0 && cx.rng.below(1000) < permille)
    }

    /// Handles a client's report of a completed download.
    pub(super) fn on_completed(&mut self, cx: &mut Context<'_>, done: &Completed) {
        let challenge =
            if self.phase == Phase::Serving && cx.cfg.ledger { self.draw_challenge(cx, done) } else { None };
        cx.push(Output::AnswerCompleted { req: done.req, challenge });
    }

    fn draw_challenge(&mut self, cx: &mut Context<'_>, done: &Completed) -> Option<Challenge> {
        let Completed { grant, version, size, challenged, recheck, .. } = *done;
        if let Some(state) = self.challenges.get(&grant.guid)
            && state.grant.download == grant.download
        {
            // the challenge may have been lost on its way, so it is repeated
            return Some(state.challenge.clone()).filter(|_| state.stage == Stage::Open);
        }
        let counted = self.counts.get(&Key::Download(grant.download)).filter(|c| c.version() == version);
        let nothing = Spans::default();
        let (sent, life) = counted.map_or((&nothing, None), |c| (c.sent(), Some(c.life())));
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        let elapsed_ms = life.map_or(u64::MAX, |life| now_ms.saturating_sub(life));
        if !challenged && !recheck && !possession::is_conspicuous(size, sent.bytes(), elapsed_ms) {
            return None;
        }
        let challenge = Challenge::draw(cx.rng, size, sent)?;
        // who is blamed need not wait for the pause after the challenge of a download
        let last = self.challenges.get(&grant.guid);
        let may_ask = last.is_none_or(|last| recheck && last.stage == Stage::Over && !last.recheck);
        let room = last.is_some() || self.challenges.len() < cx.cfg.challenges_max as usize;
        let free = may_ask && room;
        if !free {
            // a drawn client that is not asked must not look like one that does not answer
            if challenged {
                self.record_outcome(cx, (grant, version), PossessionOutcome::Waived);
            }
            return None;
        }
        cx.push(Output::Count(Metric::Challenged));
        let state = ChallengeState { grant, version, challenge: challenge.clone(), recheck, stage: Stage::Open };
        self.challenges.insert(grant.guid, state);
        debug_assert!(self.challenges.len() <= cx.cfg.challenges_max as usize, "challenges are bounded");
        self.timers.set(Timer::Challenge(grant.guid), Some(cx.now.after(cx.cfg.answer_within)));
        Some(challenge)
    }

    /// Handles a client's proof. Only the first one counts.
    pub(super) fn on_proof(&mut self, cx: &mut Context<'_>, req: ReqId, grant: ServedGrant, proof: Digest) {
        let open = |p: &&mut ChallengeState| p.stage == Stage::Open && p.grant == grant;
        let asked = self.challenges.get_mut(&grant.guid).filter(open);
        cx.push(Output::AnswerProof { req, asked: asked.is_some() });
        let Some(state) = asked else { return };
        self.timers.clear(Timer::Challenge(grant.guid));
        if self.checks.len() >= cx.cfg.checks_max as usize {
            return self.conclude(cx, grant.guid, PossessionOutcome::Waived);
        }
        let check = self.next_req.step();
        state.stage = Stage::Answered(proof, check);
        let (version, challenge) = (state.version, state.challenge.clone());
        self.checks.insert(check, grant.guid);
        debug_assert!(self.checks.len() <= cx.cfg.checks_max as usize, "checks of proofs are bounded");
        cx.push(Output::Prove { req: check, version, challenge });
    }

    /// Compares the client's proof with the edge's own; `None` if the edge could not read the content.
    pub(super) fn on_own_proof(&mut self, cx: &mut Context<'_>, req: ReqId, own: Option<Digest>) {
        let Some(guid) = self.checks.remove(&req) else { return };
        let Some(ChallengeState { stage: Stage::Answered(proof, _), recheck, .. }) = self.challenges.get(&guid) else {
            return;
        };
        let outcome = match own {
            Some(own) if own == *proof && *recheck => PossessionOutcome::Rechecked,
            Some(own) if own == *proof => PossessionOutcome::Passed,
            Some(_) => PossessionOutcome::Failed,
            None => PossessionOutcome::Waived,
        };
        self.conclude(cx, guid, outcome);
    }

    /// Handles the end of the time to answer, or of the pause before the next challenge.
    pub(super) fn on_challenge_timer(&mut self, cx: &mut Context<'_>, guid: Guid) {
        match self.challenges.get(&guid).map(|p| p.stage) {
            Some(Stage::Open) => self.conclude(cx, guid, PossessionOutcome::Unanswered),
            Some(Stage::Over) => {
                self.challenges.remove(&guid);
            }
            Some(Stage::Answered(..)) | None => {}
        }
    }

    fn conclude(&mut self, cx: &mut Context<'_>, guid: Guid, outcome: PossessionOutcome) {
        let Some(state) = self.challenges.get_mut(&guid) else { return };
        state.stage = Stage::Over;
        let of = (state.grant, state.version);
        self.timers.set(Timer::Challenge(guid), Some(cx.now.after(cx.cfg.challenge_every)));
        self.record_outcome(cx, of, outcome);
    }

    /// Counts the outcome of a challenge, and records it for the ledger.
    fn record_outcome(&mut self, cx: &mut Context<'_>, of: (ServedGrant, VersionId), outcome: PossessionOutcome) {
        cx.push(Output::Count(match outcome {
            PossessionOutcome::Passed => Metric::ChallengePassed,
            PossessionOutcome::Rechecked => Metric::ChallengeRechecked,
            PossessionOutcome::Failed => Metric::ChallengeFailed,
            PossessionOutcome::Unanswered => Metric::ChallengeUnanswered,
            PossessionOutcome::Waived => Metric::ChallengeWaived,
        }));
        let (ServedGrant { download, guid }, version) = of;
        let id = possession::record_id(download);
        let edge = cx.cfg.cert.body.key;
        let at_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        let record = LedgerRecord::Possession(PossessionRecord { id, edge, download, guid, version, outcome, at_ms });
        let req = self.next_req.step();
        let batch = super::io::Batch { records: alloc::vec![record.clone()], ..Default::default() };
        self.saving.insert(req, Saving::Outcome(record));
        cx.push(Output::Save { req, batch });
    }
}
