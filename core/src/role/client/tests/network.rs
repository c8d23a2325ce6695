//! Tests of the client's reaction to a changed network, or to signs of one.

use super::world::{MIB, World};
use super::{FAST, FakePeer};
use crate::ids::ConnId;
use crate::nat::{Candidate, CandidateKind, NatBehaviour, NatDescriptor};
use crate::role::client::io::{CloseReason, DownloadState, EdgeOutput, Input, Notice, Output};
use crate::swarm::download::Source;
use crate::wire::List;
use crate::wire::control::ToCn;
use alloc::vec::Vec;
use core::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn quiet(conn: ConnId, ms: u64) -> Input {
    Input::PeerQuiet { conn, quiet: MS(ms), round_trip: MS(100) }
}

/// Returns the peer connections on which the client has requested blocks.
fn asked(world: &World) -> Vec<ConnId> {
    let mut all: Vec<_> = world.fetched.iter().filter_map(|(s, _)| peer(*s)).collect();
    all.dedup();
    all
}

/// Returns the number of peers that the client dropped because of silence.
fn lost(world: &World) -> usize {
    let is_stalled = |n: &&Notice| matches!(n, Notice::SourceDropped { why: CloseReason::Stalled, .. });
    world.notices.iter().filter(is_stalled).count()
}

fn peer(source: Source) -> Option<ConnId> {
    if let Source::Peer(conn) = source { Some(conn) } else { None }
}

#[test]
fn a_silent_peer_is_dropped_and_introduced_anew_without_losing_pieces() {
    let slow = FakePeer { rate: 4_000_000, ..FAST };
    let mut world = World::with_peers(60 * MIB, &[slow]);
    let handle = world.get();
    world.run_for(Duration::from_secs(2));
    let first = *asked(&world).last().expect("a peer");
    let before = world.outputs.len();
    world.input(quiet(first, 999));
    assert_eq!(world.outputs.len(), before, "a hiccup");
    world.input(quiet(first, 1_000));
    assert_eq!(world.outputs.iter().filter(|o| **o == Output::ProbeNetwork).count(), 1);
    assert_eq!(lost(&world), 0, "it may still come back");
    let queries = |w: &World| w.sent.iter().filter(|m| matches!(m, ToCn::Query(_))).count();
    let asked_before = queries(&world);
    world.input(quiet(first, 2_000));
    assert_eq!(lost(&world), 1);
    assert_eq!(queries(&world), asked_before + 1, "at once");
    world.run_until(handle, DownloadState::Completed);
    assert!(asked(&world).iter().any(|conn| *conn != first), "the same peer again, by another connection");
    let status = world.status();
    assert_eq!(status.edge_bytes + status.peer_bytes, 60 * MIB);
}

#[test]
fn a_peer_with_a_long_round_trip_may_be_silent_for_longer() {
    let mut world = World::with_peers(60 * MIB, &[FAST]);
    world.get();
    world.run_for(Duration::from_secs(1));
    let conn = *asked(&world).last().expect("a peer");
    world.input(Input::PeerQuiet { conn, quiet: MS(2_000), round_trip: MS(700) });
    assert_eq!(lost(&world), 0);
    world.input(Input::PeerQuiet { conn, quiet: MS(4_000), round_trip: MS(700) });
    assert_eq!(lost(&world), 1);
}

fn seen_at(epoch: u32, mapping: NatBehaviour, addr: &str) -> Input {
    let addr = addr.parse().expect("an address");
    let candidates = List::truncated([Candidate { kind: CandidateKind::ServerReflexive, addr }]);
    Input::Network(NatDescriptor { epoch, udp: true, mapping, candidates, ..NatDescriptor::default() })
}

#[test]
fn edge_connections_are_dropped_only_when_an_address_has_changed() {
    use NatBehaviour::{EndpointIndependent as Ei, Unknown};
    let mut world = World::new(60 * MIB);
    let handle = world.get();
    world.run_for(MS(500));
    let count = |w: &World, is: fn(&EdgeOutput) -> bool| {
        w.outputs.iter().filter(|o| matches!(o, Output::Edge(output) if is(output))).count()
    };
    let moves = |w: &World| count(w, |o| *o == EdgeOutput::DropConnections);
    let cancels = |w: &World| count(w, |o| matches!(o, EdgeOutput::CancelFetch { .. }));
    world.input(seen_at(1, Unknown, "192.0.2.1:4000"));
    world.input(seen_at(2, Ei, "192.0.2.1:4000"));
    assert_eq!((moves(&world), cancels(&world)), (0, 0), "more is known, nothing has changed");
    world.input(seen_at(3, Ei, "192.0.2.7:4000"));
    assert_eq!(moves(&world), 1);
    assert!(cancels(&world) > 0);
    world.run_until(handle, DownloadState::Completed);
    assert_eq!(world.status().edge_bytes, 60 * MIB);
}
