//! Connectivity checks between hosts behind NATs of every kind.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names the one variant that it expects")]

use std::time::Duration;
use swarmedge_core::ids::{IntroId, RawTcpId};
use swarmedge_core::machine::{Cx, Machine as _, Time};
use swarmedge_core::nat::connectivity::Birthday;
use swarmedge_core::nat::connectivity::{Config, Connectivity, Input, Output, RawTcp, RawTcpEvent, Rung};
use swarmedge_models::nat::Kind;
use swarmedge_models::punching::{Cfg, Node, Punch, RULES, world};
use swarmedge_models::rng::Seeded;
use swarmedge_models::rule;
use swarmedge_models::world::{Budget, World};

/// Runs to the end of both attempts, and checks every rule on the way.
fn run(cfg: &Cfg, seed: u64) -> World<Punch> {
    let mut w = world(cfg, Budget::default());
    let mut rng = Seeded::new(seed);
    for _ in 0..20_000 {
        let Some((_, act)) = w.earliest() else { break };
        w.step(cfg, &act, &mut rng);
        assert_eq!(rule::broken(&RULES[..RULES.len() - 1], cfg, &w), None, "{:?}", cfg.kinds);
    }
    assert!(w.env.is_over(), "{:?}: {:?}", cfg.kinds, w.env.ended);
    w
}

/// Pair matrix measured by the lab of real NATs, one row per kind; `+`: connects, `p`: with prediction.
const MATRIX: [&str; Kind::ALL.len()] = [
    "+++++++++++-",
    "+++++++++++-",
    "+++++++++++-",
    "++++++++p---",
    "++++++++p---",
    "++++++++p---",
    "++++++++p---",
    "++++++++p---",
    "+++pppppp---",
    "+++---------",
    "+++---------",
    "------------",
];

#[test]
fn the_pairs_that_connect_are_those_of_the_measured_matrix() {
    let mut rows = Vec::new();
    for a in Kind::ALL {
        let mut row = String::new();
        for b in Kind::ALL {
            let w = run(&Cfg::timed([a, b]), 1);
            assert!(w.env.is_connected() || w.env.has_failed(), "{a:?} {b:?}: one side only: {:?}", w.env.ended);
            row.push(if w.env.is_connected() { '+' } else { '-' });
        }
        rows.push(row);
    }
    let expected = MATRIX.map(|row| row.replace('p', "+"));
    assert_eq!(rows, expected);
}

#[test]
fn without_prediction_a_nat_that_counts_is_as_hard_as_one_that_draws() {
    for a in Kind::ALL {
        let mut cfg = Cfg::timed([a, Kind::SymmetricSequential]);
        cfg.connectivity = Config { predicted_max: 0, ..cfg.connectivity };
        let at = Kind::ALL.iter().position(|k| *k == a).expect("one of them");
        assert_eq!(run(&cfg, 1).env.is_connected(), MATRIX[at].as_bytes()[8] == b'+', "{a:?}");
    }
}

#[test]
fn a_pair_that_can_connect_does_within_three_round_trips_of_go() {
    for (a, row) in Kind::ALL.into_iter().zip(MATRIX) {
        for (b, _) in Kind::ALL.into_iter().zip(row.chars()).filter(|(_, c)| *c == '+') {
            let cfg = Cfg::timed([a, b]);
            let w = run(&cfg, 1);
            let at = w.env.connected_at[0].expect("it is connected");
            let took = at.since(w.env.went_at);
            assert!(took <= cfg.latency * 7, "{a:?} {b:?}: {took:?}");
        }
    }
}

#[test]
fn a_pair_that_cannot_connect_ends_within_six_seconds_and_its_bounds() {
    for kinds in [[Kind::Symmetric; 2], [Kind::PortRestricted, Kind::Symmetric], [Kind::UdpBlocked, Kind::Public]] {
        let w = run(&Cfg::timed(kinds), 1);
        assert!(w.env.has_failed());
        assert!(w.env.ended.iter().flatten().all(|a| a.took_ms <= 6_000 && a.probes <= 60), "{:?}", w.env.ended);
    }
}

#[test]
fn skew_does_not_poison_an_open_masquerade() {
    let others = [Kind::MasqueradeOpen, Kind::PortRestricted, Kind::Cgnat, Kind::Public, Kind::SymmetricSequential];
    for other in others {
        for skew in [0, 100, 500] {
            for kinds in [[Kind::MasqueradeOpen, other], [other, Kind::MasqueradeOpen]] {
                let cfg = Cfg { skew: Duration::from_millis(skew), ..Cfg::timed(kinds) };
                assert!(run(&cfg, 1).env.is_connected(), "{kinds:?} {skew} ms");
            }
        }
    }
}

#[test]
fn without_openers_skew_does() {
    let mut cfg = Cfg { skew: Duration::from_millis(500), ..Cfg::timed([Kind::MasqueradeOpen; 2]) };
    cfg.connectivity.openers_max = 0;
    assert!(run(&cfg, 1).env.has_failed(), "so the opener is what helps");
}

