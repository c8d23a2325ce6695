//! The lab as a tool: builds one, runs commands in it, breaks it, takes it down.

use clap::{Args, Parser, Subcommand};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{self, ExitCode};
use swarmedge_natlab::matrix::{self, Cell, Options, Report};
use swarmedge_natlab::plan::{Ipv6, Site};
use swarmedge_natlab::{Error, Kind, Lab, Plan, expected, janitor, require, rules};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "swarmedge-natlab",
    about = "A small internet of real Linux NATs in network namespaces. Needs root, iproute2, nftables and conntrack; \
             makes nothing in the host's own network.",
    after_help = "Start here:\n  \
        sudo swarmedge-natlab check                          can this machine build a lab?\n  \
        sudo swarmedge-natlab up                             one peer behind every kind of router\n  \
        sudo swarmedge-natlab up alice=symmetric bob=full-cone,rate=20 home=port-restricted,peers=2,hairpin\n  \
        sudo swarmedge-natlab exec alice -- swarmedge nat    run a command as that peer\n  \
        sudo swarmedge-natlab exec alice-nat -- conntrack -L look inside its router\n  \
        sudo swarmedge-natlab flush alice                    its router forgets every mapping\n  \
        sudo swarmedge-natlab down\n\n\
        Several labs can be up at once: name them with --lab."
)]
struct Cli {
    /// Which lab
    #[arg(short, long, global = true, default_value = "lab0", env = "SWARMEDGE_NATLAB")]
    lab: String,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether this machine can build a lab, and what is missing
    Check,
    /// List the kinds of routers and which pairs can connect
    Kinds,
    /// Print the nftables rules of a kind
    Rules {
        /// Which kind.
        kind: Kind,
    },
    /// Build a lab and keep it
    Up(UpArgs),
    /// Build a lab, run a command on the host, take the lab down whatever happens
    Run {
        /// What to build.
        #[command(flatten)]
        up: UpArgs,
        /// The command; `swarmedge-natlab exec` inside it finds the lab.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show what is up
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command inside a node
    Exec {
        /// A server, peer or router, or `core`.
        node: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// A site's routers forget every mapping
    Flush {
        /// Which site.
        site: String,
    },
    /// A site gets another address and forgets every mapping
    Rebind {
        /// Which site.
        site: String,
    },
    /// Lose a share of all packets that cross the core, each way
    Lose {
        /// Percent; 0 ends it.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
    },
    /// Count the UDP packets that a peer sends, by where they go: begins counting, then shows
    Sent {
        /// Which peer.
        node: String,
    },
    /// Download between every pair of kinds with real binaries, and print the table
    #[command(after_help = MATRIX_HELP)]
    Matrix(MatrixArgs),
    /// Take the lab down, whatever runs inside
    Down {
        /// Every lab of this machine.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct UpArgs {
    /// NAME=KIND[,peers=N][,hairpin][,rate=MBIT][,ipv6=open|firewall]; without any, one of every kind
    #[arg(value_name = "SITE", value_parser = site)]
    sites: Vec<Site>,
    /// NAME[:ADDRESSES], comma-separated
    #[arg(long, value_delimiter = ',', value_parser = server, default_value = "edge,cn,dn,stun:2")]
    servers: Vec<(String, u8)>,
}

const MATRIX_HELP: &str = "Each try installs a fresh client, which downloads 8 MiB that one seeder holds while the edge \
    sends slowly: a try connects if the file is complete in 8 s with most bytes from that peer. The lab has no delay: \
    times are those of the programs.\n\n\
    Examples:\n  \
    swarmedge-natlab matrix target/release/swarmedge --tries 10 --markdown matrix.md --json matrix.json\n  \
    swarmedge-natlab matrix target/release/swarmedge target/release/swarmedge-smol --reduced\n  \
    swarmedge-natlab matrix target/release/swarmedge --cell public:symmetric --loss 30 --tries 50";

#[derive(Debug, Args)]
struct MatrixArgs {
    /// The binaries, one table each
    #[arg(required = true)]
    programs: Vec<PathBuf>,
    /// One cell a kind instead of all pairs
    #[arg(long, conflicts_with = "cell")]
    reduced: bool,
    /// Only these: SEEDER:DOWNLOADER
    #[arg(long, value_parser = cell)]
    cell: Vec<(Kind, Kind)>,
    /// Tries of a cell that should connect
    #[arg(long, default_value_t = 3)]
    tries: u32,
    /// Tries of a cell that should not, or only by luck
    #[arg(long, default_value_t = 1)]
    tries_of_others: u32,
    /// Cells at the same time
    #[arg(long, default_value_t = 4)]
    parallel: usize,
    /// Percent of packets that the core loses, each way
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    loss: u8,
    /// Write the tables here
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write every try here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn cell(text: &str) -> Result<(Kind, Kind), String> {
    let (a, b) = text.split_once(':').ok_or("write SEEDER:DOWNLOADER")?;
    Ok((a.parse()?, b.parse()?))
}

fn site(text: &str) -> Result<Site, String> {
    let (name, rest) = text.split_once('=').ok_or("write NAME=KIND")?;
    let mut words = rest.split(',');
    let kind = words.next().unwrap_or_default().parse()?;
    let mut site = Site::new(name, kind);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let bad = |_| format!("{word:?}: not a number");
        match (key, value) {
            ("peers", n) => site.peers = n.parse().map_err(bad)?,
            ("rate", n) => site.rate_mbit = Some(n.parse().map_err(bad)?),
            ("hairpin", "") => site.hairpin = true,
            ("ipv6", "open") => site.ipv6 = Ipv6::Open,
            ("ipv6", "firewall") => site.ipv6 = Ipv6::Firewall,
            _ => return Err(format!("{word:?} is not one of peers=N, hairpin, rate=MBIT, ipv6=open, ipv6=firewall")),
        }
    }
    Ok(site)
}

fn server(text: &str) -> Result<(String, u8), String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let count = count.parse().ok().filter(|n| (1..=8).contains(n)).ok_or("a server has 1 to 8 addresses")?;
    Ok((name.to_owned(), count))
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarmedge-natlab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Check => {
            require::check()?;
            println!("ready: every kind of router can be built here");
        }
        Command::Kinds => kinds(),
        Command::Rules { kind } => {
            for (router, text) in rules(kind) {
                println!("# {router}\n{text}");
            }
        }
        Command::Up(args) => show(&Lab::up(&plan(args, Some(cli.lab))?)?),
        Command::Run { up, command } => {
            let lab = Lab::up(&plan(up, None)?)?;
            lab.share()?;
            let (program, args) = command.split_first().ok_or_else(|| Error("no command is given".into()))?;
            let ran = process::Command::new(program).args(args).env("SWARMEDGE_NATLAB", &lab.state().lab).status();
            let status = ran.map_err(|e| Error(format!("cannot run {program}: {e}")))?;
            if !status.success() {
                return Err(Error(format!("{program}: {status}")));
            }
        }
        Command::Show { json } => {
            let lab = Lab::open(&cli.lab)?;
            if json {
                let text = serde_json::to_string_pretty(lab.state()).map_err(|e| Error(e.to_string()))?;
                println!("{text}");
            } else {
                show(&lab);
            }
        }
        Command::Exec { node, command } => {
            let (program, args) = command.split_first().ok_or_else(|| Error("no command is given".into()))?;
            // becomes the command: signals, exit code and terminal are its own
            let error = Lab::open(&cli.lab)?.command(&node, program)?.args(args).exec();
            return Err(Error(format!("cannot run ip: {error}; install the package iproute2")));
        }
        Command::Flush { site } => Lab::open(&cli.lab)?.flush(&site)?,
        Command::Rebind { site } => println!("{site} is now seen as {}", Lab::open(&cli.lab)?.rebind(&site)?),
        Command::Matrix(args) => measure(&args)?,
        Command::Lose { percent } => Lab::open(&cli.lab)?.lose(percent)?,
        Command::Sent { node } => sent(&Lab::open(&cli.lab)?, &node)?,
        Command::Down { all: true } => janitor::labs()?.iter().try_for_each(|lab| janitor::remove(lab))?,
        Command::Down { all: false } => janitor::remove(&cli.lab)?,
    }
    Ok(())
}

fn plan(args: UpArgs, name: Option<String>) -> Result<Plan, Error> {
    require::check()?;
    let one_of_each = || Kind::ALL.into_iter().map(|k| Site::new(k.name(), k)).collect();
    let sites = if args.sites.is_empty() { one_of_each() } else { args.sites };
    Ok(Plan { name, servers: args.servers, sites })
}

fn measure(args: &MatrixArgs) -> Result<(), Error> {
    require::check()?;
    let output = |program: &str, args: &[&str]| {
        let out = process::Command::new(program).args(args).output().map_err(|e| Error(format!("{program}: {e}")))?;
        Ok::<_, Error>(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let cells = match (args.reduced, args.cell.is_empty()) {
        (true, _) => matrix::reduced_cells(),
        (false, true) => matrix::all_cells(),
        (false, false) => args.cell.clone(),
    };
    let (mut reports, mut surprises) = (Vec::new(), Vec::new());
    for program in &args.programs {
        let program = program.canonicalize().map_err(|e| Error(format!("{}: {e}", program.display())))?;
        let version = output(&program.display().to_string(), &["--version", "--json"])?;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap_or_default();
        let options = Options {
            program,
            cells: cells.clone(),
            tries: args.tries,
            tries_of_others: args.tries_of_others,
            parallel: args.parallel,
            loss_percent: args.loss,
        };
        let tell = |cell: &Cell| {
            let ok = cell.tries.iter().filter(|t| t.connected).count();
            eprintln!("{:>22} -> {:22} {ok}/{}", cell.seeder, cell.downloader, cell.tries.len());
        };
        let report = Report {
            runtime: version["runtime"].as_str().unwrap_or("unknown").to_owned(),
            date: output("date", &["-u", "+%F"])?,
            kernel: output("uname", &["-r"])?,
            loss_percent: args.loss,
            cells: matrix::measure(&options, &tell)?,
        };
        println!("{}", report.to_markdown());
        surprises.extend(report.surprises().iter().map(|c| format!("{} -> {}", c.seeder, c.downloader)));
        reports.push(report);
    }
    let write = |file: &Option<PathBuf>, text: String| match file {
        Some(file) => fs::write(file, text).map_err(|e| Error(format!("write {}: {e}", file.display()))),
        None => Ok(()),
    };
    write(&args.markdown, reports.iter().map(Report::to_markdown).collect::<Vec<_>>().join("\n"))?;
    write(&args.json, serde_json::to_string_pretty(&reports).map_err(|e| Error(e.to_string()))?)?;
    if surprises.is_empty() {
        return Ok(());
    }
    Err(Error(format!("not as it should be: {}", surprises.join(", "))))
}

fn kinds() {
    for kind in Kind::ALL {
        println!("{:24} {}", kind.name(), kind.describe());
    }
    println!("\nPairs that connect over UDP (p: where the next port is predicted, b: by birthday probing only):\n");
    let head: String = Kind::ALL.iter().map(|k| format!("{:>6}", k.short())).collect();
    println!("{:24}{head}", "");
    for a in Kind::ALL {
        let cell = |b: &Kind| match expected(a, *b) {
            swarmedge_natlab::Expect::Connects => "yes",
            swarmedge_natlab::Expect::ByPrediction => "p",
            swarmedge_natlab::Expect::ByBirthday => "b",
            swarmedge_natlab::Expect::Never => "-",
        };
        let row: String = Kind::ALL.iter().map(|b| format!("{:>6}", cell(b))).collect();
        println!("{:24}{row}", a.name());
    }
}

fn show(lab: &Lab) {
    println!("lab {}", lab.state().lab);
    for (name, node) in &lab.state().nodes {
        let role = format!("{:?}", node.role).to_lowercase();
        let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        let seen = node.site.as_ref().and_then(|site| lab.outside(site).ok());
        let seen = seen.filter(|a| !node.addresses.contains(&(*a).into()));
        let seen = seen.map(|a| format!("  seen as {a}")).unwrap_or_default();
        println!("  {name:28} {role:7} {}{seen}", addresses.join(" "));
    }
}

fn sent(lab: &Lab, node: &str) -> Result<(), Error> {
    let Ok(counts) = lab.sent(node) else {
        lab.count_sent(node)?;
        println!("counting; ask again for the figures");
        return Ok(());
    };
    for (to, packets) in counts {
        println!("{packets:>10}  {to}");
    }
    Ok(())
}
