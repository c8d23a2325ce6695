//! The demo's report: each download's figures beside those of the ledger, and whether they agree.

use std::fmt::Write as _;
use std::time::Duration;
use swarmedge_ground::terminal::units::{bytes, percent, rate};
use swarmedge_ledger::DownloadUsage;

/// Result of one download, from its client and the downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the client.
    pub name: String,
    /// Runtime of the client: `tokio` or `smol`.
    pub runtime: String,
    /// Download id in hexadecimal.
    pub id: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// Verified bytes from edges, each counted once.
    pub edge_bytes: u64,
    /// Verified bytes from peers, each counted once.
    pub peer_bytes: u64,
    /// Bytes received and discarded, as duplicate or wrong.
    pub wasted_bytes: u64,
    /// Time from the start of the download to the finished file.
    pub time: Duration,
    /// Whether the file has the SHA-256 of the published one.
    pub matches: bool,
}

/// Comparison of a download with the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Sentences about contradictions between client and ledger; may vanish when late records arrive.
    pub wrong: Vec<String>,
    /// Sentences that explain legitimate differences.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Compares a download with its bill in the ledger, if any. `silenced` is the name of a client that was killed
    /// before it could report as uploader, whose bytes may be missing.
    #[must_use]
    pub fn of(outcome: &Outcome, bill: Option<&DownloadUsage>, silenced: Option<&str>) -> Self {
        let mut v = Self::default();
        let Some(bill) = bill else {
            v.wrong.push("the ledger does not know it".into());
            return v;
        };
        if bill.state != "completed" {
            v.wrong.push(format!("it is complete, in the ledger {}", bill.state));
        }
        if outcome.edge_bytes.saturating_add(outcome.peer_bytes) != outcome.size {
            v.wrong.push(format!(
                "its client counts {} bytes from the edge and {} from peers, which is not the size of {}",
                outcome.edge_bytes, outcome.peer_bytes, outcome.size
            ));
        }
        v.same("bytes of the object", outcome.size, bill.size);
        v.same("bytes from the edge by its client", outcome.edge_bytes, bill.edge_claimed);
        v.same("bytes from peers by its client", outcome.peer_bytes, bill.peers_received);
        match bill.edge_unique.checked_sub(bill.edge_claimed) {
            Some(0) => {}
            Some(more) => v.notes.push(format!(
                "the edge sent {more} bytes that a peer had delivered first or that were under way when they were cancelled"
            )),
            None => v.wrong.push(format!(
                "the edge has recorded {} bytes where its client got {} from it",
                bill.edge_unique, bill.edge_claimed
            )),
        }
        v.compare_peers(bill, silenced);
        v
    }

    fn compare_peers(&mut self, bill: &DownloadUsage, silenced: Option<&str>) {
        // `agreed` is per introduction: an uploader's excess cannot compensate another's missing report
        let agreed = bill.uploaders.iter().map(|u| u.agreed).sum::<u64>();
        let more = bill.peers_sent.saturating_sub(agreed);
        if more > 0 {
            self.notes
                .push(format!("peers sent {more} bytes that another source had delivered first; nobody pays for them"));
        }
        match (bill.peers_received.saturating_sub(agreed), silenced) {
            (0, _) => {}
            (less, Some(name)) => self.notes.push(format!(
                "{name} was killed before it could report {less} bytes that it had sent; without its word they are not billed"
            )),
            (less, None) => self.wrong.push(format!("uploaders have not recorded {less} bytes that peers delivered")),
        }
        let room = bill.size.saturating_sub(bill.edge_unique);
        let billed = bill.peers_billed;
        if billed > agreed.min(room) {
            self.wrong.push(format!("{billed} peer bytes are billed where both sides agree on {}", agreed.min(room)));
        } else if billed < agreed {
            self.notes.push(format!("{} peer bytes are not billed: the edge had sent them too", agreed - billed));
        }
    }

    fn same(&mut self, what: &str, seen: u64, recorded: u64) {
        if seen != recorded {
            self.wrong.push(format!("{what}: {seen}, in the ledger {recorded}"));
        }
    }

    /// Returns whether client and ledger agree about the download.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// One row of the report: result, ledger entry if there is one, comparison.
