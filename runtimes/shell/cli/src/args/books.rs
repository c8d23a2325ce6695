//! Arguments of the commands on the ledger: `ledger`, `accept-loss`, `report`, `audit`, `detect`, `quarantine`, and
//! of `bench ledger`, `bench crash` and `bench receipts`.

use super::{ConfigArgs, ServerArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use swarmedge_ground::terminal::units::Size;
use swarmedge_ledger::Day;

/// Arguments of `swarmedge ledger`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LedgerArgs {
    /// Query or maintenance command; `None` runs the ledger server.
    #[command(subcommand)]
    pub command: Option<LedgerCommand>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Subcommands of `swarmedge ledger`.
#[derive(Clone, Debug, Subcommand)]
pub enum LedgerCommand {
    /// Show what was recorded: by provider, of one object, of one download
    Show(LedgerShowArgs),
    /// Show logs of clients that contradict themselves, with the evidence
    Forks(LedgerForksArgs),
    /// Settle days that are over, commit to them and sign: what they say is never changed again
    CloseDay(LedgerCloseArgs),
    /// Write a provider's closed days, with the proofs that `audit` checks
    Export(LedgerExportArgs),
    /// Copy the whole ledger to a new file, while it is served
    Backup(LedgerBackupArgs),
    /// Erase what the ledger has of a client; statements of closed days stay as they were signed
    Erase(LedgerEraseArgs),
}

/// Arguments of `swarmedge ledger erase`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Erased are the client's logins, locations, registered versions, log heads and blames, and the records \
    of its downloads of closed days. Bills and reports of these days do not change; `audit --evidence` cannot check \
    these downloads any more. Downloads of days that are not closed stay: erase again when they are.\n\n\
    What stays: its changes of keys and its quarantines, which keep cheaters out, and what it said in records of other \
    clients' downloads. The client's own GUID is in `swarmedge status`. Addresses in logins are removed after \
    `address_days` (90) in any case. This cannot be undone; backups are not changed.\n\n\
    Example:\n  swarmedge ledger erase 8f14e45fceea167a5a36dedd4bea2543 --config my-cdn/server.toml"
)]
pub struct LedgerEraseArgs {
    /// The client's GUID: 32 hexadecimal digits
    pub guid: String,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge ledger backup`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The copy is complete as of one moment, and read back before it gets its name. A file that is there is \
    never written over.\n\n\
    To put one back: stop the ledger, move its database away together with the files of that name with -wal and -shm, \
    copy the backup to its place, start. What came after the backup is not in it.\n\n\
    A ledger in PostgreSQL is backed up with pg_dump.\n\n\
    Example:\n  swarmedge ledger backup /media/safe/ledger-2026-11-30.sqlite --config my-cdn/server.toml"
)]
pub struct LedgerBackupArgs {
    /// The file to make
    pub file: PathBuf,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge accept-loss`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A server does not begin a new ledger or spool in place of one that it remembers: FILE.mark lies beside \
    each.\nPut back what is missing, if it is anywhere. Where it is lost for good, this forgets it, and the next start \
    begins an\nempty one, or goes on with a file that lacks what came last. Where nothing is lost nothing is changed.\n\n\
    What is lost with them: with the ledger, the books of open and closed days. With an edge's or CN's spool, records \
    that the\nledger had not acknowledged, and how much the edge had sent of running downloads.\n\n\
    Examples:\n  \
    swarmedge accept-loss ledger --config my-cdn/server.toml\n  \
    swarmedge accept-loss edge --config my-cdn/server.toml"
)]
pub struct AcceptLossArgs {
    /// The server whose file is lost
    #[arg(value_enum, value_name = "ledger|edge|cn")]
    pub keeper: Keeper,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A server that keeps records in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keeper {
    /// The ledger's database.
    Ledger,
    /// An edge's spool.
    Edge,
    /// A connection node's spool.
    Cn,
}

/// Arguments of `swarmedge ledger show`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Peer bytes are billed as the smaller of the two sides' claims, per uploader.\n\n\
    Examples:\n  \
    swarmedge ledger show --config my-cdn/server.toml\n  \
    swarmedge ledger show --provider 1 --path games/game.iso --config my-cdn/server.toml")]
pub struct LedgerShowArgs {
    /// Only this provider
    #[arg(long, value_name = "N")]
    pub provider: Option<u32>,
    /// Only this object's path
    #[arg(long)]
    pub path: Option<String>,
    /// Only this download, with its records
    #[arg(long, value_name = "ID")]
    pub download: Option<String>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge ledger forks`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Each usage record comes with the signed head of its client's log: a hash chain, one a start. Two \
    heads\nthat cannot both be of one log were signed by the same key in two places: a machine that was restored or \
    cloned\nwhile it ran, most often. Each line can be checked with the client's key alone; `--json` prints all of \
    it.\n\n\
    Example:\n  swarmedge ledger forks --config my-cdn/server.toml"
)]
pub struct LedgerForksArgs {
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge ledger close-day`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The ledger server does this by itself, `settle_days` after a day's end. Records that come later \
    are kept, and not billed; so a day that is not due is closed with --force only.\n\n\
    Example:\n  swarmedge ledger close-day --day 2026-11-21 --config my-cdn/server.toml"
)]
pub struct LedgerCloseArgs {
    /// Close all days up to this one, which must be over (UTC) [default: what is due]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub day: Option<Day>,
    /// Also close days that are over but not due yet
    #[arg(long, requires = "day")]
    pub force: bool,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge ledger export`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Nothing in the file is secret from the provider, and `audit` needs nothing else but the operator's \
    root key. Records name clients by their GUIDs, never by addresses. The formats are described in EXPORT.md beside \
    the ledger's source.\n\n\
    Example:\n  \
    swarmedge ledger export --provider 1 --from 2026-11-01 --to 2026-11-21 -o november.jsonl --config my-cdn/server.toml\n  \
    swarmedge ledger export --provider 1 --from 2026-11-01 --to 2026-11-21 --evidence -o records.jsonl \
    --config my-cdn/server.toml\n  \
    swarmedge ledger export --provider 1 --from 2026-11-01 --to 2026-11-21 --format parquet -o november.parquet \
    --config my-cdn/server.toml"
)]
pub struct LedgerExportArgs {
    /// The provider whose statements to write
    #[arg(long, value_name = "N")]
    pub provider: u32,
    /// The first day
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Day,
    /// The last day [default: the first]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Option<Day>,
    /// The format of the file
    #[arg(long, value_enum, default_value = "jsonl")]
    pub format: ExportFormat,
    /// Instead of statements, the records that each download was settled from, for `audit --evidence`
    #[arg(long, conflicts_with = "format")]
    pub evidence: bool,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Write over the file that is there
    #[arg(long)]
    pub force: bool,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge audit`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Needs the files that `ledger export` wrote and the operator's root key, no server. Finds a changed, \
    dropped or added record, a replaced or missing day, a wrong signature, a download billed twice or above its size, \
    and an invoice that says something else: all three figures in bytes must be in it, and its downloads, completed, \
    provider, from and to are compared if they are; with the records, what receipts do not prove.\n\n\
    Exit codes: 0 proven, 7 the exports do not prove what they say (keep them, they are evidence), 8 they do and the \
    invoice says something else, 3 a file is not there, 1 it cannot be read, 2 these are not the exports of one provider, each once.\n\n\
    Examples:\n  \
    swarmedge audit november.jsonl --bundle bundle.toml --invoice invoice.json --seen heads.txt\n  \
    swarmedge audit november.jsonl --bundle bundle.toml --evidence records.jsonl"
)]
pub struct AuditArgs {
    /// The exported days
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The operator's root key
    #[arg(long, value_name = "KEY")]
    pub root: Option<String>,
    /// The install bundle, which names the root key
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub bundle: Option<PathBuf>,
    /// The records that every download was settled from, as `ledger export --evidence` writes them: they must come to
    /// the same figures
    #[arg(long, value_name = "FILE")]
    pub evidence: Option<PathBuf>,
    /// What was billed: JSON with edge_bytes, peer_bytes and plain_bytes, as in `report --format json`
    #[arg(long, value_name = "FILE")]
    pub invoice: Option<PathBuf>,
    /// A file of its own: remember the signed heads here, and compare them with those of earlier audits
    #[arg(long, value_name = "FILE")]
    pub seen: Option<PathBuf>,
}

