//! The memory for separate ranges of downloads, and the bytes that find no place there.

use super::*;
use crate::limits::PIECE_LEN_MIN;

const PIECE: u64 = PIECE_LEN_MIN as u64;

/// Sends a range of download `n`; returns whether it found a place.
fn sent(b: &mut Bench<Edge>, n: u32, range: Range<u64>) -> bool {
    let out = b.input(Input::BytesSent { grant: Some(served_grant(n)), version: V, provider: P, range });
    assert!(out.iter().all(|o| *o == Output::Count(Metric::CountOverflow)), "{out:?}");
    out.is_empty()
}

fn record(b: &mut Bench<Edge>, n: u32) -> ServedRecord {
    let out = b.wait(secs(2));
    let [(_, batch)] = saves(&out)[..] else { panic!("{out:?}") };
    let of = |r: &LedgerRecord| if let LedgerRecord::Served(r) = r { Some(r.clone()) } else { None };
    let mut records = batch.records.iter().filter_map(of);
    records.find(|r| r.download == DownloadId::numbered(n)).expect("a record")
}

#[test]
fn single_bytes_of_one_grant_have_few_places_and_pieces_have_more() {
    let (mut b, _) = with_ledger();
    let fragments = (0..2_048).filter(|n| sent(&mut b, 1, n * 10..n * 10 + 1)).count();
    assert_eq!(fragments, 64);
    let pieces = (1..=200).filter(|n| sent(&mut b, 1, 2 * n * PIECE..2 * n * PIECE + PIECE)).count();
    assert_eq!(pieces, 200);
    assert!(sent(&mut b, 1, 1..2), "what touches a range needs no place");
    let r = record(&mut b, 1);
    let unique = Spans::from_blob(&r.sent, u64::MAX).bytes();
    assert_eq!((unique, r.unsure_bytes), (64 + 200 * PIECE + 1, 2_048 - 64));
    assert_eq!(r.total_bytes, unique + r.unsure_bytes, "each byte counts once");
}

#[test]
fn the_ranges_of_all_downloads_are_bounded() {
    let (mut b, _) = with_ledger();
    b.cfg.all_ranges_max = 100;
    let places = (0..100_u32).map(|n| (0..10).filter(|k| sent(&mut b, n, k * 10..k * 10 + 1)).count()).sum::<usize>();
    assert_eq!(places, 100);
    assert!(sent(&mut b, 0, 1..10), "ranges that merge make room");
    assert!(sent(&mut b, 50, 0..1));
}

#[test]
fn whoever_scatters_its_bytes_gets_no_more_under_a_grant_with_peers() {
    let (mut b, _) = with_ledger();
    for n in 0..64 {
        sent(&mut b, 1, n * 10..n * 10 + 1);
    }
    let scattered = (0..).take_while(|n| {
        let out = serving(&mut b, 7, 1, 1);
        let at = (1 << 20) + n * PIECE;
        sent(&mut b, 1, at..at + PIECE - 1);
        !out.contains(&Output::Withhold { req: ReqId(7) })
    });
    let bytes = scattered.count() as u64 * (PIECE - 1);
    assert!((4 << 20..5 << 20).contains(&bytes), "{bytes}");
    let edge_only = grant(1).edge_only();
    let out = b.input(Input::SendRequested { req: ReqId(8), grant: Box::new(edge_only), bytes: 1 });
    assert!(!out.contains(&Output::Withhold { req: ReqId(8) }), "without peers nobody else is paid for them");
}
