//! Tests of notices: a provider's new policy, and the withdrawal of a version.

use super::serving::{CONN, ask, connect, seeder};
use super::world::{MIB, World};
use super::*;
use crate::accounting::certs::tests::{cert, fake_sign};
use crate::content::Policy;
use crate::ids::{ConnId, XferId};
use crate::notice::sign;
use crate::wire::notice::{Known, Notice as Signable, Subject, Terms};
use crate::wire::records::{ServerRole, SigningContext};
use alloc::boxed::Box;

const EDGE_KEY: PublicKey = PublicKey([0xe; 32]);

fn tell(world: &mut World, serial: u64, terms: &Terms) {
    let notice = Signable::about_version(world.version, serial, terms);
    let by = |bytes: &[u8]| fake_sign(&EDGE_KEY, SigningContext::Notice, bytes);
    world.input(Input::Notice(Box::new(sign(&notice, cert(ServerRole::Edge, EDGE_KEY), by))));
}

fn publish(world: &mut World, serial: u64, policy: Policy) {
    tell(world, serial, &Terms::Policy(policy));
}

/// Returns the serial numbers that the client has reported.
fn reported(world: &World) -> Vec<u64> {
    let subject = Subject::version(world.version);
    let of = |m: &ToCn| if let ToCn::NoticesHeld(list) = m { list.notices.to_vec() } else { Vec::new() };
    let all = world.sent.iter().flat_map(of);
    all.filter(|known: &Known| known.subject == subject).map(|known| known.serial).collect()
}

/// Returns the rate limit under which a request was served.
fn rate_of(world: &World, of: u64) -> Option<u64> {
    let serve = |o: &Output| match o {
        Output::Peer(PeerOutput::Serve { xfer, rate_max, .. }) if *xfer == XferId(of) => Some(*rate_max),
        _ => None,
    };
    world.outputs.iter().find_map(serve)
}

fn limited(upload_rate_max: u64) -> Policy {
    Policy { upload_rate_max, ..Policy::default() }
}

#[test]
fn a_new_policy_counts_at_once_and_after_a_restart() {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    publish(&mut world, 7, limited(100));
    ask(&mut world, CONN, 1);
    publish(&mut world, 6, limited(50));
    ask(&mut world, CONN, 2);
    assert_eq!([0, 1, 2].map(|x| rate_of(&world, x)), [Some(0), Some(100), Some(100)]);
    assert_eq!(reported(&world).last(), Some(&0), "nothing is acknowledged before it is durable");
    world.run_for(Duration::from_secs(1));
    assert_eq!(reported(&world).last(), Some(&7));
    world.crash();
    world.run_for(Duration::from_secs(1));
    assert_eq!((reported(&world).last(), world.client.notice_serial(world.version)), (Some(&7), Some(7)));
    connect(&mut world, ConnId(CONN.0 | 1), 2);
    ask(&mut world, ConnId(CONN.0 | 1), 3);
    assert_eq!(rate_of(&world, 3), Some(100), "the store keeps the newest policy");
}

#[test]
fn a_notice_that_the_disk_refuses_counts_and_is_acknowledged_only_later() {
    let mut world = seeder(1);
    world.disk_says = Err(StoreError::NoSpace);
    publish(&mut world, 7, limited(100));
    world.run_for(Duration::from_secs(1));
    ask(&mut world, CONN, 0);
    assert_eq!((rate_of(&world, 0), reported(&world).last()), (Some(100), Some(&0)));
    world.disk_says = Ok(());
    publish(&mut world, 7, limited(100));
    world.run_for(Duration::from_secs(1));
    assert_eq!(reported(&world).last(), Some(&7), "the CN has sent it again");
}

#[test]
fn a_policy_can_forbid_uploads_and_permit_them_again() {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    publish(&mut world, 7, Policy { peer_upload: false, ..Policy::default() });
    assert_eq!((world.client.uploads().connections(), world.client.uploads().shares(&world.version)), (0, false));
    world.run_for(Duration::from_secs(1));
    let removed = |m: &ToCn| matches!(m, ToCn::Inventory(page) if page.remove.contains(&world.version));
    assert!(world.sent.iter().any(removed), "the DN offers it no more");
    publish(&mut world, 8, Policy::default());
    assert!(world.client.uploads().shares(&world.version));
}

