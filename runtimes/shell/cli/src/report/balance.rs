//! `report --as-balance`: bytes that clients of different networks (ASes) sent to one another.

use super::balance_html;
use super::csv::written;
use crate::args::ReportFormat;
use swarmedge_ground::error::Error;
use swarmedge_ground::terminal::units::{bytes, percent};
use swarmedge_ledger::balance::{Balance, Flow, Network};

/// Most flows shown; CSV and JSON have all.
const FLOWS_MAX: usize = 20;

/// Returns the traffic between networks in the format that the user asked for.
pub(super) fn formatted(balance: &Balance, format: ReportFormat) -> Result<String, Error> {
    Ok(match format {
        ReportFormat::Text => text(balance),
        ReportFormat::Csv => csv(balance)?,
        ReportFormat::Json => super::json(balance)?,
        ReportFormat::Html => balance_html::of(balance)?,
    })
}

/// Returns the traffic between networks as a table of text.
fn text(b: &Balance) -> String {
    let mut text = format!(
        "{}, {} to {} (UTC): {} from peers, {} of it within one network\n",
        scope(b),
        b.from,
        b.to,
        bytes(b.peer_bytes),
        percent(b.inside_bytes, b.peer_bytes)
    );
    if b.networks.iter().all(|n| n.name == "unknown") {
        return text + "no network is known: geo_networks in [cn] says where clients are\n";
    }
    text += "\nnetwork       countries               sent   received  sent - received     inside      edges\n";
    for n in &b.networks {
        text += &format!(
            "{:12}  {:16} {:>11} {:>10} {:>16} {:>10} {:>10}\n",
            n.name,
            n.countries.join(" "),
            bytes(n.sent_bytes),
            bytes(n.received_bytes),
            difference(n),
            bytes(n.inside_bytes),
            bytes(n.edge_bytes)
        );
    }
    text += "\nfrom          to                 bytes\n";
    for f in b.flows.iter().take(FLOWS_MAX) {
        text += &format!("{:12}  {:12} {:>11}\n", f.from, f.to, bytes(f.bytes));
    }
    if b.flows.len() > FLOWS_MAX {
        text += &format!("{} more flows: --format csv shows all\n", b.flows.len() - FLOWS_MAX);
    }
    text
}

/// Names the provider whose downloads the balance covers, or "all providers".
pub(super) fn scope(b: &Balance) -> String {
    b.provider.map_or_else(|| "all providers".into(), |p| format!("provider {p}"))
}

/// Formats the bytes that a network sent minus those it received.
pub(super) fn difference(n: &Network) -> String {
    let sign = if n.sent_bytes < n.received_bytes { "-" } else { "" };
    format!("{sign}{}", bytes(n.sent_bytes.abs_diff(n.received_bytes)))
}

fn csv(b: &Balance) -> Result<String, Error> {
    let head = ["scope", "from", "to", "countries", "sent_bytes", "received_bytes", "inside_bytes", "edge_bytes"];
    let network = |n: &Network| {
        let [sent, received, inside, edge] =
            [n.sent_bytes, n.received_bytes, n.inside_bytes, n.edge_bytes].map(|n| n.to_string());
        ["network".into(), n.name.clone(), n.name.clone(), n.countries.join(" "), sent, received, inside, edge]
    };
    let flow = |f: &Flow| {
        let nothing = String::new;
        let (from, to, sent) = (f.from.clone(), f.to.clone(), f.bytes.to_string());
        ["flow".into(), from, to, nothing(), sent, nothing(), nothing(), nothing()]
    };
    let rows = b.networks.iter().map(network).chain(b.flows.iter().map(flow));
    written([head.map(str::to_owned)].into_iter().chain(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_balance_has_as_many_values_as_the_first() {
        let network = Network { name: "AS1".into(), countries: vec!["DE".into(), "FR".into()], ..Network::default() };
        let balance = Balance {
            from: "2026-11-01".into(),
            to: "2026-11-02".into(),
            provider: None,
            peer_bytes: 5,
            inside_bytes: 0,
            networks: vec![network],
            flows: vec![Flow { from: "AS1".into(), to: "AS2".into(), bytes: 5 }],
        };
        let head = "scope,from,to,countries,sent_bytes,received_bytes,inside_bytes,edge_bytes";
        let lines = [head, "network,AS1,AS1,DE FR,0,0,0,0", "flow,AS1,AS2,,5,,,"];
        assert_eq!(csv(&balance).expect("text"), lines.map(|line| format!("{line}\r\n")).concat());
        assert!(text(&balance).contains("AS1           AS2"));
    }

    #[test]
    fn the_longest_network_number_pushes_no_column() {
        let longest = "AS4294967295";
        let networks = ["AS1", longest].map(|name| Network { name: name.into(), ..Network::default() });
        let flows = vec![Flow { from: longest.into(), to: longest.into(), bytes: 5 }];
        let balance = Balance {
            from: "2026-11-01".into(),
            to: "2026-11-02".into(),
            provider: None,
            peer_bytes: 5,
            inside_bytes: 5,
            networks: networks.into(),
            flows,
        };
        for table in text(&balance).split("\n\n").skip(1) {
            let ends: Vec<usize> = table.lines().map(|line| line.trim_end().chars().count()).collect();
            assert!(ends.iter().all(|end| *end == ends[0]), "{table}");
        }
    }

    #[test]
    fn without_known_networks_the_configuration_key_is_named() {
        let nobody = Balance {
            from: "2026-11-01".into(),
            to: "2026-11-02".into(),
            provider: None,
            peer_bytes: 0,
            inside_bytes: 0,
            networks: Vec::new(),
            flows: Vec::new(),
        };
        assert!(text(&nobody).contains("geo_networks in [cn]"), "{}", text(&nobody));
    }
}
