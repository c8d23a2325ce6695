//! A report as comma-separated values (RFC 4180): a line for the total, and one per day, object, country and network.

use swarmedge_ledger::report::{Figures, Report};

const HEAD: &str = "scope,name,downloads,completed,failed,cancelled,unfinished,unreported,edge_bytes,peer_bytes,\
                    plain_bytes,flagged_bytes,peer_efficiency_permille,speed_p10,speed_p50,speed_p90\r\n";

pub(super) fn of(report: &Report) -> String {
    let mut text = HEAD.to_owned();
    text += &line("total", "", &report.totals);
    report.days.iter().for_each(|row| text += &line("day", &row.name, &row.figures));
    report.objects.iter().for_each(|row| text += &line("object", &row.name, &row.figures));
    report.countries.iter().for_each(|row| text += &line("country", &row.name, &row.figures));
    report.networks.iter().for_each(|row| text += &line("network", &row.name, &row.figures));
    text
}

fn line(scope: &str, name: &str, f: &Figures) -> String {
    let or_empty = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    format!(
        "{scope},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\r\n",
        quoted(name),
        f.downloads,
        f.completed,
        f.failed,
        f.cancelled,
        f.unfinished,
        f.unreported,
        f.edge_bytes,
        f.peer_bytes,
        or_empty(f.plain_bytes),
        f.flagged_bytes,
        or_empty(f.peer_efficiency_permille),
        or_empty(f.speed.p10),
        or_empty(f.speed.p50),
        or_empty(f.speed.p90)
    )
}

/// A path may hold commas and quotes; one that a spreadsheet would run as a formula is made text.
pub(super) fn quoted(name: &str) -> String {
    let formula = name.starts_with(['=', '+', '-', '@']);
    let name = if formula { format!("'{name}") } else { name.to_owned() };
    if name.contains([',', '"', '\r', '\n']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_empty_and_not_nothing() {
        let plain = |plain_bytes| {
            let line = line("object", "a", &Figures { plain_bytes, ..Figures::default() });
            let column = HEAD.split(',').position(|name| name == "plain_bytes").expect("there");
            line.split(',').nth(column).expect("as many").to_owned()
        };
        assert_eq!([plain(None), plain(Some(0)), plain(Some(7))], ["", "0", "7"]);
    }

    #[test]
    fn paths_are_quoted_and_never_formulas() {
        assert_eq!(quoted("a/b"), "a/b");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "'=1+1");
    }
}
