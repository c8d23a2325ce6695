//! Tests of the settlement rules, one rule each.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

mod clauses;

use super::*;
use crate::accounting::certs::tests::{fake_sign, fake_verify};
use crate::accounting::logs::unsigned;
use crate::ids::{DownloadId, ProviderId, RecordId, Signature, VersionId};
use crate::wire::records::{LogRecord, Offered, OfferedPeer, ReceiptProof, ServedRecord, SigningContext};
use crate::wire::{List, Text, Wire as _};
use alloc::vec;
use alloc::vec::Vec;

const D: DownloadId = DownloadId([1; 16]);
const V: VersionId = VersionId([2; 32]);
const K_D: PublicKey = PublicKey([3; 32]);

fn granted(size: u64) -> LedgerRecord {
    LedgerRecord::Granted(GrantRecord {
        id: RecordId::numbered(1),
        download: D,
        guid: Guid::numbered(1),
        download_key: K_D,
        version: V,
        size,
        provider: ProviderId(1),
        path: Text::default(),
        issued_ms: 5,
        max_peer_bytes: size,
        challenged: false,
        proof: None,
    })
}

fn record(reporter: u32, side: Side, seq: u32, peers: Vec<PeerBytes>) -> UsageRecord {
    UsageRecord {
        id: RecordId::numbered(reporter * 100 + seq),
        reporter: Guid::numbered(reporter),
        side,
        download: D,
        version: V,
        seq,
        state: UsageState::Running,
        edge_bytes: 0,
        peers: List::truncated(peers),
        elapsed_ms: 0,
        cause: None,
    }
}

/// Returns the downloader's usage record with these bytes by introduction.
fn got(seq: u32, peers: &[(u32, u64)]) -> LedgerRecord {
    let peer = |&(intro, bytes)| PeerBytes {
        intro: IntroId::numbered(intro),
        key: PublicKey::numbered(intro),
        bytes,
        receipt: None,
    };
    LedgerRecord::Usage(unsigned(record(1, Side::Downloader, seq, peers.iter().map(peer).collect())))
}

fn ended(mut r: LedgerRecord) -> LedgerRecord {
    if let LedgerRecord::Usage(r) = &mut r {
        r.record.state = UsageState::Completed;
    }
    r
}

/// Returns a receipt for `bytes`, signed by the downloader.
fn proof(intro: u32, bytes: u64) -> ReceiptProof {
    let uploader_key = PublicKey::numbered(intro);
    let receipt = Receipt { intro: IntroId::numbered(intro), download: D, version: V, uploader_key, seq: 1, bytes };
    ReceiptProof {
        uploader_key,
        seq: 1,
        bytes,
        signature: fake_sign(&K_D, SigningContext::Receipt, &receipt.to_bytes()),
    }
}

/// Returns an uploader's usage record with these bytes by introduction, each with a receipt for all of them.
fn sent(reporter: u32, seq: u32, peers: &[(u32, u64)]) -> LedgerRecord {
    let peer = |&(intro, bytes)| PeerBytes {
        intro: IntroId::numbered(intro),
        key: K_D,
        bytes,
        receipt: Some(proof(intro, bytes)),
    };
    LedgerRecord::Usage(unsigned(record(reporter, Side::Uploader, seq, peers.iter().map(peer).collect())))
}

/// Returns an uploader's usage record of 40 bytes over introduction 1, with this receipt.
fn claimed(reporter: u32, proof: Option<ReceiptProof>) -> LedgerRecord {
    let peer = PeerBytes { intro: IntroId::numbered(1), key: K_D, bytes: 40, receipt: proof };
    LedgerRecord::Usage(unsigned(record(reporter, Side::Uploader, 1, vec![peer])))
}

fn edge(edge: u32, seq: u32, unique_bytes: u64) -> LedgerRecord {
    LedgerRecord::Edge(EdgeRecord {
        id: RecordId::numbered(edge * 1000 + seq),
        edge: PublicKey::numbered(edge),
        download: Some(D),
        guid: Some(Guid::numbered(1)),
        version: V,
        provider: ProviderId(1),
        seq,
        unique_bytes,
        total_bytes: unique_bytes + 1,
    })
}

