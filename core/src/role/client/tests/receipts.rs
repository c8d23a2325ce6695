//! Tests of receipts: those that the client signs as a downloader, and those that it gets as an uploader.

use super::serving::{CONN, ask, connect, seeder};
use super::usage_sent;
use super::world::{MIB, OWN_KEY, World};
use super::{FAST, Output};
use crate::accounting::certs::tests::fake_sign;
use crate::ids::{ConnId, IntroId, PublicKey};
use crate::role::client::io::{CloseReason, DownloadState, Input, PeerOutput};
use crate::wire::Wire as _;
use crate::wire::peer::PeerMsg;
use crate::wire::records::{Receipt, Side, SignedReceipt, SigningContext};
use alloc::collections::BTreeMap;
use core::time::Duration;

const BYTES: u64 = 65_536;

/// Returns a receipt from the peer that introduction 1 names.
fn receipt(world: &World, bytes: u64) -> PeerMsg {
    let key = PublicKey::numbered(60);
    let i = world.intro_for(1, key, OWN_KEY);
    let receipt =
        Receipt { intro: i.id, download: i.download, version: i.version, uploader_key: OWN_KEY, seq: 1, bytes };
    let signature = fake_sign(&key, SigningContext::Receipt, &receipt.to_bytes());
    PeerMsg::Receipt(SignedReceipt { receipt, signature })
}

/// Returns a seeder that has served one piece and stored a receipt for it, before any usage record is written.
fn receipted_seeder() -> World {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    world.run_for(Duration::from_secs(1));
    let msg = receipt(&world, BYTES);
    world.input(Input::Peer { conn: CONN, msg });
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.disk.receipts.len(), 1, "it is stored separately until a record holds it");
    world
}

/// Returns the bytes that receipts prove in the client's newest usage record as an uploader.
fn proven(world: &World) -> u64 {
    let newest = usage_sent(world).into_iter().rfind(|r| r.side == Side::Uploader);
    newest.into_iter().flat_map(|r| &r.peers).filter_map(|p| p.receipt.as_ref()).map(|r| r.bytes).sum()
}

#[test]
fn a_receipt_survives_a_crash_before_any_usage_record() {
    let mut world = receipted_seeder();
    world.crash();
    world.run_for(Duration::from_secs(20));
    assert_eq!(proven(&world), BYTES);
    assert_eq!(world.disk.receipts, [], "the record holds it");
}

#[test]
fn teeth_a_receipt_that_is_not_stored_is_missing_after_a_crash() {
    let mut world = receipted_seeder();
    world.disk.receipts.clear();
    world.crash();
    world.run_for(Duration::from_secs(20));
    assert_eq!(proven(&world), 0);
}

#[test]
fn a_receipt_by_another_key_ends_the_connection_and_proves_nothing() {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    world.run_for(Duration::from_secs(1));
    let PeerMsg::Receipt(mut forged) = receipt(&world, BYTES) else { panic!("a receipt") };
    forged.receipt.bytes -= 1;
    world.input(Input::Peer { conn: CONN, msg: PeerMsg::Receipt(forged) });
    assert_eq!(world.closed_with(CloseReason::Violation), 1);
    let again = ConnId(CONN.0 | 1);
    connect(&mut world, again, 1);
    world.run_for(Duration::from_secs(20));
    assert_eq!((proven(&world), world.disk.receipts.len()), (0, 0));
}

#[test]
fn every_byte_of_a_peer_is_receipted_once_before_it_is_dropped() {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST, FAST]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(10));
    let mut highest: BTreeMap<IntroId, (u32, u64)> = BTreeMap::new();
    for output in &world.outputs {
        if let Output::Peer(PeerOutput::Send { msg: PeerMsg::Receipt(r), .. }) = output {
            let before = highest.insert(r.receipt.intro, (r.receipt.seq, r.receipt.bytes)).unwrap_or_default();
            assert!(before.0 + 1 == r.receipt.seq && before.1 < r.receipt.bytes, "they go on from one another");
        }
    }
    let record = usage_sent(&world).into_iter().rfind(|r| r.side == Side::Downloader).expect("a record");
    let claimed: BTreeMap<IntroId, u64> = record.peers.iter().map(|p| (p.intro, p.bytes)).collect();
    let signed: BTreeMap<IntroId, u64> = highest.into_iter().map(|(intro, (_, bytes))| (intro, bytes)).collect();
    assert!(!claimed.is_empty());
    assert_eq!(claimed, signed, "usage records and receipts agree");
    let parted = world
        .outputs
        .iter()
        .filter(|o| matches!(o, Output::Peer(PeerOutput::Send { msg: PeerMsg::GoingAway, .. })))
        .count();
    assert_eq!((parted, world.closed_with(CloseReason::Done)), (3, 3), "a peer that does not close is closed");
}
