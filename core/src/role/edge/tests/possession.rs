//! Tests of possession challenges: which clients get one, what counts as an answer, and that their number is bounded.

use super::*;
use crate::accounting::possession::{Challenge, Prover, record_id};
use crate::ids::Digest;
use crate::limits::PART_LEN;
use crate::role::edge::io::Completed;
use crate::wire::records::{PossessionOutcome, PossessionRecord};

const SIZE: u64 = 64 * PART_LEN;

/// Reports that client `n` has completed its download of 64 parts. Returns the challenge, if there is one.
pub(super) fn complete(b: &mut Bench<Edge>, n: u32, challenged: bool) -> Option<Challenge> {
    let grant = served_grant(n);
    let done = Completed { req: ReqId(80), grant, version: V, size: SIZE, challenged, recheck: false };
    let out = b.input(Input::Completed(Box::new(done)));
    let posed = |o: &Output| match o {
        Output::AnswerCompleted { req: ReqId(80), challenge } => Some(challenge.clone()),
        _ => None,
    };
    let mut all = out.iter().filter_map(posed);
    let answer = all.next().expect("an answer");
    assert!(all.next().is_none(), "one");
    answer
}

pub(super) fn proof_of(challenge: &Challenge) -> Digest {
    let mut prover = Prover::new(challenge);
    challenge.parts.iter().for_each(|part| prover.add(&part.to_be_bytes()));
    prover.finish()
}

/// Sends the proof of client `n`. Returns whether it was awaited, and the request for the edge's own proof, if any.
pub(super) fn answer(b: &mut Bench<Edge>, n: u32, proof: Digest) -> (bool, Option<ReqId>) {
    let out = b.input(Input::Proof { req: ReqId(81), grant: served_grant(n), proof });
    let taken = |o: &Output| if let Output::AnswerProof { asked, .. } = o { Some(*asked) } else { None };
    let work = |o: &Output| if let Output::Prove { req, .. } = o { Some(*req) } else { None };
    (out.iter().find_map(taken).expect("an answer"), out.iter().find_map(work))
}

/// Lets the writes of challenges' outcomes succeed, and returns the outcomes, which are then sent to the ledger.
fn outcome(b: &mut Bench<Edge>, out: &[Output]) -> Vec<PossessionRecord> {
    let mut recorded = Vec::new();
    for (req, batch) in saves(out) {
        let [LedgerRecord::Possession(record)] = &batch.records[..] else { continue };
        let waiting = b.machine.records_waiting();
        b.input(Input::Saved { req, ok: true });
        assert_eq!(b.machine.records_waiting(), waiting + 1, "durable first, then sent");
        recorded.push(record.clone());
    }
    recorded
}

#[test]
fn only_a_client_that_holds_the_parts_passes() {
    let (mut b, _) = with_ledger();
    for (n, lies, expected) in [(1, false, PossessionOutcome::Passed), (2, true, PossessionOutcome::Failed)] {
        let challenge = complete(&mut b, n, true).expect("it was drawn");
        assert!(challenge.fits(SIZE) && challenge.parts.len() == 8);
        let proof = proof_of(&challenge);
        let (asked, work) = answer(&mut b, n, if lies { Digest::numbered(9) } else { proof });
        assert!(asked);
        // neither a second nor a late better answer counts
        assert_eq!(answer(&mut b, n, proof), (false, None));
        let out = b.input(Input::Proven { req: work.expect("it is checked"), own: Some(proof) });
        let [r] = &outcome(&mut b, &out)[..] else { panic!("{out:?}") };
        assert_eq!((r.id, r.outcome, r.guid), (record_id(r.download), expected, served_grant(n).guid));
        assert_eq!((r.edge, r.download), (EDGE_KEY, served_grant(n).download));
        assert_eq!(complete(&mut b, n, true), None, "once a download");
        assert_eq!(answer(&mut b, n, proof), (false, None));
    }
}

#[test]
fn a_proof_for_another_download_or_nonce_does_not_count() {
    let (mut b, _) = with_ledger();
    let challenge = complete(&mut b, 1, true).expect("drawn");
    let stranger = ServedGrant { download: DownloadId::numbered(9), guid: served_grant(1).guid };
    let out = b.input(Input::Proof { req: ReqId(81), grant: stranger, proof: proof_of(&challenge) });
    assert_eq!(out, [Output::AnswerProof { req: ReqId(81), asked: false }]);
    assert_eq!(answer(&mut b, 2, proof_of(&challenge)), (false, None));
    // a proof that is replayed from another challenge differs by its nonce
    let other = complete(&mut b, 2, true).expect("drawn");
    let replayed = proof_of(&Challenge { nonce: challenge.nonce, ..other.clone() });
    let (_, work) = answer(&mut b, 2, replayed);
    let out = b.input(Input::Proven { req: work.expect("checked"), own: Some(proof_of(&other)) });
    assert_eq!(outcome(&mut b, &out)[0].outcome, PossessionOutcome::Failed);
}

#[test]
fn silence_is_recorded_and_a_lost_challenge_is_repeated() {
    let (mut b, _) = with_ledger();
    let challenge = complete(&mut b, 1, true);
    assert_eq!(complete(&mut b, 1, true), challenge, "the same");
    let out = b.wait(secs(60));
    assert_eq!(outcome(&mut b, &out)[0].outcome, PossessionOutcome::Unanswered);
    assert_eq!(b.machine.challenges(), 1);
    b.wait(secs(10));
    assert_eq!(b.machine.challenges(), 0, "forgotten");
}

#[test]
fn a_challenge_is_counted_once_however_often_it_is_repeated() {
    let (mut b, _) = with_ledger();
    let done = || Completed {
        req: ReqId(80),
        grant: served_grant(1),
        version: V,
        size: SIZE,
        challenged: true,
        recheck: false,
    };
    let mut counted = || b.input(Input::Completed(Box::new(done()))).contains(&Output::Count(Metric::Challenged));
    assert!(counted() && !counted());
}

