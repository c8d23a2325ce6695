//! Results of measurements of the pair matrix, as text for people and as JSON for programs.

use super::forced::NOMINAL;
use super::{Cell, Part, Try, lower_bound_95, percentile};
use crate::{Expect, Kind};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use swarmedge_client::client::protocol::AttemptLine;

/// Maximum duration of a connection attempt on either side, in milliseconds.
const ATTEMPT_MS: u32 = 6_000;
/// Maximum of the median time from the CN's "go" to the connection, in round trips.
const MEDIAN_RTTS: f64 = 3.0;
/// Maximum of the 95th percentile of the time from the CN's "go" to the connection, in milliseconds.
const P95_MS: f64 = 1_000.0;
/// Maximum duration of a download without a peer, relative to the time that the edge's rate limit implies; the
/// difference allows for the start and for a busy machine.
const UNDISTURBED: f64 = 1.15;

/// Results of one part of the measurement, with one binary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the runtime: `tokio` or `smol`.
    pub runtime: String,
    /// Date of the measurement, `YYYY-MM-DD`.
    pub date: String,
    /// Kernel version of the machine.
    pub kernel: String,
    /// Added delay of each packet that crosses the core, in milliseconds.
    #[serde(default)]
    pub latency_ms: u16,
    /// Part that was measured.
    pub part: Part,
    /// Results by seeder, then downloader.
    pub cells: Vec<Cell>,
}

/// Class of cells (pairs of NAT kinds) that connect, or do not, for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The mappings of both NATs are endpoint-independent.
    Independent,
    /// The mappings of both NATs are endpoint-independent, and one is a masquerade without input filter.
    MasqueradeOpen,
    /// One side's port can only be learned from its own connectivity checks, and the other side does not filter by
    /// port.
    Learned,
    /// All cells that must connect (✔).
    Connects,
    /// The next port of one side's NAT can be predicted.
    Predicted,
    /// Pairs that connect by birthday probing only.
    Birthday,
    /// Pairs that never connect.
    Never,
}

impl Class {
    const ALL: [Self; 7] = [
        Self::Independent,
        Self::MasqueradeOpen,
        Self::Learned,
        Self::Connects,
        Self::Predicted,
        Self::Birthday,
        Self::Never,
    ];

    fn has(self, cell: &Cell) -> bool {
        let ways = [cell.seeder, cell.downloader];
        let open = ways.contains(&Kind::MasqueradeOpen);
        let hard = ways.iter().any(|k| k.mapping() != crate::Behaviour::EndpointIndependent);
        match self {
            Self::Independent => cell.expected == Expect::Connects && !open && !hard,
            Self::MasqueradeOpen => cell.expected == Expect::Connects && open,
            Self::Learned => cell.expected == Expect::Connects && hard && !open,
            Self::Connects => cell.expected == Expect::Connects,
            Self::Predicted => cell.expected == Expect::ByPrediction,
            Self::Birthday => cell.expected == Expect::ByBirthday,
            Self::Never => cell.expected == Expect::Never,
        }
    }

    /// Returns the words of the legend for this outcome of a pair.
    const fn in_words(self) -> &'static str {
        match self {
            Self::Independent => "both map independently",
            Self::MasqueradeOpen => "one is a masquerade without input filter",
            Self::Learned => "one is symmetric, the other does not filter by port",
            Self::Connects => "✔ all that should connect",
            Self::Predicted => "ᵖ ports can be foretold",
            Self::Birthday => "ᵇ by birthday probing only",
            Self::Never => "– never",
        }
    }
}

/// Summary of a class of cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Class of the cells.
    pub class: Class,
    /// Total number of tries.
    pub tries: u32,
    /// Number of tries in which the CN introduced the pair.
    pub introduced: u32,
    /// Number of tries that connected.
    pub connected: u32,
    /// Number of tries in which verified bytes came from the peer.
    pub fed: u32,
    /// Lower end of the 95 % confidence interval of the share of connected tries.
    pub lower_bound: f64,
    /// Median time from the CN's "go" to the open QUIC connection, in milliseconds.
    pub median_ms: Option<f64>,
    /// 95th percentile of the time from the CN's "go" to the open QUIC connection, in milliseconds.
    pub p95_ms: Option<f64>,
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Cell {
    fn connected(&self) -> usize {
        self.tries.iter().filter(|t| t.connected).count()
    }

    /// Returns the text that the table shows for this cell: ✔ if all tries connected, – if none, else how many of
    /// them.
    fn mark(&self) -> String {
        let (connected, tries) = (self.connected(), self.tries.len());
        let by = if self.expected == Expect::ByPrediction { "ᵖ" } else { "" };
        match connected {
            0 => "–".into(),
            n if n == tries => format!("✔{by}"),
            n => format!("{n}/{tries}{by}"),
        }
    }
}

