//! Tests that changes of tens of thousands of copies are recorded at once, and done in batches (lots).

use super::*;
use crate::selection::directory::lists::steps;

const MANY: u32 = 20_000;
/// Maximum number of list searches and changes for one event: those for one batch of copies.
const LOT: u64 = 40 * COPIES_PER_LOT as u64;

fn versions(n: u32) -> Vec<Shared> {
    (0..n).map(|v| Shared { version: VersionId::numbered(v), complete: true }).collect()
}

/// Returns a directory whose peer 1 shares many versions.
fn heavy() -> Directory {
    let mut d = directory(&["198.51.100.1"]);
    for page in versions(MANY).chunks(1_500) {
        d.share(key(1), false, page, &[]);
    }
    assert!(!d.is_behind());
    d
}

fn closed(epoch: u32) -> PeerEntry {
    let mut e = entry(1, "198.51.100.1");
    (e.nat.epoch, e.nat.filtering) = (epoch, NatBehaviour::AddressAndPortDependent);
    e
}

/// Runs these functions and checks the directory after each. Returns the largest number of list searches and changes
/// that one of them made.
fn worst(d: &mut Directory, acts: impl IntoIterator<Item = fn(&mut Directory)>) -> u64 {
    let mut worst = 0;
    for act in acts {
        steps::taken();
        act(d);
        worst = worst.max(steps::taken());
        d.check();
    }
    worst
}

fn swept(d: &mut Directory) -> u64 {
    let mut worst = 0;
    while d.is_behind() {
        steps::taken();
        d.sweep();
        worst = worst.max(steps::taken());
    }
    d.check();
    worst
}

fn found(d: &mut Directory) -> usize {
    let none = BTreeSet::new();
    let chosen = d.select(key(0), VersionId::numbered(9), (8, &none), PLAIN, &mut Seeded::new(1));
    chosen.expect("a registered querier").len()
}

#[test]
fn an_update_that_changes_nothing_touches_no_list() {
    let mut d = heavy();
    steps::taken();
    for _ in 0..100 {
        d.register(LINK, entry(1, "198.51.100.1"));
        let candidates = List::default();
        d.register(
            LINK,
            PeerEntry { nat: NatDescriptor { candidates, ..entry(1, "198.51.100.1").nat }, ..entry(1, "198.51.100.1") },
        );
    }
    assert_eq!(steps::taken(), 0);
    assert_eq!(found(&mut d), 1);
}

#[test]
fn a_peer_with_much_that_changes_again_and_again_costs_a_lot_and_no_more() {
    let mut d = heavy();
    let off = |d: &mut Directory| d.register(LINK, PeerEntry { uploads: false, ..entry(1, "198.51.100.1") });
    let on = |d: &mut Directory| d.register(LINK, entry(1, "198.51.100.1"));
    assert!(worst(&mut d, [off as fn(&mut Directory)]) <= LOT);
    assert_eq!(found(&mut d), 0, "it is not offered from lists that do not follow yet");
    steps::taken();
    for _ in 0..500 {
        on(&mut d);
        off(&mut d);
    }
    assert_eq!(steps::taken(), 0, "what waits already costs nothing more");
    on(&mut d);
    assert!(swept(&mut d) <= LOT);
    assert_eq!(found(&mut d), 1);
    let turns = |d: &mut Directory| d.register(LINK, closed(2));
    assert!(worst(&mut d, [turns as fn(&mut Directory)]) <= LOT);
    assert!(swept(&mut d) <= LOT);
    assert_eq!(found(&mut d), 1);
}

#[test]
fn a_peer_with_much_that_goes_or_tells_all_anew_costs_a_lot_at_a_time() {
    let mut d = heavy();
    let reset = |d: &mut Directory| d.share(key(1), true, &[], &[]);
    assert!(worst(&mut d, [reset as fn(&mut Directory)]) <= LOT);
    assert_eq!(found(&mut d), 0, "what it has not told again is doubtful");
    for page in versions(MANY).chunks(1_500) {
        d.share(key(1), false, page, &[]);
        d.sweep();
    }
    assert_eq!(found(&mut d), 1);
    assert!(swept(&mut d) <= LOT);
    assert_eq!(d.peers[&key(1)].shares.len(), MANY as usize);
    let gone = |d: &mut Directory| d.remove(key(1));
    assert!(worst(&mut d, [gone as fn(&mut Directory)]) <= LOT);
    assert_eq!((found(&mut d), d.get(key(1))), (0, None));
    assert!(swept(&mut d) <= LOT);
    assert_eq!(d.len(), 1);
}

