//! Usage records on their way to the ledger, and checkpoints: a record is acknowledged once it is durable with its log
//! head, and a head that contradicts a checkpoint is evidence.

use super::*;
use crate::wire::records::{Checkpoint, SignedCheckpoint};

#[test]
fn a_usage_record_is_acknowledged_only_when_the_ledger_has_it() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    let out = say(&mut b, 1, logged(1, 1));
    assert_eq!(submitted(&out), [RecordId::numbered(1)]);
    assert!(to_client(&out, 1).is_empty());
    assert!(submitted(&say(&mut b, 1, logged(1, 1))).is_empty(), "it is on its way already");
    let out = b.input(ack(ledger, 1));
    assert!(to_client(&out, 1).is_empty(), "its checkpoint is being signed");
    let out = sign(&mut b, &out);
    assert!(matches!(to_client(&out, 1)[..], [ToClient::UsageAck(a)] if a.ids.to_vec() == [RecordId::numbered(1)]));
    assert_eq!(b.machine.usage_waiting(), 0);
}

#[test]
fn a_reconnected_ledger_gets_every_unacknowledged_record_again() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    say(&mut b, 1, logged(1, 1));
    b.input(Input::LedgerClosed { conn: ledger });
    say(&mut b, 1, logged(2, 1));
    let conn = ledger_conn(&b.wait(secs(1))).expect("a dial");
    let out = b.input(Input::LedgerOpened { conn });
    assert_eq!(submitted(&out), [RecordId::numbered(1), RecordId::numbered(2)]);
    assert!(b.input(ack(ledger, 1)).is_empty(), "the lost connection says nothing any more");
}

#[test]
fn records_beyond_the_limit_are_dropped_without_acknowledgement() {
    let mut b = bench();
    b.cfg.usage_max = 1;
    join(&mut b, 1);
    say(&mut b, 1, logged(1, 1));
    let out = say(&mut b, 1, logged(2, 1));
    assert!(out.contains(&Output::Count(Metric::UsageDeferred)));
    assert_eq!(b.machine.usage_waiting(), 1);
}

/// Returns a CN that sends log heads to the ledger, with client 1 joined.
fn logging() -> (Bench<Cn>, ConnId) {
    let (mut b, _, ledger) = whole();
    b.cfg.logs = true;
    join(&mut b, 1);
    (b, ledger)
}

/// Returns the ids of records sent to the ledger: log heads without records, then usage records.
fn ledger_ids(out: &[Output]) -> (Vec<RecordId>, Vec<RecordId>) {
    let records = out.iter().filter_map(|o| match o {
        Output::LedgerSend { msg: ToLedger::Submit(record), .. } => Some(record),
        _ => None,
    });
    let (heads, usage): (Vec<_>, Vec<_>) = records.partition(|r| matches!(r, LedgerRecord::Log(_)));
    let ids = |records: Vec<&LedgerRecord>| records.into_iter().map(LedgerRecord::id).collect();
    (ids(heads), ids(usage))
}

fn acked(b: &mut Bench<Cn>, ledger: ConnId, id: RecordId) -> Vec<Output> {
    let ack = FromLedger::Ack(LedgerAck { ids: List::truncated([id]) });
    b.input(Input::Ledger { conn: ledger, msg: ack })
}

fn checkpoint(out: &[Output]) -> Option<SignedCheckpoint> {
    to_client(out, 1).into_iter().find_map(|m| if let ToClient::UsageAck(a) = m { a.checkpoint.clone() } else { None })
}

/// Returns a record of client 1 with the next head of `log`.
fn next(log: &mut Log, id: u32) -> Logged {
    let ToCn::Usage(Logged { record, .. }) = logged(id, 1) else { panic!("a record") };
    let head = log.append(SecondaryGuid::numbered(1), &record);
    let signature = fake_sign(&key(1), SigningContext::LogHead, &head.to_bytes());
    Logged { record, head: SignedHead { head, key: key(1), signature } }
}

