//! Tests of a download with simulated sources; the name of each test states a rule.

mod invariants;
mod lab;

use super::{Config, Input, Phase, Source};
use crate::content::{Bitfield, Layout};
use crate::ids::{ConnId, PieceIndex};
use crate::swarm::outcome::{CloseReason, EdgeError, FailReason, FetchEnd, StoreError};
use crate::wire::peer::RefuseCode;
use core::time::Duration;
use lab::{Lab, answering, at_rate};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

#[test]
fn the_edge_alone_completes_a_download_at_its_full_rate() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    let took = lab.finish();
    assert!(took < Duration::from_millis(5300), "{took:?}");
    assert_eq!(lab.d.edge_bytes(), 100 * MB);
    assert_eq!(lab.d.wasted_bytes(), 0);
}

#[test]
fn the_edge_is_asked_for_contiguous_pieces() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.finish();
    let pieces = lab.d.layout().pieces();
    let breaks = lab.asked.windows(2).filter(|w| w[1].1.0 != (w[0].1.0 + 1) % pieces).count();
    assert_eq!(breaks, 0);
}

#[test]
fn peers_five_times_as_fast_as_the_edge_deliver_most_bytes() {
    let mut lab = Lab::new(256 * MIB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.run_for(Duration::from_millis(300));
    (1..=4).for_each(|n| lab.add_peer(n, at_rate(25 * MB)));
    let took = lab.finish();
    let share = lab.d.peer_bytes() * 100 / (256 * MIB);
    assert!(share >= 70, "{share} % from peers");
    assert!(took < Duration::from_millis(4000), "peers alone take 2.7 s: {took:?}");
}

#[test]
fn slow_peers_never_make_a_download_slower_than_the_edge_alone() {
    let mut lab = Lab::new(200 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    (1..=4).for_each(|n| lab.add_peer(n, at_rate(MB)));
    let took = lab.finish();
    assert!(took < Duration::from_millis(9800), "the edge alone takes 10 s: {took:?}");
    assert!(lab.d.peer_bytes() > 25 * MB, "{}", lab.d.peer_bytes());
}

#[test]
fn a_peer_that_sends_a_wrong_block_is_banned() {
    let mut lab = Lab::new(50 * MB, at_rate(10 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, at_rate(10 * MB));
    lab.add_peer(2, answering(FetchEnd::BadBlock { block: 0 }));
    lab.run_for(Duration::from_millis(100));
    assert_eq!(lab.dropped, [(ConnId(2), CloseReason::BadBlock)]);
    let asked = lab.asked.iter().filter(|(s, ..)| *s == Source::Peer(ConnId(2))).count();
    // the banned peer returns under another introduction
    lab.input(Input::PeerJoined { conn: ConnId(9), name: Lab::name(2), requests_max: 8 });
    lab.input(Input::PeerMap { conn: ConnId(9), first: PieceIndex(0), bits: alloc::vec![255; 8] });
    lab.finish();
    let again = |s: &Source| matches!(s, Source::Peer(ConnId(2 | 9)));
    assert_eq!((asked, lab.asked.iter().filter(|(s, ..)| again(s)).count()), (1, 1));
    assert!(lab.d.wasted_bytes() <= u64::from(lab.d.layout().piece_len()), "{}", lab.d.wasted_bytes());
}

#[test]
fn a_ban_ends_all_connections_of_a_peer() {
    let mut lab = Lab::new(50 * MB, at_rate(10 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, answering(FetchEnd::BadBlock { block: 0 }));
    // the same peer under another introduction
    lab.input(Input::PeerJoined { conn: ConnId(9), name: Lab::name(1), requests_max: 8 });
    lab.run_for(Duration::from_millis(100));
    assert_eq!(lab.dropped, [(ConnId(1), CloseReason::BadBlock), (ConnId(9), CloseReason::BadBlock)]);
}

#[test]
fn an_edge_that_is_no_longer_listed_is_left() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    lab.sources.insert(Source::Edge(1), at_rate(20 * MB));
    lab.input(Input::Edges(2));
    lab.input(Input::Start);
    let first = lab.sources.remove(&Source::Edge(0)).expect("an edge");
    lab.run_for(Duration::from_millis(100));
    assert_eq!(lab.asked.last().map(|(source, ..)| *source), Some(Source::Edge(1)));
    lab.sources.insert(Source::Edge(0), first);
    lab.input(Input::Edges(1));
    let from = lab.asked.len();
    lab.finish();
    assert!(lab.asked[from..].iter().all(|(source, ..)| *source == Source::Edge(0)));
}

#[test]
fn a_new_edge_is_asked_when_all_others_have_sent_wrong_bytes() {
    let mut lab = Lab::new(10 * MB, answering(FetchEnd::BadBlock { block: 0 }));
    lab.sources.insert(Source::Edge(1), at_rate(20 * MB));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(1));
    assert_eq!(lab.failed.take(), Some(FailReason::EdgeCorrupt));
    lab.input(Input::Edges(2));
    lab.input(Input::Start);
    lab.finish();
}

#[test]
fn the_blocks_of_a_peer_that_leaves_are_fetched_elsewhere() {
    let mut lab = Lab::new(50 * MB, at_rate(5 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, at_rate(20 * MB));
    lab.run_for(Duration::from_secs(1));
    lab.lose_peer(1);
    lab.finish();
    assert_eq!(lab.d.wasted_bytes(), 0);
}

#[test]
fn a_silent_peer_is_disconnected_and_delays_nothing() {
    let mut lab = Lab::new(50 * MB, at_rate(10 * MB));
    lab.input(Input::Start);
    let mut silent = at_rate(1);
    silent.silent = true;
    lab.add_peer(1, silent);
    let took = lab.finish();
    assert!(took < Duration::from_millis(6500), "{took:?}");
    let mut lab = Lab::new(200 * MB, at_rate(10 * MB));
    lab.input(Input::Start);
    let mut silent = at_rate(1);
    silent.silent = true;
    lab.add_peer(1, silent);
    lab.finish();
    assert_eq!(lab.dropped, [(ConnId(1), CloseReason::Stalled)]);
}

#[test]
fn an_edge_outage_of_five_seconds_costs_five_seconds() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(2));
    let edge = lab.sources.remove(&Source::Edge(0)).expect("an edge");
    lab.run_for(Duration::from_secs(5));
    assert_eq!(lab.failed, None);
    lab.sources.insert(Source::Edge(0), edge);
    let took = lab.finish();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn the_next_edge_takes_over_at_once() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    lab.sources.insert(Source::Edge(1), at_rate(20 * MB));
    lab.input(Input::Edges(2));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(2));
    lab.sources.remove(&Source::Edge(0));
    let took = lab.finish();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_download_without_any_source_waits_for_one_ever_more_seldom() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    let edge = lab.sources.remove(&Source::Edge(0)).expect("an edge");
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(5 * 3600));
    assert_eq!(lab.failed, None);
    lab.sources.insert(Source::Edge(0), edge);
    let took = lab.finish();
    assert!(took < Duration::from_secs(70), "{took:?}");
}

