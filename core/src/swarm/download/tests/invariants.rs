//! Tests that each assertion of a download's `check` finds a wrong state.

use super::super::source::Xfer;
use super::super::{Download, EdgeHold, Phase, Timer};
use super::lab::{Lab, at_rate};
use crate::Machine as _;
use crate::bench::assert_each_clause_fires;
use crate::ids::{ConnId, PieceIndex, XferId};
use crate::swarm::download::{Input, Source};
use crate::swarm::outcome::SourceName;
use crate::{Deadlines, Time};
use core::time::Duration;

const CONN: ConnId = ConnId(1);

fn peer(d: &mut Download) -> &mut super::super::source::SourceState {
    d.peers.get_mut(&CONN).expect("a peer")
}

fn running(d: &mut Download) -> &mut Xfer {
    d.xfers.values_mut().find(|x| !x.cancelled).expect("a transfer")
}

/// Returns a download that fetches from an edge and a peer while a piece is saved.
fn healthy() -> Download {
    let mut lab = Lab::new(50_000_000, at_rate(10_000_000));
    lab.input(Input::Start);
    lab.add_peer(1, at_rate(10_000_000));
    lab.save_takes = Duration::from_secs(60);
    lab.run_for(Duration::from_millis(200));
    assert!(!lab.d.saving.is_empty() && lab.d.edge.fetches > 0 && lab.d.peers[&CONN].fetches > 1);
    lab.d
}

#[test]
fn each_clause_about_the_phase_of_a_download_fires() {
    assert_each_clause_fires(
        &healthy(),
        Download::check,
        &[
            ("a download gives up at some time if it is running", |d| d.timers.clear(Timer::GiveUp)),
            ("a timer is set only while the download is running", |d| {
                d.phase = Phase::Stopped;
                d.timers.clear(Timer::GiveUp);
            }),
            ("nothing is in flight unless the download is running", |d| {
                (d.phase, d.timers) = (Phase::Stopped, Deadlines::default());
            }),
            ("the edge being asked is one of the edges", |d| d.edge_index = 1),
            ("a back-off from the edges ends", |d| d.edge_hold = EdgeHold::BackOff),
            ("an edge that sent wrong bytes is not asked", |d| _ = d.bad_edges.insert(0)),
            ("there are no more peers than allowed", |d| {
                let peer = peer(d).clone();
                d.peers.extend((100..164).map(|n| (ConnId(n), peer.clone())));
            }),
        ],
    );
}

#[test]
fn each_clause_about_the_transfers_of_a_download_fires() {
    assert_each_clause_fires(
        &healthy(),
        Download::check,
        &[
            ("the number of a transfer names its download", |d| {
                let xfer = running(d).clone();
                d.xfers.insert(XferId(1), Xfer { cancelled: true, ..xfer });
            }),
            ("no transfer verifies more than it fetches", |d| running(d).verified = u64::MAX),
            ("the picker knows each running transfer", |d| running(d).span.1.end += 1),
            ("the picker knows no other transfers", |d| running(d).cancelled = true),
            ("the bytes in flight are the sum over the transfers", |d| d.in_flight += 1),
            ("the counts of a source are the sums over its transfers", |d| peer(d).in_flight += 1),
            ("a source can stall if it has a transfer", |d| d.timers.clear(Timer::Stall(Source::Peer(CONN)))),
            ("only connected peers and the present edge are fetched from", |d| {
                let is_its = |x: &&mut Xfer| x.source == Source::Peer(CONN);
                d.xfers.values_mut().filter(is_its).for_each(|x| x.source = Source::Peer(ConnId(2)));
                (peer(d).fetches, peer(d).in_flight) = (0, 0);
                d.timers.clear(Timer::Stall(Source::Peer(CONN)));
            }),
            ("only connected peers and the present edge can stall", |d| {
                d.timers.set(Timer::Stall(Source::Edge(7)), Some(Time(1)));
            }),
        ],
    );
}

#[test]
fn each_clause_about_peers_and_saved_pieces_fires() {
    assert_each_clause_fires(
        &healthy(),
        Download::check,
        &[
            ("no banned peer is connected", |d| {
                let SourceName::Peer(_, key) = peer(d).name else { panic!("a peer") };
                d.banned.insert(key);
            }),
            ("a peer with too many failures is disconnected", |d| peer(d).strikes = 3),
            ("no peer is given more transfers than it accepts", |d| peer(d).fetches_max = 0),
            ("a peer that has delivered nothing has one transfer at most", |d| peer(d).proven = false),
            ("the pieces of each peer are known", |d| peer(d).has = None),
            ("the picker counts the pieces of all peers", |d| {
                _ = peer(d).has.as_mut().expect("pieces").remove(PieceIndex(0));
            }),
            ("each complete piece is being saved", |d| _ = d.saving.pop_first()),
            ("only a complete piece is saved", |d| {
                let (_, from) = d.saving.pop_first().expect("a piece");
                d.saving.insert(PieceIndex(u32::MAX), from);
            }),
            ("each byte of a saved piece has a source", |d| {
                d.saving.values_mut().for_each(|from| from.truncate(0));
            }),
        ],
    );
}
