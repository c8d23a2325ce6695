//! Who is introduced is recorded before it is told: bytes of an introduction that was not are not billed.

use super::*;
use crate::wire::ledger::LedgerAck;
use crate::wire::place::{Locality, Place};
use crate::wire::records::{LedgerRecord, LogEvent, Offered};

/// A signed answer to the query of client 1, before it is told; and the ledger's connection.
fn signed() -> (Bench<Cn>, ConnId, Vec<Output>) {
    let (mut b, dn, ledger) = whole();
    join(&mut b, 1);
    b.cfg.logs = true;
    let req = select_req(&ask(&mut b, Some(signed_grant(grant_of(1)))));
    let peers = List::truncated([SelectedPeer {
        route: Route { link: 3, session: SessionId(1) },
        upload_key: PublicKey::numbered(200),
        observed: "192.0.2.9:4000".parse().expect("an address"),
        nat: NatDescriptor::default(),
    }]);
    let selected = DirectoryMsg::Selected(Selected { req, peers, edge_only_ms: None });
    let out = b.input(Input::Directory { conn: dn, msg: selected });
    let [Output::Sign { req, context, message }] = &out[..] else { panic!("{out:?}") };
    let signature = fake_sign(&CN_KEY, *context, message);
    let out = b.input(Input::Signed { req: *req, signature });
    (b, ledger, out)
}

/// The record of the offer that goes to the ledger.
fn recorded(out: &[Output]) -> (RecordId, &Offered) {
    let found = out.iter().find_map(|o| match o {
        Output::LedgerSend { msg: LedgerMsg::Submit(LedgerRecord::Log(r)), .. } => match &r.event {
            LogEvent::Offered(offered) => Some((r.id, offered)),
            LogEvent::Login(_)
            | LogEvent::Registered(_)
            | LogEvent::Head(_)
            | LogEvent::Located(_)
            | LogEvent::Rekeyed(_) => None,
        },
        _ => None,
    });
    found.expect("a record")
}

fn answered(out: &[Output]) -> bool {
    to_client(out, 1).iter().any(|m| matches!(m, ControlMsg::Introductions(a) if a.peers.len() == 1))
}

#[test]
fn peers_are_named_when_the_ledger_has_recorded_them() {
    let (mut b, ledger, out) = signed();
    let (id, offered) = recorded(&out);
    assert_eq!((offered.download, offered.peers[0].upload_key), (DownloadId::numbered(5), PublicKey::numbered(200)));
    assert!(!answered(&out), "not before");
    let ack = LedgerMsg::Ack(LedgerAck { ids: List::truncated([id]) });
    assert!(answered(&b.input(Input::Ledger { conn: ledger, msg: ack })));
    assert!(!answered(&b.wait(secs(1))), "once");
}

#[test]
fn a_ledger_that_is_away_delays_peers_by_half_a_second_and_gets_the_record_later() {
    let (mut b, ledger, out) = signed();
    let (id, _) = recorded(&out);
    b.input(Input::LedgerClosed { conn: ledger });
    assert!(answered(&b.wait(Duration::from_millis(500))));
    assert!(b.machine.ledger.holds(id), "it is kept until the ledger has it");
}

#[test]
fn a_client_that_was_located_is_told_so_to_the_dns_and_to_the_ledger() {
    let (mut b, dn, ledger) = whole();
    (b.cfg.logs, b.cfg.geolocation) = (true, true);
    let out = accept(&mut b, 1, 1);
    let addr = "192.0.2.1".parse().expect("an address");
    assert_eq!(out, [Output::Locate { conn: ConnId(1), addr }]);
    let locality = Locality { asn: Some(64_500), country: Some(*b"DE"), region: None };
    let place = Place { locality, at: None };
    b.input(Input::Located { conn: ConnId(1), place });
    let out = say(&mut b, 1, ControlMsg::Hello(hello(1)));
    let told = out.iter().find_map(|o| match o {
        Output::DirectorySend { conn, msg: DirectoryMsg::Peer(entry) } if *conn == dn => Some(entry.locality),
        _ => None,
    });
    assert_eq!(told, Some(locality));
    let logged = out.iter().any(|o| {
        matches!(o, Output::LedgerSend { conn, msg: LedgerMsg::Submit(LedgerRecord::Log(r)) }
            if *conn == ledger && r.event == LogEvent::Located(place))
    });
    assert!(logged, "{out:?}");

    // of one that nobody could locate nothing is said
    accept(&mut b, 2, 2);
    let out = say(&mut b, 2, ControlMsg::Hello(hello(2)));
    let located = |o: &Output| {
        matches!(o, Output::LedgerSend { msg: LedgerMsg::Submit(LedgerRecord::Log(r)), .. }
            if matches!(r.event, LogEvent::Located(_)))
    };
    assert!(!out.iter().any(located), "{out:?}");
}
