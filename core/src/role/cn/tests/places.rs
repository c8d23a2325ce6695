//! Who gets a place at a full CN, and whose goes for it.

use super::*;

/// Connects client `n` on connection `n` from an address.
fn accept_from(b: &mut Bench<Cn>, n: u32, ip: [u8; 4]) -> Vec<Output> {
    b.input(Input::ClientAccepted { conn: ConnId(n.into()), key: key(n), from: (ip, 4000).into() })
}

fn join_from(b: &mut Bench<Cn>, n: u32, ip: [u8; 4]) {
    accept_from(b, n, ip);
    say(b, n.into(), ToCn::Hello(hello(n)));
}

/// Returns the connections that are turned away.
fn away(out: &[Output]) -> Vec<u64> {
    let busy = |o: &Output| match o {
        Output::ClientSend { conn, msg: ToClient::Busy(_) } => Some(conn.0),
        _ => None,
    };
    out.iter().filter_map(busy).collect()
}

/// Returns a CN for this many connections, whose clients 1 to 8 from one address have sessions.
fn taken(sessions_max: u32) -> Bench<Cn> {
    let mut b = bench();
    b.cfg.sessions_max = sessions_max;
    for n in 1..=8 {
        b.now = b.now.after(secs(1));
        join_from(&mut b, n, [192, 0, 2, 1]);
    }
    b
}

#[test]
fn one_address_locks_nobody_out_by_idle_sessions() {
    let mut b = taken(8);
    for (n, ip) in [(20, [198, 51, 100, 7]), (21, [192, 0, 2, 1])] {
        let gone = u64::from(n) - 19;
        let out = accept_from(&mut b, n, ip);
        assert_eq!(away(&out), [gone], "the idlest goes");
        assert!(out.contains(&Output::Count(Metric::Displaced)));
        let out = say(&mut b, n.into(), ToCn::Hello(hello(n)));
        assert!(matches!(to_client(&out, n.into())[..], [ToClient::Welcome(_)]));
    }
    assert_eq!(b.machine.sessions(), 8);
}

#[test]
fn who_has_not_logged_in_goes_before_any_session() {
    let mut b = taken(9);
    accept_from(&mut b, 9, [192, 0, 2, 1]);
    assert_eq!(away(&accept_from(&mut b, 10, [192, 0, 2, 1])), [9]);
    assert_eq!(away(&accept_from(&mut b, 11, [198, 51, 100, 7])), [10]);
    assert_eq!(b.machine.sessions(), 8);
}

#[test]
fn a_working_session_goes_only_for_a_network_with_fewer() {
    let mut b = taken(8);
    for n in 1..=8 {
        say(&mut b, n, query());
    }
    assert_eq!(away(&accept_from(&mut b, 20, [192, 0, 2, 1])), [20], "a neighbour waits");
    join_from(&mut b, 21, [198, 51, 100, 7]);
    join_from(&mut b, 22, [198, 51, 100, 7]);
    assert_eq!(b.machine.sessions(), 8);
    let held = |b: &Bench<Cn>, n: u64| b.machine.sessions.is_connected(ConnId(n));
    assert!(held(&b, 21) && held(&b, 22) && !held(&b, 1) && !held(&b, 2), "room is made in the full network");
    for n in [3, 4, 5, 6, 7, 8, 21, 22] {
        b.now = b.now.after(secs(10));
        say(&mut b, n, ToCn::Ping);
    }
    assert_eq!(away(&accept_from(&mut b, 23, [192, 0, 2, 1])), [3], "one that only pings for a minute is idle");
}

#[test]
fn one_key_and_one_network_have_a_bound_below_the_cns() {
    let mut b = bench();
    (b.cfg.sessions_max, b.cfg.prefix_sessions_max) = (100, 20);
    let out: Vec<_> = (1..=17).flat_map(|conn| accept(&mut b, conn, 1)).collect();
    assert_eq!(away(&out), [1], "connections of one key");
    let out: Vec<_> = (101..=110).flat_map(|n| accept_from(&mut b, n, [192, 0, 2, 99])).collect();
    assert_eq!(away(&out), [2, 3, 4, 5, 6, 7], "connections of one network");
    assert!(away(&accept_from(&mut b, 200, [198, 51, 100, 7])).is_empty());
}

/// Thousands of honest clients: behind one address, in one campus, in one IPv6 site; all at once, beside a flood.
#[test]
fn honest_crowds_get_their_places_beside_a_flood() {
    let mut b = bench();
    let mut n = 0;
    let mut crowd = |b: &mut Bench<Cn>, many: u32, ip: &dyn Fn(u32) -> core::net::IpAddr| {
        for of in 0..many {
            n += 1;
            let mut out = Vec::new();
            let mut cx =
                crate::machine::Cx { now: b.now, cfg: &b.cfg, rng: &mut crate::seeded::Seeded::new(1), out: &mut out };
            let conn = ConnId(n);
            let who = key(u32::try_from(n).expect("few"));
            b.machine.handle_input(&mut cx, Input::ClientAccepted { conn, key: who, from: (ip(of), 4000).into() });
            assert!(away(&out).iter().all(|gone| *gone > 6_500), "only the flood goes");
        }
    };
    crowd(&mut b, 4_000, &|_| [203, 0, 113, 1].into());
    crowd(&mut b, 500, &|of| [198, 51, 100, u8::try_from(of % 256).expect("small")].into());
    crowd(&mut b, 2_000, &|of| core::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | u128::from(of)).into());
    crowd(&mut b, 12_000, &|of| [192, 0, 2, u8::try_from(of % 256).expect("small")].into());
    b.machine.check();
    assert_eq!(b.machine.sessions.connections(), 14_692);
}
