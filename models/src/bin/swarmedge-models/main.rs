//! Model checker of the production state machines: `check` explores every state of every model and requires that each
//! seeded defect is found, `explore` opens stateright's explorer in a browser.

mod month;
mod print;
mod simulate;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use swarmedge_models::check::AnyModel;
use swarmedge_models::month::{Config, Defect};
use swarmedge_models::{
    blames, clones, control, discovery, download, grants, logs, mapping, notices, offers, punching, quarantine,
    receipts, rekey, spool, toy, usage,
};

/// Proofs of Swarmedge's state machines.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explore every state of every model: all rules hold, all seeded defects are found.
    Check {
        /// Check only the model of this name.
        #[arg(long)]
        only: Option<String>,
        /// Print one line of JSON for each model.
        #[arg(long)]
        json: bool,
        /// Number of threads; all processors by default.
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Simulate whole deployments under random faults, one for each seed.
    Simulate {
        /// Number of seeds to simulate.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// First seed to simulate.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Simulate this seed alone.
        #[arg(long, conflicts_with_all = ["seeds", "first"])]
        seed: Option<u64>,
        /// Play the script in this file, as a failed seed prints it.
        #[arg(long, conflicts_with_all = ["seeds", "first", "seed"])]
        script: Option<std::path::PathBuf>,
        /// Print a script without the steps that do not matter, if the one in the file fails.
        #[arg(long, requires = "script")]
        shorten: bool,
        /// Print every step, and every input and output of each machine.
        #[arg(long, requires = "script")]
        trace: bool,
    },
    /// Simulate a month of downloads with liars, cliques and cloned installations, settle it, and find who cheated.
    Month {
        /// Number of downloads, those that cliques fake not included; everything else is scaled with it.
        #[arg(long, default_value_t = Config::MONTH.downloads, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
        downloads: u32,
        /// Seed that determines the month.
        #[arg(long, default_value_t = Config::MONTH.seed)]
        seed: u64,
        /// Seed this defect, which must break one of the month's promises.
        #[arg(long, value_name = "NAME", value_parser = Defect::ALL.map(Defect::name))]
        defect: Option<String>,
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Walk through a model in a browser.
    Explore {
        /// Name of the model.
        name: String,
        /// Explore the model with this seeded defect (counted from 0).
        #[arg(long)]
        tooth: Option<usize>,
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:3000")]
        listen: String,
    },
}

/// Returns all models, in the order in which they are checked.
fn models() -> Vec<Box<dyn AnyModel>> {
    vec![
        Box::new(toy::model::spec()),
        Box::new(download::model::spec()),
        Box::new(control::model::spec()),
        Box::new(usage::model::spec()),
        Box::new(offers::model::spec()),
        Box::new(logs::model::crashes()),
        Box::new(logs::model::forks()),
        Box::new(spool::model::crashes()),
        Box::new(spool::model::breaks()),
        Box::new(receipts::model::repeats()),
        Box::new(receipts::model::crashes()),
        Box::new(grants::model::spec()),
        Box::new(clones::model::offline()),
        Box::new(clones::model::reordered()),
        Box::new(rekey::model::copies()),
        Box::new(rekey::model::alone()),
        Box::new(quarantine::model::spec()),
        Box::new(notices::model::spec()),
        Box::new(blames::model::spec()),
        Box::new(discovery::model::home()),
        Box::new(discovery::model::listening()),
        Box::new(discovery::model::symmetric()),
        Box::new(discovery::model::restricted()),
        Box::new(mapping::model::forgotten()),
        Box::new(mapping::model::renewed()),
        Box::new(mapping::model::by_natpmp()),
        Box::new(mapping::model::client_stops()),
        Box::new(mapping::model::moved()),
        Box::new(punching::model::homes()),
        Box::new(punching::model::learned()),
        Box::new(punching::model::hopeless()),
        Box::new(punching::model::timers_fire_early()),
        Box::new(punching::model::over_tcp()),
        Box::new(punching::model::uploader_dials()),
        Box::new(punching::model::crossing()),
        Box::new(punching::model::refused()),
    ]
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("swarmedge-models: {why}");
            ExitCode::from(2)
        }
    }
}

/// Runs a command; returns whether everything held.
fn run(command: Command) -> Result<bool, String> {
    match command {
        Command::Check { only, json, threads } => check(only.as_deref(), json, threads),
        Command::Simulate { script: Some(file), shorten, trace, .. } => {
            let text = std::fs::read_to_string(&file).map_err(|why| format!("{}: {why}", file.display()))?;
            simulate::replay(&text, trace, shorten)
        }
        Command::Simulate { seeds, first, seed, .. } => {
            let all = seed.map_or(first..first.saturating_add(seeds), |s| s..s.saturating_add(1));
            Ok(simulate::run(all))
        }
        Command::Month { downloads, seed, defect, json } => {
            let scaled = |n: u32| u64::from(n) * u64::from(downloads) / u64::from(Config::MONTH.downloads);
            let scaled = |n: u32| u32::try_from(scaled(n)).unwrap_or(u32::MAX).max(1);
            let of = Config::MONTH;
            let (clients, cliques, objects) = (scaled(of.clients), scaled(of.cliques), scaled(of.objects).max(150));
            let defect = defect.as_deref().and_then(month::defect);
            Ok(month::play(Config { clients, downloads, cliques, objects, seed, defect, ..of }, json))
        }
        Command::Explore { name, tooth, listen } => {
            let [model] = &named(Some(&name))?[..] else { return Err(format!("several models are called {name}")) };
            model.explore(&listen, tooth)?;
            Ok(true)
        }
    }
}

fn check(only: Option<&str>, json: bool, threads: Option<usize>) -> Result<bool, String> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut good = true;
    let models = if only == Some(MONTH) { Vec::new() } else { named(only)? };
    for model in models {
        let report = model.check(threads);
        good &= report.is_good();
        if json {
            println!("{}", print::json(&report));
        } else {
            print!("{}", print::text(&report));
        }
    }
    if only.is_none_or(|name| name == MONTH) {
        good &= month::check(json);
    }
    Ok(good)
}

/// Name by which `only` of [`check`] selects the small simulated month, which is played after the models.
const MONTH: &str = "month";

fn named(only: Option<&str>) -> Result<Vec<Box<dyn AnyModel>>, String> {
    let mut all = models();
    let names = all.iter().map(|m| m.name()).collect::<Vec<_>>().join(", ");
    if let Some(name) = only {
        all.retain(|m| m.name() == name);
        if all.is_empty() {
            return Err(format!("no model is called {name}; there are: {names}, {MONTH}"));
        }
    }
    Ok(all)
}
