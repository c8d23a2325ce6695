//! Tests of when, and how often, the client queries for peers.

use super::*;

#[test]
fn a_download_asks_until_it_has_enough_peers() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let out = b.input(Input::Want(want(4)));
    let query = queries(&out)[0].query;
    let out = b.input(Input::Message { conn, msg: introductions_for(query, 2) });
    assert!(matches!(&out[..], [Output::Introduced { download: D1, peers }] if peers.len() == 2));
    b.input(Input::Want(want(2)));
    assert_eq!(queries(&b.wait(secs(5))).len(), 1, "it asks again for the rest");
    b.input(Input::Want(want(0)));
    assert!(queries(&b.wait(secs(600))).is_empty());
}

#[test]
fn few_known_peers_mean_a_query_soon_and_none_found_fewer_queries() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let mut asked = queries(&b.input(Input::Want(want(24))))[0].query;
    let mut wait_for_next = |b: &mut Bench<ClientSession>, peers: u32, known: u32| {
        b.input(Input::Message { conn, msg: introductions_for(asked, peers) });
        let exclude = (0..known).map(PublicKey::numbered).collect();
        b.input(Input::Want(Want { exclude, ..want(20) }));
        let waited = (1..=600_u64).find(|_| {
            let out = b.wait(Duration::from_millis(250));
            if sent(&out).contains(&&ToCn::Ping) {
                b.input(Input::Message { conn, msg: ToClient::Pong });
            }
            queries(&out).first().inspect(|q| asked = q.query).is_some()
        });
        Duration::from_millis(250 * waited.expect("it asks again"))
    };
    assert!(wait_for_next(&mut b, 2, 2) <= secs(1));
    assert!(wait_for_next(&mut b, 2, 4) <= secs(1));
    let waits: Vec<_> = (0..4).map(|_| wait_for_next(&mut b, 0, 4)).collect();
    assert!(waits[0] <= secs(1) && waits[3] >= secs(4) && waits.is_sorted(), "{waits:?}");
    assert!(wait_for_next(&mut b, 4, 8) >= secs(5));
}

#[test]
fn a_query_without_an_answer_is_asked_again() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    assert_eq!(queries(&b.input(Input::Want(want(4)))).len(), 1);
    let mut asked = 0;
    for _ in 0..70 {
        let out = b.wait(secs(1));
        asked += queries(&out).len();
        if sent(&out).contains(&&ToCn::Ping) {
            b.input(Input::Message { conn, msg: ToClient::Pong });
        }
    }
    assert_eq!(asked, 1);
}

#[test]
fn queries_keep_to_their_rate_over_all_downloads() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let mut asked = 0;
    for n in 0..20_u8 {
        let w = Want { download: DownloadId([n; 16]), ..want(4) };
        asked += queries(&b.input(Input::Want(w))).len();
    }
    assert_eq!(asked, 8);
    for _ in 0..59 {
        assert!(queries(&b.wait(secs(1))).is_empty());
        b.input(Input::Message { conn, msg: ToClient::Pong });
    }
    assert_eq!(queries(&b.wait(secs(1))).len(), 8);
}

#[test]
fn a_download_that_asks_again_and_again_leaves_the_next_its_first_query() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let mut out = b.input(Input::Want(want(24)));
    let mut asked = 0;
    for _ in 0..20 {
        for query in queries(&out) {
            asked += 1;
            b.input(Input::Message { conn, msg: introductions_for(query.query, 1) });
            b.input(Input::Want(Want { exclude: vec![PublicKey::numbered(1)], ..want(20) }));
        }
        out = b.wait(secs(1));
        b.input(Input::Message { conn, msg: ToClient::Pong });
    }
    assert_eq!(asked, 6, "it has used its share of the minute");
    let next = |n: u8| Want { download: DownloadId([n; 16]), ..want(4) };
    let asks = (7..10).map(|n| queries(&b.input(Input::Want(next(n)))).len());
    assert_eq!(asks.collect::<Vec<_>>(), [1, 1, 0]);
}

#[test]
fn an_answer_to_a_query_that_was_not_asked_is_ignored() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let query = queries(&b.input(Input::Want(want(4))))[0].query;
    assert!(b.input(Input::Message { conn, msg: introductions_for(query + 1, 1) }).is_empty());
    b.input(Input::Unwant { download: D1 });
    assert!(b.input(Input::Message { conn, msg: introductions_for(query, 1) }).is_empty());
}

#[test]
fn a_download_that_lost_a_peer_queries_beyond_the_usual_rate() {
    let mut b = bench();
    connect(&mut b);
    let out = b.input(Input::Want(want(4)));
    let conn = out.iter().find_map(|o| if let Output::Send { conn, .. } = o { Some(*conn) } else { None });
    let conn = conn.expect("a query");
    let answer = |b: &mut Bench<ClientSession>, query| {
        b.input(Input::Message { conn, msg: introductions_for(query, 1) });
    };
    answer(&mut b, queries(&out)[0].query);
    for n in 1..=9 {
        assert_eq!(queries(&b.input(Input::Want(want(4)))).len(), 0, "it has just asked");
        let out = b.input(Input::Want(Want { soon: true, ..want(4) }));
        assert_eq!(queries(&out).len(), 1, "{n}");
        answer(&mut b, queries(&out)[0].query);
    }
    let out = b.input(Input::Want(Want { soon: true, ..want(4) }));
    assert_eq!(queries(&out).len(), 0, "the CN allows ten a minute");
}

#[test]
fn a_query_lost_with_its_session_is_repeated_in_the_next() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let known = || Want { exclude: vec![PublicKey::numbered(1)], ..want(4) };
    for _ in 0..b.cfg.queries_per_minute {
        let out = b.input(Input::Want(Want { soon: true, ..known() }));
        b.input(Input::Message { conn, msg: introductions_for(queries(&out)[0].query, 1) });
    }
    assert_eq!(queries(&b.input(Input::Want(known()))).len(), 0, "it has just asked");
    assert_eq!(queries(&b.input(Input::Want(Want { soon: true, ..known() }))).len(), 1);
    b.input(Input::Closed { conn });
    let again = dialled(&b.wait(secs(1)));
    b.input(Input::Opened { conn: again[0].0 });
    let out = b.input(Input::Message { conn: again[0].0, msg: welcome() });
    assert_eq!(queries(&out).len(), 1, "{out:?}");
}

#[test]
fn an_answer_without_peers_has_its_reason_and_is_asked_for_again() {
    let mut b = bench();
    let (conn, _) = connect(&mut b);
    let mut query = queries(&b.input(Input::Want(want(4))))[0].query;
    for why in [QueryError::NotShared, QueryError::Unreachable, QueryError::Limited, QueryError::OffersSpent] {
        let msg = ToClient::QueryFailed(QueryFailed { query, why, retry_after_ms: 0 });
        assert_eq!(b.input(Input::Message { conn, msg }), [Output::NoPeers { download: D1, why }]);
        let asked = (0..120).find_map(|_| {
            let out = b.wait(secs(1));
            if sent(&out).contains(&&ToCn::Ping) {
                b.input(Input::Message { conn, msg: ToClient::Pong });
            }
            queries(&out).first().map(|q| q.query)
        });
        query = asked.expect("it asks again");
    }
    let msg = ToClient::QueryFailed(QueryFailed { query, why: QueryError::Withdrawn, retry_after_ms: 0 });
    let forbidden =
        [Output::NoPeers { download: D1, why: QueryError::Withdrawn }, Output::PeersForbidden { download: D1 }];
    assert_eq!(b.input(Input::Message { conn, msg }), forbidden);
}