#[test]
fn an_edge_that_answers_elsewhere_is_asked_at_once() {
    let mut lab = Lab::new(100 * MB, at_rate(20 * MB));
    let edge = lab.sources.remove(&Source::Edge(0)).expect("an edge");
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(5 * 3600));
    lab.sources.insert(Source::Edge(0), edge);
    lab.input(Input::EdgeAnswered);
    let took = lab.finish();
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn an_edge_with_wrong_bytes_is_not_asked_again() {
    let mut lab = Lab::new(10 * MB, answering(FetchEnd::BadBlock { block: 0 }));
    lab.sources.insert(Source::Edge(1), at_rate(20 * MB));
    lab.input(Input::Edges(2));
    lab.input(Input::Start);
    lab.finish();
    assert_eq!(lab.dropped_edges, [0]);
    let mut lab = Lab::new(10 * MB, answering(FetchEnd::BadBlock { block: 0 }));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(1));
    assert_eq!(lab.failed, Some(FailReason::EdgeCorrupt));
}

#[test]
fn an_expired_grant_is_renewed_once() {
    let mut lab = Lab::new(10 * MB, answering(Lab::edge_says(EdgeError::GrantExpired)));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(1));
    assert_eq!(lab.renewals, 1);
    lab.sources.insert(Source::Edge(0), at_rate(20 * MB));
    lab.input(Input::Renewed);
    lab.finish();
}

