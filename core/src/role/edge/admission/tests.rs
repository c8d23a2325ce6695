use super::*;
use crate::accounting::grants::{ObjectFacts, Renewal};
use crate::content::{Access, Policy};
use crate::ids::{Guid, ProviderId, ReqId, VersionId};
use crate::role::edge::tests::{grant, signed};
use crate::wire::Text;
use core::net::Ipv4Addr;

const NOW_MS: u64 = 10 * TIME_WINDOW_MS;
const LIMITS: Limits = Limits::PRODUCTION;

/// Returns a request by a key from an address, with the given nonce.
fn asked(key: u32, from: [u8; 4], nonce: u64) -> GrantAsked {
    let key = PublicKey::numbered(key);
    GrantAsked {
        req: ReqId(1),
        guid: Guid::of(&key),
        key,
        download_key: key,
        object: ObjectFacts {
            provider: ProviderId(1),
            path: Text::default(),
            version: VersionId::numbered(1),
            size: 1,
            access: Access::Public,
            policy: Policy::default(),
        },
        token: None,
        version: None,
        renew: None,
        from: IpAddr::V4(Ipv4Addr::from(from)),
        time_ms: NOW_MS,
        nonce: u128::from(nonce).to_be_bytes(),
    }
}

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000)
}

/// Returns how many of the requests, all sent at the time `now`, are admitted.
fn admitted(all: &mut Admission, now: Time, requests: impl Iterator<Item = GrantAsked>) -> usize {
    let now_ms = NOW_MS + now.0 / 1000;
    let mut ok = |r: &GrantAsked| all.admit(&LIMITS, now, now_ms, &GrantAsked { time_ms: now_ms, ..r.clone() }).is_ok();
    requests.map(|r| ok(&r)).filter(|ok| *ok).count()
}

#[test]
fn one_key_with_a_hundred_thousand_requests_disturbs_nobody() {
    let mut all = Admission::default();
    let flood = (0..100_000).map(|n| asked(1, [10, 0, 0, 1], n));
    assert_eq!(admitted(&mut all, at(0), flood), 512);
    assert_eq!(all.nonces, 512, "what is refused leaves nothing");
    // four thousand clients behind the same address, and others elsewhere
    let beside = (0..4_000).map(|n| asked(100 + n, [10, 0, 0, 1], 1 << 20 | u64::from(n)));
    assert_eq!(admitted(&mut all, at(0), beside), 4_000);
    let elsewhere = (0..4_000).map(|n| asked(9_000 + n, [10, 0, 1, 1], 2 << 20 | u64::from(n)));
    assert_eq!(admitted(&mut all, at(0), elsewhere), 4_000);
    // in the long run the key gets its rate
    let minute = (1..=60).map(|s| admitted(&mut all, at(s), (0..100).map(|n| asked(1, [10, 0, 0, 1], s << 32 | n))));
    assert_eq!(minute.sum::<usize>(), 60 * 8);
}

#[test]
fn a_network_of_many_keys_is_limited_without_its_neighbours() {
    let mut all = Admission::default();
    let flood = (0..100_000).map(|n| asked(n, [10, 0, 0, (n % 250) as u8], n.into()));
    assert_eq!(admitted(&mut all, at(0), flood), 8_192);
    assert_eq!(admitted(&mut all, at(0), [asked(1 << 20, [10, 0, 1, 0], 1 << 40)].into_iter()), 1);
}

#[test]
fn a_refusal_says_when_the_next_request_is_admitted() {
    let mut all = Admission::default();
    admitted(&mut all, at(0), (0..512).map(|n| asked(1, [10, 0, 0, 1], n)));
    let again = |n| asked(1, [10, 0, 0, 1], n);
    let Err(Denial::TooMany { retry_after_ms }) = all.admit(&LIMITS, at(0), NOW_MS, &again(1_000)) else {
        panic!("admitted")
    };
    let later = Time(u64::from(retry_after_ms) * 1_000);
    assert_eq!(all.admit(&LIMITS, later, NOW_MS, &again(1_001)), Ok(()));
}