fn bill(records: &[LedgerRecord]) -> Bill {
    records.iter().cloned().collect::<Book>().bill(fake_verify, 0)
}

/// Returns the record of a first grant with this maximum of billed bytes from peers.
fn capped(size: u64, max_peer_bytes: u64) -> LedgerRecord {
    let LedgerRecord::Granted(g) = granted(size) else { panic!("a grant") };
    LedgerRecord::Granted(GrantRecord { max_peer_bytes, ..g })
}

#[test]
fn no_bill_is_above_the_ceiling_of_the_first_grant() {
    let said = [got(1, &[(1, 70)]), sent(2, 1, &[(1, 70)])];
    let b = |grant| bill(&[&[grant], &said[..]].concat());
    assert_eq!(b(capped(100, 60)).peers_billed, 60);
    assert_eq!((b(capped(100, 60)).flagged, b(capped(100, 60)).max_peer_bytes), (10, 60), "the rest is shown");
    assert_eq!(b(capped(100, 0)).peers_billed, 0, "no peers allowed");
    assert_eq!((b(capped(50, u64::MAX)).peers_billed, b(capped(50, u64::MAX)).max_peer_bytes), (50, 50));
    // a later grant of the same download widens nothing
    let LedgerRecord::Granted(wider) = capped(100, 90) else { panic!("a grant") };
    let wider = LedgerRecord::Granted(GrantRecord { id: RecordId::numbered(2), issued_ms: 6, ..wider });
    let all = [&[wider.clone(), capped(100, 60), wider], &said[..]].concat();
    assert_eq!(bill(&all).peers_billed, 60);
}

#[test]
fn bytes_that_both_sides_claim_are_billed() {
    let b = bill(&[
        granted(100),
        edge(1, 1, 30),
        got(1, &[(1, 40), (2, 30)]),
        sent(2, 1, &[(1, 40)]),
        sent(3, 1, &[(2, 30)]),
    ]);
    assert_eq!((b.edge_unique, b.edge_total, b.peers_billed, b.flagged), (30, 31, 70, 0));
    assert_eq!((b.peers_received, b.peers_sent, b.peers_receipted), (70, 70, 70));
}

#[test]
fn one_side_alone_cannot_raise_the_bill() {
    let honest = [granted(100), got(1, &[(1, 40)]), sent(2, 1, &[(1, 40)])];
    let mut more = honest.to_vec();
    more.push(sent(2, 2, &[(1, 90), (9, 50)]));
    assert_eq!(
        bill(&more).peers_billed,
        bill(&honest).peers_billed,
        "even with receipts: the downloader must say so too"
    );
    let mut more = honest.to_vec();
    more.push(got(2, &[(1, 90), (9, 50)]));
    assert_eq!(bill(&more).peers_billed, bill(&honest).peers_billed);
    assert_eq!(bill(&more).flagged, 100);
    let mut stranger = got(9, &[(1, 40)]);
    if let LedgerRecord::Usage(r) = &mut stranger {
        r.record.reporter = Guid::numbered(7);
    }
    assert_eq!(bill(&[granted(100), stranger, sent(2, 1, &[(1, 40)])]).peers_billed, 0);
}

#[test]
fn an_uploader_is_billed_only_what_the_download_key_signed() {
    let with = |proof| bill(&[granted(100), got(1, &[(1, 40)]), claimed(2, proof)]).peers_billed;
    let good = proof(1, 40);
    assert_eq!(with(Some(good.clone())), 40);
    assert_eq!(with(Some(proof(1, 25))), 25, "what is not receipted is not billed");
    assert_eq!(with(None), 0);
    assert_eq!(with(Some(ReceiptProof { bytes: 41, ..good.clone() })), 0, "more than was signed");
    assert_eq!(with(Some(ReceiptProof { seq: 2, ..good.clone() })), 0);
    assert_eq!(with(Some(ReceiptProof { signature: Signature([9; 64]), ..good })), 0);
    assert_eq!(with(Some(proof(2, 40))), 0, "a receipt of another introduction");
}

