//! Blames: of a peer that sends wrong blocks, and of this client's own copies.

use super::super::io::ControlOutput;
use super::*;
use crate::accounting::possession::Challenge;
use crate::wire::control::{Blame, CheckCopy, ToClient};

/// Returns a client that has completed its download, and an edge that poses `challenge`.
fn holder(challenge: Option<Challenge>) -> World {
    let mut world = World::with_peers(20 * MIB, &[]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(5));
    world.challenge = challenge;
    world
}

fn check(world: &mut World, version: VersionId) {
    let conn = world.outputs.iter().rev().find_map(|o| match o {
        Output::Control(ControlOutput::Dial { conn, .. }) => Some(*conn),
        _ => None,
    });
    let msg = ToClient::CheckCopy(CheckCopy { version });
    world.input(Input::Control { conn: conn.expect("a CN"), msg });
}

/// Returns how often the store was told to hash a copy again.
fn checks(world: &World) -> usize {
    world.outputs.iter().filter(|o| matches!(o, Output::CheckCopy { .. })).count()
}

/// Returns the grants for which a challenge was requested, and the number of proofs.
fn asked(world: &World) -> (usize, usize) {
    let asks = world.outputs.iter().filter_map(|o| match o {
        Output::Edge(EdgeOutput::Ask { ask, .. }) => Some(ask),
        _ => None,
    });
    asks.fold((0, 0), |(rechecks, proofs), ask| match ask {
        EdgeAsk::Completed { recheck: true, .. } => (rechecks + 1, proofs),
        EdgeAsk::Prove { .. } => (rechecks, proofs + 1),
        _ => (rechecks, proofs),
    })
}

#[test]
fn a_peer_that_sends_a_wrong_block_is_blamed_once() {
    let mut world = World::with_peers(50 * MIB, &[CORRUPT, FAST]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    let blames: Vec<&Blame> =
        world.sent.iter().filter_map(|m| if let ToCn::Blame(blame) = m { Some(blame) } else { None }).collect();
    let [blame] = blames[..] else { panic!("{blames:?}") };
    let connected = |m: &ToCn| matches!(m, ToCn::Outcome(o) if o.intro == blame.intro && o.attempt.failure.is_none());
    let (first, last) =
        (world.sent.iter().position(connected), world.sent.iter().position(|m| matches!(m, ToCn::Blame(_))));
    assert!(first.is_some() && first < last, "the CN knows before that they have connected");
}

#[test]
fn a_blamed_copy_that_is_right_is_proven_to_an_edge() {
    let challenge = Challenge { nonce: [7; 16], parts: alloc::vec![0, 3, 319] };
    let mut world = holder(Some(challenge));
    let version = world.version;
    check(&mut world, version);
    check(&mut world, version);
    assert_eq!(checks(&world), 1, "one check at a time");
    world.input(Input::CopyChecked { version, is_right: true });
    world.run_for(Duration::from_secs(5));
    assert_eq!(asked(&world), (1, 1));
    world.input(Input::CopyChecked { version, is_right: true });
    world.run_for(Duration::from_secs(5));
    assert_eq!(asked(&world), (1, 1), "not awaited");
    check(&mut world, VersionId::numbered(999));
    assert_eq!(checks(&world), 1, "a version that it does not have");
}

#[test]
fn a_blamed_copy_that_is_damaged_is_shared_no_more_and_not_proven() {
    let mut world = holder(None);
    let version = world.version;
    check(&mut world, version);
    world.lose();
    world.input(Input::CopyChecked { version, is_right: false });
    world.run_for(Duration::from_secs(5));
    assert_eq!(asked(&world), (0, 0));
    let gone = |m: &ToCn| matches!(m, ToCn::Inventory(i) if i.remove.contains(&version) || i.reset && i.add.is_empty());
    assert!(world.sent.iter().any(gone), "the CN is told");
}

#[test]
fn a_proof_is_tried_at_a_few_edges_only() {
    let mut world = holder(None);
    let version = world.version;
    world.edge_up = false;
    check(&mut world, version);
    let before = grants(&world);
    world.input(Input::CopyChecked { version, is_right: true });
    world.run_for(Duration::from_secs(100));
    assert_eq!(grants(&world) - before, 3);
}

fn grants(world: &World) -> usize {
    let is_grant = |o: &&Output| matches!(o, Output::Edge(EdgeOutput::Ask { ask: EdgeAsk::Grant { .. }, .. }));
    world.outputs.iter().filter(is_grant).count()
}
