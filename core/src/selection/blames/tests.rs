//! Consequences of blames, bounds of the votes, and invariants.

use super::*;
use crate::bench::assert_each_clause_fires;

const MINUTE: Duration = Duration::from_secs(60);
const RULES: Rules = Rules::USUAL;

fn copy() -> CopyId {
    CopyId { holder: Guid::numbered(1), version: VersionId::numbered(1) }
}

/// Returns accuser `n` in the /24 `20.net.part`, of this AS.
fn accuser(n: u32, (net, part): (u8, u8), asn: u32) -> Accuser {
    let locality = Locality { asn: Some(asn), ..Locality::default() };
    Accuser::new(Guid::numbered(n), Ipv4Addr::new(20, net, part, 7).into(), &locality)
}

/// Returns accuser `n` of a /24 and an AS of its own.
fn apart(n: u8) -> Accuser {
    accuser(100 + u32::from(n), (n, 0), 64_500 + u32::from(n))
}

fn at(minutes: u32) -> Time {
    Time::ZERO.after(MINUTE * minutes)
}

fn is_barred(b: &Blames) -> bool {
    b.standing(&RULES, copy()).is_barred
}

fn accuse(b: &mut Blames, now: Time, by: Accuser) -> Verdict {
    let verdict = b.accuse(&RULES, now, copy(), by);
    b.check();
    verdict
}

#[test]
fn the_holder_is_told_with_the_first_vote_and_now_and_then() {
    let mut b = Blames::default();
    let told: Vec<bool> =
        [(0, 1), (1, 2), (9, 3), (10, 4), (11, 5)].map(|(m, n)| accuse(&mut b, at(m), apart(n)).tell_holder).into();
    assert_eq!(told, [true, false, false, true, false]);
}

#[test]
fn three_networks_suspend_and_a_proof_or_ten_minutes_end_it() {
    let mut b = Blames::default();
    for (n, barred) in [(1, false), (2, false), (3, true)] {
        accuse(&mut b, at(0), apart(n));
        assert_eq!(is_barred(&b), barred, "{n} votes");
    }
    let mut proven = b.clone();
    assert!(proven.on_proof(copy()) && !is_barred(&proven));
    proven.check();
    assert_eq!(b.expire(at(9)), [], "not yet");
    assert_eq!(b.poll_timeout(), Some(at(10)));
    assert_eq!(b.expire(at(10)), [copy()]);
    assert!(!is_barred(&b));
    // the same networks vote again in vain
    for n in 1..=3 {
        assert!(!accuse(&mut b, at(11), accuser(200 + u32::from(n), (n, 0), 64_500 + u32::from(n))).counts);
        assert!(!accuse(&mut b, at(11), accuser(300 + u32::from(n), (n, 1), 64_500 + u32::from(n))).touched.is_empty());
        assert!(!is_barred(&b));
    }
}

#[test]
fn eight_networks_delist_whatever_the_holder_proves_until_votes_expire() {
    let mut b = Blames::default();
    for n in 1..=7 {
        accuse(&mut b, at(n.into()), apart(n));
        b.on_proof(copy());
        assert!(!is_barred(&b), "{n} votes and a proof");
    }
    accuse(&mut b, at(8), apart(8));
    assert!(b.on_proof(copy()) && is_barred(&b), "a poisoner has the right bytes too");
    b.expire(at(6 * 60));
    assert!(is_barred(&b));
    b.expire(at(6 * 60 + 1));
    assert!(!is_barred(&b), "the first vote is over");
    b.expire(at(7 * 60));
    assert_eq!(b, Blames { next: b.next, ..Blames::default() });
}

#[test]
fn three_prefixes_of_one_network_hide_a_copy_from_it_alone() {
    let mut b = Blames::default();
    for part in 1..=3 {
        assert!(b.standing(&RULES, copy()).hidden_from.is_empty());
        assert!(accuse(&mut b, at(0), accuser(50 + u32::from(part), (0, part), 64_500)).counts);
    }
    let standing = b.standing(&RULES, copy());
    assert_eq!(standing.hidden_from, [Network::As(64_500)].into());
    assert!(!standing.is_barred, "one network bars nobody from others");
    assert!(!accuse(&mut b, at(0), accuser(10, (0, 10), 64_500)).counts, "more add nothing");
}

