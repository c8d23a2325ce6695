//! Tests that the home DN of a GUID tells copies of an installation apart from broken sessions.

use super::*;
use crate::wire::directory::{OfSession, Seen};

fn seen(b: &mut Bench<Dn>, conn: u64, session: u64, start: u32) -> Vec<Output> {
    let seen = Seen { session: SessionId(session), guid: Guid::numbered(1), secondary: SecondaryGuid::numbered(start) };
    say(b, conn, ToDn::Seen(seen))
}

fn alive(b: &mut Bench<Dn>, conn: u64, session: u64) -> Vec<Output> {
    say(b, conn, ToDn::Alive(OfSession { session: SessionId(session) }))
}

fn challenge(session: u64) -> FromDn {
    FromDn::Challenge(OfSession { session: SessionId(session) })
}

fn cloned(session: u64) -> FromDn {
    FromDn::Cloned(OfSession { session: SessionId(session) })
}

fn with_cns() -> Bench<Dn> {
    let mut b = bench();
    (1..=3).for_each(|n| cn(&mut b, n));
    b
}

#[test]
fn two_starts_on_two_cns_are_copies_only_if_both_answer() {
    let mut b = with_cns();
    assert!(seen(&mut b, 1, 10, 1).is_empty());
    let out = seen(&mut b, 2, 20, 2);
    assert_eq!((sent(&out, 1), sent(&out, 2)), (vec![&challenge(10)], vec![&challenge(20)]));
    assert!(alive(&mut b, 2, 20).is_empty(), "the other may have been left behind");
    let out = alive(&mut b, 1, 10);
    assert_eq!((sent(&out, 1), sent(&out, 2)), (vec![&cloned(10)], vec![&cloned(20)]));
}

#[test]
fn an_answer_before_the_newest_session_proves_nothing() {
    let mut b = with_cns();
    seen(&mut b, 1, 10, 1);
    seen(&mut b, 2, 20, 2);
    alive(&mut b, 1, 10);
    // the second session ends without an answer, and a third begins
    say(&mut b, 2, ToDn::Gone(PeerGone { session: SessionId(20) }));
    seen(&mut b, 3, 30, 3);
    assert!(alive(&mut b, 3, 30).is_empty());
    assert!(!alive(&mut b, 1, 10).is_empty());
}

#[test]
fn one_start_on_two_cns_is_no_copy() {
    let mut b = with_cns();
    seen(&mut b, 1, 10, 1);
    assert!(seen(&mut b, 2, 20, 1).is_empty());
}

#[test]
fn two_starts_on_one_cn_are_left_to_that_cn() {
    let mut b = with_cns();
    seen(&mut b, 1, 10, 1);
    assert!(seen(&mut b, 1, 11, 2).is_empty());
}

#[test]
fn sessions_end_with_their_cns_message_or_connection() {
    let mut b = with_cns();
    seen(&mut b, 1, 10, 1);
    say(&mut b, 1, ToDn::Gone(PeerGone { session: SessionId(10) }));
    assert!(seen(&mut b, 2, 20, 2).is_empty());
    b.input(Input::CnClosed { conn: ConnId(2) });
    assert!(seen(&mut b, 3, 30, 3).is_empty());
    assert!(alive(&mut b, 3, 99).is_empty(), "a session that no CN has reported");
}
