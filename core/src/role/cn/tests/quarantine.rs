//! Who is left to the edge: suspects, who are told of nobody and offered to nobody, and downloads without receipts.

use super::*;
use crate::wire::ledger::QuarantinePage;

/// The ledger says who is in quarantine, in pages of one.
fn told(b: &mut Bench<Cn>, ledger: ConnId, clients: &[u32]) -> Vec<Output> {
    let page = |guids: Vec<Guid>, last| {
        let msg = LedgerMsg::Quarantine(QuarantinePage { guids: List::truncated(guids), last });
        Input::Ledger { conn: ledger, msg }
    };
    let mut out: Vec<Output> = Vec::new();
    for n in clients {
        out.extend(b.input(page(vec![Guid::of(&key(*n))], false)));
    }
    assert!(out.is_empty(), "a list counts when it is whole");
    b.input(page(vec![], true))
}

/// What the DN is told of whether a client may be offered.
fn offerable(out: &[Output]) -> Vec<(Guid, bool)> {
    let peer = |m: &DirectoryMsg| if let DirectoryMsg::Peer(e) = m { Some((e.guid, e.uploads)) } else { None };
    to_dn(out).into_iter().filter_map(peer).collect()
}

fn nobody_is_told(out: &[Output]) -> bool {
    matches!(to_client(out, 1)[..], [ControlMsg::Introductions(a)] if a.peers.is_empty())
}

#[test]
fn who_is_quarantined_is_told_of_nobody_and_offered_to_nobody_until_let_out() {
    let (mut b, dn, ledger) = whole();
    join(&mut b, 1);
    join(&mut b, 2);
    let guid = Guid::of(&key(1));
    assert_eq!(offerable(&told(&mut b, ledger, &[1, 9])), [(guid, false)], "and of others nothing is said");
    let out = say(&mut b, 1, query());
    assert!(nobody_is_told(&out) && to_dn(&out).is_empty(), "{out:?}");
    // its user's wishes change nothing, nor does its coming again
    let nat = NatDescriptor { hairpin: true, ..NatDescriptor::default() };
    let update = ControlMsg::Update(Update { uploads: true, nat });
    assert_eq!(offerable(&say(&mut b, 1, update)), [(guid, false)]);
    b.input(Input::ClientClosed { conn: ConnId(1) });
    assert_eq!(offerable(&join(&mut b, 1)), [(guid, false)]);
    assert!(nobody_is_told(&say(&mut b, 1, query())));
    // an introduction that was on its way to it ends here
    let intro = introductions::tests::answer(vec![introductions::tests::intro(1)]).remove(0);
    let introduce = crate::wire::control::Introduce { intro, nat: NatDescriptor::default(), ticket: None };
    let session = b.machine.clients[&ConnId(1)].session().expect("open").id;
    let from = Route { link: 9, session: SessionId(7) };
    let deliver = DirectoryMsg::Deliver(Deliver { session, from, introduce });
    assert!(to_client(&b.input(Input::Directory { conn: dn, msg: deliver }), 1).is_empty());
    // others are not concerned
    select_req(&ask_as(&mut b, 2));
    assert_eq!(offerable(&told(&mut b, ledger, &[])), [(guid, true)]);
    select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
}

fn ask_as(b: &mut Bench<Cn>, n: u32) -> Vec<Output> {
    let req = open_req(&say(b, u64::from(n), query()));
    b.input(Input::GrantOpened { req, grant: Some(signed_grant(grant_of(n))) })
}

#[test]
fn without_the_ledger_its_last_word_counts_and_half_a_list_is_none() {
    let (mut b, _, ledger) = whole();
    join(&mut b, 1);
    told(&mut b, ledger, &[1]);
    let half = LedgerMsg::Quarantine(QuarantinePage { guids: List::default(), last: false });
    b.input(Input::Ledger { conn: ledger, msg: half });
    b.input(Input::LedgerClosed { conn: ledger });
    assert!(nobody_is_told(&say(&mut b, 1, query())));
    let again = ledger_conn(&b.wait(secs(10))).expect("dialled again");
    b.input(Input::LedgerOpened { conn: again });
    told(&mut b, again, &[2]);
    select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
}

#[test]
fn a_download_that_gives_no_receipts_is_told_so_and_when_to_ask_again() {
    let (mut b, dn, _) = whole();
    join(&mut b, 1);
    let req = select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
    let selected = Selected { req, peers: List::default(), edge_only_ms: Some(9) };
    let out = b.input(Input::Directory { conn: dn, msg: DirectoryMsg::Selected(selected) });
    let [ControlMsg::QueryFailed(f)] = to_client(&out, 1)[..] else { panic!("{out:?}") };
    assert_eq!((f.why, f.retry_after_ms), (QueryError::Unreceipted, 9));
}