#[test]
fn a_receipt_for_something_else_settles_nothing() {
    let other = |change: fn(&mut Receipt)| {
        let mut r = Receipt {
            intro: IntroId::numbered(1),
            download: D,
            version: V,
            uploader_key: PublicKey::numbered(1),
            seq: 1,
            bytes: 40,
        };
        change(&mut r);
        let signature = fake_sign(&K_D, SigningContext::Receipt, &r.to_bytes());
        let proof = ReceiptProof { uploader_key: r.uploader_key, seq: 1, bytes: 40, signature };
        let record = |download, version| {
            let mut record = claimed(2, Some(proof.clone()));
            if let LedgerRecord::Usage(u) = &mut record {
                (u.record.download, u.record.version) = (download, version);
            }
            bill(&[granted(100), got(1, &[(1, 40)]), record]).peers_billed
        };
        (record(D, V), record(r.download, r.version))
    };
    assert_eq!(other(|r| r.version = VersionId([8; 32])), (0, 0));
    assert_eq!(other(|r| r.download = DownloadId([8; 16])), (0, 0));
    assert_eq!(other(|r| r.uploader_key = PublicKey::numbered(8)), (0, 0));
    assert_eq!(other(|_| ()), (40, 40));
}

#[test]
fn one_receipt_filed_by_many_counts_once() {
    let one = [granted(100), got(1, &[(1, 40)]), claimed(2, Some(proof(1, 40)))];
    let mut many = one.to_vec();
    many.extend((3..9).map(|reporter| claimed(reporter, Some(proof(1, 40)))));
    assert_eq!(bill(&many).peers_billed, bill(&one).peers_billed);
    assert_eq!(bill(&many).flagged, 240);
}

#[test]
fn bytes_of_edges_leave_no_room_for_peers() {
    let both = |bytes| vec![got(1, &[(1, bytes)]), sent(2, 1, &[(1, bytes)])];
    let b = bill(&[vec![granted(100), edge(1, 1, 50), edge(2, 1, 20)], both(60)].concat());
    assert_eq!((b.peers_billed, b.flagged), (30, 30));
    assert_eq!(bill(&both(60)).peers_billed, 0, "without a grant nothing is billed");
}

#[test]
fn order_and_repetition_make_no_difference() {
    let mut records = vec![
        granted(100),
        edge(1, 1, 10),
        edge(1, 2, 30),
        got(1, &[(1, 10)]),
        got(2, &[(1, 40)]),
        sent(2, 1, &[(1, 40)]),
    ];
    let expected = bill(&records);
    assert_eq!((expected.edge_unique, expected.peers_billed), (30, 40));
    let again: Vec<_> = records.iter().chain(&records).cloned().collect();
    assert_eq!(bill(&again), expected);
    records.reverse();
    assert_eq!(bill(&records), expected);
}

#[test]
fn late_records_count_for_a_day_and_then_the_bill_stands() {
    let mut book = Book::default();
    book.add(granted(100), 1_000);
    book.add(ended(got(1, &[(1, 40)])), 2_000);
    assert_eq!(book.bill(fake_verify, 2_000).peers_billed, 0);
    let mut in_time = book.clone();
    in_time.add(sent(2, 1, &[(1, 40)]), 2_000 + LATE_MS - 1);
    assert_eq!(in_time.settlement(2_000 + LATE_MS - 1), Settlement::Open);
    assert_eq!(in_time.bill(fake_verify, u64::MAX).peers_billed, 40);
    assert_eq!(in_time.settlement(2_000 + LATE_MS), Settlement::Closed);
    let closed = in_time.bill(fake_verify, 2_000 + LATE_MS);
    in_time.add(ended(got(2, &[(1, 4)])), 2_000 + LATE_MS);
    assert_eq!((in_time.bill(fake_verify, u64::MAX), in_time.late()), (closed, 1), "no client changes a closed bill");
    book.add(sent(2, 1, &[(1, 40)]), 2_000 + LATE_MS);
    assert_eq!((book.bill(fake_verify, u64::MAX).peers_billed, book.late()), (0, 1));
}