/// Arguments of `swarmedge report`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Days are UTC; a download counts on the day of its first grant. Figures of closed days are final, and \
    `audit` can prove them.\n\n\
    Examples:\n  \
    swarmedge report --provider 1 --from 2026-11-01 --to 2026-11-30 --config my-cdn/server.toml\n  \
    swarmedge report --provider 1 --format html -o november.html --config my-cdn/server.toml\n  \
    swarmedge report --as-balance --from 2026-11-01 --to 2026-11-30 --config my-cdn/server.toml"
)]
pub struct ReportArgs {
    /// The provider (CP code)
    #[arg(long, value_name = "N", required_unless_present = "as_balance")]
    pub provider: Option<u32>,
    /// What networks (ASes) give to one another instead, of all providers unless one is named
    #[arg(long)]
    pub as_balance: bool,
    /// The first day [default: the first with traffic]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Option<Day>,
    /// The last day [default: the last with traffic]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Option<Day>,
    /// The format [default: text]
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge detect`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Findings are statistical, with their evidence; none makes a download fail, and none is billed \
    otherwise by itself.\n\n\
    clique       clients that, of all peers they are offered, use one another, far more often than others use such peers\n\
    not offered  bytes over introductions that no CN logged\n\
    repeated     one version completed again and again on a day\n\
    failed possession   could not prove that it holds what it says it completed; weak where the content is public\n\
    understated  signed for more of peers' bytes than it filed: the smaller claim was billed; evidence, no accusation\n\
    implausible travel: one client in places too far apart for the time, again and again (needs geo_countries and geo_networks in [cn])\n\
    failed update, restored backup, re-imaged or cloned: secondary GUIDs that fork; the installation needs a new key\n\
    gap          starts that no login joins, four or more in a row having been lost: information only\n\n\
    Example:\n  swarmedge detect --from 2026-11-01 --to 2026-11-30 --config my-cdn/server.toml"
)]
pub struct DetectArgs {
    /// The first day [default: 29 days before the last]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub from: Option<Day>,
    /// The last day [default: the last with records]
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub to: Option<Day>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Subcommands of `swarmedge quarantine`.
#[derive(Clone, Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Give clients no peers, and bill nothing that peers give them or get from them
    Add(QuarantineAddArgs),
    /// Release clients from quarantine
    Remove(QuarantineRemoveArgs),
    /// List the clients that are in quarantine, and those that were
    List(QuarantineListArgs),
}

/// Arguments of `swarmedge quarantine add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "No download fails because of it: edges serve as before. The CNs know within five seconds; \
    connections that peers have made by then end with their introductions, half an hour later at most. Nothing is \
    billed that the client reports from now on. Who takes another key, as copied installations are told to, is in \
    quarantine under its new GUID too. `detect` prints this command for its suspects.\n\n\
    Example:\n  swarmedge quarantine add 7d3f… 91ac… --reason \"clique in November\" --config my-cdn/server.toml")]
