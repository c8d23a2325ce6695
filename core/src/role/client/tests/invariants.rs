//! Tests that each assertion of the client's `check` fails for the corruption that it is meant to find.

use super::super::books::Books;
use super::super::edges::{Ask, Edges};
use super::super::job::Jobs;
use super::super::links::{PeerLinks, Search};
use super::super::rekey::{Owner, Step};
use super::super::versions::Versions;
use super::super::{Client, Need, Timer};
use super::*;
use crate::bench::{Clause, assert_clause_fires, assert_each_clause_fires};
use crate::ids::{ConnId, ReqId};
use crate::nat::connectivity::Connectivity;
use crate::swarm::Receipts;
use crate::{Machine, Time};

type Corruption = Clause<Client>;

const HANDLE: Handle = Handle(0);
const AT: Option<Time> = Some(Time(9));

/// Returns a client that waits for its first answers from the edge.
fn asking() -> Client {
    let mut world = World::new(20 * MIB);
    world.get();
    world.run_for(Duration::from_millis(5));
    world.client
}

/// Returns a client that dials two peers.
fn dialling() -> Client {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST]);
    world.get();
    while world.client.links.iter().count() < 2 {
        world.run_for(Duration::from_millis(1));
    }
    world.client
}

/// Returns a client that fetches from the edge and two peers.
fn fetching() -> Client {
    let mut world = World::with_peers(100 * MIB, &[FAST, FAST]);
    world.get();
    world.run_for(Duration::from_secs(1));
    world.client
}

/// Returns a client that has served a peer, and has a usage record's log head signed.
fn reporting() -> Client {
    let mut world = serving::seeder(1);
    serving::ask(&mut world, serving::CONN, 0);
    world.run_for(Duration::from_secs(1));
    world.input(Input::PeerClosed { conn: serving::CONN });
    while world.client.books.signing().next().is_none() {
        world.run_for(Duration::from_millis(1));
    }
    world.client
}

/// Gives a client the state of the uploads of another client, to which a peer has connected on connection 0.
fn served_over_0(client: &mut Client) {
    let mut world = World::new(MIB);
    let from = "127.0.0.1:1".parse().expect("an address");
    world.input(Input::PeerAccepted { conn: ConnId(0), key: PublicKey::numbered(1), from });
    client.uploads = world.client.uploads;
}

fn job(client: &mut Client) -> &mut super::super::job::Job {
    client.jobs.get_mut(HANDLE).expect("the download")
}

#[test]
fn each_clause_about_numbers_and_downloads_fires() {
    for (clause, corrupt) in Jobs::CORRUPTIONS {
        assert_clause_fires(&fetching(), Client::check, clause, |c: &mut Client| corrupt(&mut c.jobs));
    }
    let corruptions: [Corruption; 2] = [
        ("a request's number is given once", |c| {
            c.common.next_req = ReqId(0);
            c.edges.note(ReqId(0), Ask::Proof);
        }),
        ("what a download needs is asked for, or will be", |c| job(c).need = Some(Need::Renewal)),
    ];
    assert_each_clause_fires(&fetching(), Client::check, &corruptions);
}

#[test]
fn each_clause_about_links_fires() {
    for (clause, corrupt) in PeerLinks::CORRUPTIONS {
        assert_clause_fires(&dialling(), Client::check, clause, |c: &mut Client| corrupt(&mut c.links));
    }
    for (clause, corrupt) in Search::CORRUPTIONS {
        assert_clause_fires(&fetching(), Client::check, clause, |c: &mut Client| corrupt(&mut job(c).search));
    }
    let corruptions: [Corruption; 5] = [
        ("a link belongs to a download that fetches", |c| c.links.lose_download()),
        ("a link's peer counts as tried", |c| job(c).search = Search::default()),
        ("a link without a path seeks one", |c| {
            c.links.claim_met();
            c.connectivity = Connectivity::default();
        }),
        ("a connection serves or is served", served_over_0),
        ("a child's deadline is the client's", |c| c.common.timers.clear(Timer::Links)),
    ];
    assert_each_clause_fires(&dialling(), Client::check, &corruptions);
    let corruptions: [Corruption; 2] = [
        ("an open link owes receipts", |c| c.receipts = Receipts::default()),
        ("the open links are the swarm's peers", |c| {
            let conn = c.links.iter().map(|(conn, _)| conn).next().expect("a link");
            c.links.remove(conn);
        }),
    ];
    assert_each_clause_fires(&fetching(), Client::check, &corruptions);
}

#[test]
fn each_clause_about_books_and_versions_fires() {
    for (clause, corrupt) in Books::CORRUPTIONS {
        assert_clause_fires(&reporting(), Client::check, clause, |c: &mut Client| corrupt(&mut c.books));
    }
    for (clause, corrupt) in Versions::CORRUPTIONS {
        assert_clause_fires(&reporting(), Client::check, clause, |c: &mut Client| corrupt(&mut c.copies.versions));
    }
}

#[test]
fn each_clause_about_requests_to_edges_fires() {
    for (clause, corrupt) in Edges::CORRUPTIONS {
        assert_clause_fires(&asking(), Client::check, clause, |c: &mut Client| {
            c.common.next_req = ReqId(u64::MAX);
            corrupt(&mut c.edges);
        });
    }
    let corruptions: [Corruption; 2] = [
        ("a download's request is pending", |c| job(c).asked = Some(ReqId(77))),
        ("a request that is pending is not repeated", |c| c.common.timers.set(Timer::Ask(HANDLE), AT)),
    ];
    assert_each_clause_fires(&asking(), Client::check, &corruptions);
    let corruptions: [Corruption; 3] = [
        ("exactly a copy that is being proven waits for an edge", |c| {
            let req = c.common.next_req.step();
            c.edges.note(req, Ask::Recheck(VersionId::numbered(9)));
        }),
        ("a download waits for its request", |c| {
            let req = c.common.next_req.step();
            c.edges.note(req, Ask::Job(HANDLE));
        }),
        ("the bootstrap is asked for again", |c| c.common.timers.clear(Timer::Bootstrap)),
    ];
    assert_each_clause_fires(&fetching(), Client::check, &corruptions);
}

#[test]
fn each_clause_about_deadlines_fires() {
    let corruptions: [Corruption; 9] = [
        ("a child's deadline is the client's", |c| c.common.timers.set(Timer::Session, AT)),
        ("a swarm's deadline is the client's", |c| c.common.timers.set(Timer::Download(HANDLE), Some(Time(1)))),
        ("a swarm that waits has a deadline", |c| c.common.timers.clear(Timer::Download(HANDLE))),
        ("only an active download waits for an edge", |c| c.common.timers.set(Timer::Renew(Handle(77)), AT)),
        ("a rekey that waits has a deadline", |c| c.common.timers.set(Timer::Rekey, AT)),
        ("the first call has claimed the store", |c| c.rekey.owner = Owner::Unset),
        ("an active download's status is reported", |c| c.common.timers.clear(Timer::Status)),
        ("usage is reported in time", |c| c.common.timers.clear(Timer::Usage)),
        ("a client that takes a new key has stopped", |c| c.rekey.step = Step::Done),
    ];
    assert_each_clause_fires(&fetching(), Client::check, &corruptions);
}