impl Report {
    fn tries(&self, class: Class) -> Vec<&Try> {
        self.cells.iter().filter(|c| class.has(c)).flat_map(|c| &c.tries).collect()
    }

    /// Returns a summary of each class of cells.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let row = |class: Class| {
            let tries = self.tries(class);
            let times: Vec<f64> = tries.iter().filter(|t| t.connected).filter_map(|t| t.after_go_ms).collect();
            let connected = count(tries.iter().filter(|t| t.connected).count());
            let n = count(tries.len());
            (n > 0).then(|| Row {
                class,
                tries: n,
                introduced: count(tries.iter().filter(|t| t.outcome.is_some()).count()),
                connected,
                fed: count(tries.iter().filter(|t| t.peer_bytes > 0).count()),
                lower_bound: lower_bound_95(connected, n),
                median_ms: percentile(&times, 0.5),
                p95_ms: percentile(&times, 0.95),
            })
        };
        Class::ALL.into_iter().filter_map(row).collect()
    }

    /// Returns the results that differ from what is expected, in words.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let share = |class: Class, at_least: f64| {
            let row = self.rows().into_iter().find(|r| r.class == class)?;
            let share = f64::from(row.connected) / f64::from(row.tries);
            (share < at_least).then(|| format!("{}: {}/{}", class.in_words(), row.connected, row.tries))
        };
        let of = |c: &Cell, what: &str| format!("{} -> {} {what}", c.seeder, c.downloader);
        match self.part {
            Part::Loss { percent, .. } => {
                share(Class::Connects, if percent <= 5 { 0.98 } else { 0.9 }).into_iter().collect()
            }
            Part::Birthday => share(Class::Birthday, 0.9).into_iter().collect(),
            Part::Skew { .. } => share(Class::Connects, 0.95).into_iter().collect(),
            Part::Pairs => {
                let wrong = |c: &&Cell| match c.expected {
                    Expect::Connects => c.connected() < c.tries.len(),
                    Expect::Never | Expect::ByBirthday => c.tries.iter().any(|t| t.connected || t.outcome.is_some()),
                    Expect::ByPrediction => false,
                };
                let wrong = self.cells.iter().filter(wrong);
                let named = wrong.map(|c| of(c, &format!("{}/{}", c.connected(), c.tries.len())));
                named.chain(share(Class::Predicted, 0.95)).chain(self.late()).collect()
            }
            Part::Forced => {
                let wrong = self.cells.iter().filter(|c| c.tries.iter().any(|t| !is_as_forced(t)));
                wrong.map(|c| of(c, "does not end as it should, or disturbs its download")).collect()
            }
        }
    }

    /// Returns the delay that the lab adds to a round trip, in milliseconds.
    fn rtt_ms(&self) -> f64 {
        2.0 * f64::from(self.latency_ms)
    }

    /// Returns a message if pairs connect too late after the CN's "go"; `None` if they do not.
    fn late(&self) -> Option<String> {
        let row = self.rows().into_iter().find(|r| r.class == Class::Connects)?;
        let (median, p95) = (row.median_ms?, row.p95_ms?);
        let most = MEDIAN_RTTS * self.rtt_ms();
        let late = self.latency_ms > 0 && (median > most || p95 > P95_MS);
        late.then(|| format!("after \"go\": median {median:.0} ms ({most:.0} allowed), p95 {p95:.0} ms ({P95_MS:.0})"))
    }

    /// Returns the heading of the part in the report.
    fn heading(&self) -> String {
        let part = match self.part {
            Part::Pairs => "pairs".into(),
            Part::Loss { percent, udp_only } => {
                format!("{percent} % loss each way, of {}", if udp_only { "UDP" } else { "everything" })
            }
            Part::Skew { ms } => format!("the downloader hears from its CN {ms} ms later"),
            Part::Birthday => "birthday probing switched on".into(),
            Part::Forced => "pairs that cannot connect, forced".into(),
        };
        let rtt = if self.latency_ms == 0 { String::new() } else { format!(", round trips of {} ms", self.rtt_ms()) };
        format!("### {}: {part}{rtt}, {}, Linux {}\n\n", self.runtime, self.date, self.kernel)
    }

    /// Formats the report as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = self.heading();
        match self.part {
            Part::Pairs | Part::Birthday => {
                text.push_str(&self.table());
                text.push_str(&self.pools());
            }
            Part::Loss { .. } | Part::Skew { .. } => text.push_str(&self.pools()),
            Part::Forced => text.push_str(&self.forced()),
        }
        text
    }

    fn table(&self) -> String {
        let columns: Vec<Kind> =
            Kind::ALL.into_iter().filter(|k| self.cells.iter().any(|c| c.downloader == *k)).collect();
        let heads: String = columns.iter().map(|k| format!(" {} |", k.short())).collect();
        let mut text = format!("| seeder ↓ downloader → |{heads}\n|---|{}\n", "---|".repeat(columns.len()));
        for seeder in Kind::ALL {
            let row: Vec<&Cell> = self.cells.iter().filter(|c| c.seeder == seeder).collect();
            if row.is_empty() {
                continue;
            }
            let mark = |k: &Kind| row.iter().find(|c| c.downloader == *k).map_or(String::new(), |c| c.mark());
            let marks: String = columns.iter().map(|k| format!(" {} |", mark(k))).collect();
            _ = writeln!(text, "| {seeder} |{marks}");
        }
        text.push('\n');
        text
    }

    /// Returns the table of all tries of a kind of pairs taken together, with the lower bound of the rate of success.
    fn pools(&self) -> String {
        let mut text = String::from(
            "| pairs of which | introduced | connected | lower 95 % bound | got bytes | after \"go\", median | p95 |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in self.rows() {
            let ms = |t: Option<f64>| t.map_or("–".into(), |t| format!("{t:.0} ms"));
            let (n, of, bound) = (row.connected, row.tries, row.lower_bound * 100.0);
            let (what, introduced, fed) = (row.class.in_words(), row.introduced, row.fed);
            let times = format!("{} | {}", ms(row.median_ms), ms(row.p95_ms));
            _ = writeln!(text, "| {what} | {introduced}/{of} | {n}/{of} | {bound:.1} % | {fed}/{of} | {times} |");
        }
        text
    }

    /// Returns the table of pairs that cannot connect and were made to try.
    fn forced(&self) -> String {
        let mut text = String::from(
            "| pairs of which | tries | connected | attempts, both sides | longest | reasons | most probes | download, \
             median | longest |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        for class in [Class::Birthday, Class::Never] {
            let tries = self.tries(class);
            if tries.is_empty() {
                continue;
            }
            let ends: Vec<&AttemptLine> = tries.iter().flat_map(|t| t.ends.iter().flatten()).collect();
            let mut reasons: Vec<&str> = ends.iter().map(|e| e.reason.as_deref().unwrap_or(&e.outcome)).collect();
            reasons.sort_unstable();
            reasons.dedup();
            let done: Vec<f64> = tries.iter().filter_map(|t| t.done_ms).collect();
            let s = |share| percentile(&done, share).map_or("–".into(), |ms| format!("{:.1} s", ms / 1000.0));
            let connected = tries.iter().filter(|t| t.connected).count();
            let name = class.in_words();
            _ = writeln!(
                text,
                "| {name} | {} | {connected} | {} | {:.1} s | {} | {} | {} | {} |",
                tries.len(),
                ends.len(),
                f64::from(ends.iter().map(|e| e.took_ms).max().unwrap_or(0)) / 1000.0,
                reasons.join(", "),
                ends.iter().map(|e| e.probes).max().unwrap_or(0),
                s(0.5),
                s(1.0),
            );
        }
        _ = writeln!(text, "\nThe edge alone needs {} s for such a download.", NOMINAL.as_secs());
        text
    }
}