#[test]
fn an_edge_error_about_the_version_fails_the_download() {
    for (says, fails) in [
        (EdgeError::NotFound, FailReason::VersionGone),
        (EdgeError::Changed, FailReason::VersionGone),
        (EdgeError::Forbidden, FailReason::Forbidden),
    ] {
        let mut lab = Lab::new(10 * MB, answering(Lab::edge_says(says)));
        lab.input(Input::Start);
        lab.run_for(Duration::from_millis(100));
        assert_eq!(lab.failed, Some(fails));
        assert_eq!(lab.d.under_way().count(), 0);
    }
}

#[test]
fn a_download_stopped_by_a_full_disk_can_be_resumed() {
    let mut lab = Lab::new(50 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(1));
    let durable = lab.d.durable_bytes();
    lab.save_result = Err(StoreError::NoSpace);
    lab.run_for(Duration::from_secs(1));
    assert_eq!(lab.failed.take(), Some(FailReason::NoSpace));
    assert!(lab.d.durable_bytes() >= durable, "nothing durable is lost");
    lab.save_result = Ok(());
    lab.saved.clear();
    lab.run_for(Duration::from_secs(1));
    lab.input(Input::Start);
    lab.finish();
}

#[test]
fn after_a_pause_no_durable_piece_is_fetched_again() {
    let mut lab = Lab::new(50 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, at_rate(10 * MB));
    lab.run_for(Duration::from_secs(1));
    lab.input(Input::Stop);
    assert_eq!(lab.d.phase(), Phase::Stopped);
    assert_eq!(lab.d.in_flight(), 0);
    assert_eq!(lab.dropped, [(ConnId(1), CloseReason::Done)]);
    lab.run_for(Duration::from_secs(1));
    let (have, asked) = (lab.d.have().clone(), lab.asked.len());
    assert!(!have.is_empty());
    lab.input(Input::Start);
    lab.finish();
    assert!(lab.asked[asked..].iter().all(|(_, piece, _)| !have.contains(*piece)));
}

#[test]
fn a_resumed_download_asks_edges_that_had_failed_at_once() {
    let mut lab = Lab::new(10 * MB, at_rate(20 * MB));
    let edge = lab.sources.remove(&Source::Edge(0)).expect("an edge");
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(30));
    lab.input(Input::Stop);
    let asked = lab.asked.len();
    lab.sources.insert(Source::Edge(0), edge);
    lab.input(Input::Start);
    assert!(lab.asked.len() > asked);
    lab.finish();
}

#[test]
fn what_a_broken_transfer_has_verified_is_not_fetched_again() {
    let layout = Layout::new(MIB, 1 << 20).expect("one piece of 64 blocks");
    let mut lab = Lab::with(layout, Config::default(), at_rate(MB));
    lab.sources.clear();
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(1));
    lab.add_peer(1, at_rate(MB));
    lab.run_for(Duration::from_millis(600));
    lab.lose_peer(1);
    let asked = lab.asked.len();
    lab.add_peer(2, at_rate(MB));
    lab.finish();
    // after half a second at least, of a second that the whole piece takes
    let rest = &lab.asked[asked..];
    assert!(!rest.is_empty() && rest.iter().all(|(_, _, blocks)| blocks.start >= 28), "{rest:?}");
    assert_eq!((lab.d.counted().count(), lab.d.wasted_bytes()), (2, 0));
}

