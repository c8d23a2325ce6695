//! The balance among networks as one HTML file: bars per network, a matrix from network to network, and tables.

use super::balance::{difference, scope};
use super::html::{BARS_NAMED, ROWS_MAX, bars, escaped, keys, page, tile};
use std::collections::BTreeMap;
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::balance::{Balance, Flow, Network};

/// Most networks in the matrix; the other formats have all.
const MATRIX_MAX: usize = 12;

pub(super) fn of(b: &Balance) -> String {
    let edges = b.networks.iter().map(|n| n.edge_bytes).fold(0, u64::saturating_add);
    let known = b.networks.iter().filter(|n| n.name != "unknown").count();
    let tiles = [
        tile(&bytes(b.peer_bytes), "From peers", &format!("{} from edges", bytes(edges))),
        tile(&percent(b.inside_bytes, b.peer_bytes), "Within one network", &bytes(b.inside_bytes)),
        tile(&known.to_string(), "Networks", &format!("{} flows", b.flows.len())),
    ];
    let body = format!(
        "<p>{} to {} (UTC), billed downloads of {}.</p>\n<div class=\"tiles\">{}</div>\n{}",
        b.from,
        b.to,
        scope(b),
        tiles.concat(),
        if known == 0 {
            "<p>No network is known: <code>geo_networks</code> in <code>[cn]</code> says where clients are.</p>".into()
        } else {
            plots(b)
        }
    );
    page("Traffic among networks", &format!("{} to {}", b.from, b.to), &body)
}

fn plots(b: &Balance) -> String {
    let most = &b.networks[..b.networks.len().min(BARS_NAMED)];
    let parts = |n: &Network| vec![n.sent_bytes, n.received_bytes, n.inside_bytes];
    let most: Vec<(&str, Vec<u64>)> = most.iter().map(|n| (&n.name[..], parts(n))).collect();
    format!(
        "<h2>Bytes of peers by network<small>{}</small></h2>{}\n\
         <h2>From network (row) to network (column)</h2>{}<h2>By network</h2>{}<h2>Flows</h2>{}",
        keys(&["sent", "received", "inside"]),
        bars("Bytes of peers by network: sent, received, inside", &most, bytes),
        matrix(b),
        networks(&b.networks[..b.networks.len().min(ROWS_MAX)]),
        flows(&b.flows[..b.flows.len().min(ROWS_MAX)])
    )
}

/// Returns the matrix of bytes from network to network, for the largest networks; more bytes make a darker cell.
fn matrix(b: &Balance) -> String {
    let names: Vec<&str> = b.networks.iter().take(MATRIX_MAX).map(|n| &n.name[..]).collect();
    let flows: BTreeMap<(&str, &str), u64> = b.flows.iter().map(|f| ((&f.from[..], &f.to[..]), f.bytes)).collect();
    let of = |from: &str, to: &str| flows.get(&(from, to)).copied().unwrap_or(0);
    let most = names.iter().flat_map(|from| names.iter().map(|to| of(from, to))).max().unwrap_or(0).max(1);
    let cell = |from: &str, to: &str| {
        let n = of(from, to);
        let shade = u128::from(n) * 70 / u128::from(most);
        let text = if n == 0 { String::new() } else { bytes(n) };
        format!("<td style=\"background:color-mix(in srgb,var(--a) {shade}%,transparent)\">{text}</td>")
    };
    let head: String = names.iter().map(|to| format!("<th>{}</th>", escaped(to))).collect();
    let row = |from: &&str| {
        let cells: String = names.iter().map(|to| cell(from, to)).collect();
        format!("<tr><td>{}</td>{cells}</tr>\n", escaped(from))
    };
    let rows: String = names.iter().map(row).collect();
    format!("<div class=\"wide\"><table><tr><th></th>{head}</tr>\n{rows}</table></div>\n")
}

fn networks(all: &[Network]) -> String {
    let row = |n: &Network| {
        let numbers =
            [bytes(n.sent_bytes), bytes(n.received_bytes), difference(n), bytes(n.inside_bytes), bytes(n.edge_bytes)];
        let cells: String = numbers.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><td>{}</td><td>{}</td>{cells}</tr>\n", escaped(&n.name), escaped(&n.countries.join(" ")))
    };
    let rows: String = all.iter().map(row).collect();
    format!(
        "<div class=\"wide\"><table><tr><th>Network</th><th>Countries</th><th>Sent</th><th>Received</th>\
         <th>Sent - received</th><th>Inside</th><th>Edges</th></tr>\n{rows}</table></div>\n"
    )
}

fn flows(all: &[Flow]) -> String {
    let row = |f: &Flow| {
        format!("<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n", escaped(&f.from), escaped(&f.to), bytes(f.bytes))
    };
    let rows: String = all.iter().map(row).collect();
    format!("<table><tr><th>From</th><th>To</th><th>Bytes</th></tr>\n{rows}</table>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let page = of(&balance());
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
        let page = of(&balance);
        assert!(page.contains("No network is known") && !page.contains("<svg"), "{page}");
    }
}
