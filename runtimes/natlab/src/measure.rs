//! The natlab commands that measure: pairs, loss, skew, forced pairs, and all of these together.

use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process;
use swarmedge_natlab::matrix::{self, Cell, Options, Part, Report};
use swarmedge_natlab::{Error, Kind, require};

/// Delays of the CN's messages, in milliseconds, that are tried with routers of [`Kind::MasqueradeOpen`]: Linux
/// masquerading without an input filter, so that a peer's early probe can take the outside port.
const SKEWS_MS: [u16; 3] = [100, 250, 500];

pub(crate) const MATRIX_HELP: &str = "Each try installs a fresh client, which downloads 8 MiB that one seeder holds while the edge sends slowly: a try \
    connects if the file is complete in 15 s with most bytes from that peer. Without --latency the lab has no \
    delay: times are those of the programs.\n\n\
    Examples:\n  \
    swarmedge-natlab matrix target/release/swarmedge --tries 10 --markdown matrix.md --json matrix.json\n  \
    swarmedge-natlab matrix target/release/swarmedge target/release/swarmedge-smol --reduced\n  \
    swarmedge-natlab matrix target/release/swarmedge --cell public:symmetric --tries 50\n  \
    swarmedge-natlab matrix target/release/swarmedge --skew 500 --tries 10\n  \
    swarmedge-natlab matrix target/release/swarmedge --forced";

/// Options that all measuring commands take.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Binaries to measure, one table each
    #[arg(required = true)]
    programs: Vec<PathBuf>,
    /// Cells to measure at the same time
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Milliseconds by which each packet that crosses the core is delayed; round trips take twice as much longer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency: u16,
    /// File to write the tables to
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// File to write every try to
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    common: Common,
    /// One cell a kind instead of all pairs
    #[arg(long, conflicts_with = "cell")]
    reduced: bool,
    /// Measure only these cells: SEEDER:DOWNLOADER
    #[arg(long, value_parser = cell)]
    cell: Vec<(Kind, Kind)>,
    /// Number of tries of each cell that should connect
    #[arg(long, default_value_t = 3)]
    tries: u32,
    /// Number of tries of each cell that should not connect, or only by luck
    #[arg(long, default_value_t = 1)]
    tries_of_others: u32,
    /// Milliseconds by which the CN's messages to the downloader are delayed; without --cell, pairs with a
    /// masquerade-open
    #[arg(long, value_name = "MS", conflicts_with = "forced")]
    skew: Option<u16>,
    /// Introduce pairs that cannot connect, and see how they end; without --cell, all of them
    #[arg(long)]
    forced: bool,
    /// Switch birthday probing on; without --cell, pairs that need it
    #[arg(long, conflicts_with_all = ["skew", "forced"])]
    birthday: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LossArgs {
    #[command(flatten)]
    common: Common,
    /// Share of packets that the core loses in each direction, in percent
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=90))]
    percent: u8,
    /// Smallest number of tries, over all cells that should connect
    #[arg(long, default_value_t = 300)]
    tries: u32,
    /// Lose UDP datagrams only: HTTPS and control connections are spared
    #[arg(long)]
    udp_only: bool,
    /// Measure only these cells: SEEDER:DOWNLOADER
    #[arg(long, value_parser = cell)]
    cell: Vec<(Kind, Kind)>,
}

#[derive(Debug, Args)]
pub(crate) struct WholeArgs {
    #[command(flatten)]
    common: Common,
    /// Number of tries of each cell that should connect
    #[arg(long, default_value_t = 10)]
    tries: u32,
    /// Number of tries with loss, over all cells
    #[arg(long, default_value_t = 300)]
    loss_tries: u32,
}

#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Files that `--json` has written
    #[arg(required = true)]
    measured: Vec<PathBuf>,
}

fn cell(text: &str) -> Result<(Kind, Kind), String> {
    let (a, b) = text.split_once(':').ok_or("write SEEDER:DOWNLOADER")?;
    Ok((a.parse()?, b.parse()?))
}

/// A part of the measurement: its cells and the number of tries of each.
struct Plan {
    part: Part,
    cells: Vec<(Kind, Kind)>,
    tries: u32,
    tries_of_others: u32,
}

impl Plan {
    fn of(part: Part, tries: u32, tries_of_others: u32) -> Self {
        Self { part, cells: matrix::cells_of(part), tries, tries_of_others }
    }

    /// Returns a plan in which each cell gets an equal number of tries, together at least `tries`.
    fn pooled(part: Part, cells: Vec<(Kind, Kind)>, tries: u32) -> Self {
        let each = tries.div_ceil(u32::try_from(cells.len()).unwrap_or(1).max(1));
        Self { part, cells, tries: each, tries_of_others: each }
    }
}