#[test]
fn a_record_is_acknowledged_with_a_checkpoint_once_it_is_durable() {
    let (mut b, ledger) = logging();
    let logged = next(&mut Log::default(), 1);
    let (heads, records) = ledger_ids(&say(&mut b, 1, ToCn::Usage(logged.clone())));
    assert_eq!((heads, &records[..]), (Vec::new(), &[logged.record.id][..]), "one record, with its head");
    let out = acked(&mut b, ledger, records[0]);
    let signed = checkpoint(&sign(&mut b, &out)).expect("a checkpoint");
    assert_eq!(signed.checkpoint.head, logged.head);
    assert!(logs::is_checkpoint_of(Guid::of(&key(1)), &trust(), &signed));
    assert!(!logs::is_checkpoint_of(Guid::of(&key(2)), &trust(), &signed), "another's");
    assert!(b.machine.recording.usage.reported.is_empty());
}

/// A client that starts anew sends its record again, in a new log, while the record is on its way.
#[test]
fn a_pending_record_is_acknowledged_with_its_first_head() {
    let (mut b, ledger) = logging();
    let logged = next(&mut Log::default(), 1);
    let head = Log::default().append(SecondaryGuid::numbered(2), &logged.record);
    let signature = fake_sign(&key(1), SigningContext::LogHead, &head.to_bytes());
    let anew = Logged { record: logged.record.clone(), head: SignedHead { head, key: key(1), signature } };
    say(&mut b, 1, ToCn::Usage(logged.clone()));
    let out = say(&mut b, 1, ToCn::Usage(anew.clone()));
    assert!(ledger_ids(&out).1.is_empty() && !out.contains(&Output::Count(Metric::LogForked)));
    let out = acked(&mut b, ledger, logged.record.id);
    assert_eq!(checkpoint(&sign(&mut b, &out)).map(|c| c.checkpoint.head), Some(logged.head));
    assert_eq!(ledger_ids(&say(&mut b, 1, ToCn::Usage(anew.clone()))).1, [anew.record.id], "once it is not");
    let out = acked(&mut b, ledger, anew.record.id);
    assert_eq!(checkpoint(&sign(&mut b, &out)).map(|c| c.checkpoint.head), Some(anew.head));
}

/// Returns a CN that client 1 has joined with a checkpoint; it has never seen the client's log.
fn joined_with(checkpoint: SignedCheckpoint) -> Bench<Cn> {
    let (mut b, ..) = whole();
    b.cfg.logs = true;
    accept(&mut b, 1, 1);
    say(&mut b, 1, ToCn::Hello(Hello { checkpoint: Some(checkpoint), ..hello(1) }));
    b
}

fn signed(head: &SignedHead) -> SignedCheckpoint {
    let checkpoint = Checkpoint { head: head.clone(), at_ms: NOW_MS };
    let signature = fake_sign(&CN_KEY, SigningContext::Checkpoint, &checkpoint.to_bytes());
    SignedCheckpoint { checkpoint, signature, cert: cert(ServerRole::Cn, CN_KEY) }
}

#[test]
fn a_checkpoint_tells_a_continued_log_from_a_forked_one() {
    let mut log = Log::default();
    let before = log;
    let first = next(&mut log, 1);
    let continued = next(&mut log, 2);
    let anew = next(&mut before.clone(), 3);
    let mut other = before;
    next(&mut other, 4);
    let after_another = next(&mut other, 5);
    for (logged, forked) in [(first.clone(), false), (continued, false), (anew, true), (after_another, true)] {
        let mut b = joined_with(signed(&first.head));
        let out = say(&mut b, 1, ToCn::Usage(logged.clone()));
        assert_eq!(out.contains(&Output::Count(Metric::LogForked)), forked, "{logged:?}");
        // both of the contradicting heads are sent to the ledger
        assert_eq!(ledger_ids(&out).0.len(), 2 * usize::from(forked));
        assert_eq!(ledger_ids(&out).1, [logged.record.id], "and nothing is lost by it");
    }
}

