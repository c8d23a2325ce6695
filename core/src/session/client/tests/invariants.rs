//! Tests that each assertion of the session's `check` finds a wrong state.

use super::*;
use crate::bench::{assert_clause_fires, assert_each_clause_fires};

/// Returns an open session with an unacknowledged usage record and unanswered queries of two downloads.
fn open() -> ClientSession {
    let mut b = bench();
    connect(&mut b);
    b.input(Input::Usage(usage(1, 1, Side::Uploader)));
    b.input(Input::Want(want(3)));
    b.input(Input::Want(Want { download: DownloadId::numbered(2), ..want(3) }));
    b.machine
}

/// Returns a session that waits before it dials a CN.
fn down() -> ClientSession {
    let mut b = bench();
    b.input(Input::Servers { cns: 1, now_ms: NOW_MS });
    b.machine
}

const AT: Option<Time> = Some(Time(9));

#[test]
fn each_clause_about_an_open_session_fires() {
    let corruptions: [(&str, fn(&mut ClientSession)); 15] = [
        ("a connection has a time-out until its Welcome", |s| s.timers.set(Timer::Welcome, AT)),
        ("only an open session pings", |s| s.timers.clear(Timer::Ping)),
        ("a CN is dialled only without a connection", |s| s.timers.set(Timer::Dial, AT)),
        ("a path in doubt has a time-out", |s| s.path_in_doubt = true),
        ("the CN of an open session is up to date", |s| s.outdated = true),
        ("the numbers of connections stay in their space", |s| s.conns = ConnId::CONTROL.0),
        ("a control connection has a number of its space", |s| {
            s.phase = Phase::Open(Link { conn: ConnId(1), cn: 0, ping: secs(1) });
        }),
        ("a stopped session has no deadline", |s| s.phase = Phase::Stopped),
        ("a change of the inventory is sent in time", |s| s.inventory.forget_reset()),
        ("a refused ticket is of a shared version", |s| s.inventory.refuse_unshared()),
        ("a query under way has a time-out", |s| s.timers.clear(Timer::Query(D1))),
        ("records under way are sent again", |s| s.timers.clear(Timer::Usage)),
        ("a download that wants peers waits to ask or for an answer", |s| {
            let _ = s.queries.answered(1);
            s.timers.clear(Timer::Query(D1));
        }),
        ("no record is under way without a session", |s| {
            (s.phase, s.queries) = (Phase::Down, Queries::default());
            s.timers = Deadlines::default();
            s.timers.set(Timer::Dial, AT);
        }),
        ("a session that is down dials a CN", |s| {
            (s.phase, s.timers) = (Phase::Down, Deadlines::default());
        }),
    ];
    assert_each_clause_fires(&open(), ClientSession::check, &corruptions);
    for (clause, corrupt) in Queries::CORRUPTIONS {
        assert_clause_fires(&open(), ClientSession::check, clause, |s| corrupt(&mut s.queries));
    }
    for (clause, corrupt) in Outbox::CORRUPTIONS {
        assert_clause_fires(&open(), ClientSession::check, clause, |s| corrupt(&mut s.usage));
    }
}

#[test]
fn each_clause_about_a_session_that_is_down_fires() {
    let corruptions: [(&str, fn(&mut ClientSession)); 3] = [
        ("only an open session awaits an answer to a ping", |s| s.timers.set(Timer::Pong, AT)),
        ("only an open session is left", |s| s.timers.set(Timer::Leave, AT)),
        ("only an open session sends its inventory", |s| s.timers.set(Timer::Inventory, AT)),
    ];
    assert_each_clause_fires(&down(), ClientSession::check, &corruptions);
}