pub type Row = (Outcome, Option<DownloadUsage>, Verdict);

/// Maximum width of the report, in columns, so that a terminal of 80 columns does not wrap it.
const COLUMNS: usize = 79;

/// Returns whether a download's file is right and the ledger agrees with it.
fn is_right((outcome, _, verdict): &Row) -> bool {
    outcome.matches && verdict.agrees()
}

/// Formats the report as a text table of the downloads, with one line for the first `seeders` rows if these are right,
/// and contradictions below.
#[must_use]
pub fn table(rows: &[Row], seeders: usize) -> String {
    let (first, others) = rows.split_at(seeders.min(rows.len()));
    let shown = if first.iter().all(is_right) { others } else { rows };
    let runtimes = rows.iter().any(|(o, ..)| rows.iter().any(|(other, ..)| other.runtime != o.runtime));
    let mut cells: Vec<Vec<String>> =
        vec![["client", "edge", "peers", "share", "time", "rate", "file", "books"].map(String::from).to_vec()];
    cells.extend(shown.iter().map(|row| cells_of(row, runtimes)));
    let width = |i: usize| cells.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    let mut text = String::new();
    for line in &cells {
        for (i, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[i] - cell.chars().count());
            // names are aligned left, figures right
            let _ = if i == 0 { write!(text, "{cell}{pad}") } else { write!(text, "  {pad}{cell}") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    if shown.len() < rows.len() {
        let slowest = first.iter().map(|(o, ..)| o.time).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "before: {} fetched it, in {}; files right, books agree",
            clients(first.len()),
            seconds(slowest)
        );
    }
    for (outcome, _, verdict) in rows {
        for wrong in &verdict.wrong {
            text.push_str(&wrapped(&format!("{}: {wrong}", outcome.name)));
        }
    }
    text
}

/// Returns a summary in words: who did what, how much came from peers, and whether all is right.
#[must_use]
pub fn words(rows: &[Row], seeders: usize) -> String {
    let (first, downloads) = rows.split_at(seeders.min(rows.len()));
    let sum = |of: fn(&Outcome) -> u64| downloads.iter().map(|(o, ..)| of(o)).fold(0u64, u64::saturating_add);
    let (edge, peers) = (sum(|o| o.edge_bytes), sum(|o| o.peer_bytes));
    let all = edge.saturating_add(peers);
    let uploaders = downloads.iter().filter_map(|(_, bill, _)| bill.as_ref()).map(|b| b.uploaders.len()).max();
    let mut told = String::from(
        "An edge served the file over HTTPS. A connection node, with a database node that knows who has what, introduced \
         the clients to one another; a STUN server told them their addresses; a ledger booked every byte. ",
    );
    if !first.is_empty() {
        told.push_str(&format!("{} fetched the file first. ", clients(first.len())));
    }
    let from = match uploaders.unwrap_or(0) {
        0 => "had no peers".to_owned(),
        1 => "had one peer each".to_owned(),
        n => format!("had up to {n} peers each"),
    };
    told.push_str(&format!("{} downloaded it, and {from}.", clients(downloads.len())));
    let share = percent(peers, all);
    let mut result = format!(
        "{}: {} of {} ({share}) came from peers, {} from the edge.",
        if downloads.len() == 1 { "1 download".to_owned() } else { format!("{} downloads", downloads.len()) },
        bytes(peers),
        bytes(all),
        bytes(edge)
    );
    result.push_str(if rows.iter().all(is_right) {
        " Every file is right, and the ledger's books agree with the clients to the byte."
    } else {
        " Something is WRONG: see the lines above."
    });
    if rows.iter().any(|(_, _, verdict)| !verdict.notes.is_empty()) {
        result.push_str(
            " A few bytes were sent twice, where edge and peer crossed, or were not reported by who was killed: --json \
             explains each.",
        );
    }
    format!("{}\n{}", wrapped(&told), wrapped(&result))
}

/// Returns the commands that may come next; `program` is the file of this program, `kept` the directory that was kept.
#[must_use]
pub fn next(program: &str, kept: Option<&str>) -> String {
    let own = ("a deployment of your own:", "init my-cdn".to_owned());
    let steps = match kept {
        Some(dir) => vec![
            ("the ledger's books:", format!("ledger show --config {dir}/server.toml")),
            ("whom the first download met:", format!("why --state {dir}/clients/download-1")),
            own,
        ],
        None => vec![
            ("servers and a client are killed half way:", "demo --chaos".to_owned()),
            ("keep the books and logs, to look into them:", "demo --keep".to_owned()),
            own,
        ],
    };
    let lines = steps.into_iter().map(|(what, args)| format!("  {what}\n      {program} {args}"));
    format!("Next:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn clients(n: usize) -> String {
    if n == 1 { "1 client".into() } else { format!("{n} clients") }
}

fn seconds(time: Duration) -> String {
    format!("{}.{:02} s", time.as_secs(), time.subsec_millis() / 10)
}

/// Breaks a text into lines of at most [`COLUMNS`] columns, where no word is longer.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let len = word.chars().count();
        let fits = column + 1 + len <= COLUMNS;
        match column {
            0 => {}
            _ if fits => out.push(' '),
            _ => out.push('\n'),
        }
        column = if column > 0 && fits { column + 1 + len } else { len };
        out.push_str(word);
    }
    out.push('\n');
    out
}

