//! Tests that each assertion of [`Evidence::check`] finds a wrong state.

use super::*;
use crate::bench::{Clause, assert_each_clause_fires};

fn downloader() -> Source {
    Source::Downloader(Guid::numbered(1))
}

const CLAUSES: &[Clause<Evidence>] = &[
    ("a chain holds its source's records", |e| e.chains.entry(downloader()).or_default().push(0)),
    ("a chain's records are in order", |e| e.chains.entry(downloader()).or_default().reverse()),
    ("a source's records are in its chain", |e| drop(e.chains.remove(&downloader()))),
    ("a grant that counts is held", |e| e.grants.push(99)),
    ("a later grant counts only if it was issued before", |e| e.grants.reverse()),
    ("a held grant counts", |e| e.grants.truncate(1)),
    ("records are numbered in order", |e| e.next = 0),
];

#[test]
fn each_clause_of_evidence_finds_a_corruption() {
    let hours = |n: u64| n * HOUR_MS;
    let quarantines = quarantined(&[(1, 2)]);
    let state = UsageState::Running;
    let records = [
        (1, granted_to(2, 9)),
        (2, granted_to(1, 5)),
        (hours(1), usage(1, Side::Downloader, 1, state, 10)),
        (hours(3), usage(1, Side::Downloader, 2, state, 20)),
    ];
    let evidence = evidence(&quarantines, records);
    assert_eq!((evidence.grants.len(), evidence.chains[&downloader()].len()), (2, 2), "nothing was dropped");
    assert_each_clause_fires(&evidence, Evidence::check, CLAUSES);
}
