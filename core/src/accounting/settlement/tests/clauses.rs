//! Tests that each assertion about books, claims and bills finds a wrong state.

use super::*;
use crate::bench::{Clause, assert_each_clause_fires};

const BEGIN_MS: u64 = 10;

/// Returns a book with a final report, an uploader's record from before its quarantine, and records of an edge.
fn book() -> Book {
    let mut quarantines = Quarantines::default();
    quarantines.add(Guid::numbered(2), BEGIN_MS, u64::MAX);
    let mut book = Book::default().with_quarantines(quarantines);
    let edge = EdgeRecord {
        id: RecordId::numbered(7),
        edge: PublicKey::numbered(7),
        download: Some(D),
        guid: Some(Guid::numbered(1)),
        version: V,
        provider: ProviderId(1),
        seq: 1,
        unique_bytes: 1,
        total_bytes: 1,
    };
    let served = ServedRecord {
        id: RecordId::numbered(8),
        edge: PublicKey::numbered(7),
        download: D,
        guid: Guid::numbered(1),
        version: V,
        provider: ProviderId(1),
        life: 3,
        seq: 1,
        sent: Spans::of([0..1]).to_blob(),
        total_bytes: 1,
        unsure_bytes: 0,
    };
    let records = [
        granted(1_000),
        sent(2, 1, &[(1, 500)]),
        ended(got(1, &[(1, 500)])),
        LedgerRecord::Edge(edge),
        LedgerRecord::Served(served),
    ];
    records.into_iter().for_each(|record| book.add(record, 5));
    book
}

fn reporter(guid: u32) -> Guid {
    Guid::numbered(guid)
}

const BOOK: &[Clause<Book>] = &[
    ("a downloader's record is listed under its GUID", |b| {
        let r = b.claimed_downloaders.remove(&reporter(1)).expect("it has reported");
        b.claimed_downloaders.insert(reporter(9), r);
    }),
    ("an uploader's record is listed under its GUID", |b| {
        b.uploaders.get_mut(&reporter(2)).expect("it has reported").side = Side::Downloader;
    }),
    ("an edge's record is listed under its key", |b| {
        b.edges.get_mut(&PublicKey::numbered(7)).expect("it has reported").edge = PublicKey::numbered(8);
    }),
    ("an edge's record is listed under its life", |b| {
        b.served.get_mut(&(PublicKey::numbered(7), 3)).expect("it has reported").life = 4;
    }),
    ("a download has ended by its downloader's newest report", |b| b.final_report_ms.clear()),
    ("no report comes before the first record", |b| b.first_ms = Some(6)),
    ("a record from before a quarantine is its client's", |b| b.quarantines = Quarantines::default()),
];

const CLAIMS: &[Clause<Claims>] = &[
    ("no more received bytes count than are claimed", |c| c.received = 4),
    ("no more receipted bytes count than have receipts", |c| c.receipted = 4),
    ("no more bytes are agreed on than have receipts that count", |c| c.agreed = 6),
    ("agreed bytes have an uploader", |c| c.uploader = None),
];

const BILL: &[Clause<Bill>] = &[
    ("no more bytes are billed than are agreed on", |b| b.peers_agreed = 499),
    ("no more bytes are agreed on than have receipts", |b| b.peers_receipted = 499),
    ("no more bytes of peers are billed than the grant allows", |b| b.max_peer_bytes = 499),
    ("no more bytes are billed than the version has", |b| b.edge_unique = 501),
    ("the uploaders' shares add up to the bill", |b| b.shares.clear()),
];

#[test]
fn each_clause_of_a_book_finds_a_corruption() {
    assert_each_clause_fires(&book(), Book::check, BOOK);
}

#[test]
fn each_clause_of_claims_and_bills_finds_a_corruption() {
    let claims = Claims {
        received: 5,
        received_billable: 5,
        receipted: 5,
        receipted_billable: 5,
        agreed: 5,
        uploader: Some(reporter(2)),
        ..Claims::default()
    };
    assert_each_clause_fires(&claims, Claims::check, CLAIMS);
    let bill = book().bill(fake_verify, 5);
    assert_eq!(bill.peers_billed, 500);
    assert_each_clause_fires(&bill, Bill::check, BILL);
}