pub struct QuarantineAddArgs {
    /// The clients' GUIDs
    #[arg(required = true, value_name = "GUID")]
    pub guids: Vec<String>,
    /// Why; shown by `list`
    #[arg(long, value_name = "TEXT", value_parser = why)]
    pub reason: String,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Parses a reason; refuses an empty one.
fn why(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty: say why, for whoever lets them out") } else { Ok(text.to_owned()) }
}

/// Arguments of `swarmedge quarantine remove`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "They have peers again within five seconds. What was not billed meanwhile is never billed. With \
    a client go the GUIDs that it has become; the one that it was before is to be named itself.\n\n\
    Example:\n  swarmedge quarantine remove 7d3f… --config my-cdn/server.toml"
)]
pub struct QuarantineRemoveArgs {
    /// The clients' GUIDs
    #[arg(required = true, value_name = "GUID")]
    pub guids: Vec<String>,
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `swarmedge quarantine list`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  swarmedge quarantine list --config my-cdn/server.toml")]
pub struct QuarantineListArgs {
    /// Configuration file of the deployment.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// File format of exported days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// JSON lines, one a statement, with the proofs that `audit` checks.
    Jsonl,
    /// A table of the statements for other tools, without proofs.
    Parquet,
}

/// Output format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Text for a terminal.
    Text,
    /// One JSON object.
    Json,
    /// Comma-separated values: a line for the total, and one for each day, object, country and network.
    Csv,
    /// One HTML file with plots that loads nothing else.
    Html,
}

/// Arguments of `swarmedge bench ledger`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Downloads of 30 days, five records each: grant, introduction, downloader, uploader, edge. The database is made and \
    must be empty.\n\n\
    Examples:\n  \
    swarmedge bench ledger --records 1000000\n  \
    swarmedge bench ledger --database postgres://me@localhost/empty"
)]
pub struct BenchLedgerArgs {
    /// Number of records to store
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub records: u32,
    /// Number of records in a batch; each batch is durable before the next
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(5..=1024), value_name = "N")]
    pub batch: u32,
    /// A file or postgres://… [default: a temporary file]
    #[arg(long, value_name = "DATABASE")]
    pub database: Option<String>,
    /// The last of the 30 days
    #[arg(long, default_value = "2026-10-31", value_name = "YYYY-MM-DD")]
    pub until: Day,
    /// Then measure a report over this many downloads, whose rows the database makes itself
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=400_000_000), value_name = "N")]
    pub fill: Option<u32>,
}

/// Arguments of `swarmedge bench crash`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Edge, ledger, CN, DN, STUN, uploaders and downloader are a process each; kill -9 strikes any of them, \
    at times two at once or one that has only just come back. Then the download must end with the right bytes, and \
    the ledger hold never more than was delivered, nor less than that without the open credit of the introductions \
    that the kill cut.\n\n\
    Example:\n  swarmedge bench crash --kills 200"
)]
pub struct BenchCrashArgs {
    /// Number of kills, at least
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub kills: u32,
    /// Seed of the random choice of victims and times [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Bytes of the file
    #[arg(long, default_value = "8MiB")]
    pub size: Size,
    /// Clients that upload
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8), value_name = "N")]
    pub uploaders: u32,
    /// Make the working directory here instead of in the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Keep the working directory
    #[arg(long)]
    pub keep: bool,
}

/// Arguments of `swarmedge bench receipts`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Use the profile dist.\n\nExample:\n  cargo run --profile dist --bin swarmedge -- bench receipts"
)]
pub struct BenchReceiptsArgs {
    /// Bytes that one peer delivers
    #[arg(long, default_value = "256MiB")]
    pub size: Size,
    /// Make the working directory here instead of in the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
