//! Tests of the holder's tickets that the session shows with its inventory.

use super::*;
use crate::limits::TICKET_CERTS_MAX;
use crate::wire::control::TicketsRefused;

const V: VersionId = VersionId([7; 32]);

/// Returns the input by which [`V`] is shared, with a ticket of this time.
fn share_v(complete: bool, issued_ms: u64) -> Input {
    Input::Share { version: V, complete, ticket: Box::new(ticket_of(Guid::numbered(1), V, issued_ms)) }
}

fn refused(conn: ConnId) -> Input {
    let versions = List::truncated([V, VersionId::numbered(9)]);
    Input::Message { conn, msg: ToClient::TicketsRefused(TicketsRefused { versions }) }
}

fn readd(b: &mut Bench<ClientSession>, conn: ConnId) -> Vec<Output> {
    let out = b.input(Input::Message { conn, msg: ToClient::ReaddRequest(ReaddRequest { spread_ms: 0 }) });
    [out, b.wait(secs(1))].concat()
}

/// Returns the times of issue of the tickets on the pages.
fn issued(out: &[Output]) -> Vec<u64> {
    pages(out).iter().flat_map(|page| page.add.iter().map(|held| held.ticket.issued_ms)).collect()
}

#[test]
fn each_page_has_the_tickets_of_its_versions_with_their_certificates() {
    let mut b = bench();
    let edges = u32::try_from(TICKET_CERTS_MAX).expect("few") + 1;
    for n in 0..2 * edges {
        let version = VersionId::numbered(n);
        let mut ticket = ticket_of(Guid::numbered(1), version, NOW_MS);
        ticket.cert = cert(ServerRole::Edge, PublicKey::numbered(n % edges));
        b.input(Input::Share { version, complete: true, ticket: Box::new(ticket) });
    }
    let (_, out) = connect(&mut b);
    let pages = pages(&out);
    assert_eq!(pages.iter().map(|p| p.certs.len()).collect::<Vec<_>>(), [TICKET_CERTS_MAX, TICKET_CERTS_MAX, 2]);
    let mut n = 0;
    for (page, held) in pages.iter().flat_map(|page| page.add.iter().map(move |held| (page, held))) {
        let shown = held.signed_ticket(Guid::numbered(1), &page.certs).expect("its certificate");
        assert!(shown.is_of(Guid::numbered(1), VersionId::numbered(n)));
        assert_eq!(shown.cert.body.key, PublicKey::numbered(n % edges));
        n += 1;
    }
    assert_eq!(n, 2 * edges);
}

#[test]
fn a_newer_ticket_is_shown_with_the_next_inventory_only() {
    let mut b = bench();
    b.input(share_v(true, 1));
    let (conn, out) = connect(&mut b);
    assert_eq!(issued(&out), [1]);
    b.input(share_v(true, 2));
    assert!(pages(&b.wait(secs(1))).is_empty(), "the CN has the version already");
    assert_eq!(issued(&readd(&mut b, conn)), [2]);
}

#[test]
fn a_refused_ticket_is_told_once_and_shown_again_only_to_another_cn() {
    let mut b = bench();
    b.input(share_v(false, 1));
    let (conn, _) = connect(&mut b);
    assert_eq!(b.input(refused(conn)), [Output::TicketsRefused(vec![V])]);
    assert!(b.input(refused(conn)).is_empty(), "told once");
    assert!(issued(&readd(&mut b, conn)).is_empty());
    b.input(share_v(true, 1));
    assert!(issued(&b.wait(secs(1))).is_empty(), "the same ticket for more pieces");
    b.input(share_v(true, 2));
    assert_eq!(issued(&b.wait(secs(1))), [2], "another ticket is shown at once");
    b.input(refused(conn));
    b.input(Input::Closed { conn });
    let (_, out) = connect(&mut b);
    assert_eq!(issued(&out), [2], "another session");
    b.machine.check();
}

#[test]
fn a_version_that_is_no_longer_shared_has_no_refused_ticket() {
    let mut b = bench();
    b.input(share_v(true, 1));
    let (conn, _) = connect(&mut b);
    b.input(refused(conn));
    b.input(Input::Unshare { version: V });
    b.machine.check();
    b.input(share_v(true, 1));
    assert_eq!(issued(&b.wait(secs(1))), [1]);
}
