//! Tests of the client machine on a fake shell: each test's name is the rule that it checks.

mod blames;
mod disk;
mod invariants;
mod network;
mod notices;
mod outages;
mod possession;
mod receipts;
mod rekey;
mod serving;
mod tickets;
mod world;

use super::io::{
    CloseReason, CommandError, CommandKind, DownloadState, EdgeAnswer, EdgeAsk, EdgeError, EdgeOutput, FailReason,
    Input, NoPeers, Notice, Output, PeerOutput, SourceName, StoreError,
};
use crate::content::Layout;
use crate::ids::{Handle, IntroId, PublicKey, VersionId};
use crate::limits::USAGE_SOURCES_MAX;
use crate::swarm::download::{self, Source};
use crate::wire::control::ToCn;
use crate::wire::records::{Side, UsageRecord, UsageState};
use alloc::vec::Vec;
use core::time::Duration;
use world::{FakePeer, MIB, World};

const FAST: FakePeer = FakePeer { rate: 25_000_000, corrupt: false, up: true };
const CORRUPT: FakePeer = FakePeer { rate: 25_000_000, corrupt: true, up: true };

fn usage_sent(world: &World) -> Vec<&UsageRecord> {
    world.sent.iter().filter_map(|m| if let ToCn::Usage(r) = m { Some(&r.record) } else { None }).collect()
}

#[test]
fn without_any_cn_the_edge_alone_completes_a_download() {
    let mut world = World::new(20 * MIB);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    let status = world.status();
    assert_eq!((status.edge_bytes, status.peer_bytes, status.durable), (20 * MIB, 0, 20 * MIB));
    let why = no_peers(&world);
    assert!(!why.is_empty() && why.iter().all(|why| *why == NoPeers::NotConnected), "{why:?}");
    assert_eq!(world.disk.usage.last().map(|r| r.state), Some(UsageState::Completed));
}

#[test]
fn with_every_cn_dead_the_edge_alone_completes_a_download() {
    let mut world = World::with_peers(20 * MIB, &[FAST]);
    world.cn_up = false;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.status().peer_bytes, 0);
}

#[test]
fn introduced_peers_deliver_most_bytes_and_usage_names_them() {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST, FAST, FAST]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    let status = world.status();
    assert_eq!(status.edge_bytes + status.peer_bytes, 100 * MIB);
    assert!(status.peer_bytes > 70 * MIB, "{status:?}");
    let sent = usage_sent(&world);
    let last = sent.last().expect("a usage record");
    assert_eq!((last.state, last.side, last.edge_bytes), (UsageState::Completed, Side::Downloader, status.edge_bytes));
    assert_eq!(last.peers.iter().map(|p| p.bytes).sum::<u64>(), status.peer_bytes);
    assert_eq!(world.disk.usage, [], "acknowledged records are not kept");
    let complete = |m: &ToCn| matches!(m, ToCn::Inventory(i) if i.add.iter().any(|s| s.complete));
    world.run_for(Duration::from_secs(1));
    assert!(world.sent.iter().any(complete), "the complete version is not offered");
}

#[test]
fn a_corrupting_peer_is_named_dropped_and_never_dialled_again() {
    let mut world = World::with_peers(50 * MIB, &[CORRUPT, FAST]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    let bad = |n: &&Notice| matches!(n, Notice::SourceDropped { why: CloseReason::BadBlock, .. });
    assert_eq!(world.notices.iter().filter(bad).count(), 1);
    assert_eq!(world.closed_with(CloseReason::BadBlock), 1);
    let dialled = world.outputs.iter().filter(|o| matches!(o, Output::Peer(PeerOutput::Dial { .. }))).count();
    assert_eq!(dialled, 2);
    let status = world.status();
    assert!(status.wasted_bytes <= u64::from(Layout::for_size(50 * MIB).expect("a layout").piece_len()));
}

#[test]
fn a_download_survives_an_edge_that_is_away_for_five_seconds() {
    let mut world = World::new(50 * MIB);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.edge_goes_down();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.state(handle), Some(DownloadState::Running));
    world.edge_up = true;
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn a_peer_that_dies_costs_nothing_but_its_share() {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST]);
    let handle = world.get();
    world.run_for(Duration::from_millis(500));
    world.kill_peer(100);
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.state(handle), Some(DownloadState::Completed));
}