#[test]
fn edge_bytes_count_after_the_downloaders_final_report() {
    let mut book = Book::default();
    book.add(granted(100), 1_000);
    book.add(ended(got(1, &[])), 2_000);
    book.add(edge(1, 1, 60), 2_000 + LATE_MS);
    assert_eq!((book.bill(fake_verify, u64::MAX).edge_unique, book.late()), (60, 0));
    book.add(edge(1, 2, 99), 1_000 + EXPIRES_MS);
    assert_eq!((book.bill(fake_verify, u64::MAX).edge_unique, book.late()), (60, 1), "when it has expired it stands");
}

#[test]
fn a_resumed_download_closes_a_day_after_its_next_end() {
    let mut book = Book::default();
    book.add(granted(100), 1_000);
    book.add(ended(got(1, &[(1, 10)])), 2_000);
    book.add(got(2, &[(1, 20)]), 3_000);
    assert_eq!(book.closes_ms(), Some(1_000 + EXPIRES_MS));
    book.add(sent(2, 1, &[(1, 50)]), 2_000 + LATE_MS);
    book.add(ended(got(3, &[(1, 50)])), 2_000 + LATE_MS);
    assert_eq!(book.closes_ms(), Some(2_000 + 2 * LATE_MS));
    assert_eq!(book.bill(fake_verify, u64::MAX).peers_billed, 50);
}

#[test]
fn only_the_client_with_the_grant_ends_a_download() {
    let mut book = Book::default();
    let stranger = ended(LedgerRecord::Usage(unsigned(record(9, Side::Downloader, 1, Vec::new()))));
    book.add(stranger, 500);
    book.add(granted(100), 1_000);
    book.add(got(1, &[(1, 40)]), 2_000);
    let late = 500 + LATE_MS;
    book.add(sent(2, 1, &[(1, 40)]), late);
    assert_eq!((book.bill(fake_verify, late).peers_billed, book.late()), (40, 0));
}

#[test]
fn at_expiry_a_silent_downloader_is_held_to_its_receipts() {
    let mut book = Book::default();
    book.add(granted(100), 1_000);
    book.add(got(1, &[(1, 10)]), 2_000);
    book.add(sent(2, 1, &[(1, 40)]), 3_000);
    book.add(claimed(3, None), 4_000);
    let at = 1_000 + EXPIRES_MS;
    assert_eq!((book.settlement(at - 1), book.bill(fake_verify, at - 1).peers_billed), (Settlement::Open, 10));
    assert_eq!((book.settlement(at), book.bill(fake_verify, at).peers_billed), (Settlement::Expired, 40));
}

/// Returns a CN's record of the peers that it introduced to the downloader.
fn introduced(peers: &[(u32, u32)]) -> LedgerRecord {
    let peer = |&(intro, key)| OfferedPeer { intro: IntroId::numbered(intro), upload_key: PublicKey::numbered(key) };
    let peers = List::truncated(peers.iter().map(peer));
    let event = LogEvent::Offered(Offered { download: D, version: V, peers });
    LedgerRecord::Log(LogRecord { id: RecordId::numbered(77), at_ms: 0, guid: Guid::numbered(1), event })
}

#[test]
fn bytes_of_an_unrecorded_introduction_are_not_billed() {
    let claims = [granted(100), got(1, &[(1, 40), (2, 30)]), sent(2, 1, &[(1, 40)]), sent(3, 1, &[(2, 30)])];
    let billed = |records: &[LedgerRecord]| {
        let mut book = Book::strict();
        claims.iter().chain(records).for_each(|r| book.add(r.clone(), 0));
        let b = book.bill(fake_verify, 0);
        (b.peers_billed, b.flagged)
    };
    assert_eq!(billed(&[]), (0, 70), "both sides agree, and yet");
    assert_eq!(billed(&[introduced(&[(1, 1)])]), (40, 30));
    assert_eq!(billed(&[introduced(&[(1, 1), (2, 9)])]), (40, 30), "an introduction of somebody else");
    assert_eq!(billed(&[introduced(&[(1, 1), (2, 2)])]), (70, 0));
}