fn cells_of((o, _, verdict): &Row, runtimes: bool) -> Vec<String> {
    let total = o.edge_bytes.saturating_add(o.peer_bytes);
    vec![
        if runtimes { format!("{} {}", o.name, o.runtime) } else { o.name.clone() },
        bytes(o.edge_bytes),
        bytes(o.peer_bytes),
        percent(o.peer_bytes, total),
        seconds(o.time),
        rate(o.size, o.time),
        if o.matches { "right".into() } else { "WRONG".into() },
        if verdict.agrees() { "agree".into() } else { "WRONG".into() },
    ]
}

/// Returns a row as JSON for `--json`.
#[must_use]
pub fn json((o, bill, verdict): &Row) -> serde_json::Value {
    serde_json::json!({
        "client": o.name, "runtime": o.runtime, "download": o.id, "size_bytes": o.size,
        "edge_bytes": o.edge_bytes, "peer_bytes": o.peer_bytes, "wasted_bytes": o.wasted_bytes,
        "time_ms": u64::try_from(o.time.as_millis()).unwrap_or(u64::MAX), "sha256_match": o.matches,
        "ledger": bill, "agrees": verdict.agrees(), "wrong": verdict.wrong, "notes": verdict.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_ledger::UploaderUsage;

    fn outcome() -> Outcome {
        Outcome {
            name: "download-1".into(),
            runtime: "smol".into(),
            id: "00".into(),
            size: 100,
            edge_bytes: 30,
            peer_bytes: 70,
            wasted_bytes: 0,
            time: Duration::from_millis(1230),
            matches: true,
        }
    }

    fn bill() -> DownloadUsage {
        DownloadUsage {
            download: "00".into(),
            provider: 1,
            path: "demo/file".into(),
            version: "11".into(),
            guid: "22".into(),
            size: 100,
            issued_ms: 5,
            state: "completed",
            elapsed_ms: 1000,
            edge_unique: 30,
            edge_total: 30,
            edge_claimed: 30,
            peers_received: 70,
            peers_sent: 70,
            peers_receipted: 70,
            peers_billed: 70,
            flagged: 0,
            possession: None,
            uploaders: uploaders(70),
        }
    }

    fn uploaders(agreed: u64) -> Vec<UploaderUsage> {
        vec![UploaderUsage { guid: "33".into(), sent: agreed, received: 70, receipted: agreed, agreed }]
    }

    fn verdict(bill: &DownloadUsage) -> Verdict {
        Verdict::of(&outcome(), Some(bill), None)
    }

    #[test]
    fn equal_figures_agree_without_remarks() {
        assert_eq!(verdict(&bill()), Verdict::default());
    }

    #[test]
    fn every_byte_that_is_not_recorded_is_a_disagreement() {
        for wrong in [
            DownloadUsage { size: 99, ..bill() },
            DownloadUsage { edge_claimed: 29, edge_unique: 29, ..bill() },
            DownloadUsage { edge_unique: 29, ..bill() },
            DownloadUsage { peers_received: 69, ..bill() },
            DownloadUsage { peers_sent: 69, peers_billed: 69, uploaders: uploaders(69), ..bill() },
            // one uploader claims too much, another too little, with equal sums
            DownloadUsage { peers_billed: 60, uploaders: uploaders(60), ..bill() },
            DownloadUsage { peers_billed: 71, ..bill() },
            DownloadUsage { state: "running", ..bill() },
        ] {
            assert!(!verdict(&wrong).agrees(), "{wrong:?}");
        }
        assert!(!Verdict::of(&outcome(), None, None).agrees());
        let short = Outcome { peer_bytes: 69, ..outcome() };
        let bill = DownloadUsage { peers_received: 69, peers_sent: 69, peers_billed: 69, ..bill() };
        assert!(!Verdict::of(&short, Some(&bill), None).agrees());
    }

    #[test]
    fn bytes_sent_twice_and_a_killed_seeder_are_explained() {
        let v = verdict(&DownloadUsage { edge_unique: 35, peers_billed: 65, ..bill() });
        assert!(v.agrees() && v.notes.len() == 2, "{v:?}");
        let killed = DownloadUsage { peers_sent: 60, peers_billed: 60, uploaders: uploaders(60), ..bill() };
        assert!(!verdict(&killed).agrees());
        let v = Verdict::of(&outcome(), Some(&killed), Some("seeder-1"));
        assert!(v.agrees() && v.notes[0].contains("seeder-1 was killed before it could report 10 bytes"), "{v:?}");
    }

    fn rows(downloads: usize, seeders: usize, runtimes: [&str; 2]) -> Vec<Row> {
        let name =
            |n: usize| if n < seeders { format!("seeder-{}", n + 1) } else { format!("download-{}", n - seeders + 1) };
        let row = |n: usize| {
            let size = 999_900_000;
            let (edge_bytes, time) = (size / 7, Duration::from_millis(98_760));
            let outcome = Outcome {
                name: name(n),
                runtime: runtimes[n % 2].into(),
                size,
                edge_bytes,
                peer_bytes: size - edge_bytes,
                time,
                ..outcome()
            };
            (outcome, Some(bill()), Verdict::default())
        };
        (0..downloads + seeders).map(row).collect()
    }

    #[test]
    fn the_report_fits_80_columns_and_says_what_happened() {
        for runtimes in [["tokio", "tokio"], ["tokio", "smol"]] {
            let rows = rows(12, 3, runtimes);
            let kept = "/tmp/swarmedge-demo-1";
            let texts = [table(&rows, 3), words(&rows, 3), next("target/release/swarmedge", None)];
            for line in texts.iter().flat_map(|text| text.lines()) {
                assert!(line.chars().count() < 80, "{} columns: {line}", line.chars().count());
            }
            assert!(
                texts[0].contains("before: 3 clients fetched it") && !texts[0].contains("seeder-1"),
                "{}",
                texts[0]
            );
            for part in ["introduced", "(85.7 %) came from peers", "books agree", "12 downloads"] {
                let flat = texts[1].replace('\n', " ");
                assert!(flat.contains(part), "{part} in {flat}");
            }
            assert!(next("x", Some(kept)).contains("x ledger show --config /tmp/swarmedge-demo-1/server.toml"));
        }
    }

    #[test]
    fn the_table_is_aligned_and_names_contradictions() {
        let good = (outcome(), Some(bill()), Verdict::default());
        let bad_bill = DownloadUsage { peers_received: 1, ..bill() };
        let seen = verdict(&bad_bill);
        let bad = (Outcome { name: "x".into(), matches: false, ..outcome() }, Some(bad_bill), seen);
        let all = [bad.clone(), good.clone()];
        let text = table(&all, 1);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("x ") && lines[1].ends_with("WRONG  WRONG"), "a seeder too: {text}");
        assert!(lines[2].starts_with("download-1") && lines[2].ends_with("right  agree"), "{text}");
        assert!(lines[3].starts_with("x: bytes from peers by its client: 70, in the ledger 1"), "{text}");
        assert_eq!(lines[1].find("WRONG").map(|i| i + 5), lines[0].find("file").map(|i| i + 4));
        assert!(words(&all, 1).contains("WRONG") && !words(&[good.clone(), good], 1).contains("WRONG"));
    }
}