#[test]
fn a_resumed_download_refetches_nothing() {
    let mut world = World::with_peers(100 * MIB, &[FAST]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    let paused = world.command(CommandKind::Pause(handle));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.answer_to(paused), Some(Ok(Some(handle))));
    assert_eq!(world.disk.downloads[&handle].state, DownloadState::Paused);
    let asked = world.fetched.len();
    let have = world.disk.pieces[&world.version].clone();
    assert!(!have.is_empty());
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.fetched.len(), asked, "a paused download fetches nothing");
    world.command(CommandKind::Resume(handle));
    world.run_until(handle, DownloadState::Completed);
    assert!(world.fetched[asked..].iter().all(|(_, piece)| !have.contains(piece)));
    let by_peers = |(s, _): &(Source, _)| matches!(s, Source::Peer(_));
    assert!(world.fetched[asked..].iter().any(by_peers), "the peer is introduced again");
}

#[test]
fn a_crash_refetches_no_journalled_piece_and_reports_each_byte_once() {
    let mut world = World::with_peers(100 * MIB, &[FAST]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    let have = world.disk.pieces[&world.version].clone();
    assert!(!have.is_empty());
    let asked = world.fetched.len();
    world.crash();
    world.run_until(handle, DownloadState::Completed);
    assert!(world.fetched[asked..].iter().all(|(_, piece)| !have.contains(piece)));
    let last = usage_sent(&world).last().copied().cloned().expect("a usage record");
    assert_eq!(last.edge_bytes + last.peers.iter().map(|p| p.bytes).sum::<u64>(), 100 * MIB);
}

#[test]
fn the_longer_a_download_takes_the_less_often_it_reports() {
    let mut world = World::new(400 * MIB);
    world.cns = 1;
    world.edge_rate = 1 << 20;
    let handle = world.get();
    world.run_for(Duration::from_secs(60));
    let young = usage_sent(&world).len();
    world.run_for(Duration::from_secs(240));
    let older = usage_sent(&world).len() - young;
    assert_eq!(world.state(handle), Some(DownloadState::Running));
    assert!((6..=12).contains(&young), "{young} in the first minute");
    assert!((4..=8).contains(&older), "{older} in four more");
}

#[test]
fn a_download_that_waited_for_its_edge_reports_usage_while_it_runs() {
    let mut world = World::new(400 * MIB);
    world.cns = 1;
    world.edge_rate = 1 << 20;
    world.edge_up = false;
    let handle = world.get();
    world.run_for(Duration::from_secs(10));
    world.edge_up = true;
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.state(handle), Some(DownloadState::Running));
    assert!(!usage_sent(&world).is_empty());
}