/// Returns an edge's record of the byte ranges sent since it began its count at time `life`, with the number of bytes
/// that were reserved and perhaps not sent.
fn served(edge: u32, life: u64, seq: u32, ranges: &[core::ops::Range<u64>], unsure_bytes: u64) -> LedgerRecord {
    let spans = Spans::of(ranges.iter().cloned());
    LedgerRecord::Served(ServedRecord {
        id: RecordId::numbered(edge * 1000 + seq),
        edge: PublicKey::numbered(edge),
        download: D,
        guid: Guid::numbered(1),
        version: V,
        provider: ProviderId(1),
        life,
        seq,
        sent: spans.to_blob(),
        total_bytes: spans.bytes(),
        unsure_bytes,
    })
}

/// Returns the downloader's usage record with these bytes from edges.
fn got_of_edges(edge_bytes: u64) -> LedgerRecord {
    let mut r = record(1, Side::Downloader, 9, Vec::new());
    r.edge_bytes = edge_bytes;
    LedgerRecord::Usage(unsigned(r))
}

#[test]
fn a_byte_that_two_edges_have_sent_is_billed_once() {
    let failover = [granted(100), served(1, 0, 1, &[0..60], 0), served(2, 0, 1, &[40..100], 0)];
    assert_eq!(bill(&failover).edge_unique, 100, "not 120");
    let peers = [&failover[..1], &[served(1, 0, 1, &[0..30], 0), served(2, 0, 1, &[20..50], 0)]].concat();
    let with_peers = [&peers[..], &[got(1, &[(1, 50)]), sent(2, 1, &[(1, 50)])]].concat();
    let b = bill(&with_peers);
    assert_eq!((b.edge_unique, b.peers_billed, b.flagged), (50, 50, 0), "summed up, peers would have lost ten");
}

#[test]
fn an_edges_second_life_adds_only_new_bytes() {
    let b = bill(&[granted(100), served(1, 5, 7, &[0..60], 0), served(1, 9, 1, &[50..70, 90..100], 0)]);
    assert_eq!((b.edge_unique, b.edge_total), (80, 90));
    let same_life = bill(&[granted(100), served(1, 5, 8, &[0..70], 0), served(1, 5, 7, &[0..60], 0)]);
    assert_eq!((same_life.edge_unique, same_life.edge_total), (70, 70), "of one life the newest counts");
}

#[test]
fn edge_bytes_beyond_the_size_are_not_billed() {
    let b = bill(&[granted(100), served(1, 0, 1, &[0..60, 90..500], 0), got(1, &[(1, 80)]), sent(2, 1, &[(1, 80)])]);
    assert_eq!((b.edge_unique, b.peers_billed), (70, 30));
}

#[test]
fn after_an_edge_crash_the_claim_counts_up_to_its_reserve() {
    let crashed =
        |unsure, claimed| bill(&[granted(100), served(1, 0, 1, &[0..40], unsure), got_of_edges(claimed)]).edge_unique;
    assert_eq!(crashed(0, 90), 40, "a sure edge is believed, not its downloader");
    assert_eq!((crashed(30, 60), crashed(30, 90), crashed(30, 10)), (60, 70, 40));
    assert_eq!(crashed(u64::MAX, u64::MAX), 100, "never beyond the size");
}

/// Returns the billed and the flagged bytes at time 1,000 ms for records with their times of arrival, if client `who`
/// was in quarantine from 10 to 20 ms.
fn billed_of(who: u32, records: &[(u64, LedgerRecord)]) -> (u64, u64) {
    let mut quarantines = Quarantines::default();
    quarantines.add(Guid::numbered(who), 10, 20);
    let mut book = Book::strict().with_quarantines(quarantines);
    records.iter().cloned().for_each(|(came, r)| book.add(r, came));
    let b = book.bill(fake_verify, 1_000);
    (b.peers_billed, b.flagged)
}

