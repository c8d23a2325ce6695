//! Tests that each assertion of the edge's `check` fails for a corruption of its own.

use super::possession::{answer, complete, proof_of};
use super::*;
use crate::bench::{Clause, assert_each_clause_fires};
use crate::role::edge::io::Uncountable;
use crate::role::edge::reserving::Room;

const D1: Key = Key::Download(DownloadId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
const D2: Key = Key::Download(DownloadId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]));

/// Returns an edge with a changed count of download 1, one of plain traffic, a reservation of download 2 in progress,
/// and challenges of clients 3 (open), 4 (its answer is being checked) and 5 (over).
fn busy() -> Bench<Edge> {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1_000);
    let (req, _) = saves(&out)[0];
    b.input(Input::Saved { req, ok: true });
    serve(&mut b, Some(served_grant(1)), 0..1_000);
    serve(&mut b, None, 0..50);
    serving(&mut b, 2, 2, 1_000);
    for n in 3..=5 {
        let challenge = complete(&mut b, n, true).expect("it was drawn");
        let check = if n == 3 { None } else { answer(&mut b, n, proof_of(&challenge)).1 };
        if n == 5 {
            let req = check.expect("the edge's own proof is asked for");
            let out = b.input(Input::Proven { req, own: None });
            let (req, _) = saves(&out)[0];
            b.input(Input::Saved { req, ok: true });
        }
    }
    b
}

fn count(m: &mut Edge, key: Key) -> &mut Counted {
    m.counts.get_mut(&key).expect("it is counted")
}

const COUNTS: &[Clause<Edge>] = &[
    ("a count is listed under its subject", |m| {
        let counted = m.counts.remove(&D2).expect("it is counted");
        m.counts.insert(Key::Plain(VersionId::numbered(9)), counted);
    }),
    ("lives are numbered in order", |m| m.life = 0),
    ("plain traffic has no ranges", |m| count(m, Key::Plain(V)).sent = Spans::of(core::iter::once(0..1))),
    ("no more bytes are distinct than were sent", |m| count(m, D1).total_bytes = 999),
    ("a changed count is to be written", |m| {
        m.dirty.remove(&D1);
    }),
    ("a download ends when it is idle", |m| m.timers.clear(Timer::Idle(D1))),
    ("what is to be written is counted", |m| {
        m.dirty.insert(Key::Plain(VersionId::numbered(9)));
    }),
    ("a download that is over has no count", |m| {
        m.ended.insert(DownloadId::numbered(1));
    }),
    ("the ranges of all downloads are counted", |m| m.ranges += 1),
    ("what is idle is counted", |m| m.timers.set(Timer::Idle(Key::Plain(VersionId::numbered(9))), Some(Time(9)))),
];

const WRITES: &[Clause<Edge>] = &[
    ("counts are written one batch at a time", |m| {
        for req in [900, 901] {
            m.saving.insert(ReqId(req), Saving::Counts { records: Vec::new(), batch: Batch::default() });
        }
    }),
    ("a count that is being written is in the batch", |m| count(m, D1).saving = true),
    ("changes are written soon", |m| m.timers.clear(Timer::Flush)),
    ("no more is durable than was written", |m| count(m, D1).room.durable = u64::MAX),
    ("a reservation that is not durable is being written", |m| count(m, D1).room.written = u64::MAX),
    ("requests wait for a reservation", |m| {
        let mut waiting = count(m, D2).room.clone();
        (waiting.durable, waiting.written) = (0, 0);
        count(m, D1).room = waiting;
    }),
    ("a grant that is not recorded is being written", |m| {
        let room = Room::default();
        m.saving.clear();
        count(m, D2).room = room;
    }),
];

const CHALLENGES: &[Clause<Edge>] = &[
    ("a challenge is listed under its client", |m| {
        m.challenges.get_mut(&Guid::numbered(3)).expect("posed").grant = served_grant(9);
    }),
    ("a challenge ends in time", |m| m.timers.clear(Timer::Challenge(Guid::numbered(5)))),
    ("an answer is being checked", |m| m.checks.clear()),
    ("a check is of an answer", |m| {
        m.checks.insert(ReqId(0), Guid::numbered(3));
    }),
];

const PHASES: &[Clause<Edge>] = &[
    ("the shell knows whether new downloads can be counted", |m| m.last_reported = Some(Uncountable::Full)),
    ("a failed spool is tried again", |m| {
        m.saving.clear();
        count(m, D2).granted = None;
        count(m, D2).room = Room::default();
        (m.spool_failed, m.last_reported) = (true, Some(Uncountable::Refused));
    }),
    ("requests are numbered in order", |m| m.next_req = ReqId(1)),
    ("a stopping edge stops one day", |m| {
        m.saving.clear();
        count(m, D2).granted = None;
        count(m, D2).room = Room::default();
        m.phase = Phase::Stopping;
    }),
    ("a stopped edge has nothing to do", |m| m.phase = Phase::Stopped),
];

#[test]
fn each_clause_of_an_edge_finds_a_corruption() {
    let edge = busy().machine;
    for clauses in [COUNTS, WRITES, CHALLENGES, PHASES] {
        assert_each_clause_fires(&edge, Edge::check, clauses);
    }
}

#[test]
fn a_download_that_ends_during_a_write_is_deleted_by_the_next_one() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1_000);
    let (save, _) = saves(&out)[0];
    b.input(Input::Saved { req: save, ok: true });
    b.input(Input::BytesNotSent { grant: served_grant(1), bytes: 1_000 });
    b.wait(b.cfg.idle_after - secs(3));
    serve(&mut b, None, 0..50);
    let out = b.wait(secs(4));
    assert_eq!(b.machine.counting(), 1, "the download is over while the plain count is being written");
    let [(write, _)] = saves(&out)[..] else { panic!("{out:?}") };
    b.input(Input::Saved { req: write, ok: true });
    let out = b.wait(secs(2));
    let [(_, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    assert_eq!(batch.ended, [DownloadId::numbered(1)]);
}

#[test]
fn a_download_that_begins_again_keeps_its_new_count_in_the_spool() {
    let (mut b, _) = with_ledger();
    let begin = |b: &mut Bench<Edge>, req| {
        let out = serving(b, req, 1, 1_000);
        let (save, _) = saves(&out)[0];
        assert!(b.input(Input::Saved { req: save, ok: true }).contains(&counted(req)));
        b.input(Input::BytesNotSent { grant: served_grant(1), bytes: 1_000 });
    };
    begin(&mut b, 1);
    b.wait(b.cfg.idle_after);
    assert_eq!(b.machine.counting(), 0, "it has been idle too long");
    begin(&mut b, 2);
    let out = b.wait(secs(10));
    assert!(saves(&out).iter().all(|(_, batch)| batch.ended.is_empty()), "its reservation would be lost with a crash");
}