#[test]
fn a_copy_past_its_new_expiry_is_not_uploaded() {
    let mut world = seeder(1);
    let soon_ms = world::START_MS + world.now.0 / 1000 + 10_000;
    publish(&mut world, 7, Policy { expires_ms: soon_ms, ..Policy::default() });
    ask(&mut world, CONN, 0);
    assert_eq!(rate_of(&world, 0), Some(0));
    world.run_for(Duration::from_secs(11));
    ask(&mut world, CONN, 1);
    assert_eq!(rate_of(&world, 1), None);
    world.crash();
    world.run_for(Duration::from_secs(12));
    assert!(!world.client.uploads().shares(&world.version));
}

#[test]
fn the_policy_of_a_notice_counts_before_that_of_a_later_grant() {
    let mut world = seeder(1);
    publish(&mut world, 7, limited(100));
    world.run_for(Duration::from_secs(1));
    let again = world.get();
    world.run_until(again, DownloadState::Completed);
    ask(&mut world, CONN, 0);
    assert_eq!(rate_of(&world, 0), Some(100));
    world.command(CommandKind::Cancel(again));
    world.run_for(Duration::from_secs(1));
    world.crash();
    world.run_for(Duration::from_secs(1));
    connect(&mut world, ConnId(CONN.0 | 1), 2);
    ask(&mut world, ConnId(CONN.0 | 1), 1);
    assert_eq!(rate_of(&world, 1), Some(100), "the copy keeps it without a download");
}

#[test]
fn a_new_limit_of_uploads_counts_what_was_uploaded_before() {
    // sixteen pieces of 64 KiB
    let mut world = World::with_peers(MIB, &[]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    let again = ConnId(CONN.0 | 1);
    connect(&mut world, CONN, 1);
    connect(&mut world, again, 2);
    for piece in 0..16 {
        ask(&mut world, if piece < 10 { CONN } else { again }, piece);
        world.run_for(Duration::from_millis(50));
    }
    publish(&mut world, 7, Policy { uploads_max: 1, ..Policy::default() });
    assert!(world.client.uploads().shares(&world.version) && !world.client.uploads().offers(&world.version));
    world.run_for(Duration::from_secs(1));
    let removed = |m: &ToCn| matches!(m, ToCn::Inventory(page) if page.remove.contains(&world.version));
    assert!(world.sent.iter().any(removed), "the CN hears that it is used up");
    publish(&mut world, 8, Policy { uploads_max: 2, ..Policy::default() });
    assert!(world.client.uploads().offers(&world.version));
}

#[test]
fn a_policy_that_forbids_peers_ends_those_of_a_running_download() {
    let mut world = World::with_peers(200 * MIB, &[FAST, FAST]);
    let handle = world.get();
    world.run_for(Duration::from_secs(1));
    assert!(world.client.swarm(handle).is_some_and(|s| s.peers().count() == 2));
    publish(&mut world, 7, Policy { peer_download: false, ..Policy::default() });
    world.run_for(Duration::from_secs(1));
    assert!(world.client.swarm(handle).is_some_and(|s| s.peers().count() == 0));
    world.run_until(handle, DownloadState::Completed);
}

#[test]
fn a_withdrawn_version_is_deleted_and_the_notice_acknowledged() {
    let mut world = seeder(1);
    tell(&mut world, 7, &Terms::Withdrawn);
    world.run_for(Duration::from_secs(1));
    assert!(world.disk.cached.is_empty() && world.disk.notices.is_empty());
    assert_eq!((reported(&world).last(), world.client.notice_serial(world.version)), (Some(&7), None));
}

#[test]
fn a_withdrawn_version_is_shared_again_only_after_a_newer_notice() {
    let mut world = World::with_peers(200 * MIB, &[]);
    world.get();
    world.run_for(Duration::from_secs(1));
    assert!(world.client.uploads().shares(&world.version));
    tell(&mut world, 7, &Terms::Withdrawn);
    world.run_for(Duration::from_secs(1));
    assert!(!world.client.uploads().shares(&world.version));
    publish(&mut world, 6, Policy::default());
    assert!(!world.client.uploads().shares(&world.version), "an older notice takes nothing back");
    world.crash();
    world.run_for(Duration::from_secs(1));
    assert!(!world.client.uploads().shares(&world.version), "nor does a restart");
    publish(&mut world, 8, Policy::default());
    assert!(world.client.uploads().shares(&world.version));
}

#[test]
fn each_clause_about_notices_fires() {
    use crate::bench::{Clause, assert_each_clause_fires};
    let mut world = seeder(1);
    publish(&mut world, 7, limited(100));
    let clauses: [Clause<super::super::Client>; 2] = [
        ("each policy is of a version about which notices are taken", |c| c.copies.notices.policy_of_stranger()),
        ("notices are taken about held versions only", |c| c.copies.notices.hold_stranger()),
    ];
    assert_each_clause_fires(&world.client, crate::Machine::check, &clauses);
}
