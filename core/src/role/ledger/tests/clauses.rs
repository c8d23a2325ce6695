//! Tests that each assertion of the ledger's `check` fails for a corruption of its own.

use super::*;
use crate::bench::{Clause, assert_each_clause_fires};

/// Messages of assertions, each with a corruption of a ledger whose only batch has failed and waits to be stored
/// again.
const FAILED: &[Clause<Ledger>] = &[
    ("a timed connection is open", |m| {
        m.servers.remove(&CN);
    }),
    ("a silent connection is closed in time", |m| m.timers.clear(Timer::Silent(CN))),
    ("a failed batch is kept", |m| m.batch = None),
    ("batches are numbered in order", |m| m.next_req = ReqId(0)),
    ("a batch can be acknowledged in one message", |m| m.batch.as_mut().expect("a batch").records.clear()),
    ("the quarantine is bounded", |m| m.quarantined = Some(vec![Guid::numbered(1); QUARANTINED_MAX + 1])),
    ("a stopped ledger has nothing to do", |m| m.phase = Phase::Stopped),
];

/// Messages of assertions, each with a corruption of a ledger whose records wait to fill a batch.
const WAITING: &[Clause<Ledger>] = &[("waiting records are stored next", |m| m.timers.clear(Timer::Batch))];

#[test]
fn each_clause_of_a_ledger_finds_a_corruption() {
    let mut b = bench();
    submit(&mut b, CN, usage(1));
    assert_each_clause_fires(&b.machine, Ledger::check, WAITING);
    let (req, _) = batch(&b.wait(Duration::from_secs(1))).expect("a batch");
    b.input(Input::Stored { req, ok: false });
    assert_each_clause_fires(&b.machine, Ledger::check, FAILED);
}

#[test]
fn an_answer_that_is_repeated_after_a_failure_starts_no_second_batch() {
    let mut b = bench();
    submit(&mut b, CN, usage(1));
    let (req, _) = batch(&b.wait(Duration::from_secs(1))).expect("a batch");
    b.input(Input::Stored { req, ok: false });
    b.input(Input::Stored { req, ok: true });
    submit(&mut b, CN, usage(2));
    let out = b.wait(Duration::from_secs(2));
    let stores = out.iter().filter(|o| matches!(o, Output::Store { .. })).count();
    assert_eq!(stores, 1, "one batch at a time");
}
