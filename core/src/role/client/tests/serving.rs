//! Tests of the client's uploading side.

use super::usage_sent;
use super::world::{MIB, OWN_KEY, World, sign};
use crate::ids::{ConnId, PieceIndex, PublicKey, XferId};
use crate::role::client::io::{CommandKind, DownloadState, Input, Output, PeerOutput};
use crate::wire::PROTOCOL;
use crate::wire::control::ToCn;
use crate::wire::peer::{PeerHello, PeerMsg, PieceRequest};
use crate::wire::records::{Side, UsageRecord};
use alloc::vec::Vec;
use core::time::Duration;

pub(super) const CONN: ConnId = ConnId(1 << 63);

/// Returns a client that has a version of 20 MiB, and a connected peer that was introduced to it as `intro`.
pub(super) fn seeder(intro: u32) -> World {
    let mut world = World::with_peers(20 * MIB, &[]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    connect(&mut world, CONN, intro);
    world
}

pub(super) fn connect(world: &mut World, conn: ConnId, intro: u32) {
    let key = PublicKey::numbered(60);
    world.input(Input::PeerAccepted { conn, key, from: "127.0.0.1:5".parse().expect("an address") });
    let intro = sign(alloc::vec![world.intro_for(intro, key, OWN_KEY)]).remove(0);
    world.input(Input::Peer { conn, msg: PeerMsg::Hello(PeerHello { protocol: PROTOCOL, intro }) });
}

pub(super) fn ask(world: &mut World, conn: ConnId, xfer: u64) {
    let piece = u32::try_from(xfer).expect("small");
    let request = PieceRequest { piece: PieceIndex(piece), first_block: 0, blocks: 4, want_leaves: true };
    world.input(Input::PeerRequest { conn, xfer: XferId(xfer), request });
}

fn uploader_records(records: &[UsageRecord]) -> Vec<&UsageRecord> {
    records.iter().filter(|r| r.side == Side::Uploader).collect()
}

#[test]
fn an_introduced_peer_is_served_and_reported_when_it_leaves() {
    let mut world = seeder(1);
    assert!(
        world
            .outputs
            .iter()
            .any(|o| matches!(o, Output::Peer(PeerOutput::Send { conn: CONN, msg: PeerMsg::HaveMap(m) }) if m.last))
    );
    (0..3).for_each(|x| ask(&mut world, CONN, x));
    world.run_for(Duration::from_secs(1));
    let serves = world.outputs.iter().filter(|o| matches!(o, Output::Peer(PeerOutput::Serve { .. }))).count();
    assert_eq!(serves, 3);
    world.input(Input::PeerClosed { conn: CONN });
    world.run_for(Duration::from_secs(1));
    let sent: Vec<_> = usage_sent(&world).into_iter().filter(|r| r.side == Side::Uploader).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].peers.iter().map(|p| p.bytes).collect::<Vec<_>>(), [3 * 65_536]);
}

#[test]
fn bytes_served_to_a_download_are_one_growing_record_across_restarts() {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    world.run_for(Duration::from_secs(1));
    world.input(Input::PeerClosed { conn: CONN });
    world.run_for(Duration::from_secs(1));
    let first =
        uploader_records(&world.disk.usage).last().copied().cloned().expect("a record is kept while it may grow");
    world.crash();
    world.run_for(Duration::from_secs(1));
    let again = ConnId(CONN.0 | 1);
    connect(&mut world, again, 2);
    ask(&mut world, again, 1);
    world.run_for(Duration::from_secs(1));
    world.input(Input::PeerClosed { conn: again });
    world.run_for(Duration::from_secs(1));
    let second = uploader_records(&world.disk.usage).last().copied().cloned().expect("a record");
    assert!(second.seq > first.seq);
    assert_eq!(second.peers.iter().map(|p| p.bytes).sum::<u64>(), 2 * 65_536);
    world.run_for(Duration::from_secs(700));
    assert_eq!(world.disk.usage, [], "once it is old and acknowledged it goes");
}

#[test]
fn uploads_off_takes_effect_at_once_and_survives_a_restart() {
    let mut world = seeder(1);
    ask(&mut world, CONN, 0);
    let req = world.command(CommandKind::Uploads(false));
    let refused = |o: &Output| matches!(o, Output::Peer(PeerOutput::Refuse { xfer: XferId(0), .. }));
    assert!(world.outputs.iter().any(refused), "what is being served is stopped");
    assert_eq!(world.client.uploads().connections(), 0);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.answer_to(req), Some(Ok(None)));
    let off = |m: &ToCn| matches!(m, ToCn::Update(u) if !u.uploads);
    assert!(world.sent.iter().any(off), "the CN is told");
    world.crash();
    world.run_for(Duration::from_secs(1));
    let before = world.outputs.len();
    connect(&mut world, ConnId(CONN.0 | 2), 3);
    assert!(world.outputs[before..].iter().all(|o| matches!(o, Output::Peer(PeerOutput::Close { .. }))));
    // uploads are switched on again, so the cached version is offered again
    world.command(CommandKind::Uploads(true));
    connect(&mut world, ConnId(CONN.0 | 4), 4);
    assert_eq!(world.client.uploads().connections(), 1);
}

#[test]
fn a_partial_download_is_shared_while_it_grows() {
    let mut world = World::with_peers(50 * MIB, &[]);
    world.edge_rate = 5_000_000;
    world.get();
    world.run_for(Duration::from_secs(2));
    connect(&mut world, CONN, 1);
    world.run_for(Duration::from_secs(1));
    let some = |o: &Output| matches!(o, Output::Peer(PeerOutput::Send { msg: PeerMsg::HaveMap(m), .. }) if m.bits.iter().any(|b| *b > 0));
    assert!(world.outputs.iter().any(some), "its have-map names what it has");
    let announced = world
        .outputs
        .iter()
        .filter(|o| matches!(o, Output::Peer(PeerOutput::Send { msg: PeerMsg::Have(_), .. })))
        .count();
    assert!(announced > 10, "{announced}");
    let partial = |m: &ToCn| matches!(m, ToCn::Inventory(i) if i.add.iter().any(|s| !s.complete));
    assert!(world.sent.iter().any(partial));
}

#[test]
fn a_version_whose_policy_forbids_uploads_is_not_shared() {
    let mut world = World::with_peers(20 * MIB, &[]);
    world.policy.peer_upload = false;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(1));
    let offered = |m: &ToCn| matches!(m, ToCn::Inventory(i) if !i.add.is_empty());
    assert!(!world.sent.iter().any(offered));
    connect(&mut world, CONN, 1);
    assert_eq!(world.client.uploads().connections(), 0);
}