#[test]
fn who_tells_all_anew_at_its_limit_is_listed_for_the_new() {
    let mut d = directory(&["198.51.100.1"]);
    let of = |from: usize| (from..from + SHARES_PER_PEER_MAX).map(|v| u32::try_from(v).expect("small"));
    for (from, reset) in [(0, true), (SHARES_PER_PEER_MAX, true)] {
        let all: Vec<_> = of(from).map(|v| Shared { version: VersionId::numbered(v), complete: true }).collect();
        for (n, page) in all.chunks(1_500).enumerate() {
            d.share(key(1), reset && n == 0, page, &[]);
            assert!(d.peers[&key(1)].shares.len() <= SHARES_PER_PEER_MAX + 1_500);
        }
        swept(&mut d);
        assert_eq!(d.peers[&key(1)].shares.len(), SHARES_PER_PEER_MAX);
    }
    let new: BTreeSet<_> = of(SHARES_PER_PEER_MAX).map(VersionId::numbered).collect();
    assert!(d.peers[&key(1)].shares.keys().all(|v| new.contains(v)));
}

#[test]
fn a_tale_told_anew_keeps_its_turns() {
    let mut d = directory(&["198.51.100.1", "198.51.100.2", "198.51.100.3"]);
    assert_eq!(choose(&mut d, 1), [1]);
    d.share(key(1), true, &shared(V), &[]);
    assert_eq!(choose(&mut d, 3), [2, 3, 1]);
}

#[test]
fn a_link_ends_at_once_and_is_swept_256_peers_at_a_time() {
    let mut d = Directory::default();
    for n in 0..3_000 {
        d.register(2, entry(n, "198.51.100.1"));
        let key = PeerKey { link: 2, session: SessionId(u64::from(n)) };
        d.share(key, true, &shared(V), &[]);
    }
    // one GUID is elsewhere too, by an older session
    d.register(LINK, entry(0, "192.0.2.1"));
    let older = PeerEntry { incarnation: 0, session: SessionId(5_007), ..entry(7, "198.51.100.7") };
    d.register(LINK, older);
    d.share(key(5_007), true, &shared(V), &[]);
    assert!(d.listed(V).all(|k| k.link == 2), "the newest counts");
    steps::taken();
    d.remove_link(2);
    assert_eq!(steps::taken(), 0);
    assert!(choose(&mut d, 9).is_empty());
    assert_eq!(d.get(PeerKey { link: 2, session: SessionId(1) }), None);
    // its CN is back, and its clients with it, while the old is swept
    d.register(3, entry(1, "198.51.100.1"));
    d.share(PeerKey { link: 3, session: SessionId(1) }, true, &shared(V), &[]);
    assert_eq!(choose(&mut d, 9), [1]);
    let before = d.len();
    d.sweep();
    assert_eq!(d.len(), before - 256);
    assert!(swept(&mut d) <= LOT);
    assert_eq!(d.len(), 3);
    assert_eq!(choose(&mut d, 9), [5_007, 1], "the older session is the newest now");
}

#[test]
fn none_waits_for_a_peer_that_is_never_done() {
    let mut d = heavy();
    for n in 2..4 {
        d.register(LINK, entry(n, "198.51.100.9"));
        for page in versions(MANY).chunks(1_500) {
            d.share(key(n), false, page, &[]);
        }
        d.register(LINK, PeerEntry { uploads: false, ..entry(n, "198.51.100.9") });
    }
    for sweeps in 0.. {
        d.register(LINK, PeerEntry { uploads: sweeps % 2 == 0, ..entry(1, "198.51.100.1") });
        d.sweep();
        if !d.unsettled.contains(&key(2)) && !d.unsettled.contains(&key(3)) {
            return;
        }
        assert!(sweeps < 200);
    }
}
