//! Tests that each assertion of [`Directory::check`] finds a wrong state, and of defects that they have found.

use super::*;
use crate::bench::{Clause, assert_each_clause_fires};
use core::net::IpAddr;

fn peer(d: &mut Directory, n: u32) -> &mut Peer {
    d.peers.get_mut(&key(n)).expect("registered")
}

fn first_share(d: &mut Directory, n: u32) -> &mut Share {
    peer(d, n).shares.get_mut(&V).expect("shared")
}

const CLAUSES: &[Clause<Directory>] = &[
    ("each copy has a rank of its own", |d| d.next_rank = 0),
    ("a GUID lists its registrations", |d| drop(d.by_guid.insert(Guid::numbered(9), Vec::new()))),
    ("a GUID lists each registration once", |d| {
        d.by_guid.get_mut(&Guid::numbered(1)).expect("registered").push(key(1));
    }),
    ("who waits for a sweep is registered", |d| {
        d.unsettled.insert(key(9));
    }),
    ("a registration is listed under its GUID until it ends", |d| drop(d.by_guid.remove(&Guid::numbered(1)))),
    ("a peer is to be listed where it said last", |d| {
        let other = peer(d, 2).place.clone();
        peer(d, 1).place = other;
    }),
    ("what is outdated waits for a sweep", |d| peer(d, 1).left = Some(peer(d, 1).place.clone())),
    ("a GUID's newest registration is offered", |d| peer(d, 1).listed = false),
    ("the copies of a peer are on the lists while it is offered", |d| first_share(d, 1).on = false),
    ("a set lists the first copy of each narrower one", |d| {
        let place = peer(d, 1).place.clone();
        d.lists.take(V, &place, 0, key(1));
    }),
    ("the sets list no other copies", |d| {
        let place = peer(d, 1).place.clone();
        d.lists.put(VersionId::numbered(7), &place, 0, key(1));
    }),
    ("a peer's copies are counted", |d| {
        let place = *d.places.get(key(1)).expect("counted");
        d.places.put(key(1), crate::holdings::Holding { bytes: 1, ..place });
    }),
    ("only copies of peers are counted", |d| {
        let place = *d.places.get(key(1)).expect("counted");
        d.places.put(key(77), place);
    }),
    ("a barred copy is on no list", |d| {
        let barred = Standing { is_barred: true, ..Standing::default() };
        d.standings.insert(CopyId { holder: Guid::numbered(1), version: V }, barred);
        d.unsettled.insert(key(1));
    }),
    ("only a blamed copy has a standing", |d| {
        d.standings.insert(CopyId { holder: Guid::numbered(1), version: V }, Standing::default());
    }),
    ("a draw continues where there are copies", |d| {
        d.lists.set_next_behind((V, IpAddr::from([203, 0, 113, 9])), 1);
    }),
];

#[test]
fn each_clause_of_the_directory_finds_a_corruption() {
    let d = directory(&["198.51.100.1", "198.51.100.2"]);
    assert_each_clause_fires(&d, Directory::check, CLAUSES);
}

#[test]
fn a_crowd_behind_one_address_leaves_nothing_behind() {
    let mut d = directory(&[]);
    let crowd = 1..=u32::try_from(super::super::draw::LOOKS_AT_ADDRESS).expect("few") + 1;
    for n in crowd.clone() {
        // with the querier's own key, nobody suits
        d.register(LINK, PeerEntry { upload_key: PublicKey::numbered(0), ..entry(n, "192.0.2.1") });
        d.share(key(n), true, &shared(V), &[]);
    }
    assert!(choose(&mut d, 3).is_empty());
    let home = (V, IpAddr::from([192, 0, 2, 1]));
    assert!(d.lists.next_behind(home) > 0, "the next draw continues where this one ended");
    crowd.for_each(|n| d.remove(key(n)));
    d.check();
    assert_eq!(d.lists.next_behind(home), 0);
}

#[test]
fn a_resent_inventory_lists_no_more_versions_than_the_limit() {
    let mut d = directory(&["198.51.100.1"]);
    let versions = |n: core::ops::Range<usize>| -> Vec<Shared> {
        let version = |n| VersionId::numbered(u32::try_from(n).expect("few"));
        n.map(|n| Shared { version: version(n), complete: true }).collect()
    };
    let most = SHARES_PER_PEER_MAX;
    d.share(key(1), true, &versions(0..most), &[]);
    d.share(key(1), true, &[], &[]);
    // new versions take the places of all that are not told again, but for the last few
    let (few, lot) = (238, COPIES_PER_LOT);
    d.share(key(1), false, &versions(most..2 * most - lot - few), &[]);
    assert_eq!(peer(&mut d, 1).shares.values().filter(|s| s.doubtful).count(), few);
    // these are told again together with so many new ones that there is no place left
    let late: Vec<Shared> = versions(2 * most..2 * most + lot + few).into_iter().chain(versions(0..few)).collect();
    d.share(key(1), false, &late, &[]);
    d.check();
}
