//! Introductions are recorded before clients learn of them: bytes of an unrecorded introduction are not billed.

use super::*;
use crate::wire::geo_location::{GeoLocation, Locality};
use crate::wire::ledger::LedgerAck;
use crate::wire::records::{GrantRecord, LedgerRecord, LogEvent, Offered};

/// Returns a CN just after it got the signature for the query of client 1, with the connections of its DN and ledger
/// and the outputs so far.
fn signed_by(spool: bool, usage_max: u32) -> (Bench<Cn>, [ConnId; 2], Vec<Output>) {
    let (mut b, dn, ledger) = whole();
    join(&mut b, 1);
    (b.cfg.logs, b.cfg.spool, b.cfg.usage_max) = (true, spool, usage_max);
    let out = offered_by(&mut b, dn);
    (b, [dn, ledger], out)
}

/// Runs another query of client 1, up to the signature of its introductions.
pub(super) fn offered_by(b: &mut Bench<Cn>, dn: ConnId) -> Vec<Output> {
    let req = select_req(&ask(b, Some(signed_grant(grant_of(1)))));
    let peers = List::truncated([SelectedPeer {
        route: Route { link: 3, session: SessionId(1) },
        upload_key: PublicKey::numbered(200),
        observed: "192.0.2.9:4000".parse().expect("an address"),
        nat: NatDescriptor::default(),
        guid: Guid::numbered(200),
    }]);
    let selected = FromDn::Selected(Selected { req, peers, edge_only_ms: None });
    let out = b.input(Input::Directory { conn: dn, msg: selected });
    let [Output::Sign { req, context, message }] = &out[..] else { panic!("{out:?}") };
    let signature = fake_sign(&CN_KEY, *context, message);
    b.input(Input::Signed { req: *req, signature })
}

/// Returns the same as [`signed_by`] for a CN without a spool, with the ledger's connection only.
fn signed() -> (Bench<Cn>, ConnId, Vec<Output>) {
    let (b, [_, ledger], out) = signed_by(false, 100);
    (b, ledger, out)
}

/// Returns whether neither client 1 nor the selected peer has been told of an introduction.
fn no_peers_sent(out: &[Output]) -> bool {
    !answered(out) && !to_dn(out).iter().any(|m| matches!(m, ToDn::Relay(_)))
}

/// Returns the write to the spool, if there is one.
fn save(out: &[Output]) -> Option<(ReqId, Vec<LedgerRecord>, Vec<RecordId>)> {
    out.iter().find_map(|o| match o {
        Output::Save { req, records, acked } => Some((*req, records.clone(), acked.clone())),
        _ => None,
    })
}

/// Returns the record of the offer that is sent to the ledger.
fn recorded(out: &[Output]) -> (RecordId, &Offered) {
    let found = out.iter().find_map(|o| match o {
        Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Log(r)), .. } => match &r.event {
            LogEvent::Offered(offered) => Some((r.id, offered)),
            LogEvent::Login(_)
            | LogEvent::Registered(_)
            | LogEvent::Head(_)
            | LogEvent::Located(_)
            | LogEvent::Rekeyed(_)
            | LogEvent::Blamed(_) => None,
        },
        _ => None,
    });
    found.expect("a record")
}

fn answered(out: &[Output]) -> bool {
    to_client(out, 1).iter().any(|m| matches!(m, ToClient::Introductions(a) if a.peers.len() == 1))
}

#[test]
fn peers_are_named_once_the_ledger_has_recorded_the_offer() {
    let (mut b, ledger, out) = signed();
    let (id, offered) = recorded(&out);
    assert_eq!((offered.download, offered.peers[0].upload_key), (DownloadId::numbered(5), PublicKey::numbered(200)));
    assert!(!answered(&out), "not before");
    let ack = FromLedger::Ack(LedgerAck { ids: List::truncated([id]) });
    assert!(answered(&b.input(Input::Ledger { conn: ledger, msg: ack })));
    assert!(!answered(&b.wait(secs(1))), "once");
}