#[test]
fn renewals_are_charged_to_their_download_alone() {
    let mut all = Admission::default();
    admitted(&mut all, at(0), (0..100_000).map(|n| asked(n, [10, 0, 0, 1], n.into())));
    let key = PublicKey::numbered(1);
    let of = |n: u32, proven, nonce: u64| {
        let old = signed(crate::wire::records::Grant { guid: Guid::of(&key), ..grant(n) });
        let renew = Some(Renewal { grant: Some(old), proven, edge_only: false });
        GrantAsked { renew, ..asked(1, [10, 0, 0, 1], 1 << 40 | nonce) }
    };
    assert_eq!(admitted(&mut all, at(0), (0..1_000).map(|n| of(n, true, n.into()))), 1_000);
    assert_eq!(admitted(&mut all, at(0), (0..100).map(|n| of(7, true, 1 << 20 | n))), 15, "one by now");
    assert_eq!(admitted(&mut all, at(0), (0..100).map(|n| of(2_000, false, 2 << 20 | n))), 0, "without its key");
}

#[test]
fn a_request_is_admitted_once_and_only_near_its_time() {
    let mut all = Admission::default();
    let dated = |time_ms, nonce| GrantAsked { time_ms, ..asked(1, [10, 0, 0, 1], nonce) };
    let mut ask = |now_ms, request: &GrantAsked| all.admit(&LIMITS, at(0), now_ms, request);
    assert_eq!(ask(NOW_MS, &dated(NOW_MS, 1)), Ok(()));
    assert_eq!(ask(NOW_MS, &dated(NOW_MS, 1)), Err(Denial::Replayed));
    let ahead = NOW_MS + TIME_WINDOW_MS;
    assert_eq!(ask(NOW_MS, &dated(ahead, 2)), Ok(()));
    assert_eq!(ask(ahead + TIME_WINDOW_MS, &dated(ahead, 2)), Err(Denial::Replayed), "as long as its time counts");
    assert_eq!(ask(ahead + TIME_WINDOW_MS + 1, &dated(ahead, 2)), Err(Denial::Clock));
    assert_eq!(ask(NOW_MS, &dated(NOW_MS - TIME_WINDOW_MS - 1, 3)), Err(Denial::Clock));
    assert_eq!(ask(NOW_MS, &dated(ahead + 1, 3)), Err(Denial::Clock));
    let late = ahead + 3 * TIME_WINDOW_MS;
    assert_eq!(ask(late, &dated(late, 4)), Ok(()));
    assert_eq!((all.seen.len(), all.nonces), (1, 1), "and forgotten afterwards");
}

#[test]
fn the_tables_are_bounded_and_deny_nobody_when_full() {
    let limits = Limits { payers_max: 20, nonces_max: 30, ..LIMITS };
    let mut all = Admission::default();
    for n in 0..1_000_u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let from = [10, high, low, 1];
        let ask = GrantAsked { time_ms: NOW_MS + u64::from(n) * 100, ..asked(n, from, n.into()) };
        assert_eq!(all.admit(&limits, at(0), NOW_MS, &ask), Ok(()), "{n}");
        assert!(all.whole_at.len() <= 20 && all.nonces <= 30, "{n}");
        assert_eq!(all.nonces, all.seen.values().map(BTreeSet::len).sum::<usize>());
    }
}

#[test]
fn each_clause_of_admission_finds_a_corruption() {
    let mut all = Admission::default();
    assert_eq!(admitted(&mut all, at(0), core::iter::once(asked(1, [192, 0, 2, 1], 1))), 1);
    crate::bench::assert_each_clause_fires(
        &all,
        Admission::check,
        &[
            ("nonces are counted right", |a| a.nonces = 2),
            ("a remembered minute has nonces", |a| drop(a.seen.insert(0, BTreeSet::new()))),
        ],
    );
}
