//! The lab as a command-line tool: builds a lab, runs commands in it, disturbs it, removes it.

mod measure;

use clap::{Args, Parser, Subcommand};
use measure::{LossArgs, MATRIX_HELP, MatrixArgs, PageArgs, WholeArgs};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{self, ExitCode};
use std::time::Duration;
use swarmedge_natlab::plan::{Ipv6, Site};
use swarmedge_natlab::{Error, Kind, Lab, Plan, delay, expected, janitor, latency, require, rules};

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
    /// Name of the lab
    #[arg(short, long, global = true, default_value = "lab0", env = "SWARMEDGE_NATLAB")]
    lab: String,
    /// Command to run.
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
        /// Kind of NAT.
        kind: Kind,
    },
    /// Build a lab and keep it
    Up(UpArgs),
    /// Build a lab, run a command on the host, take the lab down whatever happens
    Run {
        /// Sites and servers of the lab.
        #[command(flatten)]
        up: UpArgs,
        /// Command to run; `swarmedge-natlab exec` inside it finds the lab.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show the nodes of the lab
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command inside a node
    Exec {
        /// Name of a server, peer or router, or `core`.
        node: String,
        /// Command to run in the node.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// A site's routers forget every mapping
    Flush {
        /// Name of the site.
        site: String,
    },
    /// A site gets another address and forgets every mapping
    Rebind {
        /// Name of the site.
        site: String,
    },
    /// Lose a share of all packets that cross the core, each way
    Lose {
        /// Packets to lose, in percent; 0 ends the loss.
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
    },
    /// Count the UDP packets that a peer sends, by where they go: begins counting, then shows
    Sent {
        /// Name of the peer.
        node: String,
    },
    /// Download between every pair of kinds with real binaries, and print the table
    #[command(after_help = MATRIX_HELP)]
    Matrix(MatrixArgs),
    /// Connect pairs that can be connected while packets are lost, and print how many do
    Loss(LossArgs),
    /// Measure everything: pairs, forced pairs, skews, losses
    Whole(WholeArgs),
    /// Print the page of earlier measurements
    Page(PageArgs),
    /// Forward TCP connections to a server and delay what comes back
    #[command(hide = true)]
    DelayTcp {
        /// Address of the server.
        to: SocketAddr,
        /// Delay in milliseconds.
        ms: u64,
    },
    /// Hold back every packet that is queued
    #[command(hide = true)]
    DelayPackets {
        /// Delay in microseconds.
        us: u64,
    },
    /// Take the lab down, whatever runs inside
    Down {
        /// Take down all labs of this machine.
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
            // replaces this process, so that signals, exit code and terminal are the command's
            let error = Lab::open(&cli.lab)?.command(&node, program)?.args(args).exec();
            return Err(Error(format!("cannot run ip: {error}; install the package iproute2")));
        }
        Command::Flush { site } => Lab::open(&cli.lab)?.flush(&site)?,
        Command::Rebind { site } => println!("{site} is now seen as {}", Lab::open(&cli.lab)?.rebind(&site)?),
        Command::Matrix(args) => measure::pairs(&args)?,
        Command::Loss(args) => measure::loss(&args)?,
        Command::Whole(args) => measure::whole(&args)?,
        Command::Page(args) => measure::page(&args)?,
        Command::DelayTcp { to, ms } => delay::serve(to, Duration::from_millis(ms))?,
        Command::DelayPackets { us } => latency::serve(Duration::from_micros(us))?,
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