#[test]
fn a_vote_counts_once_a_guid_and_once_a_network_and_never_the_holders_own() {
    let mut b = Blames::default();
    assert!(accuse(&mut b, at(0), apart(1)).counts);
    let moved = Accuser { guid: apart(1).guid, ..apart(2) };
    assert!(!accuse(&mut b, at(0), moved).counts, "the same client from elsewhere");
    let neighbour = Accuser { guid: Guid::numbered(7), ..apart(1) };
    assert!(!accuse(&mut b, at(0), neighbour).counts, "another client of the same network");
    let own = Accuser { guid: copy().holder, ..apart(3) };
    assert!(!accuse(&mut b, at(0), own).counts);
    assert_eq!(b.len(), 1);
}

#[test]
fn without_geolocation_a_16_stands_in_for_an_as() {
    let of = |n: u32, ip: [u8; 4]| Accuser::new(Guid::numbered(n), IpAddr::from(ip), &Locality::default());
    let mut b = Blames::default();
    for (n, ip) in [(10, [20, 1, 1, 1]), (11, [20, 1, 2, 1]), (12, [20, 2, 1, 1])] {
        assert!(accuse(&mut b, at(0), of(n, ip)).counts);
    }
    assert!(!is_barred(&b), "two /16 only");
    accuse(&mut b, at(0), of(13, [20, 3, 1, 1]));
    assert!(is_barred(&b));
    let six = |text: &str| Network::of(text.parse().expect("an address"), &Locality::default());
    assert_eq!(six("2001:db8:1::1"), six("2001:db8:2::1"));
    assert_ne!(six("2001:db8:1::1"), six("2001:db9:1::1"));
}

#[test]
fn a_flood_of_votes_displaces_its_own_and_no_other_networks() {
    let rules = Rules {
        limits: Limits {
            total: Amount::of(64, VOTE_BYTES),
            prefix: Amount::of(16, VOTE_BYTES),
            key: Amount::of(8, VOTE_BYTES),
        },
        ..RULES
    };
    let mut b = Blames::default();
    b.accuse(&rules, at(0), copy(), apart(1));
    for n in 0..1_000_u32 {
        let holder = Guid::numbered(1_000 + n);
        let by = accuser(n % 100, (200, u8::try_from(n % 7).expect("small")), 1);
        b.accuse(&rules, at(1), CopyId { holder, ..copy() }, by);
        b.check();
        assert!(b.len() <= 64);
    }
    assert!(b.len() > 60, "the room is used");
    assert!(b.copies().any(|of| of == copy()), "the vote of a network with few is kept");
}

#[test]
fn each_clause_about_blames_fires() {
    let mut healthy = Blames::default();
    for n in 1..=3 {
        healthy.accuse(&RULES, at(n.into()), copy(), apart(n));
    }
    assert_each_clause_fires(
        &healthy,
        Blames::check,
        &[
            ("each vote is counted", |b| _ = b.places.take(0)),
            ("each vote is about a copy", |b| {
                b.cases.values_mut().for_each(|case| _ = case.votes.pop_first());
            }),
            ("a vote is found by its number", |b| b.next = 2),
            ("votes expire in order", |b| {
                b.cases.values_mut().flat_map(|c| c.votes.get_mut(&0)).for_each(|v| v.until = Time(u64::MAX));
            }),
            ("the votes about a copy are bounded", |b| {
                let none = CopyId { holder: Guid::numbered(9), ..copy() };
                b.cases.insert(none, Case::default());
            }),
            ("a network votes once about a copy", |b| {
                b.cases.values_mut().flat_map(|c| c.votes.values_mut()).for_each(|v| v.by.prefix = apart(1).prefix);
            }),
            ("a suspension ends", |b| b.suspended.clear(copy())),
            ("only a suspension has an end", |b| {
                b.suspended.set(CopyId { holder: Guid::numbered(9), ..copy() }, Some(at(1)));
            }),
        ],
    );
}
