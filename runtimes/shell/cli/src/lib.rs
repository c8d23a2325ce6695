//! The command line: parses the arguments, runs one command, and turns its error into one clear line and an exit code.
// tests may match one variant of an enum with a wildcard for the rest
// printing goes through `terminal::out`, since `println!` panics on a closed pipe
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

mod accept_loss;
pub mod args;
mod audit;
pub mod bench;
mod certificates;
mod client;
pub mod config;
pub mod demo;
mod detect;
pub mod init;
mod ledger;
mod manual;
mod nat;
mod objects;
pub mod process;
mod quarantine;
mod reload;
mod report;
mod serve;
pub mod stop;

use args::{
    BenchCommand, Cli, ClientCommand, Command, Global, KeysCommand, LedgerArgs, LedgerCommand, Role, ServerArgs,
    Switch, TorrentCommand,
};
use clap::Parser;
use client::state_of;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use swarmedge_client::client::{commands, why};
use swarmedge_ground::error::{Code, Error};
use swarmedge_ground::ops;
use swarmedge_ground::rt::Start;
use swarmedge_ground::terminal::log;
use swarmedge_ground::terminal::out::{note, print_json, print_result, say};

/// Runs the whole program on runtime `R` and returns its exit code.
#[must_use]
pub fn main<R: Start>() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let json = cli.global.json;
    // write the last lines of the log before the error's line and the end of the process
    let ended = run::<R>(cli);
    log::drain();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, json);
            ExitCode::from(error.code() as u8)
        }
    }
}

fn run<R: Start>(cli: Cli) -> Result<(), Error> {
    if cli.global.version {
        return print_version::<R>(cli.global.json);
    }
    let Some(command) = cli.command else {
        return Err(Error::usage("no command is given").next("see --help"));
    };
    dispatch::<R>(&cli.global, command)
}

/// Prints help or a usage error of clap; a usage error as JSON if `--json` is given.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked_for_json = std::env::args_os().any(|a| a == "--json");
    if error.use_stderr() && asked_for_json {
        report(&Error::usage(in_one_line(&error.to_string())).next("see --help"), true);
        return ExitCode::from(Code::Usage as u8);
    }
    let printed = error.print();
    if error.use_stderr() {
        // if printing fails, the exit code still tells
        return ExitCode::from(Code::Usage as u8);
    }
    match print_result(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, false);
            ExitCode::from(error.code() as u8)
        }
    }
}

/// Returns the part of clap's error before the usage, in one line: the arguments concerned and the possible values.
fn in_one_line(text: &str) -> String {
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let said: Vec<&str> = said.map(str::trim).filter(|line| !line.is_empty()).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

/// Prints an error, unless the user has seen it.
fn report(error: &Error, json: bool) {
    if error.is_told() {
        // nothing is left to say
    } else if json {
        // a failed print cannot be reported anywhere
        let _ = print_json(&error.to_json());
    } else {
        note!("swarmedge: {error}");
    }
}

/// Returns the name of the binary with this runtime.
fn name_of<R: Start>() -> String {
    if R::NAME == "tokio" { "swarmedge".into() } else { format!("swarmedge-{}", R::NAME) }
}

fn print_version<R: Start>(json: bool) -> Result<(), Error> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        say!("{}", serde_json::json!({"name": name_of::<R>(), "version": version, "runtime": R::NAME}))
    } else {
        say!("swarmedge {version} ({})", R::NAME)
    }
}

