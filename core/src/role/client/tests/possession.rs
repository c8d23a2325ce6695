//! Tests of the report of a completed download to an edge, and of proofs of possession; the user notices neither.

use super::*;
use crate::accounting::possession::Challenge;
use alloc::vec;

fn sent(world: &World) -> (usize, Vec<Challenge>) {
    let mut completed = 0;
    let mut proven = Vec::new();
    for output in &world.outputs {
        match output {
            Output::Edge(EdgeOutput::Ask { ask: EdgeAsk::Completed { .. }, .. }) => completed += 1,
            Output::Edge(EdgeOutput::Ask { ask: EdgeAsk::Prove { challenge, .. }, .. }) => {
                proven.push(challenge.clone())
            }
            _ => {}
        }
    }
    (completed, proven)
}

fn challenge(parts: &[u64]) -> Challenge {
    Challenge { nonce: [7; 16], parts: parts.to_vec() }
}

/// Completes a download from a peer; the edge answers the report with the challenge `ask`. Returns the number of
/// reports and the challenges for which the client sent proofs.
fn after(ask: Option<Challenge>) -> (usize, Vec<Challenge>) {
    let mut world = World::with_peers(20 * MIB, &[FAST]);
    world.challenge = ask;
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    assert!(world.status().peer_bytes > 0);
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.client.downloads().next(), Some((handle, DownloadState::Completed)));
    sent(&world)
}

#[test]
fn a_completion_is_reported_once_and_only_valid_challenges_are_answered() {
    assert_eq!(after(None), (1, vec![]));
    let good = challenge(&[0, 3, 319]);
    assert_eq!(after(Some(good.clone())), (1, vec![good]));
    for bad in [challenge(&[]), challenge(&[320]), challenge(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), challenge(&[1, 1])] {
        assert_eq!(after(Some(bad)), (1, vec![]), "more than may be asked");
    }
}

#[test]
fn a_download_from_the_edge_alone_is_not_reported() {
    let mut world = World::with_peers(20 * MIB, &[]);
    let handle = world.get();
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(10));
    assert_eq!(sent(&world), (0, vec![]));
}

#[test]
fn an_unreachable_edge_is_tried_a_few_times_only() {
    let mut world = World::with_peers(20 * MIB, &[FAST]);
    let handle = world.get();
    let finishing = |w: &World| w.client.swarm(handle).is_some_and(|s| s.phase() == download::Phase::Finishing);
    while !finishing(&world) {
        world.run_for(Duration::from_millis(1));
    }
    world.edge_up = false;
    world.run_until(handle, DownloadState::Completed);
    world.run_for(Duration::from_secs(100));
    assert_eq!(sent(&world), (3, vec![]));
}