/// Returns whether both sides of a forced pair gave up in time with a reason, and the download took no longer than
/// from the edge alone.
fn is_as_forced(t: &Try) -> bool {
    let ended = |ends: &Vec<AttemptLine>| {
        !ends.is_empty() && ends.iter().all(|e| e.reason.is_some() && e.took_ms <= ATTEMPT_MS)
    };
    let undisturbed = t.done_ms.is_some_and(|ms| ms <= NOMINAL.as_secs_f64() * 1000.0 * UNDISTURBED);
    !t.connected && t.ends.iter().all(ended) && undisturbed
}

/// Formats all reports as the page that is kept beside the lab's source.
#[must_use]
pub fn document(reports: &[Report]) -> String {
    let parts: Vec<String> = reports.iter().map(Report::to_markdown).collect();
    format!("{HEAD}\n{}", parts.join("\n"))
}

/// Text in front of the tables.
const HEAD: &str = "\
# Which pairs connect

Real binaries through a real CN on the kernel's own NATs. Each try installs a fresh client, which downloads 8 MiB that
one seeder holds while the edge sends 512 KiB a second; it connects if the file is complete within 15 s with most bytes
from that peer. Where no round trip is given the lab adds no delay, so times are those of the programs, not of networks.
Bounds are the lower ends of one-sided 95 % confidence intervals (Clopper and Pearson).
`ᵖ`: by predicting ports; `–`: did not connect, and was not even introduced where the second table says 0.