#[test]
fn a_checkpoint_without_a_cns_signature_is_ignored() {
    let mut log = Log::default();
    let first = next(&mut log, 1);
    let anew = next(&mut Log::default(), 3);
    let mut forged = signed(&first.head);
    forged.signature.0[0] ^= 1;
    let mut b = joined_with(forged);
    assert!(!say(&mut b, 1, ToCn::Usage(anew)).contains(&Output::Count(Metric::LogForked)));
}

#[test]
fn the_number_of_records_per_session_and_minute_is_limited() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    join(&mut b, 2);
    let taken = |b: &mut Bench<Cn>, of: core::ops::Range<u32>| {
        let deferred = Output::Count(Metric::UsageDeferred);
        of.filter(|n| !say(b, 1, logged(*n, 1)).contains(&deferred)).count()
    };
    assert_eq!(taken(&mut b, 0..130), 120);
    assert_eq!(submitted(&say(&mut b, 2, logged(500, 2))).len(), 1, "others are not held up");
    b.now = b.now.after(secs(10));
    assert_eq!(taken(&mut b, 120..200), 20, "dropped records come again");
    b.now = b.now.after(secs(3600));
    assert_eq!(taken(&mut b, 200..400), 120, "an unused allowance does not add up");
    assert!(say(&mut b, 1, logged(0, 1)).contains(&Output::Count(Metric::UsageDeferred)), "nor is a repetition free");
}

/// Returns a record of client `n` that forks its log.
fn forking(id: u32, n: u32) -> ToCn {
    let record = usage(id, n);
    let head = Log::default().append(SecondaryGuid::numbered(1), &record);
    let signature = fake_sign(&key(n), SigningContext::LogHead, &head.to_bytes());
    ToCn::Usage(Logged { record, head: SignedHead { head, key: key(n), signature } })
}

#[test]
fn one_fork_of_a_guid_is_kept_as_evidence() {
    let (mut b, _) = logging();
    let mut heads = Vec::new();
    for session in 0..3 {
        for id in 0..20 {
            let (evidence, records) = ledger_ids(&say(&mut b, 1, forking(session * 20 + id, 1)));
            heads.extend(evidence);
            assert_eq!(records.len(), 1, "no record is lost by it");
        }
        b.input(Input::ClientClosed { conn: ConnId(1) });
        join(&mut b, 1);
    }
    assert_eq!(heads.len(), 2);
    assert_eq!(b.machine.usage_waiting(), 62 + 4, "with four logins");
}

#[test]
fn evidence_of_forks_counts_against_the_limit_and_has_a_part_of_it() {
    let mut b = bench();
    (b.cfg.logs, b.cfg.usage_max, b.cfg.prices) = (true, 128, crate::role::cn::Prices::NONE);
    for n in 1..=90 {
        join(&mut b, n);
        say(&mut b, n.into(), forking(1_000 + n, n));
        say(&mut b, n.into(), forking(2_000 + n, n));
        assert!(b.machine.usage_waiting() <= 128);
    }
    let forked = b.machine.recording.usage.forked.len();
    assert!(forked > 20, "{forked} forks are kept");
    // a client whose fork found no room shows it again
    b.cfg.usage_max = 256;
    say(&mut b, 90, forking(1_090, 90));
    say(&mut b, 90, forking(2_090, 90));
    assert_eq!(b.machine.recording.usage.forked.len(), forked + 1);
}

#[test]
fn a_record_beyond_the_limit_costs_no_check_of_its_signature() {
    fn never(_: &PublicKey, _: SigningContext, _: &[u8], _: &crate::ids::Signature) -> bool {
        panic!("a signature is checked")
    }
    let mut b = bench();
    join(&mut b, 1);
    (b.cfg.usage_max, b.cfg.verify) = (0, never);
    assert!(say(&mut b, 1, logged(1, 1)).contains(&Output::Count(Metric::UsageDeferred)));
}