#[test]
fn an_absent_ledger_delays_peers_by_half_a_second() {
    let (mut b, ledger, out) = signed();
    let (id, _) = recorded(&out);
    b.input(Input::LedgerClosed { conn: ledger });
    assert!(answered(&b.wait(Duration::from_millis(500))));
    assert!(b.machine.recording.ledger.holds(id), "it is kept until the ledger has it");
}

#[test]
fn without_room_for_the_record_nobody_is_introduced() {
    for spool in [false, true] {
        let (_, _, out) = signed_by(spool, 0);
        assert_eq!(failed(&out, 1), Some(QueryError::Unavailable));
        assert!(no_peers_sent(&out) && save(&out).is_none());
    }
}

#[test]
fn with_a_spool_peers_are_named_once_the_write_is_durable() {
    let (mut b, [_, ledger], out) = signed_by(true, 100);
    b.input(Input::LedgerClosed { conn: ledger });
    assert!(no_peers_sent(&out));
    let (req, records, _) = save(&out).expect("a write");
    let out = b.input(Input::Saved { req, ok: true });
    assert!(answered(&out) && to_dn(&out).iter().any(|m| matches!(m, ToDn::Relay(_))));
    assert!(b.machine.recording.ledger.holds(records[0].id()), "it goes on to the ledger");
}

#[test]
fn with_a_failed_or_slow_spool_the_query_fails() {
    let (mut b, _, out) = signed_by(true, 100);
    let (req, records, _) = save(&out).expect("a write");
    let out = b.input(Input::Saved { req, ok: false });
    assert!(out.contains(&Output::Count(Metric::SpoolFailed)));
    assert_eq!((failed(&out, 1), no_peers_sent(&out)), (Some(QueryError::Unavailable), true));
    assert!(!b.machine.recording.ledger.holds(records[0].id()), "an offer that nobody learned of is not recorded");

    let (mut b, _, out) = signed_by(true, 100);
    let (req, ..) = save(&out).expect("a write");
    let out = b.wait(b.cfg.select_within);
    assert_eq!((failed(&out, 1), no_peers_sent(&out)), (Some(QueryError::Unavailable), true));
    assert!(no_peers_sent(&b.input(Input::Saved { req, ok: true })), "too late");
}

#[test]
fn the_first_peers_of_a_download_have_its_grant_recorded() {
    let signed = signed_grant(grant_of(1));
    let (mut b, [dn, _], out) = signed_by(true, 100);
    let (req, records, _) = save(&out).expect("a write");
    let granted = LedgerRecord::Granted(GrantRecord::shown(&signed));
    assert_eq!((&records[0], records.len()), (&granted, 2), "no edge may ever be asked for a byte of it");
    let out = b.input(Input::Saved { req, ok: false });
    assert!(!out.iter().any(|o| matches!(o, Output::LedgerSend { .. })));
    // the next query writes the grant again; once it is durable no query does
    let mut again = |ok| {
        let (req, records, _) = save(&offered_by(&mut b, dn)).expect("a write");
        let out = b.input(Input::Saved { req, ok });
        (records.contains(&granted), b.machine.recording.ledger.holds(granted.id()), answered(&out))
    };
    assert_eq!(again(true), (true, true, true));
    assert_eq!(again(true), (false, true, true));
}

#[test]
fn a_dn_lost_before_the_write_introduces_nobody() {
    for spool in [false, true] {
        let (mut b, [dn, _], _) = signed_by(spool, 100);
        let out = b.input(Input::DirectoryClosed { conn: dn });
        assert_eq!((failed(&out, 1), no_peers_sent(&out)), (Some(QueryError::Unavailable), true));
    }
}

