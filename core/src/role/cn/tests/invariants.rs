//! Tests that each assertion of the CN's `check` fails for a corruption of its own.

use super::*;
use crate::bench::assert_each_clause_fires;
use crate::limits::QUARANTINED_MAX;
use crate::role::cn::meetings::INTRODUCED_UPLOADERS_MAX;
use crate::role::cn::sessions::{Client, Session, Sessions};
use crate::role::cn::usage::FORKED_MAX;
use crate::wire::control::Introduce;

/// Returns a CN with a meeting and an introduced uploader, with an acknowledgement that is being signed and a usage
/// record under way, with a query in each of three steps, and with two copies that are challenged.
fn healthy() -> Cn {
    let (mut b, dn, ledger) = whole();
    introduced(&mut b, dn);
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let introduce = Introduce { intro, nat: NatDescriptor::default(), ticket: None };
    let deliver = Deliver { session: SessionId(0), from: Route { link: 9, session: SessionId(7) }, introduce };
    b.input(Input::Directory { conn: dn, msg: FromDn::Deliver(deliver) });
    say(&mut b, 1, logged(1, 1));
    b.input(ack(ledger, 1));
    b.cfg.logs = true;
    say(&mut b, 1, logged(2, 1));
    recording::offered_by(&mut b, dn);
    ask(&mut b, Some(signed_grant(grant_of(1))));
    say(&mut b, 1, query());
    accept(&mut b, 10, 1);
    let secondary = List::truncated([SecondaryGuid::numbered(99)]);
    say(&mut b, 10, ToCn::Hello(Hello { secondary, ..hello(1) }));
    let cn = b.machine;
    assert_eq!(
        (cn.queries.reqs().count(), cn.recording.usage.acks.len(), cn.recording.usage.reported.len()),
        (3, 1, 1)
    );
    assert!(cn.sessions.len() == 2 && !cn.meetings.broker.is_empty() && !cn.meetings.introduced_uploaders.is_empty());
    cn
}

fn few(n: usize) -> u32 {
    u32::try_from(n).expect("few")
}

fn session(cn: &mut Cn) -> &mut Session {
    cn.sessions.get_mut(ConnId(1)).expect("a session")
}

fn any_query(cn: &Cn) -> ReqId {
    cn.queries.reqs().next().expect("a query")
}

fn forget_clients(cn: &mut Cn) {
    cn.sessions = Sessions::default();
}

#[test]
fn each_clause_about_the_sessions_of_a_cn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Cn::check,
        &[
            ("a session is in quarantine as its GUID is", |cn| _ = cn.sessions.quarantined.insert(Guid::of(&key(1)))),
            ("an answered challenge is not open", |cn| session(cn).challenge.answered = true),
            ("a DN waits for an open challenge only", |cn| {
                cn.common.timers.clear(Timer::Challenge(ConnId(1)));
                session(cn).challenge.open = false;
                session(cn).challenge.by = Some(ConnId(1));
            }),
            ("exactly the open challenges have a time-out", |cn| cn.common.timers.clear(Timer::Challenge(ConnId(1)))),
            ("exactly a stale state is sent to the DNs later", |cn| {
                cn.common.timers.set(Timer::Tell(ConnId(1)), Some(Time(1)));
            }),
            ("only after a gap an inventory is requested", |cn| {
                cn.common.timers.set(Timer::Readd(ConnId(1)), Some(Time(1)));
            }),
            ("each connection has a time-out, and no other", |cn| cn.common.timers.clear(Timer::Silent(ConnId(1)))),
            ("without a session nothing is waited for", |cn| {
                let from = "192.0.2.1:4000".parse().expect("an address");
                cn.sessions.connect(ConnId(5), Client::new(key(5), from), Time(1));
                cn.common.timers.set(Timer::Silent(ConnId(5)), Some(Time(1)));
                cn.common.timers.set(Timer::Readd(ConnId(5)), Some(Time(1)));
            }),
        ],
    );
}

#[test]
fn each_clause_about_the_phase_of_a_cn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Cn::check,
        &[
            ("a stopped CN has no clients", |cn| cn.common.phase = Phase::Stopped),
            ("a stopped CN waits for nothing", |cn| {
                forget_clients(cn);
                cn.common.phase = Phase::Stopped;
            }),
            ("without the time there are no clients", |cn| cn.common.wall = None),
            ("without the time no DN is dialled", |cn| {
                forget_clients(cn);
                cn.common.wall = None;
            }),
            ("exactly a draining CN will stop", |cn| cn.common.phase = Phase::Draining),
            ("each time-out is of something that waits", |cn| {
                cn.common.timers.set(Timer::Silent(ConnId(77)), Some(Time(1)));
            }),
            ("notices are sent again in time", |cn| cn.common.timers.set(Timer::Notices, Some(Time(1)))),
            ("the list of forked logs is bounded", |cn| {
                cn.recording.usage.forked = (0..=few(FORKED_MAX)).map(Guid::numbered).collect();
            }),
            ("the list of quarantined clients is bounded", |cn| {
                cn.sessions.quarantined = (0..=few(QUARANTINED_MAX)).map(Guid::numbered).collect();
            }),
        ],
    );
}

#[test]
fn each_clause_about_the_queries_and_meetings_of_a_cn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Cn::check,
        &[
            ("each query has a number that was given", |cn| cn.common.next_req = ReqId(0)),
            ("each query has a time-out", |cn| cn.common.timers.clear(Timer::Query(any_query(cn)))),
            ("each acknowledgement has a number that was given", |cn| {
                let (_, ack) = cn.recording.usage.acks.pop_first().expect("one is being signed");
                cn.recording.usage.acks.insert(cn.common.next_req, ack);
            }),
            ("queries and acknowledgements share no number", |cn| {
                let (_, ack) = cn.recording.usage.acks.pop_first().expect("one is being signed");
                cn.recording.usage.acks.insert(any_query(cn), ack);
            }),
            ("introduced uploaders are bounded", |cn| {
                let (_, uploader) = cn.meetings.introduced_uploaders.pop_first().expect("an uploader");
                let all = (0..=few(INTRODUCED_UPLOADERS_MAX)).map(|n| (IntroId::numbered(n), uploader));
                cn.meetings.introduced_uploaders.extend(all);
            }),
            ("each introduced uploader has a time-out", |cn| {
                let intro = *cn.meetings.introduced_uploaders.keys().next().expect("an uploader");
                cn.common.timers.clear(Timer::IntroducedUploader(intro));
            }),
            ("exactly a DN without connection is dialled", |cn| cn.common.timers.set(Timer::Dial(0), Some(Time(1)))),
            ("exactly a connected DN is pinged", |cn| cn.common.timers.clear(Timer::Ping(0))),
            ("the registration of sessions goes on to its end", |cn| {
                cn.common.timers.set(Timer::Register(0), Some(Time(1)));
            }),
        ],
    );
}

#[test]
fn each_clause_about_the_records_of_a_cn_fires() {
    assert_each_clause_fires(
        &healthy(),
        Cn::check,
        &[
            ("the spool is cleared exactly when it must be", |cn| cn.common.timers.set(Timer::Spool, Some(Time(1)))),
            ("each rekey is on its way to the ledger", |cn| {
                _ = cn.recording.rekeys.insert(RecordId::numbered(9), ConnId(1))
            }),
            ("each usage record is on its way to the ledger", |cn| {
                let reported = cn.recording.usage.reported.values().next().expect("a record").clone();
                cn.recording.usage.reported.insert(RecordId::numbered(9), reported);
            }),
        ],
    );
}
