//! Blames in crowds: how many fall victim to a poisoner, and what a clique can do to honest holders. Each figure has
//! a defect that breaks it.

use std::time::Duration;
use swarmedge_core::ids::PieceIndex;
use swarmedge_core::role::cn;
use swarmedge_core::selection::blames::Rules;
use swarmedge_core::wire::control::{Blame, ToCn};
use swarmedge_models::blames::crowd::{Crowd, Place, Proofs};
use swarmedge_models::scenario::{Command, HONEST, Name, Object, Plan, Progress, Rig, Role};
use swarmedge_models::sim::Move;
use swarmedge_models::sim::links::Link;
use swarmedge_models::sim::machines::{In, Node};
use swarmedge_models::sim::rig::SimRig;

const USUAL: Rules = Rules::USUAL;
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Twenty accusers in three prefixes: of three AS, of one.
const CLIQUES: [[Place; 3]; 2] =
    [[((50, 1), 1), ((51, 1), 2), ((52, 1), 3)], [((50, 1), 1), ((50, 2), 1), ((50, 3), 1)]];

/// Returns 200 places, each in a /24 and an AS of its own.
fn apart() -> impl Iterator<Item = Place> {
    (0..200).map(|n| ((n, 1), 10_000 + u32::from(n)))
}

/// Returns 200 places in one AS, each in a /24 of its own.
fn together() -> impl Iterator<Item = Place> {
    (0..200).map(|n| ((60, n), 10_000))
}

fn victims(rules: Rules, places: impl Iterator<Item = Place>) -> u32 {
    Crowd::new(rules, Proofs::Soon, 1).victims(places)
}

#[test]
fn a_poisoner_is_gone_after_eight_victims_of_different_networks() {
    let n = victims(USUAL, apart());
    println!("victims of different /24 and AS: {n}");
    assert!(n <= 8, "{n}");
    let n = victims(Rules { delist_at: usize::MAX, ..USUAL }, apart());
    assert!(n > 8, "the figure has teeth: {n}");
}

#[test]
fn a_poisoner_is_offered_to_a_network_no_more_after_three_of_its_clients() {
    let n = victims(USUAL, together());
    println!("victims of one AS: {n}");
    assert!(n <= 3, "{n}");
    let n = victims(Rules { hide_at: usize::MAX, ..USUAL }, together());
    assert!(n > 3, "the figure has teeth: {n}");
}

#[test]
fn victims_of_all_kinds_of_networks_are_bounded() {
    // three of each of three networks, then of others
    let mixed = (0..200_u8).map(|n| ((70 + n % 40, n), 20_000 + u32::from(n / 5)));
    let n = victims(USUAL, mixed);
    println!("victims, five clients of each AS: {n}");
    assert!(n <= 8 * 3, "{n}");
}

#[test]
fn a_clique_in_three_prefixes_delists_nobody_for_more_than_ten_minutes() {
    for clique in &CLIQUES {
        for proofs in [Proofs::Soon, Proofs::Never] {
            let longest = Crowd::new(USUAL, proofs, 2).longest_absence(clique, 12);
            println!("{proofs:?}: an honest holder is away for at most {longest:?}");
            assert!(longest <= TEN_MINUTES, "{clique:?} {proofs:?} {longest:?}");
        }
    }
    let long = Rules { suspend_for: Duration::from_secs(3600), ..USUAL };
    let longest = Crowd::new(long, Proofs::Never, 2).longest_absence(&CLIQUES[0], 2);
    assert!(longest > TEN_MINUTES, "the figure has teeth: {longest:?}");
    let few = Rules { delist_at: 3, ..USUAL };
    let longest = Crowd::new(few, Proofs::Soon, 2).longest_absence(&CLIQUES[0], 2);
    assert!(longest > TEN_MINUTES, "the figure has teeth: {longest:?}");
}

/// Lets an honest seeder be blamed by a downloader that it has served, in a whole deployment. Returns whether the
/// ledger has recorded that the seeder proved its possession, and how many votes the DN has counted.
fn an_honest_seeder_is_blamed(seed: u64) -> (bool, usize) {
    let plan = Plan { edges: 1, cns: 1, dns: 1, ledgers: 1, clients: 2 };
    let mut rig = SimRig::new(&plan, seed);
    let film = Object { path: "film", size: 4 << 20, edge_rate: 1 << 15, upload_rate: 1 << 20, uploads_max: 0 };
    let done = |rig: &mut dyn Rig, n| rig.status(n, film.path).is_some_and(|s| s.progress == Progress::Completed);
    for n in 0..2 {
        rig.publish(&Object { edge_rate: if n == 0 { 0 } else { film.edge_rate }, ..film });
        rig.start_client(n, HONEST);
        rig.command(n, Command::Get(film.path));
        assert!(rig.run_until(Duration::from_secs(600), &mut |rig| done(rig, n)));
    }
    let node = |role, n| rig.cfg.find(Name(role, n)).expect("it is planned");
    let (cn, dn, client) = (node(Role::Cn, 0), node(Role::Dn, 0), node(Role::Client, 1));
    let its = |link: &&Link| link.open && link.to.0 == cn && link.from.0 == client;
    let conn = rig.world.env.links.values().find(its).expect("a session").to.1;
    for intro in rig.world.env.seen.introductions.clone() {
        let msg = ToCn::Blame(Blame { intro, piece: PieceIndex(0), block: 0 });
        rig.happen(Move::Tell(cn, In::Cn(cn::Input::Client { conn, msg }).into()));
    }
    let rechecked = |rig: &SimRig| rig.world.env.database.values().any(|record| record.rechecked().is_some());
    for _ in 0..60 {
        rig.run_until(Duration::from_secs(1), &mut |_| false);
        if rechecked(&rig) {
            break;
        }
    }
    let Some(Node::Dn(dn)) = rig.world.node(dn) else { panic!("the DN is up") };
    (rechecked(&rig), dn.blames().len())
}

#[test]
fn a_blamed_honest_seeder_proves_its_copy_through_edge_and_ledger() {
    for seed in 1..=3 {
        assert_eq!(an_honest_seeder_is_blamed(seed), (true, 1), "seed {seed}");
    }
}
