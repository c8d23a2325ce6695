//! The matrix as text for people and as JSON for programs.

use super::{Cell, lower_bound_95, percentile};
use crate::{Expect, Kind};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What was measured with one binary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `tokio` or `smol`.
    pub runtime: String,
    /// `YYYY-MM-DD`.
    pub date: String,
    /// Of the machine.
    pub kernel: String,
    /// What the core lost, each way.
    pub loss_percent: u8,
    /// By seeder, then downloader.
    pub cells: Vec<Cell>,
}

/// A pool of cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is pooled.
    pub expected: Expect,
    /// Tries.
    pub tries: u32,
    /// Tries that connected.
    pub connected: u32,
    /// The lower end of the 95 % confidence interval of their share.
    pub lower_bound: f64,
    /// From the CN's "go" to the open QUIC connection, median.
    pub median_ms: Option<f64>,
    /// The same, 95th percentile.
    pub p95_ms: Option<f64>,
}

impl Cell {
    fn connected(&self) -> usize {
        self.tries.iter().filter(|t| t.connected).count()
    }

    /// As it stands in the table.
    fn mark(&self) -> String {
        let (connected, tries) = (self.connected(), self.tries.len());
        let by = if self.expected == Expect::ByPrediction { "ᵖ" } else { "" };
        match connected {
            0 => "–".into(),
            n if n == tries => format!("✔{by}"),
            n => format!("{n}/{tries}{by}"),
        }
    }

    /// It did what is known of such a pair: cells that need luck or prediction may do as they like.
    fn is_as_expected(&self) -> bool {
        match self.expected {
            Expect::Connects => self.connected() == self.tries.len(),
            Expect::Never => self.connected() == 0,
            Expect::ByPrediction | Expect::ByBirthday => true,
        }
    }
}

impl Report {
    /// The pools, in the order of expectation.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let all = [Expect::Connects, Expect::ByPrediction, Expect::ByBirthday, Expect::Never];
        let row = |expected: Expect| {
            let tries: Vec<_> = self.cells.iter().filter(|c| c.expected == expected).flat_map(|c| &c.tries).collect();
            let times: Vec<f64> = tries.iter().filter(|t| t.connected).filter_map(|t| t.after_go_ms).collect();
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let connected = count(tries.iter().filter(|t| t.connected).count());
            let n = count(tries.len());
            (n > 0).then(|| Row {
                expected,
                tries: n,
                connected,
                lower_bound: lower_bound_95(connected, n),
                median_ms: percentile(&times, 0.5),
                p95_ms: percentile(&times, 0.95),
            })
        };
        all.into_iter().filter_map(row).collect()
    }

    /// Cells that did not do what is known of them.
    #[must_use]
    pub fn surprises(&self) -> Vec<&Cell> {
        self.cells.iter().filter(|c| !c.is_as_expected()).collect()
    }

    /// As Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let columns: Vec<Kind> =
            Kind::ALL.into_iter().filter(|k| self.cells.iter().any(|c| c.downloader == *k)).collect();
        let loss = if self.loss_percent == 0 { String::new() } else { format!(", {} % loss", self.loss_percent) };
        let mut text = format!("### {}, {}, Linux {}{loss}\n\n", self.runtime, self.date, self.kernel);
        let heads: String = columns.iter().map(|k| format!(" {} |", k.short())).collect();
        _ = writeln!(text, "| seeder ↓ downloader → |{heads}");
        _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
        for seeder in Kind::ALL {
            let row: Vec<&Cell> = self.cells.iter().filter(|c| c.seeder == seeder).collect();
            if row.is_empty() {
                continue;
            }
            let mark = |k: &Kind| row.iter().find(|c| c.downloader == *k).map_or(String::new(), |c| c.mark());
            let marks: String = columns.iter().map(|k| format!(" {} |", mark(k))).collect();
            _ = writeln!(text, "| {seeder} |{marks}");
        }
        text.push_str(
            "\n| pairs that | connected | lower 95 % bound | after \"go\", median | p95 |\n|---|---|---|---|---|\n",
        );
        for row in self.rows() {
            let what = match row.expected {
                Expect::Connects => "connect",
                Expect::ByPrediction => "connect by prediction",
                Expect::ByBirthday => "connect by birthday probing",
                Expect::Never => "do not connect",
            };
            let ms = |t: Option<f64>| t.map_or("–".into(), |t| format!("{t:.0} ms"));
            let (n, of, bound) = (row.connected, row.tries, row.lower_bound * 100.0);
            _ = writeln!(text, "| {what} | {n}/{of} | {bound:.1} % | {} | {} |", ms(row.median_ms), ms(row.p95_ms));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected;
    use crate::matrix::Try;

    fn cell(seeder: Kind, downloader: Kind, connected: &[bool]) -> Cell {
        let one = |connected: &bool| Try {
            connected: *connected,
            after_go_ms: connected.then_some(50.0),
            outcome: None,
            probes: 3,
            done_ms: Some(300.0),
            peer_bytes: 8,
            edge_bytes: 0,
        };
        Cell { seeder, downloader, expected: expected(seeder, downloader), tries: connected.iter().map(one).collect() }
    }

    #[test]
    fn a_table_shows_what_connected_and_names_what_surprises() {
        let report = Report {
            runtime: "tokio".into(),
            date: "2026-11-22".into(),
            kernel: "6".into(),
            loss_percent: 0,
            cells: vec![
                cell(Kind::Public, Kind::Symmetric, &[true, true]),
                cell(Kind::Public, Kind::UdpBlocked, &[false]),
                cell(Kind::Firewall, Kind::SymmetricSequential, &[true]),
                cell(Kind::Firewall, Kind::Symmetric, &[true, false]),
            ],
        };
        let text = report.to_markdown();
        for line in ["| public | | ✔ | – |".replace("| |", "|  |"), "| firewall | ✔ᵖ | 1/2 |  |".into()] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("| connect | 2/2 | 22.4 % | 50 ms | 50 ms |"), "{text}");
        assert!(report.surprises().is_empty());
        let bad = Report { cells: vec![cell(Kind::Public, Kind::FullCone, &[true, false])], ..report };
        assert_eq!(bad.surprises().len(), 1);
    }
}