#[test]
fn who_was_idle_for_long_is_not_slow_when_it_is_asked() {
    let mut lab = Lab::new(65_536, at_rate(MB));
    lab.sources.clear();
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(20));
    let mut silent = at_rate(1);
    silent.silent = true;
    lab.add_peer(1, silent);
    lab.add_peer(2, at_rate(10 * MB));
    let of = |lab: &Lab, n| lab.asked.iter().any(|(s, ..)| *s == Source::Peer(ConnId(n)));
    lab.run_for(Duration::from_millis(100));
    assert!(of(&lab, 1) && !of(&lab, 2), "its only piece is not doubled yet");
    lab.run_for(Duration::from_secs(3));
    assert!(of(&lab, 2), "now it is: the first delivers nothing");
    lab.finish();
}

#[test]
fn a_piece_counts_only_once_it_is_durable() {
    let mut lab = Lab::new(MB, at_rate(50 * MB));
    lab.save_takes = Duration::from_secs(5);
    lab.input(Input::Start);
    lab.run_for(Duration::from_secs(4));
    assert_eq!((lab.d.durable_bytes(), lab.d.edge_bytes()), (0, 0));
    assert!(lab.d.have().is_empty());
    lab.finish();
}

#[test]
fn pieces_that_no_peer_has_come_from_the_edge() {
    let mut lab = Lab::new(100 * MB, at_rate(5 * MB));
    let pieces = lab.d.layout().pieces();
    let mut has = Bitfield::empty(pieces);
    (0..pieces).filter(|p| p % 4 != 0).for_each(|p| {
        has.insert(PieceIndex(p));
    });
    lab.input(Input::Start);
    (1..=4).for_each(|n| lab.add_peer_with(n, at_rate(20 * MB), &has));
    let took = lab.finish();
    // a quarter of the pieces is on the edge alone: 5 s of its time, which peers must not prolong
    assert!(took < Duration::from_millis(6000), "{took:?}");
    let from_edge = lab.asked.iter().filter(|(s, ..)| *s == Source::Edge(0));
    let peers_had = from_edge.filter(|(_, p, _)| has.contains(*p)).count();
    assert!(peers_had < pieces as usize / 10, "{peers_had}");
}

#[test]
fn several_peers_share_one_large_piece() {
    let layout = Layout::new(16 * MIB, 16 * 1024 * 1024).expect("a layout");
    let mut lab = Lab::with(layout, Config::default(), at_rate(1));
    lab.input(Input::Start);
    (2..=5).for_each(|n| lab.add_peer(n, at_rate(10 * MB)));
    lab.finish();
    let of = |n| lab.asked.iter().filter(|(s, ..)| *s == Source::Peer(ConnId(n))).count();
    assert!((2..=5).all(|n| of(n) >= 3), "{:?}", lab.asked);
}

#[test]
fn a_refused_piece_is_fetched_from_others() {
    let mut lab = Lab::new(20 * MB, at_rate(10 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, answering(Lab::refusing(RefuseCode::NotHere)));
    lab.add_peer(2, answering(Lab::refusing(RefuseCode::NotAllowed)));
    lab.finish();
    assert_eq!(lab.dropped[0], (ConnId(2), CloseReason::UploadsOff));
    let of_1: alloc::vec::Vec<_> = lab.asked.iter().filter(|(s, ..)| *s == Source::Peer(ConnId(1))).collect();
    let distinct: alloc::collections::BTreeSet<_> = of_1.iter().map(|(_, p, _)| p).collect();
    assert_eq!(of_1.len(), distinct.len(), "asked twice for what it does not have");
}

#[test]
fn the_tail_of_a_slow_peer_is_doubled_by_a_fast_source() {
    let mut lab = Lab::new(20 * MB, at_rate(20 * MB));
    lab.input(Input::Start);
    lab.add_peer(1, at_rate(20_000));
    let took = lab.finish();
    assert!(took < Duration::from_secs(3), "the slow peer alone would hold its first MiB for 50 s: {took:?}");
}

#[test]
fn an_empty_version_is_complete_at_once() {
    let mut lab = Lab::with(Layout::new(0, 65_536).expect("a layout"), Config::default(), at_rate(1));
    lab.input(Input::Start);
    lab.finish();
    assert!(lab.asked.is_empty());
}
