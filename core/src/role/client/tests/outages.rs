//! Tests of outages that pass: edges away, a full disk; and of copies that are shared without a download.

use super::super::KeptServers;
use super::serving::{CONN, ask, connect, seeder};
use super::world::{MIB, START_MS, World};
use super::{FAST, FakePeer, no_peers};
use crate::content::{Layout, Policy};
use crate::ids::{ConnId, Handle, PieceIndex, VersionId, XferId};
use crate::role::client::io::{
    CommandKind, DownloadState, EdgeError, FailReason, Input, NoPeers, Notice, Output, PeerOutput, StoreError,
};
use crate::wire::control::{Refusal, Refused, ToClient, ToCn};
use crate::wire::peer::{PieceRequest, RefuseCode};
use alloc::vec::Vec;
use core::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const FULL: DownloadState = DownloadState::Failed(FailReason::NoSpace);

/// Returns the world of a client that runs in the background.
fn in_background(size: u64, peers: &[FakePeer]) -> World {
    let mut world = World::with_peers(size, peers);
    world.cfg.background = true;
    world
}

/// Counts messages to the CN, from number `from`, that offer a version (`true`) or withdraw an offer.
fn told(world: &World, from: usize, offers: bool) -> usize {
    let is_it = |m: &&ToCn| match m {
        ToCn::Inventory(page) => !if offers { page.add.is_empty() } else { page.remove.is_empty() },
        _ => false,
    };
    world.sent[from..].iter().filter(is_it).count()
}

#[test]
fn a_download_in_the_background_waits_for_its_first_edge_without_limit() {
    let mut world = in_background(MIB, &[]);
    world.edge_up = false;
    let handle = world.get();
    world.run_for(5 * HOUR);
    assert_eq!(world.state(handle), Some(DownloadState::Starting));
    let asked = world.outputs.iter().filter(|o| matches!(o, Output::Edge(_))).count();
    world.run_for(HOUR);
    let more = world.outputs.iter().filter(|o| matches!(o, Output::Edge(_))).count() - asked;
    assert!(more < 800, "{more} requests an hour to an edge that is away");
    world.edge_up = true;
    world.run_for(Duration::from_secs(61));
    assert_eq!(world.state(handle), Some(DownloadState::Completed));
}

#[test]
fn an_outage_of_the_edges_ends_no_download_that_has_begun() {
    for background in [false, true] {
        let mut world = World::new(50 * MIB);
        world.cfg.background = background;
        let handle = world.get();
        world.run_for(Duration::from_secs(1));
        world.edge_goes_down();
        world.run_for(3 * HOUR);
        assert_eq!(world.state(handle), Some(DownloadState::Running), "background: {background}");
        world.edge_up = true;
        world.run_for(Duration::from_secs(70));
        assert_eq!(world.state(handle), Some(DownloadState::Completed), "background: {background}");
    }
}

