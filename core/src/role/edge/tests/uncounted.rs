//! Tests of an edge whose spool fails, or which has too many counts.

use super::*;
use crate::role::edge::io::Uncountable;

fn given(req: u64) -> Output {
    Output::Serve { req: ReqId(req), counted: false }
}

/// Requests to send bytes with a grant.
fn serve_under(b: &mut Bench<Edge>, req: u64, grant: &Grant, bytes: u64) -> Vec<Output> {
    b.input(Input::SendRequested { req: ReqId(req), grant: Box::new(grant.clone()), bytes })
}

/// Returns an edge whose spool has just refused the first reservation of download 1.
fn with_failed_spool() -> Bench<Edge> {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1_000);
    let req = saves(&out)[0].0;
    let out = b.input(Input::Saved { req, ok: false });
    assert!(out.contains(&Output::Withhold { req: ReqId(1) }), "peers could be paid for them");
    assert!(out.contains(&Output::Counting(Err(Uncountable::Refused))));
    assert_eq!(b.machine.counting(), 0);
    b
}

#[test]
fn a_failed_spool_makes_grants_without_peers_and_gives_bytes_away() {
    let mut b = with_failed_spool();
    let grant = issued(&ask(&mut b, asked())).expect("a grant");
    assert!(grant.is_edge_only() && !grant.policy.peer_download && !grant.challenged);
    assert_eq!(serve_under(&mut b, 2, &grant, 1_000), [given(2)]);
    assert_eq!(b.input(Input::GivenAway { bytes: 1_000 }), [Output::GaveAway { bytes: 1_000 }]);
    assert_eq!(b.machine.counting(), 0, "nobody is billed for them");
}

#[test]
fn uncountable_bytes_are_withheld_from_downloads_with_peers() {
    let mut b = with_failed_spool();
    assert_eq!(serving(&mut b, 2, 2, 1_000), [Output::Withhold { req: ReqId(2) }]);
    // the client continues with another download, which cannot have peers
    let out = renewal(&mut b, &Grant { guid: Guid::of(&PublicKey::numbered(1)), ..grant(2) }, true);
    let other = issued(&out).expect("a grant");
    assert!(other.is_edge_only() && other.download != grant(2).download);
    assert_eq!((other.version, other.began_ms), (grant(2).version, grant(2).began_ms));
    assert!(serve_under(&mut b, 3, &other, 1_000).contains(&given(3)));
}

#[test]
fn a_working_spool_is_noticed_without_any_request() {
    let mut b = with_failed_spool();
    let out = b.wait(secs(2));
    let [(req, _)] = saves(&out)[..] else { panic!("{out:?}") };
    assert!(!b.input(Input::Saved { req, ok: false }).iter().any(|o| matches!(o, Output::Counting(_))), "no news");
    let out = b.wait(secs(2));
    let req = saves(&out)[0].0;
    assert!(b.input(Input::Saved { req, ok: true }).contains(&Output::Counting(Ok(()))));
    assert!(saves(&b.wait(secs(60))).is_empty());
    assert!(!issued(&ask(&mut b, GrantAsked { time_ms: 1_064_000, ..asked() })).expect("a grant").is_edge_only());
    let out = serving(&mut b, 2, 2, 1_000);
    let req = saves(&out)[0].0;
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(2)));
}

#[test]
fn unreserved_bytes_are_withheld_from_a_download_with_peers() {
    let (mut b, _) = with_ledger();
    let out = serving(&mut b, 1, 1, 1 << 20);
    let req = saves(&out)[0].0;
    b.input(Input::Saved { req, ok: true });
    let out = serving(&mut b, 2, 1, 1 << 20);
    assert!(out.contains(&counted(2)));
    let req = saves(&out)[0].0;
    assert!(!serving(&mut b, 3, 1, 1 << 20).contains(&counted(3)));
    assert!(b.input(Input::Saved { req, ok: false }).contains(&Output::Withhold { req: ReqId(3) }));
    assert_eq!(b.machine.counting(), 1, "what was sent is counted still");
    let out = serving(&mut b, 4, 1, 1 << 20);
    let req = saves(&out)[0].0;
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(4)), "and it goes on when the spool writes");
}

#[test]
fn nothing_is_withheld_from_a_running_download_without_peers() {
    let (mut b, _) = with_ledger();
    let alone = grant(1).edge_only();
    let out = serve_under(&mut b, 1, &alone, 1 << 20);
    let req = saves(&out)[0].0;
    b.input(Input::Saved { req, ok: true });
    let out = serve_under(&mut b, 2, &alone, 8 << 20);
    let req = saves(&out)[0].0;
    assert!(b.input(Input::Saved { req, ok: false }).contains(&counted(2)), "its bytes are counted in memory");
}