#[test]
fn an_edge_answer_to_another_request_is_invalid_and_asked_again() {
    let mut world = World::new(20 * MIB);
    let handle = world.get();
    let asks = |o: &Output| match o {
        Output::Edge(EdgeOutput::Ask { req, ask: EdgeAsk::Grant { .. }, .. }) => Some(*req),
        _ => None,
    };
    let req = world.outputs.iter().find_map(asks).expect("a request for a grant");
    let layout = Layout::for_size(20 * MIB).expect("a layout");
    world.input(Input::Edge { req, answer: Ok(EdgeAnswer::Manifest { layout }) });
    assert_eq!(world.state(handle), Some(DownloadState::Failed(FailReason::EdgeCorrupt)), "of the only edge");
    world.command(CommandKind::Resume(handle));
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn reported_time_is_fetching_time_without_pauses() {
    let mut world = World::new(100 * MIB);
    world.cns = 1;
    world.edge_rate = 10 * MIB;
    let handle = world.get();
    world.run_for(Duration::from_secs(3));
    world.command(CommandKind::Pause(handle));
    world.run_for(Duration::from_secs(600));
    world.command(CommandKind::Resume(handle));
    world.run_for(Duration::from_secs(2));
    world.crash();
    world.run_until(handle, DownloadState::Completed);
    let elapsed_ms = usage_sent(&world).last().expect("a usage record").elapsed_ms;
    // a crash loses the fetching time since the last usage record
    assert!((8_000..=11_000).contains(&elapsed_ms), "{elapsed_ms} ms");
}

#[test]
fn no_more_peers_are_used_than_a_usage_record_can_name() {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST, FAST]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    let sources = world.disk.sources.get_mut(&handle).expect("something has come");
    let total: u64 = sources.values().sum();
    let many = u32::try_from(USAGE_SOURCES_MAX).expect("few") - 1;
    let peer = |n| SourceName::Peer(IntroId::numbered(1_000 + n), PublicKey::numbered(1_000 + n));
    *sources = (0..many).map(|n| (peer(n), 1)).collect();
    sources.insert(SourceName::Edge, total - u64::from(many));
    world.crash();
    world.run_until(handle, DownloadState::Completed);
    let last = usage_sent(&world).last().copied().cloned().expect("a usage record");
    assert_eq!(last.peers.len(), USAGE_SOURCES_MAX, "one more peer is met");
    assert_eq!(last.edge_bytes + last.peers.iter().map(|p| p.bytes).sum::<u64>(), 100 * MIB);
}

#[test]
fn usage_records_grow_and_never_reuse_a_sequence_number() {
    let mut world = World::with_peers(100 * MIB, &[]);
    world.edge_rate = 1_000_000;
    let handle = world.get();
    world.run_for(Duration::from_secs(70));
    world.crash();
    world.run_until(handle, DownloadState::Completed);
    let seqs: Vec<_> = usage_sent(&world).iter().map(|r| r.seq).collect();
    assert!(seqs.len() >= 3, "{seqs:?}");
    assert!(seqs.windows(2).all(|w| w[0] < w[1]), "{seqs:?}");
}

#[test]
fn a_changed_object_starts_over_and_versions_never_mix() {
    let mut world = World::new(50 * MIB);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.command(CommandKind::Pause(handle));
    world.run_for(Duration::from_secs(1));
    let old = world.version;
    world.version = VersionId::numbered(2);
    world.layouts.insert(world.version, Layout::for_size(30 * MIB).expect("a layout"));
    // `Resume` wants the same version, which is gone: the download fails rather than fetch another
    world.edge_says = Some(EdgeError::Changed);
    world.command(CommandKind::Resume(handle));
    world.run_until(handle, DownloadState::Failed(FailReason::VersionGone));
    world.edge_says = None;
    let asked = world.fetched.len();
    assert_eq!(world.get(), handle);
    world.run_until(handle, DownloadState::Completed);
    assert_ne!(world.status().version, Some(old));
    assert_eq!(world.status().edge_bytes, 30 * MIB);
    let later = world.fetched[asked..].iter().map(|(_, p)| *p).collect::<alloc::collections::BTreeSet<_>>();
    assert_eq!(later.len(), Layout::for_size(30 * MIB).expect("a layout").pieces() as usize);
}

#[test]
fn a_grant_is_renewed_before_it_expires() {
    let mut world = World::new(100 * MIB);
    world.edge_rate = 100_000;
    world.get();
    world.run_for(Duration::from_secs(800));
    assert_eq!(world.renewals, 1);
}