/// Runs one command; each arm is one line that calls the module of the command.
fn dispatch<R: Start>(global: &Global, command: Command) -> Result<(), Error> {
    ops::init_logs(global.log.as_deref().or(default_log(&command)))?;
    let (json, parent) = (global.json, global.exit_with_parent);
    let one = |role, args: &ServerArgs| serve::run::<R>(&[role], &args.config.config, parent);
    match command {
        Command::Demo(args) => demo::run(&args, json, &ledger::ask::<R>),
        Command::Init(args) => init::run(&args, json),
        Command::Certificates(command) => certificates::run(&command, json),
        Command::Publish(args) => objects::publish(&args, json),
        Command::Objects(args) => objects::list(&args, json),
        Command::Policy(args) => objects::set_policy(&args, json),
        Command::Unpublish(args) => objects::unpublish(&args, json),
        Command::Keys(KeysCommand::Rotate(args)) => objects::rotate_keys(&args.config, json),
        Command::ProviderKeys(command) => objects::provider_keys(&command, json),
        Command::Edge(args) => one(Role::Edge, &args),
        Command::Cn(args) => one(Role::Cn, &args),
        Command::Dn(args) => one(Role::Dn, &args),
        Command::Stun(args) => one(Role::Stun, &args),
        Command::Ledger(LedgerArgs { command: None, server }) => one(Role::Ledger, &server),
        Command::Serve(args) => serve::run::<R>(&args.roles, &args.config.config, parent),
        Command::Ledger(LedgerArgs { command: Some(command), .. }) => match command {
            LedgerCommand::Show(args) => ledger::show::<R>(&args, json),
            LedgerCommand::Forks(args) => ledger::forks::<R>(&args, json),
            LedgerCommand::CloseDay(args) => audit::close_day::<R>(&args, json),
            LedgerCommand::Export(args) => audit::export_days::<R>(&args, json),
            LedgerCommand::Backup(args) => ledger::back_up::<R>(&args, json),
            LedgerCommand::Erase(args) => ledger::erase::<R>(&args, json),
        },
        Command::AcceptLoss(args) => accept_loss::run::<R>(&args, json),
        Command::Report(args) => report::run::<R>(&args, json),
        Command::Detect(args) => detect::run::<R>(&args, json),
        Command::Quarantine(command) => quarantine::run::<R>(&command, json),
        Command::Audit(args) => audit::audit(&args, json),
        Command::Bench(BenchCommand::Transfer(args)) => bench::transfer(&args, json),
        Command::Bench(BenchCommand::Receipts(args)) => bench::receipts::run(&args, json),
        Command::Bench(BenchCommand::Crash(args)) => bench::crash::run::<R>(&args, json),
        Command::Bench(BenchCommand::Ledger(args)) => bench::ledger::run::<R>(&args, json),
        Command::Client(ClientCommand::Run(args)) => client::run::<R>(&args, parent),
        Command::Get(args) => client::get::<R>(args, json),
        Command::Status(args) => commands::status(&state_of(&args)?, json),
        Command::Nat(args) => nat::run::<R>(args, json),
        Command::Why(args) => why::why(&state_of(&args.client)?, args.name.as_deref(), args.addresses, json),
        Command::Pause(args) => commands::pause(&state_of(&args.client)?, json, &args.name),
        Command::Resume(args) => commands::resume(&state_of(&args.client)?, json, &args.name),
        Command::Cancel(args) => commands::cancel(&state_of(&args.client)?, json, &args.name),
        Command::Uploads(args) => commands::uploads(&state_of(&args.client)?, json, args.switch == Switch::On),
        Command::Cache(command) => client::cache(&command, json),
        Command::Torrent(TorrentCommand::Export(args)) => objects::export(&args, json),
        Command::Completions(args) => manual::completions::<R>(&args, json),
        Command::Man(args) => manual::man::<R>(&args, json),
    }
}

/// Returns the log filter if the user sets none: the default (`info`) for long-running processes, `warn` for other
/// commands and for a client on a terminal.
fn default_log(command: &Command) -> Option<&'static str> {
    let log_is_set = std::env::var_os("RUST_LOG").is_some();
    let stays = match command {
        Command::Edge(_) | Command::Cn(_) | Command::Dn(_) | Command::Stun(_) | Command::Serve(_) => true,
        Command::Ledger(args) => args.command.is_none(),
        // on a terminal others write, too: programs' bars, the shell's prompt
        Command::Client(_) => !std::io::stderr().is_terminal(),
        Command::Demo(_) | Command::Bench(_) | Command::Init(_) | Command::Certificates(_) | Command::Torrent(_) => {
            false
        }
        Command::Publish(_)
        | Command::Objects(_)
        | Command::Policy(_)
        | Command::Unpublish(_)
        | Command::ProviderKeys(_)
        | Command::Keys(_) => false,
        Command::Nat(_)
        | Command::Get(_)
        | Command::Status(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Cancel(_) => false,
        Command::Uploads(_)
        | Command::Cache(_)
        | Command::Why(_)
        | Command::Audit(_)
        | Command::AcceptLoss(_)
        | Command::Report(_)
        | Command::Detect(_)
        | Command::Quarantine(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    };
    (!log_is_set && !stays).then_some("warn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_in_one_line_names_missing_arguments_and_values() {
        let said = |args: &[&str]| {
            let error = Cli::try_parse_from([&["swarmedge"], args].concat()).expect_err("a slip");
            in_one_line(&error.to_string())
        };
        let missing = said(&["publish", "file"]);
        assert!(missing.contains("--provider <N>") && missing.contains("--path <PATH>"), "{missing}");
        let unknown = said(&["report", "--format", "cvs"]);
        assert!(unknown.contains("'cvs'") && unknown.contains("html"), "{unknown}");
        for line in [missing, unknown] {
            assert!(!line.contains('\n') && !line.contains("Usage") && !line.starts_with("error"), "{line}");
        }
    }
}
