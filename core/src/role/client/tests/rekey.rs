//! Tests of a client's rekey: in the middle of a download, across crashes, and while the ledger is unreachable.

use super::usage_sent;
use super::world::{MIB, NEW_KEY, World};
use crate::ids::{ConnId, Guid, Handle};
use crate::role::client::io::{ControlOutput, DownloadState, EdgeAsk, EdgeOutput, Input, Output};
use crate::wire::control::{ToClient, ToCn};
use alloc::vec::Vec;
use core::time::Duration;

/// Returns a client in the middle of a download.
fn downloading() -> (World, Handle) {
    let mut world = World::with_peers(4 * MIB, &[]);
    world.edge_rate = MIB / 4;
    let handle = world.get();
    world.run_for(Duration::from_secs(8));
    assert_eq!(world.state(handle), Some(DownloadState::Running));
    assert!(world.status().durable > 0);
    (world, handle)
}

fn control(world: &World) -> ConnId {
    let dialled =
        |o: &Output| if let Output::Control(ControlOutput::Dial { conn, .. }) = o { Some(*conn) } else { None };
    world.outputs.iter().rev().find_map(dialled).expect("a session")
}

fn order(world: &mut World) {
    let conn = control(world);
    world.input(Input::Control { conn, msg: ToClient::Rekey });
}

fn rekeys_sent(world: &World) -> usize {
    world.sent.iter().filter(|m| matches!(m, ToCn::Rekeyed(_))).count()
}

/// Runs until the client asks the shell to adopt the new key.
fn until_adopted(world: &mut World) {
    for _ in 0..4_000 {
        if world.adopted > 0 {
            return;
        }
        world.run_for(Duration::from_millis(50));
    }
    panic!("the client never adopts the new key");
}

#[test]
fn a_rekeyed_download_keeps_its_pieces_and_bills_each_byte_once() {
    let (mut world, handle) = downloading();
    let old = world.cfg.identity.guid;
    order(&mut world);
    order(&mut world);
    until_adopted(&mut world);
    assert_eq!(rekeys_sent(&world), 1, "one order is enough");
    let durable: u64 = world.disk.pieces[&world.version].len() as u64 * 65_536;
    let last = usage_sent(&world).pop().expect("a record");
    assert_eq!((last.reporter, last.edge_bytes), (old, durable), "all that was fetched is in the old one's books");
    assert_eq!(world.disk.usage, [], "and they are acknowledged");
    world.adopt();
    let fetched = world.fetched.len();
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.disk.owner, Some(Guid::of(&NEW_KEY)));
    let left = usize::try_from((4 * MIB - durable) / 65_536).expect("few");
    assert_eq!(world.fetched.len() - fetched, left, "nothing is fetched twice");
    let last = usage_sent(&world).pop().expect("a record");
    assert_eq!((last.reporter, last.edge_bytes), (Guid::of(&NEW_KEY), 4 * MIB - durable), "nor billed twice");
}

#[test]
fn a_new_key_requests_a_new_grant_and_never_shows_the_old_one() {
    let (mut world, _) = downloading();
    order(&mut world);
    until_adopted(&mut world);
    world.outputs.clear();
    world.adopt();
    world.run_for(Duration::from_secs(1));
    let asks: Vec<_> = world
        .outputs
        .iter()
        .filter_map(|o| if let Output::Edge(EdgeOutput::Ask { ask, .. }) = o { Some(ask) } else { None })
        .collect();
    let grant = asks.iter().find_map(|ask| match ask {
        EdgeAsk::Grant { renew, version, .. } => Some((renew.is_none(), version.as_ref())),
        EdgeAsk::Bootstrap | EdgeAsk::Manifest { .. } | EdgeAsk::Completed { .. } | EdgeAsk::Prove { .. } => None,
    });
    assert_eq!(grant, Some((true, Some(&world.version))));
}

#[test]
fn a_crash_before_retirement_repeats_the_rekey_with_the_same_key() {
    let (mut world, _) = downloading();
    world.cn_up = false;
    order(&mut world);
    world.run_for(Duration::from_millis(15));
    let made = world.disk.new_key.clone().expect("it is kept before anybody hears of it");
    world.crash();
    world.cn_up = true;
    world.sent.clear();
    until_adopted(&mut world);
    assert!(world.sent.contains(&ToCn::Rekeyed(*made)));
}

#[test]
fn a_rekey_waits_for_the_ledger_while_the_download_continues() {
    let (mut world, handle) = downloading();
    world.acks = false;
    order(&mut world);
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.adopted, 0);
    world.acks = true;
    until_adopted(&mut world);
}

#[test]
fn a_copied_installation_does_not_report_the_originals_records() {
    let (mut world, handle) = downloading();
    world.acks = false;
    world.run_for(Duration::from_secs(10));
    assert!(!world.disk.usage.is_empty());
    world.sent.clear();
    world.acks = true;
    // the shell made another key when it started
    world.adopt();
    world.run_until(handle, DownloadState::Completed);
    assert!(usage_sent(&world).iter().all(|r| r.reporter == Guid::of(&NEW_KEY)));
}
