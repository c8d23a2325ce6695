//! Challenging who has completed a download; see [`crate::accounting::possession`]. One challenge a client at a time,
//! its nonce good for one answer; a download goes on and ends as it does without.

use super::counting::Key;
use super::io::{Completed, ServedGrant};
use super::{Context, Edge, Metric, Output, Phase, Saving, Timer};
use crate::accounting::Spans;
use crate::accounting::possession::{self, Challenge};
use crate::ids::{Digest, Guid, ReqId, VersionId};
use crate::wire::records::{LedgerRecord, PossessionOutcome, PossessionRecord};

/// A challenge, until the client may have another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Posed {
    grant: ServedGrant,
    version: VersionId,
    challenge: Challenge,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// The client may answer.
    Open,
    /// It has; the edge makes the proof itself.
    Answered(Digest, ReqId),
    /// It was judged.
    Over,
}

impl Edge {
    /// How many challenges are remembered.
    #[must_use]
    pub fn challenges(&self) -> usize {
        self.posed.len()
    }

    /// Whether the new download is challenged at its end.
    pub(super) fn draw_challenged(cx: &mut Context<'_>, max_peer_bytes: u64) -> bool {
        let permille = cx.cfg.challenge_permille;
        max_peer_bytes > 0 && (permille >= 1000 || permille > 0 && cx.rng.below(1000) < permille)
    }

    /// A client says that it has completed a download.
    pub(super) fn completed(&mut self, cx: &mut Context<'_>, done: &Completed) {
        let challenge = if self.phase == Phase::Serving && cx.cfg.ledger { self.pose(cx, done) } else { None };
        cx.push(Output::Pose { req: done.req, challenge });
    }

    fn pose(&mut self, cx: &mut Context<'_>, done: &Completed) -> Option<Challenge> {
        let Completed { grant, version, size, challenged, .. } = *done;
        if let Some(posed) = self.posed.get(&grant.guid)
            && posed.grant.download == grant.download
        {
            // its answer may have been lost
            return Some(posed.challenge.clone()).filter(|_| posed.standing == Standing::Open);
        }
        let counted = self.counts.get(&Key::Download(grant.download)).filter(|c| c.version() == version);
        let nothing = Spans::default();
        let (sent, life) = counted.map_or((&nothing, None), |c| (c.sent(), Some(c.life())));
        let now_ms = self.wall.map_or(0, |wall| wall.at(cx.now));
        let elapsed_ms = life.map_or(u64::MAX, |life| now_ms.saturating_sub(life));
        if !challenged && !possession::is_conspicuous(size, sent.bytes(), elapsed_ms) {
            return None;
        }
        let challenge = Challenge::draw(cx.rng, size, sent)?;
        let free = !self.posed.contains_key(&grant.guid) && self.posed.len() < cx.cfg.challenges_max as usize;
        if !free {
            // whoever was to be asked is not to be found silent
            if challenged {
                self.judge(cx, (grant, version), PossessionOutcome::Waived);
            }
            return None;
        }
        cx.push(Output::Count(Metric::Challenged));
        let posed = Posed { grant, version, challenge: challenge.clone(), standing: Standing::Open };
        self.posed.insert(grant.guid, posed);
        self.timers.set(Timer::Posed(grant.guid), Some(cx.now.after(cx.cfg.answer_within)));
        Some(challenge)
    }

    /// A client answers. The first answer counts, whatever becomes of it.
    pub(super) fn proof(&mut self, cx: &mut Context<'_>, req: ReqId, grant: ServedGrant, proof: Digest) {
        let open = |p: &&mut Posed| p.standing == Standing::Open && p.grant == grant;
        let asked = self.posed.get_mut(&grant.guid).filter(open);
        cx.push(Output::ProofTaken { req, asked: asked.is_some() });
        let Some(posed) = asked else { return };
        self.timers.clear(Timer::Posed(grant.guid));
        if self.checks.len() >= cx.cfg.checks_max as usize {
            return self.end(cx, grant.guid, PossessionOutcome::Waived);
        }
        let check = self.next_req.step();
        posed.standing = Standing::Answered(proof, check);
        let (version, challenge) = (posed.version, posed.challenge.clone());
        self.checks.insert(check, grant.guid);
        cx.push(Output::Prove { req: check, version, challenge });
    }

    /// This edge's own proof; none if it could not read the content.
    pub(super) fn proven(&mut self, cx: &mut Context<'_>, req: ReqId, own: Option<Digest>) {
        let Some(guid) = self.checks.remove(&req) else { return };
        let Some(Posed { standing: Standing::Answered(proof, _), .. }) = self.posed.get(&guid) else { return };
        let outcome = match own {
            Some(own) if own == *proof => PossessionOutcome::Passed,
            Some(_) => PossessionOutcome::Failed,
            None => PossessionOutcome::Waived,
        };
        self.end(cx, guid, outcome);
    }

    /// The time to answer is over, or that to rest.
    pub(super) fn posed_due(&mut self, cx: &mut Context<'_>, guid: Guid) {
        match self.posed.get(&guid).map(|p| p.standing) {
            Some(Standing::Open) => self.end(cx, guid, PossessionOutcome::Unanswered),
            Some(Standing::Over) => {
                self.posed.remove(&guid);
            }
            Some(Standing::Answered(..)) | None => {}
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, guid: Guid, outcome: PossessionOutcome) {
        let Some(posed) = self.posed.get_mut(&guid) else { return };
        posed.standing = Standing::Over;
        let of = (posed.grant, posed.version);
        self.timers.set(Timer::Posed(guid), Some(cx.now.after(cx.cfg.challenge_every)));
        self.judge(cx, of, outcome);
    }

    fn judge(&mut self, cx: &mut Context<'_>, of: (ServedGrant, VersionId), outcome: PossessionOutcome) {
        cx.push(Output::Count(match outcome {
            PossessionOutcome::Passed => Metric::ChallengePassed,
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