#[test]
fn a_write_that_succeeds_after_a_failed_one_is_cleaned_up() {
    let (mut b, _) = with_ledger();
    let (first, second) = (serving(&mut b, 1, 1, 1 << 20), serving(&mut b, 2, 1, 1 << 20));
    let (first, second) = (saves(&first)[0].0, saves(&second)[0].0);
    b.input(Input::Saved { req: first, ok: false });
    let out = b.input(Input::Saved { req: second, ok: true });
    assert_eq!(
        submitted(&out),
        [LedgerRecord::Granted(GrantRecord::of(&grant(1)))],
        "the spool has it: so must the ledger"
    );
    let out = b.wait(secs(2));
    assert!(saves(&out)[0].1.ended.contains(&DownloadId::numbered(1)));
}

#[test]
fn a_full_table_ends_the_oldest_download_whose_bytes_are_in_records() {
    let (mut b, conn) = with_ledger();
    b.cfg.counts_max = 2;
    for n in [1, 2] {
        let out = serving(&mut b, n.into(), n, 1_000);
        let req = saves(&out)[0].0;
        b.input(Input::Saved { req, ok: true });
        serve(&mut b, Some(served_grant(n)), 0..1_000);
    }
    // both downloads have bytes in no record yet: a third one's bytes are given away, if it has no peers
    let out = serving(&mut b, 3, 3, 1_000);
    assert!(
        out.contains(&Output::Withhold { req: ReqId(3) }) && out.contains(&Output::Counting(Err(Uncountable::Full)))
    );
    let grant = issued(&ask(&mut b, asked())).expect("a grant");
    assert!(grant.is_edge_only());
    assert!(serve_under(&mut b, 4, &grant, 1_000).contains(&given(4)));
    // once all their bytes are in records, the oldest download makes room
    let (records, out) = flush(&mut b);
    assert!(out.contains(&Output::Counting(Ok(()))), "{out:?}");
    records.iter().for_each(|r| ack(&mut b, conn, r.id));
    let out = serving(&mut b, 5, 5, 1_000);
    let req = saves(&out)[0].0;
    assert!(b.input(Input::Saved { req, ok: true }).contains(&counted(5)));
    let out = b.wait(secs(2));
    let ended: Vec<_> = saves(&out).iter().flat_map(|(_, batch)| batch.ended.clone()).collect();
    assert_eq!((b.machine.counting(), ended), (2, vec![DownloadId::numbered(1)]));
}

#[test]
fn a_download_that_made_room_continues_in_another_life() {
    let (mut b, _) = with_ledger();
    b.cfg.counts_max = 1;
    let mut lives = Vec::new();
    for n in [1, 2, 1] {
        let out = serving(&mut b, n.into(), n, 1_000);
        let req = saves(&out)[0].0;
        b.input(Input::Saved { req, ok: true });
        let before = b.machine.records_waiting();
        serve(&mut b, Some(served_grant(n)), 0..1_000);
        let out = b.wait(secs(2));
        let [(req, batch)] = saves(&out)[..] else { panic!("{out:?}") };
        lives.extend(
            batch.records.iter().filter_map(|r| if let LedgerRecord::Served(r) = r { Some(r.life) } else { None }),
        );
        b.input(Input::Saved { req, ok: true });
        assert!(b.machine.records_waiting() > before);
    }
    assert!(lives.len() == 3 && lives[0] != lives[2], "the ledger adds up the lives of a count: {lives:?}");
}

#[test]
fn plain_bytes_without_a_place_are_given_away() {
    let (mut b, _) = with_ledger();
    b.cfg.counts_max = 0;
    let out = b.input(Input::BytesSent { grant: None, version: V, provider: P, range: 0..10 });
    assert!(out.contains(&Output::GaveAway { bytes: 10 }));
}

#[test]
fn restored_counts_keep_their_remaining_idle_time() {
    let (mut b, _) = with_ledger();
    serve(&mut b, Some(served_grant(1)), 0..100);
    let out = b.wait(secs(2));
    let counts = saves(&out)[0].1.counts.clone();
    // a restart 50 minutes later
    let mut b = Bench::new(Edge::default(), b.cfg);
    b.input(Input::WallClock { unix_ms: 1_000_000 + 50 * 60_000 });
    b.input(Input::Restored { records: Vec::new(), counts: counts.clone() });
    let out = b.wait(secs(2));
    let (req, batch) = saves(&out)[0];
    assert_eq!(batch.counts[0].over_ms, counts[0].over_ms, "not a moment more");
    b.input(Input::Saved { req, ok: true });
    let dial = |o: &Output| if let Output::LedgerDial { conn } = o { Some(*conn) } else { None };
    let conn = out.iter().find_map(dial).expect("a dial");
    b.input(Input::LedgerOpened { conn });
    ack(&mut b, conn, batch.records[0].id());
    b.wait(secs(10 * 60 - 5));
    assert_eq!(b.machine.counting(), 1);
    b.wait(secs(5));
    assert_eq!(b.machine.counting(), 0);
}