**Loss**: the core drops packets at random; a try connects if its QUIC connection opens within 15 s.
**Skew**: what the downloader hears from its CN, \"go\" included, comes late, so that the seeder's checks come early.
**Forced**: such pairs are not introduced; here both peers first find out about better NATs, which are then replaced.
How each attempt ended is what `why` says on both sides.
**Birthday**: clients run with `--birthday`, which is off otherwise; a try connects as with loss.

```sh
cargo build --release && cargo build --release -p swarmedge-natlab
sudo target/release/swarmedge-natlab whole target/release/swarmedge target/release/swarmedge-smol \\
  --latency 20 --markdown runtimes/natlab/MATRIX.md --json matrix.json
```

A test holds the simulator's and the models' table of pairs to the tables below.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expected;

    fn cell(seeder: Kind, downloader: Kind, connected: &[bool]) -> Cell {
        let one = |connected: &bool| Try {
            connected: *connected,
            after_go_ms: connected.then_some(50.0),
            outcome: connected.then(|| "its reflexive address".into()),
            probes: 3,
            done_ms: Some(8_100.0),
            peer_bytes: 8,
            edge_bytes: 0,
            ends: [Vec::new(), Vec::new()],
        };
        Cell { seeder, downloader, expected: expected(seeder, downloader), tries: connected.iter().map(one).collect() }
    }

    fn report(part: Part, cells: Vec<Cell>) -> Report {
        Report { runtime: "tokio".into(), date: "2026-11-22".into(), kernel: "6".into(), latency_ms: 0, part, cells }
    }

    #[test]
    fn a_table_shows_connections_and_names_unexpected_results() {
        let cells = vec![
            cell(Kind::Public, Kind::Symmetric, &[true, true]),
            cell(Kind::Public, Kind::UdpBlocked, &[false]),
            cell(Kind::Firewall, Kind::SymmetricSequential, &[true]),
            cell(Kind::Firewall, Kind::Symmetric, &[false]),
        ];
        let good = report(Part::Pairs, cells);
        let text = good.to_markdown();
        for line in ["| public |  | ✔ | – |", "| firewall | ✔ᵖ | – |  |"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("| ✔ all that should connect | 2/2 | 2/2 | 22.4 % | 2/2 | 50 ms | 50 ms |"), "{text}");
        assert!(good.failures().is_empty());
        let bad = report(Part::Pairs, vec![cell(Kind::Public, Kind::FullCone, &[true, false])]);
        assert_eq!(bad.failures(), ["public -> full-cone 1/2"]);
        let offered = report(Part::Pairs, vec![cell(Kind::Symmetric, Kind::Symmetric, &[true])]);
        assert_eq!(offered.failures().len(), 1);
        let few = report(Part::Pairs, vec![cell(Kind::Firewall, Kind::SymmetricSequential, &[true, false])]);
        assert_eq!(few.failures(), ["ᵖ ports can be foretold: 1/2"]);
    }

    #[test]
    fn with_packet_loss_a_minimum_share_must_connect() {
        let part = Part::Loss { percent: 30, udp_only: true };
        let of = |good| (0..20).map(|n| n < good).collect::<Vec<_>>();
        let with = |good| report(part, vec![cell(Kind::Public, Kind::FullCone, &of(good))]);
        assert!(with(18).failures().is_empty());
        assert_eq!(with(17).failures().len(), 1);
    }

    #[test]
    fn a_forced_pair_ends_in_time_without_disturbing_the_download() {
        let end = |took_ms| AttemptLine {
            outcome: "failed".into(),
            reason: Some("nothing was heard of it".into()),
            rung: None,
            probes: 15,
            took_ms,
        };
        let mut cell = cell(Kind::Symmetric, Kind::Firewall, &[false]);
        cell.tries[0].ends = [vec![end(2_500)], vec![end(2_501)]];
        let with = |change: &dyn Fn(&mut Try)| {
            let mut cell = cell.clone();
            change(&mut cell.tries[0]);
            report(Part::Forced, vec![cell]).failures().len()
        };
        assert_eq!(with(&|_| {}), 0);
        assert_eq!(with(&|t| t.ends[1].clear()), 1);
        assert_eq!(with(&|t| t.ends[1][0].took_ms = 6_001), 1);
        assert_eq!(with(&|t| t.done_ms = Some(9_300.0)), 1);
        assert_eq!(with(&|t| t.connected = true), 1);
        assert!(
            report(Part::Forced, vec![cell.clone()])
                .to_markdown()
                .contains("| 2.5 s | nothing was heard of it | 15 | 8.1 s |")
        );
    }
}
