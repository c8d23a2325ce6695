//! Bounds of the memory for copies, and whose copies go.

use super::*;
use crate::selection::directory::{COPY_BYTES, limits};

fn versions(from: u32, n: u32) -> Vec<Shared> {
    (from..from + n).map(|v| Shared { version: VersionId::numbered(v), complete: true }).collect()
}

/// Registers a client on a CN's connection, and shares versions of its own in pages.
fn sharing(d: &mut Directory, (link, n): (u64, u32), ip: &str, many: u32, max: u64) -> PeerKey {
    let e = entry(n, ip);
    let key = PeerKey { link, session: e.session };
    d.register(link, e);
    for page in versions(n * 100_000, many).chunks(100) {
        d.share_within(&limits(max), key, false, page, &[]);
    }
    key
}

fn held(d: &Directory, key: PeerKey) -> usize {
    d.peers.get(&key).map_or(0, |p| p.shares.len())
}

#[test]
fn a_flood_of_copies_displaces_its_own_network() {
    let mut d = Directory::default();
    let honest = sharing(&mut d, (1, 1), "198.51.100.1", 50, 4_000);
    for n in 10..30 {
        sharing(&mut d, (1, n), &format!("192.0.2.{n}"), 900, 4_000);
        assert!(d.copies_bytes() <= 4_000 * COPY_BYTES);
    }
    let flood: usize = (10..30).map(|n| held(&d, PeerKey { link: 1, session: SessionId(n) })).sum();
    assert_eq!(flood, 1_000, "a quarter for one network");
    for n in 30..60 {
        sharing(&mut d, (n.into(), n), &format!("203.0.{n}.1"), 300, 4_000);
        assert!(d.copies_bytes() <= 4_000 * COPY_BYTES);
    }
    assert_eq!(held(&d, honest), 50, "who has little keeps it");
    assert!(d.copies_bytes() > 3_900 * COPY_BYTES, "the room is used");
    d.check();
    let none = BTreeSet::new();
    let chosen = d.select(honest, VersionId::numbered(59 * 100_000), (2, &none), PLAIN, &mut Seeded::new(1));
    assert_eq!(chosen.map(|c| c.len()), Some(1), "late comers are listed too");
}

#[test]
fn one_cn_has_half_of_the_room() {
    let mut d = Directory::default();
    for n in 1..=40 {
        sharing(&mut d, (1, n), &format!("198.51.{n}.1"), 100, 1_000);
    }
    assert_eq!(d.copies_bytes(), 500 * COPY_BYTES);
    assert!((1..=40).all(|n| held(&d, PeerKey { link: 1, session: SessionId(n) }) >= 12), "in equal parts");
    let other = sharing(&mut d, (2, 99), "203.0.113.1", 200, 1_000);
    assert_eq!(held(&d, other), 200);
    d.check();
}

#[test]
fn copies_of_peers_that_have_left_make_room() {
    let mut d = Directory::default();
    let gone = sharing(&mut d, (1, 1), "198.51.100.1", 100, 400);
    d.remove(gone);
    d.sweep();
    assert_eq!(d.copies_bytes(), 0);
    let key = sharing(&mut d, (1, 2), "198.51.100.2", 100, 400);
    d.share_within(&limits(400), key, true, &versions(200_000, 50), &[]);
    d.sweep();
    assert_eq!(d.copies_bytes(), 50 * COPY_BYTES, "what is not told again goes");
    d.check();
}

proptest! {
    #![proptest_config(swarmedge_seeds::random(64))]

    #[test]
    fn copies_are_bounded_after_any_history(ops in prop::collection::vec((0..5_u8, 0..8_u32, 0..40_u32), 0..300)) {
        let mut d = Directory::default();
        for (op, n, v) in ops {
            let link = u64::from(n % 3);
            let e = entry(n, &format!("192.0.{}.{n}", n % 4));
            let key = PeerKey { link, session: e.session };
            match op {
                0 => d.register(link, e),
                1 | 2 => d.share_within(&limits(64), key, v == 0, &versions(v, 20), &[VersionId::numbered(v)]),
                3 => d.remove(key),
                _ => d.sweep(),
            }
            d.check();
            prop_assert!(d.copies_bytes() <= 64 * COPY_BYTES);
        }
    }
}