/// Measures which pairs of NATs connect: directly, or in the part of the measurement that the arguments name (clocks
/// that differ, hole punching forced, many ports).
pub(crate) fn pairs(args: &MatrixArgs) -> Result<(), Error> {
    let part = match args.skew {
        Some(ms) => Part::Skew { ms },
        None if args.forced => Part::Forced,
        None if args.birthday => Part::Birthday,
        None => Part::Pairs,
    };
    let mut plan = Plan::of(part, args.tries, args.tries_of_others);
    if args.reduced {
        plan.cells = matrix::reduced_cells();
    } else if !args.cell.is_empty() {
        plan.cells.clone_from(&args.cell);
    }
    run(&args.common, &[plan])
}

/// Measures which pairs of NATs connect on networks that lose packets.
pub(crate) fn loss(args: &LossArgs) -> Result<(), Error> {
    let part = Part::Loss { percent: args.percent, udp_only: args.udp_only };
    let cells = if args.cell.is_empty() { matrix::cells_of(part) } else { args.cell.clone() };
    run(&args.common, &[Plan::pooled(part, cells, args.tries)])
}

/// Measures everything: all pairs, forced hole punching, clocks that differ, lost packets.
pub(crate) fn whole(args: &WholeArgs) -> Result<(), Error> {
    let mut plans = vec![Plan::of(Part::Pairs, args.tries, 1), Plan::of(Part::Forced, 1, 1)];
    plans.extend(SKEWS_MS.map(|ms| Plan::of(Part::Skew { ms }, args.tries.div_ceil(2), 0)));
    let losses = [Part::Loss { percent: 5, udp_only: false }, Part::Loss { percent: 30, udp_only: true }];
    plans.extend(losses.map(|part| Plan::pooled(part, matrix::cells_of(part), args.loss_tries)));
    run(&args.common, &plans)
}

/// Prints the page with the results of earlier measurements, which several commands may have written.
pub(crate) fn page(args: &PageArgs) -> Result<(), Error> {
    let mut reports: Vec<Report> = Vec::new();
    for file in &args.measured {
        let wrong = |e: &dyn std::fmt::Display| Error(format!("{}: {e}", file.display()));
        let text = fs::read_to_string(file).map_err(|e| wrong(&e))?;
        reports.extend(serde_json::from_str::<Vec<Report>>(&text).map_err(|e| wrong(&e))?);
    }
    println!("{}", matrix::document(&reports).trim_end());
    Ok(())
}

/// Measures every plan with every binary; results are written before the next measurement begins.
fn run(common: &Common, plans: &[Plan]) -> Result<(), Error> {
    require::check()?;
    let tool = std::env::current_exe().map_err(|e| Error(format!("find this program's file: {e}")))?;
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for plan in plans {
        for program in &common.programs {
            let program = program.canonicalize().map_err(|e| Error(format!("{}: {e}", program.display())))?;
            let version = output(&program.display().to_string(), &["--version", "--json"])?;
            let version: serde_json::Value = serde_json::from_str(&version).unwrap_or_default();
            let options = Options {
                program,
                tool: tool.clone(),
                latency_ms: common.latency,
                part: plan.part,
                cells: plan.cells.clone(),
                tries: plan.tries,
                tries_of_others: plan.tries_of_others,
                parallel: common.parallel,
            };
            let report = Report {
                runtime: version["runtime"].as_str().unwrap_or("unknown").to_owned(),
                date: output("date", &["-u", "+%F"])?,
                kernel: output("uname", &["-r"])?,
                latency_ms: common.latency,
                part: plan.part,
                cells: matrix::measure(&options, &tell)?,
            };
            println!("{}", report.to_markdown());
            failures.extend(report.failures().into_iter().map(|f| format!("{}: {f}", report.runtime)));
            reports.push(report);
            write(common.markdown.as_ref(), &matrix::document(&reports))?;
            write(common.json.as_ref(), &serde_json::to_string_pretty(&reports).map_err(|e| Error(e.to_string()))?)?;
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error(format!("not as it should be:\n  {}", failures.join("\n  ")))) }
}

fn tell(cell: &Cell) {
    let ok = cell.tries.iter().filter(|t| t.connected).count();
    eprintln!("{:>22} -> {:22} {ok}/{}", cell.seeder, cell.downloader, cell.tries.len());
}

fn output(program: &str, args: &[&str]) -> Result<String, Error> {
    let out = process::Command::new(program).args(args).output().map_err(|e| Error(format!("{program}: {e}")))?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn write(file: Option<&PathBuf>, text: &str) -> Result<(), Error> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, text).map_err(|e| Error(format!("write {}: {e}", file.display())))
}
