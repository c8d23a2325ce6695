//! A report as comma-separated values (RFC 4180): a line for the total, and one per day, object, country and network.

use ::csv::{Terminator, WriterBuilder};
use std::borrow::Cow;
use std::fmt::Display;
use swarmedge_ground::error::Error;
use swarmedge_ledger::report::{Figures, Report, Row};

const HEAD: [&str; 16] = [
    "scope",
    "name",
    "downloads",
    "completed",
    "failed",
    "cancelled",
    "unfinished",
    "unreported",
    "edge_bytes",
    "peer_bytes",
    "plain_bytes",
    "flagged_bytes",
    "peer_efficiency_permille",
    "speed_p10",
    "speed_p50",
    "speed_p90",
];

/// Returns a report as CSV, one row for each day, object, country and network.
pub(super) fn of(report: &Report) -> Result<String, Error> {
    let scopes: [(&str, &[Row]); 4] = [
        ("day", &report.days),
        ("object", &report.objects),
        ("country", &report.countries),
        ("network", &report.networks),
    ];
    let rows = scopes.iter().flat_map(|(scope, rows)| rows.iter().map(|row| line(scope, &row.name, &row.figures)));
    let total = line("total", "", &report.totals);
    written([HEAD.map(str::to_owned), total].into_iter().chain(rows))
}

fn line(scope: &str, name: &str, f: &Figures) -> [String; 16] {
    let or_empty = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    [
        scope.to_owned(),
        name.to_owned(),
        f.downloads.to_string(),
        f.completed.to_string(),
        f.failed.to_string(),
        f.cancelled.to_string(),
        f.unfinished.to_string(),
        f.unreported.to_string(),
        f.edge_bytes.to_string(),
        f.peer_bytes.to_string(),
        or_empty(f.plain_bytes),
        f.flagged_bytes.to_string(),
        or_empty(f.peer_efficiency_permille),
        or_empty(f.speed.p10),
        or_empty(f.speed.p50),
        or_empty(f.speed.p90),
    ]
}

/// Returns the lines as text. A value that a spreadsheet would run as a formula, as a publisher's path may be, is made
/// text.
pub(super) fn written<const N: usize>(lines: impl IntoIterator<Item = [String; N]>) -> Result<String, Error> {
    fn failed(why: impl Display) -> Error {
        Error::failed(format!("cannot write this as CSV: {why}"))
    }
    let mut out = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    for line in lines {
        out.write_record(line.iter().map(|value| harmless(value).into_owned())).map_err(failed)?;
    }
    String::from_utf8(out.into_inner().map_err(failed)?).map_err(failed)
}

fn harmless(value: &str) -> Cow<'_, str> {
    let is_formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if is_formula { format!("'{value}").into() } else { value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_empty_and_not_nothing() {
        let column = HEAD.iter().position(|name| *name == "plain_bytes").expect("there");
        let plain = |plain_bytes| line("object", "a", &Figures { plain_bytes, ..Figures::default() })[column].clone();
        assert_eq!([plain(None), plain(Some(0)), plain(Some(7))], ["", "0", "7"]);
    }

    #[test]
    fn paths_are_quoted_and_never_formulas() {
        let names = ["a/b", "a,\"b\"", "two\r\nlines", "=1+1", "@x", "\tx"];
        let text = written(names.map(|name| ["object".to_owned(), name.to_owned()])).expect("text");
        let as_rfc_4180 = "object,a/b\r\nobject,\"a,\"\"b\"\"\"\r\nobject,\"two\r\nlines\"\r\n\
                           object,'=1+1\r\nobject,'@x\r\nobject,'\tx\r\n";
        assert_eq!(text, as_rfc_4180);
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let read: Vec<String> = reader.records().map(|r| r.expect("a line")[1].to_owned()).collect();
        assert_eq!(read, ["a/b", "a,\"b\"", "two\r\nlines", "'=1+1", "'@x", "'\tx"]);
    }

    #[test]
    fn a_report_has_a_head_a_total_and_a_line_for_each_row() {
        let text = of(&crate::report::tests::of_names("2026-11-01", "a,b")).expect("text");
        let zeros = "0,0,0,0,0,0,0,0,,0,,,,";
        let head = "scope,name,downloads,completed,failed,cancelled,unfinished,unreported,edge_bytes,peer_bytes,\
                    plain_bytes,flagged_bytes,peer_efficiency_permille,speed_p10,speed_p50,speed_p90";
        let lines =
            [head, &format!("total,,{zeros}"), &format!("day,2026-11-01,{zeros}"), &format!("object,\"a,b\",{zeros}")];
        assert_eq!(text, lines.map(|line| format!("{line}\r\n")).concat());
    }
}
