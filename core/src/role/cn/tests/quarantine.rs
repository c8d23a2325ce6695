//! Tests of clients and downloads that get no peers: suspects in quarantine, and downloads without receipts.

use super::*;
use crate::wire::ledger::QuarantinePage;

/// Sends the list of quarantined clients, in pages of one.
fn send_list(b: &mut Bench<Cn>, ledger: ConnId, clients: &[u32]) -> Vec<Output> {
    let page = |guids: Vec<Guid>, last| {
        let msg = FromLedger::Quarantine(QuarantinePage { guids: List::truncated(guids), last });
        Input::Ledger { conn: ledger, msg }
    };
    let mut out: Vec<Output> = Vec::new();
    for n in clients {
        out.extend(b.input(page(vec![Guid::of(&key(*n))], false)));
    }
    assert!(out.is_empty(), "a list counts when it is whole");
    b.input(page(vec![], true))
}

/// Returns, for each entry sent to the DN, whether the client may be offered.
fn offerable(out: &[Output]) -> Vec<(Guid, bool)> {
    let peer = |m: &ToDn| if let ToDn::Peer(e) = m { Some((e.guid, e.uploads)) } else { None };
    to_dn(out).into_iter().filter_map(peer).collect()
}

fn gets_no_peers(out: &[Output]) -> bool {
    failed(out, 1) == Some(QueryError::Limited)
}

#[test]
fn a_quarantined_client_gets_no_peers_and_is_offered_to_nobody() {
    let (mut b, dn, ledger) = whole();
    join(&mut b, 1);
    join(&mut b, 2);
    let guid = Guid::of(&key(1));
    assert_eq!(offerable(&send_list(&mut b, ledger, &[1, 9])), [(guid, false)], "no entry for other clients");
    let out = say(&mut b, 1, query());
    assert!(gets_no_peers(&out) && to_dn(&out).is_empty(), "{out:?}");
    // neither the user's settings nor a new session ends the quarantine
    let nat = NatDescriptor { hairpin: true, ..NatDescriptor::default() };
    let update = ToCn::Update(Update { uploads: true, nat });
    assert_eq!(offerable(&say(&mut b, 1, update)), [(guid, false)]);
    b.input(Input::ClientClosed { conn: ConnId(1) });
    assert_eq!(offerable(&join(&mut b, 1)), [(guid, false)]);
    assert!(gets_no_peers(&say(&mut b, 1, query())));
    // an introduction that is on its way to the client ends here
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let introduce = crate::wire::control::Introduce { intro, nat: NatDescriptor::default(), ticket: None };
    let session = b.machine.sessions.get(ConnId(1)).expect("open").id;
    let from = Route { link: 9, session: SessionId(7) };
    let deliver = FromDn::Deliver(Deliver { session, from, introduce });
    assert!(to_client(&b.input(Input::Directory { conn: dn, msg: deliver }), 1).is_empty());
    // other clients are not affected
    select_req(&ask_as(&mut b, 2));
    assert_eq!(offerable(&send_list(&mut b, ledger, &[])), [(guid, true)]);
    select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
}

fn ask_as(b: &mut Bench<Cn>, n: u32) -> Vec<Output> {
    let req = open_req(&say(b, u64::from(n), query()));
    b.input(Input::GrantOpened { req, grant: Some(signed_grant(grant_of(n))) })
}

#[test]
fn without_the_ledger_the_last_complete_list_counts() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    send_list(&mut b, ledger, &[1]);
    let half = FromLedger::Quarantine(QuarantinePage { guids: List::default(), last: false });
    b.input(Input::Ledger { conn: ledger, msg: half });
    b.input(Input::LedgerClosed { conn: ledger });
    assert!(gets_no_peers(&say(&mut b, 1, query())));
    let again = ledger_conn(&b.wait(secs(10))).expect("dialled again");
    b.input(Input::LedgerOpened { conn: again });
    send_list(&mut b, again, &[2]);
    select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
}

#[test]
fn a_download_without_receipts_is_refused_with_a_retry_time() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    let req = select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
    let selected = Selected { req, peers: List::default(), edge_only_ms: Some(9) };
    let out = b.input(Input::Directory { conn: dn, msg: FromDn::Selected(selected) });
    let [ToClient::QueryFailed(f)] = to_client(&out, 1)[..] else { panic!("{out:?}") };
    assert_eq!((f.why, f.retry_after_ms), (QueryError::Unreceipted, 9));
}