#[test]
fn a_grant_too_old_to_renew_is_replaced_under_a_new_download_id() {
    let mut world = World::with_peers(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.command(CommandKind::Pause(handle));
    world.run_for(Duration::from_secs(1));
    let before = world.status();
    world.edge_says = Some(EdgeError::GrantExpired);
    world.command(CommandKind::Resume(handle));
    world.run_until(handle, DownloadState::Completed);
    let last = usage_sent(&world).last().copied().cloned().expect("a usage record");
    assert_ne!(Some(last.download), before.download);
    assert_eq!(last.edge_bytes, 50 * MIB - before.durable);
}

#[test]
fn a_download_that_cannot_start_fails_with_the_right_reason() {
    let mut world = World::new(MIB);
    world.edge_up = false;
    let handle = world.get();
    world.run_until(handle, DownloadState::Failed(FailReason::EdgeUnreachable));
    assert!(world.now.0 < 40_000_000, "{:?}", world.now);
    world.edge_up = true;
    assert_eq!(world.get(), handle);
    world.run_until(handle, DownloadState::Completed);

    let mut world = World::new(MIB);
    let object = super::io::ObjectRef { path: "nothing".into(), ..world::object() };
    world.command(CommandKind::Get { object, output: "out".into(), replace: false });
    world.run_until(Handle(0), DownloadState::Failed(FailReason::NotFound));
}

#[test]
fn a_full_disk_fails_the_download_until_there_is_room() {
    let mut world = World::new(50 * MIB);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.disk_says = Err(StoreError::NoSpace);
    world.run_until(handle, DownloadState::Failed(FailReason::NoSpace));
    world.disk_says = Ok(());
    world.run_for(Duration::from_secs(1));
    world.get();
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn a_cancelled_download_leaves_nothing_behind_but_its_usage() {
    let mut world = World::with_peers(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    let req = world.command(CommandKind::Cancel(handle));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.answer_to(req), Some(Ok(Some(handle))));
    assert!(world.disk.downloads.is_empty() && world.disk.pieces.is_empty());
    assert_eq!(usage_sent(&world).last().map(|r| r.state), Some(UsageState::Cancelled));
    let again = world.command(CommandKind::Pause(handle));
    assert_eq!(world.answer_to(again), Some(Err(CommandError::UnknownHandle)));
}

#[test]
fn an_object_being_downloaded_is_refused_for_another_output() {
    let mut world = World::new(20 * MIB);
    let handle = world.get();
    world.run_for(Duration::from_millis(100));
    let get = |output: &str| CommandKind::Get { object: world::object(), output: output.into(), replace: false };
    let (elsewhere, there) = (world.command(get("elsewhere")), world.command(get("out")));
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.answer_to(elsewhere), Some(Err(CommandError::AlreadyRunning)));
    assert_eq!(world.answer_to(there), Some(Ok(Some(handle))));
    world.run_until(handle, DownloadState::Completed);
    let after = world.command(get("elsewhere"));
    world.run_for(Duration::from_secs(1));
    assert!(matches!(world.answer_to(after), Some(Ok(Some(another))) if another != handle));
}

#[test]
fn the_same_object_again_comes_from_the_cache() {
    let mut world = World::new(20 * MIB);
    let first = world.get();
    world.run_until(first, DownloadState::Completed);
    let asked = world.fetched.len();
    let second = world.get();
    world.run_until(second, DownloadState::Completed);
    assert_eq!(world.fetched.len(), asked);
    assert_ne!(first, second);
    let gone = world.command(CommandKind::RemoveCached(world.version));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.answer_to(gone), Some(Ok(None)));
    assert!(world.disk.pieces.is_empty() && world.disk.downloads.is_empty());
    let unknown = world.command(CommandKind::RemoveCached(world.version));
    assert_eq!(world.answer_to(unknown), Some(Err(CommandError::UnknownVersion)));
}