#[test]
fn peers_behind_one_router_meet_on_their_lan_whether_it_hairpins_or_not() {
    for hairpin in [false, true] {
        for kind in [Kind::PortRestricted, Kind::Symmetric, Kind::FullCone] {
            let cfg = Cfg { shared: Some(hairpin), ..Cfg::timed([kind; 2]) };
            let w = run(&cfg, 1);
            assert!(w.env.is_connected());
            let private = |p: &std::net::SocketAddr| swarmedge_core::nat::is_private(p.ip());
            assert!(w.env.paths.iter().flatten().all(private), "{kind:?} {hairpin}: {:?}", w.env.paths);
        }
    }
}

#[test]
fn a_nat_that_counts_says_so_after_each_attempt_and_no_other_does() {
    for (kind, moves) in [(Kind::SymmetricSequential, true), (Kind::Symmetric, false), (Kind::PortRestricted, false)] {
        let w = run(&Cfg::timed([kind, Kind::PortRestricted]), 1);
        assert_eq!(w.env.moved, [moves, false], "{kind:?}");
    }
}

/// Returns a configuration in which both sides try many ports.
fn lucky(kinds: [Kind; 2]) -> Cfg {
    let mut cfg = Cfg::timed(kinds);
    cfg.connectivity.birthday = Some(Birthday::default());
    cfg
}

#[test]
fn birthday_probing_connects_random_port_nat_to_port_filtering_nat() {
    let hard = [Kind::Symmetric, Kind::CgnatSymmetric];
    let easy = [Kind::PortRestricted, Kind::PortRestrictedRandom, Kind::Firewall, Kind::Cgnat];
    let (mut connected, mut tried) = (0, 0);
    for (n, (a, b)) in hard.into_iter().flat_map(|h| easy.into_iter().flat_map(move |e| [(h, e), (e, h)])).enumerate() {
        for seed in 0..3 {
            let cfg = lucky([a, b]);
            let w = run(&cfg, 16 * seed + n as u64);
            assert!(w.env.is_connected() || w.env.has_failed(), "{a:?} {b:?}: one side only: {:?}", w.env.ended);
            let both = w.env.ended.iter().flatten();
            assert!(both.clone().all(|e| e.took_ms <= 6_000 && e.probes <= 1_184), "{:?}", w.env.ended);
            if w.env.is_connected() {
                assert!(both.clone().all(|e| e.rung == Rung::Birthday), "{:?}", w.env.ended);
            }
            (connected, tried) = (connected + u32::from(w.env.is_connected()), tried + 1);
        }
    }
    assert!(connected * 10 >= tried * 9, "{connected} of {tried}");
}

#[test]
fn where_many_ports_are_of_no_use_none_are_tried() {
    for kinds in [[Kind::Symmetric; 2], [Kind::PortRestricted; 2], [Kind::Symmetric, Kind::FullCone]] {
        let w = run(&lucky(kinds), 1);
        assert_eq!(w.env.is_connected(), kinds != [Kind::Symmetric; 2]);
        assert!(w.env.ended.iter().flatten().all(|a| a.probes <= 60), "{kinds:?}: {:?}", w.env.ended);
    }
}

#[test]
fn a_tcp_listener_is_dialled_at_once_without_udp_and_else_last() {
    let door = |kinds| Cfg { doors: [false, true], ..Cfg::timed(kinds) };
    let w = run(&door([Kind::UdpBlocked, Kind::Public]), 1);
    assert!(w.env.is_connected(), "{:?}", w.env.ended);
    let rungs = |w: &World<Punch>| w.env.ended.each_ref().map(|e| e.as_ref().map(|a| a.rung));
    assert_eq!(rungs(&w), [Some(Rung::Tcp), Some(Rung::Tcp)]);
    assert_eq!(w.env.sent, [0, 0], "no datagram");
    let w = run(&door([Kind::PortRestricted, Kind::Public]), 1);
    assert!(w.env.is_connected() && w.env.dials[0].is_empty(), "UDP is preferred: {:?}", w.env.ended);
    let w = run(&door([Kind::Symmetric, Kind::PortRestricted]), 1);
    assert!(w.env.is_connected() && w.env.dials[0].len() == 1, "what UDP cannot: {:?}", w.env.ended);
    assert_eq!(rungs(&w), [Some(Rung::Tcp), Some(Rung::Tcp)]);
    let w = run(&Cfg::timed([Kind::UdpBlocked, Kind::Public]), 1);
    assert!(w.env.has_failed() && w.env.dials[0].is_empty());
}