#[test]
fn claims_made_in_quarantine_are_never_billed() {
    let story = [
        (1, granted(1_000)),
        (2, introduced(&[(1, 1)])),
        (3, got(1, &[(1, 40)])),
        (4, sent(2, 1, &[(1, 40)])),
        // during quarantine: more bytes over the same introduction, and a second introduction
        (11, got(2, &[(1, 90)])),
        (12, sent(2, 2, &[(1, 90)])),
        (13, introduced(&[(2, 2)])),
        (14, got(3, &[(1, 90), (2, 7)])),
        (15, sent(2, 3, &[(1, 90), (2, 7)])),
        // after quarantine: both are reported again, and a third introduction is made
        (21, introduced(&[(3, 3)])),
        (22, got(4, &[(1, 95), (2, 9), (3, 5)])),
        (23, sent(2, 4, &[(1, 95), (2, 9), (3, 5)])),
    ];
    assert_eq!(billed_of(99, &story).0, 109, "of others all of it");
    for side in [1, 2] {
        assert_eq!(billed_of(side, &story), (45, 64), "client {side}: 40 from before, 5 of the new one");
        assert_eq!(billed_of(side, &story[..9]), (40, 57), "client {side}: meanwhile");
    }
    // records that come in another order restore nothing
    let mut late = story.to_vec();
    late.swap(2, 4);
    (late[2].0, late[4].0) = (3, 11);
    assert_eq!(billed_of(1, &late).0, 90 + 5, "what was said of it before is what counts");
}

#[test]
fn a_smaller_claim_after_quarantine_keeps_the_earlier_one() {
    let mut quarantines = Quarantines::default();
    (1..=2).for_each(|who| quarantines.add(Guid::numbered(who), 10, 20));
    let mut book = Book::strict().with_quarantines(quarantines);
    let before = [granted(1_000), introduced(&[(1, 1)]), got(1, &[(1, 40)]), sent(2, 1, &[(1, 50)])];
    let unreceipted = PeerBytes { intro: IntroId::numbered(1), key: K_D, bytes: 7, receipt: None };
    let after = [got(2, &[(1, 10)]), LedgerRecord::Usage(unsigned(record(2, Side::Uploader, 2, vec![unreceipted])))];
    before.into_iter().zip(1..).chain(after.into_iter().zip(11..)).for_each(|(r, came)| book.add(r, came));
    let claims = book.claims(fake_verify, 20);
    let of = &claims[&IntroId::numbered(1)];
    assert_eq!((of.received, of.receipted, of.agreed, of.uploader), (40, 50, 40, Some(Guid::numbered(2))));
    let b = book.bill(fake_verify, 20);
    assert_eq!((b.peers_billed, b.peers_received, b.peers_receipted, b.flagged), (40, 40, 50, 10));
}

#[test]
fn a_claim_from_before_quarantine_counts_once() {
    let mut story = vec![(1, granted(1_000)), (2, introduced(&[(1, 1)])), (3, got(1, &[(1, 40)]))];
    story.extend([(4, sent(2, 1, &[(1, 90)])), (11, got(2, &[(1, 40), (1, 40)]))]);
    assert_eq!(billed_of(1, &story).0, 40, "however often it is named since");
}

#[test]
fn receipts_signed_in_quarantine_bind_no_silent_downloader() {
    let records =
        [(1, granted(100)), (2, introduced(&[(1, 1)])), (3, got(1, &[(1, 10)])), (12, sent(2, 1, &[(1, 40)]))];
    let mut quarantines = Quarantines::default();
    quarantines.add(Guid::numbered(1), 11, u64::MAX);
    let of = |quarantines| {
        let mut book = Book::strict().with_quarantines(quarantines);
        records.iter().cloned().for_each(|(came, r)| book.add(r, came));
        assert_eq!(book.settlement(EXPIRES_MS + 1), Settlement::Expired);
        book.bill(fake_verify, EXPIRES_MS + 1).peers_billed
    };
    assert_eq!((of(Quarantines::default()), of(quarantines)), (40, 10));
}

#[test]
fn shares_add_up_to_the_billed_bytes_when_cut_to_size() {
    let both = [got(1, &[(1, 80), (2, 80)]), sent(2, 1, &[(1, 80)]), sent(3, 1, &[(2, 80)])];
    let b = bill(&[granted(100), both[0].clone(), both[1].clone(), both[2].clone()]);
    assert_eq!((b.peers_agreed, b.peers_billed), (160, 100));
    assert_eq!(b.shares, BTreeMap::from([(Guid::numbered(2), 80), (Guid::numbered(3), 20)]));
}
