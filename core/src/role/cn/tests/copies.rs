//! Tests that copies of an installation are told apart from broken sessions, and are ordered to rekey.

use super::*;
use crate::wire::control::Retired;
use crate::wire::directory::OfSession;
use crate::wire::records::{LogRecord, Rekey, SignedRekey};

/// Opens a session for start `start` of client 1 on connection `conn`.
fn begin(b: &mut Bench<Cn>, conn: u64, start: u32) -> Vec<Output> {
    accept(b, conn, 1);
    let secondary = List::truncated([SecondaryGuid::numbered(start)]);
    say(b, conn, ToCn::Hello(Hello { secondary, ..hello(1) }))
}

fn is_challenged(out: &[Output], conn: u64) -> bool {
    to_client(out, conn).contains(&&ToClient::Ping)
}

fn is_ordered(out: &[Output], conn: u64) -> bool {
    to_client(out, conn).contains(&&ToClient::Rekey)
}

#[test]
fn a_session_left_by_a_restart_is_closed_without_a_rekey() {
    let (mut b, ..) = whole();
    begin(&mut b, 1, 1);
    let out = begin(&mut b, 2, 2);
    assert!(is_challenged(&out, 1) && is_challenged(&out, 2));
    let out = say(&mut b, 2, ToCn::Pong);
    assert!(!is_ordered(&out, 2));
    let out = b.wait(b.cfg.answer_within);
    assert_eq!(refusal(&out, 1), Some(Refusal::Replaced));
    assert_eq!(b.machine.sessions(), 1);
    assert!(!is_ordered(&out, 2));
}

#[test]
fn late_messages_of_a_crashed_client_do_not_make_it_a_copy() {
    let (mut b, ..) = whole();
    begin(&mut b, 1, 1);
    begin(&mut b, 2, 2);
    // messages on their way, which do not answer the challenge
    for msg in [ToCn::Ping, logged(1, 1)] {
        say(&mut b, 1, msg);
    }
    assert!(!is_ordered(&say(&mut b, 2, ToCn::Pong), 2));
    assert_eq!(refusal(&b.wait(b.cfg.answer_within), 1), Some(Refusal::Replaced));
}

#[test]
fn copies_that_both_answer_are_ordered_to_rekey_and_both_continue() {
    let (mut b, ..) = whole();
    begin(&mut b, 1, 1);
    begin(&mut b, 2, 2);
    assert!(!is_ordered(&say(&mut b, 1, ToCn::Pong), 1));
    let out = say(&mut b, 2, ToCn::Pong);
    assert!(is_ordered(&out, 1) && is_ordered(&out, 2));
    b.wait(b.cfg.answer_within);
    assert_eq!(b.machine.sessions(), 2);
    assert!(refusal(&say(&mut b, 1, logged(7, 1)), 1).is_none(), "what they do counts as before");
}

#[test]
fn another_session_of_the_same_start_replaces_the_first() {
    let (mut b, ..) = whole();
    begin(&mut b, 1, 1);
    accept(&mut b, 2, 1);
    let out = say(&mut b, 2, ToCn::Hello(Hello { incarnation: 2, ..hello(1) }));
    assert_eq!(refusal(&out, 1), Some(Refusal::Replaced));
    assert!(!is_challenged(&out, 2));
}

#[test]
fn the_number_of_sessions_of_a_guid_is_limited() {
    let (mut b, ..) = whole();
    for n in 1..=8 {
        assert_eq!(refusal(&begin(&mut b, u64::from(n), n), u64::from(n)), None);
    }
    assert_eq!(refusal(&begin(&mut b, 9, 9), 9), Some(Refusal::Replaced));
}

#[test]
fn a_home_dn_learns_of_each_session_and_can_challenge_it() {
    let (mut b, dn, _) = whole();
    let out = begin(&mut b, 1, 1);
    let seen = all_to_dn(&out).find_map(|m| if let ToDn::Seen(s) = m { Some(s.clone()) } else { None });
    let seen = seen.expect("there is one DN, which is everybody's home");
    assert_eq!((seen.guid, seen.secondary), (Guid::of(&key(1)), SecondaryGuid::numbered(1)));
    let of = OfSession { session: seen.session };
    let tell = |b: &mut Bench<Cn>, msg| b.input(Input::Directory { conn: dn, msg });
    assert!(is_challenged(&tell(&mut b, FromDn::Challenge(of.clone())), 1));
    let out = say(&mut b, 1, ToCn::Pong);
    assert_eq!(to_dn(&out), [&ToDn::Alive(of.clone())]);
    assert!(is_ordered(&tell(&mut b, FromDn::Cloned(of.clone())), 1));
    tell(&mut b, FromDn::Challenge(of.clone()));
    assert_eq!(refusal(&b.wait(b.cfg.answer_within), 1), Some(Refusal::Replaced), "left behind");
    assert!(tell(&mut b, FromDn::Cloned(of)).is_empty());
}