#[test]
fn an_uploader_dials_a_downloader_that_cannot_and_roles_stay() {
    let called = |kinds| Cfg { doors: [true, false], ..Cfg::timed(kinds) };
    let rungs = |w: &World<Punch>| w.env.ended.each_ref().map(|e| e.as_ref().map(|a| a.rung));
    let dials = |w: &World<Punch>| w.env.dials.each_ref().map(Vec::len);
    let w = run(&called([Kind::Public, Kind::UdpBlocked]), 1);
    assert!(w.env.is_connected(), "{:?}", w.env.ended);
    assert_eq!((rungs(&w), dials(&w)), ([Some(Rung::Called); 2], [0, 1]));
    assert_eq!(w.env.raw_tcp[0], w.env.raw_tcp[1], "the downloader has taken the connection that the uploader opened");
    assert_eq!(w.env.sent, [0, 0], "no datagram");
    let w = run(&called([Kind::PortRestricted, Kind::Symmetric]), 1);
    assert!(w.env.is_connected() && dials(&w) == [0, 1], "what UDP cannot: {:?}", w.env.ended);
    let w = run(&called([Kind::PortRestricted, Kind::Public]), 1);
    assert!(w.env.is_connected() && dials(&w) == [0, 0], "UDP is preferred: {:?}", w.env.ended);
    let both = Cfg { doors: [true; 2], ..called([Kind::Public, Kind::UdpBlocked]) };
    let w = run(&both, 1);
    assert!(w.env.is_connected(), "{:?}", w.env.ended);
    assert_eq!((rungs(&w), dials(&w)), ([Some(Rung::Tcp); 2], [1, 0]), "one goes where both could");
}

#[test]
fn a_raw_tcp_connection_without_an_introduced_uploaders_check_is_closed() {
    let (mut m, cfg) = (Connectivity::default(), Config::default());
    let mut say = |event| {
        let (mut out, mut rng) = (Vec::new(), Seeded::new(1));
        let mut cx = Cx { now: Time::ZERO, cfg: &cfg, rng: &mut rng, out: &mut out };
        m.handle_input(&mut cx, Input::RawTcp(event));
        out
    };
    let (id, from) = (RawTcpId(1 << 63), "192.0.2.1:5000".parse().expect("an address"));
    let hung_up = [Output::RawTcp(RawTcp::HangUp(id))];
    for bytes in [&[][..], &[0; 20], b"GET / HTTP/1.1"].map(<[u8]>::to_vec) {
        assert_eq!(say(RawTcpEvent::Shown { id, from, bytes }), hung_up);
    }
    assert_eq!(say(RawTcpEvent::Open(id)), hung_up, "nobody waits for it");
    assert_eq!(say(RawTcpEvent::Failed(id)), []);
}

#[test]
fn an_attempt_that_is_dropped_hangs_up_the_connection_that_it_opens() {
    let called = Cfg { doors: [true, false], ..Cfg::timed([Kind::Public, Kind::UdpBlocked]) };
    let crosses = Config { crosses_from: Some(5000), ..Config::default() };
    let kinds = [Kind::UdpBlocked, Kind::PortRestricted];
    let crossing = Cfg { crossing: Some(false), connectivity: crosses, ..Cfg::timed(kinds) };
    for cfg in [called, crossing] {
        let (mut w, mut rng) = (world(&cfg, Budget::default()), Seeded::new(1));
        while w.env.dials[1].is_empty() {
            let (_, act) = w.earliest().expect("the uploader dials");
            w.step(&cfg, &act, &mut rng);
        }
        let Some(Node::Host(mut uploader)) = w.node(1).cloned() else { panic!("a host") };
        let mut out = Vec::new();
        let mut cx = Cx { now: w.now, cfg: &cfg.connectivity, rng: &mut rng, out: &mut out };
        uploader.handle_input(&mut cx, Input::Drop(IntroId::numbered(1)));
        let hung_up = out.iter().filter(|o| matches!(o, Output::RawTcp(RawTcp::HangUp(_)))).count();
        assert_eq!(hung_up, 1, "{out:?}");
    }
}

#[test]
fn simultaneous_open_gives_up_within_its_bound_if_refused() {
    let kinds = [Kind::UdpBlocked, Kind::PortRestricted];
    let config = Config { crosses_from: Some(5000), ..Config::default() };
    let cross = |kinds, works| Cfg { crossing: Some(works), connectivity: config.clone(), ..Cfg::timed(kinds) };
    let rungs = |w: &World<Punch>| w.env.ended.each_ref().map(|e| e.as_ref().map(|a| a.rung));
    let dials = |w: &World<Punch>| w.env.dials.each_ref().map(Vec::len);
    for skew in [0, 200] {
        let w = run(&Cfg { skew: Duration::from_millis(skew), ..cross(kinds, true) }, 1);
        assert!(w.env.is_connected(), "{:?}", w.env.ended);
        assert_eq!((rungs(&w), dials(&w), w.env.sent), ([Some(Rung::Crossed); 2], [1, 1], [0, 0]));
    }
    let w = run(&cross(kinds, false), 1);
    let tries = usize::from(config.crossings.0);
    assert!(w.env.has_failed() && dials(&w) == [tries; 2], "{:?} {:?}", w.env.ended, dials(&w));
    assert!(w.env.ended.iter().flatten().all(|a| a.took_ms < 6_000), "{:?}", w.env.ended);
    let w = run(&cross([Kind::PortRestricted; 2], true), 1);
    assert!(w.env.is_connected() && dials(&w) == [0, 0], "with UDP there is no need");
    let door = Cfg { doors: [false, true], ..cross(kinds, true) };
    let w = run(&door, 1);
    assert_eq!((rungs(&w), dials(&w)), ([Some(Rung::Tcp); 2], [1, 0]), "who can come does");
}