#[test]
fn only_drawn_and_conspicuous_downloads_are_challenged() {
    let (mut b, _) = with_ledger();
    assert_eq!(complete(&mut b, 1, false), None);
    assert!(b.wait(secs(100)).iter().all(|o| !matches!(o, Output::Save { .. })), "and nothing is recorded");
    // far too fast, with a byte from the edge
    serve(&mut b, Some(served_grant(2)), 0..1);
    assert!(complete(&mut b, 2, false).is_some());
    // all but two parts came from this edge
    serve(&mut b, Some(served_grant(3)), 0..62 * PART_LEN);
    let challenge = complete(&mut b, 3, true).expect("something is left");
    assert_eq!(challenge.parts, [62, 63]);
    serve(&mut b, Some(served_grant(4)), 0..SIZE);
    assert_eq!(complete(&mut b, 4, true), None);
}

#[test]
fn overload_waives_challenges_and_state_is_bounded() {
    let (mut b, _) = with_ledger();
    (b.cfg.challenges_max, b.cfg.checks_max) = (2, 1);
    let proofs: Vec<Digest> = (1..=2).map(|n| proof_of(&complete(&mut b, n, true).expect("drawn"))).collect();
    let waived = |b: &mut Bench<Edge>, out: &[Output]| {
        let all = outcome(b, out);
        all.len() == 1 && all[0].outcome == PossessionOutcome::Waived
    };
    let done =
        Completed { req: ReqId(80), grant: served_grant(3), version: V, size: SIZE, challenged: true, recheck: false };
    let out = b.input(Input::Completed(Box::new(done)));
    assert!(waived(&mut b, &out), "a third client finds no room");
    // another download of a client that has an open challenge
    let grant = ServedGrant { download: DownloadId::numbered(77), ..served_grant(1) };
    let out = b.input(Input::Completed(Box::new(Completed { grant, ..done })));
    assert!(waived(&mut b, &out));
    assert!(answer(&mut b, 1, proofs[0]).1.is_some());
    let out = b.input(Input::Proof { req: ReqId(81), grant: served_grant(2), proof: proofs[1] });
    assert!(waived(&mut b, &out), "one answer is being checked already");
    assert_eq!((b.machine.challenges(), b.machine.checks.len()), (2, 1));
}

#[test]
fn an_edge_that_cannot_read_its_content_waives_the_challenge() {
    let (mut b, _) = with_ledger();
    let challenge = complete(&mut b, 1, true).expect("drawn");
    let (_, work) = answer(&mut b, 1, proof_of(&challenge));
    let out = b.input(Input::Proven { req: work.expect("checked"), own: None });
    assert_eq!(outcome(&mut b, &out)[0].outcome, PossessionOutcome::Waived);
}

#[test]
fn downloads_are_drawn_with_their_first_grant_if_peers_are_allowed() {
    let (mut b, _) = with_ledger();
    b.cfg.limits.key.burst = 10_000;
    let mut granted = |permille, peers| {
        b.cfg.challenge_permille = permille;
        let mut asked = asked();
        asked.object.policy.peer_download = peers;
        let grant = issued(&ask(&mut b, asked)).expect("granted");
        assert_eq!(GrantRecord::of(&grant).challenged, grant.challenged, "the record names drawn downloads");
        grant.challenged
    };
    assert!(granted(1_000, true) && !granted(1_000, false) && !granted(0, true));
    let some = (0..2_000).filter(|_| granted(20, true)).count();
    assert!((10..90).contains(&some), "{some} of 2,000, where 40 are expected");
}

#[test]
fn a_blamed_client_is_challenged_whenever_it_asks_but_not_again_and_again() {
    let (mut b, _) = with_ledger();
    let mut n = 100;
    // each time under a new grant
    let mut recheck = |b: &mut Bench<Edge>| {
        n += 1;
        let grant = ServedGrant { download: DownloadId::numbered(n), ..served_grant(1) };
        let challenged = false;
        let done = Completed { req: ReqId(80), grant, version: V, size: SIZE, challenged, recheck: true };
        let out = b.input(Input::Completed(Box::new(done)));
        let posed = |o| if let Output::AnswerCompleted { challenge, .. } = o { Some(challenge) } else { None };
        (grant, out.into_iter().find_map(posed).expect("an answer"))
    };
    let prove = |b: &mut Bench<Edge>, grant, proof, own| {
        let out = b.input(Input::Proof { req: ReqId(81), grant, proof });
        let work = out.iter().find_map(|o| if let Output::Prove { req, .. } = o { Some(*req) } else { None });
        let out = b.input(Input::Proven { req: work.expect("checked"), own: Some(own) });
        outcome(b, &out)[0].outcome
    };
    // a download has just been challenged
    let first = complete(&mut b, 1, true).expect("drawn");
    assert_eq!(recheck(&mut b).1, None, "one challenge at a time");
    let proof = proof_of(&first);
    assert_eq!(prove(&mut b, served_grant(1), proof, proof), PossessionOutcome::Passed);
    let (grant, challenge) = recheck(&mut b);
    let proof = proof_of(&challenge.expect("without a pause"));
    assert_eq!(prove(&mut b, grant, proof, proof), PossessionOutcome::Rechecked);
    assert_eq!(recheck(&mut b).1, None, "a pause");
    b.wait(secs(10));
    let (grant, challenge) = recheck(&mut b);
    let proof = proof_of(&challenge.expect("the pause is over"));
    assert_eq!(prove(&mut b, grant, Digest::numbered(9), proof), PossessionOutcome::Failed);
}