#[test]
fn a_reconnected_home_dn_learns_of_every_session_again() {
    let (mut b, dn, _) = whole();
    begin(&mut b, 1, 1);
    b.input(Input::DirectoryClosed { conn: dn });
    let conn = dn_conn(&b.wait(secs(1))).expect("a dial");
    let out = dn_up(&mut b, conn);
    assert!(all_to_dn(&out).any(|m| matches!(m, ToDn::Seen(_))));
}

fn rekey(old: u32, by: u32) -> SignedRekey {
    rekey_to(old, 50, by)
}

fn rekey_to(old: u32, new: u32, by: u32) -> SignedRekey {
    let rekey = Rekey { old: key(old), new: key(new), start: SecondaryGuid::numbered(1) };
    let sign = |n| fake_sign(&key(n), SigningContext::Rekey, &rekey.to_bytes());
    SignedRekey { by_old: sign(by), by_new: sign(new), rekey }
}

/// Returns the record that retires a GUID, if one is sent to the ledger.
fn evidence(out: &[Output]) -> Option<LogRecord> {
    out.iter().find_map(|o| match o {
        Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Log(r)), .. } => Some(r.clone()),
        _ => None,
    })
}

fn durable(b: &mut Bench<Cn>, ledger: ConnId, id: RecordId) -> Vec<Output> {
    let ack = FromLedger::Ack(LedgerAck { ids: List::truncated([id]) });
    b.input(Input::Ledger { conn: ledger, msg: ack })
}

#[test]
fn a_guid_is_retired_once_its_record_is_durable() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    let out = say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)));
    let record = evidence(&out).expect("evidence");
    assert_eq!((record.guid, record.event), (Guid::of(&key(1)), LogEvent::Rekeyed(rekey(1, 1))));
    assert!(to_client(&out, 1).is_empty(), "not before");
    let out = durable(&mut b, ledger, record.id);
    let retired = ToClient::Retired(Retired { new: Guid::of(&key(50)) });
    assert_eq!(to_client(&out, 1), [&retired]);
    let out = say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)));
    assert_eq!(out, [Output::ClientSend { conn: ConnId(1), msg: retired }], "a repeated rekey is answered again");
}

#[test]
fn a_session_may_send_only_one_new_key() {
    for acked in [false, true] {
        let (mut b, _, ledger) = whole();
        join(&mut b, 1);
        let record = evidence(&say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)))).expect("evidence");
        assert!(say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1))).is_empty(), "it is on its way");
        if acked {
            durable(&mut b, ledger, record.id);
        }
        let out = say(&mut b, 1, ToCn::Rekeyed(rekey_to(1, 51, 1)));
        assert_eq!((refusal(&out, 1), evidence(&out)), (Some(Refusal::Violation), None));
    }
}

#[test]
fn a_rekey_is_answered_on_the_session_it_last_came_over() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    let record = evidence(&say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)))).expect("evidence");
    accept(&mut b, 2, 1);
    say(&mut b, 2, ToCn::Hello(Hello { incarnation: 2, ..hello(1) }));
    assert_eq!(refusal(&say(&mut b, 2, ToCn::Rekeyed(rekey(1, 1))), 2), None);
    assert_eq!(to_client(&durable(&mut b, ledger, record.id), 2).len(), 1);
}

#[test]
fn a_rekey_is_turned_away_while_too_many_records_wait() {
    let (mut b, ..) = whole();
    b.cfg.usage_max = 1;
    join(&mut b, 1);
    join(&mut b, 2);
    say(&mut b, 2, logged(1, 2));
    let out = say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)));
    assert!(matches!(to_client(&out, 1)[..], [ToClient::Busy(_)]) && evidence(&out).is_none());
    assert_eq!(b.machine.sessions(), 1);
}

#[test]
fn a_forked_log_after_a_rekey_orders_no_other() {
    for takes in [false, true] {
        let (mut b, ..) = whole();
        join(&mut b, 1);
        say(&mut b, 1, logged(1, 1));
        if takes {
            say(&mut b, 1, ToCn::Rekeyed(rekey(1, 1)));
        }
        let record = usage(2, 1);
        let head = Log::default().append(SecondaryGuid::numbered(1), &record);
        let signature = fake_sign(&key(1), SigningContext::LogHead, &head.to_bytes());
        let head = SignedHead { head, key: key(1), signature };
        let out = say(&mut b, 1, ToCn::Usage(Logged { record, head }));
        assert!(out.contains(&Output::Count(Metric::LogForked)));
        assert_eq!(is_ordered(&out, 1), !takes);
    }
}

#[test]
fn only_the_holder_of_a_guids_key_can_retire_it() {
    for forged in [rekey(2, 2), rekey(1, 2)] {
        let (mut b, ..) = whole();
        join(&mut b, 1);
        let out = say(&mut b, 1, ToCn::Rekeyed(forged));
        assert_eq!(refusal(&out, 1), Some(Refusal::Violation));
        assert!(!out.iter().any(|o| matches!(o, Output::LedgerSend { .. })));
    }
}