#[test]
fn a_version_with_a_changed_file_is_not_shared_and_is_fetched_again() {
    let mut world = World::with_peers(20 * MIB, &[]);
    let first = world.get();
    world.run_until(first, DownloadState::Completed);
    assert!(world.client.uploads().shares(&world.version));
    let asked = world.fetched.len();
    world.lose();
    world.run_for(Duration::from_secs(1));
    assert!(!world.client.uploads().shares(&world.version));
    assert!(world.disk.downloads.is_empty(), "the file is the user's alone");
    world.command(CommandKind::Uploads(true));
    assert!(!world.client.uploads().shares(&world.version), "nor is it offered again");
    let second = world.get();
    world.run_until(second, DownloadState::Completed);
    assert_eq!(world.fetched.len(), 2 * asked);
}

#[test]
fn a_download_from_the_cache_starts_over_if_the_file_has_changed() {
    let mut world = World::with_peers(20 * MIB, &[]);
    let first = world.get();
    world.run_until(first, DownloadState::Completed);
    let asked = world.fetched.len();
    let second = world.get();
    let finishing = |w: &World| w.client.swarm(second).is_some_and(|s| s.phase() == download::Phase::Finishing);
    while !finishing(&world) {
        world.run_for(Duration::from_millis(1));
    }
    world.lose();
    assert_eq!(world.fetched.len(), asked);
    world.run_until(second, DownloadState::Completed);
    assert_eq!(world.fetched.len(), 2 * asked);
    assert_eq!(world.status().edge_bytes, 20 * MIB);
}

#[test]
fn only_damaged_pieces_of_a_running_download_are_fetched_again() {
    let mut world = World::with_peers(40 * MIB, &[]);
    world.edge_rate = 10_000_000;
    let handle = world.get();
    world.run_for(Duration::from_secs(2));
    let swarm = world.client.swarm(handle).expect("it runs");
    let (before, damaged) = (swarm.durable_bytes(), swarm.have().iter().take(3).collect::<Vec<_>>());
    assert!(before > 8 * MIB && before < 40 * MIB, "{before}");
    let left = world.damage(handle, &damaged);
    assert_eq!((world.status().durable, world.status().edge_bytes), (left, left));
    world.run_until(handle, DownloadState::Completed);
    assert_eq!((world.status().durable, world.status().edge_bytes), (40 * MIB, 40 * MIB));
    let of_damaged = world.fetched.iter().filter(|(_, piece)| damaged.contains(piece)).count();
    assert!(of_damaged >= 2 * damaged.len(), "{of_damaged}");
}

#[test]
fn status_is_reported_at_most_four_times_a_second() {
    let mut world = World::new(100 * MIB);
    world.edge_rate = 5_000_000;
    world.get();
    world.run_for(Duration::from_secs(1));
    let statuses = |w: &World| w.notices.iter().filter(|n| matches!(n, Notice::Download(_))).count();
    let before = statuses(&world);
    world.run_for(Duration::from_secs(5));
    let more = statuses(&world) - before;
    assert!((10..=20).contains(&more), "{more}");
}

#[test]
fn shutdown_ends_all_requests_and_a_restart_resumes() {
    let mut world = World::with_peers(50 * MIB, &[FAST]);
    let handle = world.get();
    world.run_for(Duration::from_millis(600));
    let req = world.command(CommandKind::Shutdown);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.answer_to(req), Some(Ok(None)));
    let outputs = world.outputs.len();
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.outputs.len(), outputs);
    world.crash();
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn no_peers_are_requested_where_the_policy_forbids_them() {
    let mut world = World::with_peers(20 * MIB, &[FAST]);
    world.policy.peer_download = false;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.status().peer_bytes, 0);
    assert!(!world.sent.iter().any(|m| matches!(m, ToCn::Query(_))));
    assert_eq!(no_peers(&world), [NoPeers::Policy]);
}

/// Returns the reasons why the downloads were without peers, in order.
fn no_peers(world: &World) -> Vec<NoPeers> {
    let why =
        |output: &Output| if let Output::Notice(Notice::NoPeers { why, .. }) = output { Some(*why) } else { None };
    world.outputs.iter().filter_map(why).collect()
}