#[test]
fn acknowledged_records_leave_the_spool_and_others_are_sent_again() {
    let (mut b, [_, ledger], out) = signed_by(true, 100);
    let (req, records, _) = save(&out).expect("a write");
    let ids: Vec<_> = records.iter().map(LedgerRecord::id).collect();
    b.input(Input::Saved { req, ok: true });
    let acked = |ids: &[RecordId]| FromLedger::Ack(LedgerAck { ids: List::truncated(ids.iter().copied()) });
    // another CN starts with the same spool
    let (mut after, _, ledger_after) = whole();
    let out = after.input(Input::Restored { records: records.clone() });
    assert_eq!(recorded(&out).0, ids[1]);
    for (b, conn) in [(&mut b, ledger), (&mut after, ledger_after)] {
        assert!(save(&b.input(Input::Ledger { conn, msg: acked(&ids) })).is_none(), "in its own time");
        let (req, records, out) = save(&b.wait(secs(1))).expect("a write");
        assert_eq!((records, &out), (vec![], &ids));
        // a failed write is repeated
        b.input(Input::Saved { req, ok: false });
        let (req, _, out) = save(&b.wait(secs(1))).expect("a write");
        assert_eq!(out, ids);
        b.input(Input::Saved { req, ok: true });
        assert!(save(&b.wait(secs(1))).is_none());
    }
}

#[test]
fn a_stopping_cn_deletes_acknowledged_records_from_its_spool() {
    let (mut b, [_, ledger], out) = signed_by(true, 100);
    let (req, records, _) = save(&out).expect("a write");
    b.input(Input::Saved { req, ok: true });
    b.input(Input::ClientClosed { conn: ConnId(1) });
    b.input(Input::Shutdown);
    let ack = FromLedger::Ack(LedgerAck { ids: List::truncated(records.iter().map(LedgerRecord::id)) });
    assert!(!b.input(Input::Ledger { conn: ledger, msg: ack }).contains(&Output::Stopped));
    let (req, ..) = save(&b.wait(Duration::ZERO)).expect("at once");
    assert!(b.input(Input::Saved { req, ok: true }).contains(&Output::Stopped));
}

#[test]
fn a_stopping_cn_repeats_a_failed_write_after_a_pause() {
    let (mut b, [_, ledger], out) = signed_by(true, 100);
    let (req, records, _) = save(&out).expect("a write");
    b.input(Input::Saved { req, ok: true });
    b.input(Input::ClientClosed { conn: ConnId(1) });
    b.input(Input::Shutdown);
    let ack = FromLedger::Ack(LedgerAck { ids: List::truncated(records.iter().map(LedgerRecord::id)) });
    b.input(Input::Ledger { conn: ledger, msg: ack });
    let (req, ..) = save(&b.wait(Duration::ZERO)).expect("at once");
    assert!(!b.input(Input::Saved { req, ok: false }).contains(&Output::Stopped));
    assert!(save(&b.wait(Duration::ZERO)).is_none(), "not at once");
    let (req, ..) = save(&b.wait(secs(1))).expect("again");
    assert!(b.input(Input::Saved { req, ok: true }).contains(&Output::Stopped));
}

#[test]
fn a_clients_location_goes_to_the_dns_and_to_the_ledger() {
    let (mut b, dn, ledger) = whole();
    (b.cfg.logs, b.cfg.geolocation) = (true, true);
    let out = accept(&mut b, 1, 1);
    let addr = "192.0.2.1".parse().expect("an address");
    assert_eq!(out, [Output::Locate { conn: ConnId(1), addr }]);
    let locality = Locality { asn: Some(64_500), country: Some(*b"DE"), region: None };
    let location = GeoLocation { locality, at: None };
    b.input(Input::Located { conn: ConnId(1), location });
    let out = say(&mut b, 1, ToCn::Hello(hello(1)));
    let sent = out.iter().find_map(|o| match o {
        Output::DirectorySend { conn, msg: ToDn::Peer(entry) } if *conn == dn => Some(entry.locality),
        _ => None,
    });
    assert_eq!(sent, Some(locality));
    let logged = out.iter().any(|o| {
        matches!(o, Output::LedgerSend { conn, msg: ToLedger::Submit(LedgerRecord::Log(r)) }
            if *conn == ledger && r.event == LogEvent::Located(location))
    });
    assert!(logged, "{out:?}");

    // a client that geolocation cannot place gets no such record
    accept(&mut b, 2, 2);
    let out = say(&mut b, 2, ToCn::Hello(hello(2)));
    let located = |o: &Output| {
        matches!(o, Output::LedgerSend { msg: ToLedger::Submit(LedgerRecord::Log(r)), .. }
            if matches!(r.event, LogEvent::Located(_)))
    };
    assert!(!out.iter().any(located), "{out:?}");
}
