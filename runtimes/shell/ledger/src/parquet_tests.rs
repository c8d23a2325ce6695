//! Exported Parquet files, read back by our library and by another program.

use super::close_tests::honest_with;
use super::report::{Figures, Report, Row};
use super::report_tests::{FIRST, PROVIDER, written};
use super::*;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::RowAccessor as _;
use futures_lite::future::block_on;
use std::path::PathBuf;
use std::process::Command;

/// Five closed days in a Parquet file, and the report of the same days.
struct Exported {
    dir: tempfile::TempDir,
    rows: usize,
    report: Report,
}

impl Exported {
    fn new() -> Self {
        let (ledger, last) = (honest_with(written, Day(FIRST.0 + 4)), Day(FIRST.0 + 4));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("days.parquet");
        let (rows, report) = block_on(async {
            let mut reader = Reader::open(&ledger.path).await.expect("opens");
            let mut archive = parquet::Archive::create(&path).expect("made");
            for day in (FIRST.0..=last.0).map(Day) {
                let spots = reader.spots(PROVIDER, day).await.expect("read");
                archive.add(&reader.provider_day(PROVIDER, day).await.expect("closed"), &spots).expect("written");
            }
            (archive.finish().expect("written"), reader.report(PROVIDER, FIRST, last).await.expect("read"))
        });
        Self { dir, rows, report }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("days.parquet")
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).expect("small")
}

#[test]
fn a_parquet_file_has_every_statement_and_the_sums_of_the_report() {
    let exported = Exported::new();
    let (totals, file) = (&exported.report.totals, std::fs::File::open(exported.path()).expect("opens"));
    let file = SerializedFileReader::new(file).expect("Parquet");
    let all: Vec<_> = file.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!((all.len(), exported.rows), (8 + 3, 8 + 3), "downloads, and one version's plain traffic on three days");
    let sum = |column: usize| all.iter().map(|row| row.get_long(column).expect("a number")).sum::<i64>();
    let of_report = [totals.edge_bytes, totals.peer_bytes, totals.flagged_bytes, totals.plain()].map(number);
    assert_eq!([9, 10, 11, 12].map(sum), of_report);
    assert!(totals.plain() > 0 && totals.peer_bytes > 0);
    let located = all.iter().filter(|row| row.get_string(14).is_ok_and(|country| country == "DE"));
    assert_eq!(located.count(), 8);
    assert!(all.iter().all(|row| row.get_string(2).is_ok_and(|kind| kind == "download" || kind == "plain")));
}

/// Script that prints a line per group of rows: kind, name, numbers of downloads and completed ones, and bytes from
/// edges, from peers, flagged, and plain HTTP.
const SCRIPT: &str = r#"
import duckdb, sys
file = duckdb.read_parquet(sys.argv[1])
print("columns", *(f"{name}:{kind}" for name, kind in zip(file.columns, file.types)))
sums = """count(*) FILTER (kind = 'download'), count(*) FILTER (outcome = 'completed'),
          sum(edge_bytes), sum(peer_bytes), sum(flagged_bytes), sum(plain_bytes)"""
for what, name in [("total", "''"), ("day", "day"), ("object", "path"), ("country", "country"), ("network", "'AS' || asn")]:
    for row in duckdb.sql(f"SELECT {name} AS name, {sums} FROM file GROUP BY 1 HAVING name IS NOT NULL").fetchall():
        print(what, *row, sep="\t")
broken = duckdb.sql("""SELECT count(*) FROM file WHERE provider <> 7 OR length(version) <> 64
    OR (kind = 'download') <> (download IS NOT NULL AND path IS NOT NULL AND size IS NOT NULL AND length(evidence) = 64
        AND peer_bytes <= max_peer_bytes AND edge IS NULL)
    OR (kind = 'plain') <> (length(edge) = 64 AND download IS NULL AND path IS NULL AND size IS NULL AND outcome IS NULL)""")
print("broken", broken.fetchall()[0][0])
print("downloads", duckdb.sql("SELECT count(DISTINCT download) FROM file").fetchall()[0][0])
"#;

const COLUMNS: &str = "columns day:DATE provider:BIGINT kind:VARCHAR download:VARCHAR path:VARCHAR version:VARCHAR \
    edge:VARCHAR size:BIGINT outcome:VARCHAR edge_bytes:BIGINT peer_bytes:BIGINT flagged_bytes:BIGINT \
    plain_bytes:BIGINT max_peer_bytes:BIGINT country:VARCHAR asn:BIGINT evidence:VARCHAR";

/// Formats figures like a line of [`SCRIPT`].
fn line(what: &str, name: &str, f: &Figures) -> String {
    let bytes = format!("{}\t{}\t{}\t{}", f.edge_bytes, f.peer_bytes, f.flagged_bytes, f.plain());
    format!("{what}\t{name}\t{}\t{}\t{bytes}", f.downloads, f.completed)
}

#[test]
fn another_program_reads_the_same_figures() {
    let exported = Exported::new();
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/tools/duckdb");
    let read = Command::new("python3").env("PYTHONPATH", package).args(["-c", SCRIPT]).arg(exported.path()).output();
    let has_duckdb = Command::new("python3").env("PYTHONPATH", package).args(["-c", "import duckdb"]).status();
    if !has_duckdb.is_ok_and(|s| s.success()) {
        return swarmedge_seeds::skip("the Python package duckdb is not installed (`.ci/run tools` installs it)");
    }
    let read = read.expect("python3 starts");
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success(), "{text}{}", String::from_utf8_lossy(&read.stderr));
    let mut found: Vec<&str> = text.lines().collect();
    found.sort_unstable();
    let r = &exported.report;
    let rows =
        |what: &str, rows: &[Row]| rows.iter().map(|row| line(what, &row.name, &row.figures)).collect::<Vec<_>>();
    let days: Vec<Row> = r.days.iter().filter(|d| d.figures.downloads + d.figures.plain() > 0).cloned().collect();
    let mut expected = vec![COLUMNS.to_owned(), "broken 0".into(), format!("downloads {}", r.totals.downloads)];
    expected.push(line("total", "", &r.totals));
    expected.extend(rows("day", &days));
    // rows of plain traffic have no path in the file: the report finds the object by the version
    let mut objects = r.objects.clone();
    objects.iter_mut().for_each(|row| row.figures.plain_bytes = None);
    expected.extend(rows("object", &objects));
    expected.extend(rows("country", &r.countries));
    expected.extend(rows("network", &r.networks));
    expected.sort_unstable();
    assert_eq!(found, expected);
}
