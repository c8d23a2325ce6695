//! Tests that grants with any field changed are refused, that withdrawn versions are not shared, that forked logs are
//! reported, and for how long missing receipts can be.

use super::*;
use crate::accounting::grants::tests::each_binding_changed;
use crate::notice;
use crate::wire::control::{NoticeList, Unreceipted};
use crate::wire::notice::{Known, Notice, Subject, Terms};
use crate::wire::records::Introduction;

#[test]
fn a_query_with_any_binding_of_its_grant_changed_is_refused() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    let genuine = signed_grant(grant_of(1));
    for (binding, grant) in each_binding_changed(&genuine.grant) {
        let out = ask(&mut b, Some(Box::new(SignedGrant { grant, ..(*genuine).clone() })));
        assert_eq!(failed(&out, 1), Some(QueryError::Regrant), "{binding}");
        assert!(to_dn(&out).is_empty(), "{binding}");
        b.now = b.now.after(secs(7));
        say(&mut b, 1, ToCn::Ping);
    }
}

#[test]
fn a_withdrawn_version_is_announced_and_no_longer_shared() {
    let (mut b, ..) = whole();
    join(&mut b, 1);
    let (gone, other) = (grant_of(1).version, VersionId::numbered(9));
    let announced = |out: &[Output]| -> Vec<Known> {
        let of = |m: &ToClient| if let ToClient::NoticesChanged(w) = m { w.notices.to_vec() } else { Vec::new() };
        to_client(out, 1).into_iter().flat_map(of).collect()
    };
    let notice = |serial, terms: Terms| {
        let cert = cert(ServerRole::Edge, PublicKey::numbered(50));
        let sign = |bytes: &[u8]| fake_sign(&PublicKey::numbered(50), SigningContext::Notice, bytes);
        Input::Notices(vec![notice::sign(&Notice::about_version(gone, serial, &terms), cert, sign)])
    };
    let subject = Subject::version(gone);
    assert_eq!(announced(&b.input(notice(5, Terms::Withdrawn))), [Known { subject, serial: 5 }]);
    assert!(b.input(notice(5, Terms::Withdrawn)).is_empty(), "announced once");
    let known = NoticeList { notices: List::truncated([Known { subject, serial: 0 }]) };
    let out = say(&mut b, 1, ToCn::NoticesHeld(known));
    assert!(to_client(&out, 1).iter().any(|m| matches!(m, ToClient::Notice(_))), "who holds it gets the notice");
    assert_eq!(failed(&ask(&mut b, Some(signed_grant(grant_of(1)))), 1), Some(QueryError::Withdrawn));
    let out = say(&mut b, 1, inventory(1, true, &[held(1, gone), held(1, other)]));
    let [ToDn::Shares(shares)] = to_dn(&out)[..] else { panic!("{out:?}") };
    assert_eq!(shares.add.iter().map(|s| s.version).collect::<Vec<_>>(), [other]);
    b.input(notice(6, Terms::Policy(Policy::default())));
    assert_eq!(failed(&ask(&mut b, Some(signed_grant(grant_of(1)))), 1), None, "published again");
    b.now = b.now.after(secs(7));
    b.input(notice(7, Terms::Policy(Policy { peer_download: false, ..Policy::default() })));
    let refused = failed(&ask(&mut b, Some(signed_grant(grant_of(1)))), 1);
    assert_eq!(refused, Some(QueryError::PeersForbidden), "the newest policy counts, whatever the grant says");
}

#[test]
fn a_forked_log_reaches_the_ledger_and_a_false_head_is_refused() {
    let (mut b, _, _) = whole();
    b.cfg.logs = true;
    join(&mut b, 1);
    let mut heads = Vec::new();
    for n in [1, 2] {
        // both records have the first place of one log, as two running copies of a machine would write them
        let record = usage(n, 1);
        let head = Log::default().append(SecondaryGuid::numbered(1), &record);
        let signature = fake_sign(&key(1), SigningContext::LogHead, &head.to_bytes());
        let head = SignedHead { head, key: key(1), signature };
        for output in say(&mut b, 1, ToCn::Usage(Logged { record, head })) {
            if let Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Log(log)), .. } = output
                && let LogEvent::Head(head) = log.event
            {
                heads.push(head);
            }
        }
    }
    let found = logs::forks(fake_verify, heads);
    assert_eq!((found.len(), found[0].guid), (1, Guid::of(&key(1))));
    let ToCn::Usage(mut lie) = logged(3, 1) else { panic!("a usage record") };
    lie.record.edge_bytes += 1;
    let out = say(&mut b, 1, ToCn::Usage(lie));
    assert!(out.contains(&Output::Count(Metric::Violation)) && submitted(&out).is_empty());
}

#[test]
fn missing_receipts_can_be_reported_only_until_soon_after_the_end() {
    let intro = introductions::tests::intro(1);
    let serve_until_ms = NOW_MS + 60_000;
    let last_ms = serve_until_ms + introductions::TOLD_WITHIN_MS;
    let intro = Introduction { uploader_key: hello(1).upload_key, serve_until_ms, ..intro };
    let report = Unreceipted { intro: introductions::tests::answer(vec![intro]).remove(0), owed: 1, receipted: 0 };
    for (at_ms, counts) in [(NOW_MS, true), (last_ms, true), (last_ms + 1, false)] {
        let (mut b, ..) = whole();
        b.input(Input::WallClock { unix_ms: at_ms });
        (1..=2).for_each(|n| drop(join(&mut b, n)));
        let reaches = |out: Vec<Output>| to_dn(&out).iter().any(|m| matches!(m, ToDn::Unreceipted(_)));
        assert_eq!(reaches(say(&mut b, 1, ToCn::Unreceipted(report.clone()))), counts);
        assert!(!reaches(say(&mut b, 2, ToCn::Unreceipted(report.clone()))), "another's");
    }
}

#[test]
fn a_client_below_the_least_version_gets_no_session_and_is_told_why() {
    let mut b = bench();
    b.cfg.client_version_min = 0x0001_0200;
    for (n, client_version, why) in [(1, 0x0001_01ff, Some(Refusal::Outdated)), (2, 0x0001_0200, None)] {
        accept(&mut b, n, u32::try_from(n).expect("small"));
        let hello = Hello { client_version, ..hello(u32::try_from(n).expect("small")) };
        let out = say(&mut b, n, ToCn::Hello(hello));
        assert_eq!(refusal(&out, n), why);
        assert_eq!(out.contains(&Output::Count(Metric::Outdated)), why.is_some());
    }
    assert_eq!(b.machine.sessions(), 1);
}
