//! The balance among networks as one HTML file: bars per network, a matrix from network to network, and tables.

use super::balance::{difference, scope};
use super::html::{Tile, most, rendered};
use super::plot::{BARS_NAMED, Heading, Plot, bars};
use askama::Template;
use std::collections::BTreeMap;
use swarmedge_ground::error::Error;
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::balance::{Balance, Network};

/// Most networks in the matrix; the other formats have all.
const MATRIX_MAX: usize = 12;

#[derive(Template)]
#[template(path = "balance.html")]
struct Page<'a> {
    heading: &'static str,
    span: String,
    balance: &'a Balance,
    scope: String,
    tiles: [Tile; 3],
    /// Plots of the networks' bytes; empty if no network is known.
    plots: Vec<Plot>,
    /// Rows of the matrix by sending network; the cells of a row by receiving network.
    matrix: Vec<(&'a str, Vec<Cell>)>,
    networks: Vec<[String; 7]>,
    flows: Vec<[String; 3]>,
}

/// A cell of the matrix: more bytes make it darker.
struct Cell {
    /// Share of the colour, per cent.
    shade: u128,
    text: String,
}

pub(super) fn of(b: &Balance) -> Result<String, Error> {
    let edges = b.networks.iter().map(|n| n.edge_bytes).fold(0, u64::saturating_add);
    let known = b.networks.iter().filter(|n| n.name != "unknown").count();
    let inside = percent(b.inside_bytes, b.peer_bytes);
    let tiles = [
        Tile { figure: bytes(b.peer_bytes), what: "From peers", more: format!("{} from edges", bytes(edges)) },
        Tile { figure: inside, what: "Within one network", more: bytes(b.inside_bytes) },
        Tile { figure: known.to_string(), what: "Networks", more: format!("{} flows", b.flows.len()) },
    ];
    rendered(&Page {
        heading: "Traffic among networks",
        span: format!("{} to {}", b.from, b.to),
        balance: b,
        scope: scope(b),
        tiles,
        plots: if known == 0 { Vec::new() } else { vec![plot(b)] },
        matrix: matrix(b),
        networks: most(&b.networks).iter().map(network).collect(),
        flows: most(&b.flows).iter().map(|f| [f.from.clone(), f.to.clone(), bytes(f.bytes)]).collect(),
    })
}

/// Returns the bars of bytes sent, received and exchanged inside each network.
fn plot(b: &Balance) -> Plot {
    let heading = Heading {
        title: "Bytes of peers by network",
        what: "Bytes of peers by network: sent, received, inside",
        keys: &["sent", "received", "inside"],
    };
    let parts = |n: &Network| vec![n.sent_bytes, n.received_bytes, n.inside_bytes];
    let named: Vec<(&str, Vec<u64>)> = b.networks.iter().take(BARS_NAMED).map(|n| (&n.name[..], parts(n))).collect();
    bars(&heading, &named, bytes)
}

/// Returns the bytes from network to network, for the largest networks.
fn matrix(b: &Balance) -> Vec<(&str, Vec<Cell>)> {
    let names: Vec<&str> = b.networks.iter().take(MATRIX_MAX).map(|n| &n.name[..]).collect();
    let flows: BTreeMap<(&str, &str), u64> = b.flows.iter().map(|f| ((&f.from[..], &f.to[..]), f.bytes)).collect();
    let of = |from: &str, to: &str| flows.get(&(from, to)).copied().unwrap_or(0);
    let most = names.iter().flat_map(|from| names.iter().map(|to| of(from, to))).max().unwrap_or(0).max(1);
    let cell = |from: &str, to: &str| {
        let n = of(from, to);
        let text = if n == 0 { String::new() } else { bytes(n) };
        Cell { shade: u128::from(n) * 70 / u128::from(most), text }
    };
    let row = |from: &&str| names.iter().map(|to| cell(from, to)).collect();
    names.iter().map(|from| (*from, row(from))).collect()
}

fn network(n: &Network) -> [String; 7] {
    let countries = n.countries.join(" ");
    let [sent, received] = [n.sent_bytes, n.received_bytes].map(bytes);
    [n.name.clone(), countries, sent, received, difference(n), bytes(n.inside_bytes), bytes(n.edge_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ledger::balance::Flow;

    #[test]
    fn no_name_of_a_network_can_write_html() {
        let mut balance = balance();
        let hostile = "<script>'\"&";
        balance.networks[0].name = hostile.into();
        balance.networks[0].countries = vec![hostile.into()];
        balance.flows[0].from = hostile.into();
        let page = of(&balance).expect("a page");
        assert!(!page.contains("<script") && !page.contains("'\"&"), "{page}");
        assert!(page.matches("&#60;script&#62;&#39;&#34;&#38;").count() >= 6, "{page}");
    }

    /// Two networks: the first sends the second three times the bytes that stay inside it.
    fn balance() -> Balance {
        let network = |name: &str, sent_bytes, received_bytes, inside_bytes| Network {
            name: name.into(),
            countries: vec!["DE".into()],
            sent_bytes,
            received_bytes,
            inside_bytes,
            edge_bytes: 1,
        };
        let flow = |from: &str, to: &str, bytes| Flow { from: from.into(), to: to.into(), bytes };
        Balance {
            from: "2026-11-01".into(),
            to: "2026-11-02".into(),
            provider: None,
            peer_bytes: 4_000,
            inside_bytes: 1_000,
            networks: vec![network("AS1", 3_000, 0, 1_000), network("AS2", 0, 3_000, 0)],
            flows: vec![flow("AS1", "AS2", 3_000), flow("AS1", "AS1", 1_000)],
        }
    }

    #[test]
    fn the_matrix_shows_bytes_from_row_to_column() {
        let page = of(&balance()).expect("a page");
        let matrix = page.split("(column)").nth(1).expect("a matrix").split("</table>").next().expect("a table");
        let cells: Vec<&str> =
            matrix.split("<td").skip(1).map(|cell| cell.split(['>', '<']).nth(1).expect("text")).collect();
        assert_eq!(cells, ["AS1", &bytes(1_000), &bytes(3_000), "AS2", "", ""]);
        assert!(matrix.contains("var(--a) 70%") && matrix.contains("var(--a) 23%"), "{matrix}");
        assert!(page.contains(&format!("<td>{}</td>", difference(&balance().networks[1]))));
        assert_eq!(page.matches("<rect").count(), 3, "sent, received, inside: what is nothing has no bar");
    }

    #[test]
    fn without_known_networks_nothing_is_drawn() {
        let mut balance = balance();
        balance.networks.iter_mut().for_each(|n| n.name = "unknown".into());
        let page = of(&balance).expect("a page");
        assert!(page.contains("No network is known") && !page.contains("<svg"), "{page}");
    }
}
