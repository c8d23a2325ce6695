//! Compares the three tables of which pairs connect: the lab's, measured and kept in MATRIX.md; the simulator's, which
//! the production machines reach on simulated NATs; and the compatibility table, by which the DN offers peers and
//! which the models require.

use std::collections::BTreeMap;
use swarmedge_models::punching::{Cfg, world};
use swarmedge_models::rng::Seeded;
use swarmedge_models::world::Budget;
use swarmedge_natlab::{Expect, Kind, expected};

type Table = BTreeMap<(Kind, Kind), bool>;

const MEASURED: &str = include_str!("../MATRIX.md");

fn of_every_pair(connects: impl Fn(Kind, Kind) -> bool) -> Table {
    let pairs = Kind::ALL.into_iter().flat_map(|a| Kind::ALL.map(|b| (a, b)));
    pairs.map(|(a, b)| ((a, b), connects(a, b))).collect()
}

/// Returns the table that the lab measured with a runtime's binary.
fn measured(runtime: &str, page: &str) -> Table {
    let (_, section) = page.split_once(&format!("### {runtime}: pairs, ")).expect("the runtime's table");
    let mut rows = section.lines().skip_while(|l| !l.starts_with("| seeder")).take_while(|l| l.starts_with('|'));
    let fields = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|field| field.trim().to_owned()).collect()
    };
    let kind = |name: &String| name.parse::<Kind>().expect("a kind");
    let columns: Vec<Kind> = fields(rows.next().expect("a heading")).iter().skip(1).map(kind).collect();
    let mut table = Table::new();
    for row in rows.skip(1).map(fields) {
        for (column, mark) in columns.iter().zip(&row[1..]).filter(|(_, mark)| !mark.is_empty()) {
            table.insert((kind(&row[0]), *column), mark != "–");
        }
    }
    table
}

/// Returns whether a pair of NAT kinds connects in the simulator, whose messages take time.
fn simulated(a: Kind, b: Kind) -> bool {
    let cfg = Cfg::timed([a, b]);
    let mut w = world(&cfg, Budget::default());
    let mut rng = Seeded::new(1);
    while let Some((_, act)) = w.earliest() {
        w.step(&cfg, &act, &mut rng);
    }
    w.env.is_connected()
}

#[test]
fn lab_simulator_and_models_agree_on_every_pair() {
    let model = of_every_pair(|a, b| Cfg::timed([a, b]).is_reachable());
    let known = of_every_pair(|a, b| matches!(expected(a, b), Expect::Connects | Expect::ByPrediction));
    assert_eq!(model, known, "what the DN offers and what is known of the kinds");
    assert_eq!(of_every_pair(simulated), model, "what the machines reach and what they must");
    for runtime in ["tokio", "smol"] {
        let table = measured(runtime, MEASURED);
        for ((a, b), connects) in &table {
            assert_eq!(*connects, model[&(*a, *b)], "{runtime} on real NATs, and the models: {a} -> {b}");
        }
        let missing = model.keys().find(|(a, b)| !table.contains_key(&(*a, *b)) && !table.contains_key(&(*b, *a)));
        assert_eq!(missing, None, "{runtime}: a pair that was measured in neither role");
    }
}

#[test]
fn a_differing_measurement_is_noticed() {
    let page = "### tokio: pairs, 2026\n\n| seeder ↓ downloader → | pub | sym |\n|---|---|---|\n\
                | public | ✔ | 9/10 |\n| symmetric | ✔ᵖ | – |\n\n| other |\n";
    let table = measured("tokio", page);
    assert_eq!(table.len(), 4);
    assert!(table[&(Kind::Public, Kind::Symmetric)] && !table[&(Kind::Symmetric, Kind::Symmetric)]);
}