#[test]
fn an_edge_that_answers_one_request_is_asked_for_everything_at_once() {
    let mut world = in_background(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.edge_goes_down();
    // the grant's renewal fails too, and both wait about a minute
    world.run_for(2 * HOUR);
    world.edge_up = true;
    while world.renewals == 0
        && world.fetched.last().is_none_or(|_| world.state(handle) == Some(DownloadState::Running))
    {
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.state(handle), Some(DownloadState::Completed));
}

#[test]
fn a_grant_too_old_after_an_outage_is_replaced_and_pieces_are_kept() {
    let mut world = in_background(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    let first = world.status();
    world.edge_goes_down();
    world.run_for(2 * HOUR);
    world.edge_says = Some(EdgeError::GrantExpired);
    world.edge_up = true;
    world.run_until(handle, DownloadState::Completed);
    let last = world.status();
    assert_ne!(last.download, first.download, "a new download in the books");
    assert!(last.edge_bytes <= 50 * MIB - first.durable, "verified pieces are not fetched again: {last:?}");
}

#[test]
fn a_token_that_has_expired_in_an_outage_is_named_and_a_new_get_goes_on() {
    let mut world = in_background(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.edge_goes_down();
    world.run_for(2 * HOUR);
    (world.edge_says, world.grants_say) = (Some(EdgeError::GrantExpired), Some(EdgeError::Forbidden));
    world.edge_up = true;
    world.run_until(handle, DownloadState::Failed(FailReason::TokenExpired));
    world.run_for(HOUR);
    assert_eq!(world.state(handle), Some(DownloadState::Failed(FailReason::TokenExpired)), "it waits for a new get");
    world.grants_say = None;
    assert_eq!(world.get(), handle);
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn an_object_that_has_expired_is_said_to_have_expired() {
    let mut world = World::new(MIB);
    world.grants_say = Some(EdgeError::Expired);
    let handle = world.get();
    world.run_until(handle, DownloadState::Failed(FailReason::Expired));
}

#[test]
fn a_background_download_stopped_by_a_full_disk_goes_on_by_itself() {
    let mut world = in_background(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.disk_says = Err(StoreError::NoSpace);
    world.run_until(handle, FULL);
    let asked = world.fetched.len();
    world.run_for(HOUR);
    assert_eq!((world.state(handle), world.fetched.len()), (Some(FULL), asked), "nothing is fetched for a full disk");
    world.disk_says = Ok(());
    world.run_until(handle, DownloadState::Completed);

    let mut world = in_background(50 * MIB, &[]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.disk_says = Err(StoreError::NoSpace);
    world.run_until(handle, FULL);
    world.command(CommandKind::Pause(handle));
    world.disk_says = Ok(());
    world.run_for(HOUR);
    assert_eq!(world.state(handle), Some(DownloadState::Paused), "a user's pause holds");
}

#[test]
fn a_restart_of_the_background_client_looks_for_room_again() {
    let mut world = World::new(50 * MIB);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    world.disk_says = Err(StoreError::NoSpace);
    world.run_until(handle, FULL);
    // as the last thing that still fitted
    world.disk.downloads.get_mut(&handle).expect("a record").state = FULL;
    world.disk_says = Ok(());
    world.run_for(HOUR);
    assert_eq!(world.state(handle), Some(FULL), "without a background client the user decides");
    world.cfg.background = true;
    world.crash();
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn a_client_started_without_edges_gets_what_it_was_granted_from_peers() {
    for servers in [None, Some(KeptServers { cns: 1, edges: 1, now_ms: START_MS })] {
        let mut world = in_background(50 * MIB, &[FAST]);
        let handle = world.get();
        world.run_for(Duration::from_millis(500));
        world.edge_goes_down();
        world.servers = servers;
        world.crash();
        world.run_for(HOUR);
        let end = if servers.is_some() { DownloadState::Completed } else { DownloadState::Running };
        assert_eq!(world.state(handle), Some(end), "kept: {servers:?}");
    }
}

#[test]
fn a_get_of_a_granted_object_goes_on_without_an_edge_unless_nobody_has_it() {
    for (peers, end) in
        [(&[FAST][..], DownloadState::Completed), (&[][..], DownloadState::Failed(FailReason::EdgeUnreachable))]
    {
        let mut world = World::with_peers(50 * MIB, peers);
        let handle = world.get();
        world.run_for(Duration::from_millis(500));
        world.command(CommandKind::Pause(handle));
        world.edge_goes_down();
        world.servers = Some(KeptServers { cns: 1, edges: 1, now_ms: START_MS });
        world.crash();
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.get(), handle);
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.state(handle), Some(end), "{} peers", peers.len());
    }
}

#[test]
fn a_copy_is_shared_after_a_restart_though_its_download_was_forgotten() {
    let mut world = World::with_peers(20 * MIB, &[]);
    world.policy.upload_rate_max = 12_345;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.command(CommandKind::Cancel(handle));
    world.run_for(Duration::from_secs(1));
    world.crash();
    let from = world.sent.len();
    world.run_for(Duration::from_secs(2));
    assert_eq!(told(&world, from, true), 1, "the copy is offered");
    connect(&mut world, CONN, 1);
    ask(&mut world, CONN, 0);
    let rated = |o: &Output| matches!(o, Output::Peer(PeerOutput::Serve { rate_max: 12_345, .. }));
    assert!(world.outputs.iter().any(rated), "the policy is known without the download");
}

/// Asks the client for so many pieces of 64 KiB from piece 0 on; returns the number of refusals.
fn ask_for(world: &mut World, conn: ConnId, pieces: u32, xfer: u64) -> usize {
    let from = world.outputs.len();
    for n in 0..pieces {
        let request = PieceRequest { piece: PieceIndex(n), first_block: 0, blocks: 4, want_leaves: true };
        world.input(Input::PeerRequest { conn, xfer: XferId(xfer + u64::from(n)), request });
        world.run_for(Duration::from_millis(50));
    }
    let refused = |o: &&Output| matches!(o, Output::Peer(PeerOutput::Refuse { why: RefuseCode::NotAllowed, .. }));
    world.outputs[from..].iter().filter(refused).count()
}

#[test]
fn upload_limits_hold_across_restarts_and_used_up_copies_are_not_offered() {
    // sixteen pieces of 64 KiB, which may be uploaded once
    let mut world = World::with_peers(MIB, &[]);
    world.policy.uploads_max = 1;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    connect(&mut world, CONN, 1);
    assert_eq!(ask_for(&mut world, CONN, 10, 0), 0);
    world.run_for(Duration::from_secs(2));
    world.crash();
    let from = world.sent.len();
    world.run_for(Duration::from_secs(2));
    assert_eq!(told(&world, from, true), 1, "six pieces are left");
    let again = ConnId(CONN.0 | 1);
    connect(&mut world, again, 2);
    assert_eq!(ask_for(&mut world, again, 10, 100), 4, "ten were uploaded before");
    world.run_for(Duration::from_secs(2));
    assert!(told(&world, from, false) > 0, "the CN hears that it is used up");
    world.crash();
    let from = world.sent.len();
    world.run_for(Duration::from_secs(2));
    assert_eq!(told(&world, from, true), 0, "nor is it offered at the next start");
}

#[test]
fn a_copy_that_expires_is_shared_no_more() {
    let mut world = World::with_peers(20 * MIB, &[]);
    let expires_ms = START_MS + 600_000;
    world.policy = Policy { expires_ms, ..Policy::default() };
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(10));
    assert!(world.client.uploads().shares(&world.version));
    world.run_for(Duration::from_secs(600));
    assert!(!world.client.uploads().shares(&world.version));
    assert_eq!(told(&world, 0, false), 1, "the CN hears of it");
}

#[test]
fn a_client_refused_for_its_version_says_so_and_the_edge_serves_it() {
    let mut world = seeder(1);
    let conn = world.sent_on.expect("a control connection");
    world.input(Input::Control { conn, msg: ToClient::Refused(Refused { why: Refusal::Outdated }) });
    let said = |n: &&Notice| matches!(n, Notice::Outdated);
    assert_eq!(world.notices.iter().filter(said).count(), 1);
    let hellos = |world: &World| world.sent.iter().filter(|m| matches!(m, ToCn::Hello(_))).count();
    let before = hellos(&world);
    world.run_for(Duration::from_secs(200));
    assert_eq!(hellos(&world), before, "the CN is left alone for some minutes");
    let handles: Vec<Handle> = world.client.downloads().map(|(handle, _)| handle).collect();
    assert_eq!(handles.len(), 1);
}

#[test]
fn downloads_without_peers_for_the_clients_version_say_so() {
    let mut world = World::with_peers(40 * MIB, &[]);
    let first = world.get();
    world.run_until(first, DownloadState::Running);
    let conn = world.sent_on.expect("a control connection");
    assert_ne!(no_peers(&world).last(), Some(&NoPeers::VersionRefused));
    world.input(Input::Control { conn, msg: ToClient::Refused(Refused { why: Refusal::Outdated }) });
    assert_eq!(no_peers(&world).last(), Some(&NoPeers::VersionRefused), "of a running download");
    world.run_until(first, DownloadState::Completed);
    world.outputs.clear();
    world.version = VersionId::numbered(2);
    world.layouts.insert(world.version, Layout::for_size(20 * MIB).expect("a layout"));
    let second = world.get();
    world.run_until(second, DownloadState::Completed);
    let why = no_peers(&world);
    assert!(!why.is_empty() && why.iter().all(|why| *why == NoPeers::VersionRefused), "{why:?}: of a new one");
    // an update of the operator's setting
    world.run_for(Duration::from_secs(600));
    world.outputs.clear();
    world.version = VersionId::numbered(3);
    world.layouts.insert(world.version, Layout::for_size(20 * MIB).expect("a layout"));
    let third = world.get();
    world.run_until(third, DownloadState::Completed);
    assert!(!no_peers(&world).contains(&NoPeers::VersionRefused), "a CN accepts the version again");
}
